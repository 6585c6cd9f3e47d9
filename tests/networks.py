"""Networks for tests, and the numbers that the references fill them with."""

import types
import zlib

import jax
import ml_collections
import numpy as np
from flax import nnx

from configs import common
from lsanet_jax import models
from lsanet_jax.models import layers, pretrained

# At 7 classes, as torchvision has them; VGG with one fully connected layer.
TORCHVISION_PARAMETERS = {
    "resnet18": 11180103,
    "resnet34": 21288263,
    "resnet50": 23522375,
    "resnet101": 42514503,
    "wrn50": 66848583,
    "wrn101": 124852039,
    "resnext50": 22994247,
    "resnext101": 86756679,
    "vgg16": 14723136 + 512 * 7 + 7,
    "vgg19": 20035392 + 512 * 7 + 7,
    "densenet121": 6961031,
    "densenet169": 12496135,
    "densenet201": 18106375,
}


def model_config(**overrides) -> ml_collections.ConfigDict:
    config = common.get_config().model
    config.update(overrides)
    return config


def abstract_model(num_classes=7, image_shape=(64, 64, 3), **overrides):
    """The training network with shapes in place of arrays."""
    config = model_config(**overrides)
    # nnx.Rngs counts its keys, which takes most of the time when the count is traced.
    rngs = types.SimpleNamespace(params=lambda: jax.random.key(0))
    return nnx.eval_shape(lambda: models.create_model(config, num_classes, image_shape, rngs))


def count(variables) -> int:
    return sum(v.size for v in jax.tree.leaves(variables))


def filled(name: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """A tensor in torch's layout, filled as tests/reference/README.md says."""
    rng = np.random.default_rng(zlib.crc32(f"{seed}:{name}".encode()))
    if name.endswith("running_mean"):
        return rng.normal(0, 0.1, shape)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape)
    if len(shape) == 1 and name.endswith("weight"):
        return rng.uniform(0.3, 0.6, shape)
    if len(shape) == 1:
        return rng.normal(0, 0.1, shape)
    return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)


def torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    return {4: lambda s: (s[3], s[2], s[0], s[1]), 2: lambda s: s[::-1]}.get(len(shape), tuple)(
        tuple(shape)
    )


def filled_like(model, seed: int) -> dict[str, np.ndarray]:
    variables = pretrained.inference_variables(model)
    return {n: filled(n, torch_shape(v.shape), seed) for n, v in variables.items()}


class TinyNet(nnx.Module):
    """A backbone of two stages that compiles in no time."""

    stage_channels = (8, 16)

    def __init__(self, in_channels, rngs):
        self.conv1 = layers.Conv(in_channels, 8, 3, stride=2, rngs=rngs)
        self.bn1 = layers.BatchNorm(8, rngs=rngs)
        self.conv2 = layers.Conv(8, 16, 3, stride=2, rngs=rngs)
        self.bn2 = layers.BatchNorm(16, rngs=rngs)

    def __call__(self, x):
        first = jax.nn.relu(self.bn1(self.conv1(x)))
        return first, jax.nn.relu(self.bn2(self.conv2(first)))


class DropoutNet(TinyNet):
    """A backbone with variables that are no parameters and no batch statistics."""

    def __init__(self, in_channels, rngs):
        super().__init__(in_channels, rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
