"""The tables of a report again, from its CSV files: no runs are needed."""

import csv
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from lsanet_jax.config import default_config
from lsanet_jax.errors import DataError
from lsanet_jax.evaluation.statistics import Bootstrap, Difference
from lsanet_jax.report import tables
from lsanet_jax.report.results import Cell, Comparison, Trained
from lsanet_jax.report.tables import Table
from lsanet_jax.runtime.files import text_of_csv_cell
from lsanet_jax.sweeps.spec import Job, Run

RUNS, SUMMARY = "_runs.csv", "_summary.csv"


def from_csv(name: str | pathlib.Path) -> list[Table]:
    """Draw the results, the differences to the baseline and the epochs of a report.

    Args:
        name: of the report, with its folder: docs/results/table3 for docs/results/table3_runs.csv
            and docs/results/table3_summary.csv.

    Raises:
        DataError: a file is missing, is not of a report, or lacks a column.
    """
    runs, summary = _read(f"{name}{RUNS}"), _read(f"{name}{SUMMARY}")
    try:
        cells = [
            _cell(row, [run for run in runs if run["run"] == row["run"]])
            for row in summary
            if row["dataset"]
        ]
        comparisons = {row["run"]: _comparison(row) for row in summary if row["difference_seeds"]}
    except (KeyError, ValueError) as error:
        raise DataError(f"{name}{RUNS} and {name}{SUMMARY} are not of a report: {error}") from error
    drawn = [tables.main_table(cells)]
    if any(cell.run.baseline for cell in cells):
        drawn.append(tables.differences(cells, comparisons))
    return [*drawn, tables.epochs(cells)]


def _read(file: str) -> list[dict[str, str]]:
    try:
        with open(file, newline="") as stream:
            names, *lines = [list(map(text_of_csv_cell, row)) for row in csv.reader(stream)]
            rows = [dict(zip(names, line, strict=False)) for line in lines]
    except ValueError as error:
        raise DataError(f"{file} is not of a report: it is empty, or {error}") from error
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}") from error
    optional = ("difference_seeds", "baseline", "asked_dataset")
    # Behind the others: the columns before "run" are the labels of the rows.
    return [row | {name: row.get(name, "") for name in optional} for row in rows]


def _cell(row: Mapping[str, str], runs: Sequence[Mapping[str, str]]) -> Cell:
    titles = list(row)[: list(row).index("run")]
    paper: dict[str, Any] = {
        key: float(row[f"paper_{key}"]) for key in ("acc", "auc") if row.get(f"paper_{key}")
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
    return Cell(run, default_config(), tuple(trained), failed, missing)


def _trained(run: Run, row: Mapping[str, str]) -> Trained:
    score = lambda prefix: {
        key: float(row[prefix + key]) / 100 if row[prefix + key] else None for key in ("acc", "auc")
    }
    result = {
        "dataset": row["dataset"],
        "task": row["task"],
        "test": score(""),
        "last_epoch": {"test": score("last_")},
        "best_epoch": int(row["best_epoch"]),
        "seconds": float(row["seconds"]),
    }
    return Trained(Job(run, int(row["seed"]), pathlib.Path()), result, {}, [], [], None)


def _comparison(row: Mapping[str, str]) -> Comparison:
    number = lambda key: float(row.get(key) or math.nan)
    several = lambda key: map(float, (row.get(key) or "").split())
    acc, auc = (
        Bootstrap(number(f"{name}_difference"), number(f"{name}_low"), number(f"{name}_high"), 0)
        for name in ("acc", "auc")
    )
    tests = [
        Difference(difference / 100, math.nan, math.nan, math.nan, p_value)
        for difference, p_value in zip(
            several("delong_difference_of_seeds"), several("delong_p_of_seeds"), strict=True
        )
    ]
    seeds = tuple(map(int, row["difference_seeds"].split()))
    return Comparison(seeds, acc, auc, tuple(tests))
