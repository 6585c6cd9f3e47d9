"""Configs: every file is valid, every mistake is named."""

import importlib
import pathlib

import ml_collections
import pytest

from configs import common
from lsanet_jax import config as config_lib
from lsanet_jax.errors import ConfigError

FILES = sorted(p.stem for p in pathlib.Path(common.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("name", FILES)
def test_every_config_file_is_valid_and_documented(name):
    module = importlib.import_module(f"configs.{name}")
    config_lib.validate(module.get_config())
    if name != "common":
        assert f"--config=configs/{name}.py" in module.__doc__


def test_common_has_every_field_with_a_comment():
    assert {name for name, _ in config_lib.flatten(common.get_config())} == set(config_lib.FIELDS)
    source = pathlib.Path(common.__file__).read_text().splitlines()
    fields = [line for line in source if " = " in line and "ConfigDict()" not in line]
    assert len(fields) == len(config_lib.FIELDS)
    assert all("  # " in line for line in fields)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "model.objective",
            "lsnet",
            r"model\.objective = 'lsnet' is none of .*did you mean.*lsanet",
        ),
        ("model.backbone", "resnet19", "resnet18"),
        ("model.norm", "none", "'none' is for vgg16 and vgg19; resnet18 needs 'batch'"),
        ("model.dtype", "float16", "none of 'float32', 'bfloat16'"),
        ("model.taps", (1, 2), "4, the last, must be among them"),
        ("model.taps", (0, 4), "counted from 1"),
        ("model.taps", (4, 5), "stages 1 to 4"),
        ("model.taps", (4,), "leaves no auxiliary classifier"),
        ("model.lsa.kernel_size", 4, "an odd number"),
        ("train.epochs", 0, "at least 1"),
        ("train.epochs", 1.5, "of type float, expected int"),
        ("train.epochs", True, "of type bool, expected int"),
        ("train.learning_rate", float("nan"), "finite number above 0"),
        ("train.learning_rate", -1.0, "finite number above 0"),
        ("train.learning_rate", "fast", "of type str, expected float"),
        ("data.mean", (0.5, "x"), "tuple of numbers"),
        ("data.std", (0.0,), "above 0"),
        ("data.std", (), "above 0"),
        ("data.as_rgb", 1, "expected bool"),
        ("loss.alpha", (1.0, 2.0), "has 2 weights, expected 1, or 3"),
        ("seed", -1, "0 to 4294967295"),
    ],
)
def test_a_bad_value_is_named_with_what_is_allowed(field, value, message):
    config = common.get_config()
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
    assert field in str(error.value)


def test_an_unknown_field_is_named_with_the_nearest():
    config = common.get_config()
    config.model.objectve = "dsn"
    with pytest.raises(
        ConfigError, match=r"model\.objectve: no such field; did you mean model\.obj"
    ):
        config_lib.validate(config)


def test_a_missing_field_is_named():
    config = common.get_config()
    del config.model["stem"]
    with pytest.raises(ConfigError, match=r"config\.model\.stem is missing"):
        config_lib.validate(config)


def test_integers_are_good_floats():
    config = common.get_config()
    with config.ignore_type():
        config.train.learning_rate = 1
    config_lib.validate(ml_collections.ConfigDict(config))


def test_a_backbone_of_ones_own_takes_no_options_of_the_zoos():
    config = common.get_config()
    config.model.update(backbone="my_net:MyNet", taps=(1, 2))
    config_lib.validate(config)
    config.model.attention = "se"
    with pytest.raises(ConfigError, match=r"model\.attention = 'se' is an option of the zoo's"):
        config_lib.validate(config)


def test_flattened_configs_come_back():
    config = common.get_config()
    assert config_lib.unflatten(dict(config_lib.flatten(config))) == config
