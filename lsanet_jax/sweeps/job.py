"""One training run of a sweep, in a process of its own that does not outlive the one that asked for it.

For `launch/sweep.py`, here or on another machine of a cluster: nothing but the standard library and
files is needed.
"""

import contextlib
import ctypes
import dataclasses
import datetime
import os
import pathlib
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from lsanet_jax.errors import WorkdirError
from lsanet_jax.runtime.files import json_text, read_json, try_lock, write_atomically

INTERRUPTED = 75  # lsanet_jax.runtime.cli's; that module loads too much for here
STARTED = "sweep: started on"  # How the line begins that each attempt adds to its log.
MAX_LOST = 20  # How often a run may lose its machine, or be stopped there by someone else.

_POLL = 0.5  # Seconds between two looks at a process.
_TAIL = 64 * 1024  # Bytes of a log in which its last error is looked for.
_PR_SET_PDEATHSIG = 1


class Task(NamedTuple):
    """What to train, as any machine has to know it.

    Attributes:
      arguments: of Python.
      workdir: of the run.
      log: gets what it prints.
      folder: the current folder, from which the config's relative paths start.
      environment: variables that it needs beside those of the machine.
      unset: variables that it must not have.
      cores: how many it may use, others than those of any other run here; None for all.
      grace: seconds that it has to save and end when it is stopped.
    """

    arguments: Sequence[str]
    workdir: str
    log: str
    folder: str
    environment: Mapping[str, str]
    unset: Sequence[str] = ()
    cores: int | None = None
    grace: float = 120


class Attempt(NamedTuple):
    """How a process ended.

    Attributes:
      exit_code: 0: finished; 75: stopped, the same command goes on; a signal is negative.
      error: why, in a line, unless it is one of these two.
      result: the contents of its `result.json`.
    """

    exit_code: int
    error: str = ""
    result: dict | None = None


@dataclasses.dataclass
class Outcome:
    """What has become of a job.

    Attributes:
      state: missing, running, done or failed.
      attempts: how often its process ended with an error.
      lost: how often its machine was lost.
      result: the contents of its `result.json`, once it is done.
      error: why it failed.
    """

    state: str = "missing"
    attempts: int = 0
    lost: int = 0
    result: Mapping | None = None
    error: str = ""

    def take(self, attempt: Attempt, error_file: pathlib.Path, retries: int) -> bool:
        """Take up how a process of the job ended; whether to start it again.

        Args:
          attempt: how it ended.
          error_file: is written where the job fails, and removed where it succeeds.
          retries: how often one that crashed is started again.
        """
        if attempt.exit_code == 0:
            self.state, self.result = "done", attempt.result
            with contextlib.suppress(OSError):  # Nothing that the other runs should end for.
                error_file.unlink(missing_ok=True)
            return False
        if attempt.exit_code == INTERRUPTED:
            self.state = "missing"
            self.lost += 1
            if self.lost <= MAX_LOST:
                return True
            why = (
                f"its machine was lost, or it was stopped there, {self.lost} times; the last time: "
            )
            attempt = attempt._replace(exit_code=2, error=why + attempt.error)
        self.attempts += 1
        self.error = attempt.error
        if attempt.exit_code != 2 and self.attempts <= retries:
            return True
        self.state = "failed"
        why = {
            "error": attempt.error,
            "attempts": self.attempts,
            "exit_code": attempt.exit_code,
        }
        with contextlib.suppress(OSError):  # The disk may be full; the table says why, too.
            error_file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(error_file, json_text(why, indent=1))
        return False


def train(task: Task, stopping: Callable[[], bool]) -> Attempt:
    """Train until it is finished, fails, or is to stop; call it in the main thread.

    It waits while another process trains in the workdir. If the calling process dies, the training one
    is killed (on Linux): it will be resumed from its last checkpoint.

    Args:
      task: what to train.
      stopping: asked twice a second; once it is true the process is sent SIGTERM, with which it saves.
    """
    log, workdir = pathlib.Path(task.log), pathlib.Path(task.workdir)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as holding:
        while not (_try(holding) and not _locked(workdir / "lock")):
            if stopping():
                return Attempt(INTERRUPTED)
            time.sleep(_POLL)
        if stopping():
            return Attempt(INTERRUPTED)
        if (workdir / "result.json").exists():  # the one waited for has finished it
            return _ended(task, 0, log, 0)
        with _cores(task.cores) as cores:
            where = platform.node() + (f", cores {','.join(map(str, cores))}" if cores else "")
            now = datetime.datetime.now().isoformat(" ", "seconds")
            holding.write(f"{STARTED} {where}, {now}\n")
            holding.flush()
            start = log.stat().st_size
            # Opened anew: a process that is left behind must not hold the lock.
            with log.open("a") as output:
                process = _start(task, cores, output)
            exit_code = _wait(process, task.grace, stopping)
    if exit_code not in (0, INTERRUPTED) and stopping():
        exit_code = INTERRUPTED  # killed before it knew what to do with a signal, or after its time
    return _ended(task, exit_code, log, start)


def _start(task: Task, cores: Sequence[int], output) -> subprocess.Popen:
    root = str(pathlib.Path(__file__).resolve().parents[2])
    environment = {**os.environ, **task.environment}
    path = [root, environment.get("PYTHONPATH")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
    for name in task.unset:
        environment.pop(name, None)
    leash = [__file__, str(os.getpid()), ",".join(map(str, cores))]
    return subprocess.Popen(
        [sys.executable, *leash, *task.arguments],
        cwd=task.folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C reaches it as SIGTERM, through `stopping` only
    )


def _wait(process: subprocess.Popen, grace: float, stopping: Callable[[], bool]) -> int:
    try:
        while not stopping():
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(_POLL)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(grace)
    finally:
        if process.poll() is None:
            process.kill()
    return process.wait()


def _ended(task: Task, exit_code: int, log: pathlib.Path, start: int) -> Attempt:
    if exit_code == 0:
        try:
            return Attempt(0, result=read_json(pathlib.Path(task.workdir, "result.json")))
        except WorkdirError as error:
            return Attempt(1, str(error))
    if exit_code == INTERRUPTED:
        return Attempt(exit_code)
    error = last_error(log, start)
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = ", as where memory is short" if name == "SIGKILL" else ""
        error = f"killed by {name}{hint}" + (f": {error}" if error else "")
    return Attempt(exit_code, error or f"exit code {exit_code}, and nothing in {log}")


def last_error(log: pathlib.Path, start: int = 0) -> str:
    """The line of a log that says best why it ended.

    Args:
      log: the file.
      start: the byte from which on to look.
    """
    with log.open("rb") as stream:
        stream.seek(max(start, log.stat().st_size - _TAIL))
        text = stream.read().decode(errors="replace")
    lines = [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]
    for pattern in (r"error: ", r"[\w.]*(Error|Exception)\b", ""):
        for line in reversed(lines):
            if re.match(pattern, line):
                return line.removeprefix("error: ")
    return ""


def _try(stream, **kwargs) -> bool:
    """Lock a file, if it can be; where locks are unknown, as on some network disks, it always can."""
    try:
        return try_lock(stream, **kwargs)
    except OSError:
        return True


def _locked(file: pathlib.Path) -> bool:
    """Whether another process holds the lock of a workdir: someone trains in it by hand, say."""
    try:
        with file.open("r+") as stream:
            return not _try(stream)
    except OSError:
        return False


@contextlib.contextmanager
def _cores(count: int | None) -> Iterator[list[int]]:
    """Cores of this machine that no other run of a sweep uses, as far as there are so many."""
    if count is None or not hasattr(os, "sched_getaffinity"):
        yield []
        return
    folder = pathlib.Path(tempfile.gettempdir(), f"lsanet-cores-{os.getuid()}")
    folder.mkdir(exist_ok=True)
    free, taken = [], []
    with contextlib.ExitStack() as held:
        for core in sorted(os.sched_getaffinity(0)):
            stream = held.enter_context((folder / str(core)).open("a"))
            (free if len(free) < count and _try(stream) else taken).append(core)
        yield sorted((free + taken)[:count])


def _leash(parent: int, cores: str, arguments: Sequence[str]) -> None:
    """Bind this process to the life of its parent and to cores, and become the training one.

    Not done between fork and exec: the parent has threads there, whose locks would stay locked.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before that
            sys.exit(1)
    if cores:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # Ray's processes block Ctrl-C
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    _leash(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
