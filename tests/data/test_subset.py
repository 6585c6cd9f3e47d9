"""Smaller training splits: stratified, nested, seeded."""

import itertools

import numpy as np
import pytest

from lsanet_jax.data.dataset import Dataset, Split
from lsanet_jax.data.subset import train_subset
from lsanet_jax.errors import ConfigError

COUNTS = (200, 50, 7, 1)


def dataset(labels, task="multi-class"):
    labels = np.asarray(labels, np.int32)
    images = np.zeros((len(labels), 4, 4, 1), np.uint8)
    images[:, 0, 0, 0], images[:, 0, 1, 0] = (
        np.arange(len(labels)) % 256,
        np.arange(len(labels)) // 256,
    )
    split = Split(images, labels)
    num_classes = labels.shape[1] if labels.ndim == 2 else labels.max() + 1
    names = tuple(f"class {i}" for i in range(num_classes))
    return Dataset("made", task, names, split, split, split)


def imbalanced():
    labels = np.repeat(np.arange(4), COUNTS)
    return dataset(np.random.default_rng(0).permutation(labels))


def multilabel(n=500):
    return dataset(
        np.random.default_rng(0).random((n, 5)) < (0.5, 0.2, 0.1, 0.05, 0.01), "multi-label"
    )


def members(subset):
    pixels = subset.train.images.astype(int)
    return set((pixels[:, 0, 0, 0] + 256 * pixels[:, 0, 1, 0]).tolist())


def take(whole, fraction=1.0, per_class=0, seed=0):
    return train_subset(whole, fraction=fraction, per_class=per_class, seed=seed)


def test_a_fraction_is_taken_of_every_class_and_at_least_one_image():
    subset = take(imbalanced(), 0.1)
    assert np.bincount(subset.train.labels).tolist() == [20, 5, 1, 1]
    assert len(subset.val) == len(subset.test) == sum(COUNTS)


def test_so_many_are_taken_of_every_class_as_there_are(caplog):
    assert np.bincount(take(imbalanced(), per_class=10).train.labels).tolist() == [10, 10, 7, 1]
    assert "train_per_class is 10, but 2 class(es) have fewer images, the least 1" in caplog.text


@pytest.mark.parametrize("whole", [imbalanced(), multilabel()], ids=["classes", "multi-label"])
def test_smaller_subsets_lie_inside_larger_ones_of_the_same_seed(whole):
    fractions = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 0.9, 0.999)
    taken = [members(take(whole, f)) for f in fractions]
    assert all(small <= large for small, large in itertools.pairwise(taken))
    assert len(taken[0]) >= 1
    assert members(take(whole, 0.1)) == taken[3]
    assert members(take(whole, 0.1, seed=1)) != taken[3]
    assert take(whole, 1.0) is whole


def test_so_many_of_each_class_lie_inside_more():
    taken = [members(take(imbalanced(), per_class=k)) for k in (1, 5, 20, 100)]
    assert all(small <= large for small, large in itertools.pairwise(taken))


def test_images_keep_their_labels():
    whole = imbalanced()
    subset = take(whole, 0.3)
    chosen = sorted(members(subset))
    np.testing.assert_array_equal(subset.train.labels, whole.train.labels[chosen])


def test_a_multi_label_subset_has_each_label_as_often_as_the_whole():
    whole = multilabel(2000)
    subset = take(whole, 0.2).train.labels
    assert abs(len(subset) - 400) <= 20
    np.testing.assert_allclose(subset.mean(0), whole.train.labels.mean(0), atol=0.02)


def test_a_share_of_the_rare_combinations_is_taken_not_all_or_none_of_them():
    combinations = np.arange(1, 1025)[:, None] >> np.arange(10) & 1  # each label set occurs once
    subset = take(dataset(combinations, "multi-label"), 0.2)
    assert 150 < len(members(subset)) < 260


def test_what_cannot_be_taken_is_refused():
    message = r"train_fraction = 0\.5 and config\.data\.train_per_class = 2"
    with pytest.raises(ConfigError, match=message):
        take(imbalanced(), 0.5, 2)
    with pytest.raises(ConfigError, match="multi-label.*train_fraction instead"):
        take(multilabel(), per_class=2)


def test_a_seed_names_the_same_images_in_every_version():
    classes = dataset(np.arange(20) % 2)
    assert sorted(members(take(classes, 0.3))) == [1, 8, 9, 11, 12, 16]
    assert sorted(members(take(classes, per_class=2))) == [9, 11, 12, 16]
    assert sorted(members(take(multilabel(40), 0.2))) == [4, 8, 11, 16, 18, 38, 39]


def test_one_image_at_least_is_taken_of_a_multi_label_set():
    assert len(members(take(multilabel(5), 1e-9))) == 1


@pytest.mark.parametrize("whole", [imbalanced(), multilabel()], ids=["classes", "multi-label"])
def test_the_rest_is_kept_without_its_labels_if_asked(whole):
    taken = sorted(members(take(whole, 0.1)))
    both = train_subset(whole, fraction=0.1, per_class=0, seed=0, keep_rest=True)
    expected = np.full_like(whole.train.labels, -1)
    expected[taken] = whole.train.labels[taken]
    np.testing.assert_array_equal(both.train.labels, expected)
    assert both.unlabelled == len(whole.train) - len(taken)
