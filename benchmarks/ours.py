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


def preprocessor(size: int):
    """From stored uint8 images to what the network sees, as the recipes do by default."""
    return functools.partial(
        preprocessing.preprocess,
        image_size=size,
        resize="nearest",
        as_rgb=True,
        mean=(0.5,),
        std=(0.5,),
    )


def our_step(objective: str, args, backbone: str = "resnet18"):
    """Return a function that does n dispatches, as the training loop does, and waits for them.

    Args:
      objective: the config's.
      args: `size`, `batch` and `stem`; `dtype` and `steps` of a dispatch, if they have them.
      backbone: the config's.
    """
    config = common.get_config()
    config.model.update(objective=objective, stem=args.stem, backbone=backbone)
    config.model.dtype = getattr(args, "dtype", "float32")
    mesh = Mesh(jax.devices(), ("data",))
    prepare = preprocessor(args.size)
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
    leaves, structure = jax.tree.flatten((state, means))
    size = (getattr(args, "steps", 1), args.batch)

    def run(n):
        nonlocal leaves
        for _ in range(n):
            indices = rng.integers(1024, size=size).astype(np.int32)
            leaves, parts = train_step.on_leaves(structure, leaves, images, labels, indices)
        jax.block_until_ready((leaves, parts))

    return run
