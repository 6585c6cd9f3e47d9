"""A cross-validation in a report: all folds joined into one score."""

import numpy as np
import pytest

from lsanet_jax import metrics
from lsanet_jax.errors import WorkdirError
from lsanet_jax.evaluation import statistics
from lsanet_jax.report import sweep as report
from lsanet_jax.report import sweep_files as report_files
from lsanet_jax.sweeps import spec
from tests.fake_runs import draw_labels, draw_probabilities, finish

N, FOLDS, TASK = 60, 3, "multi-class"
NAMES = np.array([f"{i:02}.png" for i in range(N)])
GROUPS = np.arange(N) // 4
FOLD_OF = GROUPS % FOLDS


def train(workdir, *, seeds=(0,), skip=(), names=NAMES, groups=GROUPS, tested=None):
    """Finish the folds; returns the sweep, the labels, and the probabilities by method and seed."""
    swept = spec.load("crossval", folds=FOLDS, seeds=seeds)
    labels, found = draw_labels(TASK, n=N), {}
    for seed in seeds:
        for method, skill in (("baseline", 0.5), ("lsanet", 1.0)):
            p = draw_probabilities(labels, TASK, skill=skill, seed=seed)
            found[method, seed] = p[-1]
            for fold in range(FOLDS):
                rows = np.flatnonzero(FOLD_OF == fold)[::-1] if tested is None else tested
                if (method, fold, seed) not in skip:
                    name = f"{method}-fold{fold}"
                    of_files = {"names": names[rows]} if len(names) else {}
                    if groups is not None:
                        of_files["groups"] = groups[rows]
                    finish(swept, workdir, name, seed, labels[rows], p[:, rows], **of_files)
    return swept, labels, found


def shown(made, title="Cross-validation: all folds joined"):
    table = next(table for table in made.tables if table.title == title)
    columns = [*table.labels, *table.columns]
    return [dict(zip(columns, (e.text for e in row), strict=True)) for row in table.rows]


def text(score):
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(100 * x for x in score[:3]))


def test_each_image_counts_once_and_intervals_are_by_patient(tmp_path):
    swept, labels, found = train(tmp_path)
    made = report.make(swept, tmp_path, resamples=5)
    for row, method in zip(shown(made), ("baseline", "lsanet"), strict=True):
        own = found[method, 0]
        scores = statistics.bootstrap_scores(labels, [own], TASK, groups=GROUPS)
        assert row["ACC [95 %]"] == text(scores["acc"])
        assert row["AUC [95 %]"] == text(scores["auc"])
        assert scores["auc"].value == pytest.approx(metrics.auc(labels, own, TASK))
        accs = [
            100 * np.mean(own[FOLD_OF == f].argmax(1) == labels[FOLD_OF == f]) for f in range(3)
        ]
        assert row["ACC of a fold"] == f"{np.mean(accs):.2f} ± {np.std(accs, ddof=1):.2f}"
        assert (row["images"], row["patients or groups"]) == ("60", "15")
    difference = statistics.bootstrap_scores(
        labels, [found["lsanet", 0]], TASK, baseline=[found["baseline", 0]], groups=GROUPS
    )["auc"]
    assert row["AUC − baseline [95 %]"].startswith(f"{100 * difference.value:+.2f} [")
    assert not made.comparisons


def test_several_seeds_are_averaged(tmp_path):
    swept, labels, found = train(tmp_path, seeds=(0, 1))
    (row, _) = shown(report.make(swept, tmp_path, resamples=5))
    own = [found["baseline", seed] for seed in (0, 1)]
    scores = statistics.bootstrap_scores(labels, own, TASK, groups=GROUPS)
    assert row["AUC [95 %]"] == text(scores["auc"])


def test_without_patients_images_are_drawn(tmp_path):
    swept, labels, found = train(tmp_path, groups=None)
    (row, _) = shown(report.make(swept, tmp_path, resamples=5))
    scores = statistics.bootstrap_scores(labels, [found["baseline", 0]], TASK)
    assert row["ACC [95 %]"] == text(scores["acc"])
    assert row["patients or groups"] == "–"


def test_a_seed_counts_once_all_its_folds_are_finished(tmp_path):
    swept, labels, found = train(tmp_path, seeds=(0, 1), skip=[("baseline", 2, 1)])
    (row, _) = shown(report.make(swept, tmp_path, resamples=5))
    scores = statistics.bootstrap_scores(labels, [found["baseline", 0]], TASK, groups=GROUPS)
    assert row["ACC [95 %]"] == f"{text(scores['acc'])} (1 of 2)"


def test_of_how_many_seeds_a_difference_is_is_said(tmp_path):
    swept, _, _ = train(tmp_path, seeds=(0, 1, 2), skip=[("baseline", 2, 0), ("lsanet", 1, 1)])
    baseline, lsanet = shown(report.make(swept, tmp_path, resamples=5))
    assert baseline["AUC [95 %]"].endswith(" (2 of 3)")
    assert lsanet["AUC [95 %]"].endswith(" (2 of 3)")
    assert lsanet["AUC − baseline [95 %]"].endswith(" (1 of 3)")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"skip": [("baseline", 1, 0)]}, "not all folds of a seed are finished"),
        ({"names": NAMES[:0]}, "predictions.npz does not name the images"),
        ({"tested": np.arange(0, N, 3)}, "all folds have the same, given test split"),
    ],
)
def test_why_nothing_can_be_joined_is_said(tmp_path, options, why):
    swept, _, _ = train(tmp_path, **options)
    made = report.make(swept, tmp_path, resamples=5)
    assert shown(made)[0]["ACC [95 %]"] == why
    report_files.write(made, tmp_path / "out", ("md", "csv", "tex"))


def test_an_image_that_two_folds_tested_is_an_error(tmp_path):
    names = NAMES.copy()
    names[0] = names[4]  # of the next fold
    swept, _, _ = train(tmp_path, names=names)
    with pytest.raises(WorkdirError, match=r"baseline: '04\.png' was tested in two folds"):
        report.make(swept, tmp_path, resamples=5)


def test_the_files_tell_of_the_joined_score_first(tmp_path):
    swept, _, _ = train(tmp_path)
    made = report.make(swept, tmp_path, resamples=5)
    report_files.write(made, tmp_path / "out", report_files.FORMATS)
    assert "Cross-validation: all folds joined" in (tmp_path / "out/crossval.html").read_text()
    markdown = (tmp_path / "out/crossval.md").read_text()
    assert markdown.index("all folds joined") < markdown.index("## Results")
    assert "bootstrap of patients" in markdown
    assert not (tmp_path / "out/crossval_differences.tex").exists()
    summary = (tmp_path / "out/crossval_summary.csv").read_text().splitlines()
    assert "acc_low" in summary[0] and summary[-1].count("lsanet") == 1
