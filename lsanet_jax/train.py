"""The training loop: data -> model -> state -> epochs -> evaluation -> checkpoint -> result."""

import collections
import logging
import math
import pathlib
import sys
import time

import jax
import numpy as np
import optax
import tqdm
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lsanet_jax import config as config_lib
from lsanet_jax import data as data_lib
from lsanet_jax import keys, metrics, models, steps
from lsanet_jax.data import preprocess as preprocessing
from lsanet_jax.data.augment import Augmentation
from lsanet_jax.data.feed import make_feed
from lsanet_jax.data.feed.order import Plan
from lsanet_jax.errors import ConfigError, Interrupted, TrainingError
from lsanet_jax.models import pretrained
from lsanet_jax.runs import manifest
from lsanet_jax.runs.checkpoint import Checkpoints, any_to_resume
from lsanet_jax.runs.workdir import Workdir
from lsanet_jax.runtime import determinism
from lsanet_jax.runtime.interrupts import Interrupts

log = logging.getLogger(__name__)

# Steps that may be under way before the host waits for the oldest: enough to keep the device busy.
MAX_STEPS_IN_FLIGHT = 4


def train_and_evaluate(
    config, workdir: str | pathlib.Path, *, epochs: int | None = None
) -> dict | None:
    """Train, select an epoch, evaluate it on the test split, and write it all to the workdir.

    Args:
      config: see `configs/common.py`.
      workdir: folder of the run. An unfinished run of the same config in it is resumed, a finished
        one is only reported.
      epochs: stop after so many of the config's epochs, with a checkpoint and without a result.

    Returns:
      The contents of `result.json`; accuracies and AUCs in [0, 1]. None if it stopped before.

    Raises:
      LSANetError: the config, the data or the workdir does not fit, or a loss or a prediction is
        not finite.
      Interrupted: SIGTERM or SIGINT came; all is saved, and the same call resumes.
    """
    config_lib.validate(config)
    mesh = Mesh(jax.devices(), ("data",))
    determinism.check(config.deterministic, jax.default_backend())
    check_batch_sizes(config, mesh.size)
    first_process = jax.process_index() == 0  # it writes and talks for all

    with Workdir(workdir, config, writes=first_process) as run:
        if (result := run.finished_result()) is not None:
            log.info("%s holds a finished run of this config", run.path)
            if first_process:
                print_table(result)
            return result

        # ------------------------------------------------------------------------------ data
        dataset = data_lib.load(config.data, config.seed)
        prepare = preprocessing.preprocessor(config.data)
        stored_shape = dataset.train.images.shape[1:]
        stored = jax.ShapeDtypeStruct((1, *stored_shape), np.uint8)
        image_shape = jax.eval_shape(prepare, stored).shape[1:]
        plan = Plan(
            seed=config.seed,
            epochs=config.train.epochs,
            num_train=len(dataset.train),
            batch_size=config.train.batch_size,
            eval_batch_size=config.eval.batch_size,
            steps_per_dispatch=config.train.steps_per_dispatch,
        )
        feed = make_feed(dataset, plan, config.data, mesh)
        steps_per_epoch = plan.steps_per_epoch
        run.callback(feed.close)
        log.info(
            "%s: %s, %d classes, %d / %d / %d images; the network sees %s",
            dataset.name,
            dataset.task,
            dataset.num_classes,
            *(len(dataset.split(name)) for name in data_lib.SPLITS),
            " x ".join(map(str, image_shape)),
        )

        # ------------------------------------------------------------------------------ model
        # What the weights gave is in the checkpoint, if there is one.
        resumes = any_to_resume(run.path / "checkpoints")
        weights = "" if resumes else config.model.init_from

        def create(rngs: nnx.Rngs) -> nnx.Module:
            model = models.create_model(config.model, dataset.num_classes, image_shape, rngs)
            if weights:
                for note in pretrained.init_from(model, weights):
                    log.info(note)
            return model

        schedule = learning_rate_schedule(config.train, steps_per_epoch)
        tx = optimizer(config.train, schedule)
        graphdef, state = steps.init(create, tx, keys.stream(config.seed, "init"), mesh)
        taps = nnx.merge(graphdef, state.params, state.batch_stats).taps
        log_parameters(config.model, state.params)

        # ------------------------------------------------------------------------------ steps
        stage_names = tuple(f"stage{tap}" for tap in taps)
        multilabel = dataset.task == "multi-label"
        train_step = steps.make_train_step(
            graphdef,
            tx,
            prepare,
            mesh,
            objective=config.model.objective,
            stage_names=stage_names,
            multilabel=multilabel,
            alpha=tuple(config.loss.alpha),
            mu=config.loss.mu,
            augment=make_augment(config, prepare, dataset.num_classes),
            skip_nonfinite=config.train.on_nan == "skip",
            resident=feed.resident,
        )
        eval_step = steps.make_eval_step(
            graphdef, prepare, mesh, multilabel=multilabel, resident=feed.resident
        )
        part_names = steps.part_names(config.model.objective, stage_names)
        Means = metrics.training_means(part_names)

        def evaluate(state: steps.TrainState, name: str) -> tuple[dict, metrics.Predictions]:
            outputs = []
            for batch in feed.evaluate(name):
                interrupts.check()
                outputs.append(eval_step(state.params, state.batch_stats, *batch))
            labels = dataset.split(name).labels
            predictions = metrics.gather(outputs, len(labels))
            monitor.check(predictions, name)
            return metrics.summarize(predictions, labels, dataset.task, taps), predictions

        # ------------------------------------------------------------------------------ resume
        about_data = {
            "name": dataset.name,
            "task": dataset.task,
            "class_names": list(dataset.class_names),
            "stored_shape": list(stored_shape),
            "image_shape": list(image_shape),
            "fingerprint": dataset.fingerprint,
        }
        about = {"dataset": about_data, "environment": manifest.environment()}
        if weights:
            about["weights"] = {"sha256": manifest.weights_sha256(weights)}
        run.claim(about)
        checkpoints = run.enter_context(Checkpoints(run.path / "checkpoints"))
        interrupts = run.enter_context(Interrupts(mesh))
        history, done = History(), 0  # steps of the epoch that was under way
        no_means = jax.jit(Means.empty, out_shardings=NamedSharding(mesh, PartitionSpec()))
        means = no_means()
        if checkpoints.last_step is not None:
            state, means, meta = checkpoints.restore_last(state, means)
            history = History(**meta)
            done = int(state.step) - history.epoch * steps_per_epoch
            log.info(
                "resuming after epoch %d of %d%s",
                history.epoch,
                config.train.epochs,
                f" and {done} of {steps_per_epoch} steps" if done else "",
            )
        run.keep_epochs(history.epoch)

        # ------------------------------------------------------------------------------ epochs
        bar = run.enter_context(
            tqdm.tqdm(
                total=config.train.epochs * steps_per_epoch,
                initial=history.epoch * steps_per_epoch + done,
                unit="step",
                disable=not first_process,
                dynamic_ncols=True,
                smoothing=0.05,
                mininterval=0.5 if sys.stderr.isatty() else 30,  # seconds; a log file fills up
            )
        )
        monitor = StepMonitor(config.train, part_names, bar, run, checkpoints, history)
        last_epoch = min(epochs or config.train.epochs, config.train.epochs)
        for epoch in range(history.epoch + 1, last_epoch + 1):
            started = time.perf_counter()
            monitor.start_epoch()
            bar.set_description(f"epoch {epoch}/{config.train.epochs}")
            first = (epoch - 1) * steps_per_epoch
            try:
                for batches in feed.train(epoch, done):
                    interrupts.check()
                    state, means, parts = train_step(state, means, *batches)
                    monitor.add(first + done + 1, parts)
                    done = min(done + config.train.steps_per_dispatch, steps_per_epoch)
                rate = monitor.end_epoch()
                val, _ = evaluate(state, "val")
            except Interrupted as error:
                monitor.end_epoch()
                history.seconds += time.perf_counter() - started
                checkpoints.save_last(first + done, state, means, vars(history))
                checkpoints.wait()
                raise Interrupted(
                    f"stopped after {done} of {steps_per_epoch} steps of epoch {epoch}, all saved: "
                    "the same command resumes"
                ) from error
            history.add(epoch, val, seconds=time.perf_counter() - started, rate=rate)
            train_means = {name: float(mean) for name, mean in means.compute().items()}
            run.write_epoch(
                {
                    "epoch": epoch,
                    "step": first + steps_per_epoch,
                    "learning_rate": float(schedule(first)),
                    "train": train_means,
                    "val": val,
                    "images_per_second": rate,
                }
            )
            digests = manifest.tensor_digests(state)
            run.write_digests(digests, epoch=epoch, step=first + done, loss=train_means["loss"])
            best = history.best_epoch == epoch
            if best:
                checkpoints.save_best(epoch, state, digests)
            # After a best epoch, too: what a resumed run takes for the best must still be kept.
            if best or epoch % config.train.checkpoint_every_epochs == 0 or epoch == last_epoch:
                checkpoints.save_last(first + done, state, no_means(), vars(history), digests)
            means, done = no_means(), 0
        bar.close()
        checkpoints.wait()
        if last_epoch < config.train.epochs:
            log.info("stopped after epoch %d of %d", last_epoch, config.train.epochs)
            return None

        # ------------------------------------------------------------------------------ result
        test, predictions = evaluate(state, "test")
        last = {"epoch": history.epoch, "val": history.last_val, "test": test}
        chosen = last
        if history.best_epoch is None:
            log.warning("the validation AUC was never defined: reporting the last epoch")
        if config.eval.select == "best_val_auc" and history.best_epoch not in (None, history.epoch):
            state = checkpoints.restore_best(history.best_epoch, state)
            test, predictions = evaluate(state, "test")
            chosen = {"epoch": history.best_epoch, "val": history.best_val, "test": test}
        result = make_result(config, dataset, chosen, last, history)
        if first_process:
            run.write_predictions(predictions, dataset.test.labels, chosen["epoch"])
            result["last_digest"] = run.last_digest()
            run.write_result(result)
            print_table(result)
            log.info("result in %s", run.path / "result.json")
        return result


class History:
    """What the loop remembers between epochs, kept in each checkpoint."""

    def __init__(
        self,
        epoch: int = 0,
        last_val: dict | None = None,
        best_epoch: int | None = None,
        best_val: dict | None = None,
        seconds: float = 0.0,
        rates: list[float] = (),
        skipped: int = 0,
    ):
        """Start, or go on from what a checkpoint holds."""
        self.epoch = epoch
        self.last_val = last_val
        self.best_epoch = best_epoch
        self.best_val = best_val
        self.seconds = seconds
        self.rates = list(rates)
        self.skipped = skipped

    def add(self, epoch: int, val: dict, *, seconds: float, rate: float) -> None:
        """Take up an epoch; the first one with the highest validation AUC is the best."""
        self.epoch, self.last_val = epoch, val
        self.seconds += seconds
        self.rates.append(rate)
        if not math.isnan(val["auc"]) and (
            self.best_val is None or val["auc"] > self.best_val["auc"]
        ):
            self.best_epoch, self.best_val = epoch, val


def check_batch_sizes(config, num_devices: int) -> None:
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


def learning_rate_schedule(config, steps_per_epoch: int) -> optax.Schedule:
    """Learning rate by step: constant, cosine, or times `decay` at each milestone.

    A milestone falls after the last whole epoch at or before its fraction of all; after none, never.
    """
    if config.schedule == "cosine":
        return optax.cosine_decay_schedule(config.learning_rate, config.epochs * steps_per_epoch)
    milestones = config.milestones if config.schedule == "step" else ()
    epochs = [int(fraction * config.epochs + 1e-6) for fraction in milestones]  # .29 x 100 < 29
    counts = collections.Counter(epochs)  # short runs: several milestones may fall together
    return optax.piecewise_constant_schedule(
        config.learning_rate,
        {epoch * steps_per_epoch: config.decay**n for epoch, n in counts.items() if epoch},
    )


def optimizer(config, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adam, AdamW or SGD as in PyTorch: weight decay is added to the gradient except in AdamW."""
    if config.optimizer == "adamw":
        return optax.adamw(schedule, weight_decay=config.weight_decay)
    tx = optax.adam(schedule)
    if config.optimizer == "sgd":
        tx = optax.sgd(schedule, momentum=config.momentum or None)
    if config.weight_decay:
        tx = optax.chain(optax.add_decayed_weights(config.weight_decay), tx)
    return tx


def make_augment(config, prepare, num_classes: int) -> steps.Augment | None:
    """What `make_train_step` calls to augment a batch; None if the config augments nothing."""
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


def log_parameters(config, params: nnx.State) -> None:
    """Report the parameters of the inference network, and what training adds."""
    counts = collections.Counter()
    for path, value in nnx.to_flat_state(params):
        counts["inference" if path[0] in ("backbone", "fc") else path[0]] += value.size
    inference = counts.pop("inference")
    extra = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    log.info(
        "%s, %s: %s parameters at inference%s",
        config.backbone,
        config.objective,
        f"{inference:,}",
        f"; training adds {counts.total():,} ({extra})" if counts else "",
    )


class StepMonitor:
    """Follows the steps under way: waits for the oldest, checks, logs and shows its losses."""

    def __init__(
        self,
        config,
        names: list[str],
        bar: tqdm.tqdm,
        run: Workdir,
        checkpoints: Checkpoints,
        history: History,
    ):
        """Start; `config` is `config.train`, `names` are those of the parts."""
        self._history = history
        self._config = config
        self._names = names
        self._bar = bar
        self._run = run
        self._checkpoints = checkpoints
        self._in_flight = collections.deque()
        self._compiled = False
        self.start_epoch()

    def start_epoch(self) -> None:
        """Measure the rate from here."""
        self._clock, self._timed_steps = time.perf_counter(), 0

    def add(self, step: int, parts: dict[str, jax.Array]) -> None:
        """Take up a dispatch whose first step is `step`; waits if too many are under way.

        Raises:
          TrainingError: a loss of an earlier step is not finite, or too many were skipped.
        """
        self._in_flight.append((step, parts))
        if not self._compiled:  # the first step of a process compiles: keep it out of the rate
            self._retire()
            self._compiled = True
            self.start_epoch()
        elif len(self._in_flight) > MAX_STEPS_IN_FLIGHT:
            self._retire()

    def end_epoch(self) -> float:
        """Wait for all steps; returns images per second of the epoch (nan if nothing was timed).

        Raises:
          TrainingError: a loss is not finite, or too many were skipped.
        """
        while self._in_flight:
            self._retire()
        return self._rate()

    def check(self, predictions: metrics.Predictions, split: str) -> None:
        """Check what the classifiers say of a split: a step's loss is that before its update.

        Raises:
          TrainingError: a probability is not finite.
        """
        if not np.isfinite(predictions.probabilities).all():
            ce = np.mean(predictions.ce, axis=1)
            names = [name for name in self._names if name.startswith("ce_")]
            losses = dict(zip(names, ce, strict=True))
            self._stop(f"the predictions of the {split} split are not finite", losses)

    def _rate(self) -> float:
        images = self._timed_steps * self._config.batch_size
        return images / (time.perf_counter() - self._clock) if images else math.nan

    def _retire(self) -> None:
        step, parts = self._in_flight.popleft()
        losses = np.asarray(parts["loss"])
        skipped = np.asarray(parts.get("skipped", np.zeros(len(losses))))
        for i, loss in enumerate(losses):
            log_it = (step + i) % self._config.log_every_steps == 0
            if log_it or skipped[i] or not math.isfinite(loss):
                values = {name: float(np.asarray(parts[name])[i]) for name in self._names}
                if skipped[i]:
                    self._skip(step + i, values)
                elif not math.isfinite(loss):
                    self._stop(f"the loss is not finite at step {step + i}", values)
                self._run.write_scalars(step + i, {f"train/{k}": v for k, v in values.items()})
        if self._compiled:
            self._timed_steps += len(losses)
        rate = f", {self._rate():.0f} images/s" if self._timed_steps else ""
        self._bar.set_postfix_str(f"loss {losses[-1]:.4f}{rate}", refresh=False)
        self._bar.update(len(losses))

    def _skip(self, step: int, values: dict[str, float]) -> None:
        self._history.skipped += 1
        log.warning(
            "step %d was skipped: its loss, %g, or a gradient is not finite", step, values["loss"]
        )
        limit = self._config.max_skipped_steps
        if self._history.skipped > limit:
            self._stop(
                f"{self._history.skipped} steps were skipped, more than the "
                f"config.train.max_skipped_steps = {limit} allowed, the last of them step {step}",
                values,
            )

    def _stop(self, what: str, values: dict[str, float]):
        self._checkpoints.wait()
        good = "no checkpoint was written yet"
        if (last := self._checkpoints.last_step) is not None:
            good = f"the last good checkpoint is {self._checkpoints.folder / 'last' / str(last)}"
        parts = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        raise TrainingError(
            f"{what}: {parts}; {good}. Lower config.train.learning_rate, or look for damaged images"
        )


def make_result(config, dataset, chosen: dict, last: dict, history: History) -> dict:
    """The contents of `result.json`; accuracies and AUCs in [0, 1]."""
    score = lambda summary: {"acc": summary["acc"], "auc": summary["auc"]}
    classifiers = chosen["test"]["classifiers"]
    beta = [c["beta"] for c in classifiers if "beta" in c]
    rates = [rate for rate in history.rates if math.isfinite(rate)]
    return {
        "dataset": dataset.name,
        "task": dataset.task,
        "backbone": config.model.backbone,
        "objective": config.model.objective,
        "seed": config.seed,
        "selected": config.eval.select,
        "best_epoch": chosen["epoch"],
        "val": score(chosen["val"]),
        "test": score(chosen["test"]),
        "last_epoch": {
            "epoch": last["epoch"],
            "val": score(last["val"]),
            "test": score(last["test"]),
        },
        "classifiers": [{k: c[k] for k in ("stage", "acc", "auc")} for c in classifiers],
        "beta": beta or None,
        "images_per_second": float(np.median(rates)) if rates else None,
        "seconds": history.seconds,
        "skipped_steps": history.skipped,
    }


def print_table(result: dict) -> None:
    """Print the result of a run as a table, accuracies and AUCs in percent as in the paper."""
    rows = [("", "ACC %", "AUC %", "beta")]
    for i, classifier in enumerate(result["classifiers"]):
        own = i == len(result["classifiers"]) - 1
        name = f"classifier at stage {classifier['stage']}" + (
            " (the network's own)" if own else ""
        )
        beta = f"{result['beta'][i]:.3f}" if result["beta"] else "-"
        rows.append((name, *percent(classifier), beta))
    rows.append(("validation, same epoch", *percent(result["val"]), ""))
    last = result["last_epoch"]
    rows.append((f"last epoch ({last['epoch']}) instead", *percent(last["test"]), ""))
    width = max(len(row[0]) for row in rows)
    title = "{dataset}, {backbone}, {objective}, seed {seed}: test split, epoch {best_epoch}"
    print(f"\n{title.format(**result)} ({result['selected']})")
    for row in rows:
        print(f"  {row[0]:<{width}}  {row[1]:>6}  {row[2]:>6}  {row[3]:>6}".rstrip())
    rate = result["images_per_second"]
    speed = f"{rate:.0f} images/s, " if rate else ""
    print(f"  {speed}{result['seconds']:.0f} s of training")


def percent(score: dict) -> tuple[str, str]:
    """ACC and AUC of a score in percent; a dash where one is undefined."""
    defined = lambda value: value is not None and math.isfinite(value)
    text = lambda value: f"{100 * value:.2f}" if defined(value) else "-"
    return text(score["acc"]), text(score["auc"])
