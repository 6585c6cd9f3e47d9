"""Scores by subgroup, such as sex or site, and how far each is from the rest. NumPy, no I/O."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lsanet_jax.evaluation import resampling
from lsanet_jax.evaluation.resampling import Draws, Score

LEAST = 30
"""Samples below which a subgroup is called small."""

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
    not corrected for the number of subgroups.

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
        parts = []
        for seed, rows in enumerate((inside, ~inside)):
            of = patients[rows].tolist() if len(patients) else ()
            draws = Draws(int(rows.sum()), of, resamples=resamples, seed=seed)
            parts.append((labels[rows], probabilities[rows], task, draws.weights()))
        scores = []
        for score in (resampling.accuracies, resampling.aucs):
            own = score(*parts[0])
            rest = score(*parts[1]) if not inside.all() else np.full(len(own), math.nan)
            scores += [own, own - rest]
        acc, acc_difference, auc, auc_difference = (
            Score(float(x[0]), *resampling.interval(x[1:])) for x in scores
        )
        size = int(inside.sum())
        note = f"only {size} images: too few to compare" if size < LEAST else ""
        found.append(Subgroup(value or NONE, size, acc, auc, acc_difference, auc_difference, note))
    return found
