"""The device-resident feed: images live on the devices, and a step receives indices only."""

from collections.abc import Iterator

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int32, UInt8

from lsanet_jax.data.dataset import SPLITS, Dataset, Split
from lsanet_jax.data.feed.order import Plan


class Resident:
    """Feeds steps from images that live on every device; a step gets all of them, and indices."""

    resident = True

    def __init__(self, dataset: Dataset, plan: Plan, mesh: Mesh):
        """Copies the images to the devices; see `make_feed` for the arguments."""
        self._plan = plan
        self._lengths = {key: len(dataset.split(key)) for key in SPLITS}
        self._batch = NamedSharding(mesh, PartitionSpec("data"))
        self._batches = NamedSharding(mesh, PartitionSpec(None, "data"))
        self._splits = {key: place(dataset.split(key), mesh) for key in SPLITS}

    def train(self, epoch: int, first: int = 0) -> Iterator[tuple[Array, Array, Array]]:
        """All images and labels, and indices [n, B] of an epoch's dispatches, from a step on."""
        for indices in self._plan.epoch(epoch, first):
            yield *self._splits["train"], _put(indices, self._batches)

    def evaluate(self, key: str) -> Iterator[tuple[Array, Array, Array]]:
        """All images and labels of a split, and indices [B] of its evaluation batches."""
        for indices in self._plan.evaluation(self._lengths[key]):
            yield *self._splits[key], _put(indices, self._batch)

    def close(self) -> None:
        """Does nothing."""


def place(split: Split, mesh: Mesh) -> tuple[UInt8[Array, "n h w c"], Int32[Array, "..."]]:
    """A split's images and labels on every device of the mesh, replicated."""
    assert isinstance(split.images, np.ndarray)  # `make_feed` streams those that are not held.
    everywhere = NamedSharding(mesh, PartitionSpec())
    return _put(split.images, everywhere), _put(split.labels, everywhere)


def _put(array: np.ndarray, sharding: NamedSharding) -> Array:
    # Unlike device_put this does not compare the array between processes, which would send the
    # whole set over the network.
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])
