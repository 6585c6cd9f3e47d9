"""Depths, orders, frames and formats of image files."""

import logging
import os
import re

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources.folder import list_folder, load_folder
from lsanet_jax.data.sources.images import (
    BITS,
    count_channels,
    decode,
    from_array,
    least_bits,
    list_images,
    read,
)
from lsanet_jax.errors import ConfigError, DataError

tifffile = pytest.importorskip("tifffile")

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (9, 14), np.uint8)
RGB = RANDOM.integers(0, 256, (9, 14, 3), np.uint8)


def save(array, file, **options):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file, **options)
    return file


def put_classes(root, make, suffix=".png", count=12):
    """Two classes of images `make(i)`."""
    for i in range(count):
        for name in "ab":
            save(make(i + 100 * (name == "b")), root / name / f"{i}{suffix}")


def noise(seed, high=256, dtype=np.uint8):
    return np.random.default_rng(seed).integers(0, high, (8, 8)).astype(dtype)


def pixels_of(dataset):
    return {
        name: image
        for key in SPLITS
        for name, image in zip(dataset.split(key).names, dataset.split(key).images, strict=True)
    }


# Bits


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_deep_grey_is_scaled_by_the_bits_of_the_set(tmp_path, bits, suffix):
    put_classes(tmp_path, lambda i: noise(i, 2**bits, np.uint16), suffix)
    save(np.full((8, 8), 2**bits - 1, np.uint16), tmp_path / f"a/white{suffix}")
    dataset = load_folder(tmp_path, size=8)
    assert dataset.decoding["bits"] == bits
    expected = np.rint(noise(3, 2**bits, np.uint16).astype(float) * 255 / (2**bits - 1))
    np.testing.assert_array_equal(pixels_of(dataset)[f"a/3{suffix}"][..., 0], expected)


def test_the_bits_are_said_and_images_of_8_bits_do_not_count(tmp_path, caplog):
    put_classes(tmp_path, lambda i: noise(i, 4096, np.uint16) if i < 100 else noise(i))
    with caplog.at_level(logging.WARNING):
        dataset = load_folder(tmp_path, size=8)
    assert (
        "12 of 24 image(s) have more than 8 bits per channel; their values need 12" in caplog.text
    )
    np.testing.assert_array_equal(pixels_of(dataset)["b/0.png"][..., 0], noise(100))


def test_bits_can_be_said_and_higher_values_are_an_error(tmp_path):
    put_classes(tmp_path, lambda i: noise(i, 1000, np.uint16))
    assert load_folder(tmp_path, size=8, bits=14).train.images.max() <= 16
    save(np.full((8, 8), 4096, np.uint16), tmp_path / "a/x.png")
    with pytest.raises(
        DataError, match=r"a/x.png: has values from 4096 to 4096, .*config.data.bits"
    ):
        load_folder(tmp_path, size=8, bits=12)
    with pytest.raises(ConfigError, match="config.data.bits is 11, expected 0 or one of 8, 10"):
        load_folder(tmp_path, size=8, bits=11)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", ">i2", "<u4", "<i4"])
def test_every_order_of_bytes_and_sign_has_its_bits(tmp_path, dtype):
    values = noise(0, 4096, np.dtype(dtype))
    values[0, 0] = 4095
    file = tmp_path / "x.tif"
    tifffile.imwrite(file, values, byteorder=dtype[0], photometric="minisblack")
    if dtype == "<u4":
        pytest.skip("Pillow reads no unsigned 32 bits")
    assert least_bits([file]) == (12, 1)
    expected = np.rint(values.astype(float) * 255 / 4095)
    np.testing.assert_array_equal(np.asarray(read(file, bits=12)), expected)


@pytest.mark.parametrize("dtype", ["|b1", "|u1", "<u2", ">u2", "<i2", ">i2", "<i4"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_white_is_zero_is_inverted_at_every_depth(tmp_path, dtype, compression):
    high = {"b": 2, "u1": 256}.get(dtype[1], 0) or {"u1": 256}.get(dtype[1:], 4096)
    values = noise(1, high, np.dtype(dtype))
    values[0, :2] = high - 1, 0
    options = {"byteorder": dtype[0] if dtype[0] != "|" else "<", "compression": compression}
    for kind in ("minisblack", "miniswhite"):
        tifffile.imwrite(tmp_path / f"{kind}.tif", values, photometric=kind, **options)
    if dtype == ">i2" and compression:
        with pytest.raises(DataError, match="has compressed signed pixels in big-endian order"):
            read(tmp_path / "minisblack.tif")
        return
    bits = 12 if high == 4096 else 16
    black, white = (
        np.asarray(read(tmp_path / f"{kind}.tif", bits=bits).convert("L")).astype(int)
        for kind in ("minisblack", "miniswhite")
    )
    assert black.max() == 255 and black.min() == 0
    np.testing.assert_array_equal(white, 255 - black)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_deep_colour_of_few_bits_is_refused(tmp_path, suffix):
    for i in range(12):
        for name in "ab":
            values = RANDOM.integers(0, 4096, (8, 8, 3)).astype(np.uint16)
            (tmp_path / name).mkdir(exist_ok=True)
            if suffix == "tif":
                tifffile.imwrite(tmp_path / name / f"{i}.tif", values, photometric="rgb")
            else:
                (tmp_path / name / f"{i}.png").write_bytes(png_of_16_bit_colour(values))
    with pytest.raises(DataError, match="has 16 bits per colour, of which only the 12 lower ones"):
        load_folder(tmp_path, size=8)


def png_of_16_bit_colour(values):
    """A PNG that Pillow cannot write."""
    import struct
    import zlib

    def chunk(kind, data):
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    kind = {2: 4, 3: 2, 4: 6}[values.shape[2]]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def test_deep_colour_of_all_bits_is_read(tmp_path):
    values = RANDOM.integers(0, 65536, (8, 8, 3)).astype(np.uint16)
    (tmp_path / "x.png").write_bytes(png_of_16_bit_colour(values))
    assert least_bits([tmp_path / "x.png"]) == (16, 1)
    np.testing.assert_array_equal(np.asarray(read(tmp_path / "x.png")), values >> 8)


@pytest.mark.parametrize("channels", [2, 4])
def test_an_opaque_alpha_says_nothing_of_the_bits(tmp_path, channels):
    values = RANDOM.integers(0, 4096, (8, 8, channels)).astype(np.uint16)
    values[..., -1] = 65535
    (tmp_path / "x.png").write_bytes(png_of_16_bit_colour(values))
    assert least_bits([tmp_path / "x.png"]) == (12, 1)


def test_a_set_of_12_and_16_bits_is_told_of(tmp_path, caplog):
    put_classes(tmp_path, lambda i: noise(i, 4096 if i % 2 else 65536, np.uint16))
    load_folder(tmp_path, size=8)
    (message,) = (m for m in caplog.messages if "need at most 12 bits" in m)
    assert re.search(r"[ab]/[0-9]+\.png: [1-9][0-9]* of [0-9]+ image\(s\) of more", message)
    caplog.clear()
    put_classes(tmp_path / "other", lambda i: noise(i, 4096 if i % 2 else 16384, np.uint16))
    load_folder(tmp_path / "other", size=8)
    assert "need at most" not in caplog.text


def test_planes_of_16_bits_are_refused(tmp_path):
    values = np.full((3, 8, 8), 4095, np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="rgb", planarconfig="separate")
    with pytest.raises(DataError, match="has separate planes of 16 bits"):
        read(tmp_path / "x.tif")


@pytest.mark.parametrize(
    ("channels", "dtype", "message"),
    [
        (2, np.uint8, "has 2 channels of grey, expected one, or three of colour"),
        (1, np.int8, "has signed pixels of 8 bits"),
        (1, np.float64, "is a TIFF of 1 floating-point channel\\(s\\) of 64 bits, expected grey"),
        (5, np.uint8, "is a TIFF of 5 channel\\(s\\) of 8 bits, expected grey"),
    ],
)
def test_tiffs_that_would_be_misread_are_refused(tmp_path, channels, dtype, message):
    values = np.squeeze(np.ones((8, 8, channels), dtype))
    options = {"planarconfig": "contig"} if channels > 1 else {}
    tifffile.imwrite(tmp_path / "x.tif", values, photometric="minisblack", **options)
    with pytest.raises(DataError, match=message):
        read(tmp_path / "x.tif")


def test_a_set_that_is_nearly_black_is_told_of(tmp_path, caplog):
    def with_a_mark(i):
        values = noise(i, 2000, np.uint16)
        values[0, 0] = 65535 if i == 5 else 0
        return values

    put_classes(tmp_path, with_a_mark)
    load_folder(tmp_path, size=8, resize="nearest")
    assert "the images are nearly black" in caplog.text
    assert "config.data.bits" in caplog.text


def test_orientation_counts_in_deep_images_too(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    values = RANDOM.integers(0, 4096, (5, 9)).astype(np.uint16)
    file = save(values, tmp_path / "x.tif", exif=exif)
    expected = np.rint(np.rot90(values, -1).astype(float) * 255 / 4095)
    np.testing.assert_array_equal(np.asarray(read(file, bits=12)), expected)


# Frames


def frames(count, size=(9, 14)):
    return [
        Image.fromarray(np.random.default_rng(i).integers(0, 256, size, np.uint8))
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("tif", {}), ("gif", {}), ("png", {}), ("webp", {"lossless": True})],
)
def test_files_of_several_frames_are_an_error_unless_one_is_chosen(tmp_path, suffix, options):
    file, pages = tmp_path / f"x.{suffix}", frames(3)
    pages[0].save(file, save_all=True, append_images=pages[1:], **options)
    with pytest.raises(
        DataError, match=r"x.*: holds 3 frames, expected one image.*config.data.frame"
    ):
        decode(file, size=4)
    for number, page in enumerate(pages, 1):
        found = decode(file, size=14, channels=1, frame=number, resize="nearest")
        expected = decode(
            save(np.asarray(page), tmp_path / "1.png"), size=14, channels=1, resize="nearest"
        )
        np.testing.assert_array_equal(found, expected)
    with pytest.raises(DataError, match="holds 3 frames, but config.data.frame is 4"):
        decode(file, size=4, frame=4)


@pytest.mark.parametrize("suffix", ["tif", "gif", "png", "webp", "jpg", "bmp"])
def test_single_frames_need_no_choice_and_stand_any(tmp_path, suffix):
    file = tmp_path / f"x.{suffix}"
    frames(1)[0].save(file)
    np.testing.assert_array_equal(decode(file, size=4), decode(file, size=4, frame=2))


@pytest.mark.parametrize("kind", [1, 4])
def test_thumbnails_and_masks_in_a_tiff_are_not_frames(tmp_path, kind):
    first, second = frames(2)
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[254] = kind
    with TiffImagePlugin.AppendingTiffWriter(tmp_path / "x.tif", True) as stream:
        first.save(stream, "TIFF")
        stream.newFrame()
        second.save(stream, "TIFF", tiffinfo=tags)
    np.testing.assert_array_equal(np.asarray(read(tmp_path / "x.tif")), np.asarray(first))


def test_the_preview_in_a_cameras_jpeg_is_not_a_frame(tmp_path):
    first, second = frames(2)
    first.save(tmp_path / "x.jpg", "MPO", save_all=True, append_images=[second])
    first.save(tmp_path / "y.jpg")
    np.testing.assert_array_equal(
        decode(tmp_path / "x.jpg", size=9), decode(tmp_path / "y.jpg", size=9)
    )


# Formats


@pytest.mark.parametrize(
    "name",
    ["x.webp", "x.gif", "x.ppm", "x.pgm", "x.jp2", "x.j2k", "x.jfif", "x.jpe", "X.WEBP"],
)
def test_formats_that_people_use_are_read(tmp_path, name):
    file = tmp_path / name
    smooth = np.linspace(0, 255, 9 * 14 * 3).reshape(9, 14, 3).astype(np.uint8)
    image = Image.fromarray(GREY if name in ("x.gif", "x.pgm") else smooth)
    image.save(file, **({"lossless": True} if "webp" in name.lower() else {}))
    assert list_images(tmp_path) == [name]
    found = np.asarray(read(file).convert(image.mode)).astype(int)
    lossy = name in ("x.jfif", "x.jpe", "x.jp2", "x.j2k")
    assert np.abs(found - np.asarray(image)).max() <= (9 if lossy else 0)


def test_a_class_of_another_format_is_read_and_it_says_that_the_format_may_tell(tmp_path, caplog):
    for i in range(9):
        save(noise(i), tmp_path / f"a/{i}.png")
        save(noise(50 + i), tmp_path / f"b/{i}.JPEG")
    assert list_folder(tmp_path).class_names == ("a", "b")
    assert "all 9 image(s) of class 'b' are .jpg, and those of other classes are not" in caplog.text
    caplog.clear()
    save(noise(99), tmp_path / "a/x.jpg")
    list_folder(tmp_path)
    assert "may tell" not in caplog.text


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"\0\0\0\x18ftypheic", "HEIC"),
        (b"\0\0\0\x18ftypavif", "AVIF"),
        (b"%PDF-1.7", "PDF"),
        (b"file,label\n", "text"),
        (b"\x1f\x8b\x08\0", "gzip"),
        (b"PK\3\4", "zip"),
        (b"II+\0\x08\0", "BigTIFF"),
        (b"NRRD0004\n", "NRRD"),
    ],
)
def test_other_formats_are_named(tmp_path, start, kind):
    (tmp_path / "x.png").write_bytes(start)
    with pytest.raises(DataError, match=f"x.png: cannot be read as an image .it is {kind}"):
        decode(tmp_path / "x.png", size=4)


def test_a_damaged_file_of_a_known_format_is_called_so(tmp_path):
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99))
    with pytest.raises(
        DataError, match="not a sound PNG file, or a kind of it that is not supported"
    ):
        decode(tmp_path / "x.png", size=4)


def test_a_jpeg_that_ends_in_zeros_is_not_read_as_grey(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = save(pixels, tmp_path / "x.jpg", quality=95)
    whole = decode(file, size=4)
    data = file.read_bytes()
    file.write_bytes(data + bytes(200))  # Padding after its end.
    np.testing.assert_array_equal(decode(file, size=4), whole)
    file.write_bytes(data[: len(data) // 2] + bytes(len(data) // 2))
    with pytest.raises(DataError, match=f"ends in {len(data) // 2} zero bytes, so part of it is"):
        decode(file, size=4)


@pytest.mark.parametrize("name", ["pipe.png", "device.png", "loop.png", "n" * 300 + ".png"])
def test_what_is_not_a_file_is_an_error_at_once(tmp_path, name):
    file = tmp_path / name
    if name == "pipe.png":
        os.mkfifo(file)
    elif name == "device.png":
        file.symlink_to("/dev/zero")
    elif name == "loop.png":
        file.symlink_to(file)
    with pytest.raises(DataError, match="cannot be read as an image"):
        decode(file, size=4)


# Fit


def test_padding_and_cropping_keep_the_proportions(tmp_path):
    wide, tall = save(RGB, tmp_path / "w.png"), save(RGB.transpose(1, 0, 2), tmp_path / "t.png")
    padded = decode(wide, size=14, fit="pad")
    np.testing.assert_array_equal(padded[2:11], RGB)
    assert not padded[:2].any() and not padded[11:].any()
    np.testing.assert_array_equal(decode(tall, size=14, fit="pad")[:, 2:11], RGB.transpose(1, 0, 2))
    middle = save(RGB[:, 2:11], tmp_path / "m.png")
    for size in (5, 9, 20):
        cropped = decode(save(RGB[:, 1:12], tmp_path / "c.png"), size=size, fit="crop")
        np.testing.assert_array_equal(cropped, decode(save(RGB[:, 2:11], middle), size=size))


@pytest.mark.parametrize("size", [3, 8, 31])
def test_padding_is_pillows(tmp_path, size):
    file = save(RGB, tmp_path / "x.png")
    expected = ImageOps.pad(Image.fromarray(RGB), (size, size), Image.Resampling.BILINEAR)
    found = decode(file, size=size, resize="bilinear", fit="pad")
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(
        from_array(RGB, size=size, resize="bilinear", fit="pad"), expected
    )


def test_a_line_one_pixel_high_is_padded(tmp_path):
    file = save(np.full((1, 400), 200, np.uint8), tmp_path / "x.png")
    assert decode(file, size=8, channels=1, fit="pad").sum() == 8 * 200


def test_unknown_fit(tmp_path):
    with pytest.raises(
        ConfigError, match="config.data.fit is 'stretch', expected one of squash, pad"
    ):
        decode(save(RGB, tmp_path / "x.png"), size=4, fit="stretch")


# Listing


def test_links_are_followed_and_hidden_folders_left_out(tmp_path):
    for name in ("new/a.png", "new/deep/b.png", "elsewhere/c.png", "new/.hidden/d.png"):
        save(GREY, tmp_path / name)
    for name in ("new/__MACOSX/e.png", "new/@eaDir/f.png", "new/._g.png"):
        save(GREY, tmp_path / name)
    (tmp_path / "new/linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "new/file.png").symlink_to(tmp_path / "elsewhere/c.png")
    assert list_images(tmp_path / "new") == ["a.png", "deep/b.png", "file.png", "linked/c.png"]


@pytest.mark.parametrize("target", [".", "..", "deep"])
def test_a_loop_of_links_is_an_error(tmp_path, target):
    save(GREY, tmp_path / "new/deep/b.png")
    (tmp_path / "new/deep/linked").symlink_to(tmp_path / "new" / target)
    with pytest.raises(DataError, match="(linked|new): a link to a folder that holds it"):
        list_images(tmp_path / "new")


def test_what_is_left_out_is_counted_by_kind(tmp_path, caplog):
    save(GREY, tmp_path / "a.png")
    for name in ("b.heic", "c.HEIC", "d.nii", "notes.txt", "README"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "e.bak").write_bytes((tmp_path / "a.png").read_bytes())
    assert list_images(tmp_path) == ["a.png"]
    assert "left out 6 file(s)" in caplog.text
    assert "2 .heic (save as PNG or JPEG)" in caplog.text
    assert "1 .bak (PNG inside: rename it)" in caplog.text
    assert "1 without a suffix (text)" in caplog.text


def test_tables_and_notes_beside_the_images_need_no_warning(tmp_path, caplog):
    save(GREY, tmp_path / "a.png")
    (tmp_path / "labels.csv").write_text("x")
    with caplog.at_level(logging.WARNING):
        list_images(tmp_path)
    assert not caplog.text


def test_nothing_to_predict_names_what_there_is(tmp_path):
    (tmp_path / "x.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"found no images in it .*, but 1 .heic \(save as PNG"):
        list_images(tmp_path)
    with pytest.raises(DataError, match="found nothing there"):
        list_images(tmp_path / "none")


def test_a_class_of_files_that_cannot_be_read_does_not_vanish(tmp_path):
    put_classes(tmp_path, noise, count=4)
    (tmp_path / "c").mkdir()
    (tmp_path / "c/0.heic").write_bytes(b"x")
    with pytest.raises(DataError, match=r"class 'c' has no image .* 1 .heic"):
        list_folder(tmp_path)
    (tmp_path / "c/0.heic").unlink()
    with pytest.raises(DataError, match="class folder 'c' is empty"):
        list_folder(tmp_path)
    (tmp_path / "c").rename(tmp_path / "__MACOSX")
    assert list_folder(tmp_path).class_names == ("a", "b")


@pytest.mark.parametrize("suffix", [".heic", ".svs", ".nii.gz"])
def test_files_left_out_of_training_are_counted(tmp_path, suffix, caplog):
    put_classes(tmp_path, noise, count=4)
    for i in range(5):
        (tmp_path / "b" / f"{i}{suffix}").write_bytes(b"x")
    assert sum(len(load_folder(tmp_path, size=4).split(key)) for key in SPLITS) == 8
    assert "left out 5 file(s)" in caplog.text


@pytest.mark.parametrize(
    "names",
    [("Train", "Test"), ("training", "testing"), ("TRAIN", "Valid", "TEST"), ("train", "dev")],
)
def test_folders_of_splits_are_known_however_they_are_spelt(tmp_path, names):
    for place, name in enumerate(names):
        put_classes(tmp_path / name, lambda i, place=place: noise(1000 * place + i), count=4)
    listing = list_folder(tmp_path)
    assert listing.class_names == ("a", "b")
    assert {file.split("/")[0] for file in listing.train.files} == {names[0]}
    if len(names) > 2 or names[1] == "dev":
        assert {file.split("/")[0] for file in listing.val.files} == {names[1]}


def test_odd_images_are_told_of(tmp_path, caplog):
    put_classes(tmp_path, noise)
    save(np.zeros((8, 8), np.uint8), tmp_path / "a/black.png")
    save(np.full((8, 8), 9, np.uint8), tmp_path / "a/constant.png")
    save(np.full((8, 8, 3), (0, 0, 255), np.uint8), tmp_path / "a/blue.png")
    save(noise(1, 2), tmp_path / "a/mask.png")
    save(np.dstack([RGB, np.zeros((9, 14), np.uint8)]), tmp_path / "b/transparent.png")
    load_folder(tmp_path, size=8, resize="nearest")
    assert "2 image(s) are black or transparent" in caplog.text
    assert "2 image(s) are of one colour" in caplog.text
    assert "1 image(s) are of the values 0 and 1 only, such as a/mask.png" in caplog.text


def test_a_class_that_is_nearly_black_white_or_flat_is_told_of(tmp_path, caplog):
    put_classes(tmp_path, lambda i: noise(i) // (16 if i < 100 else 1), count=4)
    save(noise(1, 6) + 250, tmp_path / "b/white.png")
    save(noise(2, 9) + 100, tmp_path / "b/flat.png")
    load_folder(tmp_path, size=8, resize="nearest")
    assert "4 image(s) are nearly black, such as a/" in caplog.text
    assert "2 image(s) are nearly flat, such as b/" in caplog.text
    assert "the images are" not in caplog.text


def test_the_options_of_decoding_are_kept_for_other_files(tmp_path):
    put_classes(tmp_path, lambda i: noise(i, 1024, np.uint16))
    dataset = load_folder(tmp_path, size=8, fit="crop", resize="bilinear")
    assert dataset.decoding == {
        "size": 8, "resize": "bilinear", "fit": "crop", "channels": 1, "bits": 10, "window": (),
        "frame": 0, "max_megapixels": 100,
    }  # fmt: skip
    for name, image in pixels_of(dataset).items():
        np.testing.assert_array_equal(decode(tmp_path / name, **dataset.decoding), image)
    assert count_channels([tmp_path / name]) == 1
