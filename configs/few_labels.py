r"""A recipe for few labels: LSANet-ResNet-18 at 28 pixels, augmented, averaged, of weak synergy.

lsanet train --config=few_labels --workdir=runs/tenth \
    --config.data.path=ham10000_28.npz --config.data.train_fraction=0.1
Flips and quarter turns suit images without an up and a left, such as skin lesions, cells and
tissue: switch off --config.data.augment.vflip and .rot90 for others. Begin with weights that were
pretrained on your unlabelled images by --config.model.init_from=runs/pretrained.

HAM10000-28, 100 epochs, three seeds, test AUC (balanced ACC) with 5 and 10 % of the labels: plain
network 79.8 (27.6) and 83.6 (33.1), LSANet as in the paper 84.9 (28.8) and 87.7 (33.0), this recipe
85.6 (35.0) and 89.4 (43.4), from pretrained weights 86.6 (35.7) and 90.0 (44.6). docs/results.md
has intervals, and what else was tried.
"""

from lsanet_jax.config import default_config


def get_config():
    """Return the recipe."""
    config = default_config()
    config.data.name = "npz"
    config.data.image_size = 28
    config.data.augment.update(hflip=True, vflip=True, rot90=True, shift=0.1)
    config.loss.mu = 0.1
    config.train.update(
        optimizer="adamw",
        weight_decay=0.05,
        schedule="cosine",
        warmup_epochs=5.0,
        ema=0.99,
    )
    return config
