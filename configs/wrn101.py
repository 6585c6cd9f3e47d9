"""LSANet on WRN-101-2 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

lsanet train --config=wrn101 --workdir=runs/wrn101
Paper: ACC 76.51, AUC 93.00 (baseline 73.97 / 90.54), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on WRN-101-2."""
    config = load("resnet18")
    config.model.backbone = "wrn101"
    return config
