"""The training and evaluation steps: pure functions, compiled for a mesh of devices.

The mesh has one axis, "data". Batches (of images, or of indices into images that every device
holds) are split over it, everything else is replicated. The losses and batch statistics are means
over the global batch, so XLA sums gradients and statistics over the devices.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, UInt8

from lsanet_jax import losses
from lsanet_jax.errors import ConfigError
from lsanet_jax.models import formulation


class Averaged(NamedTuple):
    """What is trained, if the network of the `TrainState` is a moving average of it."""

    opt_state: optax.OptState
    params: nnx.State
    batch_stats: nnx.State


class TrainState(NamedTuple):
    """All that changes during training, and all that a checkpoint holds."""

    step: Int[Array, ""]  # steps done
    params: nnx.State
    batch_stats: nnx.State
    opt_state: optax.OptState | Averaged


Prepare = Callable[[UInt8[Array, "b h w c"]], Float[Array, "b s s c2"]]
"""Turns stored images into what the network sees."""

Augment = Callable[
    [Int[Array, ""], UInt8[Array, "b h w c"], Array], tuple[Float[Array, "b2 s s c2"], Array]
]
"""Turns a step's number, stored images and labels into what the network sees and is to say.

The network may see more images than there are labels: further views of each, one after the other.
"""


def init(
    create: Callable[[nnx.Rngs], nnx.Module],
    tx: optax.GradientTransformation,
    key,
    mesh: Mesh,
    *,
    averaged: bool = False,
) -> tuple[nnx.GraphDef, TrainState]:
    """Create the model and its first state, replicated over the mesh.

    Args:
      create: builds the model from its source of random numbers.
      tx: the optimizer.
      key: all initial parameters follow from it.
      mesh: the devices.
      averaged: for a `TrainStep` with `ema`.

    Returns:
      The model's structure in training mode, and the state at step 0.

    Raises:
      ConfigError: the model has variables that are not `nnx.Param` or `nnx.BatchStat`.
    """
    graphdef, params, batch_stats = _create(create, key)

    def start(params, batch_stats):
        opt_state = tx.init(params)
        if averaged:  # In buffers of their own: a step donates both.
            opt_state = Averaged(opt_state, *jax.tree.map(jnp.copy, (params, batch_stats)))
        return TrainState(jnp.zeros((), jnp.int32), params, batch_stats, opt_state)

    state = jax.jit(start, out_shardings=NamedSharding(mesh, PartitionSpec()))(params, batch_stats)
    return graphdef, state


def init_model(
    create: Callable[[nnx.Rngs], nnx.Module], key, mesh: Mesh
) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Like `init`, without an optimizer: returns the structure, the parameters, the statistics."""
    graphdef, *variables = _create(create, key)
    params, batch_stats = jax.device_put(variables, NamedSharding(mesh, PartitionSpec()))
    return graphdef, params, batch_stats


def _create(
    create: Callable[[nnx.Rngs], nnx.Module], key
) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    # Not under one jit: a program that draws every parameter takes XLA most of a minute on CPU.
    with jax.threefry_partitionable(True):  # Else JAX's default decides what is drawn.
        model = create(nnx.Rngs(key))
    model.train()
    graphdef, params, batch_stats, others = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    for path, variable in nnx.to_flat_state(others):
        where = ".".join(map(str, path))
        raise ConfigError(
            f"the network has a {type(variable).__name__} at {where}, expected parameters (Param) "
            "and batch statistics (BatchStat) only; Dropout, for one, has others"
        )
    return graphdef, params, batch_stats


def training_accuracy(
    logits: Float[Array, "l b k"],
    labels: losses.Labels,
    *,
    multilabel: bool,
    of_all: bool = False,
) -> Float[Array, " l"]:
    """Fraction of a batch that each classifier gets right, in [0, 1]; see `losses.cross_entropy`.

    Of labels that are probabilities (mixup's) the most probable class counts; with `multilabel`, it
    is the mean over known labels, or `of_all`, each predicted and taken as true above 1/2. An
    unknown class is never right.
    """
    if multilabel:
        known = labels >= 0
        right = known & ((logits > 0) == (labels > 0.5))
        count = known.size if of_all else jnp.maximum(jnp.sum(known), 1)
        return jnp.sum(right, axis=(1, 2)) / count
    truth = jnp.argmax(labels, axis=-1) if labels.ndim == 2 else labels
    return jnp.mean(jnp.argmax(logits, axis=-1) == truth, axis=1)


@dataclasses.dataclass(frozen=True, eq=False)
class TrainStep:
    """The training step as pure functions of arrays; `compile` makes one program of it for a mesh.

    Attributes:
      graphdef: the model's structure, from `init`.
      tx: the optimizer.
      prepare: applied to the uint8 images of the batch.
      objective: the loss.
      augment: takes the place of `prepare`, and gets the number of steps done before and the labels
        too; its result must follow from these.
      skip_nonfinite: leave state and means as they are, save for the number of the step, if the
        loss or a gradient is not finite; a further part, `skipped`, is 1 then, else 0.
      resident: whether images and labels are those of the whole split, or of the batches only.
      ema: decay of the moving average of parameters and batch statistics that `TrainState` holds;
        after n steps it is min(ema, (1 + n) / (10 + n)). 0: what is trained is in their place.
      hold: applied to the parameters; it keeps the gradient off some of them.
    """

    graphdef: nnx.GraphDef
    tx: optax.GradientTransformation
    prepare: Prepare
    objective: losses.Objective
    augment: Augment | None = None
    skip_nonfinite: bool = False
    resident: bool = True
    ema: float = 0.0
    hold: Callable[[nnx.State], nnx.State] | None = None

    def loss(self, params, batch_stats, x, labels, step=0):
        """Return the loss, and (its parts by `Objective.part_names`, the new batch statistics)."""
        params = params if self.hold is None else self.hold(params)
        model = nnx.merge(self.graphdef, params, batch_stats, copy=True)
        (logits, beta), features = model.supervise(x)
        if len(x) > len(labels):  # the classifiers learn from the first views
            logits = logits[:, : len(labels)]
        loss, parts = self.objective(logits, labels, beta, features, step)
        stages = self.objective.stage_names
        ce = parts.pop("ce")
        parts = {"loss": loss, **parts}
        parts |= {f"ce_{name}": ce[i] for i, name in enumerate(stages)}
        acc = training_accuracy(
            logits,
            labels,
            multilabel=self.objective.multilabel,
            of_all=self.objective.self_supervised,  # see `Objective.of_labelled`
        )
        parts |= {f"acc_{name}": acc[i] for i, name in enumerate(stages)}
        if beta is not None:
            parts |= {f"beta_{name}": jnp.mean(beta[:, i]) for i, name in enumerate(stages)}
        return loss, (parts, nnx.state(model, nnx.BatchStat))

    def update(self, state: TrainState, means, images, labels):
        """Do one step on a batch; returns (state, means, parts)."""
        if self.augment is None:
            x = self.prepare(images)
        else:
            x, labels = self.augment(state.step, images, labels)
        now = state.opt_state
        if not isinstance(now, Averaged):
            now = Averaged(now, state.params, state.batch_stats)
        grads, (parts, batch_stats) = jax.grad(self.loss, has_aux=True)(
            now.params, now.batch_stats, x, labels, state.step
        )
        updates, opt_state = self.tx.update(grads, now.opt_state, now.params)
        # Optax's annotation is any tree; it is the one that it was given.
        params = cast(nnx.State, optax.apply_updates(now.params, updates))
        new_state = TrainState(state.step + 1, params, batch_stats, opt_state)
        if self.ema:
            new_state = self.averaged(state, new_state)
        new_means = means.merge(means.single_from_model_output(**parts))
        # With 64 bits enabled, clu's counts would be wider than those that a checkpoint has.
        new_means = jax.tree.map(lambda new, old: new.astype(old.dtype), new_means, means)
        if not self.skip_nonfinite:
            return new_state, new_means, parts

        finite = [jnp.isfinite(x).all() for x in jax.tree.leaves((parts["loss"], grads))]
        good = jnp.all(jnp.stack(finite))
        choose = lambda new, old: jnp.where(good, new, old)
        new_means = jax.tree.map(choose, new_means, means)
        new_state = jax.tree.map(choose, new_state, state._replace(step=new_state.step))
        return new_state, new_means, parts | {"skipped": 1 - good}

    def averaged(self, old: TrainState, new: TrainState) -> TrainState:
        """Move the averages on to a state that was trained."""
        decay = jnp.minimum(self.ema, (1 + old.step) / (10 + old.step))

        def move(average, now):  # What is frozen stays, to the bit.
            moved = (decay * average + (1 - decay) * now).astype(average.dtype)
            return jnp.where(average == now, average, moved)

        params, batch_stats = (old.params, new.params), (old.batch_stats, new.batch_stats)
        trained = Averaged(new.opt_state, new.params, new.batch_stats)
        return TrainState(
            new.step, jax.tree.map(move, *params), jax.tree.map(move, *batch_stats), trained
        )

    def __call__(self, state: TrainState, means, *data):
        """Do the steps of a dispatch.

        Args:
          state: donated.
          means: a `clu.metrics.Collection` that records the parts; donated.
          *data: images, labels and indices [n, B], the batches of n steps; unless `resident` there
            are no indices, and images [n, B, h, w, c] and labels [n, B, ...] are the batches.

        Returns:
          (state, means, parts). `parts` maps `Objective.part_names` to [n] values: the loss, its
          terms, and of each classifier the mean cross entropy, the accuracy in training mode and
          the mean beta.
        """
        if self.resident:
            images, labels, per_step = data
            batch = lambda indices: (images[indices], labels[indices])
        else:
            per_step, batch = data, lambda images_and_labels: images_and_labels

        if len(data[-1]) == 1:  # convolutions in a device loop are very slow on CPU (jax #12868)
            only = jax.tree.map(lambda x: x[0], per_step)
            state, means, parts = self.update(state, means, *batch(only))
            return state, means, {name: value[None] for name, value in parts.items()}

        def body(carry, one):
            *carry, parts = self.update(*carry, *batch(one))
            return tuple(carry), parts

        (state, means), parts = jax.lax.scan(body, (state, means), per_step)
        return state, means, parts

    def compile(self, mesh: Mesh) -> "CompiledTrainStep":
        """Compile `__call__`: batches are split over the mesh, all else is replicated."""
        replicated = NamedSharding(mesh, PartitionSpec())
        batches = NamedSharding(mesh, PartitionSpec(None, "data"))
        data = (replicated, replicated, batches) if self.resident else (batches, batches)

        def train_step(structure, leaves, *data):  # so named in profiles
            *carry, parts = self(*structure.unflatten(leaves), *data)
            return jax.tree.leaves(carry), parts

        return CompiledTrainStep(
            formulation.jit(
                train_step,
                mesh,
                in_shardings=(replicated, *data),
                out_shardings=replicated,
                static_argnums=0,
                donate_argnums=1,
            )
        )


@dataclasses.dataclass(frozen=True, eq=False)
class CompiledTrainStep:
    """A compiled training step, called as `TrainStep.__call__` is.

    A loop calls `on_leaves` on the flat list of arrays instead: JAX takes nnx's containers apart
    and puts them together again in Python, on each call 7 ms for ResNet-18 and more for DenseNet.

    Attributes:
      on_leaves: maps (structure, leaves of (state, means), *data) to (leaves, parts); the leaves
        are donated.
    """

    on_leaves: Callable

    def __call__(self, state: TrainState, means, *data):
        """Do the steps of a dispatch; see `TrainStep.__call__`."""
        leaves, structure = jax.tree.flatten((state, means))
        leaves, parts = self.on_leaves(structure, leaves, *data)
        return *structure.unflatten(leaves), parts

    def lower(self, state, means, *data):
        """Trace it for arguments of these shapes; see `jax.stages.Lowered`."""
        leaves, structure = jax.tree.flatten((state, means))
        return cast(Any, self.on_leaves).lower(structure, leaves, *data)


@dataclasses.dataclass(frozen=True, eq=False)
class EvalStep:
    """The evaluation step, with the running batch statistics.

    Attributes:
      graphdef: the model's structure, from `init`.
      prepare: applied to the uint8 images of the batch.
      multilabel: whether each of the K labels is a yes-or-no question of its own.
      resident: whether images and labels are those of the whole split, or of the batch only.
    """

    graphdef: nnx.GraphDef
    prepare: Prepare
    multilabel: bool = False
    resident: bool = True

    def __call__(self, params, batch_stats, images, labels, *indices):
        """Evaluate a batch.

        Args:
          params: of the network.
          batch_stats: the running statistics.
          images: uint8.
          labels: of the images.
          *indices: [B], the batch; there are none unless `resident`.

        Returns:
          (probabilities [L, B, K], ce [L, B], beta [B, L] or None) of every classifier, in float32.
        """
        if self.resident:
            images, labels = images[indices[0]], labels[indices[0]]
        model = nnx.merge(self.graphdef, params, batch_stats, copy=True)
        model.eval()
        logits, beta = model(self.prepare(images))
        ce = losses.cross_entropy(logits, labels, multilabel=self.multilabel)
        probabilities = jax.nn.sigmoid(logits) if self.multilabel else jax.nn.softmax(logits)
        return probabilities, ce, beta

    def compile(self, mesh: Mesh):
        """Return `__call__` as a compiled function: the batch split over the mesh."""
        replicated = NamedSharding(mesh, PartitionSpec())
        batch = NamedSharding(mesh, PartitionSpec("data"))
        data = (replicated, replicated, batch) if self.resident else (batch, batch)

        def eval_step(*arguments):
            return self(*arguments)

        return formulation.jit(
            eval_step,
            mesh,
            in_shardings=(replicated, replicated, *data),
            out_shardings=replicated,
        )
