r"""The protocol of the MedMNIST+ benchmark (Doerrich et al., 2025), end to end, on ResNet-18.

lsanet train --config=medmnistplus --workdir=runs/derma64 \
    --config.data.name=dermamnist --config.data.size=64
ImageNet weights, AdamW at 1e-4, cosine over 100 epochs, batch 64, no augmentation; images at their
native size with a border of zeros up to 224 pixels; the epoch with the lowest validation loss,
after 5 epochs without gain. Best of its ten models on DermaMNIST at 28 / 64 / 128 / 224 pixels: ACC
76.6 / 79.9 / 81.8 / 84.7. Meant for a GPU. A linear probe: --config.train.freeze=backbone and
--config.model.objective=baseline; theirs goes on updating batch statistics, ours does not.

Source: github.com/sdoerrich97/rethinking-model-prototyping-MedMNISTPlus, arXiv 2404.15786.
"""

from lsanet_jax.config import default_config


def get_config():
    """Return the protocol; the images' normalisation follows from the weights."""
    config = default_config()
    config.data.name = "dermamnist"
    config.data.resize = "pad"
    config.model.objective = "baseline"
    config.model.init_from = "hf:timm/resnet18.a1_in1k"
    config.train.update(
        optimizer="adamw",
        learning_rate=1e-4,
        weight_decay=0.01,  # the default of its optimizer
        schedule="cosine",
        early_stop=5,
    )
    config.eval.select = "best_val_loss"
    return config
