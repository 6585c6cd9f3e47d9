"""LSANet on ResNet-18 under the paper's protocol: DermaMNIST at 224 pixels (Table 1).

lsanet train --config=resnet18 --workdir=runs/resnet18
Paper: ACC 78.10, AUC 93.69 (baseline 74.56 / 92.05), mean of 3 runs.
Time: meant for a GPU; on 2 CPU cores about 5 minutes an epoch, 8 hours in all.
"""

from lsanet_jax.config import default_config


def get_config():
    """Return the paper's protocol; see section 4.1."""
    config = default_config()
    config.data.name = "dermamnist"
    config.model.backbone = "resnet18"
    return config
