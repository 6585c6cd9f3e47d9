"""LSANet on VGG-19 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

lsanet train --config=vgg19 --workdir=runs/vgg19
Paper: ACC 76.51, AUC 92.51 (baseline 72.27 / 89.81), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on VGG-19."""
    config = load("resnet18")
    config.model.backbone = "vgg19"
    return config
