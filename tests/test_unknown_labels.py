"""Labels of which nothing is known (-1, of multi-label) are in no cross entropy and no score."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.metrics import roc_auc_score

from lsanet_jax import losses, metrics, steps
from lsanet_jax.data.augment import Augmentation
from lsanet_jax.data.preprocess import preprocess, training_batch

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(2, 50, 4)).astype(np.float32)
KNOWN = RANDOM.integers(0, 2, (50, 4)).astype(np.int32)
HIDDEN = RANDOM.random((50, 4)) < 0.3
LABELS = np.where(HIDDEN, -1, KNOWN).astype(np.int32)
PROBABILITIES = 1 / (1 + np.exp(-LOGITS[-1]))


def test_the_loss_is_of_the_known_labels():
    found = losses.cross_entropy(LOGITS, LABELS, multilabel=True)
    each = optax.sigmoid_binary_cross_entropy(LOGITS, np.broadcast_to(KNOWN, LOGITS.shape))
    np.testing.assert_allclose(found, np.where(HIDDEN, 0, each).sum(-1) / 4, rtol=1e-5)


def test_unknown_labels_have_no_gradient():
    loss = lambda logits: losses.cross_entropy(logits, LABELS, multilabel=True).sum()
    gradient = jax.grad(loss)(jnp.asarray(LOGITS))
    assert (np.asarray(gradient)[:, HIDDEN] == 0).all()
    assert (np.asarray(gradient)[:, ~HIDDEN] != 0).all()


def test_labels_that_are_all_known_give_the_same_bits_as_before():
    found = losses.cross_entropy(LOGITS, KNOWN, multilabel=True)
    targets = np.broadcast_to(KNOWN.astype(np.float32), LOGITS.shape)
    np.testing.assert_array_equal(
        found, jnp.mean(optax.sigmoid_binary_cross_entropy(LOGITS, targets), axis=-1)
    )


def test_the_training_accuracy_is_of_the_known_labels():
    found = steps.training_accuracy(LOGITS, LABELS, multilabel=True)
    expected = [((logits > 0) == KNOWN)[~HIDDEN].mean() for logits in LOGITS]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_scores_are_of_the_known_labels():
    right = (PROBABILITIES > 0.5) == KNOWN
    accuracy = metrics.accuracy(LABELS, PROBABILITIES, "multi-label")
    np.testing.assert_allclose(accuracy, right[~HIDDEN].mean())
    aucs = [roc_auc_score(KNOWN[~h, k], PROBABILITIES[~h, k]) for k, h in enumerate(HIDDEN.T)]
    np.testing.assert_allclose(metrics.auc(LABELS, PROBABILITIES, "multi-label"), np.mean(aucs))


def test_a_label_that_is_nowhere_known_has_no_score():
    labels = np.full((50, 4), -1, np.int32)
    assert np.isnan(metrics.auc(labels, PROBABILITIES, "multi-label"))
    assert np.isnan(metrics.accuracy(labels, PROBABILITIES, "multi-label"))
    labels[:, 0] = KNOWN[:, 0]
    assert metrics.auc(labels, PROBABILITIES, "multi-label") == roc_auc_score(
        KNOWN[:, 0], PROBABILITIES[:, 0]
    )


def test_a_mixture_with_an_unknown_label_is_unknown():
    make = functools.partial(
        preprocess, image_size=4, resize="nearest", as_rgb=False, mean=(0.5,), std=(0.5,)
    )
    images = RANDOM.integers(0, 256, (50, 4, 4, 1)).astype(np.uint8)
    batch = functools.partial(
        training_batch,
        jax.random.key(0),
        images,
        options=Augmentation(mixup=0.4),
        num_classes=4,
        preprocess=make,
    )
    _, mixed = batch(LABELS)
    _, whole = batch(KNOWN)
    unknown = np.asarray(mixed) == -1
    assert (unknown | ~HIDDEN).all()
    assert 0.3 < unknown.mean() < 0.7
    np.testing.assert_array_equal(np.asarray(mixed)[~unknown], np.asarray(whole)[~unknown])
