"""What a sweep says in plain words: which method to take, and what more labels would bring."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lsanet_jax.evaluation import comparison, learning_curve
from lsanet_jax.evaluation.statistics import Difference
from lsanet_jax.report.results import Cell, Comparison
from lsanet_jax.report.tables import dataset_title
from lsanet_jax.sweeps.estimate import training_images

_LEVEL = 0.05


def of(name: str, cells: Sequence[Cell], comparisons: Mapping[str, Comparison]) -> list[str]:
    """Return the paragraphs of a sweep; none but for compare and label_efficiency."""
    if name == "compare":
        return [which_to_take(cells, comparisons)]
    if name == "label_efficiency":
        return list(more_labels(cells))
    return []


# ------------------------------------------------------------------------------ which method


class Verdict(NamedTuple):
    """A method against the plain network."""

    title: str
    difference: Difference  # of the AUC, in percentage points
    p_value: float  # corrected for the number of methods
    time: float  # of training, in that of the plain network

    @property
    def differs(self) -> bool:
        """Whether the difference is more than chance."""
        return self.p_value < _LEVEL

    def __str__(self):
        d, p = self.difference, self.p_value
        p = "p < .001" if p < 0.001 else f"p = {p:.3f}".replace("0.", ".")
        points = f"{_signed(d.difference)} points of AUC [{_signed(d.low)}, {_signed(d.high)}]"
        return f"{self.title} ({points}, {p}, {self.time:.1f} times the training time)"


def which_to_take(cells: Sequence[Cell], comparisons: Mapping[str, Comparison]) -> str:
    """Say which methods differ from the plain network by more than chance, and which to take."""
    baseline = next(cell for cell in cells if cell.run.baseline is None)
    verdicts = list(_verdicts(cells, baseline, comparisons))
    if not verdicts:
        return (
            "Nothing can be compared yet: it takes the plain network and another method, each "
            "trained with the same two seeds or more."
        )
    better = [v for v in verdicts if v.differs and v.difference.difference > 0]
    worse = [v for v in verdicts if v.differs and v.difference.difference < 0]
    others = [v for v in verdicts if not v.differs]
    says = [_the_plain_network(baseline, len(verdicts))]
    if better:
        says.append(f"Better than it by more than chance: {_joined(better)}.")
    if worse:
        says.append(f"Worse by more than chance: {_joined(worse)}.")
    if others:
        visible = np.median([v.difference.high - v.difference.difference for v in others])
        none = f"For {_titles(others)} no difference could be shown."
        if not (better or worse):
            none = "None of them differs from it by more than chance."
        says.append(
            f"{none} That does not prove that there is no difference: with these images and seeds, "
            f"one of less than about {visible:.1f} points would go unnoticed."
        )
    says.append(
        "All methods end in a network of the same size and speed; only training takes longer."
    )
    says.append(_advice(better))
    untested = [
        cell.run.row["Method"]
        for cell in cells
        if cell is not baseline and cell.run.row["Method"] not in {v.title for v in verdicts}
    ]
    if untested:
        says.append(f"Not compared, for want of finished runs: {', '.join(untested)}.")
    return " ".join(says)


def _verdicts(
    cells: Sequence[Cell], baseline: Cell, comparisons: Mapping[str, Comparison]
) -> Iterator[Verdict]:
    found = {}
    for cell in cells:
        compared = comparisons.get(cell.run.name)
        if compared is not None and len(compared.delong) > 1:
            joined = comparison.over_seeds(compared.delong)
            points = Difference(*(100 * x for x in joined[:4]), joined.p_value)
            found[cell.run.name] = cell, points
    corrected = comparison.holm([points.p_value for _, points in found.values()])
    plain = np.median([each.result["seconds"] for each in baseline.trained] or [math.nan])
    for (cell, points), p_value in zip(found.values(), corrected, strict=True):
        seconds = np.median([each.result["seconds"] for each in cell.trained])
        yield Verdict(cell.run.row["Method"], points, p_value, float(seconds / plain))


def _the_plain_network(baseline: Cell, methods: int) -> str:
    scores = baseline.percent("test", "auc")
    count = len(baseline.predicted[0].labels)
    compared = "One other method was" if methods == 1 else f"{methods} other methods were"
    return (
        f"On the {count} test images of {dataset_title(baseline)} the plain network reaches an AUC "
        f"of {np.mean(scores):.1f} %: of an image with a finding and one without, it gives the "
        f"former the higher score in {np.mean(scores):.0f} of 100 cases. {compared} compared with "
        f"it, each trained {len(scores)} times; what follows allows for their number."
    )


def _advice(better: Sequence[Verdict]) -> str:
    if not better:
        return "Take the plain network: no other method has earned its time here."
    best = max(better, key=lambda v: v.difference.difference)
    text = (
        f"Take {best.title}: it has the highest AUC of those that are better. (The best of several "
        "looks a little better than it is.)"
    )
    near = [
        v
        for v in better
        if v.time < 0.9 * best.time and v.difference.difference > best.difference.difference - 0.5
    ]
    if near:
        cheap = min(near, key=lambda v: v.time)
        text += f" {cheap.title} is within half a point of it and trains faster."
    return text


def _joined(verdicts: Sequence[Verdict]) -> str:
    ordered = sorted(verdicts, key=lambda v: -abs(v.difference.difference))
    return "; ".join(map(str, ordered))


def _titles(verdicts: Sequence[Verdict]) -> str:
    *most, last = [verdict.title for verdict in verdicts]
    return f"{', '.join(most)} and {last}" if most else last


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


# ------------------------------------------------------------------------------ more labels


def more_labels(cells: Sequence[Cell]) -> Iterator[str]:
    """Say of each method what more labels would bring."""
    for method, (curve, unit) in learning_curves(cells, "auc").items():
        yield f"{method}: {learning_curve.sentence(curve, 'AUC', unit=unit)}"


def learning_curves(
    cells: Sequence[Cell], score: str
) -> dict[str, tuple[learning_curve.LearningCurve, str]]:
    """Fit a curve to the runs of each method; returns it with the unit of its labels.

    Labels are counted, unless the data cannot be counted without reading it: then the unit is the
    whole training split.
    """
    points: dict[str, tuple[list[float], list[float]]] = {}
    counted = True
    for cell in cells:
        counted = counted and training_images(cell.config) is not None
    for cell in cells:
        labels, scores = points.setdefault(method_of(cell), ([], []))
        share = training_images(cell.config) if counted else cell.config.data.train_fraction
        for value in cell.percent("test", score):
            if math.isfinite(value):
                labels.append(float(share or 0))
                scores.append(value)
    unit = "labels" if counted else "times the labels"
    return {
        method: (learning_curve.fit(labels, scores), unit)
        for method, (labels, scores) in points.items()
        if scores
    }


def method_of(cell: Cell) -> str:
    """Name a run by its row without the number of its labels."""
    return ", ".join(text for title, text in cell.run.row.items() if title != "Labels")
