"""Files that are whole or not there, JSON and CSV as we write them, and locks."""

import contextlib
import errno
import fcntl
import json
import logging
import math
import os
import pathlib
from collections.abc import Iterator
from typing import IO

log = logging.getLogger(__name__)


def json_text(value, **kwargs) -> str:
    """JSON, strictly: what is not a finite number (an undefined AUC, say) becomes null."""

    def finite(value):
        if isinstance(value, dict):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(finite(value), allow_nan=False, **kwargs) + "\n"


def csv_cell(value):
    """A cell of a CSV file that no spreadsheet takes for a formula, as it may text of strangers."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def text_of_csv_cell(cell: str) -> str:
    """The text that `csv_cell` made a cell of."""
    return cell[1:] if cell[:1] == "'" and csv_cell(cell[1:]) == cell else cell


def write_atomically(file: pathlib.Path, text: str) -> None:
    """Write a file so that after a crash there is either the old one or the new one.

    Bytes of a path that are not text are written as escapes.
    """
    with (
        replacing(file) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace") as stream,
    ):
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


@contextlib.contextmanager
def replacing(file: pathlib.Path) -> Iterator[pathlib.Path]:
    """A temporary file beside `file`, which takes its name and place when all went well.

    Of a link its target is replaced; a device or a pipe is an OSError.
    """
    if not file.name:  # such as "." or "/"
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(file))
    file = file.resolve() if file.is_symlink() else file
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise OSError(errno.EINVAL, "is a device, a pipe or a socket, not a file", str(file))
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        temporary.unlink(missing_ok=True)  # A link of that name would be written through.
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
