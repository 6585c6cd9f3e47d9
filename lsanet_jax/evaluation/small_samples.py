"""Intervals by formula, for samples so few that resampling them says too little. No I/O.

Counts are of what is independent: of patients, or other groups, if these are known.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int

FEW = 20
"""Positives or negatives below which the bootstrap's interval of an AUC is too narrow."""

_NORMAL_975 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


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
    auc: float, resampled: tuple[float, float], counts: Sequence[tuple[int, int]]
) -> tuple[float, float]:
    """The resampled interval of a mean AUC, or that by formula if it says too little.

    Of a single class with fewer than `FEW` positives or negatives, or if all resamples agree; of
    several classes then as if these varied together, which is the widest.

    Args:
        auc: on the samples themselves, in [0, 1].
        resampled: percentiles.
        counts: `sides` of each class that has both.
    """
    one = len(counts) == 1 and min(counts[0]) < FEW
    if not counts or not (one or resampled[0] == resampled[1]):
        return resampled
    low, high = np.mean([newcombe(auc, *of) for of in counts], axis=0)
    return float(low), float(high)


def accuracy_interval(
    accuracy: float, resampled: tuple[float, float], independent: int
) -> tuple[float, float]:
    """The resampled interval of an accuracy, or Wilson's if all resamples agree."""
    if resampled[0] != resampled[1]:
        return resampled
    return wilson(accuracy * independent, independent)


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
