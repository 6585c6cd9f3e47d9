"""The trained network of a run, ready to predict or to export."""

import pathlib
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from lsanet_jax import config as config_lib
from lsanet_jax import keys, models, steps, train
from lsanet_jax.runs.checkpoint import Checkpoints
from lsanet_jax.errors import WorkdirError
from lsanet_jax.runtime.files import read_json
from lsanet_jax.runs.layout import MANIFEST, RESULT
from lsanet_jax.runs.workdir import read_config


class TrainedModel(NamedTuple):
    """A network in evaluation mode and what there is to know of it."""

    model: models.DeeplySupervised
    config: ml_collections.ConfigDict
    dataset: dict  # `dataset` of the manifest; see train.py
    epoch: int  # finished ones; the parameters may be from within the next


def load(workdir: str | pathlib.Path, checkpoint: str = "selected") -> TrainedModel:
    """Load the network of a run.

    Args:
      workdir: folder of the run.
      checkpoint: "selected", the epoch that a finished run reports, or "last", the newest one.

    Raises:
      WorkdirError: there is no such run or checkpoint, it is damaged, or it is not finished.
    """
    path = pathlib.Path(workdir).absolute()
    config = read_config(path)
    config_lib.validate(config)
    manifest, result = path / MANIFEST, path / RESULT
    if not manifest.exists():
        raise WorkdirError(f"--workdir={path} holds no {MANIFEST}: its training never started")
    dataset = read_json(manifest)["dataset"]
    if checkpoint == "selected" and not result.exists():
        raise WorkdirError(
            f"--workdir={path} holds no {RESULT}: the run is not finished, so no epoch is selected "
            "yet. Resume it, or take the newest checkpoint with --checkpoint=last"
        )

    def create(rngs: nnx.Rngs) -> nnx.Module:
        num_classes = len(dataset["class_names"])
        return models.create_model(config.model, num_classes, tuple(dataset["image_shape"]), rngs)

    tx = train.optimizer(config.train, train.learning_rate_schedule(config.train, 1))
    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    graphdef, state = steps.init(create, tx, keys.stream(config.seed, "init"), mesh)
    with Checkpoints(path / "checkpoints", writes=False) as checkpoints:
        epoch = read_json(result)["best_epoch"] if checkpoint == "selected" else None
        if epoch is not None and checkpoints.has_best(epoch):
            state = checkpoints.restore_best(epoch, state)
        elif checkpoints.last_step is not None:
            state, _, meta = checkpoints.restore_last(state)
            if epoch not in (None, meta["epoch"]):
                raise WorkdirError(
                    f"--workdir={path} holds no checkpoint of epoch {epoch}, which {RESULT} "
                    f"reports: bring back checkpoints/best/{epoch} or checkpoints/last, or take the "
                    f"newest, of epoch {meta['epoch']}, with --checkpoint=last"
                )
            epoch = meta["epoch"]
        else:
            raise WorkdirError(f"--workdir={path} holds no checkpoint yet")
    model = nnx.merge(graphdef, state.params, state.batch_stats)
    model.eval()
    return TrainedModel(model, config, dataset, epoch)
