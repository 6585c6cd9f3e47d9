"""From a config and a dataset to the parts of a training: mesh, plan, network, loss, optimizer."""

import collections
import logging
from typing import NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from lsanet_jax import config as config_lib
from lsanet_jax import keys, losses, models, optim, steps
from lsanet_jax.data import preprocess as preprocessing
from lsanet_jax.data.augment import Augmentation, second_view
from lsanet_jax.data.dataset import SPLITS, Dataset
from lsanet_jax.data.feed.order import Plan
from lsanet_jax.errors import ConfigError
from lsanet_jax.models import pretrained
from lsanet_jax.runtime import memory

log = logging.getLogger(__name__)


def make_mesh(config: ml_collections.ConfigDict) -> Mesh:
    """Check the config, and return all devices as a mesh with the axis "data".

    Raises:
      ConfigError: a field is wrong, or a batch cannot be split evenly over the devices.
    """
    config_lib.validate(config)
    mesh = Mesh(jax.devices(), ("data",))
    check_batch_sizes(config, mesh.size)
    return mesh


def check_batch_sizes(config: ml_collections.ConfigDict, num_devices: int) -> None:
    """Check that both batch sizes can be split evenly over the devices, and fit into memory.

    Raises:
      ConfigError: one cannot; the nearest sizes that can are named.
    """
    for name, size in {
        "train.batch_size": config.train.batch_size,
        "eval.batch_size": config.eval.batch_size,
    }.items():
        if size % num_devices:
            below = size // num_devices * num_devices
            near = " or ".join(str(n) for n in (below, below + num_devices) if n)
            raise ConfigError(
                f"config.{name} = {size} cannot be split evenly over {num_devices} devices; "
                f"the nearest that can: {near}"
            )
        needed, most = 12 * size * config.data.image_size**2, memory.physical_bytes()
        if needed > most:  # The least there is: one batch of RGB images in float32.
            raise ConfigError(
                f"config.{name} = {size} with config.data.image_size = {config.data.image_size}: "
                f"the images of one batch take {memory.in_words(needed)}, this machine has "
                f"{memory.in_words(most)}"
            )


def make_plan(config: ml_collections.ConfigDict, dataset: Dataset) -> Plan:
    """Which samples each batch of the run has."""
    return Plan(
        seed=config.seed,
        epochs=config.train.epochs,
        num_train=len(dataset.train),
        batch_size=config.train.batch_size,
        eval_batch_size=config.eval.batch_size,
        steps_per_dispatch=config.train.steps_per_dispatch,
    )


class Network(NamedTuple):
    """What is to be trained, before it has parameters.

    Attributes:
      config: of the run.
      num_classes: number of logits.
      image_shape: (height, width, channels) of what the network sees.
      prepare: from stored images to that.
    """

    config: ml_collections.ConfigDict
    num_classes: int
    image_shape: tuple[int, int, int]
    prepare: steps.Prepare

    @property
    def key(self):
        """All initial parameters follow from it."""
        return keys.stream(self.config.seed, "init")

    def creator(self, weights: str):
        """A function that builds the network from its source of random numbers.

        Args:
          weights: a file to take the backbone's parameters from, if any.
        """

        def create(rngs: nnx.Rngs) -> nnx.Module:
            model = models.create_model(self.config.model, self.num_classes, self.image_shape, rngs)
            for note in pretrained.init_from(model, weights) if weights else ():
                log.info(note)
            return model

        return create


def make_network(config: ml_collections.ConfigDict, dataset: Dataset) -> Network:
    """The network for a dataset; says what it sees."""
    prepare = preprocessing.preprocessor(config.data)
    stored = jax.ShapeDtypeStruct((1, *dataset.train.images.shape[1:]), np.uint8)
    image_shape = jax.eval_shape(prepare, stored).shape[1:]
    log.info(
        "%s: %s, %d classes, %d / %d / %d images; the network sees %s",
        dataset.name,
        dataset.task,
        dataset.num_classes,
        *(len(dataset.split(name)) for name in SPLITS),
        " x ".join(map(str, image_shape)),
    )
    return Network(config, dataset.num_classes, image_shape, prepare)


def make_objective(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    graphdef: nnx.GraphDef,
    state: steps.TrainState,
) -> losses.Objective:
    """The loss that the config asks for, of the classifiers that the network has.

    Raises:
      ConfigError: it has no meaning for the dataset's task.
    """
    loss, name, multilabel = config.loss, config.model.objective, dataset.task == "multi-label"
    if multilabel and name in ("selfcon", "contrastive"):
        raise ConfigError(
            f"config.model.objective = {name!r} contrasts images of one class with those of "
            f"another, but {dataset.name} is multi-label: choose another objective"
        )
    return losses.Objective(
        name,
        taps=nnx.merge(graphdef, state.params, state.batch_stats).taps,
        multilabel=multilabel,
        alpha=tuple(loss.alpha),
        mu=loss.mu,
        mu_warmup_steps=round(loss.mu_warmup_epochs * make_plan(config, dataset).steps_per_epoch),
        temperature=loss.temperature,
        distill_weight=loss.distill_weight,
        hint_weight=loss.hint_weight,
        contrast_weight=loss.contrast_weight,
        contrast_temperature=loss.contrast_temperature,
    )


def make_schedule(config: ml_collections.ConfigDict, plan: Plan) -> optax.Schedule:
    """The learning rate by step."""
    train = config.train
    return optim.learning_rate_schedule(
        train.learning_rate,
        kind=train.schedule,
        epochs=plan.epochs,
        steps_per_epoch=plan.steps_per_epoch,
        milestones=train.milestones,
        decay=train.decay,
    )


def make_optimizer(
    config: ml_collections.ConfigDict, schedule: optax.Schedule
) -> optax.GradientTransformation:
    """The optimizer that the config asks for."""
    train = config.train
    return optim.optimizer(
        train.optimizer, schedule, weight_decay=train.weight_decay, momentum=train.momentum
    )


def make_augment(
    config: ml_collections.ConfigDict, prepare: steps.Prepare, num_classes: int
) -> steps.Augment | None:
    """What `steps.TrainStep` calls to augment a batch; None if the config augments nothing."""
    options = Augmentation(**config.data.augment)
    contrastive = config.model.objective == "contrastive"
    if options == Augmentation() and not contrastive:
        return None

    def view(purpose: keys.Purpose, options: Augmentation) -> steps.Augment:
        root = keys.stream(config.seed, purpose)

        def augment(step, images, labels):
            return preprocessing.training_batch(
                jax.random.fold_in(root, step),
                images,
                labels,
                options=options,
                num_classes=num_classes,
                preprocess=prepare,
            )

        return augment

    first = view("augment", options)
    if not contrastive:
        return first
    second = view("second_view", second_view(options))

    def augment_twice(step, images, labels):
        x, labels = first(step, images, labels)
        return jnp.concatenate([x, second(step, images, labels)[0]]), labels

    return augment_twice


def log_parameters(config: ml_collections.ConfigDict, params: nnx.State) -> None:
    """Report the parameters of the inference network, and what training adds."""
    counts = collections.Counter()
    for path, value in nnx.to_flat_state(params):
        counts["inference" if path[0] in ("backbone", "fc") else path[0]] += value.size
    inference = counts.pop("inference")
    extra = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    log.info(
        "%s, %s: %s parameters at inference%s",
        config.model.backbone,
        config.model.objective,
        f"{inference:,}",
        f"; training adds {counts.total():,} ({extra})" if counts else "",
    )
