import logging

import jax.numpy as jnp
import numpy as np
import pytest

from lsanet_jax.data import Dataset
from lsanet_jax.data.sources.npz import load_npz
from lsanet_jax.errors import ConfigError, DataError


def pair(labels, shape=(4, 5)):
    random = np.random.default_rng(len(labels))
    return random.integers(0, 256, (len(labels), *shape), np.uint8), np.array(labels)


def made(labels=(0, 1, 2), **options):
    parts = {key: pair(labels) for key in ("train", "val", "test")}
    return Dataset.from_arrays(**(parts | options))


def error_of(**options):
    with pytest.raises(DataError) as caught:
        made(**options)
    return str(caught.value)


def test_arrays_are_what_the_same_arrays_in_an_npz_file_are(tmp_path):
    parts = {key: pair([0, 1, 2, 1], (6, 6, 3)) for key in ("train", "val", "test")}
    file = tmp_path / "own.npz"
    np.savez(
        file,
        **{f"{key}_images": images for key, (images, _) in parts.items()},
        **{f"{key}_labels": labels for key, (_, labels) in parts.items()},
    )
    ours, stored = Dataset.from_arrays(**parts), load_npz(file)
    assert ours.fingerprint == stored.fingerprint
    assert (ours.task, ours.class_names) == (stored.task, stored.class_names)
    assert ours.name == "arrays"


def test_names_task_and_grey_images():
    data = made(class_names=["none", "mild", "severe"], task="ordinal-regression", name="eyes")
    assert (data.name, data.task) == ("eyes", "ordinal-regression")
    assert data.class_names == ("none", "mild", "severe")
    assert data.train.images.shape == (3, 4, 5, 1)


def test_arrays_of_jax_and_lists_of_labels_are_taken():
    images, labels = pair([0, 1, 2])
    data = made(train=(jnp.asarray(images), labels.tolist()))
    np.testing.assert_array_equal(data.train.images[..., 0], images)


@pytest.mark.parametrize("labels", [[0, 1], [[0], [1]], [False, True]])
def test_two_classes_are_binary(labels):
    data = made(labels)
    assert data.task == "binary-class"
    assert data.train.labels.tolist() == [0, 1]


def test_several_columns_are_multi_label():
    data = made([[1, 1, 0], [0, 0, 0]])
    assert data.task == "multi-label"
    assert data.num_classes == 3


def test_one_hot_columns_are_classes_and_it_says_so(caplog):
    rows = np.eye(3, dtype=int)[[2, 0, 1]]
    with caplog.at_level(logging.WARNING):
        data = made(rows)
    assert data.task == "multi-class"
    assert data.train.labels.tolist() == [2, 0, 1]
    assert "are one-hot" in caplog.text
    assert "(config.data.task) to 'multi-label'" in caplog.text


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_one_hot_columns_of_any_dtype_are_multi_label_if_asked(dtype):
    data = made(np.eye(3, dtype=dtype), task="multi-label")
    assert data.task == "multi-label"
    assert data.train.labels.tolist() == np.eye(3).tolist()


def test_columns_that_are_one_hot_in_one_split_only_are_multi_label():
    data = made(np.eye(2, dtype=int), test=pair([[1, 1], [0, 1]]))
    assert data.task == "multi-label"


def test_two_one_hot_columns_are_binary():
    assert made(np.eye(2, dtype=int)).task == "binary-class"


def test_columns_that_are_not_one_hot_cannot_be_classes():
    message = error_of(labels=[[1, 1], [0, 1]], task="multi-class")
    assert "exactly one 1 in each row, for task 'multi-class'" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": pair([0, 1, 2])[0]}, "train is of dtype uint8, expected (images, labels)"),
        (
            {"val": (np.zeros((3, 4, 5)), [0, 1, 2])},
            "val_images is of dtype float64, expected uint8",
        ),
        ({"test": (pair([0])[0], [0, 1, 2])}, "test_labels has 3 rows but test_images has 1"),
        ({"test": (pair([0])[0], ["a"])}, "test_labels is of dtype <U1, expected integers"),
        ({"test": pair([0], (2, 2))}, "test_images are 2x2x1, train_images 4x5x1"),
        ({"train": pair([0, 2])}, "train_labels has no image of class 1"),
        ({"class_names": ["a"]}, "found 1 class_names (a) for 3 classes"),
        ({"val": pair([])}, "val_labels is of dtype float64"),
        ({"val": pair([0] * 28, (28, 3))}, "val_images has shape (28, 28, 3): if this is one"),
    ],
)
def test_other_arrays_are_one_error(options, message, unchecked):
    found = error_of(**options)
    assert message in found
    assert "dataset 'arrays'" in found


def test_unknown_task():
    with pytest.raises(ConfigError, match="^task is 'regression', expected one of"):
        made(task="regression")


def test_a_dataset_and_a_split_are_shown_in_a_line():
    data = made(class_names=["a", "b", "c"])
    assert repr(data) == (
        "Dataset('arrays', multi-class, 3 classes ('a', 'b', 'c'), train 3, val 3, test 3 images of"
        " 4x5x1)"
    )
    assert repr(data.train) == "Split(3 images of 4x5x1, labels of shape (3,))"
