"""Labelled sets from elsewhere: their classes are the network's, and nothing is lost in silence."""

import numpy as np
import pytest
from PIL import Image

from lsanet_jax.data.labelled import read_folder, read_npz
from lsanet_jax.errors import DataError

CLASSES = ("akiec", "basal cell", "mel")


def put(root, *names):
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng([len(name), i]).integers(0, 256, (6, 6), np.uint8)
        Image.fromarray(pixels).save(root / name)


def labels_of(found):
    return dict(zip(found.names, found.labels.tolist(), strict=True))


def test_class_folders_have_the_networks_numbers(tmp_path, caplog):
    put(tmp_path, "mel/1.png", "mel/2.png", "Basal_Cell/3.png")
    found = read_folder(tmp_path, CLASSES, "multi-class")
    assert labels_of(found) == {"mel/1.png": 2, "mel/2.png": 2, "Basal_Cell/3.png": 1}
    assert "read 'Basal_Cell' as 'basal cell'" in caplog.text
    assert "has no images of 'akiec'" in caplog.text


def test_one_class_is_enough_and_empty_folders_do_not_matter(tmp_path):
    put(tmp_path, "mel/1.png")
    (tmp_path / "akiec").mkdir()
    assert read_folder(tmp_path, CLASSES, "multi-class").labels.tolist() == [2]


@pytest.mark.parametrize(
    ("name", "classes"),
    [("nevus", CLASSES), ("melanoma", CLASSES), ("1", ("0", "-1")), ("10", ("1.0", "2"))],
)
def test_a_class_that_the_network_does_not_know_is_an_error(tmp_path, name, classes):
    put(tmp_path, f"{name}/1.png")
    with pytest.raises(DataError, match=f"1 class.* not the network's: '{name}'; it knows"):
        read_folder(tmp_path, classes, "multi-class")


def test_numbers_are_classes_by_their_value(tmp_path):
    put(tmp_path, "1.0/1.png", "10/2.png")
    found = read_folder(tmp_path, ("1", "2", "10"), "ordinal-regression")
    assert found.labels.tolist() == [0, 2]


def test_tables_are_read_as_for_training(tmp_path):
    put(tmp_path, *(f"{i}.jpg" for i in range(4)))
    rows = ["0,1.0,0.0,0.0,a", "1,0,0,1,a", "2,0,1,0,b", "3,0,0,1,b"]
    header = "image,akiec,basal_cell,MEL,patient_id"
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
    found = read_folder(tmp_path, CLASSES, "multi-class", csv="t.csv")
    assert found.labels.tolist() == [0, 2, 1, 2]
    assert found.groups == (0, 0, 1, 1)


def test_multi_label_columns_are_matched_by_name_and_missing_ones_unknown(tmp_path, caplog):
    put(tmp_path, *(f"{i}.jpg" for i in range(4)))
    rows = ["0,1,1,0", "1,0,1,0", "2,1,0,1", "3,1,,1"]
    (tmp_path / "t.csv").write_text("\n".join(["file,Mass,effusion,Nodule", *rows]))
    classes = ("Effusion", "Hernia", "Mass")
    found = read_folder(tmp_path, classes, "multi-label", csv="t.csv")
    assert found.labels.tolist() == [[1, -1, 1], [1, -1, 0], [0, -1, 1], [-1, -1, 1]]
    assert "labels that the network does not know: 'Nodule'" in caplog.text
    assert "no labels 'Hernia'; they are left out" in caplog.text
    with pytest.raises(DataError, match="none of the network's 'x', 'y'"):
        read_folder(tmp_path, ("x", "y"), "multi-label", csv="t.csv")


def test_a_label_in_two_spellings_is_one_label(tmp_path, caplog):
    put(tmp_path, *(f"{i}.png" for i in range(4)))
    rows = ["0,mass|Edema", "1,MASS", "2,No Finding", "3,Edema"]
    (tmp_path / "t.csv").write_text("\n".join(["file,label", *rows]))
    found = read_folder(tmp_path, ("Mass", "Edema"), "multi-label", csv="t.csv")
    assert found.labels.tolist() == [[1, 1], [1, 0], [0, 0], [0, 1]]
    assert "joined labels (1 if one of them is 1): 'MASS', 'mass'." in caplog.text


def test_a_finding_that_no_row_of_a_joined_table_has_is_0(tmp_path, caplog):
    put(tmp_path, *(f"{i}.png" for i in range(3)))
    rows = ["0,mass|edema", "1,mass", "2,No Finding"]
    (tmp_path / "t.csv").write_text("\n".join(["file,label", *rows]))
    found = read_folder(tmp_path, ("mass", "edema", "fluid"), "multi-label", csv="t.csv")
    assert found.labels.tolist() == [[1, 1, 0], [1, 0, 0], [0, 0, 0]]
    assert "has no labels" not in caplog.text


def test_of_a_set_that_is_split_the_test_split_is_scored(tmp_path, caplog):
    put(tmp_path, "train/mel/1.png", "train/mel/2.png", "Test/mel/3.png")
    assert read_folder(tmp_path, CLASSES, "multi-class").names == ["Test/mel/3.png"]
    assert "scored are the 1 image(s) of its split 'test'; 2 of other splits" in caplog.text
    assert len(read_folder(tmp_path, CLASSES, "multi-class", split="all").names) == 3
    assert len(read_folder(tmp_path, CLASSES, "multi-class", split="train").names) == 2
    with pytest.raises(DataError, match="no split 'val' .found 1 test, 2 train"):
        read_folder(tmp_path, CLASSES, "multi-class", split="val")


def test_a_test_folder_alone_will_do(tmp_path):
    put(tmp_path, "test/mel/1.png")
    assert read_folder(tmp_path, CLASSES, "multi-class").names == ["test/mel/1.png"]


def test_a_set_that_is_not_split_has_no_split_to_choose(tmp_path):
    put(tmp_path, "mel/1.png")
    with pytest.raises(DataError, match="no split 'train' .found none"):
        read_folder(tmp_path, CLASSES, "multi-class", split="train")


def test_the_same_picture_with_two_labels_is_told(tmp_path, caplog):
    put(tmp_path, "mel/1.png")
    (tmp_path / "akiec").mkdir()
    (tmp_path / "akiec/1.png").write_bytes((tmp_path / "mel/1.png").read_bytes())
    read_folder(tmp_path, CLASSES, "multi-class")
    assert "more than once, with different labels" in caplog.text


def save(file, labels, **others):
    images = np.zeros((len(labels), 6, 6), np.uint8)
    np.savez(file, test_images=images, test_labels=np.array(labels), **others)
    return file


def test_npz_labels_are_the_networks_numbers_unless_its_names_say_otherwise(tmp_path):
    file = save(tmp_path / "a.npz", [[2], [0], [1]])
    assert read_npz(file, CLASSES, "multi-class").labels.tolist() == [2, 0, 1]
    file = save(tmp_path / "a.npz", [1, 0], class_names=np.array(["mel", "Akiec", "nevus"]))
    assert read_npz(file, CLASSES, "multi-class").labels.tolist() == [0, 2]
    file = save(tmp_path / "a.npz", np.eye(3, dtype=int)[[1, 2]])
    assert read_npz(file, CLASSES, "multi-class").labels.tolist() == [1, 2]
    file = save(tmp_path / "a.npz", [[0, 1, -1], [1, 1, 0]])
    found = read_npz(file, CLASSES, "multi-label")
    assert found.labels.tolist() == [[0, 1, -1], [1, 1, 0]]
    assert found.names == ["a.npz/test/0", "a.npz/test/1"]


@pytest.mark.parametrize(
    ("labels", "task", "message"),
    [
        ([0, 3], "multi-class", "0 to 3, expected 0 to 2"),
        ([0, -1], "multi-class", "-1 to 0, expected 0 to 2"),
        ([[0, 1, 1]], "multi-class", r"shape \(1, 3\), expected \(1,\)"),
        ([[0, 1]], "multi-label", r"shape \(1, 2\), expected \(1, 3\)"),
        ([[0, 1, 2]], "multi-label", "0 to 2, expected -1 to 1"),
    ],
)
def test_npz_labels_that_do_not_fit_the_network(tmp_path, labels, task, message):
    with pytest.raises(DataError, match=message):
        read_npz(save(tmp_path / "a.npz", labels), CLASSES, task)


def test_an_npz_class_that_the_network_does_not_know(tmp_path):
    file = save(tmp_path / "a.npz", [0, 1], class_names=np.array(["mel", "nevus"]))
    with pytest.raises(DataError, match="'nevus'; it knows 'akiec'"):
        read_npz(file, CLASSES, "multi-class")
