"""The model zoo: `create_model` builds what the config names."""

import importlib

import jax.numpy as jnp
from flax import nnx

from lsanet_jax.errors import ConfigError, check_has, near_matches
from lsanet_jax.models import densenet, resnet, vgg
from lsanet_jax.models.attention import ATTENTION
from lsanet_jax.models.lsa import ATTENTIVE_KINDS, CONSTANT_KINDS
from lsanet_jax.models.supervised import Backbone, DeeplySupervised, Outputs, map_sizes

__all__ = [
    "BACKBONES",
    "Backbone",
    "DeeplySupervised",
    "Outputs",
    "create_backbone",
    "create_model",
    "map_sizes",
]

BACKBONES = (*resnet.SPECS, *vgg.SPECS, *densenet.SPECS)


def create_model(
    config, num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs
) -> DeeplySupervised:
    """Build the training network of `config.model`.

    Args:
      config: a config's section `model`; docs/fields.md lists its fields. `init_from` is for
        training: see `lsanet_jax.fit`.
      num_classes: number of logits.
      image_shape: (height, width, channels) of the images.
      rngs: source of the initial parameters.

    Returns:
      The network with just the parts that its objective trains.

    Raises:
      ConfigError: a name is none of its choices, the taps do not fit the backbone, the images are
        too small for it, or it is one of the user's own that cannot be imported.
    """
    check_has(config, "backbone", "config", "the section `model` of a config: pass config.model")
    _check_choices(config)
    backbone = create_backbone(config, image_shape[-1], rngs)
    objective, taps = config.objective, tuple(sorted(set(config.taps)))
    projected = {"selfcon": taps, "vicreg": taps, "contrastive": taps[:-1]}.get(objective, ())
    dks = objective in ("dks", "dhm")
    if objective in ("baseline", "selfcon", "contrastive"):
        taps = taps[-1:]
    elif dks:  # it has no classifier at Conv2_x (DKS; paper, section 4.1)
        taps = tuple(tap for tap in taps if tap > 1)
    return DeeplySupervised(
        backbone,
        num_classes,
        taps=taps,
        dks=dks,
        probe=objective == "probe",
        lsa=config.lsa if objective in ("dsn_lsa", "lsanet") else None,
        hints=objective == "byot",
        projected=projected,
        projection_channels=config.projection_channels,
        self_supervised=objective == "vicreg",
        image_shape=image_shape,
        dtype=jnp.dtype(config.dtype),
        rngs=rngs,
    )


def _check_choices(config) -> None:
    """Check names of a config's section `model`; that of the objective, `losses.Objective` does."""
    given = [
        ("stem", config.stem, ("imagenet", "small")),
        ("attention", config.attention, ATTENTION),
        ("backbone", config.backbone, BACKBONES),
    ]
    if config.objective in ("dsn_lsa", "lsanet"):
        given.append(("lsa.kind", config.lsa.kind, (*ATTENTIVE_KINDS, *CONSTANT_KINDS)))
    for name, value, of in given:
        if value not in of and not (name == "backbone" and ":" in value):
            raise ConfigError(
                f"config.model.{name} = {value!r}, expected one of {', '.join(of)}"
                f"{near_matches(value, of)}"
            )


def create_backbone(config, in_channels: int, rngs: nnx.Rngs) -> Backbone:
    """Build the backbone of `config.model`: one of `BACKBONES`, or MODULE:CLASS of the user's own.

    Raises:
      ConfigError: the user's own cannot be imported.
    """
    name = config.backbone
    if ":" in name:
        return _own_backbone(name, in_channels, rngs)
    options = {
        "in_channels": in_channels,
        "stem": config.stem,
        "attention": config.attention,
        "remat": config.remat,
        "rngs": rngs,
    }
    if name in resnet.SPECS:
        return resnet.ResNet(resnet.SPECS[name], **options)
    if name in vgg.SPECS:
        return vgg.VGG(vgg.SPECS[name], norm=config.norm, **options)
    return densenet.DenseNet(densenet.SPECS[name], **options)


def _own_backbone(name: str, in_channels: int, rngs: nnx.Rngs) -> Backbone:
    module, _, attribute = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"config.model.backbone = {name!r}: {error}. It stands for `from {module} import "
            f"{attribute}`: is the file in the current folder or on PYTHONPATH?"
        ) from error
    if not issubclass(make if isinstance(make, type) else object, nnx.Module):
        raise ConfigError(
            f"config.model.backbone = {name!r}: {attribute} is {make!r}, expected a class of "
            "nnx.Module"
        )
    return make(in_channels=in_channels, rngs=rngs)
