"""Pretraining without labels: its images, its collapse, its use; its loss: test_methods.py."""

import dataclasses
import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh
from PIL import Image

from configs import quickstart
from lsanet_jax import audit, data, losses, metrics, models, steps, train
from lsanet_jax.data import unlabelled
from lsanet_jax.data.augment import Augmentation, self_supervised_view
from lsanet_jax.data.dataset import Dataset, Split
from lsanet_jax.errors import ConfigError, DataError, TrainingError
from lsanet_jax.models import pretrained
from lsanet_jax.runs import trained
from lsanet_jax.runs.workdir import read_config
from tests.networks import TinyNet  # noqa: F401  (imported by its name in configs)


def test_a_collapse_is_named():
    train.check_collapse({"spread": 0.9}, 1)
    train.check_collapse({"loss": 1.0}, 1)
    with pytest.raises(TrainingError, match=r"collapsed in epoch 3: .* 0.012 .*learning_rate"):
        train.check_collapse({"spread": 0.012}, 3)


def small_config(**model):
    config = quickstart.get_config()
    config.model.update(backbone="tests.networks:TinyNet", taps=(1, 2), **model)
    config.data.size = config.data.image_size = 16
    config.data.synthetic.update(num_train=32, num_val=16, num_test=16, num_classes=2)
    config.train.update(epochs=2, batch_size=16)
    config.eval.batch_size = 16
    return config


def test_both_views_are_changed_by_at_least_what_it_takes():
    found = self_supervised_view(Augmentation(hflip=True, brightness=0.8, mixup=0.2))
    assert (found.hflip, found.vflip, found.brightness) == (True, False, 0.8)
    assert (found.crop, found.hue, found.mixup) == (0.6, 0.1, 0)


@pytest.mark.slow
def test_labels_move_the_classifiers_only():
    config = small_config(objective="vicreg", projection_channels=8)
    mesh = Mesh(jax.devices()[:1], ("data",))
    create = lambda rngs: models.create_model(config.model, 2, (16, 16, 3), rngs)
    tx = optax.sgd(0.1)
    graphdef, start = steps.init(create, tx, jax.random.key(0), mesh)
    objective = losses.Objective("vicreg", (1, 2))
    prepare = lambda images: images / 255.0
    twice = lambda step, x, labels: (jnp.concatenate([x, jnp.flip(x, 2)]) / 255.0, labels)
    update = jax.jit(steps.TrainStep(graphdef, tx, prepare, objective, twice).update)
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)
    means = metrics.training_means(objective.part_names).empty()
    ends = []
    for labels in (np.arange(8) % 2, (np.arange(8) + 1) % 2, np.full(8, -1)):
        state, _, parts = update(start, means, images, labels.astype(np.int32))
        ends.append(state.params)
        assert set(parts) == set(objective.part_names)
    moved = lambda a, b, part: any(
        np.any(np.asarray(x) != np.asarray(y))
        for x, y in zip(jax.tree.leaves(a[part]), jax.tree.leaves(b[part]), strict=True)
    )
    for part in ("backbone", "projections"):
        assert not moved(ends[0], ends[1], part) and not moved(ends[0], ends[2], part)
        assert moved(start.params, ends[0], part)
    for part in ("fc", "auxiliary"):
        assert moved(ends[0], ends[1], part)
        assert not moved(start.params, ends[2], part)


@pytest.fixture
def made():
    """Six training images of two classes, and two images in each other split."""
    rng = np.random.default_rng(0)
    split = lambda n: Split(
        rng.integers(0, 256, (n, 8, 8, 3), np.uint8), (np.arange(n) % 2).astype(np.int32)
    )
    return Dataset("cells", "multi-class", ("a", "b"), split(6), split(2), split(2))


def test_images_of_a_folder_are_added_without_labels(made, tmp_path, caplog):
    caplog.set_level(logging.INFO, "lsanet_jax")
    (tmp_path / "inner").mkdir()
    Image.fromarray(made.test.images[0]).save(tmp_path / "known.png")
    Image.new("L", (20, 10), 100).save(tmp_path / "inner" / "grey.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="broken.png.*config.data.skip_broken"):
        unlabelled.with_folder(made, str(tmp_path), {}, skip_broken=False)
    found = unlabelled.with_folder(made, str(tmp_path), {}, skip_broken=True)
    assert (len(found.train), found.unlabelled) == (8, 2)
    np.testing.assert_array_equal(found.train.labels, [0, 1, 0, 1, 0, 1, -1, -1])
    np.testing.assert_array_equal(found.train.images[:6], made.train.images)
    assert np.all(found.train.images[6] == 100)
    assert "left out 1 broken image" in caplog.text
    assert "1 of the images in config.data.unlabelled" in caplog.text
    assert found.fingerprint != made.fingerprint
    with pytest.raises(DataError, match="found no folder there"):
        unlabelled.with_folder(made, str(tmp_path / "none"), {}, skip_broken=True)


def test_dark_and_equal_images_without_labels_are_told_of(made, tmp_path, caplog):
    pixels = np.random.default_rng(0).integers(0, 4096, (8, 8), np.uint16)
    for i in range(3):
        Image.fromarray(pixels.T if i == 0 else pixels).save(tmp_path / f"{i}.png")
    Image.new("L", (8, 8)).save(tmp_path / "black.png")
    found = unlabelled.with_folder(made, str(tmp_path), {}, skip_broken=False)
    assert found.unlabelled == 4
    assert "3 image(s) have more than 8 bits per channel; their values need 12" in caplog.text
    assert "3 image(s) are nearly black, such as 0.png" in caplog.text
    assert "1 image(s) are black or transparent, such as black.png" in caplog.text
    assert f"{tmp_path}: the images are nearly black" in caplog.text
    assert "1 image(s) are there more than once: 1.png = 2.png" in caplog.text


def test_labels_are_unknown_only_in_the_training_split_and_if_it_says_so(made):
    unknown = dataclasses.replace(made.train, labels=np.full(6, -1, np.int32))
    with pytest.raises(DataError, match="train_labels holds 6 value"):
        dataclasses.replace(made, train=unknown)
    dataclasses.replace(made, train=unknown, unlabelled=6)
    with pytest.raises(DataError, match="val_labels holds 6 value"):
        dataclasses.replace(made, val=unknown, unlabelled=6)


def test_the_images_that_a_subset_leaves_out_keep_their_places():
    config = small_config().data
    whole = data.load(config).train
    config.update(train_fraction=0.25, unlabelled="rest")
    rest, config.unlabelled = data.load(config), ""
    known = rest.train.labels >= 0
    assert rest.unlabelled == 32 - known.sum() == 24
    np.testing.assert_array_equal(rest.train.images, whole.images)
    np.testing.assert_array_equal(rest.train.labels[known], whole.labels[known])
    np.testing.assert_array_equal(rest.train.images[known], data.load(config).train.images)
    config.update(train_fraction=1.0, unlabelled="rest")
    with pytest.raises(ConfigError, match="unlabelled = rest, but all training images keep their"):
        data.load(config)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data.unlabelled": "rest"}, "config.data.unlabelled = 'rest' is of no use for config."),
        (
            {"model.objective": "vicreg", "data.augment.cutmix": 1.0},
            "config.data.augment.cutmix = 1.0 blends images",
        ),
    ],
)
def test_what_contradicts_pretraining_is_named(fields, message):
    from lsanet_jax import config as config_lib

    values = dict(config_lib.flatten(quickstart.get_config())) | fields
    with pytest.raises(ConfigError, match=message):
        config_lib.validate(config_lib.unflatten(values))


@pytest.mark.slow
def test_a_network_starts_from_a_pretrained_run_and_names_its_parent(tmp_path, caplog):
    caplog.set_level(logging.INFO, "lsanet_jax")
    config = small_config(objective="vicreg", projection_channels=8)
    config.data.update(train_fraction=0.25, unlabelled="rest", mean=(0.4,), std=(0.3,))
    config.eval.select = "last"
    parent = train.train_and_evaluate(config, tmp_path / "parent")
    assert parent["objective"] == "vicreg" and parent["best_epoch"] == 2

    child = small_config(objective="dsn", init_from=str(tmp_path / "parent"))
    child.data.train_fraction = 0.25
    train.train_and_evaluate(child, tmp_path / "child", epochs=1)
    settled = read_config(tmp_path / "child")
    assert (settled.data.mean, settled.data.std) == ((0.4,), (0.3,))
    assert "images are normalised as the weights want it" in caplog.text
    about = trained.read_manifest(tmp_path / "child")
    assert about["weights_from"]["last_digest"] == parent["last_digest"]
    assert about["weights_from"]["parent"] == str(tmp_path / "parent")
    assert train.train_and_evaluate(child, tmp_path / "child")["last_epoch"]["epoch"] == 2
    assert audit.audit(tmp_path / "child", epochs=1)["identical"]

    frozen = child.copy_and_resolve_references()
    frozen.train.update(epochs=1, freeze="backbone")
    train.train_and_evaluate(frozen, tmp_path / "frozen")
    ours, theirs = (
        pretrained.torchvision_tensors(trained.load(tmp_path / name).model)
        for name in ("frozen", "parent")
    )
    changed = {name for name in ours if not np.array_equal(ours[name], theirs[name])}
    assert changed == {"fc.weight", "fc.bias"}
