"""LSANet on DenseNet-201 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

python -m lsanet_jax.main --config=configs/densenet201.py --workdir=runs/densenet201
Paper: ACC 78.85, AUC 94.03 (baseline 75.76 / 91.54), mean of 3 runs. Meant for a GPU.
"""

from configs import resnet18


def get_config():
    """Return the protocol of configs/resnet18.py on DenseNet-201."""
    config = resnet18.get_config()
    config.model.backbone = "densenet201"
    return config
