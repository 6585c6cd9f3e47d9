"""Each operation against another implementation, the draws against their distributions.

Statistical tolerances are five standard errors, and the key is fixed.
"""

import colorsys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from lsanet_jax.data import augment as aug
from lsanet_jax.data.augment import Augmentation
from lsanet_jax.errors import ConfigError

KEY = jax.random.key(0)
MANY = 4096
EVERYTHING = Augmentation(
    hflip=True,
    vflip=True,
    rot90=True,
    shift=0.2,
    crop=0.4,
    rotate=30.0,
    scale=0.3,
    brightness=0.4,
    contrast=0.5,
    saturation=0.6,
    hue=0.2,
    cutout=0.3,
    mixup=0.4,
    cutmix=1.0,
)
APPLY = {
    "hflip": lambda images, drawn: aug.flip(images, drawn, axis=2),
    "vflip": lambda images, drawn: aug.flip(images, drawn, axis=1),
    "rot90": aug.quarter_turn,
    **{
        name: lambda images, drawn, name=name: aug.warp(
            images, aug.affine_matrix({name: drawn}, images.shape)
        )
        for name in ("shift", "crop", "rotate", "scale")
    },
    "brightness": aug.brightness,
    "contrast": aug.contrast,
    "saturation": aug.saturation,
    "hue": aug.hue,
    "cutout": lambda images, drawn: aug.cutout(images, drawn, side=2),  # round(0.3 * 8)
}

augment = jax.jit(aug.augment, static_argnums=2)
draw = jax.jit(aug.draw, static_argnums=(1, 2))
draw_mixup = jax.jit(aug.draw_mixup, static_argnums=(1, 2))
mixup = jax.jit(aug.mixup, static_argnums=3)
cutmix = jax.jit(aug.cutmix, static_argnums=(3, 4))
draw_cutmix = jax.jit(aug.draw_cutmix, static_argnums=(1, 2))
warp = jax.jit(aug.warp)


def random_images(*shape):
    return np.random.default_rng(0).random(shape, np.float32)


def only(name):
    return Augmentation(**{name: getattr(EVERYTHING, name)})


@pytest.fixture(scope="module")
def draws():
    return {name: np.asarray(value) for name, value in draw(KEY, MANY, EVERYTHING).items()}


def assert_mean(values, expected, standard_deviation):
    error = standard_deviation / np.sqrt(len(values))
    np.testing.assert_allclose(np.mean(values, axis=0), expected, rtol=0, atol=5 * error)


def assert_uniform(values, low, high):
    assert values.min() >= low
    assert values.max() <= high
    counts, _ = np.histogram(values, bins=8, range=(low, high))
    for count in counts:
        assert_mean(np.arange(len(values)) < count, 1 / 8, np.sqrt(1 / 8 * 7 / 8))


# What is on and what is off.


def test_everything_is_off_by_default_and_traces_to_nothing():
    images, labels = random_images(2, 8, 8, 3), np.eye(2, dtype=np.float32)

    def run(key, images, labels):
        images = aug.augment(key, images, Augmentation())
        return aug.mixup(key, images, labels, Augmentation().mixup)

    assert jax.make_jaxpr(run)(KEY, images, labels).eqns == []
    same_images, same_labels = run(KEY, images, labels)
    assert same_images is images
    assert same_labels is labels


@pytest.mark.parametrize("name", APPLY)
def test_an_operation_draws_the_same_with_or_without_the_others(name, draws):
    alone = draw(KEY, MANY, only(name))
    assert list(alone) == [name]
    np.testing.assert_array_equal(alone[name], draws[name])


@pytest.mark.parametrize("name", APPLY)
def test_an_operation_does_to_each_image_what_was_drawn_for_it(name, draws):
    images = random_images(4, 8, 8, 3)
    result = augment(KEY, images, only(name))
    assert not np.array_equal(result, images)
    for i in range(4):
        expected = APPLY[name](images[i : i + 1], draws[name][i : i + 1])
        np.testing.assert_allclose(result[i : i + 1], expected, atol=1e-5)


def test_a_sample_depends_on_the_key_and_its_position_only(draws):
    for name, first in draw(KEY, 5, EVERYTHING).items():
        np.testing.assert_array_equal(first, draws[name][:5])


def test_draws_do_not_depend_on_how_jax_is_set(draws):
    weights = draw_mixup(KEY, 4, 0.2)
    with jax.threefry_partitionable(False), jax.enable_x64(True):
        for name, value in draw(KEY, 4, EVERYTHING).items():
            assert value.dtype == draws[name].dtype
            np.testing.assert_array_equal(value, draws[name][:4])
        np.testing.assert_array_equal(draw_mixup(KEY, 4, 0.2), weights)


def test_operations_draw_independently(draws):
    columns = [value.reshape(MANY, -1).T for value in draws.values()]
    correlations = np.corrcoef(np.concatenate(columns).astype(np.float64))
    off_diagonal = correlations[~np.eye(len(correlations), dtype=bool)]
    assert np.abs(off_diagonal).max() < 5 / np.sqrt(MANY)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_same_key_gives_the_same_bits_and_another_key_others(channels):
    images = random_images(4, 16, 16, channels)
    first = np.asarray(augment(KEY, images, EVERYTHING))
    assert first.tobytes() == np.asarray(augment(KEY, images, EVERYTHING)).tobytes()
    assert not np.array_equal(first, augment(jax.random.key(1), images, EVERYTHING))


@pytest.mark.parametrize("channels", [1, 3])
def test_compiled_and_uncompiled_agree(channels):
    """Compiled, values may be computed twice with other roundings, so no step may jump."""
    images = random_images(4, 16, 16, channels)
    expected = aug.augment(KEY, images, EVERYTHING)
    np.testing.assert_allclose(augment(KEY, images, EVERYTHING), expected, atol=1e-5)


def test_equal_images_of_a_batch_turn_out_different():
    images = np.repeat(random_images(1, 16, 16, 3), 4, axis=0)
    result = np.asarray(augment(KEY, images, EVERYTHING))
    assert len({image.tobytes() for image in result}) == 4


@pytest.mark.parametrize("channels", [1, 3])
def test_shape_type_and_range_stay(channels):
    strongest = Augmentation(hflip=True, vflip=True, rot90=True, **aug.MAXIMA)
    noise = random_images(4, 16, 16, channels)
    for images in (noise, np.round(noise), np.zeros_like(noise), np.ones_like(noise)):
        result = np.asarray(augment(KEY, images, strongest))
        assert result.shape == images.shape
        assert result.dtype == np.float32
        assert result.min() >= 0
        assert result.max() <= 1


@pytest.mark.parametrize("name", ["saturation", "hue"])
def test_grey_images_have_no_colour_to_change(name):
    grey = random_images(4, 8, 8, 1)
    assert augment(KEY, grey, only(name)).tolist() == grey.tolist()
    repeated = np.repeat(grey, 3, axis=-1)
    np.testing.assert_allclose(augment(KEY, repeated, only(name)), repeated, atol=1e-6)


@pytest.mark.parametrize("name", aug.MAXIMA)
def test_strengths_out_of_range_are_refused(name):
    Augmentation(**{name: aug.MAXIMA[name]})
    for value in (-0.1, aug.MAXIMA[name] + 0.1, float("nan")):
        with pytest.raises(ConfigError, match=rf"data\.augment\.{name} is {value}, expected 0"):
            Augmentation(**{name: value})


def test_quarter_turns_of_oblong_images_are_refused():
    with pytest.raises(ConfigError, match=r"rot90 needs square images, found 8 x 9"):
        aug.augment(KEY, random_images(1, 8, 9, 3), Augmentation(rot90=True))


# Flips and quarter turns.


def test_flips_and_quarter_turns_only_move_pixels():
    options = Augmentation(hflip=True, vflip=True, rot90=True)
    images = random_images(64, 8, 8, 3)
    drawn = {name: np.asarray(value) for name, value in draw(KEY, 64, options).items()}
    assert len(set(zip(*(value.tolist() for value in drawn.values()), strict=True))) == 16
    expected = []
    for i, image in enumerate(images):
        image = image[:, ::-1] if drawn["hflip"][i] else image
        image = image[::-1] if drawn["vflip"][i] else image
        expected.append(np.rot90(image, drawn["rot90"][i]))
    np.testing.assert_array_equal(augment(KEY, images, options), expected)


def test_flips_have_probability_one_half(draws):
    for name in ("hflip", "vflip"):
        assert_mean(draws[name], 0.5, 0.5)


def test_quarter_turns_are_equally_likely(draws):
    assert set(draws["rot90"].tolist()) == {0, 1, 2, 3}
    for turns in range(4):
        assert_mean(draws["rot90"] == turns, 1 / 4, np.sqrt(1 / 4 * 3 / 4))


# Shift, crop, rotate and scale.


def affine(shape=(1, 8, 8, 3), **draws):
    draws = {name: jnp.asarray([value], jnp.float32) for name, value in draws.items()}
    return aug.affine_matrix(draws, shape)


@pytest.mark.parametrize("shape", [(3, 16, 16, 3), (3, 9, 14, 1)])
def test_sampling_is_that_of_scipy(shape):
    images = random_images(*shape)
    matrix = np.random.default_rng(1).normal(0, [1, 1, 4], (3, 2, 3)).astype(np.float32)
    centre = (np.array(shape[1:3]) - 1) / 2
    expected = np.empty_like(images)
    for i, c in np.ndindex(shape[0], shape[3]):
        linear, offset = matrix[i, :, :2], matrix[i, :, 2]
        offset = centre + offset - linear @ centre
        expected[i, ..., c] = ndimage.affine_transform(
            images[i, ..., c], linear, offset, order=1, mode="nearest"
        )
    np.testing.assert_allclose(warp(images, matrix), expected, atol=2e-5)


def test_the_operations_are_composed_as_rotate_scale_shift_crop():
    def homogeneous(linear, offset=(0.0, 0.0)):
        return np.block([[np.asarray(linear), np.reshape(offset, (2, 1))], [0.0, 0.0, 1.0]])

    size = np.array([8, 12])
    shift, area, position = np.array([0.1, -0.2]), 0.49, np.array([0.5, -1.0])
    angle, factor = np.deg2rad(25.0), 1.3
    # On (row, column), rows downwards.
    rotation = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    forward = homogeneous(np.eye(2), shift * size) @ homogeneous(factor * np.array(rotation))
    crop = homogeneous(0.7 * np.eye(2), 0.3 / 2 * position * size)
    expected = np.linalg.inv(forward) @ crop
    found = affine((1, *size, 3), shift=shift, crop=(area, *position), rotate=25.0, scale=factor)
    np.testing.assert_allclose(found[0], expected[:2], rtol=1e-5, atol=1e-5)


def test_nothing_drawn_moves_nothing():
    images = random_images(1, 8, 8, 3)
    np.testing.assert_array_equal(warp(images, affine()), images)


def test_a_shift_moves_down_and_right_and_repeats_the_edge():
    images = random_images(1, 8, 8, 3)
    expected = np.pad(images, ((0, 0), (2, 0), (0, 1), (0, 0)), mode="edge")[:, :8, 1:]
    np.testing.assert_array_equal(warp(images, affine(shift=(0.25, -0.125))), expected)


@pytest.mark.parametrize("turns", [1, 2, -1])
def test_rotation_is_counter_clockwise_as_that_of_quarter_turns(turns):
    images = random_images(1, 8, 8, 3)
    found = warp(images, affine(rotate=90.0 * turns))
    np.testing.assert_allclose(found, np.rot90(images, turns, (1, 2)), atol=1e-5)


def test_a_crop_is_a_part_of_the_image_enlarged():
    """PIL's `transform` samples at the same positions, in 8 bits of grey."""
    images = random_images(1, 8, 8, 1)
    grey = Image.fromarray(images[0, ..., 0])
    for position, box in {(0.0, 0.0): (2, 2, 6, 6), (-1.0, 1.0): (4, 0, 8, 4)}.items():
        expected = grey.transform((8, 8), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
        found = np.asarray(warp(images, affine(crop=(0.25, *position))))[0, ..., 0]
        inner = np.s_[1:-1, 1:-1]  # PIL treats what touches the image's edge in its own way.
        np.testing.assert_allclose(found[inner], np.asarray(expected)[inner], atol=1e-5)


def test_scaling_by_two_is_the_central_crop_of_half_the_side():
    np.testing.assert_allclose(affine(scale=2.0), affine(crop=(0.25, 0.0, 0.0)), atol=1e-6)


@pytest.mark.parametrize("name", ["shift", "rotate", "hue"])
def test_displacements_are_uniform_around_zero(name, draws):
    limit = getattr(EVERYTHING, name)
    for values in draws[name].reshape(MANY, -1).T:
        assert_mean(values, 0, limit / np.sqrt(3))
        assert_uniform(values, -limit, limit)


@pytest.mark.parametrize("name", ["scale", "brightness", "contrast", "saturation"])
def test_factors_are_uniform_around_one(name, draws):
    strength = getattr(EVERYTHING, name)
    assert_mean(draws[name], 1, strength / np.sqrt(3))
    assert_uniform(draws[name], 1 - strength, 1 + strength)


def test_factors_are_not_negative():
    factors = np.asarray(draw(KEY, MANY, Augmentation(contrast=3.0))["contrast"])
    assert_uniform(factors, 0, 4)


def test_crops_are_uniform_in_area_and_position(draws):
    area, *position = draws["crop"].T
    assert_uniform(area, 1 - EVERYTHING.crop, 1)
    for values in position:
        assert_uniform(values, -1, 1)


# Colour.


@pytest.mark.parametrize(
    ("operation", "enhance"),
    [
        (aug.brightness, ImageEnhance.Brightness),
        (aug.contrast, ImageEnhance.Contrast),
        (aug.saturation, ImageEnhance.Color),
    ],
)
@pytest.mark.parametrize("factor", [0.0, 0.6, 1.0, 1.7])
def test_colours_change_as_with_pil(operation, enhance, factor):
    levels = np.round(random_images(1, 16, 16, 3) * 255).astype(np.uint8)
    expected = np.asarray(enhance(Image.fromarray(levels[0])).enhance(factor))
    found = operation(jnp.asarray(levels / 255, jnp.float32), jnp.float32([factor]))
    # PIL rounds the grey it blends with, and the result, to whole levels.
    np.testing.assert_allclose(found[0] * 255, expected, atol=1.01 + abs(1 - factor) / 2)


@pytest.mark.parametrize("operation", [aug.brightness, aug.contrast])
def test_grey_images_become_brighter_as_their_colour_copies_do(operation):
    grey, factors = jnp.asarray(random_images(2, 8, 8, 1)), jnp.float32([0.5, 1.5])
    found = operation(jnp.repeat(grey, 3, axis=-1), factors)
    np.testing.assert_allclose(found, jnp.repeat(operation(grey, factors), 3, axis=-1), atol=1e-6)


@pytest.mark.parametrize("turns", [-0.5, -0.2, 0.0, 0.1, 0.5])
def test_hues_move_as_with_colorsys(turns):
    images = random_images(1, 16, 16, 3)
    images[0, :4] = np.round(images[0, :4])  # Pure colours, black and white.
    images[0, 4:6, :, 0] = images[0, 4:6, :, 1]  # Two channels alike.

    def move(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        return colorsys.hsv_to_rgb((hue + turns) % 1, saturation, value)

    expected = np.apply_along_axis(move, -1, images.astype(np.float64))
    np.testing.assert_allclose(aug.hue(images, jnp.float32([turns])), expected, atol=2e-6)


# Cutout.


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_covers_a_square_and_what_sticks_out_is_lost(side):
    images = random_images(3, 8, 10, 3)
    centres = np.array([(0.0, 0.0), (0.5, 0.5), (0.99, 0.31)], np.float32)
    expected = images.copy()
    for image, (row, column) in zip(expected, [(0, 0), (4, 5), (7, 3)], strict=True):
        top, left = row - side // 2, column - side // 2
        image[max(top, 0) : top + side, max(left, 0) : left + side] = 0.5
    np.testing.assert_array_equal(aug.cutout(images, centres, side), expected)


def test_cutout_covers_the_area_that_uniform_centres_give(draws):
    assert_uniform(draws["cutout"][:, 0], 0, 1)
    assert_uniform(draws["cutout"][:, 1], 0, 1)
    result = np.asarray(augment(KEY, np.zeros((MANY, 8, 8, 1), np.float32), only("cutout")))
    covered = (result == 0.5).sum(axis=(1, 2, 3))
    # A side of round(0.3 * 8) = 2 sticks out by one pixel for one of eight rows or columns.
    lengths = np.array([1] + [2] * 7)
    areas = np.outer(lengths, lengths)
    assert covered.max() == 4
    assert_mean(covered, areas.mean(), areas.std())


# Mixup.


def test_mixup_blends_images_and_labels_with_one_weight():
    images, labels = random_images(4, 8, 8, 3), np.eye(4, dtype=np.float32)
    weights = np.asarray(draw_mixup(KEY, 4, 0.4))
    mixed_images, mixed_labels = mixup(KEY, images, labels, 0.4)
    for i in range(4):
        for samples, mixed in ((images, mixed_images), (labels, mixed_labels)):
            expected = weights[i] * samples[i] + (1 - weights[i]) * samples[i - 1]
            np.testing.assert_allclose(mixed[i], expected, atol=1e-6)


def test_mixed_one_hot_labels_sum_to_one_and_stay_in_range():
    labels = np.eye(4, dtype=np.float32)
    _, mixed = mixup(KEY, random_images(4, 8, 8, 3), labels, 0.4)
    np.testing.assert_allclose(np.sum(mixed, axis=-1), 1, atol=1e-6)
    assert np.min(mixed) >= 0


def test_labels_that_neighbours_share_stay():
    """Also those of multi-label sets, whose sum is not 1."""
    labels = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 0], [1, 0, 0]], np.float32)
    _, mixed = mixup(KEY, random_images(4, 8, 8, 3), labels, 0.4)
    np.testing.assert_allclose(mixed[:, 0], 1, atol=1e-6)
    np.testing.assert_allclose(mixed[:, 2], 0, atol=1e-6)
    assert np.all((mixed[:, 1] > 0) & (mixed[:, 1] < 1))


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_mixup_weights_have_the_moments_of_beta(alpha):
    weights = np.asarray(draw_mixup(KEY, MANY, alpha), np.float64)
    assert weights.min() >= 0
    assert weights.max() <= 1
    variance = 1 / (4 * (2 * alpha + 1))
    kurtosis = 3 - 6 / (2 * alpha + 3)
    assert_mean(weights, 0.5, np.sqrt(variance))
    assert_mean((weights - 0.5) ** 2, variance, variance * np.sqrt(kurtosis - 1))


def test_mixup_weights_depend_on_the_key_and_the_position_only():
    np.testing.assert_array_equal(draw_mixup(KEY, 4, 0.2), draw_mixup(KEY, MANY, 0.2)[:4])
    assert not np.array_equal(draw_mixup(KEY, 4, 0.2), draw_mixup(jax.random.key(1), 4, 0.2))


def test_cutmix_boxes_have_their_area_around_their_centre_as_far_as_they_lie_inside():
    rng = np.random.default_rng(0)
    stays, centres = rng.uniform(size=6), rng.uniform(size=(6, 2))
    found = aug.boxes(jnp.float32(stays), jnp.float32(centres), (10, 20))
    for i in range(6):
        expected = np.zeros((10, 20), bool)
        rows, columns = (int(n * np.sqrt(1 - stays[i])) for n in (10, 20))
        top = int(centres[i, 0] * 10) - rows // 2
        left = int(centres[i, 1] * 20) - columns // 2
        expected[max(top, 0) : max(top + rows, 0), max(left, 0) : max(left + columns, 0)] = True
        np.testing.assert_array_equal(found[i], expected)


def test_with_cutmix_and_mixup_each_sample_gets_one_of_the_two():
    images, labels = random_images(8, 6, 6, 3), np.eye(8, dtype=np.float32)
    stays, centres, blended = draw_cutmix(KEY, 8, 1.0)
    weights, masks = draw_mixup(KEY, 8, 0.4), aug.boxes(stays, centres, (6, 6))
    assert 0 < np.sum(blended) < 8
    both, soft = cutmix(KEY, images, labels, 1.0, 0.4)
    for i in range(8):
        if blended[i]:
            own = weights[i]
            expected = own * images[i] + (1 - own) * images[i - 1]
        else:
            own = 1 - np.mean(masks[i])
            expected = np.where(masks[i][..., None], images[i - 1], images[i])
        np.testing.assert_allclose(both[i], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(soft[i], own * labels[i] + (1 - own) * labels[i - 1], atol=1e-6)
