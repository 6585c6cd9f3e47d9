"""LSANet on ResNet-101 under the paper's protocol: DermaMNIST at 224 pixels (Table 1).

lsanet train --config=resnet101 --workdir=runs/resnet101
Paper: ACC 78.35, AUC 93.66 (baseline 73.27 / 90.92), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on ResNet-101."""
    config = load("resnet18")
    config.model.backbone = "resnet101"
    return config
