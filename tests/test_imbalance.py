"""Weights and offsets of classes: scikit-learn's, the papers', and what does not go together."""

import logging

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from lsanet_jax import build, imbalance, losses
from lsanet_jax.config import default_config
from lsanet_jax.data.dataset import Dataset, Split
from lsanet_jax.errors import ConfigError, DataError

LABELS = np.repeat([0, 1, 2], [70, 29, 1]).astype(np.int32)
ANSWERS = np.array([[1, 0, 1], [0, 0, 1], [0, 1, -1], [0, 0, 0]], np.int32)


def dataset(labels, task="multi-class", names=("nv", "mel", "df")):
    split = Split(np.zeros((len(labels), 4, 4, 1), np.uint8), labels)
    return Dataset("lesions", task, names, split, split, split)


def emphasis(labels=LABELS, task="multi-class", sampling="shuffle", **loss):
    config = default_config()
    config.loss.update(loss)
    config.data.sampling = sampling
    return build.make_emphasis(config, dataset(labels, task))


def test_labels_may_be_a_list(unchecked):
    assert imbalance.count([0, 2, 2, -1], 3).positives.tolist() == [1, 0, 2]


def test_balanced_weights_are_scikit_learns():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    np.testing.assert_allclose(emphasis(class_weights="balanced").class_weights, expected)


def test_effective_weights_are_the_papers_with_a_mean_of_1_over_the_images():
    weights = np.array(emphasis(class_weights="effective", effective_beta=0.9).class_weights)
    effective = [(1 - 0.9**n) / (1 - 0.9) for n in (70, 29, 1)]
    np.testing.assert_allclose(weights * effective, weights[0] * effective[0])
    assert np.mean(weights[LABELS]) == pytest.approx(1)


def test_of_a_multi_label_set_the_positives_are_weighted():
    of = lambda **loss: emphasis(ANSWERS, "multi-label", **loss)
    np.testing.assert_allclose(of(class_weights="balanced").class_weights, [3, 3, 0.5])
    beta = 0.8
    number = lambda n: (1 - beta**n) / (1 - beta)
    expected = [number(3) / number(1)] * 2 + [number(1) / number(2)]
    found = of(class_weights="effective", effective_beta=beta)
    np.testing.assert_allclose(found.class_weights, expected)
    np.testing.assert_allclose(of(logit_adjustment=2.0).offsets, 2 * np.log([1 / 3, 1 / 3, 2]))


def test_logit_adjustment_adds_the_log_of_the_shares():
    offsets = emphasis(logit_adjustment=0.5).offsets
    np.testing.assert_allclose(offsets, 0.5 * np.log([0.7, 0.29, 0.01]))


def test_given_weights_are_taken_as_they_are():
    assert emphasis(class_weights="(1, 2.5, 4)").class_weights == (1, 2.5, 4)
    assert emphasis() == losses.PLAIN


@pytest.mark.parametrize("multilabel", [False, True])
def test_predictions_can_be_adjusted_afterwards(multilabel):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 3))
    counts = imbalance.count(ANSWERS if multilabel else LABELS, 3)
    moved = logits - imbalance.logit_offsets(counts, 0.7, multilabel=multilabel)
    softmax = lambda z: np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    sigmoid = lambda z: 1 / (1 + np.exp(-z))
    probability = sigmoid if multilabel else softmax
    found = imbalance.adjusted(probability(logits), counts, 0.7, multilabel=multilabel)
    np.testing.assert_allclose(found, probability(moved))
    gone = imbalance.Counts(np.array([5, 0, 3]), np.array([3, 8, 5]))
    with pytest.raises(DataError, match=r"class 1 has training images of one kind only \(\[5, 0"):
        imbalance.adjusted(probability(logits), gone, 0.7, multilabel=multilabel)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"class_weights": "1,2"},
            "class_weights = 1,2 has 2 weights, expected 3, for nv, mel, df",
        ),
        (
            {"class_weights": "balanced", "labels": LABELS[:99]},
            "class_weights = balanced: 'df' has no training image",
        ),
        (
            {"logit_adjustment": 1.0, "labels": LABELS[:99]},
            "logit_adjustment = 1: 'df' has no training image",
        ),
        (
            {
                "class_weights": "balanced",
                "labels": np.int32([[1, 0, 1], [0, 1, 1]]),
                "task": "multi-label",
            },
            "'df' has no training image without it",
        ),
        (
            {"focal_gamma": 2.0, "task": "ordinal-regression"},
            "focal_gamma = 2 does not fit ordered grades",
        ),
    ],
)
def test_what_does_not_fit_the_data_is_named(arguments, message):
    with pytest.raises(ConfigError, match=f"config.loss.*{message}"):
        emphasis(**arguments)


def test_rare_classes_are_warned_of_if_nothing_is_done_about_them(caplog):
    caplog.set_level(logging.WARNING, "lsanet_jax")
    for done in ({"class_weights": "balanced"}, {"logit_adjustment": 1.0}):
        emphasis(**done)
    emphasis(sampling="balanced")
    emphasis(np.repeat([0, 1, 2], 5).astype(np.int32))
    assert not caplog.records
    emphasis()
    (record,) = caplog.records
    assert "df (1, 1.0 %)" in record.getMessage() and "nv" not in record.getMessage()


def test_smoothed_labels_that_are_adjusted_are_warned_of(caplog):
    caplog.set_level(logging.WARNING, "lsanet_jax")
    emphasis(label_smoothing=0.1, class_weights="balanced")
    assert not caplog.records
    emphasis(label_smoothing=0.1, logit_adjustment=0.5)
    (record,) = caplog.records
    assert "label_smoothing = 0.1" in record.getMessage()
    caplog.clear()
    emphasis(label_smoothing=0.1, focal_gamma=2.0, class_weights="balanced")
    (record,) = caplog.records
    assert "focal_gamma = 2 takes weight off the right class" in record.getMessage()


def test_labels_in_a_column_are_numbers_of_classes_and_others_are_refused():
    column = imbalance.count(np.array([[0], [2], [2]]), 3)
    assert column.positives.tolist() == [1, 0, 2] and column.negatives.tolist() == [2, 3, 1]
    for labels, classes in (([0, 2], 2), ([[0, 2]], 2), ([[0, 1]], 3)):
        with pytest.raises(DataError, match="expected numbers of . classes"):
            imbalance.count(np.array(labels), classes)
