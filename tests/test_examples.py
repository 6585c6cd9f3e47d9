"""The programs in examples/ run as they stand, here on networks of one block in each stage."""

import csv
import pathlib
import re
import runpy

import numpy as np
import pytest
from PIL import Image

from lsanet_jax import export, predict

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_own_images_go_from_a_folder_to_predictions(tmp_path, monkeypatch, capsys, small_families):
    monkeypatch.chdir(tmp_path)
    program = runpy.run_path(str(EXAMPLES / "own_images.py"))
    program["draw_pictures"](tmp_path / "pictures", per_class=10)
    monkeypatch.setattr("sys.argv", ["own_images.py", "pictures"])
    runpy.run_path(str(EXAMPLES / "own_images.py"), run_name="__main__")
    assert "test AUC" in capsys.readouterr().out
    header, *rows = (tmp_path / "runs/own_images/predictions.csv").read_text().splitlines()
    assert header == "file,elongated,round"
    assert rows
    for row in rows:
        name, *probabilities = row.split(",")
        assert (tmp_path / "pictures" / name).is_file()
        assert sum(map(float, probabilities)) == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_few_labels_compares_the_methods_on_a_quarter_of_the_labels(
    tmp_path, monkeypatch, capsys, small_families
):
    monkeypatch.setenv("EPOCHS", "1")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    runpy.run_path(str(EXAMPLES / "few_labels.py"), run_name="__main__")
    output = capsys.readouterr().out
    assert "256 training images" in output
    table = output[output.index("method    seed") :].splitlines()
    rows = [row.split() for row in table[1:3]]
    assert [row[0] for row in rows] == ["baseline", "lsanet"]
    assert all(0 <= float(score) <= 100 for row in rows for score in row[2:])


def test_an_onnx_file_predicts_pictures_as_the_run_does(run, tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = export.export(run[1], tmp_path / "model.onnx", format="onnx")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 40, 30, 3), np.uint8)
    for name, picture in zip("ab", pixels, strict=True):
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    pictures = [str(tmp_path / f"{name}.png") for name in "ab"]
    monkeypatch.setattr("sys.argv", ["predict_onnx.py", str(model), *pictures])
    runpy.run_path(str(EXAMPLES / "predict_onnx.py"), run_name="__main__")
    shown = capsys.readouterr().out.splitlines()
    table = predict.predict_to_file(run[1], input=str(tmp_path), output=str(tmp_path / "table.csv"))
    with table.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["file"] for row in rows] == ["a.png", "b.png"]
    assert len(shown) == 2 * 4  # a line for each picture and one for each of its three classes
    for row, picture, line, *points in zip(rows, pictures, *[iter(shown)] * 4, strict=True):
        assert line.startswith(f"{picture} ")
        found = dict(re.findall(r"'(.+?)': ([0-9.]+)", line))
        assert len(found) == 3
        for title, probability in found.items():
            assert float(row[title]) == pytest.approx(float(probability), abs=2e-4)
        yes = [point.split(":")[0].strip() for point in points if point.endswith(": yes")]
        assert "|".join(yes) == row["decision"]


def test_the_notebook_reads_as_cells_of_text_and_code():
    cells = (EXAMPLES / "few_labels.py").read_text().split("\n# %%")[1:]
    text = [cell for cell in cells if cell.startswith(" [markdown]")]
    assert len(text) >= 5 and len(cells) - len(text) >= 5
    for cell in text:  # a line of code among the text would be lost in a notebook
        assert all(not line or line.startswith("#") for line in cell.splitlines()[1:])
