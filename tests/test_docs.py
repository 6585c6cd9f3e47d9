"""The README and the pages in docs/ hold: links lead somewhere, commands and code are valid."""

import argparse
import ast
import csv
import importlib
import math
import os
import pathlib
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest

from lsanet_jax import config as config_lib
from lsanet_jax.__main__ import COMMANDS
from lsanet_jax.config import named
from lsanet_jax.report import redraw

ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "RESULTS.md", ROOT / "launch/README.md"]
PAGES += sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^(<!-- run -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

TRAIN_FLAGS = {"config", "workdir", "page", "track"}
TRAIN_FLAGS |= {"coordinator", "num_processes", "process_id"}


def blocks(language: str):
    """(page, whether it is to be run, text) of all blocks in a language."""
    for page in PAGES:
        for run, found, text in BLOCK.findall(page.read_text()):
            if found == language:
                long = bool(run) and page.stem != "README"
                yield pytest.param(
                    text,
                    bool(run),
                    id=f"{page.stem}-{text.splitlines()[0][:40]}",
                    marks=[pytest.mark.slow] if long else [],
                )


def commands():
    """Every command line of ours in the shell blocks: (tool, arguments)."""
    for block in blocks("sh"):
        text = block.values[0].replace("\\\n", " ").replace("$objective", "lsanet")
        text = text.replace("$seed", "0").replace("$flags", "--sweep=table3 --workdir=x")
        for line in text.splitlines():
            words = shlex.split(re.sub(r"\$\((.*)\)", r"\1", line), comments=True)
            for i, word in enumerate(words):
                name, rest = pathlib.PurePath(word).name, words[i + 1 :]
                if word == "lsanet" and i == 0:
                    yield pytest.param(rest[0], rest[1:], id=line)
                elif name.startswith("python") and rest[:1] == ["-m"] and "pip" not in rest[1]:
                    tool = rest[1].rpartition(".")[2].replace("main", "train")
                    yield pytest.param(tool, rest[2:], id=line)
                elif "launch/" in word and name.endswith(("train.sh", "local.sh", "sbatch")):
                    yield pytest.param(name, rest, id=line)


def check_fields(config, fields: dict[str, str]) -> None:
    """Check --config.FIELD=VALUE as training does, before it builds anything."""
    values = dict(config_lib.flatten(config))
    for name, text in fields.items():
        values[name] = text if isinstance(values[name], str) else ast.literal_eval(text)
    config_lib.validate(config_lib.unflatten(values))


@pytest.mark.parametrize(("tool", "arguments"), list(commands()))
def test_command_is_valid(tool, arguments, monkeypatch):
    flags = dict(a.removeprefix("--").split("=", 1) for a in arguments if re.match("--.*=", a))
    fields = {k.removeprefix("config."): v for k, v in flags.items() if k.startswith("config.")}
    if tool in ("train", "pretrain", "train.sh", "local.sh", "slurm.sbatch"):
        if tool not in ("train", "pretrain"):
            assert (ROOT / "launch" / tool).is_file()
        others = flags.keys() - {f"config.{name}" for name in fields} - {"devices_per_process"}
        assert others <= TRAIN_FLAGS
        if "config" in flags:
            check_fields(named.load(flags["config"]), fields)
        else:
            assert not fields
        return
    if tool == "sweep.sbatch":
        assert (ROOT / "launch" / tool).is_file()
        tool = "sweep"
    if "sweep" in flags:
        named.find(flags["sweep"], "sweeps")
    if path := fields.get("data.path"):  # Sweeps look what is there.
        fields = {"data.name": "npz" if path.endswith(".npz") else "folder"} | fields
    check_fields(named.load("resnet18"), fields)

    class Parsed(Exception):
        """The flags are good; nothing is to be done with them."""

    def parse_only(self, args=None, namespace=None):
        _, unknown = parse(self, args, namespace)
        assert all(word.startswith("--config.") for word in unknown)
        raise Parsed

    parse = argparse.ArgumentParser.parse_known_args
    for name in ("parse_args", "parse_known_args"):
        monkeypatch.setattr(argparse.ArgumentParser, name, parse_only)
    monkeypatch.setattr(sys, "argv", [tool, *arguments])
    with pytest.raises(Parsed):
        importlib.import_module(COMMANDS[tool][0].partition(":")[0]).main()


@pytest.mark.parametrize(("text", "run"), list(blocks("python")))
def test_python_is_valid(text, run, tmp_path):
    compile(text, "block", "exec")
    if not run:
        return
    rng = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):  # the file that the README calls my_images.npz
        arrays[f"{split}_images"] = rng.integers(0, 256, (16, 28, 28, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(16) % 2
    np.savez(tmp_path / "my_images.npz", **arrays)
    result = subprocess.run(
        [sys.executable, "-c", text],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_a_backbone_of_ones_own_trains(tmp_path):
    page = (ROOT / "docs/networks.md").read_text()
    section = page[page.index("## A backbone of your own") :]
    module, command = (text for _, _, text in BLOCK.findall(section)[:2])
    (tmp_path / "my_net.py").write_text(module)
    small = [
        f"num_{split}={number}" for split, number in (("train", 16), ("val", 12), ("test", 12))
    ]
    result = subprocess.run(
        [sys.executable, "-m", "lsanet_jax.main", *shlex.split(command.replace("\\\n", " "))[2:]]
        + [f"--config.data.synthetic.{field}" for field in small]
        + ["--config.train.epochs=1", "--config.train.batch_size=8", "--page=false"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "classifier at stage 3 (the network's own)" in result.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = page.parent / file if file else page
        assert linked.is_file(), f"{page.name}: {target}"
        headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if anchor else []
        slugs = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, f"{page.name}: {target}"


def test_the_readme_fits_three_screens():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 130


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [p.name for p in (ROOT / "docs").glob("*.md") if p.name not in navigation] == []


PAIRS = sorted(
    file.name.removesuffix("_runs.csv") for file in (ROOT / "docs/results").glob("*_runs.csv")
)


def section_of(name):
    """The section of the page of results that shows how a report is drawn from its CSV files."""
    command = f"lsanet report --from_csv=docs/results/{name}"
    sections = re.split("^## ", (ROOT / "docs/results.md").read_text(), flags=re.MULTILINE)
    (found,) = [text for text in sections if re.search(f"^{command}( |$)", text, re.MULTILINE)]
    return found


@pytest.mark.parametrize("name", PAIRS)
def test_results_says_the_scores_of_its_csv_files(name):
    section = section_of(name)
    tables = redraw.from_csv(ROOT / "docs/results" / name)
    redrawn = {entry.text for row in tables[0].rows for entry in row}
    with (ROOT / f"docs/results/{name}_summary.csv").open(newline="") as stream:
        finished = [row for row in csv.DictReader(stream) if int(row["seeds"])]
    assert finished
    for row in finished:
        mean, std = float(row["auc_mean"]), float(row["auc_std"] or "nan")
        spread = "{0:.{2}f}" if math.isnan(std) else "{0:.{2}f} ± {1:.{2}f}"
        assert any(text.startswith(spread.format(mean, std, 2)) for text in redrawn)
        forms = [f"| {spread.format(mean, std, digits)} |" for digits in (1, 2)]
        assert any(form in section for form in forms), row["run"]


@pytest.mark.parametrize("name", [name for name in PAIRS if name.startswith("compare_")])
def test_results_says_which_methods_differ_by_its_csv_files(name):
    section = section_of(name)
    tables = {table.title: table for table in redraw.from_csv(ROOT / "docs/results" / name)}
    verdicts = tables["All methods against the plain network"].rows
    assert len(verdicts) == 10
    for row in verdicts:
        method, gain, p_value, _ = (entry.text for entry in row)
        shown = re.findall(rf"^\| {re.escape(method)} \|.*$", section, re.MULTILINE)
        assert any(f"| {gain} | {p_value} |" in line for line in shown), (method, gain, p_value)
