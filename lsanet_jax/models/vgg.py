"""VGG-16 and VGG-19 with four taps, named as torchvision's `features`.

Reference: Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
recognition", 2015. The three fully connected layers of the original give way to the classifier that
all backbones share, as in the paper, section 4.1.
"""

from collections.abc import Sequence

from flax import nnx
from jaxtyping import Array, Float

from lsanet_jax.models.attention import ATTENTION
from lsanet_jax.models.layers import BatchNorm, Conv, max_pool, recompute, relu

WIDTHS = (64, 128, 256, 512, 512)
SPECS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
"""3x3 convolutions in each of the five blocks, whose widths are `WIDTHS`."""


class Pool(nnx.Module):
    """End of a block: attention, if any, then 2x2 max pooling."""

    def __init__(self, channels: int, *, stride: int, attention=None, rngs: nnx.Rngs):
        self.stride = stride
        self.attention = attention(channels, rngs=rngs) if attention else None

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c"]:
        """Return the block's map."""
        x = x if self.attention is None else self.attention(x)
        return x if self.stride == 1 else max_pool(x, self.stride, self.stride)


class VGG(nnx.Module):
    """VGG backbone; returns what its last four max pooling layers leave.

    Attributes:
      stage_channels: channels of the four maps, shallow to deep.
      stage_sizes: convolutions in each of the four stages.
      classifier_name: what torchvision calls the classifier behind it.
    """

    classifier_name = "classifier"

    def __init__(
        self,
        spec: Sequence[int],
        *,
        in_channels: int = 3,
        stem: str = "imagenet",
        attention: str = "none",
        norm: str = "batch",
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        """Build VGG.

        Args:
          spec: a value of `SPECS`, or your own.
          in_channels: channels of the images.
          stem: "imagenet", or "small": without the first of the five poolings, for small images.
          attention: a key of `ATTENTION`; sits in front of the five poolings.
          norm: "batch", or "none" for VGG as it was before batch normalisation.
          remat: recompute the blocks in the backward pass.
          rngs: source of the initial parameters.
        """
        self.stage_channels: tuple[int, ...] = WIDTHS[1:]
        self.stage_sizes = tuple(spec[1:])
        self.attention = attention
        self.norm = norm
        self.remat = remat
        self.features = nnx.List()
        for i, (width, size) in enumerate(zip(WIDTHS, spec, strict=True)):
            stride = 1 if i == 0 and stem == "small" else 2
            self.features.extend(self._block(in_channels, width, size, stride, rngs))
            in_channels = width

    def make_stage(self, stage: int, num_blocks: int | None = None, *, rngs: nnx.Rngs) -> nnx.List:
        """Copy a stage (counted from 1) anew, with all its convolutions or the first few."""
        size = num_blocks or self.stage_sizes[stage - 1]
        block = self._block(WIDTHS[stage - 1], WIDTHS[stage], size, 2, rngs)
        return nnx.List([nnx.Sequential(*block)])

    def _block(self, in_channels: int, width: int, size: int, stride: int, rngs: nnx.Rngs) -> list:
        layers = []
        for _ in range(size):
            layers.append(Conv(in_channels, width, 3, use_bias=True, rngs=rngs))
            if self.norm == "batch":
                layers.append(BatchNorm(width, rngs=rngs))
            layers.append(relu)
            in_channels = width
        attention = ATTENTION[self.attention]
        return [*layers, Pool(width, stride=stride, attention=attention, rngs=rngs)]

    def __call__(self, x: Float[Array, "n h w c"]) -> tuple[Float[Array, "n _ _ _"], ...]:
        """Return the feature maps of the stages, shallow to deep."""
        maps, layers = [], []
        for layer in self.features:
            layers.append(layer)
            if isinstance(layer, Pool):
                block = nnx.Sequential(*layers)
                x = recompute(block, x) if self.remat else block(x)
                maps.append(x)
                layers = []
        return tuple(maps[1:])
