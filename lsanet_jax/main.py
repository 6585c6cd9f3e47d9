"""Train a network: python -m lsanet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart.

A field of the config is changed with --config.SECTION.FIELD=VALUE, for instance
--config.model.objective=dsn; configs/common.py lists all fields. The same command in the same
workdir resumes an interrupted run.
"""

import logging
import sys

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from lsanet_jax.errors import LSANetError

CONFIG = config_flags.DEFINE_config_file("config", None, "The config file.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if missing.")


def main(argv):
    """Train and evaluate what --config describes; the exit code is 2 for an error of the user's."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected argument {argv[1]!r}: flags start with --")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("lsanet_jax").setLevel(logging.INFO)
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax reports every file it touches
    try:
        from lsanet_jax import train  # after the flags are known to be good: it takes seconds

        train.train_and_evaluate(CONFIG.value, WORKDIR.value)
    except LSANetError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main)
