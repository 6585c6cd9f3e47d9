"""What reports say in words, of runs that are made up."""

import argparse
import math

import numpy as np
import pytest

from lsanet_jax.errors import WorkdirError
from lsanet_jax.evaluation import learning_curve
from lsanet_jax.evaluation.statistics import Difference
from lsanet_jax.report import compare, sweep_files, sweep_page, tables, words
from lsanet_jax.report import sweep as report
from lsanet_jax.sweeps import spec
from tests.fake_runs import draw_labels, draw_probabilities, finish

FILE = """
from lsanet_jax.sweeps.spec import Run, Sweep

def get_sweep(scale):
    runs = [
        Run(f"{percent}pct", "resnet18", {"data.name": "dermamnist", "model.objective": "baseline",
            "data.train_fraction": percent / 100}, {"Labels": f"{percent} %", "Method": "Baseline"})
        for percent in (1, 5, 10, 25, 50, 100)
    ]
    return Sweep("label_efficiency", "Labels", tuple(runs), scale, seeds=(0, 1))
"""


def compared(workdir, skills, *, seeds=(0, 1, 2), n=400, times=1, patients=False):
    """The report of `compare` on methods of some skills; of each image there may be several."""
    swept = spec.load("compare", overrides={"data.name": "breastmnist"}, seeds=seeds)
    labels = draw_labels("binary-class", n=n)
    for method, skill in skills.items():
        for seed in seeds:
            p = draw_probabilities(labels, "binary-class", skill=skill, seed=seed)
            shown = labels.repeat(times), p.repeat(times, axis=1)
            of = np.arange(n).repeat(times).tolist() if patients else ()
            finish(swept, workdir, method, seed, *shown, task="binary-class", groups=of)
    return report.make(compare.only_started(swept, workdir), workdir, resamples=20)


def test_the_paragraph_names_what_is_better_and_what_to_take(tmp_path):
    made = compared(tmp_path, {"baseline": 0.5, "dsn": 0.501, "lsanet": 1.2, "selfcon": 0.1})
    (said,) = made.words
    assert "On the 400 test images of breastmnist the plain network reaches an AUC of" in said
    assert "3 other methods were compared with it, each trained 3 times" in said
    better = said.partition("Better than it by more than chance: ")[2].partition(". ")[0]
    worse = said.partition("Worse by more than chance: ")[2].partition(". ")[0]
    assert (
        better.startswith("LSANet (+")
        and "points of AUC, 95 % interval [+" in said
        and "DSN" not in better
    )
    assert worse.startswith("SelfCon (−")
    assert "For DSN no difference could be shown." in said
    assert "Take LSANet: it is the only one that is shown to be better than the plain" in said
    assert said in sweep_files.to_markdown(made)
    (shown,) = [t for t in made.tables if t.title == "All methods against the plain network"]
    assert any(note.startswith("All methods against the plain") for note in made.notes)
    p_values = {row[0].text: row[2].text for row in shown.rows}
    assert float(p_values["DSN"]) > 0.05 and p_values["LSANet"] == "< .001"
    picture = sweep_files._compare(made)
    assert [t.get_text() for t in picture.figure.axes[0].get_yticklabels()] == [
        "LSANet", "DSN", "SelfCon"
    ]  # fmt: skip
    assert str(made.verdicts[1]) in picture.label
    page = sweep_page.render(made._replace(cells=[], tables=[], comparisons={}))
    assert f"<h2>In words</h2>\n<p>{said[:40]}" in page


def test_without_a_difference_the_plain_network_is_taken(tmp_path):
    (said,) = compared(tmp_path, {"baseline": 0.5, "lsanet": 0.501}).words
    assert "None of them differs from it by more than chance." in said
    assert "Take the plain network" in said


def test_the_method_that_came_nearest_is_named():
    near = words.Verdict("Near", Difference(1.5, 0.6, 0.3, 2.7, 0.02), 0.18, 1.2)
    far = words.Verdict("Far", Difference(-1.5, 0.6, -2.7, -0.3, 0.01), 0.09, 1.2)
    said = words._advice([], [far, near])
    assert said.startswith(
        "Take the plain network for now. Nearest to a difference came Near (+1.5"
    )
    assert "earned its time" in words._advice([], [far])
    assert "p = .180, 1.2 times" in str(near) and "p = 1.000," in str(near._replace(p_value=1.0))
    assert "p < .001," in str(near._replace(p_value=1e-4))
    two = words._advice([near, near._replace(title="Also", time=0.9)])
    assert two.startswith("Take Near: it has the highest AUC of those that are better.")
    assert "Also is within half a point of it and trains faster." in two


def test_images_of_one_patient_are_compared_as_one(tmp_path):
    skills = {"baseline": 0.5, "lsanet": 0.6}
    wide, fair, narrow = (
        compared(tmp_path / str(i), skills, n=60, times=times, patients=patients)
        for i, (times, patients) in enumerate([(1, False), (9, True), (9, False)])
    )
    found = [made.comparisons["lsanet"] for made in (wide, fair, narrow)]
    errors = [[test.standard_error for test in each.delong] for each in found]
    assert errors[1] == pytest.approx(errors[0])
    assert errors[2] == pytest.approx(np.array(errors[1]) / 3, rel=0.05)
    assert fair.verdicts[0].texts == wide.verdicts[0].texts != narrow.verdicts[0].texts
    assert found[2].acc.high - found[2].acc.low < found[1].acc.high - found[1].acc.low


def test_methods_that_rank_alike_are_not_called_equal(tmp_path):
    made = compared(tmp_path, {"baseline": 50.0, "lsanet": 50.0}, n=20)
    assert "the scores of the methods do not vary enough for a test" in made.words[0]
    assert "0.0 points" not in made.words[0]


def test_methods_that_were_tested_on_other_images_are_not_compared(tmp_path):
    swept = spec.load("compare", overrides={"data.name": "breastmnist"}, seeds=(0, 1))
    labels = draw_labels("binary-class", n=40)
    for i, method in enumerate(("baseline", "lsanet")):
        for seed in swept.seeds:
            p = draw_probabilities(labels, "binary-class", skill=0.5, seed=seed)
            names = [f"{i}_{n}.png" for n in range(40)]
            finish(swept, tmp_path, method, seed, labels, p, task="binary-class", names=names)
    with pytest.raises(WorkdirError, match="not tested on the same images: the names in"):
        report.make(compare.only_started(swept, tmp_path), tmp_path, resamples=5)


def test_numbers_beside_a_border_show_their_side():
    assert [tables.p_text(p) for p in (0.0496, 0.04996, 0.05, 0.0501, 0.044, 0.0004, 0.3)] == [
        *(".0496", ".04996", ".050", ".0501", ".044", "< .001", ".300")
    ]
    of = words.Verdict("A", Difference(1.53, 0.7, 0.04, 2.96, 0.01), 0.0496, 1.0)
    assert of.texts[:3] == ("+1.5", "[+0.04, +3.0]", ".0496")
    untested = words.Verdict("A", Difference(1.53, *[math.nan] * 5), math.nan, 1.0)
    assert untested.texts[:3] == ("+1.5", tables.NONE, tables.NONE)


def test_one_seed_is_not_enough_to_compare_methods(tmp_path):
    made = compared(tmp_path, {"baseline": 0.1, "lsanet": 2.0}, seeds=(0,))
    assert made.words[0].startswith("Nothing can be compared yet")
    assert sweep_files._compare(made) is None


def test_a_class_with_a_single_image_is_no_proof_that_methods_are_alike(tmp_path):
    swept = spec.load("compare", overrides={"data.name": "retinamnist"}, seeds=(0, 1))
    labels = np.repeat([0, 1, 2], [60, 40, 1])
    for method, skill in {"baseline": 0.1, "dsn": 0.2, "lsanet": 1.5}.items():
        for seed in swept.seeds:
            p = draw_probabilities(labels, "multi-class", skill=skill, seed=seed)
            finish(swept, tmp_path, method, seed, labels, p, task="multi-class")
    made = report.make(compare.only_started(swept, tmp_path), tmp_path, resamples=5)
    (said,) = made.words
    assert said.startswith("The test images of RetinaMNIST do not tell which method is better")
    assert "takes two images with and two without each finding, and class 2 has fewer." in said
    assert [v.texts[2] for v in made.verdicts] == ["–", "–"]
    assert len(sweep_files.write(made, tmp_path / "report", sweep_files.FORMATS)) == 7


def test_repeats_are_those_that_were_compared(tmp_path):
    labels = draw_labels("multi-label", k=2)
    swept = spec.load("compare", overrides={"data.name": "chestmnist"}, seeds=(0, 1, 2, 3))
    for method, seeds in {"baseline": 4, "dsn": 2, "lsanet": 3}.items():
        for seed in swept.seeds[:seeds]:
            p = draw_probabilities(labels, "multi-label", k=2, seed=seed + 10 * seeds)
            finish(swept, tmp_path, method, seed, labels, p, task="multi-label")
    (said,) = report.make(compare.only_started(swept, tmp_path), tmp_path, resamples=5).words
    assert "each trained 2 to 3 times;" in said and "on average over the classes." in said


def test_folds_with_a_test_split_of_their_own_say_why_nothing_is_compared(tmp_path):
    swept = spec.load("compare", overrides={"data.name": "folder"}, seeds=(0, 1), folds=2)
    labels = draw_labels("binary-class")
    for method in ("baseline", "lsanet"):
        for seed in swept.seeds:
            for fold in range(2):
                p = draw_probabilities(labels, "binary-class", seed=seed)
                names = {"names": [f"{i}.png" for i in range(len(labels))]}
                arguments = swept, tmp_path, f"{method}-fold{fold}", seed, labels, p
                finish(*arguments, task="binary-class", **names)
    (said,) = report.make(compare.only_started(swept, tmp_path), tmp_path, resamples=5).words
    assert said.startswith("Nothing can be compared yet")
    assert said.endswith("(all folds have the same, given test split).")


def test_folds_are_compared_on_the_images_of_all(tmp_path):
    overrides = {"data.name": "folder", "data.path": "films"}
    swept = spec.load("compare", overrides=overrides, seeds=(0, 1), folds=2)
    labels, halves = draw_labels("binary-class", n=200), np.arange(200).reshape(2, 100)
    for method, skill in {"baseline": 0.1, "lsanet": 1.5}.items():
        for seed in swept.seeds:
            p = draw_probabilities(labels, "binary-class", skill=skill, seed=seed)
            for fold, rows in enumerate(halves):
                files = {"names": np.array([f"{i:03}.png" for i in rows]), "groups": rows // 2}
                arguments = swept, tmp_path, f"{method}-fold{fold}", seed, labels[rows], p[:, rows]
                finish(*arguments, task="binary-class", dataset="films", **files)
    (said,) = report.make(compare.only_started(swept, tmp_path), tmp_path, resamples=5).words
    assert said.startswith("On the 200 test images of films")
    assert "each trained 2 times in each of 2 folds" in said
    assert "Take LSANet" in said


def test_labels_are_those_that_the_runs_had(tmp_path):
    (tmp_path / "labels.py").write_text(FILE)
    swept = spec.load(tmp_path / "labels.py", overrides={"data.name": "folder"})
    labels = draw_labels("binary-class")
    for run in swept.runs[:2]:
        p = draw_probabilities(labels, "binary-class")
        job = finish(swept, tmp_path / "w", run.name, 0, labels, p, task="binary-class")
    cells = report.make(swept, tmp_path / "w", resamples=5).cells
    ((curve, unit),) = words.learning_curves(cells, "auc").values()
    assert (curve.most, unit) == (0.05, "times the labels")  # runs of before this was recorded
    for cell in cells[:2]:
        cell.trained[0].manifest["dataset"]["labelled"] = 7
    ((curve, unit),) = words.learning_curves(cells, "auc").values()
    assert (curve.most, unit) == (7, "labels")
    assert job.workdir.exists()


def test_shares_that_are_the_same_labels_count_once(tmp_path, monkeypatch):
    (tmp_path / "labels.py").write_text(FILE)
    swept = spec.load(tmp_path / "labels.py", overrides={"data.name": "folder"})
    labels = draw_labels("binary-class")
    for run in swept.runs[:3]:
        p = draw_probabilities(labels, "binary-class")
        finish(swept, tmp_path / "w", run.name, 0, labels, p, task="binary-class")
    cells = report.make(swept, tmp_path / "w", resamples=5).cells[:3]
    for cell, count in zip(cells, (2, 2, 4), strict=True):
        cell.trained[0].manifest["dataset"]["labelled"] = count
    fitted, fit = [], learning_curve.fit
    monkeypatch.setattr(learning_curve, "fit", lambda n, y: fitted.append(n) or fit(n, y))
    (same, _) = words.more_labels(cells)
    assert fitted == [[2, 4]]
    assert same.startswith("1 % and 5 % of the labels are the same 2")


def test_numbers_that_cannot_be_are_not_said():
    wide = Difference(0.1, 0.5, -3.2, 3.4, 0.8)
    tests = [words.Tests("LSANet", [wide, wide], [0.9, 0.8], [0.7, 0.9], 1.0)]
    (verdict,) = words._verdicts(tests, 1.0)
    assert -100 <= verdict.difference.low < verdict.difference.high <= 100
    assert words._signed(math.nan) == tables.NONE


def test_what_more_labels_would_bring_is_said_and_drawn(tmp_path):
    (tmp_path / "labels.py").write_text(FILE)
    swept = spec.load(tmp_path / "labels.py")
    labels = draw_labels("binary-class", n=300)
    for run in swept.runs:
        skill = 0.6 - 0.05 * run.overrides["data.train_fraction"] ** -0.5
        for seed in swept.seeds:
            p = draw_probabilities(labels, "binary-class", skill=skill, seed=seed)
            finish(swept, tmp_path / "w", run.name, seed, labels, p, task="binary-class")
    made = report.make(swept, tmp_path / "w", resamples=20)
    assert not any(note.startswith("All methods against") for note in made.notes)
    (said,) = made.words
    assert said.startswith("Baseline: Twice the labels: AUC +0.3 [0.0, 1.0]; these runs do not say")
    ((curve, unit),) = words.learning_curves(made.cells, "auc").values()
    assert (curve.most, unit) == (7007, "labels")
    picture = sweep_files._label_efficiency(made)
    dotted = [line for line in picture.figure.axes[1].lines if line.get_linestyle() == ":"]
    assert [max(line.get_xdata()) for line in dotted] == [pytest.approx(200)]  # percent


# ------------------------------------------------------------------------------ the command


def test_methods_are_those_of_the_sweep_and_the_plain_network_is_among_them():
    swept = spec.load("compare", overrides={"data.name": "breastmnist"})
    assert {run.name for run in swept.runs} == set(compare.COSTS)
    assert all(run.baseline in (None, "baseline") for run in swept.runs)
    assert compare._methods("dsn,lsanet") == ("baseline", "lsanet", "dsn")
    with pytest.raises(argparse.ArgumentTypeError, match="'lsant' is not one of.*lsanet"):
        compare._methods("lsant")
    with pytest.raises(argparse.ArgumentTypeError, match="'2h' must be a number of minutes"):
        compare._minutes("2h")


def test_without_data_the_command_says_how_to_name_them(capsys, monkeypatch, tmp_path):
    flags = ["lsanet compare", f"--workdir={tmp_path}/out", "--scale=28px"]
    for given, found in (
        ([], "name your images: --config.data.path=FOLDER or FILE.npz"),
        ([f"--config.data.path={tmp_path}/typo"], "typo: found nothing there, expected a folder"),
        (["--budget=3", "--job=1"], "--budget trains method after method, --job a single run"),
    ):
        monkeypatch.setattr("sys.argv", [*flags, *given])
        with pytest.raises(SystemExit) as ended:
            compare.main()
        assert ended.value.code == 2 and found in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture
def budgeted(monkeypatch, tmp_path):
    """Calls `train_within` with a clock on which a method of cost 1 takes 10 minutes."""
    clock, trained = [0.0], []
    swept = spec.load("compare", overrides={"data.name": "breastmnist"}, seeds=(0,))
    labels = draw_labels("binary-class")
    spec.claim(swept, tmp_path)

    def finished(method):
        p = draw_probabilities(labels, "binary-class")
        finish(swept, tmp_path, method, 0, labels, p, task="binary-class")

    def train(swept, methods, args):
        if compare._missing(swept, methods[0], args.workdir):
            trained.extend(methods)
            clock[0] += 600 * compare.COSTS[methods[0]]
            finished(methods[0])
        return 0

    monkeypatch.setattr(compare, "train", train)
    monkeypatch.setattr(compare.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(compare, "COSTS", {"baseline": 1.0, "byot": 9.0, "dsn": 1.5})

    def within(minutes):
        trained.clear()
        args = argparse.Namespace(budget=minutes, workdir=tmp_path)
        assert compare.train_within(swept, tuple(compare.COSTS), args) == 0
        return trained

    within.finished = finished
    return within


def test_a_budget_trains_what_fits(budgeted, capsys):
    assert budgeted(30.0) == ["baseline", "dsn"]
    assert "--budget=30 leaves out byot" in capsys.readouterr().err


def test_a_budget_knows_the_time_of_what_was_finished_before(budgeted, capsys):
    budgeted.finished("baseline")  # in 90 s, as `finish` says
    budgeted.finished("dsn")
    assert budgeted(10.0) == []
    assert "--budget=10 leaves out byot" in capsys.readouterr().err
    assert budgeted(14.0) == ["byot"]
