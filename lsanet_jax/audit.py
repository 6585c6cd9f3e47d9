"""Check that a run is what it says: train it again, and compare every epoch bit for bit.

Examples:
  python -m lsanet_jax.audit --workdir=runs/r18              all epochs
  python -m lsanet_jax.audit --workdir=runs/r18 --epochs=2   the first two
  python -m lsanet_jax.audit --workdir=runs/r18 --against=other/r18

The exit code is 0 if all is identical, 1 if something differs, 2 if the run cannot be audited. The
first difference is named; by how much tensors differ is told from the checkpoints that are still
there.
"""

import contextlib
import pathlib
import re
import sys
import tempfile
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from lsanet_jax import config as config_lib
from lsanet_jax import data as data_lib
from lsanet_jax.errors import Interrupted, WorkdirError
from lsanet_jax.runs import checkpoint, manifest
from lsanet_jax.runs.layout import CHECKPOINTS, CONFIG, DIGESTS, MANIFEST
from lsanet_jax.runs.weights import find
from lsanet_jax.runtime import cli, determinism
from lsanet_jax.runtime.files import json_text, read_json

Record = dict[str, Any]  # of an epoch; see `manifest.make_record`


class Difference(NamedTuple):
    """What differs between the records of two runs, in the first epoch that does."""

    epoch: int
    sentence: str
    tensors: list[str]  # parameters and batch statistics, by name


def compare(there: list[Record], here: list[Record]) -> Difference | None:
    """The first difference between the records of two runs; None if there is none.

    Epochs that only one of them has are ignored.
    """
    for a, b in zip(there, here, strict=False):
        fields = [name for name in ("step", "loss", *manifest.PARTS) if a[name] != b[name]]
        if not fields:
            continue
        loss = f"loss {float.fromhex(a['loss'])!r} there, {float.fromhex(b['loss'])!r} here"
        names = different_tensors(a, b)
        sentence = (
            f"epoch {a['epoch']} differs in {', '.join(fields)}: {loss}; {len(names)} of "
            f"{len(a['tensors'])} tensors differ" + (f", first {names[0]}" if names else "")
        )
        return Difference(a["epoch"], sentence, names)
    return None


def different_tensors(a: Record, b: Record) -> list[str]:
    """Names of the tensors that differ between two records, or that one of them lacks."""
    names = [name for name in a["tensors"] if a["tensors"][name] != b["tensors"].get(name)]
    return names + [name for name in b["tensors"] if name not in a["tensors"]]


def read_tensors(place: pathlib.Path, record: Record) -> dict[str, np.ndarray]:
    """Read the parameters and batch statistics after an epoch from its checkpoint.

    Args:
      place: of the checkpoint.
      record: of the epoch.

    Returns:
      Arrays by the names in the record.

    Raises:
      WorkdirError: the checkpoint is damaged, or is not what the record says.
    """
    arrays = checkpoint.read_arrays(place)
    tensors = {}
    for name, expected in record["tensors"].items():
        array = arrays.get("/".join(re.findall(r"\w+", name)))
        found = None if array is None else "".join(manifest.tensor_digests(array).values())
        if found is None or not found.startswith(expected):
            raise WorkdirError(f"{place} does not hold the {name} that {DIGESTS} records")
        tensors[name] = array
    return tensors


def _kept(workdir: pathlib.Path, record: Record) -> pathlib.Path | None:
    folder = workdir / CHECKPOINTS
    return checkpoint.kept_model(folder, epoch=record["epoch"], step=record["step"])


def size(
    there: pathlib.Path, here: pathlib.Path, pairs: list[tuple[Record, Record]]
) -> dict[str, Any] | None:
    """By how much two runs differ at the first epoch of which both keep a checkpoint.

    Args:
      there: folder of a run.
      here: folder of the other one.
      pairs: the records of both, of the epochs to look at.

    Returns:
      `epoch`; for the `first` tensor that differs and for the one that does most (`most`) its
      `name`, the largest absolute `difference`, and that `relative` to the largest absolute value
      there (None if that is 0). None if there is no such epoch, or only shapes differ.

    Raises:
      WorkdirError: a checkpoint is damaged, or is not what its record says.
    """
    for a, b in pairs:
        kept = _kept(there, a), _kept(here, b)
        if kept[0] is None or kept[1] is None:
            continue
        ours, theirs = read_tensors(kept[0], a), read_tensors(kept[1], b)
        found = []
        for name in different_tensors(a, b):
            if name in ours and name in theirs and ours[name].shape == theirs[name].shape:
                wide = np.float64(ours[name])
                difference = float(np.abs(wide - theirs[name]).max())
                largest = float(np.abs(wide).max())
                relative = difference / largest if largest else None
                found.append({"name": name, "difference": difference, "relative": relative})
        if found:
            most = max(found, key=lambda tensor: tensor["difference"])
            return {"epoch": a["epoch"], "first": found[0], "most": most}
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
      `identical`; `epochs`, how many were compared; `difference`, the first one, or None; `size`,
      by how much tensors differ (see `size`), or None if that is not known; `environment`,
      sentences about what differs in the environment and, with `against`, the config and the data.

    Raises:
      LSANetError: a run is not there or damaged, its chain is broken, its data or initial weights
        have changed, it cannot be trained, or the run `against` it has fewer epochs.
    """
    path = pathlib.Path(workdir).absolute()
    records = manifest.read_records(path)
    if not records:
        raise WorkdirError(f"--workdir={path} has no finished epoch yet: there is nothing to audit")
    if epochs is not None and not 1 <= epochs <= len(records):
        raise WorkdirError(f"--epochs={epochs}: the run has 1 to {len(records)}")
    records = records[:epochs]
    about = read_json(path / MANIFEST)
    with tempfile.TemporaryDirectory(prefix="lsanet-audit-") as folder:
        if against is not None:
            other = pathlib.Path(against).absolute()
            others = manifest.read_records(other)
            environment = manifest.differences(about, read_json(other / MANIFEST))
        else:
            environment = manifest.differences(about.get("environment"), manifest.environment())
            config = _config_on_same_data(path, about)
            other = pathlib.Path(folder) / "again"
            _train(config, other, len(records))
            others = manifest.read_records(other)
        if len(others) < len(records):
            raise WorkdirError(
                f"--against={other} has finished {len(others)} epochs, {path} {len(records)} that "
                "are to be compared: finish it, or compare fewer with --epochs"
            )
        difference = compare(records, others)
        measured, sentence = None, None
        if difference is not None:
            pairs = list(zip(records, others, strict=False))[difference.epoch - 1 :]
            first, second = pairs[0]
            if against is None and _kept(path, first) and not _kept(other, second):
                other = pathlib.Path(folder) / "until"  # That one no longer has this epoch.
                _train(config, other, difference.epoch)
            sentence = difference.sentence
            if difference.tensors:
                measured, words = _size_in_words(path, other, pairs)
                sentence += words
    return {
        "identical": difference is None,
        "epochs": len(records),
        "difference": sentence,
        "size": measured,
        "environment": environment,
    }


def _config_on_same_data(path: pathlib.Path, about: dict) -> ml_collections.ConfigDict:
    """The config of a run, after a look at whether its data and weights are still the same.

    `config.json`, which a resumed run writes again, says where the data is now.
    """
    try:
        fields, promised = dict(about["config"]), about["dataset"]["fingerprint"]
    except (KeyError, TypeError, ValueError) as error:
        raise WorkdirError(f"{path / MANIFEST}: {error} is missing") from error
    if (path / CONFIG).exists():
        newest = read_json(path / CONFIG)
        common = fields.keys() & newest.keys() & config_lib.MAY_CHANGE
        fields |= {name: newest[name] for name in common}
    config = config_lib.unflatten(config_lib.complete(fields))
    config_lib.validate(config)
    found = data_lib.load(config.data, config.seed).fingerprint
    if found != promised:
        raise WorkdirError(
            f"--workdir={path} cannot be audited: its data has changed. The fingerprint is "
            f"{promised} in {MANIFEST} and {found} here. Restore the original data"
        )
    file, weights = config.model.init_from, about.get("weights")
    if weights and weights != {"sha256": find(file, about.get("weights_from")).sha256()}:
        raise WorkdirError(
            f"--workdir={path} cannot be audited: by its SHA-256, config.model.init_from = {file} "
            "is not the file of weights that it began with. Restore that file"
        )
    return config


def _train(config: ml_collections.ConfigDict, path: pathlib.Path, epochs: int) -> None:
    from lsanet_jax import train

    try:
        with contextlib.redirect_stdout(sys.stderr):  # Ours is for the report.
            train.train_and_evaluate(config, path, epochs=epochs)
    except Interrupted as error:
        raise Interrupted("stopped: the same command starts the audit again") from error


def _size_in_words(
    there: pathlib.Path, here: pathlib.Path, pairs: list[tuple[Record, Record]]
) -> tuple[dict[str, Any] | None, str]:
    """What `size` returns, and how to go on with `Difference.sentence`."""
    epoch = pairs[0][0]["epoch"]
    try:
        measured = size(there, here, pairs)
    except WorkdirError as error:
        return None, f"; by how much is not known: {error}"
    unknown = f"; no checkpoint of epoch {epoch} is kept, so by how much is not known"
    if measured is None:
        return None, unknown
    first, most = measured["first"], measured["most"]
    if measured["epoch"] == epoch:
        words = f", by {_amount(first)}"
    else:
        words = (
            f"{unknown}; at epoch {measured['epoch']} {first['name']} differs by {_amount(first)}"
        )
    if most != first:
        words += f"; most {most['name']}, by {_amount(most)}"
    return measured, words


def _amount(tensor: dict[str, Any]) -> str:
    if tensor["relative"] is None:
        return f"{tensor['difference']:.3g} with all values 0 there"
    return f"{tensor['difference']:.3g} ({tensor['relative']:.2g} of its largest value)"


def print_report(report: dict[str, Any]) -> None:
    """Print what an audit found."""
    if report["environment"]:
        print("The environment differs:")
        for sentence in report["environment"]:
            print(f"  {sentence}")
    if report["identical"]:
        epochs = "1 epoch" if report["epochs"] == 1 else f"{report['epochs']} epochs"
        print(f"identical: {epochs}, bit for bit")
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
        file = pathlib.Path(args.workdir) / MANIFEST
        if file.exists():  # Before `audit` uses a device.
            made_with = read_json(file).get("environment", {}).get("xla_flags", "")
            determinism.request(determinism.FLAG in made_with)
        report = audit(args.workdir, epochs=args.epochs, against=args.against)
        if args.json:
            print(json_text(report, indent=1), end="")
        else:
            print_report(report)
        sys.exit(0 if report["identical"] else 1)

    cli.run(tool)


if __name__ == "__main__":
    main()
