"""LSANet on DenseNet-121 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

lsanet train --config=densenet121 --workdir=runs/densenet121
Paper: ACC 79.05, AUC 93.62 (baseline 76.11 / 91.27), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on DenseNet-121."""
    config = load("resnet18")
    config.model.backbone = "densenet121"
    return config
