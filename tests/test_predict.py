"""Predictions of a run: files, folders, arrays, and MedMNIST's own result file."""

import csv
import itertools
import json
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lsanet_jax import calibrate, data, predict
from lsanet_jax.errors import ConfigError, DataError, WorkdirError
from lsanet_jax.evaluation import decisions
from lsanet_jax.runs import calibrated, ensemble, trained
from tests.sealed import as_earlier_version


def read(file):
    with open(file, newline="") as stream:
        return list(csv.DictReader(stream))


def test_predictions_of_the_runs_own_data_have_its_accuracy(run, tmp_path):
    config, path = run
    file = predict.predict_to_file(path, output=tmp_path / "p.csv", batch_size=7)
    rows = read(file)
    dataset = data.load(config.data, config.seed)
    names = dataset.class_names
    assert [row["file"] for row in rows] == [f"test/{i}" for i in range(20)]
    probabilities = np.array([[float(row[name]) for name in names] for row in rows])
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-4)
    assert [row["label"] for row in rows] == [names[k] for k in probabilities.argmax(1)]
    truth = [names[k] for k in dataset.test.labels]
    correct = np.mean([row["label"] == name for row, name in zip(rows, truth, strict=True)])
    result = json.loads((path / "result.json").read_text())
    np.testing.assert_allclose(correct, result["test"]["acc"])


def test_folder_npz_and_single_images_are_predicted_alike(run, tmp_path):
    config, path = run
    test = data.load(config.data, config.seed).test
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    (folder / "notes.txt").write_text("not an image")
    names = [f"sub/{i}.png" if i % 2 else f"{i}.bmp" for i in range(5)]
    for name, image in zip(names, test.images, strict=False):
        Image.fromarray(image.squeeze()).save(folder / name)
    np.savez(tmp_path / "some.npz", test_images=test.images[:5])

    by_file = {row.pop("file"): row for row in read(predicted(path, folder, tmp_path))}
    assert sorted(by_file) == sorted(names)
    in_array = read(predicted(path, tmp_path / "some.npz", tmp_path))
    assert [row.pop("file") for row in in_array] == [f"some.npz/test/{i}" for i in range(5)]
    (one,) = read(predicted(path, folder / "0.bmp", tmp_path))
    assert one.pop("file") == "0.bmp"
    for name, row in zip(names, in_array, strict=True):
        assert by_file[name]["label"] == row["label"]
        text = ("label", "decision", "set")
        numbers = [float(v) for k, v in row.items() if k not in text]
        found = [float(v) for k, v in by_file[name].items() if k not in text]
        np.testing.assert_allclose(found, numbers, rtol=1e-4)
    assert one == by_file["0.bmp"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"input": ""}, "--input is empty: name images"),
        ({"output": "."}, r"--output=. is a folder: name a CSV file in it"),
        ({"output": "table.xlsx"}, r"--output=table.xlsx: expected a name that ends in .csv"),
    ],
)
def test_flags_are_checked_before_anything_is_predicted(run, flags, message, monkeypatch):
    monkeypatch.setattr(predict, "load_members", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(ConfigError, match=message):
        predict.predict_to_file(run[1], **flags)


@pytest.mark.parametrize(
    "text",
    [
        "file,label\n0.png,a\n",
        "file,label,age\n0.png,a,54\n",
        "file,label,a,b\n0.png,a,1,0\n",
        "notes",
    ],
)
def test_a_table_of_the_users_is_not_overwritten(run, tmp_path, text):
    file = tmp_path / "labels.csv"
    file.write_text(text)
    with pytest.raises(WorkdirError, match="is there already and was not written by this command"):
        predict.predict_to_file(run[1], output=file)
    assert file.read_text() == text
    file.write_text("")
    (tmp_path / "one").mkdir()
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "one" / "0.png")
    for _ in range(2):  # One of ours is, of a single image too.
        predict.predict_to_file(run[1], input=str(tmp_path / "one"), output=file)
    for _ in range(2):
        predict.predict_to_file(run[1], output=file)
    for _ in range(2):
        predict.predict_to_file(run[1], output=file, raw=True)


def test_one_run_is_no_ensemble_of_two(run):
    with pytest.raises(ConfigError, match="twice: an ensemble takes different runs"):
        predict.predict_to_file(f"{run[1]},{run[1]}/")


def test_what_decides_is_said(run, caplog):
    caplog.set_level("INFO", "lsanet_jax")
    found = calibrated.read_calibration(run[1])
    two = found._replace(
        task="binary-class", class_names=("cancer", "normal"), points=found.points[:1], notes=("x",)
    )
    predict._say_what_decides(types.SimpleNamespace(joint=two))
    said = [record.getMessage() for record in caplog.records]
    assert said[0].startswith("decision: normal if its probability is at least 0.")
    assert said[0].endswith("sensitivity is that of finding normal") and said[1:] == ["x"]


def test_images_that_come_out_black_are_told_of(run, tmp_path, caplog):
    rng = np.random.default_rng(0)
    for high in (4, 256):
        folder = tmp_path / str(high)
        folder.mkdir()
        for i in range(3):
            Image.fromarray(rng.integers(0, high, (28, 28), np.uint8)).save(folder / f"{i}.png")
        caplog.clear()
        predicted(run[1], folder, tmp_path)
        said = [r.getMessage() for r in caplog.records if "--input" in r.getMessage()]
        assert len(said) == (high == 4)
    assert not said


def predicted(path, source, tmp_path, **options):
    file = tmp_path / "predictions.csv"
    return predict.predict_to_file(path, input=str(source), output=file, **options)


def without_names(file):
    return [{k: v for k, v in row.items() if k != "file"} for row in read(file)]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (["a", "b"], ["a", "b"]),
        (["file", "label"], ["class file", "class label"]),
        (["File", " label "], ["class File", "class  label "]),
        (["file", "class file"], ["class class file", "class file"]),
        (["class file", "file"], ["class file", "class class file"]),
        (["stage1 b", "b"], ["stage1 b", "b"]),
        (["beta stage2", "a"], ["class beta stage2", "a"]),
        (["a", "A"], ["a", "class A"]),
    ],
)
def test_no_class_can_have_the_column_of_another(classes, expected):
    names = predict.columns(classes, with_beta=(1, 2), others=(1,))
    assert names[2:4] == expected
    assert names[:2] == ["file", "label"] and names[-2:] == ["beta stage1", "beta stage2"]
    assert len({name.strip().lower() for name in names}) == len(names) == 8


@pytest.mark.parametrize("shape", [(40, 40, 3), (28, 28), (20, 35)])
def test_arrays_are_brought_to_the_form_of_the_training_images_as_files_are(run, tmp_path, shape):
    images = np.random.default_rng(0).integers(0, 256, (3, *shape), np.uint8)
    np.savez(tmp_path / "some.npz", val_images=images)
    (tmp_path / "images").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"images/{i}.png")
    by_file = without_names(predicted(run[1], tmp_path / "images", tmp_path))
    in_array = predicted(run[1], tmp_path / "some.npz", tmp_path, split="val")
    assert without_names(in_array) == by_file
    np.savez(tmp_path / "none.npz", test_images=images[:0])
    with pytest.raises(DataError, match=r"none\.npz: test_images holds no image"):
        predicted(run[1], tmp_path / "none.npz", tmp_path)


def test_broken_images_are_left_out_if_asked(run, tmp_path, caplog):
    test = data.load(run[0].data, run[0].seed).test
    folder = tmp_path / "images"
    folder.mkdir()
    for i, image in enumerate(test.images[:4]):
        Image.fromarray(image.squeeze()).save(folder / f"{i}.png")
    whole = read(predicted(run[1], folder, tmp_path, all_classifiers=True))
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"1\.png: cannot be read .* --skip_broken leaves such"):
        predicted(run[1], folder, tmp_path)
    rows = read(predicted(run[1], folder, tmp_path, all_classifiers=True, skip_broken=True))
    assert rows == [whole[0], *whole[2:]]
    assert "left out 1 broken image(s), the first: " in caplog.text and "1.png" in caplog.text
    with pytest.raises(DataError, match=r"found no sound image; the first broken one: .*1\.png"):
        predicted(run[1], folder / "1.png", tmp_path, skip_broken=True)


def test_all_classifiers_come_with_beta(run, tmp_path):
    config, path = run
    file = predict.predict_to_file(path, output=tmp_path / "p.csv", all_classifiers=True)
    rows = read(file)
    classes = data.load(config.data, config.seed).class_names
    assert list(rows[0]) == [
        *("file", "label", *classes, *predict.JUDGED),
        *(f"stage1 {name}" for name in classes),
        *("beta stage1", "beta stage2"),
    ]
    beta = np.array([[float(row[f"beta stage{i}"]) for i in (1, 2)] for row in rows])
    np.testing.assert_allclose(beta.sum(1), 1, rtol=1e-4)
    result = json.loads((path / "result.json").read_text())
    np.testing.assert_allclose(beta.mean(0), result["beta"], rtol=1e-3)
    own = read(predict.predict_to_file(path, output=tmp_path / "own.csv"))
    assert [row["label"] for row in own] == [row["label"] for row in rows]


def test_a_calibrated_run_decides_and_raw_probabilities_are_the_networks_own(run, tmp_path):
    config, path = run
    classes = data.load(config.data, config.seed).class_names
    raw = read(predict.predict_to_file(path, output=tmp_path / "p.csv", raw=True))
    assert list(raw[0]) == ["file", "label", *classes]
    saved = calibrated.read_predictions(path / "predictions.npz")
    of = lambda rows: np.array([[float(row[name]) for name in classes] for row in rows])
    np.testing.assert_allclose(of(raw), saved.probabilities[-1], rtol=1e-4, atol=1e-6)

    rows = read(predict.predict_to_file(path, output=tmp_path / "q.csv", coverage=0.5))
    found = calibrated.read_calibration(path, coverage=0.5)
    votes = decisions.calibrated(found, saved.probabilities)
    np.testing.assert_allclose(of(rows), votes[-1], rtol=1e-4, atol=1e-6)
    judged = decisions.judge(found, votes[-1], votes, saved.beta)
    assert [row["set"] for row in rows] == judged.sets
    assert [row["decision"] for row in rows] == judged.decisions
    doubts = [float(row["doubt"]) for row in rows]
    np.testing.assert_allclose(doubts, judged.doubts, rtol=1e-3)
    for wrong, message in (
        ({"sensitivity": 1.5}, r"--sensitivity=1\.5"),
        ({"coverage": 1.0}, r"--coverage=1\.0"),
        ({"raw": True, "sensitivity": 0.9}, "leave out --raw"),
    ):
        with pytest.raises(ConfigError, match=message):
            predict.predict_to_file(path, output=tmp_path / "r.csv", **wrong)


def test_an_ensemble_of_a_run_with_its_copy_answers_as_the_run(run, tmp_path, caplog, monkeypatch):
    _, path = run
    copy = shutil.copytree(path, tmp_path / "copy")
    with pytest.raises(ConfigError, match="copy hold the same weights, as copies of one run do"):
        predict.predict_to_file(f"{path},{copy}", output=tmp_path / "p.csv")
    numbers = itertools.count()
    monkeypatch.setattr(ensemble, "tensor_digests", lambda _: next(numbers))
    both = read(predict.predict_to_file(f"{path},{copy}", output=tmp_path / "p.csv", raw=True))
    one = read(predict.predict_to_file(path, output=tmp_path / "q.csv", raw=True))
    assert both == one
    votes = read(predict.predict_to_file(f"{path},{copy}", output=tmp_path / "r.csv"))
    assert list(votes[0])[-3:] == list(predict.JUDGED)
    other = shutil.copytree(path, tmp_path / "other")
    (other / "calibration.json").unlink()
    with pytest.raises(WorkdirError, match=r"calibration\.json is missing since"):
        predict.predict_to_file(f"{path},{other}", output=tmp_path / "s.csv")
    as_earlier_version(other)
    predict.predict_to_file(f"{path},{other}", output=tmp_path / "s.csv")
    assert "not calibrated, so nothing is decided" in caplog.text and str(other) in caplog.text


def test_deep_images_are_not_dark_in_silence(run, tmp_path, caplog):
    pixels = np.random.default_rng(0).integers(0, 4096, (28, 28)).astype(np.uint16)
    (tmp_path / "new").mkdir()
    Image.fromarray(pixels).save(tmp_path / "new" / "12_bits.png")
    predict.predict_to_file(run[1], input=str(tmp_path / "new"), output=tmp_path / "p.csv")
    assert "1 image(s) have more than 8 bits per channel; their values need 12, but" in caplog.text
    assert "65535 is white, as in training" in caplog.text


def test_python_predicts_as_the_command_does(run, tmp_path):
    config, path = run
    own, images = trained.load_run(path), data.load(config.data, config.seed).test.images
    saved = calibrated.read_predictions(path / "predictions.npz").probabilities
    np.testing.assert_allclose(own.predict(images, raw=True), saved[-1], rtol=1e-4, atol=1e-6)
    votes = decisions.calibrated(calibrated.read_calibration(path), saved)
    np.testing.assert_allclose(own.predict(images), votes[-1], rtol=1e-4, atol=1e-6)


def test_runs_of_one_split_have_its_images_and_not_only_its_labels(tmp_path, monkeypatch):
    """Folds of class folders are sorted by class: their labels may be equal."""
    labels, p = np.array([0, 0, 1, 1]), np.full((1, 4, 2), 0.5, np.float32)
    saved = lambda *names: calibrated.Saved(labels, p, None, 1, names)
    paths = [tmp_path / "0", tmp_path / "1"]
    assert ensemble._of_one_split(paths, [saved(*"abcd"), saved(*"abcd")])
    assert not ensemble._of_one_split(paths, [saved(*"abcd"), saved(*"aecf")])
    for second, same in (("x", True), ("y", False)):
        prints = iter(("x", second))
        about = lambda path, prints=prints: {"dataset": {"fingerprint": next(prints)}}
        monkeypatch.setattr(ensemble, "read_manifest", about)
        assert ensemble._of_one_split(paths, [saved(), saved()]) == same


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"fingerprint": "b"}, "on other splits of it.*name new images with --input"),
        ({"class_names": ["no", "perhaps"]}, "an ensemble needs the same"),
    ],
)
def test_runs_of_other_data_or_classes_are_no_ensemble(monkeypatch, other, message):
    first = {"class_names": ["no", "yes"], "task": "binary-class", "fingerprint": "a"}
    datasets = {"first": first, "other": first | other}
    loaded = lambda path, *_, **__: types.SimpleNamespace(dataset=datasets[path.name])
    monkeypatch.setattr(ensemble, "load", loaded)
    with pytest.raises(ConfigError, match=message):
        ensemble.load_members([Path("first"), Path("other")], "selected", own_data=True)


def test_views_of_an_image_and_its_mirror_image_are_answered_alike(run, tmp_path):
    config, path = run
    images = data.load(config.data, config.seed).test.images[:4]
    answers = []
    for i, turned in enumerate((images, images[:, :, ::-1], images[:, ::-1].swapaxes(1, 2))):
        np.savez(tmp_path / f"{i}.npz", test_images=turned)
        file = predicted(path, tmp_path / f"{i}.npz", tmp_path, raw=True, tta="turns")
        answers.append(without_names(file))
    assert answers[0] == answers[1] == answers[2]
    plain = without_names(predicted(path, tmp_path / "0.npz", tmp_path, raw=True))
    assert plain != answers[0]


def test_views_have_no_decisions_that_were_fitted_without_them(run, tmp_path, caplog):
    config, path = run
    images = data.load(config.data, config.seed).test.images[:4]
    np.savez(tmp_path / "images.npz", test_images=images)
    file = predicted(path, tmp_path / "images.npz", tmp_path, tta="hflip")
    assert "decision" not in file.read_text().splitlines()[0]
    assert "--tta=hflip: probabilities are not calibrated" in caplog.text
    with pytest.raises(ConfigError, match="leave out --raw, --tta and --checkpoint=last"):
        predicted(path, tmp_path / "images.npz", tmp_path, tta="hflip", sensitivity=0.9)


def test_an_older_run_is_calibrated_as_training_does_it(run, tmp_path):
    path = shutil.copytree(run[1], tmp_path / "run")
    written = json.loads((path / "calibration.json").read_text())
    with pytest.raises(WorkdirError, match="the run is calibrated"):
        calibrate.calibrate(path)
    as_earlier_version(path)
    (path / "calibration.json").unlink()
    (path / "validation.npz").unlink()
    again = json.loads(calibrate.calibrate(path, batch_size=16).read_text())
    np.testing.assert_allclose(again["temperatures"], written["temperatures"], rtol=1e-3)
    assert again["classes"] == written["classes"] and again["notes"] == written["notes"]
    (path / "calibration.json").write_text('{"task": "multi-class"}')
    with pytest.raises(WorkdirError, match=r"calibration\.json is damaged"):
        predict.predict_to_file(path, output=tmp_path / "p.csv")


def test_data_that_changed_since_training_are_not_taken_for_the_runs_own(run):
    network = trained.load(run[1])
    assert len(predict.own_data(network, "test").labels) == 20
    other = network._replace(dataset=network.dataset | {"fingerprint": "0"})
    with pytest.raises(DataError, match="have changed since the run was trained.*with --input"):
        predict.own_data(other, "test")


def test_a_sealed_run_is_not_calibrated_afterwards(run, tmp_path):
    for name in ("seal.json", "result.json"):
        (tmp_path / name).write_bytes((run[1] / name).read_bytes())
    with pytest.raises(WorkdirError, match="is sealed without calibration"):
        calibrate.calibrate(tmp_path)


def test_medmnist_reads_what_is_written_for_it(shared, tmp_path):
    evaluator = pytest.importorskip("medmnist.evaluator")
    from configs import medmnist28
    from lsanet_jax import train

    config = medmnist28.get_config()
    config.model.update(backbone="tests.networks:TinyNet", taps=(1, 2), stem="imagenet")
    config.data.root = str(shared / "data")
    config.data.train_fraction = 0.2
    config.train.epochs = 1
    result = train.train_and_evaluate(config, tmp_path / "run")
    file = predict.predict_to_file(tmp_path / "run", medmnist=True, output=tmp_path / "results")
    test = result["test"]
    assert file.name == f"breastmnist_test_[AUC]{test['auc']:.3f}_[ACC]{test['acc']:.3f}@0.csv"

    class Evaluator(evaluator.Evaluator):  # its default root is the user's own
        def __init__(self, flag, split, size=None):
            super().__init__(flag, split, size=size, root=config.data.root)

    metrics = Evaluator.parse_and_evaluate(str(file))
    np.testing.assert_allclose(metrics, (test["auc"], test["acc"]), rtol=1e-6)


@pytest.mark.slow
def test_a_folder_of_2000_jpegs_trains_and_predicts(shared, tmp_path):
    from configs import folder
    from lsanet_jax import train

    with np.load(shared / "data/ham10000_28.npz") as arrays:
        images, labels = arrays["train_images"][:2000], arrays["train_labels"][:2000, 0]
    names = np.array(["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"])
    source = tmp_path / "skin"
    source.mkdir()
    rows = []
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        Image.fromarray(image).save(source / f"{i:04}.jpg", quality=95)
        rows.append((f"{i:04}.jpg", names[label], f"patient {i // 3}"))
    with (source / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "label", "patient"), *rows])

    config = folder.get_config()
    config.data.update(path=str(source), csv="labels.csv", size=28, image_size=28)
    config.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    config.train.update(epochs=1, batch_size=128)
    train.train_and_evaluate(config, tmp_path / "run")
    dataset = data.load(config.data)
    assert dataset.class_names == tuple(names)
    splits = {row["file"]: row["split"] for row in read(source / "lsanet_splits.csv")}
    assert all(len({splits[row[0]] for row in rows[i : i + 3]}) == 1 for i in range(0, 2000, 3))
    truth = {file: label for file, label, _ in rows}
    for key in data.SPLITS:  # the labels are those of the table, in the order of the files
        files = sorted(file for file, split in splits.items() if split == key)
        assert [names[k] for k in dataset.split(key).labels] == [truth[file] for file in files]

    own = read(predict.predict_to_file(tmp_path / "run", split="val", output=tmp_path / "own.csv"))
    assert [row["file"] for row in own] == sorted(
        f for f, split in splits.items() if split == "val"
    )
    predictions = read(predicted(tmp_path / "run", source, tmp_path))
    of_file = {row["file"]: row["label"] for row in predictions}
    assert all(row["label"] == of_file[row["file"]] for row in own)
    assert [row["file"] for row in predictions] == [row[0] for row in rows]
    result = json.loads((tmp_path / "run/result.json").read_text())
    test = [row for row in predictions if splits[row["file"]] == "test"]
    accuracy = np.mean([row["label"] == truth[row["file"]] for row in test])
    np.testing.assert_allclose(accuracy, result["test"]["acc"])


def test_other_files_are_decoded_as_the_training_files_were(tmp_path):
    from configs import folder
    from lsanet_jax import train

    rng = np.random.default_rng(0)
    source = tmp_path / "scans"
    for label in ("benign", "malignant"):
        (source / label).mkdir(parents=True)
        for i in range(20):  # 12 bits in files of 16, wider than high
            pixels = rng.integers(0, 4096, (20, 30)).astype(np.uint16)
            Image.fromarray(pixels).save(source / label / f"{i:02}.png")
    config = folder.get_config()
    config.data.update(path=str(source), size=28, image_size=28, fit="pad")
    config.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    config.train.update(epochs=1, batch_size=16)
    train.train_and_evaluate(config, tmp_path / "run")
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert manifest["dataset"]["decoding"]["bits"] == 12
    own = read(predict.predict_to_file(tmp_path / "run", output=tmp_path / "own.csv"))
    again = {row["file"]: row for row in read(predicted(tmp_path / "run", source, tmp_path))}
    assert own and all(row == again[row["file"]] for row in own)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"input": "nowhere"}, DataError, "--input=nowhere: found nothing there\\."),
        ({"input": "EMPTY"}, DataError, "found no images in it"),
        ({"input": "broken.png"}, DataError, r"broken\.png"),
        ({"input": "broken.npz"}, DataError, r"broken\.npz"),
        ({"medmnist": True}, ConfigError, r"goes with a run on one \(this is on synthetic\)"),
        (
            {"input": "STRANGE"},
            DataError,
            r"STRANGE: found 'L\\udce4sion\.png', expected a name in UTF-8",
        ),
        (
            {"input": os.fsdecode(b"L\xe4sion.png")},
            DataError,
            "expected a name in UTF-8: rename it",
        ),
        (
            {"input": "EMPTY", "split": "val"},
            ConfigError,
            "--split=val is of an npz file or of the",
        ),
        ({"batch_size": 0}, ConfigError, "--batch_size=0: expected at least 1"),
        ({"output": "broken.png/p.csv"}, WorkdirError, "cannot write --output"),
    ],
)
def test_what_cannot_be_predicted_is_named(run, tmp_path, monkeypatch, arguments, error, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    (tmp_path / "STRANGE").mkdir()
    strange = os.fsdecode(b"L\xe4sion.png")
    for folder in (tmp_path, tmp_path / "STRANGE"):
        (folder / strange).touch()
    for name in ("broken.png", "broken.npz"):
        (tmp_path / name).write_bytes(b"no image")
    with pytest.raises(error, match=message):
        predict.predict_to_file(run[1], **arguments)
    left = {"EMPTY", "STRANGE", "broken.png", "broken.npz", strange}
    assert {p.name for p in tmp_path.iterdir()} == left


def test_the_command_line_writes_into_the_run_and_fails_in_one_line(run, tmp_path):
    path = shutil.copytree(run[1], tmp_path / "run")
    command = [sys.executable, "-m", "lsanet_jax.predict", f"--workdir={path}", "--trust_code"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{path / 'predictions.csv'}\n"
    assert len(read(path / "predictions.csv")) == 20
    result = subprocess.run([*command, "--input=x"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1] == "error: --input=x: found nothing there."
