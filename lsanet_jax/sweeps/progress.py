"""What a sweep prints: how far it is, the scores of its runs, and the time that is left."""

import collections
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tqdm

from lsanet_jax.runs.layout import METRICS
from lsanet_jax.sweeps.estimate import Estimator
from lsanet_jax.sweeps.job import Outcome
from lsanet_jax.sweeps.spec import Job, Sweep

PRINT_SECONDS = 30  # between two lines of progress in a log file


class Progress:
    """A line of progress: refreshed in a terminal, repeated now and then in a log file."""

    def __init__(
        self,
        sweep: Sweep,
        outcomes: Mapping[Job, Outcome],
        slots: Callable[[], int],
        pending: Mapping[Any, Job],
    ):
        """Start.

        Args:
            sweep: the sweep of the jobs.
            outcomes: of all jobs; the caller updates them.
            slots: returns how many jobs run at a time.
            pending: the jobs that Ray has, by its references; the caller updates them.
        """
        self._outcomes, self._slots, self._pending = outcomes, slots, pending
        self._estimator = Estimator(sweep)
        self._log_sizes: dict[Job, int] = {}
        self._seen: dict[Job, tuple[float, int]] = {}  # when, and after how many epochs
        self._printed = -float("inf")
        self._bar = tqdm.tqdm(
            bar_format="{desc}", dynamic_ncols=True, disable=not sys.stderr.isatty(), leave=False
        )
        for job in outcomes:
            self._measure_finished(job)

    def submitted(self, job: Job) -> None:
        """Record that a job waits for a free slot."""
        self._log_sizes[job] = _size(job.log)
        self._seen.pop(job, None)

    def is_running(self, job: Job) -> bool:
        """Tell whether a job has begun to write its log."""
        return _size(job.log) > self._log_sizes[job]

    def ended(self, job: Job) -> None:
        """Print how a job ended."""
        outcome = self._outcomes[job]
        self._measure_finished(job)
        if outcome.state == "done":
            self.say(f"{job.name}: ACC {_percent(outcome, 'acc')}, AUC {_percent(outcome, 'auc')}")
        elif outcome.state == "failed":
            self.say(f"{job.name} failed: {outcome.error} (see {job.log})")

    def say(self, message: str) -> None:
        """Print a line."""
        self._bar.clear()
        print(f"sweep: {message}", file=sys.stderr, flush=True)

    def show(self) -> None:
        """Show the line if it is due."""
        if self._bar.disable and time.monotonic() < self._printed + PRINT_SECONDS:
            return
        self._printed = time.monotonic()
        states = collections.Counter(outcome.state for outcome in self._outcomes.values())
        running = []
        for job in filter(self.is_running, self._pending.values()):
            epochs = _epochs(job)
            running.append(f"{job.name} {epochs}/{self._estimator.epochs(job)}")
            if not epochs:  # the first epoch includes compilation
                continue
            since, before = self._seen.setdefault(job, (self._printed, epochs))
            if epochs > before:
                self._estimator.measure(job, (self._printed - since) / (epochs - before))
        line = f"{states['done']} of {len(self._outcomes)} done"
        if states["failed"]:
            line += f", {states['failed']} failed"
        line += f"; running: {', '.join(running) or 'none yet'}"
        if (left := self._seconds_left()) is not None:
            line += f"; about {tqdm.tqdm.format_interval(left)} left"
        if self._bar.disable:
            self.say(line)
        else:
            self._bar.set_description_str(line)

    def _seconds_left(self) -> float | None:
        each = []
        for job in self._pending.values():
            seconds = self._estimator.seconds_per_epoch(job)
            if seconds is None:
                return None
            each.append(seconds * (self._estimator.epochs(job) - _epochs(job)))
        return max(sum(each) / max(1, self._slots()), max(each, default=0))

    def _measure_finished(self, job: Job) -> None:
        if seconds := (self._outcomes[job].result or {}).get("seconds"):
            self._estimator.measure(job, seconds / self._estimator.epochs(job))

    def close(self) -> None:
        """Remove the line."""
        self._bar.close()


def _size(file: pathlib.Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # it does not exist yet, or the network disk is away for a moment
        return 0


def _epochs(job: Job) -> int:
    """Count the epochs that a job has trained."""
    try:
        return len((job.workdir / METRICS).read_bytes().splitlines())
    except OSError:
        return 0


def _percent(outcome: Outcome, score: str) -> str:
    value = (outcome.result or {}).get("test", {}).get(score)
    return "-" if value is None else f"{100 * value:.2f}"


def print_table(outcomes: Mapping[Job, Outcome]) -> None:
    """Print the runs, their state, and their scores on the test split."""
    rows = [("run", "seed", "state", "ACC", "AUC", "time")]
    for job, outcome in outcomes.items():
        seconds = (outcome.result or {}).get("seconds")
        rows.append(
            (
                job.run.name,
                str(job.seed),
                outcome.state,
                _percent(outcome, "acc"),
                _percent(outcome, "auc"),
                "-" if seconds is None else tqdm.tqdm.format_interval(seconds),
            )
        )
    _print(rows)


def print_plan(sweep: Sweep, outcomes: Mapping[Job, Outcome]) -> None:
    """Print the runs, their state, and how long they take: "?" if nothing was measured."""
    estimator = Estimator(sweep)
    for job, outcome in outcomes.items():
        if seconds := (outcome.result or {}).get("seconds"):
            estimator.measure(job, seconds / estimator.epochs(job))
    rows, left = [("job", "run", "state", "time")], []
    for number, (job, outcome) in enumerate(outcomes.items()):
        if outcome.state == "done":
            state, seconds = "done", (outcome.result or {}).get("seconds")
        else:
            state, seconds = _plan(job, estimator)
            left.append(seconds)
        time_ = "?" if seconds is None else tqdm.tqdm.format_interval(seconds)
        rows.append((str(number), job.name, state, time_))
    _print(rows)
    known = [seconds for seconds in left if seconds is not None]
    if not left:
        in_all = ""
    elif len(known) < len(left):
        in_all = "; times are known once a run is finished here"
    else:
        in_all = f": about {tqdm.tqdm.format_interval(sum(known))} one after the other"
    print(f"{len(left)} of {len(outcomes)} runs to train{in_all}")


def _plan(job: Job, estimator: Estimator) -> tuple[str, float | None]:
    """Tell the state of a job that is not done, and the seconds that are left."""
    done, epochs = _epochs(job), estimator.epochs(job)
    each = estimator.seconds_per_epoch(job)
    seconds = None if each is None else each * (epochs - done)
    if job.error.exists():
        return "failed", seconds
    return f"epoch {done}/{epochs}" if done else "missing", seconds


def _print(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        )
