"""Every backbone learns. Slow: two training steps are compiled for each."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh

from configs import common
from lsanet_jax import build, data, metrics, models, steps
from lsanet_jax.data.feed.order import epoch_order
from lsanet_jax.data.feed.resident import place
from lsanet_jax.data.preprocess import preprocessor
from lsanet_jax.losses import OBJECTIVES, Objective

BEYOND_THE_PAPER = list(OBJECTIVES)[7:13]
FAMILIES = ("resnet18", "resnext50", "vgg16", "densenet121")


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["baseline", "lsanet"])
@pytest.mark.parametrize("backbone", models.BACKBONES)
def test_an_epoch_lowers_the_loss(backbone, objective):
    before, after = losses_of_two_epochs(backbone, objective)
    assert after < before


@pytest.mark.slow
@pytest.mark.parametrize("objective", BEYOND_THE_PAPER)
@pytest.mark.parametrize("backbone", FAMILIES)
def test_an_epoch_of_every_method_lowers_the_loss_of_every_family(
    backbone, objective, small_families
):
    if (backbone, objective) == ("densenet121", "dhm"):
        pytest.skip("the stages of a DenseNet cannot be copied")
    before, after = losses_of_two_epochs(backbone, objective)
    assert after < before


def losses_of_two_epochs(backbone, objective):
    """The mean losses of the first and of the second epoch."""
    config = common.get_config()
    config.data.size = config.data.image_size = 32
    config.data.synthetic.update(num_train=64, num_val=4, num_test=4)
    config.model.update(backbone=backbone, objective=objective)
    mesh = Mesh(jax.devices()[:1], ("data",))
    images, labels = place(data.load(config.data).train, mesh)
    prepare = preprocessor(config.data)
    tx = optax.adam(1e-4)  # 4 steps of 1e-3 throw VGG off before it learns
    create = lambda rngs: models.create_model(config.model, 4, (32, 32, 3), rngs)
    graphdef, state = steps.init(create, tx, jax.random.key(0), mesh)
    taps = nnx.merge(graphdef, state.params, state.batch_stats).taps
    loss = Objective(objective, taps)
    augment = build.make_augment(config, prepare, 4)
    train_step = steps.TrainStep(graphdef, tx, prepare, loss, augment).compile(mesh)
    means = metrics.training_means(loss.part_names).empty()
    epochs = []
    for epoch in (1, 2):
        losses = []
        for batch in epoch_order(0, epoch, num_samples=64, batch_size=16):
            state, means, parts = train_step(state, means, images, labels, batch[None])
            losses.append(float(parts["loss"][0]))
        epochs.append(np.mean(losses))
    assert np.isfinite(epochs).all()
    return epochs
