"""From a `Dataset` to batches on devices: `make_feed` chooses between the two feeds.

`resident` keeps the images on the devices; what does not fit there is read, decoded and sent by
`streaming` while the devices compute. Both follow the same `order.Plan`, so that a run gives the
same result either way.
"""

import math

import numpy as np
from jax.sharding import Mesh

from lsanet_jax.data.dataset import SPLITS, Dataset
from lsanet_jax.data.feed.order import Plan
from lsanet_jax.data.feed.resident import Resident
from lsanet_jax.errors import DataError

_MEGABYTE = 2**20


def make_feed(dataset: Dataset, plan: Plan, config, mesh: Mesh):
    """The feed that `config.data` asks for: `Resident`, or `streaming.Streamed`.

    Both give the same batches in the same order: `train(epoch, first)` yields what
    `steps.TrainStep` takes for each dispatch of an epoch from step `first` on, counted from 0
    and a multiple of `steps_per_dispatch`; `evaluate(split)` what `steps.EvalStep` takes.

    Args:
        dataset: the images.
        plan: which of them each batch has.
        config: `config.data`; its fields `pipeline`, `device_budget_mb` and `workers` count.
        mesh: the devices; batches are split over their axis "data".

    Raises:
        DataError: `pipeline` is "device", and the dataset does not fit `device_budget_mb`.
    """
    held = all(isinstance(dataset.split(key).images, np.ndarray) for key in SPLITS)
    if config.pipeline == "device":
        check_fits(dataset, config.device_budget_mb)
    if config.pipeline == "grain" or not held or not fits(dataset, config.device_budget_mb):
        from lsanet_jax.data.feed import streaming  # Grain takes a second.

        return streaming.Streamed(dataset, plan, mesh, workers=config.workers)
    return Resident(dataset, plan, mesh)


def device_megabytes(dataset: Dataset) -> float:
    """What the three splits need on each device, in MiB."""
    splits = [dataset.split(key) for key in SPLITS]
    return sum(split.images.nbytes + split.labels.nbytes for split in splits) / _MEGABYTE


def fits(dataset: Dataset, budget_mb: float) -> bool:
    """Whether the dataset may live on the devices."""
    return device_megabytes(dataset) <= budget_mb


def check_fits(dataset: Dataset, budget_mb: float) -> None:
    """Raises DataError when the dataset is larger than `config.data.device_budget_mb`."""
    if not fits(dataset, budget_mb):
        needed = device_megabytes(dataset)
        raise DataError(
            f"dataset {dataset.name!r} needs {needed:.1f} MiB on each device, but"
            f" config.data.device_budget_mb is {budget_mb:g} and config.data.pipeline is 'device':"
            f" raise the budget to at least {math.ceil(needed)} if the device's memory allows, or"
            " set config.data.pipeline to 'auto'."
        )
