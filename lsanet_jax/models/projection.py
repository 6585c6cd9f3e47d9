"""Projections: what contrastive and self-supervised objectives compare in place of a map."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lsanet_jax.models.layers import BatchNorm, Linear, global_average_pool


class Projection(nnx.Module):
    """Global average pooling, a hidden layer as wide as the map, ReLU, a linear layer, unit length.

    In float32 or wider. Reference: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020,
    section 3; Bae et al., "Self-Contrastive Learning", AAAI 2023, have the same.
    """

    def __init__(self, in_channels: int, channels: int, *, rngs: nnx.Rngs):
        """Build the projection of a map of `in_channels` to `channels` numbers."""
        self.hidden = Linear(in_channels, in_channels, rngs=rngs)
        self.out = Linear(in_channels, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n c2"]:
        """Return a vector of unit length for each map."""
        z = self.out(jax.nn.relu(self.hidden(global_average_pool(x))))
        # The square root of 0 would have an infinite gradient.
        return z * jax.lax.rsqrt(jnp.sum(jnp.square(z), axis=-1, keepdims=True) + 1e-12)


class Expander(nnx.Module):
    """Global average pooling, a hidden layer with batch norm and ReLU, a linear layer.

    In float32 or wider, and not of unit length. Reference: Bardes et al., "VICReg", ICLR 2022,
    section 4.2, whose expander has a second hidden layer, and 8192 channels for ImageNet.
    """

    def __init__(self, in_channels: int, channels: int, *, rngs: nnx.Rngs):
        """Build the projection of a map of `in_channels` to `channels` numbers."""
        self.hidden = Linear(in_channels, channels, use_bias=False, rngs=rngs)
        self.norm = BatchNorm(channels, rngs=rngs)
        self.out = Linear(channels, channels, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n c2"]:
        """Return a vector for each map."""
        return self.out(jax.nn.relu(self.norm(self.hidden(global_average_pool(x)))))
