"""Is a config sound? Every field by itself, and those that depend on each other."""

from typing import Any

import ml_collections

from lsanet_jax.config.defaults import flatten
from lsanet_jax.config.fields import FIELDS, Field, is_number
from lsanet_jax.errors import ConfigError, near_matches

DATASETS = (
    *("pathmnist", "chestmnist", "dermamnist", "octmnist", "pneumoniamnist", "retinamnist"),
    *("breastmnist", "bloodmnist", "tissuemnist", "organamnist", "organcmnist", "organsmnist"),
    *("npz", "folder", "synthetic", "arrays"),
)
"""What `data.name` may be; here, since importing `lsanet_jax.data` takes seconds."""


def validate(config: ml_collections.ConfigDict) -> None:
    """Check every field of a config before anything is built from it.

    Raises:
        ConfigError: a field is unknown or missing, its value is of the wrong type or not allowed,
            or two fields contradict each other; the message names the field, the value and what
            is allowed.
    """
    values = dict(flatten(config))
    for name in values.keys() - FIELDS.keys():
        raise ConfigError(f"config.{name}: no such field{near_matches(name, FIELDS)}")
    for name, field in FIELDS.items():
        if name not in values:
            raise ConfigError(
                f"config.{name} is missing: start from lsanet_jax.config.default_config()"
            )
        _check_value(values[name], field)
    _check_backbone(config.model)
    _check_taps(config)
    _check_balance(config)
    _check_training(config)
    _check_contrast(config)
    _check_source(config.data)
    if config.data.folds and config.data.name != "folder":
        raise ConfigError(
            f"config.data.folds = {config.data.folds} draws the folds of a folder of images, but "
            f"config.data.name = {config.data.name!r}: set config.data.folds to 0, or use a folder"
        )


def _check_source(data: ml_collections.ConfigDict) -> None:
    """Check that there is such a set, and that what names the user's images is read with it."""
    if data.name not in DATASETS:
        raise ConfigError(
            f"config.data.name = {data.name!r}, expected one of {', '.join(DATASETS)}"
            f"{near_matches(data.name, DATASETS)}"
        )
    for name, of in (("path", ("npz", "folder")), ("csv", ("folder",))):
        if data[name] and data.name not in (*of, "arrays"):  # which says where they came from
            raise ConfigError(
                f"config.data.{name} = {data[name]!r} is not read with config.data.name = "
                f"{data.name!r}: set that to {' or '.join(of)}, or leave the {name} out"
            )


def _check_value(value: Any, field: Field) -> None:
    expected = field.type
    if expected is float:
        right_type = is_number(value) or isinstance(value, float)
    else:
        right_type = isinstance(value, expected) and (
            expected is bool or not isinstance(value, bool)
        )
    if not right_type:
        raise ConfigError(
            f"config.{field.name} = {value!r} is of type {type(value).__name__}, expected "
            f"{expected.__name__}"
        )
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int) and abs(number) >= 2**63:
            raise ConfigError(f"config.{field.name} = {str(number)[:20]}...: must fit in 64 bits")
    if not field.allows(value):
        must = "must be one of" if field.choices else "must be"
        hint = near_matches(value, field.choices) if isinstance(value, str) else ""
        raise ConfigError(f"config.{field.name} = {value!r}: {must} {field.allowed}{hint}")


def _check_backbone(model: ml_collections.ConfigDict) -> None:
    """Check that the backbone has the options that `config.model` asks for."""
    if ":" in model.backbone:
        for name in ("attention", "remat", "stem"):
            default = FIELDS[f"model.{name}"].default
            if model[name] != default:
                raise ConfigError(
                    f"config.model.{name} = {model[name]!r} is an option of the zoo's backbones, "
                    f"not of your own, {model.backbone}: leave it at {default!r}"
                )
    if model.norm == "none" and not model.backbone.startswith("vgg"):
        raise ConfigError(
            f"config.model.norm = 'none' is for vgg16 and vgg19; {model.backbone} needs 'batch'"
        )


def _check_taps(config: ml_collections.ConfigDict) -> None:
    """Check the supervised stages, and that the objective and the weights of the loss fit them."""
    model, alpha = config.model, config.loss.alpha
    own = ":" in model.backbone  # its number of stages is known when it is made
    if not own and (4 not in model.taps or max(model.taps) > 4):
        raise ConfigError(
            f"config.model.taps = {model.taps}: the taps are stages 1 to 4, and 4, the last, must "
            "be among them"
        )
    num_aux = len(set(model.taps)) - 1
    if model.objective in ("dks", "dhm"):
        num_aux -= 1 in model.taps
    if model.objective != "baseline" and num_aux < 1:
        raise ConfigError(
            f"config.model.taps = {model.taps} leaves no auxiliary classifier for config.model."
            f"objective = {model.objective!r}: add a stage, or train the baseline"
        )
    own_weights = ("baseline", "dsn_lsa", "lsanet", "dsn_halving", "selfcon", "contrastive")
    if model.objective not in own_weights and len(alpha) not in (1, num_aux):
        raise ConfigError(
            f"config.loss.alpha = {alpha} has {len(alpha)} weights, expected 1, or {num_aux} for "
            "the auxiliary classifiers of config.model.taps"
        )


def _check_balance(config: ml_collections.ConfigDict) -> None:
    """Check that rare classes are not made up for twice."""
    loss = config.loss
    used = []
    if config.data.sampling == "balanced":
        used.append("config.data.sampling = balanced")
    if loss.class_weights != "none":
        used.append(f"config.loss.class_weights = {loss.class_weights}")
    if loss.logit_adjustment:
        used.append(f"config.loss.logit_adjustment = {loss.logit_adjustment:g}")
    if len(used) > 1:
        raise ConfigError(
            f"{' and '.join(used)} make up for the same imbalance, one on top of the other: choose "
            "one of them"
        )


def _check_training(config: ml_collections.ConfigDict) -> None:
    """Check the options of the optimization that depend on others."""
    train = config.train
    if train.warmup_epochs >= train.epochs:
        raise ConfigError(
            f"config.train.warmup_epochs = {train.warmup_epochs:g} must be less than "
            f"config.train.epochs = {train.epochs}"
        )
    if config.loss.mu_warmup_epochs >= train.epochs:
        raise ConfigError(
            f"config.loss.mu_warmup_epochs = {config.loss.mu_warmup_epochs:g} must be less than "
            f"config.train.epochs = {train.epochs}, or mu never reaches its value"
        )
    if train.early_stop and config.eval.select == "last":
        raise ConfigError(
            f"config.train.early_stop = {train.early_stop} looks for gain in what config.eval."
            "select chooses the epoch by: set that to best_val_auc or best_val_loss, not last"
        )
    if train.clip_norm and config.model.objective in ("probe", "vicreg"):
        raise ConfigError(
            f"config.train.clip_norm = {train.clip_norm:g} scales all gradients together, so that "
            f"with config.model.objective = {config.model.objective} classifiers that must not "
            "change the backbone would: set it to 0"
        )
    if train.freeze and not config.model.init_from:
        raise ConfigError(
            f"config.train.freeze = {train.freeze!r} would keep random weights as they are: give "
            "pretrained ones by config.model.init_from"
        )


def _check_contrast(config: ml_collections.ConfigDict) -> None:
    """Check that what contrastive and self-supervised objectives compare is there, and whole."""
    if config.data.unlabelled and config.model.objective != "vicreg":
        raise ConfigError(
            f"config.data.unlabelled = {config.data.unlabelled!r} is of no use for config.model."
            f"objective = {config.model.objective!r}: pretrain on it by `lsanet pretrain`, which "
            "sets that to vicreg, and begin with that run by config.model.init_from"
        )
    if config.model.objective == "vicreg" and config.train.batch_size < 2:
        raise ConfigError(
            f"config.train.batch_size = {config.train.batch_size}: config.model.objective = vicreg "
            "compares the images of a batch: take at least 2, and better 64"
        )
    for name in ("mixup", "cutmix"):
        compared = config.model.objective in ("selfcon", "contrastive", "vicreg")
        if compared and config.data.augment[name]:
            raise ConfigError(
                f"config.data.augment.{name} = {config.data.augment[name]} blends images, which "
                f"config.model.objective = {config.model.objective!r} tells apart: set it to 0"
            )
