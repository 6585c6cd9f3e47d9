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

References: LSANet (the paper); Lee et al., "Deeply-Supervised Nets", 2015 (DSN); Sun et al.,
"Deeply-supervised Knowledge Synergy", CVPR 2019 (DKS).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


class Terms(NamedTuple):
    """Which terms an objective adds up."""

    weighted: bool  # weighted by beta (Eq. 7) in place of final (+ auxiliary)
    auxiliary: bool
    synergy: bool


OBJECTIVES: Mapping[str, Terms] = {
    "baseline": Terms(weighted=False, auxiliary=False, synergy=False),
    "dsn": Terms(weighted=False, auxiliary=True, synergy=False),
    "dks": Terms(weighted=False, auxiliary=True, synergy=True),
    "dsn_ks": Terms(weighted=False, auxiliary=True, synergy=True),
    "dsn_lsa": Terms(weighted=True, auxiliary=False, synergy=False),
    "lsanet": Terms(weighted=True, auxiliary=False, synergy=True),
    "probe": Terms(weighted=False, auxiliary=True, synergy=False),
}

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
      labels: class indices [B], or probabilities of the classes [B, K] (mixup's); with
        `multilabel`, 0 to 1 for each label [B, K], or -1 if it is unknown.
      multilabel: binary cross entropy averaged over the labels in place of softmax cross entropy;
        unknown ones count as 0, so that each known label weighs the same in every sample.
      emphasis: of classes and samples.

    Returns:
      [L, B], not negative.
    """
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


def _softmax_terms(
    logits: Float[Array, "l b k"], labels: Float[Array, "b k"], emphasis: Emphasis
) -> Float[Array, "l b k"]:
    """The terms of each sample's cross entropy, with all of an emphasis but its offsets."""
    smoothing = emphasis.label_smoothing
    labels = (1 - smoothing) * labels + smoothing / logits.shape[-1]
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
    return jnp.sum(alpha * jnp.mean(ce[:-1], axis=1))


def weighted(ce: Float[Array, "l b"], beta: Float[Array, "b l"]) -> Float[Array, ""]:
    """Loss of all classifiers, weighted per sample by layer selective attention, L_b (Eq. 7)."""
    return jnp.mean(jnp.sum(beta.T * ce, axis=0))


def synergy(
    logits: Float[Array, "l b k"],
    mu: Float[Array, "l l"] | float = 1.0,
    *,
    multilabel: bool = False,
) -> Float[Array, ""]:
    """Pairwise knowledge matching, L_k = mean_B sum_{p != q} mu_pq KL(f_p || f_q) (Eq. 8).

    The paper prints a minus sign in front; read literally it would drive the classifiers apart, and
    the DKS authors minimise the divergence, as here. The gradient flows through both arguments.
    Computed from log-probabilities, hence finite for any finite logits.

    Args:
      logits: [L, B, K].
      mu: mu_pq, one for all pairs or a matrix [L, L] (row p, column q; the diagonal plays no role).
      multilabel: the Bernoulli divergence of each label, averaged over the labels.

    Returns:
      A scalar, non-negative if mu is; 0 for a single classifier.
    """
    num = logits.shape[0]
    mu = jnp.broadcast_to(jnp.asarray(mu, logits.dtype), (num, num)) * (1 - jnp.eye(num))
    if multilabel:
        log_f = jnp.stack([jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)])
        scale = 1 / logits.shape[-1]
    else:
        log_f = jax.nn.log_softmax(logits)[None]
        scale = 1.0
    ratio = log_f[:, :, None] - log_f[:, None]  # log(f_p / f_q), [1 or 2, L, L, B, K]
    divergence = jnp.einsum("opbk,opqbk->pqb", jnp.exp(log_f), ratio) * scale
    return jnp.sum(mu * jnp.mean(divergence, axis=-1)).astype(logits.dtype)


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a network is trained for: a key of `OBJECTIVES`, and how its terms are weighted.

    Attributes:
      name: a key of `OBJECTIVES`.
      taps: the stages of the classifiers, shallow to deep; they name the parts of the loss.
      multilabel: whether each of the K labels is a yes-or-no question of its own.
      alpha: see `auxiliary`; one weight, or one for each auxiliary classifier.
      mu: see `synergy`.
      emphasis: see `cross_entropy`. Synergy compares what the classifiers say without it.
    """

    name: str
    taps: tuple[int, ...] = ()
    multilabel: bool = False
    alpha: tuple[float, ...] = (1.0,)
    mu: float = 1.0
    emphasis: Emphasis = PLAIN

    @property
    def terms(self) -> Terms:
        """The terms that the loss adds up."""
        return OBJECTIVES[self.name]

    @property
    def stage_names(self) -> tuple[str, ...]:
        """A name for each classifier, such as "stage4", shallow to deep."""
        return tuple(f"stage{tap}" for tap in self.taps)

    @property
    def part_names(self) -> list[str]:
        """Names of what a training step reports; see `steps.TrainStep`."""
        terms = self.terms
        names = ["loss", "weighted"] if terms.weighted else ["loss", "final"]
        names += ["auxiliary"] * terms.auxiliary + ["synergy"] * terms.synergy
        names += [f"{score}_{name}" for score in ("ce", "acc") for name in self.stage_names]
        return names + [f"beta_{name}" for name in self.stage_names] * terms.weighted

    def __call__(
        self,
        logits: Float[Array, "l b k"],
        labels: Labels,
        beta: Float[Array, "b l"] | None = None,
    ) -> tuple[Float[Array, ""], dict[str, Array]]:
        """Compute the loss and the parts that it is made of.

        Args:
          logits: [L, B, K].
          labels: see `cross_entropy`.
          beta: [B, L]; needed by dsn_lsa and lsanet.

        Returns:
          The loss, and its parts: `final` and `auxiliary`, or `weighted`; `synergy`; and `ce` [L],
          the mean cross entropy of each classifier.

        Raises:
          ValueError: an objective that weights by beta was given none.
        """
        ce = cross_entropy(logits, labels, multilabel=self.multilabel, emphasis=self.emphasis)
        parts = {}
        if self.terms.weighted:
            if beta is None:
                raise ValueError(
                    f"objective {self.name!r} weights the classifiers by beta, but beta is None"
                )
            parts["weighted"] = weighted(ce, beta)
        else:
            parts["final"] = final(ce)
            if self.terms.auxiliary:
                parts["auxiliary"] = auxiliary(ce, jnp.asarray(self.alpha))
        if self.terms.synergy:
            parts["synergy"] = synergy(logits, self.mu, multilabel=self.multilabel)
        loss = functools.reduce(jnp.add, parts.values())
        return loss, parts | {"ce": jnp.mean(ce, axis=1)}
