"""LSANet on VGG-19 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

python -m lsanet_jax.main --config=configs/vgg19.py --workdir=runs/vgg19
Paper: ACC 76.51, AUC 92.51 (baseline 72.27 / 89.81), mean of 3 runs. Meant for a GPU.
"""

from configs import resnet18


def get_config():
    """Return the protocol of configs/resnet18.py on VGG-19."""
    config = resnet18.get_config()
    config.model.backbone = "vgg19"
    return config
