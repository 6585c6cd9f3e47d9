"""The objectives of the paper as pure functions of arrays.

Notation, shallow to deep: L classifiers, batch B, K classes. `logits` [L, B, K], the last
classifier is the network's own; `ce` [L, B] the cross entropy of each classifier on each sample;
`beta` [B, L] the weights that layer selective attention gives, a distribution over the classifiers
per sample.

| objective | loss (mean over the batch)                     | paper           |
|-----------|------------------------------------------------|-----------------|
| baseline  | `final`                                        | Eq. 1, 2        |
| dsn       | `final` + `auxiliary`                          | Eq. 3, 4        |
| dsn_ks    | `final` + `auxiliary` + `synergy`              | Table 3, DSN+KS |
| dks       | the same, on the DKS network                   | DKS, Eq. 3      |
| dsn_lsa   | `weighted`                                     | Eq. 7           |
| lsanet    | `weighted` + `synergy`                         | Eq. 5           |
| probe     | dsn's, but `auxiliary` moves the auxiliary     | Fig. 2, without |
|           | classifiers only: see `models.supervised`      | DSL             |

Beyond the paper, to compare with it; the functions say where they depart from their sources:

| objective        | loss (mean over the batch)                      | source             |
|------------------|-------------------------------------------------|--------------------|
| dsn_halving      | `halving`                                       | nnU-Net            |
| dhm              | `final` + `auxiliary` + `mimicking`, on the DKS | Li and Chen, 2020  |
|                  | network                                         |                    |
| ensemble_distill | `final` + `auxiliary` + `ensemble`              | Lee and Lee, 2021  |
| byot             | `final` + `auxiliary` + `teacher` + `hint`      | Zhang et al., 2019 |
| selfcon          | `final` + `exit_contrast`                       | Bae et al., 2023   |
| contrastive      | `final` + `view_contrast`                       | Zhang et al., 2022 |

To pretrain without labels (Bardes et al., 2022), vicreg adds up `invariance`, `variance` and
`covariance`; its `final` and `auxiliary` train the classifiers, and move nothing but them.

References: LSANet (the paper); Lee et al., "Deeply-Supervised Nets", 2015 (DSN); Sun et al.,
"Deeply-supervised Knowledge Synergy", CVPR 2019 (DKS).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from lsanet_jax.errors import ConfigError, near_matches

OBJECTIVES: Mapping[str, tuple[str, ...]] = {
    "baseline": ("final",),
    "dsn": ("final", "auxiliary"),
    "dks": ("final", "auxiliary", "synergy"),
    "dsn_ks": ("final", "auxiliary", "synergy"),
    "dsn_lsa": ("weighted",),
    "lsanet": ("weighted", "synergy"),
    "probe": ("final", "auxiliary"),
    "dsn_halving": ("halving",),
    "dhm": ("final", "auxiliary", "mimicking"),
    "ensemble_distill": ("final", "auxiliary", "ensemble"),
    "byot": ("final", "auxiliary", "teacher", "hint"),
    "selfcon": ("final", "exit_contrast"),
    "contrastive": ("final", "view_contrast"),
    "vicreg": ("final", "auxiliary", "invariance", "variance", "covariance"),
}
"""The terms that each objective adds up, by the names of the functions below."""

Labels = Int[Array, " b"] | Float[Array, "b k"] | Int[Array, "b k"]


class Emphasis(NamedTuple):
    """What the cross entropy weighs more or less; by default all classes and samples alike.

    Attributes:
      offsets: [K], added to the logits while training, tau times the logarithm of each class's
        prior (Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, Eq. 10).
      class_weights: [K], of each class's term; of multi-label tasks, of each label's positives.
      focal_gamma: each term is multiplied by (1 - p)^gamma, p the probability that it is about
        (Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, Eq. 4).
      label_smoothing: this part of each label is spread evenly over the classes; of multi-label
        tasks over 0 and 1.
    """

    offsets: tuple[float, ...] = ()
    class_weights: tuple[float, ...] = ()
    focal_gamma: float = 0.0
    label_smoothing: float = 0.0


PLAIN = Emphasis()


def cross_entropy(
    logits: Float[Array, "l b k"],
    labels: Labels,
    *,
    multilabel: bool,
    emphasis: Emphasis = PLAIN,
) -> Float[Array, "l b"]:
    """Cross entropy of every classifier on every sample, in nats (Eq. 2 before its mean).

    Args:
      logits: [L, B, K].
      labels: class indices [B], or -1 if it is unknown, or probabilities of the classes [B, K]
        (mixup's); with `multilabel`, 0 to 1 for each label [B, K], or -1 if it is unknown.
      multilabel: binary cross entropy averaged over the labels in place of softmax cross entropy;
        unknown ones count as 0, so that each known label weighs the same in every sample.
      emphasis: of classes and samples.

    Returns:
      [L, B], not negative; 0 for a sample whose label is unknown. So it is, without an error, for a
      class index of K or more, which a compiled function cannot refuse: `Dataset` does.

    Raises:
      ValueError: the labels have another shape.
    """
    shapes = (logits.shape[1:],) if multilabel else (logits.shape[1:], logits.shape[1:2])
    _check_shape("labels", labels, *shapes)
    if emphasis.offsets:
        logits = logits + jnp.asarray(emphasis.offsets, logits.dtype)
    plain = emphasis._replace(offsets=()) == PLAIN
    if multilabel:
        targets = jnp.broadcast_to(labels.astype(logits.dtype), logits.shape)
        entropy = optax.sigmoid_binary_cross_entropy
        if not plain:
            entropy = functools.partial(_binary_terms, emphasis=emphasis)
        ce = entropy(logits, jnp.maximum(targets, 0))
        return jnp.mean(jnp.where(targets < 0, 0, ce), axis=-1)
    if labels.ndim == 1:
        # Picking the label's logit by its index has a scatter for a gradient: not deterministic on
        # GPU unless XLA sorts.
        labels = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    if plain:
        return optax.softmax_cross_entropy(logits, jnp.broadcast_to(labels, logits.shape))
    return jnp.sum(_softmax_terms(logits, labels, emphasis), axis=-1)


def _check_shape(name: str, array: Any, *shapes: tuple[int, ...]) -> None:
    """Raises ValueError for a shape that would be broadcast to one of these, or fits none."""
    if jnp.shape(array) not in shapes:
        expected = " or ".join(dict.fromkeys(map(str, shapes)))
        raise ValueError(f"{name} of shape {jnp.shape(array)}, expected {expected}")


def _softmax_terms(
    logits: Float[Array, "l b k"], labels: Float[Array, "b k"], emphasis: Emphasis
) -> Float[Array, "l b k"]:
    """The terms of each sample's cross entropy, with all of an emphasis but its offsets."""
    smoothing = emphasis.label_smoothing
    known = jnp.sum(labels, axis=-1, keepdims=True)  # 0 of an image without a label, otherwise 1
    labels = (1 - smoothing) * labels + smoothing * known / logits.shape[-1]
    log_p = jax.nn.log_softmax(logits)
    terms = -labels * log_p * jnp.asarray(emphasis.class_weights or 1.0, logits.dtype)
    if emphasis.focal_gamma:  # At p = 1 a power below 1 has no gradient.
        rest = jnp.maximum(-jnp.expm1(log_p), jnp.finfo(logits.dtype).tiny)
        terms = terms * rest**emphasis.focal_gamma
    return terms


def _binary_terms(
    logits: Float[Array, "l b k"], labels: Float[Array, "l b k"], emphasis: Emphasis
) -> Float[Array, "l b k"]:
    """The binary cross entropy of each label, with all of an emphasis but its offsets."""
    smoothing, gamma = emphasis.label_smoothing, emphasis.focal_gamma
    labels = (1 - smoothing) * labels + smoothing / 2
    log_p, log_q = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    positive = labels * log_p * jnp.asarray(emphasis.class_weights or 1.0, logits.dtype)
    negative = (1 - labels) * log_q
    return -(positive * jnp.exp(gamma * log_q) + negative * jnp.exp(gamma * log_p))


def final(ce: Float[Array, "l b"]) -> Float[Array, ""]:
    """Loss of the network's own classifier, L_M (Eq. 2)."""
    return jnp.mean(ce[-1])


def auxiliary(
    ce: Float[Array, "l b"], alpha: Float[Array, " 1"] | Float[Array, " l-1"] | float = 1.0
) -> Float[Array, ""]:
    """Sum of the auxiliary classifiers' losses weighted by alpha_l, L_m (Eq. 4).

    Args:
      ce: [L, B].
      alpha: one weight for all auxiliary classifiers, or one for each [L - 1].

    Returns:
      A scalar; 0 without auxiliary classifiers.
    """
    _check_shape("alpha", alpha, (), (1,), (len(ce) - 1,))
    return jnp.sum(alpha * jnp.mean(ce[:-1], axis=1))


def weighted(ce: Float[Array, "l b"], beta: Float[Array, "b l"]) -> Float[Array, ""]:
    """Loss of all classifiers, weighted per sample by layer selective attention, L_b (Eq. 7).

    Args:
      ce: [L, B], of `cross_entropy`.
      beta: [B, L], of the same classifiers; each row is not negative and sums to 1.

    Returns:
      A scalar, the mean over the batch.
    """
    _check_shape("beta", beta, ce.shape[::-1])
    return jnp.mean(jnp.sum(beta.T * ce, axis=0))


def synergy(
    logits: Float[Array, "l b k"],
    mu: Float[Array, "l l"] | Float[Array, ""] | float = 1.0,
    *,
    multilabel: bool = False,
) -> Float[Array, ""]:
    """Pairwise knowledge matching, L_k = mean_B sum_{p != q} mu_pq KL(f_p || f_q) (Eq. 8).

    The paper prints a minus sign in front; read literally it would drive the classifiers apart, and
    the DKS authors minimise the divergence, as here. The gradient flows through both arguments, as
    the equation reads; the DKS authors' released code holds the target fixed, as `mimicking` does.
    Computed from log-probabilities, hence finite for any finite logits.

    Args:
      logits: [L, B, K].
      mu: mu_pq, one for all pairs or a matrix [L, L] (row p, column q; the diagonal plays no role).
      multilabel: the Bernoulli divergence of each label, averaged over the labels.

    Returns:
      A scalar, non-negative if mu is; 0 for a single classifier.
    """
    log_f, scale = _log_probabilities(logits, multilabel)
    return _matching(log_f, log_f, mu, scale).astype(logits.dtype)


def halving(ce: Float[Array, "l b"]) -> Float[Array, ""]:
    """DSN with weights that halve from deep to shallow: sum_l w_l CE_l, w_l ~ 2^l, sum_l w_l = 1.

    Reference: Isensee et al., "nnU-Net", Nature Methods 2021, which weights the resolutions of a
    segmentation network so.
    """
    weights = 2.0 ** np.arange(len(ce))
    return jnp.sum(jnp.asarray(weights / weights.sum(), ce.dtype) * jnp.mean(ce, axis=1))


def mimicking(
    logits: Float[Array, "l b k"],
    mu: Float[Array, ""] | float = 1.0,
    *,
    multilabel: bool = False,
) -> Float[Array, ""]:
    """Pairwise mimicking, mu mean_B sum_{p != q} KL(sg f_q || f_p), sg = stop gradient.

    `synergy` with each target held fixed: a classifier moves towards the others, which do not move
    to meet it. This is what the authors' released training code minimises, and DKS's too. The
    branches are those of DKS here, while theirs widen the last stage of one of them, so that dhm
    and dks differ in this term alone; nor do we draw at random which pairs count.

    Args:
      logits: [L, B, K].
      mu: the weight of all pairs.
      multilabel: the Bernoulli divergence of each label, averaged over the labels.

    Returns:
      A scalar, not negative; its value is that of `synergy`, its gradient is not.

    Reference: Li and Chen, "Dynamic Hierarchical Mimicking Towards Consistent Optimization
    Objectives", CVPR 2020, https://arxiv.org/abs/2003.10739.
    """
    log_f, scale = _log_probabilities(logits, multilabel)
    return _matching(jax.lax.stop_gradient(log_f), log_f, mu, scale).astype(logits.dtype)


def ensemble(
    logits: Float[Array, "l b k"], temperature: float = 3.0, *, multilabel: bool = False
) -> Float[Array, ""]:
    """Distillation of all classifiers' mean, T^2 mean_B sum_l KL(sg mean_m p_m(T) || p_l(T)).

    p_l(T) = softmax(logits_l / T). The network's own classifier is a teacher and a pupil as the
    others are. The authors' released code averages the logits, not the probabilities, and adds a
    distance between feature maps, which is left out; its distillation by this divergence, with T =
    3, is an option beside a squared distance of logits, and its exits have convolutions.

    Args:
      logits: [L, B, K].
      temperature: T.
      multilabel: the Bernoulli divergence of each label, averaged over the labels.

    Returns:
      A scalar, not negative.

    Reference: Lee and Lee, "Students are the Best Teacher: Exit-Ensemble Distillation with
    Multi-Exits", 2021, https://arxiv.org/abs/2104.00299.
    """
    log_f, scale = _log_probabilities(logits / temperature, multilabel)
    mean = jax.nn.logsumexp(log_f, axis=1) - math.log(len(logits))
    return _distillation(mean, log_f, temperature, scale).astype(logits.dtype)


def teacher(
    logits: Float[Array, "l b k"], temperature: float = 3.0, *, multilabel: bool = False
) -> Float[Array, ""]:
    """Distillation of the deepest classifier, T^2 mean_B sum_{l<L} KL(sg p_L(T) || p_l(T)).

    The source blends it with the cross entropy, (1 - a) CE + a KL; here it is added, with a weight
    of its own, as the other objectives do.

    Args:
      logits: [L, B, K].
      temperature: T, of p_l(T) = softmax(logits_l / T).
      multilabel: the Bernoulli divergence of each label, averaged over the labels.

    Returns:
      A scalar, not negative; 0 for a single classifier.

    Reference: Zhang et al., "Be Your Own Teacher", ICCV 2019, https://arxiv.org/abs/1905.08094.
    """
    log_f, scale = _log_probabilities(logits / temperature, multilabel)
    return _distillation(log_f[:, -1], log_f[:, :-1], temperature, scale).astype(logits.dtype)


def hint(features: Float[Array, "l b h w c"]) -> Float[Array, ""]:
    """Distance of the shallow maps to the deepest, sum_{l<L} mean (F_l - sg F_L)^2.

    Be Your Own Teacher's L2 loss (see `teacher`), as a mean over samples, positions and channels
    in place of their sum; its bottlenecks are LSANet's embeddings here, and the classifiers sit on
    the stages' maps, as DSN's do, not behind the bottlenecks.

    Args:
      features: [L, B, h, w, C], the stages' maps embedded into the shape of the deepest one, and
        this one.
    """
    wide = features.astype(jnp.promote_types(features.dtype, jnp.float32))
    distance = jnp.square(wide[:-1] - jax.lax.stop_gradient(wide[-1]))
    return jnp.sum(jnp.mean(distance, axis=(1, 2, 3, 4)))


def contrast(
    features: Float[Array, "v b c"], labels: Int[Array, " b"], temperature: float = 0.07
) -> Float[Array, ""]:
    """Supervised contrast between the V features of each of B samples.

    mean_i -1/|P(i)| sum_{p in P(i)} log( exp(z_i z_p / T) / sum_{a != i} exp(z_i z_a / T) ), where
    i runs over all V B features, and P(i) holds those of the same class but z_i itself.

    Args:
      features: [V, B, C] of unit length, V >= 2, so that none is without a positive.
      labels: class indices [B].
      temperature: T.

    Reference: Khosla et al., "Supervised Contrastive Learning", NeurIPS 2020, Eq. 2 (L_out),
    https://arxiv.org/abs/2004.11362.
    """
    views, batch, _ = features.shape
    z = features.reshape(views * batch, -1)
    others = ~jnp.eye(len(z), dtype=bool)
    similarity = z @ z.T / temperature
    total = jax.nn.logsumexp(similarity, axis=1, keepdims=True, where=others)
    classes = jnp.tile(labels, views)
    positive = (classes[:, None] == classes) & others
    attraction = jnp.sum(jnp.where(positive, similarity - total, 0), axis=1)
    return -jnp.mean(attraction / jnp.sum(positive, axis=1))


def exit_contrast(
    features: Float[Array, "l b c"], labels: Int[Array, " b"], temperature: float = 0.07
) -> Float[Array, ""]:
    """`contrast` between the projections of all stages of one image: SelfCon-S.

    The source trains the backbone by this alone, and a linear classifier afterwards; here it is
    added to the classifier's loss. It has one exit beside the last, here each tap is one.

    Args:
      features: [L, B, C] of unit length, the projections of all stages.
      labels: class indices [B].
      temperature: see `contrast`.

    Reference: Bae et al., "Self-Contrastive Learning", AAAI 2023, https://arxiv.org/abs/2106.15499.
    """
    return contrast(features, labels, temperature)


def view_contrast(
    features: Float[Array, "l b2 c"], labels: Int[Array, " b"], temperature: float = 0.07
) -> Float[Array, ""]:
    """Sum over the shallow stages of the `contrast` between two views of each image.

    The source's projections are separable convolutions down to the deepest map's size; ours are
    `models.projection`'s. As there, the classifier is trained on the first views.

    Args:
      features: [L - 1, 2 B, C], those of the first views of all images, then of the second views.
      labels: class indices [B].
      temperature: see `contrast`.

    Reference: Zhang et al., "Contrastive Deep Supervision", ECCV 2022,
    https://arxiv.org/abs/2207.05306.
    """
    views = features.reshape(len(features), 2, len(labels), -1)
    return jnp.sum(jax.vmap(lambda stage: contrast(stage, labels, temperature))(views))


def invariance(z: Float[Array, "l 2 b c"]) -> Float[Array, ""]:
    """Distance between the projections of two views, sum_l mean_{b,c} (z_1 - z_2)^2.

    Args:
      z: [L, 2, B, C], of each stage, for both views of each image; not scaled to unit length.

    Reference: Bardes et al., "VICReg: Variance-Invariance-Covariance Regularization", ICLR 2022,
    https://arxiv.org/abs/2105.04906, as its released code has Eq. 1, 4, 5 and 6: the mean over the
    channels too, and of `variance` that over both views. The loss is taken at each tap here, with
    projections of one hidden layer.
    """
    return jnp.sum(jnp.mean(jnp.square(z[:, 0] - z[:, 1]), axis=(1, 2)))


def variance(z: Float[Array, "l 2 b c"]) -> Float[Array, ""]:
    """What keeps projections apart, sum_l mean_{views,c} max(0, 1 - std_b(z)); VICReg, Eq. 1."""
    return jnp.sum(jnp.mean(jax.nn.relu(1 - _spread(z)), axis=(1, 2)))


def covariance(z: Float[Array, "l 2 b c"]) -> Float[Array, ""]:
    """What keeps channels apart, sum_{l,views} sum_{i != j} cov_b(z)_ij^2 / C; VICReg, Eq. 4."""
    _, _, batch, channels = z.shape
    centred = z - jnp.mean(z, axis=2, keepdims=True)
    cov = jnp.einsum("lvbi,lvbj->lvij", centred, centred) / (batch - 1)
    return jnp.sum(jnp.square(cov) * (1 - jnp.eye(channels))) / channels


def smallest_spread(z: Float[Array, "l 2 b c"]) -> Float[Array, ""]:
    """The smallest over the stages of the mean standard deviation: next to 0 after a collapse."""
    return jnp.min(jnp.mean(_spread(z), axis=(1, 2)))


def _spread(z: Float[Array, "l 2 b c"]) -> Float[Array, "l 2 c"]:
    return jnp.sqrt(jnp.var(z, axis=2, ddof=1) + 1e-4)


def _log_probabilities(
    logits: Float[Array, "l b k"], multilabel: bool
) -> tuple[Float[Array, "o l b k"], float]:
    """Log f for `o` = 1 outcome of each class, or 2 of each label, and 1 over the questions."""
    if multilabel:
        log_f = jnp.stack([jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)])
        return log_f, 1 / logits.shape[-1]
    return jax.nn.log_softmax(logits)[None], 1.0


def _matching(
    log_f: Float[Array, "o l b k"],
    log_g: Float[Array, "o l b k"],
    mu: Float[Array, "l l"] | Float[Array, ""] | float,
    scale: float,
) -> Float[Array, ""]:
    """mean_B sum_{p != q} mu_pq KL(f_p || g_q)."""
    num = log_f.shape[1]
    mu = jnp.broadcast_to(jnp.asarray(mu, log_f.dtype), (num, num)) * (1 - jnp.eye(num))
    ratio = log_f[:, :, None] - log_g[:, None]  # log(f_p / g_q), [o, L, L, B, K]
    divergence = jnp.einsum("opbk,opqbk->pqb", jnp.exp(log_f), ratio) * scale
    return jnp.sum(mu * jnp.mean(divergence, axis=-1))


def _distillation(
    log_target: Float[Array, "o b k"],
    log_f: Float[Array, "o l b k"],
    temperature: float,
    scale: float,
) -> Float[Array, ""]:
    """T^2 mean_B sum_l KL(sg target || f_l)."""
    log_target = jax.lax.stop_gradient(log_target)[:, None]
    divergence = jnp.sum(jnp.exp(log_target) * (log_target - log_f), axis=(0, 3)) * scale
    return temperature**2 * jnp.sum(jnp.mean(divergence, axis=-1))


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a network is trained for: a key of `OBJECTIVES`, and how its terms are weighted.

    Attributes:
      name: a key of `OBJECTIVES`.
      taps: the stages of the classifiers, shallow to deep; they name the parts of the loss.
      multilabel: whether each of the K labels is a yes-or-no question of its own.
      alpha: see `auxiliary`; one weight, or one for each auxiliary classifier.
      mu: see `synergy` and `mimicking`.
      mu_warmup_steps: mu grows in proportion to the step from 0 until this one; 0: it is constant.
      temperature: of `ensemble` and `teacher`.
      distill_weight: of `ensemble` and `teacher`.
      hint_weight: of `hint`.
      contrast_weight: of `exit_contrast` and `view_contrast`.
      contrast_temperature: see `contrast`.
      emphasis: see `cross_entropy`. Synergy compares what the classifiers say without it.
    """

    name: str
    taps: tuple[int, ...] = ()
    multilabel: bool = False
    alpha: tuple[float, ...] = (1.0,)
    mu: float = 1.0
    mu_warmup_steps: int = 0
    temperature: float = 3.0
    distill_weight: float = 0.1
    hint_weight: float = 0.03
    contrast_weight: float = 0.1
    contrast_temperature: float = 0.07
    emphasis: Emphasis = PLAIN

    def __post_init__(self):
        """Checks the name; raises ConfigError."""
        if self.name not in OBJECTIVES:
            near = near_matches(self.name, OBJECTIVES)
            raise ConfigError(
                f"objective is {self.name!r}, expected one of {', '.join(OBJECTIVES)}{near}"
            )

    @property
    def terms(self) -> tuple[str, ...]:
        """The terms that the loss adds up."""
        return OBJECTIVES[self.name]

    @property
    def self_supervised(self) -> bool:
        """Whether it trains the backbone without labels, by two views of each image."""
        return "invariance" in self.terms

    @property
    def stage_names(self) -> tuple[str, ...]:
        """A name for each classifier, such as "stage4", shallow to deep."""
        return tuple(f"stage{tap}" for tap in self.taps)

    @property
    def part_names(self) -> list[str]:
        """Names of what a training step reports; see `steps.TrainStep`."""
        names = ["loss", *self.terms] + ["spread", "labelled"] * self.self_supervised
        names += [f"{score}_{name}" for score in ("ce", "acc") for name in self.stage_names]
        return names + [f"beta_{name}" for name in self.stage_names] * ("weighted" in self.terms)

    def __call__(
        self,
        logits: Float[Array, "l b k"],
        labels: Labels,
        beta: Float[Array, "b l"] | None = None,
        features: Float[Array, "l2 b2 ..."] | None = None,
        step: Int[Array, ""] | int = 0,
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Compute the loss and the parts that it is made of.

        Args:
          logits: [L, B, K].
          labels: see `cross_entropy`.
          beta: [B, L]; needed by dsn_lsa and lsanet.
          features: needed by byot, selfcon, contrastive and vicreg: see `hint`, `exit_contrast`,
            `view_contrast` and `invariance`; of two views, first those of all first views.
          step: steps done before; of use with `mu_warmup_steps`.

        Returns:
          The loss, and its parts: the terms that `OBJECTIVES` names, each with its weight, and
          `ce` [L], the mean cross entropy of each classifier, with its emphasis; of vicreg also
          `spread`, the `smallest_spread`, and `labelled`, the share of known labels.

        Raises:
          ValueError: the objective needs beta or features and was given none.
        """
        ce = cross_entropy(logits, labels, multilabel=self.multilabel, emphasis=self.emphasis)
        mu = self.mu
        if self.mu_warmup_steps:
            mu = mu * jnp.minimum(step / self.mu_warmup_steps, 1).astype(logits.dtype)
        given = functools.partial(self._given, beta=beta, features=features)
        kind = {"multilabel": self.multilabel}
        contrasted = lambda: (given("features"), labels, self.contrast_temperature)
        views = lambda: given("features").reshape(len(given("features")), 2, len(labels), -1)
        compute = {
            "final": lambda: final(ce),
            "auxiliary": lambda: auxiliary(ce, jnp.asarray(self.alpha)),
            "weighted": lambda: weighted(ce, given("beta")),
            "synergy": lambda: synergy(logits, mu, **kind),
            "halving": lambda: halving(ce),
            "mimicking": lambda: mimicking(logits, mu, **kind),
            "ensemble": lambda: self.distill_weight * ensemble(logits, self.temperature, **kind),
            "teacher": lambda: self.distill_weight * teacher(logits, self.temperature, **kind),
            "hint": lambda: self.hint_weight * hint(given("features")),
            "exit_contrast": lambda: self.contrast_weight * exit_contrast(*contrasted()),
            "view_contrast": lambda: self.contrast_weight * view_contrast(*contrasted()),
            "invariance": lambda: 25 * invariance(views()),  # the weights are VICReg's
            "variance": lambda: 25 * variance(views()),
            "covariance": lambda: covariance(views()),
        }
        parts = {term: compute[term]() for term in self.terms}
        loss = functools.reduce(jnp.add, parts.values())
        if self.self_supervised:
            parts["spread"] = smallest_spread(views())
            parts["labelled"] = jnp.mean(labels >= 0)
        return loss, parts | {"ce": jnp.mean(ce, axis=1)}

    def of_labelled(self, means: Mapping[str, float]) -> dict[str, float]:
        """Turn means of parts over all images, some without a label, into what they are to tell.

        Cross entropy and accuracy become those of the known labels; nan if there are none.
        """
        share = means.get("labelled", 1.0)
        own = [f"{score}_{name}" for score in ("ce", "acc") for name in self.stage_names]
        return dict(means) | {name: means[name] / share if share else math.nan for name in own}

    def _given(self, needed: str, **given: Array | None) -> Array:
        """Return one of the arguments, which a term needs."""
        value = given[needed]
        if value is None:
            raise ValueError(f"objective {self.name!r} needs {needed}, but {needed} is None")
        return value
