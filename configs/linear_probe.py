"""A linear probe: pretrained weights as they are, and a classifier that is trained on top of them.

lsanet train --config=linear_probe --workdir=runs/probe --config.data.name=breastmnist
Needs the extra `hub`, or --config.model.init_from=FILE. It tells what the weights know of your
images before anything is fine-tuned. Add --config.model.objective=probe to probe every stage.
"""

from lsanet_jax.config import load


def get_config():
    """Return finetune's protocol with a frozen backbone and nothing but the classifier."""
    config = load("finetune")
    config.model.objective = "baseline"
    config.data.augment.update(hflip=False, shift=0.0)
    config.train.update(freeze="backbone", layer_decay=1.0, learning_rate=1e-3, clip_norm=0.0)
    return config
