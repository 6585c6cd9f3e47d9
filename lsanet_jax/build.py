"""From a config and a dataset to the parts of a training: mesh, plan, network, loss, optimizer."""

import collections
import logging
import math
import types
from collections.abc import Mapping
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from lsanet_jax import config as config_lib
from lsanet_jax import imbalance, keys, losses, metrics, models, optim, steps
from lsanet_jax.config.fields import as_numbers
from lsanet_jax.data import preprocess as preprocessing
from lsanet_jax.data.augment import Augmentation, second_view, self_supervised_view
from lsanet_jax.data.dataset import SPLITS, Dataset
from lsanet_jax.data.feed.order import Plan, eval_batch_size
from lsanet_jax.errors import ConfigError
from lsanet_jax.models import depth, formulation
from lsanet_jax.runs.weights import Weights
from lsanet_jax.runtime import memory

log = logging.getLogger(__name__)

_SMALL = 32  # pixels; at 28 an H100 was measured to wait


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
    """Which samples each batch of the run has.

    Raises:
      ConfigError: balanced sampling is asked of a multi-label set; or see `check_steps`.
    """
    balanced = config.data.sampling == "balanced"
    if balanced and dataset.task == "multi-label":
        raise ConfigError(
            f"config.data.sampling = balanced, but {dataset.name} is multi-label: its images have "
            "no one class. Set config.loss.class_weights instead"
        )
    if balanced and dataset.unlabelled:
        raise ConfigError(
            "config.data.sampling = balanced needs the class of each image, but config.data."
            f"unlabelled = {config.data.unlabelled} has none: set it to shuffle"
        )
    if (again := config.train.batch_size - len(dataset.train)) > 0:
        log.warning(
            "config.train.batch_size = %d, but there are %d training images: each step draws %d "
            "again, so that some count more than others",
            *(config.train.batch_size, len(dataset.train), again),
        )
    plan = Plan(
        seed=config.seed,
        epochs=config.train.epochs,
        num_train=len(dataset.train),
        batch_size=config.train.batch_size,
        eval_batch_size=eval_batch_size(
            len(dataset.val), config.eval.batch_size, jax.device_count()
        ),
        steps_per_dispatch=config.train.steps_per_dispatch,
        balance=dataset.train.labels if balanced else None,
    )
    check_steps(config, plan)
    return plan


def check_selection(config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Warn if the validation split cannot tell epochs apart by their AUC.

    Raises:
      ConfigError: `train.early_stop` waits for gain in it.
    """
    val = dataset.val
    if config.eval.select != "best_val_auc" or not math.isnan(
        metrics.auc(val.labels, np.zeros((len(val), dataset.num_classes)), dataset.task)
    ):
        return
    found = (
        "config.eval.select = best_val_auc, but the validation split has no class with images of "
        "it and others, so the AUC is undefined"
    )
    if config.train.early_stop:
        raise ConfigError(
            f"{found} and config.train.early_stop = {config.train.early_stop} never sees a gain: "
            "set config.eval.select=best_val_loss"
        )
    log.warning(
        "%s and the last epoch will be reported: set config.eval.select=best_val_loss", found
    )


def check_steps(config: ml_collections.ConfigDict, plan: Plan) -> None:
    """Check that a run has the steps that accumulation and the moving average need.

    Raises:
      ConfigError: it has fewer.
    """
    total = plan.epochs * plan.steps_per_epoch
    if left_over := total % config.train.accumulate:
        log.info(
            "the gradients of the last %d of %d steps change nothing: config.train.accumulate = %d",
            *(left_over, total, config.train.accumulate),
        )
    needed = {"accumulate": config.train.accumulate, "ema": round(1 / (1 - config.train.ema))}
    for name, steps_ in needed.items():
        if steps_ > total:
            most = total if name == "accumulate" else f"{1 - 1 / total:g}"
            raise ConfigError(
                f"config.train.{name} = {config.train[name]:g} spans {steps_} steps, but the run "
                f"has {total}: set at most {most}, or train longer"
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

    def creator(self, weights: Weights | None = None):
        """A function that builds the network from its source of random numbers.

        Args:
          weights: to take the backbone's parameters from, if any.
        """

        def create(rngs: nnx.Rngs) -> nnx.Module:
            model = models.create_model(self.config.model, self.num_classes, self.image_shape, rngs)
            for note in weights.put_into(model) if weights else ():
                if self.config.train.freeze and note.startswith("the attention modules are new"):
                    raise ConfigError(
                        f"config.train.freeze = {self.config.train.freeze!r} would keep random "
                        f"attention modules: {note}; leave out either"
                    )
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
        emphasis=make_emphasis(config, dataset),
    )


def make_emphasis(config: ml_collections.ConfigDict, dataset: Dataset) -> losses.Emphasis:
    """What the loss weighs more; warns of rare classes if nothing is done about them.

    Raises:
      ConfigError: an option does not fit the task or the number of classes, or needs images of each
        class and there are none.
    """
    loss = config.loss
    multilabel = dataset.task == "multi-label"
    counts = imbalance.count(dataset.train.labels, dataset.num_classes)
    if loss.focal_gamma and dataset.task == "ordinal-regression":
        raise ConfigError(
            f"config.loss.focal_gamma = {loss.focal_gamma:g} does not fit ordered grades: it takes "
            "weight off samples by their own grade's probability, as if its neighbours were as "
            "wrong as any other. Leave it at 0, or set config.data.task = multi-class"
        )
    weights = offsets = ()
    if loss.class_weights in ("balanced", "effective"):
        check_every_class(f"class_weights = {loss.class_weights}", dataset, counts)
        weights = imbalance.balanced_weights(counts, multilabel=multilabel)
        if loss.class_weights == "effective":
            beta = loss.effective_beta
            weights = imbalance.effective_weights(counts, beta, multilabel=multilabel)
    elif loss.class_weights != "none":
        weights = as_numbers(loss.class_weights) or ()
        if len(weights) != dataset.num_classes:
            raise ConfigError(
                f"config.loss.class_weights = {loss.class_weights} has {len(weights)} weights, "
                f"expected {dataset.num_classes}, for {', '.join(dataset.class_names)}"
            )
    if loss.logit_adjustment:
        check_every_class(f"logit_adjustment = {loss.logit_adjustment:g}", dataset, counts)
        tau = loss.logit_adjustment
        offsets = imbalance.logit_offsets(counts, tau, multilabel=multilabel)
        if loss.label_smoothing:
            log.warning(
                "config.loss.label_smoothing = %g gives each image a part of every class, and "
                "config.loss.logit_adjustment raises that of rare classes, so that their "
                "probabilities say little: set one of them to 0",
                loss.label_smoothing,
            )
    if loss.focal_gamma and loss.label_smoothing:
        log.warning(
            "config.loss.label_smoothing = %g gives each image a part of every class, and "
            "config.loss.focal_gamma = %g takes weight off the right class only, so that all "
            "probabilities are pressed together: set one of them to 0",
            *(loss.label_smoothing, loss.focal_gamma),
        )
    untouched = not len(weights) and not len(offsets) and config.data.sampling == "shuffle"
    if untouched and config.model.objective != "vicreg":
        warn_of_rare_classes(dataset, counts)
    return losses.Emphasis(
        offsets=tuple(map(float, offsets)),
        class_weights=tuple(map(float, weights)),
        focal_gamma=loss.focal_gamma,
        label_smoothing=loss.label_smoothing,
    )


def check_every_class(option: str, dataset: Dataset, counts: imbalance.Counts) -> None:
    """Check that each class has training images, and each label of a multi-label set some without.

    Raises:
      ConfigError: one has none.
    """
    lacking = {"no training image": counts.positives == 0}
    if dataset.task == "multi-label":
        lacking["no training image without it"] = counts.negatives == 0
    for what, classes in lacking.items():
        for k in np.flatnonzero(classes):
            raise ConfigError(
                f"config.loss.{option}: {dataset.class_names[k]!r} has {what}, so it has no "
                "weight. Leave the class out, add images of it, or give all weights yourself as "
                "config.loss.class_weights"
            )


def warn_of_rare_classes(dataset: Dataset, counts: imbalance.Counts) -> None:
    """Say which classes have so few images that a network may never predict them."""
    rare = [
        f"{dataset.class_names[k]} ({counts.positives[k]}, {100 * counts.shares[k]:.1f} %)"
        for k in np.flatnonzero(counts.shares < imbalance.RARE)
    ]
    if rare:
        log.warning(
            "few of the training images are of %s: the network may never predict that. "
            "config.loss.logit_adjustment=1 makes up for it; docs/imbalance.md has other ways",
            ", ".join(rare),
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
        warmup_epochs=train.warmup_epochs,
    )


def make_optimizer(
    config: ml_collections.ConfigDict,
    schedule: optax.Schedule,
    factors: Mapping[str, float] = types.MappingProxyType({}),
) -> optax.GradientTransformation:
    """The optimizer that the config asks for.

    Args:
      config: of the run.
      schedule: the learning rate by step.
      factors: from `make_factors`.
    """
    train = config.train
    tx = optim.optimizer(
        train.optimizer,
        schedule,
        weight_decay=train.weight_decay,
        momentum=train.momentum,
        clip_norm=train.clip_norm,
        accumulate=train.accumulate,
    )
    return optim.scaled(tx, factors) if factors else tx


def make_factors(config: ml_collections.ConfigDict, network: Network) -> dict[str, float]:
    """What each parameter's learning rate is multiplied by, by its name; 0 if it is frozen.

    Returns:
      Factors by the names of `optim.leaf_name`; none if all are 1.

    Raises:
      ConfigError: `train.freeze` names a stage that the backbone does not have.
    """
    freeze, decay = config.train.freeze, config.train.layer_decay
    if not freeze and decay == 1:
        return {}

    def create():
        if ":" in config.model.backbone:  # It may draw from other streams than ours, in other ways.
            return network.creator()(nnx.Rngs(0))
        # nnx.Rngs counts its keys, which takes most of the time when the count is traced.
        rngs = cast(nnx.Rngs, types.SimpleNamespace(params=lambda: jax.random.key(0)))
        return network.creator()(rngs)

    model = nnx.eval_shape(create)
    graphdef, params, others = nnx.split(model, nnx.Param, ...)
    found = depth.depths(graphdef, params, others, network.image_shape)
    heads = max(found.values())
    last = heads - 1 if freeze == "backbone" else int(freeze.removeprefix("stage") or 0)
    if last >= heads:
        raise ConfigError(
            f"config.train.freeze = {freeze!r}: the backbone has the stages stage1 to "
            f"stage{heads - 1}"
        )
    return {name: float(n > last) * decay ** (heads - n) for name, n in found.items()}


def frozen(
    graphdef: nnx.GraphDef, state: steps.TrainState, factors: Mapping[str, float]
) -> nnx.GraphDef:
    """The structure to train, with the frozen layers in evaluation mode; see `make_factors`."""
    kept = frozenset(name for name, factor in factors.items() if not factor)
    if not kept:
        return graphdef
    return depth.in_evaluation_mode(graphdef, state.params, state.batch_stats, kept)


def make_augment(
    config: ml_collections.ConfigDict, prepare: steps.Prepare, num_classes: int
) -> steps.Augment | None:
    """What `steps.TrainStep` calls to augment a batch; None if the config augments nothing."""
    options = Augmentation(**config.data.augment)
    # By objective, the augmentations of two views.
    views = {
        "contrastive": (options, second_view(options)),
        "vicreg": (self_supervised_view(options),) * 2,
    }.get(config.model.objective)
    if options == Augmentation() and views is None:
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

    if views is None:
        return view("augment", options)
    first, second = view("augment", views[0]), view("second_view", views[1])

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


def advise(config: ml_collections.ConfigDict) -> None:
    """Say if the steps are so small that a GPU waits for this process between them."""
    waits = config.train.steps_per_dispatch == 1 and config.data.image_size <= _SMALL
    if waits and not formulation.is_for_cpu():
        log.info(
            "on a GPU, config.train.steps_per_dispatch = 10 trains about twice as fast with images "
            "of %d pixels",
            config.data.image_size,
        )
