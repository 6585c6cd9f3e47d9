"""Check arrays of images and labels, and infer the task, for npz files and a caller's arrays."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from lsanet_jax.errors import DataError

log = logging.getLogger(__name__)

Labels = Int32[np.ndarray, " n"] | Int32[np.ndarray, "n k"]


def as_images(where: object, key: str, array: Any) -> UInt8[np.ndarray, "n h w c"]:
    """Return images with an axis of channels, in C order.

    Args:
        where: the file or dataset that errors name.
        key: the array's name, such as 'train_images'.
        array: uint8, [n, h, w] (grey) or [n, h, w, c] with 1 or 3 channels.

    Raises:
        DataError: it is something else, or [n, h, w] with a width of 1 or 3, which is likely one
            image [h, w, c].
    """
    array = np.asarray(array)
    if array.dtype != np.uint8:
        raise DataError(
            f"{where}: {key} is of dtype {array.dtype}, expected uint8 (0 to 255): convert the"
            " images first."
        )
    if array.ndim == 3 and array.shape[-1] in (1, 3):
        raise DataError(
            f"{where}: {key} has shape {array.shape}: if this is one image, pass image[None]; if"
            f" these are grey images {array.shape[-1]} pixels wide, pass images[..., None]."
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise DataError(
            f"{where}: {key} has shape {array.shape}, expected [n, height, width] (grey) or"
            " [n, height, width, channels] with 1 or 3 channels."
        )
    return np.ascontiguousarray(array)


def as_labels(where: object, key: str, array: Any) -> Labels:
    """Return labels as int32, those of shape [n, 1] as [n]; arguments and errors as `as_images`.

    Args:
        where: the file or dataset that errors name.
        key: the array's name, such as 'train_labels'.
        array: integers or booleans, [n], [n, 1] or [n, k].

    Raises:
        DataError: it is something else.
    """
    array = np.asarray(array)
    if array.dtype.kind not in "iub":
        raise DataError(
            f"{where}: {key} is of dtype {array.dtype}, expected integers: class indices from 0, or"
            " columns of 0 and 1 for multi-label."
        )
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] == 0):
        raise DataError(
            f"{where}: {key} has shape {array.shape}, expected [n] or [n, 1] (class indices), or"
            " [n, labels] of 0 and 1 (multi-label)."
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    limits = np.iinfo(np.int32)
    if array.size and (int(array.max()) > limits.max or int(array.min()) < limits.min):
        raise DataError(
            f"{where}: {key} ranges from {array.min()} to {array.max()}, expected class indices"
            " from 0."
        )
    return array.astype(np.int32)


def infer_task(
    where: object,
    labels: Mapping[str, Labels],
    task: str | None = None,
    class_names: Sequence[str] | None = None,
) -> tuple[str, tuple[str, ...], dict[str, Labels]]:
    """Infer the task and the classes of labels.

    Columns with exactly one 1 in each row of each split are one-hot: they become class indices,
    unless `task` is 'multi-label'. In other columns -1 stands for an unknown label.

    Args:
        where: the file or dataset that errors name.
        labels: of each split, from `as_labels`; the training split is called 'train'.
        task: default: 'multi-label' for several columns that are not one-hot, else 'binary-class'
            for two classes, else 'multi-class'. 'ordinal-regression' must be asked for, since
            nothing in the labels shows it.
        class_names: one per class; default: 'class 0', 'class 1' and so on up to the highest label.

    Returns:
        The task, the names of the classes, and the labels in the form that the task needs.

    Raises:
        DataError: the splits do not fit each other, or a class has no training image.
    """
    columns = {key: 1 if array.ndim == 1 else array.shape[1] for key, array in labels.items()}
    if len(set(columns.values())) > 1:
        found = ", ".join(f"{key}_labels {count}" for key, count in columns.items())
        raise DataError(f"{where}: found columns {found}; expected equally many in all splits.")
    num_columns = columns["train"]
    labels = dict(labels)
    if num_columns > 1 and task != "multi-label":
        if all(map(is_one_hot, labels.values())):
            log.warning(
                "%s: the %d label columns are one-hot (exactly one 1 in each row): read as one"
                " class per image. Set the task (config.data.task) to 'multi-label' if they"
                " are separate questions.",
                where,
                num_columns,
            )
            labels = {key: array.argmax(axis=1).astype(np.int32) for key, array in labels.items()}
            class_names = class_names or [f"class {index}" for index in range(num_columns)]
        elif task:
            raise DataError(
                f"{where}: train_labels has {num_columns} columns, expected one (class indices), or"
                f" exactly one 1 in each row, for task {task!r}: set the task (config.data.task)"
                " to 'multi-label' or leave it out, or give class indices."
            )
        else:
            task = "multi-label"
    if task == "multi-label":
        num_classes = num_columns
        unknown = sum(int((array == -1).sum()) for array in labels.values())
        if unknown:
            log.warning("%s: %d label(s) are -1, read as unknown.", where, unknown)
        labels = {key: array.reshape(len(array), -1) for key, array in labels.items()}
    else:
        num_classes = _count_classes(where, labels, class_names)
        task = task or ("binary-class" if num_classes == 2 else "multi-class")
    if class_names is None:
        class_names = [f"class {index}" for index in range(num_classes)]
    elif len(class_names) != num_classes:
        raise DataError(
            f"{where}: found {len(class_names)} class_names ({', '.join(class_names)}) for"
            f" {num_classes} classes or label columns; expected one name for each."
        )
    return task, tuple(class_names), labels


def is_one_hot(labels: np.ndarray) -> bool:
    """Whether each row of [n, k] has exactly one 1, and 0 elsewhere; not if there are no rows."""
    ones, zeros = labels == 1, labels == 0
    return len(labels) > 0 and bool((ones | zeros).all() and (ones.sum(axis=1) == 1).all())


def _count_classes(
    where: object, labels: Mapping[str, Labels], class_names: Sequence[str] | None
) -> int:
    """Return one more than the highest label; every class up to it must have a training image."""
    highest = {key: int(array.max()) if array.size else -1 for key, array in labels.items()}
    num_classes = max(2, 1 + max(highest.values()), len(class_names or ()))
    trained = np.unique(labels["train"])
    trained = trained[trained >= 0]  # `Dataset` tells of negative ones.
    if trained.size and trained.size < num_classes:
        gaps = np.flatnonzero(trained != np.arange(trained.size))
        index = int(gaps[0]) if gaps.size else trained.size
        named = f" ({class_names[index]!r})" if class_names and index < len(class_names) else ""
        used_in = [key for key, array in labels.items() if index in array]
        raise DataError(
            f"{where}: train_labels has no image of class {index}{named}, though labels go up to"
            f" {max(highest.values())}"
            + (f" and {used_in[0]}_labels has that class" if used_in else "")
            + f"; expected training images of every class from 0 to {num_classes - 1}: number the"
            " classes from 0 without gaps, and move images of each to the training split."
        )
    return num_classes
