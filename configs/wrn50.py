"""LSANet on WRN-50-2 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

lsanet train --config=wrn50 --workdir=runs/wrn50
Paper: ACC 77.11, AUC 92.61 (baseline 74.06 / 90.58), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on WRN-50-2."""
    config = load("resnet18")
    config.model.backbone = "wrn50"
    return config
