import collections
import io
import pathlib
import pickle
import random
import tempfile
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lsanet_jax.data.dataset import SPLITS, TASKS
from lsanet_jax.data.sources import npz
from lsanet_jax.data.sources.npz import KEYS, load_npz
from lsanet_jax.errors import ConfigError, DataError


def arrays(num_classes=3, shape=(6, 6), **changed):
    """A sound file's arrays, 2 images per class and split; `changed` replaces, None removes."""
    labels = np.repeat(np.arange(num_classes), 2)
    random = np.random.default_rng(0)
    made = {}
    for key in KEYS:
        images = random.integers(0, 256, (len(labels), *shape), np.uint8)
        made[key] = images if key.endswith("images") else labels[:, None].astype(np.uint8)
    made.update(changed)
    return {key: value for key, value in made.items() if value is not None}


@pytest.fixture
def write(tmp_path):
    def write(**changed):
        path = tmp_path / "own.npz"
        np.savez_compressed(path, **arrays(**changed))
        return path

    return write


def error_of(path, **options):
    """The message, which must name the file."""
    with pytest.raises(DataError) as caught:
        load_npz(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_grey_images_get_a_channel_axis(write):
    dataset = load_npz(write(shape=(6, 7)))
    assert dataset.train.images.shape == (6, 6, 7, 1)
    assert dataset.train.images.dtype == np.uint8
    assert dataset.channels == 1


def test_rgb_images_stay_as_they_are(write):
    made = arrays(shape=(6, 7, 3))
    dataset = load_npz(write(**made))
    np.testing.assert_array_equal(dataset.val.images, made["val_images"])
    assert dataset.channels == 3


def test_defaults_for_name_task_and_class_names(write):
    dataset = load_npz(write())
    assert dataset.name == "own"
    assert dataset.task == "multi-class"
    assert dataset.class_names == ("class 0", "class 1", "class 2")
    assert dataset.train.labels.dtype == np.int32
    assert dataset.train.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_labels_may_lack_the_column_axis(write):
    flat = np.repeat(np.arange(3), 2)
    assert load_npz(write(train_labels=flat)).train.labels.shape == (6,)


def test_two_classes_are_binary(write):
    assert load_npz(write(num_classes=2)).task == "binary-class"


@pytest.mark.parametrize("task", ["multi-class", "ordinal-regression"])
def test_the_asked_task_wins(write, task):
    assert load_npz(write(num_classes=2), task=task).task == task


def test_several_columns_are_multi_label(write):
    labels = np.array([[0, 1, 1], [1, 0, 0], [0, 0, 0]] * 2, np.int64)
    path = write(train_labels=labels, val_labels=labels, test_labels=labels)
    dataset = load_npz(path)
    assert dataset.task == "multi-label"
    assert dataset.num_classes == 3
    np.testing.assert_array_equal(dataset.test.labels, labels)


def test_one_column_can_be_multi_label(write):
    dataset = load_npz(write(num_classes=2), task="multi-label")
    assert dataset.train.labels.shape == (4, 1)
    assert dataset.num_classes == 1


def test_class_names_come_from_the_file(write):
    assert load_npz(write(class_names=np.array(["a", "b", "ç"]))).class_names == ("a", "b", "ç")


def test_class_names_can_be_given(write):
    path = write(class_names=np.array(["a", "b", "c"]))
    assert load_npz(path, class_names=["x", "y", "z"]).class_names == ("x", "y", "z")


def test_arrays_in_fortran_order_read_the_same(write):
    made = arrays(shape=(6, 7, 3))
    plain = load_npz(write(**made)).fingerprint
    made["train_images"] = np.asfortranarray(made["train_images"])
    assert load_npz(write(**made)).fingerprint == plain


def test_unknown_task(write):
    with pytest.raises(ConfigError, match="data.task is 'regression', expected .*multi-label"):
        load_npz(write(), task="regression")


def test_no_file(tmp_path):
    assert "found no file" in error_of(tmp_path / "none.npz")


def test_folder(tmp_path):
    assert "found a folder" in error_of(tmp_path)


def test_not_an_npz_file(tmp_path):
    path = tmp_path / "own.npz"
    path.write_text("<html>404</html>")
    assert "not an npz file" in error_of(path)


def test_empty_file(tmp_path):
    path = tmp_path / "own.npz"
    path.touch()
    assert "not an npz file, or cut short" in error_of(path)


def test_single_array(tmp_path):
    path = tmp_path / "own.npy"
    np.save(path, np.zeros(3))
    assert "found a single array (npy)" in error_of(path)


def test_zip_of_other_files(tmp_path):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as file:
        for key in KEYS:
            file.writestr(f"{key}.npy", "no array")
    assert "train_images is not an array" in error_of(path)


def test_cut_short(write):
    path = write()
    path.write_bytes(path.read_bytes()[:-100])
    assert "not an npz file, or cut short" in error_of(path)


def test_damaged_array(write):
    path = write()
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        info = file.getinfo("val_images.npy")
    middle = info.header_offset + info.compress_size // 2
    data[middle : middle + 8] = bytes(8)
    path.write_bytes(data)
    message = error_of(path)
    assert "val_images cannot be read: the file is damaged" in message
    assert "write or copy it again" in message


def test_a_folder_in_place_of_a_file_says_what_to_set(tmp_path):
    assert "set config.data.path to its path, or config.data.name to folder" in error_of(tmp_path)


def test_encrypted(write):
    path = write()
    data = bytearray(path.read_bytes())
    offset = data.find(b"PK\x01\x02")
    while offset >= 0:  # The flag's bit 0 in each entry of the central directory.
        data[offset + 8] |= 1
        offset = data.find(b"PK\x01\x02", offset + 1)
    path.write_bytes(data)
    assert "train_images cannot be read: it is encrypted" in error_of(path)


def test_pickled_objects_are_not_loaded(write):
    images = np.array([np.zeros((6, 6), np.uint8), np.zeros((5, 5), np.uint8)], dtype=object)
    assert "test_images cannot be read: it is an array of Python objects" in error_of(
        write(test_images=images)
    )


def test_a_pickle_is_not_loaded(tmp_path):
    path = tmp_path / "own.npz"
    path.write_bytes(pickle.dumps(Pickled()))
    assert "not an npz file" in error_of(path)
    with path.open("wb") as file:
        np.save(file, np.array([Pickled()]))
    assert "not an npz file" in error_of(path)


def test_a_file_that_cannot_be_opened(write, monkeypatch):
    path = write()

    def load(*_, **options):
        raise PermissionError("not yours")

    monkeypatch.setattr(np, "load", load)
    assert "cannot be read (not yours)" in error_of(path)


def test_arrays_may_fill_the_memory_and_not_a_byte_more(write, monkeypatch):
    path = write()
    with zipfile.ZipFile(path) as file:
        size = sum(member.file_size for member in file.infolist())
    monkeypatch.setattr(npz.memory, "physical_bytes", lambda: size)
    load_npz(path)
    monkeypatch.setattr(npz.memory, "physical_bytes", lambda: size - 1)
    assert "its arrays take 0.0 GB, this machine has 0.0 GB" in error_of(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name(write):
    path = write()
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("val_labels.npy", file.read("val_labels.npy"))
    assert "holds two arrays of one name" in error_of(path)


def test_header_that_claims_more_than_memory(write, tmp_path):
    path = write()
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10**15, 6, 6)}
    np.lib.format.write_array_header_1_0(header, claim)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    members["train_images.npy"] = header.getvalue()
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    assert "train_images does not fit into memory" in error_of(path)


def test_header_that_says_less_than_the_file_holds(write):
    labels = np.arange(6000) % 3
    images = np.zeros((len(labels), 1, 1), np.uint8)
    made = {key: images if key.endswith("images") else labels for key in KEYS}
    path = write()
    np.savez(path, **made)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"<i8", b"<i4", 1))  # Of train_labels: every other one is 0.
    assert "train_labels cannot be read: the file is damaged" in error_of(path)


def test_missing_keys(write):
    message = error_of(write(val_images=None, val_labels=None))
    assert "missing val_images, val_labels; found train_images, train_labels, test" in message


def test_float_images(write):
    message = error_of(write(train_images=np.zeros((6, 6, 6))))
    assert "train_images is of dtype float64, expected uint8" in message


@pytest.mark.parametrize("shape", [(6,), (6, 6), (6, 6, 6, 4), (6, 1, 6, 6, 3)])
def test_images_of_another_shape(write, shape):
    message = error_of(write(val_images=np.zeros(shape, np.uint8)))
    assert f"val_images has shape {shape}" in message


def test_images_of_another_size(write):
    message = error_of(write(test_images=np.zeros((6, 5, 6), np.uint8)))
    assert "test_images are 5x6x1, train_images 6x6x1" in message


def test_no_images(write):
    message = error_of(
        write(test_images=np.zeros((0, 6, 6), np.uint8), test_labels=np.zeros((0, 1), np.uint8))
    )
    assert "test_images has shape (0, 6, 6, 1), expected at least one image" in message


def test_more_labels_than_images(write, unchecked):
    message = error_of(write(val_labels=np.arange(7) % 3))
    assert "val_labels has 7 rows but val_images has 6 images" in message


def test_float_labels(write):
    message = error_of(write(train_labels=np.array([0.0, 1, 2, 0, 1, 2])))
    assert "train_labels is of dtype float64, expected integers" in message


@pytest.mark.parametrize("shape", [(), (6, 0), (6, 1, 1)])
def test_labels_of_another_shape(write, shape):
    message = error_of(write(train_labels=np.zeros(shape, np.uint8)))
    assert f"train_labels has shape {shape}" in message


def test_negative_labels(write):
    message = error_of(write(train_labels=np.array([0, 1, 2, 0, 1, -1])))
    assert "train_labels holds 1 value(s) outside 0 to 2, the first is -1" in message


def test_labels_beyond_32_bits(write):
    labels = np.array([0, 1, 2, 0, 1, 2**40])
    assert "train_labels ranges from 0 to 1099511627776" in error_of(write(train_labels=labels))


def test_one_absurd_label_does_not_make_that_many_classes(write):
    labels = np.array([0, 1, 2, 0, 1, 2**31 - 1])
    message = error_of(write(test_labels=labels))
    assert "train_labels has no image of class 3, though labels go up to 2147483647" in message


def test_labels_that_start_from_1(write):
    labels = {f"{split}_labels": np.repeat([1, 2, 3], 2) for split in ("train", "val", "test")}
    message = error_of(write(**labels))
    assert "train_labels has no image of class 0, though labels go up to 3" in message
    assert "number the classes from 0 without gaps" in message


def test_class_without_training_images(write):
    labels = np.array([0, 0, 1, 1, 1, 1])
    message = error_of(write(train_labels=labels, class_names=np.array(["a", "b", "c"])))
    assert "train_labels has no image of class 2 ('c')" in message
    assert "val_labels has that class" in message


def test_class_names_of_another_count(write):
    message = error_of(write(class_names=np.array(["a", "b"])))
    assert "found 2 class_names (a, b) for 3 classes" in message


@pytest.mark.parametrize(
    "names", [np.arange(3), np.array([*"abc"], "S1"), np.array("abc"), np.array([[*"abc"]])]
)
def test_class_names_that_are_no_row_of_strings(write, names):
    found = f"class_names is of dtype {names.dtype} and shape {names.shape}"
    assert f"{found}, expected a one-dimensional" in error_of(write(class_names=names))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "a"], "found classes 'a' and 'a', expected one spelling"),
        (["Normal", "b", "normal"], "found classes 'Normal' and 'normal', expected one spelling"),
        (["a", "b", ""], "found a class without a name"),
        (np.array([*"abc"], object), "expected an array of strings: numpy.array(names, dtype=str)"),
    ],
)
def test_class_names_that_are_not_one_for_each_class(write, names, message):
    assert message in error_of(write(class_names=np.array(names)))


def test_other_arrays_are_named(write, caplog):
    load_npz(write(train_patient=np.arange(6), test_masks=np.zeros(3)))
    assert "own.npz: not used: train_patient, test_masks." in caplog.text


def test_multi_label_values_other_than_0_and_1(write):
    labels = np.array([[0, 1], [1, 0], [2, 0], [0, 0], [1, 1], [0, 0]])
    message = error_of(write(train_labels=labels, val_labels=labels % 2, test_labels=labels % 2))
    assert "train_labels holds 1 value(s) outside -1 to 1, the first is 2" in message


def test_columns_that_differ_between_splits(write):
    message = error_of(write(train_labels=np.zeros((6, 4), np.uint8)))
    assert "train_labels 4, val_labels 1, test_labels 1" in message


def test_columns_for_a_task_of_class_indices(write):
    labels = {f"{split}_labels": np.eye(6, 3, dtype=int) for split in ("train", "val", "test")}
    message = error_of(write(**labels), task="multi-class")
    assert "train_labels has 3 columns, expected one (class indices)" in message
    assert "for task 'multi-class'" in message


def test_three_classes_are_not_binary(write):
    assert "found 3 classes for task 'binary-class'" in error_of(write(), task="binary-class")


@pytest.mark.filterwarnings("ignore")
def test_any_damage_is_one_error_or_none(write):
    path = write()
    data = path.read_bytes()
    random = np.random.default_rng(0)
    failures = 0
    for _ in range(300):
        damaged = bytearray(data)
        if random.random() < 0.2:
            del damaged[random.integers(len(data)) :]
        else:
            for _ in range(random.integers(1, 4)):
                damaged[random.integers(len(data))] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            load_npz(path)  # Some bytes, such as dates, mean nothing.
        except DataError:
            failures += 1
    assert failures > 150


def test_a_file_leaves_no_handle_open(write):
    path = write(train_labels=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        error_of(path)


# Arbitrary input

ARBITRARY = settings(
    max_examples=500,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
INTEGERS = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", ">u2", ">i4", ">i8"]
OTHERS = ["f4", "f8", "?", "S1", "O", "M8[s]", "u1,u1"]
CHANGES = ["dtype", "dtype", "value", "value", "shape", "cut", "order", "other name", "gone"]
LIMITS = [-(2**63), -(2**31) - 1, -(2**31), -256, -1, 255, 256, 2**31 - 1, 2**31, 2**32, 2**63]


class Pickled:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def cast(array, dtype):
    """To any dtype, also to those that numbers do not become; to floats that are no integers."""
    kind = np.dtype(dtype).kind
    if kind == "O":
        return np.full(array.shape, Pickled())
    if kind in "MV":
        return np.resize(np.frombuffer(array.tobytes(), np.uint8), 64 * len(array)).view(dtype)
    return (array + 0.5 * (kind in "fc")).astype(dtype)


def anything(dice):
    """The arrays of a file, most of them with something wrong somewhere."""
    classes = dice.randint(2, 4)
    made = arrays(classes, dice.choice([(3, 4), (3, 4, 1), (3, 4, 3)]))
    layout = dice.choice(["column", "flat", "multi-label"])
    for key in KEYS[1::2]:
        labels = made[key].astype(dice.choice(INTEGERS))
        if layout == "multi-label":
            labels = np.eye(classes, dtype=labels.dtype)[labels[:, 0]]
        made[key] = labels[:, 0] if layout == "flat" else labels
    if dice.random() < 0.5:
        made["class_names"] = np.array([*"abcd"[:classes]])
    for _ in range(dice.choice([0, 1, 1, 2])):
        key = dice.choice(sorted(made))
        array = made.pop(key)
        how = dice.choice(CHANGES)
        if how == "other name":
            made[key + dice.choice(["s", ".npy.npy", " "])] = array
        elif how == "dtype" and array.dtype.kind in "iu":
            made[key] = cast(array, dice.choice(dice.choice([INTEGERS, OTHERS])))
        elif how == "shape":
            shape = dice.sample(array.shape, array.ndim)
            made[key] = array.reshape(dice.choice([shape, [*shape, 1]]))
        elif how == "cut":
            made[key] = array[tuple(slice(dice.randint(0, n)) for n in array.shape)]
        elif how == "order":
            made[key] = np.asfortranarray(array[::-1])
        elif how == "value" and "labels" in key and array.size and np.can_cast(array.dtype, "i8"):
            value = dice.choice([*LIMITS, *range(6)])
            array = array.astype(object)
            array.flat[dice.randrange(array.size)] = value
            made[key] = array.astype(np.int64 if value < 2**63 else np.uint64)
        elif how != "gone":
            made[key] = array
    return made


def damaged(data, dice):
    """Bytes cut short, replaced, inserted, deleted or swapped at random places."""
    data = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4])):
        place, other = dice.randrange(len(data)), dice.randrange(len(data))
        how = dice.choice(["cut", "replace", "replace", "flip", "insert or delete", "swap"])
        if how == "cut":
            return bytes(data[: max(place, 1)])
        if how == "replace":
            data[place] = dice.randrange(256)
        elif how == "flip":
            data[place] ^= 1 << dice.randrange(8)
        elif how == "swap":
            data[place : place + 8], data[other : other + 8] = (
                data[other : other + 8],
                data[place : place + 8],
            )
        else:
            data[place : place + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
def test_any_file_is_one_error_or_what_was_written(unchecked):
    outcomes = collections.Counter()

    @ARBITRARY
    @given(st.integers(0, 2**32))
    def check(seed):
        # Not drawn one by one: Hypothesis likes some choices better than others.
        dice = random.Random(seed)
        made, hurt = anything(dice), dice.random() < 0.4
        task = dice.choice([None] * 9 + [*TASKS, "regression"])
        with tempfile.TemporaryDirectory() as place:
            path = pathlib.Path(place) / "own.npz"
            dice.choice([np.savez, np.savez_compressed])(path, **made)
            if hurt:
                path.write_bytes(damaged(path.read_bytes(), dice))
            try:
                dataset = load_npz(path, task=task)
            except ConfigError:
                assert task == "regression"
                return
            except DataError as error:
                assert place in str(error)
                outcomes["refused", hurt] += 1
                return
        outcomes["loaded", hurt] += 1
        assert task in (None, dataset.task)
        for key in SPLITS:
            split = dataset.split(key)
            images, labels = made[f"{key}_images"], made[f"{key}_labels"]
            assert images.shape in (split.images.shape, split.images.shape[:3])
            assert labels.shape[0] == split.labels.shape[0] == len(images)
            np.testing.assert_array_equal(split.images, images.reshape(split.images.shape))
            if labels.ndim == 2 and split.labels.ndim == 1 and labels.shape[1] > 1:  # One-hot.
                labels = labels.argmax(axis=1)
            np.testing.assert_array_equal(split.labels, labels.reshape(split.labels.shape))

    check()
    assert outcomes["loaded", False] > 50
    assert outcomes["loaded", True] > 0
    assert outcomes["refused", False] > 50
    assert outcomes["refused", True] > 50
