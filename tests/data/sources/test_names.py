"""What names of files, and the words of tables, say of patients, copies and splits."""

import hashlib
import logging

import numpy as np
import pytest
from PIL import Image

from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources.folder import list_folder
from lsanet_jax.errors import DataError

COUNT = 24
FILES = [f"im{i:03}.png" for i in range(COUNT)]
SERIES = "look as if several images are of one patient"


@pytest.fixture
def folder(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    return tmp_path


def put(root, names):
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).save(root / name)


def table(root, header, rows, files=FILES, **options):
    put(root, files)
    lines = [header, *(",".join(map(str, row)) for row in rows)]
    (root / "t.csv").write_text("\n".join(lines) + "\n")
    return list_folder(root, csv="t.csv", **options)


def torn(listing, group_of):
    found = {}
    for key in SPLITS:
        for file in listing.split(key).files:
            found.setdefault(group_of(file), set()).add(key)
    return sum(len(keys) > 1 for keys in found.values())


def hashed(i):
    return hashlib.md5(str(i).encode()).hexdigest()[:12]


CHEXPERT = [f"patient{i // 6:05}/study{1 + i // 3 % 2}/v{i % 3}.jpg" for i in range(COUNT)]


def test_studies_of_one_patient_stay_together(folder, caplog):
    rows = [[file, "ab"[i // 6 % 2], f"s{i // 3}"] for i, file in enumerate(CHEXPERT)]
    listing = table(folder, "Path,label,study_id", rows, CHEXPERT)
    assert torn(listing, lambda file: file.split("/")[0]) == 0
    assert "4 patients or persons, such as 'patient00000'; their images stay" in caplog.text
    caplog.clear()
    listing = table(folder, "Path,label,study_id", rows, CHEXPERT, group_column="study_id")
    assert torn(listing, lambda file: file.split("/")[0]) and "patients" not in caplog.text


def test_given_splits_that_tear_patients_are_refused(folder):
    rows = [
        [file, "ab"[i % 2], f"s{i // 3}", SPLITS[i // 3 % 2]] for i, file in enumerate(CHEXPERT)
    ]
    with pytest.raises(DataError, match=r"4 patient\(s\) or other group"):
        table(folder, "Path,label,study_id,split", rows, CHEXPERT)


def test_slides_that_are_called_by_patients_are_told_of(folder, caplog):
    slide = lambda i: f"TCGA-D5-{6530 + i // 6}-01Z-00-DX{1 + i // 3 % 2}"
    rows = [[file, "ab"[i // 6 % 2], slide(i)] for i, file in enumerate(FILES)]
    table(folder, "file,label,slide_id", rows)
    assert f"the values of column 'slide_id' {SERIES}" in caplog.text
    assert "name a column of patients" in caplog.text


SEVERAL = {
    "INbreast": lambda i: f"{20000 + i}_{hashed(i // 4)}_MG_{'LR'[i % 2]}_ANON.png",
    "TCGA tiles": lambda i: f"blk-{hashed(i)}-TCGA-D5-{6530 + i // 4}-01Z-00-DX1.png",
    "knees": lambda i: f"{9001695 + i // 2}{'LR'[i % 2]}.png",
    "eyes": lambda i: f"RET{i // 2:03}{('OD', 'OS')[i % 2]}.jpg",
    "sides before": lambda i: f"{('left', 'right')[i % 2]}_{i // 2:04}.png",
    "sides joined": lambda i: f"{'LR'[i % 2]}{i // 2:04}.png",
    "views": lambda i: f"{i // 2:04}{('LCC', 'RMLO')[i % 2]}.png",
    "series": lambda i: f"P{i // 2:02}S{i % 2}.png",
}


@pytest.mark.parametrize("name_of", SEVERAL.values(), ids=SEVERAL)
def test_names_of_one_patient_are_told_of(name_of, folder, caplog):
    put(folder, [f"{'ab'[i // 4 % 2]}/{name_of(i)}" for i in range(COUNT)])
    list_folder(folder)
    assert f"file names {SERIES}" in caplog.text


SINGLE = {
    "counted": lambda i: f"im{i:03}.png",
    "hashed": lambda i: f"{hashed(i)}.png",
    "ISIC": lambda i: f"ISIC_{24306 + i:07}.jpg",
    "magnified": lambda i: f"im{i:03}_x40.png",
    "class first": lambda i: f"{'nm'[i // 4 % 2]}{i:03}.png",
    "numbered": lambda i: f"benign ({i}).png",
}


@pytest.mark.parametrize("name_of", SINGLE.values(), ids=SINGLE)
def test_names_that_say_nothing_of_patients_are_not(name_of, folder, caplog):
    put(folder, [f"{'ab'[i // 4 % 2]}/{name_of(i)}" for i in range(COUNT)])
    list_folder(folder)
    assert SERIES not in caplog.text and "copies of others" not in caplog.text


def test_patients_of_one_class_do_not_hide_those_of_another(folder, caplog):
    of_class = (
        lambda i: f"ILL/person{i // 2}_virus_{i}.png",
        lambda i: f"NORMAL/IM-{i // 2:04}-{i % 2:04}.png",
    )
    put(folder, [of_class[i % 2](i // 2) for i in range(COUNT)])
    list_folder(folder)
    assert "6 patients or persons" in caplog.text and SERIES in caplog.text


COPIED = {
    "before": ("{0}.png", "aug_{0}.png"),
    "numbered": ("{0}.png", "{0}_aug1.png"),
    "flipped": ("{0}.png", "{0} - flipped.png"),
    "turned": ("{0}.png", "rot180_{0}.png"),
    "by a browser": ("{0}.png", "{0} (1).png"),
}


@pytest.mark.parametrize("names", COPIED.values(), ids=COPIED)
def test_augmented_copies_stay_together(names, folder, caplog):
    files = [f"{'ab'[i // 4 % 2]}/{names[i % 2].format(f'im{i // 2:03}')}" for i in range(COUNT)]
    put(folder, files)
    listing = list_folder(folder, duplicates="error")
    number = {file: i // 2 for i, file in enumerate(files)}
    assert torn(listing, number.get) == 0
    assert "12 image(s) are called as if they were copies of others" in caplog.text


def test_splits_in_names_of_files_are_told_of(folder, caplog):
    put(folder, [f"{'ab'[i % 2]}/{('train', 'test')[i // 12]}_{i}.png" for i in range(COUNT)])
    list_folder(folder)
    assert "file names tell of splits (such as" in caplog.text


def test_cohorts_are_splits(folder):
    cohorts = ("Training cohort", "Validation cohort", "Test cohort")
    rows = [[file, "ab"[i % 2], cohorts[i // 8]] for i, file in enumerate(FILES)]
    listing = table(folder, "file,label,cohort", rows)
    assert [len(listing.split(key).files) for key in SPLITS] == [8, 8, 8]


@pytest.mark.parametrize(
    "values", [("development", "validation"), ("Discovery", "Replication"), ("TR", "TE")]
)
def test_other_words_for_splits_are_told_of(values, folder, caplog):
    rows = [[file, "ab"[i % 2], values[i // 12]] for i, file in enumerate(FILES)]
    table(folder, "file,label,purpose", rows)
    assert "column 'purpose'" in caplog.text and "looks like one of splits" in caplog.text


@pytest.mark.parametrize("column", ["plate", "Code", "Kennung"])
def test_identifiers_are_known_by_their_cells(column, folder, caplog):
    rows = [[file, "ab"[i // 3 % 2], 1000 + i // 3] for i, file in enumerate(FILES)]
    table(folder, f"file,label,{column}", rows)
    assert f"column {column!r} is not used; if its images must stay in one split" in caplog.text


@pytest.mark.parametrize("column", ["eid", "empi_anon", "PTID", "Pazient"])
def test_further_names_of_patients_are_known(column, folder):
    rows = [[file, "ab"[i // 3 % 2], 1000 + i // 3] for i, file in enumerate(FILES)]
    listing = table(folder, f"file,label,{column}", rows)
    assert torn(listing, lambda file: FILES.index(file) // 3) == 0


@pytest.mark.parametrize("column", ["patient_sex", "Patient Age", "annotator", "kvp"])
def test_what_is_known_of_a_patient_is_no_label(column, folder):
    rows = [[file, i // 3, i // 3 % 2] for i, file in enumerate(FILES)]
    with pytest.raises(DataError, match="found no column of labels"):
        table(folder, f"file,patient_id,{column}", rows)


def test_the_only_column_left_is_told_of(folder, caplog):
    rows = [[file, "ab"[i % 2]] for i, file in enumerate(FILES)]
    assert table(folder, "file,stain", rows).class_names == ("a", "b")
    assert "column 'stain' is read as the labels, since no other is left" in caplog.text


@pytest.mark.parametrize("column", ["adjudicated_dr_grade", "final_diagnosis", "class_id"])
def test_a_label_beside_columns_of_0_and_1_is_not_passed_over(column, folder):
    rows = [[file, i % 5, i % 2, int(i > 1)] for i, file in enumerate(FILES)]
    with pytest.raises(DataError, match=rf"column '{column}' \('0', '1', '2', ...\) may be the"):
        table(folder, f"image,{column},edema,gradable", rows)


def test_codes_of_1_and_2_are_no_labels_of_0_and_1(folder):
    rows = [[file, 1 + i % 2, i % 2, i // 3 % 2] for i, file in enumerate(FILES)]
    assert table(folder, "image,exam_eye,edema,scar", rows).class_names == ("edema", "scar")


def test_measurements_and_reports_are_told_of(folder, caplog):
    rows = [[file, (180, 12, 94, 120, 82, 138, 150, 30)[i % 8]] for i, file in enumerate(FILES)]
    table(folder, "file,label", rows)
    assert "the classes are 8 numbers with gaps, as of a measurement" in caplog.text
    rows = [[file, f"The heart is normal {i // 2}"] for i, file in enumerate(FILES)]
    table(folder, "file,label", rows)
    assert "12 values, 12 of them of one or two images only" in caplog.text
    caplog.clear()
    table(folder, "file,label", [[file, i % 8] for i, file in enumerate(FILES)])
    assert "the classes are" not in caplog.text


def test_vectors_are_refused(folder):
    rows = [[file, f'"{[int(i % 3 == k) for k in range(3)]}"'] for i, file in enumerate(FILES)]
    with pytest.raises(DataError, match=r"column 'target' holds vectors, such as \[1, 0, 0\]"):
        table(folder, "file,target", rows)


@pytest.mark.parametrize("marks", ["[]", "()", "{}"])
def test_lists_of_one_are_classes(marks, folder):
    rows = [[file, f"\"{marks[0]}'{'ND'[i % 2]}'{marks[1]}\""] for i, file in enumerate(FILES)]
    assert table(folder, "file,labels", rows).class_names == ("D", "N")


@pytest.mark.parametrize("mark", ["，", "、", "；"])
def test_marks_of_full_width_join_labels(mark, folder):
    labels = ("cataract", "laser spot", f"cataract{mark}laser spot")
    listing = table(folder, "file,label", [[f, labels[i % 3]] for i, f in enumerate(FILES)])
    assert (listing.task, listing.class_names) == ("multi-label", ("cataract", "laser spot"))


@pytest.mark.parametrize("form", [".6f", ".18e", ".0f"])
def test_0_and_1_as_numpy_writes_them(form, folder):
    rows = [[file, f"{i % 2:{form}}", f"{1 - i % 2:{form}}"] for i, file in enumerate(FILES)]
    assert table(folder, "image,A,B", rows).class_names == ("A", "B")


def test_the_index_of_a_table_without_some_rows_is_no_column(folder):
    rows = [[3 * i + 1, file, "ab"[i % 2]] for i, file in enumerate(FILES)]
    assert table(folder, ",file,label", rows).class_names == ("a", "b")


@pytest.mark.parametrize("name", ["pred", "Augmented", "polyps_augmented", "all", "original"])
def test_folders_that_are_no_classes_are_told_of(name, folder, caplog):
    put(folder, [f"{part}/{i}.png" for part in ("yes", "no", name) for i in range(6)])
    list_folder(folder)
    assert f"the folder(s) {name!r} are read as classes" in caplog.text


@pytest.mark.parametrize("word", ["not gradable", "N.D.", "poor quality", "unbekannt"])
def test_further_words_for_no_class_are_told_of(word, folder, caplog):
    labels = ("mild", "severe", word)
    table(folder, "file,label", [[file, labels[i % 3]] for i, file in enumerate(FILES)])
    assert f"of class {word!r}, which is learned like any other" in caplog.text


def test_a_nameless_column_that_counts_from_1_is_dropped_wherever_it_stands(folder):
    rows = [[file, "ab"[i % 2], i + 1] for i, file in enumerate(FILES)]
    assert table(folder, "file,label,", rows).class_names == ("a", "b")
    with pytest.raises(DataError, match="a column without a name"):
        table(folder, "file,label,", [[*row[:2], 3 * row[2]] for row in rows])


def test_copies_with_several_words_are_told_of(folder, caplog):
    forms = ("{}", "{}_vertical", "{}_dark", "horizontal_{}")
    put(
        folder,
        [f"{c}/{form.format(f'im{i}')}.png" for c in "ab" for i in range(6) for form in forms],
    )
    list_folder(folder)
    for word in ("vertical", "dark", "horizontal"):
        assert f"12 name(s) are that of another image and {word!r}" in caplog.text


@pytest.mark.parametrize("views", [("_OD", "_OS", "_fundus"), ("1", "2", "3"), (" left", " right")])
def test_persons_named_in_letters_are_told_of(folder, views, caplog):
    people = [f"{a}{b}{c}" for a in "kmt" for b in "aeo" for c in "lnr"]
    put(folder, [f"{'xy'[i % 2]}/{p}{view}.png" for i, p in enumerate(people) for view in views])
    list_folder(folder)
    assert "look as if several images are of one patient" in caplog.text


@pytest.mark.parametrize("form", ["melanoma{}", "img_{}", "scan {} left", "{0:03}_{0}"])
def test_counted_images_are_not(folder, form, caplog):
    put(folder, [f"{'xy'[i % 2]}/{form.format(i)}.png" for i in range(60)])
    list_folder(folder)
    assert "look as if several images are of one patient" not in caplog.text
