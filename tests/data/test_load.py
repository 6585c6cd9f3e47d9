import subprocess
import sys

import ml_collections
import numpy as np
import pytest

from lsanet_jax import data, default_config
from lsanet_jax.errors import ConfigError


def config(**fields):
    made = {
        "name": "synthetic",
        "root": "",
        "url": "",
        "tfds_dir": "",
        "path": "",
        "task": "",
        "size": 12,
        "image_size": 28,
        "duplicates": "error",
        "train_fraction": 1.0,
        "train_per_class": 0,
        "pipeline": "auto",
        "device_budget_mb": 4096.0,
        "synthetic": {
            "task": "multi-class",
            "num_classes": 3,
            "num_train": 9,
            "num_val": 4,
            "num_test": 5,
            "seed": 7,
            "channels": 1,
        },
    }
    return ml_collections.ConfigDict(made | fields)


def test_synthetic():
    dataset = data.load(config())
    assert dataset.train.images.shape == (9, 12, 12, 1)
    assert dataset.num_classes == 3


def test_a_subset_of_the_training_images_follows_from_the_seed():
    subsets = [data.load(config(train_per_class=1), seed).train.images for seed in (0, 0, 1, 2)]
    assert len(subsets[0]) == 3
    np.testing.assert_array_equal(subsets[0], subsets[1])
    assert any((subsets[0] != other).any() for other in subsets[2:])


def test_medmnist(shared):
    root = str(shared / "data")
    assert data.load(config(name="breastmnist", root=root, size=28)).num_classes == 2


def test_a_prepared_set_is_preferred(shared, tmp_path):
    from lsanet_jax.data.sources import tfds_builder

    root = str(shared / "data")
    folder = tfds_builder.prepare("breastmnist", 28, root=root, data_dir=str(tmp_path))
    prepared = data.load(config(name="breastmnist", size=28, tfds_dir=str(tmp_path)))
    assert prepared.source == str(folder)
    official = data.load(config(name="breastmnist", size=28, root=root))
    assert prepared.fingerprint == official.fingerprint


def test_npz(shared):
    path = shared / "data" / "ham10000_28.npz"
    dataset = data.load(config(name="npz", path=str(path)))
    assert (dataset.name, dataset.task, dataset.num_classes) == ("ham10000_28", "multi-class", 7)
    assert [len(dataset.split(key)) for key in data.SPLITS] == [7007, 1003, 2005]


def test_npz_with_another_task(shared):
    path = shared / "data" / "retinamnist.npz"
    dataset = data.load(config(name="npz", path=str(path), task="ordinal-regression"))
    assert dataset.task == "ordinal-regression"


@pytest.mark.parametrize("name", ["npz", "folder"])
def test_a_path_must_be_given(name):
    with pytest.raises(ConfigError, match=f"data.path is empty, expected the path of the {name}"):
        data.load(config(name=name))


def test_medmnist_with_another_task(shared):
    root = str(shared / "data")
    with pytest.raises(ConfigError, match="data.task is 'multi-class', but retinamnist is 'ord"):
        data.load(config(name="retinamnist", root=root, size=28, task="multi-class"))


@pytest.mark.parametrize(
    ("name", "near"),
    [("PathMNIST", "pathmnist"), ("dermnist", "dermamnist"), ("syntetic", "synthetic")],
)
def test_an_unknown_name_brings_near_matches(name, near):
    with pytest.raises(ConfigError, match=f"data.name is '{name}'.*; did you mean {near}"):
        data.load(config(name=name))


def test_a_name_like_no_other_brings_the_list():
    with pytest.raises(ConfigError, match="expected one of pathmnist, .*, npz, folder, synthetic"):
        data.load(config(name="zzz"))


def test_loading_an_npz_file_imports_no_heavy_packages(tmp_path):
    labels = np.array([0, 1])
    images = np.zeros((2, 4, 4), np.uint8)
    splits = ("train", "val", "test")
    path = tmp_path / "own.npz"
    np.savez(
        path,
        **{f"{key}_images": images for key in splits},
        **{f"{key}_labels": labels for key in splits},
    )
    program = (
        f"import sys; from lsanet_jax.data.sources import npz; npz.load_npz({str(path)!r});"
        "heavy = {'medmnist', 'torch', 'sklearn', 'pandas', 'tensorflow_datasets', 'grain'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("name", "start"), [("ham10000_28", "252232a3"), ("retinamnist", "524d27c5")]
)
def test_published_sets_are_read_to_the_bit_as_ever(shared, name, start):
    dataset = data.load(
        config(name="npz", path=str(shared / f"data/{name}.npz"), duplicates="warn")
    )
    assert dataset.fingerprint.startswith(start)


def test_a_whole_config_is_no_section_of_one():
    with pytest.raises(ConfigError, match="without 'pipeline', expected the section `data` of one"):
        data.load(default_config())
