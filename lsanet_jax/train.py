"""The recipe: data, network, steps, epochs, result.

`fit` trains on a `Dataset`; `train_and_evaluate` loads the one that the config names, and calls it.
"""

import contextlib
import dataclasses
import functools
import logging
import math
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lsanet_jax import build, losses, metrics, optim, steps
from lsanet_jax import data as data_lib
from lsanet_jax.data import duplicates
from lsanet_jax.data.dataset import ARRAYS, Dataset
from lsanet_jax.data.feed import make_feed
from lsanet_jax.data.feed.order import Plan
from lsanet_jax.errors import Interrupted, LSANetError, TrainingError, check_has
from lsanet_jax.evaluation import decisions
from lsanet_jax.monitor import Progress, StepMonitor, StepRecord
from lsanet_jax.runs import manifest
from lsanet_jax.runs.checkpoint import Checkpoints, Model, any_to_resume
from lsanet_jax.runs.history import History
from lsanet_jax.runs.layout import CHECKPOINTS, RESULT, VALIDATION
from lsanet_jax.runs.result import Scored, make_result, print_table
from lsanet_jax.runs.trained import Run
from lsanet_jax.runs.weights import Weights, find, settled, warn_of_seen_images
from lsanet_jax.runs.workdir import Track, Workdir, check_same_data, read_config
from lsanet_jax.runtime import determinism
from lsanet_jax.runtime.interrupts import Interrupts

log = logging.getLogger(__name__)

COLLAPSED = 0.1  # Of self-supervised projections, at the start about 0.3 and then about 1.


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    *,
    epochs: int | None = None,
    track: Track | None = None,
) -> dict | None:
    """Load the data that the config names, and `fit`.

    Args:
      config: see `lsanet_jax.config`.
      workdir: folder of the run. An unfinished run of the same config in it is resumed, a finished
        one is only reported.
      epochs: stop after this many of the config's epochs, with a checkpoint and without a result.
      track: see `fit`.

    Returns:
      The contents of `result.json`; accuracies and AUCs in [0, 1]. None if it stopped before.

    Raises:
      LSANetError: see `fit`; or the data cannot be loaded.
    """
    build.make_mesh(config)  # checks the config; loading data may take long
    config = settled(config, workdir)
    run = finished_run(config, workdir)
    if run is None:
        dataset = data_lib.load(config.data, config.seed)
        return fit(config, dataset, workdir, epochs=epochs, track=track).result
    if may_be_others(config, run.path):
        try:
            dataset = data_lib.load(config.data, config.seed)
        except LSANetError as error:
            log.warning("%s. The result is of the data that the run was trained on", error)
        else:
            check_same_data(run.path, identity(dataset))
    return report(run).result


def fit(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    workdir: str | pathlib.Path,
    *,
    epochs: int | None = None,
    track: Track | None = None,
) -> Run:
    """Train, select an epoch, evaluate it on the test split, and write it all to the workdir.

    Args:
      config: see `lsanet_jax.config`. For a dataset made from arrays its `data.name` is "arrays".
      dataset: the images and labels. Of one made from arrays it is logged if the same image is in
        two splits or classes, unless `config.data.duplicates` is "allow".
      workdir: folder of the run. An unfinished run of the same config on the same data is resumed,
        a finished one is only reported.
      epochs: stop after this many of the config's epochs, with a checkpoint and without a result.
      track: called with each step, and the numbers by name, that TensorBoard gets.

    Returns:
      The run; its `result` is None if it stopped before the last epoch.

    Raises:
      LSANetError: the config, the data or the workdir does not fit, or a loss or a prediction is
        not finite.
      Interrupted: SIGTERM or SIGINT came; all is saved, and the same call resumes.
    """
    check_has(config, "model", "config", "a config such as default_config()")
    check_has(dataset, "class_names", "dataset", "a Dataset: fit(config, dataset, workdir)")
    config = named_after(config, dataset)
    mesh = build.make_mesh(config)
    config = settled(config, workdir)
    if dataset.source == ARRAYS:  # Others were loaded as the config says.
        dataset = data_lib.with_subset(dataset, config.data, config.seed)
    if (finished := finished_run(config, workdir)) is not None:
        check_same_data(finished.path, identity(dataset))
        return report(finished)
    warn_of_copies(config, dataset)
    with contextlib.ExitStack() as stack:
        training = begin(config, dataset, workdir, mesh, stack, epochs=epochs, track=track)
        for epoch in training.remaining_epochs():
            try:
                training.train(epoch)
                val = training.validate()
            except Interrupted as error:
                training.save_within()
                raise Interrupted(training.how_far(epoch)) from error
            training.record(epoch, val)
            training.save(epoch)
        return training.finish()


def begin(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    workdir: str | pathlib.Path,
    mesh: Mesh,
    stack: contextlib.ExitStack,
    *,
    epochs: int | None,
    track: Track | None = None,
) -> "Training":
    """Build the network and its steps, claim the folder, and go on from its newest checkpoint.

    Args:
      config: of the run.
      dataset: the images and labels.
      workdir: folder of the run.
      mesh: the devices.
      stack: closes what is opened here.
      epochs: stop after this many of the config's epochs.
      track: see `fit`.
    """
    determinism.check(config.deterministic, jax.default_backend())
    folder = stack.enter_context(Workdir(workdir, config, writes=is_first(), track=track))
    build.check_selection(config, dataset)
    plan = build.make_plan(config, dataset)
    feed = stack.enter_context(contextlib.closing(make_feed(dataset, plan, config.data, mesh)))
    network = build.make_network(config, dataset)
    schedule = build.make_schedule(config, plan)
    factors = build.make_factors(config, network)
    tx = build.make_optimizer(config, schedule, factors)
    reference = "" if any_to_resume(folder.path / CHECKPOINTS) else config.model.init_from
    weights = find(reference) if reference else None
    if weights is not None:
        warn_of_seen_images(weights.place, config, dataset)
    averaged = config.train.ema > 0
    graphdef, state = steps.init(network.creator(weights), tx, network.key, mesh, averaged=averaged)
    objective = build.make_objective(config, dataset, graphdef, state)
    build.log_parameters(config, state.params)
    build.advise(config)
    train_step = steps.TrainStep(
        build.frozen(graphdef, state, factors),
        tx,
        network.prepare,
        objective,
        augment=build.make_augment(config, network.prepare, dataset.num_classes),
        skip_nonfinite=config.train.on_nan == "skip",
        resident=feed.resident,
        ema=config.train.ema,
        hold=functools.partial(optim.hold, factors=factors) if factors else None,
    )
    eval_step = steps.EvalStep(graphdef, network.prepare, objective.multilabel, feed.resident)

    folder.claim(about(dataset, network, weights))
    folder.refuse_lost_checkpoints()
    checkpoints = stack.enter_context(Checkpoints(folder.path / CHECKPOINTS))
    stack.enter_context(naming_the_last_good(checkpoints))
    interrupts = stack.enter_context(Interrupts(mesh))
    empty = metrics.training_means(objective.part_names).empty
    no_means = jax.jit(empty, out_shardings=NamedSharding(mesh, PartitionSpec()))
    state, means, history = resume(checkpoints, state, no_means(), plan)
    folder.keep_epochs(history.epoch, history.logs)
    done = int(state.step)
    progress = Progress(plan.epochs, plan.steps_per_epoch, done, shown=is_first())
    return Training(
        config=config,
        dataset=dataset,
        plan=plan,
        folder=folder,
        checkpoints=checkpoints,
        interrupts=interrupts,
        feed=feed,
        objective=objective,
        train_step=train_step.compile(mesh),
        evaluate=Evaluator(dataset, feed, eval_step.compile(mesh), objective, interrupts),
        schedule=schedule,
        no_means=no_means,
        monitor=StepMonitor(plan.batch_size, objective.part_names),
        progress=stack.enter_context(contextlib.closing(progress)),
        state=state,
        means=means,
        history=history,
        done=done,
        last_epoch=plan.epochs if epochs is None else min(epochs, plan.epochs),
    )


@dataclasses.dataclass
class Training:
    """A training under way: what it uses, and, last, what changes.

    Attributes:
      state: all that a step changes.
      means: of the losses, over the epoch so far.
      history: of the epochs so far.
      done: steps of the run so far.
      last_epoch: after which to stop.
      rate: images per second of the last epoch.
      started: when its epoch began, as `time.perf_counter` has it.
    """

    config: ml_collections.ConfigDict
    dataset: Dataset
    plan: Plan
    folder: Workdir
    checkpoints: Checkpoints
    interrupts: Interrupts
    feed: Any
    objective: losses.Objective
    train_step: steps.CompiledTrainStep
    evaluate: "Evaluator"
    schedule: optax.Schedule
    no_means: Callable
    monitor: StepMonitor
    progress: Progress
    state: steps.TrainState
    means: Any
    history: History
    done: int
    last_epoch: int
    rate: float = math.nan
    started: float = 0.0

    def remaining_epochs(self) -> Iterator[int]:
        """The epochs that are left, until there is no gain any more."""
        while self.history.epoch < self.last_epoch and not self.stopped_early:
            yield self.history.epoch + 1

    @property
    def stopped_early(self) -> bool:
        """Whether the last epochs were without gain, as many as `train.early_stop` allows."""
        patience = self.config.train.early_stop
        return 0 < patience <= self.history.without_gain()

    def train(self, epoch: int) -> None:
        """Do the steps that are left of an epoch."""
        self.started = time.perf_counter()
        self.progress.start_epoch(epoch)
        self.monitor.start_epoch()
        end = epoch * self.plan.steps_per_epoch
        leaves, structure = jax.tree.flatten((self.state, self.means))
        try:
            for batches in self.feed.train(epoch, self.done - end + self.plan.steps_per_epoch):
                self.interrupts.check()
                leaves, parts = self.train_step.on_leaves(structure, leaves, *batches)
                self.heed(self.monitor.add(self.done + 1, parts))
                self.done = min(self.done + self.plan.steps_per_dispatch, end)
        finally:
            self.state, self.means = structure.unflatten(leaves)
        self.heed(self.monitor.rest())
        self.rate = self.monitor.rate

    def heed(self, records: Iterable[StepRecord]) -> None:
        """Show, write and check steps that have ended.

        Raises:
          NotFinite: a loss is not finite, or too many steps were skipped.
        """
        for record in records:
            finite = math.isfinite(record.loss)
            if not finite or record.skipped or record.step % self.config.train.log_every_steps == 0:
                values = self.objective.of_labelled(record.values())
                if record.skipped:
                    self.count_skipped(record, values)
                elif not finite:
                    raise NotFinite(f"the loss is not finite at step {record.step}", values)
                self.folder.write_scalars(
                    record.step, {f"train/{name}": value for name, value in values.items()}
                )
            self.progress.step(record.loss, self.monitor.rate)

    def count_skipped(self, record: StepRecord, values: dict[str, float]) -> None:
        """Count a step that was skipped; raises `NotFinite` if there were too many."""
        log.warning(
            "step %d was skipped: its loss, %g, or a gradient is not finite",
            record.step,
            record.loss,
        )
        self.history.skipped += 1
        skipped, limit = self.history.skipped, self.config.train.max_skipped_steps
        if skipped > limit:
            raise NotFinite(
                f"{skipped} steps were skipped, more than the config.train.max_skipped_steps = "
                f"{limit} allowed, the last of them step {record.step}",
                values,
            )

    def validate(self) -> dict:
        """Score the validation split; see `metrics.summarize`."""
        return self.evaluate(self.state, "val")[0]

    def save_within(self) -> None:
        """Save the state within an epoch, so that the same command resumes there."""
        self.heed(self.monitor.rest())
        self.history.seconds += time.perf_counter() - self.started
        self.history.logs = self.folder.logs_so_far()
        self.checkpoints.save_last(self.done, self.state, self.means, vars(self.history))
        self.checkpoints.wait()

    def how_far(self, epoch: int) -> str:
        """Say where an interrupted run stopped."""
        steps_ = self.plan.steps_per_epoch
        done = self.done - (epoch - 1) * steps_
        return (
            f"stopped after {done} of {steps_} steps of epoch {epoch}, all saved: the same command "
            "resumes"
        )

    def record(self, epoch: int, val: dict) -> None:
        """Record an epoch in the history and in `metrics.jsonl`."""
        seconds = time.perf_counter() - self.started
        select = self.config.eval.select
        self.history.add(epoch, val, seconds=seconds, rate=self.rate, select=select)
        first = self.done - self.plan.steps_per_epoch
        means = {name: float(mean) for name, mean in self.means.compute().items()}
        means = self.objective.of_labelled(means)
        check_collapse(means, epoch)
        self.folder.write_epoch(
            {
                "epoch": epoch,
                "step": self.done,
                "learning_rate": float(np.asarray(self.schedule(first))),
                "train": means,
                "val": val,
                "images_per_second": self.rate,
            }
        )

    def save(self, epoch: int) -> None:
        """Record the digests of an epoch, and save it if it is the best, due or the last one."""
        digests = manifest.tensor_digests(self.state)
        loss = float(self.means.compute()["loss"])
        self.folder.write_digests(digests, epoch=epoch, step=self.done, loss=loss)
        self.means = self.no_means()
        best = self.history.best_epoch == epoch
        if best:
            self.checkpoints.save_best(epoch, self.state, digests)
        # After a best epoch, too: what a resumed run takes for the best must still be kept.
        if (
            best
            or epoch % self.config.train.checkpoint_every_epochs == 0
            or epoch == self.last_epoch
            or self.stopped_early
        ):
            self.history.logs = self.folder.logs_so_far()
            meta = vars(self.history)
            self.checkpoints.save_last(self.done, self.state, self.means, meta, digests)

    def finish(self) -> Run:
        """Evaluate the last and the selected epoch on the test split, and write the result.

        Returns:
          The run; without a result if epochs are left.
        """
        self.progress.close()
        self.checkpoints.wait()
        if self.stopped_early:
            log.info(
                "stopped after epoch %d of %d: %d without gain",
                self.history.epoch,
                self.plan.epochs,
                self.config.train.early_stop,
            )
        elif self.last_epoch < self.plan.epochs:
            log.info("stopped after epoch %d of %d", self.last_epoch, self.plan.epochs)
            return Run(self.folder.path, self.config)
        chosen, last, predictions, validation = self.score()
        result = make_result(self.config, self.dataset, chosen, last, self.history)
        self.folder.write_predictions(predictions, self.dataset.test, chosen.epoch)
        self.calibrate(validation, chosen.epoch)
        self.folder.write_result(result)
        if is_first():
            print_table(result)
            log.info("result in %s", self.folder.path / RESULT)
        return Run(self.folder.path, self.config, result)

    def calibrate(self, validation: metrics.Predictions, epoch: int) -> None:
        """Write what the selected epoch says of the validation split, and what is fitted on it."""
        val, names = self.dataset.val, self.dataset.class_names
        self.folder.write_predictions(validation, val, epoch, VALIDATION)
        found = decisions.fit(
            val.labels, validation.probabilities, self.dataset.task, names, groups=val.groups
        )
        self.folder.write_calibration(decisions.to_json(found))

    def score(self) -> tuple[Scored, Scored, metrics.Predictions, metrics.Predictions]:
        """Score the selected and the last epoch.

        Returns:
          Both; and what the selected one predicts for the test and for the validation split.
        """
        history, state = self.history, self.state
        test, predictions = self.look(history.epoch, state)
        chosen_state = state
        assert history.last_val is not None  # an epoch has been recorded
        chosen = last = Scored(history.epoch, history.last_val, test)
        best = history.best_epoch
        if best is None or history.best_val is None:
            log.warning("the validation AUC was never defined: reporting the last epoch")
        elif self.config.eval.select != "last" and best != history.epoch:
            model = self.checkpoints.restore_best(best, Model(state.params, state.batch_stats))
            chosen_state = state._replace(**model._asdict())
            test, predictions = self.look(best, chosen_state)
            chosen = Scored(best, history.best_val, test)
        return chosen, last, predictions, self.evaluate(chosen_state, "val")[1]

    def look(self, epoch: int, state: steps.TrainState) -> tuple[dict, metrics.Predictions]:
        """Evaluate an epoch on the test split, and record in the chain that this was done."""
        scores, predictions = self.evaluate(state, "test")
        self.folder.write_look(epoch, manifest.predictions_sha256(predictions.probabilities))
        return scores, predictions


def is_first() -> bool:
    """Whether this is the one of several processes that writes and talks for all."""
    return jax.process_index() == 0


def named_after(config: ml_collections.ConfigDict, dataset: Dataset) -> ml_collections.ConfigDict:
    """A copy of the config that says where the data came from, if it came from arrays."""
    config = config.copy_and_resolve_references()
    if dataset.source == ARRAYS:
        config.data.name = ARRAYS
    return config


def warn_of_copies(config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Tell of images that are in two splits or classes of arrays; of files loading does."""
    if dataset.source == ARRAYS and config.data.duplicates != "allow" and is_first():
        found = duplicates.identical_images(dataset)
        duplicates.check(f"dataset {dataset.name!r}", found, "warn")


def finished_run(config: ml_collections.ConfigDict, workdir: str | pathlib.Path) -> Run | None:
    """The finished run of this config in a workdir; None if it holds none.

    Raises:
      WorkdirError: it holds a run of another config, or something else.
    """
    with Workdir(workdir, config, writes=is_first()) as folder:
        result = folder.finished_result()
    return None if result is None else Run(folder.path, config, result)


def report(run: Run) -> Run:
    """Print the result of a finished run, and return the run."""
    assert run.result is not None  # it is finished
    log.info("%s holds a finished run of this config", run.path)
    if is_first():
        print_table(run.result)
    return run


def may_be_others(config: ml_collections.ConfigDict, path: pathlib.Path) -> bool:
    """Whether a config's images may be others than those of the run in a folder.

    One's own files may have been replaced since; known sets are checked wherever they are read.
    """
    then = read_config(path).data
    return bool(config.data.path) or any(
        config.data[name] != then[name] for name in ("root", "tfds_dir")
    )


# ----------------------------------------------------------------------------- records and resume


def identity(dataset: Dataset) -> dict[str, Any]:
    """What the manifest says of data that must not change."""
    return {
        "task": dataset.task,
        "class_names": list(dataset.class_names),
        "fingerprint": dataset.fingerprint,
    }


def about(dataset: Dataset, network: build.Network, weights: Weights | None) -> dict:
    """What the manifest says of the run beside its config; see `runs.manifest`."""
    found = {
        "dataset": identity(dataset)
        | {
            "name": dataset.name,
            "stored_shape": list(dataset.train.images.shape[1:]),
            "image_shape": list(network.image_shape),
            "labelled": len(dataset.train) - dataset.unlabelled,  # images to learn from
        },
        "environment": manifest.environment(),
    }
    if dataset.decoding is not None:
        found["dataset"]["decoding"] = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataset.decoding.items()
        }
    if weights:
        found["weights"] = {"sha256": weights.sha256()}
        found |= {"weights_from": weights.origin} if weights.origin else {}
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


# ------------------------------------------------------------------------------- steps and scores


def check_collapse(means: dict[str, float], epoch: int) -> None:
    """Check that self-supervision has not made all images alike.

    Args:
      means: over the epoch; see `losses.smallest_spread`.
      epoch: for the message.

    Raises:
      TrainingError: it has.
    """
    spread = means.get("spread", math.inf)
    if spread < COLLAPSED:
        raise TrainingError(
            f"the projections have collapsed in epoch {epoch}: their standard deviation over the "
            f"images is {spread:.2g} at one of the stages, where about 1 is expected, so the "
            "network says the same of all images. Lower config.train.learning_rate, or raise "
            "config.train.batch_size to 64 or more"
        )


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
