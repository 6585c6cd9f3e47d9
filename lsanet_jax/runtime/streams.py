"""Standard output and error that are closed, or whose reader goes away."""

import contextlib
import os
import sys
from collections.abc import Iterator


def ensure() -> None:
    """Put os.devnull in the place of a closed stdout or stderr, which Python has as None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (until the process ends)


@contextlib.contextmanager
def reader_may_leave() -> Iterator[None]:
    """End quietly if whoever reads our output, such as `head`, has seen enough."""
    try:
        yield
    except BrokenPipeError:
        sys.exit(0)
    finally:
        try:
            sys.stdout.flush()
        except BrokenPipeError:  # Python would flush again at the end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
