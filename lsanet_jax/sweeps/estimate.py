"""How long the runs of a sweep take, from those that were measured."""

import functools
import os
import pathlib
import statistics
import zipfile
from typing import NamedTuple

import ml_collections
import numpy as np

from lsanet_jax.data.sources import medmnist
from lsanet_jax.runtime import strict_json
from lsanet_jax.sweeps.spec import Job, Sweep, resolve


class Estimator:
    """Estimates the seconds of a run's epoch, in proportion to its training images.

    The time of an image is the median of the measured runs of the same backbone, or, if there are
    none, of all measured runs.
    """

    def __init__(self, sweep: Sweep):
        """Start without measurements."""
        self._sweep = sweep
        self._jobs: dict[Job, _Facts] = {}
        self._measured: dict[Job, float] = {}  # seconds per image

    def epochs(self, job: Job) -> int:
        """Return the number of epochs of a job."""
        return self._facts(job).epochs

    def measure(self, job: Job, seconds: float) -> None:
        """Record how long an epoch of a job took."""
        self._measured[job] = seconds / self._facts(job).images

    def seconds_per_epoch(self, job: Job) -> float | None:
        """Estimate how long an epoch of a job takes; None if nothing comparable was measured."""
        facts = self._facts(job)
        comparable, alike = [], []
        for other, seconds in self._measured.items():
            known = self._facts(other)
            if known.counted == facts.counted:
                comparable.append(seconds)
                if known.backbone == facts.backbone:
                    alike.append(seconds)
        if not comparable:
            return None
        return statistics.median(alike or comparable) * facts.images

    def _facts(self, job: Job) -> "_Facts":
        if job not in self._jobs:
            config = resolve(self._sweep, job.run, job.seed)
            count = training_images(config)
            images = config.data.train_fraction if count is None else count
            about = config.model.backbone, config.train.epochs, images
            self._jobs[job] = _Facts(*about, counted=count is not None)
        return self._jobs[job]


class _Facts(NamedTuple):
    """What the time of a run depends on."""

    backbone: str
    epochs: int
    images: float  # of an epoch; if they cannot be counted in advance, their share of all
    counted: bool


def training_images(config: ml_collections.ConfigDict) -> int | None:
    """Count the images of an epoch; None for folders, or if the file is missing."""
    data = config.data
    if data.name in medmnist.NAMES:
        facts = medmnist.info(data.name)
        count, classes = facts["n_samples"]["train"], len(facts["label"])
    elif data.name == "npz":
        count, classes = _rows(pathlib.Path(os.path.expanduser(data.path)), "train_images"), None
    elif data.name == "synthetic":
        count, classes = data.synthetic.num_train, data.synthetic.num_classes
    else:
        return None
    if count is None:
        return None
    if data.train_per_class:
        return None if classes is None else min(count, data.train_per_class * classes)
    return max(1, round(count * data.train_fraction))


@functools.cache
def _rows(file: pathlib.Path, key: str) -> int | None:
    """Read the length of an array in an npz file from the array's header."""
    try:
        with (
            strict_json.open_regular(file) as whole,
            zipfile.ZipFile(whole) as archive,
            archive.open(f"{key}.npy") as stream,
        ):
            version = np.lib.format.read_magic(stream)
            read = {(1, 0): "read_array_header_1_0", (2, 0): "read_array_header_2_0"}[version]
            return getattr(np.lib.format, read)(stream)[0][0]
    except Exception:  # noqa: BLE001 (whatever they make of damaged bytes; training says it)
        return None
