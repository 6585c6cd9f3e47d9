"""Take the network of a run elsewhere: to PyTorch, or as a program that needs neither it nor JAX.

Examples:
  lsanet export --workdir=runs/r18 --output=r18.safetensors
  lsanet export --workdir=runs/r18 --format=onnx
  lsanet export --workdir=runs/r18 --format=stablehlo

safetensors holds the weights under torchvision's names. For a residual network or a DenseNet with
the imagenet stem, colour images and no attention modules, torchvision's model with as many classes
loads the file with strict=True; wrn50 is its wide_resnet50_2, resnext50 its resnext50_32x4d,
resnext101 its resnext101_32x8d, and vgg16 its vgg16_bn. For VGG give it the classifier that ours
has first:
  model.avgpool = torch.nn.AdaptiveAvgPool2d(1); model.classifier = torch.nn.Linear(512, classes)

onnx and stablehlo map uint8 images [batch, height, width, channels], of the size of the training
images and of any number, to what `predict` gives: preprocessing and calibration are inside. The
file is tried on real images, and the largest difference is printed. onnx needs two packages (pip
install onnx onnxruntime), stablehlo one (pip install flatbuffers).

The metadata say what the images must look like, what the classes are, and at which probability to
decide. They are in the file; those of stablehlo are beside it, in FILE.json.
"""

import contextlib
import hashlib
import importlib
import json
import logging
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

import lsanet_jax
from lsanet_jax.errors import ConfigError, LSANetError, WorkdirError
from lsanet_jax.runtime import cli
from lsanet_jax.runtime.files import json_text, replacing, write_atomically

log = logging.getLogger(__name__)

FORMATS = ("safetensors", "onnx", "stablehlo")
TOLERANCE = 1e-4
"""The largest difference between what a file and `predict` give, in probability."""

Program = tuple[Callable, Any]
"""A function of images, and the form of a batch of any size."""

_TRIED = 64  # images
_INPUT, _OUTPUT = "images", "probabilities"


def export(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    checkpoint: str = "selected",
    *,
    format: str = "safetensors",
    raw: bool = False,
    sensitivity: float | None = None,
    specificity: float | None = None,
    coverage: float | None = None,
    trust_code: bool = False,
) -> pathlib.Path:
    """Write the inference network of a run: backbone and last classifier.

    Args:
      workdir: folder of the run.
      output: file to write (default: `model.FORMAT` in the workdir); replaced if it exists.
      checkpoint: see `runs.trained.load`.
      format: one of `FORMATS`.
      raw: leave out the calibration.
      sensitivity: that the operating points reach on the validation split.
      specificity: the same.
      coverage: of the sets.
      trust_code: see `runs.trained.load`.

    Returns:
      The file. A safetensors file's metadata are strings: JSON, save for "format", which PyTorch
      tools look at.

    Raises:
      WorkdirError: the run cannot be loaded, or the file not be written.
      ConfigError: the format cannot hold the network, or a package is missing.
    """
    from lsanet_jax.evaluation.thresholds import make_rule
    from lsanet_jax.runs import trained as inference
    from lsanet_jax.runs.ensemble import Panel
    from lsanet_jax.runs.workdir import check_output

    if output:
        check_output(output)
    trained = inference.load(workdir, checkpoint, trust_code=trust_code)
    path, rule = pathlib.Path(workdir), make_rule(sensitivity, specificity)
    calibration = Panel([path], rule, coverage, raw=raw or checkpoint == "last").joint
    metadata = describe(trained, path, calibration)
    file = pathlib.Path(output or path / f"model.{format}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if format == "safetensors":
            _write_safetensors(file, trained, metadata)
        else:
            program = inference_program(trained, calibration)
            made = _onnx(program, metadata) if format == "onnx" else _stablehlo(program)
            content, loaded = made
            if loaded is None:
                log.warning("onnxruntime is not installed: %s was not tried", file)
            else:
                _try(file, loaded, trained, calibration)
            with replacing(file) as temporary:
                temporary.write_bytes(content)
            if format == "stablehlo":
                write_atomically(file.with_name(f"{file.name}.json"), json_text(metadata, indent=1))
    except OSError as error:
        raise WorkdirError(f"cannot write {file}: {error}") from error
    return file


def describe(trained, workdir: pathlib.Path, calibration) -> dict[str, Any]:
    """What a user of the file has to know, as JSON has it."""
    from lsanet_jax.evaluation import decisions
    from lsanet_jax.runs.layout import MANIFEST, RESULT

    config, dataset, result = trained.config, trained.dataset, workdir / RESULT
    if "stored_shape" not in dataset:
        raise WorkdirError(f"{workdir / MANIFEST}: dataset.stored_shape is missing: train it again")
    found = {
        "classes": dataset["class_names"],
        "task": dataset["task"],
        "dataset": dataset["name"],
        "stored_size": dataset["stored_shape"][:2],
        "stored_channels": dataset["stored_shape"][2],
        "decoding": trained.decoding,
        "image_size": dataset["image_shape"][:2],
        "channels": dataset["image_shape"][2],
        "resize": config.data.resize,
        "mean": config.data.mean,
        "std": config.data.std,
        "backbone": config.model.backbone,
        "stem": config.model.stem,
        "attention": config.model.attention,
        "norm": config.model.norm,
        "objective": config.model.objective,
        "seed": config.seed,
        "epoch": trained.epoch,
        "run_sha256": hashlib.sha256(result.read_bytes()).hexdigest() if result.exists() else None,
        "lsanet_jax": lsanet_jax.__version__,
    }
    if calibration is not None:
        stored = decisions.to_json(calibration)
        found["temperature"] = stored["temperatures"][-1]
        names = ("operating_points", "rule", "coverage", "least_probability", "too_rare")
        found |= {name: stored[name] for name in names}
    return found


def inference_program(trained, calibration) -> Program:
    """The prediction as a function of uint8 images, and the form of a batch of any size.

    It is traced in plain convolutions, whatever this machine's backend is fast at, and in float32.
    """
    import jax
    import jax.numpy as jnp
    from flax import nnx
    from jax import export as jax_export

    from lsanet_jax.data import preprocess as preprocessing
    from lsanet_jax.evaluation.calibration import LARGEST_LOGIT

    prepare = preprocessing.preprocessor(trained.config.data)
    multilabel = trained.dataset["task"] == "multi-label"
    temperature = np.ones(1) if calibration is None else calibration.temperatures[-1]
    graphdef, state = nnx.split(trained.model)

    def run(images):
        model = nnx.merge(graphdef, state)
        model.dtype = jnp.float32
        logits = model.predict(prepare(images))
        if multilabel and np.any(temperature != 1):  # as `calibration.apply_temperature` does
            logits = jnp.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT)
        logits = logits / jnp.asarray(temperature, jnp.float32)
        return jax.nn.sigmoid(logits) if multilabel else jax.nn.softmax(logits)

    (batch,) = jax_export.symbolic_shape("batch")
    return run, jax.ShapeDtypeStruct((batch, *trained.dataset["stored_shape"]), jnp.uint8)


def _write_safetensors(file: pathlib.Path, trained, metadata: dict) -> None:
    from lsanet_jax.models import pretrained

    strings = {"format": "pt"} | {k: json.dumps(v) for k, v in metadata.items()}
    tensors = pretrained.torchvision_tensors(trained.model)
    content = to_bytes(tensors, strings)
    with replacing(file) as temporary:
        temporary.write_bytes(content)


def _onnx(program: Program, metadata: dict) -> tuple[bytes, Callable | None]:
    """The content of the file, and what runs it if onnxruntime is installed."""
    try:
        onnx: Any = importlib.import_module("onnx")
    except ImportError as error:
        raise ConfigError(
            "--format=onnx needs the package onnx: pip install onnx onnxruntime"
        ) from error
    from lsanet_jax import onnx_graph

    with plain_formulation():
        model = onnx_graph.write(program[0], program[1], _INPUT, _OUTPUT)
    onnx.helper.set_model_props(model, {k: json.dumps(v) for k, v in metadata.items()})
    content = model.SerializeToString()
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError:
        return content, None
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda images: session.run([_OUTPUT], {_INPUT: images})[0]


def _stablehlo(program: Program) -> tuple[bytes, Callable]:
    """The content of the file, which has no metadata, and what runs it."""
    import jax
    from jax import export as jax_export

    try:
        importlib.import_module("flatbuffers")
    except ImportError as error:
        raise ConfigError(
            "--format=stablehlo needs the package flatbuffers: pip install flatbuffers"
        ) from error
    run, spec = program
    with plain_formulation():
        exported = jax_export.export(jax.jit(run), platforms=("cpu", "cuda", "tpu"))(spec)
    content = exported.serialize()
    return bytes(content), jax_export.deserialize(content).call


@contextlib.contextmanager
def plain_formulation() -> Iterator[None]:
    """Trace convolutions as they are, not as products that this machine's backend is fast at."""
    from lsanet_jax.models.formulation import VARIABLE

    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "gpu"
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _try(file: pathlib.Path, loaded: Callable, trained, calibration) -> None:
    """Compare a file with `predict` on images of the run, and say how far they are apart.

    Raises:
      ConfigError: they differ by more than rounding.
    """
    from lsanet_jax.evaluation import decisions

    images, source = _images(trained)
    expected = np.asarray(trained.predictor()(images)[0])
    if calibration is not None:
        expected = decisions.calibrated(calibration, expected)
    found: Float[np.ndarray, "n k"] = np.asarray(loaded(images))
    largest = float(np.abs(found - expected[-1]).max())
    log.info(
        "%s differs from predict by %.1e at most, on %d %s", file, largest, len(images), source
    )
    if largest > TOLERANCE and trained.config.model.dtype == "float32":
        raise ConfigError(
            f"{file} was not written: it would differ from predict by {largest:.1e}, more than "
            f"{TOLERANCE:g}. Use predict, or another --format"
        )


def _images(trained) -> tuple[UInt8[np.ndarray, "n h w c"], str]:
    """Test images of the run, or if its data cannot be read random ones, and what they are."""
    from lsanet_jax import predict

    try:
        images = predict.own_data(trained, "test").images
        return np.asarray(images[np.arange(min(_TRIED, len(images)))]), "test images"
    except LSANetError as error:
        log.warning("the run's own data cannot be read: %s", error)
    shape = (_TRIED, *trained.dataset["stored_shape"])
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8), "random images"


def to_bytes(tensors: dict[str, np.ndarray], metadata: dict[str, str]) -> bytes:
    """The content of a safetensors file, the same for the same tensors and metadata.

    The library itself writes the metadata in another order each time.
    """
    import safetensors.numpy

    content = safetensors.numpy.save(tensors, metadata)
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # The tensors begin at a multiple of 8.
    return len(text).to_bytes(8, "little") + text + content[8 + size :]


def main() -> None:
    """Export what --workdir holds."""
    parser = cli.parser(__doc__)
    cli.add_checkpoint(parser)
    help = "file to write (default: model.FORMAT in the run)"
    parser.add_argument("--output", type=cli.path, help=help)
    parser.add_argument("--format", default="safetensors", choices=FORMATS)
    parser.add_argument("--raw", action="store_true", help="leave out the calibration")
    cli.add_operating_point(parser)
    args = parser.parse_args()
    cli.run(lambda: print(export(**vars(args))))


if __name__ == "__main__":
    main()
