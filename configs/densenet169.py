"""LSANet on DenseNet-169 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

lsanet train --config=densenet169 --workdir=runs/densenet169
Paper: ACC 78.95, AUC 93.73 (baseline 76.26 / 92.20), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on DenseNet-169."""
    config = load("resnet18")
    config.model.backbone = "densenet169"
    return config
