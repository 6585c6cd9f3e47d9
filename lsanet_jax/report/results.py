"""The finished runs of a sweep: reads them, checks them against each other, compares them."""

import dataclasses
import json
import math
import pathlib
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Float, Int

from lsanet_jax import metrics
from lsanet_jax.config import flatten
from lsanet_jax.data.dataset import TASKS
from lsanet_jax.errors import DataError, WorkdirError
from lsanet_jax.evaluation import statistics
from lsanet_jax.runs.layout import ENVIRONMENTS, MANIFEST, METRICS, PREDICTIONS, RESULT
from lsanet_jax.runtime.files import read_json
from lsanet_jax.sweeps import spec


class Predictions(NamedTuple):
    """The classifiers' predictions for the test split, at the epoch that the run reports."""

    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n k"]
    probabilities: Float[np.ndarray, "l n k"]  # shallow to deep; the last is the network's own
    names: tuple[str, ...] = ()  # of the images, if they were files
    groups: tuple[int, ...] = ()  # numbers of their patients or other groups, if they are known


class Trained(NamedTuple):
    """A finished training run."""

    job: spec.Job
    result: dict
    manifest: dict
    environments: list[dict]  # in which it was started and resumed
    epochs: list[dict]  # the lines of metrics.jsonl; empty if there is no such file
    predictions: Predictions | None  # None if it was trained before runs wrote them

    @property
    def labels(self) -> Int[np.ndarray, " n"] | Int[np.ndarray, "n k"]:
        """The labels of the test split, of a run that has predictions."""
        assert self.predictions is not None
        return self.predictions.labels

    @property
    def own(self) -> Float[np.ndarray, "n k"]:
        """The probabilities of the network's own classifier, of a run that has predictions."""
        assert self.predictions is not None
        return self.predictions.probabilities[-1]


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a sweep with all of its seeds.

    Attributes:
        run: of the sweep.
        config: of its first seed.
        trained: the finished runs, in the order of the seeds.
        failed: the reason of those that failed, by seed.
        missing: the seeds that are not finished.
    """

    run: spec.Run
    config: ml_collections.ConfigDict
    trained: tuple[Trained, ...]
    failed: dict[int, str]
    missing: tuple[int, ...]

    @property
    def dataset(self) -> str:
        """The name of the data that was used; before training, of the config's data."""
        if self.trained:
            return " and ".join(dict.fromkeys(each.result["dataset"] for each in self.trained))
        data, path = self.config.data, pathlib.Path(self.config.data.path).expanduser()
        if data.name == "folder":
            return path.resolve().name
        return path.stem if data.name == "npz" else data.name

    @property
    def predicted(self) -> tuple[Trained, ...]:
        """The finished runs that have predictions."""
        return tuple(each for each in self.trained if each.predictions is not None)

    def percent(self, *path: str) -> list[float]:
        """Read a score, such as ("test", "auc"), of each run in percent; nan if undefined."""
        scores = []
        for each in self.trained:
            value: Any = each.result
            for key in path:
                value = value[key]
            scores.append(math.nan if value is None else 100 * value)
        return scores


class Comparison(NamedTuple):
    """A run against its baseline, for the seeds that both have, in percentage points."""

    seeds: tuple[int, ...]
    acc: statistics.Bootstrap  # the interval is nan if predictions are missing
    auc: statistics.Bootstrap
    delong: tuple[statistics.Difference, ...]  # of the AUC, by seed; empty without predictions


def collect(swept: spec.Sweep, workdir: str | pathlib.Path) -> list[Cell]:
    """Read the runs in a sweep's workdir, in the order of the table.

    Raises:
        WorkdirError: a file is damaged, contradicts another file of its run, or belongs to a run of
            another config; it is named. Or the data changed between two runs.
    """
    jobs = spec.jobs(swept, workdir)
    cells = []
    for run in swept.runs:
        trained, failed, missing = [], {}, []
        for job in (job for job in jobs if job.run is run):
            result = spec.result(swept, job)
            if result is not None:
                trained.append(_read(job, result))
            elif job.error.exists():
                failed[job.seed] = str(read_json(job.error).get("error", "no reason is given"))
            else:
                missing.append(job.seed)
        config = spec.resolve(swept, run, swept.seeds[0])
        cells.append(Cell(run, config, tuple(trained), failed, tuple(missing)))
    _check_same_data(cells)
    return cells


def _check_same_data(cells: list[Cell]) -> None:
    """Check that runs that ask for the same data had the same: its file may have been replaced."""
    first = {}
    for cell in cells:
        data = cell.config.data
        drawn = data.train_fraction != 1 or data.train_per_class
        for each in cell.trained:
            if (fingerprint := each.manifest["dataset"].get("fingerprint")) is None:
                continue
            asked = str(sorted(flatten(data))), each.job.seed if drawn else None
            other, known = first.setdefault(asked, (each, fingerprint))
            if fingerprint != known:
                raise WorkdirError(
                    f"{other.job.name} and {each.job.name} were not trained on the same data, "
                    "although their configs are for the same: the fingerprints in their "
                    f"{MANIFEST} differ. Remove the runs on the wrong data from the workdir, and "
                    "train them again"
                )


def compare(cell: Cell, baseline: Cell, *, resamples: int = 2000) -> Comparison | None:
    """Compare a run with its baseline; None if no seed is finished in both.

    Intervals are by `statistics.paired_bootstrap`, over test samples and seeds.

    Raises:
        WorkdirError: the two were tested on different images.
    """
    of = {each.job.seed: each for each in baseline.trained}
    pairs = [(of[each.job.seed], each) for each in cell.trained if each.job.seed in of]
    if not pairs:
        return None
    seeds = tuple(each.job.seed for _, each in pairs)
    if any(each.predictions is None for pair in pairs for each in pair):
        acc, auc = (_difference_of_means(cell, baseline, seeds, name) for name in ("acc", "auc"))
        return Comparison(seeds, acc, auc, ())
    first = pairs[0][0]
    for each in (each for pair in pairs for each in pair):
        same = np.array_equal(first.labels, each.labels)
        if not same or first.result["task"] != each.result["task"]:
            raise WorkdirError(
                f"{first.job.name} and {each.job.name} were not tested on the same images: the "
                f"labels in their {PREDICTIONS} differ. Train one of them again on the data of the "
                "other"
            )
    labels, task = first.labels, first.result["task"]

    known = (labels >= 0).reshape(len(labels), -1)

    def terms(each: Trained) -> Float[np.ndarray, "n 2"]:
        """How many of each image's known labels are right, and how many are known."""
        right = metrics.right(labels, each.own, task).reshape(len(labels), -1) & known
        return np.stack([right.sum(axis=1), known.sum(axis=1)], axis=1).astype(np.float64)

    a, b = zip(*pairs, strict=True)
    acc = statistics.paired_bootstrap(
        lambda _, values: np.divide(*values.sum(axis=0)) if values[:, 1].any() else math.nan,
        labels,
        [terms(each) for each in a],
        [terms(each) for each in b],
        resamples=resamples,
    )
    auc = statistics.paired_bootstrap_auc(
        labels, [each.own for each in a], [each.own for each in b], task, resamples=resamples
    )
    tests = [statistics.delong_difference(labels, x.own, y.own, task) for x, y in pairs]
    return Comparison(seeds, _percent(acc), _percent(auc), tuple(tests))


def curves(cell: Cell, read) -> dict[int, Float[np.ndarray, "seeds epochs"]]:
    """Read `read(line, stage)` of each line of metrics.jsonl, for the stages that have it."""
    logs = [each.epochs for each in cell.trained if each.epochs]
    if not logs:
        return {}
    found = {}
    length = min(map(len, logs))
    for stage in (c["stage"] for c in cell.trained[0].result["classifiers"]):
        try:
            rows = [[read(line, stage) for line in log[:length]] for log in logs]
        except (KeyError, StopIteration):
            continue
        found[stage] = np.array(rows, np.float64)
    return found


def train_curve(name: str):
    """Return a `read` for `curves`: a mean over each training epoch, such as "acc" or "beta"."""
    return lambda line, stage: line["train"][f"{name}_stage{stage}"]


def val_curve(name: str):
    """Return a `read` for `curves`: a score on the validation split, such as "auc"."""
    return lambda line, stage: next(
        c[name] for c in line["val"]["classifiers"] if c["stage"] == stage
    )


def _difference_of_means(cell, baseline, seeds: Sequence[int], name) -> statistics.Bootstrap:
    means = []
    for each in (baseline, cell):
        pairs = zip(each.trained, each.percent("test", name), strict=True)
        means.append(np.mean([score for trained, score in pairs if trained.job.seed in seeds]))
    return statistics.Bootstrap(float(means[1] - means[0]), math.nan, math.nan, 0)


def _percent(found: statistics.Bootstrap) -> statistics.Bootstrap:
    difference, low, high = (100 * value for value in found[:3])
    return statistics.Bootstrap(difference, low, high, found.dropped)


def _read(job: spec.Job, result: dict) -> Trained:
    _check_result(job, result)
    manifest = read_json(job.workdir / MANIFEST)
    if not isinstance(manifest.get("environment"), dict) or not isinstance(
        manifest.get("dataset"), dict
    ):
        raise _damaged(job, MANIFEST, "it has no dataset or no environment")
    environments = [manifest["environment"]]
    for number, line in enumerate(_read_lines(job, ENVIRONMENTS), start=1):
        if not isinstance(line, dict):
            raise _damaged(job, ENVIRONMENTS, f"line {number} is not an object")
        environments.append(line)
    predictions = _read_predictions(job, result)
    return Trained(job, result, manifest, environments, _read_epochs(job), predictions)


def _check_result(job: spec.Job, result: dict) -> None:
    try:
        scores = [result["test"], result["last_epoch"]["test"], *result["classifiers"]]
        fractions = [score["acc"] for score in scores]
        fractions += [score["auc"] for score in scores if score["auc"] is not None]
        wrong = [value for value in fractions if not 0 <= value <= 1]
        stages = [classifier["stage"] for classifier in result["classifiers"]]
        if wrong or not stages:
            raise ValueError(f"{wrong[0]} is not a fraction" if wrong else "it has no classifiers")
        if result["task"] not in TASKS or not isinstance(result["dataset"], str):
            raise ValueError(f"task {result['task']!r} of dataset {result['dataset']!r}")
        if result["seed"] != job.seed:
            raise ValueError(f"its seed is {result['seed']}")
        if [result["test"][key] for key in ("acc", "auc")] != [
            result["classifiers"][-1][key] for key in ("acc", "auc")
        ]:
            raise ValueError("test differs from the last of classifiers")
        float(result["seconds"])
        int(result["best_epoch"])
    except KeyError as error:
        raise _damaged(job, RESULT, f"{error} is missing") from error
    except (TypeError, ValueError) as error:
        raise _damaged(job, RESULT, error) from error


def _read_lines(job: spec.Job, name: str) -> list[Any]:
    """Read the lines of a JSON Lines file; none if there is no such file."""
    file = job.workdir / name
    if not file.exists():
        return []
    try:
        texts = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise _damaged(job, name, error) from error
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(json.loads(text))
        except ValueError as error:
            raise _damaged(job, name, f"line {number}: {error}") from error
    return lines


def _read_epochs(job: spec.Job) -> list[dict]:
    lines = _read_lines(job, METRICS)
    for number, line in enumerate(lines, start=1):
        try:
            stages = [classifier["stage"] for classifier in line["val"]["classifiers"]]
            if not stages or not isinstance(line["train"], dict) or line["epoch"] != number:
                raise ValueError("expected the record of that epoch")
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(job, METRICS, f"line {number}: {error}") from error
    return lines


def _read_predictions(job: spec.Job, result: dict) -> Predictions | None:
    file = job.workdir / PREDICTIONS
    if not file.exists():
        return None
    try:
        with np.load(file, allow_pickle=False) as arrays:
            labels, probabilities = arrays["labels"], arrays["probabilities"]
            epoch = int(arrays["epoch"])
            names, groups = (
                tuple(arrays[name].tolist()) if name in arrays else ()
                for name in ("names", "groups")
            )
    except KeyError as error:
        raise _damaged(job, PREDICTIONS, error.args[0]) from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(job, PREDICTIONS, error) from error
    task, shape = result["task"], probabilities.shape
    count = len(result["classifiers"])
    wanted = shape[1:] if task == "multi-label" else shape[1:2]
    if len(shape) != 3 or 0 in shape or shape[0] != count or labels.shape != wanted:
        found = f"labels of shape {labels.shape} and probabilities of shape {shape}"
        raise _damaged(job, PREDICTIONS, f"{found} for {count} classifiers and {task}")
    for name, values in (("names", names), ("groups", groups)):
        if len(values) not in (0, len(labels)):
            found = f"{len(values)} {name} for {len(labels)} labels"
            raise _damaged(job, PREDICTIONS, found)
    if epoch != result["best_epoch"]:
        found = f"they are for epoch {epoch}, {RESULT} for epoch {result['best_epoch']}"
        raise _damaged(job, PREDICTIONS, found)
    for classifier, own in zip(result["classifiers"], probabilities, strict=True):
        try:
            statistics.recall_per_class(labels, own, task)  # which checks both
        except DataError as error:
            raise _damaged(job, PREDICTIONS, error) from error
        auc, _ = statistics.auc_variance(labels, own, task)
        acc = metrics.accuracy(labels, own, task)
        for name, here, there in (
            ("accuracy", acc, classifier["acc"]),
            ("AUC", auc, math.nan if classifier["auc"] is None else classifier["auc"]),
        ):
            if not np.isclose(here, there, rtol=0, atol=1e-5, equal_nan=True):
                found = (
                    f"the {name} of stage {classifier['stage']} is {here:.6f} by them but "
                    f"{there:.6f} in {RESULT}"
                )
                raise _damaged(job, PREDICTIONS, found)
    return Predictions(labels, probabilities, names, groups)


def _damaged(job: spec.Job, name: str, found: object) -> WorkdirError:
    return WorkdirError(
        f"{job.workdir / name} is damaged or belongs to another run ({found}); restore it, or "
        f"remove {job.workdir} and train {job.name} again"
    )
