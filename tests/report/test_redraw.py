"""Tables of `compare` that are drawn again from its CSV files."""

import csv

import numpy as np
import pytest

from lsanet_jax.errors import DataError
from lsanet_jax.report import redraw, sweep_files, tables
from tests.report.test_words import compared

SKILLS = {"baseline": 0.5, "dsn": 0.501, "dsn_ks": 0.52, "dks": 0.6, "lsanet": 1.2}
TITLE = "All methods against the plain network"


def verdicts(found):
    return [tables.markdown(table) for table in found if table.title == TITLE]


@pytest.mark.parametrize("patients", [False, True])
def test_methods_are_tested_and_corrected_as_in_the_report(tmp_path, patients):
    made = compared(tmp_path / "w", SKILLS, n=200, times=2, patients=patients)
    sweep_files.write(made, tmp_path, ("csv",))
    (again,) = verdicts(redraw.from_csv(tmp_path / "compare"))
    assert [again] == verdicts(made.tables)
    (tmp_path / "compare_runs.csv").rename(tmp_path / "other_runs.csv")
    (tmp_path / "compare_summary.csv").rename(tmp_path / "other_summary.csv")
    assert not verdicts(redraw.from_csv(tmp_path / "other"))  # not of this sweep: no such family


def test_a_comparison_with_seeds_that_are_not_there_is_one_error(tmp_path):
    made = compared(tmp_path / "w", {"baseline": 0.5, "lsanet": 0.9}, n=100)
    sweep_files.write(made, tmp_path, ("csv",))
    file = tmp_path / "compare_summary.csv"
    file.write_text(file.read_text().replace(",0 1 2,", ",0 1 5,"))
    with pytest.raises(DataError, match="are not of a report"):
        redraw.from_csv(tmp_path / "compare")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda runs: [{**r, "auc": "99.5"} if r["run"] == "lsanet" else r for r in runs], "mean"),
        (lambda runs: [r for r in runs if r["run"] != "lsanet"], "has 0 finished runs, expected 3"),
        (lambda runs: [r | {"dataset": "other"} for r in runs], "is on other, not breastmnist"),
    ],
    ids=["score", "runs", "data"],
)
def test_a_summary_of_other_runs_is_refused(tmp_path, edit, message):
    made = compared(tmp_path / "w", {"baseline": 0.5, "lsanet": 0.9}, n=100)
    sweep_files.write(made, tmp_path, ("csv",))
    file = tmp_path / "compare_runs.csv"
    rows = edit(list(csv.DictReader(file.open())))
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(DataError, match=f"are not of a report: .*{message}"):
        redraw.from_csv(tmp_path / "compare")


@pytest.mark.parametrize(("p_value", "error"), [(0.0455, 0.01), (1e-200, 0.000662), (1.0, np.nan)])
def test_the_standard_error_follows_from_the_p_value(p_value, error):
    found = redraw._delong(-0.02, p_value)
    np.testing.assert_allclose(found.standard_error, error, rtol=1e-2)
