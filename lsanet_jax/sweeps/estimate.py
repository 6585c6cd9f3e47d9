"""How long the runs of a sweep take: from those that are finished, else from what they compute."""

import functools
import json
import os
import pathlib
import statistics
import time
import types
import zipfile
from typing import NamedTuple

import ml_collections
import numpy as np

from lsanet_jax import config as config_lib
from lsanet_jax.data.sources import medmnist
from lsanet_jax.sweeps.spec import Job, Sweep, resolve

PASSES = 3  # Forward, and twice as much backward.


class Estimator:
    """Estimates the seconds of a run's epoch.

    It takes the median of the runs of the same backbone, else of all, that were measured, in
    proportion to images and multiply-adds; where there is none, the speed of the device.
    """

    def __init__(self, sweep: Sweep, speed: float | None = None):
        """Start without measurements.

        Args:
          sweep: whose jobs it is to know.
          speed: of the device, floating-point operations per second.
        """
        self._sweep, self._speed = sweep, speed
        self._jobs: dict[Job, _Facts] = {}
        self._measured: dict[Job, float] = {}  # Seconds for each operation.

    def epochs(self, job: Job) -> int:
        """How many a job has."""
        return self._facts(job).epochs

    def measure(self, job: Job, seconds: float) -> None:
        """Take up that an epoch of a job took so long."""
        if operations := self._facts(job).operations:
            self._measured[job] = seconds / operations

    def seconds_per_epoch(self, job: Job) -> float | None:
        """The estimate; None where nothing is known."""
        facts = self._facts(job)
        if not facts.operations:
            return None
        if self._measured:
            all_ = list(self._measured.values())
            alike = [
                rate
                for other, rate in self._measured.items()
                if self._facts(other).backbone == facts.backbone
            ]
            return statistics.median(alike or all_) * facts.operations
        if self._speed is None or not facts.counted:
            return None
        return facts.operations / self._speed

    def _facts(self, job: Job) -> "_Facts":
        if job not in self._jobs:
            config = resolve(self._sweep, job.run, job.seed)
            images = training_images(config)
            self._jobs[job] = _Facts(
                backbone=config.model.backbone,
                epochs=config.train.epochs,
                operations=_operations(config) * (images or 1),
                counted=images is not None,
            )
        return self._jobs[job]


class _Facts(NamedTuple):
    """What the time of a run depends on; `operations` are of an epoch, or, not `counted`, an image."""

    backbone: str
    epochs: int
    operations: float
    counted: bool


def training_images(config: ml_collections.ConfigDict) -> int | None:
    """How many images an epoch has; None for folders, or where the file is not there."""
    data = config.data
    if data.name in medmnist.NAMES:
        facts = medmnist.info(data.name)
        count, classes = facts["n_samples"]["train"], len(facts["label"])
    elif data.name == "npz":
        count, classes = _rows(pathlib.Path(data.path).expanduser(), "train_images"), None
    elif data.name == "synthetic":
        count, classes = data.synthetic.num_train, data.synthetic.num_classes
    else:
        return None
    if data.train_per_class and classes is None:
        return None
    if count is not None and data.train_per_class:
        return min(count, data.train_per_class * classes)
    return count if count is None else max(1, round(count * data.train_fraction))


def device_speed() -> float:
    """Floating-point operations per second of this machine's device, in a product of matrices."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # runs may be under way there
    import jax
    import jax.numpy as jnp

    size = 2048 if jax.default_backend() == "cpu" else 8192
    matrix = jnp.ones((size, size), jnp.float32)
    multiply = jax.jit(lambda a: a @ a)
    multiply(matrix).block_until_ready()
    durations = []
    for _ in range(5):
        start = time.perf_counter()
        multiply(matrix).block_until_ready()
        durations.append(time.perf_counter() - start)
    return 2 * size**3 / min(durations)


def _operations(config: ml_collections.ConfigDict) -> float:
    """Floating-point operations of training on an image."""
    model = dict(config_lib.flatten(config.model))
    channels = 3 if config.data.as_rgb else config.data.synthetic.channels
    macs = _multiply_adds(json.dumps(model), config.data.image_size, channels)
    return 2.0 * PASSES * macs


@functools.cache
def _multiply_adds(fields: str, size: int, channels: int) -> int:
    """Of the network that predicts; the auxiliary parts add little, but for the branches of DKS.

    0 where it cannot be made: the run will say why.
    """
    import jax
    from flax import nnx

    from lsanet_jax import models
    from lsanet_jax.models.__main__ import multiply_adds

    config = config_lib.unflatten(json.loads(fields) | {"objective": "baseline"})
    shape = (size, size, channels)
    # nnx.Rngs counts its keys, which takes most of the time when the count is traced.
    rngs = types.SimpleNamespace(params=lambda: jax.random.key(0))
    try:
        model = nnx.eval_shape(lambda: models.create_model(config, 10, shape, rngs))
        return multiply_adds(model, shape)
    except Exception:  # noqa: BLE001 (whatever the user's own backbone raises)
        return 0


@functools.cache
def _rows(file: pathlib.Path, key: str) -> int | None:
    """The length of an array in an npz file, by its header."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open(f"{key}.npy") as stream:
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}[version]
            return getattr(np.lib.format, read)(stream)[0][0]
    except (OSError, KeyError, IndexError, ValueError, zipfile.BadZipFile):
        return None
