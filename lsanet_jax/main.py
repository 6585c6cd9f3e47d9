"""Train a network, select the best epoch, and report it on the test split.

Examples:
  lsanet train --config=quickstart --workdir=runs/quickstart
  lsanet train --config=my_config.py --workdir=runs/mine --config.model.objective=dsn

--config is the name of a shipped config or the path of a config file;
--config.SECTION.FIELD=VALUE changes one of its fields. The same command with the same workdir
resumes an interrupted run.
"""

import logging
import os
import pathlib
import re
import shutil
import sys

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from lsanet_jax import config as config_lib
from lsanet_jax import track
from lsanet_jax.config import table
from lsanet_jax.errors import ConfigError, LSANetError, near_matches
from lsanet_jax.runs.layout import REPORT
from lsanet_jax.runtime import cli, determinism, distributed, pages, streams

log = logging.getLogger(__name__)

CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "A shipped config by its name, or the path of a config file; after a colon, if there is one, "
    f"the argument for its get_config. Shipped are {', '.join(config_lib.names())}.",
)
WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; made if it does not exist.", required=True
)
COORDINATOR = flags.DEFINE_string(
    "coordinator",
    None,
    "For training over several processes: HOST:PORT, an address of the machine of process 0 and a "
    "port that is free there; the same for all processes. Slurm and Open MPI need none of these "
    "three flags; docs/clusters.md says more.",
)
NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes train together; the same for all of them."
)
PAGE = flags.DEFINE_boolean(
    "page", True, "Write report.html, the page of the run, at its end; --nopage leaves it out."
)
TRACK = flags.DEFINE_enum(
    "track", None, track.TRACKERS, "Also send the numbers of the run to this experiment tracker."
)
PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "Which of the processes this one is, from 0 to num_processes - 1."
)


class _Parser(flags.ArgumentParser):
    """Load a config by name or path, where ml_collections' own parser knows paths only."""

    def parse(self, argument: str) -> ml_collections.ConfigDict:
        return config_lib.load(argument).lock()


flags.FLAGS["config"].parser = _Parser()


def run() -> None:
    """Train as the command line says: the entry point."""
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=parse_flags)


def pretrain() -> None:
    """Train without labels, which is to train with `model.objective` = vicreg."""
    for arg in sys.argv[1:]:
        name, _, value = arg.lstrip("-").partition("=")
        if name == "config.model.objective" and value != "vicreg":
            cli.fail(
                f"{arg}: lsanet pretrain always trains with vicreg: leave it out, or use lsanet "
                "train for another objective"
            )
    sys.argv.append("--config.model.objective=vicreg")
    run()


def main(argv):
    """Train and evaluate what --config describes; the exit code is 2 for an error of the user's."""
    if len(argv) > 1:
        cli.fail(f"unexpected argument {argv[1]!r}: flags start with --")
    if not WORKDIR.value.strip():
        cli.fail("--workdir is empty: name the folder of the run")

    def train_and_evaluate() -> None:
        workdir = os.path.expanduser(WORKDIR.value)
        determinism.request(CONFIG.value.get("deterministic", True))
        distributed.initialize(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
        from lsanet_jax import train  # after the flags are known to be good: it takes seconds

        if TRACK.value and train.is_first():
            fields = dict(config_lib.flatten(CONFIG.value))
            with track.Tracker(TRACK.value, workdir, fields) as tracker:
                result = train.train_and_evaluate(CONFIG.value, workdir, track=tracker.log)
                tracker.finish(result)
        else:
            result = train.train_and_evaluate(CONFIG.value, workdir)
        if PAGE.value and result is not None and train.is_first():
            write_page(workdir)

    cli.run(train_and_evaluate)


def write_page(workdir: str) -> None:
    """Write the page of a finished run, unless it has one; a failure is only a warning."""
    if (pathlib.Path(workdir) / REPORT).exists():
        return
    from lsanet_jax.report import run_files

    try:
        # Its backbone was named to train it, and is imported already.
        log.info("page of the run in %s", run_files.write(workdir, trust_code=True))
    except LSANetError as error:
        log.warning("the page of the run could not be written: %s", error)


def parse_flags(argv):
    """Parse the flags; what is wrong with one of them, or in the config file, is one line."""
    if any(arg in ("-h", "-help", "--help", "-?", "--helpshort") for arg in argv[1:]):
        print(_help(shutil.get_terminal_size().columns))
        sys.exit()
    for name in re.findall(r"^--?config\.([\w.]+)\[", "\n".join(argv), re.MULTILINE):
        if name in config_lib.FIELDS:
            default = config_lib.FIELDS[name].default
            cli.fail(f"config.{name} is set as a whole, such as --config.{name}='{default}'")
    try:
        return flags.FLAGS(argv)
    except (AttributeError, LookupError) as error:  # how ml_collections says "no such field"
        for name in re.findall(r"^--?(?:no)?config\.([^=\n]+)", "\n".join(argv), re.MULTILINE):
            if name not in config_lib.FIELDS:
                near = near_matches(name, config_lib.FIELDS)
                cli.fail(f"config.{name}: no such field{near}")
        cli.fail(f"cannot load --config: {error}")
    except (RecursionError, MemoryError):  # of Python's parser
        cli.fail("a value on the command line is nested too deeply")
    except (flags.Error, TypeError, ValueError) as error:
        given = [arg.split("=")[0].lstrip("-") for arg in argv[1:]]
        for section in dict.fromkeys(name.partition(".")[0] for name in config_lib.FIELDS):
            if f"config.{section}" in given:
                fields = [name for name in config_lib.FIELDS if name.startswith(f"{section}.")]
                cli.fail(
                    f"--config.{section} is a section, not a field: set a field of it, such as "
                    f"--config.{fields[0]}"
                )
        if missing := [name for name in ("config", "workdir") if name not in given]:
            cli.fail(
                f"--{' and --'.join(missing)} missing: such as lsanet train --config=quickstart "
                "--workdir=runs/first"
            )
        if isinstance(error, flags.UnrecognizedFlagError):
            near = [name for name in config_lib.FIELDS if name.endswith(f".{error.flagname}")]
            hint = f"; did you mean --config.{near[0]}?" if near else "; --help lists all"
            cli.fail(f"--{error.flagname}: no such flag{hint}")
        known = isinstance(error.__context__, ConfigError)  # absl adds the flag, which it names too
        cli.fail(f"--config={error.__context__}" if known else error)


def _help(width: int) -> str:
    lines = [__doc__ or "", "Flags"]
    for flag in (CONFIG, WORKDIR, PAGE, TRACK, COORDINATOR, NUM_PROCESSES, PROCESS_ID):
        lines += table.in_columns((f"--{flag.name}",), flags.FLAGS[flag.name].help, width)
    return "\n".join([*lines, "", f"Fields of the config. Sources: {table.as_text(width)}"])


if __name__ == "__main__":
    streams.ensure()
    pages.ask()
    with streams.reader_may_leave():
        run()
