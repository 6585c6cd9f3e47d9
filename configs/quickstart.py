"""LSANet on ResNet-18 on the embedded synthetic set: works offline, minutes on a laptop.

python -m lsanet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
"""

from configs import common


def get_config():
    """Return a small run at 28 pixels."""
    config = common.get_config()
    config.data.image_size = 28
    config.train.epochs = 8
    return config
