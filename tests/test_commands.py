"""The commands, from the repository and from a wheel; what they import, and how they fail."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import lsanet_jax
from lsanet_jax import __main__ as lsanet
from lsanet_jax import __version__
from lsanet_jax.config import FIELDS, names
from lsanet_jax.config import load as load_config
from lsanet_jax.runtime import cli

ROOT = Path(__file__).resolve().parents[1]


def python(*arguments, cwd=ROOT, **variables):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def test_importing_the_package_or_its_config_does_not_import_jax():
    code = "import sys; import {}; print('jax' in sys.modules, 'numpy' in sys.modules)"
    assert python("-c", code.format("lsanet_jax")).stdout == "False False\n"
    assert python("-c", code.format("lsanet_jax.config")).stdout.startswith("False")


@pytest.mark.parametrize("flags", [[], ["--help"], ["help"]])
def test_lsanet_lists_its_commands(flags, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lsanet", *flags])
    lsanet.main()
    shown = capsys.readouterr().out
    for command, (_, summary) in lsanet.COMMANDS.items():
        assert f"{command} " in shown and summary in shown


def test_lsanet_tells_its_version(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lsanet", "--version"])
    lsanet.main()
    assert capsys.readouterr().out == f"lsanet {__version__}\n"


def test_the_package_shows_its_public_names_only():
    assert sorted(lsanet_jax.__all__) == dir(lsanet_jax)


@pytest.mark.parametrize("name", ["folder", "few_labels", "pretrain"])
def test_a_shipped_config_for_own_images_has_no_path_yet(name):
    assert load_config(name).data.path == ""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("predcit", "did you mean predict?"),
        ("xyzzy", "expected train, predict, evaluate, audit, export"),
    ],
)
def test_an_unknown_command_is_one_error_line(command, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lsanet", command, "--workdir=x"])
    with pytest.raises(SystemExit) as stop:
        lsanet.main()
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: lsanet has no command '{command}'") and message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", sorted(lsanet.COMMANDS.keys() - {"train", "pretrain"}))
def test_each_command_hands_its_flags_to_its_module(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lsanet", command, "--help"])
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(SystemExit) as stop:
        lsanet.main()
    assert not stop.value.code
    assert capsys.readouterr().out.startswith(f"usage: lsanet {command} ")


def test_ctrl_c_ends_a_tool_in_one_line(monkeypatch, capsys):
    def tool():
        raise KeyboardInterrupt

    monkeypatch.setattr(logging.getLogger("lsanet_jax"), "handlers", [])
    with pytest.raises(SystemExit) as stop:
        cli.run(tool)
    assert stop.value.code == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"


def test_memory_of_the_device_that_runs_out_is_one_line(monkeypatch, capsys):
    def tool(message):
        raise RuntimeError(message)

    monkeypatch.setattr(logging.getLogger("lsanet_jax"), "handlers", [])
    with pytest.raises(SystemExit) as stop:
        cli.run(lambda: tool("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"))
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert "lower config.train.batch_size" in error and "allocating 9 bytes" in error
    with pytest.raises(RuntimeError, match="another"):
        cli.run(lambda: tool("another"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pretrain", "--config.model.objective=dsn"], "lsanet pretrain always trains with vicreg"),
        (
            ["train", "--config.train.milestones[0]=0.9"],
            "is set as a whole, such as --config.train.milest",
        ),
        (["train", "--config.model=resnet50"], "--config.model is a section, not a field"),
        (["train", "--config=my_config"], "my_config: there is no such file; did you mean my_conf"),
    ],
)
def test_flags_that_would_be_ignored_or_misread_are_errors(arguments, message, tmp_path):
    (tmp_path / "my_config.py").write_text("")
    command, *flags = arguments
    if not flags[0].startswith("--config="):
        flags.insert(0, "--config=quickstart")
    found = python(
        "-m", "lsanet_jax", command, "--workdir=run", *flags, cwd=tmp_path, PYTHONPATH=str(ROOT)
    )
    assert found.returncode == 2 and found.stderr.startswith("error: ") and message in found.stderr
    assert found.stderr.count("\n") == 1


def test_a_variable_that_jax_does_not_understand_is_one_error_line(tmp_path):
    for command in (["train", "--config=quickstart"], ["predict"]):
        found = python(
            *("-m", "lsanet_jax", *command, f"--workdir={tmp_path / 'run'}"), JAX_ENABLE_X64="maybe"
        )
        assert found.returncode == 2, found.stderr
        assert "error: JAX finds no device (JAX_ENABLE_X64=maybe" in found.stderr
        assert "Traceback" not in found.stderr


def test_a_folder_that_was_deleted_is_one_error_line(tmp_path):
    line = f"mkdir gone; cd gone; rmdir ../gone; exec {sys.executable} -m lsanet_jax models"
    found = subprocess.run(
        ["bash", "-c", line],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 2 and "the current folder has been deleted" in found.stderr


def test_help_of_train_has_every_flag_and_field_and_imports_no_jax():
    code = "import sys, atexit; atexit.register(lambda: print('jax' in sys.modules));"
    code += (
        "from lsanet_jax.__main__ import main; sys.argv[:] = ['lsanet', 'train', '--help'];main()"
    )
    result = python("-c", code, COLUMNS="100")
    assert result.returncode == 0, result.stderr
    *lines, jax_was_imported = result.stdout.splitlines()
    assert jax_was_imported == "False"
    assert max(map(len, lines)) <= 100
    words = {line.split()[0] for line in lines if line.startswith("  ")}
    assert words >= {"--config", "--workdir", "--coordinator", "--num_processes", "--process_id"}
    assert words >= {name.rpartition(".")[2] for name in FIELDS}
    assert all(name in result.stdout for name in names())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--config=resnet19"], "--config=resnet19: there is no such file.*did you mean resnet18"),
        (["--config=mine.py"], "--config=mine.py cannot be loaded: ZeroDivisionError"),
        (["--config=quickstart:x"], r"--config=quickstart:x: get_config\(\) fails: TypeError"),
        (["--config", "quickstart", "--noconfig.data.as_rg"], "did you mean data.as_rgb"),
        (["--config=quickstart", "--config.train.epochs=0"], "must be an integer >= 1"),
    ],
)
def test_a_bad_flag_of_train_is_one_error_line(flags, message, tmp_path):
    (tmp_path / "mine.py").write_text("1 / 0")
    command = ["-m", "lsanet_jax", "train", "--workdir=run", *flags]
    result = python(*command, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert result.returncode == 2
    error = result.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert re.search(message, error), error
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_train_ends_in_the_page_of_the_run_and_leaves_one_that_is_there(run, tmp_path):
    from lsanet_jax import main

    copy = shutil.copytree(run[1], tmp_path / "copy")
    main.write_page(str(copy))
    page = (copy / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>")
    (copy / "report.html").write_text("of yesterday")
    main.write_page(str(copy))
    assert (copy / "report.html").read_text() == "of yesterday"


def test_a_page_that_cannot_be_written_is_a_warning(run, tmp_path, caplog):
    from lsanet_jax import main

    copy = shutil.copytree(run[1], tmp_path / "copy")
    (copy / "predictions.npz").write_bytes(b"damaged")
    main.write_page(str(copy))
    assert "the page of the run could not be written" in caplog.text
    assert not (copy / "report.html").exists()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    built = python("-m", "pip", "wheel", "--no-deps", "--quiet", f"--wheel-dir={folder}", ROOT)
    if built.returncode and "No matching distribution found for hatchling" in built.stderr:
        pytest.skip("pip cannot reach an index that has hatchling")
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package_and_the_configs(wheel):
    package = {str(file.relative_to(ROOT)) for file in (ROOT / "lsanet_jax").rglob("*.*")}
    configs = {f"lsanet_jax/{file.relative_to(ROOT)}" for file in (ROOT / "configs").rglob("*.py")}
    expected = {name for name in package | configs if "__pycache__" not in name}
    assert {"lsanet_jax/py.typed", "lsanet_jax/paper.json"} <= expected
    files = zipfile.ZipFile(wheel).namelist()
    assert expected <= set(files)
    assert {name.split("/")[0] for name in files if "dist-info" not in name} == {"lsanet_jax"}
    assert not [name for name in files if "__pycache__" in name]


@pytest.mark.slow
def test_the_wheel_trains_in_an_empty_folder_with_an_empty_home(wheel, tmp_path):
    site, home, here = (tmp_path / name for name in ("site", "home", "here"))
    home.mkdir()
    here.mkdir()
    install = ["install", "--no-deps", "--quiet", f"--target={site}", wheel]
    installed = python("-m", "pip", *install)
    assert installed.returncode == 0, installed.stderr
    assert (site / "bin/lsanet").exists()
    alone = {"cwd": here, "PYTHONPATH": str(site), "HOME": str(home)}

    shown = python("-m", "lsanet_jax", "train", "--help", **alone)
    assert shown.returncode == 0, shown.stderr
    assert "checkpoint_every_epochs" in shown.stdout and "wrn101" in shown.stdout

    sizes = {"num_train": 32, "num_val": 16, "num_test": 16}
    flags = [f"--config.data.synthetic.{name}={size}" for name, size in sizes.items()]
    flags += ["--config.data.size=28", "--config.data.image_size=28", "--config.model.stem=small"]
    flags += ["--config.train.epochs=1", "--config.train.batch_size=16"]
    flags += ["--config.eval.batch_size=16", "--config.model.objective=baseline"]
    script = [site / "bin/lsanet", "train", "--config=quickstart", "--workdir=run", *flags]
    trained = python(*script, **alone)
    assert trained.returncode == 0, trained.stderr
    assert "test" in trained.stdout + trained.stderr
    result = json.loads((here / "run/result.json").read_text())
    assert 0 <= result["test"]["acc"] <= 1
    assert (here / "run/report.html").read_text().startswith("<!DOCTYPE html>")
    assert "data.size" in json.loads((here / "run/config.json").read_text())
