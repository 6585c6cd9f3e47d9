"""The user's own images in one npz file of MedMNIST's layout."""

import logging
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from lsanet_jax.data.arrays import as_images, as_labels
from lsanet_jax.data.dataset import SPLITS, Dataset, Split
from lsanet_jax.errors import DataError
from lsanet_jax.runtime import memory

KEYS = tuple(f"{split}_{kind}" for split in SPLITS for kind in ("images", "labels"))
_EXPECTED = {
    "images": "numbers: images of one size, stacked to uint8",
    "labels": "numbers: integers from 0, or columns of 0 and 1",
    "names": "strings: numpy.array(names, dtype=str)",
}

log = logging.getLogger(__name__)


def load_npz(
    path: str | os.PathLike,
    name: str | None = None,
    task: str | None = None,
    class_names: Sequence[str] | None = None,
) -> Dataset:
    """Read `{train,val,test}_{images,labels}` from an npz file.

    The arrays are as `Dataset.from_arrays` takes them. The file may also hold `class_names`, an
    array of strings.

    Args:
        path: the file.
        name: what reports call the dataset; default: the file's name without its suffix.
        task: one of `TASKS`; default: as `Dataset.from_arrays` infers it.
        class_names: one per class; default: the file's, else as `Dataset.from_arrays` has them.

    Raises:
        ConfigError: `task` is not one of `TASKS`.
        DataError: the file is missing or damaged, or does not hold such arrays, or a class has no
            training image.
    """
    path = pathlib.Path(os.path.expanduser(path))
    arrays = _read_arrays(path, KEYS)
    names = class_names or _as_class_names(path, arrays.get("class_names"))
    pairs = {key: (arrays[f"{key}_images"], arrays[f"{key}_labels"]) for key in SPLITS}
    return Dataset.from_arrays(
        **pairs, class_names=names, task=task, name=name or path.stem, source=str(path)
    )


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
            as_images(path, f"{key}_images", arrays.pop(f"{key}_images")),
            as_labels(path, f"{key}_labels", arrays.pop(f"{key}_labels")),
        )
        for key in SPLITS
    }
    return splits, _as_class_names(path, arrays.get("class_names"))


def read_split(path: str | os.PathLike, split: str) -> tuple[Split, tuple[str, ...] | None]:
    """One split of an npz file, which need not hold others, and its `class_names` or None.

    Raises:
        DataError: as `read_splits`.
    """
    images, labels = f"{split}_images", f"{split}_labels"
    arrays = _read_arrays(pathlib.Path(path), (images, labels))
    found = Split(as_images(path, images, arrays[images]), as_labels(path, labels, arrays[labels]))
    return found, _as_class_names(path, arrays.get("class_names"))


def read_images(path: str | os.PathLike, split: str) -> UInt8[np.ndarray, "n h w c"]:
    """The images of one split of an npz file, which need not hold labels or other splits.

    Raises:
        DataError: the file is missing or damaged, or does not hold such images.
    """
    key = f"{split}_images"
    return as_images(path, key, _read_arrays(pathlib.Path(path), (key,))[key])


def _read_arrays(path: pathlib.Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of these keys, and `class_names` if it is there."""
    if not os.path.isfile(path):  # pathlib's raises an error if a name is too long.
        is_folder = os.path.isdir(path)
        raise DataError(
            f"{path}: found {'a folder' if is_folder else 'no file'}, expected an npz file: set"
            f" config.data.path to its path{', or config.data.name to folder' * is_folder}."
        )
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
        _check_members(path, file)
        others = [key for key in file.files if key not in (*KEYS, "class_names")]
        if others:
            log.warning("%s: not used: %s.", path, ", ".join(others))
        arrays = {}
        for key in (*keys, "class_names"):
            if key not in file:
                continue
            try:
                array = _read_array(file, key)
            except MemoryError as error:
                raise DataError(f"{path}: {key} does not fit into memory ({error}).") from error
            except Exception as error:
                raise DataError(f"{path}: {key} cannot be read: {_reason(error, key)}") from error
            if not isinstance(array, np.ndarray):
                raise DataError(f"{path}: {key} is not an array in NumPy's format; {expected}.")
            arrays[key] = array
    return arrays


def _check_members(path: pathlib.Path, file: np.lib.npyio.NpzFile) -> None:
    """Refuse a file that would not fit into memory, by what it declares, or that is ambiguous."""
    assert file.zip is not None  # Until the file is closed.
    members = file.zip.infolist()
    if len({member.filename for member in members}) != len(members):
        raise DataError(f"{path}: holds two arrays of one name: write it again.")
    size, most = sum(member.file_size for member in members), memory.physical_bytes()
    if size > most:
        raise DataError(
            f"{path}: its arrays take {memory.in_words(size)}, this machine has"
            f" {memory.in_words(most)}: expected a smaller set, or a folder of images."
        )


def _read_array(file: np.lib.npyio.NpzFile, key: str) -> np.ndarray | bytes:
    """Read an array to the end of its data, so that its checksum is compared; else bytes."""
    member = f"{key}.npy"
    assert file.zip is not None  # Until the file is closed.
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


def _reason(error: Exception, key: str) -> str:
    text = str(error)
    if "allow_pickle" in text:
        return (
            "it is an array of Python objects, which is never unpickled here; expected an array of"
            f" {_EXPECTED[key.rpartition('_')[2]]}."
        )
    if "encrypted" in text:
        return "it is encrypted; expected a file without a password."
    return f"the file is damaged ({text or type(error).__name__}); write or copy it again."


def _as_class_names(path: str | os.PathLike, array: np.ndarray | None) -> tuple[str, ...] | None:
    if array is None:
        return None
    if array.dtype.kind != "U" or array.ndim != 1:
        raise DataError(
            f"{path}: class_names is of dtype {array.dtype} and shape {array.shape}, expected a"
            " one-dimensional array of strings."
        )
    return tuple(array.tolist())
