"""Scores by subgroup, such as sex or site, and how far each is from the rest. NumPy, no I/O."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lsanet_jax.evaluation import resampling, small_samples
from lsanet_jax.evaluation.resampling import Draws, Score

LEAST = 30
"""Samples, or patients if these are known, below which a subgroup is called small."""

NONE = "(unknown)"
"""What samples without a value are called."""


class Subgroup(NamedTuple):
    """One subgroup.

    Attributes:
        value: of the column.
        size: samples.
        acc: its accuracy.
        auc: its AUC.
        acc_difference: its accuracy minus that of all others.
        auc_difference: its AUC minus that of all others.
        note: a warning if it is too small to say much; else "".
    """

    value: str
    size: int
    acc: Score
    auc: Score
    acc_difference: Score
    auc_difference: Score
    note: str


def compare(
    labels: np.ndarray,
    probabilities: np.ndarray,
    task: str,
    values: Sequence[str],
    groups: Sequence[object] = (),
    *,
    resamples: int = 1000,
) -> list[Subgroup]:
    """Score each subgroup, and compare it with the rest.

    Intervals are by resampling patients in the subgroup and in the rest independently. They are
    not corrected for the number of subgroups. Where one of two scores is the same in all resamples,
    these would tell the other's chance only: that of the difference is then by formula.

    Args:
        labels: of the samples.
        probabilities: of each class or label.
        task: one of `lsanet_jax.data.dataset.TASKS`.
        values: of each sample; "" if it has none.
        groups: of each sample its patient; empty if unknown.
        resamples: how many.
    """
    column, patients, found = np.asarray(values, str), np.asarray(groups, str), []
    for value in sorted(set(values)):
        inside = column == value
        sides = []
        for seed, rows in enumerate((inside, ~inside)):
            of = patients[rows].tolist() if len(patients) else ()
            draws = Draws(int(rows.sum()), of, resamples=resamples, seed=seed)
            sides.append((labels[rows], probabilities[rows], task, draws))
        acc, acc_difference = _compared(resampling.accuracy, resampling.accuracies, sides)
        auc, auc_difference = _compared(resampling.auc, resampling.aucs, sides)
        size, independent = int(inside.sum()), sides[0][-1].num_units
        what = f"only {independent} {'patients or other groups' if len(patients) else 'images'}"
        note = f"{what}: too few to compare" if independent < LEAST else ""
        found.append(Subgroup(value or NONE, size, acc, auc, acc_difference, auc_difference, note))
    return found


def _compared(score, weighted, sides: list[tuple]) -> tuple[Score, Score]:
    """A score of a subgroup, and the same minus that of the rest, if there is any."""
    own = score(*sides[0])
    if not len(sides[1][0]):
        return own, Score(*[math.nan] * 3)
    rest = score(*sides[1])
    of_own, of_rest = (weighted(*side[:3], side[3].counts) for side in sides)
    ends = resampling.interval(of_own - of_rest)
    if any(low == high for low, high in map(resampling.interval, (of_own, of_rest))):
        ends = small_samples.difference_interval(own, rest)
    return own, Score(own.value - rest.value, *ends)
