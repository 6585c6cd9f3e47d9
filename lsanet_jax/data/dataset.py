"""`Dataset`: what every loader returns and all that training knows of data."""

import dataclasses
import functools
import hashlib
import itertools
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from lsanet_jax.data import arrays, classes
from lsanet_jax.data.lazy import LazyImages
from lsanet_jax.errors import ConfigError, DataError

TASKS = ("multi-class", "binary-class", "ordinal-regression", "multi-label")
"""MedMNIST's tasks; its "multi-label, binary-class" is called "multi-label" here."""

ARRAYS = "arrays"
"""`Dataset.source` of data that came as arrays, from no file."""

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """Images and labels of one split, both read-only.

    Attributes:
        images: grey (c = 1) or RGB (c = 3), 0 to 255; in memory, or read when asked for.
        labels: [n] class indices, or for multi-label [n, k] of 0 and 1, or -1 if unknown.
        names: of the images' files, relative to their folder; none where there are no files.
        groups: the number of each image's patient or other group, the same in all splits and folds;
            none if no groups are known.
    """

    images: UInt8[np.ndarray, "n h w c"] | LazyImages
    labels: Int32[np.ndarray, " n"] | Int32[np.ndarray, "n k"]
    names: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()

    def __post_init__(self):
        """Makes both arrays read-only, through views."""
        # JAX may share this memory with a device, and the fingerprint is computed once.
        object.__setattr__(self, "images", _read_only(self.images))
        object.__setattr__(self, "labels", _read_only(self.labels))

    def __repr__(self) -> str:
        return f"Split({len(self)} images of {_size(self)}, labels of shape {self.labels.shape})"

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.images)

    def select(self, kept: Bool[np.ndarray, " n"]) -> "Split":
        """Only some of the samples."""
        images = self.images
        images = images.select(kept) if isinstance(images, LazyImages) else images[kept]
        names = tuple(itertools.compress(self.names, kept))
        groups = tuple(itertools.compress(self.groups, kept))
        return Split(images, self.labels[kept], names, groups)


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """A classification dataset in three splits, checked when it is made.

    Attributes:
        name: what reports call it.
        task: one of `TASKS`.
        class_names: one per class, or per label when multi-label. Two for binary-class, which is
            trained with a softmax over two classes.
        train: the training split.
        val: the validation split.
        test: the test split.
        source: where it came from, such as the file's path; only for messages.
        decoding: the options with which `images.decode` made images of files; other files need the
            same. None for images that were never files.
        unlabelled: how many training images have no label: -1, or in a multi-label set all -1.

    Raises:
        DataError: a split's arrays are not what `Split` says, splits do not go together, or two
            classes are spellings of one name.
    """

    name: str
    task: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    source: str = ""
    decoding: Mapping[str, Any] | None = None
    unlabelled: int = 0

    def __post_init__(self):
        """Checks the splits; raises DataError."""
        where = f"dataset {self.name!r}"
        if self.source not in ("", ARRAYS, self.name):
            where += f" ({self.source})"
        if self.task not in TASKS:
            raise DataError(f"{where}: task is {self.task!r}, expected one of {', '.join(TASKS)}.")
        fewest = 1 if self.task == "multi-label" else 2
        if len(self.class_names) < fewest:
            raise DataError(
                f"{where}: found {len(self.class_names)} class(es) for task {self.task!r}, expected"
                f" at least {fewest}."
            )
        if self.task == "binary-class" and len(self.class_names) != 2:
            raise DataError(
                f"{where}: found {len(self.class_names)} classes for task 'binary-class', expected"
                " 2: use task 'multi-class'."
            )
        classes.check_names(where, self.class_names)
        for key in SPLITS:
            split = self.split(key)
            _check_images(where, key, split.images)
            unknown = self.task == "multi-label" or (key == "train" and self.unlabelled > 0)
            _check_labels(where, key, split, self.task, len(self.class_names), unknown=unknown)
            if split.images.shape[1:] != self.train.images.shape[1:]:
                raise DataError(
                    f"{where}: {key}_images are {_size(split)}, train_images"
                    f" {_size(self.train)}; expected one size and one number of channels:"
                    " resize or convert them when writing the file."
                )

    def __repr__(self) -> str:
        counts = ", ".join(f"{key} {len(self.split(key))}" for key in SPLITS)
        return (
            f"Dataset({self.name!r}, {self.task}, {self.num_classes} classes"
            f" {reprlib.repr(self.class_names)}, {counts} images of {_size(self.train)})"
        )

    @classmethod
    def from_arrays(
        cls,
        train: tuple[Any, Any],
        val: tuple[Any, Any],
        test: tuple[Any, Any],
        *,
        class_names: Sequence[str] | None = None,
        task: str | None = None,
        name: str = "arrays",
        source: str = ARRAYS,
    ) -> "Dataset":
        """Make a dataset of arrays in memory.

        `lsanet_jax.fit` warns if the same image is in two of its splits; nothing does here.

        Args:
            train: images and labels. Images are uint8, [n, h, w] (grey) or [n, h, w, c] with 1 or 3
                channels. Labels are integers: [n] or [n, 1] class indices from 0, or [n, k] of 0
                and 1 for multi-label; if each row has exactly one 1, they are one-hot classes.
            val: the same for validation.
            test: the same for testing.
            class_names: one per class; default: 'class 0', 'class 1' and so on up to the highest
                label in any split.
            task: one of `TASKS`; default: 'multi-label' for labels of several columns that are not
                one-hot, else 'binary-class' for two classes, else 'multi-class'.
                'ordinal-regression' must be asked for, since nothing in the labels shows it.
            name: what reports call the dataset.
            source: where the arrays came from, such as a file's path; only for messages.

        Raises:
            ConfigError: `task` is not one of `TASKS`.
            DataError: an array is not as described above, the splits do not fit each other, or a
                class has no training image.
        """
        if task and task not in TASKS:
            field = "task" if source == ARRAYS else "config.data.task"
            raise ConfigError(f"{field} is {task!r}, expected one of {', '.join(TASKS)}, or none.")
        where = f"dataset {name!r}" if source == ARRAYS else source
        images, labels = {}, {}
        for key, pair in zip(SPLITS, (train, val, test), strict=True):
            if not isinstance(pair, tuple | list) or len(pair) != 2:
                raise DataError(f"{where}: {key} is {_describe(pair)}, expected (images, labels).")
            images[key] = arrays.as_images(where, f"{key}_images", pair[0])
            labels[key] = arrays.as_labels(where, f"{key}_labels", pair[1])
        task, names, labels = arrays.infer_task(where, labels, task or None, class_names)
        splits = {key: Split(images[key], labels[key]) for key in SPLITS}
        return cls(name, task, names, splits["train"], splits["val"], splits["test"], source)

    def split(self, key: str) -> Split:
        """The split called 'train', 'val' or 'test'."""
        return {"train": self.train, "val": self.val, "test": self.test}[key]

    @property
    def num_classes(self) -> int:
        """Number of classes, or of labels when multi-label: the width of the logits."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """Channels of the stored images, 1 or 3."""
        return self.train.images.shape[-1]

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 in hex over each split's name and its arrays' names, shapes, dtypes and bytes.

        Images that are not in memory are all read once, which takes a while.

        Raises:
            DataError: one of these cannot be read.
        """
        digest = hashlib.sha256()
        for key in SPLITS:
            split = self.split(key)
            for name, array in (("images", split.images), ("labels", split.labels)):
                dtype = array.dtype.newbyteorder("<")
                digest.update(f"{key}_{name} {array.shape} {dtype.str}\n".encode())
                lazy = isinstance(array, LazyImages)
                for part in array.chunks(f"Checking {key}") if lazy else [array]:
                    digest.update(np.ascontiguousarray(part.astype(dtype, copy=False)).data)
        return digest.hexdigest()


def _read_only(array: np.ndarray | LazyImages) -> np.ndarray | LazyImages:
    if not isinstance(array, np.ndarray):
        return array
    view = array.view()
    view.flags.writeable = False
    return view


def _size(split: Split) -> str:
    return "x".join(str(side) for side in split.images.shape[1:])


def _check_images(where: str, key: str, images: np.ndarray | LazyImages) -> None:
    if not isinstance(images, np.ndarray | LazyImages) or images.dtype != np.uint8:
        raise DataError(
            f"{where}: {key}_images is {_describe(images)}, expected uint8 (0 to 255): convert the"
            " images when writing the file."
        )
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise DataError(
            f"{where}: {key}_images has shape {images.shape}, expected [n, height, width, channels]"
            " with 1 (grey) or 3 (RGB) channels."
        )
    if 0 in images.shape:
        raise DataError(
            f"{where}: {key}_images has shape {images.shape}, expected at least one image: every"
            " one of train, val and test must have samples."
        )


def _check_labels(
    where: str, key: str, split: Split, task: str, num_classes: int, *, unknown: bool
) -> None:
    labels = split.labels
    if not isinstance(labels, np.ndarray) or labels.dtype != np.int32:
        raise DataError(f"{where}: {key}_labels is {_describe(labels)}, expected int32.")
    expected = (len(split), num_classes) if task == "multi-label" else (len(split),)
    if len(labels) != len(split.images):
        raise DataError(
            f"{where}: {key}_labels has {len(labels)} rows but {key}_images has {len(split)}"
            " images; expected one row per image."
        )
    if labels.shape != expected:
        raise DataError(
            f"{where}: {key}_labels has shape {labels.shape}, expected {expected} for task {task!r}"
            f" with {num_classes} classes."
        )
    low, top = -1 if unknown else 0, 1 if task == "multi-label" else num_classes - 1
    outside = labels[(labels < low) | (labels > top)]
    if outside.size:
        raise DataError(
            f"{where}: {key}_labels holds {outside.size} value(s) outside {low} to {top}, the first"
            f" is {outside[0]}; expected "
            + (
                "0 or 1 (absent or present), or -1 (unknown)."
                if task == "multi-label"
                else f"class indices of the {num_classes} classes."
            )
        )


def _describe(value: object) -> str:
    return f"of dtype {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
