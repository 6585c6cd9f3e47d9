"""LSANet on ResNet-101 under the paper's protocol: DermaMNIST at 224 pixels (Table 1).

python -m lsanet_jax.main --config=configs/resnet101.py --workdir=runs/resnet101
Paper: ACC 78.35, AUC 93.66 (baseline 73.27 / 90.92), mean of 3 runs. Meant for a GPU.
"""

from configs import resnet18


def get_config():
    """Return the protocol of configs/resnet18.py on ResNet-101."""
    config = resnet18.get_config()
    config.model.backbone = "resnet101"
    return config
