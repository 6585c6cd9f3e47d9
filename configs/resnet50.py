"""LSANet on ResNet-50 under the paper's protocol: DermaMNIST at 224 pixels (Table 1).

lsanet train --config=resnet50 --workdir=runs/resnet50
Paper: ACC 78.15, AUC 93.08 (baseline 73.67 / 91.13), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on ResNet-50."""
    config = load("resnet18")
    config.model.backbone = "resnet50"
    return config
