"""Train a network, select the best epoch, and report it on the test split.

Example:
  python -m lsanet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart

A field of the config is changed with --config.SECTION.FIELD=VALUE, for instance
--config.model.objective=dsn; configs/common.py lists all fields with their meaning. The same command
with the same workdir resumes an interrupted run.
"""

from absl import app, flags
from ml_collections import config_flags

from lsanet_jax.errors import near_matches
from lsanet_jax.runtime import cli, determinism, distributed

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "Config file, such as configs/resnet18.py.", lock_config=True
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; made if it does not exist.")
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "For training over several processes: HOST:PORT, an address of the machine of process 0 and a "
    "port that is free there; the same for all processes. Slurm and Open MPI need none of these "
    "three flags; launch/README.md says more.",
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes train together; the same for all of them."
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of the processes this one is, from 0 to num_processes - 1."
)


def main(argv):
    """Train and evaluate what --config describes; the exit code is 2 for an error of the user's."""
    if len(argv) > 1:
        cli.fail(f"unexpected argument {argv[1]!r}: flags start with --")

    def train_and_evaluate() -> None:
        determinism.request(CONFIG.value.get("deterministic", True))
        distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
        from lsanet_jax import train  # after the flags are known to be good: it takes seconds

        train.train_and_evaluate(CONFIG.value, WORKDIR.value)

    cli.run(train_and_evaluate)


def parse_flags(argv):
    """Parse the flags; what is wrong with one of them, or in the config file, is one line."""
    try:
        args = flags.FLAGS(argv)
        CONFIG.value.keys()  # a config file that cannot be read is reported on first use only
        return args
    except (AttributeError, KeyError) as error:  # how ml_collections says "no such field"
        from lsanet_jax import config as config_lib

        given = [arg.split("=")[0].lstrip("-").removeprefix("config.") for arg in argv]
        for name in (g for arg, g in zip(argv, given, strict=True) if "-config." in arg):
            if name not in config_lib.FIELDS:
                near = near_matches(name, config_lib.FIELDS)
                cli.fail(f"config.{name}: no such field{near}")
        cli.fail(f"cannot load --config: {error}")
    except (flags.Error, OSError, ImportError, SyntaxError, TypeError, ValueError) as error:
        cli.fail(error)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
