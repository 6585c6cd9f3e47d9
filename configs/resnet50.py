"""LSANet on ResNet-50 under the paper's protocol: DermaMNIST at 224 pixels (Table 1).

python -m lsanet_jax.main --config=configs/resnet50.py --workdir=runs/resnet50
Paper: ACC 78.15, AUC 93.08 (baseline 73.67 / 91.13), mean of 3 runs. Meant for a GPU.
"""

from configs import resnet18


def get_config():
    """Return the protocol of configs/resnet18.py on ResNet-50."""
    config = resnet18.get_config()
    config.model.backbone = "resnet50"
    return config
