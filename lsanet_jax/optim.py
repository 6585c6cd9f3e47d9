"""Learning rates by step, and the optimizers that use them."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax


def learning_rate_schedule(
    learning_rate: float,
    *,
    kind: str,
    epochs: int,
    steps_per_epoch: int,
    milestones: Sequence[float] = (),
    decay: float = 0.1,
    warmup_epochs: float = 0.0,
) -> optax.Schedule:
    """Return the learning rate by step.

    Args:
        learning_rate: at the start.
        kind: "constant", "cosine" (to 0 at the end) or "step" (times `decay` at each milestone).
        epochs: of the whole run.
        steps_per_epoch: steps of each epoch.
        milestones: for "step", fractions of the epochs. A milestone falls after the last whole
            epoch at or before its fraction of all; after none, never.
        decay: for "step".
        warmup_epochs: over the first W = `warmup_epochs` x `steps_per_epoch` steps the rate is also
            times (step + 1) / W.
    """
    if warmup_epochs:
        after = learning_rate_schedule(
            learning_rate,
            kind=kind,
            epochs=epochs,
            steps_per_epoch=steps_per_epoch,
            milestones=milestones,
            decay=decay,
        )
        warmup = max(round(warmup_epochs * steps_per_epoch), 1)
        return lambda step: after(step) * jnp.minimum((step + 1) / warmup, 1)
    if kind == "cosine":
        return optax.cosine_decay_schedule(learning_rate, epochs * steps_per_epoch)
    if kind == "constant":
        milestones = ()
    after = [int(fraction * epochs + 1e-6) for fraction in milestones]  # .29 x 100 < 29
    counts = collections.Counter(after)  # short runs: several milestones may fall together
    return optax.piecewise_constant_schedule(
        learning_rate,
        {epoch * steps_per_epoch: decay**n for epoch, n in counts.items() if epoch},
    )


def optimizer(
    name: str,
    schedule: optax.Schedule,
    *,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    clip_norm: float = 0.0,
    accumulate: int = 1,
) -> optax.GradientTransformation:
    """Return Adam, AdamW or SGD as in PyTorch.

    Args:
        name: "adam", "adamw" or "sgd".
        schedule: the learning rate by step.
        weight_decay: decoupled in AdamW; otherwise added to the gradient.
        momentum: of SGD; 0 for none.
        clip_norm: the largest norm of all gradients together; larger ones are scaled down to it,
            after they were averaged. 0 for none.
        accumulate: steps whose gradients are averaged for one update.
    """
    every = accumulate
    rate = schedule if every == 1 else lambda count: schedule(count * every)
    if name == "adamw":
        tx = optax.adamw(rate, weight_decay=weight_decay)
    else:
        tx = optax.sgd(rate, momentum=momentum or None) if name == "sgd" else optax.adam(rate)
        if weight_decay:
            tx = optax.chain(optax.add_decayed_weights(weight_decay), tx)
    if clip_norm:
        tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
    return tx if every == 1 else optax.MultiSteps(tx, every).gradient_transformation()


def scaled(
    tx: optax.GradientTransformation, factors: Mapping[str, float]
) -> optax.GradientTransformation:
    """Multiply what an optimizer does to each parameter by a factor, as if it was its rate's.

    Args:
        tx: the optimizer.
        factors: by the names that `leaf_name` gives; 0 leaves a parameter as it is.
    """
    scale = lambda path, update: update * factors[leaf_name(path)]
    by_factors = lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates)
    return optax.chain(tx, optax.stateless(by_factors))


def hold(params: Any, factors: Mapping[str, float]) -> Any:
    """Keep gradients off the parameters whose factor is 0; see `scaled`."""
    held = lambda path, p: p if factors[leaf_name(path)] else jax.lax.stop_gradient(p)
    return jax.tree_util.tree_map_with_path(held, params)


def leaf_name(path: tuple) -> str:
    """Name a leaf by its path in a tree, such as "backbone/conv1/kernel/value"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
