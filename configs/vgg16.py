"""LSANet on VGG-16 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

python -m lsanet_jax.main --config=configs/vgg16.py --workdir=runs/vgg16
Paper: ACC 76.16, AUC 92.92 (baseline 72.87 / 90.99), mean of 3 runs. Meant for a GPU.
"""

from configs import resnet18


def get_config():
    """Return the protocol of configs/resnet18.py on VGG-16."""
    config = resnet18.get_config()
    config.model.backbone = "vgg16"
    return config
