"""Fewer labels: stratified subsets of the training split, nested for each seed."""

import dataclasses
import logging

import jax
import numpy as np
from jaxtyping import Float, Int

from lsanet_jax import keys
from lsanet_jax.data.dataset import Dataset
from lsanet_jax.errors import ConfigError

log = logging.getLogger(__name__)


def train_subset(
    dataset: Dataset, *, fraction: float, per_class: int, seed: int, keep_rest: bool = False
) -> Dataset:
    """The dataset with only some of its training images; validation and test stay whole.

    Args:
        dataset: the whole set.
        fraction: of each class, rounded, at least one image; above 0, 1 keeps all. Multi-label:
            of each combination of labels, up to one image more or less; at least one in all.
        per_class: images of each class, as far as there are so many; 0 for no limit.
        seed: which images. For one seed a smaller subset lies inside every larger one.
        keep_rest: keep the other images too, without their labels.

    Raises:
        ConfigError: both are given, or `per_class` for a multi-label set.
    """
    if fraction == 1 and not per_class:
        return dataset
    if fraction != 1 and per_class:
        raise ConfigError(
            f"config.data.train_fraction = {fraction} and config.data.train_per_class = "
            f"{per_class}: set one of"
            " them only."
        )
    labels = dataset.train.labels
    if labels.ndim == 2:
        if per_class:
            raise ConfigError(
                f"config.data.train_per_class = {per_class}, but {dataset.name} is multi-label: "
                f"its images"
                " have no one class. Set config.data.train_fraction instead."
            )
        _, groups = np.unique(labels, axis=0, return_inverse=True)
    else:
        groups = labels
    rank, size = _ranks(groups.ravel(), seed)
    if per_class:
        kept = rank < per_class
        if few := np.unique(groups[size < per_class]).size:
            log.warning(
                "config.data.train_per_class is %d, but %d class(es) have fewer images, the least"
                " %d: of these all are taken.",
                *(per_class, few, size.min()),
            )
    elif labels.ndim == 2:
        # Rare combinations would all be lost, or all kept, if each had its own number rounded.
        place = (rank + _shares(groups.ravel(), seed)) / size
        kept = place < max(fraction, np.nextafter(place.min(), 1))
    else:
        kept = rank < np.maximum(np.round(fraction * size), 1)
    if keep_rest:
        known = kept[:, None] if labels.ndim == 2 else kept
        train = dataclasses.replace(dataset.train, labels=np.where(known, labels, np.int32(-1)))
        return dataclasses.replace(dataset, train=train, unlabelled=int(np.sum(~kept)))
    return dataclasses.replace(dataset, train=dataset.train.select(kept))


def _ranks(
    groups: Int[np.ndarray, " n"], seed: int
) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Each sample's place in a shuffle of its group, from 0, and the size of its group."""
    with jax.threefry_partitionable(True):  # The other setting draws other numbers.
        key = keys.stream(seed, "subset")
        shuffled = np.asarray(jax.random.permutation(key, len(groups)))
    rank, size = np.empty(len(groups), int), np.empty(len(groups), int)
    for group in np.unique(groups):
        members = shuffled[groups[shuffled] == group]
        rank[members] = np.arange(len(members))
        size[members] = len(members)
    return rank, size


def _shares(groups: Int[np.ndarray, " n"], seed: int) -> Float[np.ndarray, " n"]:
    """A random number in [0, 1) for each group, given to all its members."""
    with jax.threefry_partitionable(True):
        key = jax.random.fold_in(keys.stream(seed, "subset"), 1)
        return np.asarray(jax.random.uniform(key, (groups.max() + 1,)), float)[groups]
