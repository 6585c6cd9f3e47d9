import jax
import numpy as np
import pytest

from lsanet_jax.data import Dataset, Split
from lsanet_jax.data.feed import check_fits, fits
from lsanet_jax.data.feed.resident import place
from lsanet_jax.errors import DataError


def test_placing_keeps_every_byte():
    split = Split(
        np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8),
        np.arange(5, dtype=np.int32),
    )
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    images, labels = place(split, mesh)
    assert images.sharding.is_fully_replicated
    np.testing.assert_array_equal(images, split.images)
    np.testing.assert_array_equal(labels, split.labels)


def test_a_dataset_over_the_budget_is_refused():
    split = Split(np.zeros((8, 256, 256, 1), np.uint8), np.arange(8, dtype=np.int32) % 2)
    dataset = Dataset("cells", "binary-class", ("a", "b"), split, split, split)
    assert fits(dataset, 1.6)
    check_fits(dataset, 1.6)
    assert not fits(dataset, 1.4)
    with pytest.raises(DataError, match=r"'cells' needs 1\.5 MiB.*data\.device_budget_mb is 1\.4"):
        check_fits(dataset, 1.4)
