"""The twelve MedMNIST-2D sets as one TensorFlow Datasets builder, without TensorFlow.

A set that was prepared (`lsanet data prepare`) lies in
`DATA_DIR/medmnist2d/retinamnist_28/1.0.0/` as array_record files, which Grain and
`tfds.builder_from_directory(folder).as_data_source(split="train")` read by random access, without
this package. Examples are in the order of the official file; the splits are `dataset.SPLITS`.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import logging
import math
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tqdm import tqdm

from lsanet_jax.data.dataset import SPLITS, Dataset, Split
from lsanet_jax.data.lazy import LazyImages
from lsanet_jax.data.sources import medmnist
from lsanet_jax.data.sources.medmnist import prepared_folder
from lsanet_jax.errors import DataError
from lsanet_jax.runtime import strict_json
from lsanet_jax.runtime.files import lock

log = logging.getLogger(__name__)

_SHARD_BYTES = 1 << 28  # Of pixels; TFDS holds the encoded images of one shard in memory.
_READ_EXAMPLES = 1024  # At a time.
_CITATION = """
@article{medmnistv2,
  title={MedMNIST v2 -- A large-scale lightweight benchmark for 2D and 3D biomedical image
    classification},
  author={Yang, Jiancheng and Shi, Rui and Wei, Donglai and Liu, Zequan and Zhao, Lin and
    Ke, Bilian and Pfister, Hanspeter and Ni, Bingbing},
  journal={Scientific Data},
  volume={10},
  number={1},
  pages={41},
  year={2023}
}
"""


@dataclasses.dataclass(eq=False)
class Config(tfds.core.BuilderConfig):
    """One set at one size.

    Attributes:
        set_name: one of `medmnist.NAMES`.
        size: pixels per side, one of `medmnist.SIZES`.
    """

    set_name: str = ""
    size: int = 28


# Shard by shard, since `GeneratorBasedBuilder` sorts the examples of a split, and does that by
# means of TensorFlow's files when they exceed a gigabyte.
class MedMNIST2D(tfds.core.ShardBasedBuilder):
    """Builder of the MedMNIST-2D sets, from the official files only.

    Features: `image` (uint8, PNG); `label`, a ClassLabel, or for multi-label a vector of 0 and 1
    whose names are in the feature's documentation and in `info.metadata["class_names"]`. The
    metadata also say the task, the url and md5 of the source file, and `Dataset.fingerprint`.
    """

    name = medmnist.PREPARED_NAME
    VERSION = tfds.core.Version(medmnist.PREPARED_VERSION)
    BUILDER_CONFIGS: ClassVar[list[Config]] = [
        Config(
            name=f"{set_name}_{size}",
            description=f"{set_name} at {size}x{size} pixels",
            set_name=set_name,
            size=size,
        )
        for set_name in medmnist.NAMES
        for size in medmnist.SIZES
    ]
    # TFDS downloads nothing here, so it needs no checksums; looking for them takes a package that
    # 4.9.10 does not ask for (importlib_resources).
    url_infos = None

    def __init__(self, *, root: str = "", url: str = "", **kwargs):
        """Makes the builder.

        Args:
            root: folder of the source files, as for `medmnist.load_medmnist`.
            url: base URL to download a missing one from in place of MedMNIST's own.
            **kwargs: of `tfds.core.DatasetBuilder`, such as `config` and `data_dir`.
        """
        self._root, self._url = root, url
        super().__init__(**{"file_format": "array_record"} | kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        config = self.builder_config
        assert isinstance(config, Config)  # One of BUILDER_CONFIGS.
        facts = medmnist.info(config.set_name)
        return tfds.core.DatasetInfo(
            builder=self,
            description=facts["description"],
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(
                        shape=(config.size, config.size, facts["n_channels"]),
                        dtype=np.uint8,
                        encoding_format="png",
                    ),
                    "label": _label_feature(facts),
                }
            ),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
            homepage="https://medmnist.com",
            license=facts["license"],
            citation=_CITATION,
            metadata=tfds.core.MetadataDict(_source(config.set_name, config.size)),
        )

    def _shard_iterators_per_split(self, dl_manager) -> dict:
        config, metadata = self.builder_config, self.info.metadata
        assert isinstance(config, Config) and metadata is not None  # As `_info` makes them.
        dataset = medmnist.load_medmnist(config.set_name, config.size, self._root, self._url)
        metadata.update(
            task=dataset.task,
            class_names=list(dataset.class_names),
            fingerprint=dataset.fingerprint,
        )
        return {key: _shards(dataset.split(key), f"{config.name} {key}") for key in SPLITS}


def prepare(
    name: str, size: int, *, root: str = "", url: str = "", data_dir: str = ""
) -> pathlib.Path:
    """Writes a MedMNIST-2D set as array_record files, unless that has been done.

    The folder appears whole or not at all. Of several processes one writes and the others wait.

    Args:
        name: one of `medmnist.NAMES`.
        size: pixels per side, one of `medmnist.SIZES`.
        root: folder of the source files; default $MEDMNIST_ROOT, else ~/.medmnist. A missing file
            is downloaded to it.
        url: base URL to download from in place of MedMNIST's own; the file name follows it.
        data_dir: folder of prepared sets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.

    Returns:
        The folder, for `tfds.builder_from_directory`.

    Raises:
        ConfigError: there is no such set or size.
        DataError: the source file cannot be had, or the set cannot be written.
    """
    folder = prepared_folder(name, size, data_dir)
    try:
        if not folder.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with (folder.parent / ".lock").open("ab") as file:
                lock(file, f"prepares {folder.parent}")
                if not folder.exists():
                    _write(folder, MedMNIST2D(root=root, url=url, **_place(name, size, data_dir)))
    except (OSError, RuntimeError) as error:  # For a full disk, array_record has the latter.
        raise DataError(
            f"{folder}: cannot be written ({error}); nothing was kept. Make room there and see that"
            " it may be written to, or choose another folder with --data_dir or $TFDS_DATA_DIR."
        ) from error
    return folder


def load_prepared(
    name: str, size: int, data_dir: str = "", memory_mb: float = math.inf
) -> Dataset | None:
    """The `Dataset` of `medmnist.load_medmnist`, from its prepared set, or None without one.

    Args:
        name: one of `medmnist.NAMES`.
        size: pixels per side, one of `medmnist.SIZES`.
        data_dir: folder of prepared sets; default $TFDS_DATA_DIR, else ~/tensorflow_datasets.
        memory_mb: if the decoded images exceed so many MiB they are not held, but decoded whenever
            they are used.

    Raises:
        ConfigError: there is no such set or size.
        DataError: the prepared set is damaged, or was made from another file.
    """
    folder = prepared_folder(name, size, data_dir)
    try:
        if not folder.exists():
            return None
        return _read(name, size, folder, memory_mb)
    except (MemoryError, PermissionError) as error:  # Not the set's fault.
        raise DataError(
            f"{folder}: cannot be read ({type(error).__name__}: {error}); expected a folder"
            " that is readable and fits into memory."
        ) from error
    except Exception as error:  # Whatever the parsers make of arbitrary bytes.
        place = f" --data_dir={data_dir}" if data_dir else ""
        raise DataError(
            f"{folder}: the prepared set is damaged, or an outdated one"
            f" ({type(error).__name__}: {error}). Delete this folder and prepare it again:"
            f" lsanet data prepare --name={name} --size={size}{place}"
        ) from error


def _place(name: str, size: int, data_dir: str) -> dict:
    """The arguments of a builder that say what it writes, and where."""
    version = prepared_folder(name, size, data_dir)
    return {"config": version.parent.name, "data_dir": version.parents[2]}


def _label_feature(facts: dict) -> tfds.features.FeatureConnector:
    names = [facts["label"][str(index)] for index in range(len(facts["label"]))]
    if not facts["task"].startswith("multi-label"):
        return tfds.features.ClassLabel(names=names)
    return tfds.features.Tensor(
        shape=(len(names),), dtype=np.int32, doc=f"0 or 1 for each of: {', '.join(names)}"
    )


def _source(name: str, size: int) -> dict[str, str]:
    """The url and md5 of the official file."""
    facts = medmnist.info(name)
    suffix = "" if size == 28 else f"_{size}"
    return {"url": facts[f"url{suffix}"], "md5": facts[f"MD5{suffix}"]}


def _shards(split: Split, title: str) -> list:
    """Functions that generate the examples of one file each, in order."""
    count = -(-split.images.nbytes // _SHARD_BYTES)
    bounds = np.linspace(0, len(split), count + 1).astype(int)

    def generate(start: int, stop: int) -> Iterator[tuple[int, dict]]:
        for index in tqdm(range(start, stop), desc=title, unit=" images", disable=None):
            yield index, {"image": _png(split.images[index]), "label": split.labels[index]}

    return [
        lambda start=start, stop=stop: generate(start, stop)
        for start, stop in itertools.pairwise(bounds)
    ]


def _png(image: np.ndarray) -> bytes:
    # TFDS itself would encode an array by means of TensorFlow.
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "png")
    return file.getvalue()


def _write(folder: pathlib.Path, builder: MedMNIST2D) -> None:
    log.info("writing %s", folder)
    for left in folder.parent.glob("incomplete.*"):  # By a process that was killed.
        shutil.rmtree(left)
    # TFDS writes to such a folder, and renames it in the end; meanwhile it prints that it downloads
    # "Unknown size".
    with contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )


def _read(name: str, size: int, folder: pathlib.Path, memory_mb: float) -> Dataset:
    shape = {"md5": str, "task": str, "class_names": [str], "fingerprint": str}
    metadata = strict_json.read_json(folder / "metadata.json", shape)
    md5 = _source(name, size)["md5"]
    if metadata["md5"] != md5:
        raise ValueError(f"made from a file with md5 {metadata['md5']}, expected {md5}")
    records = {key: _Records(folder, key) for key in SPLITS}
    needed = sum(len(reader.source) * math.prod(reader.shape) for reader in records.values())
    held = needed <= memory_mb * 2**20
    train, val, test = (_read_split(records[key], held) for key in SPLITS)
    class_names = tuple(metadata["class_names"])
    dataset = Dataset(name, metadata["task"], class_names, train, val, test, str(folder))
    if dataset.fingerprint != metadata["fingerprint"]:
        raise ValueError(
            f"found fingerprint {dataset.fingerprint}, expected {metadata['fingerprint']}"
        )
    return dataset


class _Records:
    """Reads the images of one split by their positions; every process opens the files itself."""

    def __init__(self, folder: pathlib.Path, key: str):
        self._folder, self._key = folder, key

    def __getstate__(self) -> dict:
        return {"_folder": self._folder, "_key": self._key}

    @functools.cached_property
    def source(self):
        """The examples, images as PNG files."""
        # The images are decoded here, since TFDS decodes with OpenCV or Pillow, whichever is there.
        decoders = {"image": tfds.decode.SkipDecoding()}
        return self._builder.as_data_source(self._key, decoders=decoders)

    @functools.cached_property
    def shape(self) -> tuple[int, int, int]:
        """[h, w, c] of an image."""
        return self._builder.info.features["image"].shape

    @functools.cached_property
    def _builder(self) -> Any:  # A DatasetBuilder, of which TFDS declares too little.
        _check_features(self._folder / "features.json")
        return tfds.builder_from_directory(self._folder)

    def decode(self, example: dict) -> np.ndarray:
        """The image of an example, [h, w, c]."""
        with Image.open(io.BytesIO(example["image"])) as image:
            return np.asarray(image).reshape(self.shape)

    def __call__(self, position: int) -> np.ndarray:
        """The image at a position; raises DataError if it cannot be read."""
        try:
            return self.decode(self.source[position])
        except Exception as error:  # Whatever the parsers make of arbitrary bytes.
            raise DataError(
                f"{self._folder}: image {position} of {self._key} cannot be read"
                f" ({type(error).__name__}: {error}); delete this folder and prepare it again."
            ) from error


def _check_features(file: pathlib.Path) -> None:
    """Refuse features other than TFDS's own: it would import whatever module the file names."""
    level = [strict_json.read_json(file)]
    while level:
        value = level.pop()
        if isinstance(value, dict):
            name = value.get("pythonClassName", value.get("python_class_name", ""))
            if name and not str(name).startswith("tensorflow_datasets.core.features."):
                raise ValueError(f"{file.name} names the class {name}, which we do not write")
        level += value.values() if isinstance(value, dict) else value
        level = [inner for inner in level if isinstance(inner, dict | list)]


def _read_split(records: _Records, held: bool) -> Split:
    count = len(records.source)
    images = LazyImages(records, range(count), records.shape)
    if held:
        images = np.empty(images.shape, np.uint8)
    labels = []
    for start in range(0, count, _READ_EXAMPLES):
        indices = range(start, min(start + _READ_EXAMPLES, count))
        for index, example in zip(indices, records.source.__getitems__(indices), strict=True):
            if isinstance(images, np.ndarray):
                images[index] = records.decode(example)
            labels.append(example["label"])
    return Split(images, np.asarray(labels, np.int32))
