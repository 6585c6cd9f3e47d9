"""Where a run's first weights come from: `config.model.init_from`, a file, the hub or another run.

The weights say how the images were normalised that they were trained on, if they are timm's, of a
file that `lsanet export` wrote, or of a run; `settled` puts that into the config.
"""

import json
import logging
import os
import pathlib
from typing import Any, NamedTuple, cast

import ml_collections
import numpy as np
import safetensors
from flax import nnx

from lsanet_jax import data as data_lib
from lsanet_jax.config import FIELDS
from lsanet_jax.data.dataset import Dataset
from lsanet_jax.errors import DataError, LSANetError
from lsanet_jax.models import hub, pretrained
from lsanet_jax.runs import manifest, trained
from lsanet_jax.runs.layout import CONFIG, RESULT
from lsanet_jax.runs.workdir import read_config
from lsanet_jax.runtime import strict_json

log = logging.getLogger(__name__)


class Normalisation(NamedTuple):
    """What is subtracted from images in [0, 1], and what they are divided by then."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Weights(NamedTuple):
    """Weights that were found, not read yet.

    Attributes:
      place: a safetensors file, or the folder of a run.
      origin: for the manifest: of the hub, `repo`, `commit` and `file`; of a run, `parent` and the
        `last_digest` of its chain. Nothing of a file.
      normalisation: of the images that they were trained on; None if they do not say.
    """

    place: pathlib.Path
    origin: dict[str, Any]
    normalisation: Normalisation | None

    def sha256(self) -> str:
        """SHA-256 in hex: of the file, or of the digests of a run's selected network.

        Raises:
          LSANetError: it cannot be read.
        """
        if not self.place.is_dir():
            return manifest.weights_sha256(self.place)
        digests = manifest.tensor_digests(nnx.state(trained.load(self.place).model))
        return manifest.sha256(json.dumps(digests).encode())

    def put_into(self, model: nnx.Module) -> list[str]:
        """Start a network from them, in place; see `pretrained.init_from`.

        Of a run also the auxiliary classifiers and the attention over layers, if they fit.

        Returns:
          What was left at its initialisation and why, a sentence each.
        """
        if not self.place.is_dir():
            return pretrained.init_from(model, self.place)
        parent = trained.load(self.place).model
        tensors = pretrained.torchvision_tensors(parent)
        notes = pretrained.start_from(model, tensors, source=str(self.place))
        return notes + pretrained.take_training_parts(model, parent, source=str(self.place))


def find(reference: str, origin: dict[str, Any] | None = None) -> Weights:
    """Find weights, and download them if need be.

    Args:
      reference: `config.model.init_from`.
      origin: what the manifest of a run that began with them recorded; the hub's is that commit.

    Raises:
      LSANetError: they are not there.
    """
    if reference.startswith(hub.PREFIX):
        wanted = hub.Reference.parse(as_recorded(reference, origin))
        got = hub.download(wanted)
        log.info("weights: %s, commit %s", wanted, got.commit)
        origin = {"repo": wanted.repo, "commit": got.commit, "file": wanted.file}
        of_timm = got.about.get("pretrained_cfg", got.about)
        return Weights(got.file, origin, _normalisation(of_timm) or _of_file(got.file))
    place = pathlib.Path(reference)
    if place.is_dir():
        if not (place / RESULT).exists():
            raise DataError(
                f"config.model.init_from = {reference}: the folder holds no finished run; give one "
                "that is, or a .safetensors file"
            )
        run = trained.load_run(place)
        data, result = run.config.data, run.result or {}
        origin = {"parent": str(place), "last_digest": result.get("last_digest")}
        return Weights(place, origin, Normalisation(tuple(data.mean), tuple(data.std)))
    return Weights(place, {}, _of_file(place))


def as_recorded(reference: str, origin: dict[str, Any] | None) -> str:
    """`config.model.init_from` with the commit that a manifest recorded; a branch may move on."""
    if not reference.startswith(hub.PREFIX) or "commit" not in (origin or {}):
        return reference
    return str(hub.Reference.parse(reference)._replace(revision=cast(Any, origin)["commit"]))


def settled(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path
) -> ml_collections.ConfigDict:
    """A copy of a config that normalises images as its weights want it.

    Only if `data.mean` and `data.std` are at their defaults; others are kept, with a warning. In a
    folder that has a run of these weights already, its config says what they want.

    Args:
      config: of the run.
      workdir: its folder.

    Raises:
      LSANetError: the weights are not there.
    """
    config = config.copy_and_resolve_references()
    reference = config.model.init_from
    if not reference:
        return config
    wanted = _of_run(pathlib.Path(workdir), reference) or find(reference).normalisation
    now = Normalisation(tuple(config.data.mean), tuple(config.data.std))
    if wanted is None:
        log.info(
            "config.model.init_from does not say how to normalise images: mean %s, std %s", *now
        )
        return config
    if not config.data.as_rgb:  # its images may be grey
        wanted = Normalisation(*((float(np.mean(values)),) for values in wanted))
    if now == wanted:
        return config
    default = Normalisation(*cast(Any, [FIELDS["data.mean"].default, FIELDS["data.std"].default]))
    if now != default:
        log.warning(
            "config.data.mean = %s and config.data.std = %s, but config.model.init_from was "
            "trained with %s and %s",
            *now,
            *wanted,
        )
        return config
    log.info("images are normalised as the weights want it: mean %s, std %s", *wanted)
    config.data.mean, config.data.std = wanted
    return config


def _of_run(workdir: pathlib.Path, reference: str) -> Normalisation | None:
    """What the config of the run in a folder says, if it began with these weights."""
    if not (workdir / CONFIG).exists():
        return None
    stored = read_config(workdir)
    same = stored.model.init_from == reference
    return Normalisation(tuple(stored.data.mean), tuple(stored.data.std)) if same else None


def _of_file(file: pathlib.Path) -> Normalisation | None:
    """What the metadata of a safetensors file say; None also if it cannot be read."""
    if not os.path.isfile(file):  # opening a pipe would wait for its other end
        return None
    try:
        with safetensors.safe_open(file, "numpy") as stream:
            metadata = stream.metadata() or {}
        return _normalisation({name: json.loads(metadata[name]) for name in ("mean", "std")})
    except (
        *(OSError, ValueError, KeyError, TypeError, RecursionError),
        safetensors.SafetensorError,
    ):
        return None


def _normalisation(about: dict[str, Any]) -> Normalisation | None:
    """`mean` and `std`, if both are lists of one or three numbers."""
    try:
        strict_json.check_shape(about, {"mean": [float], "std": [float]})
        found = Normalisation(*(tuple(map(float, about[name])) for name in ("mean", "std")))
    except (ValueError, OverflowError):
        return None
    return found if len(found.mean) == len(found.std) in (1, 3) else None


def warn_of_seen_images(
    place: pathlib.Path, config: ml_collections.ConfigDict, dataset: Dataset
) -> None:
    """Log validation and test images that a run it begins with, or one before that, trained on.

    Only of folders, whose splits are drawn, and if the images lie where they lay then.
    """
    tested = {name for key in ("val", "test") for name in dataset.split(key).names}
    seen: set[str] = set()
    known: set[pathlib.Path] = set()
    while tested and strict_json.exists(place / RESULT) and place.resolve() not in known:
        known.add(place.resolve())
        parent = read_config(place)
        if (
            parent.data.name == config.data.name == "folder"
            and parent.data.path == config.data.path
        ):
            try:
                seen |= tested & {*data_lib.load_again(parent.data, parent.seed).train.names}
            except LSANetError as error:
                log.warning("whether %s was trained on images of val or test: %s", place, error)
        place = pathlib.Path(parent.model.init_from or place)
    if seen:
        log.warning(
            "config.model.init_from: that run was trained on %d of the %d validation and test "
            "images, such as %s: their scores say little of new ones. Draw the splits as it did",
            *(len(seen), len(tested), min(seen)),
        )
