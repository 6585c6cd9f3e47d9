"""The model zoo: `create_model` builds what the config names."""

from flax import nnx

from lsanet_jax.models import resnet
from lsanet_jax.models.supervised import DeeplySupervised, Outputs

__all__ = ["BACKBONES", "DeeplySupervised", "Outputs", "create_model"]

BACKBONES = tuple(resnet.SPECS)


def create_model(
    config, num_classes: int, image_shape: tuple[int, int, int], rngs: nnx.Rngs
) -> DeeplySupervised:
    """Build the training network of `config.model`.

    Args:
      config: has the fields `backbone`, `stem`, `attention`, `objective`, `taps` and `lsa`.
      num_classes: number of logits.
      image_shape: (height, width, channels) of the images.
      rngs: source of the initial parameters.

    Returns:
      The network with just the parts that its objective trains.

    Raises:
      ConfigError: the taps do not fit the backbone.
    """
    backbone = resnet.ResNet(
        resnet.SPECS[config.backbone],
        in_channels=image_shape[-1],
        stem=config.stem,
        attention=config.attention,
        rngs=rngs,
    )
    taps = tuple(config.taps)
    if config.objective == "baseline":
        taps = (max(taps),)
    elif config.objective == "dks":  # it has no classifier at Conv2_x (DKS; paper, section 4.1)
        taps = tuple(tap for tap in taps if tap > 1)
    return DeeplySupervised(
        backbone,
        num_classes,
        taps=taps,
        dks=config.objective == "dks",
        lsa=config.lsa if config.objective in ("dsn_lsa", "lsanet") else None,
        image_shape=image_shape,
        rngs=rngs,
    )
