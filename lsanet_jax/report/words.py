"""What a sweep says in plain words: which method to take, and what more labels would bring."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from lsanet_jax import metrics
from lsanet_jax.evaluation import comparison, learning_curve, small_samples, statistics
from lsanet_jax.evaluation.statistics import Difference
from lsanet_jax.report import tables
from lsanet_jax.report.folds import Joined
from lsanet_jax.report.results import Cell, Comparison, Trained
from lsanet_jax.report.tables import Table, dataset_title
from lsanet_jax.sweeps.estimate import training_images

_LEVEL = 0.05
_MOST_VISIBLE = 30.0  # Points of AUC: what is only found from there on is hardly a test.


def of(
    name: str,
    cells: Sequence[Cell],
    verdicts: Sequence["Verdict"] = (),
    joined: Sequence[Joined] = (),
) -> list[str]:
    """Return the paragraphs of a sweep; none but for compare and label_efficiency."""
    if name == "compare":
        return [which_to_take(cells, verdicts, joined)]
    if name == "label_efficiency":
        return list(more_labels(cells))
    return []


# ------------------------------------------------------------------------------ which method


class Tests(NamedTuple):
    """What tells whether a method differs from the plain network."""

    title: str
    of_seeds: Sequence[Difference]  # in AUC
    aucs: Sequence[float]  # in [0, 1], of these seeds; beside them the plain network's
    plain_aucs: Sequence[float]
    seconds: float  # of training


class Verdict(NamedTuple):
    """A method against the plain network."""

    title: str
    difference: Difference  # of the AUC, in percentage points
    p_value: float  # corrected for the number of methods; that of the difference is not
    time: float  # of training, in that of the plain network
    seeds: int = 0  # that both were trained with
    visible: float = math.nan  # difference that the strictest of the corrected tests finds

    @property
    def differs(self) -> bool:
        """Whether the difference is more than chance."""
        return self.p_value < _LEVEL

    @property
    def tested(self) -> bool:
        """Whether the test images tell how much of a difference chance would make."""
        return not math.isnan(self.p_value)

    def __str__(self):
        gain, interval, p, time = self.texts
        points = f"{gain} points of AUC, 95 % interval {interval}"
        p = p if p.startswith("<") else f"= {p}"
        return f"{self.title} ({points}, p {p}, {time} the training time)"

    @property
    def texts(self) -> tuple[str, str, str, str]:
        """The difference, its interval, the p-value and the time of training."""
        of, p = self.difference, tables.p_text(self.p_value)
        interval = tables.NONE if math.isnan(of.low) else f"[{_signed(of.low)}, {_signed(of.high)}]"
        return _signed(of.difference), interval, p, f"{self.time:.1f} times"


def which_to_take(
    cells: Sequence[Cell],
    verdicts: Sequence[Verdict],
    joined: Sequence[Joined] = (),
) -> str:
    """Say which methods differ from the plain network by more than chance, and which to take."""
    baseline = next(cell for cell in cells if cell.run.baseline is None)
    if not verdicts:
        why = next((f" ({each.why_not})" for each in joined if each.why_not), "")
        return (
            "Nothing can be compared yet: it takes the plain network and another method, each "
            f"trained with the same two seeds or more{why}."
        )
    plain = next((each for each in joined if each.baseline is None), baseline)
    if not any(v.tested for v in verdicts):
        return (
            f"The test images of {dataset_title(baseline)} do not tell which method is better: "
            f"{_why_untested(plain)}. Take more test images, or --folds if they are in a folder."
        )
    better = [v for v in verdicts if v.differs and v.difference.difference > 0]
    worse = [v for v in verdicts if v.differs and v.difference.difference < 0]
    others = [v for v in verdicts if v.tested and not v.differs]
    says = [_the_plain_network(plain, dataset_title(baseline), verdicts)]
    if better:
        says.append(f"Better than it by more than chance: {_joined(better)}.")
    if worse:
        says.append(f"Worse by more than chance: {_joined(worse)}.")
    if others:
        visible = np.median([v.visible for v in others])
        none = f"For {_titles(others)} no difference could be shown."
        if not (better or worse):
            none = "None of them differs from it by more than chance."
        missed = f"one of less than about {visible:.1f} points would probably be missed"
        if visible > _MOST_VISIBLE:
            missed = "even a large one would be missed"
        says.append(
            f"{none} That does not prove that there is no difference: with these images and "
            f"repeats, {missed}."
        )
    says.append(
        "All methods end in a network of the same size and speed; only training takes longer."
    )
    says.append(_advice(better, others))
    titles = {baseline.run.row["Method"], *(v.title for v in verdicts)}
    methods = dict.fromkeys(cell.run.row["Method"] for cell in cells)
    if undefined := [v for v in verdicts if not v.tested]:
        says.append(f"Without a test: {_titles(undefined)} ({_why_untested(plain)}).")
    untested = [method for method in methods if method not in titles]
    if untested:
        says.append(f"Not compared, for want of finished runs: {', '.join(untested)}.")
    return " ".join(says)


def verdicts_on(
    cells: Sequence[Cell],
    comparisons: Mapping[str, Comparison],
    joined: Sequence[Joined] = (),
) -> list[Verdict]:
    """Test each method against the plain network, and correct for their number."""
    tests = _tests_in_folds(joined) if joined else _tests(cells, comparisons)
    return list(_verdicts(tests, _seconds([c for c in cells if c.run.baseline is None])))


def table(verdicts: Sequence[Verdict]) -> Table:
    """Show them, as the paragraph uses them."""
    rows = []
    for each in verdicts:
        gain, interval, *others = each.texts
        rows.append([*map(tables.Entry, (each.title, f"{gain} {interval}", *others))])
    return Table(
        title="All methods against the plain network",
        labels=["Method"],
        columns=["AUC [95 %]", "p, corrected", "training time"],
        rows=rows,
    )


def _verdicts(tests: Sequence[Tests], plain: float) -> Iterator[Verdict]:
    found = list(_over_seeds(tests))
    corrected = comparison.holm([each.p_value for each in found])
    strictest = _over_seeds(tests, _LEVEL / max(1, np.isfinite(corrected).sum()))
    for each, of, wide, p_value in zip(tests, found, strictest, corrected, strict=True):
        points = Difference(
            100 * of.difference, 100 * of.standard_error, 100 * of.low, 100 * of.high, of.p_value
        )
        visible = 100 * (wide.high - wide.difference)
        time = each.seconds / plain
        points = points._replace(low=max(points.low, -100.0), high=min(points.high, 100.0))
        yield Verdict(each.title, points, p_value, time, len(each.of_seeds), visible)


def _over_seeds(tests: Sequence[Tests], level: float = _LEVEL) -> Iterator[Difference]:
    """Join the seeds of each method; the plain network's spread counts once, with most seeds.

    It enters every comparison, so it is not taken to be smaller than it looks: where it is larger
    than the others', moving it towards them would make false claims of all methods at once.
    """
    plain = max((each.plain_aucs for each in tests), key=len, default=())
    spreads = comparison.spreads_of([plain, *(each.aucs for each in tests)])
    if spreads:
        own = float(np.var(plain, ddof=1))
        spreads[0] = spreads[0]._replace(variance=max(own, spreads[0].variance))
    for i, each in enumerate(tests, start=1):
        of_both = [spreads[0], spreads[i]] if spreads else ()
        yield comparison.over_seeds(each.of_seeds, of_both, level=level)


def _tests(cells: Sequence[Cell], comparisons: Mapping[str, Comparison]) -> list[Tests]:
    plain = {s: auc for c in cells if not c.run.baseline for s, auc in _aucs(c).items()}
    found = []
    for cell in cells:
        of_both = comparisons.get(cell.run.name)
        if of_both is None or len(of_both.delong) < 2:
            continue
        own, title = _aucs(cell), cell.run.row["Method"]
        aucs, before = ([each[seed] for seed in of_both.seeds] for each in (own, plain))
        found.append(Tests(title, of_both.delong, aucs, before, _seconds([cell])))
    return found


def _aucs(cell: Cell) -> dict[int, float]:
    """Of each finished seed, in [0, 1]; nan if it is not defined."""
    percent = zip(cell.trained, cell.percent("test", "auc"), strict=True)
    return {trained.job.seed: auc / 100 for trained, auc in percent}


def _tests_in_folds(joined: Sequence[Joined]) -> list[Tests]:
    """Test each method on the images of all folds; images of a patient are drawn together."""
    plain = next(each for each in joined if each.baseline is None)
    before = dict(zip(plain.seeds, plain.tested, strict=True))
    found = []
    for each in joined:
        pairs = zip(each.seeds, each.tested, strict=True)
        same = [(before[seed], after) for seed, after in pairs if seed in before]
        if each is plain or len(same) < 2:
            continue
        tests = [
            statistics.delong_difference(
                new.labels,
                old.probabilities[-1],
                new.probabilities[-1],
                each.task,
                new.groups or None,
            )
            for old, new in same
        ]
        plains, own = (
            [metrics.auc(of.labels, of.probabilities[-1], each.task) for of in tested]
            for tested in zip(*same, strict=True)
        )
        title = each.cells[0].run.row["Method"]
        found.append(Tests(title, tests, own, plains, _seconds(each.cells)))
    return found


def _seconds(cells: Sequence[Cell]) -> float:
    """Median time of training, in seconds; nan without a finished run."""
    found = [each.result["seconds"] for cell in cells for each in cell.trained]
    return float(np.median(found)) if found else math.nan


def _why_untested(plain: Cell | Joined) -> str:
    """Name the classes that a test needs more images of."""
    labels, task, names, groups = _tested_on(plain)
    known, has = labels >= 0, labels == 1
    if task != "multi-label":
        has = labels[:, None] == np.arange(len(names))
        known = np.ones_like(has)
    units = np.unique(groups, return_inverse=True)[1] if groups else np.arange(len(labels))
    sides = [small_samples.sides(*of, units) for of in zip(has.T, known.T, strict=True)]
    fewest = [min(side) for side in sides]
    # A class without any is in no AUC, unless no class is.
    few = [name for name, count in zip(names, fewest, strict=True) if count == min(1, max(fewest))]
    if not few:
        return "the scores of the methods do not vary enough for a test"
    which = f"{', '.join(few)} {'have' if len(few) > 1 else 'has'}"
    what = "patients or other groups" if groups else "images"
    return f"a test takes two {what} with and two without each finding, and {which} fewer"


def _tested_on(plain: Cell | Joined) -> tuple[np.ndarray, str, Sequence[str], Sequence[int]]:
    """Return labels, task, class names and groups of what the plain network was tested on."""
    if isinstance(plain, Joined):
        first = plain.tested[0]
        return first.labels, plain.task, tables.class_names(plain.cells[0]), first.groups
    first = plain.predicted[0]
    groups = first.predictions.groups if first.predictions else ()
    return first.labels, first.result["task"], tables.class_names(plain), groups


def _the_plain_network(plain: Cell | Joined, data: str, verdicts: Sequence[Verdict]) -> str:
    seeds = sorted({v.seeds for v in verdicts})
    times = f"{' to '.join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))} times"
    if isinstance(plain, Joined):
        auc = 100 * plain.scores["auc"].value
        times += f" in each of {len(plain.cells)} folds"
    else:
        auc = float(np.mean(plain.percent("test", "auc")))
    labels, task, *_ = _tested_on(plain)
    count, methods = len(labels), len(verdicts)
    averaged = "" if task == "binary-class" else ", on average over the classes"
    compared = f"One other method was compared with it, each trained {times}."
    if methods > 1:
        compared = (
            f"{methods} other methods were compared with it, each trained {times}; the p-values "
            "allow for their number, the intervals do not."
        )
    return (
        f"On the {count} test images of {data} the plain network reaches an AUC of {auc:.1f} %: of "
        "an image with a finding and one without, it gives the former the higher score in "
        f"{auc:.{0 if auc < 99 else 1}f} of 100 cases{averaged}. {compared}"
    )


def _advice(better: Sequence[Verdict], others: Sequence[Verdict] = ()) -> str:
    if not better:
        near = [v for v in others if v.difference.p_value < _LEVEL and v.difference.difference > 0]
        if not near:
            return "Take the plain network: no other method has earned its time here."
        nearest = min(near, key=lambda v: v.difference.p_value)
        return (
            f"Take the plain network for now. Nearest to a difference came {nearest}: more test "
            "images, or new seeds in another workdir such as --seeds=3,4,5,6,7, may tell."
        )
    best = max(better, key=lambda v: v.difference.difference)
    why = "it has the highest AUC of those that are better."
    if len(better) == 1:
        why = (
            "it is the only one that is shown to be better than the plain network, though not that "
            "it is better than the others."
        )
    text = f"Take {best.title}: {why}"
    if len(better) + len(others) > 1:
        text += " The best of several looks a little better than it is."
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
    if math.isnan(value):
        return tables.NONE
    digits = 2 if f"{abs(value):.1f}" == "0.0" and value else 1  # so that its side of 0 shows
    return f"{value:+.{digits}f}".replace("-", "−")


# ------------------------------------------------------------------------------ more labels


def more_labels(cells: Sequence[Cell]) -> Iterator[str]:
    """Say of each method what more labels would bring."""
    same: dict[int | None, list[str]] = {}
    for cell in cells:
        for count in {_labels_of(cell, trained) for trained in cell.trained}:
            own = same.setdefault(count, [])
            own += [share] if (share := cell.run.row.get("Labels", "")) not in own else []
    for count, shares in same.items():
        if count is not None and len(shares) > 1:
            yield (
                f"{' and '.join(shares)} of the labels are the same {count}, since each class has "
                "one at least: such runs count once."
            )
    for method, (curve, unit) in learning_curves(cells, "auc").items():
        yield f"{method}: {learning_curve.sentence(curve, 'AUC', unit=unit)}"


def learning_curves(
    cells: Sequence[Cell], score: str
) -> dict[str, tuple[learning_curve.LearningCurve, str]]:
    """Fit a curve to the runs of each method; returns it with the unit of its labels.

    Labels are counted. Runs of earlier versions did not record their number; if it cannot be told
    from their config either, the unit is the whole training split.
    """
    # By labels and seed: small shares of few images may be the same labels, and so the same run.
    points: dict[str, dict[tuple[float, int], float]] = {}
    runs = [(cell, trained) for cell in cells for trained in cell.trained]
    counted = all(_labels_of(*run) is not None for run in runs)
    for cell in cells:
        own = points.setdefault(method_of(cell), {})
        for trained, value in zip(cell.trained, cell.percent("test", score), strict=True):
            if math.isfinite(value):
                count = _labels_of(cell, trained) if counted else cell.config.data.train_fraction
                own.setdefault((float(count or 0), trained.job.seed), value)
    unit = "labels" if counted else "times the labels"
    return {
        method: (learning_curve.fit([count for count, _ in own], [*own.values()]), unit)
        for method, own in points.items()
        if own
    }


def _labels_of(cell: Cell, trained: Trained) -> int | None:
    recorded = trained.manifest["dataset"].get("labelled")
    return training_images(cell.config) if recorded is None else recorded


def method_of(cell: Cell) -> str:
    """Name a run by its row without the number of its labels."""
    return ", ".join(text for title, text in cell.run.row.items() if title != "Labels")
