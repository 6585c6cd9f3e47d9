r"""The page of a run; or the table of a sweep beside the paper's, with the details of its runs.

Examples:
  lsanet report --workdir=runs/r18
  lsanet report --workdir=runs/r18 --sensitivity=0.95 --by=sex,site --table=patients.csv
  lsanet report --sweep=table3 --workdir=sweeps/table3
  lsanet report --from_csv=docs/results/compare_ham10000_28

Of a run it writes report.html to its folder, or the file --output: what was trained on what, scores
with intervals, calibration, operating points, prediction sets, doubt, and mistakes with heat maps,
in the order of the checklist CLAIM.

Of a sweep it writes to --output (default: WORKDIR/report) files that are named after the sweep:
NAME.md, which is also printed; NAME.html, one page with all tables and plots; NAME.tex and
NAME_differences.tex, for \input with booktabs; NAME_runs.csv, a row per run and seed, and
NAME_summary.csv, a row per run; and NAME.png, the picture of the sweeps compare, figure2 and
label_efficiency. An unfinished sweep is reported as far as it is. --from_csv=FOLDER/NAME prints the
tables again from the two CSV files.
"""

import argparse
import logging
import pathlib

from lsanet_jax.config import named
from lsanet_jax.errors import ConfigError, near_matches
from lsanet_jax.evaluation.thresholds import make_rule
from lsanet_jax.report import redraw, sweep, sweep_files
from lsanet_jax.report.compare import only_started
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
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--sweep",
        help=f"{', '.join(named.names('sweeps'))}, or the path of a file like theirs",
    )
    source.add_argument(
        "--from_csv",
        type=cli.path,
        metavar="FOLDER/NAME",
        help="print the tables of FOLDER/NAME_runs.csv and FOLDER/NAME_summary.csv; needs no runs",
    )
    parser.add_argument("--workdir", type=cli.path, help="folder of the run or the sweep")
    parser.add_argument(
        "--output",
        type=cli.path,
        help="folder for a sweep's report (default: WORKDIR/report), or file for a run's page",
    )
    cli.add_operating_point(parser)
    parser.add_argument("--by", help="columns of subgroups, joined by commas, such as sex,site")
    help = "CSV with these columns (default: config.data.csv)"
    parser.add_argument("--table", type=cli.path, help=help)
    parser.add_argument("--nopictures", action="store_true", help="leave out images and heat maps")
    cli.add_trust_code(parser)
    parser.add_argument(
        "--formats",
        help=f"some of {', '.join(FORMATS)}, of a sweep (default: all)",
    )
    args = parser.parse_args()

    def tool() -> None:
        for_runs = {
            name: getattr(args, name)
            for name in (
                "sensitivity",
                "specificity",
                "coverage",
                "by",
                "table",
                "nopictures",
                "trust_code",
            )
        }
        given = [f"--{name}" for name, value in for_runs.items() if value not in (None, False)]
        if given and (args.sweep or args.from_csv):
            other = "--sweep" if args.sweep else "--from_csv"
            raise ConfigError(f"{given[0]} is for the page of one run: leave it or {other} out")
        if args.from_csv:
            for name in ("workdir", "output", "formats"):
                if getattr(args, name) is not None:
                    raise ConfigError(f"--{name}: leave it out; --from_csv prints tables only")
            for table in redraw.from_csv(args.from_csv):
                print(f"## {table.title}\n\n{markdown(table)}\n")
            return
        if not args.workdir:
            raise ConfigError("--workdir is missing: name the folder of the run or the sweep")
        if args.sweep is None:
            if args.formats is not None:
                raise ConfigError("--formats is for a sweep: leave it out, or name --sweep")
            if args.table and not args.by:
                raise ConfigError("--table has columns of subgroups: name them with --by")
            print(_write_page(args))
            return
        formats = FORMATS if args.formats is None else args.formats.split(",")
        for name in formats:
            if name not in FORMATS:
                near = near_matches(name, FORMATS)
                raise ConfigError(f"--formats: {name!r} is not one of {', '.join(FORMATS)}{near}")
        swept = spec.reopen(args.sweep, args.workdir)
        swept = only_started(swept, args.workdir) if swept.name == "compare" else swept
        report = sweep.make(swept, args.workdir)
        output = pathlib.Path(args.output or pathlib.Path(args.workdir) / "report")
        files = sweep_files.write(report, output, formats)
        print(sweep_files.to_markdown(report), end="")
        for file in files:
            log.info("wrote %s", file)

    cli.run(tool)


def _write_page(args: argparse.Namespace) -> pathlib.Path:
    from lsanet_jax.report import run_files

    return run_files.write(
        args.workdir,
        args.output,
        rule=make_rule(args.sensitivity, args.specificity),
        coverage=args.coverage,
        by=[name for name in (args.by or "").split(",") if name],
        table=args.table,
        with_pictures=not args.nopictures,
        trust_code=args.trust_code,
    )


if __name__ == "__main__":
    main()
