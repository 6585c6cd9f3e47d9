"""LSANet on VGG-16 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

lsanet train --config=vgg16 --workdir=runs/vgg16
Paper: ACC 76.16, AUC 92.92 (baseline 72.87 / 90.99), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on VGG-16."""
    config = load("resnet18")
    config.model.backbone = "vgg16"
    return config
