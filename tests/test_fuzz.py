"""Arbitrary files and flags: each ends in a value or in one error of ours, soon, in little memory.

The inputs follow from fixed seeds. `--slow` tries 20 times as many.
"""

import csv
import functools
import hashlib
import io
import json
import os
import pathlib
import random
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lsanet_jax import audit, calibrate, evaluate, explain, export, predict
from lsanet_jax import config as config_lib
from lsanet_jax.data.sources import download, folder, images, npz, tfds_builder
from lsanet_jax.errors import ConfigError, DataError, LSANetError, WorkdirError
from lsanet_jax.evaluation import conformal
from lsanet_jax.models import __main__ as zoo
from lsanet_jax.models import pretrained
from lsanet_jax.report import compare
from lsanet_jax.runs import calibrated, chain, claim, seal, stored, weights
from lsanet_jax.runs.workdir import read_config, read_manifest, read_result
from lsanet_jax.runtime import cli, strict_json
from lsanet_jax.runtime.files import csv_cell, json_text, replacing, text_of_csv_cell
from lsanet_jax.sweeps import estimate, spec

SECONDS = 20  # no input may take longer
EACH = 60  # inputs of each surface

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def inputs(request):
    """How many inputs to try: a function from the usual number."""
    return lambda usual: usual * (20 if request.config.option.slow else 1)


def fuzz(number, read, make):
    """Read `number` inputs that `make` writes from a source of random numbers.

    Returns how many were refused. All others must have given a value.
    """
    refused = 0

    @settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**32))
    def check(seed):
        nonlocal refused
        with tempfile.TemporaryDirectory() as place:
            given_ = make(random.Random(seed), pathlib.Path(place))
            start = time.monotonic()
            try:
                read(given_)
            except LSANetError as error:
                refused += 1
                assert len(str(error)) > 20
            assert time.monotonic() - start < SECONDS

    check()
    return refused


def damaged(data, dice):
    """Bytes cut short, replaced, inserted, deleted, repeated or swapped at random places."""
    data = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4])):
        place, other = dice.randrange(len(data) + 1), dice.randrange(len(data) + 1)
        how = dice.choice(["cut", "byte", "byte", "bit", "insert", "repeat", "big", "random"])
        if how == "cut":
            data = data[:place]
        elif how == "byte" and data:
            data[place % len(data)] = dice.randrange(256)
        elif how == "bit" and data:
            data[place % len(data)] ^= 1 << dice.randrange(8)
        elif how == "insert":
            data[place:place] = dice.randbytes(dice.randint(1, 4))
        elif how == "repeat":
            data[place:place] = data[min(place, other) : max(place, other)]
        elif how == "big":
            data[place : place + 4] = dice.choice([b"\xff" * 4, b"\0" * 4, b"\x7f" + b"\xff" * 3])
        elif how == "random":
            data[place:other] = dice.randbytes(dice.randint(0, 40))
    return bytes(data)


STRANGE = (
    "9" * 400,
    "-" + "9" * 5000,
    "1e999",
    "NaN",
    "[" * 100_000,
    '{"a":' * 2000,
    "null",
    "true",
    "[]",
    "{}",
    '"\\ud800"',
    '"\\u0000"',
    "0.5",
    "-1",
    '""',
    '{"a": 1, "a": 2}',
)


def strange_json(text, dice):
    """JSON with a value replaced by something strange, a field dropped, or damaged bytes."""
    if dice.random() < 0.3:
        return damaged(text.encode(), dice)
    value = json.loads(text)
    node, path = value, []
    while isinstance(node, dict | list) and node and (not path or dice.random() < 0.6):
        key = dice.choice(list(node) if isinstance(node, dict) else range(len(node)))
        path.append((node, key))
        node = node[key]
    if not path:
        return dice.choice(STRANGE).encode()
    holder, key = path[-1]
    if dice.random() < 0.2:
        del holder[key]
        return json.dumps(value).encode()
    holder[key] = "@@@"
    return json.dumps(value).encode().replace(b'"@@@"', dice.choice(STRANGE).encode())


def flags_of(module, *arguments):
    """Run a command without its logging, which would stay; its errors are raised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["command", *arguments])
        patch.setattr(cli, "run", lambda tool: tool())
        module.main()


JSON_READERS = {
    "calibration.json": lambda file: calibrated.read_calibration(file.parent),
    "config.json": lambda file: config_lib.validate(read_config(file.parent)),
    "manifest.json": lambda file: read_manifest(file.parent),
    "result.json": lambda file: read_result(file.parent),
    "seal.json": lambda file: seal.check(file.parent, ()),
    "digests.jsonl": lambda file: chain.read(file.parent, cut=True),
    "metrics.jsonl": lambda file: strict_json.read_json_lines(file, {"epoch": int}),
}


@pytest.mark.parametrize("name", JSON_READERS)
def test_our_own_json(run, inputs, name):
    text = (run[1] / name).read_text()

    def make(dice, place):
        for other in ("manifest.json", "config.json"):
            (place / other).write_bytes((run[1] / other).read_bytes())
        if name.endswith("l"):
            first, *rest = text.splitlines()
            (place / name).write_bytes(strange_json(first, dice) + "\n".join(["", *rest]).encode())
        else:
            (place / name).write_bytes(strange_json(text, dice))
        return place / name

    assert fuzz(inputs(EACH), JSON_READERS[name], make) > inputs(EACH) // 4


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        ({"classes": ["class 1", "class 0", "class 2"]}, "classes|fit each other"),
        ({"task": "ordinal-regression"}, "task: ordinal-regression, but multi-class in manifest"),
        ({"temperatures": [[1.0]]}, "temperatures of 1 classifiers, not 2"),
        ({"temperatures": [[1.0], [0.0]]}, "a temperature is not above 0"),
        ({"temperatures": [[1.0], [None]]}, r"temperatures\[1\]\[0\] is null, expected a number"),
        ({"temperatures": [[1.0], [1.0, 2.0]]}, "inhomogeneous|fit each other"),
        ({"coverage": 1.5}, "a threshold, share or coverage is not between 0 and 1"),
        ({"least_probability": [0.1, 0.2, 7]}, "is not between 0 and 1"),
        ({"least_probability": [0.1, 0.2]}, "its lists do not fit each other"),
        ({"too_rare": [0, 0, 1]}, r"too_rare\[0\] is 0, expected true or false"),
        ({"rule": {"name": "best", "value": 0.5}}, "its rule is best 0.5"),
        ({"rule": {"name": "sensitivity", "value": None}}, "its rule is sensitivity nan"),
        ({"validation_images": "16"}, "expected an integer"),
        ({"operating_points": []}, "its lists do not fit each other"),
    ],
)
def test_a_calibration_that_is_not_the_runs_is_refused(run, tmp_path, edit, found):
    for name in ("manifest.json", "config.json", "result.json"):
        (tmp_path / name).write_bytes((run[1] / name).read_bytes())
    as_earlier_version_result(tmp_path)
    content = json.loads((run[1] / "calibration.json").read_text())
    (tmp_path / "calibration.json").write_text(json.dumps(content))
    assert calibrated.read_calibration(tmp_path) is not None
    (tmp_path / "calibration.json").write_text(json.dumps(content | edit))
    with pytest.raises(WorkdirError, match=rf"calibration\.json is damaged \(.*({found})"):
        calibrated.read_calibration(tmp_path)


def as_earlier_version_result(path):
    result = json.loads((path / "result.json").read_text())
    del result["test_looks"]
    (path / "result.json").write_text(json.dumps(result))


def probabilities_of(**changes):
    rng = np.random.default_rng(0)
    p = rng.dirichlet(np.ones(3), (2, 8)).astype(np.float32)
    sound = {"labels": np.arange(8) % 3, "probabilities": p, "epoch": 1}
    sound["beta"] = np.full((8, 2), 0.5, np.float32)
    return sound | changes


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": np.arange(8) % 4},
        {"labels": np.arange(8) - 1},
        {"labels": np.arange(8) / 4},
        {"labels": np.full((8, 3), 2)},
        {"labels": np.int64(1)},
        {"probabilities": np.full((2, 8, 3), "x")},
        {"probabilities": np.full((2, 8, 3), 7.0)},
        {"probabilities": np.full((2, 8, 3), np.nan)},
        {"probabilities": np.full((2, 8, 3), 1)},
        {"probabilities": np.zeros((0, 8, 3))},
        {"epoch": np.inf},
        {"epoch": np.arange(2)},
        {"epoch": "x"},
        {"beta": np.full((8, 3), 0.3)},
        {"beta": np.full((8, 2), np.nan)},
        {"beta": np.full((8, 2), "x")},
    ],
)
def test_predictions_of_another_kind_are_refused(tmp_path, changes):
    file = tmp_path / "validation.npz"
    np.savez(file, **probabilities_of())
    assert calibrated.read_predictions(file).epoch == 1
    np.savez(file, **probabilities_of(**changes))
    with pytest.raises(WorkdirError, match=r"validation\.npz is damaged"):
        calibrated.read_predictions(file)


def npz_with_header(file, header):
    """An npz file with one array, which is as its header says."""
    line = header.encode().ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + bytes(10_000)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("labels.npy", array)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<i8', 'fortran_order': False, 'shape': (3,), ",
        "{'descr': (), 'fortran_order': False, 'shape': (3,), }",
        "{'descr': '|V0', 'fortran_order': False, 'shape': (99999999999999999999,), }",
        "{'descr': '<i8', 'fortran_order': False, 'shape': (999999999999,), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }",
        "-" * 116 + "1",
    ],
)
def test_headers_of_arrays_that_lie_are_refused(tmp_path, header):
    npz_with_header(tmp_path / "validation.npz", header)
    with pytest.raises(WorkdirError, match=r"validation\.npz is damaged"):
        stored.read_arrays(tmp_path / "validation.npz")


@pytest.mark.parametrize("module", [predict, evaluate, explain, export, calibrate])
def test_each_command_takes_the_flags_that_it_declares(module, tmp_path):
    with pytest.raises(WorkdirError, match="holds no run"):
        flags_of(module, f"--workdir={tmp_path}")


@pytest.mark.parametrize("size", [0, -1, 10**9])
def test_batches_of_strange_sizes_are_refused(size, tmp_path):
    for module in (predict, evaluate, calibrate):
        with pytest.raises(ConfigError, match=f"--batch_size={size}: expected at least 1, at most"):
            flags_of(module, f"--workdir={tmp_path}", f"--batch_size={size}")


def test_numbers_of_thousands_of_digits_are_no_epochs(tmp_path):
    with pytest.raises(ConfigError, match="--epochs=999.*: expected all, or a number from 0"):
        flags_of(audit, f"--workdir={tmp_path}", f"--epochs={'9' * 5000}")


@pytest.mark.parametrize("name", [".", "/", "folder"])
def test_a_folder_as_the_output_is_named(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match=f"directory.*{name}"), replacing(pathlib.Path(name)) as file:
        file.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_paths_that_are_not_text_are_printed():
    code = "import os, lsanet_jax.runtime.cli as c; c.run(lambda: print(os.fsdecode(b'\\xff')))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert done.stdout == b"\\udcff\n"


@pytest.mark.parametrize("flag", ["--size=0", "--size=-1", "--classes=0", "--classes=99999999"])
def test_sizes_of_no_network_are_refused(flag):
    with pytest.raises(ConfigError, match=f"{flag}: expected 1 to"):
        flags_of(zoo, flag)


def test_a_file_whose_images_cannot_be_counted_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    npz_with_header(tmp_path / "lies.npz", "{'descr': '<i8', 'fortran_order': False, ")
    for name in ("pipe.npz", "lies.npz", "none.npz"):
        assert estimate._rows(tmp_path / name, "labels") is None


@pytest.mark.parametrize("budget", ["nan", "inf", "0", "-1", "x"])
def test_a_budget_that_is_no_time_is_refused(budget, capsys):
    with pytest.raises(SystemExit):
        flags_of(compare, "--workdir=w", f"--budget={budget}")
    assert "--budget" in capsys.readouterr().err


def test_a_home_of_nobody_is_a_folder_that_is_not_there():
    with pytest.raises(ConfigError, match="~nouser/images: found nothing there"):
        spec.with_data({"data.path": "~nouser/images"})


def test_values_that_pythons_parser_gives_up_on_are_named():
    for text in ("-" * 9000 + "1", "(" * 9000):
        with pytest.raises(ConfigError, match="must be of type tuple"):
            spec.parse_overrides([f"--config.data.mean={text}"])


@pytest.mark.parametrize("coverage", [1e-12, 0.5, 1 - 1e-12])
@pytest.mark.parametrize("count", [0, 1, 5])
def test_any_coverage_can_be_asked_for(coverage, count):
    labels, p = np.zeros(count, int), np.full((count, 2), 0.5)
    assert conformal.fit(labels, p, coverage).least.shape == (2,)


DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "mean", [DEEP, "1" * 5000, f"[{'9' * 400}, 1, 1]", '"123"', "[true]", "{}"]
)
def test_metadata_of_weights_that_say_nothing_sensible(tmp_path, mean):
    import safetensors.numpy

    file, tensors = tmp_path / "a.safetensors", {"a": np.zeros(1, np.float32)}
    safetensors.numpy.save_file(
        tensors, file, {"mean": mean, "std": "[1]" if mean != '"123"' else mean}
    )
    assert weights.find(str(file)).normalisation is None


def test_weights_are_read_from_no_pipe(tmp_path):
    os.mkfifo(tmp_path / "a.safetensors")
    for read in (pretrained.read_safetensors, lambda file: weights.find(str(file)).sha256()):
        with pytest.raises(DataError, match=r"a\.safetensors.*not a regular file"):
            read(tmp_path / "a.safetensors")


def test_a_field_and_its_file_are_named(tmp_path):
    file = tmp_path / "result.json"
    shape = {"test": {"acc": float, "auc": (float, None)}, "stages": [{"stage": int}]}
    sound = {"test": {"acc": 0.5, "auc": None}, "stages": [{"stage": 1}], "more": "fields"}
    file.write_text(json.dumps(sound))
    assert strict_json.read_json(file, shape) == sound
    for value, message in (
        (sound | {"test": {"acc": "0.5", "auc": 1}}, 'test.acc is "0.5", expected a number'),
        (sound | {"test": {"acc": 1, "auc": []}}, "test.auc is [], expected a number or null"),
        (sound | {"test": {"auc": 1}}, "test.acc is missing"),
        (sound | {"stages": [{"stage": 1}, {"stage": 1.5}]}, "stages[1].stage is 1.5, expected an"),
        (sound | {"stages": [{"stage": True}]}, "stages[0].stage is true, expected an integer"),
        ([], "found [], expected an object"),
    ):
        file.write_text(json.dumps(value))
        with pytest.raises(WorkdirError) as error:
            strict_json.read_json(file, shape)
        assert f"{file} is damaged ({message}" in str(error.value)


@pytest.mark.parametrize("text", STRANGE[:6] + STRANGE[-1:])
def test_json_that_is_valid_for_others_but_not_ours(tmp_path, text):
    (tmp_path / "file.json").write_text(f'{{"field": {text}}}')
    with pytest.raises(WorkdirError, match=r"file\.json is damaged"):
        strict_json.read_json(tmp_path / "file.json")


def test_what_is_not_a_readable_file_is_named_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(strict_json.MAX_BYTES + 1)
    names = ["pipe", "folder", "loop", "huge", "missing", "x" * 300, "null\0", "~nouser/file"]
    for name in names:
        with pytest.raises(WorkdirError):
            strict_json.read_json(tmp_path / name)
    with pytest.raises(WorkdirError, match="cannot be read"):
        strict_json.exists(tmp_path / ("x" * 300) / "config.json")


def test_config_values(inputs):
    names = sorted(config_lib.FIELDS)

    def make(dice, _):
        values = dict(config_lib.flatten(config_lib.default_config()))
        for _ in range(dice.choice([1, 1, 2, 5])):
            name = dice.choice(names)
            values[name] = dice.choice(
                [None, True, -1, 0, 2**31, 10**400, -0.0, float("nan"), float("inf"), 1e308]
                + ["", "x" * 5000, "~nouser", "\0", "\ud800", "a:b", ":", (), (0,), ("a",), [1], {}]
            )
        return values

    def read(values):
        config_lib.validate(config_lib.unflatten(values))

    assert fuzz(inputs(2 * EACH), read, make) > inputs(EACH)


def test_npz_files(inputs):
    rng = np.random.default_rng(0)
    arrays = {f"{s}_images": rng.integers(0, 256, (4, 5, 5), np.uint8) for s in npz.SPLITS}
    arrays |= {f"{s}_labels": np.arange(4) % 2 for s in npz.SPLITS}

    def make(dice, place):
        stream = io.BytesIO()
        dice.choice([np.savez, np.savez_compressed])(stream, **arrays)
        (place / "own.npz").write_bytes(damaged(stream.getvalue(), dice))
        return place / "own.npz"

    assert fuzz(inputs(EACH), npz.load_npz, make) > inputs(EACH) // 4


def test_an_npz_file_of_two_arrays_of_one_name_is_refused(tmp_path):
    images = io.BytesIO()
    np.save(images, np.zeros((2, 4, 4), np.uint8))
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        for key in (*npz.KEYS, npz.KEYS[0]):
            archive.writestr(f"{key}.npy", images.getvalue())
    with pytest.raises(DataError, match="holds two arrays of one name"):
        npz.load_npz(tmp_path / "own.npz")


def test_an_npz_file_that_declares_more_than_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(npz.memory, "physical_bytes", lambda: 50_000)
    arrays = {key: np.zeros((100, 10, 10), np.uint8) for key in npz.KEYS}
    np.savez_compressed(tmp_path / "bomb.npz", **arrays)
    with pytest.raises(DataError, match=r"its arrays take .* GB, this machine has"):
        npz.load_npz(tmp_path / "bomb.npz")


def picture(dice):
    """A small image in some format."""
    stream = io.BytesIO()
    array = np.frombuffer(dice.randbytes(12 * 10 * 3), np.uint8).reshape(12, 10, 3)
    kind = dice.choice(["PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM"])
    Image.fromarray(array if kind != "GIF" else array[..., 0]).save(stream, kind)
    return stream.getvalue()


def test_images(inputs):
    def make(dice, place):
        (place / "image").write_bytes(damaged(picture(dice), dice))
        return place / "image"

    assert fuzz(inputs(2 * EACH), lambda file: images.decode(file, size=8), make) > inputs(10)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_an_image_that_declares_more_pixels_than_allowed_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels)
    (tmp_path / "bomb.png").write_bytes(content + chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"bomb\.png.*pixels"):
        images.decode(tmp_path / "bomb.png", size=8)


@functools.cache
def flat_png(value):
    stream = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) + np.uint8(value)).save(
        stream, "PNG"
    )
    return stream.getvalue()


def test_tables_and_folders(inputs):
    def make(dice, place):
        rows = [["image", "label", "patient", "split"]]
        for number in range(8):
            (place / f"{number}.png").write_bytes(flat_png(number))
            split = ("train", "val", "test")[min(number // 3, 2)]
            rows.append([f"{number}.png", "ab"[number % 2], f"p{number}", split])
        stream = io.StringIO()
        csv.writer(stream, delimiter=dice.choice(",;\t")).writerows(rows)
        (place / "labels.csv").write_bytes(damaged(stream.getvalue().encode(), dice))
        if dice.random() < 0.3:
            (place / f"{dice.randrange(8)}.png").write_bytes(damaged(flat_png(1), dice))
        return place

    read = lambda place: folder.load_folder(place, size=8, csv="labels.csv")
    assert fuzz(inputs(EACH), read, make) > inputs(10)


def test_safetensors(inputs):
    import safetensors.numpy

    tensors = {"a.weight": np.zeros((2, 3), np.float32), "b": np.arange(4, dtype=np.int64)}
    whole = safetensors.numpy.save(tensors, {"format": "pt"})

    def make(dice, place):
        (place / "weights.safetensors").write_bytes(damaged(whole, dice))
        return place / "weights.safetensors"

    assert fuzz(inputs(EACH), pretrained.read_safetensors, make) > inputs(EACH) // 4


SWEEP = """
from lsanet_jax.sweeps.spec import Run, Sweep

def get_sweep(scale):
    return Sweep("mine", "Title", (Run("a", "quickstart", {"train.epochs": 1}, {"Model": "a"}),))
"""


def test_sweep_files_and_their_records(inputs):
    def make(dice, place):
        (place / "mine.py").write_text(SWEEP)
        record = {"name": "mine", "scale": "paper", "overrides": {}, "seeds": [0, 1, 2]}
        record["runs"] = {"a": ["quickstart", {"train.epochs": 1}]}
        (place / "sweep.json").write_bytes(strange_json(json.dumps(record), dice))
        return place

    read = lambda place: spec.reopen(place / "mine.py", place)
    assert fuzz(inputs(EACH), read, make) > inputs(10)


def test_predictions(run, inputs):
    result, whole = read_result(run[1]), (run[1] / "predictions.npz").read_bytes()

    def make(dice, place):
        (place / "predictions.npz").write_bytes(damaged(whole, dice))
        return place

    read = lambda place: stored.read_predictions(place, result)
    assert fuzz(inputs(EACH), read, make) > inputs(EACH) // 4


def test_claims(run, inputs, tmp_path):
    claim.pack(run[1], tmp_path / "claim.zip")
    whole = (tmp_path / "claim.zip").read_bytes()

    def make(dice, place):
        changed = damaged(whole, dice)
        (place / "claim.zip").write_bytes(changed if changed != whole else whole + b"x")
        return place

    def read(place):
        (place / "there").mkdir()
        claim.unpack(place / "claim.zip", place / "there")

    assert fuzz(inputs(EACH), read, make) == inputs(EACH)


def test_prepared_sets(inputs):
    metadata = {"md5": "0", "task": "multi-class", "class_names": ["a"], "fingerprint": "0"}
    name = "tensorflow_datasets.core.features.features_dict.FeaturesDict"

    def make(dice, place):
        folder = place / "medmnist2d/breastmnist_28/1.0.0"
        folder.mkdir(parents=True)
        (folder / "metadata.json").write_bytes(strange_json(json.dumps(metadata), dice))
        (folder / "features.json").write_bytes(
            strange_json(json.dumps({"pythonClassName": name}), dice)
        )
        return place

    read = lambda place: tfds_builder.load_prepared("breastmnist", 28, str(place))
    assert fuzz(inputs(EACH // 2), read, make) == inputs(EACH // 2)


def test_a_prepared_set_imports_no_code_of_strangers(tmp_path):
    features = {"featuresDict": {"features": {"x": {"pythonClassName": "strangers_module.Bad"}}}}
    (tmp_path / "features.json").write_text(json.dumps(features))
    with pytest.raises(ValueError, match=r"names the class strangers_module\.Bad"):
        tfds_builder._check_features(tmp_path / "features.json")


PATHS = ("x" * 5000, "a/" * 3000, "nul\0", "~nouser/x", "", "\ud800", "/dev/null", "/proc/self/mem")
READERS_OF_PATHS = {
    "npz": npz.load_npz,
    "folder": lambda path: folder.load_folder(path, size=8),
    "image": lambda path: images.decode(path, size=8),
    "input": lambda path: images.list_images(pathlib.Path(path) / "images"),
    "weights": pretrained.read_safetensors,
    "config": config_lib.load,
    "workdir": lambda path: read_config(pathlib.Path(path)),
    "sweep": lambda path: spec.reopen("table1", path),
    "claim": lambda path: claim.unpack(pathlib.Path(path), pathlib.Path("there")),
}


@pytest.mark.parametrize("reader", READERS_OF_PATHS)
def test_paths_that_lead_nowhere(reader, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in PATHS:
        with pytest.raises(LSANetError):
            READERS_OF_PATHS[reader](path)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------ downloads


class Misbehaving(threading.Thread):
    """Answers each connection with bytes, then perhaps a byte now and then, for ever."""

    def __init__(self, answer, trickle=None):
        super().__init__(daemon=True)
        self._answer, self._trickle = answer, trickle
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}/file.npz"
        self.start()

    def run(self):
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            connection.recv(65536)
            connection.sendall(self._answer)
            while self._trickle is not None:
                time.sleep(self._trickle)
                connection.sendall(b"x" * (1 if self._trickle else 65536))
        except OSError:
            pass
        finally:
            connection.close()

    def close(self):
        self._server.close()


OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = {
    "nothing": (b"", None),
    "noise": (bytes(range(256)), None),
    "no headers": (b"HTTP/1.1 200 OK\r\n\r\n", None),
    "strange length": (OK + "Content-Length: ²\r\n\r\nabc".encode(), None),
    "a length of 400 digits": (OK + b"Content-Length: " + b"9" * 400 + b"\r\n\r\nabc", None),
    "negative length": (OK + b"Content-Length: -5\r\n\r\nabc", None),
    "a long header": (OK + b"X: " + b"a" * 100_000 + b"\r\n\r\n", None),
    "many headers": (OK + b"X: a\r\n" * 500 + b"\r\n", None),
    "strange chunks": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc", None),
    "to itself": (b"HTTP/1.1 302 Found\r\nLocation: /file.npz\r\n\r\n", None),
    "to nowhere": (b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n", None),
    "to a file": (b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n", None),
    "trickling": (OK + b"\r\n", 0.01),
    "endless": (OK + b"\r\n", 0),
}


@pytest.fixture
def impatient(monkeypatch):
    for name, value in {
        "_TIMEOUT_SECONDS": 0.3,
        "_WAITS_SECONDS": (0.01,),
        "_SLOW_SECONDS": 0.3,
        "_MAX_BYTES": 1 << 24,
    }.items():
        monkeypatch.setattr(download, name, value)


@pytest.mark.parametrize("answer", ANSWERS)
def test_servers_that_misbehave(impatient, tmp_path, answer):
    server = Misbehaving(*ANSWERS[answer])
    start = time.monotonic()
    with pytest.raises(DataError):
        download.download(server.url, tmp_path / "file.npz", hashlib.md5(b"right").hexdigest())
    assert time.monotonic() - start < SECONDS
    assert not (tmp_path / "file.npz").exists()
    server.close()


@pytest.mark.parametrize(
    "url",
    ["", "x", "http://", "http://[", "http://a b/", "http://\0/", "http://127.0.0.1:99999/x"]
    + ["nosuch://x/y", "http://127.0.0.1:port/x", "http://ü\ud800/"],
)
def test_malformed_urls(impatient, tmp_path, url):
    with pytest.raises(DataError, match="is missing and downloading it"):
        download.download(url, tmp_path / "file.npz", "0" * 32)


# ------------------------------------------------------------------------------ what we write


@pytest.mark.parametrize("cell", ["=1+1", "+x", "-x", "@x", "\tx"])
def test_text_is_not_a_formula(cell):
    assert csv_cell(cell) == f"'{cell}"
    assert text_of_csv_cell(csv_cell(cell)) == cell


@pytest.mark.parametrize("cell", ["-0.5", "+1e-3", "a=b", "", -1, 0.5, None, "-inf"])
def test_numbers_and_other_text_stay(cell):
    assert csv_cell(cell) == cell
    assert not isinstance(cell, str) or text_of_csv_cell(cell) == cell


def test_sizes_that_cannot_be_allocated_are_refused_before_anything_is_written(tmp_path):
    from lsanet_jax import train

    for name, value in (
        ("data.synthetic.num_train", 10**15),
        ("data.synthetic.num_test", 10**18),
        ("train.batch_size", 10**15),
        ("eval.batch_size", 2**62),
    ):
        config = config_lib.load("quickstart")
        config.update_from_flattened_dict({name: value})
        with pytest.raises(ConfigError, match=name):
            train.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_json_text_writes_is_what_is_read(tmp_path):
    value = {"nan": float("nan"), "deep": [{"x": [1, 2.5, None, True, "é"]}], "seed": 2**32 - 1}
    (tmp_path / "file.json").write_text(json_text(value))
    assert strict_json.read_json(tmp_path / "file.json") == value | {"nan": None}
