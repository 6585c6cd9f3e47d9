"""Operating points: from the probability of a class to a decision. NumPy in float64, no I/O.

Each class stands against the rest. A threshold t decides for the class if its probability is >= t.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from lsanet_jax.errors import ConfigError

RULES = ("sensitivity", "specificity")
"""What an operating point can be asked to reach."""


class Curve(NamedTuple):
    """What each threshold gives, from the highest to the lowest.

    Attributes:
        thresholds: infinity first, at which nothing is positive; then every distinct score.
        true: positives with a score of at least the threshold.
        false: negatives with such a score.
    """

    thresholds: Float[np.ndarray, " t"]
    true: Float[np.ndarray, " t"]
    false: Float[np.ndarray, " t"]

    @property
    def sensitivity(self) -> Float[np.ndarray, " t"]:
        """Share of the positives that is found: the recall."""
        return self.true / self.true[-1]

    @property
    def specificity(self) -> Float[np.ndarray, " t"]:
        """Share of the negatives that is left alone."""
        return 1 - self.false / self.false[-1]

    @property
    def precision(self) -> Float[np.ndarray, " t"]:
        """Share of what is found that is positive; 1 where nothing is found."""
        found = self.true + self.false
        return np.divide(self.true, found, out=np.ones(len(found)), where=found > 0)


class Rule(NamedTuple):
    """How an operating point is chosen: "youden", or a least "sensitivity" or "specificity"."""

    name: str = "youden"
    value: float = math.nan

    def __str__(self) -> str:
        return "Youden's index" if self.name == "youden" else f"{self.name} >= {self.value:g}"


YOUDEN = Rule()
"""The highest sum of sensitivity and specificity (Youden, 1950)."""


class Point(NamedTuple):
    """An operating point of a class.

    Attributes:
        threshold: nan if there is none.
        sensitivity: where it was chosen.
        specificity: where it was chosen.
        note: what is wrong with it; "" if nothing is.
    """

    threshold: float
    sensitivity: float
    specificity: float
    note: str = ""


def make_rule(sensitivity: float | None = None, specificity: float | None = None) -> Rule | None:
    """The rule that flags ask for; None if they are not given.

    Raises:
        ConfigError: both are given, or one is not above 0 and at most 1.
    """
    if sensitivity is not None and specificity is not None:
        raise ConfigError(
            "--sensitivity and --specificity: a threshold can keep to one of them; give one"
        )
    for name, value in (("sensitivity", sensitivity), ("specificity", specificity)):
        if value is not None:
            if not 0 < value <= 1:
                raise ConfigError(f"--{name}={value}: expected above 0 and at most 1")
            return Rule(name, value)
    return None


def curve(truth: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> Curve:
    """Count positives and negatives at or above each threshold.

    Args:
        truth: which samples are positive.
        scores: of each sample, the higher the more likely positive.
    """
    truth, scores = np.asarray(truth, bool), np.asarray(scores, np.float64)
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # of each distinct score
    true, false = (np.cumsum(x[order], dtype=np.float64)[last] for x in (truth, ~truth))
    first = np.zeros(1)
    return Curve(
        np.append(np.inf, ordered[last]),
        np.append(first, true),
        np.append(first, false),
    )


def average_precision(found: Curve) -> float:
    """Area below the steps of precision by recall; nan without positives."""
    if found.true[-1] == 0:
        return math.nan
    return float(np.sum(np.diff(found.sensitivity) * found.precision[1:]))


def operating_point(
    truth: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"], rule: Rule
) -> Point:
    """Choose the threshold of a class by a rule.

    Of the thresholds that reach a sensitivity, the one with the highest specificity is chosen, and
    the other way round; then, halfway to the next lower score, so that rounding changes nothing.

    Args:
        truth: which samples are of the class.
        scores: its probability for each sample, in [0, 1].
        rule: see `make_rule`.

    Returns:
        The point; its threshold is nan if there are only positives or only negatives.

    Raises:
        ConfigError: there is no rule of that name.
    """
    if rule.name not in ("youden", "sensitivity", "specificity"):
        raise ConfigError(f"rule {rule.name!r}, expected youden, sensitivity or specificity")
    truth = np.asarray(truth, bool)
    missing = "positive" if not truth.any() else "negative" if truth.all() else ""
    if missing:
        return Point(math.nan, math.nan, math.nan, f"no {missing} validation image: no threshold")
    found = curve(truth, scores)
    sensitivity, specificity = found.sensitivity, found.specificity
    if rule.name == "youden":
        i = int(np.argmax(sensitivity + specificity))
    elif rule.name == "sensitivity":
        i = int(np.argmax(sensitivity >= rule.value - 1e-12))
    else:
        i = int(np.argmax(np.where(specificity >= rule.value - 1e-12, sensitivity, -1)))
    note = ""
    if rule.name == "youden" and sensitivity[i] + specificity[i] <= 1:
        note = "no threshold is better than chance"
    elif specificity[i] == 0:
        note = f"no threshold reaches {rule} but by deciding for the class always"
    elif sensitivity[i] == 0:
        note = f"no threshold reaches {rule} but by deciding for the class never"
    lower = found.thresholds[i + 1] if i + 1 < len(found.thresholds) else 0.0
    upper = min(found.thresholds[i], 1.0 + 1e-6)
    return Point((upper + lower) / 2, float(sensitivity[i]), float(specificity[i]), note)
