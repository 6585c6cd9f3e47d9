"""Errors that a user can cause and fix. `main` prints them as one line and exits with code 2."""

import difflib
from collections.abc import Iterable

INTERRUPTED = 75
"""Exit code (EX_TEMPFAIL) of a run that saved its state and ended early; rerun it to resume."""


class LSANetError(Exception):
    """Base class: the message names the field or file, what was found, and what to do."""


class ConfigError(LSANetError, ValueError):
    """A config field is unknown, of the wrong type, or outside its choices."""


class DataError(LSANetError, ValueError):
    """A data file is missing, damaged, or not what the config says it is."""


class WorkdirError(LSANetError):
    """The workdir belongs to another run, or cannot be used."""


class TrainingError(LSANetError, RuntimeError):
    """Training cannot continue, for instance because the loss is not finite."""


class Interrupted(LSANetError):
    """A signal asked the work to end; what it takes to resume is saved. The exit code is 75."""


def check_has(value: object, field: str, name: str, expected: str) -> None:
    """Check that an argument is the kind of object that has a field; raises ConfigError."""
    if not hasattr(value, field):
        kind = type(value).__name__
        raise ConfigError(f"{name} is a {kind} without {field!r}, expected {expected}")


def near_matches(name: str, names: Iterable[str]) -> str:
    """Return '; did you mean ...?' for names that look alike, or nothing."""
    close = difflib.get_close_matches(name.lower(), list(names), n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""
