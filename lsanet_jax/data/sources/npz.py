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
        DataError: the file is missing or damaged, or does not hold such arrays, or a class has no
            training image.
    """
    path = pathlib.Path(path).expanduser()
    name = name or path.stem
    if task and task not in TASKS:
        raise ConfigError(f"data.task is {task!r}, expected '' or one of {', '.join(TASKS)}.")
    splits, stored_names = read_splits(path)

    columns = {key: _columns(split) for key, split in splits.items()}
    if len(set(columns.values())) > 1:
        found = ", ".join(f"{key}_labels {count}" for key, count in columns.items())
        raise DataError(f"{path}: found columns {found}; expected equally many in all splits.")
    task = task or ("multi-label" if columns["train"] > 1 else None)
    class_names = class_names or stored_names
    if task == "multi-label":
        splits = {key: _with_columns(split) for key, split in splits.items()}
        num_classes = columns["train"]
    elif columns["train"] > 1:
        raise DataError(
            f"{path}: train_labels has {columns['train']} columns, expected one (class indices) for"
            f" task {task!r}: set data.task to '' or 'multi-label', or store class indices."
        )
    else:
        num_classes = _count_classes(path, splits, class_names)
        task = task or ("binary-class" if num_classes == 2 else "multi-class")
    if class_names is None:
        class_names = [f"class {index}" for index in range(num_classes)]
    elif len(class_names) != num_classes:
        raise DataError(
            f"{path}: found {len(class_names)} class_names ({', '.join(class_names)}) for"
            f" {num_classes} classes or label columns; expected one name for each."
        )
    return Dataset(name, task, tuple(class_names), **splits, source=str(path))


def read_splits(path: str | os.PathLike) -> tuple[dict[str, Split], tuple[str, ...] | None]:
    """The three splits of an npz file, and its `class_names` or None.

    Label values are not checked, beyond their being integers: `Dataset` does that.

    Raises:
        DataError: the file is missing or damaged, a key is missing, or an array is of the wrong
            kind.
    """
    arrays = _read_arrays(pathlib.Path(path), KEYS)
    splits = {
        key: Split(
            _as_images(path, f"{key}_images", arrays.pop(f"{key}_images")),
            _as_labels(path, f"{key}_labels", arrays.pop(f"{key}_labels")),
        )
        for key in SPLITS
    }
    return splits, _as_class_names(path, arrays.get("class_names"))


def read_images(path: str | os.PathLike, split: str) -> UInt8[np.ndarray, "n h w c"]:
    """The images of one split of an npz file, which need not hold labels or other splits.

    Raises:
        DataError: the file is missing or damaged, or does not hold such images.
    """
    key = f"{split}_images"
    return _as_images(path, key, _read_arrays(pathlib.Path(path), (key,))[key])


def _read_arrays(path: pathlib.Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of these keys, and `class_names` if it is there."""
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
        raise DataError(f"{path}: found a single array (npy), {expected} with {', '.join(keys)}.")
    with file:
        missing = [key for key in keys if key not in file]
        if missing:
            raise DataError(
                f"{path}: missing {', '.join(missing)}; found {', '.join(file.files) or 'nothing'};"
                f" expected {', '.join(keys)}."
            )
        arrays = {}
        for key in (*keys, "class_names"):
            if key not in file:
                continue
            try:
                array = _read_array(file, key)
            except MemoryError as error:
                raise DataError(f"{path}: {key} does not fit into memory ({error}).") from error
            except Exception as error:
                raise DataError(f"{path}: {key} cannot be read: {_reason(error)}") from error
            if not isinstance(array, np.ndarray):
                raise DataError(f"{path}: {key} is not an array in NumPy's format; {expected}.")
            arrays[key] = array
    return arrays


def _read_array(file: np.lib.npyio.NpzFile, key: str) -> np.ndarray | bytes:
    """An array, read to the end of its data, where the checksum is compared; bytes if it is none."""
    member = f"{key}.npy"
    if member not in file.zip.namelist():
        return file[key]
    with file.zip.open(member) as stream:
        if stream.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            return stream.read()
        stream.seek(0)
        array = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):
            raise ValueError("there is more data than its header says")
    return array


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


def _count_classes(
    path: pathlib.Path, splits: dict[str, Split], class_names: Sequence[str] | None
) -> int:
    """One more than the highest label; every class up to it must have a training image."""
    highest = {
        key: int(split.labels.max()) if split.labels.size else -1 for key, split in splits.items()
    }
    num_classes = max(2, 1 + max(highest.values()), len(class_names or ()))
    trained = np.unique(splits["train"].labels)
    trained = trained[trained >= 0]  # `Dataset` tells of negative ones.
    if trained.size and trained.size < num_classes:
        gaps = np.flatnonzero(trained != np.arange(trained.size))
        index = int(gaps[0]) if gaps.size else trained.size
        named = f" ({class_names[index]!r})" if class_names and index < len(class_names) else ""
        used_in = [key for key in SPLITS if index in splits[key].labels]
        raise DataError(
            f"{path}: train_labels has no image of class {index}{named}, though labels go up to"
            f" {max(highest.values())}"
            + (f" and {used_in[0]}_labels has that class" if used_in else "")
            + f"; expected training images of every class from 0 to {num_classes - 1}: number the"
            " classes from 0 without gaps, and move images of each to the training split."
        )
    return num_classes
