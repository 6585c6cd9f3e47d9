"""Intervals of scores of one run by resampling patients, or images if patients are unknown.

Reference: Efron and Tibshirani, "An introduction to the bootstrap", 1993; Field and Welsh,
"Bootstrapping clustered data", JRSS B 2007 (whole groups are drawn).
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from lsanet_jax import metrics
from lsanet_jax.evaluation import small_samples


class Score(NamedTuple):
    """A score and its 95 % interval; nan if undefined."""

    value: float
    low: float
    high: float


class Draws:
    """Resamples of n samples: how often each sample is in each.

    Attributes:
        grouped: whether whole groups were drawn.
        units: of each sample the number of its group, or its own.
        num_units: how many are drawn.
    """

    def __init__(
        self, n: int, groups: Sequence[object] = (), *, resamples: int = 1000, seed: int = 0
    ):
        """Draw.

        Args:
            n: samples.
            groups: of each sample its patient; empty if unknown.
            resamples: how many.
            seed: of the draws.
        """
        self.grouped = len(groups) > 0
        names, of = (
            np.unique(np.asarray(groups, str), return_inverse=True)
            if self.grouped
            else (np.arange(n), np.arange(n))
        )
        rng = np.random.Generator(np.random.PCG64(seed))
        self.units, self.num_units = of, len(names)
        self._drawn = rng.integers(len(names), size=(resamples, len(names)))

    @functools.cached_property
    def counts(self) -> Float[np.ndarray, "r n"]:
        """How often each sample is in each resample."""
        rows = np.arange(len(self._drawn))[:, None] * self.num_units
        flat = np.bincount(
            (rows + self._drawn).ravel(), minlength=len(self._drawn) * self.num_units
        )
        return flat.reshape(len(self._drawn), self.num_units)[:, self.units].astype(np.float64)

    def weights(self) -> Float[np.ndarray, "r1 n"]:
        """A row of ones, for the samples themselves, then `counts`."""
        return np.concatenate([np.ones((1, len(self.units))), self.counts])

    def rows(self) -> Iterator[Int[np.ndarray, " m"]]:
        """The samples of each resample, as often as they are in it."""
        n = np.arange(len(self.units))
        for counts in self.counts:
            yield np.repeat(n, counts.astype(int))


def interval(found: Float[np.ndarray, " r"]) -> tuple[float, float]:
    """The middle 95 % of what resamples gave; nan if they gave nothing."""
    defined = found[~np.isnan(found)]
    if not len(defined):
        return math.nan, math.nan
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def ratio(
    top: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"],
    bottom: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"],
    draws: Draws,
) -> Score:
    """The sum of each sample's `top` over that of its `bottom`, such as hits over positives."""
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    values = _divide(draws.counts @ top, draws.counts @ bottom)
    return Score(float(_divide(top.sum(), bottom.sum())), *interval(values))


def accuracy(labels: np.ndarray, probabilities: np.ndarray, task: str, draws: Draws) -> Score:
    """The accuracy on all samples and its interval; Wilson's of few patients."""
    found = accuracies(labels, probabilities, task, draws.weights())
    value, ends = float(found[0]), interval(found[1:])
    of = (draws.num_units, int((labels >= 0).sum()))
    return Score(value, *small_samples.proportion_interval(value, ends, *of))


def auc(
    labels: np.ndarray,
    probabilities: np.ndarray,
    task: str,
    draws: Draws,
    classes: Sequence[int] | None = None,
) -> Score:
    """The mean AUC of the classes, all by default, and its interval; by formula of few samples."""
    classes = classes_of(probabilities, task) if classes is None else classes
    found = _by_class(labels, probabilities, classes, draws.weights())
    of = [one_class(labels, probabilities, k)[:2] for k in classes]
    return _auc_score(found, of, draws)


def auc_of_class(labels: np.ndarray, probabilities: np.ndarray, k: int, draws: Draws) -> Score:
    """The AUC of class k against the rest and its interval; Newcombe's of few samples."""
    truth, known, scores = one_class(labels, probabilities, k)
    found = weighted_auc(truth, known, scores, draws.weights())
    return _auc_score(found[None], [(truth, known)], draws)


def _auc_score(found: np.ndarray, of: list[tuple[np.ndarray, np.ndarray]], draws: Draws) -> Score:
    """The mean of the AUCs [k, r] of classes, of which the first is on the samples themselves."""
    mean = _mean_of_defined(found)
    classes = [
        small_samples.ClassAUC(float(own), *small_samples.sides(truth, known, draws.units))
        for own, (truth, known) in zip(found[:, 0], of, strict=True)
        if not math.isnan(own)
    ]
    return Score(float(mean[0]), *small_samples.auc_interval(classes, interval(mean[1:])))


def classes_of(probabilities: np.ndarray, task: str) -> Sequence[int]:
    """The classes or labels whose AUCs are averaged."""
    return [1] if task == "binary-class" else range(probabilities.shape[1])


def classes_with_auc(labels: np.ndarray, probabilities: np.ndarray, task: str) -> list[int]:
    """Those of `classes_of` that have positives and negatives."""
    found = []
    for k in classes_of(probabilities, task):
        truth, known, _ = one_class(labels, probabilities, k)
        if truth.any() and (known & ~truth).any():
            found.append(k)
    return found


def accuracies(
    labels: np.ndarray, probabilities: np.ndarray, task: str, weights: Float[np.ndarray, "r n"]
) -> Float[np.ndarray, " r"]:
    """`metrics.accuracy` of weighted samples, for each row of weights."""
    right, known = metrics.right(labels, probabilities, task), labels >= 0
    if labels.ndim == 1:
        return _divide(weights @ right, weights.sum(axis=1))
    return _divide(weights @ (right & known).sum(axis=1), weights @ known.sum(axis=1))


def aucs(
    labels: np.ndarray, probabilities: np.ndarray, task: str, weights: Float[np.ndarray, "r n"]
) -> Float[np.ndarray, " r"]:
    """`metrics.auc` of weighted samples; classes that a row lacks are left out of its mean."""
    classes = classes_of(probabilities, task)
    return _mean_of_defined(_by_class(labels, probabilities, classes, weights))


def _by_class(labels, probabilities, classes: Sequence[int], weights) -> np.ndarray:
    """The AUC of each class for each row of weights; nan for those that it lacks."""
    of = (weighted_auc(*one_class(labels, probabilities, k), weights) for k in classes)
    return np.array(list(of)).reshape(len(classes), len(weights))


def _mean_of_defined(found: np.ndarray) -> np.ndarray:
    defined = ~np.isnan(found)
    return _divide(np.where(defined, found, 0).sum(axis=0), defined.sum(axis=0))


def one_class(
    labels: np.ndarray, probabilities: np.ndarray, k: int
) -> tuple[Bool[np.ndarray, " n"], Bool[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Which samples are of class k, of which that is known, and the probability of class k."""
    if labels.ndim == 2:
        return labels[:, k] == 1, labels[:, k] >= 0, probabilities[:, k]
    return labels == k, np.ones(len(labels), bool), probabilities[:, k]


def weighted_auc(
    truth: Bool[np.ndarray, " n"],
    known: Bool[np.ndarray, " n"],
    scores: Float[np.ndarray, " n"],
    weights: Float[np.ndarray, "r n"],
) -> Float[np.ndarray, " r"]:
    """The AUC of weighted samples, ties counting half, for each row of weights."""
    positive, negative = np.flatnonzero(truth & known), np.flatnonzero(~truth & known)
    negative = negative[np.argsort(scores[negative])]
    below = np.searchsorted(scores[negative], scores[positive], "left")
    up_to = np.searchsorted(scores[negative], scores[positive], "right")
    lower = np.zeros((len(weights), len(negative) + 1))
    np.cumsum(weights[:, negative], axis=1, out=lower[:, 1:])
    own = weights[:, positive]
    pairs = own.sum(axis=1) * lower[:, -1]
    return _divide((own * (lower[:, below] + lower[:, up_to])).sum(axis=1) / 2, pairs)


def _divide(top, bottom):
    """The quotient; nan by 0."""
    top, bottom = np.asarray(top, np.float64), np.asarray(bottom, np.float64)
    return np.divide(top, bottom, out=np.full(top.shape, math.nan), where=bottom > 0)
