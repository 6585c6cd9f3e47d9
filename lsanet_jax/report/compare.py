r"""Train every method of deep supervision on your images, and say which one to take.

Examples:
  lsanet compare --workdir=sweeps/mine --config.data.path=my_images --dry_run
  lsanet compare --workdir=sweeps/mine --config.data.path=my_images --scale=28px --budget=120
  lsanet compare --workdir=sweeps/breast --config.data.name=breastmnist --methods=dsn_ks,lsanet

It is the sweep `compare`: the plain network and each method with each seed, with Ray on the GPUs or
cores of this machine or of a cluster. Then comes its report (`lsanet report --sweep=compare`), and
what it says in words. The same command continues, and may name further methods.

Exit codes: 0 all runs are finished, 1 some failed, 2 an error of yours, 75 stopped by a signal.
"""

import argparse
import dataclasses
import math
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence

from lsanet_jax.errors import ConfigError, near_matches
from lsanet_jax.report import sweep as report_sweep
from lsanet_jax.report import sweep_files
from lsanet_jax.runtime import cli
from lsanet_jax.sweeps import run, spec
from lsanet_jax.sweeps.spec import Run, Sweep

# In the order in which a budget is spent, with the time of a training step in that of the plain
# network: ResNet-18, 28 pixels, batch 64, on a CPU.
COSTS: Mapping[str, float] = {
    "baseline": 1.0,
    "dsn_ks": 1.0,
    "lsanet": 1.0,
    "dsn": 1.0,
    "ensemble_distill": 1.0,
    "byot": 1.0,
    "dks": 1.0,
    "dhm": 1.0,
    "selfcon": 1.0,
    "contrastive": 2.0,
    "dsn_halving": 1.0,
}


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog=cli.program("lsanet_jax.report.compare"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--methods",
        type=_methods,
        default=tuple(COSTS),
        help=f"some of {', '.join(COSTS)}; the first is always among them (default: all)",
    )
    parser.add_argument(
        "--budget",
        type=_minutes,
        metavar="MINUTES",
        help="train the methods one after the other, as many as fit into this time by the plain "
        "network's",
    )
    run.add_flags(parser)
    args, rest = parser.parse_known_args()
    cli.run(lambda: sys.exit(_main(args, rest)))


def _methods(text: str) -> tuple[str, ...]:
    names = text.split(",")
    for name in names:
        if name not in COSTS:
            near = near_matches(name, COSTS)
            raise argparse.ArgumentTypeError(f"{name!r} is not one of {', '.join(COSTS)}{near}")
    return tuple(name for name in COSTS if name in names or name == "baseline")


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = math.nan
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} must be a number of minutes above 0")
    return minutes


def _main(args: argparse.Namespace, rest: Sequence[str]) -> int:
    if args.budget is not None and args.job is not None:
        raise ConfigError("--budget trains method after method, --job a single run: leave one out")
    overrides = spec.with_data(spec.parse_overrides(rest))
    if "data.name" not in overrides:
        raise ConfigError(
            "name your images: --config.data.path=FOLDER or FILE.npz, or --config.data.name=a "
            "MedMNIST set"
        )
    swept = spec.load(
        "compare", scale=args.scale, overrides=overrides, seeds=args.seeds, folds=args.folds
    )
    if args.budget is None or args.dry_run:
        code = train(swept, args.methods, args)
    else:
        code = train_within(swept, args.methods, args)
    if args.dry_run or not (pathlib.Path(args.workdir) / spec.SWEEP).exists():
        return code
    report = report_sweep.make(only_started(swept, args.workdir), args.workdir)
    files = sweep_files.write(report, pathlib.Path(args.workdir) / "report", sweep_files.FORMATS)
    print(sweep_files.to_markdown(report))
    print("\n\n".join(report.words))
    print(f"\nThe report is in {files[0].parent}.")
    return code


def train(swept: Sweep, methods: Sequence[str], args: argparse.Namespace) -> int:
    """Train some methods with all seeds; returns the exit code."""
    return run.train(swept, _jobs(swept, methods, args.workdir), args)


def train_within(swept: Sweep, methods: Sequence[str], args: argparse.Namespace) -> int:
    """Train one method after the other, those that fit into the budget; returns the exit code.

    The plain network is trained in any case. A method is left out if the time that its training
    would take, in proportion to the plain network's, is more than what is left. What is finished
    takes none.
    """
    spec.check(swept, args.workdir)
    start = time.monotonic()
    left_out, codes = [], []
    plain = 0.0
    for method in methods:
        spent, missing = (time.monotonic() - start) / 60, _missing(swept, method, args.workdir)
        if plain and missing and spent + plain * COSTS[method] > args.budget:
            left_out.append(method)
            continue
        print(f"{method}: {spent:.0f} of {args.budget:g} minutes are spent", file=sys.stderr)
        codes.append(train(swept, [method], args))
        # Runs that were finished before are counted as if one was trained after the other.
        plain = plain or (time.monotonic() - start) / 60 + _minutes_before(swept, missing, args)
    if left_out:
        print(f"--budget={args.budget:g} leaves out {', '.join(left_out)}", file=sys.stderr)
    return max(codes)


def _missing(swept: Sweep, method: str, workdir: str) -> list[spec.Job]:
    """List the jobs of a method that are not finished."""
    jobs = _jobs(swept, [method], workdir)
    return [job for job in jobs if spec.result(swept, job) is None]


def _minutes_before(swept: Sweep, missing: Sequence[spec.Job], args: argparse.Namespace) -> float:
    """Add up the minutes of the plain network's runs that were finished before this command."""
    jobs = _jobs(swept, ["baseline"], args.workdir)
    before = [spec.result(swept, job) for job in jobs if job not in missing]
    return sum((result or {}).get("seconds") or 0 for result in before) / 60


def _jobs(swept: Sweep, methods: Sequence[str], workdir: str | pathlib.Path) -> list[spec.Job]:
    return [job for job in spec.jobs(swept, workdir) if _method(job.run) in methods]


def _method(each: Run) -> str:
    return each.fold_of or each.name


def only_started(swept: Sweep, workdir: str | pathlib.Path) -> Sweep:
    """Leave out the methods of which nothing was trained: they were not asked for."""
    started = {
        _method(job.run)
        for job in spec.jobs(swept, workdir)
        if job.workdir.exists() or job.error.exists()
    }
    runs = tuple(r for r in swept.runs if _method(r) in started or r.baseline is None)
    return dataclasses.replace(swept, runs=runs)


if __name__ == "__main__":
    main()
