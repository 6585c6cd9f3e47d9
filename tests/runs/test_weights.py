"""Where first weights come from, and the normalisation that they bring."""

import json
import logging

import numpy as np
import pytest
import safetensors.numpy

from lsanet_jax.config import default_config, flatten
from lsanet_jax.errors import WorkdirError
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


@pytest.mark.parametrize("about", [{}, {"mean": "x", "std": [1]}, {"mean": [1, 2], "std": [1, 2]}])
def test_what_says_nothing_sensible_says_nothing(about):
    assert weights._normalisation(about) is None
