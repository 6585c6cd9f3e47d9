"""Configs: every file is valid, every mistake is named."""

import importlib
import inspect
import pathlib

import ml_collections
import pytest

from lsanet_jax import config as config_lib
from lsanet_jax import losses, models
from lsanet_jax.config import checks, table
from lsanet_jax.config.fields import SECTIONS, SOURCES
from lsanet_jax.data import TASKS
from lsanet_jax.data.augment import MAXIMA, Augmentation
from lsanet_jax.data.sources import medmnist
from lsanet_jax.errors import ConfigError
from lsanet_jax.models.attention import ATTENTION
from lsanet_jax.models.lsa import KINDS

ROOT = pathlib.Path(__file__).resolve().parents[1]
FIELDS = config_lib.FIELDS


@pytest.mark.parametrize("name", config_lib.names())
def test_every_shipped_config_is_valid_and_documented(name):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config()
    config_lib.validate(config)
    assert config_lib.load(name) == config
    assert f"--config={name} " in module.__doc__.replace("\n", " ") or name == "common"


def test_the_defaults_are_the_papers_protocol():
    defaults = dict(config_lib.flatten(config_lib.default_config()))
    assert list(defaults) == list(dict(config_lib.flatten(config_lib.unflatten(defaults))))
    assert defaults.keys() == FIELDS.keys()
    frozen = {
        "seed": 0,
        "deterministic": True,
        "data.name": "synthetic",
        "data.size": 28,
        "data.image_size": 224,
        "data.mean": (0.5,),
        "data.max_megapixels": 100.0,
        "data.augment.hflip": False,
        "data.augment.mixup": 0.0,
        "data.synthetic.num_train": 1024,
        "model.backbone": "resnet18",
        "model.objective": "lsanet",
        "model.taps": (1, 2, 3, 4),
        "model.lsa.reduction": 8,
        "loss.alpha": (1.0,),
        "train.epochs": 100,
        "train.batch_size": 64,
        "train.learning_rate": 1e-3,
        "train.milestones": (0.5, 0.75),
        "eval.select": "best_val_auc",
    }
    assert {name: defaults[name] for name in frozen} == frozen
    assert all(type(defaults[name]) is type(value) for name, value in frozen.items())


def test_what_may_change_in_a_resumed_run():
    assert {
        "data.root",
        "data.url",
        "data.tfds_dir",
        "data.path",
        "data.pipeline",
        "data.device_budget_mb",
        "data.workers",
        "train.log_every_steps",
        "train.checkpoint_every_epochs",
    } == config_lib.MAY_CHANGE


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_every_field_has_a_meaning_and_a_default_that_is_allowed(field):
    assert field.meaning[-1] == "." and len(field.meaning) > 10
    assert field.allows(field.default)
    assert not field.source or field.source in SOURCES
    assert field.name.rpartition(".")[0] in SECTIONS


def test_choices_are_those_of_the_code():
    assert FIELDS["model.backbone"].choices == models.BACKBONES
    assert FIELDS["model.attention"].choices == tuple(ATTENTION)
    assert FIELDS["model.objective"].choices == tuple(losses.OBJECTIVES)
    assert FIELDS["model.lsa.kind"].choices == KINDS
    assert FIELDS["data.task"].choices == ("", *TASKS)
    assert FIELDS["data.synthetic.task"].choices == TASKS


def test_augmentations_are_those_of_the_code():
    prefix = "data.augment."
    ours = {name.removeprefix(prefix): f for name, f in FIELDS.items() if name.startswith(prefix)}
    assert {name: f.default for name, f in ours.items()} == vars(Augmentation())
    for name, maximum in MAXIMA.items():
        assert ours[name].allows(maximum) and not ours[name].allows(maximum * 1.01)
        assert not ours[name].allows(-0.01)
    assert {name for name, f in ours.items() if f.rule} == MAXIMA.keys()


@pytest.mark.parametrize("width", [60, 100])
def test_the_help_table_has_every_field_and_keeps_to_the_width(width):
    lines = table.as_text(width).splitlines()
    assert max(map(len, lines)) <= max(width, 68)
    text = " ".join(" ".join(lines).split())
    section = ""
    shown = []
    for line in lines:
        if line.startswith("--config."):
            section = line.removeprefix("--config.").removesuffix("FIELD")
        elif line.startswith("  ") and line[2] != " ":
            shown.append(section + line.split()[0])
    assert sorted(shown) == sorted(FIELDS)
    for field in FIELDS.values():
        assert field.meaning in text
        assert field.allowed in text


def test_the_documentations_page_of_fields_is_up_to_date():
    page = (ROOT / "docs/fields.md").read_text()
    assert page == table.as_markdown(), "run: python -m lsanet_jax.config > docs/fields.md"
    for field in FIELDS.values():
        assert field.meaning.replace("|", r"\|") in page


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "model.objective",
            "lsnet",
            r"model\.objective = 'lsnet': must be one of .*did you mean.*lsanet",
        ),
        ("model.backbone", "resnet19", "resnet18"),
        ("model.backbone", "mynet", "or MODULE:CLASS"),
        ("model.norm", "none", "'none' is for vgg16 and vgg19; resnet18 needs 'batch'"),
        ("model.dtype", "float16", "must be one of float32, bfloat16"),
        ("model.taps", (1, 2), "4, the last, must be among them"),
        ("model.taps", (0, 4), "counted from 1"),
        ("model.taps", (4, 5), "stages 1 to 4"),
        ("model.taps", (4,), "leaves no auxiliary classifier"),
        ("model.taps", (), "counted from 1"),
        ("model.lsa.kernel_size", 4, "an odd number"),
        ("train.epochs", 0, "must be an integer >= 1"),
        ("train.epochs", 1.5, "of type float, expected int"),
        ("train.epochs", True, "of type bool, expected int"),
        ("train.learning_rate", float("nan"), "finite number > 0"),
        ("train.learning_rate", -1.0, "finite number > 0"),
        ("train.learning_rate", "fast", "of type str, expected float"),
        ("train.milestones", (0.5, 1), "fractions between 0 and 1"),
        ("data.name", "", "the name of a dataset"),
        ("data.task", "multiclass", 'must be one of "", multi-class,.*did you mean multi-class'),
        ("data.mean", (0.5, "x"), "tuple of numbers"),
        ("data.std", (0.0,), "numbers > 0"),
        ("data.std", (), "numbers > 0"),
        ("data.as_rgb", 1, "expected bool"),
        ("data.augment.hue", 0.6, r"0 \(off\) to 0\.5"),
        ("data.synthetic.channels", 2, "must be one of 1, 3"),
        ("loss.alpha", (1.0, 2.0), "has 2 weights, expected 1, or 3"),
        ("loss.class_weights", "1,0", "none, balanced, effective or numbers > 0 for all classes"),
        ("loss.class_weights", "inverse", "numbers > 0"),
        ("data.mean", (123.7, 116.3, 103.5), "a tuple of numbers from 0 to 1"),
        ("data.std", (58.4, 57.1, 57.4), "a tuple of numbers > 0, at most 1"),
        ("loss.label_smoothing", 1.0, "0 .off. to 1, excluded"),
        ("train.ema", 1.0, "a number < 1"),
        ("train.freeze", "stem", "or a stage, such as stage2"),
        ("train.layer_decay", 0.0, "a number > 0, at most 1"),
        ("seed", -1, "0 to 4294967295"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(field, value, message):
    config = config_lib.default_config()
    if field == "loss.alpha":
        config.model.objective = "dsn"
    section, _, leaf = field.rpartition(".")
    parent = config
    for part in filter(None, section.split(".")):
        parent = parent[part]
    with parent.ignore_type():
        parent[leaf] = value
    with pytest.raises(ConfigError, match=message) as error:
        config_lib.validate(config)
    assert f"config.{field} = " in str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"data.sampling": "balanced", "loss.class_weights": "effective"},
            "config.data.sampling = balanced and config.loss.class_weights = effective make up for",
        ),
        (
            {"loss.class_weights": "1,2", "loss.logit_adjustment": 0.5},
            "config.loss.class_weights = 1,2 and config.loss.logit_adjustment = 0.5",
        ),
        (
            {"data.name": "dermamnits"},
            "config.data.name = 'dermamnits', expected one of .*; did you mean dermamnist",
        ),
        (
            {"data.path": "my_images"},
            "config.data.path = 'my_images' is not read with config.data.name = 'synthetic': set",
        ),
        (
            {"data.name": "npz", "data.path": "a.npz", "data.csv": "labels.csv"},
            "config.data.csv = 'labels.csv' is not read with config.data.name = 'npz': set that to",
        ),
        (
            {"loss.mu_warmup_epochs": 100.0},
            "config.loss.mu_warmup_epochs = 100 must be less than config.train.epochs = 100",
        ),
        (
            {"model.objective": "vicreg", "train.batch_size": 1},
            "config.train.batch_size = 1: config.model.objective = vicreg compares the images",
        ),
        (
            {"train.warmup_epochs": 100.0},
            "config.train.warmup_epochs = 100 must be less than config.train.epochs = 100",
        ),
        (
            {"train.clip_norm": 1.0, "model.objective": "probe"},
            "config.train.clip_norm = 1 scales all gradients together",
        ),
        (
            {"train.early_stop": 5, "eval.select": "last"},
            "config.train.early_stop = 5 looks for gain in what config.eval.select",
        ),
        ({"train.freeze": "stage2"}, "config.train.freeze = 'stage2' would keep random weights"),
    ],
)
def test_fields_that_contradict_each_other_are_named(fields, message):
    values = dict(config_lib.flatten(config_lib.default_config())) | fields
    with pytest.raises(ConfigError, match=message):
        config_lib.validate(config_lib.unflatten(values))


def test_every_set_that_can_be_loaded_may_be_named():
    assert set(checks.DATASETS) == {*medmnist.NAMES, "npz", "folder", "synthetic", "arrays"}


def test_an_unknown_field_is_named_with_the_nearest():
    config = config_lib.default_config()
    config.model.objectve = "dsn"
    with pytest.raises(
        ConfigError, match=r"model\.objectve: no such field; did you mean model\.obj"
    ):
        config_lib.validate(config)


def test_a_missing_field_is_named():
    config = config_lib.default_config()
    del config.model["stem"]
    with pytest.raises(ConfigError, match=r"config\.model\.stem is missing"):
        config_lib.validate(config)


def test_integers_are_good_floats():
    config = config_lib.default_config()
    with config.ignore_type():
        config.train.learning_rate = 1
    config_lib.validate(ml_collections.ConfigDict(config))


def test_a_backbone_of_ones_own_takes_no_options_of_the_zoos():
    config = config_lib.default_config()
    config.model.update(backbone="my_net:MyNet", taps=(1, 2))
    config_lib.validate(config)
    config.model.attention = "se"
    with pytest.raises(ConfigError, match=r"model\.attention = 'se' is an option of the zoo's"):
        config_lib.validate(config)


def test_flattened_configs_come_back():
    config = config_lib.default_config()
    assert config_lib.unflatten(dict(config_lib.flatten(config))) == config


def test_a_config_is_loaded_by_name_path_and_argument(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from lsanet_jax.config import load\n"
        "def get_config(backbone='resnet18'):\n"
        "    config = load('resnet34')\n"
        "    config.model.backbone = backbone\n"
        "    return config\n"
    )
    (tmp_path / "resnet34").mkdir()  # a run, say: no config
    assert config_lib.load("resnet34").model.backbone == "resnet34"
    assert config_lib.load("configs/resnet34.py") == config_lib.load("resnet34")
    assert config_lib.load("mine.py").model.backbone == "resnet18"
    assert config_lib.load("mine.py:vgg16").model.backbone == "vgg16"
    assert config_lib.load(f"{tmp_path}/mine.py").data.name == "dermamnist"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("resnet19", None, "resnet19: there is no such file.*did you mean resnet18"),
        ("configs/resnet19.py", None, "did you mean resnet18"),
        ("my_own", None, "no shipped config of that name; the shipped ones are common, dense"),
        ("bad.py", "import nothing_of_that_name", "bad.py cannot be loaded: ModuleNotFoundError"),
        ("bad.py", "def get_config(:", "cannot be loaded: SyntaxError"),
        ("bad.py", "config = 1", r"has no function get_config\(\)"),
        ("bad.py", "def get_config(): return 1 / 0", "fails: ZeroDivisionError"),
        ("bad.py", "def get_config(): pass", "returns NoneType, expected a ConfigDict"),
        ("quickstart:small", None, "fails: TypeError"),
    ],
)
def test_a_config_that_cannot_be_loaded_is_named(tmp_path, monkeypatch, name, text, message):
    monkeypatch.chdir(tmp_path)
    if text:
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        config_lib.load(name)


def test_public_names_are_documented():
    for name in config_lib.__all__:
        member = getattr(config_lib, name)
        assert not callable(member) or inspect.getdoc(member)


def test_a_stored_config_without_the_newest_fields_has_their_defaults():
    stored = dict(config_lib.flatten(config_lib.default_config()))
    stored.pop("data.resize")
    stored["train.epochs"] = 3
    config = config_lib.unflatten(config_lib.complete(stored))
    assert (config.data.resize, config.train.epochs) == ("nearest", 3)
    config_lib.validate(config)
