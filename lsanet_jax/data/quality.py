"""Images that are probably not what they were meant to be: blank, masks, nearly black or white."""

import collections
import logging
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import UInt8

from lsanet_jax.data.dataset import SPLITS, Dataset

log = logging.getLogger(__name__)

BLANK = ("black or transparent", "of one colour")
"""Reasons of images that have nothing in them to compare."""

ADVICE = (
    "do a few values need more bits than the rest (config.data.bits), do DICOM files need another"
    " window (config.data.window), or have values an offset? Set these, or rescale the files."
)
"""What to do about `strange_greys`."""

_DARK = 32  # Of 255.
_SAMPLE = 2000  # Images.
_SIDE = 32  # Pixels of a single image, about, whose greys are looked at.


def odd_reason(pixels: UInt8[np.ndarray, "h w c"]) -> str:
    """Say why an image is odd: blank, or only of the values 0 and 1 as masks are; else ''."""
    if pixels.max() == 0:
        return BLANK[0]
    if (pixels == pixels[0, 0]).all():
        return BLANK[1]
    return "of the values 0 and 1 only" if pixels.max() == 1 else ""


def strange_greys(images: UInt8[np.ndarray, "n h w c"]) -> str:
    """Say whether images, seen as one, are nearly black, nearly white or nearly flat; else ''.

    So come out values of fewer bits than said, or a window in other units than theirs.
    """
    counts = np.zeros((images.shape[-1], 256), np.int64)
    for image in images[:: max(1, len(images) // _SAMPLE)]:
        for channel, own in enumerate(counts):
            own += np.bincount(image[..., channel].ravel(), minlength=256)
    shares = counts.sum(axis=0) / max(1, counts.sum())
    if shares[:_DARK].sum() >= 0.99:
        return f"nearly black (99 of 100 pixels below {_DARK} of 255)"
    if shares[255] >= 0.9:
        return "nearly white (9 of 10 pixels are 255)"
    below = counts.cumsum(axis=1) / np.maximum(1, counts.sum(axis=1, keepdims=True))
    low, high = (below < 0.005).sum(axis=1), (below < 0.995).sum(axis=1)
    if (high - low < _DARK).all():
        return f"nearly flat (99 of 100 pixels are {low.min()} to {high.max()} of 255)"
    return ""


def warn_of_odd_images(dataset: Dataset) -> None:
    """Log how many images are odd, by reason, and whether the whole set is too dark or the like.

    Images that are not held in memory are not looked at.
    """
    images, names = [], []
    for key in SPLITS:
        part = dataset.split(key)
        if isinstance(part.images, np.ndarray):
            images += list(part.images)  # Views.
            names += part.names or [f"{key}_images[{i}]" for i in range(len(part))]
    _warn_of_each(dataset.source, images, names)
    if isinstance(dataset.train.images, np.ndarray):
        _warn_of_greys(dataset.source, dataset.train.images)


def warn_of_odd(where: object, images: UInt8[np.ndarray, "n h w c"], names: Sequence[str]) -> None:
    """Log what `warn_of_odd_images` does, of images that are in no dataset."""
    _warn_of_each(where, images, names)
    _warn_of_greys(where, images)


def _warn_of_each(
    where: object, images: Iterable[UInt8[np.ndarray, "h w c"]], names: Iterable[str]
) -> None:
    odd = collections.defaultdict(list)
    for name, pixels in zip(names, images, strict=True):
        step = max(1, min(pixels.shape[:2]) // _SIDE)
        sample = pixels[None, ::step, ::step]
        if reason := odd_reason(pixels) or strange_greys(sample).partition(" (")[0]:
            odd[reason].append(name)
    for reason, found in odd.items():
        log.warning("%s: %d image(s) are %s, such as %s", where, len(found), reason, found[0])


def _warn_of_greys(where: object, images: UInt8[np.ndarray, "n h w c"]) -> None:
    if strange := strange_greys(images):
        log.warning("%s: the images are %s: %s", where, strange, ADVICE)
