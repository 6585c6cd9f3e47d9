"""2-D convolution in the formulations that XLA computes fast on CPU and on GPU.

All maps are NHWC, kernels HWIO; padding is given as in PyTorch, the same number of pixels on every
side.
"""

import functools
import math
from typing import cast

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from lsanet_jax.models import formulation

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


class VanishedMapError(ValueError):
    """A window is larger than its map, so that nothing is left: the images are too small."""


def conv2d(
    x: Float[Array, "n h w c"],
    kernel: Float[Array, "k k c_of_group c2"],
    stride: int,
    padding: int,
    groups: int = 1,
) -> Float[Array, "n h2 w2 c2"]:
    """2-D convolution (cross-correlation, as in PyTorch), in the precision of `x`.

    Raises:
      VanishedMapError: the map is smaller than the kernel.
    """
    output_size(x.shape[1], x.shape[2], kernel.shape[0], stride, padding)
    if formulation.is_for_cpu():
        return cast(Array, _on_cpu(x, kernel.astype(x.dtype), stride, padding, groups))
    on_gpu = lambda x, kernel: _on_gpu(x, kernel.astype(x.dtype), stride, padding, groups)
    if not (mesh := formulation.mesh_over(len(x))):
        return on_gpu(x, kernel)
    # Each device convolves its own part of the batch: XLA would not split a grouped convolution,
    # but gather all maps on all devices. The kernel's gradient is summed over the devices where
    # the kernel begins to be each device's own: in its precision, not in the 16 bits of `x`.
    own = lambda x, kernel: on_gpu(x, jax.lax.pcast(kernel, "data", to="varying"))
    batch = PartitionSpec("data")
    return jax.shard_map(own, mesh=mesh, in_specs=(batch, PartitionSpec()), out_specs=batch)(
        x, kernel
    )


def output_size(h: int, w: int, k: int, stride: int, padding: int) -> tuple[int, int]:
    """Size of what a convolution or pooling leaves of a map.

    Raises:
      VanishedMapError: nothing is left.
    """
    h2, w2 = ((size + 2 * padding - k) // stride + 1 for size in (h, w))
    if h2 < 1 or w2 < 1:
        raise VanishedMapError(f"a window of {k} x {k} does not fit into a map of {h} x {w}")
    return h2, w2


def shifted_slices(x, k: int, stride: int, *, axis: int):
    """For each of the k positions in a window along an axis, its value at every output position."""
    last = (x.shape[axis] - k) // stride * stride
    return [jax.lax.slice_in_dim(x, i, i + last + 1, stride, axis=axis) for i in range(k)]


def _plain(x, kernel, stride: int, padding: int, groups: int = 1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        dimension_numbers=DIMENSIONS,
        feature_group_count=groups,
    )


def _patches(x, k: int):
    """Patches [N, H / k, W / k, k * k * C], side by side; the rest at the border is dropped."""
    n, h, w, c = x.shape
    h2, w2 = h // k, w // k
    patches = x[:, : h2 * k, : w2 * k].reshape(n, h2, k, w2, k, c).swapaxes(2, 3)
    return patches.reshape(n, h2, w2, k * k * c)


def _on_gpu(x, kernel, stride: int, padding: int, groups: int):
    """Convolve as XLA does, but for patches side by side (LSANet's embeddings).

    XLA would compute their kernel's gradient as a convolution with a window as large as the map,
    41 % of all FLOP of an LSANet-ResNet-50 at 224 pixels.
    """
    if kernel.shape[0] == stride > 1 and padding == 0 and groups == 1:
        return _patches(x, stride) @ kernel.reshape(-1, kernel.shape[-1])
    return _plain(x, kernel, stride, padding, groups)


def _on_cpu(x, kernel, stride: int, padding: int, groups: int):
    """Convolve as matrix products wherever XLA's convolution is slow on CPU.

    These are 1x1 kernels (15 to 35 GFLOP/s against 100 to 180 of a product) and output maps of at
    most 4 positions (3 to 15 GFLOP/s against 150 to 200). Larger maps gain nothing by it.
    """
    n, h, w, c = x.shape
    k, out = kernel.shape[0], kernel.shape[-1]
    h2, w2 = output_size(h, w, k, stride, padding)
    if k == stride > 1 and padding == 0 and groups == 1:
        return _patches(x, k) @ kernel.reshape(-1, out)
    if groups > 1:
        return _merge_groups(x, kernel, stride, padding, groups)
    if k == 1 and padding == 0:
        return x[:, ::stride, ::stride] @ kernel[0, 0]
    if h2 * w2 <= 4 and h * w < k * k:
        dense = _dense_kernel(kernel, h, w, h2, w2, stride, padding)
        return (x.reshape(n, h * w * c) @ dense).reshape(n, h2, w2, out)
    if h2 * w2 <= 4:
        border = ((0, 0), (padding, padding), (padding, padding), (0, 0))
        rows = shifted_slices(jnp.pad(x, border), k, stride, axis=1)
        taps = [tap for row in rows for tap in shifted_slices(row, k, stride, axis=2)]
        return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, out)
    return (_strided if 1 < stride <= k else _plain)(x, kernel, stride, padding)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _strided(x, kernel, stride: int, padding: int):
    """A convolution with a stride of 2 to k, whose gradient by `x` is `_sub_pixel_convolutions`."""
    return _plain(x, kernel, stride, padding)


def _strided_forward(x, kernel, stride, padding):
    return _plain(x, kernel, stride, padding), (x, kernel)


def _strided_backward(stride, padding, residuals, dy):
    x, kernel = residuals
    (dkernel,) = jax.vjp(lambda kernel: _plain(x, kernel, stride, padding), kernel)[1](dy)
    return _sub_pixel_convolutions(dy, kernel, x.shape[1:3], stride, padding), dkernel


_strided.defvjp(_strided_forward, _strided_backward)


def _sub_pixel_convolutions(dy, kernel, size: tuple[int, int], stride: int, padding: int):
    """Gradient of a strided convolution by its input of a size (height, width).

    The positions of the input with the same remainder modulo the stride see the same taps of the
    kernel: they are one convolution of `dy` with stride 1, and together have as many products as
    the forward pass. XLA pads `dy` with zeros between its values instead, 4 times as many
    for stride 2.
    """
    kernel = kernel.swapaxes(2, 3)[::-1, ::-1]
    rows, columns = (
        list(_phases(n, n2, kernel.shape[0], stride, padding))
        for n, n2 in zip(size, dy.shape[1:3], strict=True)
    )
    maps = [[_correlate(dy, kernel[i, j], a, b) for j, b in columns] for i, a in rows]
    dx = jnp.stack([jnp.stack(row, axis=3) for row in maps], axis=2)  # n, h/s, s, w/s, s, c
    n, h, _, w, _, c = dx.shape
    return dx.reshape(n, h * stride, w * stride, c)[:, : size[0], : size[1]]


def _phases(n: int, n2: int, k: int, stride: int, padding: int):
    """For each remainder modulo the stride, its taps of the flipped kernel and the padding of `dy`.

    Position stride * q + r of the input (n positions) meets tap i at output o (n2 positions) if
    stride * o + i = stride * q + r + padding.
    """
    length = -(-n // stride)
    for r in range(stride):
        shift, first = divmod(r + padding, stride)
        taps = len(range(first, k, stride))
        flipped = slice((k - 1 - first) % stride, k - first, stride)
        low = taps - 1 - shift
        yield flipped, (low, length + taps - 1 - n2 - low)


def _correlate(x, kernel, rows: tuple[int, int], columns: tuple[int, int]):
    """Convolve with stride 1 and the padding, below 0 too, of rows and columns."""
    if kernel.shape[:2] == (1, 1):
        border = ((0, 0, 0), (*rows, 0), (*columns, 0), (0, 0, 0))
        return jax.lax.pad(x, jnp.zeros((), x.dtype), border) @ kernel[0, 0]
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), (rows, columns), dimension_numbers=DIMENSIONS
    )
