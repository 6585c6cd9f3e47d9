"""The twelve MedMNIST-2D sets: found under a root folder, or downloaded to it.

Yang et al., MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image
classification (Scientific Data 2023), https://medmnist.com.
"""

import functools
import importlib.machinery
import importlib.util
import os
import pathlib
import warnings

from lsanet_jax.data.dataset import Dataset
from lsanet_jax.data.sources import npz
from lsanet_jax.data.sources.download import download, md5_of
from lsanet_jax.errors import ConfigError, DataError

NAMES = (
    "pathmnist",
    "chestmnist",
    "dermamnist",
    "octmnist",
    "pneumoniamnist",
    "retinamnist",
    "breastmnist",
    "bloodmnist",
    "tissuemnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
)
SIZES = (28, 64, 128, 224)

# Of the sets that `tfds_builder` prepares.
PREPARED_NAME = "medmnist2d"
PREPARED_VERSION = "1.0.0"


def load_medmnist(name: str, size: int = 28, root: str = "", mirror: str = "") -> Dataset:
    """One MedMNIST-2D set, from the official file only.

    Args:
        name: one of `NAMES`.
        size: pixels per side of the stored images, one of `SIZES`.
        root: folder of the files; default $MEDMNIST_ROOT, else ~/.medmnist. A missing file is
            downloaded to it.
        mirror: base URL to download from in place of MedMNIST's own; the file name follows it.

    Raises:
        ConfigError: there is no such set or size.
        DataError: the file cannot be had, or it is not the official one.
    """
    _check_size(name, size)
    facts = info(name)
    suffix = "" if size == 28 else f"_{size}"
    url, md5 = facts[f"url{suffix}"], facts[f"MD5{suffix}"]
    if mirror:
        url = f"{mirror.rstrip('/')}/{name}{suffix}.npz"
    root_folder = os.path.expanduser(root or os.environ.get("MEDMNIST_ROOT") or "~/.medmnist")
    path = pathlib.Path(root_folder) / f"{name}{suffix}.npz"
    if os.path.lexists(path):
        _check_md5(path, md5)
    else:
        download(url, path, md5)
    splits, _ = npz.read_splits(path)
    labels = facts["label"]
    class_names = tuple(labels[str(index)] for index in range(len(labels)))
    task = "multi-label" if facts["task"].startswith("multi-label") else facts["task"]
    train, val, test = splits["train"], splits["val"], splits["test"]
    return Dataset(name, task, class_names, train, val, test, str(path))


def prepared_folder(name: str, size: int, data_dir: str = "") -> pathlib.Path:
    """Where `tfds_builder.prepare` puts a set.

    Args:
        name: one of `NAMES`.
        size: pixels per side, one of `SIZES`.
        data_dir: folder of prepared sets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Raises:
        ConfigError: there is no such set or size.
    """
    _check_size(name, size)
    root = data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    place = pathlib.Path(os.path.expanduser(root)).absolute()
    return place / PREPARED_NAME / f"{name}_{size}" / PREPARED_VERSION


def _check_size(name: str, size: int) -> None:
    info(name)
    if size not in SIZES:
        sizes = ", ".join(map(str, SIZES))
        raise ConfigError(f"data.size is {size}, expected one of {sizes} for {name}.")


def _check_md5(path: pathlib.Path, md5: str) -> None:
    try:
        with path.open("rb") as file:
            found = md5_of(file)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}).") from error
    if found != md5:
        raise DataError(
            f"{path}: found md5 {found}, expected {md5}: it is not the official file, or damaged."
            " Delete it to have it downloaded again, or train on it as your own with"
            f" data.name=npz and data.path={path}."
        )


def info(name: str) -> dict:
    """What the medmnist package says of a set: its files' URLs and MD5s, task, label names, counts.

    Raises:
        ConfigError: there is no such set.
    """
    if name not in NAMES:
        raise ConfigError(f"data.name is {name!r}, expected one of {', '.join(NAMES)}.")
    return _read_info()[name]


@functools.cache
def _read_info() -> dict[str, dict]:
    # The package's __init__ imports torch, or prints a hint where there is none; the facts are in
    # one module of it that needs nothing.
    package = importlib.util.find_spec("medmnist")
    if package is None or not package.submodule_search_locations:
        raise DataError("the package medmnist is not installed: pip install --no-deps medmnist.")
    spec = importlib.machinery.PathFinder.find_spec(
        "medmnist.info", list(package.submodule_search_locations)
    )
    assert spec is not None and spec.loader is not None  # Every version has this module.
    module = importlib.util.module_from_spec(spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # It makes ~/.medmnist, and warns where it cannot.
        spec.loader.exec_module(module)
    return module.INFO
