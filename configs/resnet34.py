"""LSANet on ResNet-34 under the paper's protocol: DermaMNIST at 224 pixels (Table 1).

lsanet train --config=resnet34 --workdir=runs/resnet34
Paper: ACC 78.70, AUC 93.96 (baseline 74.01 / 91.39), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on ResNet-34."""
    config = load("resnet18")
    config.model.backbone = "resnet34"
    return config
