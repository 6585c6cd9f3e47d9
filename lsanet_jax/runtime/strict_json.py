"""Reading files that we wrote: regular files only, JSON of a known shape, errors that name a field.

A shape is a type (`float` takes integers too, `None` is null); a tuple of shapes, one of which
must fit; `[shape]` for a list; `{field: shape}` for an object with at least these fields, of which
`Maybe(shape)` may be missing; `Each(shape)` for an object with fields of any names; or `Any`.
"""

import hashlib
import io
import json
import math
import pathlib
import stat
from typing import Any, NamedTuple

from lsanet_jax.errors import WorkdirError

MAX_BYTES = 1 << 28  # of a file that is read as a whole
MAX_DEPTH = 32  # of lists and objects in each other; ours have 5
MAX_DIGITS = 18  # of an integer; all fit into 64 bits


class Maybe(NamedTuple):
    """The shape of a field that may be missing."""

    shape: Any


class Each(NamedTuple):
    """An object whose values are all of a shape, whatever their names."""

    shape: Any


def exists(path: pathlib.Path) -> bool:
    """Whether there is a file or folder.

    Raises:
      WorkdirError: it cannot be told, as the path is too long or a folder may not be searched.
    """
    try:
        return path.exists()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def read_json(file: pathlib.Path, shape: Any = dict) -> Any:
    """Read a JSON file of our own.

    Args:
      file: the file.
      shape: what it must hold, as the module's docstring says.

    Raises:
      WorkdirError: it cannot be read, is damaged, or has another shape; the field is named.
    """
    return parse(read_bytes(file), str(file), shape)


def read_json_lines(file: pathlib.Path, shape: Any = dict, *, cut: bool = False) -> list[Any]:
    """Read a file with a JSON value on each line; an empty list if there is no such file.

    Args:
      file: the file.
      shape: of each line.
      cut: leave out the end of a line whose writing a crash cut off.

    Raises:
      WorkdirError: it cannot be read, or a line is damaged; it is named.
    """
    lines = read_lines(file, cut=cut) if exists(file) else []
    return [parse(line, f"{file}: line {n}", shape) for n, line in enumerate(lines, start=1)]


def read_lines(file: pathlib.Path, *, cut: bool = False) -> list[bytes]:
    """Read the lines of a file; with `cut`, without a last one that has no end."""
    *lines, rest = read_bytes(file).split(b"\n")
    return lines + ([rest] if rest and not cut else [])


def read_bytes(file: pathlib.Path) -> bytes:
    """Read a file of our own as a whole.

    Raises:
      WorkdirError: it cannot be read, is not a regular file, or is larger than any of ours.
    """
    try:
        with open_regular(file) as stream:
            data = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(file, error) from error
    if len(data) > MAX_BYTES:
        raise WorkdirError(
            f"{file} is damaged (larger than {MAX_BYTES >> 20} MiB); restore it, or use another "
            "--workdir"
        )
    return data


def sha256_of(file: pathlib.Path) -> str:
    """SHA-256 in hex of a file.

    Raises:
      WorkdirError: it cannot be read, or is not a regular file.
    """
    try:
        with open_regular(file) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(file, error) from error


def open_regular(file: pathlib.Path) -> io.BufferedReader:
    """Open a file to read; never a pipe or a device, which could keep us waiting for ever.

    Raises:
      WorkdirError: it cannot be opened, or is not a regular file.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise WorkdirError(f"{file}: cannot be read (it is not a regular file)")
        return file.open("rb")
    except (OSError, ValueError) as error:  # ValueError: of a path with a null character
        raise _unreadable(file, error) from error


def parse(data: bytes, name: str, shape: Any = dict) -> Any:
    """Parse JSON strictly, and check its shape.

    Args:
      data: the text in UTF-8.
      name: of the file, for errors.
      shape: what it must hold, as the module's docstring says.

    Raises:
      WorkdirError: it is not such JSON; the field is named.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_number,
            object_pairs_hook=_object,
        )
        check_shape(value, shape)
        if isinstance(value, dict | list):
            _check_depth(value)
        return value
    except (ValueError, RecursionError) as error:
        found = "nested too deeply" if isinstance(error, RecursionError) else error
        raise WorkdirError(
            f"{name} is damaged ({found}); restore it, or use another --workdir"
        ) from error


def check_shape(value: Any, shape: Any, field: str = "") -> None:
    """Check that a JSON value has a shape; raises a ValueError that names the field."""
    if shape is Any:
        return
    choices = _choices(shape)
    shape = next((one for one in choices if _fits(value, one)), ...)
    if shape is ...:
        raise _wrong(value, choices, field)
    if isinstance(shape, list):
        for number, item in enumerate(value):
            check_shape(item, shape[0], f"{field}[{number}]")
    elif isinstance(shape, Each):
        for name, item in value.items():
            check_shape(item, shape.shape, f"{field}.{name}" if field else name)
    elif isinstance(shape, dict):
        for name, of in shape.items():
            inner = f"{field}.{name}" if field else name
            if name in value:
                check_shape(value[name], of.shape if isinstance(of, Maybe) else of, inner)
            elif not isinstance(of, Maybe):
                raise ValueError(f"{inner} is missing")


def _fits(value: Any, shape: Any) -> bool:
    """Whether a value is of a shape's type, whatever it holds."""
    if shape is None:
        return value is None
    if isinstance(shape, list | dict | Each):
        return isinstance(value, _type(shape))
    if isinstance(value, bool):
        return shape is bool
    return isinstance(value, (int, float) if shape is float else shape)


def _choices(shape: Any) -> tuple:
    return shape if isinstance(shape, tuple) and not isinstance(shape, Each) else (shape,)


def _wrong(value: Any, choices: tuple, field: str) -> ValueError:
    expected = " or ".join(_WORDS[one if one is None else _type(one)] for one in choices)
    found = json.dumps(value)
    found = found if len(found) <= 40 else f"{found[:40]}..."
    return ValueError(f"{field + ' is' if field else 'found'} {found}, expected {expected}")


def _type(shape: Any) -> type:
    if isinstance(shape, type):
        return shape
    return list if isinstance(shape, list) else dict


_WORDS = {
    None: "null",
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > MAX_DIGITS:
        raise ValueError(f"an integer of {len(text.lstrip('-'))} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a field is there twice")
    return made


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        inside = (x.values() if isinstance(x, dict) else x for x in level)
        level = [x for items in inside for x in items if isinstance(x, dict | list)]
        if not level:
            return
    raise RecursionError


def _unreadable(path: pathlib.Path, error: Exception) -> WorkdirError:
    reason = getattr(error, "strerror", None) or str(error)
    return WorkdirError(f"{path}: cannot be read ({reason})")
