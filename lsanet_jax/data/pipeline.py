"""Batches: which samples, in which order, and from stored bytes to what the network sees.

The device-resident pipeline keeps the uint8 images on the devices. A step receives indices only;
it gathers, resizes and normalises inside the jitted step with `preprocess`. What does not fit there
goes through `streaming`.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int32, Key, UInt8

from lsanet_jax import keys
from lsanet_jax.data import augment as augmentation
from lsanet_jax.data.augment import Augmentation
from lsanet_jax.data.dataset import SPLITS, Dataset, Split
from lsanet_jax.errors import ConfigError, DataError

Resize = Literal["nearest", "bilinear", "bicubic"]

_MEGABYTE = 2**20
_WEIGHT_BITS = 22  # Of PIL's resampling weights: products with 8-bit pixels stay within 32.


def epoch_order(
    seed: int, epoch: int, num_samples: int, batch_size: int
) -> Int32[np.ndarray, "steps batch"]:
    """The sample indices of one epoch, batch by batch: a pure function of its arguments.

    An epoch is ceil(num_samples / batch_size) full batches. The last one is completed with the
    first samples of the same permutation (as torch's DistributedSampler does), so that shapes are
    static and every sample is seen.
    """
    steps = -(-num_samples // batch_size)
    with jax.threefry_partitionable(True):  # The other setting draws other numbers.
        key = jax.random.fold_in(keys.stream(seed, "order"), epoch)
        permutation = np.asarray(jax.random.permutation(key, num_samples))
    return np.resize(permutation, (steps, batch_size)).astype(np.int32)


def eval_batches(num_samples: int, batch_size: int) -> Int32[np.ndarray, "steps batch"]:
    """All sample indices in order; the last batch is padded with the last index.

    The caller drops what it computes beyond `num_samples`.
    """
    steps = -(-num_samples // batch_size)
    indices = np.arange(steps * batch_size, dtype=np.int32)
    return np.minimum(indices, num_samples - 1).reshape(steps, batch_size)


def place(split: Split, mesh: Mesh) -> tuple[UInt8[Array, "n h w c"], Int32[Array, "..."]]:
    """A split's images and labels on every device of the mesh, replicated."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return _put(split.images, sharding), _put(split.labels, sharding)


class Resident:
    """Feeds steps from images that live on every device; a step gets all of them, and indices."""

    resident = True

    def __init__(
        self,
        dataset: Dataset,
        mesh: Mesh,
        *,
        seed: int,
        batch_size: int,
        eval_batch_size: int,
        steps_per_dispatch: int,
    ):
        """Copies the images to the devices; see `make_feed` for the arguments."""
        self._lengths = {key: len(dataset.split(key)) for key in SPLITS}
        self._seed = seed
        self._batch_size = batch_size
        self._eval_batch_size = eval_batch_size
        self._steps_per_dispatch = steps_per_dispatch
        self._batch = NamedSharding(mesh, PartitionSpec("data"))
        self._batches = NamedSharding(mesh, PartitionSpec(None, "data"))
        self._splits = {key: place(dataset.split(key), mesh) for key in SPLITS}

    def train(self, epoch: int, first: int = 0) -> Iterator[tuple[Array, Array, Array]]:
        """All images and labels, and indices [n, B] of an epoch's dispatches, from a step on."""
        order = epoch_order(self._seed, epoch, self._lengths["train"], self._batch_size)
        for step in range(first, len(order), self._steps_per_dispatch):
            indices = order[step : step + self._steps_per_dispatch]
            yield *self._splits["train"], _put(indices, self._batches)

    def evaluate(self, key: str) -> Iterator[tuple[Array, Array, Array]]:
        """All images and labels of a split, and indices [B] of its evaluation batches."""
        for indices in eval_batches(self._lengths[key], self._eval_batch_size):
            yield *self._splits[key], _put(indices, self._batch)

    def close(self) -> None:
        """Does nothing."""


def _put(array: np.ndarray, sharding: NamedSharding) -> Array:
    # Unlike device_put this does not compare the array between processes, which would send the
    # whole set over the network.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def make_feed(dataset: Dataset, config, mesh: Mesh, *, epochs: int, **options: int):
    """The pipeline that `config.data` asks for: `Resident`, or `streaming.Streamed`.

    Both give the same batches in the same order: `train(epoch, first)` yields what
    `steps.make_train_step` takes for each dispatch of an epoch from step `first` on, counted from 0
    and a multiple of `steps_per_dispatch`; `evaluate(split)` what `steps.make_eval_step` takes.

    Args:
        dataset: the images.
        config: `config.data`; its fields `pipeline`, `device_budget_mb` and `workers` count.
        mesh: the devices; batches are split over their axis "data".
        epochs: of the whole run.
        **options: `seed`; `batch_size` and `eval_batch_size`, over all devices;
            `steps_per_dispatch`.

    Raises:
        DataError: `pipeline` is "device", and the dataset does not fit `device_budget_mb`.
    """
    held = all(isinstance(dataset.split(key).images, np.ndarray) for key in SPLITS)
    if config.pipeline == "device":
        check_fits(dataset, config.device_budget_mb)
    if config.pipeline == "grain" or not held or not fits(dataset, config.device_budget_mb):
        from lsanet_jax.data import streaming  # Grain takes a second.

        return streaming.Streamed(dataset, mesh, epochs=epochs, workers=config.workers, **options)
    return Resident(dataset, mesh, **options)


def device_megabytes(dataset: Dataset) -> float:
    """What the three splits need on each device, in MiB."""
    splits = [dataset.split(key) for key in SPLITS]
    return sum(split.images.nbytes + split.labels.nbytes for split in splits) / _MEGABYTE


def fits(dataset: Dataset, budget_mb: float) -> bool:
    """Whether the dataset may live on the devices."""
    return device_megabytes(dataset) <= budget_mb


def check_fits(dataset: Dataset, budget_mb: float) -> None:
    """Raises DataError when the dataset is larger than `data.device_budget_mb`."""
    if not fits(dataset, budget_mb):
        needed = device_megabytes(dataset)
        raise DataError(
            f"dataset {dataset.name!r} needs {needed:.1f} MiB on each device, but"
            f" data.device_budget_mb is {budget_mb:g} and data.pipeline is 'device': raise the"
            f" budget to at least {math.ceil(needed)} if the device's memory allows, or set"
            " data.pipeline to 'auto'."
        )


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
        resize: how; nothing happens where the size is right already.
        as_rgb: repeat grey images to 3 channels. RGB images stay as they are either way.
        mean: subtracted after scaling to [0, 1]; one value, or one per channel of the result.
        std: divisor after that, likewise.
        augment: applied to the resized images, in [0, 1].

    Raises:
        ConfigError: `resize`, `mean` or `std` is not as described.
    """
    if resize not in ("nearest", "bilinear", "bicubic"):
        raise ConfigError(f"data.resize is {resize!r}, expected nearest, bilinear or bicubic.")
    channels = 3 if as_rgb else images.shape[-1]
    for field, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise ConfigError(
                f"data.{field} is {tuple(values)}, expected 1 value or {channels}, one per channel."
            )
    if min(std) <= 0:
        raise ConfigError(f"data.std is {tuple(std)}, expected values above 0.")
    if images.shape[1:3] != (image_size, image_size):
        if resize == "nearest":
            images = _resize_nearest(images, image_size)
        else:
            images = _resize_antialiased(images, image_size, resize)
    pixels = augment(images.astype(jnp.float32) / 255)
    if images.shape[-1] != channels:
        pixels = jnp.repeat(pixels, channels, axis=-1)
    return (pixels - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)


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
        labels: class indices, or 0 and 1 for each label.
        options: what to do; mixup makes labels [b, k] of class indices.
        num_classes: k.
        preprocess: this module's, with all its other arguments.
    """
    augment = functools.partial(augmentation.augment, key, options=options)
    x = preprocess(images, augment=augment)
    if options.mixup:
        one_hot = labels if labels.ndim == 2 else jax.nn.one_hot(labels, num_classes)
        return augmentation.mixup(key, x, one_hot.astype(x.dtype), options.mixup)
    return x, labels


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
