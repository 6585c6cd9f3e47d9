"""LSANet on DenseNet-121 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

python -m lsanet_jax.main --config=configs/densenet121.py --workdir=runs/densenet121
Paper: ACC 79.05, AUC 93.62 (baseline 76.11 / 91.27), mean of 3 runs. Meant for a GPU.
"""

from configs import resnet18


def get_config():
    """Return the protocol of configs/resnet18.py on DenseNet-121."""
    config = resnet18.get_config()
    config.model.backbone = "densenet121"
    return config
