r"""VICReg beside SimCLR and BYOL, all of them at each tap and with what else `pretrain` has.

python -m benchmarks.self_supervised byol --config=pretrain --workdir=runs/byol \
    --config.data.path=ham10000_28.npz --config.data.train_fraction=0.1 \
    --config.data.unlabelled=rest --config.train.epochs=30 --config.train.ema=0.99

The run's linear classifiers, and those of runs that begin with it, tell which one to take. SimCLR:
Chen et al., ICML 2020, at temperature 0.2. BYOL: Grill et al., NeurIPS 2020; its target network is
the moving average that `train.ema` makes. The package has VICReg only, so the others are put in
its place here; their runs can be used as `model.init_from`, but not be audited.
"""

import sys
from unittest import mock

import jax
import jax.numpy as jnp
from flax import nnx

from lsanet_jax import losses, main, steps
from lsanet_jax.models import supervised
from lsanet_jax.models.layers import BatchNorm, Linear
from lsanet_jax.models.projection import Expander


def unit(z):
    """Scale the last axis to length 1."""
    return z * jax.lax.rsqrt(jnp.sum(jnp.square(z), axis=-1, keepdims=True) + 1e-12)


def simclr(z, temperature=0.2):
    """Contrast in which each image is a class of its own, summed over stages; z: [l, 2, b, c]."""
    images = jnp.arange(z.shape[2])
    return sum(losses.contrast(stage, images, temperature) for stage in unit(z))


class Predicting(Expander):
    """BYOL's projection, and beside it what its predictor makes of it: twice the channels."""

    def __init__(self, in_channels, channels, *, rngs):
        """Build both, each with a hidden layer of `channels`."""
        super().__init__(in_channels, channels, rngs=rngs)
        self.first = Linear(channels, channels, use_bias=False, rngs=rngs)
        self.first_norm = BatchNorm(channels, rngs=rngs)
        self.second = Linear(channels, channels, rngs=rngs)

    def __call__(self, x):
        """Return [n, 2 c]."""
        z = super().__call__(x)
        prediction = self.second(jax.nn.relu(self.first_norm(self.first(z))))
        return jnp.concatenate([z, prediction], axis=-1)


def byol_patches():
    """What makes a training step BYOL's: the moving average of the network is its target."""
    update, loss, target = steps.TrainStep.update, steps.TrainStep.loss, {}

    def patched_update(self, state, *args):
        if not self.ema:
            sys.exit("BYOL needs a target network: add --config.train.ema=0.99")
        target["network"] = (state.params, state.batch_stats)
        return update(self, state, *args)

    def patched_loss(self, params, batch_stats, x, labels, step=0):
        model = nnx.merge(self.graphdef, *target["network"], copy=True)
        target["seen"] = jax.lax.stop_gradient(model.supervise(x)[1])
        return loss(self, params, batch_stats, x, labels, step)

    def distance(z):
        half = z.shape[-1] // 2
        online = unit(z[..., half:])
        seen = unit(target["seen"].reshape(z.shape)[:, ::-1, :, :half])
        return jnp.sum(jnp.mean(2 - 2 * jnp.sum(online * seen, axis=-1), axis=(1, 2)))

    return [
        mock.patch.object(supervised, "Expander", Predicting),
        mock.patch.object(steps.TrainStep, "update", patched_update),
        mock.patch.object(steps.TrainStep, "loss", patched_loss),
        mock.patch.object(losses, "invariance", distance),
    ]


def run():
    method = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if method not in ("vicreg", "simclr", "byol"):
        sys.exit("usage: python -m benchmarks.self_supervised vicreg|simclr|byol FLAGS OF TRAINING")
    patches: list = []
    if method == "simclr":
        patches = [mock.patch.object(losses, "invariance", simclr)]
    elif method == "byol":
        patches = byol_patches()
    if patches:
        for name in ("variance", "covariance"):
            patches.append(mock.patch.object(losses, name, lambda z: jnp.zeros(())))
    for patch in patches:
        patch.start()
    main.pretrain()


if __name__ == "__main__":
    run()
