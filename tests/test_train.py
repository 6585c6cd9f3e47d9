"""Whole runs: what they write, how they resume, and how they fail."""

import dataclasses
import hashlib
import json
import logging
import math
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import jax.numpy as jnp
import numpy as np
import pytest

from configs import quickstart, resnet18
from lsanet_jax import audit, build, data, evaluate, export, main, metrics, predict, train
from lsanet_jax.data.dataset import SPLITS, Dataset
from lsanet_jax.errors import (
    ConfigError,
    DataError,
    Interrupted,
    TrainingError,
    WorkdirError,
)
from lsanet_jax.models import pretrained, resnet
from lsanet_jax.report import run_files
from lsanet_jax.runs import chain, checkpoint, claim, trained, workdir
from lsanet_jax.runs.history import History
from lsanet_jax.runs.result import SCORES
from lsanet_jax.runs.trained import read_manifest
from lsanet_jax.runtime import interrupts
from tests.sealed import as_unfinished

ROOT = pathlib.Path(__file__).parents[1]


@pytest.fixture
def tiny(monkeypatch):
    """A config that trains in seconds: "resnet18" has one block per stage here."""
    monkeypatch.setitem(resnet.SPECS, "resnet18", resnet.Spec(resnet.BasicBlock, (1, 1, 1, 1)))
    config = quickstart.get_config()
    config.data.size = config.data.image_size = 28
    config.data.synthetic.update(num_train=40, num_val=24, num_test=24, num_classes=3)
    config.train.update(epochs=2, batch_size=16, log_every_steps=2)
    config.eval.batch_size = 16
    return config


def read_metrics(path):
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def digests(path):
    return (path / "digests.jsonl").read_bytes()


def without_timing(records):
    return [{k: v for k, v in r.items() if k != "images_per_second"} for r in records]


def test_a_run_writes_its_files_and_reports_when_asked_again(tiny, tmp_path, capsys):
    tracked = {}
    track = lambda step, scalars: tracked.setdefault(step, {}).update(scalars)
    result = train.train_and_evaluate(tiny, tmp_path / "run", track=track)
    assert set(tracked) == {2, 3, 4, 6} and {"train/loss"} <= tracked[2].keys()
    assert {"val/auc", "val/acc_stage1", "learning_rate"} <= tracked[3].keys()
    table = capsys.readouterr().out
    files = {p.name for p in (tmp_path / "run").iterdir()}
    assert files == {
        "calibration.json",
        "config.json",
        "digests.jsonl",
        "lock",
        "manifest.json",
        "metrics.jsonl",
        "predictions.npz",
        "result.json",
        "seal.json",
        "tensorboard",
        "validation.npz",
        "checkpoints",
    }
    assert json.loads((tmp_path / "run/result.json").read_text()) == result
    assert result["best_epoch"] in (1, 2)
    assert result["last_epoch"]["epoch"] == 2
    assert [c["stage"] for c in result["classifiers"]] == [1, 2, 3, 4]
    assert result["test"] == {k: result["classifiers"][-1][k] for k in SCORES}
    np.testing.assert_allclose(sum(result["beta"]), 1, rtol=1e-5)
    assert all(0 <= result[split][score] <= 1 for split in ("val", "test") for score in SCORES)
    assert result["test"]["balanced_acc"] == np.mean(list(result["recalls"].values()))
    assert list(result["recalls"]) == read_manifest(tmp_path / "run")["dataset"]["class_names"]

    with np.load(tmp_path / "run/predictions.npz") as predictions:
        assert predictions["probabilities"].shape == (4, 24, 3)
        assert predictions["epoch"] == result["best_epoch"]
        for found, classifier in zip(
            predictions["probabilities"], result["classifiers"], strict=True
        ):
            acc = metrics.accuracy(predictions["labels"], found, "multi-class")
            assert acc == classifier["acc"]
        np.testing.assert_allclose(predictions["beta"].mean(axis=0), result["beta"], rtol=1e-5)

    records = read_metrics(tmp_path / "run")
    assert [r["epoch"] for r in records] == [1, 2]
    assert [r["step"] for r in records] == [3, 6]  # 40 images in batches of 16
    best = max(records, key=lambda r: (r["val"]["auc"], -r["epoch"]))
    assert (best["epoch"], best["val"]["auc"]) == (result["best_epoch"], result["val"]["auc"])
    assert {"loss", "weighted", "synergy", "ce_stage1", "beta_stage4"} <= records[0]["train"].keys()
    assert list((tmp_path / "run/tensorboard").glob("events.out.tfevents.*"))

    assert "classifier at stage 4 (the network's own)" in table
    assert f"{100 * result['test']['auc']:.2f}" in table
    assert f"{100 * result['test']['balanced_acc']:.2f}" in table
    assert "Recall of each class, %: " in table
    stamp = (tmp_path / "run/metrics.jsonl").stat().st_mtime_ns
    assert train.train_and_evaluate(tiny, tmp_path / "run") == result
    assert capsys.readouterr().out == table
    assert (tmp_path / "run/metrics.jsonl").stat().st_mtime_ns == stamp


def test_what_is_undefined_in_an_epoch_is_null_and_no_event(tiny, tmp_path, caplog):
    # No AUC where the split lacks a class; no rate where all steps were done before a resume.
    val = {"acc": 0.5, "auc": math.nan, "loss": 1.0, "classifiers": []}
    with workdir.Workdir(tmp_path / "run", tiny) as run:
        run.claim({})
        run.write_epoch(
            {"epoch": 1, "step": 3, "learning_rate": 0.1, "val": val, "images_per_second": math.nan}
        )
    (record,) = read_metrics(tmp_path / "run")
    assert record["val"]["auc"] is None and record["images_per_second"] is None
    (events,) = (tmp_path / "run/tensorboard").iterdir()
    found = events.read_bytes()
    assert all(name in found for name in (b"val/acc", b"val/loss", b"learning_rate"))
    assert b"val/auc" not in found and b"images_per_second" not in found
    assert not caplog.records


def test_an_interrupted_run_resumes_and_ends_the_same(tiny, tmp_path, monkeypatch):
    whole = train.train_and_evaluate(tiny, tmp_path / "whole")

    def interrupt(self, record):
        workdir.Workdir.write_epoch(self, record)
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(train, "Workdir", type("W", (workdir.Workdir,), {"write_epoch": interrupt}))
    with pytest.raises(KeyboardInterrupt):
        train.train_and_evaluate(tiny, tmp_path / "run")
    assert len(read_metrics(tmp_path / "run")) == 2  # epoch 2 is logged, but has no checkpoint
    monkeypatch.undo()
    monkeypatch.setitem(resnet.SPECS, "resnet18", resnet.Spec(resnet.BasicBlock, (1, 1, 1, 1)))
    resumed = train.train_and_evaluate(tiny, tmp_path / "run")
    for name in ("test", "val", "last_epoch", "beta", "classifiers", "best_epoch"):
        assert resumed[name] == whole[name]
    records = (without_timing(read_metrics(tmp_path / name)) for name in ("run", "whole"))
    assert next(records) == next(records)
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")


@pytest.mark.parametrize("pipeline", ["device", "grain"])
@pytest.mark.parametrize("stop_at", [1, 3, 4, 9])
def test_a_signal_ends_a_run_which_resumes_with_the_same_bits(
    tiny, tmp_path, monkeypatch, stop_at, pipeline
):
    tiny.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    tiny.data.pipeline = pipeline
    whole = train.train_and_evaluate(tiny, tmp_path / "whole")
    checks = []

    def signalled(self):
        checks.append(None)
        if len(checks) == stop_at:  # of 3 steps and 2 batches of validation in each epoch
            signal.raise_signal(signal.SIGTERM)
        interrupts.Interrupts.check(self)

    stub = type("Signalled", (interrupts.Interrupts,), {"check": signalled})
    monkeypatch.setattr(train, "Interrupts", stub)
    epoch, done = {1: (1, 0), 3: (1, 2), 4: (1, 3), 9: (2, 3)}[stop_at]
    with pytest.raises(Interrupted, match=f"after {done} of 3 steps of epoch {epoch}, all saved"):
        train.train_and_evaluate(tiny, tmp_path / "run")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not (tmp_path / "run/result.json").exists()
    resumed = train.train_and_evaluate(tiny, tmp_path / "run")
    assert resumed["last_digest"] == whole["last_digest"]
    assert resumed["test"] == whole["test"]
    records = (without_timing(read_metrics(tmp_path / name)) for name in ("run", "whole"))
    assert next(records) == next(records)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_has_its_exit_code(tmp_path, number):
    command = [sys.executable, "-m", "lsanet_jax.main", "--config=configs/quickstart.py"]
    command += ["--config.model.backbone=tests.networks:TinyNet", "--config.model.taps=(1,2)"]
    command += [f"--workdir={tmp_path / 'run'}", "--config.train.epochs=100000"]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.time() + 300
        while not (tmp_path / "run/digests.jsonl").exists():
            assert process.poll() is None, process.stderr.read()
            assert time.time() < deadline
            time.sleep(0.05)
        with pytest.raises(WorkdirError, match=rf"another process is training.*{process.pid}"):
            workdir.Workdir(tmp_path / "run", workdir.read_config(tmp_path / "run")).claim({})
        process.send_signal(number)
        assert process.wait(60) == 75
        assert re.search(r"stopped.* saved: the same command resumes", process.stderr.read())
    assert not list((tmp_path / "run/checkpoints/last").glob("*tmp*"))


@pytest.mark.slow
def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path):
    command = [sys.executable, "-m", "lsanet_jax.main", "--config=configs/quickstart.py"]
    command += ["--config.data.synthetic.num_train=64", "--config.train.batch_size=32"]
    command += ["--config.data.size=28", "--config.data.image_size=28"]
    command += ["--config.train.epochs=6", "--config.model.objective=dsn", "--page=false"]
    run = lambda name: [*command, f"--workdir={tmp_path / name}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(run("killed"), cwd=ROOT, stderr=log)
        deadline = time.time() + 500
        last = tmp_path / "killed/checkpoints/last"
        while not any(p.name.isdigit() and int(p.name) >= 4 for p in last.glob("*")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.time() < deadline
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    resumed = subprocess.run(run("killed"), cwd=ROOT, capture_output=True, text=True, check=False)
    assert resumed.returncode == 0, resumed.stderr
    epoch = int(re.search(r"resuming after epoch (\d) of 6", resumed.stderr).group(1))
    assert epoch >= 2
    subprocess.run(run("whole"), cwd=ROOT, capture_output=True, check=True)
    killed, whole = (without_timing(read_metrics(tmp_path / n)) for n in ("killed", "whole"))
    assert killed == whole
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
    results = (json.loads((tmp_path / n / "result.json").read_text()) for n in ("killed", "whole"))
    assert next(results)["test"] == next(results)["test"]


def test_a_workdir_of_another_config_is_refused_untouched(tiny, tmp_path):
    tiny.train.epochs = 1
    train.train_and_evaluate(tiny, tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    tiny.model.objective = "dsn"
    with pytest.raises(WorkdirError, match=r'model.objective is "lsanet" there and "dsn" here'):
        train.train_and_evaluate(tiny, tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_folder_with_other_things_in_it_is_refused(tiny, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(WorkdirError, match="not empty and holds no config.json"):
        train.train_and_evaluate(tiny, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_config_json_is_named(tiny, tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 0')
    with pytest.raises(WorkdirError, match=r"config\.json is damaged"):
        train.train_and_evaluate(tiny, tmp_path)


def test_a_run_whose_checkpoints_are_gone_is_not_begun_anew(run, tmp_path):
    config, finished = run
    copy = shutil.copytree(finished, tmp_path / "run")
    as_unfinished(copy)
    shutil.rmtree(copy / "checkpoints")
    logs = read_metrics(copy), digests(copy)
    with pytest.raises(WorkdirError, match=r"last is missing, though metrics\.jsonl has 2 epochs"):
        train.train_and_evaluate(config, copy)
    assert (read_metrics(copy), digests(copy)) == logs


def test_outputs_that_would_replace_a_runs_own_files_are_refused(run, tmp_path):
    _, path = run
    before = {file: file.read_bytes() for file in path.glob("*.*") if file.is_file()}
    for write in (
        lambda: evaluate.evaluate(path, output=str(path / "result.json")),
        lambda: export.export(path, path / "config.json"),
        lambda: claim.pack(path, path / "predictions.npz"),
        lambda: run_files.write(path, path / "result.json"),
        lambda: predict.predict_to_file(path, output=str(path / "lock")),
    ):
        with pytest.raises(WorkdirError, match="is a file of the run in that folder"):
            write()
    assert all(file.read_bytes() == content for file, content in before.items())
    for place in (tmp_path / "pipe", path / "result.json" / "x.csv"):
        if place.name == "pipe":
            os.mkfifo(place)
        with pytest.raises(WorkdirError, match="it is a device, a pipe|is not a folder"):
            workdir.check_output(place)
    workdir.check_output(tmp_path / "result.json")
    workdir.check_output(path / "model.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("file", "file is a file: name a folder"),
        ("gs://bucket/run", "is an address: name a folder"),
    ],
)
def test_a_workdir_that_is_no_folder_is_named(tiny, tmp_path, monkeypatch, name, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match=message):
        train.train_and_evaluate(tiny, name)
    assert [place.name for place in tmp_path.iterdir()] == ["file"]


def test_a_validation_split_without_an_auc_is_said_at_the_start(tiny, caplog):
    tiny.data.synthetic.num_val = 3
    dataset = data.load(tiny.data)
    build.check_selection(tiny, dataset)
    assert not caplog.records
    of_one_class = dataclasses.replace(dataset, val=dataset.val.select(dataset.val.labels == 0))
    build.check_selection(tiny, of_one_class)
    assert "set config.eval.select=best_val_loss" in caplog.text
    tiny.train.early_stop = 1
    with pytest.raises(ConfigError, match="early_stop = 1 never sees a gain: set config"):
        build.check_selection(tiny, of_one_class)
    tiny.eval.select = "best_val_loss"
    build.check_selection(tiny, of_one_class)


def test_a_batch_larger_than_the_training_split_is_said(tiny, caplog):
    dataset = data.load(tiny.data)
    tiny.train.batch_size = 40
    build.make_plan(tiny, dataset)
    assert not caplog.records
    tiny.train.batch_size = 48
    build.make_plan(tiny, dataset)
    assert "there are 40 training images: each step draws 8 again" in caplog.text


def test_a_damaged_newest_checkpoint_is_set_aside_for_the_one_before(tiny, tmp_path, caplog):
    tiny.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    tiny.train.epochs = 3
    whole = train.train_and_evaluate(tiny, tmp_path / "whole")
    run = tmp_path / "run"
    train.train_and_evaluate(tiny, run, epochs=2)
    damage(run / "checkpoints/last/6")
    with caplog.at_level("WARNING", logger="lsanet_jax"):
        resumed = train.train_and_evaluate(tiny, run)
    assert "cannot restore the checkpoint" in caplog.text
    assert f"moved it to {run / 'checkpoints/damaged/6.0'}" in caplog.text
    assert "going on from the one before, 3" in caplog.text
    assert (run / "checkpoints/damaged/6.0").is_dir()
    assert resumed["last_digest"] == whole["last_digest"]
    assert digests(run) == digests(tmp_path / "whole")


def damage(checkpoint):
    for file in checkpoint.rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_the_best_epoch_that_a_checkpoint_tells_of_is_kept(tiny, tmp_path, monkeypatch):
    tiny.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    tiny.train.update(epochs=9, checkpoint_every_epochs=4)
    aucs = iter([0.1, 0.2, 0.3, 0.2, 0.4, 0.5, 0.1])
    summarize = metrics.summarize
    monkeypatch.setattr(metrics, "summarize", lambda *a: summarize(*a) | {"auc": next(aucs)})
    with pytest.raises(StopIteration):  # in epoch 8
        train.train_and_evaluate(tiny, tmp_path)
    with checkpoint.Checkpoints(tmp_path / "checkpoints", writes=False) as checkpoints:
        assert checkpoints.last_step == 3 * 6
        assert checkpoints.has_best(6)
    assert len(read_metrics(tmp_path)) == 7


def test_a_damaged_checkpoint_is_named(tiny, tmp_path):
    tiny.train.epochs = 1
    train.train_and_evaluate(tiny, tmp_path)
    as_unfinished(tmp_path)
    newest = tmp_path / "checkpoints/last/3"
    damage(newest)
    with pytest.raises(WorkdirError, match=rf"cannot restore the checkpoint {newest}.*damaged"):
        train.train_and_evaluate(tiny, tmp_path)
    assert not (tmp_path / "result.json").exists()


def test_a_workdir_that_cannot_be_made_is_named(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WorkdirError, match="cannot write to --workdir="):
        train.train_and_evaluate(tiny, tmp_path / "file" / "run")


def test_a_loss_that_is_not_finite_stops_the_run(tiny, tmp_path):
    tiny.train.learning_rate = 1e30
    tiny.train.optimizer = "sgd"
    with pytest.raises(
        TrainingError, match=r"not finite at step \d+: loss (nan|inf).*synergy.*no check"
    ):
        train.train_and_evaluate(tiny, tmp_path)
    assert not (tmp_path / "result.json").exists()
    assert not list((tmp_path / "checkpoints").glob("*/[0-9]*"))


def test_an_update_that_is_not_finite_stops_the_run_before_it_is_saved(tiny, tmp_path):
    tiny.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    tiny.train.update(learning_rate=1e30, optimizer="sgd", batch_size=40)  # one step an epoch
    message = "predictions of the val split are not finite: ce_stage1 .*, ce_stage2 nan; no check"
    with pytest.raises(TrainingError, match=message):
        train.train_and_evaluate(tiny, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
    assert not list((tmp_path / "checkpoints").glob("*/[0-9]*"))


@pytest.mark.parametrize("per_dispatch", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_steps_that_are_not_finite_are_skipped_if_asked(tiny, tmp_path, monkeypatch, per_dispatch):
    tiny.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    tiny.train.update(on_nan="skip", max_skipped_steps=2, steps_per_dispatch=per_dispatch)
    tiny.data.augment.brightness = 0.1

    def spoil(bad_steps):
        make = build.make_augment

        def make_spoiled(*arguments):
            augment = make(*arguments)

            def spoiled(step, images, labels):
                x, labels = augment(step, images, labels)
                return jnp.where(jnp.isin(step, jnp.array(bad_steps)), jnp.nan, x), labels

            return spoiled

        return make_spoiled

    with monkeypatch.context() as patch:
        patch.setattr(build, "make_augment", spoil([1, 4]))  # the second step of either epoch
        result = train.train_and_evaluate(tiny, tmp_path / "run")
    assert result["skipped_steps"] == 2
    assert all(np.isfinite(r["train"]["loss"]) for r in read_metrics(tmp_path / "run"))
    assert read_metrics(tmp_path / "run")[-1]["step"] == 6

    tiny.train.max_skipped_steps = 1
    with monkeypatch.context() as patch:
        patch.setattr(build, "make_augment", spoil([1, 4]))
        with pytest.raises(
            TrainingError, match=r"2 steps were skipped.*max_skipped_steps = 1 .*5:"
        ):
            train.train_and_evaluate(tiny, tmp_path / "other")
    assert not (tmp_path / "other/result.json").exists()


def test_data_larger_than_the_budget_is_refused(tiny, tmp_path):
    tiny.data.update(pipeline="device", device_budget_mb=1, size=224)
    with pytest.raises(DataError, match=r"data\.device_budget_mb"):
        train.train_and_evaluate(tiny, tmp_path)


@pytest.mark.slow
def test_both_pipelines_end_with_the_same_bits(tiny, tmp_path):
    tiny.train.steps_per_dispatch = 2
    records = []
    for name in ("device", "grain"):
        tiny.data.pipeline = name
        result = train.train_and_evaluate(tiny, tmp_path / name)
        records.append((chain.read(tmp_path / name).records, result["test"]))
    assert records[0][1] == records[1][1]
    for ours, theirs in zip(records[0][0], records[1][0], strict=True):
        assert ours | {"previous": ""} == theirs | {"previous": ""}


@pytest.mark.slow
def test_200_steps_on_ham10000_are_the_same_through_every_pipeline(shared, tmp_path, monkeypatch):
    from lsanet_jax.data.sources import medmnist, tfds_builder

    file = (
        shared / "data/ham10000_28.npz"
    )  # It has the layout of DermaMNIST, which may be prepared.
    (tmp_path / "dermamnist.npz").symlink_to(file)
    facts = medmnist.info("dermamnist") | {"MD5": hashlib.md5(file.read_bytes()).hexdigest()}
    monkeypatch.setitem(medmnist._read_info(), "dermamnist", facts)
    tfds_builder.prepare("dermamnist", 28, root=str(tmp_path), data_dir=str(tmp_path / "tfds"))

    config = resnet18.get_config()
    config.data.update(root=str(tmp_path), image_size=28)
    config.train.epochs = 2
    records = {}
    for name, changed in {
        "device": {"pipeline": "device"},
        "grain": {"pipeline": "grain"},
        "tfds on the device": {"pipeline": "device", "tfds_dir": str(tmp_path / "tfds")},
        "tfds by grain": {"pipeline": "grain", "tfds_dir": str(tmp_path / "tfds"), "workers": 2},
    }.items():
        config.data.update({"tfds_dir": "", **changed})
        train.train_and_evaluate(config, tmp_path / name)
        records[name] = chain.read(tmp_path / name).records
    assert records["device"][-1]["step"] >= 200
    for name, found in records.items():
        for ours, expected in zip(found, records["device"], strict=True):
            same = ours | {"previous": ""} == expected | {"previous": ""}
            assert same, (name, ours["epoch"])


def test_batches_that_do_not_divide_over_the_devices_are_refused(tiny):
    tiny.train.batch_size = 30
    with pytest.raises(ConfigError, match=r"batch_size = 30 .* 4 devices.*28 or 32"):
        build.check_batch_sizes(tiny, 4)
    tiny.train.batch_size = 3
    with pytest.raises(ConfigError, match=r"batch_size = 3 .* 4 devices.*: 4$"):
        build.check_batch_sizes(tiny, 4)


@pytest.mark.parametrize(
    "task",
    [
        pytest.param("binary-class", marks=pytest.mark.slow),
        pytest.param("ordinal-regression", marks=pytest.mark.slow),
        "multi-label",
    ],
)
def test_every_task_trains_in_grey_with_dks(tiny, tmp_path, task):
    tiny.data.synthetic.update(task=task, channels=1, num_classes=2)
    tiny.data.as_rgb = False
    tiny.model.objective = "dks"
    tiny.train.epochs = 1
    result = train.train_and_evaluate(tiny, tmp_path)
    assert result["task"] == task
    assert [c["stage"] for c in result["classifiers"]] == [2, 3, 4]
    assert result["beta"] is None


def test_the_first_epoch_with_the_best_auc_is_chosen():
    history = History()
    for epoch, value in enumerate([0.5, 0.8, float("nan"), 0.8, 0.7], start=1):
        history.add(epoch, {"auc": value, "acc": 0.0}, seconds=1.0, rate=10.0)
    assert (history.best_epoch, history.epoch, history.seconds) == (2, 5, 5.0)


def test_the_first_epoch_with_the_lowest_loss_can_be_chosen():
    history = History()
    for epoch, value in enumerate([0.5, 0.3, 0.3, float("nan"), 0.4], start=1):
        val = {"auc": value, "loss": value}
        history.add(epoch, val, seconds=1.0, rate=10.0, select="best_val_loss")
    assert (history.best_epoch, history.without_gain()) == (2, 3)


@pytest.mark.slow
def test_a_run_with_every_option_stops_early_and_resumes_with_the_same_bits(
    tiny, tmp_path, monkeypatch
):
    tiny.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    tiny.train.update(epochs=6, ema=0.8, accumulate=2, clip_norm=1.0, warmup_epochs=1.0)
    tiny.loss.update(focal_gamma=1.0, label_smoothing=0.1)
    tiny.data.augment.update(cutmix=1.0)
    tiny.data.sampling = "balanced"
    tiny.eval.select = "best_val_loss"
    losses = [0.5, 0.4, 0.45, 0.6, 0.3]
    add = History.add
    with_loss = lambda *a, **k: add(*a[:2], a[2] | {"loss": losses[a[1] - 1]}, **k)
    monkeypatch.setattr(History, "add", with_loss)

    train.train_and_evaluate(tiny, tmp_path / "full", epochs=4)
    tiny.train.early_stop = 2
    whole = train.train_and_evaluate(tiny, tmp_path / "whole")
    assert (whole["best_epoch"], whole["last_epoch"]["epoch"]) == (2, 4)
    # 3 steps an epoch, 2 for an update: gradients wait from one epoch to the next.
    assert train.train_and_evaluate(tiny, tmp_path / "run", epochs=3) is None
    resumed = train.train_and_evaluate(tiny, tmp_path / "run")
    assert resumed["last_digest"] == whole["last_digest"]
    assert resumed["test"] == whole["test"]
    assert train.train_and_evaluate(tiny, tmp_path / "run") == resumed
    records = [chain.read(tmp_path / name).records for name in ("full", "whole")]
    for ours, theirs in zip(*records, strict=True):
        assert ours | {"previous": ""} == theirs | {"previous": ""}


@pytest.mark.parametrize(("field", "value"), [("accumulate", 7), ("ema", 0.9)])
def test_more_steps_than_the_run_has_are_refused(tiny, tmp_path, field, value):
    tiny.train[field] = value
    with pytest.raises(ConfigError, match=rf"train\.{field} = {value} spans .* the run has 6: set"):
        train.train_and_evaluate(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def cli(*flags):
    command = [sys.executable, "-m", "lsanet_jax.main", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--config.model.objectiv=dsn"],
            r"config\.model\.objectiv: no such field.*model\.objective",
        ),
        (["--config.train.epochs=ten"], r"--config\.train\.epochs=ten"),
        (["--config=configs/resnet19.py"], r"configs/resnet19\.py"),
        (["--config.data.name=dermanist"], r"dermamnist"),
        (["epochs=3"], r"unexpected argument 'epochs=3'"),
    ],
)
def test_a_bad_command_line_is_one_error_line(tmp_path, flags, message):
    result = cli("--config=configs/quickstart.py", f"--workdir={tmp_path / 'run'}", *flags)
    assert result.returncode == 2
    assert re.search(f"^error: .*{message}", result.stderr, re.MULTILINE), result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_help_shows_an_example():
    result = cli("--help")
    assert "--config=quickstart --workdir=" in result.stdout
    assert "--workdir" in main.__doc__


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("no_such_file:Net", "No module named 'no_such_file'"),
        ("json:Net", "has no attribute 'Net'"),
        (":Net", "Empty module name"),
    ],
)
def test_a_backbone_that_is_not_there_is_named(tiny, tmp_path, backbone, message):
    tiny.model.backbone = backbone
    with pytest.raises(ConfigError, match=rf"model\.backbone = '{backbone}': .*{message}"):
        train.train_and_evaluate(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_backbone_with_other_variables_than_ours_is_refused(tiny, tmp_path):
    tiny.model.update(backbone="tests.networks:DropoutNet", taps=(1, 2))
    with pytest.raises(ConfigError, match=r"has a Rng\w+ at backbone\.dropout\.rngs.*BatchStat"):
        train.train_and_evaluate(tiny, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_that_was_moved_are_the_same_data(tiny, tmp_path):
    tiny.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    arrays = {}
    for i, split in enumerate(("train", "val", "test")):
        noise = np.random.default_rng(i).integers(0, 256, (12, 8, 8), np.uint8)
        arrays |= {f"{split}_images": noise, f"{split}_labels": np.arange(12) % 3}
    before, after, run = tmp_path / "before.npz", tmp_path / "after.npz", tmp_path / "run"
    np.savez(before, **arrays)
    tiny.data.update(name="npz", path=str(before))
    train.train_and_evaluate(tiny, run, epochs=1)
    before.rename(after)
    tiny.data.path = str(after)
    assert train.train_and_evaluate(tiny, run)["last_epoch"]["epoch"] == 2
    report = audit.audit(run)
    assert (report["identical"], report["epochs"]) == (True, 2)


def test_a_finished_run_does_not_answer_for_other_data(tiny, tmp_path, caplog, capsys):
    tiny.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    tiny.train.epochs = 1
    run, files = tmp_path / "run", [tmp_path / "first.npz", tmp_path / "second.npz"]
    for seed, file in enumerate(files):
        noise = np.random.default_rng(seed).integers(0, 256, (12, 8, 8), np.uint8)
        np.savez(
            file,
            **{f"{name}_images": noise for name in SPLITS},
            **{f"{name}_labels": np.arange(12) % 3 for name in SPLITS},
        )
    tiny.data.update(name="npz", path=str(files[0]), duplicates="allow")
    result = train.train_and_evaluate(tiny, run)
    other = tiny.copy_and_resolve_references()
    other.data.path = str(files[1])
    capsys.readouterr()
    for answer in (
        lambda: train.train_and_evaluate(other, run),
        lambda: train.fit(tiny, data.load(other.data), run),
    ):
        with pytest.raises(WorkdirError, match="run holds a run on other data: fingerprint is"):
            answer()
    assert not capsys.readouterr().out
    assert train.fit(other, data.load(tiny.data), run).result == result
    files[1].replace(files[0])
    with pytest.raises(WorkdirError, match="run holds a run on other data: fingerprint is"):
        train.train_and_evaluate(tiny, run)
    files[0].unlink()
    assert train.train_and_evaluate(tiny, run) == result
    assert "The result is of the data that the run was trained on" in caplog.text


def test_a_backbone_of_ones_own_has_rates_by_layer_and_frozen_stages(run, tmp_path):
    config, parent = run
    config = config.copy_and_resolve_references()
    config.model.init_from = str(parent)
    config.train.update(epochs=1, freeze="stage1", layer_decay=0.5)
    train.train_and_evaluate(config, tmp_path / "run")
    ours, theirs = (
        pretrained.torchvision_tensors(trained.load(path).model)
        for path in (tmp_path / "run", parent)
    )
    same = {name for name in ours if np.array_equal(ours[name], theirs[name])}
    assert {name.split(".")[0] for name in same} == {"conv1", "bn1"}


def test_a_run_on_other_data_is_not_resumed(tiny, tmp_path):
    run = tmp_path / "run"
    train.train_and_evaluate(tiny, run)
    as_unfinished(run)
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["dataset"]["class_names"] and len(manifest["dataset"]["fingerprint"]) == 64
    manifest["dataset"]["fingerprint"] = 64 * "0"
    (run / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(WorkdirError, match="holds a run on other data"):
        train.train_and_evaluate(tiny, run)


@pytest.mark.parametrize(
    "task", ["multi-class", pytest.param("multi-label", marks=pytest.mark.slow)]
)
def test_an_augmented_run_resumes_and_ends_the_same(tiny, tmp_path, monkeypatch, task):
    tiny.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    tiny.data.synthetic.task = task
    plain = train.train_and_evaluate(tiny, tmp_path / "plain")
    tiny.data.augment.update(hflip=True, rotate=10.0, brightness=0.2, cutout=0.3, mixup=0.4)
    whole = train.train_and_evaluate(tiny, tmp_path / "whole")
    losses = [r["train"]["loss"] for r in read_metrics(tmp_path / "whole")]
    assert losses != [r["train"]["loss"] for r in read_metrics(tmp_path / "plain")]
    assert plain["seed"] == whole["seed"]

    def interrupt(self, record):
        workdir.Workdir.write_epoch(self, record)
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    class Interrupted(workdir.Workdir):
        write_epoch = interrupt

    with monkeypatch.context() as patch:
        patch.setattr(train, "Workdir", Interrupted)
        with pytest.raises(KeyboardInterrupt):
            train.train_and_evaluate(tiny, tmp_path / "cut")
    resumed = train.train_and_evaluate(tiny, tmp_path / "cut")
    assert resumed["test"] == whole["test"]
    assert without_timing(read_metrics(tmp_path / "cut")) == without_timing(
        read_metrics(tmp_path / "whole")
    )


def test_small_images_on_a_gpu_are_advised_of_longer_dispatches(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "lsanet_jax")
    config = resnet18.get_config()
    config.data.image_size = 28
    build.advise(config)
    monkeypatch.setenv("LSANET_FORMULATION", "gpu")
    for changed in ({"data": {"image_size": 224}}, {"train": {"steps_per_dispatch": 10}}):
        other = config.copy_and_resolve_references()
        other.update(changed)
        build.advise(other)
    assert not caplog.records
    build.advise(config)
    (record,) = caplog.records
    assert "steps_per_dispatch = 10" in record.getMessage()


def arrays_of_one_image_in_two_splits():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8), np.uint8)
    pairs = {key: (images[i : i + 2], [0, 1]) for i, key in ((0, "train"), (2, "val"), (3, "test"))}
    return Dataset.from_arrays(**pairs)


def test_of_arrays_as_many_labels_are_taken_as_asked_for(tiny, tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    splits = {
        key: (rng.integers(0, 256, (n, 8, 8), np.uint8), np.arange(n) % 2)
        for key, n in (("train", 20), ("val", 4), ("test", 4))
    }
    taken = []
    monkeypatch.setattr(train, "begin", lambda _, dataset, *__, **___: taken.append(dataset))
    tiny.data.train_per_class = 3
    with pytest.raises(AttributeError):  # There is no training.
        train.fit(tiny, Dataset.from_arrays(**splits), tmp_path)
    assert len(taken[0].train.images) == 6 and np.bincount(taken[0].train.labels).tolist() == [3, 3]


def test_arrays_with_an_image_in_two_splits_are_told_of(tiny, caplog):
    data = arrays_of_one_image_in_two_splits()
    train.warn_of_copies(tiny, data)
    assert "val_images[1] (val) = test_images[0] (test)" in caplog.text
    caplog.clear()
    tiny.data.duplicates = "allow"
    train.warn_of_copies(tiny, data)
    assert not caplog.text


def test_the_arguments_of_fit_in_another_order_are_one_error(tiny, tmp_path, unchecked):
    data = arrays_of_one_image_in_two_splits()
    with pytest.raises(ConfigError, match="config is a Dataset without 'model', expected a config"):
        train.fit(data, tiny, tmp_path)
    with pytest.raises(ConfigError, match="dataset is a tuple without 'class_names', expected a D"):
        train.fit(tiny, (), tmp_path)
