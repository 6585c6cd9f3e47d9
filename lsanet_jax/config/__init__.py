"""What a config may hold: the type and the choices or range of every field.

`configs/common.py` holds the fields' meanings and defaults.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_collections

from lsanet_jax import losses
from lsanet_jax.data.augment import MAXIMA, Augmentation
from lsanet_jax.data.dataset import TASKS
from lsanet_jax.errors import ConfigError, near_matches
from lsanet_jax.models import BACKBONES
from lsanet_jax.models.attention import ATTENTION
from lsanet_jax.models.lsa import KINDS


class Field(NamedTuple):
    """The type of a field, and which of its values are allowed."""

    type: type
    allowed: tuple | Callable[[Any], bool] = lambda _: True
    expected: str = ""
    or_else: Callable[[Any], bool] = lambda _: False  # allowed beside the choices of a tuple


def _at_least(low: float, type_: type = int) -> Field:
    return Field(type_, lambda v: math.isfinite(v) and v >= low, f"a number of at least {low}")


def _above(low: float) -> Field:
    return Field(float, lambda v: math.isfinite(v) and v > low, f"a finite number above {low:g}")


def _tuple(is_item: Callable[[Any], bool], expected: str, *, empty: bool = False) -> Field:
    return Field(tuple, lambda v: (empty or len(v) > 0) and all(map(is_item, v)), expected)


def _is_int(v: Any) -> bool:
    return isinstance(v, int) and not isinstance(v, bool)


def _is_real(v: Any) -> bool:
    return (_is_int(v) or isinstance(v, float)) and math.isfinite(v)


FIELDS: dict[str, Field] = {
    "seed": Field(int, lambda v: 0 <= v < 2**32, "0 to 4294967295"),
    "deterministic": Field(bool),
    "data.name": Field(str, bool, "the name of a dataset"),
    "data.root": Field(str),
    "data.url": Field(str),
    "data.tfds_dir": Field(str),
    "data.path": Field(str),
    "data.csv": Field(str),
    "data.val_fraction": Field(float, lambda v: 0 < v < 1, "between 0 and 1"),
    "data.test_fraction": Field(float, lambda v: 0 < v < 1, "between 0 and 1"),
    "data.split_seed": _at_least(0),
    "data.skip_broken": Field(bool),
    "data.max_megapixels": _above(0),
    "data.task": Field(str, ("", *TASKS)),
    "data.size": _at_least(1),
    "data.image_size": _at_least(1),
    "data.resize": Field(str, ("nearest", "bilinear", "bicubic")),
    "data.as_rgb": Field(bool),
    "data.mean": _tuple(_is_real, "a tuple of numbers, such as (0.5,)"),
    "data.std": _tuple(lambda v: _is_real(v) and v > 0, "a tuple of numbers above 0"),
    **{
        f"data.augment.{field.name}": Field(bool)
        if field.type is bool
        else Field(
            float,
            lambda v, highest=MAXIMA[field.name]: 0 <= v <= highest,
            f"0 (off) to {MAXIMA[field.name]:g}",
        )
        for field in dataclasses.fields(Augmentation)
    },
    "data.train_fraction": Field(float, lambda v: 0 < v <= 1, "above 0, up to 1"),
    "data.train_per_class": _at_least(0),
    "data.pipeline": Field(str, ("auto", "device", "grain")),
    "data.device_budget_mb": _at_least(1),
    "data.workers": _at_least(-1),
    "data.synthetic.task": Field(str, TASKS),
    "data.synthetic.num_classes": _at_least(1),
    "data.synthetic.num_train": _at_least(1),
    "data.synthetic.num_val": _at_least(1),
    "data.synthetic.num_test": _at_least(1),
    "data.synthetic.channels": Field(int, (1, 3)),
    "data.synthetic.seed": _at_least(0),
    "model.backbone": Field(str, BACKBONES, or_else=lambda v: ":" in v),
    "model.stem": Field(str, ("imagenet", "small")),
    "model.attention": Field(str, tuple(ATTENTION)),
    "model.norm": Field(str, ("batch", "none")),
    "model.objective": Field(str, tuple(losses.OBJECTIVES)),
    "model.taps": _tuple(lambda v: _is_int(v) and v > 0, "stages counted from 1, such as (2, 4)"),
    "model.lsa.kind": Field(str, KINDS),
    "model.lsa.channels": _at_least(1),
    "model.lsa.reduction": _at_least(1),
    "model.lsa.kernel_size": Field(int, lambda v: v > 0 and v % 2 == 1, "an odd number"),
    "model.dtype": Field(str, ("float32", "bfloat16")),
    "model.remat": Field(bool),
    "model.init_from": Field(str),
    "loss.alpha": _tuple(
        lambda v: _is_real(v) and v >= 0, "one weight, or one for each auxiliary classifier"
    ),
    "loss.mu": _at_least(0, float),
    "train.epochs": _at_least(1),
    "train.batch_size": _at_least(1),
    "train.optimizer": Field(str, ("adam", "adamw", "sgd")),
    "train.learning_rate": _above(0),
    "train.weight_decay": _at_least(0, float),
    "train.momentum": Field(float, lambda v: 0 <= v < 1, "0 up to, but not including, 1"),
    "train.schedule": Field(str, ("step", "constant", "cosine")),
    "train.milestones": _tuple(lambda v: _is_real(v) and 0 < v < 1, "fractions", empty=True),
    "train.decay": _above(0),
    "train.on_nan": Field(str, ("stop", "skip")),
    "train.max_skipped_steps": _at_least(0),
    "train.steps_per_dispatch": _at_least(1),
    "train.log_every_steps": _at_least(1),
    "train.checkpoint_every_epochs": _at_least(1),
    "eval.batch_size": _at_least(1),
    "eval.select": Field(str, ("best_val_auc", "last")),
}


def flatten(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) for each leaf of a config."""
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def unflatten(values: dict[str, Any]) -> ml_collections.ConfigDict:
    """The config with these leaves, the inverse of `flatten`; lists, as JSON has them, are tuples."""
    config = ml_collections.ConfigDict()
    for name, value in values.items():
        *sections, leaf = name.split(".")
        node = config
        for section in sections:
            if section not in node:
                node[section] = ml_collections.ConfigDict()
            node = node[section]
        node[leaf] = tuple(value) if isinstance(value, list) else value
    return config


def validate(config: ml_collections.ConfigDict) -> None:
    """Check every field of a config before anything is built from it.

    Raises:
      ConfigError: a field is unknown or missing, or its value is of the wrong type or not allowed;
        the message names the field, the value and what is allowed.
    """
    values = dict(flatten(config))
    for name in values.keys() - FIELDS.keys():
        raise ConfigError(f"config.{name}: no such field{near_matches(name, FIELDS)}")
    for name, field in FIELDS.items():
        if name not in values:
            raise ConfigError(
                f"config.{name} is missing: start the config file from configs/common.py"
            )
        _check(f"config.{name}", values[name], field)
    _check_backbone(config.model)
    own = ":" in config.model.backbone  # its number of stages is known when it is made
    if not own and (4 not in config.model.taps or max(config.model.taps) > 4):
        raise ConfigError(
            f"config.model.taps = {config.model.taps}: the taps are stages 1 to 4, and 4, the last, "
            "must be among them"
        )
    num_aux = len(set(config.model.taps)) - 1
    if config.model.objective == "dks":
        num_aux -= 1 in config.model.taps
    if config.model.objective != "baseline" and num_aux < 1:
        raise ConfigError(
            f"config.model.taps = {config.model.taps} leaves no auxiliary classifier for objective "
            f"{config.model.objective}: add a stage, or train the baseline"
        )
    if config.model.objective in ("dsn", "dsn_ks", "dks", "probe") and (
        len(config.loss.alpha) not in (1, num_aux)
    ):
        raise ConfigError(
            f"config.loss.alpha = {config.loss.alpha} has {len(config.loss.alpha)} weights, "
            f"expected 1, or {num_aux} for the auxiliary classifiers of config.model.taps"
        )


def _check_backbone(model: ml_collections.ConfigDict) -> None:
    """Check that the options of `config.model` are some that its backbone has."""
    defaults = {"attention": "none", "remat": False, "stem": "imagenet"}
    if ":" in model.backbone:
        for name, default in defaults.items():
            if model[name] != default:
                raise ConfigError(
                    f"config.model.{name} = {model[name]!r} is an option of the zoo's backbones, not "
                    f"of your own, {model.backbone}: leave it at {default!r}"
                )
    if model.norm == "none" and not model.backbone.startswith("vgg"):
        raise ConfigError(
            f"config.model.norm = 'none' is for vgg16 and vgg19; {model.backbone} needs 'batch'"
        )


def _check(name: str, value: Any, field: Field) -> None:
    right_type = isinstance(value, field.type) and (
        field.type is bool or not isinstance(value, bool)
    )
    if field.type is float:
        right_type = _is_real(value) or isinstance(value, float)
    if not right_type:
        raise ConfigError(
            f"{name} = {value!r} is of type {type(value).__name__}, expected {field.type.__name__}"
        )
    if isinstance(field.allowed, tuple):
        if value not in field.allowed and not field.or_else(value):
            hint = near_matches(value, field.allowed) if isinstance(value, str) else ""
            choices = ", ".join(repr(v) for v in field.allowed)
            raise ConfigError(f"{name} = {value!r} is none of {choices}{hint}")
    elif not field.allowed(value):
        raise ConfigError(f"{name} = {value!r}: expected {field.expected}")
