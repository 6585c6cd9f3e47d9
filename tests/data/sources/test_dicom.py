"""DICOM files against pydicom's own pipeline and the standard's formulas."""

import csv
import io
import logging
import pathlib

import numpy as np
import pytest
from PIL import Image

from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources import dicom
from lsanet_jax.data.sources.folder import list_folder, load_folder
from lsanet_jax.data.sources.images import count_channels, decode, list_images
from lsanet_jax.errors import DataError

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    BasicTextSRStorage,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    ParametricMapStorage,
    RLELossless,
    RTDoseStorage,
    SegmentationStorage,
    generate_uid,
)

RANDOM = np.random.default_rng(0)
TWELVE = RANDOM.integers(0, 4096, (40, 36)).astype(np.uint16)
SIGNED = RANDOM.integers(-1024, 2000, (40, 36)).astype(np.int16)
COLOUR = RANDOM.integers(0, 256, (40, 36, 3)).astype(np.uint8)


def make(pixels, syntax=ExplicitVRLittleEndian, frames=1, **elements):
    """A small data set with these pixels; a value of None takes an element out."""
    pixels = np.asarray(pixels)
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    data.PatientName, data.PatientID, data.PatientBirthDate = "Doe^Jane", "P-SECRET", "19700101"
    data.StudyInstanceUID = generate_uid()
    colour = pixels.shape[-1] == 3 and pixels.dtype == np.uint8
    shape = pixels.shape[1:] if frames > 1 else pixels.shape
    data.Rows, data.Columns = shape[:2]
    data.SamplesPerPixel = 3 if colour else 1
    data.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        data.PlanarConfiguration = 0
    data.BitsAllocated = 8 * pixels.dtype.itemsize
    data.BitsStored = 12 if pixels.dtype == np.uint16 else data.BitsAllocated
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    if frames > 1:
        data.NumberOfFrames = frames
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    data.PixelData = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    data["PixelData"].VR = "OB" if data.BitsAllocated == 8 else "OW"
    for name, value in elements.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


def save(data, file, compress=None):
    file.parent.mkdir(parents=True, exist_ok=True)
    if compress:
        data.compress(compress, generate_instance_uid=False)
    syntax = data.file_meta.TransferSyntaxUID
    if syntax == ExplicitVRBigEndian:
        data.save_as(file, little_endian=False, implicit_vr=False, enforce_file_format=True)
    else:
        data.save_as(file, enforce_file_format=True)
    return file


def lut(values, first, bits):
    item = Dataset()
    item.LUTDescriptor = [len(values), first, bits]
    item.add_new("LUTData", "US", [int(value) for value in values])
    return [item]


def pydicom_pipeline(file):
    """8 bits of what pydicom makes of grey: modality LUT, VOI LUT, both ends of its range."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

    data = pydicom.dcmread(file)
    values = apply_modality_lut(pixel_array(data), data)
    if data.get("VOILUTSequence"):
        low, high = 0, 2 ** data.VOILUTSequence[0].LUTDescriptor[2] - 1
        values = values.astype(int)
    else:
        low = -(2 ** (data.BitsStored - 1)) if data.PixelRepresentation else 0
        high = low + 2**data.BitsStored - 1
        if "RescaleSlope" in data:
            low = low * data.RescaleSlope + data.RescaleIntercept
            high = high * data.RescaleSlope + data.RescaleIntercept
        if data.get("ModalityLUTSequence"):
            low, high = 0, 2 ** data.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    shown = (apply_voi_lut(values, data).astype(float) - low) / (high - low)
    if data.PhotometricInterpretation == "MONOCHROME1":
        shown = 1 - shown
    return np.rint(255 * np.clip(shown, 0, 1)).astype(np.uint8)


CT = {"RescaleSlope": 2.0, "RescaleIntercept": -1024.0}
GREYS = {
    "12 bits": (TWELVE, {}),
    "monochrome 1": (TWELVE, {"PhotometricInterpretation": "MONOCHROME1"}),
    "window": (TWELVE, {"WindowCenter": 2000, "WindowWidth": 1500}),
    "two windows": (TWELVE, {"WindowCenter": [900, 2000], "WindowWidth": [700, 1500]}),
    "exact": (
        TWELVE,
        {"WindowCenter": 2000, "WindowWidth": 1500, "VOILUTFunction": "LINEAR_EXACT"},
    ),
    "sigmoid": (TWELVE, {"WindowCenter": 2000, "WindowWidth": 900, "VOILUTFunction": "SIGMOID"}),
    "narrow window": (TWELVE, {"WindowCenter": 2000, "WindowWidth": 1}),
    "ct": (TWELVE, CT | {"WindowCenter": 40, "WindowWidth": 400}),
    "ct without a window": (TWELVE, CT),
    "signed": (SIGNED, {"WindowCenter": 40, "WindowWidth": 400}),
    "signed without a window": (SIGNED, {}),
    "signed ct, monochrome 1": (
        SIGNED,
        CT | {"WindowCenter": 40, "WindowWidth": 400, "PhotometricInterpretation": "MONOCHROME1"},
    ),
    "8 bits": (COLOUR[..., 0], {}),
    "VOI LUT": (TWELVE, {"VOILUTSequence": lut(np.arange(4096) ** 2 // 4100, 0, 12)}),
    "VOI LUT from 1000": (TWELVE, {"VOILUTSequence": lut(np.arange(0, 60000, 60), 1000, 16)}),
    "modality LUT": (TWELVE, {"ModalityLUTSequence": lut(np.arange(4096) * 15, 0, 16)}),
}


@pytest.mark.parametrize("name", GREYS)
@pytest.mark.parametrize(
    "syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian]
)
def test_grey_is_what_pydicom_makes_of_it(tmp_path, name, syntax):
    pixels, elements = GREYS[name]
    if syntax == ExplicitVRBigEndian and "LUT" in name:
        pytest.skip("pydicom writes a LUT's data in one order only")
    file = save(make(pixels, syntax, **elements), tmp_path / "x.dcm")
    expected = pydicom_pipeline(file)
    assert expected.min() < expected.max()
    found = dicom.read(file)
    np.testing.assert_array_equal(found, expected)
    assert count_channels([file]) == 1
    square = Image.fromarray(expected).resize((7, 7), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(decode(file, size=7, channels=1)[..., 0], square)


@pytest.mark.parametrize("compress", [RLELossless, JPEG2000Lossless])
@pytest.mark.parametrize("name", ["12 bits", "ct", "8 bits", "signed"])
def test_compressed_grey_is_the_same(tmp_path, name, compress):
    pytest.importorskip("openjpeg" if compress == JPEG2000Lossless else "rle")
    pixels, elements = GREYS[name]
    plain = save(make(pixels, **elements), tmp_path / "plain.dcm")
    packed = save(make(pixels, **elements), tmp_path / "packed.dcm", compress)
    assert packed.read_bytes() != plain.read_bytes()
    np.testing.assert_array_equal(dicom.read(packed), pydicom_pipeline(plain))


def test_a_window_by_the_formula_of_the_standard(tmp_path):
    file = save(make(SIGNED, WindowCenter=40, WindowWidth=400), tmp_path / "x.dcm")
    for window, (centre, width) in (((), (40, 400)), ((600, 1500), (600, 1500))):
        y = ((SIGNED - (centre - 0.5)) / (width - 1) + 0.5) * 255  # PS3.3 C.11.2.1.2.1
        expected = np.rint(np.clip(y, 0, 255)).astype(np.uint8)
        np.testing.assert_array_equal(dicom.read(file, window=window), expected)


def test_a_window_that_is_asked_for_comes_before_the_files_own(tmp_path):
    elements = {"VOILUTSequence": lut(np.arange(4096), 0, 12), "VOILUTFunction": "SIGMOID"}
    one = save(make(TWELVE, WindowCenter=9, WindowWidth=9, **elements), tmp_path / "1.dcm")
    two = save(make(TWELVE), tmp_path / "2.dcm")
    found = [dicom.read(file, window=(1000, 1500)) for file in (one, two)]
    np.testing.assert_array_equal(*found)


def test_an_inverse_presentation_is_inverted_once(tmp_path):
    plain = dicom.read(save(make(TWELVE), tmp_path / "1.dcm"))
    for kind in ("MONOCHROME1", "MONOCHROME2"):
        elements = {"PhotometricInterpretation": kind, "PresentationLUTShape": "INVERSE"}
        file = save(make(TWELVE, **elements), tmp_path / "2.dcm")
        assert np.abs(dicom.read(file).astype(int) - (255 - plain.astype(int))).max() <= 1


@pytest.mark.parametrize("compress", [None, RLELossless, JPEG2000Lossless])
def test_colour(tmp_path, compress):
    if compress:
        pytest.importorskip("openjpeg" if compress == JPEG2000Lossless else "rle")
    file = save(make(COLOUR), tmp_path / "x.dcm", compress)
    np.testing.assert_array_equal(dicom.read(file), COLOUR)
    assert count_channels([file]) == 3


def test_colour_in_planes_and_as_luminance(tmp_path):
    data = make(COLOUR, PlanarConfiguration=1)
    data.PixelData = COLOUR.transpose(2, 0, 1).tobytes()
    np.testing.assert_array_equal(dicom.read(save(data, tmp_path / "1.dcm")), COLOUR)
    data = make(COLOUR, PhotometricInterpretation="YBR_FULL")
    expected = Image.fromarray(COLOUR, "YCbCr").convert("RGB")
    found = dicom.read(save(data, tmp_path / "2.dcm")).astype(int)
    assert np.abs(found - np.asarray(expected)).max() <= 1


def test_baseline_jpeg(tmp_path):
    pytest.importorskip("libjpeg")
    from pydicom.encaps import encapsulate

    smooth = np.linspace(0, 255, 40 * 36).reshape(40, 36).astype(np.uint8)
    for pixels, kind in ((smooth, "MONOCHROME2"), (np.stack([smooth] * 3, -1), "YBR_FULL_422")):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=95)
        data = make(pixels, JPEGBaseline8Bit, PhotometricInterpretation=kind)
        data.PixelData = encapsulate([stream.getvalue()])
        data["PixelData"].VR = "OB"
        found = dicom.read(save(data, tmp_path / "x.dcm")).astype(int)
        assert np.abs(found - np.asarray(Image.open(stream))).max() <= 2


def test_palette(tmp_path):
    data = make(COLOUR[..., 0] % 4, PhotometricInterpretation="PALETTE COLOR")
    palette = np.array([[0, 10, 200], [255, 0, 30], [40, 50, 60], [1, 2, 3]], np.uint16)
    for place, name in enumerate(("Red", "Green", "Blue")):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [4, 0, 16])
        table = (palette[:, place] * 257).tobytes()
        setattr(data, f"{name}PaletteColorLookupTableData", table)
    found = dicom.read(save(data, tmp_path / "x.dcm"))
    np.testing.assert_array_equal(found, palette[COLOUR[..., 0] % 4])


# What is refused


def test_several_frames_are_an_error_unless_one_is_chosen(tmp_path):
    frames = np.stack([TWELVE, TWELVE // 2, TWELVE // 4])
    file = save(make(frames, frames=3), tmp_path / "x.dcm")
    with pytest.raises(DataError, match=r"holds 3 frames, .* config.data.frame"):
        decode(file, size=4)
    for number, frame in enumerate(frames, 1):
        single = save(make(frame), tmp_path / "single.dcm")
        np.testing.assert_array_equal(dicom.read(file, frame=number), dicom.read(single))
    np.testing.assert_array_equal(dicom.read(single, frame=2), dicom.read(single))
    with pytest.raises(DataError, match="holds 3 frames, but config.data.frame is 4"):
        decode(file, size=4, frame=4)


def groups(**window):
    """Functional groups of a rescaling, and of a window if one is given."""
    item, rescaled, shown = Dataset(), Dataset(), Dataset()
    rescaled.RescaleSlope, rescaled.RescaleIntercept = 2.0, -1024.0
    item.PixelValueTransformationSequence = [rescaled]
    if window:
        shown.update(window)
        item.FrameVOILUTSequence = [shown]
    return item


def test_enhanced_objects_are_rescaled_and_windowed_as_classic_ones(tmp_path):
    windows = [{"WindowCenter": 40, "WindowWidth": 400}, {"WindowCenter": 300, "WindowWidth": 2000}]
    enhanced = make(
        np.stack([TWELVE, TWELVE]),
        frames=2,
        SharedFunctionalGroupsSequence=[groups(**windows[0])],
        PerFrameFunctionalGroupsSequence=[Dataset(), groups(**windows[1])],
    )
    file = save(enhanced, tmp_path / "x.dcm")
    for number, window in enumerate(windows, 1):
        classic = save(make(TWELVE, **CT, **window), tmp_path / "classic.dcm")
        np.testing.assert_array_equal(dicom.read(file, frame=number), dicom.read(classic))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"PixelData": None}, "cannot be read as an image \\(DICOM: "),
        ({"PixelData": None, "Rows": None}, "is a DICOM file without an image"),
        ({"Rows": 60}, "cannot be read as an image \\(DICOM: "),
        ({"Rows": 60000, "Columns": 60000}, "has 60000 x 60000 pixels, expected at most"),
        ({"HighBit": 15}, "has HighBit 15, expected 11, since BitsStored is 12"),
        (
            {"BitsStored": 10, "HighBit": 9},
            "to 40[0-9]+, which its 10 bits",
        ),
        ({"PhotometricInterpretation": "ARGB"}, "cannot be read as an image|has ARGB"),
        ({"RescaleSlope": 0.0, "RescaleIntercept": 0.0}, "rescale slope is 0"),
        ({"WindowCenter": 9, "WindowWidth": 0}, "window of width 0, expected at least 1: set conf"),
        ({"WindowCenter": 9, "WindowWidth": -300}, "window of width -300, expected"),
        (
            {"WindowCenter": 9, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"},
            "window of width 0, expected",
        ),
    ],
)
def test_unsound_files_are_one_error(tmp_path, change, message):
    file = save(make(TWELVE, **change), tmp_path / "x.dcm")
    with pytest.raises(DataError, match=message) as caught:
        decode(file, size=4)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("stored", [TWELVE, np.clip(SIGNED, -1024, 1500)])
def test_an_overlay_or_zeros_above_the_values_do_not_count(tmp_path, stored):
    plain = save(make(stored, BitsStored=12, HighBit=11), tmp_path / "plain.dcm")
    zeros = save(make(stored & 0xFFF, BitsStored=12, HighBit=11), tmp_path / "zeros.dcm")
    marked = make(stored ^ (1 << 14), BitsStored=12, HighBit=11)
    marked.add_new((0x6000, 0x0100), "US", 16)
    marked.add_new((0x6000, 0x0102), "US", 14)
    expected = decode(plain, size=36)
    for file in (zeros, save(marked, tmp_path / "marked.dcm")):
        np.testing.assert_array_equal(decode(file, size=36), expected)


@pytest.mark.parametrize("length", [132, 140, 300, 500, 700])
def test_files_cut_short_are_one_error(tmp_path, length):
    whole = save(make(TWELVE), tmp_path / "x.dcm").read_bytes()
    (tmp_path / "x.dcm").write_bytes(whole[:length])
    with pytest.raises(DataError, match="x.dcm: "):
        decode(tmp_path / "x.dcm", size=4)


# In folders


def put_patients(root, name="{label}/{i}.dcm", count=24, **changed):
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 4096, (8, 8)).astype(np.uint16)
        elements = {"PatientID": f"P{i // 3}"} | {
            key: value(i) if callable(value) else value for key, value in changed.items()
        }
        save(make(pixels, **elements), root / name.format(i=i, label="ab"[i // 3 % 2]))


def torn(listing, name=lambda file: int(pathlib.Path(file).stem) // 3):
    groups = {}
    for key in SPLITS:
        for file in listing.split(key).files:
            groups.setdefault(name(file), set()).add(key)
    return sum(len(keys) > 1 for keys in groups.values())


def test_patients_stay_whole_and_nothing_of_a_header_is_told(tmp_path, caplog):
    put_patients(tmp_path)
    with caplog.at_level(logging.DEBUG):
        listing = list_folder(tmp_path)
        dataset = load_folder(tmp_path, size=4)
    assert torn(listing) == 0
    assert dataset.channels == 1
    told = caplog.text + repr(listing) + (tmp_path / "lsanet_splits.csv").read_text()
    for secret in ("Doe", "Jane", "SECRET", "1970", "'P1'", "P1,"):
        assert secret not in told


@pytest.mark.parametrize("column", ["lesion_id", "StudyInstanceUID"])
def test_patients_of_headers_join_what_a_table_groups_more_finely(tmp_path, column, caplog):
    put_patients(tmp_path)
    rows = [f"{'ab'[i // 3 % 2]}/{i}.dcm,{'xy'[i % 2]},g{i // 2}" for i in range(24)]
    (tmp_path / "t.csv").write_text("\n".join([f"file,label,{column}", *rows]))
    assert torn(list_folder(tmp_path, csv="t.csv")) == 0
    assert "DICOM headers tell of 8 patients; their images stay in one split" in caplog.text
    listing = list_folder(tmp_path, csv="t.csv", group_column=column)
    assert torn(listing) and not torn(listing, lambda file: int(pathlib.Path(file).stem) // 2)


def test_one_patient_in_two_given_splits_is_an_error_without_the_name(tmp_path):
    put_patients(tmp_path / "train")
    put_patients(tmp_path / "test", count=6, RescaleSlope=2, RescaleIntercept=0)
    (tmp_path / "test/b/3.dcm").unlink()
    with pytest.raises(DataError, match="2 patient.* have images in several splits") as caught:
        list_folder(tmp_path)
    assert "P0" not in str(caught.value)
    assert "test/a/" in str(caught.value)


def test_files_without_suffix_or_named_by_uid_are_found_by_content(tmp_path):
    put_patients(tmp_path, "{label}/IM{i:04}", 12)
    put_patients(tmp_path, "{label}/1.2.840.{i}", 12, PatientID=lambda i: f"Q{i // 3}")
    (tmp_path / "a/notes").write_text("no image")
    assert sum(len(list_folder(tmp_path).split(key).files) for key in SPLITS) == 24
    assert len(list_images(tmp_path)) == 24


def test_anonymised_sets_with_one_patient_are_grouped_by_study(tmp_path, caplog):
    studies = [generate_uid() for _ in range(8)]
    put_patients(tmp_path, PatientID="X1", StudyInstanceUID=lambda i: studies[i // 3])
    assert torn(list_folder(tmp_path)) == 0
    assert "all DICOM files have one PatientID; grouped by study" in caplog.text


def test_files_without_patient_are_grouped_by_study(tmp_path):
    studies = [generate_uid() for _ in range(8)]
    put_patients(tmp_path, PatientID="", StudyInstanceUID=lambda i: studies[i // 3])
    put_patients(tmp_path, "{label}/x{i}.dcm", 3)
    assert torn(list_folder(tmp_path), lambda f: f[2:] if "x" in f else int(f[2:-4]) // 3) == 0


@pytest.mark.parametrize("names", [("{}", "00{}"), ("P{}", "p{}"), ("P_{}", "p {}")])
def test_two_spellings_of_a_patient_are_one_and_it_says_so(tmp_path, names, caplog):
    put_patients(tmp_path, PatientID=lambda i: names[i % 2].format(i // 3 + 1))
    assert torn(list_folder(tmp_path)) == 0
    assert "8 PatientID(s) differ from others only in case, blanks or leading zeros" in caplog.text


@pytest.mark.parametrize("named", [0, 1, 2])
def test_an_anonymous_patient_is_nobody(tmp_path, named, caplog):
    names = ["Anonymous"] * (24 - named) + ["p1", "p2"][:named]
    put_patients(tmp_path, PatientID=lambda i: names[i])
    listing = list_folder(tmp_path)
    assert len(listing.train.files) > 14
    assert f"{24 - named} DICOM file(s) have no PatientID, or one such as 'ANON" in caplog.text
    assert "all DICOM files have one PatientID" not in caplog.text


def test_a_column_of_the_table_comes_before_the_header(tmp_path):
    put_patients(tmp_path, "{i}.dcm")
    rows = "".join(f"{i}.dcm,{'ab'[i % 2]},{i // 4}\n" for i in range(24))
    (tmp_path / "t.csv").write_text(f"file,label,ward\n{rows}")
    listing = list_folder(tmp_path, csv="t.csv", group_column="ward")
    assert torn(listing, lambda file: int(file[:-4]) // 4) == 0


def test_reports_among_images_are_left_out_and_counted(tmp_path, caplog):
    put_patients(tmp_path)
    report = make(TWELVE, PixelData=None, Rows=None, Columns=None, SOPClassUID=BasicTextSRStorage)
    save(report, tmp_path / "a/report.dcm")
    assert sum(len(list_folder(tmp_path).split(key).files) for key in SPLITS) == 24
    assert "left out 1 file(s)" in caplog.text
    assert "1 DICOM without an image" in caplog.text


@pytest.mark.parametrize("kind", [SegmentationStorage, RTDoseStorage, ParametricMapStorage])
@pytest.mark.parametrize("group_column", ["", "none"])
def test_what_was_made_of_images_is_left_out_and_counted(tmp_path, kind, group_column, caplog):
    put_patients(tmp_path, count=12)
    put_patients(tmp_path, "{label}/{i}_made.dcm", 6, SOPClassUID=kind)
    listing = list_folder(tmp_path, group_column=group_column)
    assert sum(len(listing.split(key).files) for key in SPLITS) == 12 == len(list_images(tmp_path))
    assert "6 DICOM without an image (a report, segmentation, dose or the like)" in caplog.text


@pytest.mark.parametrize("length", [150, 200, 300, 400])
def test_a_file_cut_in_its_header_is_not_left_out_silently(tmp_path, length):
    put_patients(tmp_path)
    file = tmp_path / "a/cut.dcm"
    file.write_bytes(save(make(TWELVE), file).read_bytes()[:length])
    assert "a/cut.dcm" in list_images(tmp_path)
    with pytest.raises(DataError, match="a/cut.dcm"):
        load_folder(tmp_path, size=4)


def test_dicom_without_its_preamble_is_named(tmp_path):
    file = save(make(TWELVE), tmp_path / "x.dcm")
    file.write_bytes(file.read_bytes()[132:])
    with pytest.raises(DataError, match="it seems to be DICOM without its preamble"):
        decode(file, size=4)


def test_dicom_beside_png_and_a_dicom_file_called_png(tmp_path):
    put_patients(tmp_path, "{label}/{i}.png", 12)
    put_patients(tmp_path, "{label}/{i}x.DCM", 6)
    for i in range(12):
        pixels = np.random.default_rng(99 + i).integers(0, 255, (8, 8), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "ab"[i % 2] / f"y{i}.png")
    assert sum(len(load_folder(tmp_path, size=4).split(key)) for key in SPLITS) == 30


def test_without_pydicom_the_error_says_what_to_install(tmp_path, monkeypatch):
    import sys

    file = save(make(TWELVE), tmp_path / "x.dcm")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match="pip install pydicom pylibjpeg"):
        decode(file, size=4)


# A whole set of them


@pytest.mark.slow
def test_a_set_of_every_kind_trains_and_predicts_and_is_scored(tmp_path):
    from configs import folder
    from lsanet_jax import evaluate, predict, train

    kinds = [
        *((*GREYS[name], None) for name in ("12 bits", "monochrome 1", "window", "ct")),
        *((*GREYS[name], None) for name in ("signed", "signed ct, monochrome 1", "VOI LUT")),
        (TWELVE, {}, RLELossless),
        (TWELVE, {}, JPEG2000Lossless),
        (COLOUR, {}, None),
    ]
    for label in (0, 1):
        for patient in range(12):
            for i, (pixels, elements, compress) in enumerate(kinds):
                made = make(np.roll(pixels, 12 * label + patient, axis=0), **elements)
                made.PatientID = f"{label}-{patient}"
                suffix = ".dcm" if i % 2 else ""
                save(made, tmp_path / f"scans/{'ab'[label]}/{patient}-{i}{suffix}", compress)
    config = folder.get_config()
    config.data.update(path=str(tmp_path / "scans"), size=28, image_size=28)
    config.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    config.train.update(epochs=1, batch_size=16)
    result = train.train_and_evaluate(config, tmp_path / "run")
    file = predict.predict_to_file(
        tmp_path / "run", input=str(tmp_path / "scans"), output=tmp_path / "p.csv"
    )
    with file.open(newline="") as stream:
        rows = {row["file"]: row for row in csv.DictReader(stream)}
    assert len(rows) == 240
    own = predict.predict_to_file(tmp_path / "run", output=tmp_path / "own.csv")
    with own.open(newline="") as stream:
        tested = list(csv.DictReader(stream))
    assert tested and all(row == rows[row["file"]] for row in tested)
    kept = tmp_path / "test"
    for row in tested:
        (kept / row["file"]).parent.mkdir(parents=True, exist_ok=True)
        (kept / row["file"]).write_bytes((tmp_path / "scans" / row["file"]).read_bytes())
    scores = evaluate.evaluate(tmp_path / "run", input=str(kept))
    assert scores.patients == len({row["file"].partition("-")[0] for row in tested})
    np.testing.assert_allclose(scores.classifiers[-1].acc.value, result["test"]["acc"])
