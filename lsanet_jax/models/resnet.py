"""ResNet, Wide ResNet and ResNeXt with four taps, named as in torchvision.

References: He et al., "Deep residual learning for image recognition", 2016; Zagoruyko and
Komodakis, "Wide residual networks", 2016; Xie et al., "Aggregated residual transformations for deep
neural networks", 2017. As in torchvision, a Bottleneck strides in its 3x3 convolution (ResNet
"v1.5").
"""

from typing import NamedTuple

from flax import nnx
from jaxtyping import Array, Float

from lsanet_jax.models.attention import ATTENTION
from lsanet_jax.models.layers import BatchNorm, Conv, max_pool, recompute, relu


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(
        self, in_channels: int, width: int, *, stride: int, attention=None, rngs: nnx.Rngs, **_
    ):
        self.conv1 = Conv(in_channels, width, 3, stride=stride, rngs=rngs)
        self.bn1 = BatchNorm(width, rngs=rngs)
        self.conv2 = Conv(width, width, 3, rngs=rngs)
        self.bn2 = BatchNorm(width, rngs=rngs)
        self.attention = attention(width, rngs=rngs) if attention else None
        self.downsample = projection(in_channels, width, stride, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        """Return the block's map."""
        y = relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y = y if self.attention is None else self.attention(y)
        return relu(y + shortcut(self.downsample, x))


class Bottleneck(nnx.Module):
    """1x1, 3x3 (grouped in ResNeXt, wider in WRN) and 1x1 convolutions and a shortcut."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        width: int,
        *,
        stride: int,
        groups: int = 1,
        base_width: int = 64,
        attention=None,
        rngs: nnx.Rngs,
    ):
        inner, outer = width * base_width // 64 * groups, width * self.expansion
        self.conv1 = Conv(in_channels, inner, 1, rngs=rngs)
        self.bn1 = BatchNorm(inner, rngs=rngs)
        self.conv2 = Conv(inner, inner, 3, stride=stride, groups=groups, rngs=rngs)
        self.bn2 = BatchNorm(inner, rngs=rngs)
        self.conv3 = Conv(inner, outer, 1, rngs=rngs)
        self.bn3 = BatchNorm(outer, rngs=rngs)
        self.attention = attention(outer, rngs=rngs) if attention else None
        self.downsample = projection(in_channels, outer, stride, rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h2 w2 c2"]:
        """Return the block's map."""
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        y = y if self.attention is None else self.attention(y)
        return relu(y + shortcut(self.downsample, x))


def projection(in_channels: int, out_channels: int, stride: int, rngs: nnx.Rngs):
    """Shortcut for a block that changes the shape: 1x1 convolution and norm. Otherwise none."""
    if stride == 1 and in_channels == out_channels:
        return None
    conv = Conv(in_channels, out_channels, 1, stride=stride, rngs=rngs)
    return nnx.List([conv, BatchNorm(out_channels, rngs=rngs)])


def shortcut(downsample, x):
    """The identity, or the projection where the shape changes."""
    if downsample is None:
        return x
    conv, norm = downsample
    return norm(conv(x))


class Spec(NamedTuple):
    """What tells the members of the family apart."""

    block: type[BasicBlock] | type[Bottleneck]
    stage_sizes: tuple[int, ...]
    groups: int = 1
    base_width: int = 64


SPECS = {
    "resnet18": Spec(BasicBlock, (2, 2, 2, 2)),
    "resnet34": Spec(BasicBlock, (3, 4, 6, 3)),
    "resnet50": Spec(Bottleneck, (3, 4, 6, 3)),
    "resnet101": Spec(Bottleneck, (3, 4, 23, 3)),
    "wrn50": Spec(Bottleneck, (3, 4, 6, 3), base_width=128),
    "wrn101": Spec(Bottleneck, (3, 4, 23, 3), base_width=128),
    "resnext50": Spec(Bottleneck, (3, 4, 6, 3), groups=32, base_width=4),
    "resnext101": Spec(Bottleneck, (3, 4, 23, 3), groups=32, base_width=8),
}
"""WRN is torchvision's wide_resnet50_2 / 101_2, ResNeXt its resnext50_32x4d / 101_32x8d."""


class ResNet(nnx.Module):
    """Residual backbone; returns the maps of its four stages, Conv2_x to Conv5_x.

    Attributes:
      stage_channels: channels of the four maps, shallow to deep.
      stage_sizes: blocks in each of the four stages.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        in_channels: int = 3,
        stem: str = "imagenet",
        attention: str = "none",
        remat: bool = False,
        rngs: nnx.Rngs,
    ):
        """Build a member of the family.

        Args:
          spec: a value of `SPECS`, or your own.
          in_channels: channels of the images.
          stem: "imagenet": 7x7 convolution with stride 2, then 3x3 max pooling with stride 2;
            "small": 3x3 convolution with stride 1 and no pooling, for images of about 28 pixels.
          attention: a key of `ATTENTION`; sits in every block, before the sum.
          remat: recompute the blocks in the backward pass.
          rngs: source of the initial parameters.
        """
        self.spec = spec
        self.attention = attention
        self.stem = stem
        self.remat = remat
        self.stage_sizes = spec.stage_sizes
        self.stage_channels = tuple(
            width * spec.block.expansion for width in (64, 128, 256, 512)[: len(spec.stage_sizes)]
        )
        if stem == "imagenet":
            self.conv1 = Conv(in_channels, 64, 7, stride=2, rngs=rngs)
        else:
            self.conv1 = Conv(in_channels, 64, 3, rngs=rngs)
        self.bn1 = BatchNorm(64, rngs=rngs)
        for stage in range(1, len(spec.stage_sizes) + 1):
            setattr(self, f"layer{stage}", self.make_stage(stage, rngs=rngs))

    def make_stage(self, stage: int, num_blocks: int | None = None, *, rngs: nnx.Rngs) -> nnx.List:
        """Make a new copy of a stage (counted from 1), with all its blocks or the first few."""
        width = 64 * 2 ** (stage - 1)
        in_channels = 64 if stage == 1 else self.stage_channels[stage - 2]
        kwargs = {
            "groups": self.spec.groups,
            "base_width": self.spec.base_width,
            "attention": ATTENTION[self.attention],
            "rngs": rngs,
        }
        blocks = []
        for i in range(num_blocks or self.stage_sizes[stage - 1]):
            stride = 2 if stage > 1 and i == 0 else 1
            blocks.append(self.spec.block(in_channels, width, stride=stride, **kwargs))
            in_channels = self.stage_channels[stage - 1]
        return nnx.List(blocks)

    def __call__(self, x: Float[Array, "n h w c"]) -> tuple[Float[Array, "n _ _ _"], ...]:
        """Return the feature maps of the stages, shallow to deep."""
        x = relu(self.bn1(self.conv1(x)))
        if self.stem == "imagenet":
            x = max_pool(x, 3, stride=2, padding=1)
        maps = []
        for stage in range(1, len(self.stage_sizes) + 1):
            for block in getattr(self, f"layer{stage}"):
                x = recompute(block, x) if self.remat else block(x)
            maps.append(x)
        return tuple(maps)
