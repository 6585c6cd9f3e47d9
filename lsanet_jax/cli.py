"""What the command line tools share: how they log, and how they end."""

import logging
import sys
from collections.abc import Callable

from absl import app, flags
from absl import logging as absl_logging

from lsanet_jax.errors import LSANetError


def run(main: Callable[[], None], *, parse=flags.FLAGS) -> None:
    """Run a tool; an error of the user's is one line on stderr and exit code 2.

    Args:
      main: the tool, called without arguments once the flags are parsed.
      parse: parses the command line.
    """

    def parse_flags(argv):
        try:
            return parse(argv)
        except flags.Error as error:
            fail(error)

    def guarded(argv):
        if len(argv) > 1:
            fail(f"unexpected argument {argv[1]!r}: flags start with --")
        logger = logging.getLogger("lsanet_jax")
        logger.setLevel(logging.INFO)
        logger.addHandler(logging.StreamHandler(sys.stderr))
        logger.propagate = False
        absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax reports every file it touches
        try:
            main()
        except LSANetError as error:
            fail(error)

    app.run(guarded, flags_parser=parse_flags)


def fail(message) -> None:
    """Print an error and exit."""
    print(f"error: {' '.join(str(message).split())}", file=sys.stderr)
    sys.exit(2)
