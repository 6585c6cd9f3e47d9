"""DeeplySupervised: a backbone with a classifier at each tap and, for LSANet, attention."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from lsanet_jax.errors import ConfigError
from lsanet_jax.models.convolution import VanishedMapError
from lsanet_jax.models.heads import Classifier, DKSClassifier
from lsanet_jax.models.lsa import (
    ATTENTIVE_KINDS,
    ConstantWeights,
    FeatureEmbedding,
    make_lsa,
)
from lsanet_jax.models.projection import Expander, Projection


class Backbone(Protocol):
    """All that `DeeplySupervised` knows of a backbone, which is an `nnx.Module`.

    Attributes:
      stage_channels: channels of the feature maps that it returns, shallow to deep.
    """

    stage_channels: tuple[int, ...]

    def __call__(self, x: Float[Array, "n h w c"], /) -> tuple[Array, ...]:
        """Return the feature maps of the stages, shallow to deep, [n, h_l, w_l, c_l]."""
        ...


class Outputs(NamedTuple):
    """What the training network returns, shallow to deep; the last logits are the network's own."""

    logits: Float[Array, "l b k"]
    beta: Float[Array, "b l"] | None


class DeeplySupervised(nnx.Module):
    """Backbone with a classifier at each tap; auxiliary parts exist only if they are used.

    `fc` is the network's own classifier. `auxiliary` (one classifier for each further tap),
    `embeddings`, `lsa` and `projections` serve training only: `predict` runs the backbone and `fc`.

    Attributes:
      taps: the supervised stages, counted from 1, shallow to deep; the last stage is among them.
      projected: the stages whose maps are projected, shallow to deep.
    """

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int,
        *,
        taps: Sequence[int] | None = None,
        dks: bool = False,
        probe: bool = False,
        lsa: Mapping | None = None,
        hints: bool = False,
        projected: Sequence[int] = (),
        projection_channels: int = 128,
        self_supervised: bool = False,
        image_shape: tuple[int, int, int] = (224, 224, 3),
        dtype=jnp.float32,
        rngs: nnx.Rngs,
    ):
        """Build the network.

        Args:
          backbone: any module with `stage_channels` that maps images [n, h, w, c] to a tuple of
            feature maps [n, h_l, w_l, stage_channels[l]], shallow to deep.
          num_classes: number of logits of each classifier.
          taps: the stages to supervise, counted from 1 (default: all).
          dks: put a DKS branch in front of each auxiliary classifier.
          probe: keep the gradients of the auxiliary classifiers off the backbone, so that they
            tell what its maps hold and change nothing of it ("without DSL" in Fig. 2).
          lsa: arguments of `LayerSelectiveAttention` (channels, kind, reduction, kernel_size), or
            of `ConstantWeights` (kind, beta); None for a network without it.
          hints: embed the maps of the auxiliary classifiers into the shape of the deepest map, for
            `losses.hint`.
          projected: stages to project, for `losses.exit_contrast` and `view_contrast`.
          projection_channels: length of their projections.
          self_supervised: project by `Expander`, and keep the gradients of all classifiers off the
            backbone.
          image_shape: (height, width, channels) of the images to train on. It sets the kernel
            sizes of the embeddings.
          dtype: precision of the feature maps. Parameters, statistics, classifiers and beta are
            float32 in any case.
          rngs: source of the initial parameters.

        Raises:
          ConfigError: the taps are not stages of the backbone or leave out the last one, DKS is
            asked of a backbone that cannot copy its stages, the images are too small, or the
            backbone returns other maps than it says.
        """
        sizes = map_sizes(backbone, image_shape)
        last = len(backbone.stage_channels)
        self.taps = tuple(sorted(set(taps))) if taps else tuple(range(1, last + 1))
        if self.taps[-1] != last or self.taps[0] < 1:
            raise ConfigError(
                f"config.model.taps = {tuple(taps or ())}: the taps are stages 1 to {last} of the "
                f"backbone, and the last one, {last}, must be among them"
            )
        self.dtype = dtype
        self.probe = probe
        self.self_supervised = self_supervised
        self.backbone = backbone
        self.fc = Classifier(backbone.stage_channels[-1], num_classes, rngs=rngs)
        if dks and not hasattr(backbone, "make_stage"):
            raise ConfigError(
                f"config.model.objective = dks or dhm: {type(backbone).__name__} has no make_stage "
                "method to copy its stages; use a residual backbone or another objective"
            )
        self.auxiliary = nnx.List(
            DKSClassifier(backbone, tap, num_classes, rngs=rngs)
            if dks
            else Classifier(backbone.stage_channels[tap - 1], num_classes, rngs=rngs)
            for tap in self.taps[:-1]
        )
        embedded, channels = self._embedded(hints, lsa)
        self.embeddings = nnx.List(
            FeatureEmbedding(
                backbone.stage_channels[tap - 1],
                channels,
                map_size=sizes[tap - 1],
                target_size=sizes[-1],
                rngs=rngs,
            )
            for tap in embedded
        )
        self.lsa = None if lsa is None else make_lsa(len(self.taps), lsa, rngs=rngs)
        self.projected = tuple(projected)
        self.projections = nnx.List(
            (Expander if self_supervised else Projection)(
                backbone.stage_channels[tap - 1], projection_channels, rngs=rngs
            )
            for tap in self.projected
        )

    def _embedded(self, hints: bool, lsa: Mapping | None) -> tuple[tuple[int, ...], int]:
        """Which stages are embedded, and into how many channels."""
        if hints:
            return self.taps[:-1], self.backbone.stage_channels[-1]
        if lsa is not None and lsa.get("kind", "fc") in ATTENTIVE_KINDS:
            return self.taps, lsa["channels"]
        return (), 0

    def __call__(self, x: Float[Array, "b h w c"]) -> Outputs:
        """Return the logits of every classifier, and beta if there is attention."""
        return self.supervise(x)[0]

    def supervise(
        self, x: Float[Array, "b h w c"]
    ) -> tuple[Outputs, Float[Array, "l2 b ..."] | None]:
        """Return the outputs, and what else the loss compares: hints or projections, if any."""
        all_maps = self.backbone(x.astype(self.dtype))
        maps = [all_maps[tap - 1] for tap in self.taps]
        heads = [*self.auxiliary, self.fc]
        seen = maps
        if self.probe or self.self_supervised:
            stopped = jax.lax.stop_gradient(maps)
            seen = stopped if self.self_supervised else [*stopped[:-1], maps[-1]]
        logits = jnp.stack([head(m) for head, m in zip(heads, seen, strict=True)])
        if self.projected:
            seen = [all_maps[tap - 1] for tap in self.projected]
            projections = [project(m) for project, m in zip(self.projections, seen, strict=True)]
            return Outputs(logits, None), jnp.stack(projections)
        if isinstance(self.lsa, ConstantWeights):
            return Outputs(logits, self.lsa(len(x))), None
        # Hints have no embedding of the deepest map: it is what the others are compared with.
        embedded = [embed(m) for embed, m in zip(self.embeddings, maps, strict=False)]
        if self.lsa is not None:
            return Outputs(logits, self.lsa(jnp.stack(embedded))), None
        return Outputs(logits, None), jnp.stack([*embedded, maps[-1]]) if embedded else None

    def predict(self, x: Float[Array, "b h w c"]) -> Float[Array, "b k"]:
        """Return the logits of the network's own classifier, at the cost of the plain network."""
        return self.fc(self.backbone(x.astype(self.dtype))[-1])


def map_sizes(backbone: Backbone, image_shape: tuple[int, int, int]) -> tuple[tuple[int, int], ...]:
    """(height, width) of the backbone's feature maps for images of a shape, without computing them.

    Raises:
      ConfigError: a map would vanish, and the smallest size of image is named; or the maps are not
        those that `stage_channels` announces.
    """
    graphdef, state = nnx.split(backbone)

    def shapes(height: int, width: int) -> list[tuple[int, ...]] | None:
        image = jax.ShapeDtypeStruct((2, height, width, image_shape[-1]), jnp.float32)
        try:
            maps = jax.eval_shape(lambda s, x: nnx.merge(graphdef, s)(x), state, image)
        except VanishedMapError:
            return None
        return [m.shape for m in maps]

    found = shapes(*image_shape[:2])
    if found is None:
        size = min(image_shape[:2])
        smallest = next((n for n in range(size + 1, 513) if shapes(n, n)), "above 512")
        raise ConfigError(
            f"config.data.image_size = {size} is too small for {type(backbone).__name__}, whose "
            f"feature maps would vanish: the smallest size is {smallest}. The zoo's backbones take "
            "smaller images with config.model.stem = small"
        )
    announced = tuple(getattr(backbone, "stage_channels", ()))
    if announced != tuple(shape[-1] for shape in found) or any(len(s) != 4 for s in found):
        raise ConfigError(
            f"{type(backbone).__name__}.stage_channels = {announced}, but it returned maps of "
            f"shapes {found}, expected one [n, h, w, c] for each"
        )
    return tuple((h, w) for _, h, w, _ in found)
