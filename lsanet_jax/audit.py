"""Check that a run is what it says: train it again, and compare every epoch bit for bit.

Examples:
  lsanet audit --workdir=runs/r18                 all epochs, the predictions and the result
  lsanet audit --workdir=runs/r18 --epochs=2      the first two epochs
  lsanet audit --workdir=runs/r18 --epochs=0      the files only, without training
  lsanet audit --workdir=runs/r18 --against=other/r18
  lsanet audit pack --workdir=runs/r18 --output=claim.zip    one file for others to check
  lsanet audit check claim.zip --epochs=2                    check such a file, with training

The exit code is 0 if all is identical, 1 if something differs, 2 if the run cannot be audited. The
first difference is named; by how much tensors differ is told from the checkpoints that are still
there.
"""

import argparse
import contextlib
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from lsanet_jax import config as config_lib
from lsanet_jax import data as data_lib
from lsanet_jax.errors import ConfigError, Interrupted, WorkdirError
from lsanet_jax.runs import chain, checkpoint, claim, manifest, seal, stored, trained
from lsanet_jax.runs.layout import (
    CHECKPOINTS,
    CONFIG,
    DIGESTS,
    MANIFEST,
    METRICS,
    PREDICTIONS,
    RESULT,
    SEAL,
    VALIDATION,
)
from lsanet_jax.runs.weights import as_recorded, find
from lsanet_jax.runs.workdir import read_config, read_manifest, read_result
from lsanet_jax.runtime import cli, determinism, strict_json
from lsanet_jax.runtime.files import json_text

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
        fields = [name for name in ("step", "loss", *chain.PARTS) if a[name] != b[name]]
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
    data: str | pathlib.Path | None = None,
    trust_code: bool = False,
) -> dict[str, Any]:
    """Audit a run: check its files, train it again, and compare.

    Args:
      workdir: folder of the run.
      epochs: how many to train again (default: all that it has, and of a finished run its
        predictions and result too); with 0 the files are only checked against each other.
      against: folder of a run to compare with, in place of training again.
      data: where its data are now: what `config.data.path` or `config.data.root` stands for.
      trust_code: train a MODULE:CLASS backbone though its module is not imported yet.

    Returns:
      `identical`; `epochs`, how many were compared; `difference`, the first one, or None; `size`,
      by how much tensors differ (see `size`), or None if that is not known; `environment`,
      sentences about what differs in the environment and, with `against`, the config and the data;
      `test_looks`, how often the test split was evaluated; `proven`, a sentence about what follows
      from all this, and what does not.

    Raises:
      LSANetError: a run is not there or damaged, its seal or chain is broken, its data or initial
        weights have changed, it cannot be trained, or the run `against` it has fewer epochs.
    """
    path = pathlib.Path(workdir).absolute()
    run = check_files(path)
    if not run.records:
        raise WorkdirError(f"--workdir={path} has no finished epoch yet: there is nothing to audit")
    if epochs is not None and not 0 <= epochs <= len(run.records):
        raise WorkdirError(f"--epochs={epochs}: the run has {len(run.records)}, 0 trains none")
    records = run.records[:epochs]
    if data is not None and (against is not None or not records):
        raise ConfigError(
            f"--data={data} is only read to train again: leave it out, or leave out --against and "
            "give --epochs above 0"
        )
    if against is not None or not records:  # Training again takes the manifest's.
        read_config(path)
    whole = len(records) == len(run.records)
    about = read_manifest(path)
    environment, difference, measured, other = [], None, None, None
    with tempfile.TemporaryDirectory(prefix="lsanet-audit-") as folder:
        if against is not None:
            other = pathlib.Path(against).absolute()
            check_files(other)
            environment = manifest.differences(about, read_manifest(other))
            difference, measured = _difference(path, other, records, whole=whole)
        elif records:
            environment = manifest.differences(about["environment"], manifest.environment())
            backbone = str(about.get("config", {}).get("model.backbone", ""))
            trained.check_trusted(path, backbone, trust_code=trust_code)
            config = _config_on_same_data(path, about, data)

            def train(epochs: int) -> pathlib.Path:
                again = pathlib.Path(folder) / f"of_{epochs}"
                _train(config, again, epochs)
                return again

            other = train(len(records))
            difference, measured = _difference(path, other, records, whole=whole, train=train)
        results = ""
        if whole and run.finished and other is not None and _is_finished(other):
            both = _in_both(PREDICTIONS, path, other)
            results = ", the selected epoch" + ", the predictions" * both + " and the scores"
    proven = _proven(run, len(records), against=against is not None, results=results)
    identical = difference is None
    return {
        "identical": identical,
        "epochs": len(records),
        "difference": difference,
        "size": measured,
        "environment": environment,
        "test_looks": len(run.looks),
        "proven": proven if identical else None,
    }


def _difference(
    path: pathlib.Path,
    other: pathlib.Path,
    records: list[Record],
    *,
    whole: bool,
    train: Callable[[int], pathlib.Path] | None = None,
) -> tuple[str | None, dict[str, Any] | None]:
    """The first difference between two runs in a sentence, and its size; None if there is none.

    Args:
      path: folder of the run.
      other: folder of the other one.
      records: of the run, of the epochs to compare.
      whole: compare the predictions and the results too.
      train: trains the run until an epoch; returns the folder.
    """
    others = chain.read(other, cut=True).records
    if len(others) < len(records):
        raise WorkdirError(
            f"--against={other} has finished {len(others)} epochs, {path} {len(records)} that "
            "are to be compared: finish it, or compare fewer with --epochs"
        )
    found = compare(records, others)
    if found is None:
        return compare_scores(path, other, len(records), whole=whole), None
    pairs = list(zip(records, others, strict=False))[found.epoch - 1 :]
    if not found.tensors:
        return found.sentence, None
    first, second = pairs[0]
    if train is not None and _kept(path, first) and not _kept(other, second):
        other = train(found.epoch)  # The one that trained on no longer has this epoch.
    measured, words = _size_in_words(path, other, pairs)
    return found.sentence + words, measured


class Files(NamedTuple):
    """What the files of a run say, once they have been checked against each other.

    Attributes:
      records: of its epochs.
      looks: its evaluations on the test split.
      finished: whether it has a result.
      sealed: whether it has a seal.
    """

    records: list[Record]
    looks: list[dict[str, Any]]
    finished: bool
    sealed: bool


def check_files(path: pathlib.Path) -> Files:
    """Check the files of a run against its seal, and against each other.

    Raises:
      WorkdirError: one of them is missing, damaged, or contradicts another; it is named.
    """
    sealed = seal.check(path)
    seal.note_if_old(path)
    finished = _is_finished(path)
    found = chain.read(path, cut=not finished)
    if finished:
        stored.read_predictions(path, read_result(path))
    if sealed is not None and (found.end, len(found.looks)) != (
        sealed["chain"],
        sealed["test_looks"],
    ):
        raise WorkdirError(f"{path / SEAL} and {DIGESTS} are of different runs")
    return Files(found.records, found.looks, finished, sealed is not None)


def _is_finished(path: pathlib.Path) -> bool:
    return strict_json.exists(path / RESULT)


def compare_scores(
    there: pathlib.Path, here: pathlib.Path, epochs: int, *, whole: bool
) -> str | None:
    """Say in what two runs of the same weights differ: metrics, and if `whole` what they report.

    Args:
      there: folder of a run.
      here: folder of the other one.
      epochs: how many to compare.
      whole: compare the predictions and the results too, if both runs are finished.

    Raises:
      WorkdirError: a file is damaged.
    """
    timing = ("images_per_second", "seconds", "last_digest", "test_looks", "dataset")
    plain = lambda record: {k: v for k, v in record.items() if k not in timing}
    logs = [strict_json.read_json_lines(path / METRICS, cut=True) for path in (there, here)]
    for path, log in zip((there, here), logs, strict=True):
        if [line.get("epoch") for line in log[:epochs]] != [*range(1, epochs + 1)]:
            return f"{path / METRICS} has not one line for each of the {epochs} epochs"
    for a, b in zip(*(log[:epochs] for log in logs), strict=True):
        if plain(a) != plain(b):
            return f"{METRICS} differs: {manifest.differences(plain(a), plain(b), '')[0]}"
    if not (whole and _is_finished(there) and _is_finished(here)):
        return None
    a, b = (plain(read_result(path)) for path in (there, here))
    common = a.keys() & b.keys()  # Earlier versions recorded less.
    a, b = ({k: x[k] for k in common} for x in (a, b))
    found = manifest.differences(a, b)
    if found:
        return f"{RESULT} differs: {found[0]}"
    for file in (PREDICTIONS, VALIDATION):
        if not _in_both(file, there, here):  # Earlier versions did not write them.
            continue
        a, b = (stored.read_arrays(path / file) for path in (there, here))
        for name in sorted(a.keys() | b.keys()):
            if not (name in a and name in b and _same_bits(a[name], b[name])):
                return f"{file} differs: its array {name}"
    return None


def _in_both(file: str, *folders: pathlib.Path) -> bool:
    return all(strict_json.exists(folder / file) for folder in folders)


def _same_bits(a: np.ndarray, b: np.ndarray) -> bool:
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def _proven(run: Files, epochs: int, *, against: bool, results: str) -> str:
    """What an audit without a difference has proven, and what not.

    Args:
      run: the run.
      epochs: how many were compared.
      against: with those of another run, not with training again.
      results: what was compared beside the epochs.
    """
    total = len(run.records)
    span = lambda first, last: f"epoch {first}" if first == last else f"epochs {first} to {last}"
    if epochs == 0:
        sealed = "are those that were sealed when it ended, and " if run.sealed else ""
        what = f"the files of the run {sealed}agree with each other"
        rest = "that training gives them: audit with --epochs=all"
    elif against:
        what = f"the two runs agree in {span(1, epochs)}{results}"
        rest = "that training gives them"
    elif epochs < total:
        what = f"training again gives {span(1, epochs)} with all losses and validation scores"
        rest = span(epochs + 1, total) + (", and the scores on the test split" * run.finished)
    else:
        what = f"training again gives all {total} epochs{results}, bit for bit"
        rest = "that nobody evaluated the test split outside of this run"
    return f"Proven: {what}. Not proven: {rest}."


def _config_on_same_data(
    path: pathlib.Path, about: dict, data: str | pathlib.Path | None = None
) -> ml_collections.ConfigDict:
    """The config of a run, after a look at whether its data and weights are still the same.

    `config.json`, which a resumed run writes again, says where the data is now, unless `data` does.
    """
    for name, of in (("config", about), ("fingerprint", about["dataset"])):
        if name not in of:
            raise WorkdirError(f"{path / MANIFEST}: {name!r} is missing")
    fields, promised = dict(about["config"]), about["dataset"]["fingerprint"]
    if strict_json.exists(path / CONFIG):
        newest = strict_json.read_json(path / CONFIG)
        common = fields.keys() & newest.keys() & config_lib.MAY_CHANGE
        fields |= {name: newest[name] for name in common}
    name = fields.get("data.name")
    if data is not None and name in ("synthetic", "arrays"):
        raise ConfigError(f"--data={data}: the data of {name!r} are in no file: leave it out")
    if data is not None and fields.get("data.path"):
        fields["data.path"] = str(data)
    elif data is not None:  # of MedMNIST: the folder, or a file in it
        folder = pathlib.Path(data)
        fields["data.root"] = str(folder if folder.is_dir() else folder.parent)
    config = config_lib.unflatten(config_lib.complete(fields))
    config_lib.validate(config)
    found = data_lib.load(config.data, config.seed).fingerprint
    if found != promised:
        raise WorkdirError(
            f"--workdir={path} cannot be audited: its data has changed. The fingerprint is "
            f"{promised} in {MANIFEST} and {found} here. Restore the original data"
        )
    file, weights = config.model.init_from, about.get("weights")
    origin = about.get("weights_from")
    if weights and weights != {"sha256": find(file, origin).sha256()}:
        raise WorkdirError(
            f"--workdir={path} cannot be audited: by its SHA-256, config.model.init_from = {file} "
            "is not the file of weights that it began with. Restore that file"
        )
    config.model.init_from = as_recorded(file, origin)
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
    if not report["identical"]:
        print(f"different: {report['difference']}")
        return
    if report["epochs"]:
        epochs = "1 epoch" if report["epochs"] == 1 else f"{report['epochs']} epochs"
        print(f"identical: {epochs}, bit for bit")
    looks = report["test_looks"]
    print(f"The test split was evaluated {looks} time{'' if looks == 1 else 's'} in this run.")
    print(report["proven"])


def _epochs(text: str) -> int | None:
    """Parse --epochs: None means all."""
    if text == "all":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > strict_json.MAX_DIGITS:
        raise ConfigError(f"--epochs={text[:40]}: expected all, or a number from 0")
    return int(text)


def audit_and_print(workdir: pathlib.Path, args: argparse.Namespace) -> int:
    """Audit a run as the command line says; returns the exit code."""
    if strict_json.exists(workdir / MANIFEST):  # Before `audit` uses a device.
        made_with = read_manifest(workdir)["environment"].get("xla_flags", "")
        determinism.request(determinism.FLAG in made_with)
    report = audit(
        workdir,
        epochs=_epochs(args.epochs),
        against=args.against,
        data=args.data,
        trust_code=args.trust_code,
    )
    if args.json:
        print(json_text(report, indent=1), end="")
    else:
        print_report(report)
    return 0 if report["identical"] else 1


def check_claim(args: argparse.Namespace) -> int:
    """Check each run of a claim; returns the exit code."""
    file = pathlib.Path(args.claim)
    aside = sys.stderr if args.json else sys.stdout
    if args.public_key:
        claim.verify(file, pathlib.Path(args.public_key))
        print(f"The signature is by the owner of {args.public_key}.", file=aside)
    with tempfile.TemporaryDirectory(prefix="lsanet-claim-") as folder:
        worst = 0
        for name in claim.unpack(file, pathlib.Path(folder)):
            if name:
                print(f"{name}:", file=aside)
            worst = max(worst, audit_and_print(pathlib.Path(folder, name), args))
        return worst


def _parser(kind: str) -> argparse.ArgumentParser:
    """The command line of `audit`, or of `audit pack` or `audit check`."""
    if kind == "check":
        parser = argparse.ArgumentParser(
            prog=f"{cli.program('lsanet_jax.audit')} check",
            description="Check a claim: the file that `audit pack` writes.",
            allow_abbrev=False,
        )
        parser.add_argument("claim", type=cli.path, help="the file")
        parser.add_argument(
            "--public_key", type=cli.path, help="PEM file: verify the signature CLAIM.sig by it"
        )
    else:
        parser = cli.parser(__doc__)
    if kind == "pack":
        parser.prog, parser.description = f"{parser.prog} pack", claim.__doc__
        help = "the file to write, such as claim.zip"
        parser.add_argument("--output", type=cli.path, required=True, help=help)
        parser.add_argument("--weights", action="store_true", help="also the reported weights")
        parser.add_argument(
            "--sign", type=cli.path, help="PEM file of a private key: write OUTPUT.sig too"
        )
        return parser
    parser.add_argument(
        "--epochs",
        default="0" if kind == "check" else "all",
        help="how many to train again: a number, or all; 0 checks the files only (default: "
        "%(default)s)",
    )
    parser.add_argument(
        "--data", type=cli.path, help="where the data are now: the npz file, or the folder"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    cli.add_trust_code(parser)
    if kind == "check":
        parser.set_defaults(against=None)
    else:
        parser.add_argument(
            "--against", type=cli.path, help="compare with this run in place of training again"
        )
    return parser


def main() -> None:
    """Audit what the command line names."""
    arguments = sys.argv[1:]
    kind = arguments.pop(0) if arguments and arguments[0] in ("pack", "check") else ""
    args = _parser(kind).parse_args(arguments)

    def tool() -> None:
        if kind == "pack":
            workdir, output = pathlib.Path(args.workdir), pathlib.Path(args.output)
            if args.sign:
                claim.check_key(pathlib.Path(args.sign))
            claim.pack(workdir, output, weights=args.weights)
            if args.sign:
                claim.sign(output, pathlib.Path(args.sign))
            print(output)
        elif kind == "check":
            sys.exit(check_claim(args))
        else:
            sys.exit(audit_and_print(pathlib.Path(args.workdir), args))

    cli.run(tool)


if __name__ == "__main__":
    main()
