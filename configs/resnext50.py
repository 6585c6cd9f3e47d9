"""LSANet on ResNeXt-50 32x4d under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

lsanet train --config=resnext50 --workdir=runs/resnext50
Paper: ACC 78.60, AUC 93.66 (baseline 74.61 / 91.66), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on ResNeXt-50 32x4d."""
    config = load("resnet18")
    config.model.backbone = "resnext50"
    return config
