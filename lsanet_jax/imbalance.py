"""What the numbers of images say about how to weigh classes: pure functions of counts.

`positives` [K] counts the training images of each class, or in a multi-label task those that have a
label; `negatives` [K] the others, unknown ones left out.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lsanet_jax.errors import DataError

RARE = 0.02
"""A class with a smaller share of the images is one that a network may never predict."""


class Counts(NamedTuple):
    """How many training images each class has; see the module."""

    positives: Int[np.ndarray, " k"]
    negatives: Int[np.ndarray, " k"]

    @property
    def shares(self) -> Float[np.ndarray, " k"]:
        """The part of the images that each class has, in [0, 1]."""
        return self.positives / np.maximum(self.positives + self.negatives, 1)


def count(labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n k"], num_classes: int) -> Counts:
    """Count the images of each class.

    Args:
        labels: class indices [n], or -1 (unknown); of a multi-label task likewise for each label.
        num_classes: k.

    Raises:
        DataError: a label is not the number of a class, or there are not num_classes columns.
    """
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] == 1 < num_classes:
        labels = labels[:, 0]  # As MedMNIST's files hold them.
    columns = labels.shape[1] if labels.ndim == 2 else num_classes
    highest = 1 if labels.ndim == 2 else num_classes - 1
    if columns != num_classes or labels.max(initial=0) > highest:
        raise DataError(
            f"labels of shape {labels.shape} and up to {labels.max(initial=0)}, expected numbers of"
            f" {num_classes} classes [n], or 0 and 1 of {num_classes} labels [n, k]."
        )
    if labels.ndim == 2:
        return Counts(np.sum(labels == 1, axis=0), np.sum(labels == 0, axis=0))
    labels = labels[labels >= 0]
    positives = np.bincount(labels, minlength=num_classes)
    return Counts(positives, len(labels) - positives)


def balanced_weights(counts: Counts, *, multilabel: bool) -> Float[np.ndarray, " k"]:
    """Weights with which all classes count alike, as scikit-learn's "balanced".

    A class weighs N / (K n_k), so that the mean over the images is 1; the positives of a label as
    PyTorch's `pos_weight` has it, negatives / positives.
    """
    if multilabel:
        return counts.negatives / counts.positives
    return counts.positives.sum() / (len(counts.positives) * counts.positives)


def effective_weights(counts: Counts, beta: float, *, multilabel: bool) -> Float[np.ndarray, " k"]:
    """Weights by the effective number of samples, E_n = (1 - beta^n) / (1 - beta).

    A class weighs 1 / E_n, scaled so that the mean over the images is 1; the positives of a label
    E_negatives / E_positives. They lie between no weights (beta = 0) and the balanced ones (1).

    Args:
        counts: of `count`; each class has an image.
        beta: above 0 and below 1, such as 0.999.
        multilabel: whether the task is multi-label.

    References:
        Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, Eq. 3.
    """
    number = lambda n: -np.expm1(n * np.log(beta)) / (1 - beta)
    if multilabel:
        return number(counts.negatives) / number(counts.positives)
    weights = 1 / number(counts.positives)
    return weights * counts.positives.sum() / np.sum(weights * counts.positives)


def logit_offsets(counts: Counts, tau: float, *, multilabel: bool) -> Float[np.ndarray, " k"]:
    """What logit adjustment adds to the logits in training: tau times the log prior; see `losses`.

    The prior of a class is its share of the images; of a label it is the odds, positives /
    negatives, since the logit of a label is that of a log odds.

    Raises:
        DataError: a class has no image, or all have a label: there is no such logarithm.
    """
    lacking = (counts.positives == 0) | (multilabel & (counts.negatives == 0))
    if lacking.any():
        raise DataError(
            f"class {np.flatnonzero(lacking)[0]} has training images of one kind only "
            f"({counts.positives.tolist()} with, {counts.negatives.tolist()} without each class): "
            "nothing can be adjusted to it. Leave the class out"
        )
    prior = counts.positives / counts.negatives if multilabel else counts.shares
    return tau * np.log(prior)


def adjusted(
    probabilities: Float[np.ndarray, "n k"], counts: Counts, tau: float, *, multilabel: bool
) -> Float[np.ndarray, "n k"]:
    """Predictions of a network that was trained without adjustment, adjusted afterwards.

    Proportional to p / prior^tau (Menon et al., Eq. 9, with a softmax over the adjusted logits); of
    each label the odds are divided.

    Args:
        probabilities: of each class or label, in [0, 1].
        counts: of the training images, as `count` has them.
        tau: strength of the adjustment; 0 for none, 1 for the prior itself.
        multilabel: whether the task is multi-label.

    Returns:
        Probabilities; of classes, each row sums to 1.

    Raises:
        DataError: as `logit_offsets`.
    """
    divisor = np.exp(logit_offsets(counts, tau, multilabel=multilabel))
    if multilabel:
        return probabilities / (probabilities + (1 - probabilities) * divisor)
    scaled = probabilities / divisor
    return scaled / scaled.sum(axis=1, keepdims=True)
