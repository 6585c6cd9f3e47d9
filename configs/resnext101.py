"""LSANet on ResNeXt-101 32x8d under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

lsanet train --config=resnext101 --workdir=runs/resnext101
Paper: ACC 78.45, AUC 93.72 (baseline 74.31 / 91.27), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on ResNeXt-101 32x8d."""
    config = load("resnet18")
    config.model.backbone = "resnext101"
    return config
