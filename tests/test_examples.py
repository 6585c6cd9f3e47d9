"""The programs in examples/ run as they stand."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


def run_example(name: str, cwd: pathlib.Path, *arguments: str, **variables: str) -> str:
    result = subprocess.run(
        [sys.executable, ROOT / "examples" / name, *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_own_images_go_from_a_folder_to_predictions(tmp_path):
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import own_images
    finally:
        sys.path.pop(0)
    own_images.draw_pictures(tmp_path / "pictures", per_class=10)
    output = run_example("own_images.py", tmp_path, "pictures")
    assert "test AUC" in output
    rows = (tmp_path / "runs/own_images/predictions.csv").read_text().splitlines()
    assert rows[0] == "file,elongated,round"
    for row in rows[1:]:
        name, *probabilities = row.split(",")
        assert (tmp_path / "pictures" / name).is_file()
        assert sum(map(float, probabilities)) == pytest.approx(1, abs=1e-3)


def test_few_labels_compares_the_methods_on_a_quarter_of_the_labels(tmp_path):
    output = run_example("few_labels.py", tmp_path, EPOCHS="1")
    assert "256 training images" in output
    methods = [line.split() for line in output.splitlines() if line.startswith(("base", "lsanet"))]
    assert [method[0] for method in methods] == ["baseline", "lsanet"]
    assert all(0 <= float(score) <= 100 for method in methods for score in method[2:])


def test_the_notebook_reads_as_cells_of_text_and_code():
    cells = (ROOT / "examples/few_labels.py").read_text().split("\n# %%")[1:]
    text = [cell for cell in cells if cell.startswith(" [markdown]")]
    assert len(text) >= 5 and len(cells) - len(text) >= 5
    for cell in text:  # a line of code among the text would be lost in a notebook
        lines = cell.splitlines()[1:]
        assert all(not line or line.startswith("#") for line in lines)
