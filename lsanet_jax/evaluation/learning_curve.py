"""What more labels would bring: an inverse power law through a learning curve. NumPy, no I/O.

  score(n) = c - a n^-b,  a >= 0, b > 0, c <= the highest possible score

for n labels. Such laws describe the scores of networks over orders of magnitude of labels (Hestness
et al., "Deep learning scaling is predictable, empirically", 2017; Figueroa et al., "Predicting
sample size required for classification performance", BMC Med. Inform. Decis. Mak. 2012). A law that
the scores do not determine, or do not follow, makes no claim.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lsanet_jax.errors import DataError

MIN_SIZES = 4  # a law has three parameters
_EXPONENTS = np.geomspace(0.05, 2.0, 60)
_LEVEL = 0.01  # of the two tests that a claim has to pass
_RESAMPLES = 1000


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


class LearningCurve(NamedTuple):
    """A law fitted to the scores of some runs.

    Attributes:
        law: (c, a, b) of the formula above.
        draws: the laws that the scores would have given by another chance.
        most: the largest number of labels that a run had.
        silent: why the law makes no claim; empty if it makes one.
    """

    law: Float[np.ndarray, "3"]
    draws: Float[np.ndarray, "draws 3"]
    most: float
    silent: str = ""

    def at(self, n: Float[np.ndarray, " n"]) -> Float[np.ndarray, "3 n"]:
        """Return the law at some numbers of labels, and the ends of its 95 % band."""
        n = np.asarray(n, np.float64)
        band = np.percentile(_score(self.draws, n), [2.5, 97.5], axis=0)
        return np.stack([_score(self.law[None], n)[0], *band])

    def gain(self, times: float) -> Estimate:
        """Estimate what `times` as many labels as the most so far would add to the score."""
        both = np.array([self.most, times * self.most])
        gained = lambda laws: np.diff(_score(laws, both), axis=1)[:, 0]
        return Estimate(gained(self.law[None])[0], *np.percentile(gained(self.draws), [2.5, 97.5]))

    def reach(self, target: float) -> Estimate:
        """Estimate how many labels a score takes; infinite if it is never reached."""
        needed = _labels(self.draws, target)
        low, high = np.percentile(needed, [2.5, 97.5], method="nearest")
        return Estimate(_labels(self.law[None], target)[0], low, high)


def fit(
    labels: Sequence[float], scores: Sequence[float], *, highest: float = 100.0, seed: int = 0
) -> LearningCurve:
    """Fit the law by weighted least squares, and draw others by a parametric bootstrap.

    The variance of a score is taken to be v n^-g. g is read from the spread of the runs with equal
    n, v from the distances to the law; each draw has a v of its own, as uncertain as it is (a
    scaled inverse chi-square), which makes the band one of Student's t. Only chance between runs is
    in it, not between test splits.

    Args:
        labels: of each run, > 0.
        scores: of each run, finite.
        highest: that a score can be.
        seed: of the draws.

    Returns:
        The curve. It is silent if there are fewer than `MIN_SIZES` numbers of labels, if a constant
        explains the scores about as well, or if their means stray from the law by more than the
        runs with equal n do from each other (both tests at 1 %).

    Raises:
        DataError: a number of labels is not positive, or a score is not finite.
    """
    n, y = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if n.shape != y.shape or not (n > 0).all() or not np.isfinite(y).all():
        raise DataError(
            f"Found labels {n.tolist()} and scores {y.tolist()}, expected as many numbers > 0 as "
            "finite scores."
        )
    sizes = np.unique(n)
    most = float(n.max(initial=0))
    if len(sizes) < MIN_SIZES:
        nothing = np.full((1, 3), math.nan)
        few = f"it takes at least {MIN_SIZES} numbers of labels, and there are {len(sizes)}"
        return LearningCurve(nothing[0], nothing, most, few)
    # In units of the largest number, so that no power overflows.
    x, relative_variance = n / most, (n / most) ** -_variance_slope(n, y)
    weights = 1 / relative_variance
    laws, errors = _least_squares(x, y[None], weights, highest)
    freedom = len(y) - 3
    variance = max(float(errors[0]), 1e-12) / freedom
    rng = np.random.default_rng(seed)
    v = variance * freedom / rng.chisquare(freedom, _RESAMPLES)
    noise = rng.normal(size=(_RESAMPLES, len(y))) * np.sqrt(v[:, None] * relative_variance)
    draws, _ = _least_squares(x, _score(laws, x) + noise, weights, highest)
    silent = _reason_to_be_silent(n, y, weights, float(errors[0]), rng)
    for found in (laws, draws):
        found[:, 1] *= most ** found[:, 2]  # back to labels
    return LearningCurve(laws[0], draws, most, silent)


def sentence(curve: LearningCurve, score: str, *, unit: str = "labels") -> str:
    """Say in a sentence what more labels would bring, or why that cannot be said.

    Args:
        curve: of scores in percent.
        score: its name, such as "AUC".
        unit: of the numbers of labels; for shares of all labels "times the labels".
    """
    if curve.silent:
        return f"These runs do not say what more labels would bring: {curve.silent}."
    gain = curve.gain(2)
    text = f"Twice the labels: {score} {gain.value:+.1f} [{gain.low:.1f}, {gain.high:.1f}]"
    now = float(curve.at(np.array([curve.most]))[0, 0])
    target = math.floor(now + 1.5)  # the first whole number that is half a point away
    needed = curve.reach(target)
    if target >= 100:
        return f"{text}."
    if math.isinf(needed.low):
        return f"{text}; {target:.1f} is out of their reach, however many there are."
    if max(needed.value, needed.high) <= 10 * curve.most:
        value, low, high = map(_count, needed)
        return f"{text}; to reach {target:.1f} about {value} [{low}, {high}] {unit}."
    if needed.low > curve.most:
        return f"{text}; to reach {target:.1f} takes at least {_count(needed.low)} {unit}, if ever."
    return f"{text}; these runs do not say how many it takes to reach {target:.1f}."


def _score(laws: Float[np.ndarray, "m 3"], n: Float[np.ndarray, " n"]) -> Float[np.ndarray, "m n"]:
    c, a, b = laws.T[:, :, None]
    return c - a * n**-b


def _labels(laws: Float[np.ndarray, "m 3"], target: float) -> Float[np.ndarray, " m"]:
    c, a, b = laws.T
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        needed = (a / (c - target)) ** (1 / b)
    return np.where((c > target) & (a > 0), needed, np.where(c > target, 0.0, np.inf))


def _count(n: float) -> str:
    """Write a number to two digits, as exact as such an estimate is: 3100 as "3,100"."""
    digits = 1 - math.floor(math.log10(n)) if n > 0 else 0
    return f"{round(n, digits):,.{max(digits, 0)}f}"


def _variance_slope(n: Float[np.ndarray, " m"], y: Float[np.ndarray, " m"]) -> float:
    """Estimate g of the variance v n^-g, between 0 and 2, by the spread of runs with equal n."""
    groups = [y[n == size] for size in np.unique(n)]
    variances = np.array([np.var(group, ddof=1) if len(group) > 1 else 0 for group in groups])
    known = variances > 0
    if known.sum() < 3:
        return 0.0
    slope = np.polyfit(np.log(np.unique(n)[known]), np.log(variances[known]), 1)[0]
    return float(np.clip(-slope, 0, 2))


def _least_squares(
    x: Float[np.ndarray, " m"],
    y: Float[np.ndarray, "r m"],
    weights: Float[np.ndarray, " m"],
    highest: float,
) -> tuple[Float[np.ndarray, "r 3"], Float[np.ndarray, " r"]]:
    """The law with the least weighted squares for each of r sets of scores, and its squares.

    For a given exponent c and a are a linear regression; where it leaves their bounds, the best
    point on the bound is taken.
    """
    total = weights.sum()
    mean = y @ weights / total
    u = y - mean[:, None]
    z = x ** -_EXPONENTS[:, None]  # [exponents, m]
    wz = weights * z
    sum_z, sum_zz, sum_zu = wz.sum(axis=1)[:, None], (wz * z).sum(axis=1)[:, None], wz @ u.T
    a = np.maximum(-sum_zu / (sum_zz - sum_z**2 / total), 0)
    c = a * sum_z / total
    room = highest - mean
    over = c > room
    if over.any():
        c = np.where(over, room, c)
        a = np.where(over, np.maximum((room * sum_z - sum_zu) / sum_zz, 0), a)
    squares = u**2 @ weights + c**2 * total + a**2 * sum_zz + 2 * a * sum_zu - 2 * a * c * sum_z
    best = squares.argmin(axis=0)
    of = (best, np.arange(len(y)))
    laws = np.stack([c[of] + mean, a[of], _EXPONENTS[best]], axis=1)
    return laws, np.maximum(squares[of], 0)


def _reason_to_be_silent(
    n: Float[np.ndarray, " m"],
    y: Float[np.ndarray, " m"],
    weights: Float[np.ndarray, " m"],
    error: float,
    rng: np.random.Generator,
) -> str:
    """Test whether the scores rise with the labels, and whether they follow the law."""
    constant = np.average(y, weights=weights)
    without = float(weights @ (y - constant) ** 2)
    # What the law explains by chance if nothing rises: its exponent is free, so no F distribution.
    flat = rng.normal(size=(_RESAMPLES, len(y))) / np.sqrt(weights)
    _, flat_error = _least_squares(n / n.max(), flat, weights, 1e9)
    flat_without = (flat - (flat @ weights / weights.sum())[:, None]) ** 2 @ weights
    by_chance = np.quantile(flat_error / flat_without, _LEVEL)
    if error >= by_chance * without:  # equal if all scores are
        return "their scores do not rise with the labels by more than chance"
    sizes, of = np.unique(n, return_inverse=True)
    means = np.bincount(of, weights * y) / np.bincount(of, weights)
    pure = float(weights @ (y - means[of]) ** 2)
    freedom = len(sizes) - 3, len(y) - len(sizes)
    if min(freedom) < 1 or pure == 0:
        return ""
    ratio = max(error - pure, 0) / freedom[0] / (pure / freedom[1])
    chance = rng.chisquare(freedom[0], 10_000) / freedom[0]
    chance /= rng.chisquare(freedom[1], 10_000) / freedom[1]
    if ratio > np.quantile(chance, 1 - _LEVEL):
        return "their scores do not follow an inverse power law of the labels"
    return ""
