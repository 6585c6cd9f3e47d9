"""The trained network of a run, ready to predict or to export."""

import contextlib
import functools
import importlib
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from lsanet_jax import config as config_lib
from lsanet_jax import keys, models, steps
from lsanet_jax.data import arrays
from lsanet_jax.data import preprocess as preprocessing
from lsanet_jax.data.sources import images as image_files
from lsanet_jax.errors import ConfigError, WorkdirError
from lsanet_jax.evaluation import decisions
from lsanet_jax.models import formulation
from lsanet_jax.runs import chain, manifest, seal
from lsanet_jax.runs.calibrated import read_calibration
from lsanet_jax.runs.checkpoint import Checkpoints, Model
from lsanet_jax.runs.layout import CHECKPOINTS, CONFIG, DIGESTS, MANIFEST, RESULT
from lsanet_jax.runs.workdir import DECODING, read_config, read_manifest, read_result
from lsanet_jax.runtime import strict_json

_LARGEST = 1 << 15  # pixels per side of stored images
BATCH_SIZE = 64  # images that `Run.predict` takes at a time


class TrainedModel(NamedTuple):
    """A network in evaluation mode and what there is to know of it.

    Attributes:
      model: the network.
      config: of its run.
      dataset: of the manifest: name, task, class_names, stored_shape, image_shape, fingerprint.
      epoch: the last finished one; the parameters may be from within the next.
    """

    model: models.DeeplySupervised
    config: ml_collections.ConfigDict
    dataset: dict[str, Any]
    epoch: int

    @property
    def decoding(self) -> dict[str, Any]:
        """The arguments of `data.sources.images.decode` that bring other files to the same form."""
        if recorded := self.dataset.get("decoding"):
            return dict(recorded)
        height, width, channels = self.dataset["stored_shape"]
        if height != width:  # arrays of another shape can only come from an npz file
            height = self.dataset["image_shape"][0]
        data = self.config.data
        # Other sets come resized, from their authors; "nearest" is for enlarging what they stored.
        resize = data.resize if data.name == "folder" else "bicubic"
        form = {"size": height, "resize": resize, "channels": channels, "fit": data.fit}
        return form | {"max_megapixels": data.max_megapixels}

    @property
    def stored_form(self) -> dict[str, Any]:
        """Of `decoding`, the arguments that `data.sources.images.from_array` takes."""
        return {name: self.decoding[name] for name in ("size", "resize", "channels", "fit")}

    def predictor(self, *, all_classifiers: bool = False) -> Callable[..., tuple]:
        """Compile the prediction.

        Args:
          all_classifiers: of all L classifiers, shallow to deep, not only the network's own (l =
            1).

        Returns:
          A function of uint8 images [b, h, w, c] in the form of the training images that returns
          probabilities [l, b, k] (softmax, or of each label of a multi-label task), and beta [b, l]
          if there is attention and all classifiers were asked for, else None.
        """
        prepare = preprocessing.preprocessor(self.config.data)
        multilabel = self.dataset["task"] == "multi-label"
        graphdef, state = nnx.split(self.model)

        def run(state: nnx.State, images: UInt8[Array, "b h w c"]):
            x = prepare(images)
            model = nnx.merge(graphdef, state)
            logits, beta = model(x) if all_classifiers else (model.predict(x)[None], None)
            return jax.nn.sigmoid(logits) if multilabel else jax.nn.softmax(logits), beta

        compiled = jax.jit(run, compiler_options=formulation.compiler_options())
        return functools.partial(compiled, state)


def load(
    workdir: str | pathlib.Path, checkpoint: str = "selected", *, trust_code: bool = False
) -> TrainedModel:
    """Load the network of a run.

    Args:
      workdir: folder of the run.
      checkpoint: "selected", the epoch that a finished run reports, or "last", the newest one.
      trust_code: import the module of a MODULE:CLASS backbone.

    Raises:
      WorkdirError: there is no such run or checkpoint, it is damaged, or it is not finished.
      ConfigError: see `check_trusted`.
    """
    path = pathlib.Path(workdir).absolute()
    config, dataset, result, sealed = read_checked(path)
    config_lib.validate(config)
    check_trusted(path, config.model.backbone, trust_code=trust_code)
    if checkpoint == "selected" and result is None:
        raise WorkdirError(
            f"--workdir={path} holds no {RESULT}: the run is not finished, so no epoch is selected "
            "yet. Resume it, or take the newest checkpoint with --checkpoint=last"
        )

    _check_images(path, dataset, config.data.image_size)

    def create(rngs: nnx.Rngs) -> nnx.Module:
        num_classes = len(dataset["class_names"])
        return models.create_model(config.model, num_classes, tuple(dataset["image_shape"]), rngs)

    mesh = Mesh(np.array(jax.devices()[:1]), ("data",))
    graphdef, *variables = steps.init_model(create, keys.stream(config.seed, "init"), mesh)
    with Checkpoints(path / CHECKPOINTS, writes=False) as checkpoints:
        epoch = result["best_epoch"] if result and checkpoint == "selected" else None
        trained, epoch = _restore(checkpoints, Model(*variables), epoch)
    if sealed and epoch == sealed["weights"]["epoch"]:
        _check_weights(path, trained, sealed["weights"])
    model = nnx.merge(graphdef, *trained)
    model.eval()
    return TrainedModel(model, config, dataset, epoch)


def _check_images(path: pathlib.Path, dataset: dict[str, Any], image_size: int) -> None:
    """Check what the manifest says of the images' form; raises WorkdirError."""
    image, stored = dataset["image_shape"], dataset.get("stored_shape", [image_size] * 2 + [3])
    decoding = dataset.get("decoding", {})
    found = None
    if len(image) != 3 or image[:2] != [image_size] * 2 or image[2] not in (1, 3):
        found = f"image_shape is {image}, and config.data.image_size is {image_size}"
    elif len(stored) != 3 or not 1 <= min(stored) <= max(stored) <= _LARGEST:
        found = f"stored_shape is {stored}"
    elif unknown := decoding.keys() - DECODING.keys():
        found = f"decoding has {', '.join(sorted(unknown))}"
    elif decoding:
        names = ("size", "resize", "channels", "fit")
        try:
            image_files.check_decoding(**{k: decoding[k] for k in names if k in decoding})
        except ConfigError as error:
            found = f"decoding: {error}"
        if decoding["size"] > _LARGEST:
            found = f"decoding.size is {decoding['size']}"
    if found:
        raise WorkdirError(f"{path / MANIFEST} is damaged: {found}; restore it from a copy")


class Checked(NamedTuple):
    """What the files of a run say of its network.

    Attributes:
      config: every field of it.
      dataset: of the manifest.
      result: None if the run is not finished.
      seal: None if the run is not finished, or of an earlier version.
    """

    config: ml_collections.ConfigDict
    dataset: dict[str, Any]
    result: dict[str, Any] | None
    seal: dict[str, Any] | None


def read_checked(path: pathlib.Path) -> Checked:
    """Read what a run says of its network, checked against its seal, or else its chain.

    Raises:
      WorkdirError: a file is missing, or is not what was written; it is named.
    """
    sealed = seal.check(path, (CONFIG, MANIFEST, DIGESTS, RESULT))
    config = read_config(path)
    if sealed is None:
        seal.note_if_old(path)
        if strict_json.exists(path / DIGESTS):
            chain.read(path, cut=not strict_json.exists(path / RESULT))  # which holds the manifest
    result = read_result(path) if strict_json.exists(path / RESULT) else None
    return Checked(config, read_manifest(path)["dataset"], result, sealed)


def check_trusted(path: pathlib.Path, backbone: str, *, trust_code: bool) -> None:
    """Refuse to import code that only a run names, unless the user trusts it.

    A module that is imported already is the user's own; one that is trusted is imported here.

    Raises:
      ConfigError: the backbone is MODULE:CLASS, its module is not imported, and `trust_code` is
        False.
    """
    module, colon, _ = backbone.partition(":")
    if colon and not trust_code and module not in sys.modules:
        raise ConfigError(
            f"--workdir={path} has config.model.backbone = {backbone!r}: to use the network, code "
            f"of the module {module} must run. If you trust it, add --trust_code"
        )
    if colon:
        with contextlib.suppress(ImportError):  # `models` says what is wrong with it.
            importlib.import_module(module)


def _check_weights(path: pathlib.Path, model: Model, sealed: dict[str, Any]) -> None:
    digests = manifest.tensor_digests(model)
    for part in seal.WEIGHTS:
        if manifest.digest_of_part(manifest.part_digests(digests, part)) != sealed[part]:
            raise WorkdirError(
                f"{path / CHECKPOINTS} does not hold the {part} of epoch {sealed['epoch']} that "
                "the run was sealed with: restore the folder from a copy"
            )


def _restore(checkpoints: Checkpoints, model: Model, epoch: int | None) -> tuple[Model, int]:
    """The model after an epoch, or the newest one, and its epoch."""
    if epoch is not None and checkpoints.has_best(epoch):
        return checkpoints.restore_best(epoch, model), epoch
    workdir = checkpoints.folder.parent
    if checkpoints.last_step is None:
        raise WorkdirError(f"--workdir={workdir} holds no checkpoint yet")
    restored, meta = checkpoints.restore_last_model(model)
    if epoch not in (None, meta["epoch"]):
        raise WorkdirError(
            f"--workdir={workdir} holds no checkpoint of epoch {epoch}, which {RESULT} reports: "
            f"restore checkpoints/best/{epoch} or checkpoints/last, or take the newest, of epoch "
            f"{meta['epoch']}, with --checkpoint=last"
        )
    return restored, meta["epoch"]


class Run:
    """A run in its folder.

    Attributes:
      path: the folder.
      config: every field of it.
    """

    def __init__(
        self,
        path: pathlib.Path,
        config: ml_collections.ConfigDict,
        result: dict | None = None,
        *,
        trust_code: bool = False,
    ):
        """Read nothing yet; see `load_run`."""
        self.path = path
        self.config = config
        self._result = result
        self._trust_code = trust_code

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def result(self) -> dict[str, Any] | None:
        """The contents of `result.json`, with scores in [0, 1]; None if it is not finished."""
        if self._result is None:
            self._result = read_checked(self.path).result
        return self._result

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the probabilities."""
        return tuple(read_checked(self.path).dataset["class_names"])

    @functools.cached_property
    def trained(self) -> TrainedModel:
        """The network of the selected epoch; see `load`."""
        return load(self.path, trust_code=self._trust_code)

    @functools.cached_property
    def _predict(self) -> Callable[..., tuple]:
        return self.trained.predictor()

    def predict(
        self,
        images: UInt8[np.ndarray, "n h w"] | UInt8[np.ndarray, "n h w c"],
        *,
        raw: bool = False,
    ) -> Float[np.ndarray, "n k"]:
        """Predict the classes of images, as `lsanet predict` does.

        Args:
          images: grey or RGB, 0 to 255; of one image, `image[None]`. Images of another size or
            colour than the training images are brought to theirs.
          raw: leave the probabilities as the network gives them, even if the run is calibrated.

        Returns:
          A probability for each class; for each label of a multi-label task its own.

        Raises:
          DataError: they are not uint8 images, or only one, without the axis n.
          WorkdirError: the run is not finished, or damaged.
        """
        images = arrays.as_images("predict", "images", images)
        trained = self.trained
        if len(images) == 0:
            return np.zeros((0, len(trained.dataset["class_names"])), np.float32)
        if images.shape[1:] != tuple(trained.dataset["stored_shape"]):
            form = trained.stored_form
            images = np.stack([image_files.from_array(image, **form) for image in images])
        found = []
        for start in range(0, len(images), BATCH_SIZE):
            batch = images[np.minimum(np.arange(start, start + BATCH_SIZE), len(images) - 1)]
            found.append(np.asarray(self._predict(batch)[0][0]))
        own = np.concatenate(found)[: len(images)]
        calibration = None if raw else read_calibration(self.path)
        return own if calibration is None else decisions.calibrated(calibration, own[None])[0]


def load_run(workdir: str | pathlib.Path, *, trust_code: bool = False) -> Run:
    """Open the run in a folder.

    Args:
      workdir: the folder.
      trust_code: import the module of its MODULE:CLASS backbone, if it has one, to predict. One
        that is imported already needs no such trust.

    Raises:
      WorkdirError: it holds no run, or a damaged one.
    """
    path = pathlib.Path(workdir).absolute()
    return Run(path, read_checked(path).config, trust_code=trust_code)
