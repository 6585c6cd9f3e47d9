"""Sweeps as users run them: on Ray, interrupted, with failing runs, on machines that die."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import types

import numpy as np
import pytest

from lsanet_jax.errors import ConfigError, WorkdirError
from lsanet_jax.runs import chain
from lsanet_jax.sweeps import cluster, owner, progress, schedule
from lsanet_jax.sweeps import job as job_lib
from lsanet_jax.sweeps import run as command_line
from lsanet_jax.sweeps import spec as sweep_lib

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Runs of two kinds: real ones of seconds; and, with a fake in place of lsanet_jax.main, many.
FILE = """
from lsanet_jax.sweeps.spec import Run, Sweep

FIELDS = {{
    "model.backbone": "tests.networks:TinyNet",
    "model.taps": (1, 2),
    "data.size": 28,
    "data.image_size": 28,
    "data.synthetic.num_train": 32,
    "data.synthetic.num_val": 16,
    "data.synthetic.num_test": 16,
    "data.synthetic.num_classes": 3,
    "train.epochs": {epochs},
    "train.batch_size": 16,
    "eval.batch_size": 16,
}}


def get_sweep(scale):
    runs = [
        Run(name, "quickstart", {{**FIELDS, **fields}}, {{"Run": name}})
        for name, fields in {runs}.items()
    ]
    return Sweep("tiny", "Tiny", tuple(runs), scale, seeds={seeds})
"""

REAL = {name: {"model.objective": name} for name in ("baseline", "dsn", "lsanet")}
MANY = {f"run{number}": {"loss.mu": number / 10} for number in range(20)}

# Python imports it at its start, where it is on the path: it is the training, for which it takes
# a second or so, and it notes each start and each step.
FAKE = """
import fcntl, json, os, pathlib, shutil, signal, sys, time

if "lsanet_jax.main" in sys.orig_argv:
    flags = dict(a[2:].split("=", 1) for a in sys.orig_argv if a.startswith("--"))
    workdir = pathlib.Path(flags["workdir"])
    name = f"{workdir.parent.name}-{workdir.name}"
    workdir.mkdir(parents=True, exist_ok=True)
    lock = (workdir / "lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print("error: another process is training in it")
        os._exit(2)
    folder = pathlib.Path(__file__).parent
    shutil.copyfile(folder / "configs" / f"{name}.json", workdir / "config.json")
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    metrics = workdir / "metrics.jsonl"
    done = len(metrics.read_text().splitlines()) if metrics.exists() else 0
    print("starting after", done, "on GPU", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
    for epoch in range(done + 1, 5):
        time.sleep(0.1)
        if stopped:
            os._exit(75)
        with metrics.open("a") as stream:
            stream.write(json.dumps({"epoch": epoch}) + "\\\\n")
        way = folder / f"{name}.{epoch}"  # How it is to end there, once.
        if way.exists():
            text = way.read_text()
            way.unlink()
            print("error:", text, flush=True)
            if text == "kill":
                os.kill(os.getpid(), 9)
            while text == "wait":
                time.sleep(0.1)
                if stopped:
                    os._exit(75)
            os._exit(int(text))
    result = {"test": {"acc": 0.5, "auc": 0.75}, "seconds": 0.4}
    (workdir / "result.json").write_text(json.dumps(result))
    print("finished", flush=True)
    os._exit(0)
""".replace("\\\\n", "\\n")


class Launcher:
    """Starts `python -m lsanet_jax.sweeps.run` on a sweep file of its own folder."""

    def __init__(self, folder, runs, *, seeds=(0,), epochs=4, fake=False):
        folder.mkdir(exist_ok=True)
        self.folder, self.workdir = folder, folder / "out"
        self.file = folder / "tiny.py"
        self.file.write_text(FILE.format(runs=runs, seeds=seeds, epochs=epochs))
        self.sweep = sweep_lib.load(self.file)
        self.jobs = sweep_lib.jobs(self.sweep, self.workdir)
        self.environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        if fake:
            (folder / "sitecustomize.py").write_text(FAKE)
            (folder / "configs").mkdir()
            self.environment["PYTHONPATH"] = str(folder)
            for job in self.jobs:
                config = sweep_lib.resolve(self.sweep, job.run, job.seed)
                fields = dict(sweep_lib.config_lib.flatten(config))
                path = folder / "configs" / f"{job.run.name}-seed{job.seed}.json"
                path.write_text(json.dumps(fields))

    def start(self, *flags):
        command = [sys.executable, "-m", "lsanet_jax.sweeps.run"]
        return subprocess.Popen(
            [*command, f"--sweep={self.file}", f"--workdir={self.workdir}", *flags],
            cwd=ROOT,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # as a terminal has it: a signal reaches the whole group
        )

    def run(self, *flags):
        """Returns exit code, output, errors."""
        return ended(self.start(*flags))

    def results(self):
        return {job.name for job in self.jobs if (job.workdir / "result.json").exists()}

    def count(self, line):
        """How often a line is in each log."""
        logs = {job.name: job.log.read_text() if job.log.exists() else "" for job in self.jobs}
        return {name: log.count(line) for name, log in logs.items()}


def ended(process):
    try:
        output, errors = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise AssertionError(f"it hangs: {process.communicate()}") from None
    return process.returncode, output, errors


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def outcome(job):
    """All that depends on the training: the digests, without what is also of the environment."""
    records = chain.read(job.workdir).records
    assert [record["epoch"] for record in records] == list(range(1, len(records) + 1))
    return [{key: record[key] for key in ("epoch", "loss", *chain.PARTS)} for record in records]


def processes(text):
    """The numbers of the processes that have a text in their command line."""
    found = []
    for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in line and str(os.getpid()) != file.parent.name:
                found.append(int(file.parent.name))
    return found


def parent(process):
    """The number of a process's parent."""
    status = pathlib.Path(f"/proc/{process}/status").read_text()
    return int(status.partition("PPid:")[2].split()[0])


@pytest.fixture(autouse=True)
def signals_as_before():
    """Ray's nodes that are started in this process take SIGTERM, and keep it."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


needs_proc = pytest.mark.skipif(not pathlib.Path("/proc/self").exists(), reason="needs /proc")


@pytest.fixture
def many(tmp_path):
    pytest.importorskip("ray")
    return Launcher(tmp_path / "many", MANY, fake=True)


# ------------------------------------------------------------------------------ on Ray


@pytest.mark.slow
@needs_proc
def test_an_interrupted_sweep_goes_on_with_exactly_what_is_missing(many):
    rng = np.random.default_rng(0)
    finished = []
    for number in (signal.SIGINT, signal.SIGINT, signal.SIGTERM):
        process, enough = many.start("--cpus_per_run=1"), len(finished) + int(rng.integers(1, 4))
        wait_for(lambda enough=enough: len(many.results()) >= enough)
        time.sleep(rng.uniform(0, 0.5))
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        code, _, errors = ended(process)
        finished = many.results()
        assert code == 75, errors
        left = 20 - len(finished)
        assert f"{len(finished)} of 20 runs are finished, {left} are left" in errors
        assert not processes(str(many.workdir))
    code, output, errors = many.run("--cpus_per_run=1")
    assert code == 0, errors
    assert output.count("done") == 20 and "50.00  75.00" in output
    assert set(many.count("finished").values()) == {1}  # none was trained twice
    for job in many.jobs:
        epochs = [json.loads(line)["epoch"] for line in (job.workdir / "metrics.jsonl").open()]
        assert epochs == [1, 2, 3, 4]
    starts = many.count(job_lib.STARTED)
    code, output, _ = many.run("--cpus_per_run=1")
    assert code == 0 and output.count("done") == 20
    assert many.count(job_lib.STARTED) == starts


def test_a_failing_run_stands_as_failed_and_the_others_finish(tmp_path):
    pytest.importorskip("ray")
    tiny = Launcher(
        tmp_path / "some", {f"run{n}": {"loss.mu": n / 10} for n in range(5)}, fake=True
    )
    for way in ("run0-seed0.2", "run1-seed0.2", "run1-seed0.3", "run1-seed0.4"):
        (tiny.folder / way).write_text("kill" if "run0" in way else "1")
    (tiny.folder / "run2-seed0.1").write_text("2")
    (tiny.folder / "run3-seed0.1").write_text("75")
    code, output, errors = tiny.run("--cpus_per_run=1", "--retries=2")
    assert code == 1, errors
    assert tiny.count(job_lib.STARTED) == {
        "run0/seed0": 2,  # killed once, resumed
        "run1/seed0": 3,  # failed to the end
        "run2/seed0": 1,  # an error of the user's
        "run3/seed0": 2,  # stopped by someone else
        "run4/seed0": 1,
    }
    assert tiny.results() == {"run0/seed0", "run3/seed0", "run4/seed0"}
    errors_of = [job.error for job in tiny.jobs]
    assert [file.exists() for file in errors_of] == [False, True, True, False, False]
    assert json.loads(errors_of[1].read_text()) == {"error": "1", "attempts": 3, "exit_code": 1}
    assert json.loads(errors_of[2].read_text()) == {"error": "2", "attempts": 1, "exit_code": 2}
    assert output.count("failed") == 2 and output.count("done") == 3
    assert "run1/seed0 failed: 1 (see" in errors

    code, output, errors = tiny.run("--cpus_per_run=1")  # as if fixed
    assert code == 0, errors
    assert not any(file.exists() for file in errors_of)
    assert sum(tiny.count(job_lib.STARTED).values()) == 9 + 2


@pytest.mark.slow
@needs_proc
def test_no_second_process_runs_the_same_sweep(many):
    (many.folder / "run0-seed0.2").write_text("wait")
    process = many.start("--cpus_per_run=1")
    wait_for(many.results)
    for flags in ((), ("--job=3",)):
        code, _, errors = many.run(*flags)
        assert code == 2
        assert (
            f"another process is running the sweep in --workdir={many.workdir} (process " in errors
        )
    os.kill(process.pid, signal.SIGKILL)  # all that it has started ends with it
    process.communicate()
    wait_for(lambda: not processes(str(many.workdir)), seconds=20)
    code, _, errors = many.run("--cpus_per_run=1", "--filter=run1?")
    assert code == 0, errors
    assert len(many.results()) >= 10
    assert max(many.count("finished").values()) == 1


def undisturbed(folder, *args, **kwargs):
    """What real runs end with that nothing disturbs."""
    tiny = Launcher(folder / "whole", *args, **kwargs)
    code, _, errors = tiny.run("--cpus_per_run=1")
    assert code == 0, errors
    return {job.name: outcome(job) for job in tiny.jobs}


@pytest.mark.slow
@needs_proc
def test_runs_of_a_dead_node_move_to_another_with_the_same_bits(tmp_path):
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    tiny = Launcher(tmp_path / "cluster", REAL, seeds=(0, 1), epochs=12)
    head = {"num_cpus": 0, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    machines = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = [machines.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
        process = tiny.start(f"--address={machines.address}", "--cpus_per_run=1")
        training = lambda: [
            job
            for job in tiny.jobs
            if (job.workdir / "digests.jsonl").exists() and job.name not in tiny.results()
        ]
        wait_for(training)
        trainer = processes(
            f"lsanet_jax.main --config={ROOT}/configs/quickstart.py "
            f"--workdir={training()[0].workdir} "
        )[0]
        worker = parent(trainer)
        raylets = {node.all_processes["raylet"][0].process for node in nodes}
        raylet = next(raylet for raylet in raylets if raylet.pid == parent(worker))
        raylet.kill()
        raylet.wait()  # its workers look whether the process is there, be it a zombie
        code, output, errors = ended(process)
    finally:
        machines.shutdown()
    assert code == 0, errors
    assert output.count("done") == 6
    assert "starts again: its machine or process was lost" in errors
    whole = undisturbed(tmp_path, REAL, seeds=(0, 1), epochs=12)
    assert {job.name: outcome(job) for job in tiny.jobs} == whole
    assert sum(tiny.count(job_lib.STARTED).values()) == 7
    assert set(tiny.count("result in").values()) == {1}


@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token(many, tmp_path):
    """As in docs/clusters.md; `ray start` asks for a token as soon as there is one."""
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    clean = {k: v for k, v in many.environment.items() if not k.startswith("RAY_")}
    many.environment = {**clean, "HOME": str(home)}
    ray = pathlib.Path(sys.executable).with_name("ray")
    command = [ray, "start", "--head", "--block", "--port=0", "--num-cpus=2"]
    head = subprocess.Popen(
        [*command, "--include-dashboard=false", f"--temp-dir={tempfile.mkdtemp(prefix='ray')}"],
        env=many.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said = iter(head.stdout.readline, "")
        address = next(line for line in said if "ray start --address=" in line).split("'")[1]
        many.environment["HOME"] = str(tmp_path)
        code, _, errors = many.run(f"--address={address}")
        assert code == 2 and errors.count("error: ") == 1 + errors.count("RPC error: "), errors
        assert "it asks for another token than this machine has" in errors.splitlines()[-1]
        assert "ray get-auth-token" in errors and "Traceback" not in errors
        many.environment["HOME"] = str(home)
        code, output, errors = many.run(f"--address={address}", "--cpus_per_run=1")
        assert code == 0, errors
        assert output.count("done") == 20
    finally:
        head.terminate()
        head.communicate(timeout=60)


def test_a_sweep_on_this_machine_leaves_no_token_at_home(many, tmp_path):
    """With one there, `ray start --head` would let in only who has it."""
    clean = {k: v for k, v in many.environment.items() if not k.startswith("RAY_")}
    many.environment = {**clean, "HOME": str(tmp_path)}
    code, _, errors = many.run("--cpus_per_run=1", "--filter=run1")
    assert code == 0, errors
    assert not (tmp_path / ".ray").exists()


def test_runs_have_a_gpu_each_where_there_are_some(tmp_path):
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    tiny = Launcher(
        tmp_path / "some", {f"run{n}": {"loss.mu": n / 10} for n in range(4)}, fake=True
    )
    head = {"num_cpus": 3, "num_gpus": 2, "object_store_memory": 80 * 2**20}  # Ray believes it
    machines = cluster_utils.Cluster(
        initialize_head=True, head_node_args={**head, "include_dashboard": False}
    )
    try:
        code, _, errors = tiny.run(f"--address={machines.address}")
    finally:
        machines.shutdown()
    assert code == 0, errors
    used = [tiny.count(f"on GPU {gpu}\n") for gpu in (0, 1)]
    assert [sum(counts.values()) for counts in used] == [2, 2]
    assert not any(tiny.count("cores").values())


@pytest.mark.slow
def test_an_interrupted_sweep_ends_with_the_same_bits(tmp_path):
    pytest.importorskip("ray")
    two = {name: REAL[name] for name in ("baseline", "lsanet")}
    tiny = Launcher(tmp_path / "interrupted", two, epochs=12)
    process = tiny.start("--cpus_per_run=1")
    wait_for(lambda: any((job.workdir / "digests.jsonl").exists() for job in tiny.jobs))
    os.killpg(process.pid, signal.SIGINT)
    code, _, errors = ended(process)
    assert code == 75, errors
    assert len(tiny.results()) < 2
    assert tiny.run("--cpus_per_run=1")[0] == 0
    assert {job.name: outcome(job) for job in tiny.jobs} == undisturbed(tmp_path, two, epochs=12)


# ------------------------------------------------------------------------------ one run, no Ray


def test_slurm_arrays_run_a_job_each(many):
    code, output, _ = many.run("--count")
    assert (code, output) == (0, "20\n")
    (many.folder / "run7-seed0.2").write_text("kill")
    code, output, errors = many.run("--job=7")
    assert code == 0, errors
    assert many.results() == {"run7/seed0"}
    assert "killed by SIGKILL" in errors
    (many.folder / "run8-seed0.2").write_text("wait")
    process = many.start("--job=8")
    wait_for(lambda: many.count("error: wait")["run8/seed0"])
    process.send_signal(signal.SIGTERM)
    code, _, errors = ended(process)
    assert code == 75 and "run8/seed0 was stopped: the same command resumes it" in errors
    first, second = many.start("--job=8"), many.start("--job=8")
    assert ended(first)[0] == ended(second)[0] == 0
    assert many.count("finished")["run8/seed0"] == 1
    code, _, errors = many.run("--job=20")
    assert code == 2 and "--job=20: there are 20 runs, counted from 0" in errors


def task(folder, code, **kwargs):
    return job_lib.Task(
        arguments=("-c", code),
        workdir=str(folder / "seed0"),
        log=str(folder / "seed0.log"),
        folder=str(folder),
        environment={},
        **kwargs,
    )


SLEEP = "import time; print('sleeping', flush=True); time.sleep(60)"


@needs_proc
def test_a_process_dies_with_the_one_that_asked_for_it(tmp_path):
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from lsanet_jax.sweeps import job; "
        f"job.train(job.Task(*{tuple(task(tmp_path, SLEEP))!r}), lambda: False)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(ROOT)])
    log = tmp_path / "seed0.log"
    wait_for(lambda: log.exists() and "sleeping" in log.read_text())
    assert job_lib._try(log.open("a")) is False
    child = pathlib.Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    parent.kill()
    parent.wait()
    wait_for(lambda: not pathlib.Path(f"/proc/{child[0]}/cwd").exists(), seconds=5)
    assert job_lib._try(log.open("a"))


def test_a_run_waits_while_someone_else_trains_in_its_workdir(tmp_path):
    (tmp_path / "seed0").mkdir()
    calls = iter(range(1000))
    with (tmp_path / "seed0" / "lock").open("a") as held:
        assert job_lib._try(held)
        attempt = job_lib.train(task(tmp_path, "raise SystemExit(3)"), lambda: next(calls) > 1)
        assert attempt.exit_code == 75
        assert (tmp_path / "seed0.log").read_text() == ""
    attempt = job_lib.train(task(tmp_path, "raise SystemExit(3)"), lambda: False)
    assert attempt.exit_code == 3


def test_a_run_without_a_seal_is_not_finished(tmp_path):
    """As after a kill between the two: training then writes the seal."""
    (tmp_path / "seed0").mkdir()
    result = {"test_looks": 1}
    (tmp_path / "seed0" / "result.json").write_text(json.dumps(result))
    seal = "import pathlib; pathlib.Path('seed0/seal.json').write_text('{}')"
    for code in (seal, "raise SystemExit(3)"):
        attempt = job_lib.train(task(tmp_path, code), lambda: False)
        assert attempt == job_lib.Attempt(0, result=result)


def test_signals_do_what_they_did_when_nothing_trains():
    heard = []
    signal.signal(signal.SIGTERM, lambda *_: heard.append("before"))
    with schedule.Stop() as stop:
        signal.raise_signal(signal.SIGTERM)
        assert stop() and not heard
    signal.raise_signal(signal.SIGTERM)
    assert heard == ["before"]


def test_a_run_that_does_not_end_in_time_is_killed(tmp_path):
    code = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
    log = tmp_path / "seed0.log"
    stop = lambda: log.exists() and "sleeping" in log.read_text()
    start = time.monotonic()
    assert job_lib.train(task(tmp_path, code, grace=0.5), stop) == job_lib.Attempt(75)
    assert time.monotonic() - start < 30


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs sched_getaffinity")
def test_runs_have_cores_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(job_lib.tempfile, "gettempdir", lambda: str(tmp_path))
    cores = sorted(os.sched_getaffinity(0))
    with job_lib._cores(1) as first, job_lib._cores(len(cores)) as second:
        assert first == cores[:1]
        assert second == cores  # there are no others: shared
    if len(cores) > 1:
        with job_lib._cores(1) as first, job_lib._cores(1) as second:
            assert (first, second) == (cores[:1], cores[1:2])
    job_lib.train(task(tmp_path, "import os; print(os.sched_getaffinity(0))", cores=1), bool)
    assert f"{{{cores[0]}}}" in (tmp_path / "seed0.log").read_text()


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("error: config.x is wrong\n", "config.x is wrong"),
        ("Traceback:\n  File\nlsanet.X.FooError: no\nmore\n", "lsanet.X.FooError: no"),
        ("  0%|  |\r 10%|# |\rlast words", "last words"),
        ("", ""),
    ],
)
def test_the_line_that_says_best_why_a_run_failed(text, error, tmp_path):
    (tmp_path / "log").write_text(f"error: of an earlier attempt\n{text}")
    assert job_lib.last_error(tmp_path / "log", len("error: of an earlier attempt\n")) == error


def test_a_run_that_loses_its_machine_again_and_again_fails_in_the_end(tmp_path):
    outcome, lost = job_lib.Outcome(), job_lib.Attempt(75, "its machine was lost")
    for _ in range(job_lib.MAX_LOST):
        assert outcome.take(lost, tmp_path / "error.json", retries=2)
    assert not outcome.take(lost, tmp_path / "error.json", retries=2)
    assert outcome.state == "failed"
    assert "21 times" in json.loads((tmp_path / "error.json").read_text())["error"]


@pytest.mark.parametrize("exit_code", [0, 2])
def test_a_disk_that_fails_ends_no_sweep(tmp_path, exit_code):
    (tmp_path / "gone").write_text("")  # in place of a folder
    outcome = job_lib.Outcome()
    attempt = job_lib.Attempt(exit_code, "no space left")
    assert not outcome.take(attempt, tmp_path / "gone/error.json", retries=2)
    assert (outcome.state, outcome.error) == {0: ("done", ""), 2: ("failed", "no space left")}[
        exit_code
    ]
    assert progress._size(tmp_path / "gone/log") == 0
    assert progress._epochs(types.SimpleNamespace(workdir=tmp_path / "gone")) == 0


def test_the_lock_tells_tasks_whether_their_sweep_still_runs(tmp_path):
    with owner.running(tmp_path) as token:
        assert owner.owns(tmp_path, token)
        for shared in (False, True):
            with pytest.raises(WorkdirError, match="another process"):
                owner.running(tmp_path, shared=shared).__enter__()
        owner.disown(tmp_path)
        assert not owner.owns(tmp_path, token)
    with (
        owner.running(tmp_path, shared=True),
        owner.running(tmp_path, shared=True),
        pytest.raises(WorkdirError, match="one or more with --job"),
    ):
        owner.running(tmp_path).__enter__()


# ------------------------------------------------------------------------------ errors, plans


@pytest.fixture
def tool(tmp_path, monkeypatch, capsys):
    """Runs the tool in this process; returns exit code, output, errors."""
    tiny = Launcher(tmp_path / "tiny", REAL)

    def run(*flags):
        command = ["sweep", f"--sweep={tiny.file}", f"--workdir={tiny.workdir}", *flags]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as raised:
            command_line.main()
        captured = capsys.readouterr()
        return raised.value.code, captured.out, captured.err

    run.tiny = tiny
    return run


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config.model.bakbone=x"], "config.model.bakbone: no such field"),
        (["--config.train.epochs=0"], "tiny, baseline: config.train.epochs = 0"),
        (["--filter=resnet*"], "--filter=resnet* matches none of the runs: baseline, dsn, lsanet"),
        (["--scale=big"], "--scale=big must be paper or 28px"),
        (["--address=nonsense"], "--address=nonsense must be HOST:PORT or auto"),
        (["--address=127.0.0.1:1"], "--address=127.0.0.1:1 cannot be reached (Connection refused)"),
        (["--seeds=1,x"], "'x' must be an integer >= 0"),
        (["--cpus_per_run=0"], "'0' must be an integer >= 1"),
    ],
)
def test_a_bad_flag_is_one_clear_error(flags, message, tool):
    code, output, errors = tool(*flags)
    assert code == 2 and output == ""
    assert message in errors.splitlines()[-1]


def test_a_slip_in_get_sweep_is_one_line_and_exit_code_2(tool):
    text = tool.tiny.file.read_text()
    tool.tiny.file.write_text(text.replace("scale, seeds=(0,)", "scale, sedes=(0,)"))
    code, output, errors = tool("--dry_run")
    assert code == 2 and output == "" and len(errors.splitlines()) == 1
    assert errors.startswith(f"error: --sweep={tool.tiny.file}, line ")
    assert "get_sweep failed: TypeError" in errors and "'sedes'" in errors


def test_without_ray_the_error_says_what_to_install(tool, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, errors = tool()
    assert code == 2 and "pip install --no-deps -r requirements-sweep.txt" in errors


def test_more_than_any_machine_has_is_an_error(many):
    code, _, errors = many.run("--gpus_per_run=999")
    assert code == 2
    assert errors.splitlines()[-1].startswith("error: --gpus_per_run=999: no machine has that many")
    assert not many.results()


def a_ray(*machines):
    nodes = [{"Alive": True, "Resources": {"CPU": cpu, "GPU": gpu}} for cpu, gpu in machines]
    dead = {"Alive": False, "Resources": {"CPU": 64, "GPU": 8}}
    return types.SimpleNamespace(nodes=lambda: [dead, *nodes])


@pytest.mark.parametrize(
    ("machines", "given", "expected", "slots"),
    [
        ([(2, 0)], (None, None), (2, 0), 1),
        ([(2, 0)], (1, None), (1, 0), 2),
        ([(0, 0), (16, 0), (32, 0)], (None, None), (4, 0), 12),
        ([(8, 2), (64, 0), (16, 8)], (None, None), (1, 1), 10),
        ([(8, 2), (16, 8)], (4, 1), (4, 1), 2 + 4),
        ([(8, 2), (16, 8)], (None, 2), (1, 2), 1 + 4),
        ([(8, 2), (16, 8)], (None, 0), (4, 0), 2 + 4),
    ],
)
def test_each_run_has_its_share_of_the_machines(machines, given, expected, slots):
    ray = a_ray(*machines)
    assert cluster.share(ray, *given) == expected
    assert cluster.slots(ray, *expected) == slots


@pytest.mark.parametrize(
    ("machines", "given", "message"),
    [
        ([(2, 0)], (None, 1), "--gpus_per_run=1: no machine has that many GPUs; the most is 0"),
        (
            [(2, 0), (4, 0)],
            (8, None),
            "--cpus_per_run=8: no machine has that many cores; the most is 4",
        ),
        ([(2, 1), (4, 0)], (4, 1), "no machine has that many cores and a GPU"),
        ([(0, 0)], (None, None), "no machine of the cluster has a core for runs"),
    ],
)
def test_what_no_machine_has_is_named(machines, given, message):
    with pytest.raises(ConfigError) as error:
        cluster.share(a_ray(*machines), *given)
    assert message in str(error.value)


@pytest.mark.slow
def test_a_port_that_is_not_rays_is_an_error(many):
    with socket.create_server(("127.0.0.1", 0)) as server:
        code, _, errors = many.run(f"--address=127.0.0.1:{server.getsockname()[1]}")
    assert code == 2
    assert "has not answered for 30 s" in errors.splitlines()[-1]


def test_damaged_and_foreign_results_are_named_and_kept(tool):
    job = tool.tiny.jobs[1]
    job.workdir.mkdir(parents=True)
    (job.workdir / "result.json").write_text("{}")
    sweep_lib.write_atomically(
        tool.tiny.workdir / "sweep.json", json.dumps(sweep_lib._description(tool.tiny.sweep))
    )
    code, _, errors = tool()
    assert code == 2 and f"{job.workdir}/config.json: cannot be read (No such file" in errors
    config = sweep_lib.resolve(tool.tiny.sweep, job.run, job.seed)
    fields = dict(sweep_lib.config_lib.flatten(config))
    for changes, message in (
        ({}, f"{job.workdir}/result.json is damaged"),
        ({"train.epochs": 7}, f"{job.workdir} holds a run of another config: train.epochs is 7"),
    ):
        (job.workdir / "config.json").write_text(json.dumps({**fields, **changes}))
        code, _, errors = tool()
        assert code == 2 and message in errors
    assert (job.workdir / "result.json").read_text() == "{}"


def test_a_dry_run_lists_states_and_times_and_starts_nothing(tool):
    code, output, errors = tool("--dry_run", "--seeds=0,1")
    assert code == 0, errors
    assert output.count("missing") == 6
    assert output.splitlines()[1].split() == ["0", "baseline/seed0", "missing", "?"]
    assert output.endswith("6 of 6 runs to train; times are known once a run is finished here\n")
    assert not tool.tiny.workdir.exists()


def test_a_dry_run_estimates_times_from_the_finished_runs(tool):
    job = tool.tiny.jobs[1]
    config = sweep_lib.resolve(tool.tiny.sweep, job.run, job.seed)
    sweep_lib.claim(tool.tiny.sweep, tool.tiny.workdir)
    job.workdir.mkdir(parents=True)
    fields = dict(sweep_lib.config_lib.flatten(config))
    (job.workdir / "config.json").write_text(json.dumps(fields))
    result = {"test": {"acc": 0.5, "auc": 0.75}, "seconds": 40.0}  # 10 s an epoch
    (job.workdir / "result.json").write_text(json.dumps(result))
    tool.tiny.jobs[2].workdir.mkdir(parents=True)
    (tool.tiny.jobs[2].workdir / "metrics.jsonl").write_text("{}\n")
    code, output, errors = tool("--dry_run")
    assert code == 0, errors
    assert [line.split() for line in output.splitlines()[1:4]] == [
        ["0", "baseline/seed0", "missing", "00:40"],
        ["1", "dsn/seed0", "done", "00:40"],
        ["2", "lsanet/seed0", "epoch", "1/4", "00:30"],
    ]
    assert output.endswith("2 of 3 runs to train: about 01:10 one after the other\n")


def test_help_says_where_the_times_come_from(capsys):
    with pytest.raises(SystemExit):
        command_line._parser().parse_args(["--help"])
    assert "medians of the runs that are finished in WORKDIR" in capsys.readouterr().out


# ------------------------------------------------------------------------------ from a wheel


def test_what_runs_on_other_machines_imports_nothing_heavy():
    code = (
        "import sys; from lsanet_jax.sweeps import job, owner; "
        "print({'jax', 'numpy', 'ml_collections', 'absl', 'ray', 'tqdm'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == "set()\n", done.stderr


@pytest.fixture
def installed(tmp_path):
    """The package as a wheel installs it, for a process in an empty folder; returns its variables.

    Each process notes from where it has the package.
    """
    site = tmp_path / "site-packages"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "lsanet_jax", site / "lsanet_jax", ignore=ignored)
    shutil.copytree(ROOT / "configs", site / "lsanet_jax" / "configs", ignore=ignored)
    (tmp_path / "empty").mkdir()
    return {**os.environ, "PYTHONPATH": str(site)}


def test_an_installed_package_lists_the_sweeps_of_the_paper(installed, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lsanet_jax.sweeps.run", "--sweep=table3", "--dry_run"]
        + ["--workdir=out"],
        check=False,
        cwd=tmp_path / "empty",
        env=installed,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "dsn_lsa/seed1" in done.stdout and "15 of 15 runs to train" in done.stdout


def test_an_installed_package_trains_a_run_with_its_own_code(installed, tmp_path):
    own = tmp_path / "own.py"
    own.write_text(
        "from lsanet_jax.config import default_config\n"
        "from lsanet_jax.sweeps.spec import Run, Sweep\n\n"
        "get_config = default_config\n\n"
        "def get_sweep(scale):\n"
        "    return Sweep('own', 'Own', (Run('a', __file__, {}, {'Run': 'a'}),), scale, (0,))\n"
    )
    site = pathlib.Path(installed["PYTHONPATH"])
    (site / "lsanet_jax" / "main.py").write_text(
        "import lsanet_jax, sys\nsys.exit(f'error: {lsanet_jax.__file__}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "lsanet_jax.sweeps.run", f"--sweep={own}", "--job=0"]
        + ["--workdir=out", "--retries=0"],
        check=False,
        cwd=tmp_path / "empty",
        env=installed,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    log = (tmp_path / "empty" / "out" / "a" / "seed0.log").read_text()
    assert log.splitlines()[-1] == f"error: {site}/lsanet_jax/__init__.py"


def test_progress_says_how_far_each_run_is_and_how_long_it_takes(tool, capsys, monkeypatch):
    jobs = tool.tiny.jobs
    outcomes = {job: job_lib.Outcome() for job in jobs}
    pending = {1: jobs[1], 2: jobs[2]}
    shown = progress.Progress(tool.tiny.sweep, outcomes, lambda: 2, pending)
    for job in pending.values():
        shown.submitted(job)
    shown.show()
    assert "0 of 3 done; running: none yet\n" in capsys.readouterr().err
    result = {"test": {"acc": 0.5, "auc": None}, "seconds": 40.0}
    outcomes[jobs[0]].take(job_lib.Attempt(0, result=result), jobs[0].error, 2)
    shown.ended(jobs[0])
    assert "baseline/seed0: ACC 50.00, AUC -" in capsys.readouterr().err
    jobs[1].workdir.mkdir(parents=True)
    jobs[1].log.write_text("started")
    (jobs[1].workdir / "metrics.jsonl").write_text("{}\n{}\n")
    monkeypatch.setattr(progress, "PRINT_SECONDS", 0)
    shown.show()  # 10 s an epoch; 2 + 4 epochs, two at a time, but one run is one run
    expected = "1 of 3 done; running: dsn/seed0 2/4; about 00:40 left"
    assert expected in capsys.readouterr().err
