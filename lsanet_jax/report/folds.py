"""A cross-validation joined into one score: each image predicted by the fold that tested it."""

import collections
import dataclasses
import functools

import numpy as np

from lsanet_jax.errors import WorkdirError
from lsanet_jax.evaluation import statistics
from lsanet_jax.report.results import Cell, Predictions, Trained
from lsanet_jax.report.tables import Entry, Table, interval, out_of, row_of, score_interval, spread
from lsanet_jax.sweeps.spec import FOLD


@dataclasses.dataclass(frozen=True)
class Joined:
    """The folds of one run of a sweep.

    Attributes:
        name: of the run.
        cells: its folds.
        baseline: name of the run that it is compared with, if any.
        seeds: those with all folds finished.
        tested: for each of these, the predictions for all images, in the order of their names.
        why_not: why nothing could be joined; '' if it could.
    """

    name: str
    cells: tuple[Cell, ...]
    baseline: str | None
    seeds: tuple[int, ...]
    tested: tuple[Predictions, ...]
    why_not: str = ""

    @property
    def task(self) -> str:
        """The task, if anything was joined."""
        return self.cells[0].trained[0].result["task"]

    @functools.cached_property
    def scores(self) -> dict[str, statistics.Interval]:
        """ACC and AUC over all images, with intervals."""
        first = self.tested[0]
        return statistics.bootstrap_scores(
            first.labels,
            [each.probabilities[-1] for each in self.tested],
            self.task,
            groups=first.groups or None,
        )

    def against(self, other: "Joined") -> dict[str, statistics.Interval]:
        """Differences to a baseline on the same images, for the seeds that both have.

        Raises:
            WorkdirError: the two were tested on different images.
        """
        pairs = [
            (mine, theirs)
            for seed, mine in zip(self.seeds, self.tested, strict=True)
            for other_seed, theirs in zip(other.seeds, other.tested, strict=True)
            if seed == other_seed
        ]
        if not pairs:
            return {}
        first = pairs[0][0]
        for each in (each for pair in pairs for each in pair):
            if each.names != first.names or not np.array_equal(each.labels, first.labels):
                raise WorkdirError(
                    f"{self.name} and {other.name} were not tested on the same images: train one of"
                    " them again on the data of the other"
                )
        return statistics.bootstrap_scores(
            first.labels,
            [mine.probabilities[-1] for mine, _ in pairs],
            self.task,
            baseline=[theirs.probabilities[-1] for _, theirs in pairs],
            groups=first.groups or None,
        )


def join(cells: list[Cell]) -> list[Joined]:
    """Join the folds of each run, as far as all folds of a seed are finished.

    Raises:
        WorkdirError: an image was tested in two folds, or folds were trained on different data.
    """
    of_run: dict[str, list[Cell]] = collections.defaultdict(list)
    for cell in cells:
        if cell.run.fold_of is not None:
            of_run[cell.run.fold_of].append(cell)
    fold_of = {cell.run.name: cell.run.fold_of for cell in cells}
    return [
        _join(name, tuple(folds), fold_of.get(folds[0].run.baseline or ""))
        for name, folds in of_run.items()
    ]


def _join(name: str, cells: tuple[Cell, ...], baseline: str | None) -> Joined:
    by_seed: dict[int, list[Trained]] = collections.defaultdict(list)
    for cell in cells:
        for each in cell.trained:
            by_seed[each.job.seed].append(each)
    whole = {seed: found for seed, found in by_seed.items() if len(found) == len(cells)}
    why_not = "" if whole else "not all folds of a seed are finished"
    if any(
        not each.predictions or not each.predictions.names for f in whole.values() for each in f
    ):
        whole, why_not = {}, "predictions.npz does not name the images"
    elif any(len({_names(each) for each in folds}) == 1 for folds in whole.values()):
        whole, why_not = {}, "all folds have the same, given test split"
    tested = tuple(_concatenate(name, folds) for folds in whole.values())
    if any(each.names != tested[0].names for each in tested):
        raise WorkdirError(
            f"{name}: the images differ from seed to seed: train it on the same data"
        )
    return Joined(name, cells, baseline, tuple(whole), tested, why_not)


def _names(each: Trained) -> tuple[str, ...]:
    assert each.predictions is not None
    return each.predictions.names


def _concatenate(name: str, folds: list[Trained]) -> Predictions:
    """Put the predictions of all folds one after the other, sorted by the images' names."""
    parts = [each.predictions for each in folds if each.predictions is not None]
    names = [name for part in parts for name in part.names]
    counts = collections.Counter(names)
    twice = [name for name, count in counts.items() if count > 1]
    classes = {tuple(each.manifest["dataset"]["class_names"]) for each in folds}
    if twice or len(classes) > 1:
        found = f"{twice[0]!r} was tested in two folds" if twice else "the folds' classes differ"
        raise WorkdirError(
            f"{name}: {found}: the data changed while its folds were trained. Train them again"
        )
    order = sorted(range(len(names)), key=names.__getitem__)
    groups = [group for part in parts for group in part.groups]
    return Predictions(
        np.concatenate([part.labels for part in parts])[order],
        np.concatenate([part.probabilities[-1:] for part in parts], axis=1)[:, order],
        tuple(names[i] for i in order),
        tuple(groups[i] for i in order) if len(groups) == len(names) else (),
    )


def table(joined: list[Joined]) -> Table:
    """Show the joined scores, and the mean over the folds beside them."""
    by_name = {each.name: each for each in joined}
    titles = list(dict.fromkeys(title for each in joined for title in row_of(each.cells[0])))
    titles.remove(FOLD)
    compared = any(each.baseline for each in joined)
    rows = []
    for each in joined:
        labels = [row_of(each.cells[0]).get(title, "") for title in titles]
        numbers = []
        for score in ("acc", "auc"):
            text = each.why_not
            if each.tested:
                text = score_interval(each.scores[score]) + out_of(len(each.seeds), each.cells[0])
            numbers.append(text)
            numbers.append(spread([x for cell in each.cells for x in cell.percent("test", score)]))
        if compared:
            other = by_name.get(each.baseline or "")
            found = each.against(other) if other and other.tested and each.tested else {}
            both = {*each.seeds} & {*(other.seeds if other else ())}
            some = out_of(len(both), each.cells[0]) if found else ""
            numbers += [f"{interval(found.get(score))}{some}" for score in ("acc", "auc")]
        numbers += _counts(each)
        rows.append([Entry(text) for text in (*labels, *numbers)])
    columns = ["ACC [95 %]", "ACC of a fold", "AUC [95 %]", "AUC of a fold"]
    columns += ["ACC − baseline [95 %]", "AUC − baseline [95 %]"] if compared else []
    columns += ["images", "patients or groups"]
    return Table("Cross-validation: all folds joined", titles, columns, rows)


def _counts(each: Joined) -> list[str]:
    if not each.tested:
        return ["–", "–"]
    first = each.tested[0]
    return [str(len(first.names)), str(len(set(first.groups))) if first.groups else "–"]
