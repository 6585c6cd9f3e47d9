"""Layers with PyTorch's conventions: convolution, normalisation, pooling, and their initialisers.

All maps are NHWC; padding is given as in PyTorch, the same number of pixels on every side. What is
computed in one way on CPU and in another on GPU is in `convolution` and `sums`.
"""

import functools
import math
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.core import Tracer
from jaxtyping import Array, Float

from lsanet_jax.errors import ConfigError
from lsanet_jax.models.convolution import conv2d, output_size, shifted_slices
from lsanet_jax.models.sums import add_bias, channel_sums

DRAWN_AT_ONCE = tuple(4**i for i in range(5, 12))  # up to 4,194,304 numbers


def he_normal_fan_out(key, shape, dtype=jnp.float32):
    """Initialise kernels [k, k, in, out] as torchvision: N(0, 2 / (k k out)) (He et al., 2015)."""
    return _he_normal(key, shape, dtype, fan=math.prod(shape[:2]) * shape[3])


def he_normal_fan_in(key, shape, dtype=jnp.float32):
    """The same with 2 / (k k in): torchvision's DenseNet."""
    return _he_normal(key, shape, dtype, fan=math.prod(shape[:3]))


def uniform_fan_in(key, shape, dtype=jnp.float32):
    """PyTorch's initialisation of linear weights [in, out]: uniform in +-1/sqrt(in)."""
    return uniform(key, shape, dtype, bound=1 / math.sqrt(shape[0]))


def uniform(key, shape, dtype, bound: float):
    """Draw uniformly from +-bound."""
    draw = functools.partial(jax.random.uniform, minval=-bound, maxval=bound)
    return jnp.asarray(_drawn(draw, key, shape, dtype))


def _he_normal(key, shape, dtype, fan: int):
    deviation = np.sqrt(np.asarray(2 / fan, dtype))
    return jnp.asarray(_drawn(jax.random.normal, key, shape, dtype) * deviation)


def _drawn(draw, key, shape, dtype):
    """What `draw` gives for a shape, bit for bit, by a program that many shapes share.

    JAX's random numbers follow from the key and their index alone, so a longer draw begins with the
    same ones. A program for each shape takes XLA 0.7 s on CPU: 8 s for a ResNet-18.
    """
    size = math.prod(shape)
    length = next((n for n in DRAWN_AT_ONCE if n >= size), size)
    numbers = draw(key, (length,), dtype)
    if not isinstance(numbers, Tracer):
        numbers = np.asarray(numbers)  # in which slices and products need no compiling
    return numbers[:size].reshape(shape)


class Conv(nnx.Module):
    """2-D convolution with a square kernel, no bias unless asked for.

    Parameters: `kernel` [k, k, in / groups, out], `bias` [out].
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        use_bias: bool = False,
        kernel_init=he_normal_fan_out,
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        self.padding = kernel_size // 2 if padding is None else padding
        self.groups = groups
        shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels)) if use_bias else None

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        """Convolve in the input's precision.

        Raises:
          VanishedMapError: the map is smaller than the kernel.
        """
        y = conv2d(x, self.kernel[...], self.stride, self.padding, self.groups)
        return y if self.bias is None else add_bias(y, self.bias[...].astype(x.dtype))


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation with torchvision's constants: momentum 0.1 (0.9 here), epsilon 1e-5.

    Parameters: `scale`, `bias` [c]; statistics: `mean`, `var` [c], the variance unbiased as in
    PyTorch. Under `jit` over a mesh the statistics are those of the global batch.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        super().__init__(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Normalise by the batch's statistics, or after `eval()` by the running ones.

        Raises:
          ConfigError: the batch, over all devices, has one value for each channel.
        """
        assert self.scale is not None and self.bias is not None  # both are asked for
        scale, bias = self.scale[...], self.bias[...]
        if self.use_running_average:
            factor = scale * jax.lax.rsqrt(self.var[...] + self.epsilon)
            return ((x - self.mean[...]) * factor + bias).astype(x.dtype)

        count = x.size // x.shape[-1]
        if count == 1:
            raise ConfigError(
                "config.train.batch_size = 1 and a map of one pixel leave batch normalisation one "
                "value for each channel, which becomes 0: take at least 2, or larger images"
            )
        y, mean, var = cast(
            tuple[Array, Array, Array],
            _batch_norm(x, scale, bias, self.mean[...], self.epsilon),
        )
        unbiased = var * (count / (count - 1))
        for running, batch in ((self.mean, mean), (self.var, unbiased)):
            moved = self.momentum * running[...] + (1 - self.momentum) * batch
            running.set_value(moved.astype(running[...].dtype))
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _batch_norm(x, scale, bias, shift, epsilon):
    """Normalised `x`, and the batch's mean and biased variance, which pass on no gradient.

    Both statistics come from one pass over `x`, and over several devices from one all-reduce: the
    sums of x - shift and of its square. The variance loses about log10(1 + (mean - shift)^2 /
    variance) of its 7 digits. The shift is the running mean, so this is next to nothing but in the
    first steps, from a shift of 0; there, a convolution's map has a mean of a few deviations, if
    that.

    The gradient in closed form reads `x` and the gradient of `y` twice each; derived by JAX it
    moves more memory.
    """
    return _batch_norm_forward(x, scale, bias, shift, epsilon)[0]


def _batch_norm_forward(x, scale, bias, shift, epsilon):
    count = x.size // x.shape[-1]
    shifted = x.astype(jnp.promote_types(x.dtype, jnp.float32)) - shift
    first, second = channel_sums(shifted, jnp.square(shifted)) / count
    mean = shift + first
    var = jnp.maximum(second - jnp.square(first), 0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = ((x - mean) * (inverse * scale) + bias).astype(x.dtype)
    return (y, mean, var), (x, scale, mean, inverse)


def _batch_norm_backward(epsilon, residuals, gradients):
    x, scale, mean, inverse = residuals
    dy = gradients[0].astype(mean.dtype)
    centred = x - mean
    count = x.size // x.shape[-1]
    dbias, dscale = channel_sums(dy, dy * centred)
    dscale = dscale * inverse
    dx = dy - dbias / count - centred * (dscale * inverse / count)
    dx = (dx * (inverse * scale)).astype(x.dtype)
    return dx, dscale.astype(scale.dtype), dbias.astype(scale.dtype), jnp.zeros_like(mean)


_batch_norm.defvjp(_batch_norm_forward, _batch_norm_backward)


class Linear(nnx.Linear):
    """Fully connected layer, initialised as PyTorch does: uniform in +-1/sqrt(fan in)."""

    def __init__(
        self, in_features: int, out_features: int, *, use_bias: bool = True, rngs: nnx.Rngs
    ):
        super().__init__(
            in_features,
            out_features,
            use_bias=use_bias,
            kernel_init=uniform_fan_in,
            bias_init=functools.partial(uniform, bound=1 / math.sqrt(in_features)),
            rngs=rngs,
        )


@jax.custom_vjp
def relu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """max(x, 0), with gradient 0 at 0; NaN stays NaN.

    Written as a choice, not as a maximum: XLA computes a maximum anew, with all that leads to it,
    for each of its readers. On CPU, the transposed copy of a map for a kernel's gradient walked
    through all inputs of a residual block with a stride of an image: a fifth of a step.
    """
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)


def _relu_forward(x):
    y = relu(x)
    return y, y


def _relu_backward(y, dy):
    return (jnp.where(y > 0, dy, jnp.zeros((), dy.dtype)),)


relu.defvjp(_relu_forward, _relu_backward)


def max_pool(x: Float[Array, "n h w c"], window: int, stride: int, padding: int = 0):
    """Maximum over square windows; the border counts as minus infinity.

    Equal maxima of a window share its gradient; in PyTorch the first one takes it all. Behind a
    ReLU the networks do not see the difference: it stops ties at 0.

    It is the maximum of shifted slices, over rows, then over columns. The gradient of XLA's own
    pooling takes 4 times as long on CPU, and if kernels must be deterministic, it is a sort on GPU:
    32 of 64 ms of ResNet-18's step at 224 pixels, batch 64, on an RTX 3090.
    """
    output_size(x.shape[1], x.shape[2], window, stride, padding)
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, border, constant_values=-jnp.inf)
    for axis in (1, 2):
        x = functools.reduce(jnp.maximum, shifted_slices(x, window, stride, axis=axis))
    return x


def average_pool(x: Float[Array, "n h w c"], window: int) -> Float[Array, "n h2 w2 c"]:
    """Mean over square windows side by side; what is left over at the border is dropped."""
    output_size(x.shape[1], x.shape[2], window, window, 0)
    for axis in (1, 2):
        x = functools.reduce(jnp.add, shifted_slices(x, window, window, axis=axis))
    return x / window**2


def recompute(layer, *inputs):
    """Call a layer; the backward pass computes its maps again instead of keeping them in memory.

    Batch statistics are taken once, as without it. XLA's compiler for CPU finds the repetition and
    undoes it.
    """
    return nnx.remat(lambda layer, *inputs: layer(*inputs))(layer, *inputs)


def global_average_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Mean over all positions, in float32 or wider."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
