"""The tables of a report again, from its CSV files: no runs are needed."""

import collections
import csv
import io
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from lsanet_jax.config import default_config
from lsanet_jax.errors import DataError, WorkdirError
from lsanet_jax.evaluation.statistics import Bootstrap, Difference
from lsanet_jax.report import tables, words
from lsanet_jax.report.results import Cell, Comparison, Trained
from lsanet_jax.report.tables import Table
from lsanet_jax.runs.result import SCORES
from lsanet_jax.runtime import strict_json
from lsanet_jax.runtime.files import text_of_csv_cell
from lsanet_jax.sweeps.spec import Job, Run

RUNS, SUMMARY = "_runs.csv", "_summary.csv"


def from_csv(name: str | pathlib.Path) -> list[Table]:
    """Draw the results, the differences to the baseline and the epochs of a report.

    A file whose name begins with `compare` is taken for one of that sweep: its methods are also
    tested against the plain network, with p-values that are corrected for their number.

    Args:
        name: of the report, with its folder: sweeps/table3/report/table3 for table3_runs.csv and
            table3_summary.csv there.

    Raises:
        DataError: a file is missing, is not of a report, or lacks a column.
    """
    runs, summary = _read(f"{name}{RUNS}"), _read(f"{name}{SUMMARY}")
    try:
        _check_names(runs, summary)
        cells = [
            _cell(row, [run for run in runs if run["run"] == row["run"]])
            for row in summary
            if row["dataset"]
        ]
        _check_together(runs, summary)
        comparisons = {row["run"]: _comparison(row) for row in summary if row["difference_seeds"]}
        of_compare = pathlib.Path(name).name.startswith("compare")
        of_seeds = [test for each in comparisons.values() for test in each.delong]
        if of_compare and any(t.p_value == 1 and math.isnan(t.standard_error) for t in of_seeds):
            raise ValueError("a p-value of 1 without its standard error: write the report again")
        verdicts = words.verdicts_on(cells, comparisons) if of_compare else []
    except (KeyError, ValueError, OverflowError) as error:
        raise DataError(f"{name}{RUNS} and {name}{SUMMARY} are not of a report: {error}") from error
    drawn = [tables.main_table(cells)]
    if comparisons:
        drawn.append(tables.differences(cells, comparisons))
    if verdicts:
        drawn.append(words.table(verdicts))
    return [*drawn, tables.epochs(cells)]


def _check_names(runs: list[dict[str, str]], summary: list[dict[str, str]]) -> None:
    """Check that each run is there once, and its baseline too; raises a ValueError."""
    names = {row["run"] for row in summary if row["dataset"]}
    baselines = {row["baseline"] for row in summary if row["baseline"]}
    if unknown := ({row["run"] for row in runs} | baselines) - names:
        raise ValueError(f"no row of the summary is of the run {min(unknown)!r}")
    if without := [r["run"] for r in summary if r["difference_seeds"] and not r["baseline"]]:
        raise ValueError(f"{without[0]} has a difference to a baseline, but none is named")
    for each in ([row["run"] for row in summary], [(row["run"], row["seed"]) for row in runs]):
        one, count = collections.Counter(each).most_common(1)[0] if each else ("", 1)
        if count > 1:
            raise ValueError(f"{one} is there twice")
    if strange := {row["state"] for row in runs} - {"finished", "failed", "missing"}:
        raise ValueError(f"the state of a run is {min(strange)!r}")


def _check_together(runs: list[dict[str, str]], summary: list[dict[str, str]]) -> None:
    """Check that a summary is of these runs; raises a ValueError."""
    for row in summary:
        own = [run for run in runs if run["run"] == row["run"] and run["state"] == "finished"]
        if not row["dataset"]:
            continue
        if len(own) != int(row["seeds"]):
            raise ValueError(f"{row['run']} has {len(own)} finished runs, expected {row['seeds']}")
        if strange := {run["dataset"] for run in own} - {row["dataset"]}:
            raise ValueError(f"a run of {row['run']} is on {min(strange)}, not {row['dataset']}")
        for score in ("acc", "auc"):
            values = [_finite(run[score]) for run in own if run[score]]
            mean = row[f"{score}_mean"]
            if values and mean and abs(math.fsum(values) / len(values) - _finite(mean)) > 0.01:
                raise ValueError(f"the mean {score} of {row['run']} is not {mean}")
        absent = {*row["difference_seeds"].split()} - {run["seed"] for run in own}
        if absent:
            raise ValueError(f"{row['run']} has a difference for seed {min(absent)}, but no run")


def _read(file: str) -> list[dict[str, str]]:
    try:
        text = strict_json.read_bytes(pathlib.Path(file)).decode()
    except WorkdirError as error:
        raise DataError(str(error)) from error
    except ValueError as error:
        raise DataError(f"{file} is not of a report: {error}") from error
    try:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        names, *lines = [list(map(text_of_csv_cell, row)) for row in reader]
        rows = [dict(zip(names, line, strict=True)) for line in lines]
        if len(set(names)) < len(names):
            raise ValueError("two columns have one name")
    except (ValueError, csv.Error) as error:
        raise DataError(f"{file} is not of a report: it is empty, or {error}") from error
    optional = ("difference_seeds", "baseline", "asked_dataset")
    # Behind the others: the columns before "run" are the labels of the rows.
    return [row | {name: row.get(name, "") for name in optional} for row in rows]


def _cell(row: Mapping[str, str], runs: Sequence[Mapping[str, str]]) -> Cell:
    titles = list(row)[: list(row).index("run")]
    paper: dict[str, Any] = {
        key: _percent(row[f"paper_{key}"]) for key in ("acc", "auc") if row.get(f"paper_{key}")
    }
    if paper:
        paper["dataset"] = row["paper_dataset"]
    run = Run(
        name=row["run"],
        config="",
        overrides={"data.name": row["asked_dataset"]},
        row={title: row[title] for title in titles if row[title]},
        paper=paper or None,
        baseline=row["baseline"] or None,
    )
    trained = [_trained(run, of_seed) for of_seed in runs if of_seed["state"] == "finished"]
    failed = {int(r["seed"]): r["error"] for r in runs if r["state"] == "failed"}
    missing = tuple(int(r["seed"]) for r in runs if r["state"] == "missing")
    config = default_config()
    config.data.name = row["dataset"]  # which is that of a cell without a finished run
    return Cell(run, config, tuple(trained), failed, missing)


def _trained(run: Run, row: Mapping[str, str]) -> Trained:
    score = lambda prefix: {
        key: _percent(row[prefix + key]) / 100 if row[prefix + key] else None
        for key in ("acc", "auc")
    }
    result = {
        "dataset": row["dataset"],
        "task": row["task"],
        "test": score(""),
        "last_epoch": {"test": score("last_")},
        "best_epoch": int(row["best_epoch"]),
        "seconds": _finite(row["seconds"]),
    }
    return Trained(Job(run, int(row["seed"]), pathlib.Path()), result, {}, [], [], None)


def _finite(text: str) -> float:
    """A number, and no other text that `float` takes, such as 'nan' or '1_0'."""
    if "_" in text or not math.isfinite(float(text)):
        raise ValueError(f"{text!r} is not a number")
    return float(text)


def _percent(text: str) -> float:
    if not 0 <= _finite(text) <= 100:
        raise ValueError(f"{text!r} is not a percentage")
    return float(text)


def _comparison(row: Mapping[str, str]) -> Comparison:
    number = lambda key: _finite(row[key]) if row.get(key) else math.nan
    several = lambda key: [float(text) for text in (row.get(key) or "").split()]
    acc, balanced_acc, auc = (
        Bootstrap(number(f"{name}_difference"), number(f"{name}_low"), number(f"{name}_high"), 0)
        for name in SCORES
    )
    pairs = zip(several("delong_difference_of_seeds"), several("delong_p_of_seeds"), strict=True)
    if errors := several("delong_error_of_seeds"):
        others = zip(errors, several("delong_freedom_of_seeds"), strict=True)
        tests = [
            Difference(difference / 100, error / 100, math.nan, math.nan, p_value, freedom)
            for (difference, p_value), (error, freedom) in zip(pairs, others, strict=True)
        ]
    else:
        tests = [_delong(difference / 100, p_value) for difference, p_value in pairs]
    seeds = tuple(map(int, row["difference_seeds"].split()))
    return Comparison(seeds, acc, balanced_acc, auc, tuple(tests))


def _delong(difference: float, p_value: float) -> Difference:
    """A normal test again from its p-value, as files of earlier versions have no standard error.

    It is nan if the p-value is 1, which any has without a difference.
    """
    from scipy import special  # costs more time to import than most commands take

    error = -difference / special.ndtri(p_value / 2) if 0 <= p_value < 1 else math.nan
    return Difference(difference, abs(float(error)), math.nan, math.nan, p_value)
