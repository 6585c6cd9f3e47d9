"""Score the network of a run on labelled images from elsewhere, such as another hospital's.

Examples:
  lsanet evaluate --workdir=runs/mine --input=other_images
  lsanet evaluate --workdir=runs/mine --input=other_images --csv=labels.csv
  lsanet evaluate --workdir=runs/mine --input=other.npz --output=scores.json

--input is what training reads: class folders, a folder with a table (--csv), or an npz file;
without it, the run's own data. The images are decoded as the training images were, and the classes
must be the run's. Prints ACC and AUC of every classifier in percent with 95 % intervals, from a
bootstrap over the images, or over patients where these are known. Writes nothing but --output.
"""

import csv as csv_format
import io
import logging
import math
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from lsanet_jax import data as data_lib
from lsanet_jax import predict
from lsanet_jax.data import duplicates, labelled
from lsanet_jax.data.labelled import Labelled
from lsanet_jax.errors import ConfigError, LSANetError, WorkdirError
from lsanet_jax.evaluation import statistics
from lsanet_jax.runs.trained import TrainedModel, load
from lsanet_jax.runs.workdir import check_output
from lsanet_jax.runtime import cli
from lsanet_jax.runtime.files import json_text, write_atomically

log = logging.getLogger(__name__)

_COLUMNS = ("file_column", "label_column", "split_column", "group_column")


class Classifier(NamedTuple):
    """Scores of one classifier, in [0, 1].

    Attributes:
      stage: of the classifier.
      acc: accuracy and its 95 % interval.
      auc: area under the ROC curve and its 95 % interval.
      beta: its mean weight; None without attention.
    """

    stage: int
    acc: statistics.Interval
    auc: statistics.Interval
    beta: float | None


class Scores(NamedTuple):
    """Scores of a network on a set of images.

    Attributes:
      title: what was scored on what.
      images: how many.
      left_out: how many could not be read.
      patients: how many, or other groups; 0 if none are known.
      unknown: how many labels of a multi-label task are unknown, and left out.
      classifiers: shallow to deep; the last one is the network's own.
    """

    title: str
    images: int
    left_out: int
    patients: int
    unknown: int
    classifiers: list[Classifier]


def evaluate(
    workdir: str | pathlib.Path,
    *,
    input: str | None = None,
    output: str | None = None,
    split: str | None = None,
    skip_broken: bool = False,
    batch_size: int = 64,
    checkpoint: str = "selected",
    trust_code: bool = False,
    **reading: str,
) -> Scores:
    """Score a run's network; the arguments are the flags of this module.

    Raises:
      LSANetError: the run or the images cannot be read, their labels are not the run's classes, or
        --output cannot be written.
    """
    predict.check_batch_size(batch_size)
    predict.check_input(input)
    if output and pathlib.Path(output).suffix not in (".json", ".csv"):
        raise ConfigError(f"--output={output}: expected a name that ends in .json or .csv")
    if output:
        check_output(output, _is_ours)
    trained = load(workdir, checkpoint, trust_code=trust_code)
    images, source = _open(trained, input, split, skip_broken, reading)
    probabilities, beta = predict.predict(
        trained, source, batch_size=batch_size, all_classifiers=True
    )
    sound = source.sound()
    labels, groups = images.labels[sound], [images.groups[i] for i in sound if images.groups]
    config = trained.config
    of = input or f"{split or 'test'} split of the run's own data"
    parts = (of, config.model.backbone, config.model.objective)
    scores = Scores(
        title=f"{', '.join(parts)}, seed {config.seed}, epoch {trained.epoch}",
        images=len(sound),
        left_out=len(source.names) - len(sound),
        patients=len(set(groups)),
        unknown=int((labels < 0).sum()),
        classifiers=_score(
            trained,
            labels,
            probabilities[:, sound],
            groups,
            None if beta is None else beta[sound],
        ),
    )
    if output:
        _write(pathlib.Path(output), scores)
    return scores


def _open(
    trained: TrainedModel,
    input: str | None,
    split: str | None,
    skip_broken: bool,
    reading: dict[str, str],
) -> tuple[Labelled, predict.Source]:
    """Open labelled images, or the run's own."""
    given = {name: value for name, value in reading.items() if value}
    if not input:
        if given or split == "all":
            flag = f"--{next(iter(given))}" if given else "--split=all"
            raise ConfigError(f"{flag} goes with --input, not with the run's own data")
        split = split or "test"
        own = predict.own_data(trained, split)
        names = list(own.names) or predict.numbered(split, len(own.images))
        return Labelled(names, own.labels, own.groups), predict.from_array(own.images, names)
    classes, task = trained.dataset["class_names"], trained.dataset["task"]
    if pathlib.Path(input).suffix.lower() == ".npz":
        own = trained.config.data.path
        if own and pathlib.Path(os.path.expanduser(own)).resolve() == pathlib.Path(input).resolve():
            log.warning("--input=%s is the file that the run was trained on", input)
        if given:
            raise ConfigError(f"--{next(iter(given))} is for a folder, but --input={input} is npz")
        images = labelled.read_npz(input, classes, task, split=split)
        assert images.arrays is not None
        return images, predict.from_other_array(images.arrays, trained, images.names)
    images = labelled.read_folder(input, classes, task, split=split, **given)
    assert images.root is not None
    _warn_of_training_images(trained, [images.root / name for name in images.names])
    skip_broken = skip_broken or trained.config.data.skip_broken  # As in training.
    return images, predict.from_files(images.root, images.names, trained, skip_broken=skip_broken)


def _warn_of_training_images(trained: TrainedModel, files: list[pathlib.Path]) -> None:
    """Say how many of these files the run was trained on, if its folder is still there."""
    config = trained.config
    if config.data.name != "folder" or not os.path.isdir(os.path.expanduser(config.data.path)):
        return
    try:
        own = data_lib.load_again(config.data, config.seed).train.names
    except LSANetError as error:
        log.warning("whether the run was trained on these images is unknown: %s", error)
        return
    root = pathlib.Path(os.path.expanduser(config.data.path))
    same = duplicates.identical_files([*files, *(root / name for name in own)])
    seen = sum(
        place < len(files) for places in same if max(places) >= len(files) for place in places
    )
    if seen:
        log.warning(
            "the run was trained on %d of these %d images: their scores say little of new ones. "
            "Without --input the run's own test split is scored",
            *(seen, len(files)),
        )


def _score(
    trained: TrainedModel,
    labels: np.ndarray,
    probabilities: Float[np.ndarray, "l n k"],
    groups: list[int],
    beta: Float[np.ndarray, "n l"] | None,
) -> list[Classifier]:
    found = []
    stages = trained.model.taps[-len(probabilities) :]
    for i, own in enumerate(probabilities):
        scores = statistics.bootstrap_scores(
            labels, [own], trained.dataset["task"], groups=groups or None
        )
        weight = None if beta is None else float(np.mean(beta[:, i], dtype=np.float64))
        found.append(Classifier(stages[i], scores["acc"], scores["auc"], weight))
    return found


def text(scores: Scores) -> str:
    """Return the scores as a table, in percent as at the end of training."""
    count = f"{scores.images} images"
    count += f" of {scores.patients} patients or other groups" if scores.patients else ""
    count += f", {scores.left_out} left out (broken)" if scores.left_out else ""
    count += f", {scores.unknown} labels unknown, left out" if scores.unknown else ""
    rows = [("", "ACC % [95 %]", "AUC % [95 %]", "beta")]
    for place, classifier in enumerate(scores.classifiers):
        own = place == len(scores.classifiers) - 1
        name = f"classifier at stage {classifier.stage}" + " (the network's own)" * own
        beta = "-" if classifier.beta is None else f"{classifier.beta:.3f}"
        rows.append((name, _percent(classifier.acc), _percent(classifier.auc), beta))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [f"{scores.title}: {count}"]
    for name, *cells, beta in rows:
        numbers = "  ".join(
            f"{cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=True)
        )
        lines.append(f"  {name:<{widths[0]}}  {numbers}  {beta:>5}".rstrip())
    return "\n".join(lines)


def _percent(score: statistics.Interval) -> str:
    value, low, high = (f"{100 * x:.2f}" if math.isfinite(x) else "-" for x in score[:3])
    return value if low == "-" else f"{value} [{low}, {high}]"


def _is_ours(start: str) -> bool:
    """Whether a file begins as `_write` writes it."""
    return start.startswith(("stage,acc,acc_low,", '{\n "title": '))


def _write(file: pathlib.Path, scores: Scores) -> None:
    rows: list[dict[str, Any]] = []
    for classifier in scores.classifiers:
        row: dict[str, Any] = {"stage": classifier.stage}
        for name in ("acc", "auc"):
            value, low, high = (_defined(x) for x in getattr(classifier, name)[:3])
            row |= {name: value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row | {"beta": classifier.beta})
    if file.suffix == ".json":
        content = json_text(scores._asdict() | {"classifiers": rows}, indent=1)
    else:
        stream = io.StringIO()
        writer = csv_format.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        content = stream.getvalue()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    except OSError as error:
        raise WorkdirError(f"cannot write --output={file}: {error}") from error


def _defined(value: float) -> float | None:
    return value if math.isfinite(value) else None


def main() -> None:
    """Score what the command line names."""
    parser = cli.parser(__doc__)
    cli.add_checkpoint(parser)
    add = parser.add_argument
    help = "folder or npz file with labels (default: the run's own data)"
    add("--input", type=cli.path, help=help)
    add("--csv", type=cli.path, help="table of the labels; as config.data.csv")
    add(
        "--split",
        choices=labelled.CHOICES,
        help="of a set that is split (default: test if there is one, else all)",
    )
    for name in (*_COLUMNS, "uncertain"):
        add(f"--{name}", default="", help=f"as config.data.{name}")
    help = "JSON or CSV file to write the scores to (default: none)"
    add("--output", type=cli.path, help=help)
    add(
        "--skip_broken",
        action="store_true",
        help="leave out, and count, images that cannot be read (default: as in training)",
    )
    add("--batch_size", type=int, default=64, help="images at a time (default: 64)")
    args = parser.parse_args()
    cli.run(lambda: print(text(evaluate(**vars(args)))))


if __name__ == "__main__":
    main()
