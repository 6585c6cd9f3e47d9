"""Prepare a MedMNIST-2D set as a TensorFlow Datasets folder (array_record), without TensorFlow.

Example:
  python -m lsanet_jax.data prepare --name=retinamnist --size=28

Prints the folder. Grain reads it by random access, and so does whoever has tensorflow-datasets:
  tfds.builder_from_directory(folder).as_data_source(split="train")  # or "val", "test"
Training needs no prepared set: it reads the npz file itself.
"""

import argparse

from lsanet_jax.data.sources import medmnist
from lsanet_jax.runtime import cli


def main() -> None:
    """Run the subcommand."""
    args = _parser().parse_args()
    cli.run(lambda: _prepare(args))


def _prepare(args: argparse.Namespace) -> None:
    from lsanet_jax.data.sources import tfds_builder

    print(
        tfds_builder.prepare(
            args.name, args.size, root=args.root, url=args.url, data_dir=args.data_dir
        )
    )


def _parser() -> argparse.ArgumentParser:
    options = {
        "description": __doc__,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
        "allow_abbrev": False,
    }
    parser = argparse.ArgumentParser(prog=cli.program("lsanet_jax.data"), **options)
    commands = parser.add_subparsers(dest="command", required=True, metavar="prepare")
    prepare = commands.add_parser("prepare", help="write a set, unless that was done", **options)
    prepare.add_argument(
        "--name",
        required=True,
        choices=medmnist.NAMES,
        metavar="NAME",
        help=f"one of {', '.join(medmnist.NAMES)}",
    )
    prepare.add_argument(
        "--size",
        type=int,
        default=28,
        choices=medmnist.SIZES,
        help="pixels per side (default: %(default)s)",
    )
    prepare.add_argument(
        "--root",
        default="",
        help="folder of the npz files (default: $MEDMNIST_ROOT, else ~/.medmnist); a missing one"
        " is downloaded to it",
    )
    prepare.add_argument(
        "--url", default="", help="base URL to download from in place of MedMNIST's own"
    )
    prepare.add_argument(
        "--data_dir",
        default="",
        help="folder to write to (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )
    return parser


if __name__ == "__main__":
    main()
