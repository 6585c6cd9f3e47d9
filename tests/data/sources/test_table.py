"""Tables as they are published, and as spreadsheets leave them."""

import logging
import unicodedata

import numpy as np
import pytest
from PIL import Image

from lsanet_jax import data as data_lib
from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources import columns
from lsanet_jax.data.sources.folder import list_folder, load_folder
from lsanet_jax.errors import ConfigError, DataError

NAMES = [f"ISIC_{i:04}" for i in range(24)]


def put(root, *names):
    """Small images that all differ."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        seed = sum(map(ord, str(name))) * 7919 + len(str(name))
        pixels = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
        Image.fromarray(pixels).save(root / name)


def write(root, *lines, encoding="utf-8", end="\n"):
    (root / "t.csv").write_bytes("".join(line + end for line in lines).encode(encoding))


def read(root, *lines, **options):
    write(root, *lines)
    return list_folder(root, csv="t.csv", **options)


def labels_of(listing):
    found = {}
    for key in SPLITS:
        files, labels, _ = listing.split(key)
        found |= dict(zip(files, labels.tolist(), strict=True))
    return found


def splits_of(listing):
    return {file: key for key in SPLITS for file in listing.split(key).files}


def error_of(root, *lines, kind=DataError, **options):
    with pytest.raises(kind) as caught:
        read(root, *lines, **options)
    return str(caught.value)


def torn(listing, group_of):
    groups = {}
    for file, key in splits_of(listing).items():
        groups.setdefault(group_of(file), set()).add(key)
    return sum(len(keys) > 1 for keys in groups.values())


@pytest.fixture
def jpegs(tmp_path):
    put(tmp_path, *(f"{name}.jpg" for name in NAMES))
    return tmp_path


# Published sets


def test_isic_2018_one_hot_truth_of_ids_without_suffix(jpegs, caplog):
    put(jpegs, *(f"{name}_superpixels.png" for name in NAMES[:3]))
    rows = [
        f"{n},{','.join(f'{int(i % 3 == k)}.0' for k in range(3))}" for i, n in enumerate(NAMES)
    ]
    with caplog.at_level(logging.WARNING):
        listing = read(jpegs, "image,MEL,NV,BCC", *rows)
    assert (listing.task, listing.class_names) == ("multi-class", ("MEL", "NV", "BCC"))
    assert labels_of(listing) == {f"{name}.jpg": i % 3 for i, name in enumerate(NAMES)}
    assert "the 3 label columns are one-hot" in caplog.text
    assert "left out 3 image(s) that the table does not list" in caplog.text


def test_isic_2019_with_a_class_that_nobody_has(jpegs, caplog):
    rows = [f"{n},{1 - i % 2},{i % 2},0" for i, n in enumerate(NAMES)]
    listing = read(jpegs, "image,MEL,NV,UNK", *rows)
    assert (listing.task, listing.class_names) == ("binary-class", ("MEL", "NV"))
    assert "left out 'UNK': 0 in every row" in caplog.text


def test_one_hot_columns_are_labels_if_asked(jpegs):
    rows = [f"{n},{1 - i % 2},{i % 2}" for i, n in enumerate(NAMES)]
    listing = read(jpegs, "image,MEL,NV", *rows, task="multi-label")
    assert listing.task == "multi-label"
    assert labels_of(listing)["ISIC_0001.jpg"] == [0, 1]


def test_ham10000_metadata_with_images_in_two_folders(tmp_path):
    ids = [f"part_{1 + i % 2}/{name}" for i, name in enumerate(NAMES)]
    put(tmp_path, *(f"{name}.jpg" for name in ids))
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"
    rows = [
        f"HAM_{i // 3},{name},{('nv', 'mel')[i // 3 % 2]},histo,{40 + i}.0,male,back,vidir_modern"
        for i, name in enumerate(NAMES)
    ]
    listing = read(tmp_path, header, *rows)
    assert listing.class_names == ("mel", "nv")
    assert set(labels_of(listing)) == {f"{name}.jpg" for name in ids}
    assert torn(listing, lambda file: int(file[-8:-4]) // 3) == 0


def test_isic_2020_has_several_columns_of_labels(jpegs):
    header = "image_name,patient_id,sex,diagnosis,benign_malignant,target"
    rows = [f"{n},P{i // 2},male,nevus,benign,{i % 2}" for i, n in enumerate(NAMES)]
    message = error_of(jpegs, header, *rows)
    assert "several columns of labels, 'diagnosis', 'benign_malignant', 'target'" in message
    assert "config.data.label_column" in message
    listing = read(jpegs, header, *rows, label_column="target")
    assert listing.class_names == ("0", "1")
    assert torn(listing, lambda file: int(file[5:9]) // 2) == 0


def test_aptos_2019(tmp_path):
    ids = [f"{i:012x}" for i in range(1, 21)]
    put(tmp_path, *(f"{name}.png" for name in ids))
    listing = read(tmp_path, "id_code,diagnosis", *(f"{n},{i % 5}" for i, n in enumerate(ids)))
    assert listing.class_names == tuple("01234")


def test_eyepacs(tmp_path):
    ids = [f"{i}_{side}" for i in range(10) for side in ("left", "right")]
    put(tmp_path, *(f"train/{name}.jpeg" for name in ids))
    listing = read(tmp_path, "image,level", *(f"{n},{i % 2}" for i, n in enumerate(ids)))
    assert len(labels_of(listing)) == 20


CHEXPERT = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Edema,Support Devices"


def chexpert(root, count=18):
    paths = [f"train/patient{i // 3:05}/study1/view{i % 3 + 1}_frontal.jpg" for i in range(count)]
    put(root, *paths)
    cells = ["1.0,,", ",1.0,-1.0", ",0.0,1.0"]
    return [
        f"CheXpert-v1.0-small/{path},Female,{60 + i},Frontal,AP,{cells[i % 3]}"
        for i, path in enumerate(paths)
    ]


def test_chexpert_with_blank_and_uncertain_labels_and_patients_in_paths(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        listing = read(tmp_path, CHEXPERT, *chexpert(tmp_path))
    assert listing.task == "multi-label"
    assert listing.class_names == ("No Finding", "Edema", "Support Devices")
    rows = labels_of(listing)
    assert rows["train/patient00000/study1/view2_frontal.jpg"] == [-1, 1, -1]
    assert torn(listing, lambda file: file.split("/")[1]) == 0
    assert "24 label(s) are missing and 6 are -1: config.data.uncertain is 'ignore'" in caplog.text
    assert "'Sex', 'Age', 'Frontal/Lateral', 'AP/PA'" in caplog.text
    assert "file names tell of 6 patients" in caplog.text


@pytest.mark.parametrize(
    ("uncertain", "expected"), [("zero", [0, 1, 0]), ("one", [0, 1, 1]), ("ignore", [-1, 1, -1])]
)
def test_what_uncertain_labels_mean_can_be_said(tmp_path, uncertain, expected):
    listing = read(tmp_path, CHEXPERT, *chexpert(tmp_path), uncertain=uncertain)
    assert labels_of(listing)["train/patient00000/study1/view2_frontal.jpg"] == expected


def test_uncertain_labels_may_be_refused(tmp_path):
    message = error_of(tmp_path, CHEXPERT, *chexpert(tmp_path), uncertain="error")
    assert "24 label(s) are missing and 6 are -1" in message
    assert "config.data.uncertain to 'ignore'" in message
    with pytest.raises(ConfigError, match="config.data.uncertain is 'u-ones', expected one of"):
        list_folder(tmp_path, csv="t.csv", uncertain="u-ones")


def test_labels_that_are_never_0_are_told_of(jpegs, caplog):
    rows = [f"{n},{('1.0', '')[i % 2]},{i % 3 // 2}" for i, n in enumerate(NAMES)]
    read(jpegs, "Path,No Finding,Edema", *rows)
    assert "no row has a 0 for 'No Finding', from which it cannot be learned" in caplog.text
    caplog.clear()
    read(jpegs, "Path,No Finding,Edema", *rows, uncertain="zero")
    assert "no row has a 0" not in caplog.text


def test_one_hot_columns_may_be_blank_for_0(jpegs, caplog):
    rows = [f"{n},{','.join('1' * (i % 3 == k) for k in range(3))}" for i, n in enumerate(NAMES)]
    assert read(jpegs, "file,Mass,Edema,Nodule", *rows).class_names == ("Mass", "Edema", "Nodule")
    assert "one-hot (exactly one 1 in each row, others blank)" in caplog.text
    message = error_of(jpegs, "file,Mass,Edema,Nodule", *rows, uncertain="error")
    assert "48 label(s) are missing" in message


NIH = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)


def test_chestxray14(tmp_path, caplog):
    names = [f"{i // 3:08}_{i % 3:03}.png" for i in range(24)]
    put(tmp_path, *(f"images/{name}" for name in names))
    found = ("No Finding", "Effusion|Mass", "Mass", "Cardiomegaly|Effusion")
    rows = [
        f"{name},{found[i % 4]},{i % 3},{i // 3},58,M,PA,2682,2749,0.143,0.143,"
        for i, name in enumerate(names)
    ]
    listing = read(tmp_path, NIH, *rows)
    assert listing.task == "multi-label"
    assert listing.class_names == ("Cardiomegaly", "Effusion", "Mass")
    assert labels_of(listing)["images/00000000_000.png"] == [0, 0, 0]
    assert labels_of(listing)["images/00000000_001.png"] == [0, 1, 1]
    assert torn(listing, lambda file: file[7:15]) == 0
    assert "labels are joined by '|': read as multi-label with 3 labels" in caplog.text


def test_one_finding_in_each_cell_is_multi_label_if_asked(tmp_path):
    put(tmp_path, *(f"{i}.png" for i in range(24)))
    rows = [f"{i}.png,{('No Finding', 'Effusion', 'Mass')[i % 3]}" for i in range(24)]
    listing = read(tmp_path, "file,label", *rows, task="multi-label")
    assert listing.class_names == ("Effusion", "Mass")
    assert [labels_of(listing)[f"{i}.png"] for i in range(3)] == [[0, 0], [1, 0], [0, 1]]
    message = error_of(tmp_path, "file,label", "0.png,yes", "1.png,no", task="multi-label")
    assert "'label' is 'yes', expected one of 0, 1" in message


def test_an_image_of_another_folder_is_never_taken(tmp_path):
    put(tmp_path, *(f"left/{i}.png" for i in range(8)))
    rows = [f"right/{i}.png,{i % 2}" for i in range(8)]
    assert "there is no file 'right/0.png'" in error_of(tmp_path, "file,label", *rows)
    above = [f"{tmp_path.name}/left/{i}.png,{i % 2}" for i in range(8)]
    assert len(labels_of(read(tmp_path, "file,label", *above))) == 8


def test_an_image_read_for_a_folder_that_is_not_there_is_told_of(jpegs, caplog):
    rows = [f"elsewhere/{name},{'ab'[i % 2]}" for i, name in enumerate(NAMES)]
    assert len(labels_of(read(jpegs, "file,label", *rows))) == len(NAMES)
    assert f"{len(NAMES)} cell(s) name a folder that is not there; such as" in caplog.text
    caplog.clear()
    rows = [f"/data/{jpegs.name}/{name}.jpg,{'ab'[i % 2]}" for i, name in enumerate(NAMES)]
    read(jpegs, "file,label", *rows)
    assert not caplog.messages


def test_two_cells_of_absent_folders_do_not_lead_to_one_image(jpegs):
    rows = [f"{folder}/{name},a" for name in NAMES[:4] for folder in "AB"]
    message = error_of(jpegs, "file,label", *rows)
    assert (
        f"line 3: 'B/{NAMES[0]}' leads to '{NAMES[0]}.jpg', as 'A/{NAMES[0]}' in line 2" in message
    )
    both = [f"{cell},{'ab'[i % 2]}" for i, n in enumerate(NAMES) for cell in (n, f"./{n}.jpg")]
    assert len(labels_of(read(jpegs, "file,label", *both))) == len(NAMES)


@pytest.mark.parametrize("form", ["{}/{}", r"C:\d\{}\{}"])
def test_splits_in_cells_count_if_the_images_lie_in_one_folder(jpegs, form, caplog):
    split = ["train", "train", "test"]
    rows = [f"{form.format(split[i % 3], n)},{'ab'[i % 2]}" for i, n in enumerate(NAMES)]
    found = splits_of(read(jpegs, "file,label", *rows))
    assert {file for file, key in found.items() if key == "test"} == {
        f"{n}.jpg" for n in NAMES[2::3]
    }
    assert "no column of splits; they are taken from the folders" in caplog.text


@pytest.mark.parametrize(
    "words", [("batch_train", "batch_test"), ("训练", "测试"), ("entraînement", "essai")]
)
def test_folders_that_look_like_splits_are_told_of(tmp_path, words, caplog):
    files = [f"{words[i % 4 == 0]}/{i}.png" for i in range(24)]
    put(tmp_path, *files)
    read(tmp_path, "file,label", *(f"{file},{'ab'[i % 2]}" for i, file in enumerate(files)))
    assert "look like splits, and are not used" in caplog.text
    caplog.clear()
    rows = [f"{file},{'ab'[i % 2]},{words[i % 4 == 0]}" for i, file in enumerate(files)]
    read(tmp_path, "file,label,menge", *rows)
    assert "column 'menge'" in caplog.text


@pytest.mark.parametrize("joined", ["a / b", "a and b", "a + b", "a-b"])
def test_joined_labels_with_blanks_around_their_mark_are_told_of(jpegs, joined, caplog):
    rows = [f"{name},{('a', 'b', joined)[i % 3]}" for i, name in enumerate(NAMES)]
    assert read(jpegs, "file,label", *rows).class_names == ("a", joined, "b")
    assert "if it joins several labels, set config.data.task to 'multi-label'" in caplog.text
    listing = read(jpegs, "file,label", *rows, task="multi-label")
    assert listing.class_names == ("a", "b")


def test_two_answers_in_several_spellings_are_an_error(jpegs):
    rows = [f"{name},{('1', 'True', '0', 'False')[i % 4]}" for i, name in enumerate(NAMES)]
    message = error_of(jpegs, "file,label", *rows)
    assert "are two answers, yes and no, in several spellings" in message


def test_a_column_may_be_called_as_an_image(tmp_path):
    put(tmp_path, *(f"case{i}/image.png" for i in range(20)))
    rows = [f"case{i}/image.png,{i % 2}" for i in range(20)]
    assert len(labels_of(read(tmp_path, "image,label", *rows))) == 20
    assert "'case0/image.png' is an image, so the table has no header" in error_of(tmp_path, *rows)


def test_accents_may_be_written_as_one_letter_or_two(tmp_path):
    two = unicodedata.normalize("NFD", "Müller")
    put(tmp_path, *(f"{two}{i}.png" for i in range(20)))
    rows = [f"{unicodedata.normalize('NFC', two)}{i}.png,{i % 2}" for i in range(20)]
    assert len(labels_of(read(tmp_path, "file,label", *rows))) == 20


def test_no_finding_goes_with_no_other(tmp_path):
    put(tmp_path, "0.png", "1.png")
    message = error_of(tmp_path, "file,label", "0.png,Mass|No Finding", "1.png,Mass")
    assert "line 2: 'label' is 'Mass|No Finding', expected 'No Finding' alone" in message


# Columns


GROUPS = (
    "patient_id",
    "Patient",
    "PatientID",
    "Patient ID",
    "patient-id",
    "patient.id",
    "PATIENT_NO",
)
GROUPS += ("Patienten-ID", "anon_patient_id", "patientId_hash", "subject", "Subject ID", "subj_id")
GROUPS += ("participant", "person_id", "case", "Case-ID", "case_no", "study_id", "StudyInstanceUID")
GROUPS += ("slide_id", "video_id", "volume_id", "SeriesInstanceUID", "AccessionNumber", "specimen")
GROUPS += ("wsi", "eye_id", "mouse_id", "biopsy_id", "encounter_id", "paciente_id", "paziente")
GROUPS += ("患者ID", "lesion_id", "LesionID", "lesion", "exam_id", "MRN", "pat_id")
GROUPS += ("Patiëntnummer", "患者番号", "病人编号", "住院号", "환자번호", "ID пациента", "hasta_no")
GROUPS += ("Nr pacjenta", "codice_paziente", "numero_paciente", "Fallnummer", "dossier_id")
GROUPS += ("NHS_number",)


@pytest.mark.parametrize("column", GROUPS)
def test_columns_of_groups_are_known_however_they_are_spelt(jpegs, column):
    rows = [f"{n},{'ab'[i // 3 % 2]},G{i // 3}" for i, n in enumerate(NAMES)]
    assert torn(read(jpegs, f"file,label,{column}", *rows), lambda f: int(f[5:9]) // 3) == 0


@pytest.mark.parametrize(
    "column", ["pathology_no", "no_lesion", "Patient Age", "showcase", "eye", "volume"]
)
def test_columns_that_only_look_so_are_not_groups(jpegs, column):
    rows = [f"{n},{'ab'[i % 2]},{i // 12}" for i, n in enumerate(NAMES)]
    plain = splits_of(read(jpegs, "file,label", *(row.rsplit(",", 1)[0] for row in rows)))
    assert splits_of(read(jpegs, f"file,label,{column}", *rows)) == plain


def test_a_column_that_may_be_of_patients_is_named(jpegs, caplog):
    rows = [f"{n},{'ab'[i % 2]},{i // 3}" for i, n in enumerate(NAMES)]
    read(jpegs, "file,label,patients at risk", *rows)
    assert "column 'patients at risk' is not used; if its images must stay" in caplog.text


@pytest.mark.parametrize("column", ["ID", "tumour_no", "scannerUid"])
def test_an_identifier_that_repeats_and_is_not_used_is_named(jpegs, column, caplog):
    warning = f"column {column!r} is not used; if its images must stay"
    rows = [f"{n},{'ab'[i % 2]},{i // 3}" for i, n in enumerate(NAMES)]
    read(jpegs, f"file,label,{column}", *rows)
    assert warning in caplog.text
    caplog.clear()
    read(jpegs, f"file,label,{column},patient", *(f"{row},{i // 6}" for i, row in enumerate(rows)))
    read(jpegs, f"file,label,{column}", *rows, group_column="none")
    rows = [f"{n},{'ab'[i % 2]},{i}" for i, n in enumerate(NAMES)]
    read(jpegs, f"file,label,{column}", *rows)
    assert warning not in caplog.text


def test_neither_of_two_columns_of_groups_is_torn(jpegs, caplog):
    rows = [f"{n},{'ab'[i % 2]},C{i},{i // 3}" for i, n in enumerate(NAMES)]
    listing = read(jpegs, "file,label,case_no,lesion_id", *rows)
    assert torn(listing, lambda file: int(file[5:9]) // 3) == 0
    assert "images with the same 'lesion_id' stay in one split too" in caplog.text
    rows = [f"{n},{'ab'[i // 2 % 2]},P{i // 2},{i + (i % 8 == 5)}" for i, n in enumerate(NAMES)]
    listing = read(jpegs, "file,label,patient,lesion_id", *rows)
    assert torn(listing, lambda file: int(file[5:9]) // 2) == 0
    assert torn(listing, lambda file: int(file[5:9]) // 4 if int(file[5:9]) % 8 > 3 else file) == 0


@pytest.mark.parametrize("column", ["visit_no", "study_id", "exam"])
def test_a_column_that_would_join_nearly_all_is_not_taken_beside_patients(jpegs, column, caplog):
    rows = [f"{n},{'ab'[i % 2]},{i // 3},E{i % 3}" for i, n in enumerate(NAMES)]
    listing = read(jpegs, f"file,label,patient,{column}", *rows)
    assert torn(listing, lambda file: int(file[5:9]) // 3) == 0
    assert f"column {column!r} is not used; if its images must stay" in caplog.text


def test_a_column_of_groups_can_be_named_or_switched_off(jpegs):
    rows = [f"{n},{'ab'[i % 2]},{i // 3},{i // 4}" for i, n in enumerate(NAMES)]
    lines = ("file,label,ward,patient", *rows)
    named = read(jpegs, *lines, group_column="ward")
    assert torn(named, lambda file: int(file[5:9]) // 3) == 0
    assert torn(read(jpegs, *lines, group_column="none"), lambda f: int(f[5:9]) // 4) > 0


def test_two_spellings_of_a_patient_are_one_and_it_says_so(jpegs, caplog):
    spelling = ("P{}", "p{} ", "P{}")
    rows = [f"{n},{'ab'[i // 3 % 2]},{spelling[i % 3].format(i // 3)}" for i, n in enumerate(NAMES)]
    assert torn(read(jpegs, "file,label,patient", *rows), lambda f: int(f[5:9]) // 3) == 0
    assert "8 group(s) are spelled in several ways" in caplog.text
    numbers = ("{:03}", "{}", "{}.0")
    rows = [f"{n},{'ab'[i // 3 % 2]},{numbers[i % 3].format(i // 3)}" for i, n in enumerate(NAMES)]
    assert torn(read(jpegs, "file,label,patient", *rows), lambda f: int(f[5:9]) // 3) == 0


@pytest.mark.parametrize(
    "column", ["Split", "SPLIT", "set", "Subset", "partition", "data_split", "fold"]
)
@pytest.mark.parametrize(
    "words",
    [("train", "val", "test"), ("Training", "Valid", "Testing"), ("TRAIN", "dev", " Test ")],
)
def test_columns_of_splits_are_known_however_they_are_spelt(jpegs, column, words):
    rows = [f"{n},{'ab'[i % 2]},{words[i // 2 % 3]}" for i, n in enumerate(NAMES)]
    splits = splits_of(read(jpegs, f"file,label,{column}", *rows))
    assert splits == {f"{n}.jpg": SPLITS[i // 2 % 3] for i, n in enumerate(NAMES)}


def test_a_column_of_another_name_that_holds_splits_is_taken(jpegs, caplog):
    rows = [f"{n},{'ab'[i % 2]},{('train', 'test')[i // 2 % 2]}" for i, n in enumerate(NAMES)]
    with caplog.at_level(logging.INFO):
        splits = splits_of(read(jpegs, "file,label,Gruppe", *rows))
    assert all(splits[f"{n}.jpg"] == "test" for i, n in enumerate(NAMES) if i // 2 % 2)
    assert "column 'Gruppe' holds the splits" in caplog.text


@pytest.mark.parametrize("column", ["fold", "partition", "Set", "kfold"])
def test_columns_of_numbered_splits_are_never_ignored_in_silence(jpegs, column):
    rows = [f"{n},{'ab'[i % 2]},{i % 5}" for i, n in enumerate(NAMES)]
    message = error_of(jpegs, f"file,label,{column}", *rows)
    assert f"column '{column}' looks like one of splits, but holds '0', '1'" in message
    assert "set config.data.split_column to 'none'" in message
    assert read(jpegs, f"file,label,{column}", *rows, split_column="none").task == "binary-class"


def test_other_words_in_a_column_of_splits_are_an_error_with_the_line(jpegs):
    rows = [f"{n},{'ab'[i % 2]},train" for i, n in enumerate(NAMES)]
    rows[4] = rows[4].replace("train", "spare")
    assert "line 6: 'Set' is 'spare', expected one of train, val, test" in error_of(
        jpegs, "file,label,Set", *rows
    )


@pytest.mark.parametrize(
    "column", ["Label", "class", "CLASS", "Diagnosis", "dx", "target", "Grade"]
)
@pytest.mark.parametrize("file", ["filename", "Image Path", "image_id", "img", "ID", "Bild"])
def test_columns_of_files_and_labels_are_known(jpegs, column, file):
    rows = [f"{n},{'ab'[i % 2]},{i}" for i, n in enumerate(NAMES)]
    assert read(jpegs, f"{file},{column},age", *rows).class_names == ("a", "b")


def test_columns_can_be_named(jpegs):
    rows = [f"{'ab'[i % 2]},x{i},{n},{i % 3}" for i, n in enumerate(NAMES)]
    lines = ("befund,image,bild,diagnosis", *rows)
    listing = read(jpegs, *lines, file_column="bild", label_column="befund")
    assert listing.class_names == ("a", "b")
    message = error_of(jpegs, *lines, kind=ConfigError, label_column="Befund")
    assert "config.data.label_column is 'Befund', expected one of the columns of" in message


def test_several_columns_of_labels_can_be_named(jpegs):
    rows = [f"{n},{i % 2},{i % 3 // 2},{i % 2}" for i, n in enumerate(NAMES)]
    listing = read(jpegs, "file,x,y,other", *rows, label_column="y, x")
    assert listing.class_names == ("y", "x")


def test_metadata_of_0_and_1_are_not_taken_for_the_labels(jpegs, caplog):
    rows = [f"{n},{'ab'[i % 2]},{i % 2},{i % 3 // 2}" for i, n in enumerate(NAMES)]
    assert read(jpegs, "img_id,diagnostic,smoke,drink", *rows).class_names == ("a", "b")
    assert "look like labels too, and are not used: 'smoke', 'drink'" in caplog.text
    assert read(jpegs, "img_id,result,smoke,drink", *rows).class_names == ("smoke", "drink")
    assert "but column 'result' ('a', 'b', ...) may be the label: then name" in caplog.text
    caplog.clear()
    listing = read(jpegs, "img_id,result,smoke,drink", *rows, task="multi-label")
    assert listing.class_names == ("smoke", "drink")
    assert "columns of 0 and 1 are read as labels: 'smoke', 'drink'. To take others" in caplog.text
    assert "may be the label" not in caplog.text


def test_columns_of_which_nearly_all_are_one_hot_are_an_error(jpegs):
    rows = [f"{n},{1 - i % 2},{i % 2},{i // 3 % 2}" for i, n in enumerate(NAMES)]
    message = error_of(jpegs, "image,normal,cancer,dermoscopic", *rows)
    assert "'normal', 'cancer' are one-hot" in message
    assert "but with 'dermoscopic' they are not: name the column(s) of labels" in message
    listing = read(jpegs, "image,normal,cancer", *(row.rsplit(",", 1)[0] for row in rows))
    assert listing.class_names == ("normal", "cancer")


def test_true_and_false_and_words_in_any_case(tmp_path):
    put(tmp_path, *(f"{i}.png" for i in range(12)))
    cells = ("True,false", "FALSE,TRUE", "1,1.0", "0,0.0")
    listing = read(tmp_path, "file,x,y", *(f"{i}.png,{cells[i % 4]}" for i in range(12)))
    assert [labels_of(listing)[f"{i}.png"] for i in range(4)] == [[1, 0], [0, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize("word", ["nan", "NaN", "NA", "N/A", "None", "null", "<NA>", "", " ", "?"])
def test_missing_classes_are_an_error_with_their_number(jpegs, word):
    rows = [f"{n},{'ab'[i % 2] if i % 3 else word}" for i, n in enumerate(NAMES)]
    message = error_of(jpegs, "file,label", *rows)
    assert f"line 2: 'label' is {word!r}, expected a value: it is missing in 8 row(s)" in message


def test_joined_labels_with_other_marks(jpegs):
    found = ("Mass", "Mass; Edema", "Edema", "")
    rows = [f"{n},{found[i % 3]}" for i, n in enumerate(NAMES)]
    listing = read(jpegs, "file,label", *rows)
    assert listing.class_names == ("Edema", "Mass")
    rows = [f'{n},"{found[i % 3].replace(";", ",")}"' for i, n in enumerate(NAMES)]
    assert read(jpegs, "file,label", *rows).class_names == ("Edema", "Mass")


def test_joined_labels_have_one_spelling(jpegs):
    found = ("Effusion|Mass", "effusion", "Mass")
    message = error_of(jpegs, "file,label", *(f"{n},{found[i % 3]}" for i, n in enumerate(NAMES)))
    assert "found classes 'Effusion' and 'effusion', expected one spelling" in message


@pytest.mark.parametrize(
    "second", ["['Edema', 'pleural effusion']", "['Edema' 'pleural effusion']"]
)
def test_lists_are_several_labels(jpegs, second, caplog):
    found = ("['Edema']", second, "[]")
    rows = [f'{n},"{found[i % 3]}"' for i, n in enumerate(NAMES)]
    listing = read(jpegs, "file,label", *rows)
    assert listing.class_names == ("Edema", "pleural effusion")
    assert [labels_of(listing)[f"{n}.jpg"] for n in NAMES[:3]] == [[1, 0], [1, 1], [0, 0]]
    assert "labels are lists in brackets: read as multi-label with 2 labels" in caplog.text


@pytest.mark.parametrize("found", [("Mass", "Effusion", "Mass\nEffusion"), ("16", "0 5", "0 16")])
def test_labels_that_blanks_or_lines_may_join_are_told_of(jpegs, found, caplog):
    rows = [f'{n},"{found[i % 3]}"' for i, n in enumerate(NAMES)]
    assert len(read(jpegs, "file,label", *rows).class_names) == 3
    assert "which is read as part of a class's name" in caplog.text
    parts = {part for label in found for part in label.split()}
    listing = read(jpegs, "file,label", *rows, task="multi-label")
    assert {*listing.class_names} == parts


def test_names_of_classes_may_hold_a_comma_and_it_says_so(jpegs, caplog):
    rows = [f'{n},"{("carcinoma, ductal", "other")[i % 2]}"' for i, n in enumerate(NAMES)]
    assert read(jpegs, "file,label", *rows).class_names == ("carcinoma, ductal", "other")
    assert "labels hold ',', which is read as part of a class's name" in caplog.text


def test_joined_labels_are_classes_if_asked(jpegs):
    rows = [f"{n},{('a|b', 'b')[i % 2]}" for i, n in enumerate(NAMES)]
    assert read(jpegs, "file,label", *rows, task="multi-class").class_names == ("a|b", "b")


@pytest.mark.parametrize(
    "names",
    [("Nevus", "nevus"), ("no finding", "No_Finding"), ("a b", "a  b"), ("b", "b\u200b")],
)
def test_one_class_in_two_spellings_is_an_error(jpegs, names):
    rows = [f"{n},{(*names, 'other')[i % 3]}" for i, n in enumerate(NAMES)]
    message = error_of(jpegs, "file,label", *rows)
    assert repr(names[0]) in message and repr(names[1]) in message
    assert "expected one spelling" in message


def test_a_measurement_is_not_a_class(jpegs):
    message = error_of(jpegs, "file,label", *(f"{n},{i * 1.37:.2f}" for i, n in enumerate(NAMES)))
    assert "found 24 classes in 24 images" in message
    assert "a measurement? It needs regression, which is not supported" in message


# Files


@pytest.mark.parametrize("write_as", ["{}", "{}.JPG", "{}.png", "./{}.jpg", "other\\{}.jpg", "{} "])
def test_files_are_found_without_suffix_or_with_another(jpegs, write_as):
    rows = [f"{write_as.format(n)},{'ab'[i % 2]}" for i, n in enumerate(NAMES)]
    assert set(labels_of(read(jpegs, "file,label", *rows))) == {f"{n}.jpg" for n in NAMES}


def test_an_id_that_may_be_two_files_is_an_error(jpegs):
    put(jpegs, "x/ISIC_0002.png")
    message = error_of(jpegs, "file,label", *(f"{n},{'ab'[i % 2]}" for i, n in enumerate(NAMES)))
    assert "line 4: 'ISIC_0002' may be ISIC_0002.jpg or x/ISIC_0002.png: write the path" in message


def test_rows_that_repeat_an_image_count_once_and_it_says_so(jpegs, caplog):
    rows = [f"{n},{'ab'[i % 2]}" for i, n in enumerate(NAMES)]
    assert len(labels_of(read(jpegs, "file,label", *rows, rows[3], rows[3]))) == 24
    assert "2 row(s) repeat an earlier one" in caplog.text


@pytest.mark.parametrize("names", ["id,fname", "image,jpg_path", "id,image_file_path"])
def test_the_number_of_a_row_is_not_taken_for_a_file(tmp_path, names):
    put(tmp_path, *(f"{i}.png" for i in range(12)))
    rows = [f"{i},{11 - i}.png,{'ab'[i % 2]}" for i in range(12)]
    lines = (f"{names},label", *rows)
    number, file = names.split(",")
    assert f"columns {number!r} and {file!r} lead to different images" in error_of(tmp_path, *lines)
    assert labels_of(read(tmp_path, *lines, file_column=file))["11.png"] == 0
    rows = [f"{i},{11 - i}.png,{'ab'[i % 2]}" for i in range(1, 12)]
    message = error_of(tmp_path, f"{names},label", "99,11.png,a", *rows)
    assert "such as '99' and '11.png' in one row" in message


def test_other_columns_may_lead_to_masks_or_to_the_same_images(tmp_path, caplog):
    put(tmp_path, *(name for i in range(12) for name in (f"x/{i}.png", f"m/{i}_m.png")))
    rows = [f"{i},x/{i}.png,m/{i}_m.png,{'ab'[i % 2]}" for i in range(12)]
    with caplog.at_level(logging.INFO):
        assert "x/3.png" in labels_of(read(tmp_path, "image,jpg,mask,label", *rows))
    assert "column 'image' holds the files" in caplog.text


# Spreadsheets


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [("utf-8", b""), ("utf-8", b"\xef\xbb\xbf"), ("utf-16", b""), ("utf-16-be", b"\xfe\xff")],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_and_ends_of_lines(jpegs, encoding, mark, end):
    rows = [f"{n},{('Bösartig', 'gut')[i % 2]}" for i, n in enumerate(NAMES)]
    write(jpegs, "file,label", *rows, encoding=encoding, end=end)
    (jpegs / "t.csv").write_bytes(mark + (jpegs / "t.csv").read_bytes())
    assert list_folder(jpegs, csv="t.csv").class_names == ("Bösartig", "gut")


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark(jpegs, encoding):
    write(
        jpegs, "file,label", *(f"{n},{'ab'[i % 2]}" for i, n in enumerate(NAMES)), encoding=encoding
    )
    assert list_folder(jpegs, csv="t.csv").class_names == ("a", "b")


def test_cp1252_is_read_and_it_says_so(jpegs, caplog):
    rows = [f"{n},{('Bösartig', 'gut')[i % 2]}" for i, n in enumerate(NAMES)]
    write(jpegs, "file,label", *rows, encoding="cp1252")
    assert list_folder(jpegs, csv="t.csv").class_names == ("Bösartig", "gut")
    assert "line 2: not UTF-8; read as cp1252" in caplog.text


@pytest.mark.parametrize("mark", [";", "\t", ",", "|"])
@pytest.mark.parametrize("first", [[], ["sep={}"]])
def test_delimiters(jpegs, mark, first):
    weight = "1.5" if mark == "," else "1,5"
    rows = [mark.join((name, "ab"[i % 2], weight)) for i, name in enumerate(NAMES)]
    lines = [line.format(mark) for line in first] + [mark.join(("file", "label", "kg")), *rows]
    assert read(jpegs, *lines).class_names == ("a", "b")


def test_blank_rows_and_columns_and_row_numbers(jpegs):
    rows = [f"{i},{n},{'ab'[i % 2]},," for i, n in enumerate(NAMES)]
    lines = (",file,label,,", *rows[:9], ",,,,", "", *rows[9:], ",,,,", " , ,,,", "")
    assert len(labels_of(read(jpegs, *lines))) == 24


def test_the_row_numbers_of_a_data_frame_are_not_labels(jpegs):
    rows = [f"{i},{n},{i % 2},{i % 3 // 2}" for i, n in enumerate(NAMES)]
    assert read(jpegs, ",file,x,y", *rows).class_names == ("x", "y")
    assert read(jpegs, "Unnamed: 0,file,x,y", *rows).class_names == ("x", "y")


def test_a_pipe_as_table_is_an_error_at_once(tmp_path):
    import os

    os.mkfifo(tmp_path / "t.csv")
    with pytest.raises(DataError, match="cannot be read .*pipe"):
        list_folder(tmp_path, csv="t.csv")


def test_split_words():
    words = {
        "train": ("Train", "TrainSet", "train_images", "1_train", "ISIC_2019_Training_Input"),
        "val": ("VALID", "dev", "validate", "tuning", "val2017"),
        "test": ("Test set", "evaluation", "external"),
        None: ("extra", "invalid", "stress test", "test2", "data", ""),
    }
    for split, names in words.items():
        assert {*map(columns.split_of, names)} == {split}


@pytest.mark.parametrize(
    "words", [("train_images", "val_images", "test_images"), ("TrainSet", "validate", "external")]
)
def test_words_for_splits_may_stand_beside_others(tmp_path, words, caplog):
    names = [f"{words[i % 3]}/{i}.png" for i in range(12)]
    put(tmp_path, *names)
    rows = [f"{name},{'ab'[i // 3 % 2]}" for i, name in enumerate(names)]
    splits = splits_of(read(tmp_path, "file,label", *rows))
    assert splits == {name: SPLITS[i % 3] for i, name in enumerate(names)}
    assert ("'external': read as the split test" in caplog.text) == ("external" in words)
    rows = [f"{row},{words[i % 3]}" for i, row in enumerate(rows)]
    assert splits_of(read(tmp_path, "file,label,cohort", *rows)) == splits


def test_words_for_splits_that_are_not_certain_are_an_error(tmp_path):
    words = ("train", "test", "spare")
    names = [f"{words[i % 3]}/{i}.png" for i in range(12)]
    put(tmp_path, *names)
    rows = [f"{name},{'ab'[i // 3 % 2]}" for i, name in enumerate(names)]
    message = error_of(tmp_path, "file,label", *rows)
    assert "the folders 'test', 'train' look(s) like splits, but 'spare' do(es) not" in message
    assert len(labels_of(read(tmp_path, "file,label", *rows, split_column="none"))) == 12
    cells = [f"{row},{('train', 'test', '')[i % 3]}" for i, row in enumerate(rows)]
    assert "column 'cohort': 'test', 'train' look(s) like splits, but ''" in error_of(
        tmp_path, "file,label,cohort", *cells
    )
    cells = [f"{row},{('train', 'test', 'external')[i % 3]}" for i, row in enumerate(rows)]
    assert "column 'split': 'external', 'test' may all be the split test" in error_of(
        tmp_path, "file,label,split", *cells
    )


def test_unknown_labels_reach_the_dataset(tmp_path):
    write(tmp_path, CHEXPERT, *chexpert(tmp_path))
    dataset = load_folder(tmp_path, csv="t.csv", size=4)
    assert isinstance(dataset, data_lib.Dataset)
    labels = np.concatenate([dataset.split(key).labels for key in SPLITS])
    assert set(np.unique(labels)) == {-1, 0, 1}


def test_splits_in_the_paths_are_taken_if_there_is_no_column(tmp_path, caplog):
    names = [f"{('Train', 'valid', 'test')[i // 2 % 3]}/{i}.png" for i in range(24)]
    put(tmp_path, *names)
    rows = [f"{name},{'ab'[i % 2]}" for i, name in enumerate(names)]
    splits = splits_of(read(tmp_path, "file,label", *rows))
    assert splits == {name: SPLITS[i // 2 % 3] for i, name in enumerate(names)}
    assert "they are taken from the folders of the files" in caplog.text
    drawn = splits_of(read(tmp_path, "file,label", *rows, split_column="none"))
    assert drawn != splits


def test_a_table_of_nearly_one_hot_rows_names_the_row_that_is_not(jpegs, caplog):
    rows = [f"{n},{1 - i % 2},{i % 2}" for i, n in enumerate(NAMES)]
    rows[5] = f"{NAMES[5]},1,1"
    assert read(jpegs, "image,MEL,NV", *rows).task == "multi-label"
    assert "line 7: not exactly one 1, unlike 23 of 24 rows" in caplog.text


@pytest.mark.parametrize(
    ("start", "kind"), [(b"PK\3\4 workbook", "zip"), (b"%PDF-1.7", "PDF"), (b"<html>", "HTML")]
)
def test_what_is_not_a_table_is_named(tmp_path, start, kind):
    (tmp_path / "t.csv").write_bytes(start)
    with pytest.raises(DataError, match=f"t.csv: is {kind}.*: export the table as CSV"):
        list_folder(tmp_path, csv="t.csv")


@pytest.mark.parametrize("column", ["is_test", "Train", "test", "isTrain", "valid"])
def test_a_split_given_by_0_and_1_is_not_ignored(jpegs, column):
    rows = [f"ISIC_{i:04}.jpg,{'ab'[i % 2]},{int(i > 9)}" for i in range(12)]
    (jpegs / "t.csv").write_text("\n".join([f"file,label,{column}", *rows]))
    with pytest.raises(
        DataError, match=f"column '{column}' looks like one of splits, but holds '0', '1'"
    ):
        list_folder(jpegs, csv="t.csv")


@pytest.mark.parametrize("column", ["validation", "is_val", "test_flag", "in_test_set", "holdout"])
@pytest.mark.parametrize(
    "values",
    [("no", "yes"), ("N", "Y"), ("", "x"), ("0", "1"), ("nein", "ja"), ("否", "是"), ("1", "2")],
)
def test_a_split_given_by_any_two_values_is_not_ignored(jpegs, column, values):
    rows = [f"{n},{'ab'[i % 2]},{values[i > 9]}" for i, n in enumerate(NAMES)]
    message = error_of(jpegs, f"file,label,{column}", *rows)
    assert f"column {column!r} looks like one of splits, but holds" in message
    rows = [f"{n},{('positive', 'negative')[i % 2]}" for i, n in enumerate(NAMES)]
    assert read(jpegs, f"file,{column}", *rows).class_names == ("negative", "positive")


@pytest.mark.parametrize(
    ("first", "second"), [("0", "0.0"), ("n\u00e9vus", "ne\u0301vus"), ("1", "01.0")]
)
def test_numbers_and_accents_have_one_spelling(jpegs, first, second):
    rows = [f"ISIC_{i:04}.jpg,{(first, second, 'x')[i % 3]}" for i in range(12)]
    (jpegs / "t.csv").write_text("\n".join(["file,label", *rows]))
    with pytest.raises(DataError, match="expected one spelling"):
        list_folder(jpegs, csv="t.csv")


def test_spellings_that_look_the_same_are_told_apart(jpegs):
    names = ("n\u00e9vus", "ne\u0301vus", "x")
    rows = [f"{n},{names[i % 3]}" for i, n in enumerate(NAMES)]
    assert r"classes 'ne\u0301vus' and 'n\xe9vus'" in error_of(jpegs, "file,label", *rows)


@pytest.mark.parametrize(
    ("labels", "unknown"),
    [
        (("benign", "malignant", "-1"), ["-1"]),
        (("0", "1", "9999", "Unknown"), ["9999", "Unknown"]),
        (("98", "99", "100", "other"), []),
        (("benign", "ungradable", "no label"), ["no label", "ungradable"]),
    ],
)
def test_classes_that_may_mean_unknown_are_told_of(jpegs, labels, unknown, caplog):
    read(jpegs, "file,label", *(f"{n},{labels[i % len(labels)]}" for i, n in enumerate(NAMES)))
    count = len(NAMES) // len(labels)
    found = [message for message in caplog.messages if "not known" in message]
    assert len(found) == len(unknown)
    for name, message in zip(unknown, found, strict=True):
        assert f"{count} image(s) are of class {name!r}" in message


@pytest.mark.parametrize(
    ("mark", "labels"), [("-1", "01"), ("-1.0", "01"), ("#N/A", "ab"), (".", "ab"), ("nil", "ab")]
)
def test_a_mark_for_a_missing_class_is_not_a_class(jpegs, mark, labels):
    rows = [f"ISIC_{i:04}.jpg,{mark if i == 3 else labels[i % 2]}" for i in range(12)]
    (jpegs / "t.csv").write_text("\n".join(["file,label", *rows]))
    with pytest.raises(DataError, match="line 5: 'label' is .* missing in 1 row"):
        list_folder(jpegs, csv="t.csv")


def test_a_table_without_a_header_is_an_error(jpegs):
    (jpegs / "t.csv").write_text("\n".join(f"ISIC_{i:04}.jpg,{'ab'[i % 2]}" for i in range(12)))
    with pytest.raises(DataError, match="'ISIC_0000.jpg' is an image, so the table has no header"):
        list_folder(jpegs, csv="t.csv")


def test_classes_that_may_be_joined_are_told_of(jpegs, caplog):
    rows = [f"ISIC_{i:04}.jpg,{('a', 'b', 'a/b')[i % 3]}" for i in range(12)]
    (jpegs / "t.csv").write_text("\n".join(["file,label", *rows]))
    list_folder(jpegs, csv="t.csv")
    assert "labels hold '/'" in caplog.text


@pytest.mark.parametrize("chosen", ["label", "class"])
def test_columns_that_may_be_of_labels_too_are_told_of(jpegs, chosen, caplog):
    header = f"file,{chosen},mel,nev,age" + ",diagnosis" * (chosen == "label")
    rest = ",x" * (chosen == "label")
    rows = [f"{n},{i % 2},{i % 3 % 2},{i % 5 % 2},50{rest}" for i, n in enumerate(NAMES)]
    listing = read(jpegs, header, *rows)
    assert labels_of(listing)[f"{NAMES[3]}.jpg"] == 1
    others = "'mel', 'nev'" + ", 'diagnosis'" * (chosen == "label")
    assert f"column {chosen!r} holds the labels; these look like labels too" in caplog.text
    assert f"not used: {others}. To take" in caplog.text


def test_a_column_of_one_patient_is_told_of_once(jpegs, caplog):
    read(jpegs, "file,label,patient_id", *(f"{n},{i % 2},1" for i, n in enumerate(NAMES)))
    (message,) = (message for message in caplog.messages if "'patient_id'" in message)
    assert "is the same in all rows" in message


def test_an_old_excel_file_is_named(jpegs):
    (jpegs / "t.csv").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(range(256)))
    with pytest.raises(DataError, match=r"is Excel \(xls\) .* export the table as CSV"):
        list_folder(jpegs, csv="t.csv")


def test_a_longer_name_of_a_patients_number_is_taken(jpegs):
    rows = [f"ISIC_{i:04}.jpg,{'ab'[i // 3 % 2]},{i // 3}" for i in range(12)]
    (jpegs / "t.csv").write_text("\n".join(["file,label,hospital_patient_id", *rows]))
    listing = list_folder(jpegs, csv="t.csv")
    assert len(set(listing.train.groups) & set(listing.test.groups)) == 0
    assert len({*listing.train.groups, *listing.val.groups, *listing.test.groups}) == 4


def test_roles_of_columns_are_named_if_there_are_no_labels(jpegs):
    rows = [f"{n},{('nevus', 'bcc')[i % 2]}" for i, n in enumerate(NAMES)]
    message = error_of(jpegs, "file,lesion", *rows)
    assert (
        "no column of labels among 'file' (files), 'lesion' (groups), expected 'label'" in message
    )
    assert read(jpegs, "file,lesion", *rows, label_column="lesion").class_names == ("bcc", "nevus")


def test_a_column_of_too_few_groups_is_named(jpegs):
    rows = [f"{n},{'ab'[i % 3 // 2]},{('case', 'control')[i % 2]}" for i, n in enumerate(NAMES)]
    message = error_of(jpegs, "file,label,case", *rows)
    assert "in 2 group(s) (of column 'case', or identical files)" in message
    assert "config.data.group_column ('none')" in message


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"PAR1\x15", "Parquet"),
        (b"SQLite format 3\0", "SQLite"),
        (b"BZh91AY&SY", "bzip2"),
        (b"\x80\x05\x95", "not text"),
    ],
)
def test_what_is_not_text_is_said_to_be_so(tmp_path, start, kind):
    (tmp_path / "t.csv").write_bytes(start + bytes(range(256)))
    with pytest.raises(DataError, match=f"t.csv: is {kind}, expected a CSV file: export"):
        list_folder(tmp_path, csv="t.csv")


def test_cells_parted_by_blanks_are_told_of(jpegs):
    rows = [f"{i} {n}.jpg {'ab'[i % 2]} cohen" for i, n in enumerate(NAMES)]
    assert "line 1: cells are parted by blanks, expected commas" in error_of(jpegs, *rows)


def test_a_blank_may_precede_a_quote(jpegs):
    rows = [f'"{n}", "{"ab"[i % 2]}"' for i, n in enumerate(NAMES)]
    assert read(jpegs, '"file", "label"', *rows).class_names == ("a", "b")


@pytest.mark.parametrize("mark", ["#REF!", "#VALUE!", "#DIV/0!"])
def test_errors_of_a_spreadsheet_are_no_classes(jpegs, mark):
    rows = [f"{n},{('a', 'b', mark)[i % 3]}" for i, n in enumerate(NAMES)]
    assert "it is missing in 8 row(s)" in error_of(jpegs, "file,label", *rows)


def test_classes_that_differ_in_punctuation_only_are_told_of(jpegs, caplog):
    names = ("BI-RADS 4a", "BIRADS 4a", "ER+", "ER-")
    rows = [f"{n},{names[i % 4]}" for i, n in enumerate(NAMES)]
    assert len(read(jpegs, "file,label", *rows).class_names) == 4
    assert "classes 'BI-RADS 4a' and 'BIRADS 4a' differ in blanks or punctuation" in caplog.text
    assert "ER" not in caplog.text


def test_labels_may_be_called_as_the_columns_of_a_draw(jpegs):
    rows = [f"{n},{i % 2},{i % 3 // 2}" for i, n in enumerate(NAMES)]
    write(jpegs, "image,file,draw", *rows)
    load = lambda: load_folder(
        jpegs, size=4, csv="t.csv", file_column="image", label_column="file,draw"
    )
    first, again = load(), load()
    assert first.train.names == again.train.names


def test_a_patients_age_is_no_patient(jpegs, caplog):
    rows = [f"{n},{'ab'[i % 2]},{40 + i % 3},{'MF'[i % 2]}" for i, n in enumerate(NAMES)]
    read(jpegs, "file,label,Patient Age,Patient Sex", *rows)
    assert "must stay in one split" not in caplog.text
    read(jpegs, "file,label,Patient Age,patient_x", *rows)
    assert "column 'patient_x' is not used" in caplog.text
