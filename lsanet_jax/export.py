"""Write the inference network of a run under torchvision's names.

Example:
  python -m lsanet_jax.export --workdir=runs/r18 --output=r18.safetensors

For a residual network or a DenseNet with the imagenet stem, torchvision's model of that name, with
as many classes, loads the file with strict=True. For VGG give it the classifier that ours has
first:
  model.avgpool = torch.nn.AdaptiveAvgPool2d(1); model.classifier = torch.nn.Linear(512, classes)
The metadata of the file say what the images must look like and what the classes are.
"""

import json
import pathlib

import numpy as np

import lsanet_jax
from lsanet_jax.errors import WorkdirError
from lsanet_jax.runtime import cli
from lsanet_jax.runtime.files import replacing


def export(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    checkpoint: str = "selected",
    *,
    trust_code: bool = False,
) -> pathlib.Path:
    """Write the inference network of a run (backbone and last classifier) as safetensors.

    Args:
      workdir: folder of the run.
      output: file to write (default: `model.safetensors` in the workdir); replaced if it exists.
      checkpoint: see `inference.load`.
      trust_code: see `inference.load`.

    Returns:
      The file. Its metadata are strings: JSON, save for "format", which PyTorch tools look at.

    Raises:
      WorkdirError: the run cannot be loaded, or the file not be written.
    """
    from lsanet_jax.models import pretrained
    from lsanet_jax.runs import trained as inference

    trained = inference.load(workdir, checkpoint, trust_code=trust_code)
    config, dataset = trained.config, trained.dataset
    metadata = {
        "classes": dataset["class_names"],
        "task": dataset["task"],
        "dataset": dataset["name"],
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
        "lsanet_jax": lsanet_jax.__version__,
    }
    metadata = {"format": "pt"} | {k: json.dumps(v) for k, v in metadata.items()}
    file = pathlib.Path(output or pathlib.Path(workdir) / "model.safetensors")
    tensors = pretrained.torchvision_tensors(trained.model)
    content = to_bytes(tensors, metadata)
    try:
        with replacing(file) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise WorkdirError(f"cannot write {file}: {error}") from error
    return file


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
    parser.add_argument("--output", help="file to write (default: model.safetensors in the run)")
    parser.add_argument("--format", default="safetensors", choices=("safetensors",))
    args = parser.parse_args()
    cli.run(
        lambda: print(
            export(args.workdir, args.output, args.checkpoint, trust_code=args.trust_code)
        )
    )


if __name__ == "__main__":
    main()
