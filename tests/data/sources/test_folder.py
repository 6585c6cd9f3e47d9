import csv
import errno
import io
import logging
import math
import pathlib
import random
import tempfile
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources import folder, images
from lsanet_jax.data.sources.folder import list_folder, load_folder
from lsanet_jax.data.sources.images import count_channels, decode
from lsanet_jax.data.splits import draw_splits
from lsanet_jax.errors import ConfigError, DataError

GREY = np.array([[0, 50, 100], [150, 200, 255], [7, 8, 9]], np.uint8)
RGB = np.stack([GREY, GREY.T, 255 - GREY], axis=-1)


def put(root, *files, array=GREY):
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(root / file)


def put_classes(root, splits=SPLITS, classes=("a", "b"), count=1):
    for split in splits:
        put(root, *(f"{split}/{name}/{i}.png" for name in classes for i in range(count)))


def put_table(root, *lines, name="labels.csv", images=True):
    """Writes a CSV and the images of its first column."""
    (root / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    if images:
        put(root, *(line.split(",")[0] for line in lines[1:]))
    return name


def put_rows(root, count=20, header="file,label", row="{i}.png,{label}"):
    """A CSV of `count` images of two classes, without splits."""
    rows = (row.format(i=i, label="ab"[i % 2], group=i // 3) for i in range(count))
    return put_table(root, header, *rows)


def splits_of(listing):
    return {file: key for key in SPLITS for file in listing.split(key).files}


def labels_of(listing):
    pairs = {}
    for key in SPLITS:
        files, labels, _ = listing.split(key)
        pairs |= dict(zip(files, labels.tolist(), strict=True))
    return pairs


def error_of(call, *arguments, **options):
    with pytest.raises(DataError) as caught:
        call(*arguments, **options)
    return str(caught.value)


def saved(tmp_path, image, name="image.png", **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


# Class folders


def test_folders_of_splits_and_classes(tmp_path):
    put_classes(tmp_path / "lesions", count=2)
    put(tmp_path / "lesions", "val/b/0.png", array=GREY.T)
    dataset = load_folder(tmp_path / "lesions", size=3)
    assert (dataset.name, dataset.task, dataset.class_names) == (
        "lesions",
        "binary-class",
        ("a", "b"),
    )
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(dataset.val.images[..., 0], [GREY, GREY, GREY.T, GREY])
    assert not (tmp_path / "lesions" / folder.SPLITS_FILE).exists()


def test_suffixes_in_any_case_count_and_other_or_hidden_files_do_not(tmp_path):
    put_classes(tmp_path)
    put(tmp_path, "train/a/1.JPG", "train/a/2.jpeg", "train/a/3.bmp", "train/a/4.TIF")
    put(tmp_path, "train/a/5.tiff", "train/a/.hidden.png", ".cache/x.png")
    (tmp_path / "train/a/Thumbs.db").touch()
    files = list_folder(tmp_path).train.files
    assert [pathlib.Path(file).name for file in files] == [
        "0.png", "1.JPG", "2.jpeg", "3.bmp", "4.TIF", "5.tiff", "0.png",
    ]  # fmt: skip


def test_masks_beside_their_images_are_left_out_and_counted(tmp_path, caplog):
    names = [f"{name}/{name} ({i})" for name in "ab" for i in range(4)]
    put(tmp_path, *(f"{name}.png" for name in names), "a/of_a_mask.png", "b/b_label.png")
    put(tmp_path, *(f"{name}{end}.png" for name in names for end in ("_mask", "_mask_1", "-GT")))
    kept = {*(f"{name}.png" for name in names), "a/of_a_mask.png", "b/b_label.png"}
    assert set(splits_of(list_folder(tmp_path))) == kept
    assert "left out 24 mask(s) beside their images, such as a/a (0)-GT.png" in caplog.text
    assert set(images.list_images(tmp_path)) == kept
    table = put_table(tmp_path, "file,label", *(f"a/a ({i})_mask.png,{i % 2}" for i in range(4)))
    assert len(splits_of(list_folder(tmp_path, csv=table))) == 4


@pytest.mark.parametrize(
    "name",
    [
        *("{}_anno", "{}_superpixels", "{}_roi", "{}_annotation", "{}_groundtruth", "{}.mask"),
        *("mask_{}", "GT-{}"),
    ],
)
def test_pictures_of_annotations_are_left_out_and_counted(tmp_path, name, caplog):
    put(tmp_path, *(f"{label}/x{i}.png" for label in "ab" for i in range(4)))
    put(tmp_path, *(f"{label}/{name.format(f'x{i}')}.png" for label in "ab" for i in range(4)))
    assert len(splits_of(list_folder(tmp_path))) == 8
    assert "left out 8 mask(s) beside their images" in caplog.text


def test_many_names_of_another_image_and_a_word_are_told_of(tmp_path, caplog):
    put(
        tmp_path,
        *(
            f"{label}/x{i}{end}.png"
            for label in "ab"
            for i in range(4)
            for end in ("", "_heat", "_2")
        ),
    )
    assert len(splits_of(list_folder(tmp_path))) == 24
    assert "8 name(s) are that of another image and 'heat', such as a/x0_heat.png" in caplog.text
    assert caplog.text.count("are that of another") == 1


def test_classes_called_masks_are_told_of(tmp_path, caplog):
    put(tmp_path, *(f"{label}/{i}.png" for label in ("images", "Masks") for i in range(6)))
    assert list_folder(tmp_path).class_names == ("Masks", "images")
    assert "the folder(s) 'Masks' are read as classes" in caplog.text


def test_splits_are_drawn_where_there_are_none(tmp_path):
    put(tmp_path, *(f"{name}/{i}.png" for name in "abc" for i in range(10)))
    dataset = load_folder(tmp_path, size=2)
    assert dataset.task == "multi-class"
    assert [np.bincount(dataset.split(key).labels).tolist() for key in SPLITS] == [
        [7, 7, 7],
        [1, 1, 1],
        [2, 2, 2],
    ]


@pytest.mark.parametrize("missing", ["val", "test"])
def test_only_the_missing_split_is_taken_out_of_train(tmp_path, missing):
    (other,) = {"val", "test"} - {missing}
    put_classes(tmp_path, ("train", other), count=10)
    splits = splits_of(list_folder(tmp_path))
    assert {file.split("/")[0] for file, key in splits.items() if key == missing} == {"train"}
    assert sum(key == other for key in splits.values()) == 20
    assert sum(key == missing for key in splits.values()) == {"val": 2, "test": 4}[missing]


def test_class_names_that_are_numbers_are_ordered_by_value(tmp_path):
    names = [str(i) for i in range(11)]
    put_classes(tmp_path, classes=names)
    listing = list_folder(tmp_path, task="ordinal-regression")
    assert listing.class_names == tuple(names)
    assert labels_of(listing)["val/10/0.png"] == 10


@pytest.mark.parametrize("names", [("5%", "10%", "100%"), ("1_a", "2_b", "10_c"), ("0,5", "10,0")])
def test_grades_are_ordered_by_the_numbers_that_they_begin_with(tmp_path, names, caplog):
    put_classes(tmp_path, classes=names)
    assert list_folder(tmp_path, task="ordinal-regression").class_names == names
    told = [line for line in caplog.messages if "the grades are, in this order" in line]
    assert len(told) == (tuple(sorted(names)) != names)


@pytest.mark.parametrize("form", ["{}{}", "{1}_{0}", "{}-{}"])
def test_folders_of_a_split_and_a_class_each_are_an_error(tmp_path, form):
    names = [form.format(split, name) for split in ("train", "test") for name in "AB"]
    put_classes(tmp_path, ".", names)
    with pytest.raises(DataError, match="tell of a split and a class, each"):
        list_folder(tmp_path)


def test_the_order_of_grades_is_told(tmp_path, caplog):
    put_classes(tmp_path, classes=("none", "mild", "severe"))
    list_folder(tmp_path, task="ordinal-regression")
    assert "the grades are, in this order: mild, none, severe. If" in caplog.text
    caplog.clear()
    put_classes(tmp_path / "numbered", classes=("0_none", "1_mild"))
    list_folder(tmp_path / "numbered", task="ordinal-regression")
    assert not caplog.messages


def test_an_empty_class_folder_says_that_val_has_no_such_images(tmp_path):
    put_classes(tmp_path, classes="abc")
    (tmp_path / "val/c/0.png").unlink()
    assert list_folder(tmp_path).val.labels.tolist() == [0, 1]


def test_class_folders_that_differ_between_splits(tmp_path):
    put_classes(tmp_path, classes="abc")
    (tmp_path / "val/c").rename(tmp_path / "val/C")
    assert "found class 'C' in val but not in train" in error_of(list_folder, tmp_path)
    (tmp_path / "val/C/0.png").unlink()
    (tmp_path / "val/C").rmdir()
    assert "found class 'c' in train but not in val" in error_of(list_folder, tmp_path)


def test_class_without_training_image(tmp_path):
    put_classes(tmp_path, classes="abc")
    (tmp_path / "train/c/0.png").unlink()
    message = error_of(list_folder, tmp_path)
    assert "class 'c' has an image in test (test/c/0.png) but none in train" in message


def test_other_folders_next_to_the_splits(tmp_path):
    put_classes(tmp_path)
    put(tmp_path, "masks/a/0.png")
    assert "found folder 'masks' next to test, train, val" in error_of(list_folder, tmp_path)
    (tmp_path / "masks").rename(tmp_path / "Validation")
    message = error_of(list_folder, tmp_path)
    assert "found 'Validation' and 'val', both folders of val, expected one" in message


def test_no_training_folder(tmp_path):
    put_classes(tmp_path, ("val", "test"))
    assert "found no folder 'train' next to test, val" in error_of(list_folder, tmp_path)


@pytest.mark.parametrize("place", ["split/train/x.png", "plain/x.png"])
def test_images_outside_class_folders(tmp_path, place):
    put_classes(tmp_path / "split")
    put(tmp_path / "plain", "a/0.png", "b/0.png")
    put(tmp_path, place)
    message = error_of(list_folder, tmp_path / place.split("/")[0])
    assert f"{place}: found an image outside class folders" in message
    assert "name a table of the labels in config.data.csv" in message


def test_folders_inside_class_folders(tmp_path):
    put(tmp_path, "a/0.png", "b/0.png", "b/deep/0.png")
    assert "deep: found a folder in class folder 'b'" in error_of(list_folder, tmp_path)


def test_split_folder_without_images(tmp_path):
    put_classes(tmp_path, ("train", "val"))
    (tmp_path / "test").mkdir()
    assert "test: found no images in 0 class folder(s)" in error_of(list_folder, tmp_path)


def test_no_folder_and_empty_folder(tmp_path):
    assert "found no folder: set config.data.path" in error_of(list_folder, tmp_path / "none")
    assert "found no images in 0 class folder(s)" in error_of(list_folder, tmp_path)


def test_one_class(tmp_path):
    put(tmp_path, *(f"a/{i}.png" for i in range(9)))
    assert "found 1 class(es) (a)" in error_of(list_folder, tmp_path)


def test_too_few_images_for_three_splits(tmp_path):
    put(tmp_path, "a/0.png", "b/0.png")
    assert "found 2 images, split to 2 train, 0 val, 0 test" in error_of(list_folder, tmp_path)
    assert not (tmp_path / folder.SPLITS_FILE).exists()


def test_name_that_is_no_unicode(tmp_path):
    put(tmp_path, "a/0.png", "b/0.png")
    try:
        (tmp_path / "a/0.png").rename(tmp_path / "a" / "\udcff.png")
    except OSError:
        pytest.skip("this file system takes Unicode only")
    assert "expected a name in UTF-8" in error_of(list_folder, tmp_path)


# CSV


def test_table_with_splits(tmp_path):
    (tmp_path / "labels.csv").write_text(
        "age,file,split,label\n40,x/2.png,val,benign\n41,1.png,train,malignant\n"
        '9,0.png,train,benign\n1,3.png,train,benign\n7,4.png,test," malignant"\n'
    )
    put(tmp_path, "x/2.png", "0.png", "1.png", "3.png", "4.png")
    listing = list_folder(tmp_path, csv="labels.csv")
    assert listing.class_names == ("benign", "malignant")
    assert listing.train.files == ("0.png", "1.png", "3.png")
    assert labels_of(listing) == {"x/2.png": 0, "1.png": 1, "0.png": 0, "3.png": 0, "4.png": 1}
    assert splits_of(listing)["x/2.png"] == "val"


def test_table_may_lie_elsewhere_and_start_with_a_byte_order_mark(tmp_path):
    (tmp_path / "images").mkdir()
    table = tmp_path / put_rows(tmp_path / "images")
    table = (tmp_path / "images" / table.name).rename(table)
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert len(splits_of(list_folder(tmp_path / "images", csv=str(table)))) == 20


def test_label_columns_are_multi_label_in_their_order(tmp_path):
    table = put_table(
        tmp_path,
        "file,split,zoster,acne,patient",
        *("0.png,train,1,0,p", "1.png,train,1.0,1,p", "2.png,val,0,0.0,q", "3.png,test,0,1,r"),
    )
    dataset = load_folder(tmp_path, csv=table, size=2)
    assert (dataset.task, dataset.class_names) == ("multi-label", ("zoster", "acne"))
    assert dataset.train.labels.tolist() == [[1, 0], [1, 1]]
    assert dataset.val.labels.tolist() == [[0, 0]]


def test_one_label_column_is_multi_label_if_asked(tmp_path):
    table = put_table(tmp_path, "file,label", *(f"{i}.png,{i % 2}" for i in range(9)))
    listing = list_folder(tmp_path, csv=table, task="multi-label")
    assert listing.class_names == ("label",)
    assert listing.train.labels.shape[1] == 1


def test_labels_that_are_numbers_keep_their_order(tmp_path):
    table = put_table(tmp_path, "file,label", *(f"{i}.png,{i % 12}" for i in range(60)))
    listing = list_folder(tmp_path, csv=table, task="ordinal-regression")
    assert listing.class_names == tuple(map(str, range(12)))
    assert all(label == int(file[:-4]) % 12 for file, label in labels_of(listing).items())


@pytest.mark.parametrize("column", ["patient", "lesion_id"])
def test_groups_stay_whole(tmp_path, column):
    table = put_rows(tmp_path, 90, f"file,label,{column}", "{i}.png,{label},g{group}")
    splits = splits_of(list_folder(tmp_path, csv=table))
    groups = {}
    for file, key in splits.items():
        groups.setdefault(int(file[:-4]) // 3, set()).add(key)
    assert {len(keys) for keys in groups.values()} == {1}
    assert [list(splits.values()).count(key) for key in SPLITS] == [63, 9, 18]


def test_patients_count_before_lesions(tmp_path):
    table = put_rows(tmp_path, 90, "file,label,lesion_id,patient", "{i}.png,{label},l{i},g{group}")
    splits = splits_of(list_folder(tmp_path, csv=table))
    assert all(splits[f"{i}.png"] == splits[f"{i + 1}.png"] for i in range(0, 90, 3))


def test_given_splits_that_tear_a_group(tmp_path):
    table = put_table(
        tmp_path,
        "file,label,split,patient",
        *("0.png,a,train,p", "1.png,b,train,q", "2.png,a,val,p", "3.png,b,test,r"),
    )
    message = error_of(list_folder, tmp_path, csv=table)
    assert "1 patient(s) or other group(s) have images in several splits" in message
    assert "0.png (train) and 2.png (val)" in message
    listing = list_folder(tmp_path, csv=table, leaks="warn")
    assert splits_of(listing)["2.png"] == "val"


def test_quoted_names_with_commas_and_lines(tmp_path):
    put(tmp_path, *(f"a,\r{i}\n.png" for i in range(8)))
    table = put_table(
        tmp_path, "file,label", *(f'"a,\r{i}\n.png",{i % 2}' for i in range(8)), images=False
    )
    first = splits_of(list_folder(tmp_path, csv=table))
    assert len(first) == 8
    assert splits_of(list_folder(tmp_path, csv=table)) == first


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "line 1: the file is empty"),
        (["a,b", "x,y"], "line 1: found no column of files among 'a', 'b'"),
        (["file,label,label", "0.png,a,a"], "line 1: found column 'label' twice"),
        (["file,age,sex", "0.png,4,m"], "among 'file' (files), 'age', 'sex', expected 'label'"),
        (["file,,x", "0.png,1,0"], "line 1: found a column without a name in ['file', '', 'x']"),
        (["file,label", "0.png,a,b"], "line 2: found 3 cells, expected 2"),
        (["file,label", "0.png,a", "0.png,b"], "line 3: '0.png' is in line 2 too"),
        (["file,label", "0.png,a", "./0.png,b"], "line 3: '0.png' is in line 2 too"),
        (["file,label", "0.png,a", "none.png,b"], "line 3: there is no file 'none.png'"),
        (["file,label", ",a"], "line 2: there is no file ''"),
        (["file,label", "0.png\0,a"], "line 2: there is no file '0.png\\x00'"),
        (["file,label", "0.png, "], "line 2: 'label' is ' ', expected a value"),
        (
            ["file,label,split", "0.png,a,later"],
            "line 2: 'split' is 'later', expected one of train,",
        ),
        (["file,label,split", "0.png,a,"], "line 2: 'split' is '', expected one of train, val"),
        (["file,label,split", "0.png,a,val"], "found 1 images, but none for training"),
        (
            ["file,label,patient", "0.png,a,", "1.png,b,p"],
            "line 2: 'patient' is '', expected a value",
        ),
        (["file,x,y", "0.png,1,0", "1.png,1,2"], "line 3: 'y' is '2', expected one of 0, 1"),
        (["file,label", '"0.png,a'], "line 2: not CSV (unexpected end of data)"),
        (["file,label", "0.png," + "a" * 140_000], "line 2: not CSV (field larger than field"),
        (["file,label"], "found a header but no rows, expected one for each image"),
        (
            ["# of 2024", "file,label", "0.png,a"],
            "line 2: found 2 cells, expected 1 as in the header, line 1 (# of 2024)",
        ),
    ],
)
def test_malformed_table(tmp_path, lines, message):
    put(tmp_path, "0.png", "1.png")
    table = put_table(tmp_path, *lines, images=False)
    found = error_of(list_folder, tmp_path, csv=table)
    assert message in found
    assert str(tmp_path / table) in found


def test_table_in_another_encoding(tmp_path):
    put(tmp_path, "0.png")
    (tmp_path / "labels.csv").write_bytes(b"file,label\n0.png,a\n1.png,\x81\n")
    message = error_of(list_folder, tmp_path, csv="labels.csv")
    assert "line 3: not UTF-8: save the file as UTF-8" in message


@pytest.mark.parametrize("table", ["none.csv", ".", "a\0.csv"])
def test_table_that_cannot_be_read(tmp_path, table):
    assert "cannot be read" in error_of(list_folder, tmp_path, csv=table)


def test_more_classes_than_anyone_has(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_MOST_CLASSES", 19)
    table = put_table(tmp_path, "file,label", *(f"{i}.png,c{i}" for i in range(20)))
    assert "found 20 classes in 20 images" in error_of(list_folder, tmp_path, csv=table)


# Drawing


def test_drawn_splits_are_stratified():
    labels = np.repeat([0, 1, 2, 3, 4], [1000, 100, 10, 3, 1])
    drawn = np.array(draw_splits(np.eye(5, dtype=bool)[labels], {"val": 0.1, "test": 0.2}, 0))
    counts = {key: np.bincount(labels[drawn == key], minlength=5).tolist() for key in SPLITS}
    assert counts == {
        "train": [700, 70, 7, 1, 1],
        "val": [100, 10, 1, 1, 0],
        "test": [200, 20, 2, 1, 0],
    }


def test_drawn_multi_label_splits_are_stratified():
    present = np.random.default_rng(0).random((2000, 5)) < [0.5, 0.2, 0.1, 0.05, 0.01]
    drawn = np.array(draw_splits(present, {"val": 0.1, "test": 0.2}, 0))
    for key, fraction in {"train": 0.7, "val": 0.1, "test": 0.2}.items():
        assert (drawn == key).mean() == pytest.approx(fraction, abs=0.02)
        shares = present[drawn == key].sum(axis=0) / present.sum(axis=0)
        assert shares == pytest.approx(fraction, abs=0.04)


def test_another_seed_draws_another_split_of_the_same_counts():
    present = np.eye(2, dtype=bool)[np.repeat([0, 1], 20)]
    draws = [draw_splits(present, {"test": 0.3}, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert sorted(draws[0]) == sorted(draws[2])


def test_the_draw_does_not_depend_on_the_order_of_files_or_rows(tmp_path):
    names = [f"{name}/{i}.png" for name in "ab" for i in range(12)]
    listings = []
    for place, order in (("one", names), ("two", names[::-1])):
        put(tmp_path / place, *order)
        listings.append(list_folder(tmp_path / place))
        table = put_table(tmp_path / place, "file,label", *(f"{n},{n[0]}" for n in order))
        listings.append(list_folder(tmp_path / place, csv=table))
    assert all(splits_of(listing) == splits_of(listings[0]) for listing in listings)
    assert all(labels_of(listing) == labels_of(listings[0]) for listing in listings)


# The stored split


def load(root, **options):
    """What a run does: list, decode and, if all went well, write the draw."""
    load_folder(root, size=2, **options)
    return splits_of(list_folder(root, **options))


def test_the_drawn_split_is_written_and_used_again(tmp_path):
    table = put_rows(tmp_path)
    drawn = load(tmp_path, csv=table)
    assert not list(tmp_path.glob(".*"))
    stored = tmp_path / folder.SPLITS_FILE
    rows = list(csv.reader(stored.open()))
    assert rows[0] == ["file", "label", "split", "draw"]
    assert {file: split for file, _, split, _ in rows[1:]} == drawn
    assert splits_of(list_folder(tmp_path, csv=folder.SPLITS_FILE)) == drawn
    stored.write_text(stored.read_text().replace("0.png,a,train", "0.png,a,val"))
    assert splits_of(list_folder(tmp_path, csv=table))["0.png"] == "val"  # By the user's hand.


@pytest.mark.parametrize(
    "other", [{"seed": 5}, {"test_fraction": 0.5}, {"val_fraction": 0.3}, {"folds": 3, "fold": 1}]
)
def test_another_draw_gets_its_own_file_and_says_so(tmp_path, other, caplog):
    table = put_rows(tmp_path)
    first = load(tmp_path, csv=table)
    with caplog.at_level(logging.WARNING):
        second = load(tmp_path, csv=table, **other)
    assert second != first
    (own,) = (file for file in tmp_path.glob("lsanet_splits_*.csv"))
    assert f"the splits are drawn anew, into {own.name}" in caplog.text
    assert "config.data.split_seed" in caplog.text
    assert load(tmp_path, csv=table) == first
    assert load(tmp_path, csv=table, **other) == second
    assert len(list(tmp_path.glob("lsanet_splits*.csv"))) == 2


@pytest.mark.parametrize("change", ["image", "label", "group"])
def test_a_changed_table_is_drawn_anew(tmp_path, change, caplog):
    table = put_rows(tmp_path, 24)
    first = load(tmp_path, csv=table)
    if change == "image":
        put_rows(tmp_path, 25)
    elif change == "label":
        (tmp_path / table).write_text((tmp_path / table).read_text().replace("0.png,a", "0.png,b"))
    else:
        put_rows(tmp_path, 24, "file,label,patient", "{i}.png,{label},{group}")
    with caplog.at_level(logging.WARNING):
        second = load(tmp_path, csv=table)
    assert "is another draw" in caplog.text
    assert len(list(tmp_path.glob("lsanet_splits*.csv"))) == 2
    put_rows(tmp_path, 24)
    assert load(tmp_path, csv=table) == first
    if change == "group":
        assert all(second[f"{i}.png"] == second[f"{i + 1}.png"] for i in range(0, 24, 3))


def test_nothing_is_written_before_the_whole_set_was_read(tmp_path):
    table = put_rows(tmp_path)
    make_broken(tmp_path / "7.png", "truncated")
    assert "7.png: cannot be read" in error_of(load_folder, tmp_path, csv=table, size=2)
    list_folder(tmp_path, csv=table)
    assert not list(tmp_path.glob("lsanet_splits*"))
    (tmp_path / "7.png").unlink()
    rows = (tmp_path / table).read_text().replace("\n7.png,b\n", "\n")
    (tmp_path / table).write_text(rows)
    load_folder(tmp_path, csv=table, size=2)
    assert list(tmp_path.glob("lsanet_splits*")) == [tmp_path / folder.SPLITS_FILE]


def test_a_draw_of_an_earlier_version_is_used_and_it_says_so(tmp_path, caplog):
    table = put_rows(tmp_path, 9)
    rows = "".join(f"{i}.png,{'ab'[i % 2]},{SPLITS[i % 3]}\n" for i in range(9))
    (tmp_path / folder.SPLITS_FILE).write_text(f"file,label,split\n{rows}")
    with caplog.at_level(logging.WARNING):
        found = splits_of(list_folder(tmp_path, csv=table, seed=3))
    assert found == {f"{i}.png": SPLITS[i % 3] for i in range(9)}
    assert "it is used whatever config.data.split_seed" in caplog.text


def test_the_written_multi_label_split_is_itself_a_table(tmp_path):
    rows = (f"{i}.png,{i % 2},{i % 3 // 2}" for i in range(12))
    table = put_table(tmp_path, "file,z,a", *rows)
    load(tmp_path, csv=table)
    listing = list_folder(tmp_path, csv=table)
    again = list_folder(tmp_path, csv=folder.SPLITS_FILE)
    assert again.class_names == ("z", "a")
    assert labels_of(again) == labels_of(listing)
    assert splits_of(again) == splits_of(listing)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: the file is empty"),
        ("file,label\n0.png,a\n", "line 1: found no column 'split'"),
        ("file,split\n0.png,dev\n", "line 2: 'split' is 'dev'"),
        ("name,split\n0.png,train\n", "line 1: found no column 'file'"),
        ("file,split\n0.png,train\n0.png,val\n", "found 1 file(s) twice"),
    ],
)
def test_damaged_stored_split(tmp_path, text, message):
    table = put_rows(tmp_path, 10)
    (tmp_path / folder.SPLITS_FILE).write_text(text)
    found = error_of(list_folder, tmp_path, csv=table)
    assert message in found
    assert folder.SPLITS_FILE in found


def test_folder_that_cannot_be_written_gives_a_warning_and_the_same_split(
    tmp_path, monkeypatch, caplog
):
    def refuse(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    table = put_rows(tmp_path)
    monkeypatch.setattr(pathlib.os, "replace", refuse)
    with caplog.at_level(logging.WARNING):
        first, second = (load(tmp_path, csv=table) for _ in range(2))
    assert first == second
    assert "cannot be written (Read-only file system)" in caplog.text
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".csv"] + [".png"] * 20


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"task": "regression"},
            "config.data.task is 'regression', expected '' or one of multi-class",
        ),
        ({"task": "multi-label"}, "class folders give each image one class"),
        (
            {"val_fraction": 0.0},
            "config.data.val_fraction is 0.0, expected a number between 0 and 1",
        ),
        ({"test_fraction": float("nan")}, "config.data.test_fraction is nan"),
        (
            {"val_fraction": 0.5, "test_fraction": 0.5},
            "config.data.test_fraction is 1, expected less",
        ),
        ({"seed": -1}, "config.data.split_seed is -1"),
        ({"size": 0}, "config.data.size is 0"),
        (
            {"resize": "lanczos"},
            "config.data.resize is 'lanczos', expected one of nearest, bilinear",
        ),
    ],
)
def test_options_outside_their_choices(tmp_path, options, message):
    put_classes(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load_folder(tmp_path, **({"size": 2} | options))
    assert message in str(caught.value)


def test_three_classes_are_not_binary(tmp_path):
    put_classes(tmp_path, classes="abc")
    message = error_of(list_folder, tmp_path, task="binary-class")
    assert "found 3 class(es) (a, b, c) for task 'binary-class', expected 2" in message


def test_label_columns_for_a_task_of_classes(tmp_path):
    table = put_table(tmp_path, "file,x,y", "0.png,1,1")
    message = error_of(list_folder, tmp_path, csv=table, task="multi-class")
    assert "the columns x, y are not one-hot (exactly one 1 in each row)" in message


# Decoding


def pixels(file, **options):
    return decode(file, **({"size": 3, "resize": "nearest"} | options))


@pytest.mark.parametrize("name", ["i.png", "i.bmp", "i.tif"])
def test_grey_and_rgb(tmp_path, name):
    grey = pixels(saved(tmp_path, Image.fromarray(GREY), name), channels=1)
    assert (grey.shape, grey.dtype) == ((3, 3, 1), np.uint8)
    np.testing.assert_array_equal(grey[..., 0], GREY)
    rgb = pixels(saved(tmp_path, Image.fromarray(RGB), name))
    np.testing.assert_array_equal(rgb, RGB)


def test_grey_among_colour_is_repeated(tmp_path):
    put_classes(tmp_path)
    put(tmp_path, "test/b/0.png", array=RGB)
    dataset = load_folder(tmp_path, size=3, resize="nearest")
    assert dataset.channels == 3
    np.testing.assert_array_equal(dataset.train.images[0], np.stack([GREY] * 3, axis=-1))
    np.testing.assert_array_equal(dataset.test.images[1], RGB)


def test_jpeg(tmp_path):
    flat = Image.new("RGB", (8, 8), (200, 100, 50))
    found = pixels(saved(tmp_path, flat, "i.jpg", quality=95)).astype(int)
    assert np.abs(found - [200, 100, 50]).max() <= 2


@pytest.mark.parametrize(
    ("mode", "kind", "suffix"),
    [("I;16", "<u2", "png"), ("I;16", "<u2", "tif"), ("I;16B", ">u2", "tif"), ("I", "<i4", "tif")],
)
def test_16_bit_grey_is_scaled(tmp_path, mode, kind, suffix):
    values = np.array([[0, 128, 129], [257, 25700, 32896], [65279, 65406, 65535]], np.uint16)
    expected = [[0, 0, 1], [1, 100, 128], [254, 254, 255]]
    image = Image.frombytes(mode, (3, 3), values.astype(kind).tobytes())
    file = saved(tmp_path, image, f"i.{suffix}")
    assert pixels(file, channels=1)[..., 0].tolist() == expected
    assert pixels(file)[..., 1].tolist() == expected
    assert count_channels([file]) == 1


@pytest.mark.parametrize("value", [-1, 65536])
def test_integers_beyond_16_bits(tmp_path, value):
    file = saved(tmp_path, Image.fromarray(np.array([[0, value]], np.int32)), "i.tif")
    message = error_of(pixels, file)
    assert f"{file}: has values from {min(0, value)} to {max(0, value)}" in message


def test_floating_point_images_are_refused(tmp_path):
    file = saved(tmp_path, Image.fromarray(GREY.astype(np.float32)), "i.tif")
    assert f"{file}: has floating-point pixels, expected grey of 8 or 16" in error_of(pixels, file)


def test_lab_images_are_refused(tmp_path):
    assert "has LAB pixels" in error_of(pixels, saved(tmp_path, Image.new("LAB", (3, 3)), "i.tif"))


def test_1_bit(tmp_path):
    file = saved(tmp_path, Image.fromarray(GREY > 100))
    assert count_channels([file]) == 1
    np.testing.assert_array_equal(pixels(file, channels=1)[..., 0], (GREY > 100) * 255)


@pytest.mark.parametrize(
    ("image", "channels", "expected"),
    [
        (Image.new("RGBA", (1, 1), (200, 100, 50, 255)), 3, [200, 100, 50]),
        (Image.new("RGBA", (1, 1), (200, 100, 50, 51)), 3, [40, 20, 10]),
        (Image.new("RGBA", (1, 1), (200, 100, 50, 0)), 3, [0, 0, 0]),
        (Image.new("LA", (1, 1), (200, 51)), 1, [40]),
        (Image.new("CMYK", (1, 1), (0, 255, 0, 0)), 3, [255, 0, 255]),
    ],
)
def test_transparency_is_over_black_and_cmyk_is_colour(tmp_path, image, channels, expected):
    file = saved(tmp_path, image, "i.tif")
    assert count_channels([file]) == channels
    assert pixels(file, size=1, channels=channels)[0, 0].tolist() == expected


def test_palette(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    file = saved(tmp_path, image)
    assert count_channels([file]) == 3
    resized = pixels(file, size=2)
    assert resized[0].tolist() == [[10, 20, 30], [40, 50, 60]]
    file = saved(tmp_path, image, transparency=1)
    assert pixels(file, size=2)[0].tolist() == [[10, 20, 30], [0, 0, 0]]


@pytest.mark.parametrize(("mode", "value"), [("L", 90), ("RGB", (9, 8, 7))])
def test_transparent_colour_is_black(tmp_path, mode, value):
    file = saved(tmp_path, Image.new(mode, (1, 1), value), transparency=value)
    assert pixels(file, size=1)[0, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [(1, GREY), (2, GREY[:, ::-1]), (3, GREY[::-1, ::-1]), (6, np.rot90(GREY, -1))],
)
@pytest.mark.parametrize("name", ["i.png", "i.tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, expected, name):
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = saved(tmp_path, Image.fromarray(GREY), name, exif=exif)
    np.testing.assert_array_equal(pixels(file, channels=1)[..., 0], expected)


@pytest.mark.parametrize("resize", images.RESIZES)
def test_images_are_squashed_as_pillow_does(tmp_path, resize):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8))
    found = decode(saved(tmp_path, image), size=5, resize=resize)
    np.testing.assert_array_equal(found, image.resize((5, 5), images.RESIZES[resize]))


def test_one_pixel(tmp_path):
    found = decode(saved(tmp_path, Image.new("RGB", (1, 1), (1, 2, 3))), size=4)
    assert (found == [1, 2, 3]).all()


def test_too_many_pixels_are_refused_from_the_header(tmp_path):
    file = saved(tmp_path, Image.new("1", (2000, 600)))
    message = error_of(pixels, file, max_megapixels=1)
    assert f"{file}: has 2000 x 600 pixels, expected at most 1 megapixels" in message
    assert "(config.data.max_megapixels): shrink" in message
    assert pixels(file, max_megapixels=1.2).max() == 0


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [1200, 3000])
def test_pillows_own_limit_gives_the_same_error_and_does_not_bind(tmp_path, monkeypatch, side):
    file = saved(tmp_path, Image.new("1", (side, side)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    assert "(config.data.max_megapixels): shrink" in error_of(pixels, file, max_megapixels=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "(config.data.max_megapixels): shrink" in error_of(pixels, file, max_megapixels=1)
        assert pixels(file, max_megapixels=9).max() == 0


# Broken images


def make_broken(file, how):
    data = file.read_bytes()
    file.unlink()
    if how == "zero bytes":
        file.touch()
    elif how == "truncated":
        file.write_bytes(data[: len(data) // 2])
    elif how == "not an image":
        file.write_text("<html>404</html>")
    elif how == "a folder":
        file.mkdir()
    elif how == "PostScript":
        file.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


HOW = ("zero bytes", "truncated", "not an image", "a folder", "PostScript", "vanished")


@pytest.mark.parametrize("how", HOW)
def test_broken_image_is_named(tmp_path, how):
    file = saved(tmp_path, Image.fromarray(RGB))
    make_broken(file, how)
    message = error_of(pixels, file)
    assert message.startswith(f"{file}: cannot be read as an image (")


def test_image_without_permission(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(images, "open", refuse, raising=False)
    assert "x.png: cannot be read as an image (Permission denied)" in error_of(
        pixels, tmp_path / "x.png"
    )


@pytest.mark.parametrize("how", ["zero bytes", "truncated", "not an image"])
def test_broken_images_are_left_out_if_asked(tmp_path, how, caplog):
    put_classes(tmp_path, count=3)
    put(tmp_path, "train/a/1.png", array=GREY.T)
    for file in ("train/a/0.png", "train/b/2.png"):
        make_broken(tmp_path / file, how)
    for memory_mb in (math.inf, 0):
        with pytest.raises(DataError) as caught:
            load_folder(tmp_path, size=3, memory_mb=memory_mb).fingerprint  # noqa: B018
        message = str(caught.value)
        assert "train/a/0.png: cannot be read" in message
        assert "config.data.skip_broken=True leaves such images out" in message
    with caplog.at_level(logging.WARNING):
        dataset = load_folder(tmp_path, size=3, skip_broken=True)
    assert dataset.train.labels.tolist() == [0, 0, 1, 1]
    assert dataset.train.names == (
        "train/a/1.png",
        "train/a/2.png",
        "train/b/0.png",
        "train/b/1.png",
    )
    np.testing.assert_array_equal(dataset.train.images[0, ..., 0], GREY.T)
    assert len(dataset.val) == 6
    assert "Left out 2 broken image(s), the first: " in caplog.text
    assert "train/a/0.png" in caplog.text


def test_class_or_split_without_any_sound_image(tmp_path):
    put_classes(tmp_path, count=2)
    for i in range(2):
        make_broken(tmp_path / f"val/b/{i}.png", "truncated")
    message = error_of(load_folder, tmp_path, size=3, skip_broken=True)
    assert "found no sound image of class 'b' in val" in message
    assert "val/b/0.png" in message
    assert "skip_broken" not in message


def test_multi_label_split_without_any_sound_image(tmp_path):
    table = put_table(
        tmp_path, "file,split,x,y", "0.png,train,1,1", "1.png,val,0,0", "2.png,test,0,1"
    )
    make_broken(tmp_path / "1.png", "truncated")
    message = error_of(load_folder, tmp_path, csv=table, size=3, skip_broken=True)
    assert "found no sound image of val, expected at least one" in message


def test_images_that_do_not_fit_into_memory(tmp_path):
    put_classes(tmp_path)
    assert "do not fit into memory: lower config.data.size" in error_of(
        load_folder, tmp_path, size=10**8
    )


def test_images_that_are_not_held_are_not_said_to_be_too_many(tmp_path, caplog):
    put_classes(tmp_path)
    with caplog.at_level(logging.INFO):
        load_folder(tmp_path, size=3, memory_mb=0)
    assert "they are read when they are used, so it was looked for blank images" in caplog.text
    assert "fit into memory" not in caplog.text


def test_order_is_kept_among_many(tmp_path):
    for i in range(64):
        put(
            tmp_path,
            f"{'train' if i < 60 else 'val'}/{'ab'[i % 2]}/{i:02}.png",
            array=GREY // 2 + i,
        )
    put_classes(tmp_path, ("test",))
    listing, dataset = list_folder(tmp_path), load_folder(tmp_path, size=3)
    expected = [GREY // 2 + int(pathlib.Path(file).stem) for file in listing.train.files]
    np.testing.assert_array_equal(dataset.train.images[..., 0], expected)


# Arbitrary input

ARBITRARY = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
TABLE = (
    "file,label,split,patient\n"
    + "".join(f"{i}.png,{'ab'[i % 2]},{SPLITS[i % 3]},p{i % 3}\n" for i in range(6))
).encode()
CELLS = st.sampled_from(
    ["file", "label", "split", "patient", "0.png", "1.png", "./2.png", "3.png", "none", "a", "b"]
    + ["train", "val", "test", "0", "1", "2", "", " ", '"', '"a"', "a\nb", "é", "\0", "..", "/"]
)
SOUP = st.lists(st.lists(CELLS, min_size=1, max_size=4).map(",".join), max_size=8).map(
    lambda lines: "\n".join(lines).encode()
)
ROWS = st.tuples(
    st.sampled_from(["file,label", "file,x,y", "file,split,label", "label,file,patient"]),
    st.lists(st.tuples(*[CELLS] * 3).map(list), max_size=6),
).map(
    lambda drawn: "\n".join(
        [drawn[0], *(",".join(row[: drawn[0].count(",") + 1]) for row in drawn[1])]
    ).encode()
)


@st.composite
def mutated(draw, originals):
    """Bytes cut short, replaced, inserted or deleted at random places."""
    # Not drawn one by one: Hypothesis likes small numbers, and so the first bytes.
    dice = random.Random(draw(st.integers(0, 2**32)))
    data = bytearray(dice.choice(originals))
    how = dice.choice(["cut", "replace", "replace", "replace", "insert or delete"])
    if how == "cut":
        return bytes(data[: dice.randrange(len(data))])
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(data))
        if how == "replace":
            data[place] = dice.randrange(256)
        else:
            data[place : place + dice.randint(0, 3)] = dice.randbytes(dice.randint(0, 3))
    return bytes(data)


def sound_table(dataset_listing, data):
    """Whether labels and splits are what a plain reading of the CSV says, where that is plain."""
    try:
        text = data.decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
        rows = [{key.strip(): value.strip() for key, value in row.items()} for row in rows]
    except (AttributeError, UnicodeDecodeError):
        return
    labels, splits = labels_of(dataset_listing), splits_of(dataset_listing)
    names = dataset_listing.class_names
    for row in rows:
        file = str(pathlib.PurePosixPath(row.get("file", "")))
        if file not in labels:
            continue
        if dataset_listing.task == "multi-label" and set(names) <= row.keys():
            assert labels[file] == [float(row[name]) for name in names]
        elif "label" in row and dataset_listing.task != "multi-label":
            assert names[labels[file]] == row["label"]
        if set(SPLITS) <= {row.get("split") for row in rows} <= set(SPLITS):
            assert splits[file] == row["split"]


@ARBITRARY
@given(st.one_of(mutated([TABLE, TABLE.replace(b"p", b"\xc3\xa9")]), SOUP, ROWS, st.binary()))
def test_any_table_is_one_error_or_right(data):
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place)
        put(root, *(f"{i}.png" for i in range(6)))
        (root / "labels.csv").write_bytes(data)
        try:
            listing = list_folder(root, csv="labels.csv")
        except DataError as error:
            assert place in str(error)
            return
        sound_table(listing, data)
        dataset = load_folder(root, csv="labels.csv", size=2)
        for key in SPLITS:
            np.testing.assert_array_equal(dataset.split(key).labels, listing.split(key).labels)


ODD = ["a/x/0.png", "c/0.txt", ".x/0.png", "test", "a.png/b.txt", "b/.png", "ä/0.TIF", "0.png"]


@st.composite
def folders(draw):
    """Names of files in some or no split folders, and perhaps an odd one."""
    parts = draw(st.sampled_from([["train/"], ["train/", "val/"], ["val/"], [""], [""]]))
    parts = draw(st.sampled_from([parts, ["train/", "val/", "test/"]]))
    names = {f"{part}{c}/{i}.png" for part in parts for c in ("a", "b", "10") for i in "012345"}
    names -= draw(st.sets(st.sampled_from(sorted(names)), max_size=4))
    gone = draw(st.sampled_from([None, None, "a/", "b/", "train/b/", "val/10/", "test/"]))
    odd = draw(st.sampled_from(["", *(part + name for part in parts for name in ODD)]))
    return [name for name in names if not gone or gone not in name] + [odd] * bool(odd)


@ARBITRARY
@given(folders())
def test_any_folder_is_one_error_or_right(names):
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place)
        for name in sorted(names):
            try:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_bytes(IMAGES["png"])
            except OSError:  # A file is where a folder should be, or the other way round.
                continue
        try:
            listing = list_folder(root)
        except DataError as error:
            assert place in str(error)
            return
        for file, label in labels_of(listing).items():
            assert file.split("/")[-2] == listing.class_names[label]


def encoded(name, image, **options):
    stream = io.BytesIO()
    image.save(stream, name, **options)
    return stream.getvalue()


NOISE = np.random.default_rng(0).integers(0, 256, (40, 30, 4), np.uint8)
IMAGES = {
    "png": encoded("PNG", Image.fromarray(NOISE[..., 0])),
    "png rgba": encoded("PNG", Image.fromarray(NOISE)),
    "png palette": encoded("PNG", Image.fromarray(NOISE[..., :3]).quantize(8), transparency=1),
    "png 16": encoded("PNG", Image.fromarray(NOISE[..., 0].astype(np.uint16) * 200)),
    "jpeg": encoded("JPEG", Image.fromarray(NOISE[..., :3]), exif=Image.Exif()),
    "jpeg cmyk": encoded("JPEG", Image.fromarray(NOISE).convert("RGB").convert("CMYK")),
    "tiff": encoded("TIFF", Image.fromarray(NOISE[..., :3])),
    "tiff lzw": encoded("TIFF", Image.fromarray(NOISE), compression="tiff_lzw"),
    "tiff jpeg": encoded("TIFF", Image.fromarray(NOISE[..., :3]), compression="jpeg"),
    "tiff 32": encoded("TIFF", Image.fromarray(NOISE[..., 0].astype(np.int32))),
    "bmp": encoded("BMP", Image.fromarray(NOISE[..., :3])),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Pillow warns of strange headers.
@ARBITRARY
@given(mutated([*IMAGES.values(), b"no image"]))
def test_any_image_is_one_error_or_decoded(data):
    with tempfile.TemporaryDirectory() as place:
        root = pathlib.Path(place)
        put_classes(root)
        put(root, "train/a/sound.png")
        (root / "train/a/0.png").write_bytes(data)
        try:
            dataset = load_folder(root, size=4, max_megapixels=1)
        except DataError as error:
            assert str(root / "train/a/0.png") in str(error)
            dataset = load_folder(root, size=4, max_megapixels=1, skip_broken=True)
            assert dataset.train.labels.tolist() == [0, 1]
        else:
            assert dataset.train.labels.tolist() == [0, 0, 1]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["png rgba", "jpeg", "tiff", "tiff lzw", "bmp"])
def test_an_image_cut_short_anywhere_is_an_error_or_whole(tmp_path, name):
    whole, file = IMAGES[name], tmp_path / "image"
    file.write_bytes(whole)
    expected, errors = pixels(file), 0
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        file.write_bytes(whole[:length])
        try:
            np.testing.assert_array_equal(pixels(file), expected)
        except DataError:
            errors += 1
    assert errors > 45
