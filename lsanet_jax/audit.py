"""Check that a run is what it says: train again from its manifest, and compare every epoch bit for bit.

Examples:
  python -m lsanet_jax.audit --workdir=runs/r18              all epochs
  python -m lsanet_jax.audit --workdir=runs/r18 --epochs=2   the first two
  python -m lsanet_jax.audit --workdir=runs/r18 --against=other/r18

The exit code is 0 if all is identical, 1 if something differs, 2 if the run cannot be audited.
"""

import json
import pathlib
import sys
import tempfile
from typing import Any

from lsanet_jax import cli, manifest
from lsanet_jax.config import unflatten
from lsanet_jax.errors import WorkdirError
from lsanet_jax.files import read_json


def compare(there: list[dict[str, Any]], here: list[dict[str, Any]]) -> str | None:
    """The first difference between the records of two runs, as a sentence; None if there is none.

    Epochs that only one of them has do not count.
    """
    for a, b in zip(there, here, strict=False):
        fields = [name for name in ("step", "loss", *manifest.PARTS) if a[name] != b[name]]
        if not fields:
            continue
        tensors = [n for n in a["tensors"] if a["tensors"][n] != b["tensors"].get(n)]
        tensors += [n for n in b["tensors"] if n not in a["tensors"]]
        loss = f"loss {float.fromhex(a['loss'])!r} there, {float.fromhex(b['loss'])!r} here"
        return (
            f"epoch {a['epoch']} differs in {', '.join(fields)}: {loss}; {len(tensors)} of "
            f"{len(a['tensors'])} tensors differ" + (f", first {tensors[0]}" if tensors else "")
        )
    return None


def audit(
    workdir: str | pathlib.Path,
    *,
    epochs: int | None = None,
    against: str | pathlib.Path | None = None,
) -> dict[str, Any]:
    """Audit a run.

    Args:
      workdir: folder of the run.
      epochs: how many to check (default: all that it has).
      against: folder of a run to compare with, in place of training again.

    Returns:
      `identical`; `epochs`, how many were compared; `difference`, the first one, or None;
      `environment`, sentences about what differs in the environment and, with `against`, the
      config and the data.

    Raises:
      LSANetError: a run is not there or damaged, its chain is broken, or it cannot be trained.
    """
    path = pathlib.Path(workdir).absolute()
    records = manifest.read_records(path)
    if not records:
        raise WorkdirError(f"--workdir={path} has no finished epoch yet: there is nothing to audit")
    if epochs is not None and not 1 <= epochs <= len(records):
        raise WorkdirError(f"--epochs={epochs}: the run has 1 to {len(records)}")
    epochs = epochs or len(records)
    about = read_json(path / manifest.MANIFEST)
    if against is not None:
        other = pathlib.Path(against).absolute()
        others = manifest.read_records(other)
        environment = manifest.differences(about, read_json(other / manifest.MANIFEST))
        epochs = min(epochs, len(others))
    else:
        from lsanet_jax import train

        environment = manifest.differences(about.get("environment"), manifest.environment())
        with tempfile.TemporaryDirectory(prefix="lsanet-audit-") as folder:
            again = pathlib.Path(folder) / "run"
            train.train_and_evaluate(unflatten(about["config"]), again, epochs=epochs)
            others = manifest.read_records(again)
    difference = compare(records[:epochs], others[:epochs])
    return {
        "identical": difference is None,
        "epochs": epochs,
        "difference": difference,
        "environment": environment,
    }


def print_report(report: dict[str, Any]) -> None:
    """Print what an audit found."""
    if report["environment"]:
        print("The environment is another one:")
        for sentence in report["environment"]:
            print(f"  {sentence}")
    if report["identical"]:
        print(f"identical: {report['epochs']} epochs, bit for bit")
    else:
        print(f"different: {report['difference']}")


def main() -> None:
    """Audit what the command line names."""
    parser = cli.parser(__doc__)
    parser.add_argument("--epochs", type=int, help="how many to check (default: all)")
    parser.add_argument("--against", help="compare with this run in place of training again")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    args = parser.parse_args()

    def tool() -> None:
        report = audit(args.workdir, epochs=args.epochs, against=args.against)
        if args.json:
            print(json.dumps(report, indent=1))
        else:
            print_report(report)
        sys.exit(0 if report["identical"] else 1)

    cli.run(tool)


if __name__ == "__main__":
    main()
