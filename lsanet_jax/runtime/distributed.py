"""Start-up of training over several processes, whose devices together make one mesh."""

import logging
import os
import pathlib
import socket
import threading
from typing import Any, NamedTuple

from lsanet_jax.errors import ConfigError, TrainingError

log = logging.getLogger(__name__)

# Seconds: how long the processes wait for each other at the start; how long one may give no sign of
# life before it counts as lost; how long one that has ended waits for the others to end as well.
START_TIMEOUT = 300
HEARTBEAT_TIMEOUT = 30
SHUTDOWN_TIMEOUT = 60

# The launchers that jax can ask for the coordinator, and the variables in which they tell a process
# how many there are and which it is. Slurm's are those of the step: the shell that salloc opens has
# SLURM_NTASKS as well, and what runs in it is alone.
LAUNCHERS = {
    "Open MPI": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    "Slurm": ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
}


def initialize(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Connect this process to the others of its run; call it before anything uses a device.

    With all three arguments it waits until all processes have come. Without any it does so if
    Slurm or Open MPI has started several processes; otherwise it does nothing at all.

    From then on the processes watch each other. If one is lost (killed, its machine gone) jax
    ends all others within a minute, with exit code 134 and a message of its own, which begins
    "Terminating process because the JAX distributed service detected fatal errors". The same
    command for all processes resumes from the last checkpoint. A process that ends with an error
    is waited for in the same way. jax's collectives on CPU are gloo's, by default.

    SIGTERM no longer ends a process: jax notes it, for `interrupts`. Process 0 alone logs what is
    only informative.

    Args:
      coordinator: HOST:PORT, an address of the machine of process 0 and a free port there.
      num_processes: how many there are; one needs no coordinator, and does not connect.
      process_id: which of them this is, from 0.

    Raises:
      ConfigError: some arguments are missing, or one is wrong.
      TrainingError: the processes did not find each other.
    """
    if (coordinator, num_processes, process_id) == (None, None, None):
        process = _launched()
    else:
        process = _described(coordinator, num_processes, process_id)
    if process is None or process.count == 1:
        return
    arguments = process.arguments()
    if process.id != 0:
        logger = logging.getLogger("lsanet_jax")
        logger.setLevel(logging.WARNING)
        for handler in logger.handlers:
            handler.setFormatter(logging.Formatter(f"process {process.id}: %(message)s"))
    try:
        _connect(arguments)
    except TimeoutError:
        raise TrainingError(
            f"process {process.id} gave up after {START_TIMEOUT} s: {process.diagnosis()}"
        ) from None
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"process {process.id} of {process.count} cannot be connected to the others: "
            f"{error}{process.advice}"
        ) from error
    log.info("%d processes are connected", process.count)


class _Launched(NamedTuple):
    """A process as its launcher describes it, one of several."""

    launcher: str
    count: int
    id: int

    def arguments(self) -> dict[str, Any]:
        """What jax needs to know besides what it asks the launcher."""
        return {"local_device_ids": _gpus(self.launcher)}

    def diagnosis(self) -> str:
        """Why the others did not come."""
        return f"not all {self.count} processes of {self.launcher} came, or reach each other"

    @property
    def advice(self) -> str:
        """What to do if jax cannot ask the launcher."""
        return (
            f"; --coordinator, --num_processes and --process_id do without {self.launcher}'s help"
        )


class _Described(NamedTuple):
    """A process as its flags describe it, after `_described` checked them."""

    coordinator: str
    count: int
    id: int

    def arguments(self) -> dict[str, Any]:
        """What jax needs to know; raises ConfigError if process 0 cannot use the port."""
        if self.id == 0:
            _check_port_is_free(self.coordinator)
        return {
            "coordinator_address": self.coordinator,
            "num_processes": self.count,
            "process_id": self.id,
            "cluster_detection_method": "deactivate",
        }

    def diagnosis(self) -> str:
        """Why the others did not come."""
        return _diagnose(self.coordinator, self.count)

    advice = ""


def _launched() -> _Launched | None:
    """Ask who has started several processes, how many, and which this one is; None if nobody.

    Raises:
      ConfigError: a variable is no number.
    """
    for name, variables in LAUNCHERS.items():
        if all(variable in os.environ for variable in variables):
            count, rank = map(_integer_of, variables)
            if count > 1:
                return _Launched(name, count, rank)
    return None


def _integer_of(variable: str) -> int:
    value = os.environ[variable]
    if not value.isdecimal():
        raise ConfigError(f"the environment variable {variable} is {value!r}, expected an integer")
    return int(value)


def _gpus(launcher: str) -> list[int] | None:
    """Choose the GPUs of a process; None leaves it to jax, which takes that of its local number.

    That is right if the processes of a node see all its GPUs; one that is alone on its node, or
    that is shown no other GPU than its own, takes all that it sees.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = _count_gpus() if visible is None else sum(map(bool, visible.split(",")))
    if launcher == "Slurm":
        alone = os.environ.get("SLURM_STEP_NUM_NODES") == os.environ["SLURM_STEP_NUM_TASKS"]
    else:
        alone = os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
    if "JAX_LOCAL_DEVICE_IDS" in os.environ or not (alone or count == 1):
        return None
    return list(range(count)) or None


def _count_gpus() -> int:
    return len(list(pathlib.Path("/dev").glob("nvidia[0-9]*")))


def _described(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> _Described:
    """Check the flags; raises ConfigError."""
    if coordinator is None or num_processes is None or process_id is None:
        given = {
            "coordinator": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
        }
        missing = next(name for name, value in given.items() if value is None)
        raise ConfigError(
            f"--{missing} is missing: --coordinator, --num_processes and --process_id go together"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f"--coordinator={coordinator} is not HOST:PORT, with a port from 1 to 65535"
        )
    if num_processes < 1:
        raise ConfigError(f"--num_processes={num_processes}: expected 1 or more")
    if not 0 <= process_id < num_processes:
        raise ConfigError(
            f"--process_id={process_id}: expected 0 to {num_processes - 1}, "
            f"since --num_processes={num_processes}"
        )
    return _Described(coordinator, num_processes, process_id)


def _check_port_is_free(coordinator: str) -> None:
    """Check it here: jax would end in a segmentation fault."""
    address = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS", coordinator)
    port = int(address.rpartition(":")[2])
    dual = socket.has_dualstack_ipv6()
    try:
        family = socket.AF_INET6 if dual else socket.AF_INET
        socket.create_server(("", port), family=family, dualstack_ipv6=dual).close()
    except OSError as error:
        raise ConfigError(
            f"--coordinator={coordinator}: process 0 cannot listen on port {port} "
            f"({os.strerror(error.errno or 0)}); choose another port, the same for all processes"
        ) from None


def _connect(arguments: dict) -> None:
    """Call jax.distributed.initialize; a TimeoutError says that the others did not come."""
    import jax  # here: a wrong flag is reported without it, and most runs need nothing of this

    # The processes reach each other directly; gRPC takes an empty value for "no proxy".
    os.environ.setdefault("grpc_proxy", "")
    jax.config.update("jax_check_proxy_envs", False)
    errors: list[Exception] = []

    def connect():
        try:
            jax.distributed.initialize(
                # More than ours: when it is over, jax does not raise but aborts.
                initialization_timeout=2 * START_TIMEOUT,
                heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
                shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
                **arguments,
            )
        except Exception as error:  # noqa: BLE001 (raised below, in the main thread)
            errors.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(START_TIMEOUT)  # unlike jax's own waiting, Ctrl-C interrupts it
    if thread.is_alive():
        raise TimeoutError
    if errors:
        raise errors[0]


def _diagnose(coordinator: str, num_processes: int) -> str:
    host, _, port = coordinator.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
    except OSError as error:
        return (
            f"--coordinator={coordinator} cannot be reached ({error.strerror or error}); it must "
            "name the machine of process 0, process 0 must be running (its own messages may say "
            "more), and no firewall may block the port"
        )
    return (
        f"--coordinator={coordinator} answers, but not all of --num_processes={num_processes} "
        f"came; "
        "start every --process_id from 0 once, with the same --coordinator and --num_processes"
    )
