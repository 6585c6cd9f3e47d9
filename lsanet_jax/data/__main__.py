"""Check a data set before training on it, or prepare a MedMNIST set.

Examples:
  lsanet data check my_images
  lsanet data check my_images --csv=labels.csv --output=check
  lsanet data prepare --name=retinamnist --size=28

check prints what is there, what was left out and what is wrong (then the exit code is 1), and
writes a page with pictures, check.html, and check.md; nothing goes into the folder of the images.
prepare writes a MedMNIST-2D set as a TensorFlow Datasets folder (array_record), without TensorFlow,
and prints the folder. Grain reads it by random access, and so does whoever has tensorflow-datasets:
  tfds.builder_from_directory(folder).as_data_source(split="train")  # or "val", "test"
Training needs no prepared set: it reads the npz file itself.
"""

import argparse
import pathlib
import sys

from lsanet_jax.data.sources import medmnist
from lsanet_jax.errors import DataError
from lsanet_jax.runtime import cli

_TEXTS = ("csv", "task", "file_column", "label_column", "split_column", "group_column", "uncertain")
_NUMBERS = ("frame", "folds", "fold")


def main() -> None:
    """Run the subcommand."""
    args = _parser().parse_args()
    cli.run(lambda: {"check": _check, "prepare": _prepare}[args.command](args))


def _check(args: argparse.Namespace) -> None:
    from lsanet_jax.data import check

    if pathlib.Path(args.output).resolve().is_relative_to(pathlib.Path(args.path).resolve()):
        raise DataError(
            f"{args.output}: is inside the folder of the images, expected one outside: set"
            " --output."
        )
    options = {name: getattr(args, name) for name in (*_TEXTS, *_NUMBERS) if getattr(args, name)}
    report = check.inspect(args.path, **options)
    print(check.text(report))
    check.write(report, pathlib.Path(args.output))
    print(f"\n{pathlib.Path(args.output) / 'check.html'}")
    if report.is_wrong:
        sys.exit(1)


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
    commands = parser.add_subparsers(dest="command", required=True, metavar="{check,prepare}")
    check = commands.add_parser("check", help="tell what is wrong with a data set", **options)
    check.add_argument("path", help="folder of images, or npz file")
    check.add_argument(
        "--output", default="data_check", help="folder of the page (default: %(default)s)"
    )
    for name in _TEXTS:
        check.add_argument(f"--{name}", default="", help=f"as config.data.{name}")
    for name in _NUMBERS:
        check.add_argument(f"--{name}", type=int, default=0, help=f"as config.data.{name}")
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
