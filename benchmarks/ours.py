"""Our training step, ready to be timed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from configs import common
from lsanet_jax import metrics, models, steps
from lsanet_jax.data import preprocess as preprocessing
from lsanet_jax.losses import Objective

CLASSES = 7


def our_step(objective: str, args, backbone: str = "resnet18"):
    """Return a function that does n steps and waits for them."""
    config = common.get_config()
    config.model.update(objective=objective, stem=args.stem, backbone=backbone)
    mesh = Mesh(jax.devices(), ("data",))
    prepare = functools.partial(
        preprocessing.preprocess,
        image_size=args.size,
        resize="nearest",
        as_rgb=True,
        mean=(0.5,),
        std=(0.5,),
    )
    tx = optax.adam(1e-3)
    shape = (args.size, args.size, 3)
    create = lambda rngs: models.create_model(config.model, CLASSES, shape, rngs)
    graphdef, state = steps.init(create, tx, jax.random.key(0), mesh)
    loss = Objective(objective, (4,) if objective == "baseline" else (1, 2, 3, 4))
    train_step = steps.TrainStep(graphdef, tx, prepare, loss).compile(mesh)
    means = metrics.training_means(loss.part_names).empty()
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(256, size=(1024, 28, 28, 3), dtype=np.uint8))
    labels = jnp.asarray(rng.integers(CLASSES, size=1024), jnp.int32)
    box = [state, means]

    def run(n):
        for _ in range(n):
            indices = rng.integers(1024, size=(1, args.batch)).astype(np.int32)
            *box[:], parts = train_step(*box, images, labels, indices)
        jax.block_until_ready((box, parts))

    return run
