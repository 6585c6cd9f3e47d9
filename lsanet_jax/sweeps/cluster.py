"""Ray: a cluster to join or to start here, and what it has for each run."""

import contextlib
import logging
import os
import socket
import sys
import threading
import types
from collections.abc import Iterator, Mapping

from lsanet_jax.errors import ConfigError
from lsanet_jax.runtime import cli
from lsanet_jax.runtime.cores import usable_cores
from lsanet_jax.sweeps.job import INTERRUPTED, Attempt

CONNECT_TIMEOUT = 30  # Seconds that a cluster may take to answer.
MAX_CORES = 4  # Of a run on CPU unless it is said: more make small networks little faster.


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[types.ModuleType]:
    """Ray, started here or connected to a cluster.

    Raises:
      ConfigError: it is not installed, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns of that
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "Ray is not installed: python -m pip install --no-deps -r requirements-sweep.txt; or use "
            "--job, which does without"
        ) from error
    try:
        _init(ray, address)
        yield ray
    except SystemExit as error:  # what Ray makes of SIGTERM while it starts
        raise KeyboardInterrupt from error
    finally:
        ray.shutdown()


def _init(ray: types.ModuleType, address: str | None) -> None:
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        _connect(ray, address, options)
        return
    ray.init(
        "local",
        num_cpus=usable_cores(),
        include_dashboard=False,
        object_store_memory=100 * 2**20,  # bytes; next to nothing goes through it
        _node_ip_address="127.0.0.1",  # nobody else's business
        **options,
    )


def _connect(ray: types.ModuleType, address: str, options: Mapping) -> None:
    advice = (
        "start its head with `ray start --head`, and Ray on this machine with `ray start "
        "--address=HEAD:6379`; launch/README.md says more"
    )
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ConfigError(f"--address={address} is neither HOST:PORT nor auto")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        except OSError as error:
            why = error.strerror or error
            raise ConfigError(f"--address={address} cannot be reached ({why}): {advice}") from error
    errors = []

    def init():
        try:
            ray.init(address, **options)
        except BaseException as error:  # noqa: BLE001 (raised below, in the main thread)
            errors.append(error)

    thread = threading.Thread(target=init, daemon=True)
    thread.start()
    thread.join(CONNECT_TIMEOUT)
    if thread.is_alive():
        _give_up(f"--address={address} has not answered for {CONNECT_TIMEOUT} s: {advice}")
    if errors:
        why = str(errors[0]).partition(". ")[0]
        raise ConfigError(f"--address={address} cannot be joined ({why}): {advice}") from errors[0]


def _give_up(message: str) -> None:
    """End with an error although a thread hangs in Ray, which would have to end first."""
    with contextlib.suppress(SystemExit):
        cli.fail(message)
    sys.stderr.flush()
    os._exit(2)


def share(
    ray: types.ModuleType, cpus_per_run: int | None, gpus_per_run: int | None
) -> tuple[int, int]:
    """Returns how many cores and GPUs each run takes.

    Args:
      ray: as `joined` has it.
      cpus_per_run: cores, if they are given.
      gpus_per_run: GPUs, likewise.

    Raises:
      ConfigError: no machine has so many.
    """
    machines = _machines(ray)
    most = lambda kind: max((int(machine.get(kind, 0)) for machine in machines), default=0)
    gpus = gpus_per_run if gpus_per_run is not None else min(1, most("GPU"))
    if gpus > most("GPU"):
        raise ConfigError(
            f"--gpus_per_run={gpus}: no machine has so many GPUs; the most is {most('GPU')}"
        )
    if not most("CPU"):
        raise ConfigError(
            "no machine of the cluster has a core for runs: start Ray on some with `ray start "
            "--address=HEAD:6379`, without --num-cpus=0"
        )
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    cpus = cpus_per_run or (1 if gpus else min(MAX_CORES, *cores))
    if not any(_fits(machine, cpus, gpus) for machine in machines):
        raise ConfigError(
            f"--cpus_per_run={cpus}: no machine has so many cores{' and a GPU' if gpus else ''}; the "
            f"most is {most('CPU')}"
        )
    return cpus, gpus


def slots(ray: types.ModuleType, cpus: int, gpus: int) -> int:
    """How many runs fit the cluster at a time."""
    return sum(_fits(machine, cpus, gpus) for machine in _machines(ray))


def _machines(ray: types.ModuleType) -> list[dict]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fits(machine: Mapping, cpus: int, gpus: int) -> int:
    """How many runs a machine can take at a time."""
    by_cores = int(machine.get("CPU", 0)) // cpus
    return min(by_cores, int(machine.get("GPU", 0)) // gpus) if gpus else by_cores


def attempt(ray: types.ModuleType, ref) -> Attempt:
    """How a task ended, also where Ray has lost it."""
    try:
        return Attempt(*ray.get(ref))
    except ray.exceptions.RayTaskError as error:  # its machine lacks the folder, say
        cause = error.cause or error
        return Attempt(1, f"{type(cause).__name__}: {cause}")
    except ray.exceptions.OutOfMemoryError:
        return Attempt(1, "Ray has ended it, since the memory of its machine was used up")
    except ray.exceptions.RayError as error:
        return Attempt(INTERRUPTED, f"its machine or process was lost ({type(error).__name__})")
