"""DICOM files to 8-bit pixels: modality LUT, VOI LUT or window, photometric interpretation.

Of a header only what decoding needs is read, and whose image it is, as a digest: no name and no
date of birth is kept or printed.

References:
    DICOM PS3.3, C.7.6.3 (image pixel), C.11.1 (modality LUT), C.11.2 (VOI LUT).
"""

import concurrent.futures
import hashlib
import logging
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from lsanet_jax.data import splits
from lsanet_jax.data.sources import columns
from lsanet_jax.errors import DataError
from lsanet_jax.runtime.cores import usable_cores

_DEFLATED = "1.2.840.10008.1.2.1.99"
_HEADER = ("SOPClassUID", "PatientID", "StudyInstanceUID", "Rows", "PhotometricInterpretation")
_MADE_OF_IMAGES = ("Segmentation", "Dose", "Map")  # Classes whose pixels are no picture.

logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # It prints what its errors say, too.

NO_IMAGE = "DICOM without an image (a report, segmentation, dose or the like)"
"""What lists of files that are left out call these."""


class Header(NamedTuple):
    """What a folder's listing needs of a file.

    Attributes:
        patient: digest of the patient's identifier, '' if there is none, or one of nobody; the same
            for two spellings of it, as of other groups.
        identifier: the same, but of the identifier as it is written.
        study: digest of the study's.
        is_image: whether it is an image and not a report, a segmentation or the like.
        is_grey: whether it is a grey image.
    """

    patient: str
    identifier: str
    study: str
    is_image: bool
    is_grey: bool


def is_dicom(start: bytes) -> bool:
    """Whether a file that starts so is a DICOM file."""
    return start[128:132] == b"DICM"


def lacks_preamble(start: bytes) -> bool:
    """Whether a file that starts so may be DICOM, but begins with its first element."""
    return start[:2] in (b"\2\0", b"\x08\0") and start[3:4] == b"\0"


def read_header(file: str | os.PathLike) -> Header | None:
    """Read whose image a file is; None if it is not a DICOM file that can be read."""
    try:
        if not os.path.isfile(file):
            return None
        with open(file, "rb") as stream:
            if not is_dicom(stream.read(132)):
                return None
        import pydicom

        data = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_HEADER))
        patient = str(data.get("PatientID") or "").strip()
        patient = "" if columns.is_nobody(patient) else patient
        return Header(
            _digest(splits.spelling(patient)),
            _digest(patient),
            _digest(data.get("StudyInstanceUID")),
            _is_image(data),
            str(data.get("PhotometricInterpretation", "")).startswith("MONOCHROME"),
        )
    except Exception:  # noqa: BLE001 - decoding says what is wrong.
        return None


def _is_image(data: Any) -> bool:
    """Whether a file is an image, by its class; also if it was cut short before its Rows."""
    kind = data.get("SOPClassUID") or data.file_meta.get("MediaStorageSOPClassUID")
    if not kind:
        return True
    if "Rows" in data:
        return not any(word in kind.name for word in _MADE_OF_IMAGES)
    return "Image" in kind.name


def read_headers(files: Sequence[str | os.PathLike]) -> list[Header | None]:
    """`read_header` of each of many files."""
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(read_header, files))


def read(
    file: str | os.PathLike,
    *,
    window: Sequence[float] = (),
    frame: int = 0,
    max_megapixels: float = 100,
) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """Decode one image, as a viewer would first show it.

    Grey values pass the modality LUT (or slope and intercept), then `window`, else the first VOI
    LUT or window of the file, else the range of its stored bits. MONOCHROME1 and an inverse
    presentation are inverted, so that higher is brighter.

    Args:
        file: its path.
        window: centre and width in modality units (Hounsfield, for CT); () for the file's own.
        frame: which of several frames, from 1; 0 says that there must be one only.
        max_megapixels: larger images are refused.

    Raises:
        DataError: the file has no pixels, several frames and none was chosen, or a form that has
            no plain 8-bit picture; or a package for it is missing.
    """
    try:
        import pydicom.filereader
        from pydicom.pixels.utils import pixel_array
    except ImportError as error:
        raise DataError(
            f"{file}: is a DICOM file, and the package pydicom is not installed: pip install"
            " pydicom pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg pylibjpeg-rle."
        ) from error
    meta = pydicom.filereader.read_file_meta_info(pathlib.Path(file))
    if meta.get("TransferSyntaxUID") == _DEFLATED:
        raise DataError(f"{file}: is deflated DICOM, which is not read: save it uncompressed.")
    data = pydicom.dcmread(file, stop_before_pixels=True)
    if "Rows" not in data or "SamplesPerPixel" not in data:
        raise DataError(
            f"{file}: is a DICOM file without an image, or cut short: copy it again, or take it"
            " out."
        )
    pixels = int(data.Rows) * int(data.Columns)
    if pixels > max_megapixels * 1e6:
        raise DataError(
            f"{file}: has {data.Columns} x {data.Rows} pixels, expected at most {max_megapixels:g}"
            " megapixels (config.data.max_megapixels): shrink the image, or take it out."
        )
    frames = int(data.get("NumberOfFrames") or 1)
    index = check_frame(file, frames, frame) - 1
    # Only this frame comes into memory.
    array = pixel_array(pathlib.Path(file), index=index, correct_unused_bits=False)
    array = _used_bits(file, array, data, meta)
    _add_functional_groups(data, index)
    kind = str(data.PhotometricInterpretation)
    if kind == "PALETTE COLOR":
        from pydicom.pixels.processing import apply_color_lut

        coloured = apply_color_lut(array, data)[..., :3]
        entry_bits = 8 * coloured.dtype.itemsize
        return _to_eight_bits(coloured / (2**entry_bits - 1))
    if array.ndim == 3:
        return _to_eight_bits(array / (2 ** int(data.BitsStored) - 1))
    shown = _window(file, array, data, window)
    if kind == "MONOCHROME1" or data.get("PresentationLUTShape") == "INVERSE":
        shown = 1 - shown
    elif kind != "MONOCHROME2":
        raise DataError(f"{file}: has {kind} pixels, expected MONOCHROME1 or 2, or colour.")
    return _to_eight_bits(shown)


def check_frame(file: str | os.PathLike, frames: int, frame: int) -> int:
    """Return which frame to take, from 1; raises DataError if that is not said or not there."""
    if frames > 1 and not frame:
        raise DataError(
            f"{file}: holds {frames} frames, expected one image: save those to use as files of"
            " their own, or choose the same one of every file with config.data.frame (1 is the"
            " first)."
        )
    if frame > frames > 1:
        raise DataError(
            f"{file}: holds {frames} frames, but config.data.frame is {frame}: lower it, or take"
            " the file out."
        )
    return frame if frames > 1 else 1


def _used_bits(file: str | os.PathLike, array: np.ndarray, data: Any, meta: Any) -> np.ndarray:
    """Return stored values without overlays in the bits above them.

    Raises:
        DataError: they are not where the header says, or need more bits.
    """
    if array.dtype.kind not in "iu":
        return array
    bits = int(data.BitsStored)
    high, syntax = int(data.get("HighBit", bits - 1)), meta.get("TransferSyntaxUID")
    if high != bits - 1 and not (syntax and syntax.is_compressed):
        raise DataError(
            f"{file}: has HighBit {high}, expected {bits - 1}, since BitsStored is {bits}: where"
            " its values begin is not certain; save it anew, or take it out."
        )
    unused = 8 * array.dtype.itemsize - bits
    cut = np.right_shift(np.left_shift(array, unused), unused)
    overlays = [data.get((group, 0x0102)) for group in range(0x6000, 0x6020, 2)]
    has_overlay = any(position and position.value for position in overlays)
    if not has_overlay and ((cut != array) & (array >> bits != 0)).any():
        raise DataError(
            f"{file}: has values from {array.min()} to {array.max()}, which its {bits} bits"
            " (BitsStored) do not hold: correct its header, or take it out."
        )
    return cut


def _add_functional_groups(data: Any, index: int) -> None:
    """Take the rescaling and window of a frame from where enhanced objects keep them."""
    shared = data.get("SharedFunctionalGroupsSequence") or ()
    of_frames = data.get("PerFrameFunctionalGroupsSequence") or ()
    for group in (*shared[:1], *of_frames[index : index + 1]):
        for name in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in group.get(name) or ():
                data.update(item)


def _window(
    file: str | os.PathLike, stored: np.ndarray, data: Any, window: Sequence[float]
) -> Float[np.ndarray, "h w"]:
    """Map stored values to [0, 1]."""
    from pydicom.pixels.processing import apply_modality_lut, apply_voi

    values = apply_modality_lut(stored, data)
    if not window and data.get("VOILUTSequence"):
        bits = int(data.VOILUTSequence[0].LUTDescriptor[2])
        return apply_voi(np.rint(values).astype(np.int64), data) / (2**bits - 1)
    shape = "LINEAR"
    if not window and data.get("WindowCenter") is not None and data.get("WindowWidth") is not None:
        window = (_first(data.WindowCenter), _first(data.WindowWidth))
        shape = str(data.get("VOILUTFunction") or "LINEAR").upper()
        if window[1] < 1 if shape == "LINEAR" else window[1] <= 0:
            raise DataError(
                f"{file}: has a window of width {window[1]:g}, expected at least 1: set"
                " config.data.window to the centre and width for all files, or take it out."
            )
    if not window:
        low, high = _stored_range(data)
        return (values - low) / (high - low)
    centre, width = window
    if shape == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))
    if shape == "LINEAR":  # C.11.2.1.2.1; the others have neither half a step nor a step less.
        centre, width = centre - 0.5, max(width - 1, 1e-9)
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _stored_range(data: Any) -> tuple[float, float]:
    """Return the least and the greatest value that the modality LUT can make of the stored bits."""
    if data.get("ModalityLUTSequence"):
        return 0.0, 2.0 ** int(data.ModalityLUTSequence[0].LUTDescriptor[2]) - 1
    bits, signed = int(data.BitsStored), int(data.PixelRepresentation)
    low = -(2 ** (bits - 1)) if signed else 0
    slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    ends = (slope * low + intercept, slope * (low + 2**bits - 1) + intercept)
    if not all(map(math.isfinite, ends)) or ends[0] == ends[1]:
        raise ValueError(f"rescale slope is {slope}, intercept {intercept}")
    return min(ends), max(ends)


def _to_eight_bits(values: Float[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    return np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)


def _first(value: Any) -> float:
    return float(value[0] if isinstance(value, Sequence) and not isinstance(value, str) else value)


def _digest(identifier: Any) -> str:
    text = str(identifier or "").strip()
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16] if text else ""
