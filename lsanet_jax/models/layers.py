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

he_normal_fan_in = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")
"""The same with 2 / fan_in: torchvision's DenseNet."""


def uniform_fan_in(key, shape, dtype=jnp.float32):
    """PyTorch's initialisation of linear weights [in, out]: uniform in +-1/sqrt(in)."""
    bound = 1 / math.sqrt(shape[0])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class VanishedMapError(ValueError):
    """A window is larger than its map, so that nothing is left: the images are too small."""


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
        y = conv2d(x, self.kernel[...].astype(x.dtype), self.stride, self.padding, self.groups)
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


def conv2d(x, kernel, stride: int, padding: int, groups: int = 1):
    """2-D convolution (cross-correlation, as in PyTorch) of [N, H, W, C] with an HWIO kernel.

    On CPU the shapes for which XLA's convolution is slow are matrix products instead: 1x1 kernels
    (15 to 35 GFLOP/s against 100 to 180), kernels as large as their stride, and output maps of at
    most 4 positions (3 to 15 GFLOP/s against 150 to 200). Larger maps gain nothing by it.
    """
    n, h, w, c = x.shape
    k, out = kernel.shape[0], kernel.shape[-1]
    h2, w2 = _output_size(h, w, k, stride, padding)

    if jax.default_backend() == "cpu":
        if groups > 1:
            return _merge_groups(x, kernel, stride, padding, groups)
        if k == 1 and padding == 0:
            return x[:, ::stride, ::stride] @ kernel[0, 0]
        if k == stride and padding == 0:
            patches = x[:, : h2 * k, : w2 * k].reshape(n, h2, k, w2, k, c).swapaxes(2, 3)
            return patches.reshape(n, h2, w2, k * k * c) @ kernel.reshape(-1, out)
        if h2 * w2 <= 4 and h * w < k * k:
            dense = _dense_kernel(kernel, h, w, h2, w2, stride, padding)
            return (x.reshape(n, h * w * c) @ dense).reshape(n, h2, w2, out)
        if h2 * w2 <= 4:
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


def _output_size(h: int, w: int, k: int, stride: int, padding: int) -> tuple[int, int]:
    """Size of what a convolution or pooling leaves of a map."""
    h2, w2 = ((size + 2 * padding - k) // stride + 1 for size in (h, w))
    if h2 < 1 or w2 < 1:
        raise VanishedMapError(f"a window of {k} x {k} does not fit into a map of {h} x {w}")
    return h2, w2


def _merge_groups(x, kernel, stride: int, padding: int, groups: int):
    """A grouped convolution as at most 4 plain ones, their kernels block-diagonal.

    The gradient of XLA's grouped convolution takes 20 to 180 times as long on CPU. More and
    smaller convolutions would waste fewer products on zeros, but take longer to compile.
    """
    k, _, c, _ = kernel.shape
    convolutions = math.gcd(groups, 4)
    merged = groups // convolutions
    diagonal = jnp.eye(merged, dtype=kernel.dtype)[:, None, None, :, None]
    kernel = kernel.reshape(k, k, 1, c, convolutions, merged, -1) * diagonal
    kernel = jnp.moveaxis(kernel, 4, 0).reshape(convolutions, k, k, merged * c, -1)
    maps = jnp.split(x, convolutions, axis=-1)
    outputs = [conv2d(maps[i], kernel[i], stride, padding) for i in range(convolutions)]
    return jnp.concatenate(outputs, axis=-1)


def _dense_kernel(kernel, h: int, w: int, h2: int, w2: int, stride: int, padding: int):
    """The convolution of a map [h, w] as a matrix [h * w * in, h2 * w2 * out].

    On a map smaller than the kernel most taps see padding only, and this leaves them out: a 3x3
    kernel costs a 9th of its products on a 1x1 map, and 4 9ths on a 2x2 map.
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
    h2, w2 = _output_size(*x.shape[1:3], k, stride, padding)
    border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    x = jnp.pad(x, border, constant_values=fill)
    return [
        x[:, i : i + (h2 - 1) * stride + 1 : stride, j : j + (w2 - 1) * stride + 1 : stride]
        for i in range(k)
        for j in range(k)
    ]


@functools.cache
def compiler_options() -> dict[str, str]:
    """Options for the `jax.jit` of a step with convolutions in it; none but on CPU.

    XLA hands its CPU convolutions to YNNPACK, which runs those with up to 64 output channels, or
    fewer than about 80 input channels, in a single thread. Left to Eigen they use all. Products
    of matrices stay with YNNPACK.
    """
    if jax.default_backend() != "cpu":
        return {}
    options = {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"}
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError:  # It is experimental: another XLA may not know it.
        return {}
    return options


class BatchNorm(nnx.BatchNorm):
    """Batch normalisation with torchvision's constants: momentum 0.1 (0.9 here), epsilon 1e-5.

    Parameters: `scale`, `bias` [c]; statistics: `mean`, `var` [c], the variance unbiased as in
    PyTorch. Under `jit` over a mesh the statistics are those of the global batch.
    """

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        super().__init__(channels, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        """Normalise by the batch's statistics, or after `eval()` by the running ones."""
        scale, bias = self.scale[...], self.bias[...]
        if self.use_running_average:
            factor = scale * jax.lax.rsqrt(self.var[...] + self.epsilon)
            return ((x - self.mean[...]) * factor + bias).astype(x.dtype)

        y, mean, var = _batch_norm(x, scale, bias, self.epsilon)
        count = x.size // x.shape[-1]
        unbiased = var * (count / max(count - 1, 1))
        for running, batch in ((self.mean, mean), (self.var, unbiased)):
            moved = self.momentum * running[...] + (1 - self.momentum) * batch
            running.set_value(moved.astype(running[...].dtype))
        return y


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _batch_norm(x, scale, bias, epsilon):
    """Normalised `x`, and the batch's mean and biased variance, which pass on no gradient.

    The gradient in closed form reads `x` and the gradient of `y` twice each; derived by JAX it
    moves more memory.
    """
    return _batch_norm_forward(x, scale, bias, epsilon)[0]


def _batch_norm_forward(x, scale, bias, epsilon):
    axes = tuple(range(x.ndim - 1))
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    mean = jnp.mean(x, axes, dtype)
    var = jnp.mean(jnp.square(x - mean), axes, dtype)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = ((x - mean) * (inverse * scale) + bias).astype(x.dtype)
    return (y, mean, var), (x, scale, mean, inverse)


def _batch_norm_backward(epsilon, residuals, gradients):
    x, scale, mean, inverse = residuals
    dy = gradients[0]
    axes = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    dbias = jnp.sum(dy, axes, mean.dtype)
    dscale = jnp.sum(dy * (x - mean), axes, mean.dtype) * inverse
    dx = dy - dbias / count - (x - mean) * (dscale * inverse / count)
    dx = (dx * (inverse * scale)).astype(x.dtype)
    return dx, dscale.astype(scale.dtype), dbias.astype(scale.dtype)


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
            bias_init=lambda key, shape, dtype=jnp.float32: jax.random.uniform(
                key, shape, dtype, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features)
            ),
            rngs=rngs,
        )


def max_pool(x: Float[Array, "n h w c"], window: int, stride: int, padding: int = 0):
    """Maximum over square windows; the border counts as minus infinity.

    On CPU equal maxima of a window share its gradient, elsewhere the first one takes it all, as
    in PyTorch. Behind a ReLU the networks do not see the difference: it stops ties at 0.
    """
    if jax.default_backend() == "cpu":
        # The gradient of XLA's own pooling is slow on CPU: 200 ms at 224 pixels, batch 16, not 51.
        return functools.reduce(jnp.maximum, _shifted_slices(x, window, stride, padding, -jnp.inf))
    return nnx.max_pool(
        x, (window, window), (stride, stride), ((padding, padding), (padding, padding))
    )


def average_pool(x: Float[Array, "n h w c"], window: int) -> Float[Array, "n h2 w2 c"]:
    """Mean over square windows side by side; what is left over at the border is dropped."""
    return sum(_shifted_slices(x, window, window, 0, 0)) / window**2


def recompute(layer, *inputs):
    """Call a layer; the backward pass computes its maps again instead of keeping them in memory.

    Batch statistics are taken once, as without it. XLA's compiler for CPU finds the repetition and
    undoes it.
    """
    return nnx.remat(lambda layer, *inputs: layer(*inputs))(layer, *inputs)


def global_average_pool(x: Float[Array, "n h w c"]) -> Float[Array, "n c"]:
    """Mean over all positions, in float32 or wider."""
    return jnp.mean(x, axis=(1, 2), dtype=jnp.promote_types(x.dtype, jnp.float32))
