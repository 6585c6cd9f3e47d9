"""Sets of classes that hold the true one with a promised probability. NumPy, no I/O.

Class-conditional (Mondrian) split conformal prediction: of each class apart, so that the promise
holds for rare classes too, as long as new images are drawn as the validation images were.

References: Vovk, "Conditional validity of inductive conformal predictors", ACML 2012; Sadinle et
al., "Least ambiguous set-valued classifiers with bounded error levels", JASA 2019; Lee, Barber and
Willett, "Distribution-free inference with hierarchical data", 2023 (patients with several images).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from lsanet_jax.errors import ConfigError


class Sets(NamedTuple):
    """The least probability with which a class is in the set.

    Attributes:
        least: [k], or for multi-label [k, 2] of no and yes; 0 if it is always in the set.
        rare: for each of them, whether it has too few samples for a promise.
    """

    least: Float[np.ndarray, "..."]
    rare: Bool[np.ndarray, "..."]


class Coverage(NamedTuple):
    """How often sets hold the true class.

    Attributes:
        overall: of all samples.
        by_class: of the samples of each class; nan without samples.
        counts: samples of each class.
        mean_size: classes in a set.
        single: share of the sets with one class.
        empty: share of the sets with none.
    """

    overall: float
    by_class: Float[np.ndarray, " k"]
    counts: Int[np.ndarray, " k"]
    mean_size: float
    single: float
    empty: float


def needed(coverage: float) -> int:
    """How many samples, or patients, of a class a promise takes: n + 1 >= 1 / (1 - coverage)."""
    return math.ceil(coverage / (1 - coverage) - 1e-9)


def fit(
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n k"],
    probabilities: Float[np.ndarray, "n k"],
    coverage: float,
    groups: Sequence[int] | Int[np.ndarray, " n"] = (),
) -> Sets:
    """Find the sets' thresholds.

    With n samples of a class the least probability is the r-th lowest that these give to it, r =
    floor((n + 1) (1 - coverage)). If r is 0, nothing can be promised: the class is in every set.
    Samples of one group share the weight of one, and n counts groups: the promise is for a sample
    of a new patient, whereas samples of the same are alike.

    Args:
        labels: class indices; for multi-label 0 or 1 per label, or -1 if unknown.
        probabilities: of each class or label.
        coverage: with which a set should hold the true class, in (0, 1).
        groups: number of each sample's group, such as its patient; empty if each is its own.

    Raises:
        ConfigError: the coverage is not in (0, 1).
    """
    if not 0 < coverage < 1:
        raise ConfigError(f"--coverage={coverage}: expected between 0 and 1, such as 0.9")
    p = np.asarray(probabilities, np.float64)
    units = np.asarray(groups if len(groups) else np.arange(len(labels)))
    if labels.ndim == 1:
        of = [(labels == k, p[:, k]) for k in range(p.shape[1])]
        shape = (p.shape[1],)
    else:
        of = [
            (labels[:, k] == value, p[:, k] if value else 1 - p[:, k])
            for k in range(p.shape[1])
            for value in (0, 1)
        ]
        shape = (p.shape[1], 2)
    found = [_least(scores[rows], units[rows], coverage) for rows, scores in of]
    least, independent = (np.array(x).reshape(shape) for x in zip(*found, strict=True))
    return Sets(least, independent < needed(coverage))


def _least(scores: np.ndarray, units: np.ndarray, coverage: float) -> tuple[float, int]:
    """The highest score that enough weight reaches, 0 if none is, and how many groups there are."""
    _, of, sizes = np.unique(units, return_inverse=True, return_counts=True)
    order = np.argsort(-scores, kind="stable")
    reached = np.cumsum(1 / sizes[of][order])
    enough = reached >= coverage * (len(sizes) + 1) - 1e-9
    least = float(scores[order][np.argmax(enough)]) if enough.any() else 0.0
    return least, len(sizes)


def members(
    sets: Sets, probabilities: Float[np.ndarray, "n k"]
) -> Bool[np.ndarray, "n k"] | Bool[np.ndarray, "n k 2"]:
    """Which classes are in the set of each sample; for multi-label whether no and yes are.

    Args:
        sets: of `fit`.
        probabilities: of each class or label, calibrated as those that `fit` was given.
    """
    p = np.asarray(probabilities, np.float64)
    scores = p if sets.least.ndim == 1 else np.stack([1 - p, p], axis=-1)
    return scores + 1e-6 >= sets.least  # One that is lower by rounding only still counts.


def coverage(labels: Int[np.ndarray, " n"], inside: Bool[np.ndarray, "n k"]) -> Coverage:
    """Count how often the sets hold the true class.

    Args:
        labels: class indices, each known; at least one.
        inside: of `members`, for single-label tasks.
    """
    covered, k = inside[np.arange(len(labels)), labels], inside.shape[1]
    counts = np.bincount(labels, minlength=k)
    hits = np.bincount(labels, covered, minlength=k)
    by_class = np.divide(hits, counts, out=np.full(k, math.nan), where=counts > 0)
    sizes = inside.sum(axis=1)
    return Coverage(
        float(covered.mean()),
        by_class,
        counts,
        float(sizes.mean()),
        float(np.mean(sizes == 1)),
        float(np.mean(sizes == 0)),
    )
