"""The baseline of MedMNIST v2 at 28 pixels: ResNet-18 with the small stem, batch 128.

lsanet train --config=medmnist28 --workdir=runs/breast28 \
    --config.data.name=breastmnist
Published test AUC / ACC (MedMNIST v2, Table 3, ResNet-18 at 28): BreastMNIST .901 / .863,
RetinaMNIST .717 / .524, DermaMNIST .917 / .735.
"""

from lsanet_jax.config import default_config


def get_config():
    """Return MedMNIST v2's protocol at 28 pixels."""
    config = default_config()
    config.data.name = "breastmnist"
    config.data.image_size = 28
    config.model.stem = "small"
    config.model.objective = "baseline"
    config.train.batch_size = 128
    return config
