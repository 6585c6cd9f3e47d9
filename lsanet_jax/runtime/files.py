"""Files that are whole or not there, strict JSON, and locks."""

import contextlib
import fcntl
import json
import logging
import math
import os
import pathlib
from collections.abc import Iterator
from typing import IO

from lsanet_jax.errors import WorkdirError

log = logging.getLogger(__name__)


def read_json(file: pathlib.Path) -> dict:
    """Read a JSON object of our own.

    Raises:
      WorkdirError: it is damaged.
    """
    try:
        content = json.loads(file.read_text())
        if not isinstance(content, dict):
            raise TypeError(f"found a {type(content).__name__}, expected an object")
        return content
    except (OSError, TypeError, ValueError) as error:
        raise WorkdirError(
            f"{file} is damaged ({error}); restore it, or use another --workdir"
        ) from error


def json_text(value, **kwargs) -> str:
    """JSON, strictly: what is not a finite number (an undefined AUC, say) becomes null."""

    def finite(value):
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(value), allow_nan=False, **kwargs) + "\n"


def write_atomically(file: pathlib.Path, text: str) -> None:
    """Write a file so that after a crash there is either the old one or the new one."""
    with replacing(file) as temporary, temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def replacing(file: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary file beside `file`, which takes its name and place when all went well."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(file)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def try_lock(file: IO, *, shared: bool = False) -> bool:
    """Keep other processes from locking an open file, until it is closed; False if one holds it.

    Those that want it `shared` can hold it together.
    """
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def lock(file: IO, what: str) -> None:
    """Like `try_lock`, but waits, and says so, while another process holds it."""
    if not try_lock(file):
        log.info("waiting for another process that %s", what)
        fcntl.flock(file, fcntl.LOCK_EX)
