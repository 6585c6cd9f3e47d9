"""Augmentation of a batch on the devices: pure functions of a key, for use inside the jitted step.

Images are in [0, 1], before mean and standard deviation are applied, and stay there. A sample's
parameters depend on the key and its position in the batch only. Each operation draws from a stream
of its own, so switching one on leaves the draws of the others alone, and one that is off is not
traced. The order is: `flip`, `quarter_turn`, `warp` (rotate, scale, shift and crop in one
sampling), `brightness`, `contrast`, `saturation`, `hue` (torchvision's `ColorJitter` draws the
order of these four), `cutout`, and then, for images and labels together, `mixup` and `cutmix`.
"""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from lsanet_jax.errors import ConfigError

# The places are part of what a key means: never reorder, only append.
_STREAMS = (
    *("hflip", "vflip", "rot90", "shift", "crop", "rotate", "scale"),
    *("brightness", "contrast", "saturation", "hue", "cutout", "mixup"),
    "cutmix",
)

MAXIMA: Mapping[str, float] = {
    "shift": 1.0,
    "crop": 0.9,
    "rotate": 180.0,
    "scale": 0.9,
    "brightness": 10.0,
    "contrast": 10.0,
    "saturation": 10.0,
    "hue": 0.5,
    "cutout": 1.0,
    "mixup": 100.0,
    "cutmix": 100.0,
}
"""The largest value of each strength; the smallest is 0, which switches it off."""

# In the order that `affine_matrix` reads them.
_OFF = {"shift": (0.0, 0.0), "crop": (1.0, 0.0, 0.0), "rotate": (0.0,), "scale": (1.0,)}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601; torchvision rounds the first to 0.2989.
_CUTOUT_FILL = 0.5  # 0 after the default normalisation, as the paper fills.

Images = Float[Array, "b h w c"]
Draws = dict[str, Float[Array, " b"] | Float[Array, "b n"] | Bool[Array, " b"] | Int[Array, " b"]]


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Which operations run, and how strongly; by default none does.

    Raises:
        ConfigError: a strength is below 0 or above its maximum in `MAXIMA`.
    """

    hflip: bool = False  # left and right swapped with probability 1/2
    vflip: bool = False  # top and bottom swapped with probability 1/2
    rot90: bool = False  # by 0, 90, 180 or 270 degrees, equally likely; square images only
    shift: float = 0.0  # by up to this fraction of the side, either way, along each axis
    crop: float = 0.0  # a part of area 1 - crop to 1, anywhere in the image, enlarged to full size
    rotate: float = 0.0  # about the centre by up to this many degrees, either way
    scale: float = 0.0  # about the centre by a factor of 1 - scale to 1 + scale
    brightness: float = 0.0  # times a factor of 1 - brightness to 1 + brightness
    contrast: float = 0.0  # distance from the image's mean grey times such a factor
    saturation: float = 0.0  # distance from the pixel's own grey times such a factor
    hue: float = 0.0  # by up to this fraction of the colour circle, either way
    cutout: float = 0.0  # side of the grey square, as a fraction of the image's (shorter) side
    mixup: float = 0.0  # alpha of Beta(alpha, alpha), for the argument of `mixup`
    cutmix: float = 0.0  # alpha of Beta(alpha, alpha), for the argument of `cutmix`

    def __post_init__(self):
        for name, maximum in MAXIMA.items():
            value = getattr(self, name)
            if not 0 <= value <= maximum:
                raise ConfigError(
                    f"config.data.augment.{name} is {value}, expected 0 (off) to {maximum:g}."
                )


def second_view(options: Augmentation) -> Augmentation:
    """The augmentation of a second view of each image, for contrast with one made by `options`.

    Shifts and changes of colour at least as strong as those that "Contrastive Deep Supervision"
    takes for it on CIFAR (https://arxiv.org/abs/2207.05306). Flips and turns are those of
    `options`: whether an image may be mirrored is for the user to say.
    """
    least = {"shift": 0.125, "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}
    stronger = {name: max(getattr(options, name), value) for name, value in least.items()}
    return dataclasses.replace(options, mixup=0.0, cutmix=0.0, **stronger)


def self_supervised_view(options: Augmentation) -> Augmentation:
    """The augmentation of both views that are to be recognised as one image without a label.

    Crops and changes of colour at least as strong as these; flips and turns are those of `options`,
    as in `second_view`.
    """
    least = {"crop": 0.6, "brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1}
    stronger = {name: max(getattr(options, name), value) for name, value in least.items()}
    return dataclasses.replace(options, mixup=0.0, cutmix=0.0, **stronger)


def augment(key: Key[Array, ""], images: Images, options: Augmentation) -> Images:
    """Augment every image of a batch by parameters of its own.

    Args:
        key: of this step.
        images: in [0, 1]; grey or RGB. Of grey images saturation and hue are left alone.
        options: static; with everything off the images are returned as they are.

    Returns:
        Images of the same shape in [0, 1].

    Raises:
        ConfigError: quarter turns are on, and the images are not square.
    """
    _, height, width, channels = images.shape
    if options.rot90 and height != width:
        raise ConfigError(
            f"config.data.augment.rot90 needs square images, found {height} x {width}: switch it "
            f"off."
        )
    draws = draw(key, len(images), options)
    if options.hflip:
        images = flip(images, draws["hflip"], axis=2)
    if options.vflip:
        images = flip(images, draws["vflip"], axis=1)
    if options.rot90:
        images = quarter_turn(images, draws["rot90"])
    if draws.keys() & _OFF.keys():
        images = warp(images, affine_matrix(draws, images.shape))
    if options.brightness:
        images = brightness(images, draws["brightness"])
    if options.contrast:
        images = contrast(images, draws["contrast"])
    if options.saturation and channels == 3:
        images = saturation(images, draws["saturation"])
    if options.hue and channels == 3:
        images = hue(images, draws["hue"])
    if options.cutout:
        images = cutout(images, draws["cutout"], round(options.cutout * min(height, width)))
    return images


def mixup(
    key: Key[Array, ""], images: Images, labels: Float[Array, "b k"], alpha: float
) -> tuple[Images, Float[Array, "b k"]]:
    """Blend every sample with its neighbour in the batch, images and labels alike.

    The weight is drawn per sample, not once per batch as in the authors' code. The neighbour is the
    previous sample (of the first, the last): batches are in random order already, and a batch that
    is split over devices then exchanges one image between neighbours.

    Args:
        key: of this step; may be the one that `augment` got.
        images: any scale.
        labels: one-hot, or 0 and 1 for each label of a multi-label set.
        alpha: static; the weight is distributed as Beta(alpha, alpha). 0 changes nothing.

    Returns:
        Images and soft labels of the same shapes.

    References:
        Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018,
        https://arxiv.org/abs/1710.09412, section 2.
    """
    if not alpha:
        return images, labels
    weights = draw_mixup(key, len(images), alpha)
    return mix(images, weights), mix(labels, weights)


def cutmix(
    key: Key[Array, ""],
    images: Images,
    labels: Float[Array, "b k"],
    alpha: float,
    mixup_alpha: float = 0.0,
) -> tuple[Images, Float[Array, "b k"]]:
    """Paste a box of its neighbour into every sample, and blend the labels by the box's area.

    The box has the image's proportions and its centre anywhere; what would lie outside the image is
    left off, and its area is what is left. It is drawn per sample, and the neighbour is the
    previous one, as in `mixup`.

    Args:
        key: of this step; may be the one that `augment` got.
        images: any scale.
        labels: one-hot, or 0 and 1 for each label of a multi-label set.
        alpha: static; the part of the image that stays is distributed as Beta(alpha, alpha).
        mixup_alpha: static; above 0, half of the samples are blended by `mixup` instead.

    Returns:
        Images and soft labels of the same shapes.

    References:
        Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable
        Features", ICCV 2019, https://arxiv.org/abs/1905.04899, Eq. 1 and 2.
    """
    stays, centres, blended = draw_cutmix(key, len(images), alpha)
    _, height, width, _ = images.shape
    mask = boxes(stays, centres, (height, width))
    weights = 1 - jnp.mean(mask, axis=(1, 2), dtype=jnp.float32)
    pasted = jnp.where(mask[..., None], jnp.roll(images, 1, axis=0), images)
    cut = pasted, mix(labels, weights)
    if not mixup_alpha:
        return cut
    mixed = mixup(key, images, labels, mixup_alpha)
    choose = lambda a, b: jnp.where(blended.reshape(-1, *(1,) * (a.ndim - 1)), a, b)
    return choose(mixed[0], cut[0]), choose(mixed[1], cut[1])


def draw(key: Key[Array, ""], batch_size: int, options: Augmentation) -> Draws:
    """What `augment` does to each sample: the parameters of the operations that are on.

    Returns:
        By the names of the options: flips, true or false; rot90, quarter turns counter-clockwise;
        shift, fractions of height and width; crop, its area and where its centre is between the
        outermost ones at -1 and 1, by row and column; rotate, degrees counter-clockwise; scale,
        brightness, contrast and saturation, factors; hue, turns of the colour circle; cutout, the
        square's centre as fractions of height and width.
    """
    ranges = {
        "hflip": (0.0, 1.0),
        "vflip": (0.0, 1.0),
        "rot90": (0.0, 4.0),
        "shift": ((-options.shift,) * 2, (options.shift,) * 2),
        "crop": ((1 - options.crop, -1.0, -1.0), (1.0, 1.0, 1.0)),
        "rotate": (-options.rotate, options.rotate),
        "scale": _factors(options.scale),
        "brightness": _factors(options.brightness),
        "contrast": _factors(options.contrast),
        "saturation": _factors(options.saturation),
        "hue": (-options.hue, options.hue),
        "cutout": ((0.0, 0.0), (1.0, 1.0)),
    }
    draws = {
        name: _uniform(_sample_keys(key, name, batch_size), low, high)
        for name, (low, high) in ranges.items()
        if getattr(options, name)
    }
    for name in draws.keys() & {"hflip", "vflip"}:
        draws[name] = draws[name] < 0.5
    if "rot90" in draws:
        draws["rot90"] = draws["rot90"].astype(jnp.int32)
    return draws


def draw_mixup(key: Key[Array, ""], batch_size: int, alpha: float) -> Float[Array, " b"]:
    """The weight of every sample in its own mixture, from Beta(alpha, alpha)."""
    keys = _sample_keys(key, "mixup", batch_size)
    with jax.threefry_partitionable(True):  # The other setting draws other numbers.
        return jax.vmap(lambda k: jax.random.beta(k, alpha, alpha, dtype=jnp.float32))(keys)


def draw_cutmix(
    key: Key[Array, ""], batch_size: int, alpha: float
) -> tuple[Float[Array, " b"], Float[Array, "b 2"], Bool[Array, " b"]]:
    """Of every sample the part that stays, its box's centre, and whether mixup takes its place."""
    keys = _sample_keys(key, "cutmix", batch_size)
    places = _uniform(keys, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    with jax.threefry_partitionable(True):
        draw_beta = lambda k: jax.random.beta(jax.random.fold_in(k, 1), alpha, alpha, (), "float32")
        return jax.vmap(draw_beta)(keys), places[:, :2], places[:, 2] < 0.5


def boxes(
    stays: Float[Array, " b"], centres: Float[Array, "b 2"], shape: tuple[int, int]
) -> Bool[Array, "b h w"]:
    """Boxes of area 1 - `stays` around `centres`, as masks of the pixels inside.

    Args:
        stays: the part of the image outside the box, had it all of it inside.
        centres: row and column as fractions of height and width, below 1.
        shape: (height, width) of the images.
    """
    sides = jnp.floor(jnp.sqrt(1 - stays)[:, None] * jnp.array(shape)).astype(jnp.int32)
    return _boxes(centres, sides, shape)


def flip(images: Images, flipped: Bool[Array, " b"], axis: int) -> Images:
    """Images mirrored along an axis where `flipped`."""
    return jnp.where(_per_image(flipped), jnp.flip(images, axis), images)


def quarter_turn(images: Images, turns: Int[Array, " b"]) -> Images:
    """Square images turned counter-clockwise by 0 to 3 quarters."""
    images = jnp.where(_per_image(turns % 2 == 1), jnp.rot90(images, axes=(1, 2)), images)
    return jnp.where(_per_image(turns >= 2), images[:, ::-1, ::-1], images)


def affine_matrix(draws: Draws, shape: tuple[int, ...]) -> Float[Array, "b 2 3"]:
    """Where in the image each pixel of the result comes from, for `warp`.

    As seen by the image: rotated and scaled about its centre, shifted (down and to the right where
    positive), then cropped, as torchvision's `RandomAffine` and then its `RandomResizedCrop` with
    the aspect ratio kept.

    Args:
        draws: from `draw`; what is missing does nothing.
        shape: of the images, [b, h, w, c].
    """
    batch_size, height, width, _ = shape
    off = {name: jnp.tile(jnp.float32(value), (batch_size, 1)) for name, value in _OFF.items()}
    shift, crop, degrees, scale = (
        draws.get(name, value).reshape(batch_size, -1).T for name, value in off.items()
    )
    side = jnp.sqrt(crop[0])
    dy = ((1 - side) / 2 * crop[1] - shift[0]) * height
    dx = ((1 - side) / 2 * crop[2] - shift[1]) * width
    # The inverse of the rotation and scaling.
    cos = jnp.cos(jnp.deg2rad(degrees[0])) / scale[0]
    sin = jnp.sin(jnp.deg2rad(degrees[0])) / scale[0]
    rows = [cos * side, sin * side, cos * dy + sin * dx]
    columns = [-sin * side, cos * side, cos * dx - sin * dy]
    return jnp.stack([jnp.stack(rows, axis=-1), jnp.stack(columns, axis=-1)], axis=1)


def warp(images: Images, matrix: Float[Array, "b 2 3"]) -> Images:
    """Images sampled bilinearly at affine positions; outside, the nearest pixel of the edge counts.

    Args:
        images: of any size.
        matrix: from (row, column, 1) of the result to (row, column) of the image, both in pixels
            from the centre.
    """
    _, height, width, _ = images.shape
    y = jnp.arange(height, dtype=jnp.float32)[:, None] - (height - 1) / 2
    x = jnp.arange(width, dtype=jnp.float32) - (width - 1) / 2
    m = matrix[..., None, None]
    # Not a matrix product, which GPUs and TPUs would round to fewer bits.
    row = m[:, 0, 0] * y + m[:, 0, 1] * x + m[:, 0, 2] + (height - 1) / 2
    column = m[:, 1, 0] * y + m[:, 1, 1] * x + m[:, 1, 2] + (width - 1) / 2
    row, column = jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1)
    # Computed once: were the roundings of two computations on either side of a whole number, the
    # fractions below would belong to other pixels.
    row, column = jax.lax.optimization_barrier((row, column))
    top, left = jnp.floor(row).astype(jnp.int32), jnp.floor(column).astype(jnp.int32)
    bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    pick = jax.vmap(lambda image, i, j: image.at[i, j].get(mode="promise_in_bounds"))
    across = (column - left)[..., None]
    upper = _between(pick(images, top, left), pick(images, top, right), across)
    lower = _between(pick(images, bottom, left), pick(images, bottom, right), across)
    return jnp.clip(_between(upper, lower, (row - top)[..., None]), 0, 1)


def brightness(images: Images, factors: Float[Array, " b"]) -> Images:
    """Pixels times a factor, as torchvision's `adjust_brightness`."""
    return jnp.clip(images * _per_image(factors), 0, 1)


def contrast(images: Images, factors: Float[Array, " b"]) -> Images:
    """Distances from the image's mean grey times a factor, as torchvision's `adjust_contrast`."""
    mean = jnp.mean(_grey(images), axis=(1, 2, 3), keepdims=True)
    return jnp.clip(mean + (images - mean) * _per_image(factors), 0, 1)


def saturation(images: Float[Array, "b h w 3"], factors: Float[Array, " b"]) -> Images:
    """Distances from the pixel's grey times a factor, as torchvision's `adjust_saturation`."""
    grey = _grey(images)
    return jnp.clip(grey + (images - grey) * _per_image(factors), 0, 1)


def hue(images: Float[Array, "b h w 3"], turns: Float[Array, " b"]) -> Images:
    """Hues moved on around the colour circle (in HSV), as torchvision's `adjust_hue`."""
    red, green, blue = (images[..., i] for i in range(3))
    value = jnp.max(images, axis=-1)
    chroma = value - jnp.min(images, axis=-1)
    divisor = jnp.where(chroma == 0, 1, chroma)
    # Not `value == red`: compiled, the two may come of roundings that differ in the last bit.
    sixths = jnp.where(
        (red >= green) & (red >= blue),
        (green - blue) / divisor,
        jnp.where(green >= blue, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sixths = sixths + 6 * turns[:, None, None]
    # A channel lacks all of the chroma for two sixths of the circle, and none for another two.
    distances = [(start + sixths) % 6 for start in (5, 3, 1)]
    lacks = [jnp.clip(jnp.minimum(d, 4 - d), 0, 1) for d in distances]
    return jnp.clip(jnp.stack([value - chroma * lack for lack in lacks], axis=-1), 0, 1)


def cutout(images: Images, centres: Float[Array, "b 2"], side: int) -> Images:
    """Images with a grey square over them, of which what lies outside the image is lost.

    Args:
        images: in [0, 1].
        centres: row and column of the square's centre as fractions of height and width, below 1.
        side: of the square, in pixels.

    References:
        DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
        2017, https://arxiv.org/abs/1708.04552, section 3.2.
    """
    count, height, width, _ = images.shape
    covered = _boxes(centres, jnp.full((count, 2), side), (height, width))
    return jnp.where(covered[..., None], _CUTOUT_FILL, images)


def mix(samples: Float[Array, "b ..."], weights: Float[Array, " b"]) -> Float[Array, "b ..."]:
    """Every sample times its weight plus the previous one times the rest."""
    weights = weights.reshape(-1, *(1,) * (samples.ndim - 1))
    return weights * samples + (1 - weights) * jnp.roll(samples, 1, axis=0)


def _boxes(
    centres: Float[Array, "b 2"], sides: Int[Array, "b 2"], shape: tuple[int, int]
) -> Bool[Array, "b h w"]:
    """Which pixels lie in a box around a centre; `centres` are fractions, `sides` pixels."""

    def inside(axis: int) -> Bool[Array, "b n"]:
        start = jnp.floor(centres[:, axis] * shape[axis]).astype(jnp.int32) - sides[:, axis] // 2
        pixels = jnp.arange(shape[axis]) - start[:, None]
        return (pixels >= 0) & (pixels < sides[:, axis, None])

    return inside(0)[:, :, None] & inside(1)[:, None]


def _sample_keys(key: Key[Array, ""], name: str, batch_size: int) -> Key[Array, " b"]:
    key = jax.random.fold_in(key, _STREAMS.index(name))
    return jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(batch_size, dtype=jnp.uint32))


def _uniform(keys: Key[Array, " b"], low, high) -> Float[Array, " b"] | Float[Array, "b n"]:
    low, high = jnp.float32(low), jnp.float32(high)
    with jax.threefry_partitionable(True):
        return jax.vmap(lambda k: jax.random.uniform(k, low.shape, jnp.float32, low, high))(keys)


def _factors(strength: float) -> tuple[float, float]:
    return max(1 - strength, 0.0), 1 + strength


def _per_image(values: Array) -> Array:
    return values[:, None, None, None]


def _grey(images: Images) -> Float[Array, "b h w 1"]:
    if images.shape[-1] == 1:
        return images
    # No matrix product, as in `warp`.
    red, green, blue = (weight * images[..., i : i + 1] for i, weight in enumerate(_LUMA))
    return red + green + blue


def _between(a: Array, b: Array, fraction: Array) -> Array:
    return a + (b - a) * fraction
