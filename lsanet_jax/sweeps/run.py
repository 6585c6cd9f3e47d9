r"""Train what is missing of a sweep: the runs of a table of the paper, or of your own file like it.

Examples:
  python -m lsanet_jax.sweeps.run --sweep=configs/sweeps/table3.py --workdir=sweeps/table3 --dry_run
  python -m lsanet_jax.sweeps.run --sweep=configs/sweeps/table3.py --workdir=sweeps/table3
  python -m lsanet_jax.sweeps.run --sweep=configs/sweeps/table3.py --workdir=sweeps/t3-28 --scale=28px \
      --config.data.name=npz --config.data.path=mine.npz

Each run is a process of its own, in WORKDIR/RUN/seedN. Ray (requirements-sweep.txt) distributes them
over the GPUs or cores of this machine, or, with --address, of a cluster. The same command goes on
after any end: finished runs stay, others are resumed. Ctrl-C and SIGTERM let the runs save first.

Exit codes: 0 all runs are finished, 1 some failed, 2 an error of yours, 75 stopped by a signal.

The times of --dry_run are rough. Where runs of the same backbone are finished here, they are the median
of these, in proportion to images and epochs. Elsewhere: multiply-adds of the network that predicts,
x 2 x 3 (backward too), x training images x epochs, over the speed of this machine's device in a product
of matrices. No network reaches that speed, so expect two or three times as long, more on a GPU.
"""

import argparse
import fnmatch
import os
import pathlib
import signal
import sys
import time
from collections.abc import Mapping, Sequence

import jax

from lsanet_jax.errors import ConfigError, Interrupted
from lsanet_jax.runtime import cli, distributed
from lsanet_jax.sweeps import cluster, owner, progress
from lsanet_jax.sweeps import job as job_lib
from lsanet_jax.sweeps import spec as sweep_lib
from lsanet_jax.sweeps.job import Outcome
from lsanet_jax.sweeps.spec import Job, Sweep

# What the training processes get of this one's variables, on whatever machine they are.
_PASSED_ON = ("JAX_", "XLA_", "LSANET_", "MEDMNIST_", "TFDS_", "PYTHONPATH")


class Stop:
    """Whether a signal asked to stop: SIGINT, SIGTERM or SIGHUP. A second one ends it at once."""

    def __init__(self):
        self.received: signal.Signals | None = None
        self._when = 0.0
        self.install()

    def install(self) -> None:
        """Take the signals, again where someone else has taken them."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, self._receive)

    def __call__(self) -> bool:
        """Whether one was received."""
        return self.received is not None

    def _receive(self, number: int, frame) -> None:
        del frame
        if self.received is None:
            self.received, self._when = signal.Signals(number), time.monotonic()
        elif time.monotonic() > self._when + 1:  # not the same: `timeout` signals child and group
            raise KeyboardInterrupt


def main() -> None:
    """Run the tool."""
    args, rest = _parser().parse_known_args()

    def run() -> None:
        try:
            sys.exit(_main(args, rest))
        except KeyboardInterrupt as error:
            raise Interrupted(
                "stopped at once: the same command goes on, from the last checkpoint of each run"
            ) from error

    cli.run(run)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=cli.program("lsanet_jax.sweeps.run"),
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--sweep", required=True, help="file of the sweep, such as configs/sweeps/table3.py")
    add("--workdir", required=True, help="folder of the sweep; for a cluster, one that all see")
    add("--scale", default="paper", help="paper (default), or 28px: 28 pixels, 30 epochs")
    add("--seeds", type=_seeds, help="such as 0,1,2; default: the sweep's own")
    add("--filter", metavar="GLOB", help="only runs whose name, or RUN/seedN, matches")
    add("--dry_run", action="store_true", help="list the runs, their state and time; start nothing")
    add("--count", action="store_true", help="print the number of runs only")
    add("--job", type=_count(0), metavar="N", help="do run N only, from 0, without Ray")
    add(
        "--address",
        help="of a Ray cluster: HOST:PORT of its head, or auto; default: start Ray here",
    )
    add(
        "--cpus_per_run",
        type=_count(1),
        metavar="N",
        help=f"cores of a run; default: those of the smallest machine, {cluster.MAX_CORES} at most: few "
        "runs at a time that use all cores end sooner, and on 2 cores with the bits that the same "
        "command has by hand, since these depend on the number of cores; 1 beside a GPU",
    )
    add(
        "--gpus_per_run",
        type=_count(0),
        metavar="N",
        help="GPUs of a run; default: 1 where there are any; 0 trains on CPU",
    )
    add(
        "--retries",
        type=_count(0),
        default=2,
        metavar="N",
        help="how often a run that crashed is resumed (default: 2); not one whose config is wrong",
    )
    parser.epilog = "--config.FIELD=VALUE sets a field of all runs; configs/common.py lists them."
    return parser


def _count(least: int):
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is no number of at least {least}")
        return int(text)

    return parse


def _seeds(text: str) -> tuple[int, ...]:
    seeds = tuple(map(_count(0), text.split(",")))
    if len(set(seeds)) < len(seeds):
        raise argparse.ArgumentTypeError(f"{text!r} has one twice")
    return seeds


def _main(args: argparse.Namespace, rest: Sequence[str]) -> int:
    overrides = sweep_lib.parse_overrides(rest)
    sweep = sweep_lib.load(args.sweep, scale=args.scale, overrides=overrides, seeds=args.seeds)
    jobs = _select(sweep_lib.jobs(sweep, args.workdir), args.filter)
    if args.count:
        print(len(jobs))
        return 0
    sweep_lib.check(sweep, args.workdir)
    outcomes = {job: Outcome() for job in jobs}
    for job, outcome in outcomes.items():
        if (result := sweep_lib.result(sweep, job)) is not None:
            outcome.state, outcome.result = "done", result
    if args.dry_run:
        progress.print_plan(sweep, outcomes)
        return 0
    sweep_lib.claim(sweep, args.workdir)
    if args.job is not None:
        if args.job >= len(jobs):
            raise ConfigError(f"--job={args.job}: there are {len(jobs)} runs, counted from 0")
        return _run_one(sweep, args, jobs[args.job])
    for job, outcome in outcomes.items():
        if outcome.state == "done":  # by hand, after it had failed
            job.error.unlink(missing_ok=True)
    if any(outcome.state != "done" for outcome in outcomes.values()):
        with owner.running(args.workdir) as token:
            _run_all(sweep, args, outcomes, token)
    progress.print_table(outcomes)
    return 1 if any(outcome.state == "failed" for outcome in outcomes.values()) else 0


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


# ------------------------------------------------------------------------------ one, without Ray


def _run_one(sweep: Sweep, args: argparse.Namespace, job: Job) -> int:
    """Train a job here, on all that this machine has."""
    stop, outcome = Stop(), Outcome()
    with owner.running(args.workdir, shared=True):
        print(f"{job.name}: see {job.log}", file=sys.stderr)
        while outcome.take(job_lib.train(_task(sweep, job), stop), job.error, args.retries):
            if stop():
                raise Interrupted(f"{job.name} is stopped: the same command goes on")
            print(f"{job.name} starts again: {outcome.error or 'stopped'}", file=sys.stderr)
    progress.print_table({job: outcome})
    return 0 if outcome.state == "done" else 1


def _task(sweep: Sweep, job: Job, cores: int | None = None, gpus: int | None = None):
    passed_on = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
    return job_lib.Task(
        arguments=sweep_lib.command(sweep, job),
        workdir=str(job.workdir),
        log=str(job.log),
        folder=os.getcwd(),
        environment=passed_on | ({"JAX_PLATFORMS": "cpu"} if gpus == 0 else {}),
        # A Ray that was started as a step of Slurm: the run is not one of its processes.
        unset=[name for names in distributed.LAUNCHERS.values() for name in names],
        cores=cores,
        grace=_grace(),
    )


def _grace() -> float:
    """Seconds that a run has to save."""
    text = os.environ.get("LSANET_GRACE", "120")
    if not text.isdecimal():
        raise ConfigError(f"LSANET_GRACE={text} is not a number")
    return float(text)


# ------------------------------------------------------------------------------ all, on Ray


def _run_all(
    sweep: Sweep, args: argparse.Namespace, outcomes: Mapping[Job, Outcome], token: str
) -> None:
    """Train all that is missing.

    Raises:
      Interrupted: by a signal; the runs have saved.
    """
    stop = Stop()
    with cluster.joined(args.address) as ray:
        stop.install()  # Ray has set its own
        jax.config.update("jax_platforms", "cpu")  # here, where times are estimated only
        cpus, gpus = cluster.share(ray, args.cpus_per_run, args.gpus_per_run)
        root, cores = str(sweep_lib.ROOT), None if gpus else cpus
        workdir = str(pathlib.Path(args.workdir).absolute())

        # Ray takes it to its workers by value; they need the repository at the same place.
        def train(task: tuple):
            sys.path.insert(0, root)
            from lsanet_jax.sweeps import job, owner

            return tuple(job.train(job.Task(*task), lambda: not owner.owns(workdir, token)))

        # Not Ray's retries: it would not count them, nor know when to stop.
        remote = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(train)
        pending = {}
        slots = lambda: cluster.slots(ray, cpus, gpus)
        shown = progress.Progress(sweep, outcomes, slots, pending)

        def submit(job: Job) -> None:
            shown.submitted(job)
            pending[remote.remote(tuple(_task(sweep, job, cores, gpus)))] = job

        for job, outcome in outcomes.items():
            if outcome.state != "done":
                submit(job)
        while pending and not stop():
            for ref in ray.wait(list(pending), timeout=1)[0]:
                job = pending.pop(ref)
                outcome = outcomes[job]
                attempt = cluster.attempt(ray, ref)
                again = outcome.take(attempt, job.error, args.retries)
                if again and not stop():
                    shown.say(f"{job.name} starts again: {attempt.error or 'it was stopped'}")
                    submit(job)
                else:
                    shown.ended(job)
            shown.show()
        if stop():
            shown.say(f"{stop.received.name}: stopping as soon as all runs have saved")
            owner.disown(workdir)
            end = time.monotonic() + 30 + _grace()
            while any(shown.is_running(job) for job in pending.values()):
                for ref in ray.wait(list(pending), timeout=1)[0]:
                    job = pending.pop(ref)
                    outcomes[job].take(cluster.attempt(ray, ref), job.error, args.retries)
                if time.monotonic() > end:
                    break
        shown.close()
    left = sum(outcome.state != "done" for outcome in outcomes.values())
    if stop() and left:
        raise Interrupted(
            f"stopped; {len(outcomes) - left} of {len(outcomes)} runs are finished, {left} are left: "
            "the same command goes on"
        )


if __name__ == "__main__":
    main()
