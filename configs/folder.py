"""LSANet-ResNet-18 on your own images: a folder of class folders, or a folder and a CSV.

lsanet train --config=folder --workdir=runs/mine --config.data.path=my_images
docs/own-images.md says how it may look. With little memory lower data.size and data.image_size:
every image is kept as data.size x data.size pixels. Time: as resnet18, by the number of images.
"""

from lsanet_jax.config import default_config


def get_config():
    """Return the paper's protocol on a folder, its images shrunk to 224 pixels."""
    config = default_config()
    config.data.name = "folder"
    config.data.size = 224
    config.data.resize = "bicubic"
    config.eval.batch_size = 64  # at 224 pixels 256 would take a gigabyte more
    return config
