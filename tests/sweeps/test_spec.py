"""Sweep files, their runs and configs, and the folder of a sweep."""

import json

import pytest

from lsanet_jax.config import named
from lsanet_jax.errors import ConfigError, WorkdirError
from lsanet_jax.sweeps import estimate
from lsanet_jax.sweeps import spec as sweep_lib
from lsanet_jax.sweeps.paper import at_scale, paper_table
from lsanet_jax.sweeps.spec import Run, Sweep

TABLES = {f"table{number}": number for number in range(1, 7)}
COUNTS = {"table1": 64, "table2": 8, "table3": 5, "table4": 8, "table5": 18, "table6": 12}

FILE = """
from lsanet_jax.sweeps.spec import Run, Sweep

def get_sweep(scale):
    runs = [
        Run(name, "quickstart", {{"model.objective": name}}, {{"Method": name}},
            baseline=None if name == "baseline" else "baseline")
        for name in {names}
    ]
    return Sweep("mine", "Mine", tuple(runs), scale, seeds=(0, 1))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FILE.format(names=("baseline", "dsn", "lsanet")))
    return path


def load(table, **kwargs):
    return sweep_lib.load(table, **kwargs)


# ------------------------------------------------------------------------------ the paper's


@pytest.mark.parametrize("scale", sweep_lib.SCALES)
@pytest.mark.parametrize("table", TABLES)
def test_a_table_trains_what_the_paper_reports(table, scale):
    sweep = load(table, scale=scale)
    rows = paper_table(TABLES[table])["rows"]
    assert len(sweep.runs) == len(rows) == COUNTS[table]
    for run, row in zip(sweep.runs, rows, strict=True):
        config = sweep_lib.resolve(sweep, run, 2)
        assert config.seed == 2
        assert config.model.backbone == row["backbone"]
        assert config.model.objective == row["method"]
        assert config.data.name == row["dataset"] == run.paper["dataset"]
        assert (run.paper["acc"], run.paper["auc"]) == (row["acc"], row["auc"])
        assert config.model.attention == row.get("attention", "none")
        assert config.model.taps == tuple(row.get("taps", (1, 2, 3, 4)))
        lsa = config.model.lsa
        option = {"fc": f" r={lsa.reduction}", "conv": f" k={lsa.kernel_size}"}.get(lsa.kind, "")
        assert f"{lsa.kind}{option}" == row.get("lsa", "fc r=8")
        assert config.train.epochs == (100 if scale == "paper" else 30)
        assert config.data.image_size == (224 if scale == "paper" else 28)


@pytest.mark.parametrize("table", TABLES)
def test_a_run_is_compared_with_the_baseline_on_the_same_network_and_data(table):
    sweep = load(table)
    runs = {run.name: run for run in sweep.runs}
    for run in sweep.runs:
        config = sweep_lib.resolve(sweep, run, 0)
        if table == "table2" or config.model.objective == "baseline":
            assert run.baseline is None
            continue
        baseline = sweep_lib.resolve(sweep, runs[run.baseline], 0)
        assert baseline.model.objective == "baseline"
        assert baseline.data == config.data
        for field in ("backbone", "attention", "stem"):
            assert baseline.model[field] == config.model[field]


def test_rows_are_named_as_the_paper_prints_them():
    rows = {table: [dict(run.row) for run in load(table).runs] for table in TABLES}
    assert rows["table1"][-1] == {"Model": "ResNet-101", "Method": "LSANet"}
    assert rows["table2"][1] == {
        "Attention Type": "Two FC Layer",
        "Operation": "reduction ratio = 8",
    }
    assert rows["table2"][-1] == {"Attention Type": "Self Attention", "Operation": "-"}
    assert [row["Method"] for row in rows["table3"]] == [
        "Baseline",
        "DSN",
        "DSN+KS",
        "DSN+LSA",
        "LSANet",
    ]
    assert [row["Model"] for row in rows["table4"]][:2] == ["Baseline (C4)", "C1C4"]
    assert rows["table5"][4] == {"Model": "WRN-50", "Method": "Baseline"}
    assert rows["table5"][-1] == {"Model": "DenseNet-201", "Method": "LSANet"}
    assert rows["table6"][-1] == {"Attention Module": "+SRM", "Method": "LSANet"}


@pytest.mark.parametrize("scale", sweep_lib.SCALES)
def test_figure_2_trains_probes_and_deep_supervision_on_each_of_the_papers_sets(scale):
    sweep = load("figure2", scale=scale)
    configs = [sweep_lib.resolve(sweep, run, 0) for run in sweep.runs]
    pairs = [(config.data.name, config.model.objective) for config in configs]
    sets = ("pathmnist", "dermamnist", "retinamnist", "bloodmnist")
    assert pairs == [(name, objective) for name in sets for objective in ("probe", "dsn")]
    assert {config.model.backbone for config in configs} == {"resnet50"}
    assert {config.data.image_size for config in configs} == {28 if scale == "28px" else 224}
    assert [run.row["Training"] for run in sweep.runs[:2]] == ["without DSL", "with DSL"]


def test_names_in_table_1_say_the_dataset():
    assert "resnet18-lsanet-retinamnist" in [run.name for run in load("table1").runs]


def test_stems_at_28_pixels_are_small_only_where_the_other_does_not_fit():
    for table in ("table1", "table5"):
        for run in load(table, scale="28px").runs:
            small = run.name.startswith(("vgg", "densenet"))
            assert run.overrides.get("model.stem", "imagenet") == ("small" if small else "imagenet")
    assert at_scale("paper", "vgg16") == {}


def test_label_efficiency_compares_methods_on_the_same_labels():
    sweep = load("label_efficiency")
    fractions = {}
    for run in sweep.runs:
        config = sweep_lib.resolve(sweep, run, 0)
        fractions.setdefault(config.data.train_fraction, []).append(config.model.objective)
        in_the_paper = config.model.objective != "ensemble_distill"
        assert (run.paper is not None) == (in_the_paper and config.data.train_fraction == 1)
    assert list(fractions) == [0.01, 0.05, 0.1, 0.25, 0.5, 1.0]
    assert set(map(tuple, fractions.values())) == {
        ("baseline", "dsn", "lsanet", "ensemble_distill")
    }

    small = load("label_efficiency", scale="28px")
    epochs = {r.overrides["data.train_fraction"]: r.overrides["train.epochs"] for r in small.runs}
    assert epochs == {0.01: 100, 0.05: 100, 0.1: 100, 0.25: 40, 0.5: 30, 1.0: 30}


# ------------------------------------------------------------------------------ files and fields


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("train.epochs=3", 3),
        ("train.learning_rate=1e-2", 0.01),
        ("train.weight_decay=1", 1.0),
        ("data.as_rgb=False", False),
        ("data.as_rgb=true", True),
        ("data.path=a/b=c.npz", "a/b=c.npz"),
        ("model.taps=(2, 4)", (2, 4)),
        ("model.taps=4", (4,)),
        ("train.milestones=0.5,0.75", (0.5, 0.75)),
    ],
)
def test_overrides_have_the_type_of_their_field(argument, value, tmp_path):
    overrides = sweep_lib.parse_overrides([f"--config.{argument}"])
    assert overrides == {argument.partition("=")[0]: value}
    assert type(*overrides.values()) is type(value)
    run = Run("one", "quickstart", {"model.objective": "baseline"}, {})
    sweep = Sweep("mine", "", (run,), overrides=overrides)
    job = sweep_lib.jobs(sweep, tmp_path)[0]
    shown = argument.partition("=")[0] + f"={value}"
    assert f"--config.{shown}" in sweep_lib.command(sweep, job)


def test_main_reads_the_command_of_a_job_as_the_sweep_resolves_it(file, tmp_path):
    from absl import flags
    from ml_collections import config_flags

    from lsanet_jax.config import flatten

    overrides = {"model.taps": (1, 4), "data.as_rgb": False, "train.decay": 0.5, "data.root": "x y"}
    sweep = sweep_lib.load(file, overrides=overrides)
    job = sweep_lib.jobs(sweep, tmp_path)[-1]
    command, values = sweep_lib.command(sweep, job)[1:], flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=command)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_bool("page", True, "", flag_values=values)
    values(command)
    expected = sweep_lib.resolve(sweep, job.run, job.seed)
    assert dict(flatten(holder.value)) == dict(flatten(expected))
    assert values.workdir == str(job.workdir)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.model.objectiv=dsn", "no such field; did you mean model.objective"),
        ("--config.train.epochs=many", "config.train.epochs = 'many' must be of type int"),
        ("--config.model.taps=(1,", "config.model.taps = '(1,' must be of type tuple"),
        ("--config.train.epochs", "unexpected argument"),
        ("more", "unexpected argument 'more'"),
    ],
)
def test_a_bad_override_is_named(argument, message):
    with pytest.raises(ConfigError) as error:
        sweep_lib.parse_overrides([argument])
    assert message in str(error.value)


def test_seeds_are_no_override(file):
    with pytest.raises(ConfigError, match="--seeds"):
        sweep_lib.load(file, overrides={"seed": 3})


def test_each_run_comes_once_with_the_first_seed_then_with_the_second(file, tmp_path):
    jobs = sweep_lib.jobs(sweep_lib.load(file), tmp_path)
    assert [job.name for job in jobs] == [
        f"{name}/seed{seed}" for seed in (0, 1) for name in ("baseline", "dsn", "lsanet")
    ]
    assert jobs[1].workdir == tmp_path / "dsn" / "seed0"
    assert jobs[1].log == tmp_path / "dsn" / "seed0.log"
    assert jobs[1].error == tmp_path / "dsn" / "seed0.error.json"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (FILE.format(names=("baseline", "dsn", "dsn")), "two runs have the name 'dsn'"),
        (
            FILE.format(names=("baseline", "../dsn")),
            "'../dsn': name is '../dsn', expected a name of letters",
        ),
        (FILE.format(names=("baseline", "dns")), "mine, dns: config.model.objective = 'dns'"),
        (
            FILE.format(names=("dsn",)),
            "the baseline of run 'dsn' is 'baseline', but there is no run of that name",
        ),
        (FILE.format(names=("baseline",)).replace("objective", "objectiv"), "no such field"),
        ("get_sweep = 3", "has no function get_sweep(scale)"),
        ("def get_sweep(scale):\n    return None", "expected lsanet_jax.sweeps.spec.Sweep"),
        ("import nothing_of_this_name", "cannot be loaded: ModuleNotFoundError"),
        (None, "there is no such file"),
    ],
)
def test_a_bad_sweep_file_is_one_clear_error(content, message, file):
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(ConfigError) as error:
        sweep_lib.load(file)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("    runs = ()\n    return Sweep(nam='x')", ", line 5: get_sweep failed: TypeError: "),
        (
            "    return helper()\n\ndef helper():\n    return 1 / 0",
            ", line 7: get_sweep failed: Zero",
        ),
        ("    raise OSError", ", line 4: get_sweep failed: OSError: "),
    ],
)
def test_an_error_in_get_sweep_names_the_file_and_the_line(body, message, file):
    file.write_text(
        f"from lsanet_jax.sweeps.spec import Run, Sweep\n\ndef get_sweep(scale):\n{body}\n"
    )
    with pytest.raises(ConfigError) as error:
        sweep_lib.load(file)
    assert f"--sweep={file}{message}" in str(error.value)


def test_get_sweep_without_a_scale_is_an_error(file):
    file.write_text("def get_sweep():\n    return None\n")
    with pytest.raises(ConfigError, match=r"mine.py: get_sweep failed: TypeError: .*argument"):
        sweep_lib.load(file)


def test_a_sweep_has_a_name_or_a_path():
    by_name = load("table3")
    assert load("configs/sweeps/table3.py") == by_name == load(named.find("table3", "sweeps"))
    with pytest.raises(ConfigError, match="did you mean .*table3"):
        load("tabel3")


def test_a_config_may_take_an_argument(tmp_path):
    config = tmp_path / "own.py"
    config.write_text(
        "from lsanet_jax.config import load\n\n"
        "def get_config(objective):\n    config = load('quickstart')\n"
        "    config.model.objective = objective\n    return config\n"
    )
    sweep = Sweep("mine", "", (Run("one", f"{config}:dsn", {}, {}),))
    assert sweep_lib.resolve(sweep, sweep.runs[0], 0).model.objective == "dsn"
    job = sweep_lib.jobs(sweep, tmp_path)[0]
    assert f"--config={config}:dsn" in sweep_lib.command(sweep, job)


def test_a_run_may_begin_with_another_ones_weights_of_the_same_seed(tmp_path):
    fields = {"model.init_from": "pretrained/seed{seed}", "train.early_stop": 2}
    sweep = Sweep("mine", "", (Run("one", "quickstart", fields, {}),), seeds=(0, 7))
    job = sweep_lib.jobs(sweep, tmp_path)[1]
    assert sweep_lib.resolve(sweep, job.run, job.seed).model.init_from == "pretrained/seed7"
    assert "--config.model.init_from=pretrained/seed7" in sweep_lib.command(sweep, job)


@pytest.mark.parametrize("name", ["few_labels", "imbalance"])
def test_ways_to_train_are_compared_on_the_same_labels(name):
    sweep = load(name)
    for run in sweep.runs:
        config = sweep_lib.resolve(sweep, run, 1)
        labels = (config.data.train_fraction, config.data.path, config.train.epochs)
        by_name = {other.name: other for other in sweep.runs}
        against = sweep_lib.resolve(sweep, by_name[run.baseline or run.name], 1)
        assert labels == (against.data.train_fraction, against.data.path, against.train.epochs)
        assert (config.model.init_from == "pretrained/seed1") == run.name.endswith("pretrained")
        assert "lsanet" in (run.baseline or run.name)


def test_the_data_are_told_by_their_path(tmp_path):
    arrays = tmp_path / "a.npz"
    arrays.touch()
    with_data = sweep_lib.with_data
    assert with_data({"data.name": "breastmnist"}) == {"data.name": "breastmnist"}
    assert with_data({}) == {}
    assert with_data({"data.path": str(arrays)})["data.name"] == "npz"
    folder = with_data({"data.path": str(tmp_path)})
    assert folder["data.name"] == "folder"
    size = lambda scale, **more: load("table3", overrides=folder | more, scale=scale).overrides
    assert size("28px")["data.size"] == 28
    assert size("paper", **{"data.size": 64})["data.size"] == 64
    assert (size("paper")["data.size"], size("paper")["data.resize"]) == (224, "bicubic")
    own = load("medmnistplus", overrides=folder)
    assert {"data.size", "data.resize"} & own.overrides.keys() == {"data.resize"}
    (tmp_path / "labels.csv").touch()
    for wrong, found in (("typo", "nothing there"), ("labels.csv", "a file that is not .npz")):
        with pytest.raises(ConfigError, match=f"{wrong}: found {found}, expected a folder"):
            with_data({"data.path": str(tmp_path / wrong)})


def test_an_override_that_makes_all_runs_one_is_refused():
    with pytest.raises(
        ConfigError, match=r"config\.model\.objective = 'dsn': the runs baseline, dsn"
    ):
        load("compare", overrides={"model.objective": "dsn"})
    with pytest.raises(ConfigError, match=r"config\.data\.train_fraction = 0\.5: the runs 1pct-"):
        load("label_efficiency", overrides={"data.train_fraction": 0.5})
    load("table1", overrides={"data.name": "npz", "data.path": "mine.npz"})  # in place of four sets


def test_a_sweep_may_get_more_seeds_in_its_folder(file, tmp_path):
    workdir = tmp_path / "out"
    few, more = (sweep_lib.load(file, seeds=seeds) for seeds in ((0, 1), (0, 1, 4)))
    sweep_lib.claim(few, workdir)
    sweep_lib.claim(more, workdir)
    assert sweep_lib.reopen(file, workdir).seeds == (0, 1, 4)
    with pytest.raises(WorkdirError, match=r"holds another sweep: its seeds is \[0, 1, 4\]"):
        sweep_lib.claim(few, workdir)


def test_sweeps_of_folders_from_before_their_size_was_told_go_on(tmp_path):
    given = {"data.path": str(tmp_path)}
    before = load("crossval", overrides=given)
    sweep_lib.claim(before, tmp_path / "out")
    sweep_lib.claim(load("crossval", overrides=sweep_lib.with_data(given)), tmp_path / "out")
    assert sweep_lib.reopen("crossval", tmp_path / "out").overrides == given


def test_a_cross_validation_without_folds_is_reopened(tmp_path):
    given = {"data.path": str(tmp_path)}
    sweep_lib.claim(load("crossval", overrides=given, folds=0), tmp_path / "out")
    assert sweep_lib.reopen("crossval", tmp_path / "out").folds == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds=(0, 1)", "seeds=(0, 0)", r"seeds is \(0, 0\), expected one or more different"),
        ("seeds=(0, 1)", "seeds=3", "seeds is 3, expected one or more different"),
        ("seeds=(0, 1)", "seeds=()", "seeds is"),
        ("seeds=(0, 1)", 'folds="2"', "folds is '2', expected an integer"),
        ('"mine"', '"../../evil"', "name is '../../evil', expected a name of letters"),
        ('"mine"', '"compare"', "expected a 'Method'"),
        ("tuple(runs)", "()", r"runs is \(\), expected one or more"),
        ("tuple(runs)", '{"a": 1}', "runs is"),
        ("tuple(runs)", "(dataclasses.replace(runs[0], row=None),)", "'baseline': row is None"),
        ("tuple(runs)", "(dataclasses.replace(runs[0], row={'n': 5}),)", "expected texts"),
        ("tuple(runs)", "(dataclasses.replace(runs[0], overrides={'seed': 7}),)", "not seed"),
        (
            "tuple(runs)",
            "(dataclasses.replace(runs[0], baseline='baseline'),)",
            "is its own baseline",
        ),
    ],
)
def test_fields_of_a_sweep_file_are_checked(old, new, message, file):
    text = FILE.format(names=("baseline", "dsn")).replace(old, new)
    text = text.replace("Method", "Of") if new == '"compare"' else text
    assert new in text
    file.write_text("import dataclasses\n" + text)
    with pytest.raises(ConfigError, match=message):
        sweep_lib.load(file)


def test_rows_of_several_backbones_are_not_of_one():
    given = {"model.backbone": "resnet18"}
    with pytest.raises(ConfigError, match="differ in it, and would all be the same"):
        load("table1", overrides=given)
    with pytest.raises(ConfigError, match="differ in it, and would all be the same"):
        load("table5", overrides=given)
    assert load("table3", overrides=given).overrides == given


def test_every_shipped_sweep_loads():
    assert set(named.names("sweeps")) == {
        *TABLES,
        *("figure2", "label_efficiency", "compare", "ablation", "crossval", "medmnistplus"),
        *("few_labels", "imbalance"),
    }
    for name in named.names("sweeps"):
        assert load(name).name == name


# ------------------------------------------------------------------------------ folds


def test_a_cross_validation_trains_each_run_once_for_each_fold(file):
    whole = sweep_lib.load(file, overrides={"data.name": "folder"})
    swept = sweep_lib.load(file, overrides={"data.name": "folder"}, folds=3)
    assert len(swept.runs) == 3 * len(whole.runs)
    for i, run in enumerate(swept.runs):
        of, fold = whole.runs[i // 3], i % 3
        assert run.name == f"{of.name}-fold{fold}" and run.fold_of == of.name
        data = sweep_lib.resolve(swept, run, 0).data
        assert (data.folds, data.fold) == (3, fold)
        assert run.baseline == (of.baseline and f"{of.baseline}-fold{fold}")
        assert run.row == {**of.row, "Fold": f"{fold + 1} of 3"}


def test_a_folder_remembers_its_folds(file, tmp_path):
    given = {"overrides": {"data.name": "folder"}}
    swept = sweep_lib.load(file, **given, folds=3)
    sweep_lib.claim(swept, tmp_path / "sweep")
    assert sweep_lib.reopen(file, tmp_path / "sweep") == swept
    with pytest.raises(WorkdirError, match="its folds is 3, expected 4"):
        sweep_lib.claim(sweep_lib.load(file, **given, folds=4), tmp_path / "sweep")


def test_the_sweeps_own_folds_may_be_changed():
    folds = lambda swept: {run.overrides.get("data.folds", 0) for run in swept.runs}
    assert folds(load("crossval")) == {5}
    assert folds(load("crossval", folds=10)) == {10}
    assert folds(load("crossval", folds=0)) == {0}


@pytest.mark.parametrize(
    ("folds", "overrides", "message"),
    [
        (1, {"data.name": "folder"}, "--folds=1: expected an integer >= 2"),
        (3, {"data.name": "folder", "data.fold": 1}, r"config\.data\.fold: leave it out"),
        (
            3,
            {},
            "config.data.folds = 3 draws the folds of a folder of images, but config.data.name",
        ),
    ],
)
def test_folds_that_cannot_be_are_refused(file, folds, overrides, message):
    with pytest.raises(ConfigError, match=message):
        sweep_lib.load(file, overrides=overrides, folds=folds)


# ------------------------------------------------------------------------------ the folder


def test_a_folder_belongs_to_one_sweep(file, tmp_path):
    sweep, folder = sweep_lib.load(file), tmp_path / "sweep"
    sweep_lib.claim(sweep, folder)
    sweep_lib.claim(sweep, folder)
    changed = sweep_lib.load(file, overrides={"train.epochs": 3})
    with pytest.raises(WorkdirError, match='its overrides is {}, expected {"train.epochs": 3}'):
        sweep_lib.claim(changed, folder)
    assert sweep_lib.reopen(file, folder) == sweep


def test_a_reopened_sweep_has_what_it_was_started_with(file, tmp_path):
    given = {"scale": "28px", "seeds": (4, 5), "overrides": {"model.taps": (1, 4)}}
    sweep = sweep_lib.load(file, **given)
    sweep_lib.claim(sweep, tmp_path / "sweep")
    found = sweep_lib.reopen(file, tmp_path / "sweep")
    assert (found.scale, found.seeds) == ("28px", (4, 5))
    assert sweep_lib.resolve(found, found.runs[0], 4).model.taps == (1, 4)


def test_a_sweep_begun_when_configs_were_paths_is_reopened(file, tmp_path):
    sweep, record = sweep_lib.load(file), tmp_path / "sweep" / "sweep.json"
    sweep_lib.claim(sweep, tmp_path / "sweep")
    written = record.read_text()
    assert '"quickstart"' in written
    record.write_text(written.replace('"quickstart"', '"configs/quickstart.py"'))
    assert sweep_lib.reopen(file, tmp_path / "sweep") == sweep
    for other in ("resnet18", "configs/resnet18.py", "elsewhere/quickstart.py"):
        record.write_text(written.replace('"quickstart"', f'"{other}"'))
        with pytest.raises(WorkdirError, match="holds another sweep: its runs is"):
            sweep_lib.reopen(file, tmp_path / "sweep")


@pytest.mark.parametrize("content", ["{", "[]", '{"name": "mine"}', '{"runs": {"dsn": 3}}'])
def test_a_damaged_description_is_named(content, file, tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text(content)
    with pytest.raises(WorkdirError, match=r"sweep.json is damaged|holds another sweep"):
        sweep_lib.claim(sweep_lib.load(file), tmp_path / "sweep")


def test_other_folders_are_left_alone(file, tmp_path):
    with pytest.raises(WorkdirError, match="is not the folder of a sweep"):
        sweep_lib.claim(sweep_lib.load(file), tmp_path)
    with pytest.raises(WorkdirError, match="is a file"):
        sweep_lib.check(sweep_lib.load(file), file)


def test_a_result_must_be_whole_and_of_the_same_config(run, tmp_path):
    config, workdir = run
    sweep = Sweep("mine", "", (Run("tiny", "quickstart", {}, {}),))
    job = sweep_lib.Job(sweep.runs[0], config.seed, workdir)
    with pytest.raises(WorkdirError, match="holds a run of another config: .*data.image_size"):
        sweep_lib.result(sweep, job)
    fields = json.loads((workdir / "config.json").read_text())
    sweep = Sweep(
        "mine", "", sweep.runs, overrides={k: v for k, v in fields.items() if k != "seed"}
    )
    whole = sweep_lib.result(sweep, job)
    assert 0 <= whole["test"]["acc"] <= 1
    copy = job._replace(workdir=tmp_path / "seed0")
    assert sweep_lib.result(sweep, copy) is None
    copy.workdir.mkdir()
    (copy.workdir / "config.json").write_text((workdir / "config.json").read_text())
    del whole["test_looks"]  # With it, the run would count as stopped before it was sealed.
    for damaged in ("{", json.dumps({**whole, "test": None})):
        (copy.workdir / "result.json").write_text(damaged)
        with pytest.raises(WorkdirError, match="result.json is damaged"):
            sweep_lib.result(sweep, copy)


# ------------------------------------------------------------------------------ times


def test_times_follow_images_epochs_and_what_was_measured():
    sweep = load("table1", scale="28px")
    jobs = {job.run.name: job for job in sweep_lib.jobs(sweep, "x") if job.seed == 0}
    estimator = estimate.Estimator(sweep)
    path, derma = (jobs[f"resnet18-dsn-{name}mnist"] for name in ("path", "derma"))
    assert estimator.seconds_per_epoch(path) is None
    assert estimator.epochs(path) == 30
    estimator.measure(jobs["resnet18-dks-dermamnist"], 7.007)  # of 7,007 images
    assert estimator.seconds_per_epoch(derma) == pytest.approx(7.007)
    assert estimator.seconds_per_epoch(path) == pytest.approx(89.996)
    assert estimator.seconds_per_epoch(jobs["resnet50-dsn-dermamnist"]) == pytest.approx(7.007)
    estimator.measure(jobs["resnet34-dsn-dermamnist"], 3 * 7.007)
    assert estimator.seconds_per_epoch(derma) == pytest.approx(7.007)  # by its own backbone
    assert estimator.seconds_per_epoch(jobs["resnet50-dsn-dermamnist"]) == pytest.approx(14.014)
    estimator.measure(jobs["resnet18-baseline-pathmnist"], 5 * 89.996)
    estimator.measure(jobs["resnet18-lsanet-retinamnist"], 2 * 1.08)
    assert estimator.seconds_per_epoch(derma) == pytest.approx(2 * 7.007)  # the median


def test_folders_are_not_compared_with_sets_whose_images_are_counted(file):
    text = FILE.format(names=("baseline", "dsn", "lsanet"))
    folder = '{"data.name": "folder", "data.path": "somewhere"} if name != "dsn" else {}'
    fields = f'{{"model.objective": name, **({folder})}}'
    file.write_text(text.replace('{"model.objective": name}', fields))
    sweep = sweep_lib.load(file)
    baseline, dsn, lsanet = sweep_lib.jobs(sweep, "x")[:3]
    estimator = estimate.Estimator(sweep)
    estimator.measure(baseline, 60.0)
    assert estimator.seconds_per_epoch(lsanet) == 60.0
    assert estimator.seconds_per_epoch(dsn) is None


def test_of_a_folder_the_share_of_its_images_counts(tmp_path):
    (tmp_path / "images").mkdir()
    overrides = sweep_lib.with_data({"data.path": str(tmp_path / "images")})
    sweep = load("label_efficiency", overrides=overrides, scale="28px")
    jobs = {job.run.name: job for job in sweep_lib.jobs(sweep, "x") if job.seed == 0}
    estimator = estimate.Estimator(sweep)
    estimator.measure(jobs["10pct-dsn"], 2.0)
    assert estimator.seconds_per_epoch(jobs["50pct-dsn"]) == pytest.approx(10.0)


def test_images_are_counted_without_reading_them(tmp_path):
    import numpy as np

    from configs import quickstart

    config = quickstart.get_config()
    assert estimate.training_images(config) == 1024
    config.data.name = "dermamnist"
    assert estimate.training_images(config) == 7007
    config.data.train_fraction = 0.1
    assert estimate.training_images(config) == 701
    config.data.update(name="npz", path=str(tmp_path / "mine.npz"), train_fraction=1.0)
    assert estimate.training_images(config) is None
    np.savez_compressed(tmp_path / "other.npz", train_images=np.zeros((37, 8, 8), np.uint8))
    config.data.path = str(tmp_path / "other.npz")
    assert estimate.training_images(config) == 37
    config.data.name = "folder"
    assert estimate.training_images(config) is None
