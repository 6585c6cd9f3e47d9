"""Fine-tune pretrained weights with LSANet: ResNet-18 from the Hugging Face Hub.

lsanet train --config=finetune --workdir=runs/finetuned --config.data.name=breastmnist
Needs the extra `hub`, or --config.model.init_from=FILE with a file of weights that you have. AdamW
at 1e-4, cosine with warm-up, half the rate for each stage further from the classifiers, flips and
small shifts. Meant for a GPU: at 224 pixels and batch 64 the step takes about 1.2 GiB of memory. On
a CPU lower --config.data.image_size, to 64 say.
"""

from lsanet_jax.config import default_config


def get_config():
    """Return the recipe; the images' normalisation follows from the weights."""
    config = default_config()
    config.data.name = "breastmnist"
    config.data.resize = "bicubic"
    config.data.augment.update(hflip=True, shift=0.05)
    config.model.init_from = "hf:timm/resnet18.a1_in1k"
    config.train.update(
        epochs=30,
        optimizer="adamw",
        learning_rate=1e-4,
        weight_decay=0.05,
        schedule="cosine",
        warmup_epochs=3.0,
        clip_norm=1.0,
        layer_decay=0.5,
    )
    return config
