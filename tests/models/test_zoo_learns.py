"""Every backbone learns. Slow: two training steps are compiled for each."""

import functools

import jax
import numpy as np
import optax
import pytest
from jax.sharding import Mesh

from configs import common
from lsanet_jax import data, metrics, models, steps
from lsanet_jax.data.feed.order import epoch_order
from lsanet_jax.data.feed.resident import place
from lsanet_jax.data.preprocess import preprocess
from lsanet_jax.losses import Objective
from tests.networks import model_config


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["baseline", "lsanet"])
@pytest.mark.parametrize("backbone", models.BACKBONES)
def test_an_epoch_lowers_the_loss(backbone, objective):
    config = common.get_config().data
    config.size = 32
    config.synthetic.update(num_train=64, num_val=4, num_test=4)
    mesh = Mesh(jax.devices()[:1], ("data",))
    images, labels = place(data.load(config).train, mesh)
    prepare = functools.partial(
        preprocess, image_size=32, resize="nearest", as_rgb=True, mean=(0.5,), std=(0.5,)
    )
    model = model_config(backbone=backbone, objective=objective)
    tx = optax.adam(1e-4)  # 4 steps of 1e-3 throw VGG off before it learns
    graphdef, state = steps.init(
        lambda rngs: models.create_model(model, 4, (32, 32, 3), rngs), tx, jax.random.key(0), mesh
    )
    loss = Objective(objective, (4,) if objective == "baseline" else (1, 2, 3, 4))
    train_step = steps.TrainStep(graphdef, tx, prepare, loss).compile(mesh)
    means = metrics.training_means(loss.part_names).empty()
    epochs = []
    for epoch in (1, 2):
        losses = []
        for batch in epoch_order(0, epoch, num_samples=64, batch_size=16):
            state, means, parts = train_step(state, means, images, labels, batch[None])
            losses.append(float(parts["loss"][0]))
        epochs.append(np.mean(losses))
    assert np.isfinite(epochs).all()
    assert epochs[1] < epochs[0]
