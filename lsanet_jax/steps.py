"""The training and evaluation steps: pure functions, compiled for a mesh of devices.

The mesh has one axis, "data". Batches (of images, or of indices into images that every device holds)
are split over it, everything else is replicated. The losses and batch statistics are means over the global batch,
so XLA sums gradients and statistics over the devices.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8

from lsanet_jax import losses
from lsanet_jax.errors import ConfigError
from lsanet_jax.models import formulation


class TrainState(NamedTuple):
    """All that changes during training, and all that a checkpoint holds."""

    step: Int[Array, ""]  # steps done
    params: nnx.State
    batch_stats: nnx.State
    opt_state: optax.OptState


Prepare = Callable[[UInt8[Array, "b h w c"]], Float[Array, "b s s c2"]]
"""Turns stored images into what the network sees."""

Augment = Callable[
    [Int[Array, ""], UInt8[Array, "b h w c"], Array], tuple[Float[Array, "b s s c2"], Array]
]
"""Turns a step's number, stored images and labels into what the network sees and is to say."""


def init(
    create: Callable[[nnx.Rngs], nnx.Module], tx: optax.GradientTransformation, key, mesh: Mesh
) -> tuple[nnx.GraphDef, TrainState]:
    """Create the model and its first state, replicated over the mesh.

    Args:
      create: builds the model from its source of random numbers.
      tx: the optimizer.
      key: all initial parameters follow from it.
      mesh: the devices.

    Returns:
      The model's structure in training mode, and the state at step 0.

    Raises:
      ConfigError: the model has variables that are no `nnx.Param` or `nnx.BatchStat`.
    """
    # Not under one jit: a program that draws every parameter takes XLA most of a minute on CPU.
    model = create(nnx.Rngs(key))
    model.train()
    graphdef, params, batch_stats, others = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    for path, variable in nnx.to_flat_state(others):
        where = ".".join(map(str, path))
        raise ConfigError(
            f"the network has a {type(variable).__name__} at {where}, expected parameters (Param) "
            "and batch statistics (BatchStat) only; Dropout, for one, has others"
        )

    def start(params, batch_stats):
        return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, tx.init(params))

    state = jax.jit(start, out_shardings=NamedSharding(mesh, PartitionSpec()))(params, batch_stats)
    return graphdef, state


def part_names(objective: str, stage_names: tuple[str, ...]) -> list[str]:
    """Names of what `train_step` reports for each step."""
    terms = losses.OBJECTIVES[objective]
    names = ["loss", "weighted"] if terms.weighted else ["loss", "final"]
    names += ["auxiliary"] * terms.auxiliary + ["synergy"] * terms.synergy
    names += [f"{score}_{name}" for score in ("ce", "acc") for name in stage_names]
    return names + [f"beta_{name}" for name in stage_names] * terms.weighted


def training_accuracy(
    logits: Float[Array, "l b k"], labels: losses.Labels, *, multilabel: bool
) -> Float[Array, " l"]:
    """Fraction of a batch that each classifier gets right, in [0, 1]; see `losses.cross_entropy`.

    Of labels that are probabilities (mixup's) the most probable class counts; with `multilabel`, it
    is the mean over labels, each predicted and taken as true above 1/2.
    """
    if multilabel:
        return jnp.mean((logits > 0) == (labels > 0.5), axis=(1, 2))
    truth = jnp.argmax(labels, axis=-1) if labels.ndim == 2 else labels
    return jnp.mean(jnp.argmax(logits, axis=-1) == truth, axis=1)


def make_train_step(
    graphdef: nnx.GraphDef,
    tx: optax.GradientTransformation,
    prepare: Prepare,
    mesh: Mesh,
    *,
    objective: str,
    stage_names: tuple[str, ...],
    multilabel: bool = False,
    alpha: tuple[float, ...] = (1.0,),
    mu: float = 1.0,
    augment: Augment | None = None,
    skip_nonfinite: bool = False,
    resident: bool = True,
):
    """Build the compiled training step.

    Args:
      graphdef: the model's structure, from `init`.
      tx: the optimizer.
      prepare: applied to the uint8 images of the batch.
      mesh: the devices.
      objective: a key of `losses.OBJECTIVES`.
      stage_names: a name for each classifier, shallow to deep.
      multilabel: see `losses.objective`.
      alpha: see `losses.auxiliary`; one weight, or one for each auxiliary classifier.
      mu: see `losses.synergy`.
      augment: takes the place of `prepare`, and gets the number of steps done before and the labels
        too; its result must follow from these.
      skip_nonfinite: leave state and means as they are, save for the number of the step, where the
        loss or a gradient is not finite; a further part, `skipped`, is 1 then, else 0.
      resident: whether images and labels are those of the whole split, or of the batches only.

    Returns:
      `train_step(state, means, images, labels, indices) -> (state, means, parts)`. `indices` [n, B]
      are the batches of n steps, done in one program; unless `resident` there are none, and `images`
      [n, B, h, w, c] and `labels` [n, B, ...] are the batches. `means` is a `clu.metrics.Collection`
      that takes up the parts; `state` and `means` are donated. `parts` maps names to [n] values:
      those of `part_names`: the loss, its terms, and of each classifier the mean cross entropy, the
      accuracy in training mode and the mean beta.
    """
    replicated = NamedSharding(mesh, PartitionSpec())
    batches = NamedSharding(mesh, PartitionSpec(None, "data"))
    data_shardings = (replicated, replicated, batches) if resident else (batches, batches)

    def loss_fn(params, batch_stats, x, labels):
        model = nnx.merge(graphdef, params, batch_stats, copy=True)
        logits, beta = model(x)
        loss, parts = losses.objective(
            objective, logits, labels, beta, multilabel=multilabel, alpha=jnp.asarray(alpha), mu=mu
        )
        ce = parts.pop("ce")
        parts = {"loss": loss, **parts}
        parts |= {f"ce_{name}": ce[i] for i, name in enumerate(stage_names)}
        acc = training_accuracy(logits, labels, multilabel=multilabel)
        parts |= {f"acc_{name}": acc[i] for i, name in enumerate(stage_names)}
        if beta is not None:
            parts |= {f"beta_{name}": jnp.mean(beta[:, i]) for i, name in enumerate(stage_names)}
        return loss, (parts, nnx.state(model, nnx.BatchStat))

    def one_step(state, means, x, targets):
        if augment is None:
            x = prepare(x)
        else:
            x, targets = augment(state.step, x, targets)
        grads, (parts, batch_stats) = jax.grad(loss_fn, has_aux=True)(
            state.params, state.batch_stats, x, targets
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        new_state = TrainState(state.step + 1, params, batch_stats, opt_state)
        new_means = means.merge(means.single_from_model_output(**parts))
        if not skip_nonfinite:
            return new_state, new_means, parts

        finite = [jnp.isfinite(x).all() for x in jax.tree.leaves((parts["loss"], grads))]
        good = jnp.all(jnp.stack(finite))
        choose = lambda new, old: jnp.where(good, new, old)
        new_means = jax.tree.map(choose, new_means, means)
        new_state = jax.tree.map(choose, new_state, state._replace(step=new_state.step))
        return new_state, new_means, parts | {"skipped": 1 - good}

    def train_step(state, means, *data):
        if resident:
            images, labels, per_step = data
            batch = lambda indices: (images[indices], labels[indices])
        else:
            per_step, batch = data, lambda images_and_labels: images_and_labels

        if len(data[-1]) == 1:  # convolutions in a device loop are very slow on CPU (jax #12868)
            only = jax.tree.map(lambda x: x[0], per_step)
            state, means, parts = one_step(state, means, *batch(only))
            return state, means, {name: value[None] for name, value in parts.items()}

        def body(carry, one):
            *carry, parts = one_step(*carry, *batch(one))
            return tuple(carry), parts

        (state, means), parts = jax.lax.scan(body, (state, means), per_step)
        return state, means, parts

    return formulation.jit(
        train_step,
        mesh,
        in_shardings=(replicated, replicated, *data_shardings),
        out_shardings=replicated,
        donate_argnums=(0, 1),
    )


def make_eval_step(
    graphdef: nnx.GraphDef,
    prepare: Prepare,
    mesh: Mesh,
    *,
    multilabel: bool = False,
    resident: bool = True,
):
    """Build the compiled evaluation step, with the running batch statistics.

    Returns:
      `eval_step(params, batch_stats, images, labels, indices) -> (probabilities [L, B, K],
      ce [L, B], beta [B, L] or None)` for `indices` [B]; of every classifier, in float32. Unless
      `resident` there are no indices, and images and labels are those of the batch.
    """
    replicated = NamedSharding(mesh, PartitionSpec())
    batch = NamedSharding(mesh, PartitionSpec("data"))
    data_shardings = (replicated, replicated, batch) if resident else (batch, batch)

    def eval_step(params, batch_stats, images, labels, *indices):
        if resident:
            images, labels = images[indices[0]], labels[indices[0]]
        model = nnx.merge(graphdef, params, batch_stats, copy=True)
        model.eval()
        logits, beta = model(prepare(images))
        ce = losses.cross_entropy(logits, labels, multilabel=multilabel)
        probabilities = jax.nn.sigmoid(logits) if multilabel else jax.nn.softmax(logits)
        return probabilities, ce, beta

    return formulation.jit(
        eval_step,
        mesh,
        in_shardings=(replicated, replicated, *data_shardings),
        out_shardings=replicated,
    )
