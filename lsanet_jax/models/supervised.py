"""DeeplySupervised: a backbone, a classifier at each tap and, for LSANet, layer selective attention."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lsanet_jax.errors import ConfigError
from lsanet_jax.models.heads import Classifier, DKSClassifier
from lsanet_jax.models.lsa import FeatureEmbedding, LayerSelectiveAttention


class Outputs(NamedTuple):
    """What the training network returns, shallow to deep; the last logits are the network's own."""

    logits: Float[Array, "l b k"]
    beta: Float[Array, "b l"] | None


class DeeplySupervised(nnx.Module):
    """Backbone with a classifier at each tap; auxiliary parts exist only where they are used.

    `fc` is the network's own classifier. `auxiliary` (one classifier for each further tap),
    `embeddings` and `lsa` serve training only: `predict` runs the backbone and `fc`.

    Attributes:
      taps: the supervised stages, counted from 1, shallow to deep; the last stage is among them.
    """

    def __init__(
        self,
        backbone: nnx.Module,
        num_classes: int,
        *,
        taps: Sequence[int] | None = None,
        dks: bool = False,
        lsa: Mapping | None = None,
        image_shape: tuple[int, int, int] = (224, 224, 3),
        rngs: nnx.Rngs,
    ):
        """Build the network.

        Args:
          backbone: any module with `stage_channels` that maps images [n, h, w, c] to a tuple of
            feature maps [n, h_l, w_l, stage_channels[l]], shallow to deep.
          num_classes: number of logits of each classifier.
          taps: the stages to supervise, counted from 1 (default: all).
          dks: put a DKS branch in front of each auxiliary classifier.
          lsa: arguments of `LayerSelectiveAttention` (channels, kind, reduction, kernel_size);
            None for a network without it.
          image_shape: (height, width, channels) of the images to train on. It sets the kernel
            sizes of the embeddings, and nothing else.
          rngs: source of the initial parameters.

        Raises:
          ConfigError: the taps are not stages of the backbone or leave out the last one, or DKS is
            asked of a backbone that cannot copy its stages.
        """
        last = len(backbone.stage_channels)
        self.taps = tuple(sorted(set(taps))) if taps else tuple(range(1, last + 1))
        if self.taps[-1] != last or self.taps[0] < 1:
            raise ConfigError(
                f"model.taps = {tuple(taps)}: the taps are stages 1 to {last} of the backbone, and "
                f"the last one, {last}, must be among them"
            )
        self.backbone = backbone
        self.fc = Classifier(backbone.stage_channels[-1], num_classes, rngs=rngs)
        if dks and not hasattr(backbone, "make_stage"):
            raise ConfigError(
                f"model.objective = dks: {type(backbone).__name__} has no make_stage() to copy its "
                "stages; use a residual backbone or another objective"
            )
        self.auxiliary = nnx.List(
            DKSClassifier(backbone, tap, num_classes, rngs=rngs)
            if dks
            else Classifier(backbone.stage_channels[tap - 1], num_classes, rngs=rngs)
            for tap in self.taps[:-1]
        )
        self.embeddings = nnx.List()
        if lsa is None:
            self.lsa = None
        else:
            sizes = [m.shape[1:3] for m in map_shapes(backbone, image_shape)]
            for tap in self.taps:
                embedding = FeatureEmbedding(
                    backbone.stage_channels[tap - 1],
                    lsa["channels"],
                    map_size=sizes[tap - 1],
                    target_size=sizes[-1],
                    rngs=rngs,
                )
                self.embeddings.append(embedding)
            self.lsa = LayerSelectiveAttention(len(self.taps), **lsa, rngs=rngs)

    def __call__(self, x: Float[Array, "b h w c"]) -> Outputs:
        """Return the logits of every classifier, and beta where there is attention."""
        all_maps = self.backbone(x)
        maps = [all_maps[tap - 1] for tap in self.taps]
        heads = [*self.auxiliary, self.fc]
        logits = jnp.stack([head(m) for head, m in zip(heads, maps, strict=True)])
        if self.lsa is None:
            return Outputs(logits, None)
        embedded = [embed(m) for embed, m in zip(self.embeddings, maps, strict=True)]
        return Outputs(logits, self.lsa(jnp.stack(embedded)))

    def predict(self, x: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        """Return the logits of the network's own classifier, at the cost of the plain network."""
        return self.fc(self.backbone(x)[-1])


def map_shapes(backbone: nnx.Module, image_shape: tuple[int, int, int]):
    """Shapes of the backbone's feature maps for one image, without computing them."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    graphdef, state = nnx.split(backbone)
    return jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, image)
