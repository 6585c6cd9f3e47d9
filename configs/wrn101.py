"""LSANet on WRN-101-2 under the paper's protocol: DermaMNIST at 224 pixels (Table 5).

python -m lsanet_jax.main --config=configs/wrn101.py --workdir=runs/wrn101
Paper: ACC 76.51, AUC 93.00 (baseline 73.97 / 90.54), mean of 3 runs. Meant for a GPU.
"""

from configs import resnet18


def get_config():
    """Return the protocol of configs/resnet18.py on WRN-101-2."""
    config = resnet18.get_config()
    config.model.backbone = "wrn101"
    return config
