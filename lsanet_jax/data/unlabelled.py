"""Images without labels, to pretrain on: those of a folder beside the training images."""

import concurrent.futures
import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8

from lsanet_jax.data import duplicates, quality
from lsanet_jax.data.dataset import Dataset
from lsanet_jax.data.sources import images as image_files
from lsanet_jax.errors import ConfigError, DataError
from lsanet_jax.runtime.cores import usable_cores

log = logging.getLogger(__name__)

REST = "rest"
"""`config.data.unlabelled` for the training images that a subset leaves out."""


def check_rest(dataset: Dataset) -> None:
    """Check that a subset has left out images.

    Raises:
        ConfigError: it has not.
    """
    if not dataset.unlabelled:
        raise ConfigError(
            "config.data.unlabelled = rest, but all training images keep their labels: set config."
            "data.train_fraction or config.data.train_per_class, or give a folder"
        )
    log.info("%d training images have no label", dataset.unlabelled)


def with_folder(
    dataset: Dataset, folder: str, form: Mapping[str, Any], *, skip_broken: bool
) -> Dataset:
    """The dataset with the images of a folder, and those below it, at the end of its training.

    Args:
        dataset: in memory.
        folder: of images of any size; they are brought to the form of the training images.
        form: arguments of `images.decode`, for sets that were not read from files themselves.
        skip_broken: leave out images that cannot be read, and say how many.

    Raises:
        DataError: the folder has no images, or one cannot be read.
    """
    train = dataset.train
    if not isinstance(train.images, np.ndarray):
        raise DataError(
            "config.data.unlabelled needs the training images in memory: raise config.data."
            "device_budget_mb"
        )
    height, _, channels = train.images.shape[1:]
    form = {"size": height, "resize": "bicubic", "channels": channels, **form}
    form = dict(dataset.decoding) if dataset.decoding else form
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise DataError(f"config.data.unlabelled = {folder}: found no folder there")
    names = image_files.list_images(root)
    image_files.warn_of_few_bits(root, [root / name for name in names], form)
    names, images = _decode_all(root, names, form, skip_broken=skip_broken)
    quality.warn_of_odd(root, images, names)
    same = duplicates.identical_arrays(images)
    copies = duplicates.of_files(names, ["train"] * len(names), [-1] * len(names), same)
    duplicates.check(root, copies, "warn")
    seen = {image.tobytes() for key in ("val", "test") for image in dataset.split(key).images}
    if known := sum(image.tobytes() in seen for image in images):
        log.warning(
            "%d of the images in config.data.unlabelled = %s are validation or test images: what "
            "is pretrained on them has seen these, without their labels",
            known,
            folder,
        )
    log.info("%d images of %s have no label", len(images), folder)
    labels = np.full((len(images), *train.labels.shape[1:]), -1, np.int32)
    joined = dataclasses.replace(
        train,
        images=np.concatenate([train.images, images]),
        labels=np.concatenate([train.labels, labels]),
        names=(),
        groups=(),
    )
    return dataclasses.replace(dataset, train=joined, unlabelled=len(images))


def _decode_all(
    root: pathlib.Path, names: list[str], form: Mapping[str, Any], *, skip_broken: bool
) -> tuple[list[str], UInt8[np.ndarray, "n h w c"]]:
    """Decode images; also return the names of those that could be."""

    def decode(name: str) -> UInt8[np.ndarray, "h w c"] | None:
        try:
            return image_files.decode(root / name, **form)
        except DataError as error:
            if skip_broken:
                return None
            raise DataError(f"{error} config.data.skip_broken leaves such images out.") from error

    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        pairs = zip(names, pool.map(decode, names), strict=True)
        found = {name: image for name, image in pairs if image is not None}
    if len(found) < len(names):
        log.warning("%s: left out %d broken images", root, len(names) - len(found))
    if not found:
        raise DataError(f"config.data.unlabelled = {root}: no image in it can be read")
    return list(found), np.stack(list(found.values()))
