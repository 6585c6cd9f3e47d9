"""The command `lsanet`: one name for the commands of the package, each of them a module."""

import importlib
import os
import signal
import sys

from lsanet_jax import __version__
from lsanet_jax.errors import ConfigError, near_matches
from lsanet_jax.runtime import cli, pages, streams

COMMANDS = {
    "train": ("lsanet_jax.main:run", "train a network and report it on the test split"),
    "predict": ("lsanet_jax.predict:main", "predict the classes of images with a run's network"),
    "evaluate": ("lsanet_jax.evaluate:main", "score a run's network on labelled images"),
    "audit": ("lsanet_jax.audit:main", "train a run again and compare it bit for bit"),
    "export": ("lsanet_jax.export:main", "take a run's network to PyTorch, ONNX or StableHLO"),
    "explain": ("lsanet_jax.explain:main", "show what the classifiers of a run looked at"),
    "calibrate": (
        "lsanet_jax.calibrate:main",
        "calibrate a run of an earlier version, which is not",
    ),
    "pretrain": ("lsanet_jax.main:pretrain", "train a backbone on images without labels"),
    "report": (
        "lsanet_jax.report.__main__:main",
        "the page of a run; a sweep beside the paper's tables",
    ),
    "data": (
        "lsanet_jax.data.__main__:main",
        "look at a set of images before training; prepare a MedMNIST set",
    ),
    "sweep": (
        "lsanet_jax.sweeps.run:main",
        "train the runs of a table of the paper, or of your own",
    ),
    "compare": (
        "lsanet_jax.report.compare:main",
        "train every method on your images, and say which one to take",
    ),
    "models": ("lsanet_jax.models.__main__:main", "list the backbones, their sizes and stages"),
}


def main() -> None:
    """Hand the command line to the module that the first argument names."""
    command, *_ = [*sys.argv[1:], "--help"]
    if command in ("--help", "-h", "help"):
        print(
            "usage: lsanet COMMAND [FLAGS]; lsanet COMMAND --help lists its flags; "
            "lsanet --version\n"
        )
        for name, (_, summary) in COMMANDS.items():
            print(f"  {name:10}{summary}")
        return
    if command == "--version":
        print(f"lsanet {__version__}")
        return
    if command not in COMMANDS:
        hint = near_matches(command, COMMANDS) or f": expected {', '.join(COMMANDS)}"
        print(f"error: lsanet has no command {command!r}{hint}", file=sys.stderr)
        sys.exit(2)
    module, _, function = COMMANDS[command][0].partition(":")
    sys.argv[:2] = [f"lsanet {command}"]  # what argparse calls the program
    try:
        folder = os.getcwd()
    except OSError:
        cli.fail("the current folder has been deleted: change to one that exists")
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)  # as python -m does: the user's own backbone may be there
    try:
        with cli.needing_a_device():
            imported = importlib.import_module(module)
    except ConfigError as error:  # of JAX's settings
        cli.fail(error)
    getattr(imported, function)()


def start() -> None:
    """Run the command as a process of its own."""
    streams.ensure()
    pages.ask()
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Until `cli.run`, while modules are imported.
    with streams.reader_may_leave():
        main()


if __name__ == "__main__":
    start()
