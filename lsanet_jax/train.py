"""The recipe: data, network, steps, epochs, result.

`fit` trains on a `Dataset`; `train_and_evaluate` loads the one that the config names, and calls it.
"""

import collections
import contextlib
import logging
import math
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lsanet_jax import config as config_lib
from lsanet_jax import data as data_lib
from lsanet_jax import keys, losses, metrics, models, optim, steps
from lsanet_jax.data import preprocess as preprocessing
from lsanet_jax.data.augment import Augmentation
from lsanet_jax.data.dataset import ARRAYS, SPLITS, Dataset
from lsanet_jax.data.feed import make_feed
from lsanet_jax.data.feed.order import Plan
from lsanet_jax.errors import ConfigError, Interrupted, TrainingError
from lsanet_jax.models import pretrained
from lsanet_jax.monitor import Progress, StepMonitor, StepRecord
from lsanet_jax.runs import manifest
from lsanet_jax.runs.checkpoint import Checkpoints, Model, any_to_resume
from lsanet_jax.runs.history import History
from lsanet_jax.runs.layout import CHECKPOINTS, RESULT
from lsanet_jax.runs.result import Scored, make_result, print_table
from lsanet_jax.runs.trained import Run
from lsanet_jax.runs.workdir import Workdir
from lsanet_jax.runtime import determinism
from lsanet_jax.runtime.interrupts import Interrupts

log = logging.getLogger(__name__)


def train_and_evaluate(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, *, epochs: int | None = None
) -> dict | None:
    """Load the data that the config names, and `fit`.

    Args:
      config: see `lsanet_jax.config`.
      workdir: folder of the run. An unfinished run of the same config in it is resumed, a finished
        one is only reported.
      epochs: stop after this many of the config's epochs, with a checkpoint and without a result.

    Returns:
      The contents of `result.json`; accuracies and AUCs in [0, 1]. None if it stopped before.

    Raises:
      LSANetError: see `fit`; or the data cannot be loaded.
    """
    make_mesh(config)  # checks the config; loading data may take long
    run = report_if_finished(config, workdir)
    if run is None:
        run = fit(config, data_lib.load(config.data, config.seed), workdir, epochs=epochs)
    return run.result


def fit(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    workdir: str | pathlib.Path,
    *,
    epochs: int | None = None,
) -> Run:
    """Train, select an epoch, evaluate it on the test split, and write it all to the workdir.

    Args:
      config: see `lsanet_jax.config`. For a dataset made from arrays its `data.name` is "arrays".
      dataset: the images and labels.
      workdir: folder of the run. An unfinished run of the same config on the same data is resumed,
        a finished one is only reported.
      epochs: stop after this many of the config's epochs, with a checkpoint and without a result.

    Returns:
      The run; its `result` is None if it stopped before the last epoch.

    Raises:
      LSANetError: the config, the data or the workdir does not fit, or a loss or a prediction is
        not finite.
      Interrupted: SIGTERM or SIGINT came; all is saved, and the same call resumes.
    """
    config = named_after(config, dataset)
    mesh = make_mesh(config)
    if (finished := report_if_finished(config, workdir)) is not None:
        return finished

    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(Workdir(workdir, config, writes=is_first()))

        # ------------------------------------------------------------------- data, network, steps
        plan = make_plan(config, dataset)
        feed = stack.enter_context(contextlib.closing(make_feed(dataset, plan, config.data, mesh)))
        network = make_network(config, dataset)
        schedule = make_schedule(config, plan)
        tx = make_optimizer(config, schedule)
        weights = "" if any_to_resume(folder.path / CHECKPOINTS) else config.model.init_from
        graphdef, state = steps.init(network.creator(weights), tx, network.key, mesh)
        objective = make_objective(config, dataset, graphdef, state)
        log_parameters(config, state.params)
        train_step = steps.TrainStep(
            graphdef,
            tx,
            network.prepare,
            objective,
            augment=make_augment(config, network.prepare, dataset.num_classes),
            skip_nonfinite=config.train.on_nan == "skip",
            resident=feed.resident,
        ).compile(mesh)
        eval_step = steps.EvalStep(
            graphdef, network.prepare, objective.multilabel, feed.resident
        ).compile(mesh)

        # -------------------------------------------------------------------------- files, resume
        folder.claim(about(dataset, network, weights))
        checkpoints = stack.enter_context(Checkpoints(folder.path / CHECKPOINTS))
        stack.enter_context(naming_the_last_good(checkpoints))
        interrupts = stack.enter_context(Interrupts(mesh))
        no_means = jax.jit(
            metrics.training_means(objective.part_names).empty,
            out_shardings=NamedSharding(mesh, PartitionSpec()),
        )
        state, means, history = resume(checkpoints, state, no_means(), plan)
        folder.keep_epochs(history.epoch)
        evaluate = Evaluator(dataset, feed, eval_step, objective, interrupts)
        monitor = StepMonitor(plan.batch_size)
        progress = stack.enter_context(
            contextlib.closing(
                Progress(plan.epochs, plan.steps_per_epoch, int(state.step), shown=is_first())
            )
        )
        heed = StepReader(config, folder, history, progress, monitor)

        # --------------------------------------------------------------------------------- epochs
        last_epoch = min(epochs or plan.epochs, plan.epochs)
        for epoch in range(history.epoch + 1, last_epoch + 1):
            started = time.perf_counter()
            progress.start_epoch(epoch)
            monitor.start_epoch()
            first = (epoch - 1) * plan.steps_per_epoch
            done = int(state.step) - first
            try:
                for batches in feed.train(epoch, done):
                    interrupts.check()
                    state, means, parts = train_step(state, means, *batches)
                    heed(monitor.add(first + done + 1, parts))
                    done = min(done + plan.steps_per_dispatch, plan.steps_per_epoch)
                heed(monitor.rest())
                rate = monitor.rate
                val, _ = evaluate(state, "val")
            except Interrupted as error:
                heed(monitor.rest())
                history.seconds += time.perf_counter() - started
                checkpoints.save_last(first + done, state, means, vars(history))
                checkpoints.wait()
                raise Interrupted(
                    f"stopped after {done} of {plan.steps_per_epoch} steps of epoch {epoch}, all "
                    "saved: the same command resumes"
                ) from error
            history.add(epoch, val, seconds=time.perf_counter() - started, rate=rate)
            train_means = {name: float(mean) for name, mean in means.compute().items()}
            learning_rate = float(schedule(first))
            folder.write_epoch(epoch_record(epoch, plan, learning_rate, train_means, val, rate))
            digests = manifest.tensor_digests(state)
            folder.write_digests(digests, epoch=epoch, step=first + done, loss=train_means["loss"])
            best = history.best_epoch == epoch
            if best:
                checkpoints.save_best(epoch, state, digests)
            # After a best epoch, too: what a resumed run takes for the best must still be kept.
            if best or epoch % config.train.checkpoint_every_epochs == 0 or epoch == last_epoch:
                checkpoints.save_last(first + done, state, no_means(), vars(history), digests)
            means = no_means()
        progress.close()
        checkpoints.wait()

        # --------------------------------------------------------------------------------- result
        if last_epoch < plan.epochs:
            log.info("stopped after epoch %d of %d", last_epoch, plan.epochs)
            return Run(folder.path, config)
        chosen, last, predictions = score(config, evaluate, checkpoints, state, history)
        result = make_result(config, dataset, chosen, last, history)
        folder.write_predictions(predictions, dataset.test.labels, chosen.epoch)
        folder.write_result(result)
        report(result, folder)
        return Run(folder.path, config, result)


def is_first() -> bool:
    """Whether this is the one of several processes that writes and talks for all."""
    return jax.process_index() == 0


def named_after(config: ml_collections.ConfigDict, dataset: Dataset) -> ml_collections.ConfigDict:
    """A copy of the config that says where the data came from, if it came from arrays."""
    config = config.copy_and_resolve_references()
    if dataset.source == ARRAYS:
        config.data.name = ARRAYS
    return config


def make_mesh(config: ml_collections.ConfigDict) -> Mesh:
    """Check the config, and return all devices as a mesh with the axis "data".

    Raises:
      ConfigError: a field is wrong, or a batch cannot be split evenly over the devices.
    """
    config_lib.validate(config)
    mesh = Mesh(jax.devices(), ("data",))
    determinism.check(config.deterministic, jax.default_backend())
    check_batch_sizes(config, mesh.size)
    return mesh


def check_batch_sizes(config: ml_collections.ConfigDict, num_devices: int) -> None:
    """Check that both batch sizes can be split evenly over the devices.

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


def report_if_finished(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> Run | None:
    """Print the result of a finished run of this config; None if the workdir holds none.

    Raises:
      WorkdirError: it holds a run of another config, or something else.
    """
    with Workdir(workdir, config, writes=is_first()) as folder:
        result = folder.finished_result()
    if result is None:
        return None
    log.info("%s holds a finished run of this config", folder.path)
    if is_first():
        print_table(result)
    return Run(folder.path, config, result)


def report(result: dict, folder: Workdir) -> None:
    """Print the result of a run."""
    if is_first():
        print_table(result)
        log.info("result in %s", folder.path / RESULT)


# ------------------------------------------------------------------------------- data and network


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
    """The loss that the config asks for, of the classifiers that the network has."""
    return losses.Objective(
        config.model.objective,
        taps=nnx.merge(graphdef, state.params, state.batch_stats).taps,
        multilabel=dataset.task == "multi-label",
        alpha=tuple(config.loss.alpha),
        mu=config.loss.mu,
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
    if options == Augmentation():
        return None
    root = keys.stream(config.seed, "augment")

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


# ----------------------------------------------------------------------------- records and resume


def about(dataset: Dataset, network: Network, weights: str) -> dict:
    """What the manifest says of the run beside its config; see `runs.manifest`."""
    found = {
        "dataset": {
            "name": dataset.name,
            "task": dataset.task,
            "class_names": list(dataset.class_names),
            "stored_shape": list(dataset.train.images.shape[1:]),
            "image_shape": list(network.image_shape),
            "fingerprint": dataset.fingerprint,
        },
        "environment": manifest.environment(),
    }
    if weights:
        found["weights"] = {"sha256": manifest.weights_sha256(weights)}
    return found


def resume(checkpoints: Checkpoints, state: steps.TrainState, means, plan: Plan):
    """Go on from the newest checkpoint, if there is one; returns (state, means, history)."""
    if checkpoints.last_step is None:
        return state, means, History()
    state, means, meta = checkpoints.restore_last(state, means)
    history = History(**meta)
    done = int(state.step) - history.epoch * plan.steps_per_epoch
    log.info(
        "resuming after epoch %d of %d%s",
        history.epoch,
        plan.epochs,
        f" and {done} of {plan.steps_per_epoch} steps" if done else "",
    )
    return state, means, history


def epoch_record(
    epoch: int, plan: Plan, learning_rate: float, train: dict, val: dict, rate: float
) -> dict:
    """The line of an epoch in `metrics.jsonl`."""
    return {
        "epoch": epoch,
        "step": epoch * plan.steps_per_epoch,
        "learning_rate": learning_rate,
        "train": train,
        "val": val,
        "images_per_second": rate,
    }


# ------------------------------------------------------------------------------- steps and scores


class NotFinite(TrainingError):
    """Training cannot go on; `naming_the_last_good` completes the message."""

    def __init__(self, what: str, values: dict[str, float]):
        parts = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        super().__init__(f"{what}: {parts}")


@contextlib.contextmanager
def naming_the_last_good(checkpoints: Checkpoints) -> Iterator[None]:
    """Add to a `NotFinite` what to do, and the checkpoint that is still good."""
    try:
        yield
    except NotFinite as error:
        checkpoints.wait()
        good = "no checkpoint was written yet"
        if (last := checkpoints.last_step) is not None:
            good = f"the last good checkpoint is {checkpoints.folder / 'last' / str(last)}"
        raise TrainingError(
            f"{error}; {good}. Lower config.train.learning_rate, or look for damaged images"
        ) from error


class StepReader:
    """Reads the records of steps that have ended: shows, writes and checks them."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        folder: Workdir,
        history: History,
        progress: Progress,
        monitor: StepMonitor,
    ):
        """Note who is told."""
        self._config = config.train
        self._folder = folder
        self._history = history
        self._progress = progress
        self._monitor = monitor

    def __call__(self, records: Iterable[StepRecord]) -> None:
        """Read records.

        Raises:
          NotFinite: a loss is not finite, or too many steps were skipped.
        """
        for record in records:
            finite = math.isfinite(record.loss)
            if not finite or record.skipped or record.step % self._config.log_every_steps == 0:
                values = record.values()
                if record.skipped:
                    self._skip(record, values)
                elif not finite:
                    raise NotFinite(f"the loss is not finite at step {record.step}", values)
                self._folder.write_scalars(
                    record.step, {f"train/{name}": value for name, value in values.items()}
                )
            self._progress.step(record.loss, self._monitor.rate)

    def _skip(self, record: StepRecord, values: dict[str, float]) -> None:
        self._history.skipped += 1
        log.warning(
            "step %d was skipped: its loss, %g, or a gradient is not finite",
            record.step,
            record.loss,
        )
        skipped, limit = self._history.skipped, self._config.max_skipped_steps
        if skipped > limit:
            raise NotFinite(
                f"{skipped} steps were skipped, more than the config.train.max_skipped_steps = "
                f"{limit} allowed, the last of them step {record.step}",
                values,
            )


class Evaluator:
    """Scores every classifier on a split."""

    def __init__(
        self,
        dataset: Dataset,
        feed,
        eval_step,
        objective: losses.Objective,
        interrupts: Interrupts,
    ):
        """Note what it uses.

        Args:
          dataset: its labels and task.
          feed: of its images.
          eval_step: a compiled `steps.EvalStep`.
          objective: its classifiers.
          interrupts: checked at each batch.
        """
        self._dataset = dataset
        self._feed = feed
        self._eval_step = eval_step
        self._objective = objective
        self._interrupts = interrupts

    def __call__(self, state: steps.TrainState, name: str) -> tuple[dict, metrics.Predictions]:
        """Evaluate; returns what `metrics.summarize` says, and the predictions.

        Args:
          state: the network's.
          name: of the split.

        Raises:
          NotFinite: a probability is not finite; a step's loss is that before its update.
        """
        outputs = []
        for batch in self._feed.evaluate(name):
            self._interrupts.check()
            outputs.append(self._eval_step(state.params, state.batch_stats, *batch))
        labels = self._dataset.split(name).labels
        predictions = metrics.gather(outputs, len(labels))
        if not np.isfinite(predictions.probabilities).all():
            ce = np.mean(predictions.ce, axis=1)
            names = [f"ce_{stage}" for stage in self._objective.stage_names]
            raise NotFinite(
                f"the predictions of the {name} split are not finite",
                dict(zip(names, ce.tolist(), strict=True)),
            )
        taps = self._objective.taps
        return metrics.summarize(predictions, labels, self._dataset.task, taps), predictions


def score(
    config: ml_collections.ConfigDict,
    evaluate: Evaluator,
    checkpoints: Checkpoints,
    state: steps.TrainState,
    history: History,
) -> tuple[Scored, Scored, metrics.Predictions]:
    """Evaluate the last and the selected epoch on the test split.

    Returns:
      The selected epoch, the last one, and what the selected one says of the test split.
    """
    test, predictions = evaluate(state, "test")
    chosen = last = Scored(history.epoch, history.last_val, test)
    best = history.best_epoch
    if best is None:
        log.warning("the validation AUC was never defined: reporting the last epoch")
    if config.eval.select == "best_val_auc" and best not in (None, history.epoch):
        model = checkpoints.restore_best(best, Model(state.params, state.batch_stats))
        test, predictions = evaluate(state._replace(**model._asdict()), "test")
        chosen = Scored(best, history.best_val, test)
    return chosen, last, predictions
