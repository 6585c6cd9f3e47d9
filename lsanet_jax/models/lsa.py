"""Layer selective attention: how much each stage's classifier counts, sample by sample.

The feature maps of L stages are embedded into tensors of one shape, pooled, and turned into
beta [B, L], a distribution over the stages (LSANet, section 3.2). Besides the paper's two fully
connected layers (Eq. 6) there are the variants of its Table 2.
"""

import math
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lsanet_jax.errors import ConfigError
from lsanet_jax.models.attention import convolve_channels
from lsanet_jax.models.layers import BatchNorm, Conv, relu, uniform_fan_in


class FeatureEmbedding(nnx.Module):
    """Embed a stage's map [n, H_l, W_l, C_l] into the deepest map's size, with a few channels.

    Convolution C_l -> C_l with kernel = stride = ceil(H_l / H), batch norm, ReLU, then 1x1
    convolution. If H_l is not a multiple of H, zeros are padded around the map.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        map_size: tuple[int, int],
        target_size: tuple[int, int],
        rngs: nnx.Rngs,
    ):
        """Build the embedding of maps of `map_size` into `target_size`, both (height, width)."""
        self.target_size = target_size
        # One kernel size for both axes; medical images are square in all sets that we know of.
        self.patch = max(math.ceil(n / t) for n, t in zip(map_size, target_size, strict=True))
        self.conv = Conv(
            in_channels, in_channels, self.patch, stride=self.patch, padding=0, rngs=rngs
        )
        self.bn = BatchNorm(in_channels, rngs=rngs)
        self.project = Conv(in_channels, channels, 1, use_bias=True, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        """Return the embedded map."""
        pad = [self.patch * t - n for n, t in zip(x.shape[1:3], self.target_size, strict=True)]
        if any(pad):
            x = jnp.pad(x, ((0, 0), *((p // 2, p - p // 2) for p in pad), (0, 0)))
        return self.project(relu(self.bn(self.conv(x))))


class LayerSelectiveAttention(nnx.Module):
    """beta [B, L] from the embedded maps of L stages, by one of `ATTENTIVE_KINDS`."""

    def __init__(
        self,
        num_stages: int,
        channels: int,
        *,
        kind: str = "fc",
        reduction: int = 8,
        kernel_size: int = 3,
        rngs: nnx.Rngs,
    ):
        """Build the attention.

        Args:
          num_stages: L.
          channels: C, channels of the embedded maps.
          kind: "fc" (Eq. 6), "conv" (as ECA), "gated" (Ilse et al., 2018) or "self" (Vaswani et
            al., 2017).
          reduction: r of "fc": the hidden layer has L C / r units.
          kernel_size: taps of "conv", odd.
          rngs: source of the initial parameters.

        Raises:
          ConfigError: the hidden layer of "fc" would have no unit.
        """
        self.kind = kind
        width = num_stages * channels
        if kind == "fc" and reduction > width:
            raise ConfigError(
                f"config.model.lsa.reduction = {reduction} leaves no hidden unit for {num_stages} "
                f"stages of config.model.lsa.channels = {channels}: expected at most {width}"
            )
        shapes = {
            "fc": {"w1": (width, width // reduction), "w2": (width // reduction, width)},
            "conv": {"kernel": (kernel_size,)},
            "gated": {"v": (channels, channels), "u": (channels, channels), "w": (channels,)},
            "self": {name: (channels, channels) for name in "qkv"},
        }[kind]
        for name, shape in shapes.items():
            setattr(self, name, nnx.Param(uniform_fan_in(rngs.params(), shape)))

    def __call__(self, embedded: Float[Array, "l n h w c"]) -> Float[Array, "n l"]:
        """Return beta, computed in float32 or wider; each row sums to 1."""
        u = pool(embedded)
        attention, names = _ATTENTION[self.kind]
        return attention(u, *(getattr(self, name)[...] for name in names))


class ConstantWeights(nnx.Module):
    """beta [B, L], the same for every sample: what layer selective attention is compared with.

    "uniform" is 1 / L. "frozen" is given, such as the mean beta of a network that has learned it.
    "constant" is softmax(w) for parameters `w` [L], which start at 0.
    """

    def __init__(self, num_stages: int, *, kind: str, beta: Sequence[float] = ()):
        """Build the weights.

        Args:
          num_stages: L.
          kind: one of `CONSTANT_KINDS`.
          beta: of "frozen", one for each stage; they are scaled to sum to 1.

        Raises:
          ConfigError: "frozen" does not have L weights.
        """
        if kind == "frozen" and len(beta) != num_stages:
            raise ConfigError(
                f"config.model.lsa.beta = {tuple(beta)} has {len(beta)} weights, expected "
                f"{num_stages}, one for each of config.model.taps: take `beta` of the result.json "
                "of a run with layer selective attention"
            )
        given = beta if kind == "frozen" else (1.0,) * num_stages
        self.beta = tuple(weight / sum(given) for weight in given)
        self.w = nnx.Param(jnp.zeros(num_stages)) if kind == "constant" else None

    def __call__(self, num: int) -> Float[Array, "n l"]:
        """Return beta for `num` samples."""
        beta = jnp.asarray(self.beta) if self.w is None else jax.nn.softmax(self.w[...])
        return jnp.tile(beta, (num, 1))


def make_lsa(
    num_stages: int, options: Mapping, *, rngs: nnx.Rngs
) -> LayerSelectiveAttention | ConstantWeights:
    """Build what gives beta for L stages.

    Args:
      num_stages: L.
      options: the arguments of `LayerSelectiveAttention` or, if `kind` is one of `CONSTANT_KINDS`,
        `kind` and `beta` of `ConstantWeights`.
      rngs: source of the initial parameters.

    Raises:
      ConfigError: as these two.
    """
    options = dict(options)
    beta = options.pop("beta", ())
    if options.get("kind") in CONSTANT_KINDS:
        return ConstantWeights(num_stages, kind=options["kind"], beta=beta)
    return LayerSelectiveAttention(num_stages, **options, rngs=rngs)


def pool(embedded: Float[Array, "l n h w c"]) -> Float[Array, "n l c"]:
    """Global average pooling of the concatenated embeddings, U_avg in Eq. 6."""
    dtype = jnp.promote_types(embedded.dtype, jnp.float32)
    return jnp.moveaxis(jnp.mean(embedded, axis=(2, 3), dtype=dtype), 0, 1)


def beta_from_gates(g: Float[Array, "n gates"], num_stages: int) -> Float[Array, "n l"]:
    """Split the gates by stage, average each group, softmax over the stages."""
    return jax.nn.softmax(jnp.mean(g.reshape(len(g), num_stages, -1), axis=-1), axis=-1)


def fc_attention(
    u: Float[Array, "n l c"], w1: Float[Array, "l*c hidden"], w2: Float[Array, "hidden l*c"]
) -> Float[Array, "n l"]:
    """Two fully connected layers, G = sigmoid(W2 relu(W1 u)), no bias (Eq. 6)."""
    g = jax.nn.sigmoid(jax.nn.relu(u.reshape(len(u), -1) @ w1) @ w2)
    return beta_from_gates(g, u.shape[1])


def conv_attention(u: Float[Array, "n l c"], kernel: Float[Array, " k"]) -> Float[Array, "n l"]:
    """1-D convolution over the concatenated channels, zero padding, sigmoid (Table 2; ECA).

    Args:
      u: of `pool`.
      kernel: [k], k odd.

    Returns:
      beta; each row sums to 1.
    """
    convolved = convolve_channels(u.reshape(len(u), -1), kernel)
    return beta_from_gates(jax.nn.sigmoid(convolved), u.shape[1])


def gated_attention(
    u: Float[Array, "n l c"],
    v: Float[Array, "c c"],
    gate: Float[Array, "c c"],
    w: Float[Array, " c"],
) -> Float[Array, "n l"]:
    """softmax_l( w . (tanh(V h_l) * sigmoid(U h_l)) ) over the stages (Table 2; Ilse et al.).

    Args:
      u: of `pool`; h_l is its row of stage l.
      v: V, which maps h_l by `h_l @ v`.
      gate: U, likewise.
      w: one weight for each channel.

    Returns:
      beta; each row sums to 1.
    """
    return jax.nn.softmax((jnp.tanh(u @ v) * jax.nn.sigmoid(u @ gate)) @ w, axis=-1)


def self_attention(
    u: Float[Array, "n l c"],
    q: Float[Array, "c c"],
    k: Float[Array, "c c"],
    v: Float[Array, "c c"],
) -> Float[Array, "n l"]:
    """One head of dot-product attention over the stages, sigmoid, mean over C (Table 2).

    Args:
      u: of `pool`.
      q: maps it to the queries, by `u @ q`.
      k: to the keys.
      v: to the values.

    Returns:
      beta; each row sums to 1.
    """
    scores = jnp.einsum("nlc,nmc->nlm", u @ q, u @ k) / math.sqrt(u.shape[-1])
    g = jax.nn.sigmoid(jax.nn.softmax(scores, axis=-1) @ (u @ v))
    return beta_from_gates(g.reshape(len(g), -1), u.shape[1])


_ATTENTION = {
    "fc": (fc_attention, ("w1", "w2")),
    "conv": (conv_attention, ("kernel",)),
    "gated": (gated_attention, ("v", "u", "w")),
    "self": (self_attention, ("q", "k", "v")),
}
"""For each kind its function of the pooled maps, and its parameters."""

ATTENTIVE_KINDS = tuple(_ATTENTION)
CONSTANT_KINDS = ("uniform", "frozen", "constant")
KINDS = (*ATTENTIVE_KINDS, *CONSTANT_KINDS)
