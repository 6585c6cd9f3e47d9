"""Image files to arrays of 8 bits per channel: the formats that Pillow reads safely, and DICOM."""

import collections
import concurrent.futures
import contextlib
import logging
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import IO, Any, TypedDict, Unpack

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile, ImageOps, TiffImagePlugin, UnidentifiedImageError

from lsanet_jax.data.sources import dicom
from lsanet_jax.data.sources.files import (
    SUFFIXES,
    check_name,
    content_kind,
    describe_left_out,
    report_left_out,
    walk,
    without_masks,
)
from lsanet_jax.errors import ConfigError, DataError
from lsanet_jax.runtime.cores import usable_cores

__all__ = ["SUFFIXES", "check_name"]

log = logging.getLogger(__name__)

RESIZES = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
FITS = ("squash", "pad", "crop")
BITS = (8, 10, 12, 14, 16)

_GREY_MODES = {"1", "L", "LA", "I", "I;16", "I;16B", "I;16L"}
_MODES = _GREY_MODES | {"RGB", "RGBA", "RGBX", "P", "PA", "CMYK", "YCbCr"}
# Pillow's other parsers stay closed to strange files.
_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "PPM", "JPEG2000")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR, _SUBFILE = 258, 262, 284, 254  # Tags of TIFF.
_SAMPLES, _SAMPLE_FORMAT, _SIGNED, _FLOAT = 277, 339, 2, 3  # Two tags, and values of the second.
_ZEROS = 64  # At the end of a JPEG: so many are no padding.
_THUMBNAIL_OR_MASK = 1 | 4  # Bits of _SUBFILE.

# Pillow knows inverted greys (photometric 0) of more than 8 bits in one form only; as the others it
# would call them unsound. `read` inverts them all.
for (_order, _photometric, *_rest), _mode in list(TiffImagePlugin.OPEN_INFO.items()):
    if _photometric == 1 and _mode[0].startswith("I"):
        TiffImagePlugin.OPEN_INFO.setdefault((_order, 0, *_rest), _mode)


class Reading(TypedDict, total=False):
    """The options of `read`."""

    bits: int
    window: Sequence[float]
    frame: int
    max_megapixels: float


def decode(
    file: str | os.PathLike,
    *,
    size: int,
    resize: str = "bicubic",
    channels: int = 3,
    fit: str = "squash",
    **reading: Unpack[Reading],
) -> UInt8[np.ndarray, "{size} {size} {channels}"]:
    """Decode one image and make it a square.

    Args:
        file: the image's path.
        size: pixels per side of the result.
        resize: 'nearest', 'bilinear' or 'bicubic'; the latter two average when they shrink.
        channels: 1 or 3; with 1, colour becomes luminance.
        fit: 'squash' changes the proportions, 'pad' adds black bars, 'crop' cuts off what is
            outside the middle square.
        **reading: `bits`, `window`, `frame` and `max_megapixels` of `read`.

    Raises:
        ConfigError: `size`, `resize`, `fit` or `channels` is outside its choices.
        DataError: as `read`.
    """
    check_decoding(size, resize, channels, fit)
    return _square(read(file, **reading), size, resize, channels, fit)


def read(
    file: str | os.PathLike,
    *,
    bits: int = 16,
    window: Sequence[float] = (),
    frame: int = 0,
    max_megapixels: float = 100,
) -> Image.Image:
    """Read one image in its own size, as 8 bits per channel.

    EXIF's orientation is applied. What is transparent is laid over black. Greys for which 0 is
    white are inverted. Pillow's own limit of pixels is raised to `max_megapixels` if it is lower,
    for the whole process.

    Args:
        file: the image's path.
        bits: grey of more than 8 bits is scaled so that 2**bits - 1 is white; see `least_bits`.
        window: centre and width for DICOM files, () for their own; see `dicom.read`.
        frame: which of several frames, from 1; 0 says that there must be one only.
        max_megapixels: images whose header says more than so many million pixels are refused.

    Raises:
        DataError: the file cannot be read, is damaged or no such image, is too large, holds several
            frames and none was chosen, or floating-point or other pixels that have no clear 8-bit
            form.
    """
    with _opened(file, max_megapixels) as image:
        if image is None:
            pixels = dicom.read(file, window=window, frame=frame, max_megapixels=max_megapixels)
            return Image.fromarray(pixels)
        _seek(image, file, frame)
        image = _eight_bit(image, file, bits)
        ImageOps.exif_transpose(image, in_place=True)
        return _over_black(image)


def describe(file: str | os.PathLike, max_megapixels: float = 100) -> str:
    """Say what a file's header tells of its format and depth, such as 'PNG, grey, 16 bits'.

    Raises:
        DataError: the file cannot be opened as an image.
    """
    with _opened(file, max_megapixels) as image:
        if image is None:
            header = dicom.read_header(file)
            return f"DICOM, {'grey' if header and header.is_grey else 'colour'}"
        colour = "grey" if image.mode in _GREY_MODES else "colour"
        depth = "1 bit" if image.mode == "1" else "16 bits" if _is_deep(image) else "8 bits"
        return f"{image.format}, {colour}, {depth}"


def count_channels(files: Iterable[str | os.PathLike], max_megapixels: float = 100) -> int:
    """Return 1 if all files' headers say grey, else 3; files that `read` refuses do not count.

    Palettes are colour. Reads only up to the first file in colour.
    """

    def is_grey(file: str | os.PathLike) -> bool:
        try:
            with _opened(file, max_megapixels) as image:
                if image is None:
                    header = dicom.read_header(file)
                    return header is None or header.is_grey
                return image.mode in _GREY_MODES
        except DataError:
            return True

    return 1 if all(map(is_grey, files)) else 3


def least_bits(
    files: Sequence[str | os.PathLike], *, frame: int = 0, max_megapixels: float = 100
) -> tuple[int, int]:
    """Find how many bits the values of a set's deep images need; 8-bit images do not count.

    Args:
        files: the whole set; those that `read` refuses do not count, nor DICOM, whose headers tell.
        frame: as for `read`.
        max_megapixels: as for `read`.

    Returns:
        The least of `BITS` that holds all values, 16 if no image is deep; and how many are deep.
        If some need far fewer, a warning says so.
    """

    def highest(file: str | os.PathLike) -> int:
        try:
            with _opened(file, max_megapixels) as image:
                if image is None or not _is_deep(image):
                    return -1
                _seek(image, file, frame)
                values = np.asarray(image)
                if image.mode in ("LA", "RGBA"):
                    values = values[..., :-1]
                return int(values.max()) * (1 if image.mode.startswith("I") else 257)
        except DataError:
            return -1

    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        found = [(value, file) for value, file in zip(pool.map(highest, files), files, strict=True)]
    found = [(value, file) for value, file in found if value >= 0]
    if not found:
        return 16, 0
    needed = max(_bits_of(value) for value, _ in found)
    few = [(value, file) for value, file in found if value and _bits_of(value) <= needed - 4]
    if few:
        log.warning(
            "%s: %d of %d image(s) of more than 8 bits need at most %d bits, others %d, and come"
            " out dark beside these: were they scaled alike? If not, rescale their values.",
            max(few)[1],
            len(few),
            len(found),
            _bits_of(max(few)[0]),
            needed,
        )
    return needed, len(found)


def warn_of_few_bits(
    where: object, files: Sequence[str | os.PathLike], decoding: Mapping[str, Any]
) -> None:
    """Log that the values of a set's deep images need fewer bits than the training images have.

    Args:
        where: the set.
        files: all of it.
        decoding: how the training images were decoded: `bits`, `frame` and `max_megapixels` count.
    """
    limits = {k: v for k, v in decoding.items() if k in ("frame", "max_megapixels")}
    white = 2 ** decoding.get("bits", 16) - 1
    bits, deep = least_bits(files, **limits)
    if deep and 2**bits - 1 < white:
        log.warning(
            "%s: %d image(s) have more than 8 bits per channel; their values need %d, but %d is "
            "white, as in training, so they come out dark: scale them as the training images were",
            *(where, deep, bits, white),
        )


def _bits_of(value: int) -> int:
    """Return the least of `BITS` that holds a value."""
    return next((bits for bits in BITS if value < 2**bits), 16)


def from_array(
    array: UInt8[np.ndarray, "h w c"],
    *,
    size: int,
    resize: str = "bicubic",
    channels: int = 3,
    fit: str = "squash",
) -> UInt8[np.ndarray, "{size} {size} {channels}"]:
    """Return what `decode` makes of a file with these pixels; raises ConfigError likewise."""
    check_decoding(size, resize, channels, fit)
    image = Image.fromarray(array.squeeze(2) if array.shape[2] == 1 else array)
    return _square(image, size, resize, channels, fit)


def list_images(path: pathlib.Path) -> list[str]:
    """List the images in a folder and those below it, or the one file that the path leads to.

    Links are followed, and hidden folders left out. Files of other kinds, and masks beside their
    images, are counted and logged.

    Returns:
        POSIX names relative to the folder, sorted; of a file, its name.

    Raises:
        DataError: there is no image, a folder cannot be listed, links form a loop, or a name is not
            UTF-8.
    """
    if not os.path.isdir(path):  # pathlib's raises an error if a name is too long.
        if not os.path.exists(path):
            raise DataError(f"{path}: found nothing there.")
        check_name(path.parent, path.name)
        return [path.name]
    names, left_out = [], collections.Counter()
    for found in walk(path):
        names += [image.relative_to(path).as_posix() for image in found.images]
        left_out += found.left_out
    headers = dicom.read_headers([path / name for name in names])
    names = [
        name for name, header in zip(names, headers, strict=True) if not header or header.is_image
    ]
    left_out[dicom.NO_IMAGE] += len(headers) - len(names)
    left_out = +left_out
    if not names:
        raise DataError(
            f"{path}: found no images in it ({', '.join(SUFFIXES)})"
            + (f", but {describe_left_out(left_out)}." if left_out else ".")
        )
    report_left_out(path, left_out)
    return without_masks(path, sorted(names))


def check_decoding(size: int, resize: str, channels: int = 3, fit: str = "squash") -> None:
    """Raises ConfigError for arguments of `decode` outside their choices."""
    if size < 1:
        raise ConfigError(f"config.data.size is {size}, expected at least 1 pixel.")
    if resize not in RESIZES:
        raise ConfigError(
            f"config.data.resize is {resize!r}, expected one of {', '.join(RESIZES)}."
        )
    if fit not in FITS:
        raise ConfigError(f"config.data.fit is {fit!r}, expected one of {', '.join(FITS)}.")
    if channels not in (1, 3):
        raise ConfigError(f"channels is {channels}, expected 1 (grey) or 3 (RGB).")


@contextlib.contextmanager
def _opened(file: str | os.PathLike, max_megapixels: float) -> Iterator[ImageFile.ImageFile | None]:
    """Open an image and read its header, or yield None for DICOM; all errors are DataErrors."""
    if Image.MAX_IMAGE_PIXELS is not None:
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, int(max_megapixels * 1e6))
    too_large = (
        f"expected at most {max_megapixels:g} megapixels (config.data.max_megapixels): shrink the"
        " image, or take it out."
    )
    start = b""
    try:
        with _open_regular(file) as stream:
            start = stream.read(512)
            stream.seek(0)
            if dicom.is_dicom(start):
                yield None
                return
            with Image.open(stream, formats=_FORMATS) as image:
                if image.width * image.height > max_megapixels * 1e6:
                    raise DataError(
                        f"{file}: has {image.width} x {image.height} pixels, {too_large}"
                    )
                _check_mode(image, file)
                if image.format == "JPEG":
                    _check_end(stream, file)
                yield image
    except DataError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{file}: has too many pixels ({error}), {too_large}") from error
    except Exception as error:  # Whatever a parser makes of arbitrary bytes.
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            if kind := _kind_of_tiff(file, start):
                raise DataError(
                    f"{file}: is {kind}, expected grey of 8 or 16 bits, RGB, a palette or CMYK:"
                    " convert it."
                ) from error
            reason = _unidentified(start)
        elif dicom.is_dicom(start):
            reason = f"DICOM: {reason}"
        raise DataError(
            f"{file}: cannot be read as an image ({reason}): write or copy it again, or take it"
            " out."
        ) from error


def _check_end(stream: IO[bytes], file: str | os.PathLike) -> None:
    """Refuse a JPEG whose end is zeros, as downloads leave it: it would decode to grey."""
    place = stream.tell()
    stream.seek(max(0, stream.seek(0, os.SEEK_END) - _ZEROS))
    end = stream.read(_ZEROS)
    if len(end) == _ZEROS and not any(end):
        stream.seek(0)
        data = stream.read().rstrip(b"\0")
        if not data.endswith(b"\xff\xd9") and b"\xff\xd9" not in data[data.rfind(b"\xff\xda") :]:
            raise DataError(
                f"{file}: is a JPEG that ends in {stream.tell() - len(data)} zero bytes, so part of"
                " it is missing: copy it again, or take it out."
            )
    stream.seek(place)


def _open_regular(file: str | os.PathLike) -> IO[bytes]:
    if os.path.exists(file) and not os.path.isfile(file) and not os.path.isdir(file):
        raise OSError(0, "not a file but a pipe, a socket or a device")  # Reading it may never end.
    return open(file, "rb")


def _unidentified(start: bytes) -> str:
    """Say what a file is that Pillow cannot identify."""
    kind = content_kind(start)
    formats = "PNG, JPEG, BMP, TIFF, WebP, GIF, PNM, JPEG 2000 or DICOM"
    if not start:
        return "it is empty"
    if dicom.lacks_preamble(start):
        return "it seems to be DICOM without its preamble, the first 132 bytes"
    if kind in ("PNG", "JPEG", "BMP", "TIFF", "WebP", "GIF", "JPEG 2000"):
        return f"not a sound {kind} file, or a kind of it that is not supported"
    return f"it is {kind}, expected {formats}" if kind else f"not a sound {formats} file"


def _kind_of_tiff(file: str | os.PathLike, start: bytes) -> str:
    """Say what kind of pixels a TIFF has that is never read; '' for all other files."""
    if content_kind(start) != "TIFF":
        return ""
    try:
        with _open_regular(file) as stream:
            tags = TiffImagePlugin.ImageFileDirectory_v2(stream.read(8))
            stream.seek(tags.next)
            tags.load(stream)
        bits, form = max(tags[_BITS_PER_SAMPLE]), tags.get(_SAMPLE_FORMAT, (1,))[0]
    except Exception:  # noqa: BLE001 - of arbitrary bytes.
        return ""
    samples = tags.get(_SAMPLES, 1)
    if form != _FLOAT and samples in (1, 3, 4) and bits in (1, 2, 4, 8, 16):
        return ""
    numbers = {_SIGNED: "signed ", _FLOAT: "floating-point "}.get(form, "")
    return f"a TIFF of {samples} {numbers}channel(s) of {bits} bits"


def _check_mode(image: ImageFile.ImageFile, file: str | os.PathLike) -> None:
    tags = getattr(image, "tag_v2", {})
    if image.mode not in _MODES:
        kind = "floating-point pixels" if image.mode == "F" else f"{image.mode} pixels"
        raise DataError(
            f"{file}: has {kind}, expected grey of 8 or 16 bits, RGB, a palette or CMYK: convert"
            " it."
        )
    samples = tags.get(_SAMPLES, 1)
    if image.mode == "L" and samples > 1:
        raise DataError(
            f"{file}: has {samples} channels of grey, expected one, or three of colour: save the"
            " one to use."
        )
    if image.mode == "L" and tags.get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED:
        raise DataError(f"{file}: has signed pixels of 8 bits, expected unsigned ones: convert it.")
    modes = [args[0] for decoder, _, _, args in image.tile if decoder == "libtiff" and args]
    if any(str(mode).endswith("BS") for mode in modes):
        # Pillow swaps the bytes twice.
        raise DataError(f"{file}: has compressed signed pixels in big-endian order: convert it.")
    if _is_deep(image) and tags.get(_PLANAR) == 2 and image.mode not in _GREY_MODES:
        # Pillow reads its bytes as if they were of 8 bits.
        raise DataError(
            f"{file}: has separate planes of 16 bits: convert it to 8 bits per channel."
        )


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether more than 8 bits per channel are stored, though Pillow gives 8 of colour."""
    if image.mode.startswith("I"):
        return True
    samples = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (8,))
    depth = max(samples) if isinstance(samples, tuple) else samples
    return depth > 8 or any(";16" in str(tile[3]) for tile in image.tile)


def _seek(image: Image.Image, file: str | os.PathLike, frame: int) -> None:
    """Go to the frame that is asked for, or to the only one."""
    if image.format == "MPO" or not getattr(image, "is_animated", False):
        return  # A camera's JPEG with a preview is one picture.
    pages = list(range(getattr(image, "n_frames", 1)))
    if image.format == "TIFF":
        pages = [page for page in pages if not _subfile(image, page) & _THUMBNAIL_OR_MASK]
        image.seek(0)
    chosen = dicom.check_frame(file, len(pages), frame) if pages else 1
    image.seek(pages[chosen - 1] if pages else 0)


def _subfile(image: Image.Image, page: int) -> int:
    image.seek(page)
    return int(getattr(image, "tag_v2", {}).get(_SUBFILE, 0))


def _eight_bit(image: ImageFile.ImageFile, file: str | os.PathLike, bits: int) -> Image.Image:
    """Scale deep greys to 8 bits; 2**bits - 1 becomes white."""
    if not image.mode.startswith("I"):
        if bits < 16 and _is_deep(image):
            raise DataError(
                f"{file}: has 16 bits per colour, of which only the {bits} lower ones are used"
                " (config.data.bits), and only the upper 8 can be read: convert it to 8 bits per"
                " channel."
            )
        return image
    values, white = np.asarray(image), 2**bits - 1
    if values.min() < 0 or values.max() > white:
        raise DataError(
            f"{file}: has values from {values.min()} to {values.max()}, expected grey of {bits}"
            f" bits (0 to {white}, config.data.bits): rescale it."
        )
    scaled = ((values.astype(np.int64) * 255 + white // 2) // white).astype(np.uint8)
    if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC) == 0:
        scaled = 255 - scaled
    exif, converted = image.getexif(), Image.fromarray(scaled)
    converted.getexif().update({tag: exif[tag] for tag in (0x0112,) if tag in exif})
    return converted


def _over_black(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image
    image = image.convert("LA" if image.mode in _GREY_MODES else "RGBA")
    colours = image.convert("L" if image.mode == "LA" else "RGB")
    black = Image.new(colours.mode, colours.size)
    black.paste(colours, mask=image.getchannel("A"))
    return black


def _square(
    image: Image.Image, size: int, resize: str, channels: int, fit: str
) -> UInt8[np.ndarray, "h w c"]:
    image = image.convert("L" if channels == 1 else "RGB")
    width, height = image.size
    if fit == "pad":
        longest = max(width, height)
        inside = (max(1, round(width * size / longest)), max(1, round(height * size / longest)))
        square = Image.new(image.mode, (size, size))
        corner = (round((size - inside[0]) / 2), round((size - inside[1]) / 2))
        square.paste(image.resize(inside, RESIZES[resize]), corner)
    elif fit == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        middle = image.crop((left, top, left + side, top + side))
        square = middle.resize((size, size), RESIZES[resize])
    else:
        square = image.resize((size, size), RESIZES[resize])
    return np.asarray(square).reshape(size, size, channels)
