"""What reports say in words, of runs that are made up."""

import argparse

import numpy as np
import pytest

from lsanet_jax.errors import ConfigError
from lsanet_jax.evaluation.statistics import Difference
from lsanet_jax.report import compare, sweep_files, sweep_page, words
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


def compared(workdir, skills, *, seeds=(0, 1, 2), n=400):
    """The report of `compare` on methods of some skills."""
    swept = spec.load("compare", overrides={"data.name": "breastmnist"}, seeds=seeds)
    labels = draw_labels("binary-class", n=n)
    for method, skill in skills.items():
        for seed in seeds:
            p = draw_probabilities(labels, "binary-class", skill=skill, seed=seed)
            finish(swept, workdir, method, seed, labels, p, task="binary-class")
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


def test_one_seed_is_not_enough_to_compare_methods(tmp_path):
    made = compared(tmp_path, {"baseline": 0.1, "lsanet": 2.0}, seeds=(0,))
    assert made.words[0].startswith("Nothing can be compared yet")
    assert sweep_files._compare(made) is None


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


def test_the_data_are_named_by_their_path(tmp_path):
    with pytest.raises(ConfigError, match=r"name your images: --config\.data\.path=FOLDER"):
        compare.with_data({}, "paper")
    asked = {"data.name": "breastmnist"}
    assert compare.with_data(asked, "paper") == asked
    assert compare.with_data({"data.path": "a.npz"}, "28px")["data.name"] == "npz"
    folder = compare.with_data({"data.path": str(tmp_path)}, "28px")
    assert folder["data.name"] == "folder" and folder["data.size"] == 28
    assert compare.with_data({**folder, "data.size": 64}, "paper")["data.size"] == 64


def test_methods_are_those_of_the_sweep_and_the_plain_network_is_among_them():
    swept = spec.load("compare", overrides={"data.name": "breastmnist"})
    assert {run.name for run in swept.runs} == set(compare.COSTS)
    assert all(run.baseline in (None, "baseline") for run in swept.runs)
    assert compare._methods("dsn,lsanet") == ("baseline", "lsanet", "dsn")
    with pytest.raises(argparse.ArgumentTypeError, match="'lsant' is not one of.*lsanet"):
        compare._methods("lsant")


def test_a_budget_trains_what_fits(monkeypatch, capsys):
    clock, trained = [0.0], []

    def train(swept, methods, args):
        trained.extend(methods)
        clock[0] += 600 * compare.COSTS[methods[0]]
        return 0

    monkeypatch.setattr(compare, "train", train)
    monkeypatch.setattr(compare.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(compare, "COSTS", {"baseline": 1.0, "slow": 9.0, "fast": 1.5})
    args = argparse.Namespace(budget=30.0)
    assert compare.train_within(None, ("baseline", "slow", "fast"), args) == 0
    assert trained == ["baseline", "fast"]
    assert "--budget=30 leaves out slow" in capsys.readouterr().err
