"""Sweeps: the runs that make up a table or a figure of the paper, and where their results lie.

A sweep file, such as `configs/sweeps/table3.py`, has `get_sweep(scale) -> Sweep`. `lsanet sweep`
trains the runs that are missing, `lsanet report` makes the table. In the sweep's workdir:

| file                   | what                                                     |
|------------------------|----------------------------------------------------------|
| `sweep.json`           | the sweep, and the scale, overrides and seeds it is for  |
| `lock`                 | held by the process that runs it                         |
| `RUN/seedN/`           | the workdir of one training run                          |
| `RUN/seedN.log`        | the output of that run                                   |
| `RUN/seedN.error.json` | why it failed, until it has succeeded                    |
"""

import ast
import contextlib
import dataclasses
import json
import os
import pathlib
import re
import traceback
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import ml_collections
from absl import flags

from lsanet_jax import config as config_lib
from lsanet_jax.config import named
from lsanet_jax.errors import ConfigError, WorkdirError, near_matches
from lsanet_jax.runs import seal
from lsanet_jax.runs.layout import CONFIG, LOCK, RESULT
from lsanet_jax.runs.workdir import SCORE, check_same_config
from lsanet_jax.runtime import strict_json
from lsanet_jax.runtime.files import json_text, write_atomically
from lsanet_jax.runtime.strict_json import Maybe

SCALES = ("paper", "28px")
SWEEP = "sweep.json"
FOLD = "Fold"  # title of the column that tells folds apart


@dataclasses.dataclass(frozen=True)
class Run:
    """One cell of a table: a config, trained once for each seed.

    Attributes:
        name: unique in its sweep, and the name of its folder: letters, digits, ".", "_" and "-".
        config: the config that it starts from: the name of a shipped one, or a path.
        overrides: values of config fields by their dotted names, such as "model.objective"; in
            texts, "{seed}" stands for the seed, as in "model.init_from": "pretrained/seed{seed}".
        row: what the table shows of it on the left, by the column's title.
        paper: the paper's `acc` and `auc` in percent, and their `dataset`; or None.
        baseline: name of the run that it is compared with, if any.
        fold_of: in a cross-validation, name of the run that this is one fold of.
    """

    name: str
    config: str
    overrides: Mapping[str, Any] = dataclasses.field(hash=False)
    row: Mapping[str, str] = dataclasses.field(hash=False)
    paper: Mapping[str, Any] | None = dataclasses.field(default=None, hash=False)
    baseline: str | None = None
    fold_of: str | None = None


@dataclasses.dataclass(frozen=True)
class Sweep:
    """What a sweep file describes.

    Attributes:
        name: of the table or figure, such as "table3".
        title: above the table.
        runs: in the order of the table.
        scale: one of `SCALES`. Only "paper" is the paper's protocol.
        seeds: each run is trained once with each.
        overrides: values of config fields for all runs, given on the command line.
        folds: of a cross-validation, in which each run is trained once for each fold; 0 for none.
    """

    name: str
    title: str
    runs: tuple[Run, ...]
    scale: str = "paper"
    seeds: tuple[int, ...] = (0, 1, 2)
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    folds: int = 0


class Job(NamedTuple):
    """One training run of a sweep."""

    run: Run
    seed: int
    workdir: pathlib.Path

    @property
    def name(self) -> str:
        """The run's name and the seed."""
        return f"{self.run.name}/seed{self.seed}"

    @property
    def log(self) -> pathlib.Path:
        """The file with its output."""
        return self.workdir.with_name(f"{self.workdir.name}.log")

    @property
    def error(self) -> pathlib.Path:
        """The file that tells why it failed: JSON with `error`, `attempts` and `exit_code`."""
        return self.workdir.with_name(f"{self.workdir.name}.error.json")


def load(
    file: str | pathlib.Path,
    *,
    scale: str = "paper",
    overrides: Mapping[str, Any] | None = None,
    seeds: Sequence[int] | None = None,
    folds: int | None = None,
) -> Sweep:
    """Load a sweep and check the config of each of its runs.

    Args:
        file: the name of a shipped sweep, such as "table3", or the path of a file.
        scale: one of `SCALES`.
        overrides: values of config fields for all runs; they take precedence over the runs' own.
        seeds: instead of the sweep's.
        folds: instead of the sweep's; 0 for no cross-validation.

    Raises:
        ConfigError: the file is not a sweep, or fails; two runs have the same name; a field is
            unknown or its value is not allowed. The run and the field are named.
    """
    module = named.load_module(file, "sweeps")
    if scale not in SCALES:
        raise ConfigError(f"--scale={scale} must be {' or '.join(SCALES)}")
    if "seed" in (overrides or {}):
        raise ConfigError("config.seed: a sweep has several seeds; set them with --seeds=0,1,2")
    sweep = dataclasses.replace(_get_sweep(module, file, scale), overrides=dict(overrides or {}))
    if seeds:
        sweep = dataclasses.replace(sweep, seeds=tuple(seeds))
    if folds is not None:
        sweep = dataclasses.replace(sweep, folds=folds)
    _check_fields(sweep, f"--sweep={file}")
    sweep = _with_size(_in_folds(sweep))
    names = [run.name for run in sweep.runs]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"--sweep={file}: two runs have the name {name!r}: rename one")
    for run in sweep.runs:
        if run.baseline is not None and run.baseline not in names:
            near = near_matches(run.baseline, names)
            raise ConfigError(
                f"--sweep={file}: the baseline of run {run.name!r} is {run.baseline!r}, but there "
                f"is no run of that name{near}"
            )
        if run.baseline == run.name:
            raise ConfigError(f"--sweep={file}: run {run.name!r} is its own baseline: name another")
        for seed in sweep.seeds:
            resolve(sweep, run, seed)
    _check_overrides(sweep)
    return sweep


def _check_fields(sweep: Sweep, where: str) -> None:
    """Check what a sweep file says of the sweep and its runs, but for the configs.

    Raises:
        ConfigError: the field is named.
    """
    is_text = lambda value: isinstance(value, str)
    is_name = lambda value: is_text(value) and re.fullmatch(r"\w[\w.-]*", value)
    is_count = lambda value: isinstance(value, int) and value >= 0
    texts_in = lambda value: (
        isinstance(value, Mapping) and all(map(is_text, (*value, *value.values())))
    )
    letters = "a name of letters, digits, '.', '_' and '-'"
    seeds = sweep.seeds
    facts = [
        ("name", is_name(sweep.name), sweep.name, letters),
        ("title", is_text(sweep.title), sweep.title, "a text"),
        (
            "seeds",
            isinstance(seeds, tuple | list)
            and len({*map(repr, seeds)}) == len(seeds) > 0
            and all(map(is_count, seeds)),
            seeds,
            "one or more different integers >= 0",
        ),
        ("folds", is_count(sweep.folds), sweep.folds, "an integer >= 0"),
        (
            "runs",
            isinstance(sweep.runs, tuple | list)
            and sweep.runs
            and all(isinstance(run, Run) for run in sweep.runs),
            sweep.runs,
            "one or more of lsanet_jax.sweeps.spec.Run",
        ),
    ]
    for run in sweep.runs if facts[-1][1] else ():
        of = f"{run.name!r}: "
        is_config = isinstance(run.overrides, Mapping) and "seed" not in run.overrides
        facts += [
            (f"{of}name", is_name(run.name), run.name, letters),
            (f"{of}config", is_text(run.config), run.config, "a text"),
            (f"{of}overrides", is_config, run.overrides, "fields, but not seed: Sweep.seeds is"),
            (f"{of}row", texts_in(run.row), run.row, "texts by the titles of columns"),
        ]
        if sweep.name == "compare":
            has_method = texts_in(run.row) and "Method" in run.row
            facts.append((f"{of}row", has_method, run.row, "a 'Method'"))
    for field, right, found, wanted in facts:
        if not right:
            raise ConfigError(f"{where}: {field} is {repr(found)[:80]}, expected {wanted}")


def _with_size(sweep: Sweep) -> Sweep:
    """Say how large a folder's images are kept, unless the sweep or the user does.

    The fields' defaults are for MedMNIST, which comes in 28 pixels.
    """
    if sweep.overrides.get("data.name") != "folder":
        return sweep
    size = sweep.overrides.get("data.image_size", 28 if sweep.scale == "28px" else 224)
    own = {name for run in sweep.runs for name in run.overrides}
    defaults = {"data.size": size, "data.resize": "bicubic"}
    defaults = {name: value for name, value in defaults.items() if name not in own}
    return dataclasses.replace(sweep, overrides=defaults | dict(sweep.overrides))


def _check_overrides(sweep: Sweep) -> None:
    """Check that no override makes runs equal that are not meant to be.

    The data may: it is the user's in place of several of the paper's sets.

    Raises:
        ConfigError: the field and the runs are named.
    """
    alike: dict[str, list[Run]] = {}
    for run in sweep.runs if sweep.overrides else ():
        fields = sorted(config_lib.flatten(resolve(sweep, run, sweep.seeds[0])))
        alike.setdefault(repr(fields), []).append(run)
    for runs in (runs for runs in alike.values() if len(runs) > 1):
        for name in sweep.overrides.keys() - {"data.name"}:
            if len({repr(_own_value(run, name)) for run in runs}) > 1:
                raise ConfigError(
                    f"config.{name} = {sweep.overrides[name]!r}: the runs "
                    f"{', '.join(run.name for run in runs)} of {sweep.name} differ in it, and would"
                    " all be the same: leave it out"
                )


def _own_value(run: Run, name: str) -> Any:
    """A field's value without the sweep's overrides."""
    if name in run.overrides:
        return run.overrides[name]
    return dict(config_lib.flatten(named.load(run.config))).get(name)


def _get_sweep(module: types.ModuleType, file: str | pathlib.Path, scale: str) -> Sweep:
    """Call a sweep file's `get_sweep`.

    Raises:
        ConfigError: there is no such function, it fails, or it does not return a sweep.
    """
    if not callable(getattr(module, "get_sweep", None)):
        raise ConfigError(
            f"--sweep={file} has no function get_sweep(scale): see configs/sweeps/table3.py"
        )
    try:
        sweep = module.get_sweep(scale)
    except Exception as error:  # whatever the user's own file raises
        frames = traceback.extract_tb(error.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == module.__file__]
        where = f", line {lines[-1]}" if lines else ""
        raise ConfigError(
            f"--sweep={file}{where}: get_sweep failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(sweep, Sweep):
        raise ConfigError(
            f"--sweep={file}: get_sweep returned a value of type {type(sweep).__name__}, expected "
            "lsanet_jax.sweeps.spec.Sweep"
        )
    return sweep


def _in_folds(sweep: Sweep) -> Sweep:
    """Replace each run of a cross-validation by one for each fold."""
    if not sweep.folds:
        return sweep
    if sweep.folds < 2:
        raise ConfigError(f"--folds={sweep.folds}: expected an integer >= 2, or 0 for none")
    for name in ("data.folds", "data.fold"):
        if name in sweep.overrides:
            raise ConfigError(f"config.{name}: leave it out; --folds={sweep.folds} sets it")
    runs = [
        dataclasses.replace(
            run,
            name=f"{run.name}-fold{fold}",
            overrides={**run.overrides, "data.folds": sweep.folds, "data.fold": fold},
            row={**run.row, FOLD: f"{fold + 1} of {sweep.folds}"},
            paper=None,
            baseline=run.baseline and f"{run.baseline}-fold{fold}",
            fold_of=run.name,
        )
        for run in sweep.runs
        for fold in range(sweep.folds)
    ]
    return dataclasses.replace(sweep, runs=tuple(runs))


def parse_overrides(arguments: Sequence[str]) -> dict[str, Any]:
    """Read arguments `--config.FIELD=VALUE` as `lsanet_jax.main` does.

    Returns:
        The values of config fields by their dotted names.

    Raises:
        ConfigError: an argument has another form, or its field is unknown or of another type.
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
        except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
            raise ConfigError(
                f"config.{name} = {text[:80]!r} must be of type {type_.__name__}"
            ) from error
    return overrides


def with_data(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Tell from the path of the user's data what it is.

    Args:
        overrides: values of config fields; what they say stays.

    Raises:
        ConfigError: the path is neither a folder nor an npz file.
    """
    found = dict(overrides)
    if found.get("data.path") and "data.name" not in found:
        path = pathlib.Path(os.path.expanduser(found["data.path"]))
        if not path.is_dir() and not (path.suffix == ".npz" and path.is_file()):
            there = "a file that is not .npz" if path.exists() else "nothing there"
            raise ConfigError(
                f"config.data.path = {found['data.path']}: found {there}, expected a folder of "
                "images (config.data.csv names its table, if there is one) or an npz file"
            )
        found["data.name"] = "folder" if path.is_dir() else "npz"
    return found


def _parse_tuple(text: str) -> tuple:
    value = ast.literal_eval(text)
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def resolve(sweep: Sweep, run: Run, seed: int) -> ml_collections.ConfigDict:
    """Make the config of one run with one seed, and check it.

    Raises:
        ConfigError: the run and the field are named.
    """
    config = named.load(run.config)
    for name, value in _fields(sweep, run, seed).items():
        *sections, leaf = name.split(".")
        if name not in config_lib.FIELDS:
            near = near_matches(name, config_lib.FIELDS)
            raise ConfigError(f"{sweep.name}, {run.name}: config.{name}: no such field{near}")
        node = config
        for section in sections:
            node = node[section]
        with node.ignore_type():  # the error of `validate` is clearer
            node[leaf] = tuple(value) if isinstance(value, list) else value
    try:
        config_lib.validate(config)
    except ConfigError as error:
        raise ConfigError(f"{sweep.name}, {run.name}: {error}") from error
    return config


def jobs(sweep: Sweep, workdir: str | pathlib.Path) -> list[Job]:
    """List the training runs of a sweep: all with the first seed, then all with the second ..."""
    workdir = pathlib.Path(workdir).absolute()
    return [
        Job(run, seed, workdir / run.name / f"seed{seed}")
        for seed in sweep.seeds
        for run in sweep.runs
    ]


def command(sweep: Sweep, job: Job) -> list[str]:
    """Return the arguments of Python that train a job."""
    file, colon, argument = job.run.config.partition(":")  # of its get_config, if there is one
    return [
        "-m",
        "lsanet_jax.main",
        f"--config={named.find(file)}{colon}{argument}",
        f"--workdir={job.workdir}",
        "--page=false",
        *(
            f"--config.{name}={tuple(value) if isinstance(value, list) else value}"
            for name, value in _fields(sweep, job.run, job.seed).items()
        ),
    ]


def _fields(sweep: Sweep, run: Run, seed: int) -> dict[str, Any]:
    """The fields that one run with one seed has in place of its config's."""
    fields = {**run.overrides, **sweep.overrides, "seed": seed}
    return {
        name: value.replace("{seed}", str(seed)) if isinstance(value, str) else value
        for name, value in fields.items()
    }


def check(sweep: Sweep, workdir: str | pathlib.Path) -> None:
    """Check that a folder is this sweep's, or free for it.

    Raises:
        WorkdirError: it holds another sweep, or something else.
    """
    path = pathlib.Path(workdir).absolute()
    if strict_json.exists(path) and not path.is_dir():
        raise WorkdirError(f"--workdir={workdir} is a file: choose a folder")
    # Before the next check: another job of a Slurm array may be writing the file now.
    free = not path.exists() or all(
        file.name == LOCK or file.name.startswith(f".{SWEEP}.") for file in path.iterdir()
    )
    if strict_json.exists(path / SWEEP):
        _check_same(sweep, path)
    elif not free:
        raise WorkdirError(
            f"--workdir={workdir} is not empty and has no {SWEEP}, so it is not the folder of a "
            "sweep: choose another"
        )


def claim(sweep: Sweep, workdir: str | pathlib.Path) -> None:
    """Make the folder of a sweep, or check that it is this sweep's.

    Raises:
        WorkdirError: it holds another sweep, or something else; or it cannot be written to.
    """
    path = pathlib.Path(workdir).absolute()
    check(sweep, path)
    if strict_json.exists(path / SWEEP) and not _more_seeds(sweep, path):
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
        WorkdirError: the folder holds another sweep, or none.
    """
    path = pathlib.Path(workdir).absolute()
    if not strict_json.exists(path / SWEEP):
        raise WorkdirError(f"--workdir={workdir} has no {SWEEP}: no sweep was started there")
    shape = {"scale": str, "overrides": dict, "seeds": [int], "folds": Maybe(int)}
    found = {"folds": 0} | strict_json.read_json(path / SWEEP, shape)
    sweep = load(file, **{key: found[key] for key in shape})
    # Those of its runs: of older ones the size of a folder's images was not told.
    sweep = dataclasses.replace(sweep, overrides=found["overrides"])
    _check_same(sweep, path)
    return sweep


def result(sweep: Sweep, job: Job) -> dict | None:
    """Read a job's `result.json`; None while it is not finished.

    Raises:
        WorkdirError: it is damaged, or its run has another config than the sweep asks for.
    """
    if not strict_json.exists(job.workdir / RESULT) or seal.is_missing(job.workdir):
        return None
    seal.check(job.workdir, (CONFIG, RESULT))
    check_same_config(job.workdir, resolve(sweep, job.run, job.seed))
    return strict_json.read_json(job.workdir / RESULT, {"test": SCORE, "seconds": Maybe(float)})


def _description(sweep: Sweep) -> dict:
    """Describe what tells sweeps apart, as JSON holds it."""
    runs = {run.name: [_config_name(run.config), dict(run.overrides)] for run in sweep.runs}
    description = {
        "name": sweep.name,
        "scale": sweep.scale,
        "overrides": dict(sweep.overrides),
        "seeds": sweep.seeds,
        "folds": sweep.folds,
        "runs": runs,
    }
    return json.loads(json.dumps(description))


def _config_name(config: str) -> str:
    """Name a config without its folder: older sweeps have "configs/resnet18.py" for "resnet18"."""
    return re.sub(r"^configs/([^/]+)\.py$", r"\1", config)


def _more_seeds(sweep: Sweep, path: pathlib.Path) -> bool:
    """Tell whether the sweep has seeds beside those that its folder was made with."""
    seeds = strict_json.read_json(path / SWEEP).get("seeds")
    return isinstance(seeds, list) and seeds != [*sweep.seeds] and {*seeds} < {*sweep.seeds}


def _check_same(sweep: Sweep, path: pathlib.Path) -> None:
    found, wanted = strict_json.read_json(path / SWEEP), _description(sweep)
    if _more_seeds(sweep, path):
        found["seeds"] = wanted["seeds"]
    with contextlib.suppress(ConfigError, KeyError, TypeError, ValueError):  # older ones lack it
        for each in (found, wanted):
            told = dataclasses.replace(sweep, overrides=with_data(each["overrides"]))
            each["overrides"] = dict(_with_size(told).overrides)
    found.setdefault("folds", 0)
    with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):  # of a damaged file
        found["runs"] = {
            name: [_config_name(config), overrides]
            for name, (config, overrides) in found["runs"].items()
        }
    for key in wanted:
        if found.get(key) != wanted[key]:
            raise WorkdirError(
                f"--workdir={path} holds another sweep: its {key} is {json.dumps(found.get(key))}, "
                f"expected {json.dumps(wanted[key])}. Use another --workdir, or the same sweep to "
                "continue"
            )
