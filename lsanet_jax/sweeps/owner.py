"""The process that runs a sweep: one at a time; its tasks on other machines know whether it lives.

Every machine of a cluster loads it, as it does job.py, so it imports nothing heavy.
"""

import contextlib
import os
import pathlib
import platform
import uuid
from collections.abc import Iterator

from lsanet_jax.errors import WorkdirError
from lsanet_jax.runs.layout import LOCK
from lsanet_jax.runtime.files import try_lock


@contextlib.contextmanager
def running(workdir: str | pathlib.Path, *, shared: bool = False) -> Iterator[str]:
    """Hold the lock of a sweep, so that no other process runs it; yield the token for `owns`.

    Args:
        workdir: of the sweep.
        shared: other processes may hold the lock too, if they also ask for it `shared`.

    Raises:
        WorkdirError: another process holds the lock, or it cannot be written.
    """
    with contextlib.ExitStack() as held:
        try:
            pathlib.Path(workdir).mkdir(parents=True, exist_ok=True)
            stream = held.enter_context(pathlib.Path(workdir, LOCK).open("a+"))
        except OSError as error:
            raise WorkdirError(f"cannot write to --workdir={workdir}: {error}") from error
        with contextlib.suppress(OSError):  # some network file systems have no locks
            if not try_lock(stream, shared=shared):
                stream.seek(0)
                holder = stream.read().partition(",")[0] or "one or more with --job"
                raise WorkdirError(
                    f"another process is running the sweep in --workdir={workdir} ({holder}): wait "
                    "until it ends, or stop it"
                )
        token = "" if shared else f"process {os.getpid()} on {platform.node()}, {uuid.uuid4().hex}"
        stream.truncate(0)  # tasks that a killed process has left behind now end
        stream.write(token)
        stream.flush()
        try:
            yield token
        finally:
            stream.truncate(0)


def owns(workdir: str | pathlib.Path, token: str) -> bool:
    """Tell whether the process that got the token from `running` still runs the sweep."""
    try:
        return pathlib.Path(workdir, LOCK).read_text() == token
    except OSError:  # the network disk is away for a moment; if for longer, training reports it
        return True


def disown(workdir: str | pathlib.Path) -> None:
    """Make `owns` return False while `running` is held, so that all tasks of the sweep stop."""
    os.truncate(pathlib.Path(workdir, LOCK), 0)
