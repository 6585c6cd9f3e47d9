"""Reports of sweeps whose runs are made up, so that every number is known."""

import csv
import html.parser
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lsanet_jax import metrics
from lsanet_jax.config import default_config, flatten
from lsanet_jax.errors import DataError, WorkdirError
from lsanet_jax.evaluation import statistics
from lsanet_jax.report import redraw, results
from lsanet_jax.report import sweep as report
from lsanet_jax.report import sweep_files as report_files
from lsanet_jax.report import tables as report_tables
from lsanet_jax.report.tables import Entry, Table
from lsanet_jax.runs.workdir import Workdir
from lsanet_jax.runtime.files import json_text
from lsanet_jax.sweeps import spec as sweep
from tests.fake_runs import ENVIRONMENT, draw_labels, draw_probabilities, fail, finish

TABLE3 = "table3"
ROOT = Path(__file__).resolve().parents[2]


def make_sweep(*runs, name="tiny", seeds=(0, 1, 2), **fields):
    return sweep.Sweep(name=name, title="A tiny & quick_sweep", runs=runs, seeds=seeds, **fields)


def make_run(name, *, dataset="dermamnist", objective="baseline", paper=True, **fields):
    row = fields.pop("row", {"Method": name})
    return sweep.Run(
        name=name,
        config="resnet18",
        overrides={"data.name": dataset, "model.objective": objective},
        row=row,
        paper={"dataset": dataset, "acc": 70.0, "auc": 90.0} if paper is True else paper,
        **fields,
    )


PAIR = (make_run("plain"), make_run("ours", objective="lsanet", baseline="plain"))


def finish_pair(workdir, swept=None, *, task="multi-class", seeds=(0, 1, 2), **kwargs):
    """Two runs, of which the second has more skill; returns the sweep, labels and probabilities."""
    swept = swept or make_sweep(*PAIR, seeds=seeds)
    labels, found = draw_labels(task), {}
    for (run, skill), seed in itertools.product(
        zip(swept.runs[:2], (0.5, 1.0), strict=True), seeds
    ):
        p = draw_probabilities(labels, task, skill=skill, seed=seed)
        found[run.name, seed] = p
        finish(swept, workdir, run.name, seed, labels, p, task=task, **kwargs)
    return swept, labels, found


def texts(table):
    return [[entry.text for entry in row] for row in table.rows]


def bold(table):
    return [[entry.bold for entry in row] for row in table.rows]


def test_numbers_are_those_of_the_predictions(tmp_path):
    swept, labels, found = finish_pair(tmp_path)
    made = report.make(swept, tmp_path, resamples=20)
    rows = texts(made.tables[0])
    for row, name in zip(rows, ("plain", "ours"), strict=True):
        own = [found[name, seed][-1] for seed in range(3)]
        acc = [100 * np.mean(p.argmax(1) == labels) for p in own]
        auc = [100 * metrics.auc(labels, p, "multi-class") for p in own]
        expected = [f"{np.mean(x):.2f} ± {np.std(x, ddof=1):.2f}" for x in (acc, auc)]
        assert row == [name, expected[0], "70.00", expected[1], "90.00"]
    (row,) = texts(made.tables[2])[1:]
    own = [found["ours", seed][-1] for seed in range(3)]
    balanced = [100 * statistics.balanced_accuracy(labels, p, "multi-class") for p in own]
    recall = np.mean([statistics.recall_per_class(labels, p, "multi-class") for p in own], axis=0)
    assert row[1] == f"{np.mean(balanced):.2f} ± {np.std(balanced, ddof=1):.2f}"
    assert row[3:] == [f"{100 * value:.2f}" for value in recall]
    own = [found["plain", seed][-1] for seed in range(3)]
    acc = [100 * np.mean(p.argmax(1) == labels) for p in own]
    auc = [100 * metrics.auc(labels, p, "multi-class") for p in own]
    last = [f"{np.mean(x):.2f} ± {np.std(x, ddof=1):.2f}" for x in 0.9 * np.array([acc, auc])]
    assert texts(made.tables[3])[0] == ["plain", "3, 3, 3", *last, "1.5"]
    runs, _ = (list(csv.DictReader(text.splitlines())) for text in report_files.to_csv(made))
    for row, *expected in zip(runs[:3], acc, auc, strict=True):  # of the first run
        found = [float(row[name]) for name in ("acc", "auc", "last_acc", "last_auc")]
        np.testing.assert_allclose(found, np.outer([1, 0.9], expected).ravel(), rtol=1e-6)


def test_unknown_labels_are_in_no_score_and_it_says_how_many(tmp_path):
    swept = make_sweep(*PAIR, seeds=(0,))
    labels = draw_labels("multi-label")
    found = {}
    for run, skill in zip(swept.runs, (0.5, 1.0), strict=True):
        found[run.name] = draw_probabilities(labels, "multi-label", skill=skill)
    labels[::3, 0] = -1
    for name, p in found.items():
        finish(swept, tmp_path, name, 0, labels, p, task="multi-label")
    made = report.make(swept, tmp_path, resamples=50)
    a, b = (found[name][-1] for name in ("plain", "ours"))
    acc = statistics.paired_bootstrap(
        lambda y, p: metrics.accuracy(y, p, "multi-label"), labels, [a], [b], resamples=50
    )
    assert made.comparisons["ours"].acc[:3] == pytest.approx(100 * np.array(acc[:3]))
    assert (
        "60 test images, 20 of their 180 labels unknown and in no score" in dict(made.facts)["Data"]
    )


@pytest.mark.parametrize("task", ["multi-class", "binary-class", "multi-label"])
def test_intervals_are_those_of_the_statistics(tmp_path, task):
    swept, labels, found = finish_pair(tmp_path, task=task)
    made = report.make(swept, tmp_path, resamples=50)
    a, b = ([found[name, seed][-1] for seed in range(3)] for name in ("plain", "ours"))
    comparison = made.comparisons["ours"]
    auc = statistics.paired_bootstrap(
        lambda y, p: statistics.auc_variance(y, p, task)[0], labels, a, b, resamples=50
    )
    assert comparison.auc[:3] == pytest.approx(100 * np.array(auc[:3]))
    acc = statistics.paired_bootstrap(
        lambda y, p: metrics.accuracy(y, p, task), labels, a, b, resamples=50
    )
    assert comparison.acc[:3] == pytest.approx(100 * np.array(acc[:3]))
    balanced = statistics.paired_bootstrap(
        lambda y, p: statistics.balanced_accuracy(y, p, task), labels, a, b, resamples=50
    )
    assert comparison.balanced_acc[:3] == pytest.approx(100 * np.array(balanced[:3]))
    tests = [statistics.delong_difference(labels, x, y, task) for x, y in zip(a, b, strict=True)]
    assert comparison.delong == tuple(tests)
    (row,) = texts(made.tables[1])
    signed = lambda value: f"{value:+.2f}".replace("-", "−")
    shown = [signed(100 * value) for value in acc[:3]]
    assert row[:4] == ["ours", "plain", f"{shown[0]} [{shown[1]}, {shown[2]}]", "+0.00"]
    below = sum(test.p_value < 0.05 for test in tests)
    assert row[-1] == f"{below} of 3"


def test_the_best_of_those_that_share_a_baseline_is_bold(tmp_path):
    scores = {"a": (70.0, 90.0), "b": (72.0, 89.0), "c": (71.0, 91.0), "d": (99.0, 99.0)}
    runs = [
        make_run(
            name,
            row={"Model": model, "Method": name},
            paper={"dataset": "dermamnist", "acc": acc, "auc": auc},
            baseline={"b": "a", "c": "a"}.get(name),
        )
        for (name, (acc, auc)), model in zip(scores.items(), ("x", "x", "x", "y"), strict=True)
    ]
    swept = make_sweep(*runs, seeds=(0,))
    labels = draw_labels("multi-class")
    assert report.make(swept, tmp_path).problems == ["not finished: a, b, c, d"]
    for name, skill in zip("abcd", (0.2, 0.9, 1.5, 3.0), strict=True):
        p = draw_probabilities(labels, "multi-class", skill=skill)
        finish(swept, tmp_path, name, 0, labels, p)
    made = report.make(swept, tmp_path, resamples=5)
    assert bold(made.tables[0]) == [
        [False, False, False, False, False, False],
        [False, False, False, True, False, False],
        [False, False, True, False, True, True],
        [False] * 6,  # alone
    ]
    assert "| x | c | **" in report_files.to_markdown(made)
    tex = report_tables.latex(made.tables[0], "t")
    assert r"\textbf{91.00}" in tex and tex.count(r"\midrule") == 2


def test_runs_that_differ_in_their_dataset_share_a_line(tmp_path):
    row = lambda method: {"Model": "ResNet-18", "Method": method}
    runs = [
        make_run(f"{method}-{dataset}", dataset=dataset, row=row(method), paper=paper)
        for method in ("Baseline", "DSN")
        for dataset in ("pathmnist", "retinamnist")
        for paper in [{"dataset": dataset, "acc": 50.0, "auc": len(method + dataset)}]
    ]
    swept = make_sweep(*runs, seeds=(0,))
    labels = draw_labels("multi-class")
    for run in runs[:3]:
        p = draw_probabilities(labels, "multi-class", skill=len(run.name) / 20)
        finish(swept, tmp_path, run.name, 0, labels, p)
    main, *_, epochs = report.make(swept, tmp_path).tables
    assert main.groups == [("PathMNIST", 4), ("RetinaMNIST", 4)]
    assert [r[:2] for r in texts(main)] == [["ResNet-18", "Baseline"], ["ResNet-18", "DSN"]]
    assert texts(main)[1][6:] == ["– (0 of 1)", "50.00", "– (0 of 1)", "14.00"]
    assert texts(main)[1][5] == "12.00" and re.fullmatch(r"\d\d\.\d\d", texts(main)[1][2])
    assert [row[2] for row in texts(epochs)] == ["PathMNIST", "RetinaMNIST"] * 2
    text = report_tables.markdown(main)
    assert text.startswith("| Model | Method | PathMNIST ACC | PathMNIST paper | PathMNIST AUC |")
    tex = report_tables.latex(main, "t")
    assert r" &  & \multicolumn{4}{c}{PathMNIST} & \multicolumn{4}{c}{RetinaMNIST} \\" in tex
    assert r"\cmidrule(lr){3-6} \cmidrule(lr){7-10}" in tex
    assert re.search(r"^ & DSN & ", tex, re.MULTILINE)  # the model is named once


def test_missing_and_failed_seeds_are_told(tmp_path):
    swept = make_sweep(*PAIR, make_run("broken"), make_run("later", baseline="plain"))
    finish_pair(tmp_path, swept, seeds=(0, 1))
    shutil.rmtree(tmp_path / "ours/seed0")
    for seed in range(3):
        fail(swept, tmp_path, "broken", seed, f"the loss is not finite at step {seed}")
    made = report.make(swept, tmp_path, resamples=5)
    shown = texts(made.tables[0])
    assert shown[0][1].endswith("(2 of 3)") and re.fullmatch(r"\d+\.\d\d \(1 of 3\)", shown[1][1])
    assert [row[1] for row in shown[2:]] == ["failed", "– (0 of 3)"]
    assert made.comparisons["ours"].seeds == (1,)
    ours, later = texts(made.tables[1])
    assert all(re.fullmatch(r"[+−].* \[.*\] \(1 of 3\)", ours[i]) for i in (2, 4, 5))
    assert later[2:] == ["–", "+0.00", "–", "–", "+0.00", "–", "–"]
    assert made.problems[1] == "broken/seed1 failed: the loss is not finite at step 1"
    assert made.problems[-1] == "not finished: plain/seed2, ours/seed0, ours/seed2, later"
    runs, summary = (list(csv.DictReader(text.splitlines())) for text in report_files.to_csv(made))
    assert [row["state"] for row in runs].count("failed") == 3 and len(runs) == 12
    assert float(runs[0]["acc"]) == pytest.approx(made.cells[0].percent("test", "acc")[0])
    assert [row["seeds"] for row in summary] == ["2", "1", "0", "0"]
    assert [row["difference_seeds"] for row in summary] == ["", "1", "", ""]


def test_nothing_is_finished(tmp_path):
    made = report.make(make_sweep(*PAIR), tmp_path)
    assert texts(made.tables[0])[0] == ["plain", "– (0 of 3)", "70.00", "– (0 of 3)", "90.00"]
    files = report_files.write(made, tmp_path / "out", report_files.FORMATS)
    assert all(file.stat().st_size for file in files)


def test_other_data_and_another_protocol_are_told_first(tmp_path):
    runs = [make_run("plain"), make_run("ours", baseline="plain")]
    swept = make_sweep(*runs, seeds=(0,), scale="28px", overrides={"data.image_size": 28})
    finish_pair(tmp_path, swept, seeds=(0,), dataset="ham10000_28")
    made = report.make(swept, tmp_path, resamples=5)
    assert made.warnings[0] == "Not the paper's data: ham10000_28 (paper: DermaMNIST)."
    expected = "Not the paper's protocol: data.image_size = 28 (paper: 224)."
    assert made.warnings[1] == expected
    assert made.tables[0].groups == [("ham10000_28 (paper: DermaMNIST)", 4)]
    facts = dict(made.facts)
    assert facts["Sweep"] == "tiny, scale 28px, not the paper's protocol"
    assert facts["Data"].endswith("(paper: DermaMNIST): multi-class, 60 test images, 28 x 28 x 3")
    assert facts["Overrides"] == "data.image_size = 28" and facts["Code"] == "0123456789ab"
    assert facts["Devices"] == "1 x cpu, 2 cores" and "jax 0.10.2" in facts["Versions"]
    everything = report_files.to_markdown(made)
    assert everything.count("DermaMNIST") == everything.count("ham10000_28 (paper: DermaMNIST)")


def test_sets_of_ones_own_have_columns_of_their_own(tmp_path):
    runs = [
        sweep.Run(
            name=f"{method}-{data}",
            config="resnet18",
            overrides={"data.name": "npz", "data.path": f"/somewhere/{data}.npz"},
            row={"Method": method},
        )
        for method in ("plain", "ours")
        for data in ("a", "b")
    ]
    swept = make_sweep(*runs, seeds=(0,))
    labels = draw_labels("multi-class")
    for run in runs[:3]:
        p = draw_probabilities(labels, "multi-class", skill=len(run.name) / 20)
        finish(swept, tmp_path, run.name, 0, labels, p, dataset=run.name[-1])
    main = report.make(swept, tmp_path).tables[0]
    assert main.groups == [("a", 2), ("b", 2)]
    assert [row[0] for row in texts(main)] == ["plain", "ours"]
    assert texts(main)[1][3:] == ["– (0 of 1)"] * 2


def test_a_folder_is_called_the_same_before_and_after_its_runs(tmp_path):
    (tmp_path / "ham.v2").mkdir()
    (tmp_path / "current").symlink_to("ham.v2")
    swept = make_sweep(*PAIR, overrides={"data.name": "folder", "data.path": f"{tmp_path}/current"})
    assert [cell.dataset for cell in results.collect(swept, tmp_path / "runs")] == ["ham.v2"] * 2


def test_runs_on_data_that_were_replaced_between_are_no_table(tmp_path):
    swept, labels, found = finish_pair(tmp_path, seeds=(0, 1), fingerprint="old")
    assert report.make(swept, tmp_path, resamples=5).tables
    shutil.rmtree(tmp_path / "ours/seed1")
    finish(swept, tmp_path, "ours", 1, labels, found["ours", 1], fingerprint="new")
    with pytest.raises(WorkdirError, match="plain/seed0 and ours/seed1 were not trained on the sa"):
        report.make(swept, tmp_path)

    parts = make_sweep(*PAIR, seeds=(0, 1), overrides={"data.train_fraction": 0.1})
    for (name, seed), p in found.items():  # each seed has images of its own
        finish(parts, tmp_path / "parts", name, seed, labels, p, fingerprint=f"of {seed}")
    assert report.make(parts, tmp_path / "parts", resamples=5).tables


def test_where_runs_were_resumed_is_told(tmp_path):
    swept, _, _ = finish_pair(tmp_path)
    other = ENVIRONMENT | {"device": "gpu", "device_kind": "H100", "revision": "f" * 40}
    for environment in (other, ENVIRONMENT, other):
        with Workdir(tmp_path / "ours/seed1", sweep.resolve(swept, PAIR[1], 1)) as run:
            run.claim(
                json.loads((run.path / "manifest.json").read_text()) | {"environment": environment}
            )
    assert (tmp_path / "ours/seed1/environments.jsonl").read_text() == json_text(other)
    facts = dict(report.make(swept, tmp_path, resamples=5).facts)
    assert facts["Devices"] == "1 x cpu, 2 cores (5 runs); 1 x cpu, 2 cores then 1 x H100 (1 run)"
    assert facts["Code"] == "0123456789ab (5 runs); 0123456789ab then ffffffffffff (1 run)"
    (tmp_path / "ours/seed1/environments.jsonl").write_text("7\n")
    with pytest.raises(WorkdirError, match=r"environments\.jsonl: line 1 is damaged"):
        report.make(swept, tmp_path)


def test_the_defaults_are_the_papers_protocol():
    values = dict(flatten(default_config()))
    assert {name: values[name] for name in report.PROTOCOL} == {
        "data.image_size": 224,
        "data.train_fraction": 1.0,
        "data.train_per_class": 0,
        "train.epochs": 100,
        "train.batch_size": 64,
        "train.optimizer": "adam",
        "train.learning_rate": 0.001,
    }


def test_stems_that_differ_are_told(tmp_path):
    swept = sweep.load("table5", scale="28px")
    (warning,) = (w for w in report.make(swept, tmp_path).warnings if "protocol" in w)
    assert warning.endswith(
        "model.stem of vgg16, vgg19, densenet121, densenet169, densenet201 "
        "= small (paper: imagenet)."
    )


def test_older_runs_without_predictions_have_no_intervals(tmp_path):
    swept, _, _ = finish_pair(tmp_path, predictions=False)
    made = report.make(swept, tmp_path)
    (row,) = texts(made.tables[1])
    cells = made.cells
    acc = [np.mean(cell.percent("test", "acc")) for cell in cells]
    assert row[2] == f"{acc[1] - acc[0]:+.2f}" and row[-2:] == ["–", "–"]
    assert len(made.tables) == 3  # no recall
    assert made.notes[-1].startswith("No predictions.npz, so no intervals")
    report_files.write(made, tmp_path / "out", ("html", "csv"))


def test_an_auc_that_is_undefined_is_a_dash(tmp_path):
    swept = make_sweep(*PAIR[:1], seeds=(0,))
    labels = np.zeros(20, int)
    finish(swept, tmp_path, "plain", 0, labels, draw_probabilities(labels, "multi-class"))
    made = report.make(swept, tmp_path)
    assert texts(made.tables[0])[0][3] == "–"
    report_files.write(made, tmp_path / "out", report_files.FORMATS)


def change(file, **values):
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | values))


def resave(file, **values):
    with np.load(file) as arrays:
        content = dict(arrays)
    np.savez(file, **content | values)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "result.json").write_text("{"), r"ours/seed1/result\.json is damaged"),
        (
            lambda p: (p / "result.json").write_text("{}"),
            r"result\.json is damaged \(test is missing\)",
        ),
        (lambda p: change(p / "result.json", seed=7), r"result\.json .*its seed is 7"),
        (lambda p: change(p / "result.json", best_epoch=4), r"epoch 3, result\.json for epoch 4"),
        (
            lambda p: change(p / "result.json", test={"acc": 70, "auc": 0.9}),
            r"result\.json .*70 is not a fraction",
        ),
        (
            lambda p: change(p / "result.json", test={"acc": 0.7, "auc": 0.9}),
            "test differs from the last of classifiers",
        ),
        (
            lambda p: change(p / "config.json", **{"train.epochs": 3}),
            r"config\.json is not the config .* train\.epochs is \d+ there and 3 here",
        ),
        (lambda p: (p / "config.json").unlink(), r"config\.json: cannot be read"),
        (
            lambda p: (p / "manifest.json").write_text("{}"),
            r"manifest\.json is damaged \(dataset is missing\)",
        ),
        (
            lambda p: (p / "metrics.jsonl").write_text('{"epoch": 1}\n'),
            r"metrics\.jsonl: line 1 is",
        ),
        (lambda p: (p / "metrics.jsonl").write_bytes(b"\xff\n"), r"metrics\.jsonl: line 1 is dam"),
        (lambda p: (p / "predictions.npz").write_bytes(b"PK"), r"predictions\.npz is damaged"),
        (
            lambda p: (p / "predictions.npz").write_bytes(
                (p / "predictions.npz").read_bytes()[:900]
            ),
            r"predictions\.npz is damaged",
        ),
        (
            lambda p: np.savez(p / "predictions.npz", labels=[0]),
            r"predictions\.npz .*probabilities",
        ),
        (
            lambda p: resave(p / "predictions.npz", labels=np.zeros(5, int)),
            r"predictions\.npz .*labels of shape \(5,\)",
        ),
        (
            lambda p: resave(p / "predictions.npz", labels=np.full(60, 9)),
            r"predictions\.npz .*labels from 9",
        ),
        (
            lambda p: resave(
                p / "predictions.npz",
                probabilities=draw_probabilities(draw_labels("multi-class"), "multi-class", seed=9),
            ),
            r"predictions\.npz .*the accuracy of stage 1 is 0\.\d+ by them but 0\.\d+ in result",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, message):
    swept, _, _ = finish_pair(tmp_path)
    damage(tmp_path / "ours/seed1")
    with pytest.raises(WorkdirError, match=message):
        report.make(swept, tmp_path)


def test_runs_that_were_tested_on_other_images_are_not_compared(tmp_path):
    swept, labels, _ = finish_pair(tmp_path)
    other = np.roll(labels, 1)
    p = draw_probabilities(other, "multi-class")
    finish(swept, tmp_path, "ours", 2, other, p)
    with pytest.raises(
        WorkdirError, match="plain/seed0 and ours/seed2 were not tested on the same"
    ):
        report.make(swept, tmp_path)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "lsanet_jax.report", *map(str, arguments)],
        check=False,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def test_the_command_line(tmp_path):
    workdir = tmp_path / "table3"
    swept = sweep.load(TABLE3, scale="28px", seeds=(0,))
    sweep.claim(swept, workdir)
    labels = draw_labels("multi-class")
    for name, stages in (("baseline", 1), ("lsanet", 4)):
        p = draw_probabilities(labels, "multi-class", stages=stages)
        finish(swept, workdir, name, 0, labels, p)
    flags = (f"--sweep={TABLE3}", f"--workdir={workdir}")
    done = command(*flags)
    assert done.returncode == 0, done.stderr
    names = {"table3.md", "table3.html", "table3.tex", "table3_differences.tex"}
    names |= {"table3_runs.csv", "table3_summary.csv"}
    assert {file.name for file in (workdir / "report").iterdir()} == names
    assert (workdir / "report/table3.md").read_text() == done.stdout
    assert "| DSN+KS | – (0 of 1) | 77.46 | – (0 of 1) | 93.80 |" in done.stdout

    done = command(*flags, f"--output={tmp_path / 'here'}", "--formats=tex")
    assert {f.name for f in (tmp_path / "here").iterdir()} == {n for n in names if "tex" in n}

    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    other = tmp_path / "other"
    sweep.claim(make_sweep(*PAIR), other)
    for changed, message in (
        ({"coverage": "0.8"}, "--coverage is for the page of one run: leave it or --sweep out"),
        ({"formats": "pdf"}, "--formats: 'pdf' is not one of md, csv, tex, html"),
        ({"workdir": tmp_path / "empty"}, "has no sweep.json: no sweep was started there"),
        ({"workdir": other}, "holds another sweep: its name is"),
        ({"sweep": "nowhere.py"}, "nowhere.py: there is no such file"),
        ({"output": tmp_path / "file"}, "cannot write to --output="),
    ):
        given = {"sweep": TABLE3, "workdir": workdir, "formats": "csv"} | changed
        done = command(*(f"--{name}={value}" for name, value in given.items()))
        assert done.returncode == 2 and done.stdout == ""
        assert done.stderr.startswith("error: ") and message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    made = report.make(make_sweep(*PAIR), tmp_path)
    (file,) = report_files.write(made, tmp_path / "out", ("md",))
    old = file.read_text()

    def full(self, data):
        with self.open("wb") as stream:
            stream.write(data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(WorkdirError, match="cannot write to --output.*No space left"):
        report_files.write(made._replace(title="new"), tmp_path / "out", ("md",))
    assert file.read_text() == old and os.listdir(tmp_path / "out") == [file.name]


def test_special_characters_are_escaped():
    table = Table("t", ["a_b"], ["50%"], [[Entry("R&D {x}\\^~ <#$>"), Entry("−1 ± 2", True)]])
    tex = report_tables.latex(table, "5%\nof")
    assert tex.splitlines()[0] == r"% 5% of: t. Needs \usepackage{booktabs}."
    assert r"a\_b & 50\% \\" in tex
    expected = r"R\&D \{x\}\textbackslash{}\textasciicircum{}\textasciitilde{} $<$\#\$$>$ & "
    assert expected + r"\textbf{$-$1 $\pm$ 2} \\" in tex
    table = Table("t", ["a|b"], ["x"], [[Entry("<b>*y*\nz"), Entry("p < .05")]])
    assert report_tables.markdown(table).splitlines()[2] == r"| \<b>\*y\* z | p < .05 |"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(tmp_path):
    swept, _, _ = finish_pair(tmp_path, class_names=["a_b", "c&d", "é^2"])
    made = report.make(swept, tmp_path, resamples=5)
    body = "\n\n".join(report_tables.latex(table, made.title) for table in made.tables)
    page = (
        rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    )
    (tmp_path / "page.tex").write_text(page)
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "page.tex"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]


class Page(html.parser.HTMLParser):
    """Checks that elements are closed in order, and gathers them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.ids = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in ("meta", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def labels(self):
        return [a["aria-label"] for tag, a in self.elements if tag == "svg"]


def page_of(swept, workdir):
    made = report.make(swept, workdir, resamples=5)
    (file,) = (
        f for f in report_files.write(made, workdir / "out", ("html",)) if f.suffix == ".html"
    )
    return file.read_text()


def test_the_page_is_whole_and_asks_for_nothing(tmp_path):
    swept, _, _ = finish_pair(tmp_path, class_names=["<b>nevus</b>", 'a "b"', "c & d"])
    text = page_of(swept, tmp_path)
    page = Page(text)
    assert "http:" not in text and "https:" not in text and "//" not in text.replace("</", "")
    assert not any(tag == "script" for tag, _ in page.elements)
    references = [a[n] for _, a in page.elements for n in ("src", "href") if n in a]
    assert all(r == "data:," or r.startswith("#") for r in references)
    assert not re.search(r"@import|url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids))
    assert {r[1:] for r in references if r.startswith("#")} <= set(page.ids)
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(page.ids)
    assert "<b>nevus" not in text and "&lt;b&gt;nevus" in text
    assert "prefers-color-scheme: dark" in text and 'name="viewport"' in text
    labels = page.labels()
    for part in (
        "ACC, difference to the baseline: ours: +",
        "AUC, difference to the baseline",
        "plain: training accuracy by epoch; at the last one C1 50, C2 ",
        "ours: validation auc by epoch",
        "ours: weight of each classifier (beta) by epoch",
        "ours: reliability diagram",
        "ours: confusion matrix",
    ):
        assert sum(label.startswith(part) for label in labels) == 1, part
    assert len(labels) == 2 + 4 + 5  # without attention no beta
    assert len(text) < 2 * 5e6 / 20 and len(page.elements) < 2 * 1000 + 200


@pytest.mark.parametrize("task", ["binary-class", "multi-label", "ordinal-regression"])
def test_pages_of_other_tasks(tmp_path, task):
    swept, _, _ = finish_pair(tmp_path, task=task)
    labels = Page(page_of(swept, tmp_path)).labels()
    confusion = [label for label in labels if "confusion matrix" in label]
    assert len(confusion) == (0 if task == "multi-label" else 2)


def figure2_sweep(tmp_path, datasets=("retinamnist", "dermamnist")):
    runs = [
        make_run(
            f"{dataset}-{training.split()[0]}",
            dataset=dataset,
            objective=objective,
            paper=None,
            row={"Data": dataset, "Training": training},
        )
        for dataset in datasets
        for training, objective in (("without DSL", "baseline"), ("with DSL", "dsn"))
    ]
    swept = make_sweep(*runs, name="figure2", seeds=(0, 1))
    labels = draw_labels("multi-class")
    for run, seed in itertools.product(runs, swept.seeds):
        p = draw_probabilities(labels, "multi-class", seed=seed)
        used = "ham10000_28" if "derma" in run.name else None
        finish(swept, tmp_path, run.name, seed, labels, p, dataset=used)
    return swept


def test_figure2(tmp_path):
    swept = figure2_sweep(tmp_path)
    made = report.make(swept, tmp_path)
    assert [row[0] for row in texts(made.tables[0])] == [
        "RetinaMNIST",
        "RetinaMNIST",
        "ham10000_28 (paper: DermaMNIST)",
        "ham10000_28 (paper: DermaMNIST)",
    ]
    assert made.tables[0].columns == ["ACC", "AUC"]  # the paper has none
    assert made.warnings[0] == "Not the paper's data: ham10000_28 (paper: DermaMNIST)."
    files = report_files.write(made, tmp_path / "out", report_files.FORMATS)
    assert [f.name for f in files if f.suffix == ".png"] == ["figure2.png"]
    assert (tmp_path / "out/figure2.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "out/figure2.html").read_text()
    assert "Training accuracy of each classifier by epoch, without and with" in text
    assert ">ham10000_28 (paper: DermaMNIST)</text>" in text and ">with DSL</text>" in text


def test_figure2_of_runs_without_its_curves_is_left_out(tmp_path):
    swept = figure2_sweep(tmp_path, datasets=("retinamnist",))
    for file in tmp_path.rglob("metrics.jsonl"):
        file.write_text(file.read_text().replace("acc_stage", "old_stage"))
    files = report_files.write(report.make(swept, tmp_path), tmp_path / "out", ("html",))
    assert [file.name for file in files] == ["figure2.html"]


def test_label_efficiency(tmp_path):
    swept = sweep.load("label_efficiency", seeds=(0, 1))
    labels = draw_labels("multi-class")
    for method, share in itertools.product(("baseline", "lsanet"), (1, 10)):
        for seed in swept.seeds:
            p = draw_probabilities(labels, "multi-class", skill=share / 10, seed=seed)
            finish(swept, tmp_path, f"{share}pct-{method}", seed, labels, p)
    made = report.make(swept, tmp_path, resamples=20)
    assert not made.warnings  # parts of the labels are what it is about
    files = report_files.write(made, tmp_path / "out", report_files.FORMATS)
    assert [f.name for f in files if f.suffix == ".png"] == ["label_efficiency.png"]
    assert (tmp_path / "out/label_efficiency.png").read_bytes().startswith(b"\x89PNG")
    text = (tmp_path / "out/label_efficiency.html").read_text()
    picture = text.partition("<h2>Scores by labels</h2>")[2].partition("</figure>")[0]
    assert ">LSANet</text>" in picture and ">Baseline</text>" in picture
    assert ">DKS</text>" not in picture and ">training labels, %</text>" in picture


def test_tables_are_drawn_again_from_the_csv_files(tmp_path):
    swept, _, _ = finish_pair(tmp_path / "w")
    made = report.make(swept, tmp_path / "w", resamples=20)
    report_files.write(made, tmp_path, ("csv",))
    again = redraw.from_csv(tmp_path / "tiny")
    shown = [table for table in made.tables if "balanced" not in table.columns[0]]
    assert [table.title for table in again] == [table.title for table in shown]
    for table, expected in zip(again, shown, strict=True):
        assert report_tables.markdown(table) == report_tables.markdown(expected)


def test_a_run_of_own_data_that_failed_stays_in_its_column(tmp_path):
    swept = sweep.load(
        "table3", overrides={"data.name": "npz", "data.path": "mine.npz"}, seeds=(0,)
    )
    labels = draw_labels("multi-class")
    for name in ("baseline", "dsn"):
        p = draw_probabilities(labels, "multi-class")
        finish(swept, tmp_path / "w", name, 0, labels, p, dataset="mine")
    fail(swept, tmp_path / "w", "lsanet", 0, "no memory")
    made = report.make(swept, tmp_path / "w", resamples=20)
    report_files.write(made, tmp_path, ("csv",))
    drawn = report_tables.markdown(redraw.from_csv(tmp_path / "table3")[0])
    assert drawn == report_tables.markdown(made.tables[0]) and "failed" in drawn


def test_files_that_are_not_of_a_report_are_not_drawn(tmp_path):
    with pytest.raises(DataError, match=r"tiny_runs\.csv: cannot be read \(No such file"):
        redraw.from_csv(tmp_path / "tiny")
    for name in ("tiny_runs.csv", "tiny_summary.csv"):
        (tmp_path / name).write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"tiny_summary\.csv are not of a report"):
        redraw.from_csv(tmp_path / "tiny")


def damage_csv(kind, old, new):
    return lambda folder: (folder / f"tiny_{kind}.csv").write_text(
        (folder / f"tiny_{kind}.csv").read_text().replace(old, new, 1)
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_csv("runs", ",finished,", ",unfinished,"), "state of a run is 'unfinished'"),
        (damage_csv("runs", ",finished,", ",finished"), "shorter than"),
        (damage_csv("runs", ",finished,", f",{'x' * 200_000},"), "field larger than field limit"),
        (damage_csv("runs", ",finished,", ',"finished,'), "unexpected end of data"),
        (damage_csv("summary", "run,", "seeds,"), "two columns have one name"),
        (damage_csv("summary", "baseline", "base"), "none is named"),
        (lambda d: (d / "tiny_runs.csv").write_bytes(b"\xff\xfe"), "can't decode"),
        (lambda d: [(d / "tiny_runs.csv").unlink(), os.mkfifo(d / "tiny_runs.csv")], "not a regu"),
        (lambda d: set_cells(d, "runs", acc="1e999"), "'1e999' is not a number"),
        (lambda d: set_cells(d, "runs", acc="999"), "'999' is not a percentage"),
        (lambda d: set_cells(d, "runs", seed="0"), "is there twice"),
        (lambda d: set_cells(d, "runs", run="other"), "no row of the summary is of the run"),
        (lambda d: set_cells(d, "summary", baseline="none"), "of the run 'none'"),
        (lambda d: set_cells(d, "summary", run="one"), "twice|no row"),
    ],
)
def test_damaged_csv_files_are_one_error(csv_files, tmp_path, damage, message):
    shutil.copytree(csv_files, tmp_path, dirs_exist_ok=True)
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        redraw.from_csv(tmp_path / "tiny")


def set_cells(folder, kind, **cells):
    file = folder / f"tiny_{kind}.csv"
    with file.open(newline="") as stream:
        rows = [row | cells for row in csv.DictReader(stream)]
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture(scope="module")
def csv_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("csv")
    swept, _, _ = finish_pair(folder / "w")
    made = report.make(swept, folder / "w", resamples=20)
    report_files.write(made, folder / "files", ("csv",))
    return folder / "files"


def test_curves_are_by_stage_and_seed(tmp_path):
    swept, _, _ = finish_pair(tmp_path)
    (cell, _) = results.collect(swept, tmp_path)
    found = results.curves(cell, results.val_curve("auc"))
    assert sorted(found) == [1, 2, 3, 4] and found[4].shape == (3, 5)
    line = json.loads((tmp_path / "plain/seed2/metrics.jsonl").read_text().splitlines()[3])
    assert found[2][2, 3] == line["val"]["classifiers"][1]["auc"]
    assert results.curves(cell, results.train_curve("beta")) == {}


def test_the_p_value_of_a_row_is_the_majoritys():
    interval = statistics.Bootstrap(1.0, 0.5, 1.5, 0)
    for tests, expected in (
        ({0.9: 1, 0.01: 1, 0.02: 1}, (".030", "2 of 3")),
        ({0.01: 1, 0.02: -1}, ("1.000", "1 of 2")),
        ({1e-9: 1}, ("< .001", "1 of 1")),
        ({math.nan: 1}, ("–", "0 of 1")),
        ({}, ("–", "–")),
    ):
        delong = [statistics.Difference(d, 0, 0, 0, p) for p, d in tests.items()]
        found = results.Comparison((0,), interval, interval, interval, tuple(delong))
        assert report_tables._significance(found) == expected


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium here")
def test_a_browser_shows_the_page_without_an_error_or_a_request(tmp_path):
    page_of(figure2_sweep(tmp_path), tmp_path)
    file = tmp_path / "out/figure2.html"

    def show(file):
        """The page's elements, messages on stderr, and what it asked the network for."""
        log = tmp_path / "net.json"
        flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-sync"
        flags += " disable-background-networking disable-component-update dump-dom"
        flags += f" enable-logging=stderr user-data-dir={tmp_path / 'profile'} log-net-log={log}"
        done = subprocess.run(
            ["chromium", *(f"--{flag}" for flag in flags.split())]
            + ["--host-resolver-rules=MAP * ~NOTFOUND", file.as_uri()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        events = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
        # What the browser asks for on its own account has "not an origin" as initiator.
        asked = [e["url"] for e in events if e.get("initiator", "not an origin") != "not an origin"]
        return done.stdout, done.stderr, asked

    dom, messages, asked = show(file)
    assert dom.count("<svg") == file.read_text().count("<svg")
    assert "CONSOLE" not in messages and not asked
    other = tmp_path / "other.html"
    bad = '<img src="http://pic.test/a.png"><script>console.error("bad")</script>'
    other.write_text(file.read_text().replace("<main>", f"<main>{bad}"))
    _, messages, asked = show(other)
    assert "CONSOLE" in messages and asked == ["http://pic.test/a.png"]
