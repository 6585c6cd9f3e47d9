"""Intervals by formula, for samples so few that resampling them says too little. No I/O.

Counts are of what is independent: of patients, or other groups, if these are known.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

FEW = 20
"""Positives or negatives below which the bootstrap's interval of an AUC is too narrow."""

FEW_WRONG = 5
"""The same, of those that would be wrong: as of 100 with an AUC above 0.95."""

FEW_PATIENTS = 30
"""Patients, or images if these are unknown, below which that of a proportion is too narrow."""

_NORMAL_975 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


class ClassAUC(NamedTuple):
    """The AUC of one class, and how many patients, or samples, have positives and negatives."""

    auc: float
    positives: int
    negatives: int


def wilson(successes: float, n: float) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson, 1927); (nan, nan) of nothing."""
    if n == 0:
        return math.nan, math.nan
    p, z2 = successes / n, _NORMAL_975**2
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = _NORMAL_975 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def newcombe(auc: float, positives: int, negatives: int) -> tuple[float, float]:
    r"""95 % interval of an AUC of one class, which has a width also for few samples and at 0 or 1.

    It holds every \theta that is at most z standard errors from the AUC, by Hanley and McNeil's
    variance with the mean of m and n in place of each:

      \theta (1 - \theta) (1 + ((m + n) / 2 - 1) ((1 - \theta) / (2 - \theta)
          + \theta / (1 + \theta))) / (m n).

    Reference: Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney
    statistic. Part 2", Statistics in Medicine 2006, method 5.
    """
    if not (positives and negatives) or math.isnan(auc):
        return math.nan, math.nan
    more, pairs = (positives + negatives) / 2 - 1, positives * negatives

    def inside(theta: float) -> bool:
        spread = 1 + more * ((1 - theta) / (2 - theta) + theta / (1 + theta))
        return (auc - theta) ** 2 <= _NORMAL_975**2 * theta * (1 - theta) * spread / pairs

    ends = []
    for end in (0.0, 1.0):
        near, far = auc, end
        for _ in range(60):  # Halves the distance down to rounding.
            middle = (near + far) / 2
            near, far = (middle, far) if inside(middle) else (near, middle)
        ends.append(near)
    return ends[0], ends[1]


def sides(
    truth: Bool[np.ndarray, " n"], known: Bool[np.ndarray, " n"], units: Int[np.ndarray, " n"]
) -> tuple[int, int]:
    """Count the patients, or samples, with positives and with negatives of a class."""
    positive, negative = (np.unique(units[known & side]) for side in (truth, ~truth))
    return len(positive), len(negative)


def auc_interval(
    classes: Sequence[ClassAUC], resampled: tuple[float, float]
) -> tuple[float, float]:
    r"""The resampled interval of a mean AUC, or that by formula if it says too little.

    It does if a class has fewer than `FEW` positives or negatives, or fewer than `FEW_WRONG` of
    them would be on the wrong side, or if all resamples agree. Of one class it is Newcombe's. Of K,
    their Newcombe intervals [l_k, h_k] are joined as `difference_interval` does,

      mean(A) - \sqrt{\sum_k (A_k - l_k)^2 / (K (K - 1))},

    and likewise above: of K AUCs, each of a class against the rest, K - 1 vary freely. It then is
    at least as wide as the resampled one.

    Args:
        classes: those that have an AUC.
        resampled: percentiles.
    """
    few = any(min(m, n) < FEW or min(m, n) * min(auc, 1 - auc) < FEW_WRONG for auc, m, n in classes)
    if not classes or not (few or resampled[0] == resampled[1]):
        return resampled
    ends, aucs = np.array([newcombe(*each) for each in classes]), np.array([c.auc for c in classes])
    if len(classes) == 1:
        return float(ends[0, 0]), float(ends[0, 1])
    squares = ((ends - aucs[:, None]) ** 2).sum(axis=0)
    below, above = np.sqrt(squares / (len(classes) * (len(classes) - 1)))
    low, high = aucs.mean() - below, aucs.mean() + above
    return float(max(0, np.fmin(low, resampled[0]))), float(min(1, np.fmax(high, resampled[1])))


def proportion_interval(
    value: float, resampled: tuple[float, float], patients: int, samples: int
) -> tuple[float, float]:
    """The resampled interval of a proportion, or Wilson's of fewer than `FEW_PATIENTS`.

    Wilson's is of as many independent samples as vary like these: between the patients, if images
    of a patient are alike, and all samples. If all resamples agree, it is of the patients.

    Args:
        value: on the samples themselves, in [0, 1].
        resampled: percentiles.
        patients: or other groups, or images if these are unknown, that are drawn.
        samples: of which it is a proportion.
    """
    low, high = resampled
    if math.isnan(value) or (patients >= FEW_PATIENTS and low != high):
        return resampled
    n = float(patients)
    if high > low and patients < samples:
        deviation = (high - low) / (2 * _NORMAL_975)
        n = min(max(n, value * (1 - value) / deviation**2 * (patients - 1) / patients), samples)
    return wilson(value * n, n)


def difference_interval(
    one: tuple[float, float, float], other: tuple[float, float, float]
) -> tuple[float, float]:
    """95 % interval of the difference of two independent scores from those of each.

    Reference: Newcombe, "Interval estimation for the difference between independent proportions",
    Statistics in Medicine 1998, method 10, which needs nothing but the two intervals.

    Args:
        one: the score and the ends of its interval.
        other: the same of the score that is taken off.
    """
    (a, a_low, a_high), (b, b_low, b_high) = one, other
    return (
        a - b - math.hypot(a - a_low, b_high - b),
        a - b + math.hypot(a_high - a, b - b_low),
    )
