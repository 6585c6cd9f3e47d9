r"""The table of a sweep beside the paper's, with intervals, and the details of its runs.

Example:
  lsanet report --sweep=table3 --workdir=sweeps/table3
  lsanet report --from_csv=docs/results/table3

Writes to --output (default: WORKDIR/report) files that are named after the sweep: NAME.md, which is
also printed; NAME.html, one page with all tables and plots; NAME.tex and NAME_differences.tex, for
\input with booktabs; NAME_runs.csv, a row per run and seed, and NAME_summary.csv, a row per run;
and NAME.png, the picture of the sweeps figure2 and label_efficiency. An unfinished sweep is
reported as far as it is. --from_csv=FOLDER/NAME prints the tables again from the two CSV files.
"""

import argparse
import logging
import pathlib

from lsanet_jax.config import named
from lsanet_jax.errors import ConfigError, near_matches
from lsanet_jax.report import redraw, sweep, sweep_files
from lsanet_jax.report.sweep_files import FORMATS
from lsanet_jax.report.tables import markdown
from lsanet_jax.runtime import cli
from lsanet_jax.sweeps import spec

log = logging.getLogger(__name__)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--sweep",
        help=f"{', '.join(named.names('sweeps'))}, or the path of a file like theirs",
    )
    source.add_argument(
        "--from_csv",
        metavar="FOLDER/NAME",
        help="print the tables of FOLDER/NAME_runs.csv and FOLDER/NAME_summary.csv; needs no runs",
    )
    parser.add_argument("--workdir", help="folder of the sweep")
    parser.add_argument("--output", help="folder for the report (default: WORKDIR/report)")
    parser.add_argument(
        "--formats",
        default=",".join(FORMATS),
        help=f"some of {', '.join(FORMATS)} (default: all)",
    )
    args = parser.parse_args()

    def tool() -> None:
        if args.from_csv:
            for table in redraw.from_csv(args.from_csv):
                print(f"## {table.title}\n\n{markdown(table)}\n")
            return
        if not args.workdir:
            raise ConfigError("--workdir is missing: name the folder of the sweep")
        formats = args.formats.split(",")
        for name in formats:
            if name not in FORMATS:
                near = near_matches(name, FORMATS)
                raise ConfigError(f"--formats: {name!r} is not one of {', '.join(FORMATS)}{near}")
        report = sweep.make(spec.reopen(args.sweep, args.workdir), args.workdir)
        output = pathlib.Path(args.output or pathlib.Path(args.workdir) / "report")
        files = sweep_files.write(report, output, formats)
        print(sweep_files.to_markdown(report), end="")
        for file in files:
            log.info("wrote %s", file)

    cli.run(tool)


if __name__ == "__main__":
    main()
