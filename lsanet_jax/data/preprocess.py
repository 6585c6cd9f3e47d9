"""From stored bytes to what the network sees: resizing, augmentation, normalisation.

All of it runs inside the jitted step, on the devices.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, Key, UInt8

from lsanet_jax.data import augment as augmentation
from lsanet_jax.data.augment import Augmentation
from lsanet_jax.errors import ConfigError

Resize = Literal["nearest", "bilinear", "bicubic", "pad"]

_WEIGHT_BITS = 22  # Of PIL's resampling weights: products with 8-bit pixels stay within 32.


def preprocess(
    images: UInt8[Array, "b h w c"],
    *,
    image_size: int,
    resize: Resize,
    as_rgb: bool,
    mean: Sequence[float],
    std: Sequence[float],
    augment: Callable[[Float[Array, "b s s c"]], Float[Array, "b s s c"]] = lambda pixels: pixels,
) -> Float[Array, "b s s c2"]:
    """Stored images as the network sees them: resized, augmented, grey repeated to RGB, normalised.

    Resizing gives the very bytes that PIL gives, which MedMNIST's own scripts use; `bilinear` and
    `bicubic` are antialiased, as there. (Only where images are taller than wide, Pillow 13 may
    shrink the height before the width, and its bytes then differ from its own earlier ones.)

    Args:
        images: 0 to 255.
        image_size: s, height and width of the result.
        resize: how; images of the right size are left alone. pad: not at all; a border of zeros,
            after normalisation, brings smaller images to the size.
        as_rgb: repeat grey images to 3 channels. RGB images stay as they are either way.
        mean: subtracted after scaling to [0, 1]; one value, or one per channel of the result.
        std: divisor after that, in the same form.
        augment: applied to the resized images, in [0, 1].

    Raises:
        ConfigError: `resize`, `mean` or `std` is not as described; or images are to be padded, and
            are larger than `image_size`.
    """
    if resize not in ("nearest", "bilinear", "bicubic", "pad"):
        raise ConfigError(
            f"config.data.resize is {resize!r}, expected nearest, bilinear, bicubic or pad."
        )
    channels = 3 if as_rgb else images.shape[-1]
    for field, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ConfigError(
                f"config.data.{field} is {tuple(values)}, expected 1 value or {channels}, one per "
                f"channel."
            )
    if min(std) <= 0:
        raise ConfigError(f"config.data.std is {tuple(std)}, expected values above 0.")
    if resize != "pad" and images.shape[1:3] != (image_size, image_size):
        if resize == "nearest":
            images = _resize_nearest(images, image_size)
        else:
            images = _resize_antialiased(images, image_size, resize)
    pixels = augment(images.astype(jnp.float32) / 255)
    if images.shape[-1] != channels:
        pixels = jnp.repeat(pixels, channels, axis=-1)
    x = (pixels - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
    return _pad(x, image_size) if resize == "pad" else x


def preprocessor(config) -> Callable[..., Float[Array, "b s s c2"]]:
    """`preprocess` with the arguments that `config.data` gives."""
    return functools.partial(
        preprocess,
        image_size=config.image_size,
        resize=config.resize,
        as_rgb=config.as_rgb,
        mean=config.mean,
        std=config.std,
    )


def training_batch(
    key: Key[Array, ""],
    images: UInt8[Array, "b h w c"],
    labels: Int32[Array, " b"] | Int32[Array, "b k"],
    *,
    options: Augmentation,
    num_classes: int,
    preprocess: Callable[..., Float[Array, "b s s c2"]],
) -> tuple[Float[Array, "b s s c2"], Array]:
    """A batch as the network sees it in training, and its labels; both a pure function of `key`.

    Args:
        key: of this step.
        images: as stored, 0 to 255.
        labels: class indices, or 0 and 1 for each label, -1 if it is unknown.
        options: what to do; mixup and cutmix make labels [b, k] of class indices.
        num_classes: k.
        preprocess: this module's, with all its other arguments.
    """
    augment = functools.partial(augmentation.augment, key, options=options)
    x = preprocess(images, augment=augment)
    if options.mixup or options.cutmix:
        mix = functools.partial(augmentation.mixup, key, x, alpha=options.mixup)
        if options.cutmix:
            mix = functools.partial(
                augmentation.cutmix, key, x, alpha=options.cutmix, mixup_alpha=options.mixup
            )
        if labels.ndim == 2:  # A mixture with an unknown label is unknown, as with nan.
            x, labels = mix(jnp.where(labels < 0, jnp.nan, labels.astype(x.dtype)))
            return x, jnp.nan_to_num(labels, nan=-1)
        return mix(jax.nn.one_hot(labels, num_classes).astype(x.dtype))
    return x, labels


def _pad(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b s s c"]:
    """Zeros around images, half of them, rounded down, above and on the left."""
    missing = [size - side for side in x.shape[1:3]]
    if min(missing) < 0:
        raise ConfigError(
            f"config.data.resize = pad, but images of {x.shape[1]} x {x.shape[2]} pixels are "
            f"larger than config.data.image_size = {size}: lower config.data.size, or resize them"
        )
    around = [(n // 2, n - n // 2) for n in missing]
    return jnp.pad(x, ((0, 0), *around, (0, 0)))


def _resize_nearest(images: UInt8[Array, "b h w c"], size: int) -> UInt8[Array, "b s s c"]:
    for axis in (1, 2):
        source = images.shape[axis]
        if size % source == 0:
            images = jnp.repeat(images, size // source, axis=axis)
        else:
            images = jnp.take(images, _nearest_indices(source, size), axis=axis)
    return images


def _nearest_indices(source: int, size: int) -> Int32[np.ndarray, " size"]:
    """floor((i + 0.5) * source / size), summed up step by step as PIL does, with its rounding."""
    step = source / size
    steps = np.full(size, step)
    steps[0] = step / 2
    return np.minimum(np.add.accumulate(steps).astype(np.int32), source - 1)


def _resize_antialiased(
    images: UInt8[Array, "b h w c"], size: int, method: Resize
) -> UInt8[Array, "b s s c"]:
    """Width, then height, in integers and each rounded to 8 bits, as in PIL's Resample.c."""
    for axis in (2, 1):
        if images.shape[axis] == size:
            continue
        positions, weights = _resize_taps(images.shape[axis], size, method)
        along_axis = (-1, *(1,) * (3 - axis))
        total = jnp.int32(1 << (_WEIGHT_BITS - 1))
        for position, weight in zip(positions.T, weights.T, strict=True):
            pixels = jnp.take(images, position, axis=axis).astype(jnp.int32)
            total = total + pixels * weight.reshape(along_axis)
        images = jnp.clip(total >> _WEIGHT_BITS, 0, 255).astype(jnp.uint8)
    return images


def _resize_taps(
    source: int, size: int, method: Resize
) -> tuple[Int32[np.ndarray, "size taps"], Int32[np.ndarray, "size taps"]]:
    """Which pixels of a line make each new pixel, and their weights times 2**_WEIGHT_BITS.

    The kernel is stretched by the scale when shrinking.
    """
    scale = source / size
    stretch = max(scale, 1.0)
    support = stretch * (1.0 if method == "bilinear" else 2.0)
    centres = (np.arange(size)[:, None] + 0.5) * scale
    first = np.maximum(np.trunc(centres - support + 0.5), 0)
    last = np.minimum(np.trunc(centres + support + 0.5), source)
    positions = first + np.arange(int((last - first).max()))
    distance = np.abs((positions - centres + 0.5) / stretch)
    kernel = _triangle if method == "bilinear" else _cubic
    weights = np.where(positions < last, kernel(distance), 0.0)
    weights *= (1 << _WEIGHT_BITS) / weights.sum(axis=1, keepdims=True)
    weights = np.trunc(weights + np.copysign(0.5, weights))
    return np.minimum(positions, source - 1).astype(np.int32), weights.astype(np.int32)


def _triangle(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    return np.maximum(1 - x, 0)


def _cubic(x: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Keys' cubic convolution with a = -0.5, for x >= 0."""
    inner = (1.5 * x - 2.5) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))
