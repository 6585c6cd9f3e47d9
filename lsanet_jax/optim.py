"""Learning rates by step, and the optimizers that use them."""

import collections
from collections.abc import Sequence

import optax


def learning_rate_schedule(
    learning_rate: float,
    *,
    kind: str,
    epochs: int,
    steps_per_epoch: int,
    milestones: Sequence[float] = (),
    decay: float = 0.1,
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
    """
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
    name: str, schedule: optax.Schedule, *, weight_decay: float = 0.0, momentum: float = 0.9
) -> optax.GradientTransformation:
    """Return Adam, AdamW or SGD as in PyTorch.

    Args:
        name: "adam", "adamw" or "sgd".
        schedule: the learning rate by step.
        weight_decay: decoupled in AdamW; otherwise added to the gradient.
        momentum: of SGD; 0 for none.
    """
    if name == "adamw":
        return optax.adamw(schedule, weight_decay=weight_decay)
    tx = optax.adam(schedule)
    if name == "sgd":
        tx = optax.sgd(schedule, momentum=momentum or None)
    if weight_decay:
        tx = optax.chain(optax.add_decayed_weights(weight_decay), tx)
    return tx
