"""Channel and spatial attention inside a block: SE, CBAM, ECA, SRM and SimAM.

Each maps a feature map [n, h, w, c] to one of the same shape. In a residual block it sits after the
last norm, before the sum, as in Table 6 of the LSANet paper. Statistics and gates are computed in
float32, but for CBAM's spatial gate.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lsanet_jax.models.layers import BatchNorm, Conv, Linear, global_average_pool, uniform_fan_in

Map = Float[Array, "n h w c"]


class SE(nnx.Module):
    """x * sigmoid(W2 relu(W1 gap(x) + b1) + b2) (Hu et al., "Squeeze-and-Excitation", 2018)."""

    def __init__(self, channels: int, *, reduction: int = 16, rngs: nnx.Rngs):
        self.mlp = Bottleneck(channels, reduction, rngs=rngs)

    def __call__(self, x: Map) -> Map:
        """Recalibrate the channels."""
        return gate(x, self.mlp(global_average_pool(x)))


class CBAM(nnx.Module):
    """Channel attention, then spatial attention (Woo et al., "CBAM", 2018)."""

    def __init__(self, channels: int, *, reduction: int = 16, rngs: nnx.Rngs):
        self.mlp = Bottleneck(channels, reduction, rngs=rngs)
        self.spatial = Conv(2, 1, 7, rngs=rngs)
        self.bn = BatchNorm(1, rngs=rngs)

    def __call__(self, x: Map) -> Map:
        """Recalibrate the channels, then the positions."""
        highest = jnp.max(x, axis=(1, 2)).astype(jnp.promote_types(x.dtype, jnp.float32))
        x = gate(x, self.mlp(global_average_pool(x)) + self.mlp(highest))
        pooled = [jnp.mean(x, axis=-1, keepdims=True), jnp.max(x, axis=-1, keepdims=True)]
        return x * jax.nn.sigmoid(self.bn(self.spatial(jnp.concatenate(pooled, axis=-1))))


class ECA(nnx.Module):
    """1-D convolution over the pooled channels (Wang et al., "ECA-Net", 2020)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        size = int((math.log2(channels) + 1) / 2)
        size += size % 2 == 0  # the nearest odd number, as its authors compute it
        self.kernel = nnx.Param(uniform_fan_in(rngs.params(), (size,)))

    def __call__(self, x: Map) -> Map:
        """Recalibrate the channels."""
        return gate(x, convolve_channels(global_average_pool(x), self.kernel[...]))


class SRM(nnx.Module):
    """Style recalibration by each channel's mean and deviation (Lee et al., "SRM", 2019)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.cfc = nnx.Param(jnp.zeros((channels, 2)))
        self.bn = BatchNorm(channels, rngs=rngs)

    def __call__(self, x: Map) -> Map:
        """Recalibrate the channels."""
        mean = global_average_pool(x)
        variance = jnp.mean(jnp.square(x - mean[:, None, None]), axis=(1, 2))
        # The root has no gradient at 0, where a map is constant: 0 is put in its place there.
        positive = variance > 0
        deviation = jnp.where(positive, jnp.sqrt(jnp.where(positive, variance, 1)), 0)
        style = mean * self.cfc[:, 0] + deviation * self.cfc[:, 1]
        return gate(x, self.bn(style[:, None, None])[:, 0, 0])


class SimAM(nnx.Module):
    """Energy of each neuron against its channel; no parameters (Yang et al., "SimAM", 2021)."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        del channels, rngs

    def __call__(self, x: Map) -> Map:
        """Weight each neuron by how far it stands out of its channel."""
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        square = jnp.square(wide - jnp.mean(wide, axis=(1, 2), keepdims=True))
        positions = max(x.shape[1] * x.shape[2] - 1, 1)  # a map of one pixel has no spread
        variance = jnp.sum(square, axis=(1, 2), keepdims=True) / positions
        return x * jax.nn.sigmoid(square / (4 * (variance + 1e-4)) + 0.5).astype(x.dtype)


class Bottleneck(nnx.Module):
    """W2 relu(W1 u + b1) + b2 with channels / reduction hidden units, at least one."""

    def __init__(self, channels: int, reduction: int, *, rngs: nnx.Rngs):
        hidden = max(channels // reduction, 1)
        self.fc1 = Linear(channels, hidden, rngs=rngs)
        self.fc2 = Linear(hidden, channels, rngs=rngs)

    def __call__(self, u: Float[Array, "n c"]) -> Float[Array, "n c"]:
        """Return the gates before their sigmoid."""
        return self.fc2(jax.nn.relu(self.fc1(u)))


def convolve_channels(u: Float[Array, "n c"], kernel: Float[Array, " k"]) -> Float[Array, "n c"]:
    """1-D convolution (cross-correlation) over the channels, zero padding, k odd."""
    k = len(kernel)
    padded = jnp.pad(u, ((0, 0), (k // 2, k // 2)))
    taps = (kernel[i] * padded[:, i : i + u.shape[1]] for i in range(k))
    return functools.reduce(jnp.add, taps)


def gate(x: Map, u: Float[Array, "n c"]) -> Map:
    """Return x * sigmoid(u), channel by channel."""
    return x * jax.nn.sigmoid(u)[:, None, None].astype(x.dtype)


ATTENTION = {"none": None, "se": SE, "cbam": CBAM, "eca": ECA, "srm": SRM, "simam": SimAM}
