"""Where first weights come from, and the normalisation that they bring."""

import json
import logging

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from lsanet_jax import data
from lsanet_jax.config import default_config, flatten
from lsanet_jax.errors import DataError, WorkdirError
from lsanet_jax.models import hub
from lsanet_jax.runs import weights
from lsanet_jax.runs.workdir import check_same_config

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def write(file, **metadata):
    text = {name: json.dumps(value) for name, value in metadata.items()}
    safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, file, metadata=text)
    return str(file)


def settled(tmp_path, reference, **fields):
    config = default_config()
    config.model.init_from = reference
    config.data.update(fields)
    found = weights.settled(config, tmp_path / "run").data
    return found.mean, found.std


def test_a_file_says_how_its_images_were_normalised(tmp_path, caplog):
    caplog.set_level(logging.INFO, "lsanet_jax")
    ours = write(tmp_path / "ours.safetensors", mean=IMAGENET[0], std=IMAGENET[1])
    assert settled(tmp_path, ours) == IMAGENET
    assert "images are normalised as the weights want it" in caplog.text
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert settled(tmp_path, ours, mean=(0.3,)) == ((0.3,), (0.5,))
    assert "config.data.mean = (0.3,) and" in caplog.records[-1].getMessage()
    grey = settled(tmp_path, ours, as_rgb=False)
    np.testing.assert_allclose(grey, [[0.449], [0.226]])
    silent = write(tmp_path / "silent.safetensors")
    assert settled(tmp_path, silent) == ((0.5,), (0.5,))
    assert "does not say how to normalise" in caplog.records[-1].getMessage()
    assert settled(tmp_path, "") == ((0.5,), (0.5,))


def test_timms_config_says_it_and_the_commit_is_kept(tmp_path, monkeypatch):
    file = tmp_path / "model.safetensors"
    write(file)
    asked = []

    def download(reference):
        asked.append(reference)
        about = {"pretrained_cfg": {"mean": list(IMAGENET[0]), "std": list(IMAGENET[1])}}
        return hub.Downloaded(file, 40 * "c", about)

    monkeypatch.setattr(hub, "download", download)
    assert settled(tmp_path, "hf:timm/net") == IMAGENET
    found = weights.find("hf:timm/net")
    assert found.origin == {"repo": "timm/net", "commit": 40 * "c", "file": "model.safetensors"}
    assert len(found.sha256()) == 64
    weights.find("hf:timm/net", found.origin)
    assert [reference.revision for reference in asked] == ["main", "main", 40 * "c"]


def test_a_run_that_took_its_weights_normalisation_is_of_the_same_config(tmp_path):
    ours = write(tmp_path / "ours.safetensors", mean=IMAGENET[0], std=IMAGENET[1])
    given = default_config()
    given.model.init_from = ours
    stored = weights.settled(given, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(dict(flatten(stored))))
    (tmp_path / "ours.safetensors").unlink()
    check_same_config(tmp_path, given)
    assert weights.settled(given, tmp_path).data.mean == IMAGENET[0]
    given.data.mean = (0.1,)
    with pytest.raises(WorkdirError, match="data.mean is"):
        check_same_config(tmp_path, given)


def test_a_folder_without_a_finished_run_is_named(tmp_path):
    with pytest.raises(DataError, match=f"init_from = {tmp_path}: the folder holds no finished"):
        weights.find(str(tmp_path))


@pytest.mark.parametrize("about", [{}, {"mean": "x", "std": [1]}, {"mean": [1, 2], "std": [1, 2]}])
def test_what_says_nothing_sensible_says_nothing(about):
    assert weights._normalisation(about) is None


def test_images_that_the_run_before_was_trained_on_are_told_of(tmp_path, caplog):
    rng = np.random.default_rng(0)
    for place in range(40):
        file = tmp_path / "images" / "ab"[place % 2] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(file)
    config = default_config()
    config.data.update(name="folder", path=str(tmp_path / "images"), size=8, image_size=8)
    dataset = data.load(config.data)
    parents = []
    for split_seed in (1, 0):  # The second begins with the first, and draws as this run does.
        parent = config.copy_and_resolve_references()
        parent.data.split_seed = split_seed
        parent.model.init_from = str(parents[-1]) if parents else ""
        parents.append(tmp_path / f"run{split_seed}")
        parents[-1].mkdir()
        (parents[-1] / "config.json").write_text(json.dumps(dict(flatten(parent))))
        (parents[-1] / "result.json").write_text("{}")
    for parent in parents:
        caplog.clear()
        weights.warn_of_seen_images(parent, config, dataset)
        assert "validation and test images, such as" in caplog.text
    caplog.clear()
    (parents[0] / "result.json").unlink()
    weights.warn_of_seen_images(parents[1], config, dataset)
    assert not caplog.messages
