"""LSANet on ResNet-18 on the embedded synthetic set: works offline, minutes on a laptop.

python -m lsanet_jax.main --config=configs/quickstart.py --workdir=runs/quickstart
Test ACC 83.98, AUC 95.11 (chance: 25, 50); about 2 minutes of training on 2 CPU cores.
"""

from configs import common


def get_config():
    """Return a small run at 64 pixels."""
    config = common.get_config()
    config.data.size = config.data.image_size = 64
    config.train.epochs = 8
    return config
