import contextlib
import functools
import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import jax
import ml_collections
import numpy as np
import pytest
from PIL import Image

from lsanet_jax.data import feed
from lsanet_jax.data.dataset import Dataset, Split
from lsanet_jax.data.feed.order import Plan, epoch_order
from lsanet_jax.data.lazy import LazyImages
from lsanet_jax.data.sources import folder
from lsanet_jax.errors import DataError

COUNTS = {"train": 37, "val": 10, "test": 9}


def make_mesh():
    return jax.make_mesh((1,), ("data",))


def make_dataset(lazily=False):
    random = np.random.default_rng(0)
    splits = {}
    for key, count in COUNTS.items():
        images = random.integers(0, 256, (count, 6, 5, 3), np.uint8)
        labels = (np.arange(count) % 3).astype(np.int32)
        if lazily:
            images = LazyImages(functools.partial(np.take, images, axis=0), range(count), (6, 5, 3))
        splits[key] = Split(images, labels)
    return Dataset("cells", "multi-class", ("a", "b", "c"), **splits)


def make_feed(dataset, name, workers=0, budget=100.0, **changed):
    options = {"seed": 3, "batch_size": 8, "eval_batch_size": 4, "epochs": 3}
    options |= {"steps_per_dispatch": 2, "num_train": len(dataset.train)} | changed
    config = {"pipeline": name, "device_budget_mb": budget, "workers": workers}
    return feed.make_feed(dataset, Plan(**options), ml_collections.ConfigDict(config), make_mesh())


def as_batches(dispatches):
    """What either pipeline yields, as [images, labels] of the batches."""
    for images, labels, *indices in dispatches:
        if indices:
            yield np.asarray(images)[indices[0]], np.asarray(labels)[indices[0]]
        else:
            yield np.asarray(images), np.asarray(labels)


def assert_same(these, those):
    these, those = list(as_batches(these)), list(as_batches(those))
    assert len(these) == len(those) > 0
    for this, that in zip(these, those, strict=True):
        for a, b in zip(this, that, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(("lazily", "workers"), [(False, 0), (True, 0), (True, 2)])
def test_batches_are_those_of_the_device_pipeline(lazily, workers):
    expected = make_feed(make_dataset(), "device")
    feed = make_feed(make_dataset(lazily), "grain", workers)
    try:
        for epoch in (1, 2, 3):
            assert_same(feed.train(epoch), expected.train(epoch))
            assert_same(feed.evaluate("val"), expected.evaluate("val"))
        assert_same(feed.train(2, first=4), expected.train(2, first=4))  # As after a crash.
        assert not list(feed.train(2, first=5)) + list(expected.train(2, first=5))  # At its end.
        assert_same(feed.evaluate("test"), expected.evaluate("test"))
    finally:
        feed.close()


def test_dispatches_at_the_end_of_an_epoch_are_short_and_none_spans_two():
    shapes = [images.shape[:2] for images, _ in make_feed(make_dataset(), "grain").train(1)]
    assert shapes == [(2, 8), (2, 8), (1, 8)]  # 37 images are 5 batches of 8.


def test_starting_late_reads_nothing_of_what_came_before():
    read = []

    def watch(item):
        read.append(item)
        return np.zeros((4, 4, 1), np.uint8)

    images = LazyImages(watch, range(1000), (4, 4, 1))
    split = Split(images, (np.arange(1000) % 2).astype(np.int32))
    dataset = Dataset("cells", "binary-class", ("a", "b"), split, split, split)
    feed = make_feed(dataset, "grain", batch_size=10, steps_per_dispatch=1, epochs=1)
    list(feed.train(1, first=97))
    feed.close()
    assert sorted(read) == sorted(epoch_order(3, 1, 1000, 10)[97:].ravel())


def test_which_pipeline_feeds_the_steps():
    held, lazily = make_dataset(), make_dataset(lazily=True)
    megabytes = feed.device_megabytes(held)
    assert make_feed(held, "auto", budget=megabytes).resident
    assert not make_feed(held, "auto", budget=megabytes * 0.99).resident
    assert not make_feed(held, "grain").resident
    assert not make_feed(lazily, "auto").resident
    with pytest.raises(DataError, match="data.pipeline is 'device'"):
        make_feed(held, "device", budget=megabytes * 0.99)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_went_bad_is_named(tmp_path, workers):
    for key, count in COUNTS.items():
        for index in range(count):
            file = tmp_path / key / "ab"[index % 2] / f"{index:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (5, 5), index).save(file)
    dataset = folder.load_folder(tmp_path, size=5, memory_mb=0)
    bad = tmp_path / "train/a/08.png"
    bad.write_bytes(bad.read_bytes()[:40])
    feed = make_feed(dataset, "grain", workers)
    with pytest.raises(DataError, match=r"train/a/08\.png: cannot be read as an image"):
        list(feed.train(1))
    feed.close()
    Image.new("L", (5, 5), 8).save(bad)
    assert_same(feed.train(1), make_feed(folder.load_folder(tmp_path, size=5), "device").train(1))
    feed.close()


def die(item):
    if item == 30:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.zeros((4, 4, 1), np.uint8)


def test_a_worker_that_was_killed_is_reported():
    split = Split(LazyImages(die, range(32), (4, 4, 1)), (np.arange(32) % 2).astype(np.int32))
    feed = make_feed(Dataset("cells", "binary-class", ("a", "b"), split, split, split), "grain", 1)
    with pytest.raises(DataError, match=r"exit code -9.*lower config\.data\.workers"):
        list(feed.train(1))
    feed.close()


def is_running(pid):
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"  # Some containers reap nobody's children.


def test_workers_end_with_a_process_that_was_killed(tmp_path):
    script = textwrap.dedent("""
        import multiprocessing, time
        from tests.data.feed import test_streaming as t
        if __name__ == "__main__":
            feed = t.make_feed(t.make_dataset(lazily=True), "grain", workers=2, epochs=10**6)
            next(feed.train(1))
            print(*(child.pid for child in multiprocessing.active_children()), flush=True)
            time.sleep(600)
    """)
    (tmp_path / "script.py").write_text(script)
    command = [sys.executable, tmp_path / "script.py"]
    environment = os.environ | {"PYTHONPATH": str(pathlib.Path(__file__).parents[3])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        workers = [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2
        process.kill()
    deadline = time.time() + 60
    while any(map(is_running, workers)):
        assert time.time() < deadline, "the workers outlived the training process"
        time.sleep(0.1)


def test_both_feeds_follow_a_balanced_plan():
    dataset = make_dataset()
    feeds = [
        make_feed(dataset, name, balance=(np.arange(37) > 30).astype(np.int32))
        for name in ("device", "grain")
    ]
    with contextlib.ExitStack() as stack:
        ours, theirs = (stack.enter_context(contextlib.closing(each)) for each in feeds)
        assert_same(ours.train(2), theirs.train(2))
