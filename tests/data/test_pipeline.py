import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from lsanet_jax import keys
from lsanet_jax.data import Dataset, Split, pipeline
from lsanet_jax.errors import ConfigError, DataError

PIL_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}


def grey_levels(images, **changed):
    """`preprocess` without normalisation, back on the scale of 0 to 255."""
    options = {"resize": "nearest", "as_rgb": False, "mean": (0.0,), "std": (1.0,)} | changed
    return np.asarray(pipeline.preprocess(jnp.asarray(images), **options)) * 255


def random_images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize(("num_samples", "batch_size"), [(10, 4), (12, 4), (1, 1), (3, 8), (5, 2)])
def test_an_epoch_is_a_permutation_completed_with_its_own_start(num_samples, batch_size):
    order = pipeline.epoch_order(0, 3, num_samples, batch_size)
    assert order.dtype == np.int32
    assert order.shape == (-(-num_samples // batch_size), batch_size)
    flat = order.ravel()
    assert sorted(flat[:num_samples]) == list(range(num_samples))
    for position in range(num_samples, flat.size):
        assert flat[position] == flat[position - num_samples]


def test_epochs_and_seeds_differ_and_repeat():
    def order(seed, epoch):
        return tuple(pipeline.epoch_order(seed, epoch, 100, 10).ravel().tolist())

    orders = [order(seed, epoch) for seed in (0, 1, 2**32 - 1) for epoch in (0, 1, 2)]
    assert len(set(orders)) == 9
    assert order(1, 2) == orders[5]


def test_the_batch_size_does_not_change_the_permutation():
    a, b = (pipeline.epoch_order(0, 0, 24, batch_size).ravel() for batch_size in (4, 8))
    np.testing.assert_array_equal(a, b)


def test_the_order_does_not_depend_on_devices_or_flags():
    program = (
        "import jax; from lsanet_jax.data.pipeline import epoch_order;"
        "print(jax.device_count(), epoch_order(5, 6, 50, 8).tolist())"
    )
    expected = str(pipeline.epoch_order(5, 6, 50, 8).tolist())
    for count, flags in ((1, {}), (4, {"JAX_THREEFRY_PARTITIONABLE": "0", "JAX_ENABLE_X64": "1"})):
        env = os.environ | {"JAX_NUM_CPU_DEVICES": str(count), "JAX_PLATFORMS": "cpu"} | flags
        env["JAX_DEFAULT_PRNG_IMPL"] = "rbg"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=env
        )
        assert done.stdout.strip() == f"{count} {expected}"


def test_streams_differ_by_purpose_and_seed():
    made = {
        tuple(jax.random.key_data(keys.stream(seed, purpose)).tolist())
        for seed in (0, 1, keys.MAX_SEED)
        for purpose in ("init", "order", "augment")
    }
    assert len(made) == 9


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_beyond_32_bits_are_refused(seed):
    with pytest.raises(ConfigError, match=f"seed is {seed}, expected 0 to 4294967295"):
        keys.stream(seed, "init")


@pytest.mark.parametrize("num_samples", [1, 7, 8, 9])
def test_evaluation_is_in_order_and_padded_with_the_last_sample(num_samples):
    batches = pipeline.eval_batches(num_samples, 4)
    assert batches.dtype == np.int32
    flat = batches.ravel()
    assert flat.size % 4 == 0
    assert flat.size - num_samples < 4
    np.testing.assert_array_equal(flat[:num_samples], np.arange(num_samples))
    assert set(flat[num_samples:]) <= {num_samples - 1}


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
            found = pipeline._nearest_indices(source, size)
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
    found = pipeline.preprocess(
        images, image_size=4, resize="nearest", as_rgb=True, mean=mean, std=std
    )
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, (images / 255 - mean) / std, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"resize": "lanczos"}, "data.resize is 'lanczos', expected nearest, bilinear or bicubic"),
        ({"mean": (0.1, 0.2)}, r"data.mean is \(0.1, 0.2\), expected 1 value or 3"),
        ({"std": ()}, r"data.std is \(\), expected 1 value or 3"),
        ({"std": (0.0,)}, r"data.std is \(0.0,\), expected values above 0"),
    ],
)
def test_options_out_of_their_choices(changed, message):
    with pytest.raises(ConfigError, match=message):
        grey_levels(random_images(1, 4, 4, 3), image_size=4, **changed)


def test_placing_keeps_every_byte():
    split = Split(random_images(5, 4, 4, 3), np.arange(5, dtype=np.int32))
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    images, labels = pipeline.place(split, mesh)
    assert images.sharding.is_fully_replicated
    np.testing.assert_array_equal(images, split.images)
    np.testing.assert_array_equal(labels, split.labels)


def test_a_dataset_over_the_budget_is_refused():
    split = Split(np.zeros((8, 256, 256, 1), np.uint8), np.arange(8, dtype=np.int32) % 2)
    dataset = Dataset("cells", "binary-class", ("a", "b"), split, split, split)
    assert pipeline.fits(dataset, 1.6)
    pipeline.check_fits(dataset, 1.6)
    assert not pipeline.fits(dataset, 1.4)
    with pytest.raises(DataError, match=r"'cells' needs 1\.5 MiB.*data\.device_budget_mb is 1\.4"):
        pipeline.check_fits(dataset, 1.4)
