"""The user's own images in one npz file of MedMNIST's layout."""

import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, UInt8

from lsanet_jax.data.dataset import SPLITS, TASKS, Dataset, Split
from lsanet_jax.errors import ConfigError, DataError

KEYS = tuple(f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels"))


def load_npz(
    path: str | os.PathLike,
    name: str | None = None,
    task: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Reads `{train,val,test}_{images,labels}` from an npz file.

    Images are uint8, [n, h, w] (grey) or [n, h, w, c] with 1 or 3 channels. Labels are integers:
    [n] or [n, 1] class indices, or [n, k] of 0 and 1 for multi-label. The file may also hold
    `class_names`, an array of strings.

    Args:
        path: the file.
        name: what reports call the dataset; default: the file's name without its suffix.
        task: one of `TASKS`; default: 'multi-label' for labels of several columns, else
            'binary-class' for two classes, else 'multi-class'. 'ordinal-regression' must be asked
            for, since nothing in the labels shows it.
        class_names: one per class; default: the file's, else 'class 0', 'class 1' and so on up to
            the highest label in any split.

    Raises:
        ConfigError: `task` is not one of `TASKS`.
        DataError: the file is missing or damaged, or does not hold such arrays, or a class of the
            validation or test split has no training image.
    """
    path = pathlib.Path(path).expanduser()
    name = name or path.stem
    if task and task not in TASKS:
        raise ConfigError(f"data.task is {task!r}, expected '' or one of {', '.join(TASKS)}.")
    splits, stored_names = read_splits(path)

    columns = {key: _columns(split) for key, split in splits.items()}
    if len(set(columns.values())) > 1:
        raise DataError(f"{path}: labels have {columns} columns; expected the same in all splits.")
    if task == "multi-label":
        splits = {key: _with_columns(split) for key, split in splits.items()}
    multi_label = task == "multi-label" or (not task and columns["train"] > 1)
    if multi_label:
        num_classes = columns["train"]
    else:
        num_classes = 1 + max(int(split.labels.max(initial=0)) for split in splits.values())
        num_classes = max(num_classes, 2)
    if class_names is None:
        class_names = stored_names or tuple(f"class {index}" for index in range(num_classes))
    if not task:
        single = "binary-class" if len(class_names) == 2 else "multi-class"
        task = "multi-label" if multi_label else single
    dataset = Dataset(name, task, tuple(class_names), **splits, source=str(path))
    if not multi_label:
        _check_every_class_is_trained(path, dataset)
    return dataset


def read_splits(path: str | os.PathLike) -> tuple[dict[str, Split], tuple[str, ...] | None]:
    """The three splits of an npz file, and its `class_names` or None.

    Label values are not checked, beyond their being integers: `Dataset` does that.

    Raises:
        DataError: the file is missing or damaged, a key is missing, or an array is of the wrong
            kind.
    """
    arrays = _read_arrays(pathlib.Path(path))
    splits = {
        key: Split(
            _as_images(path, f"{key}_images", arrays.pop(f"{key}_images")),
            _as_labels(path, f"{key}_labels", arrays.pop(f"{key}_labels")),
        )
        for key in SPLITS
    }
    return splits, _as_class_names(path, arrays.get("class_names"))


def _read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no file"
        raise DataError(f"{path}: found {found}, expected an npz file: set data.path to its path.")
    expected = "expected an npz file as numpy.savez or numpy.savez_compressed writes it"
    try:
        file = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    except Exception as error:  # Whatever a parser makes of arbitrary bytes.
        raise DataError(
            f"{path}: not an npz file, or cut short ({error}); {expected}: write or copy it again."
        ) from error
    if isinstance(file, np.ndarray):
        raise DataError(f"{path}: found a single array (npy), {expected} with {', '.join(KEYS)}.")
    with file:
        missing = [key for key in KEYS if key not in file]
        if missing:
            raise DataError(
                f"{path}: missing {', '.join(missing)}; found {', '.join(file.files) or 'nothing'};"
                f" expected {', '.join(KEYS)}."
            )
        arrays = {}
        for key in (*KEYS, "class_names"):
            if key not in file:
                continue
            try:
                array = file[key]
            except MemoryError as error:
                raise DataError(f"{path}: {key} does not fit into memory ({error}).") from error
            except Exception as error:
                raise DataError(f"{path}: {key} cannot be read: {_reason(error)}") from error
            if not isinstance(array, np.ndarray):
                raise DataError(f"{path}: {key} is not an array in NumPy's format; {expected}.")
            arrays[key] = array
    return arrays


def _reason(error: Exception) -> str:
    text = str(error)
    if "allow_pickle" in text:
        return (
            "it is an array of Python objects, which is never unpickled here; expected an array of"
            " numbers: images of one size, stacked to uint8."
        )
    if "encrypted" in text:
        return "it is encrypted; expected a file without a password."
    return f"the file is damaged ({text or type(error).__name__}); write or copy it again."


def _as_images(path: str | os.PathLike, key: str, array: np.ndarray) -> UInt8[np.ndarray, "..."]:
    if array.dtype != np.uint8:
        raise DataError(
            f"{path}: {key} is of dtype {array.dtype}, expected uint8 (0 to 255): convert the"
            " images when writing the file."
        )
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[-1] not in (1, 3):
        raise DataError(
            f"{path}: {key} has shape {array.shape}, expected [n, height, width] (grey) or"
            " [n, height, width, channels] with 1 or 3 channels."
        )
    return np.ascontiguousarray(array)


def _as_labels(path: str | os.PathLike, key: str, array: np.ndarray) -> Int32[np.ndarray, "..."]:
    if array.dtype.kind not in "iub":
        raise DataError(
            f"{path}: {key} is of dtype {array.dtype}, expected integers: class indices from 0, or"
            " columns of 0 and 1 for multi-label."
        )
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] == 0):
        raise DataError(
            f"{path}: {key} has shape {array.shape}, expected [n] or [n, 1] (class indices), or"
            " [n, labels] of 0 and 1 (multi-label)."
        )
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    limits = np.iinfo(np.int32)
    if array.size and (int(array.max()) > limits.max or int(array.min()) < limits.min):
        raise DataError(
            f"{path}: {key} ranges from {array.min()} to {array.max()}, expected class indices from"
            " 0."
        )
    return array.astype(np.int32)


def _as_class_names(path: str | os.PathLike, array: np.ndarray | None) -> tuple[str, ...] | None:
    if array is None:
        return None
    if array.dtype.kind != "U" or array.ndim != 1:
        raise DataError(
            f"{path}: class_names is of dtype {array.dtype} and shape {array.shape}, expected a"
            " one-dimensional array of strings."
        )
    return tuple(array.tolist())


def _columns(split: Split) -> int:
    return 1 if split.labels.ndim == 1 else split.labels.shape[1]


def _with_columns(split: Split) -> Split:
    return Split(split.images, split.labels.reshape(len(split.labels), -1))


def _check_every_class_is_trained(path: pathlib.Path, dataset: Dataset) -> None:
    trained = np.unique(dataset.train.labels)
    for key in ("val", "test"):
        untrained = np.setdiff1d(dataset.split(key).labels, trained)
        if untrained.size:
            index = int(untrained[0])
            raise DataError(
                f"{path}: {key}_labels holds class {index} ({dataset.class_names[index]!r}), which"
                " no image in train_labels has; expected every class in the training split: move"
                " images of it there, or leave the class out."
            )
