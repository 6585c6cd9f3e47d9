import errno
import fcntl
import hashlib
import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds

from lsanet_jax.data import __main__ as command_line
from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources import download, medmnist, tfds_builder
from lsanet_jax.errors import ConfigError, DataError

WITHOUT_TENSORFLOW = """
import importlib.machinery, sys
class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        without = name.partition(".")[0] == "tensorflow"
        return None if without else super().find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Finder
"""


@pytest.fixture
def make(monkeypatch, tmp_path):
    """Returns a function that makes a small file the official one of a set; returns its root."""

    def make(name, labels, channels=1):
        root = tmp_path / "root"
        root.mkdir(exist_ok=True)
        path = root / f"{name}.npz"
        shape = (len(labels), 28, 28, 3) if channels == 3 else (len(labels), 28, 28)
        random = np.random.default_rng(0)
        images = {f"{key}_images": random.integers(0, 256, shape, np.uint8) for key in SPLITS}
        np.savez(path, **images, **{f"{key}_labels": labels for key in SPLITS})
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        facts = dict(medmnist.info(name), MD5=md5, n_channels=channels)
        monkeypatch.setitem(medmnist._read_info(), name, facts)
        return str(root)

    return make


@pytest.fixture
def breast(make):
    return make("breastmnist", np.arange(40, dtype=np.uint8)[:, None] % 2)


@pytest.fixture
def data_dir(tmp_path):
    return str(tmp_path / "prepared")


def prepare(root, data_dir, name="breastmnist"):
    return tfds_builder.prepare(name, 28, root=root, data_dir=data_dir)


def assert_same(dataset, expected):
    assert dataset.fingerprint == expected.fingerprint
    assert (dataset.name, dataset.task) == (expected.name, expected.task)
    assert dataset.class_names == expected.class_names
    for key in SPLITS:
        np.testing.assert_array_equal(dataset.split(key).images, expected.split(key).images)
        np.testing.assert_array_equal(dataset.split(key).labels, expected.split(key).labels)


def run(program, *arguments):
    return subprocess.run(
        [sys.executable, *(("-c", program) if program else ()), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", ["retinamnist", "breastmnist"])
def test_a_prepared_set_is_the_official_one(shared, data_dir, name):
    root = str(shared / "data")
    folder = prepare(root, data_dir, name)
    dataset = tfds_builder.load_prepared(name, 28, data_dir)
    assert_same(dataset, medmnist.load_medmnist(name, root=root))
    assert dataset.source == str(folder)


def test_anybody_can_read_it_by_random_access_without_tensorflow(shared, data_dir):
    folder = prepare(str(shared / "data"), data_dir, "retinamnist")
    program = f"""{WITHOUT_TENSORFLOW}
import json
import tensorflow_datasets as tfds
builder = tfds.builder_from_directory({str(folder)!r})
source = builder.as_data_source(split="train")
assert not {{"tensorflow", "lsanet_jax"}} & set(sys.modules)
example = source[1079]
print(json.dumps([len(source), builder.info.features["label"].names, int(example["label"])]))
print(json.dumps(example["image"].tolist()))
"""
    done = run(program)
    assert done.returncode == 0, done.stderr
    facts, image = map(json.loads, done.stdout.splitlines())
    train = medmnist.load_medmnist("retinamnist", root=str(shared / "data")).train
    assert facts == [1080, list("01234"), train.labels[1079]]
    np.testing.assert_array_equal(np.array(image), train.images[1079])


def test_it_says_where_it_is_from(breast, data_dir):
    info = tfds.builder_from_directory(prepare(breast, data_dir)).info
    assert info.features["label"].names == ["malignant", "normal, benign"]
    assert info.features["image"].shape == (28, 28, 1)
    assert info.supervised_keys == ("image", "label")
    assert set(info.splits) == {"train", "val", "test"}
    assert info.metadata["md5"] == medmnist.info("breastmnist")["MD5"]
    assert info.metadata["url"].startswith("https://zenodo.org/")
    assert "BreastMNIST" in info.description
    assert "Scientific Data" in info.citation
    assert info.redistribution_info.license == "CC BY 4.0"


def test_multi_label_sets_keep_their_columns_and_names(make, data_dir):
    root = make("chestmnist", np.eye(20, 14, dtype=np.uint8))
    folder = prepare(root, data_dir, "chestmnist")
    expected = medmnist.load_medmnist("chestmnist", root=root)
    assert expected.task == "multi-label"
    assert_same(tfds_builder.load_prepared("chestmnist", 28, data_dir), expected)
    builder = tfds.builder_from_directory(folder)
    assert tuple(builder.info.metadata["class_names"]) == expected.class_names
    assert "atelectasis, cardiomegaly" in builder.info.features["label"].doc.desc
    label = builder.as_data_source("val")[3]["label"]
    np.testing.assert_array_equal(label, np.eye(14)[3])


def test_large_splits_are_several_files_in_the_same_order(make, data_dir, monkeypatch):
    root = make("pathmnist", np.arange(50, dtype=np.uint8)[:, None] % 9, channels=3)
    monkeypatch.setattr(tfds_builder, "_SHARD_BYTES", 50 * 28 * 28)
    monkeypatch.setattr(tfds_builder, "_READ_EXAMPLES", 7)
    folder = prepare(root, data_dir, "pathmnist")
    assert len(list(folder.glob("*-train.array_record-*-of-00003"))) == 3
    dataset = tfds_builder.load_prepared("pathmnist", 28, data_dir)
    assert_same(dataset, medmnist.load_medmnist("pathmnist", root=root))


def test_every_set_and_size_has_a_config():
    names = {f"{name}_{size}" for name in medmnist.NAMES for size in medmnist.SIZES}
    assert set(tfds_builder.MedMNIST2D.builder_configs) == names
    for config in tfds_builder.MedMNIST2D.BUILDER_CONFIGS:
        source = tfds_builder._source(config.set_name, config.size)
        assert (
            f"/{config.set_name}{'' if config.size == 28 else f'_{config.size}'}.npz"
            in (source["url"])
        )


def test_without_a_prepared_set_there_is_none(data_dir):
    assert tfds_builder.load_prepared("breastmnist", 28, data_dir) is None


def test_the_second_time_nothing_is_done(breast, data_dir):
    folder = prepare(breast, data_dir)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    # Not even the source file is needed.
    assert prepare("/nowhere", data_dir) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_the_folder_defaults_to_that_of_tensorflow_datasets(monkeypatch, tmp_path):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    folder = tfds_builder.prepared_folder("breastmnist", 64)
    assert folder == tmp_path / "data/medmnist2d/breastmnist_64/1.0.0"
    monkeypatch.delenv("TFDS_DATA_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tfds_builder.prepared_folder("breastmnist", 28)
    assert folder == tmp_path / "tensorflow_datasets/medmnist2d/breastmnist_28/1.0.0"


@pytest.mark.parametrize("call", [tfds_builder.prepare, tfds_builder.load_prepared])
def test_unknown_sets_and_sizes(call):
    with pytest.raises(ConfigError, match=r"data\.name is 'mnist', expected one of pathmnist,"):
        call("mnist", 28)
    with pytest.raises(ConfigError, match=r"data\.size is 32, expected one of 28, 64, 128, 224"):
        call("breastmnist", 32)


def test_a_source_file_that_cannot_be_had_is_the_loaders_error(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "_WAITS_SECONDS", ())
    with pytest.raises(DataError, match=r"breastmnist\.npz is missing and downloading it from"):
        tfds_builder.prepare(
            "breastmnist", 28, root=str(tmp_path), url="http://127.0.0.1:1", data_dir=data_dir
        )
    assert tfds_builder.load_prepared("breastmnist", 28, data_dir) is None


def _flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("medmnist2d-train.array_record-00000-of-00001", _flip_a_byte),
        ("medmnist2d-val.array_record-00000-of-00001", lambda path: path.write_bytes(b"")),
        ("medmnist2d-test.array_record-00000-of-00001", lambda path: path.unlink()),
        ("dataset_info.json", lambda path: path.write_text("{")),
        ("metadata.json", lambda path: path.unlink()),
        ("metadata.json", lambda path: path.write_text("[]")),
    ],
)
def test_a_damaged_set_is_named(breast, data_dir, file, damage):
    folder = prepare(breast, data_dir)
    damage(folder / file)
    with pytest.raises(DataError) as caught:
        tfds_builder.load_prepared("breastmnist", 28, data_dir)
    message = str(caught.value)
    assert message.startswith(f"{folder}: the prepared set is damaged")
    assert "Delete this folder and prepare it again: lsanet data prepare" in message
    assert f"--name=breastmnist --size=28 --data_dir={data_dir}" in message


def test_what_is_not_the_sets_fault_is_no_reason_to_delete_it(breast, data_dir, monkeypatch):
    prepare(breast, data_dir)
    for error in (MemoryError("Unable to allocate"), PermissionError(errno.EACCES, "denied")):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(tfds_builder, "_read", fail)
        with pytest.raises(DataError, match="cannot be read") as caught:
            tfds_builder.load_prepared("breastmnist", 28, data_dir)
        assert "Delete" not in str(caught.value)


def test_files_of_another_set_are_noticed(breast, data_dir):
    folder = prepare(breast, data_dir)
    train, test = (
        folder / f"medmnist2d-{key}.array_record-00000-of-00001" for key in ("train", "test")
    )
    train.write_bytes(test.read_bytes())  # Readable, of the right kind and number.
    with pytest.raises(DataError, match="found fingerprint .*, expected "):
        tfds_builder.load_prepared("breastmnist", 28, data_dir)


def test_a_set_made_from_another_version_of_the_file_is_not_used(breast, data_dir, monkeypatch):
    prepare(breast, data_dir)
    facts = dict(medmnist.info("breastmnist"), MD5="0123")
    monkeypatch.setitem(medmnist._read_info(), "breastmnist", facts)
    with pytest.raises(DataError, match="made from a file with md5 .*, expected 0123"):
        tfds_builder.load_prepared("breastmnist", 28, data_dir)


def _failing_after(images, error):
    """`_png`, which raises this error when so many images have been encoded."""
    encode, calls = tfds_builder._png, []

    def png(image):
        calls.append(image)
        if len(calls) > images:
            raise error
        return encode(image)

    return png


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), DataError),
    ],
)
def test_an_interrupted_preparation_leaves_nothing(breast, data_dir, monkeypatch, error, raised):
    with monkeypatch.context() as patch:
        patch.setattr(tfds_builder, "_png", _failing_after(60, error))
        with pytest.raises(raised):
            prepare(breast, data_dir)
    folder = tfds_builder.prepared_folder("breastmnist", 28, data_dir)
    assert [path.name for path in folder.parent.iterdir()] == [".lock"]
    assert tfds_builder.load_prepared("breastmnist", 28, data_dir) is None
    prepare(breast, data_dir)
    assert tfds_builder.load_prepared("breastmnist", 28, data_dir) is not None


def test_a_full_disk_is_noticed(shared, data_dir):
    # A limit to the size of files stands in for it: array_record writes late, and says so late.
    program = f"""
import resource, signal
from lsanet_jax.data.sources import tfds_builder
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
tfds_builder.prepare("breastmnist", 28, root={str(shared / "data")!r}, data_dir={data_dir!r})
"""
    done = run(program)
    folder = tfds_builder.prepared_folder("breastmnist", 28, data_dir)
    message = f"DataError: {folder}: cannot be written (write() failed: File too large"
    assert message in done.stderr.splitlines()[-1]
    assert [path.name for path in folder.parent.iterdir()] == [".lock"]


def test_what_a_killed_process_left_is_not_trusted_and_goes(shared, data_dir):
    root = str(shared / "data")
    program = f"""
import os, signal
from lsanet_jax.data.sources import tfds_builder
encode, calls = tfds_builder._png, []
def png(image):
    calls.append(image)
    if len(calls) == 700:
        os.kill(os.getpid(), signal.SIGKILL)
    return encode(image)
tfds_builder._png = png
tfds_builder.prepare("breastmnist", 28, root={root!r}, data_dir={data_dir!r})
"""
    assert run(program).returncode == -9
    folder = tfds_builder.prepared_folder("breastmnist", 28, data_dir)
    assert len(list(folder.parent.glob("incomplete.*/*train*"))) == 1
    assert tfds_builder.load_prepared("breastmnist", 28, data_dir) is None
    prepare(root, data_dir)
    assert {path.name for path in folder.parent.iterdir()} == {".lock", "1.0.0"}
    dataset = tfds_builder.load_prepared("breastmnist", 28, data_dir)
    assert_same(dataset, medmnist.load_medmnist("breastmnist", root=root))


def test_of_two_processes_one_writes_and_the_other_waits(breast, data_dir, monkeypatch):
    folder = prepare(breast, data_dir)
    elsewhere = folder.rename(folder.parent / "elsewhere")
    monkeypatch.setattr(tfds_builder, "_write", None)
    found = []
    waiting = threading.Thread(target=lambda: found.append(prepare(breast, data_dir)))
    with (folder.parent / ".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        elsewhere.rename(folder)
    waiting.join(60)
    assert found == [folder]


def test_a_place_that_cannot_be_written_to(breast, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"file/medmnist2d/.*cannot be written .*--data_dir"):
        prepare(breast, str(tmp_path / "file"))


def test_the_command_prints_the_folder(shared, data_dir):
    done = run(
        "",
        *("-m", "lsanet_jax.data", "prepare", "--name=breastmnist", "--size=28"),
        *(f"--root={shared / 'data'}", f"--data_dir={data_dir}"),
    )
    assert done.returncode == 0, done.stderr
    folder = tfds_builder.prepared_folder("breastmnist", 28, data_dir)
    assert done.stdout == f"{folder}\n"
    assert tfds_builder.load_prepared("breastmnist", 28, data_dir) is not None


def test_the_command_fails_with_one_line(data_dir, tmp_path):
    (tmp_path / "breastmnist.npz").write_bytes(b"mine")
    done = run(
        "",
        *("-m", "lsanet_jax.data", "prepare", "--name=breastmnist"),
        *(f"--root={tmp_path}", f"--data_dir={data_dir}"),
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path}/breastmnist.npz: found md5")
    assert "Traceback" not in done.stderr


def test_help_names_the_sets(capsys):
    with pytest.raises(SystemExit) as caught:
        command_line._parser().parse_args(["prepare", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for part in ("retinamnist", "--size {28,64,128,224}", "$TFDS_DATA_DIR", "$MEDMNIST_ROOT"):
        assert part in text


def test_the_command_refuses_what_is_not_a_set(capsys):
    with pytest.raises(SystemExit) as caught:
        command_line._parser().parse_args(["prepare", "--name=mnist"])
    assert caught.value.code == 2
    assert "invalid choice: 'mnist'" in capsys.readouterr().err
