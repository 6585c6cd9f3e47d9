"""Image files to arrays: PNG, JPEG, BMP and TIFF, 8 bits per channel whatever they hold."""

import contextlib
import os
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from lsanet_jax.errors import ConfigError, DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
RESIZES = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}

_EIGHT_OF_16_BITS = ((np.arange(65536) + 128) // 257).astype(np.uint8)
_GREY_MODES = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"}
_MODES = _GREY_MODES | {"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr"}
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF")  # Pillow's other parsers stay closed to strange files.


def count_channels(files: Iterable[str | os.PathLike], max_megapixels: float = 100) -> int:
    """1 if all files' headers say grey, else 3. Files that `decode` refuses by header do not count.

    Palettes are colour. Reads only up to the first file in colour.
    """

    def is_grey(file: str | os.PathLike) -> bool:
        try:
            with _opened(file, max_megapixels) as image:
                return image.mode in _GREY_MODES
        except DataError:
            return True

    return 1 if all(map(is_grey, files)) else 3


def decode(
    file: str | os.PathLike,
    *,
    size: int,
    resize: str = "bicubic",
    channels: int = 3,
    max_megapixels: float = 100,
) -> UInt8[np.ndarray, "{size} {size} {channels}"]:
    """Decodes one image and squashes it to a square.

    EXIF's orientation is applied. 16-bit grey is divided by 257 and rounded; integers of 32 bits
    are taken as such. What is transparent is laid over black. Of several frames, the first is
    taken. Colour becomes luminance if `channels` is 1. Pillow's own limit of pixels is raised to
    `max_megapixels` if it is lower, for the whole process.

    Args:
        file: the image's path.
        size: pixels per side of the result.
        resize: 'nearest', 'bilinear' or 'bicubic'; the latter two average when they shrink.
        channels: 1 or 3.
        max_megapixels: images whose header says more than so many million pixels are refused.

    Raises:
        ConfigError: `size`, `resize` or `channels` is outside its choices.
        DataError: the file cannot be read, is damaged or no such image, is too large, or holds
            floating-point or other pixels that have no clear 8-bit form.
    """
    check_decoding(size, resize, channels)
    with _opened(file, max_megapixels) as image:
        ImageOps.exif_transpose(image, in_place=True)
        return _squash(_over_black(_eight_bit(image, file)), size, resize, channels)


def from_array(
    array: UInt8[np.ndarray, "h w c"], *, size: int, resize: str = "bicubic", channels: int = 3
) -> UInt8[np.ndarray, "{size} {size} {channels}"]:
    """What `decode` makes of a file with these pixels; raises ConfigError likewise."""
    check_decoding(size, resize, channels)
    return _squash(
        Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array), size, resize, channels
    )


def check_name(folder: str | os.PathLike, name: str) -> None:
    """Raises DataError for the name of a file in a folder if no CSV could hold it."""
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise DataError(f"{folder}: found {name!r}, expected a name in UTF-8: rename it.")


@contextlib.contextmanager
def _opened(file: str | os.PathLike, max_megapixels: float) -> Iterator[Image.Image]:
    """An image of which only the header is read; all errors until it is closed are DataErrors."""
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, max_megapixels * 1e6)
    too_large = (
        f"expected at most {max_megapixels:g} megapixels (data.max_megapixels): shrink the image, or"
        " take it out."
    )
    try:
        with open(file, "rb") as stream, Image.open(stream, formats=_FORMATS) as image:
            if image.width * image.height > max_megapixels * 1e6:
                raise DataError(f"{file}: has {image.width} x {image.height} pixels, {too_large}")
            if image.mode not in _MODES:
                kind = "floating-point pixels" if image.mode == "F" else f"{image.mode} pixels"
                raise DataError(
                    f"{file}: has {kind}, expected grey of 8 or 16 bits, RGB, a palette or CMYK:"
                    " convert it."
                )
            yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{file}: has too many pixels ({error}), {too_large}") from error
    except Exception as error:  # Whatever a parser makes of arbitrary bytes.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = f"not a sound {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} file"
        raise DataError(
            f"{file}: cannot be read as an image ({reason}): write or copy it again, or take it out."
        ) from error


def _eight_bit(image: Image.Image, file: str | os.PathLike) -> Image.Image:
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise DataError(
            f"{file}: has values from {values.min()} to {values.max()}, expected grey of 16 bits (0"
            " to 65535): rescale it."
        )
    return Image.fromarray(_EIGHT_OF_16_BITS[values])


def _squash(
    image: Image.Image, size: int, resize: str, channels: int
) -> UInt8[np.ndarray, "h w c"]:
    image = image.convert("L" if channels == 1 else "RGB").resize((size, size), RESIZES[resize])
    return np.asarray(image).reshape(size, size, channels)


def _over_black(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    image = image.convert("LA" if image.mode in _GREY_MODES else "RGBA")
    colours = image.convert("L" if image.mode == "LA" else "RGB")
    black = Image.new(colours.mode, colours.size)
    black.paste(colours, mask=image.getchannel("A"))
    return black


def check_decoding(size: int, resize: str, channels: int = 3) -> None:
    """Raises ConfigError for arguments of `decode` outside their choices."""
    if size < 1:
        raise ConfigError(f"data.size is {size}, expected at least 1 pixel.")
    if resize not in RESIZES:
        raise ConfigError(f"data.resize is {resize!r}, expected one of {', '.join(RESIZES)}.")
    if channels not in (1, 3):
        raise ConfigError(f"channels is {channels}, expected 1 (grey) or 3 (RGB).")
