"""LSANet on DenseNet-201 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

lsanet train --config=densenet201 --workdir=runs/densenet201
Paper: ACC 78.85, AUC 94.03 (baseline 75.76 / 91.54), mean of 3 runs. Meant for a GPU.
"""

from lsanet_jax.config import load


def get_config():
    """Return the protocol of resnet18 on DenseNet-201."""
    config = load("resnet18")
    config.model.backbone = "densenet201"
    return config
