"""Images that are probably not what they were meant to be: blank, masks, nearly black."""

import logging
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from lsanet_jax.data.dataset import SPLITS, Dataset

log = logging.getLogger(__name__)

BLANK = ("black or transparent", "of one colour")
"""Reasons of images that have nothing in them to compare."""

_DARK = 32  # Of 255.


class Odd(NamedTuple):
    """Why an image is odd, and its name."""

    reason: str
    name: str


def odd_reason(pixels: UInt8[np.ndarray, "h w c"]) -> str:
    """Say why an image is odd: blank, or only of the values 0 and 1 as masks are; else ''."""
    low, high = int(pixels.min()), int(pixels.max())
    if high == 0:
        return BLANK[0]
    if low == high:
        return BLANK[1]
    return "of the values 0 and 1 only" if high == 1 else ""


def odd_images(dataset: Dataset) -> list[Odd]:
    """List the odd images of a dataset that is held in memory."""
    found = []
    for split in SPLITS:
        part = dataset.split(split)
        if not isinstance(part.images, np.ndarray):
            continue
        for place, pixels in enumerate(part.images):
            if reason := odd_reason(pixels):
                name = part.names[place] if part.names else f"{split}_images[{place}]"
                found.append(Odd(reason, name))
    return found


def is_dark(dataset: Dataset) -> bool:
    """Whether 99 of 100 training pixels are nearly black, as if values had fewer bits than said."""
    images = dataset.train.images
    if not isinstance(images, np.ndarray):
        return False
    counts = np.bincount(images[:2000].ravel(), minlength=256)
    return bool(counts[:_DARK].sum() >= 0.99 * counts.sum() and counts[1:].any())


def warn_of_odd_images(dataset: Dataset) -> None:
    """Log how many images are odd, by reason, and whether the whole set is nearly black."""
    odd = odd_images(dataset)
    for reason in dict.fromkeys(image.reason for image in odd):
        names = [image.name for image in odd if image.reason == reason]
        log.warning(
            "%s: %d image(s) are %s, such as %s", dataset.source, len(names), reason, names[0]
        )
    if is_dark(dataset):
        log.warning(
            "%s: the images are nearly black (99 of 100 pixels below %d of 255): do a few values"
            " need more bits than the rest (config.data.bits), or DICOM files a window"
            " (config.data.window)?",
            dataset.source,
            _DARK,
        )
