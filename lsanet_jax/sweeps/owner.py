"""Who runs a sweep: one process at a time, and its tasks on other machines know whether it still does.

Like job.py for all machines of a cluster, so it loads nothing heavy.
"""

import contextlib
import os
import pathlib
import platform
import uuid
from collections.abc import Iterator

from lsanet_jax.errors import WorkdirError
from lsanet_jax.runtime.files import try_lock

LOCK = "lock"


@contextlib.contextmanager
def running(workdir: str | pathlib.Path, *, shared: bool = False) -> Iterator[str]:
    """Hold the lock of a sweep, so that no other process runs it; yields what `owns` asks for.

    Args:
      workdir: of the sweep.
      shared: others may hold it with `shared` too.

    Raises:
      WorkdirError: another process holds it, or it cannot be written to.
    """
    with contextlib.ExitStack() as held:
        try:
            stream = held.enter_context(pathlib.Path(workdir, LOCK).open("a+"))
        except OSError as error:
            raise WorkdirError(f"cannot write to --workdir={workdir}: {error}") from error
        with contextlib.suppress(OSError):  # Some network file systems have no locks.
            if not try_lock(stream, shared=shared):
                stream.seek(0)
                holder = stream.read().partition(",")[0] or "some with --job"
                raise WorkdirError(
                    f"another process runs the sweep in --workdir={workdir} ({holder}): wait until "
                    "it ends, or stop it"
                )
        token = "" if shared else f"process {os.getpid()} on {platform.node()}, {uuid.uuid4().hex}"
        stream.truncate(0)  # What a killed one may have left running ends with it.
        stream.write(token)
        stream.flush()
        try:
            yield token
        finally:
            stream.truncate(0)


def owns(workdir: str | pathlib.Path, token: str) -> bool:
    """Whether the process that got the token from `running` still runs the sweep."""
    try:
        return pathlib.Path(workdir, LOCK).read_text() == token
    except OSError:  # The network disk is away for a moment; else training says so.
        return True


def disown(workdir: str | pathlib.Path) -> None:
    """Make `owns` say no, within `running`: all tasks of the sweep stop."""
    os.truncate(pathlib.Path(workdir, LOCK), 0)
