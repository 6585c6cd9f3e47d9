"""LSANet on DenseNet-169 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

python -m lsanet_jax.main --config=configs/densenet169.py --workdir=runs/densenet169
Paper: ACC 78.95, AUC 93.73 (baseline 76.26 / 92.20), mean of 3 runs. Meant for a GPU.
"""

from configs import resnet18


def get_config():
    """Return the protocol of configs/resnet18.py on DenseNet-169."""
    config = resnet18.get_config()
    config.model.backbone = "densenet169"
    return config
