"""One training run of a sweep, in a process of its own that dies with the process that started it.

It runs here or on another machine of a cluster, so it imports nothing but the standard library and
light modules of this package.
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
from typing import IO, NamedTuple

from lsanet_jax.errors import INTERRUPTED, WorkdirError
from lsanet_jax.runs import seal
from lsanet_jax.runs.layout import LOCK, RESULT
from lsanet_jax.runtime import strict_json
from lsanet_jax.runtime.files import json_text, try_lock, write_atomically

ROOT = pathlib.Path(__file__).resolve().parents[2]  # the folder that holds the package
STARTED = "sweep: started on"  # the first words of the line that each attempt adds to its log
MAX_LOST = 20  # times that a run may lose its machine, or be stopped there by someone else

_POLL = 0.5  # seconds between two looks at a process
_TAIL = 64 * 1024  # bytes at the end of a log that are searched for its last error
_PR_SET_PDEATHSIG = 1  # from <linux/prctl.h>


class Task(NamedTuple):
    """What to train, in a form that any machine understands.

    Attributes:
        arguments: of Python.
        workdir: of the run.
        log: the file that receives its output.
        folder: the current folder, to which paths in the config are relative.
        environment: variables that it needs in addition to those of the machine.
        unset: variables that it must not have.
        cores: how many cores it may use, apart from those of other runs here; None for all.
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
        exit_code: 0: finished; 75: stopped, the same command resumes it; negative: a signal.
        error: the reason in one line, unless the exit code is 0 or 75.
        result: the contents of its `result.json`, if it is finished.
    """

    exit_code: int
    error: str = ""
    result: dict | None = None


@dataclasses.dataclass
class Outcome:
    """What has become of a job.

    Attributes:
        state: missing, done or failed.
        attempts: how often its process ended with an error.
        lost: how often its machine was lost.
        result: the contents of its `result.json`, once it is done.
        error: why its process last ended with an error.
    """

    state: str = "missing"
    attempts: int = 0
    lost: int = 0
    result: Mapping | None = None
    error: str = ""

    def take(self, attempt: Attempt, error_file: pathlib.Path, retries: int) -> bool:
        """Record how a process of the job ended.

        Args:
            attempt: how it ended.
            error_file: written if the job fails, removed if it succeeds.
            retries: how often a job that crashed is started again.

        Returns:
            Whether to start the job again.
        """
        if attempt.exit_code == 0:
            self.state, self.result = "done", attempt.result
            with contextlib.suppress(OSError):  # not worth stopping the other runs
                error_file.unlink(missing_ok=True)
            return False
        if attempt.exit_code == INTERRUPTED:
            self.state = "missing"
            self.lost += 1
            if self.lost <= MAX_LOST:
                return True
            why = f"its machine was lost, or it was stopped there, {self.lost} times; last: "
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
        with contextlib.suppress(
            OSError
        ):  # the disk may be full; the table tells the error as well
            error_file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(error_file, json_text(why, indent=1))
        return False


def train(task: Task, stopping: Callable[[], bool]) -> Attempt:
    """Train until the run is finished, fails or has to stop; call it in the main thread.

    It waits while another process trains in the workdir. If the calling process dies, the training
    process is killed (on Linux); the next one resumes from the last checkpoint.

    Args:
        task: what to train.
        stopping: asked twice a second; once it returns True, the process gets SIGTERM and saves.
    """
    log, workdir = pathlib.Path(task.log), pathlib.Path(task.workdir)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as holding:
        while not (_try(holding) and not _locked(workdir / LOCK)):
            if stopping():
                return Attempt(INTERRUPTED)
            time.sleep(_POLL)
        if stopping():
            return Attempt(INTERRUPTED)
        # The process that was waited for may have finished the run.
        if (workdir / RESULT).exists() and not seal.is_missing(workdir):
            return _ended(task, 0, log, 0)
        with _cores(task.cores) as cores:
            where = platform.node() + (f", cores {','.join(map(str, cores))}" if cores else "")
            now = datetime.datetime.now().isoformat(" ", "seconds")
            holding.write(f"{STARTED} {where}, {now}\n")
            holding.flush()
            start = log.stat().st_size
            # Opened again: a process that is left behind must not hold the lock.
            with log.open("a") as output:
                process = _start(task, cores, output)
            exit_code = _wait(process, task.grace, stopping)
    if exit_code not in (0, INTERRUPTED) and stopping():
        exit_code = INTERRUPTED  # killed before it handled signals, or after its grace
    return _ended(task, exit_code, log, start)


def _start(task: Task, cores: Sequence[int], output: IO) -> subprocess.Popen:
    environment = {**os.environ, **task.environment}
    path = [str(ROOT), environment.get("PYTHONPATH")]
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
        start_new_session=True,  # Ctrl-C reaches it only through `stopping`, as SIGTERM
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
            return Attempt(0, result=strict_json.read_json(pathlib.Path(task.workdir, RESULT)))
        except WorkdirError as error:
            return Attempt(1, str(error))
    if exit_code == INTERRUPTED:
        return Attempt(exit_code)
    error = last_error(log, start)
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
        error = f"killed by {name}{hint}" + (f": {error}" if error else "")
    return Attempt(exit_code, error or f"exit code {exit_code}, and no output in {log}")


def last_error(log: pathlib.Path, start: int = 0) -> str:
    """Find the line of a log that best tells why its process ended.

    Args:
        log: the file.
        start: the first byte to consider.
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


def _try(stream: IO) -> bool:
    """Lock a file if no other process has; always succeeds on network disks without locks."""
    try:
        return try_lock(stream)
    except OSError:
        return True


def _locked(file: pathlib.Path) -> bool:
    """Tell whether another process holds the lock of a workdir, such as a run started by hand."""
    try:
        with file.open("r+") as stream:
            return not _try(stream)
    except OSError:
        return False


@contextlib.contextmanager
def _cores(count: int | None) -> Iterator[list[int]]:
    """Yield cores of this machine that no other run of a sweep uses, as far as there are enough."""
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
    """Bind this process to its parent's life and to cores, then become the training process.

    Not between fork and exec: the locks of the parent's other threads would stay locked there.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before that
            sys.exit(1)
    if cores:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # Ray's processes block Ctrl-C
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    _leash(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
