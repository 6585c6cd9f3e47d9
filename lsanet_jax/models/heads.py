"""What turns a feature map into class logits: the classifier, and the DKS branch in front of it."""

from flax import nnx
from jaxtyping import Array, Float

from lsanet_jax.models.layers import Linear, global_average_pool, recompute


class Classifier(Linear):
    """Global average pooling and a fully connected layer, the same at every stage.

    Parameters: `kernel` [c, classes], `bias` [classes].
    """

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        """Return the logits of a feature map, in float32."""
        return super().__call__(global_average_pool(x))


class DKSClassifier(nnx.Module):
    """Auxiliary classifier of DKS: copies of the stages that follow the tap, then `Classifier`.

    The branch repeats every stage after the tap with all its blocks, save that a last stage which
    is not the next one has half of its blocks, at least one.

    Reference: Sun et al., "Deeply-supervised Knowledge Synergy", CVPR 2019, and its released WRN.
    """

    def __init__(self, backbone, stage: int, num_classes: int, *, rngs: nnx.Rngs):
        """Build the branch.

        Args:
          backbone: has `stage_sizes`, `remat` and `make_stage(stage, num_blocks, rngs=)`.
          stage: the tap, counted from 1.
          num_classes: number of logits.
          rngs: source of the initial parameters.
        """
        self.remat = backbone.remat
        last = len(backbone.stage_channels)
        self.stages = nnx.List()
        for following in range(stage + 1, last + 1):
            num_blocks = backbone.stage_sizes[following - 1]
            if following == last and following > stage + 1:
                num_blocks = max(1, num_blocks // 2)
            self.stages.append(backbone.make_stage(following, num_blocks, rngs=rngs))
        self.fc = Classifier(backbone.stage_channels[-1], num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n k"]:
        """Return the logits of the tapped map."""
        for blocks in self.stages:
            for block in blocks:
                x = recompute(block, x) if self.remat else block(x)
        return self.fc(x)
