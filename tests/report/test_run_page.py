"""The page of a run."""

import html.parser
import json
import re
import shutil
import types

import numpy as np
import pytest
import scipy.stats

from lsanet_jax import metrics
from lsanet_jax.errors import ConfigError, WorkdirError
from lsanet_jax.evaluation.resampling import Draws
from lsanet_jax.report import run as run_lib
from lsanet_jax.report import run_files, run_page
from lsanet_jax.runtime.files import json_text
from tests.sealed import as_earlier_version


class Elements(html.parser.HTMLParser):
    """The start tags of a page, and whether each is closed."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_of_a_run_says_what_its_files_say(run):
    _, path = run
    found = run_lib.read(path)
    text = run_page.render(found)
    elements = Elements(text)
    assert not elements.open
    result = json.loads((path / "result.json").read_text())
    assert f"{100 * result['test']['auc']:.1f} [" in text
    acc = metrics.accuracy(found.test.labels, found.raw, found.task)
    assert f"{100 * acc:.1f} [" in text
    for name in found.names:
        assert name in text
    titles = re.findall(r"<h2>([^<]*)", text)
    assert [t.strip() for t in titles[:4]] == [
        "Data",
        "Model",
        "Training",
        "How the scores were made",
    ]
    items = [int(n) for n in re.findall(r"\d+", " ".join(re.findall(r">CLAIM ([\d, ]+)<", text)))]
    assert set(items) <= set(range(1, 43)) and items[0] == 7
    tags = [tag for tag, _ in elements.tags]
    assert "script" not in tags
    pictures = [attributes for tag, attributes in elements.tags if tag == "img"]
    assert pictures and all(p["alt"] and p["src"].startswith("data:image/") for p in pictures)
    figures = [attributes for tag, attributes in elements.tags if tag == "svg"]
    assert figures and all(f["role"] == "img" and f["aria-label"] for f in figures)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)[^\"]*", text)
    ids = [attributes["id"] for _, attributes in elements.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_a_page_is_made_without_data_or_calibration(run, tmp_path):
    path = shutil.copytree(run[1], tmp_path / "run")
    as_earlier_version(path)
    (path / "calibration.json").unlink()
    config = json.loads((path / "config.json").read_text())
    config["data.name"], config["data.path"] = "npz", "gone.npz"
    (path / "config.json").write_text(json.dumps(config))
    manifest = json.loads((path / "manifest.json").read_text()) | {"config": config}
    manifest["environment"] |= {"revision": "c0ffee", "modified": True}
    (path / "manifest.json").write_text(json.dumps(manifest))
    then = manifest["environment"] | {"device_count": 64}
    then["packages"] = then["packages"] | {"jax": "9.8.7"}
    (path / "environments.jsonl").write_text(json.dumps(then) + "\n")
    file = run_files.write(path)
    text = file.read_text()
    assert "<dd>c0ffee, changed</dd>" in text
    assert "<dt>Resumed where</dt><dd>jax 9.8.7, device_count 64</dd>" in text
    assert file == path / "report.html" and not Elements(text).open
    assert "The run is not calibrated" in text and "gone.npz" in text
    assert "<img" not in text and "Each class" in text
    (path / "result.json").unlink()
    with pytest.raises(WorkdirError, match="the run is not finished"):
        run_files.write(path)


def test_subgroups_are_read_from_a_table(run, tmp_path, monkeypatch):
    found = run_lib.read(run[1])
    names = tuple(f"sub/img{i}.png" for i in range(len(found.test.labels)))
    split = found.dataset.test
    object.__setattr__(split, "names", names)
    monkeypatch.setattr(run_lib, "_load", lambda config, test: found.dataset)
    table = tmp_path / "people.csv"
    rows = [
        f"img{i},{'f' if i % 2 else 'm'},{'north' if i < 12 else ''}" for i in range(len(names))
    ]
    table.write_text("\n".join(["image_id,Sex,site", *rows]))
    again = run_lib.read(run[1], by=("sex", "site"), table=str(table))
    assert again.columns["Sex"][:2] == ["m", "f"] and again.columns["site"][-1] == ""
    text = run_page.render(again, with_pictures=False)
    assert "By Sex, in percent" in text and "too few to compare" in text
    with pytest.raises(ConfigError, match=r"--by=age: .*people\.csv has no such column"):
        run_lib.read(run[1], by=("age",), table=str(table))
    shouted = [row.replace("img", "IMG", 1).replace(",", ".PNG,", 1) for row in rows]
    table.write_text("\n".join(["image_id,Sex,site", *shouted]))
    assert run_lib.read(run[1], by=("sex",), table=str(table)).columns["Sex"][:2] == ["m", "f"]
    table.write_text("\n".join(["image_id,Sex,site", *(r.replace(",", ".1,", 1) for r in rows)]))
    with pytest.raises(ConfigError, match="names the test images"):  # .1 is no suffix of images
        run_lib.read(run[1], by=("sex",), table=str(table))
    twins = tuple(f"{'ab'[i % 2]}/img{i // 2}.png" for i in range(len(names)))
    object.__setattr__(split, "names", twins)
    table.write_text("\n".join(["file,Sex", *(f"{n},{n[0]}" for n in twins)]))
    of_paths = run_lib.read(run[1], by=("sex",), table=str(table)).columns
    assert of_paths == {"Sex": [name[0] for name in twins]}
    table.write_text("\n".join(["file,Sex", *(f"{n[2:]},{n[0]}" for n in twins)]))
    with pytest.raises(ConfigError, match=r"--by: several images or rows of .* are called img0"):
        run_lib.read(run[1], by=("sex",), table=str(table))
    object.__setattr__(split, "names", names)
    spelled = [f"img{i},{('m', 'M', 'nan', 'f')[i % 4]}" for i in range(len(names))]
    table.write_text("\n".join(["image_id,Sex", *spelled, spelled[0]]))
    of_values = run_lib.read(run[1], by=("sex",), table=str(table)).columns["Sex"]
    assert set(of_values) == {"m", "", "f"} and of_values[:4] == ["m", "m", "", "f"]
    table.write_text("\n".join(["image_id,Sex", *spelled, "img0,f"]))
    with pytest.raises(ConfigError, match=r"line 22: img0 has Sex 'f', but 'm' in a line before"):
        run_lib.read(run[1], by=("sex",), table=str(table))
    table.write_text("\n".join(["image_id,Sex,site", *rows]))
    monkeypatch.setattr(run_lib, "_MOST_SUBGROUPS", 2)
    with pytest.raises(ConfigError, match=r"--by=image_id: .* has \d+ different values"):
        run_lib.read(run[1], by=("sex", "image_id"), table=str(table))
    with pytest.raises(ConfigError, match="name the table that has the columns with --table"):
        run_lib.read(run[1], by=("sex",))


@pytest.mark.parametrize(("groups", "independent"), [((), 10), (np.arange(12) // 2, 5)])
def test_what_is_right_every_time_is_not_certain(groups, independent):
    found = types.SimpleNamespace(draws=Draws(12, groups, resamples=200), groups=groups)
    of = np.arange(12) < 10
    for hits, count in ((of, independent), (~of, 0)):
        score = run_page._proportion(found, hits & of, of)
        wilson = scipy.stats.binomtest(count, independent).proportion_ci(method="wilson")
        assert score.value == (count > 0)
        np.testing.assert_allclose(score[1:], wilson, atol=1e-12)


@pytest.mark.parametrize("task", ["multi-label", "binary-class"])
def test_every_task_has_a_page(run, tmp_path, task):
    path = shutil.copytree(run[1], tmp_path / "run")
    from lsanet_jax.evaluation import decisions
    from tests.fake_runs import draw_labels, draw_probabilities

    as_earlier_version(path)
    k = 2 if task == "binary-class" else 3
    result = json.loads((path / "result.json").read_text()) | {"task": task}
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["dataset"] |= {"task": task, "class_names": ["no", "yes", "<b>"][:k]}
    (path / "manifest.json").write_text(json.dumps(manifest))
    for name, seed in (("predictions", 0), ("validation", 1)):
        labels = draw_labels(task, 60, seed=seed)
        if task == "multi-label":
            labels[:5, 0] = -1
        probabilities = draw_probabilities(labels, task, stages=2, seed=seed)
        epoch = result["best_epoch"]
        np.savez(path / f"{name}.npz", labels=labels, probabilities=probabilities, epoch=epoch)
        for classifier, p in zip(result["classifiers"], probabilities, strict=True):
            if name == "predictions":
                classifier["acc"] = metrics.accuracy(labels, p, task)
                classifier["auc"] = metrics.auc(labels, p, task)
        fitted = decisions.fit(labels, probabilities, task, manifest["dataset"]["class_names"])
    (path / "result.json").write_text(json.dumps(result))
    (path / "calibration.json").write_text(json_text(decisions.to_json(fitted)))
    text = run_page.render(run_lib.read(path))
    assert not Elements(text).open and "<b>" not in text
    assert "the labels of the test split differ" in text
