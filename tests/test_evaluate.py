"""Scores of a run on labelled images from elsewhere."""

import csv
import json
import shutil
import subprocess
import sys
import types

import numpy as np
import pytest
from PIL import Image

from lsanet_jax import data, evaluate
from lsanet_jax.config import default_config
from lsanet_jax.errors import ConfigError, DataError, WorkdirError


@pytest.fixture(scope="module")
def outside(run, tmp_path_factory):
    """The run's own test images as class folders, as a folder with a table, and as npz."""
    dataset = data.load(run[0].data, run[0].seed)
    root = tmp_path_factory.mktemp("outside")
    test, rows = dataset.test, ["image,dx,patient"]
    (root / "flat").mkdir()
    for i, (image, label) in enumerate(zip(test.images, test.labels, strict=True)):
        name = dataset.class_names[label]
        (root / "folders" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze()).save(root / "folders" / name / f"{i:02}.png")
        Image.fromarray(image.squeeze()).save(root / "flat" / f"{i:02}.png")
        rows.append(f"{i:02},{name.upper()},{i // 2}")
    (root / "flat/labels.csv").write_text("\n".join(rows))
    np.savez(root / "test.npz", test_images=test.images, test_labels=test.labels)
    return root


def trained_scores(run):
    """ACC and AUC at the end of training."""
    return json.loads((run[1] / "result.json").read_text())["classifiers"]


@pytest.mark.parametrize(
    ("input", "csv"),
    [(None, ""), ("folders", ""), ("flat", "labels.csv"), ("test.npz", "")],
)
def test_the_runs_own_test_images_have_its_scores(run, outside, input, csv):
    given = {"input": str(outside / input)} if input else {}
    scores = evaluate.evaluate(run[1], batch_size=7, csv=csv, **given)
    assert scores.images == 20 and scores.patients == (10 if csv else 0)
    for found, expected in zip(scores.classifiers, trained_scores(run), strict=True):
        assert found.stage == expected["stage"]
        for name in ("acc", "auc"):
            score = getattr(found, name)
            np.testing.assert_allclose(score.value, expected[name], atol=1e-6)
            assert score.low <= score.value <= score.high
    beta = json.loads((run[1] / "result.json").read_text())["beta"]
    np.testing.assert_allclose([c.beta for c in scores.classifiers], beta, rtol=1e-3)


def test_the_table_and_the_files_say_the_same(run, outside, tmp_path):
    before = sorted(path.name for path in run[1].iterdir())
    inside = {path: path.stat().st_mtime_ns for path in outside.rglob("*")}
    scores = evaluate.evaluate(
        run[1], input=str(outside / "flat"), csv="labels.csv", output=str(tmp_path / "s.json")
    )
    table = evaluate.text(scores).splitlines()
    assert "20 images of 10 patients or other groups" in table[0]
    own = scores.classifiers[-1]
    numbers = "{:.2f} [{:.2f}, {:.2f}]".format(*(100 * x for x in own.acc[:3]))
    assert f"(the network's own)  {numbers}" in table[-1]
    stored = json.loads((tmp_path / "s.json").read_text())
    assert stored["images"] == 20
    assert stored["classifiers"][-1]["auc_low"] == own.auc.low
    for _ in range(2):  # An older one of ours is overwritten.
        evaluate.evaluate(run[1], output=str(tmp_path / "s.csv"))
    labels = outside / "flat" / "labels.csv"
    with pytest.raises(WorkdirError, match="is there already and was not written by this"):
        evaluate.evaluate(run[1], output=str(labels))
    with open(tmp_path / "s.csv", newline="") as stream:
        assert [row["stage"] for row in csv.DictReader(stream)] == ["1", "2"]
    assert sorted(path.name for path in run[1].iterdir()) == before
    assert {path: path.stat().st_mtime_ns for path in outside.rglob("*")} == inside


def test_broken_images_are_left_out_with_their_labels_if_asked(run, outside, tmp_path):
    for file in (outside / "flat").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "00.png").write_bytes((tmp_path / "00.png").read_bytes()[:60])
    options = {"input": str(tmp_path), "csv": "labels.csv"}
    with pytest.raises(DataError, match=r"00\.png: cannot be read .*--skip_broken"):
        evaluate.evaluate(run[1], **options)
    scores = evaluate.evaluate(run[1], skip_broken=True, **options)
    assert (scores.images, scores.left_out) == (19, 1)
    assert "19 images of 10 patients or other groups, 1 left out" in evaluate.text(scores)


def test_the_split_of_the_runs_own_data_is_named(run):
    said = evaluate.text(evaluate.evaluate(run[1], split="train"))
    assert said.startswith("train split of the run's own data, ")


def test_images_that_the_run_was_trained_on_are_counted(tmp_path, caplog):
    rng, config = np.random.default_rng(0), default_config()
    for name in "ab":
        for i in range(10):
            file = tmp_path / "own" / name / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (28, 28), np.uint8)).save(file)
    config.data.update(name="folder", path=str(tmp_path / "own"), size=28, image_size=28)
    split = data.load(config.data, config.seed)
    given = types.SimpleNamespace(config=config)
    shutil.copytree(tmp_path / "own", tmp_path / "copy")
    own = [tmp_path / "copy" / name for name in (*split.train.names, *split.test.names)]
    caplog.set_level("WARNING", "lsanet_jax")
    caplog.clear()
    evaluate._warn_of_training_images(given, own[-len(split.test.names) :])
    assert not caplog.records
    evaluate._warn_of_training_images(given, own)
    (record,) = caplog.records
    count = f"trained on {len(split.train.names)} of these {len(own)} images"
    assert count in record.getMessage()
    config.data.path = str(tmp_path / "gone")
    evaluate._warn_of_training_images(given, own)
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"output": "x.txt"}, ConfigError, r"--output=x\.txt: expected .*\.json or \.csv"),
        ({"csv": "t.csv"}, ConfigError, "--csv goes with --input"),
        ({"split": "all"}, ConfigError, "--split=all goes with --input"),
        ({"input": "x.npz", "csv": "t.csv"}, ConfigError, r"--csv is for a folder"),
        ({"input": "nowhere"}, DataError, "nowhere: found no folder"),
        ({"batch_size": 0}, ConfigError, "--batch_size=0"),
        ({"input": ""}, ConfigError, "--input is empty: name images"),
    ],
)
def test_what_does_not_go_together(run, options, error, message):
    with pytest.raises(error, match=message):
        evaluate.evaluate(run[1], **options)


def test_the_command_prints_a_table_or_one_error(run, outside):
    command = [sys.executable, "-m", "lsanet_jax", "evaluate", f"--workdir={run[1]}"]
    command += [f"--input={outside / 'flat'}", "--trust_code"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("error: ") == 1
    assert "outside class folders" in done.stderr and "Traceback" not in done.stderr
    command.append("--csv=labels.csv")
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "(the network's own)" in done.stdout
