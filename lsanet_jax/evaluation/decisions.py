"""From what the classifiers of a run say to probabilities, decisions, sets and doubt.

All of it is fitted on the validation split alone. NumPy, no I/O.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from lsanet_jax import metrics
from lsanet_jax.evaluation import calibration, conformal, doubt, thresholds
from lsanet_jax.evaluation.conformal import Sets
from lsanet_jax.evaluation.thresholds import RULES, YOUDEN, Point, Rule

COVERAGE = 0.9
"""The coverage of the sets that a run is stored with."""


class Calibration(NamedTuple):
    """What was fitted on a validation split.

    Attributes:
        task: one of `lsanet_jax.data.dataset.TASKS`.
        class_names: one per class, or per label when multi-label.
        images: of the validation split.
        temperatures: of each classifier, shallow to deep; for multi-label of each of its labels.
        rule: of the operating points.
        points: of each class against the rest; of a binary task only of the second class.
        coverage: that the sets promise.
        sets: their thresholds.
        notes: what could not be fitted, and why.
    """

    task: str
    class_names: tuple[str, ...]
    images: int
    temperatures: Float[np.ndarray, "l t"]
    rule: Rule
    points: tuple[Point, ...]
    coverage: float
    sets: Sets
    notes: tuple[str, ...]

    @property
    def positives(self) -> range:
        """The classes that have an operating point."""
        return positives(self.task, len(self.class_names))


def positives(task: str, num_classes: int) -> range:
    """The classes that are decided for or against: of a binary task only the second."""
    return range(1, 2) if task == "binary-class" else range(num_classes)


def fit(
    labels: np.ndarray,
    probabilities: Float[np.ndarray, "l n k"],
    task: str,
    class_names: tuple[str, ...],
    *,
    groups: Sequence[int] | Int[np.ndarray, " n"] = (),
    rule: Rule = YOUDEN,
    coverage: float = COVERAGE,
) -> Calibration:
    """Fit temperatures, operating points and sets.

    Args:
        labels: of the validation split.
        probabilities: of each classifier, shallow to deep; the last is the network's own, and
            decides.
        task: one of `lsanet_jax.data.dataset.TASKS`.
        class_names: one per class, or per label when multi-label.
        groups: number of each image's patient; empty if unknown.
        rule: of the operating points.
        coverage: of the sets.

    Raises:
        ConfigError: the coverage is not in (0, 1).
        DataError: labels, probabilities and task do not fit each other: see `metrics.checked`.
    """
    probabilities = np.asarray(probabilities)
    labels, _ = metrics.checked(labels, probabilities[-1], task)
    fitted = [calibration.fit_temperature(labels, p, task, class_names) for p in probabilities]
    temperatures = np.stack([each.value for each in fitted])
    own = calibration.apply_temperature(probabilities[-1], temperatures[-1], task)
    points, notes = [], [f"temperature: {note}" for note in fitted[-1].notes]
    for k in positives(task, len(class_names)):
        known = labels[:, k] >= 0 if labels.ndim == 2 else np.ones(len(labels), bool)
        truth = labels[known, k] == 1 if labels.ndim == 2 else labels == k
        points.append(thresholds.operating_point(truth, own[known, k], rule))
        notes += [f"operating point of {class_names[k]}: {points[-1].note}"] * bool(points[-1].note)
    sets = conformal.fit(labels, own, coverage, groups)
    least = conformal.needed(coverage)
    for k, name in enumerate(class_names):
        if np.any(sets.rare[k]):
            what = name if sets.rare.ndim == 1 else f"{name} (yes or no)"
            notes.append(
                f"sets: {what} has fewer than the {least} validation "
                f"{'patients or other groups' if len(groups) else 'images'} that a coverage of "
                f"{coverage:g} takes: nothing can be promised, and it is in every set"
            )
    return Calibration(
        task,
        tuple(class_names),
        len(labels),
        temperatures,
        rule,
        tuple(points),
        coverage,
        sets,
        tuple(notes),
    )


def calibrated(
    found: Calibration, probabilities: Float[np.ndarray, "l n k"]
) -> Float[np.ndarray, "l n k"]:
    """Calibrate the probabilities of all classifiers, or of the deepest l."""
    own = found.temperatures[-len(probabilities) :]
    pairs = zip(probabilities, own, strict=True)
    return np.stack([calibration.apply_temperature(p, t, found.task) for p, t in pairs])


def decided(found: Calibration, answer: Float[np.ndarray, "n k"]) -> Bool[np.ndarray, "n p"]:
    """Whether each sample reaches the operating point of each of `Calibration.positives`."""
    least = np.array([point.threshold for point in found.points])
    return answer[:, list(found.positives)] >= least  # never, if there is no threshold


class Judged(NamedTuple):
    """What is said of each sample, as text: see `judge`."""

    decisions: list[str]
    sets: list[str]
    doubts: Float[np.ndarray, " n"]


def judge(
    found: Calibration,
    answer: Float[np.ndarray, "n k"],
    votes: Float[np.ndarray, "l n k"],
    beta: Float[np.ndarray, "n l"] | None,
) -> Judged:
    """Decide, list the possible classes, and tell the doubt.

    Args:
        found: what was fitted.
        answer: calibrated probabilities that decide.
        votes: calibrated probabilities of each classifier.
        beta: their weights.

    Returns:
        Decisions: the classes whose operating point is reached, joined by '|'; of a binary task one
        of both. Sets: the possible classes, joined by '|'; for multi-label the labels that may be
        present, with '?' if they may be absent too.
    """
    names, inside = found.class_names, conformal.members(found.sets, answer)
    reached = decided(found, answer)
    if found.task == "binary-class":
        known = not math.isnan(found.points[0].threshold)
        decisions = [names[int(yes)] if known else "" for yes in reached[:, 0]]
    else:
        decisions = ["|".join(names[k] for k in np.flatnonzero(row)) for row in reached]
    if found.task == "multi-label":
        sets = [
            "|".join(f"{names[k]}{'?' * bool(row[k, 0])}" for k in np.flatnonzero(row[:, 1]))
            for row in inside
        ]
    else:
        sets = ["|".join(names[k] for k in np.flatnonzero(row)) for row in inside]
    return Judged(decisions, sets, doubt.doubt(answer, votes, beta, found.task))


def to_json(found: Calibration) -> dict[str, Any]:
    """The contents of `calibration.json`."""
    points = zip(found.positives, found.points, strict=True)
    return {
        "task": found.task,
        "classes": list(found.class_names),
        "validation_images": found.images,
        "temperatures": found.temperatures.tolist(),
        "rule": {"name": found.rule.name, "value": found.rule.value},
        "operating_points": [{"class": found.class_names[k], **p._asdict()} for k, p in points],
        "coverage": found.coverage,
        "least_probability": found.sets.least.tolist(),
        "too_rare": found.sets.rare.tolist(),
        "notes": list(found.notes),
    }


def from_json(content: dict[str, Any]) -> Calibration:
    """Read what `to_json` wrote; its fields must be there and of the right types.

    Raises:
        ValueError: its values are impossible, or do not fit each other.
    """
    number = lambda value: math.nan if value is None else float(value)
    listed = content["operating_points"]
    shares = [[number(each[name]) for name in Point._fields[:-1]] for each in listed]
    points = tuple(Point(*x, note=each["note"]) for x, each in zip(shares, listed, strict=True))
    task, names = content["task"], tuple(content["classes"])
    rule = Rule(content["rule"]["name"], number(content["rule"]["value"]))
    sets = Sets(np.array(content["least_probability"], float), np.array(content["too_rare"], bool))
    temperatures = np.array(content["temperatures"], float)
    width = len(names) if task == "multi-label" else 1
    of_sets = (len(names), 2) if task == "multi-label" else (len(names),)
    shapes = (temperatures.shape[1:], sets.least.shape, sets.rare.shape)
    classes = [names[k] for k in positives(task, len(names)) if k < len(names)]
    if shapes != ((width,), of_sets, of_sets) or [each["class"] for each in listed] != classes:
        raise ValueError("its lists do not fit each other")
    if not ((0 < temperatures) & (temperatures < math.inf)).all():
        raise ValueError("a temperature is not above 0")
    known = [*sets.least.ravel(), *(x for of in shares for x in of if not math.isnan(x))]
    if not all(0 <= x <= 1.001 for x in known) or not 0 < content["coverage"] < 1:
        raise ValueError("a threshold, share or coverage is not between 0 and 1")
    if rule.name != "youden" and not (rule.name in RULES and 0 < rule.value <= 1):
        raise ValueError(f"its rule is {rule.name} {rule.value}")
    return Calibration(
        task,
        names,
        content["validation_images"],
        temperatures,
        rule,
        points,
        content["coverage"],
        sets,
        tuple(content["notes"]),
    )
