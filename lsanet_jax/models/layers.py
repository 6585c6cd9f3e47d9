"""Convolution, normalisation, pooling and initialisers: the only file that knows of CPU or GPU peculiarities.

All maps are NHWC; padding is given as in PyTorch, the same number of pixels on every side.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

he_normal_fan_out = nnx.initializers.variance_scaling(2.0, "fan_out", "normal")
"""torchvision's initialisation of convolutions: N(0, 2 / fan_out), not truncated (He et al., 2015)."""


def uniform_fan_in(key, shape, dtype=jnp.float32):
    """PyTorch's initialisation of linear weights [in, out]: uniform in +-1/sqrt(in)."""
    bound = 1 / math.sqrt(shape[0])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


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
        dtype=None,
        rngs: nnx.Rngs,
    ):
        self.stride = stride
        self.padding = kernel_size // 2 if padding is None else padding
        self.groups = groups
        self.dtype = dtype
        shape = (kernel_size, kernel_size, in_channels // groups, out_channels)
        self.kernel = nnx.Param(kernel_init(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros(out_channels)) if use_bias else None

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        """Convolve in `dtype` (default: the input's)."""
        dtype = self.dtype or x.dtype
        y = conv2d(
            x.astype(dtype), self.kernel[...].astype(dtype), self.stride, self.padding, self.groups
        )
        return y if self.bias is None else y + self.bias[...].astype(dtype)


def conv2d(x, kernel, stride: int, padding: int, groups: int = 1):
    """2-D convolution (cross-correlation, as in PyTorch) of [N, H, W, C] with an HWIO kernel.

    On CPU, where XLA's convolution is slow for 1x1 kernels (15 to 35 GFLOP/s) and very slow for
    tiny maps (3 to 15), those become one matrix product (100 to 200 GFLOP/s on the same cores).
    """
    n, h, w, c = x.shape
    k, out = kernel.shape[0], kernel.shape[-1]
    h2, w2 = ((size + 2 * padding - k) // stride + 1 for size in (h, w))

    if jax.default_backend() == "cpu" and groups == 1:
        if k == 1 and padding == 0:
            return x[:, ::stride, ::stride] @ kernel[0, 0]
        if h * w <= k * k:
            dense = _dense_kernel(kernel, h, w, h2, w2, stride, padding)
            return (x.reshape(n, h * w * c) @ dense).reshape(n, h2, w2, out)
        if h2 * w2 <= 4 or k == stride:
            patches = jnp.concatenate(_shifted_slices(x, k, stride, padding, 0), axis=-1)
            return patches @ kernel.reshape(-1, out)

    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def _dense_kernel(kernel, h, w, h2, w2, stride, padding):
    """The convolution of a map [h, w] as a matrix [h * w * in, h2 * w2 * out].

    For a map no larger than the kernel this needs fewer products than the kernel's taps do, most
    of which see padding only.
    """
    k, zero = kernel.shape[0], jnp.zeros((), kernel.dtype)
    columns = []
    for i in range(h2):
        for j in range(w2):
            top, left = i * stride - padding, j * stride - padding
            border = ((top, h - k - top, 0), (left, w - k - left, 0), (0, 0, 0), (0, 0, 0))
            columns.append(jax.lax.pad(kernel, zero, border).reshape(-1, kernel.shape[-1]))
    return jnp.concatenate(columns, axis=-1)


def _shifted_slices(x, k: int, stride: int, padding: int, fill: float):
    """For each of the k * k window positions, its value at every output position."""
    n, h, w, c = x.shape
    h2, w2 = ((size + 2 * padding - k) // stride + 1 for size in (h, w))
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, border, constant_values=fill)
    return [
        x[:, i : i + (h2 - 1) * stride + 1 : stride, j : j + (w2 - 1) * stride + 1 : stride]
        for i in range(k)
        for j in range(k)
    ]


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation with torchvision's constants: momentum 0.1 (0.9 here), epsilon 1e-5.

    Parameters: `scale`, `bias` [c]; statistics: `mean`, `var` [c]. Under `jit` over a mesh the
    statistics are those of the global batch.
    """

    def __init__(self, channels: int, *, dtype=None, rngs: nnx.Rngs):
        super().__init__(channels, momentum=0.9, epsilon=1e-5, dtype=dtype, rngs=rngs)


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
            bias_init=lambda key, shape, dtype=jnp.float32: jax.random.uniform(
                key, shape, dtype, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features)
            ),
            rngs=rngs,
        )


def max_pool(x: Float[Array, "n h w c"], window: int, stride: int, padding: int = 0):
    """Maximum over square windows; the border counts as minus infinity."""
    if jax.default_backend() == "cpu":
        # The gradient of XLA's reduce-window is four times as slow on CPU.
        return functools.reduce(jnp.maximum, _shifted_slices(x, window, stride, padding, -jnp.inf))
    return nnx.max_pool(
        x, (window, window), (stride, stride), ((padding, padding), (padding, padding))
    )


def global_average_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Mean over all positions, in float32."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.float32)
