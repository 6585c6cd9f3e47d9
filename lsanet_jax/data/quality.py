"""Images that are probably not what they were meant to be: blank, masks, nearly black or white."""

import logging
from typing import NamedTuple

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


class Odd(NamedTuple):
    """Why an image is odd, and its name."""

    reason: str
    name: str


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


def warn_of_odd_images(dataset: Dataset) -> None:
    """Log how many images are odd, by reason, and whether the whole set is too dark or the like."""
    odd = odd_images(dataset)
    for reason in dict.fromkeys(image.reason for image in odd):
        names = [image.name for image in odd if image.reason == reason]
        log.warning(
            "%s: %d image(s) are %s, such as %s", dataset.source, len(names), reason, names[0]
        )
    images = dataset.train.images
    if isinstance(images, np.ndarray) and (strange := strange_greys(images)):
        log.warning("%s: the images are %s: %s", dataset.source, strange, ADVICE)
