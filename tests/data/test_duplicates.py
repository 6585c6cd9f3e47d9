"""The same image twice, in splits, classes, files and arrays."""

import logging
import shutil

import ml_collections
import numpy as np
import pytest
from PIL import Image

from lsanet_jax import data
from lsanet_jax.data import Dataset, duplicates
from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources.folder import list_folder, load_folder
from lsanet_jax.errors import ConfigError, DataError


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (8, 8), np.uint8)


def put(root, name, seed, **options):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels(seed)).save(root / name, **options)


def put_splits(root, count=4):
    for place, key in enumerate(SPLITS):
        for i in range(count):
            put(root, f"{key}/{'ab'[i % 2]}/{i}.png", 100 * place + i)


def error_of(root, **options):
    with pytest.raises(DataError) as caught:
        load_folder(root, size=8, duplicates="error", **options)
    return str(caught.value)


def test_empty_files_are_broken_and_not_alike(tmp_path):
    files = [tmp_path / name for name in ("a", "b", "c", "d")]
    for file, content in zip(files, (b"", b"", b"x", b"x"), strict=True):
        file.write_bytes(content)
    assert duplicates.identical_files(files) == [[2, 3]]


def test_a_test_image_that_is_trained_on_is_an_error(tmp_path):
    put_splits(tmp_path)
    shutil.copy(tmp_path / "train/a/0.png", tmp_path / "test/a/x.png")
    message = error_of(tmp_path)
    assert "1 image(s) are there more than once, in several splits" in message
    assert "train/a/0.png (train)" in message and "test/a/x.png (test)" in message
    assert "config.data.duplicates to 'warn'" in message


@pytest.mark.parametrize(
    ("suffix", "options"),
    [("png", {"compress_level": 0}), ("bmp", {}), ("tif", {}), ("webp", {"lossless": True})],
)
def test_the_same_pixels_in_another_format_are_the_same_image(tmp_path, suffix, options):
    put_splits(tmp_path)
    put(tmp_path, f"val/b/x.{suffix}", 1, **options)
    assert "train/b/1.png (train) = val/b/x." in error_of(tmp_path)


def test_links_to_an_image_are_the_same_image(tmp_path):
    put_splits(tmp_path)
    (tmp_path / "test/b/x.png").symlink_to(tmp_path / "train/b/1.png")
    assert "in several splits" in error_of(tmp_path)


def test_an_image_in_two_classes_is_an_error(tmp_path):
    put_splits(tmp_path)
    put(tmp_path, "train/b/x.png", 0)
    assert "1 image(s) are there more than once, with different labels" in error_of(tmp_path)


def test_images_that_are_not_held_are_compared_as_files(tmp_path):
    put_splits(tmp_path)
    put(tmp_path, "test/a/x.png", 0)
    assert "in several splits" in error_of(tmp_path, memory_mb=0)


def test_copies_inside_a_class_and_split_are_told_of(tmp_path, caplog):
    put_splits(tmp_path)
    put(tmp_path, "train/a/x.png", 0)
    assert len(load_folder(tmp_path, size=8, duplicates="error").train) == 5
    assert "1 image(s) are there more than once: train/a/0.png = train/a/x.png" in caplog.text


@pytest.mark.parametrize("how", ["warn", "allow"])
def test_copies_may_be_meant(tmp_path, how, caplog):
    put_splits(tmp_path)
    put(tmp_path, "test/a/x.png", 0)
    assert len(load_folder(tmp_path, size=8, duplicates=how).test) == 5
    assert ("more than once" in caplog.text) == (how == "warn")


def test_an_unknown_choice(tmp_path):
    put_splits(tmp_path)
    with pytest.raises(ConfigError, match="config.data.duplicates is 'no', expected one of error"):
        load_folder(tmp_path, size=8, duplicates="no")


def test_splits_are_drawn_so_that_copies_stay_together(tmp_path):
    for i in range(60):
        put(tmp_path, f"{'ab'[i // 4 % 2]}/{i}.png", i // 4)
    for seed in range(4):
        listing = list_folder(tmp_path, duplicates="error", seed=seed)
        groups = {}
        for key in SPLITS:
            for file in listing.split(key).files:
                groups.setdefault(int(file[2:-4]) // 4, set()).add(key)
        assert all(len(keys) == 1 for keys in groups.values())


def test_twelve_copies_of_one_image_cannot_be_split(tmp_path):
    for i in range(12):
        put(tmp_path, f"{'ab'[i % 2]}/{i}.png", i % 2)
    with pytest.raises(DataError, match=r"found 12 images in 2 group\(s\) .*identical files"):
        list_folder(tmp_path, duplicates="error")


def arrays(**changed):
    parts = {}
    for place, key in enumerate(SPLITS):
        images = np.stack([pixels(10 * place + i) for i in range(4)])
        parts[key] = [images, np.array([0, 1, 0, 1])]
    return parts


def test_arrays_are_compared_too(tmp_path):
    parts = arrays()
    parts["test"][0][2] = parts["train"][0][0]
    (found,) = duplicates.identical_images(Dataset.from_arrays(**parts))
    assert [image.name for image in found] == ["train_images[0]", "test_images[2]"]
    file = tmp_path / "own.npz"
    np.savez(
        file,
        **{f"{key}_images": images for key, (images, _) in parts.items()},
        **{f"{key}_labels": labels for key, (_, labels) in parts.items()},
    )
    config = ml_collections.ConfigDict(
        {"name": "npz", "path": str(file), "pipeline": "auto", "device_budget_mb": 9}
        | {"train_fraction": 1.0, "train_per_class": 0, "duplicates": "error"}
    )
    with pytest.raises(DataError, match="own.npz: 1 image.* in several splits"):
        data.load(config)
    config.duplicates = "warn"
    assert len(data.load(config).test) == 4


def test_blank_images_are_not_copies_of_each_other(tmp_path, caplog):
    parts = arrays()
    for key in SPLITS:
        parts[key][0][0] = 0
    assert duplicates.identical_images(Dataset.from_arrays(**parts)) == []


def test_labels_of_multi_label_count_as_a_whole(caplog):
    parts = arrays()
    for key in SPLITS:
        parts[key][1] = np.array([[1, 1], [0, 1], [0, 0], [1, 0]])
    parts["train"][0][1] = parts["train"][0][0]
    found = duplicates.identical_images(Dataset.from_arrays(**parts))
    with pytest.raises(DataError, match="with different labels"):
        duplicates.check("x", found, "error")
    with caplog.at_level(logging.WARNING):
        duplicates.check("x", found, "warn")
    assert "with different labels" in caplog.text
