"""LSANet on ResNet-34 under the paper's protocol: DermaMNIST at 224 pixels (Table 1).

python -m lsanet_jax.main --config=configs/resnet34.py --workdir=runs/resnet34
Paper: ACC 78.70, AUC 93.96 (baseline 74.01 / 91.39), mean of 3 runs. Meant for a GPU.
"""

from configs import resnet18


def get_config():
    """Return the protocol of configs/resnet18.py on ResNet-34."""
    config = resnet18.get_config()
    config.model.backbone = "resnet34"
    return config
