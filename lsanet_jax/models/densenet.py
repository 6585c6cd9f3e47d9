"""DenseNet-121, 169 and 201 with four taps, named as in torchvision.

Reference: Huang et al., "Densely connected convolutional networks", 2017.
"""

import functools
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lsanet_jax.models import layers
from lsanet_jax.models.attention import ATTENTION
from lsanet_jax.models.layers import BatchNorm, average_pool, max_pool, recompute, relu

Conv = functools.partial(layers.Conv, kernel_init=layers.he_normal_fan_in)

GROWTH_RATE = 32
BOTTLENECK = 4  # a dense layer's 1x1 convolution has this many times its output's channels
SPECS = {
    "densenet121": (6, 12, 24, 16),
    "densenet169": (6, 12, 32, 32),
    "densenet201": (6, 12, 48, 32),
}
"""Dense layers in each of the four dense blocks."""


class DenseLayer(nnx.Module):
    """Norm, ReLU, 1x1 convolution; norm, ReLU, 3x3 convolution; attention, if any."""

    def __init__(self, in_channels: int, *, attention=None, rngs: nnx.Rngs):
        inner = BOTTLENECK * GROWTH_RATE
        self.norm1 = BatchNorm(in_channels, rngs=rngs)
        self.conv1 = Conv(in_channels, inner, 1, rngs=rngs)
        self.norm2 = BatchNorm(inner, rngs=rngs)
        self.conv2 = Conv(inner, GROWTH_RATE, 3, rngs=rngs)
        self.attention = attention(GROWTH_RATE, rngs=rngs) if attention else None

    def __call__(self, maps: Sequence[Float[Array, "n h w _"]]) -> Float[Array, "n h w c"]:
        """Return the new features that all maps before give."""
        x = jnp.concatenate(maps, axis=-1)
        x = self.conv1(relu(self.norm1(x)))
        x = self.conv2(relu(self.norm2(x)))
        return x if self.attention is None else self.attention(x)


class DenseBlock(nnx.Module):
    """Dense layers `denselayer1`, `denselayer2`, ..., each fed with the outputs of all before."""

    def __init__(self, in_channels: int, size: int, *, attention, remat: bool, rngs: nnx.Rngs):
        self.size = size
        self.remat = remat
        for i in range(size):
            layer = DenseLayer(in_channels + i * GROWTH_RATE, attention=attention, rngs=rngs)
            setattr(self, f"denselayer{i + 1}", layer)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w c2"]:
        """Return the input and all new features, one after the other."""
        maps = [x]
        for i in range(self.size):
            layer = getattr(self, f"denselayer{i + 1}")
            maps.append(recompute(layer, maps) if self.remat else layer(maps))
        return jnp.concatenate(maps, axis=-1)


class Transition(nnx.Module):
    """Between two dense blocks: norm, ReLU, 1x1 convolution to half the channels, 2x2 mean."""

    def __init__(self, in_channels: int, *, rngs: nnx.Rngs):
        self.norm = BatchNorm(in_channels, rngs=rngs)
        self.conv = Conv(in_channels, in_channels // 2, 1, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        """Return the smaller map."""
        return average_pool(self.conv(relu(self.norm(x))), 2)


class DenseNet(nnx.Module):
    """DenseNet backbone; returns what dense blocks 1 to 3 and the last norm and ReLU give.

    Attributes:
      stage_channels: channels of the four maps, shallow to deep.
      classifier_name: what torchvision calls the classifier behind it.
    """

    classifier_name = "classifier"

    def __init__(
        self,
        spec: Sequence[int],
        *,
        in_channels: int = 3,
        stem: str = "imagenet",
        attention: str = "none",
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        """Build a member of the family.

        Args:
          spec: a value of `SPECS`, or your own.
          in_channels: channels of the images.
          stem: "imagenet": 7x7 convolution with stride 2, then 3x3 max pooling with stride 2;
            "small": 3x3 convolution with stride 1 and no pooling, for images of about 28 pixels.
          attention: a key of `ATTENTION`; sits behind every dense layer.
          remat: recompute the dense layers in the backward pass.
          rngs: source of the initial parameters.
        """
        self.stem = stem
        channels = 2 * GROWTH_RATE
        kernel, stride = (7, 2) if stem == "imagenet" else (3, 1)
        self.features = features = nnx.Dict(
            conv0=Conv(in_channels, channels, kernel, stride=stride, rngs=rngs),
            norm0=BatchNorm(channels, rngs=rngs),
        )
        stage_channels = []
        for i, size in enumerate(spec, start=1):
            if i > 1:
                features[f"transition{i - 1}"] = Transition(channels, rngs=rngs)
                channels //= 2
            features[f"denseblock{i}"] = DenseBlock(
                channels, size, attention=ATTENTION[attention], remat=remat, rngs=rngs
            )
            channels += size * GROWTH_RATE
            stage_channels.append(channels)
        features[f"norm{len(spec) + 1}"] = BatchNorm(channels, rngs=rngs)
        self.stage_channels = tuple(stage_channels)

    def __call__(self, x: Float[Array, "n h w c"]) -> tuple[Float[Array, "n _ _ _"], ...]:
        """Return the feature maps of the stages, shallow to deep."""
        features, last = self.features, len(self.stage_channels)
        x = relu(features.norm0(features.conv0(x)))
        if self.stem == "imagenet":
            x = max_pool(x, 3, stride=2, padding=1)
        maps = []
        for i in range(1, last + 1):
            if i > 1:
                x = features[f"transition{i - 1}"](x)
            x = features[f"denseblock{i}"](x)
            maps.append(x)
        maps[-1] = relu(features[f"norm{last + 1}"](x))
        return tuple(maps)
