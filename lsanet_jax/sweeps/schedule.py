"""Train the jobs of a sweep: one here, or all of them with Ray on this machine or a cluster."""

import os
import pathlib
import signal
import sys
import time
import types
from collections.abc import Callable, Mapping
from typing import Any

from lsanet_jax.errors import ConfigError, Interrupted
from lsanet_jax.runtime import compiled, distributed
from lsanet_jax.sweeps import cluster, owner, progress
from lsanet_jax.sweeps import job as job_lib
from lsanet_jax.sweeps.job import Outcome
from lsanet_jax.sweeps.spec import Job, Sweep, claim, command

# The variables of this process that training processes get, on whatever machine they are.
_PASSED_ON = ("JAX_", "XLA_", "LSANET_", "MEDMNIST_", "TFDS_", "PYTHONPATH")


class Stop:
    """Whether SIGINT, SIGTERM or SIGHUP asked to stop. A second signal ends the process at once.

    A context: before and after it the signals do what they did.
    """

    def __init__(self):
        self.received: signal.Signals | None = None
        self._when = 0.0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self):
        self.install()
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Handle the signals, also if other code has installed its own handlers."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if (before := signal.getsignal(number)) is not signal.SIG_IGN:  # nohup
                self._before.setdefault(number, before or signal.SIG_DFL)  # C's is None
                signal.signal(number, self._receive)

    def __call__(self) -> bool:
        """Tell whether a signal was received."""
        return self.received is not None

    def _receive(self, number: int, frame: types.FrameType | None) -> None:
        del frame
        if self.received is None:
            self.received, self._when = signal.Signals(number), time.monotonic()
        elif time.monotonic() > self._when + 1:  # not the same: `timeout` signals child and group
            raise KeyboardInterrupt


def train_one(sweep: Sweep, job: Job, workdir: str | pathlib.Path, *, retries: int) -> Outcome:
    """Train a job on all devices of this machine, without Ray.

    Args:
        sweep: the sweep of the job.
        job: the job.
        workdir: of the sweep; others may train jobs of it at the same time.
        retries: how often a run that crashed is resumed.

    Raises:
        Interrupted: by a signal; the run has saved its state.
    """
    outcome = Outcome()
    with Stop() as stop, owner.running(workdir, shared=True):
        claim(sweep, workdir)
        print(f"{job.name}: see {job.log}", file=sys.stderr)
        while outcome.take(job_lib.train(_task(sweep, job), stop), job.error, retries):
            if stop():
                raise Interrupted(f"{job.name} was stopped: the same command resumes it")
            print(f"{job.name} starts again: {outcome.error or 'stopped'}", file=sys.stderr)
    return outcome


def train_all(
    sweep: Sweep,
    outcomes: Mapping[Job, Outcome],
    workdir: str | pathlib.Path,
    *,
    address: str | None,
    cpus_per_run: int | None,
    gpus_per_run: int | None,
    retries: int,
) -> None:
    """Train all jobs that are not done, with Ray.

    Args:
        sweep: the sweep of the jobs.
        outcomes: of the jobs; updated as they end.
        workdir: of the sweep; no other process may train jobs of it at the same time.
        address: of a Ray cluster; None starts Ray on this machine.
        cpus_per_run: cores of a run, or None to choose.
        gpus_per_run: GPUs of a run, or None to choose.
        retries: how often a run that crashed is resumed.

    Raises:
        Interrupted: by a signal; the runs have saved their state.
    """
    workdir = pathlib.Path(workdir).absolute()
    with Stop() as stop, owner.running(workdir) as token, cluster.joined(address) as ray:
        claim(sweep, workdir)
        stop.install()  # Ray has installed its own handlers
        share = cluster.share(ray, cpus_per_run, gpus_per_run)
        tasks = _Tasks(ray, sweep, outcomes, retries, share, _trainer(str(workdir), token))
        for job, outcome in outcomes.items():
            if outcome.state != "done":
                tasks.submit(job)
        while tasks.pending and not stop():
            tasks.wait(may_restart=lambda: not stop())
            tasks.shown.show()
        if stop.received is not None:
            tasks.shown.say(f"{stop.received.name}: stopping as soon as all runs have saved")
            owner.disown(workdir)
            end = time.monotonic() + 30 + _grace()
            while tasks.any_running() and time.monotonic() < end:
                tasks.wait(may_restart=lambda: False)
        tasks.shown.close()
    left = sum(outcome.state != "done" for outcome in outcomes.values())
    if stop():
        last = f"{left} are left: the same command resumes them" if left else "none is left"
        raise Interrupted(
            f"stopped; {len(outcomes) - left} of {len(outcomes)} runs are finished, {last}"
        )


class _Tasks:
    """The jobs that Ray has.

    Attributes:
        pending: the jobs, by Ray's references to their tasks.
        shown: their progress.
    """

    def __init__(
        self,
        ray: types.ModuleType,
        sweep: Sweep,
        outcomes: Mapping[Job, Outcome],
        retries: int,
        share: tuple[int, int],
        train: Callable[[tuple], tuple],
    ):
        cpus, gpus = share
        self._ray, self._sweep, self._outcomes, self._retries = ray, sweep, outcomes, retries
        self._cores, self._gpus = None if gpus else cpus, gpus
        # Not Ray's retries: it would not count them, nor know when to stop.
        self._train = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=0)(train)
        self.pending: dict[Any, Job] = {}
        slots = lambda: cluster.slots(ray, cpus, gpus)
        self.shown = progress.Progress(sweep, outcomes, slots, self.pending)

    def submit(self, job: Job) -> None:
        """Have a job trained as soon as there is a free slot."""
        self.shown.submitted(job)
        task = _task(self._sweep, job, self._cores, self._gpus)
        self.pending[self._train.remote(tuple(task))] = job

    def wait(self, may_restart: Callable[[], bool]) -> None:
        """Wait a second at most for a task to end, and record how it ended."""
        for ref in self._ray.wait(list(self.pending), timeout=1)[0]:
            job, attempt = self.pending.pop(ref), cluster.attempt(self._ray, ref)
            again = self._outcomes[job].take(attempt, job.error, self._retries)
            if again and may_restart():
                self.shown.say(f"{job.name} starts again: {attempt.error or 'it was stopped'}")
                self.submit(job)
            else:
                self.shown.ended(job)

    def any_running(self) -> bool:
        """Tell whether any of the jobs has begun."""
        return any(map(self.shown.is_running, self.pending.values()))


def _trainer(workdir: str, token: str) -> Callable[[tuple], tuple]:
    """Make the function that Ray calls on a worker, with the fields of a `Task`."""
    root = str(job_lib.ROOT)

    # Ray sends it to its workers by value; they need this package at the same place.
    def train(task: tuple) -> tuple:
        import sys

        sys.path.insert(0, root)
        from lsanet_jax.sweeps import job, owner

        return tuple(job.train(job.Task(*task), lambda: not owner.owns(workdir, token)))

    return train


def _task(
    sweep: Sweep, job: Job, cores: int | None = None, gpus: int | None = None
) -> job_lib.Task:
    environment = compiled.without(os.environ)
    passed_on = {k: v for k, v in environment.items() if k.startswith(_PASSED_ON)}
    return job_lib.Task(
        arguments=command(sweep, job),
        workdir=str(job.workdir),
        log=str(job.log),
        folder=os.getcwd(),
        environment=passed_on | ({"JAX_PLATFORMS": "cpu"} if gpus == 0 else {}),
        # Ray may have been started as a step of Slurm, but the run is not a process of that step.
        unset=[name for names in distributed.LAUNCHERS.values() for name in names],
        cores=cores,
        grace=_grace(),
    )


def _grace() -> float:
    """Read the seconds that a run has to save when it is stopped."""
    text = os.environ.get("LSANET_GRACE", "120")
    if not text.isdecimal():
        raise ConfigError(f"LSANET_GRACE={text} must be a whole number of seconds")
    return float(text)
