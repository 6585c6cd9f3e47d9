import dataclasses

import numpy as np
import pytest

from lsanet_jax.data.dataset import Dataset, Split
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


def test_one_class_is_none():
    assert "found 1 class(es) for task 'multi-class'" in error_of(class_names=("a",))


@pytest.mark.usefixtures("unchecked")
def test_images_of_another_dtype():
    wrong = Split(split().images.astype(np.float32), split().labels)
    assert "val_images is of dtype float32, expected uint8" in error_of(val=wrong)


@pytest.mark.usefixtures("unchecked")
def test_images_without_channels():
    wrong = Split(split().images[..., 0], split().labels)
    assert "val_images has shape (3, 4, 5), expected [n, height, width, channels]" in error_of(
        val=wrong
    )


def test_images_of_another_size_or_channels():
    assert "test_images are 4x5x1, train_images 4x5x3" in error_of(test=split(shape=(4, 5, 1)))


def test_empty_split():
    assert "val_images has shape (0, 4, 5, 3), expected at least one" in error_of(val=split(()))


@pytest.mark.usefixtures("unchecked")
def test_labels_of_another_dtype():
    wrong = Split(split().images, np.array([0, 1, 2]))
    assert "val_labels is of dtype int64, expected int32" in error_of(val=wrong)


@pytest.mark.usefixtures("unchecked")
def test_labels_of_another_count():
    wrong = Split(split().images, np.array([0, 1], np.int32))
    assert "train_labels has 2 rows but train_images has 3 images" in error_of(train=wrong)


def test_label_columns_must_fit_the_task():
    assert "has shape (3,), expected (3, 3) for task 'multi-label'" in error_of(task="multi-label")


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_out_of_range(label):
    message = error_of(test=split((0, label, label)))
    assert f"test_labels holds 2 value(s) outside 0 to 2, the first is {label}" in message
