"""A deterministic stand-in for a microscopy set, for runs and tests without a download.

Each image is a field of stained cells: nuclei and fibrous ground under uneven light, with sensor
noise. What a class changes is the nuclei (how many, how large, how elongated, how coarse), each
about a mean that other classes' ranges overlap. Stain and light vary from image to image and say
nothing of the class, so a linear model of the pixels learns little.

Only sums, products, quotients, square roots and rounding of float32 are used, which IEEE 754 fixes
to the bit, so that an image is the same on every machine.
"""

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from lsanet_jax.data.dataset import SPLITS, TASKS, Dataset, Split
from lsanet_jax.errors import ConfigError
from lsanet_jax.runtime import memory

_CHUNK_PIXELS = 2**19  # Rendered at a time, to bound memory. Part of what a seed means.

# Kinds of nuclei are points in [0, 1]^4: count, radius, elongation, coarseness of the chromatin.
# Multiples of these fractions spread any number of kinds evenly (Roberts' R4 sequence).
_SPREAD = (0.85667488, 0.73389185, 0.62870672, 0.53859725)
_OVERLAP = 0.18  # Half the width of a kind's range in each of the four.

# Lengths are fractions of the image's side.
_RADIUS = (0.038, 0.095)
_MAX_STRETCH = 1.7
_MAX_LONG = _RADIUS[1] * _MAX_STRETCH
_OUTSIDE = 0.04  # How far out of the frame the centre of a nucleus can be.
_MAX_NUCLEI = 26

# Absorption of red, green and blue by the two stains (Ruifrok and Johnston 2001).
_HEMATOXYLIN = (0.650, 0.704, 0.286)
_EOSIN = (0.072, 0.990, 0.105)


def make_synthetic(
    *,
    task: str,
    num_classes: int,
    num_train: int,
    num_val: int,
    num_test: int,
    size: int = 28,
    channels: int = 3,
    seed: int = 0,
) -> Dataset:
    """Generates the dataset: the same arguments give the same bytes.

    Args:
        task: one of `TASKS`. Nuclei of higher ordinal grades are larger, longer and coarser;
            multi-label images mix any number of kinds of nuclei.
        num_classes: classes, grades or labels; 2 for binary-class.
        num_train: images in the training split; likewise the two others. Splits are independent:
            changing one leaves the others as they are.
        num_val: see `num_train`.
        num_test: see `num_train`.
        size: pixels per side.
        channels: 3 for stained sections, 1 for the same through a green filter.
        seed: another seed draws other images of the same classes.

    Raises:
        ConfigError: an argument is outside its range; the message names the field of config.data.
    """
    _check("synthetic.task", task, task in TASKS, f"one of {', '.join(TASKS)}")
    fewest = 1 if task == "multi-label" else 2
    _check("synthetic.num_classes", num_classes, num_classes >= fewest, f"at least {fewest}")
    if task == "binary-class":
        _check("synthetic.num_classes", num_classes, num_classes == 2, "2 for binary-class")
    counts = dict(zip(SPLITS, (num_train, num_val, num_test), strict=True))
    for key, count in counts.items():
        _check(f"synthetic.num_{key}", count, count >= 1, "at least 1")
    if task != "multi-label":
        expected = f"at least one image for each of the {num_classes} classes"
        _check("synthetic.num_train", num_train, num_train >= num_classes, expected)
    _check("size", size, 8 <= size <= 1024, "8 to 1024 pixels")
    _check("synthetic.channels", channels, channels in (1, 3), "1 (grey) or 3 (RGB)")
    _check("synthetic.seed", seed, seed >= 0, "0 or more")
    labels = num_classes if task == "multi-label" else 1
    most = memory.physical_bytes() // (size * size * channels + 4 * labels)
    for key, count in counts.items():
        _check(f"synthetic.num_{key}", count, count <= most, f"at most {most}, to fit into memory")

    kinds = _kinds(task, num_classes)
    splits = {}
    for index, key in enumerate(SPLITS):
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))
        labels = _draw_labels(random, counts[key], task, num_classes)
        splits[key] = Split(_draw_images(random, labels, kinds, size, channels), labels)
    noun = {"ordinal-regression": "grade", "multi-label": "kind"}.get(task, "class")
    names = tuple(f"{noun} {index}" for index in range(num_classes))
    return Dataset("synthetic", task, names, **splits)


def _check(field: str, value: object, holds: bool, expected: str) -> None:
    if not holds:
        raise ConfigError(f"data.{field} is {value!r}, expected {expected}.")


def _kinds(task: str, num_classes: int) -> Float32[np.ndarray, "classes 4"]:
    steps = np.arange(num_classes, dtype=np.float64)[:, None]
    if task == "ordinal-regression":
        points = np.repeat(steps / (num_classes - 1), 4, axis=1)
    else:
        points = (0.12 + steps * np.array(_SPREAD)) % 1.0
    return points.astype(np.float32)


def _draw_labels(
    random: np.random.Generator, count: int, task: str, num_classes: int
) -> Int32[np.ndarray, "..."]:
    if task == "multi-label":
        present = random.random((count, num_classes), dtype=np.float32) < 0.35
        return present.astype(np.int32)
    # Equally many of each class, in random order.
    order = np.argsort(random.random(count), kind="stable")
    return (order % num_classes).astype(np.int32)


def _draw_images(
    random: np.random.Generator,
    labels: Int32[np.ndarray, "..."],
    kinds: Float32[np.ndarray, "classes 4"],
    size: int,
    channels: int,
) -> UInt8[np.ndarray, "n h w c"]:
    images = np.empty((len(labels), size, size, channels), np.uint8)
    chunk = max(1, _CHUNK_PIXELS // (size * size))
    for start in range(0, len(labels), chunk):
        part = slice(start, start + chunk)
        nuclei = _draw_nuclei(random, labels[part], kinds)
        images[part] = _render(random, nuclei, size, channels)
    return images


def _draw_nuclei(
    random: np.random.Generator,
    labels: Int32[np.ndarray, "..."],
    kinds: Float32[np.ndarray, "classes 4"],
) -> dict[str, Float32[np.ndarray, "n nuclei"]]:
    """Place and shape of each nucleus; those beyond an image's count have a density of 0."""
    count = len(labels)
    if labels.ndim == 1:
        slots = _MAX_NUCLEI
        own = kinds[labels] + _OVERLAP * _uniform(random, (count, 4), -1, 1)
        shape = np.repeat(own[:, None, 1:], slots, axis=1)
        # The larger the fewer: how much is stained in all must not give the class away.
        crowd, side = own[:, :1], 1 + (_RADIUS[1] / _RADIUS[0] - 1) * np.clip(own[:, 1:2], 0, 1)
        number = _uniform(random, (count, 1), 19, 34) * (np.float32(0.6) + np.float32(0.8) * crowd)
        visible = np.arange(slots) < np.maximum(number / (side * side), 4)
    else:
        # The slots are dealt in turn to the labels' kinds and one that means nothing.
        hands = labels.shape[1] + 1
        slots = max(_MAX_NUCLEI, 2 * hands)
        owner = np.arange(slots) % hands
        shape = np.concatenate([kinds, np.full((1, 4), 0.5, np.float32)])[owner, 1:]
        shape = shape + 0.5 * _OVERLAP * _uniform(random, (count, slots, 3), -1, 1)
        present = np.concatenate([labels, np.ones((count, 1), labels.dtype)], axis=1)
        # A kind that is present shows at least its first nucleus.
        shown = (_uniform(random, (count, slots), 0, 1) < 0.8) | (np.arange(slots) < hands)
        visible = shown & (present[:, owner] > 0)
    shape = np.clip(shape + 0.1 * _uniform(random, (count, slots, 3), -1, 1), 0, 1)
    radius = np.float32(_RADIUS[0]) + np.float32(_RADIUS[1] - _RADIUS[0]) * shape[..., 0]
    stretch = 1 + np.float32(_MAX_STRETCH - 1) * shape[..., 1]
    # A direction from a random point on the rational half circle: no sine or cosine.
    t = _uniform(random, (count, slots), -1, 1)
    return {
        "x": _uniform(random, (count, slots), -_OUTSIDE, 1 + _OUTSIDE),
        "y": _uniform(random, (count, slots), -_OUTSIDE, 1 + _OUTSIDE),
        "long": radius * stretch,
        "short": radius / stretch,
        "cos": (1 - t * t) / (1 + t * t),
        "sin": 2 * t / (1 + t * t),
        "coarse": 2 * shape[..., 2] - 1,
        "density": visible * _uniform(random, (count, slots), 0.7, 1.1),
    }


def _render(
    random: np.random.Generator,
    nuclei: dict[str, Float32[np.ndarray, "n nuclei"]],
    size: int,
    channels: int,
) -> UInt8[np.ndarray, "n h w c"]:
    count = len(nuclei["x"])
    fibres = _smooth_noise(random, count, 6, size) + _smooth_noise(random, count, 13, size) / 2
    eosin = _uniform(random, (count, 1, 1), 0.2, 0.4) * (np.float32(0.3) + fibres * fibres)
    margin = _reach(size) + int(np.ceil(_OUTSIDE * size)) + 1
    grain = _smooth_noise(random, count, 14, size + 2 * margin)
    hematoxylin = np.zeros(grain.shape, np.float32)
    for index in range(nuclei["x"].shape[1]):
        _stamp(hematoxylin, grain, {key: value[:, index] for key, value in nuclei.items()}, size)
    hematoxylin = hematoxylin[:, margin : margin + size, margin : margin + size]
    hematoxylin = hematoxylin + np.float32(0.06) * fibres
    hematoxylin *= _uniform(random, (count, 1, 1), 0.9, 1.5)

    light = _uniform(random, (count, 1, 1), 0.85, 1.0) * (
        np.float32(0.8) + np.float32(0.25) * _smooth_noise(random, count, 3, size)
    )
    images = np.empty((count, size, size, channels), np.uint8)
    for channel in range(channels):
        band = channel if channels == 3 else 1
        absorbed = hematoxylin * (_HEMATOXYLIN[band] + _uniform(random, (count, 1, 1), -0.08, 0.08))
        absorbed += eosin * (_EOSIN[band] + _uniform(random, (count, 1, 1), -0.04, 0.08))
        # 1 / (1 + x / 4)^4 for exp(-x), which the C libraries round differently.
        passed = 1 / (1 + np.maximum(absorbed, 0) * np.float32(0.25))
        passed *= passed
        passed *= passed
        passed *= light * np.float32(245)
        noise = random.integers(0, 256, (2, count, size, size), np.uint8)
        passed += (noise[0].astype(np.float32) - noise[1]) * np.float32(0.045)
        images[..., channel] = np.clip(np.rint(passed), 0, 255)
    return images


def _stamp(
    hematoxylin: Float32[np.ndarray, "n h w"],
    grain: Float32[np.ndarray, "n h w"],
    nucleus: dict[str, Float32[np.ndarray, " n"]],
    size: int,
) -> None:
    """Adds one nucleus to each image, in a window just large enough for any.

    Both arrays have a margin around the `size` pixels that will be seen.
    """
    seen = np.flatnonzero(nucleus["density"])
    nucleus = {key: value[seen] for key, value in nucleus.items()}
    padded = hematoxylin.shape[1]
    margin = (padded - size) // 2
    reach = _reach(size)
    window = np.arange(-reach, reach + 1)
    left = np.rint(nucleus["x"] * size).astype(np.int64)[:, None] + window
    top = np.rint(nucleus["y"] * size).astype(np.int64)[:, None] + window
    x = (left.astype(np.float32) + np.float32(0.5)) / size - nucleus["x"][:, None]
    y = (top.astype(np.float32) + np.float32(0.5)) / size - nucleus["y"][:, None]
    x, y = x[:, None, :], y[:, :, None]
    cos, sin, long, short, density, coarse = (
        nucleus[key][:, None, None] for key in ("cos", "sin", "long", "short", "density", "coarse")
    )
    along = x * (cos / long) + y * (sin / long)
    across = y * (cos / short) - x * (sin / short)
    distance = along * along + across * across  # 1 on the outline.

    rows = seen[:, None, None] * padded + top[:, :, None] + margin
    pixels = rows * padded + left[:, None, :] + margin
    stain = np.clip((np.float32(1.25) - distance) * 2, 0, 1) * density
    # Coarse chromatin: a dark rim and clumps; fine: dark in the middle, and even.
    stain *= 1 + coarse * (np.float32(0.9) * np.minimum(distance, 1) - np.float32(0.45))
    stain *= 1 + (1 + coarse) * (grain.take(pixels) - np.float32(0.5))
    flat = hematoxylin.reshape(-1)
    flat[pixels] = np.maximum(flat[pixels], stain)


def _reach(size: int) -> int:
    """Pixels from the centre of the largest nucleus to the edge of its window."""
    return int(np.ceil(1.12 * _MAX_LONG * size)) + 1


def _smooth_noise(
    random: np.random.Generator, count: int, cells: int, size: int
) -> Float32[np.ndarray, "n size size"]:
    """Random values in [0, 1] on a coarse grid, blended smoothly in between."""
    values = _uniform(random, (count, cells + 1, cells + 1), 0, 1)
    position = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * np.float32(cells / size)
    low = np.minimum(position.astype(np.int32), cells - 1)
    t = position - low.astype(np.float32)
    t = t * t * (3 - 2 * t)
    for axis, blend in ((2, t), (1, t[:, None])):
        start, stop = values.take(low, axis), values.take(low + 1, axis)
        values = start + (stop - start) * blend
    return values


def _uniform(
    random: np.random.Generator, shape: tuple[int, ...], low: float, high: float
) -> Float32[np.ndarray, "..."]:
    unit = random.random(shape, dtype=np.float32)
    return np.float32(low) + np.float32(high - low) * unit
