"""Sweeps: the runs that make up a table or a figure of the paper, and where their results lie.

A sweep file, such as `configs/sweeps/table3.py`, has `get_sweep(scale) -> Sweep`. `launch/sweep.py`
trains what is missing of it, `report` makes the table. In the sweep's workdir:

| file                   | what                                                         |
|------------------------|--------------------------------------------------------------|
| `sweep.json`           | which sweep it is, with the scale, overrides and seeds given |
| `lock`                 | held by the process that runs it                             |
| `RUN/seedN/`           | the workdir of one training run                              |
| `RUN/seedN.log`        | what it printed                                              |
| `RUN/seedN.error.json` | why it failed, until it has succeeded                        |
"""

import ast
import dataclasses
import importlib.util
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags

from lsanet_jax import config as config_lib
from lsanet_jax.errors import ConfigError, WorkdirError, near_matches
from lsanet_jax.runs.layout import LOCK, RESULT
from lsanet_jax.runs.workdir import check_same_config
from lsanet_jax.runtime.files import json_text, read_json, write_atomically

SCALES = ("paper", "28px")
SWEEP = "sweep.json"
ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Run:
    """One cell of a table: a config, trained once for each seed.

    Attributes:
      name: unique in its sweep, and the name of its folder: letters, digits, ".", "_" and "-".
      config: the config file that it starts from, relative to the repository.
      overrides: values of config fields by their dotted names, such as "model.objective".
      row: what the table shows of it on the left, by the column's title.
      paper: `acc` and `auc` in percent in the paper, and the `dataset` that they are for; or None.
      baseline: name of the run that it is compared with, if any.
    """

    name: str
    config: str
    overrides: Mapping[str, Any] = dataclasses.field(hash=False)
    row: Mapping[str, str] = dataclasses.field(hash=False)
    paper: Mapping[str, Any] | None = dataclasses.field(default=None, hash=False)
    baseline: str | None = None


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep file describes.

    Attributes:
      name: of the table or figure, such as "table3".
      title: the paper's.
      runs: in the order of the table.
      scale: one of `SCALES`. Only "paper" is the paper's protocol.
      seeds: each run is trained once with each.
      overrides: given on the command line, for all runs.
    """

    name: str
    title: str
    runs: tuple[Run, ...]
    scale: str = "paper"
    seeds: tuple[int, ...] = (0, 1, 2)
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Job(NamedTuple):
    """One training run of a sweep."""

    run: Run
    seed: int
    workdir: pathlib.Path

    @property
    def name(self) -> str:
        """What to call it: the run's name and the seed."""
        return f"{self.run.name}/seed{self.seed}"

    @property
    def log(self) -> pathlib.Path:
        """What it printed."""
        return self.workdir.with_name(f"{self.workdir.name}.log")

    @property
    def error(self) -> pathlib.Path:
        """Why it failed: a JSON object with `error` (a line), `attempts` and `exit_code`."""
        return self.workdir.with_name(f"{self.workdir.name}.error.json")


def load(
    file: str | pathlib.Path,
    *,
    scale: str = "paper",
    overrides: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
) -> Sweep:
    """Load a sweep file and check every config that it asks for.

    Args:
      file: a path, from the current folder or else from the repository.
      scale: one of `SCALES`.
      overrides: values of config fields for all runs; they win over the runs' own.
      seeds: in place of the sweep's.

    Raises:
      ConfigError: the file is no sweep; two runs have one name; a field is unknown or its value is not
        allowed. The run and the field are named.
    """
    module = _import(file)
    if not callable(getattr(module, "get_sweep", None)):
        raise ConfigError(f"--sweep={file} has no get_sweep(scale): see configs/sweeps/table3.py")
    if scale not in SCALES:
        raise ConfigError(f"--scale={scale} is none of {', '.join(SCALES)}")
    if "seed" in (overrides or {}):
        raise ConfigError("config.seed: a sweep has several; give them as --seeds=0,1,2")
    sweep = module.get_sweep(scale)
    sweep = dataclasses.replace(
        sweep, overrides=dict(overrides or {}), seeds=tuple(seeds or sweep.seeds)
    )
    names = [run.name for run in sweep.runs]
    for name in names:
        if not re.fullmatch(r"\w[\w.-]*", name):
            raise ConfigError(
                f"--sweep={file}: the run {name!r} cannot name a folder: use letters, digits, '.', "
                "'_' and '-'"
            )
        if names.count(name) > 1:
            raise ConfigError(f"--sweep={file} has two runs of the name {name}: rename one")
    for run in sweep.runs:
        if run.baseline is not None and run.baseline not in names:
            near = near_matches(run.baseline, names)
            raise ConfigError(
                f"--sweep={file}: {run.name} is compared with {run.baseline!r}, which is no run{near}"
            )
        for seed in sweep.seeds:
            resolve(sweep, run, seed)
    return sweep


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Values of config fields from arguments `--config.FIELD=VALUE`, as `lsanet_jax.main` reads them.

    Raises:
      ConfigError: an argument is none of these, its field is unknown, or its value is of another type.
    """
    parsers = {
        bool: flags.BooleanParser().parse,
        float: float,
        int: flags.IntegerParser().parse,
        str: str,
        tuple: _parse_tuple,
    }
    overrides = {}
    for argument in arguments:
        name, equals, text = argument.removeprefix("--config.").partition("=")
        if not argument.startswith("--config.") or not equals:
            raise ConfigError(f"unexpected argument {argument!r}: fields are --config.FIELD=VALUE")
        if name not in config_lib.FIELDS:
            near = near_matches(name, config_lib.FIELDS)
            raise ConfigError(f"config.{name}: no such field{near}")
        type_ = config_lib.FIELDS[name].type
        try:
            overrides[name] = parsers[type_](text)
        except (SyntaxError, TypeError, ValueError) as error:
            raise ConfigError(
                f"config.{name} = {text!r} is no value of type {type_.__name__}"
            ) from error
    return overrides


def _parse_tuple(text: str) -> tuple:
    value = ast.literal_eval(text)
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def resolve(sweep: Sweep, run: Run, seed: int) -> ml_collections.ConfigDict:
    """The config of one run with one seed, checked.

    Raises:
      ConfigError: the run and the field are named.
    """
    config = _import(run.config).get_config()
    for name, value in {**run.overrides, **sweep.overrides, "seed": seed}.items():
        *sections, leaf = name.split(".")
        if name not in config_lib.FIELDS:
            near = near_matches(name, config_lib.FIELDS)
            raise ConfigError(f"{sweep.name}, {run.name}: config.{name}: no such field{near}")
        node = config
        for section in sections:
            node = node[section]
        with node.ignore_type():  # validate says it better
            node[leaf] = tuple(value) if isinstance(value, list) else value
    try:
        config_lib.validate(config)
    except ConfigError as error:
        raise ConfigError(f"{sweep.name}, {run.name}: {error}") from error
    return config


def jobs(sweep: Sweep, workdir: str | pathlib.Path) -> list[Job]:
    """The training runs of a sweep: each run once with the first seed, then with the second."""
    workdir = pathlib.Path(workdir).absolute()
    return [
        Job(run, seed, workdir / run.name / f"seed{seed}")
        for seed in sweep.seeds
        for run in sweep.runs
    ]


def command(sweep: Sweep, job: Job) -> list[str]:
    """The arguments of Python that train a job."""
    fields = {**job.run.overrides, **sweep.overrides, "seed": job.seed}
    return [
        "-m",
        "lsanet_jax.main",
        f"--config={_find(job.run.config)}",
        f"--workdir={job.workdir}",
        *(
            f"--config.{name}={tuple(value) if isinstance(value, list) else value}"
            for name, value in fields.items()
        ),
    ]


def check(sweep: Sweep, workdir: str | pathlib.Path) -> None:
    """Check that a folder is this sweep's, or free for it.

    Raises:
      WorkdirError: it holds another sweep, or something else.
    """
    path = pathlib.Path(workdir).absolute()
    if path.exists() and not path.is_dir():
        raise WorkdirError(f"--workdir={workdir} is a file: choose a folder")
    # Listed first: another job of the array may be writing the file now.
    free = not path.exists() or all(
        file.name == LOCK or file.name.startswith(f".{SWEEP}.") for file in path.iterdir()
    )
    if (path / SWEEP).exists():
        _check_same(sweep, path)
    elif not free:
        raise WorkdirError(
            f"--workdir={workdir} is not empty and holds no {SWEEP}: it is no sweep's; choose another"
        )


def claim(sweep: Sweep, workdir: str | pathlib.Path) -> None:
    """Make the folder of a sweep, or check that it is this sweep's.

    Raises:
      WorkdirError: it holds another sweep, or something else; or it cannot be written to.
    """
    path = pathlib.Path(workdir).absolute()
    check(sweep, path)
    if (path / SWEEP).exists():
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        write_atomically(path / SWEEP, json_text(_description(sweep), indent=1))
    except OSError as error:
        raise WorkdirError(f"cannot write to --workdir={workdir}: {error}") from error


def reopen(file: str | pathlib.Path, workdir: str | pathlib.Path) -> Sweep:
    """Load a sweep with the scale, overrides and seeds that its workdir was made with.

    Raises:
      ConfigError: see `load`.
      WorkdirError: the folder holds no sweep, or another one.
    """
    path = pathlib.Path(workdir).absolute()
    if not (path / SWEEP).exists():
        raise WorkdirError(f"--workdir={workdir} holds no {SWEEP}: no sweep was started there")
    found = read_json(path / SWEEP)
    try:
        given = {key: found[key] for key in ("scale", "overrides", "seeds")}
    except KeyError as error:
        raise WorkdirError(f"{path / SWEEP} is damaged: {error} is missing") from error
    sweep = load(file, **given)
    _check_same(sweep, path)
    return sweep


def result(sweep: Sweep, job: Job) -> dict | None:
    """The contents of a job's `result.json`; None while it is not finished.

    Raises:
      WorkdirError: it is damaged, or its run has another config than the sweep asks for.
    """
    file = job.workdir / RESULT
    if not file.exists():
        return None
    check_same_config(job.workdir, resolve(sweep, job.run, job.seed))
    found = read_json(file)
    if not isinstance(found.get("test"), dict) or not {"acc", "auc"} <= found["test"].keys():
        raise WorkdirError(
            f"{file} is damaged: it has no test.acc and test.auc. Restore it, or remove it to train "
            "the run again"
        )
    return found


def _description(sweep: Sweep) -> dict:
    """What tells sweeps apart, as JSON has it."""
    runs = {run.name: [run.config, dict(run.overrides)] for run in sweep.runs}
    description = {
        "name": sweep.name,
        "scale": sweep.scale,
        "overrides": dict(sweep.overrides),
        "seeds": sweep.seeds,
        "runs": runs,
    }
    return json.loads(json.dumps(description))


def _check_same(sweep: Sweep, path: pathlib.Path) -> None:
    found, wanted = read_json(path / SWEEP), _description(sweep)
    for key in wanted:
        if found.get(key) != wanted[key]:
            raise WorkdirError(
                f"--workdir={path} holds another sweep: its {key} is {json.dumps(found.get(key))}, "
                f"not {json.dumps(wanted[key])}. Use another --workdir, or the same sweep to go on"
            )


def _find(file: str | pathlib.Path) -> pathlib.Path:
    """A file from the current folder or else from the repository."""
    path = pathlib.Path(file)
    if not path.exists() and (ROOT / path).exists():
        path = ROOT / path
    if not path.is_file():
        raise ConfigError(f"{file}: there is no such file")
    return path.absolute()


def _import(file: str | pathlib.Path):
    """Import a Python file by its path."""
    path = _find(file)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None:
        raise ConfigError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own file raises
        raise ConfigError(f"{file} cannot be loaded: {type(error).__name__}: {error}") from error
    return module
