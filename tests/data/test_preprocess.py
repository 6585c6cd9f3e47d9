import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lsanet_jax.data import preprocess as preprocessing
from lsanet_jax.errors import ConfigError

PIL_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def grey_levels(images, **changed):
    """`preprocess` without normalisation, back on the scale of 0 to 255."""
    options = {"resize": "nearest", "as_rgb": False, "mean": (0.0,), "std": (1.0,)} | changed
    return np.asarray(preprocessing.preprocess(jnp.asarray(images), **options)) * 255


def random_images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("resize", PIL_FILTERS)
@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(28, 28, 224), (28, 28, 64), (64, 64, 28), (50, 50, 33), (17, 40, 29), (224, 224, 37)],
)
def test_resizing_gives_the_bytes_of_pil(resize, height, width, size):
    images = random_images(2, height, width, 3)
    expected = [
        np.asarray(Image.fromarray(image).resize((size, size), PIL_FILTERS[resize]))
        for image in images
    ]
    found = grey_levels(images, image_size=size, resize=resize)
    np.testing.assert_allclose(found, np.stack(expected), atol=1e-3)


def test_nearest_gives_the_bytes_of_pil_at_every_size():
    """Among them those where (i + 0.5) * source / size is whole, and rounding decides."""
    for source in range(1, 65):
        image = np.arange(source, dtype=np.uint8)[None]
        for size in range(1, 130, 3):
            expected = Image.fromarray(image).resize((size, 1), Image.Resampling.NEAREST)
            found = preprocessing._nearest_indices(source, size)
            np.testing.assert_array_equal(found, np.asarray(expected)[0])


@pytest.mark.parametrize("resize", PIL_FILTERS)
def test_images_of_the_right_size_stay_as_they_are(resize):
    images = random_images(2, 28, 28, 3)
    np.testing.assert_allclose(grey_levels(images, image_size=28, resize=resize), images, atol=1e-3)


@pytest.mark.parametrize("resize", PIL_FILTERS)
def test_any_size_from_any_size(resize):
    for source, size in ((1, 5), (5, 1), (512, 28), (3, 2)):
        found = grey_levels(np.full((1, source, source, 1), 77, np.uint8), image_size=size)
        np.testing.assert_allclose(found, np.full((1, size, size, 1), 77), atol=1e-3)


def test_grey_is_repeated_for_rgb():
    images = random_images(2, 28, 28, 1)
    found = grey_levels(images, image_size=28, as_rgb=True)
    np.testing.assert_allclose(found, np.repeat(images, 3, axis=-1), atol=1e-3)
    assert grey_levels(images, image_size=28).shape == (2, 28, 28, 1)


def test_normalisation_per_channel():
    images = random_images(2, 4, 4, 3)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    found = preprocessing.preprocess(
        images, image_size=4, resize="nearest", as_rgb=True, mean=mean, std=std
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, (images / 255 - mean) / std, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"resize": "lanczos"},
            "data.resize is 'lanczos', expected nearest, bilinear, bicubic or pad",
        ),
        ({"mean": (0.1, 0.2)}, r"data.mean is \(0.1, 0.2\), expected 1 value or 3"),
        ({"std": ()}, r"data.std is \(\), expected 1 value or 3"),
        ({"std": (0.0,)}, r"data.std is \(0.0,\), expected values above 0"),
    ],
)
def test_options_out_of_their_choices(changed, message):
    with pytest.raises(ConfigError, match=message):
        grey_levels(random_images(1, 4, 4, 3), image_size=4, **changed)


def test_padding_puts_zeros_around_the_normalised_image():
    images = random_images(2, 5, 4, 3)
    found = preprocessing.preprocess(
        jnp.asarray(images), image_size=8, resize="pad", as_rgb=True, mean=(0.4,), std=(0.2,)
    )
    expected = np.zeros((2, 8, 8, 3))
    expected[:, 1:6, 2:6] = (images / 255 - 0.4) / 0.2  # 3 rows and 4 columns are missing
    np.testing.assert_allclose(found, expected, atol=1e-5)
    with pytest.raises(ConfigError, match="config.data.resize = pad, but images of 5 x 4 pixels"):
        grey_levels(images, image_size=4, resize="pad")
