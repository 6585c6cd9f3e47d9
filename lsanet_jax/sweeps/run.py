r"""Train the missing runs of a sweep: a table of the paper, or a file of your own like it.

Examples:
  lsanet sweep --sweep=table3 --workdir=sweeps/table3 --dry_run
  lsanet sweep --sweep=table3 --workdir=sweeps/table3
  lsanet sweep --sweep=my_sweep.py --workdir=sweeps/mine --scale=28px \
      --config.data.name=npz --config.data.path=mine.npz
  lsanet sweep --sweep=crossval --workdir=sweeps/folds --config.data.path=my_images

Each run is a process of its own, in WORKDIR/RUN/seedN. Ray distributes them over the GPUs or cores
of this machine, or, with --address, of a cluster. However the command ended, the same command
continues: finished runs stay, others are resumed. Ctrl-C and SIGTERM let the runs save first.

Exit codes: 0 all runs are finished, 1 some failed, 2 an error of yours, 75 stopped by a signal.

The times of --dry_run are medians of the runs that are finished in WORKDIR, in proportion to images
and epochs; of runs with the same backbone if there are any. Without finished runs they are "?".
"""

import argparse
import fnmatch
import sys
from collections.abc import Callable, Sequence

from lsanet_jax.config import named
from lsanet_jax.errors import ConfigError, Interrupted
from lsanet_jax.runtime import cli
from lsanet_jax.sweeps import cluster, progress, schedule, spec
from lsanet_jax.sweeps.job import Outcome
from lsanet_jax.sweeps.spec import Job, Sweep


def main() -> None:
    """Run the command."""
    args, rest = _parser().parse_known_args()

    def run() -> None:
        try:
            sys.exit(_main(args, rest))
        except KeyboardInterrupt as error:
            raise Interrupted(
                "stopped at once: the same command continues, from the last checkpoint of each run"
            ) from error

    cli.run(run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=cli.program("lsanet_jax.sweeps.run"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--sweep",
        required=True,
        help=f"{', '.join(named.names('sweeps'))}, or the path of a file like theirs",
    )
    parser.add_argument(
        "--filter", metavar="GLOB", help="only runs whose name, or RUN/seedN, matches"
    )
    parser.add_argument("--count", action="store_true", help="only print the number of runs")
    add_flags(parser)
    return parser


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every command that trains a sweep has."""
    add = parser.add_argument
    add(
        "--workdir",
        required=True,
        type=cli.path,
        help="folder of the sweep; on a cluster, one that all see",
    )
    add("--scale", default="paper", help="paper (default), or 28px: 28 pixels, 30 epochs")
    add("--seeds", type=_seeds, help="such as 0,1,2; default: the sweep's own")
    add(
        "--folds",
        type=_count(0),
        metavar="N",
        help="cross-validation: train each run once for each of N folds of a folder of images "
        "(config.data.folds); default: the sweep's own, if any",
    )
    add("--dry_run", action="store_true", help="list the runs, their state and time; start nothing")
    add("--job", type=_count(0), metavar="N", help="only train run N, from 0, without Ray")
    add(
        "--address",
        help="of a Ray cluster: HOST:PORT of its head, or auto; default: start Ray here",
    )
    add(
        "--cpus_per_run",
        type=_count(1),
        metavar="N",
        help="cores of a run; default: those of the smallest machine, but at most "
        f"{cluster.MAX_CORES}, and 1 beside a GPU. Few runs that use all cores finish a sweep "
        "sooner than many at a time. The bits of a run depend on the number of its cores",
    )
    add(
        "--gpus_per_run",
        type=_count(0),
        metavar="N",
        help="GPUs of a run; default: 1 if there are any; 0 trains on CPU",
    )
    add(
        "--retries",
        type=_count(0),
        default=2,
        metavar="N",
        help="how often a run that crashed is resumed (default: 2); not one whose config is wrong",
    )
    parser.epilog = (
        "--config.FIELD=VALUE sets a field of all runs; `lsanet train --help` lists them."
    )


def _count(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} must be an integer >= {least}")
        return int(text)

    return parse


def _seeds(text: str) -> tuple[int, ...]:
    seeds = tuple(map(_count(0), text.split(",")))
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} names a seed twice")
    return seeds


def _main(args: argparse.Namespace, rest: Sequence[str]) -> int:
    overrides = spec.with_data(spec.parse_overrides(rest))
    sweep = spec.load(
        args.sweep, scale=args.scale, overrides=overrides, seeds=args.seeds, folds=args.folds
    )
    jobs = _select(spec.jobs(sweep, args.workdir), args.filter)
    if args.count:
        print(len(jobs))
        return 0
    return train(sweep, jobs, args)


def train(sweep: Sweep, jobs: Sequence[Job], args: argparse.Namespace) -> int:
    """Train the jobs of a sweep that are not finished; returns the exit code.

    Args:
        sweep: the sweep.
        jobs: some of its jobs.
        args: the values of `add_flags`.

    Raises:
        LSANetError: see `spec.claim` and `schedule.train_all`.
    """
    spec.check(sweep, args.workdir)
    if args.job is not None:
        for name in ("address", "cpus_per_run", "gpus_per_run"):
            if getattr(args, name) is not None:
                raise ConfigError(f"--{name} is for Ray, and --job does without: leave one out")
        if args.job >= len(jobs):
            raise ConfigError(f"--job={args.job}: there are {len(jobs)} runs, counted from 0")
        jobs = [jobs[args.job]]
    outcomes = {job: Outcome() for job in jobs}
    for job, outcome in outcomes.items():
        if (result := spec.result(sweep, job)) is not None:
            outcome.state, outcome.result = "done", result
    if args.dry_run:
        progress.print_plan(sweep, outcomes)
        return 0
    if args.job is not None:
        job = jobs[0]
        outcomes = {job: schedule.train_one(sweep, job, args.workdir, retries=args.retries)}
    else:
        for job, outcome in outcomes.items():
            if outcome.state == "done":  # perhaps by hand, after it had failed
                job.error.unlink(missing_ok=True)
        if any(outcome.state != "done" for outcome in outcomes.values()):
            schedule.train_all(
                sweep,
                outcomes,
                args.workdir,
                address=args.address,
                cpus_per_run=args.cpus_per_run,
                gpus_per_run=args.gpus_per_run,
                retries=args.retries,
            )
    progress.print_table(outcomes)
    return 0 if all(outcome.state == "done" for outcome in outcomes.values()) else 1


def _select(jobs: Sequence[Job], pattern: str | None) -> list[Job]:
    if pattern is None:
        return list(jobs)
    found = [
        job
        for job in jobs
        if fnmatch.fnmatchcase(job.run.name, pattern) or fnmatch.fnmatchcase(job.name, pattern)
    ]
    if not found:
        names = ", ".join(dict.fromkeys(job.run.name for job in jobs))
        raise ConfigError(f"--filter={pattern} matches none of the runs: {names}")
    return found


if __name__ == "__main__":
    main()
