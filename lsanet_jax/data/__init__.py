"""Datasets: `load(config.data)` returns a `Dataset`, wherever its images come from."""

import logging
import math
import os

import ml_collections

from lsanet_jax.data import duplicates, quality, subset, unlabelled
from lsanet_jax.data.dataset import ARRAYS, SPLITS, TASKS, Dataset, Split
from lsanet_jax.data.sources import folder, medmnist, npz, synthetic
from lsanet_jax.errors import ConfigError, check_has, near_matches

log = logging.getLogger(__name__)

__all__ = ["SPLITS", "TASKS", "Dataset", "Split", "load"]

# Fields of `config.data` that `folder.load_folder` takes by the same name.
_OF_FOLDERS = (
    *("skip_broken", "max_megapixels", "csv", "val_fraction", "test_fraction"),
    *("fit", "bits", "window", "frame", "uncertain", "duplicates", "leaks", "folds", "fold"),
    *("file_column", "label_column", "split_column", "group_column"),
)
_NAMES = (*medmnist.NAMES, "npz", "folder", "synthetic")


def load(config: ml_collections.ConfigDict, seed: int = 0) -> Dataset:
    """Load the dataset that `config.data` names, with as much of its training split as it asks for.

    Args:
        config: `config.data`. `pipeline` and `device_budget_mb` say whether images that can be
            decoded when they are used are held in memory.
        seed: of the run; it says which training images a subset has.

    Raises:
        ConfigError: a field has a value outside its choices.
        DataError: the data is missing, damaged, or not what the config says.
    """
    check_has(config, "pipeline", "config", "the section `data` of one: pass config.data")
    return with_subset(_load_whole(config), config, seed)


def with_subset(dataset: Dataset, config: ml_collections.ConfigDict, seed: int) -> Dataset:
    """The dataset with as much of its training split as is asked for; see `load`."""
    where = config.get("unlabelled", "")
    dataset = subset.train_subset(
        dataset,
        fraction=config.train_fraction,
        per_class=config.train_per_class,
        seed=seed,
        keep_rest=where == unlabelled.REST,
    )
    if where == unlabelled.REST:
        unlabelled.check_rest(dataset)
    elif where:
        form = {"fit": config.fit, "max_megapixels": config.max_megapixels}
        skip = config.skip_broken
        dataset = unlabelled.with_folder(dataset, where, form, skip_broken=skip)
    return dataset


def load_again(config: ml_collections.ConfigDict, seed: int) -> Dataset:
    """`load` a set whose faults were told before, to look at few of its images or at its names."""
    config = config.copy_and_resolve_references()
    config.pipeline = "grain"
    if config.get("unlabelled", "") not in ("", unlabelled.REST):
        config.unlabelled = ""  # A folder's images would have to be in memory.
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        return load(config, seed)
    finally:
        log.setLevel(before)


def _load_whole(config: ml_collections.ConfigDict) -> Dataset:
    task = getattr(config, "task", "")
    memory_mb = {"device": math.inf, "auto": config.device_budget_mb, "grain": 0}[config.pipeline]
    if config.name in medmnist.NAMES:
        dataset = None
        if os.path.exists(medmnist.prepared_folder(config.name, config.size, config.tfds_dir)):
            from lsanet_jax.data.sources import tfds_builder

            dataset = tfds_builder.load_prepared(
                config.name, config.size, config.tfds_dir, memory_mb
            )
        if dataset is None:
            dataset = medmnist.load_medmnist(config.name, config.size, config.root, config.url)
        if task and task != dataset.task:
            raise ConfigError(
                f"config.data.task is {task!r}, but {config.name} is {dataset.task!r}: leave it"
                " empty; it is for config.data.name=npz and folder."
            )
        return dataset
    if config.name == ARRAYS:
        raise ConfigError(
            "config.data.name = 'arrays': the run was trained on arrays passed from Python, which "
            "are not stored; call lsanet_jax.fit with the same arrays"
        )
    if config.name in ("npz", "folder") and not config.path:
        raise ConfigError(f"config.data.path is empty, expected the path of the {config.name}.")
    if config.name == "npz":
        dataset = npz.load_npz(config.path, task=task or None)
        duplicates.check(config.path, duplicates.identical_images(dataset), config.duplicates)
        quality.warn_of_odd_images(dataset)
        return dataset
    if config.name == "folder":
        if config.size < config.image_size and config.resize != "pad":
            log.warning(
                "The images are kept as %d x %d pixels (config.data.size), and enlarged to %d for "
                "the network: --config.data.size=%d keeps what they show.",
                *(config.size, config.size, config.image_size, config.image_size),
            )
        return folder.load_folder(
            config.path,
            size=config.size,
            resize="bicubic" if config.resize == "pad" else config.resize,
            memory_mb=memory_mb,
            task=task or None,
            seed=config.split_seed,
            **{name: config[name] for name in _OF_FOLDERS},
        )
    if config.name == "synthetic":
        return synthetic.make_synthetic(
            task=config.synthetic.task,
            num_classes=config.synthetic.num_classes,
            num_train=config.synthetic.num_train,
            num_val=config.synthetic.num_val,
            num_test=config.synthetic.num_test,
            size=config.size,
            channels=config.synthetic.channels,
            seed=config.synthetic.seed,
        )
    raise ConfigError(
        f"config.data.name is {config.name!r}, expected one of {', '.join(_NAMES)}"
        f"{near_matches(str(config.name), _NAMES)}"
    )
