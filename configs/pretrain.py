r"""Pretrain LSANet-ResNet-18 at 28 pixels on images without labels, by VICReg at each tap.

lsanet pretrain --config=pretrain --workdir=runs/pretrained --config.data.path=ham10000_28.npz \
    --config.data.train_fraction=0.1 --config.data.unlabelled=rest
The labels that are left train a linear classifier at each stage, which tells how good the features
are and changes nothing of them. Then: --config=few_labels --config.model.init_from=runs/pretrained.

lsanet train --config=pretrain --workdir=runs/pretrained is the same.
"""

from lsanet_jax.config import load


def get_config():
    """Return the recipe."""
    config = load("few_labels")
    config.model.objective = "vicreg"
    config.model.projection_channels = 256
    config.train.update(batch_size=128, ema=0.0, weight_decay=1e-4)
    config.eval.select = "last"
    return config
