"""The same image twice: in two splits it leaks, in two classes it contradicts itself."""

import collections
import concurrent.futures
import hashlib
import itertools
import logging
import os
import pathlib
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from lsanet_jax.data.dataset import SPLITS, Dataset
from lsanet_jax.errors import ConfigError, DataError
from lsanet_jax.runtime.cores import usable_cores

CHOICES = ("error", "warn", "allow")

log = logging.getLogger(__name__)


class Image(NamedTuple):
    """What messages and comparisons need of an image: its name, split and label."""

    name: str
    split: str
    label: Hashable


def identical_files(files: Sequence[str | os.PathLike]) -> list[list[int]]:
    """Group the places of files with the same content; a file that cannot be read is alone."""
    by_size = collections.defaultdict(list)
    for place, file in enumerate(files):
        try:
            if os.path.isfile(file) and (size := os.path.getsize(file)):  # Empty ones are broken.
                by_size[size].append(place)
        except OSError:
            continue
    places = [place for same in by_size.values() if len(same) > 1 for place in same]
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        digests = list(pool.map(lambda place: _digest(pathlib.Path(files[place])), places))
    return _grouped(zip(places, digests, strict=True))


def identical_images(dataset: Dataset) -> list[list[Image]]:
    """Group images with the same pixels, over all splits; those of one colour only do not count.

    Images that are not held in memory are not read for this, and do not count either.
    """
    images, arrays = [], []
    for split in SPLITS:
        part = dataset.split(split)
        if not isinstance(part.images, np.ndarray):
            return []
        for place, label in enumerate(part.labels):
            name = part.names[place] if part.names else f"{split}_images[{place}]"
            images.append(Image(name, split, _hashable(label)))
        arrays.append(part.images)
    same = identical_arrays(itertools.chain.from_iterable(arrays))
    return [[images[place] for place in places] for places in same]


def identical_arrays(images: Iterable[UInt8[np.ndarray, "h w c"]]) -> list[list[int]]:
    """Group the places of images with the same pixels; those of one colour only do not count."""

    def digest(pixels: UInt8[np.ndarray, "h w c"]) -> bytes | None:
        if (pixels == pixels[0, 0]).all():
            return None
        return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()

    return _grouped(enumerate(map(digest, images)))


def check(where: object, groups: Iterable[Sequence[Image]], how: str) -> None:
    """Refuse, or tell of, images that are in two splits or two classes.

    Args:
        where: the dataset, for messages.
        groups: of identical images.
        how: config.data.duplicates: 'error', 'warn' or 'allow'.

    Raises:
        ConfigError: `how` is not one of these.
        DataError: it is 'error', and there are such images.
    """
    if how not in CHOICES:
        raise ConfigError(
            f"config.data.duplicates is {how!r}, expected one of {', '.join(CHOICES)}."
        )
    if how == "allow":
        return
    groups = list(groups)
    across = [same for same in groups if len({image.split for image in same}) > 1]
    contrary = [same for same in groups if len({image.label for image in same}) > 1]
    for found, places, why in (
        (across, "in several splits", "it would be tested on what it was trained on"),
        (contrary, "with different labels", "they contradict each other"),
    ):
        if not found:
            continue
        shown = "; ".join(
            " = ".join(f"{image.name} ({image.split})" for image in same[:3]) for same in found[:3]
        )
        message = (
            f"{where}: {len(found)} image(s) are there more than once, {places} ({why}): {shown}"
        )
        if how == "error":
            raise DataError(
                f"{message}. Take the copies out, or set config.data.duplicates to 'warn'."
            )
        log.warning("%s", message)
    inside = [same for same in groups if same not in across and same not in contrary]
    if inside:
        first = " = ".join(image.name for image in inside[0][:3])
        log.warning("%s: %d image(s) are there more than once: %s", where, len(inside), first)


def of_files(
    files: Sequence[str], splits: Sequence[str], labels: Sequence[Hashable], same: list[list[int]]
) -> list[list[Image]]:
    """Return the groups that `identical_files` found, as `check` takes them."""
    return [
        [Image(files[place], splits[place], labels[place]) for place in places] for places in same
    ]


def _grouped(keys: Iterable[tuple[int, Hashable]]) -> list[list[int]]:
    groups = collections.defaultdict(list)
    for place, key in keys:
        if key is not None:
            groups[key].append(place)
    return [places for places in groups.values() if len(places) > 1]


def _digest(file: pathlib.Path) -> bytes | None:
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").digest()
    except OSError:
        return None


def _hashable(label: np.generic | np.ndarray) -> Hashable:
    return tuple(np.atleast_1d(label).tolist())
