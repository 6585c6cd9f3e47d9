"""The programs in examples/ run as they stand, here on networks of one block in each stage."""

import pathlib
import runpy

import pytest

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


def test_the_notebook_reads_as_cells_of_text_and_code():
    cells = (EXAMPLES / "few_labels.py").read_text().split("\n# %%")[1:]
    text = [cell for cell in cells if cell.startswith(" [markdown]")]
    assert len(text) >= 5 and len(cells) - len(text) >= 5
    for cell in text:  # a line of code among the text would be lost in a notebook
        assert all(not line or line.startswith("#") for line in cell.splitlines()[1:])
