"""Drawn splits and folds: by group, stratified, and possible wherever a split exists."""

import itertools
import logging
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources.folder import list_folder, load_folder
from lsanet_jax.data.splits import draw_folds, draw_splits
from lsanet_jax.errors import ConfigError, DataError

FRACTIONS = {"val": 0.1, "test": 0.2}


def put(root, name, seed):
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 6), np.uint8)
    Image.fromarray(pixels).save(root / name)


def put_table(root, header, rows):
    (root / "t.csv").write_text("".join(f"{line}\n" for line in [header, *rows]))


def put_patients(root, patients=12, each=4, classes=3):
    rows = []
    for i in range(patients * each):
        put(root, f"{i:03}.png", i)
        rows.append(f"{i:03}.png,{'abc'[i // each % classes]},P{i // each}")
    put_table(root, "file,label,Patient ID", rows)


def splits_of(listing):
    return {file: key for key in SPLITS for file in listing.split(key).files}


# Few groups


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("patients", "classes"), [(6, 3), (4, 2), (9, 3), (5, 2), (7, 3)])
def test_a_few_patients_are_enough(tmp_path, seed, patients, classes):
    put_patients(tmp_path, patients, 3, classes)
    listing = list_folder(tmp_path, csv="t.csv", seed=seed)
    assert all(len(listing.split(key).files) >= 3 for key in SPLITS)
    assert set(listing.train.labels) == set(range(classes))


def possible(present):
    """Whether some split of these units has all splits, and all labels in train."""
    for drawn in itertools.product(range(3), repeat=len(present)):
        drawn = np.array(drawn)
        if set(drawn) == {0, 1, 2} and present[drawn == 0].any(0).sum() == present.any(0).sum():
            return True
    return False


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=3, max_size=6),
    st.integers(0, 3),
)
def test_a_split_is_drawn_wherever_one_exists(rows, seed):
    present = np.array(rows)
    drawn = np.array(draw_splits(present, FRACTIONS, seed))
    if possible(present):
        assert set(drawn) == set(SPLITS)
        assert (present[drawn == "train"].any(0) == present.any(0)).all()


# Cross-validation


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_each_image_is_tested_once_and_no_patient_is_in_two_splits(tmp_path, folds):
    put_patients(tmp_path, 15, 4)
    tested = []
    for fold in range(folds):
        listing = list_folder(tmp_path, csv="t.csv", folds=folds, fold=fold)
        groups = {}
        for file, key in splits_of(listing).items():
            groups.setdefault(int(file[:3]) // 4, set()).add(key)
        assert all(len(keys) == 1 for keys in groups.values())
        assert set(listing.train.labels) == {0, 1, 2}
        assert len(listing.val.files)
        tested += listing.test.files
        counts = np.bincount(listing.test.labels, minlength=3)
        assert counts.max() - counts.min() <= 8  # A patient or two.
    assert sorted(tested) == [f"{i:03}.png" for i in range(60)]


def test_folds_of_a_class_folder_are_stratified_to_the_image(tmp_path):
    for i in range(30):
        put(tmp_path, f"{'ab'[i % 3 > 1]}/{i}.png", i)
    for fold in range(5):
        listing = list_folder(tmp_path, folds=5, fold=fold)
        assert np.bincount(listing.test.labels).tolist() == [4, 2]


def test_multi_label_folds_are_stratified(tmp_path):
    random = np.random.default_rng(0)
    labels = (random.random((90, 3)) < (0.5, 0.3, 0.15)).astype(int)
    for i in range(90):
        put(tmp_path, f"{i}.png", i)
    put_table(
        tmp_path, "file,x,y,z", (f"{i}.png,{','.join(map(str, labels[i]))}" for i in range(90))
    )
    shares = []
    for fold in range(3):
        listing = list_folder(tmp_path, csv="t.csv", folds=3, fold=fold)
        shares.append(listing.test.labels.mean(axis=0))
    assert np.ptp(shares, axis=0).max() < 0.1


def test_with_a_given_test_split_the_folds_are_for_validation(tmp_path):
    for i in range(40):
        put(tmp_path, f"{'train' if i < 30 else 'test'}/{'ab'[i % 2]}/{i}.png", i)
    validated = []
    for fold in range(3):
        listing = list_folder(tmp_path, folds=3, fold=fold)
        assert len(listing.test.files) == 10
        validated += listing.val.files
    assert len(validated) == len(set(validated)) == 30


def test_folds_are_the_same_for_every_run_and_another_seed_draws_others(tmp_path):
    put_patients(tmp_path)
    first = splits_of(list_folder(tmp_path, csv="t.csv", folds=4, fold=1))
    load_folder(tmp_path, csv="t.csv", size=4, folds=4, fold=1)
    assert splits_of(list_folder(tmp_path, csv="t.csv", folds=4, fold=1)) == first
    assert splits_of(list_folder(tmp_path, csv="t.csv", folds=4, fold=1, seed=1)) != first


def test_each_fold_has_a_file_of_its_own(tmp_path):
    put_patients(tmp_path)
    for fold in range(3):
        load_folder(tmp_path, csv="t.csv", size=4, folds=3, fold=fold)
    assert len(list(tmp_path.glob("lsanet_splits*.csv"))) == 3
    drawn = {(tmp_path / "lsanet_splits.csv").read_text().splitlines()[1].rsplit(",", 1)[1][:21]}
    assert drawn == {"seed 0 fold 0 of 3 va"}


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"folds": 1}, ConfigError, "config.data.folds is 1, expected 0 or an integer >= 2"),
        ({"folds": 3, "fold": 3}, ConfigError, "config.data.fold is 3, expected 0 to 2"),
        ({"fold": 1}, ConfigError, "config.data.fold is 1, expected 0 to 0, since"),
        ({"folds": 13}, DataError, "config.data.folds is 13, expected at most 12, the number of"),
    ],
)
def test_folds_outside_their_range(tmp_path, options, kind, message):
    put_patients(tmp_path)
    with pytest.raises(kind, match=message):
        list_folder(tmp_path, csv="t.csv", **options)


def test_folds_of_given_splits(tmp_path):
    for i in range(12):
        put(tmp_path, f"{SPLITS[i % 3]}/{'ab'[i // 3 % 2]}/{i}.png", i)
    with pytest.raises(DataError, match="but both are given: set it to 0"):
        list_folder(tmp_path, folds=3)


def put_folds(root, folds, **columns):
    for i in range(len(folds)):
        put(root, f"{i:02}.png", i)
    header = ["file", "label", "kfold", *columns]
    rows = [
        (f"{i:02}.png", "ab"[i % 2], fold, *(values[i] for values in columns.values()))
        for i, fold in enumerate(folds)
    ]
    put_table(root, ",".join(header), [",".join(map(str, row)) for row in rows])


def test_folds_that_a_table_gives_are_not_drawn_anew(tmp_path):
    folds = [(7 * i) // 2 % 11 + 1 for i in range(44)]
    put_folds(tmp_path, folds)
    for fold in range(11):
        listing = list_folder(tmp_path, csv="t.csv", folds=11, fold=fold)
        assert [int(file[:2]) for file in listing.test.files] == [
            i for i in range(44) if folds[i] == fold + 1
        ]


def test_given_folds_may_have_a_test_split_beside_them(tmp_path):
    split = ["train"] * 20 + ["test"] * 4
    put_folds(tmp_path, [i // 2 % 5 for i in range(20)] + [""] * 4, split=split)
    listing = list_folder(tmp_path, csv="t.csv", folds=5, fold=3)
    assert listing.val.files == ("06.png", "07.png", "16.png", "17.png")
    assert len(listing.test.files) == 4


def test_given_folds_that_tear_a_patient_are_refused(tmp_path):
    put_folds(tmp_path, [i // 2 % 5 for i in range(20)], patient=[i // 4 for i in range(20)])
    with pytest.raises(DataError, match="have images in several splits"):
        list_folder(tmp_path, csv="t.csv", folds=5, fold=0)


def test_numbered_folds_that_are_not_asked_for(tmp_path):
    put_folds(tmp_path, [i // 2 % 5 for i in range(20)])
    with pytest.raises(DataError, match="set config.data.folds to 5"):
        list_folder(tmp_path, csv="t.csv")
    with pytest.raises(DataError, match="5 values in it, expected one column of 4"):
        list_folder(tmp_path, csv="t.csv", folds=4)
    list_folder(tmp_path, csv="t.csv", split_column="none", folds=4)


def test_images_carry_the_numbers_of_their_patients(tmp_path):
    put_patients(tmp_path, 8, 4)
    whole = {}
    for fold in range(2):
        dataset = load_folder(tmp_path, size=4, csv="t.csv", folds=2, fold=fold)
        for key in SPLITS:
            split = dataset.split(key)
            for name, group in zip(split.names, split.groups, strict=True):
                assert whole.setdefault(name, group) == group
    assert len(whole) == 32 and len(set(whole.values())) == 8
    for name, group in whole.items():
        assert group == whole[f"{int(name[:3]) // 4 * 4:03}.png"]


def test_folds_are_scikit_learns():
    from sklearn.model_selection import StratifiedGroupKFold

    random = np.random.default_rng(0)
    units, labels = random.integers(0, 20, 100), random.integers(0, 3, 100)
    found = draw_folds(np.eye(3, dtype=bool)[labels], units, 4, 7)
    splitter = StratifiedGroupKFold(4, shuffle=True, random_state=7)
    for fold, (_, tested) in enumerate(splitter.split(units, labels, units)):
        np.testing.assert_array_equal(np.flatnonzero(found == fold), tested)


def test_an_image_in_two_formats_stays_in_one_split_and_it_says_so(tmp_path, caplog):
    for i in range(24):
        put(tmp_path, f"{'ab'[i // 2 % 2]}/x{i // 2}.{('png', 'JPG')[i % 2]}", i)
    splits = {}
    for file, key in splits_of(list_folder(tmp_path, duplicates="error")).items():
        splits.setdefault(file[:-4], set()).add(key)
    assert len(splits) == 12
    assert all(len(keys) == 1 for keys in splits.values())
    assert "12 image(s) are there in several formats, such as a/x0.JPG and a/x0.png" in caplog.text


# Names that tell of patients


def test_patients_in_file_names_stay_whole_and_it_says_so(tmp_path, caplog):
    for i in range(36):
        put(tmp_path, f"{'ab'[i // 3 % 2]}/person{i // 3}_virus_{i}.png", i)
    groups = {}
    for file, key in splits_of(list_folder(tmp_path)).items():
        groups.setdefault(file.split("_")[0], set()).add(key)
    assert all(len(keys) == 1 for keys in groups.values())
    assert "file names tell of 12 patients or persons" in caplog.text
    caplog.clear()
    list_folder(tmp_path, group_column="none")
    assert "patients" not in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        "sub-{:03d}_{}.png",
        "sub-{:03d}_ses-{}.png",
        "patient{:03d}a_{}.png",
        "PatientID-{}-{}.png",
        "Case {:02d} ({}).png",
    ],
)
def test_patients_are_found_in_many_forms_of_names(tmp_path, name):
    for i in range(36):
        put(tmp_path, f"{'ab'[i // 3 % 2]}/{name.format(i // 3, i)}", i)
    assert len(set(list_folder(tmp_path).train.groups)) < 12
    groups = {}
    for file, key in splits_of(list_folder(tmp_path)).items():
        groups.setdefault(re.search("[0-9]+", file)[0], set()).add(key)
    assert len(groups) == 12
    assert all(len(keys) == 1 for keys in groups.values())


def test_a_class_is_not_a_patient(tmp_path):
    for i in range(24):
        put(tmp_path, f"case {i % 2}/{i}.png", i)
    assert not list_folder(tmp_path).train.groups


@pytest.mark.parametrize(
    ("name", "others"),
    [
        ("P{:03d}_{}.png", (0, 1)),
        ("1{}_{}.jpeg", ("left", "right")),
        ("20586{:02d}_{}.png", ("LCC", "LMLO", "RCC")),
        ("10{:03d}_idx5_x{}_y1101_class0.png", (1351, 1401)),
        ("C{}P61ThinF_IMG_20150918_144104_cell_{}.png", (0, 1)),
        ("CRC-Prim-HE-{:02d}_009.tif_Row_{}_Col_301.png", (151, 301)),
        ("img_{:03d}_{}.png", ("flip", "rot")),
    ],
)
def test_names_that_may_be_of_patients_are_told_of(tmp_path, name, others, caplog):
    files = [f"{'ab'[i % 2]}/{name.format(i, o)}" for i in range(6) for o in others]
    for i, file in enumerate(files):
        put(tmp_path, file, i)
    assert not list_folder(tmp_path).train.groups
    assert f"(such as {files[0]} and {files[1]}): if so" in caplog.text
    caplog.clear()
    list_folder(tmp_path, group_column="none")
    assert "of one patient" not in caplog.text


def test_a_folder_for_each_patient_is_told_of(tmp_path, caplog):
    files = [f"MSB-{i // 2}/{i % 2}.png" for i in range(12)]
    for i, file in enumerate(files):
        put(tmp_path, file, i)
    put_table(
        tmp_path, "file,label", [f"{file},{'ab'[i % 4 // 2]}" for i, file in enumerate(files)]
    )
    list_folder(tmp_path, csv="t.csv")
    assert "(such as MSB-0/0.png and MSB-0/1.png): if so" in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        *("img_{}.png", "{}.png", "({}).png", "lungn{}.png", "ISIC_{:07d}.jpg", "{:08d}_000.png"),
        *("{label} ({}).png", "COVID-19 ({}).png", "{}_{label}.png", "{:03d}_crop.png"),
    ],
)
@pytest.mark.parametrize("folder", ["", "{split}/"])
def test_numbers_of_images_are_not_patients(tmp_path, folder, name, caplog):
    places = itertools.product(SPLITS, ("class 1", "class 2"), range(4))
    for seed, (split, label, i) in enumerate(places):
        i += 4 * SPLITS.index(split)
        file = f"{folder}{{label}}/{name}".format(i, split=split, label=label)
        put(tmp_path, file, seed)
    list_folder(tmp_path)
    assert "of one patient" not in caplog.text


def test_a_class_in_the_name_is_not_an_image_of_the_same_patient(tmp_path, caplog):
    pairs = [(i, label) for i in range(6) for label in ("benign", "malignant")]
    for seed, (i, label) in enumerate(pairs):
        put(tmp_path, f"{i}_{label}.png", seed)
    put_table(tmp_path, "file,label", [f"{i}_{label}.png,{label}" for i, label in pairs])
    list_folder(tmp_path, csv="t.csv")
    assert "of one patient" not in caplog.text


def test_an_unknown_patient_is_nobody(tmp_path, caplog):
    for i in range(12):
        put(tmp_path, f"{i}.png", i)
    rows = [
        f"{i}.png,{'ab'[i % 2]},{i if i < 4 else ('unknown', 'ANON')[i % 2]}" for i in range(12)
    ]
    put_table(tmp_path, "file,label,patient_id", rows)
    assert len(list_folder(tmp_path, csv="t.csv").train.files) == 8
    assert "'patient_id' is 'unknown' or 'ANON' in 8 row(s)" in caplog.text


def test_shares_that_differ_much_from_those_asked_for_are_told_of(tmp_path, caplog):
    for i in range(12):
        put(tmp_path, f"{i}.png", i)
    for last, told in ((4, True), (11, False)):
        rows = [f"{i}.png,{'ab'[i % 2]},{min(i, last)}" for i in range(12)]
        put_table(tmp_path, "file,label,patient_id", rows)
        list_folder(tmp_path, csv="t.csv")
        assert ("the largest of 8 images" in caplog.text) == told
        caplog.clear()


def test_a_guess_does_not_refuse_given_splits(tmp_path, caplog):
    for i in range(12):
        put(tmp_path, f"{SPLITS[i % 3]}/{'ab'[i // 3 % 2]}/patient {i // 3}_{i}.png", i)
    with caplog.at_level(logging.WARNING):
        list_folder(tmp_path)
    assert "have images in several splits" in caplog.text
    assert "Groups were guessed from file names" in caplog.text


@pytest.mark.parametrize("leaks", ["warn", "allow"])
def test_leaks_may_be_meant(tmp_path, leaks, caplog):
    rows = [f"{i}.png,{'ab'[i // 3 % 2]},{SPLITS[i % 3]},p{i // 4}" for i in range(24)]
    for i in range(24):
        put(tmp_path, f"{i}.png", i)
    put_table(tmp_path, "file,label,split,patient", rows)
    with pytest.raises(DataError, match=r"6 patient.* or set config.data.leaks to 'warn'"):
        list_folder(tmp_path, csv="t.csv")
    assert len(list_folder(tmp_path, csv="t.csv", leaks=leaks).train.files) == 8
    assert ("several splits" in caplog.text) == (leaks == "warn")


# Given folds


def put_column(tmp_path, column, folds):
    for i in range(12):
        put(tmp_path, f"{i:02}.png", i)
    rows = [f"{i:02}.png,{'ab'[i // 3 % 2]},{folds[i % len(folds)]}" for i in range(12)]
    (tmp_path / "t.csv").write_text("\n".join([f"file,label,{column}", *rows]) + "\n")


@pytest.mark.parametrize(
    "column",
    ["fold_number", "Fold No", "outer_fold", "split_fold", "KFold_5", "fold5", "cv", "Fold"],
)
def test_columns_of_folds_are_known_whatever_they_are_called(tmp_path, column):
    put_column(tmp_path, column, ("0", "1.0", "2", "0", "1", "2.0"))
    tested = {
        int(file[:2]) for file in list_folder(tmp_path, csv="t.csv", folds=3, fold=1).test.files
    }
    assert tested == {1, 4, 7, 10}
    with pytest.raises(DataError, match=f"'{column}' looks like one of splits.*data.folds to 3"):
        list_folder(tmp_path, csv="t.csv")


@pytest.mark.parametrize("column", ["scaffold", "manifold", "cv", "fold_change"])
def test_other_columns_are_not_folds(tmp_path, column):
    put_column(tmp_path, column, ("0.5", "1", "0.25"))
    list_folder(tmp_path, csv="t.csv", folds=2)
    list_folder(tmp_path, csv="t.csv")


def test_a_fold_of_minus_one_is_no_part(tmp_path):
    put_column(tmp_path, "fold", ("0", "1", "-1"))
    with pytest.raises(DataError, match="line 4: 'fold' is '-1', expected the number of a fold"):
        list_folder(tmp_path, csv="t.csv", folds=2)
