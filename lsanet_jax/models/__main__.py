"""The model zoo as a table: lsanet models [--size=224] [--classes=7].

For each backbone: the parameters of the network that predicts and of the one that LSANet trains,
the multiply-adds of a prediction (convolutions and classifier), and the shapes of the four taps.
"""

import argparse
import functools

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from lsanet_jax import models
from lsanet_jax.errors import ConfigError
from lsanet_jax.models import layers
from lsanet_jax.runtime import cli

_MOST = 1 << 16  # pixels, or classes


class CountedConv(layers.Conv):
    """A convolution that notes its multiply-adds per image."""

    def __call__(self, x):
        """Convolve."""
        y = super().__call__(x)
        self.multiply_adds = self.kernel.size * y.shape[1] * y.shape[2]
        return y


def multiply_adds(model: models.DeeplySupervised, image_shape: tuple[int, int, int]) -> int:
    """Multiply-adds of the convolutions and the classifier for one image; nothing is computed."""

    def predict(model, x):
        convolutions = [m for _, m in nnx.iter_modules(model) if type(m) is layers.Conv]
        for conv in convolutions:
            conv.__class__ = CountedConv
        model.predict(x)
        counts = [getattr(conv, "multiply_adds", 0) for conv in convolutions]
        return sum(counts) + model.fc.kernel.size

    graphdef, state = nnx.split(model)
    counts = []
    image = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)
    jax.eval_shape(lambda s, x: counts.append(predict(nnx.merge(graphdef, s), x)), state, image)
    return counts[0]


def describe(backbone: str, num_classes: int, size: int) -> tuple[str, ...]:
    """A row of the table."""
    shape = (size, size, 3)
    config = ConfigDict(
        {
            "backbone": backbone,
            "stem": "imagenet",
            "attention": "none",
            "norm": "batch",
            "objective": "lsanet",
            "taps": (1, 2, 3, 4),
            "lsa": {"kind": "fc", "channels": 64, "reduction": 8, "kernel_size": 3},
            "projection_channels": 128,
            "dtype": "float32",
            "remat": False,
        }
    )
    create = functools.partial(models.create_model, config, num_classes, shape)
    model = nnx.eval_shape(lambda: create(nnx.Rngs(0)))
    count = lambda module: sum(v.size for v in jax.tree.leaves(nnx.state(module, nnx.Param)))
    sizes = models.map_sizes(model.backbone, shape)
    channels = model.backbone.stage_channels
    return (
        backbone,
        f"{count(nnx.Dict(backbone=model.backbone, fc=model.fc)) / 1e6:.2f}",
        f"{count(model) / 1e6:.2f}",
        f"{multiply_adds(model, shape) / 1e9:.2f}",
        "  ".join(f"{h}x{w}x{c}" for (h, w), c in zip(sizes, channels, strict=True)),
    )


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=224, help="pixels (default: 224)")
    parser.add_argument("--classes", type=int, default=7, help="classes (default: 7)")
    args = parser.parse_args()
    cli.run(lambda: _print(args.size, args.classes))


def _print(size: int, classes: int) -> None:
    for name, value in (("size", size), ("classes", classes)):
        if not 1 <= value <= _MOST:
            raise ConfigError(f"--{name}={value}: expected 1 to {_MOST}")
    layout = "{:12}  {:>9}  {:>9}  {:>6}  {}"
    print(f"parameters in millions at {classes} classes; GMAC at {size} pixels\n")
    print(layout.format("backbone", "predicts", "LSANet", "GMAC", "taps"))
    for backbone in models.BACKBONES:
        try:
            print(layout.format(*describe(backbone, classes, size)), flush=True)
        except ConfigError as error:
            print(f"{backbone:12}  {error}", flush=True)


if __name__ == "__main__":
    main()
