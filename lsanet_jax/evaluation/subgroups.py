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
    class_names: Sequence[str] = (),
    resamples: int = 1000,
) -> list[Subgroup]:
    """Score each subgroup, and compare it with the rest.

    Scores and intervals are those of `resampling`, of patients in the subgroup and in the rest
    independently, and are joined by `small_samples.difference_interval`. They are not corrected for
    the number of subgroups. AUCs are compared over the classes that both sides have with others;
    the note names those that only one has.

    Args:
        labels: of the samples.
        probabilities: of each class or label.
        task: one of `lsanet_jax.data.dataset.TASKS`.
        values: of each sample; "" if it has none.
        groups: of each sample its patient; empty if unknown.
        class_names: for the notes; their numbers by default.
        resamples: how many.
    """
    column, patients, found = np.asarray(values, str), np.asarray(groups, str), []
    names = list(class_names) or [str(k) for k in range(probabilities.shape[1])]
    for value in sorted(set(values)):
        inside = column == value
        sides, classes = [], []
        for seed, rows in enumerate((inside, ~inside)):
            of = patients[rows].tolist() if len(patients) else ()
            draws = Draws(int(rows.sum()), of, resamples=resamples, seed=seed)
            sides.append((labels[rows], probabilities[rows], task, draws))
            classes.append(resampling.classes_with_auc(*sides[-1][:3]))
        both = [k for k in classes[0] if k in classes[1]]
        scores = resampling.accuracy(*sides[0]), resampling.auc(*sides[0])
        differences = (
            _difference(resampling.accuracy, sides),
            _difference(resampling.auc, sides, both),
        )
        notes, independent = [], sides[0][-1].num_units
        if independent < LEAST:
            what = "patients or other groups" if len(patients) else "images"
            notes.append(f"only {independent} {what}: too few to compare")
        if both and (alone := sorted({*classes[0], *classes[1]} - {*both})):
            without = ", ".join(names[k] for k in alone)
            notes.append(
                f"AUC compared without {without}, which only one side can tell from others"
            )
        size, note = int(inside.sum()), "; ".join(notes)
        found.append(Subgroup(value or NONE, size, *scores, *differences, note))
    return found


def _difference(score, sides: list[tuple], *of) -> Score:
    """A score of a subgroup minus that of the rest, if there is any."""
    if not len(sides[1][0]):
        return Score(*[math.nan] * 3)
    own, rest = (score(*side, *of) for side in sides)
    return Score(own.value - rest.value, *small_samples.difference_interval(own, rest))
