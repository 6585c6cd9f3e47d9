"""The finished runs of a sweep: reads them, checks them against each other, compares them."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Float, Int

from lsanet_jax.config import flatten
from lsanet_jax.data.dataset import TASKS
from lsanet_jax.errors import WorkdirError
from lsanet_jax.evaluation import statistics
from lsanet_jax.runs import seal, stored
from lsanet_jax.runs.layout import ENVIRONMENTS, MANIFEST, METRICS, PREDICTIONS, RESULT
from lsanet_jax.runs.result import SCORES
from lsanet_jax.runs.stored import Predictions
from lsanet_jax.runs.workdir import read_manifest, read_result
from lsanet_jax.runtime import strict_json
from lsanet_jax.runtime.strict_json import Each, Maybe
from lsanet_jax.sweeps import spec

_EPOCH_SHAPE = {
    "epoch": int,
    "train": Each((float, None)),
    "val": {"classifiers": [Each((float, None))]},
}

_UNKNOWN = statistics.Bootstrap(math.nan, math.nan, math.nan, 0)


class Trained(NamedTuple):
    """A finished training run."""

    job: spec.Job
    result: dict
    manifest: dict
    environments: list[dict]  # in which it was started and resumed
    epochs: list[dict]  # the lines of metrics.jsonl; empty if there is no such file
    predictions: Predictions | None  # None if it was trained before runs wrote them
    looks: int | None = None  # evaluations on the test split; None if it was trained before seals

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
        data, path = self.config.data, pathlib.Path(os.path.expanduser(self.config.data.path))
        if data.name == "folder":
            return path.resolve().name
        return path.stem if data.name == "npz" else data.name

    @property
    def num_seeds(self) -> int:
        """How many were asked for."""
        return len(self.trained) + len(self.failed) + len(self.missing)

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
    """A run against its baseline, for the seeds that both have, in percentage points.

    Without predictions the intervals are nan, and of the balanced accuracy the difference too.
    """

    seeds: tuple[int, ...]
    acc: statistics.Bootstrap
    balanced_acc: statistics.Bootstrap
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
            if spec.result(swept, job) is not None:
                trained.append(_read(job))
            elif job.error.exists():
                failed[job.seed] = _reason(job)
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

    Intervals are by `statistics.paired_bootstrap_score`, over the patients of the test split, or
    its images if patients are unknown, and seeds.

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
        return Comparison(seeds, acc, _UNKNOWN, auc, ())
    runs = [each for pair in pairs for each in pair]
    first = runs[0]
    for each in runs:
        if differs := _tested_otherwise(first, each):
            raise WorkdirError(
                f"{first.job.name} and {each.job.name} were not tested on the same images: the "
                f"{differs} in their {PREDICTIONS} differ. Train one of them again on the data of "
                "the other"
            )
    assert first.predictions is not None
    labels, task, groups = first.labels, first.result["task"], first.predictions.groups or None
    a, b = ([each.own for each in runs] for runs in zip(*pairs, strict=True))
    acc, balanced_acc, auc = (
        _percent(
            statistics.paired_bootstrap_score(
                name, labels, a, b, task, groups=groups, resamples=resamples
            )
        )
        for name in SCORES
    )
    tests = [
        statistics.delong_difference(labels, x, y, task, groups) for x, y in zip(a, b, strict=True)
    ]
    if any(math.isnan(test.standard_error) for test in tests):
        auc = auc._replace(low=math.nan, high=math.nan)  # A class has a single image, or patient.
    return Comparison(seeds, acc, balanced_acc, auc, tuple(tests))


def _tested_otherwise(one: Trained, other: Trained) -> str:
    """What of the test images differs, if they are known not to be the same."""
    same = np.array_equal(one.labels, other.labels)
    if not same or one.result["task"] != other.result["task"]:
        return "labels"
    names = [each.predictions.names if each.predictions else () for each in (one, other)]
    return "names" if all(names) and names[0] != names[1] else ""


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


def _reason(job: spec.Job) -> str:
    error = strict_json.read_json(job.error, {"error": Maybe(str)})
    return error.get("error", "no reason is given")


def _read(job: spec.Job) -> Trained:
    sealed = seal.check(job.workdir)
    result = read_result(job.workdir)
    _check_result(job, result)
    manifest = read_manifest(job.workdir)
    environments = [manifest["environment"]]
    environments += strict_json.read_json_lines(job.workdir / ENVIRONMENTS)
    epochs = strict_json.read_json_lines(job.workdir / METRICS, _EPOCH_SHAPE)
    for number, line in enumerate(epochs, start=1):
        if line["epoch"] != number or not line["val"]["classifiers"]:
            raise _damaged(job, METRICS, f"line {number}: expected the record of that epoch")
    return Trained(
        job,
        result,
        manifest,
        environments,
        epochs,
        stored.read_predictions(job.workdir, result),
        sealed["test_looks"] if sealed else None,
    )


def _check_result(job: spec.Job, result: dict) -> None:
    scores = [result["test"], result["last_epoch"]["test"], *result["classifiers"]]
    fractions = [score[name] for score in scores for name in ("acc", "auc")]
    wrong = [value for value in fractions if value is not None and not 0 <= value <= 1]
    if wrong:
        raise _damaged(job, RESULT, f"{wrong[0]} is not a fraction")
    if not result["classifiers"]:
        raise _damaged(job, RESULT, "it has no classifiers")
    if result["task"] not in TASKS:
        raise _damaged(job, RESULT, f"task is {result['task']!r}")
    if result["seed"] != job.seed:
        raise _damaged(job, RESULT, f"its seed is {result['seed']}")
    own = result["classifiers"][-1]
    if any(result["test"][name] != own[name] for name in ("acc", "auc")):
        raise _damaged(job, RESULT, "test differs from the last of classifiers")


def _damaged(job: spec.Job, name: str, found: object) -> WorkdirError:
    return WorkdirError(
        f"{job.workdir / name} is damaged or belongs to another run ({found}); restore it, or "
        f"remove {job.workdir} and train {job.name} again"
    )
