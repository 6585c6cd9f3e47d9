"""What the command line tools share: how they log, and how they fail."""

import argparse
import contextlib
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import NoReturn

from absl import logging as absl_logging

from lsanet_jax.errors import INTERRUPTED, ConfigError, Interrupted, LSANetError
from lsanet_jax.runtime import compiled, streams


def run(tool: Callable[[], None]) -> None:
    """Call a tool; an error of the user's is one line on stderr, and exit code 2.

    A run that a signal ended, and that can be resumed, has exit code 75 (EX_TEMPFAIL).
    """
    streams.ensure()
    logger = logging.getLogger("lsanet_jax")
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler(sys.stderr))
    logger.propagate = False
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # of `__main__.start`
        signal.signal(signal.SIGINT, signal.default_int_handler)
    compiled.keep()
    if isinstance(sys.stdout, io.TextIOWrapper):  # a path may hold bytes that are not text
        sys.stdout.reconfigure(errors="backslashreplace")
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax reports every file that it touches
    try:
        with needing_a_device():
            tool()
    except Interrupted as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        sys.exit(INTERRUPTED)
    except LSANetError as error:
        fail(error)
    except MemoryError as error:
        fail(
            f"not enough memory ({error}): lower config.train.batch_size or the size of the images"
        )
    except RuntimeError as error:  # of JAX, which need not be imported here
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        fail(
            "not enough memory on the device: lower config.train.batch_size, eval.batch_size or "
            f"data.image_size, or set model.dtype=bfloat16 ({str(error).splitlines()[0][:200]})"
        )
    except KeyboardInterrupt:  # training and sweeps have their own way to end
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:  # whoever reads our output has seen enough
        sys.exit(0)
    except OSError as error:  # a path of the user's that nothing above could name better
        fail(f"{error.filename or ''}: {error.strerror or error}".removeprefix(": "))


@contextlib.contextmanager
def needing_a_device() -> Iterator[None]:
    """Name JAX's settings if an unexpected error comes of JAX having no device."""
    try:
        yield
    except (LSANetError, OSError, MemoryError):
        raise
    except Exception as error:
        if reason := _why_no_device():
            settings = sorted(
                f"{name}={value}"
                for name, value in os.environ.items()
                if name.startswith(("JAX_", "CUDA_VISIBLE_")) and "_CACHE_" not in name
            )
            raise ConfigError(
                f"JAX finds no device ({', '.join(settings) or 'JAX_PLATFORMS is not set'}): "
                f"{reason}. Correct or unset these variables, or set JAX_PLATFORMS=cpu"
            ) from error
        raise


def _why_no_device() -> str:
    """What JAX says if it cannot be imported or has no device; nothing if it has one."""
    try:
        import jax

        jax.devices()
    except Exception as error:  # noqa: BLE001 (an AssertionError without words, for one)
        return f"{type(error).__name__} {error}".strip()
    return ""


def fail(message) -> NoReturn:
    """Print an error and exit."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(2)


def program(module: str) -> str:
    """Name a command for its usage lines: as `lsanet` started it, else `python -m MODULE`."""
    return sys.argv[0] if sys.argv[0].startswith("lsanet ") else f"python -m {module}"


def parser(doc: str | None) -> argparse.ArgumentParser:
    """A parser for a tool that takes a run: it has the flag --workdir.

    Args:
      doc: the tool's docstring, for --help.
    """
    made = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    made.add_argument("--workdir", required=True, type=paths, help="folder of the run")
    return made


def path(text: str) -> str:
    """What a flag that names a file or a folder says, with ~ as the home folder.

    Raises:
      argparse.ArgumentTypeError: nothing, or "-".
    """
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty (of a variable that is not set?): name one")
    if text == "-":
        raise argparse.ArgumentTypeError("'-', a stream, is not supported: name a file")
    return os.path.expanduser(text)


def paths(text: str) -> str:
    """`path` of each of several, joined by commas."""
    return ",".join(map(path, text.split(",")))


def add_trust_code(parser: argparse.ArgumentParser) -> None:
    """Add the flag --trust_code, for `trained.check_trusted`."""
    parser.add_argument(
        "--trust_code",
        action="store_true",
        help="import the module that a MODULE:CLASS backbone of the run names",
    )


def add_operating_point(parser: argparse.ArgumentParser) -> None:
    """Add the flags --sensitivity, --specificity and --coverage."""
    for name in ("sensitivity", "specificity"):
        parser.add_argument(
            f"--{name}",
            type=float,
            help=f"decide at the threshold that reaches this {name} on the validation split "
            "(default: Youden's index)",
        )
    parser.add_argument(
        "--coverage",
        type=float,
        help="probability with which a set holds the true class (default: 0.9)",
    )


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the flag --checkpoint, for `inference.load`."""
    parser.add_argument(
        "--checkpoint",
        default="selected",
        choices=("selected", "last"),
        help="the epoch: the one that the finished run reports (default), or the newest, which is "
        "not calibrated: its probabilities are the network's own, and nothing is decided",
    )
    add_trust_code(parser)
