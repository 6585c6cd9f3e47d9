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

import lsanet_jax
from lsanet_jax.errors import WorkdirError
from lsanet_jax.runtime import cli
from lsanet_jax.runtime.files import replacing


def export(
    workdir: str | pathlib.Path,
    output: str | pathlib.Path | None = None,
    checkpoint: str = "selected",
) -> pathlib.Path:
    """Write the inference network of a run (backbone and last classifier) as safetensors.

    Args:
      workdir: folder of the run.
      output: file to write (default: `model.safetensors` in the workdir); replaced if it exists.
      checkpoint: see `inference.load`.

    Returns:
      The file. Its metadata are strings: JSON, save for "format", which PyTorch tools look at.

    Raises:
      WorkdirError: the run cannot be loaded, or the file not be written.
    """
    import safetensors.numpy

    from lsanet_jax.models import pretrained
    from lsanet_jax.runs import trained as inference

    trained = inference.load(workdir, checkpoint)
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
    try:
        with replacing(file) as temporary:
            safetensors.numpy.save_file(tensors, temporary, metadata=metadata)
    except (OSError, safetensors.SafetensorError) as error:
        raise WorkdirError(f"cannot write {file}: {error}") from error
    return file


def main() -> None:
    """Export what --workdir holds."""
    parser = cli.parser(__doc__)
    cli.add_checkpoint(parser)
    parser.add_argument("--output", help="file to write (default: model.safetensors in the run)")
    parser.add_argument("--format", default="safetensors", choices=("safetensors",))
    args = parser.parse_args()
    cli.run(lambda: print(export(args.workdir, args.output, args.checkpoint)))


if __name__ == "__main__":
    main()
