import dataclasses

import numpy as np
import pytest

from lsanet_jax.data.dataset import SPLITS, Dataset, Split
from lsanet_jax.errors import DataError


def split(labels=(0, 1, 2), shape=(4, 5, 3)):
    labels = np.array(labels, np.int32)
    images = np.arange(len(labels) * np.prod(shape)) % 251
    return Split(images.reshape(-1, *shape).astype(np.uint8), labels)


def dataset(task="multi-class", class_names=("a", "b", "c"), **splits):
    splits = {"train": split(), "val": split(), "test": split()} | splits
    return Dataset("cells", task, class_names, **splits, source="some/file.npz")


def error_of(**changed):
    with pytest.raises(DataError) as caught:
        dataset(**changed)
    message = str(caught.value)
    assert "'cells' (some/file.npz)" in message
    return message


def test_sizes():
    made = dataset(val=split((0, 1)))
    assert (len(made.train), len(made.val)) == (3, 2)
    assert (made.num_classes, made.channels) == (3, 3)


def test_arrays_cannot_be_written_to_but_the_callers_stay_as_they_were():
    images = np.zeros((3, 4, 5, 1), np.uint8)
    made = Split(images, np.zeros(3, np.int32))
    with pytest.raises(ValueError, match="read-only"):
        made.images[0] = 1
    images[0] = 1


def test_fingerprint_depends_on_pixels_labels_shapes_and_splits_only():
    plain = dataset().fingerprint
    assert len(plain) == 64
    assert dataclasses.replace(dataset(), name="other", source="").fingerprint == plain
    others = {
        dataset(val=split((0, 2, 1))).fingerprint,
        dataset(val=split((0, 1))).fingerprint,
        dataset(val=split((0, 1)), test=split()).fingerprint,
        dataset(test=split((0, 1))).fingerprint,
        dataset(**dict.fromkeys(("train", "val", "test"), split(shape=(5, 4, 3)))).fingerprint,
    }
    assert plain not in others
    assert len(others) == 4


def test_fingerprint_does_not_depend_on_memory_layout():
    images = np.asfortranarray(split().images)
    assert dataset(train=Split(images, split().labels)).fingerprint == dataset().fingerprint


def test_unknown_task():
    assert "task is 'segmentation', expected one of multi-class" in error_of(task="segmentation")


def test_binary_class_has_two_classes():
    assert "found 3 classes for task 'binary-class', expected 2" in error_of(task="binary-class")


@pytest.mark.parametrize(
    ("task", "names"),
    [("multi-class", ("a",)), ("ordinal-regression", ("a",)), ("multi-label", ())],
)
def test_too_few_classes_for_the_task(task, names):
    assert f"found {len(names)} class(es) for task '{task}'" in error_of(
        task=task, class_names=names
    )


def test_one_label_is_enough_for_a_multi_label_set():
    parts = dict.fromkeys(SPLITS, split([[0], [1], [0]]))
    assert dataset("multi-label", ("ill",), **parts).num_classes == 1


def test_splits_and_datasets_are_frozen_and_compared_by_identity():
    for make in (split, dataset):
        made = make()
        assert made != make() and len({made, make()}) == 2
        assert made != dataclasses.replace(made)
        with pytest.raises(dataclasses.FrozenInstanceError):
            made.name = made.names = ()


def test_a_selection_keeps_what_belongs_together():
    whole = dataclasses.replace(split(), names=("a", "b", "c"), groups=(7, 7, 8))
    part = whole.select(np.array([True, False, True]))
    np.testing.assert_array_equal(part.images, whole.images[[0, 2]])
    assert (part.labels.tolist(), part.names, part.groups) == ([0, 2], ("a", "c"), (7, 8))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool"])
def test_images_of_another_dtype(dtype):
    wrong = Split(split().images.astype(dtype), split().labels)
    assert f"val_images is of dtype {dtype}, expected uint8" in error_of(val=wrong)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("shape", [(4, 5), (4, 3), (4, 5, 1, 3), (4, 5, 2), (4, 5, 4)])
def test_images_without_channels_or_with_other_axes(shape):
    found = error_of(val=split(shape=shape))
    assert f"val_images has shape {(3, *shape)}, expected [n, height, width, channels]" in found


@pytest.mark.parametrize("shape", [(4, 5, 1), (3, 5, 3), (5, 5, 3), (4, 4, 3), (4, 6, 3)])
def test_images_of_another_size_or_channels(shape):
    size = "x".join(map(str, shape))
    assert f"test_images are {size}, train_images 4x5x3" in error_of(test=split(shape=shape))


def test_empty_split():
    assert "val_images has shape (0, 4, 5, 3), expected at least one" in error_of(val=split(()))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("dtype", ["int64", "int16", "uint32"])
def test_labels_of_another_dtype(dtype):
    wrong = Split(split().images, np.array([0, 1, 2], dtype))
    assert f"val_labels is of dtype {dtype}, expected int32" in error_of(val=wrong)


@pytest.mark.usefixtures("unchecked")
def test_labels_of_another_count():
    wrong = Split(split().images, np.array([0, 1], np.int32))
    assert "train_labels has 2 rows but train_images has 3 images" in error_of(train=wrong)


def test_label_columns_must_fit_the_task():
    assert "has shape (3,), expected (3, 3) for task 'multi-label'" in error_of(task="multi-label")
    columns = split([[0, 1]] * 3)
    assert "has shape (3, 2), expected (3,) for task 'multi-class'" in error_of(train=columns)


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range(label):
    message = error_of(test=split((0, label, label)))
    assert f"test_labels holds 2 value(s) outside 0 to 2, the first is {label}" in message


def test_labels_of_a_binary_set_are_0_and_1():
    parts = dict.fromkeys(SPLITS, split((0, 1, 1)))
    changed = parts | {"val": split((0, 1, 2))}
    assert dataset("binary-class", ("a", "b"), **parts).num_classes == 2
    message = error_of(task="binary-class", class_names=("a", "b"), **changed)
    assert "val_labels holds 1 value(s) outside 0 to 1" in message


@pytest.mark.parametrize("key", SPLITS)
@pytest.mark.parametrize("task", ["multi-class", "ordinal-regression"])
def test_only_training_images_may_be_unlabelled_and_only_if_declared(task, key):
    unknown = {key: split((0, -1, 2))}
    low = -1 if key == "train" else 0
    assert f"{key}_labels holds 1 value(s) outside 0 to 2" in error_of(task=task, **unknown)
    wrong = {key: split((0, low - 1, 2))}
    message = f"{key}_labels holds 1 value(s) outside {low} to 2"
    assert message in error_of(task=task, unlabelled=1, **wrong)
    if key == "train":
        assert dataset(task, unlabelled=1, **unknown).unlabelled == 1


def test_any_label_of_a_multi_label_set_may_be_unknown():
    parts = dict.fromkeys(SPLITS, split([[0, 1, -1]] * 3))
    assert dataset("multi-label", **parts).unlabelled == 0
    for label in (-2, 2):
        message = error_of(task="multi-label", **parts | {"test": split([[0, 1, label]] * 3)})
        assert f"test_labels holds 3 value(s) outside -1 to 1, the first is {label}" in message


@pytest.mark.parametrize("given", [(), (split().images,), (*2 * (split().labels,), None)])
def test_a_split_is_given_as_a_pair(given):
    pair = (split().images, split().labels)
    with pytest.raises(DataError, match=r"val is tuple, expected \(images, labels\)"):
        Dataset.from_arrays(pair, given, pair)


@pytest.mark.parametrize("source", ["/data/a.npz", "z.npz"])
def test_an_error_names_where_the_arrays_came_from(source):
    pair = (split().images, split().labels)
    with pytest.raises(DataError, match=f"^{source}: val is tuple"):
        Dataset.from_arrays(pair, (), pair, source=source)
    with pytest.raises(DataError, match="^dataset 'mine': val is tuple"):
        Dataset.from_arrays(pair, (), pair, name="mine")
