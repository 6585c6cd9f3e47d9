"""What there is to report of one finished run: its files, and its data."""

import collections
import dataclasses
import functools
import logging
import os
import pathlib
import posixpath
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np
from jaxtyping import Float

from lsanet_jax import data as data_lib
from lsanet_jax import predict
from lsanet_jax.data.dataset import SPLITS, Dataset
from lsanet_jax.data.sources import table as table_files
from lsanet_jax.data.sources.columns import MISSING, key
from lsanet_jax.errors import ConfigError, DataError, LSANetError, WorkdirError, near_matches
from lsanet_jax.evaluation import decisions
from lsanet_jax.evaluation.decisions import Calibration
from lsanet_jax.evaluation.resampling import Draws
from lsanet_jax.evaluation.thresholds import Rule
from lsanet_jax.runs import seal, stored
from lsanet_jax.runs.calibrated import Saved, read_calibration, read_predictions
from lsanet_jax.runs.layout import (
    ENVIRONMENTS,
    MANIFEST,
    METRICS,
    PREDICTIONS,
    RESULT,
    VALIDATION,
)
from lsanet_jax.runs.trained import read_manifest
from lsanet_jax.runs.workdir import RESULT_SHAPE, read_config
from lsanet_jax.runtime import strict_json
from lsanet_jax.runtime.strict_json import Each, Maybe

log = logging.getLogger(__name__)

_RESULT = RESULT_SHAPE | {
    **dict.fromkeys(("backbone", "objective", "selected"), str),
    "images_per_second": (float, None),
}
_NUMBERS = Each((float, None))
_EPOCH = {"train": Maybe(_NUMBERS), "val": Maybe({"classifiers": Maybe([_NUMBERS])})}
_MOST_SUBGROUPS = 50  # Of a column, each compared with the rest by resampling.


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run.

    Attributes:
        path: its folder.
        config: every field.
        manifest: its data and environment.
        resumed: the other environments in which it was resumed.
        result: its scores.
        epochs: the lines of `metrics.jsonl`.
        test: what its classifiers say of the test split.
        val: the same of the validation split; None if it was not stored.
        calibration: what was fitted on that; None if nothing was.
        dataset: its data; None if they cannot be read, or changed.
        patients: of each test image the number of its patient or other group, if these are known.
        problems: what could not be read.
        columns: subgroups of the test images, by name.
        trust_code: whether its own backbone's module may be imported.
    """

    path: pathlib.Path
    config: ml_collections.ConfigDict
    manifest: dict[str, Any]
    resumed: list[dict[str, Any]]
    result: dict[str, Any]
    epochs: list[dict[str, Any]]
    test: Saved
    val: Saved | None
    calibration: Calibration | None
    dataset: Dataset | None
    patients: tuple[int, ...]
    problems: tuple[str, ...]
    columns: dict[str, list[str]]
    trust_code: bool

    @property
    def task(self) -> str:
        """One of `lsanet_jax.data.dataset.TASKS`."""
        return self.result["task"]

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes."""
        return tuple(self.manifest["dataset"]["class_names"])

    @property
    def stages(self) -> list[int]:
        """Of the classifiers, shallow to deep."""
        return [classifier["stage"] for classifier in self.result["classifiers"]]

    @property
    def raw(self) -> Float[np.ndarray, "n k"]:
        """What the network itself says of the test split."""
        return self.test.probabilities[-1]

    @functools.cached_property
    def votes(self) -> Float[np.ndarray, "l n k"]:
        """What every classifier says of the test split, calibrated if the run is."""
        if self.calibration is None:
            return self.test.probabilities
        return decisions.calibrated(self.calibration, self.test.probabilities)

    @property
    def answer(self) -> Float[np.ndarray, "n k"]:
        """The probabilities that decide."""
        return self.votes[-1]

    @property
    def groups(self) -> Sequence[int]:
        """Of each test image its patient; none if unknown."""
        return self.dataset.test.groups if self.dataset is not None else self.patients

    @functools.cached_property
    def draws(self) -> Draws:
        """Resamples of the test split."""
        n = len(self.test.labels)
        return Draws(n, self.groups, resamples=int(np.clip(4_000_000 // n, 200, 1000)))


def read(
    workdir: str | pathlib.Path,
    *,
    rule: Rule | None = None,
    coverage: float | None = None,
    by: Sequence[str] = (),
    table: str | None = None,
    trust_code: bool = False,
) -> Finished:
    """Read a finished run, and its data if they are still there.

    Args:
        workdir: folder of the run.
        rule: of the operating points; None for the stored one.
        coverage: of the sets; None for the stored one.
        by: columns of a table, for subgroups.
        table: the table; None for that of the run's data.
        trust_code: see `trained.load`.

    Raises:
        WorkdirError: the run is not finished, or damaged.
        ConfigError: the coverage is not in (0, 1), or the table has no such column.
    """
    path = pathlib.Path(workdir).absolute()
    config = read_config(path)
    if not strict_json.exists(path / RESULT):
        raise WorkdirError(f"--workdir={path} holds no {RESULT}: the run is not finished")
    seal.check(path)
    seal.note_if_old(path)
    epochs = strict_json.read_json_lines(path / METRICS, _EPOCH)
    result, manifest = strict_json.read_json(path / RESULT, _RESULT), read_manifest(path)
    kept = stored.read_predictions(path, result)  # which checks that the scores follow from them
    test, problems = read_predictions(path / PREDICTIONS), []
    if test.probabilities.shape[2] != len(manifest["dataset"]["class_names"]):
        raise stored.damaged(path / PREDICTIONS, f"other classes than in {MANIFEST}")
    calibration = read_calibration(path, rule, coverage)
    if calibration is None:
        problems.append("The run is not calibrated: lsanet calibrate does it.")
    val = read_predictions(path / VALIDATION) if (path / VALIDATION).exists() else None
    dataset = None
    try:
        loaded = _load(config, test)
        predict.check_unchanged(loaded, manifest["dataset"].get("fingerprint"))
        dataset = loaded
    except LSANetError as error:
        problems.append(f"Without pictures, since the data cannot be read: {error}")
    columns = _columns(config, dataset, by, table) if by else {}
    return Finished(
        path,
        config,
        manifest,
        strict_json.read_json_lines(path / ENVIRONMENTS),
        result,
        epochs,
        test,
        val,
        calibration,
        dataset,
        kept.groups if kept else (),
        tuple(problems),
        columns,
        trust_code,
    )


def _load(config: ml_collections.ConfigDict, test: Saved) -> Dataset:
    dataset = data_lib.load_again(config.data, config.seed)
    if not np.array_equal(dataset.test.labels, test.labels):
        raise DataError(f"the labels of the test split differ from those in {PREDICTIONS}")
    return dataset


def _columns(
    config: ml_collections.ConfigDict,
    dataset: Dataset | None,
    by: Sequence[str],
    table: str | None,
) -> dict[str, list[str]]:
    """Read the columns of a table for the test images, which it names."""
    names = () if dataset is None else dataset.test.names
    if not names:
        raise ConfigError(
            f"--by={','.join(by)}: the run's test images have no file names to look up in a table"
        )
    if table is None and not config.data.csv:
        raise ConfigError(f"--by={','.join(by)}: name the table that has the columns with --table")
    root = pathlib.Path(os.path.expanduser(config.data.path))
    file = pathlib.Path(table) if table else root / config.data.csv
    header, rows = table_files.read_csv(file)
    by_key = {key(name): name for name in header.names}
    chosen = []
    for name in by:
        if key(name) not in by_key:
            near = near_matches(name, header.names)
            raise ConfigError(f"--by={name}: {file} has no such column{near}")
        chosen.append(by_key[key(name)])
    path = lambda name: table_files.folded(posixpath.normpath(name.strip().replace("\\", "/")))
    stem = lambda name: table_files.without_suffix(posixpath.basename(path(name)))
    value_of = lambda cell: "" if cell.strip().lower() in MISSING else cell.strip()
    wanted = {stem(name) for name in names}
    hits = {n: sum(stem(row[n]) in wanted for _, row in rows) for n in header.names}
    files = max(hits, key=lambda name: hits[name])
    if not hits[files]:
        raise ConfigError(f"--by: no column of {file} names the test images, such as {names[0]}")
    # By its path, or by its name without folder and suffix, where only one is called that.
    by_path: dict[str, dict[str, str]] = {}
    for _, row in rows:
        by_path.setdefault(path(row[files]), row)
    called = collections.Counter(stem(name) for name in by_path)
    images = collections.Counter(map(stem, names))
    by_stem = {stem(name): row for name, row in by_path.items() if called[stem(name)] == 1}
    by_stem = {name: row for name, row in by_stem.items() if images[name] == 1}
    cells = {name: by_path.get(path(name), by_stem.get(stem(name))) for name in names}
    missing = [name for name, row in cells.items() if row is None]
    if twice := [name for name in missing if stem(name) in called]:
        raise ConfigError(
            f"--by: several images or rows of {file} are called {stem(twice[0])}, such as "
            f"{twice[0]}: put the paths below {root} into its column {files!r}"
        )
    for line, row in rows:
        before = by_path[path(row[files])]
        for column in chosen:
            if value_of(before[column]).casefold() != value_of(row[column]).casefold():
                raise ConfigError(
                    f"--by: {file}, line {line}: {row[files]} has {column} {row[column]!r}, but "
                    f"{before[column]!r} in a line before: correct one of them"
                )
    if missing:
        log.warning("%s: %d of %d test images are not in it", file, len(missing), len(names))
    found = {}
    for column in chosen:
        values = [value_of((cells[name] or {}).get(column, "")) for name in names]
        spelled: dict[str, str] = {}  # M and m are one value
        found[column] = [spelled.setdefault(value.casefold(), value) for value in values]
    for column, values in found.items():
        if (count := len(set(values))) > _MOST_SUBGROUPS:
            raise ConfigError(
                f"--by={column}: {file} has {count} different values of it for the test images, "
                f"expected at most {_MOST_SUBGROUPS}: put them into groups"
            )
    return found


def class_counts(found: Finished) -> list[tuple[str, list[int]]] | None:
    """Count the images of each class in each split; None if the data cannot be read."""
    if found.dataset is None:
        return None
    counts = []
    for k, name in enumerate(found.names):
        of = [found.dataset.split(split).labels for split in SPLITS]
        counts.append((name, [int(((x[:, k] if x.ndim == 2 else x == k) == 1).sum()) for x in of]))
    return counts
