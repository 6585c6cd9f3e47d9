"""Ray: start it here or join a cluster, and share out its machines among the runs."""

import contextlib
import logging
import os
import secrets
import socket
import sys
import threading
import types
from collections.abc import Iterator, Mapping

from lsanet_jax.errors import INTERRUPTED, ConfigError
from lsanet_jax.runtime import cli
from lsanet_jax.runtime.cores import usable_cores
from lsanet_jax.sweeps.job import Attempt

CONNECT_TIMEOUT = 30  # seconds that a cluster may take to answer
MAX_CORES = 4  # of a run on CPU by default: more cores make small networks little faster


@contextlib.contextmanager
def joined(address: str | None) -> Iterator[types.ModuleType]:
    """Yield Ray, started here or connected to a cluster.

    Args:
        address: of the cluster's head, HOST:PORT or "auto"; None starts Ray on this machine.

    Raises:
        ConfigError: Ray is not installed, or the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else it warns about it
    _authenticate(new=address is None)
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "Ray is not installed: run `python -m pip install ray`, in a clone of the repository "
            "`python -m pip install --no-deps -r requirements-sweep.txt`, or use --job, which does "
            "not need it"
        ) from error
    try:
        _init(ray, address)
        yield ray
    except SystemExit as error:  # Ray's answer to SIGTERM while it starts
        raise KeyboardInterrupt from error
    finally:
        ray.shutdown()


def _authenticate(*, new: bool) -> None:
    """Choose the token that Ray's processes know each other by, before Ray is imported.

    A new Ray has one of its own: else it writes one into the home directory, where `ray start`
    finds it and then lets in only who has it. A cluster gets the user's token, if there is one; a
    cluster without a token does not look at it.
    """
    if new:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    named = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if named or os.path.isfile(os.path.expanduser("~/.ray/auth_token")):  # there may be no home
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _init(ray: types.ModuleType, address: str | None) -> None:
    options = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        _connect(ray, address, options)
        return
    ray.init(
        "local",
        num_cpus=usable_cores(),
        include_dashboard=False,
        object_store_memory=100 * 2**20,  # bytes; hardly anything goes through it
        _node_ip_address="127.0.0.1",  # nobody else needs to reach it
        **options,
    )


def _connect(ray: types.ModuleType, address: str, options: Mapping) -> None:
    advice = (
        "start its head with `ray start --head`, and Ray on this machine with `ray start "
        "--address=HEAD:6379`"
    )
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ConfigError(f"--address={address} must be HOST:PORT or auto")
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
        if "InvalidAuthToken" in str(errors[0].__cause__):
            why = "it asks for another token than this machine has"
            advice = (
                "copy ~/.ray/auth_token from the machine of its head, or set RAY_AUTH_TOKEN to "
                "what `ray get-auth-token` prints there"
            )
        raise ConfigError(f"--address={address} cannot be joined ({why}): {advice}") from errors[0]


def _give_up(message: str) -> None:
    """End with an error at once: a normal exit would wait for the thread that hangs in Ray."""
    with contextlib.suppress(SystemExit):
        cli.fail(message)
    sys.stderr.flush()
    os._exit(2)


def share(
    ray: types.ModuleType, cpus_per_run: int | None, gpus_per_run: int | None
) -> tuple[int, int]:
    """Choose how many cores and GPUs each run takes.

    Args:
        ray: from `joined`.
        cpus_per_run: cores, or None to choose.
        gpus_per_run: GPUs, or None to choose.

    Returns:
        Cores and GPUs of a run.

    Raises:
        ConfigError: no machine has that many.
    """
    machines = _machines(ray)
    most = lambda kind: max((int(machine.get(kind, 0)) for machine in machines), default=0)
    gpus = gpus_per_run if gpus_per_run is not None else min(1, most("GPU"))
    if gpus > most("GPU"):
        raise ConfigError(
            f"--gpus_per_run={gpus}: no machine has that many GPUs; the most is {most('GPU')}"
        )
    if not most("CPU"):
        raise ConfigError(
            "no machine of the cluster has a core for runs: start Ray on other machines with `ray "
            "start --address=HEAD:6379`, without --num-cpus=0"
        )
    cores = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1]
    cpus = cpus_per_run or (1 if gpus else min(MAX_CORES, *cores))
    if not any(_fits(machine, cpus, gpus) for machine in machines):
        raise ConfigError(
            f"--cpus_per_run={cpus}: no machine has that many cores{' and a GPU' if gpus else ''}; "
            f"the most is {most('CPU')}"
        )
    return cpus, gpus


def slots(ray: types.ModuleType, cpus: int, gpus: int) -> int:
    """Count the runs that the cluster can take at a time."""
    return sum(_fits(machine, cpus, gpus) for machine in _machines(ray))


def _machines(ray: types.ModuleType) -> list[dict]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fits(machine: Mapping, cpus: int, gpus: int) -> int:
    """Count the runs that a machine can take at a time."""
    by_cores = int(machine.get("CPU", 0)) // cpus
    return min(by_cores, int(machine.get("GPU", 0)) // gpus) if gpus else by_cores


def attempt(ray: types.ModuleType, ref) -> Attempt:
    """Tell how a task ended, also if Ray has lost it."""
    try:
        return Attempt(*ray.get(ref))
    except (
        ray.exceptions.RayTaskError
    ) as error:  # for instance because its machine lacks the folder
        cause = error.cause or error
        return Attempt(1, f"{type(cause).__name__}: {cause}")
    except ray.exceptions.OutOfMemoryError:
        return Attempt(1, "Ray ended it because the memory of its machine ran out")
    except ray.exceptions.RayError as error:
        return Attempt(INTERRUPTED, f"its machine or process was lost ({type(error).__name__})")
