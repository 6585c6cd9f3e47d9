"""Kills, signals, damaged and full disks: a run still ends with the same bits, or says why not."""

import contextlib
import functools
import itertools
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
import tqdm
from flax import nnx

from configs import quickstart
from lsanet_jax import metrics, train
from lsanet_jax.errors import WorkdirError
from lsanet_jax.runs import chain, layout, manifest, seal, workdir
from lsanet_jax.runs.checkpoint import Checkpoints, Model
from lsanet_jax.runtime import cli, files, interrupts
from lsanet_jax.steps import TrainState
from tests.networks import TinyNet

# Where a process may be killed, or stopped, by what it calls there.
POINTS = {
    "claim the folder": (workdir.Workdir, "claim"),
    "replace a file": (os, "replace"),
    "drop epochs": (workdir.Workdir, "keep_epochs"),
    "evaluate": (metrics, "summarize"),
    "append a line": (workdir.Workdir, "_append"),
    "write metrics": (workdir.Workdir, "write_epoch"),
    "write digests": (workdir.Workdir, "write_digests"),
    "save the best": (Checkpoints, "save_best"),
    "save the last": (Checkpoints, "save_last"),
    "commit a checkpoint": (os, "rename"),
    "remove a checkpoint": (shutil, "rmtree"),
    "wait": (Checkpoints, "wait"),
    "write predictions": (workdir.Workdir, "write_predictions"),
    "record a look": (workdir.Workdir, "write_look"),
    "write the result": (workdir.Workdir, "write_result"),
    "seal": (seal, "write"),
}
RESUMING = {"restore": (Checkpoints, "restore_last")}


class Hook(NamedTuple):
    """Says when a process is to do something to itself."""

    point: str
    call: int = 1  # which of the calls, from 1
    when: str = "before"  # before, during, after
    delay: float = 0.0  # seconds after the call begins; during only
    part: float = 0.5  # of the line that is written; "append a line", during

    def install(self, act):
        owner, name = (POINTS | RESUMING)[self.point]
        original, calls = getattr(owner, name), itertools.count(1)

        @functools.wraps(original)
        def hooked(*args, **kwargs):
            if next(calls) != self.call:
                return original(*args, **kwargs)
            if self.when == "during" and self.point == "append a line":
                run, file, record = args
                line = files.json_text(record)
                with (run.path / file).open("a") as stream:
                    stream.write(line[: int(self.part * len(line))])
            elif self.when == "during":
                threading.Timer(self.delay, act).start()
                original(*args, **kwargs)
            elif self.when == "after":
                original(*args, **kwargs)
            act()  # From here on, it was before the call: otherwise this does not return.
            return original(*args, **kwargs)

        setattr(owner, name, hooked)


def small_config(changes=()):
    """Four epochs of three steps."""
    config = quickstart.get_config()
    config.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    config.data.size = config.data.image_size = 28
    config.data.synthetic.update(num_train=48, num_val=16, num_test=16, num_classes=3)
    config.train.update(epochs=4, batch_size=16, log_every_steps=1)
    config.eval.batch_size = 16
    config.update_from_flattened_dict(dict(changes))
    return config


class Trainer:
    """Starts processes that train, forked from one that has imported everything.

    That one is of multiprocessing's: it has no device yet, and so can be forked.
    """

    def __init__(self, folder):
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(
            ["configs.quickstart", "lsanet_jax.train", "sklearn.metrics", "tensorboardX"]
        )

    def start(self, path, *, hook=None, changes=()):
        """Start a process; returns it, and a connection over which it tells what it does."""
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._folder, path, hook, changes)
        process = self._context.Process(target=_train, args=arguments)
        process.start()
        theirs.close()
        assert ours.poll(300) and ours.recv() == "started", self.log(path)
        return process, ours

    def finish(self, path, **kwargs):
        """Returns the exit code of such a process."""
        return self.exit_code(self.start(path, **kwargs)[0])

    @staticmethod
    def exit_code(process):
        process.join(120)  # On a full disk, Orbax may wait for 300 seconds.
        if process.exitcode is None:
            process.kill()
            raise AssertionError(f"process {process.pid} hangs")
        return process.exitcode

    def log(self, path):
        file = self._folder / f"{path.name}.log"
        return file.read_text() if file.exists() else ""


def _train(connection, folder, path, hook, changes):
    """What the processes do."""
    sys.stdout = sys.stderr = (folder / f"{path.name}.log").open("a", buffering=1)
    tqdm.tqdm.set_lock(threading.RLock())  # its own is a semaphore, that a kill would leave behind
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    counts = {}
    if hook == "count":
        for owner, name in POINTS.values():
            _count(owner, name, counts)
    elif hook == "signals":  # tell when they are taken up
        enter = interrupts.Interrupts.__enter__

        def tell(self):
            enter(self)
            connection.send("ready")
            return self

        interrupts.Interrupts.__enter__ = tell
    elif hook is not None and hook.when == "pause":
        hook._replace(when="before").install(lambda: connection.send("paused") or connection.recv())
    elif hook is not None:
        hook.install(lambda: os.kill(os.getpid(), signal.SIGKILL))
    connection.send("started")
    cli.run(lambda: train.train_and_evaluate(small_config(changes), path))
    if hook == "count":
        connection.send({p: counts[name] for p, (_, name) in POINTS.items() if name in counts})


def _count(owner, name, counts):
    original = getattr(owner, name)

    @functools.wraps(original)
    def counting(*args, **kwargs):
        counts[name] = counts.get(name, 0) + 1
        return original(*args, **kwargs)

    setattr(owner, name, counting)


def outcome(path):
    """All that a run ends with, save times; the chain of digests and the seal are checked."""
    assert seal.check(path) is not None
    drop = lambda record, *names: {k: v for k, v in record.items() if k not in names}
    lines = (path / "metrics.jsonl").read_text().splitlines()
    result = json.loads((path / "result.json").read_text())
    return {
        "digests": [drop(record, "previous") for record in chain.read(path).records],
        "looks": [drop(look, "previous") for look in chain.read(path).looks],
        "metrics": [drop(json.loads(line), "images_per_second") for line in lines],
        "result": drop(result, "images_per_second", "seconds", "last_digest"),
    }


def progress(path):
    """How far a run has come, by its files."""
    lines = lambda name: (
        len((path / name).read_bytes().splitlines()) if (path / name).exists() else 0
    )
    steps = [int(p.name) for p in path.glob("checkpoints/last/*") if p.name.isdigit()]
    return lines("metrics.jsonl"), lines("digests.jsonl"), max(steps, default=0)


@pytest.fixture(scope="module")
def trainer(tmp_path_factory):
    return Trainer(tmp_path_factory.mktemp("logs"))


class Whole(NamedTuple):
    """What there is to know of a run that nothing disturbs."""

    outcome: dict
    seconds: float  # of a process that need not compile
    counts: dict  # of the calls at each point


@pytest.fixture(scope="module")
def whole(trainer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert trainer.finish(folder / "first") == 0, trainer.log(folder / "first")
    process, connection = trainer.start(folder / "second", hook="count")
    start = time.monotonic()
    assert trainer.exit_code(process) == 0
    seconds = time.monotonic() - start
    assert outcome(folder / "second") == outcome(folder / "first")
    return Whole(outcome(folder / "first"), seconds, connection.recv())


def kill(trainer, path, hook, delay):
    """Train until the hook kills the process, or we do after a delay; whether it was killed."""
    process, _ = trainer.start(path, hook=hook)
    if hook is None:
        time.sleep(delay)
        process.kill()
    code = trainer.exit_code(process)
    assert code in (0, -signal.SIGKILL), trainer.log(path)
    return code != 0


@pytest.mark.slow
def test_runs_killed_at_25_moments_end_with_the_same_bits(trainer, whole, tmp_path):
    rng = random.Random(0)
    points, moments, number, again = set(), set(), 0, 0

    def draw(counts):
        point = rng.choice([p for p in counts if p not in points] or list(counts))
        when = rng.choice(["before", "during", "after"])
        call = rng.randint(1, counts[point])
        return Hook(point, call, when, delay=rng.uniform(0, 0.02), part=rng.random())

    for attempt in itertools.count():
        assert attempt < 50
        path = tmp_path / str(attempt)
        hook = draw({p: n for p, n in whole.counts.items() if n}) if number % 2 else None
        if not kill(trainer, path, hook, rng.uniform(0, whole.seconds)):
            continue  # it was too late: the run had ended
        number += 1
        points |= {hook.point} if hook else set()
        moments.add(progress(path))
        if number % 3 == 0:  # once more, in the run that resumes
            if number % 2:
                hook = rng.choice([Hook("restore", 1, "after"), Hook("drop epochs", 1, "after")])
            else:
                hook = None
            again += kill(trainer, path, hook, rng.uniform(0, whole.seconds))
        assert trainer.finish(path) == 0, trainer.log(path)
        assert outcome(path) == whole.outcome, (number, hook)
        assert not list(path.rglob("*tmp*")), "left behind"
        if number == 25:
            break
    print(f"{number} of 25 identical, {again} of them killed twice; {len(points)} points", moments)
    assert len(points) >= 10
    assert len(moments) >= 5
    assert again >= 3


@pytest.mark.slow
def test_runs_signalled_at_5_moments_end_with_the_same_bits(trainer, whole, tmp_path):
    rng = random.Random(0)
    codes = []
    for attempt in range(20):
        path = tmp_path / str(attempt)
        process, connection = trainer.start(path, hook="signals")
        assert connection.poll(300) and connection.recv() == "ready"
        time.sleep(rng.uniform(0, whole.seconds / 2))
        process.terminate()
        codes.append(trainer.exit_code(process))
        assert codes[-1] in (0, cli.INTERRUPTED, -signal.SIGTERM), trainer.log(path)
        if codes[-1] == cli.INTERRUPTED:
            assert "the same command resumes" in trainer.log(path)
        assert trainer.finish(path) == 0, trainer.log(path)
        assert outcome(path) == whole.outcome
        if codes.count(cli.INTERRUPTED) == 5:
            break
    print(codes)
    assert codes.count(cli.INTERRUPTED) == 5


# ------------------------------------------------------------------------------ damaged files


def make_state(seed, step):
    """A training state, as it may be after some steps."""
    rng = np.random.default_rng(seed)
    tx = optax.adam(1e-3)
    model = TinyNet(3, rngs=nnx.Rngs(0))
    _, params, batch_stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, tx.init(params))
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape).astype(x.dtype))
    return jax.tree.map(draw, state)._replace(step=jnp.asarray(step, jnp.int32))


def everything(state, means, meta):
    return manifest.tensor_digests(state), manifest.tensor_digests(means), meta


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory):
    """A folder of checkpoints after steps 3 and 6, the best being epoch 2, and what they hold."""
    folder = tmp_path_factory.mktemp("two")
    held = {}
    with Checkpoints(folder) as checkpoints:
        for epoch in (1, 2):
            state, means = make_state(epoch, 3 * epoch), [jnp.arange(3.0) / epoch]
            meta = {"epoch": epoch, "best_val": {"auc": 1 / (2 + epoch)}, "rates": [1e3 / epoch]}
            checkpoints.save_last(3 * epoch, state, means, meta)
            checkpoints.save_best(epoch, state)
            held[3 * epoch] = everything(state, means, meta)
    return folder, held


def test_a_checkpoint_may_take_as_long_as_a_laptop_sleeps(tmp_path, monkeypatch):
    clock = itertools.count(time.time(), 3600.0)  # every look at it is an hour later
    slow = types.SimpleNamespace(**vars(time) | {"time": lambda: next(clock)})
    monkeypatch.setattr(sys.modules[ocp.future.ChainedFuture.__module__], "time", slow)
    meta = {"epoch": 1, "best_val": {"auc": 0.5}, "rates": [1e3]}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save_last(3, make_state(1, 3), [jnp.zeros(3)], meta)
    assert next(clock) > time.time() + 3600
    with Checkpoints(tmp_path) as checkpoints:
        assert int(checkpoints.restore_last(make_state(0, 0), [jnp.zeros(3)])[0].step) == 3


def truncate(content, rng):
    return content[: len(content) // 2]


def empty(content, rng):
    return b""


def flip_a_byte(content, rng):
    changed = bytearray(content)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def remove(content, rng):
    return None


def each_file(folder):
    return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())


@contextlib.contextmanager
def damaged_copy(folder, file, damage, rng):
    """A copy in which one file is damaged."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder.parent / "damaged copy")
    copy = shutil.copytree(folder, folder.parent / "damaged copy")
    content = damage((copy / file).read_bytes(), rng)
    (copy / file).unlink() if content is None else (copy / file).write_bytes(content)
    yield copy
    shutil.rmtree(copy)


# Where an array cannot be read, Orbax drops coroutines that read others.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("damage", "times"), [(truncate, 1), (empty, 1), (remove, 1), (flip_a_byte, 2)]
)
def test_a_damaged_checkpoint_never_gives_other_values(two_checkpoints, caplog, damage, times):
    folder, held = two_checkpoints
    rng = random.Random(0)
    found = []
    for file in each_file(folder / "last/6") * times:
        caplog.clear()
        with (
            damaged_copy(folder, pathlib.Path("last/6") / file, damage, rng) as copy,
            Checkpoints(copy) as checkpoints,
        ):
            try:
                restored = checkpoints.restore_last(make_state(0, 0), [jnp.zeros(3)])
            except WorkdirError:
                found.append("refused")
                continue
        step = int(restored[0].step)
        assert everything(*restored) == held[step], file
        assert step == 6 or "cannot restore the checkpoint" in caplog.text
        found.append(step)
    print(damage.__name__, {x: found.count(x) for x in found})
    assert 3 in found


@pytest.mark.parametrize("item", ["state", "means", "sealed"])
def test_sound_files_of_another_checkpoint_are_noticed(two_checkpoints, tmp_path, caplog, item):
    folder, held = two_checkpoints
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.rmtree(copy / "last/6" / item)
    shutil.copytree(copy / "last/3" / item, copy / "last/6" / item)
    with Checkpoints(copy) as checkpoints:
        restored = checkpoints.restore_last(make_state(0, 0), [jnp.zeros(3)])
    assert "by its SHA-256, " in caplog.text
    assert everything(*restored) == held[3]


def test_a_changed_number_of_the_meta_is_noticed(two_checkpoints, tmp_path, caplog):
    folder, held = two_checkpoints
    copy = shutil.copytree(folder, tmp_path / "copy")
    file = copy / "last/6/sealed/metadata"
    assert "500.0" in file.read_text()
    file.write_text(file.read_text().replace("500.0", "501.0"))
    with Checkpoints(copy) as checkpoints:
        restored = checkpoints.restore_last(make_state(0, 0), [jnp.zeros(3)])
    assert "by its SHA-256, meta is not what was saved" in caplog.text
    assert everything(*restored) == held[3]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_best_checkpoint_with_a_flipped_byte_never_gives_other_values(two_checkpoints):
    folder, _ = two_checkpoints
    rng = random.Random(0)
    refused = 0
    state = make_state(0, 0)
    for file in each_file(folder / "best/2"):
        with (
            damaged_copy(folder, pathlib.Path("best/2") / file, flip_a_byte, rng) as copy,
            Checkpoints(copy) as checkpoints,
        ):
            try:
                restored = checkpoints.restore_best(2, Model(state.params, state.batch_stats))
            except WorkdirError:
                refused += 1
                continue
        for part in ("params", "batch_stats"):
            digests = [
                manifest.tensor_digests(getattr(s, part)) for s in (restored, make_state(2, 6))
            ]
            assert digests[0] == digests[1]
    assert refused > 1


@pytest.mark.slow
def test_a_run_whose_newest_checkpoint_has_a_flipped_byte_ends_with_the_same_bits(
    trainer, whole, tmp_path
):
    path = tmp_path / "run"
    assert kill(trainer, path, Hook("write the result"), 0)
    state = path / "checkpoints/last/12/state"
    for file in state.rglob("d/*"):
        file.write_bytes(flip_a_byte(file.read_bytes(), random.Random(0)))
    assert trainer.finish(path) == 0, trainer.log(path)
    assert "cannot restore the checkpoint" in trainer.log(path)
    assert "resuming after epoch 3 of 4" in trainer.log(path)
    assert outcome(path) == whole.outcome


def test_a_folder_that_a_killed_run_left_without_a_config_is_taken_up(tmp_path):
    for name in (layout.LOCK, ".config.json.123.tmp"):
        (tmp_path / name).write_text("")
    with workdir.Workdir(tmp_path, small_config()) as run:
        run.claim({})
    assert {p.name for p in tmp_path.iterdir()} == {layout.LOCK, "config.json", "manifest.json"}


def test_who_only_reads_checkpoints_changes_nothing(two_checkpoints, tmp_path):
    folder, held = two_checkpoints
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "last/9.orbax-checkpoint-tmp").mkdir()  # of a run that is writing it
    (copy / "last/6/sealed/metadata").write_text("")
    before = sorted(copy.rglob("*"))
    with Checkpoints(copy, writes=False) as checkpoints:
        restored = checkpoints.restore_last(make_state(0, 0), [jnp.zeros(3)])
        assert everything(*restored) == held[3]
        state = make_state(0, 0)
        checkpoints.restore_best(2, Model(state.params, state.batch_stats))
    assert sorted(copy.rglob("*")) == before


# ------------------------------------------------------------------------------ disks


class Disk:
    """A file system in memory."""

    def __init__(self, folder):
        self.folder = folder
        self._mounted = 0
        folder.mkdir()

    def mount(self, *options):
        """Call mount, or skip the test where that is not permitted."""
        command = ["mount", *options, self.folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cannot mount: {done.stderr}")
        self._mounted += not any("remount" in str(option) for option in options)

    def unmount(self):
        subprocess.run(["umount", self.folder], check=True)
        self._mounted -= 1

    def close(self):
        while self._mounted:
            subprocess.run(["umount", "--lazy", self.folder], check=True)
            self._mounted -= 1


@pytest.fixture
def disk(tmp_path):
    with contextlib.closing(Disk(tmp_path / "disk")) as made:
        yield made


BIG = (("model.lsa.channels", 1280),)  # 20 MB for each `last`, a third of that for each `best`


@pytest.mark.slow
def test_checkpoints_that_do_not_fit_stop_a_run_which_resumes_with_more_room(
    trainer, disk, tmp_path
):
    disk.mount("-t", "tmpfs", "-o", "size=50m", "tmpfs")
    path = disk.folder / "big"
    assert trainer.finish(path, changes=BIG) == 2, trainer.log(path)
    (error,) = [x for x in trainer.log(path).splitlines() if x.startswith("error: ")]
    assert error.startswith(f"error: cannot write a checkpoint below {path / 'checkpoints'}: ")
    assert "Traceback" not in trainer.log(path)
    _, _, newest = progress(path)
    assert newest >= 3
    disk.mount("-o", "remount,size=500m")
    assert trainer.finish(path, changes=BIG) == 0, trainer.log(path)
    assert f"resuming after epoch {newest // 3} of 4" in trainer.log(path)
    assert "cannot restore" not in trainer.log(path)
    assert trainer.finish(tmp_path / "whole", changes=BIG) == 0
    assert outcome(path) == outcome(tmp_path / "whole")


@pytest.mark.slow
def test_a_disk_that_is_full_at_any_time_stops_a_run_which_resumes(trainer, whole, disk):
    codes = {}
    for kilobytes in (4, 16, 64, 256, 512, 768, 1024, 1280):
        disk.mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs")
        path = disk.folder / f"run{kilobytes}"
        codes[kilobytes] = trainer.finish(path)
        if codes[kilobytes] == 2:
            assert "error: cannot write " in trainer.log(path)
        assert "Traceback" not in trainer.log(path)
        disk.mount("-o", "remount,size=50m")
        assert trainer.finish(path) == 0, trainer.log(path)
        assert outcome(path) == whole.outcome
        disk.unmount()
    print(codes)
    assert set(codes.values()) <= {0, 2}
    assert list(codes.values()).count(2) >= 5


@pytest.mark.slow
@pytest.mark.parametrize("point", ["write metrics", "save the last", "write the result"])
def test_a_disk_that_becomes_read_only_stops_a_run_which_resumes(trainer, whole, disk, point):
    disk.mount("-t", "tmpfs", "-o", "size=50m", "tmpfs")
    path = disk.folder / "run"
    process, connection = trainer.start(path, hook=Hook(point, when="pause"))
    assert connection.poll(300) and connection.recv() == "paused"
    disk.mount("--bind", disk.folder)  # over it, since files are open there
    disk.mount("-o", "remount,bind,ro")
    connection.send("go on")
    assert trainer.exit_code(process) == 2, trainer.log(path)
    for _ in range(2):
        assert "error: cannot write " in trainer.log(path).splitlines()[-1]
        assert "Traceback" not in trainer.log(path)
        assert trainer.finish(path) == 2
    disk.unmount()
    assert trainer.finish(path) == 0, trainer.log(path)
    assert outcome(path) == whole.outcome
