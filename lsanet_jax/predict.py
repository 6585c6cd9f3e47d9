"""Predict the classes of images with the network of a run.

Examples:
  lsanet predict --workdir=runs/r18 --input=images/ --output=predictions.csv
  lsanet predict --workdir=runs/r18 --input=data.npz --split=test
  lsanet predict --workdir=runs/seed0,runs/seed1,runs/seed2 --input=images/
  lsanet predict --workdir=runs/r18 --medmnist --output=results/

--input is a folder (searched through), an image, or an npz file with {split}_images; without it,
the data that the run was trained on, to whose size and channels all images are converted first.
The CSV has a row per image that can be read: file, label, and a probability per class. If the run
is calibrated, as each is that was trained to its end, the probabilities are, too, and three columns
follow: decision (at the operating point), set (of the classes that cannot be excluded), and doubt
(0 to 1: the classifiers' weighted votes against the label). Several runs, joined by commas, answer
as an ensemble.
If the name of a class is that of another column, such as "file", its column is called "class file".
"""

import csv
import functools
import logging
import os
import pathlib
import re
from collections.abc import Iterator, Sequence
from concurrent import futures

import jax
import numpy as np
import tqdm
from jaxtyping import Float, UInt8

from lsanet_jax import data as data_lib
from lsanet_jax import metrics
from lsanet_jax.data import quality
from lsanet_jax.data.dataset import Dataset, Split
from lsanet_jax.data.lazy import LazyImages
from lsanet_jax.data.sources import images as image_files
from lsanet_jax.data.sources import npz
from lsanet_jax.data.sources.medmnist import NAMES as MEDMNIST_NAMES
from lsanet_jax.errors import ConfigError, DataError, WorkdirError
from lsanet_jax.evaluation.decisions import Judged
from lsanet_jax.evaluation.thresholds import make_rule
from lsanet_jax.runs.ensemble import Panel, load_members, split_workdirs
from lsanet_jax.runs.layout import MANIFEST
from lsanet_jax.runs.trained import TrainedModel
from lsanet_jax.runs.workdir import check_output
from lsanet_jax.runtime import cli
from lsanet_jax.runtime.files import csv_cell, replacing

log = logging.getLogger(__name__)

_FLIPS = (lambda x: x, lambda x: x[:, :, ::-1], lambda x: x[:, ::-1], lambda x: x[:, ::-1, ::-1])
VIEWS = {
    "none": _FLIPS[:1],
    "hflip": _FLIPS[:2],
    "flips": _FLIPS,
    "turns": (*_FLIPS, *(lambda x, f=f: f(x).swapaxes(1, 2) for f in _FLIPS)),
}
"""For each kind of test-time augmentation the views of a batch, whose answers are averaged."""

_MOST_AT_ONCE = 1 << 16  # images
_MOST_NOTES = 3

JUDGED = ("decision", "set", "doubt")
_PROBABILITY = re.compile(r"1|0|0\.[0-9]+|[0-9.]+e-[0-9]+")  # As `write_csv` writes them.
"""The columns that calibrated runs add; see `evaluation.decisions.Judged`."""


class Source:
    """Images to predict, decoded batch by batch.

    Attributes:
      names: what the CSV calls each image.
      broken: what is wrong with the images that cannot be read, by their place; once read.
      read: from places to a batch of images.
      foreign: whether they may be other than the training images.
    """

    def __init__(
        self,
        names: list[str],
        read,
        broken: dict[int, DataError] | None = None,
        *,
        foreign: bool = False,
    ):
        self.names = names
        self.broken = {} if broken is None else broken
        self.read = read
        self.foreign = foreign

    def sound(self) -> list[int]:
        """Places of the images that could be read; logs how many could not.

        Raises:
          DataError: none could.
        """
        kept = [i for i in range(len(self.names)) if i not in self.broken]
        if self.broken:
            first = self.broken[min(self.broken)]
            if not kept:
                raise DataError(f"--input: found no sound image; the first broken one: {first}")
            log.warning("left out %d broken image(s), the first: %s", len(self.broken), first)
        return kept

    def batches(self, size: int) -> Iterator[UInt8[np.ndarray, "b h w c"]]:
        """Yield batches of `size` images, the last one filled up with its last image.

        Warns if those of the first one are nearly black, white or flat.
        """
        for start in range(0, len(self.names), size):
            indices = np.minimum(np.arange(start, start + size), len(self.names) - 1)
            images = self.read(indices)
            if start == 0 and self.foreign:
                self._warn_of_greys(images[[i not in self.broken for i in indices]])
            yield images

    def _warn_of_greys(self, images: UInt8[np.ndarray, "n h w c"]) -> None:
        if strange := quality.strange_greys(images):
            log.warning(
                "--input: decoded as the training images were, the images are %s, such as %s: "
                "have they another depth, window or unit?",
                *(strange, self.names[0]),
            )


def open_source(
    path: pathlib.Path, trained: TrainedModel, split: str, *, skip_broken: bool = False
) -> Source:
    """Open a folder, an image or an npz file.

    Args:
      path: of it.
      trained: whose training images say which size and channels all are brought to.
      split: of an npz file.
      skip_broken: put images that cannot be read into `Source.broken`; black ones stand for them.

    Raises:
      DataError: there is nothing to predict, or it cannot be read; the file is named.
    """
    if path.suffix.lower() == ".npz":
        images = npz.read_images(path, split)
        if len(images) == 0:
            raise DataError(f"--input={path}: {split}_images holds no image")
        return from_other_array(images, trained, numbered(f"{path.name}/{split}", len(images)))
    try:
        names = image_files.list_images(path)
    except DataError as error:
        raise DataError(f"--input={error}") from error
    folder = path if os.path.isdir(path) else path.parent
    return from_files(folder, names, trained, skip_broken=skip_broken)


def from_files(
    folder: pathlib.Path, names: list[str], trained: TrainedModel, *, skip_broken: bool
) -> Source:
    """Images in a folder; `skip_broken` is that of `open_source`."""
    decoding, broken = trained.decoding, {}
    size, channels = decoding["size"], decoding["channels"]
    image_files.warn_of_few_bits(folder, [folder / name for name in names], decoding)

    def read(i: int) -> UInt8[np.ndarray, "h w c"]:
        try:
            return image_files.decode(folder / names[i], **decoding)
        except DataError as error:
            if not skip_broken:
                raise DataError(f"{error} --skip_broken leaves such images out.") from error
            broken[i] = error
            return np.zeros((size, size, channels), np.uint8)

    return _threaded(names, read, broken)


def from_other_array(
    images: UInt8[np.ndarray, "n h w c"], trained: TrainedModel, names: list[str]
) -> Source:
    """Images that may have another form than the training images."""
    if images.shape[1:] == tuple(trained.dataset["stored_shape"]):
        return from_array(images, names)
    form = trained.stored_form
    return _threaded(names, lambda i: image_files.from_array(images[i], **form), {})


def from_array(images: UInt8[np.ndarray, "n h w c"] | LazyImages, names: Sequence[str]) -> Source:
    """Images of the form of the training images."""
    return Source(list(names), lambda indices: images[indices])


def numbered(name: str, count: int) -> list[str]:
    """Names for images without any: name/0, name/1, ..."""
    return [f"{name}/{i}" for i in range(count)]


def _threaded(names: list[str], read, broken: dict[int, DataError]) -> Source:
    pool = futures.ThreadPoolExecutor(os.cpu_count())
    batch = lambda indices: np.stack(list(pool.map(read, indices)))
    return Source(names, batch, broken, foreign=True)


def predict_to_file(
    workdir: str | pathlib.Path,
    *,
    input: str | None = None,
    output: str | None = None,
    split: str | None = None,
    all_classifiers: bool = False,
    medmnist: bool = False,
    skip_broken: bool = False,
    batch_size: int = 64,
    checkpoint: str = "selected",
    raw: bool = False,
    sensitivity: float | None = None,
    specificity: float | None = None,
    coverage: float | None = None,
    tta: str = "none",
    trust_code: bool = False,
) -> pathlib.Path:
    """Predict and write the result; the arguments are the flags of this module.

    Returns:
      The file written.

    Raises:
      LSANetError: the run or the images cannot be read, or the file cannot be written.
    """
    check_batch_size(batch_size)
    check_input(input)
    if output and not medmnist:
        _check_output(pathlib.Path(output))
    split = check_split(input, split)
    workdirs, rule = split_workdirs(workdir), make_rule(sensitivity, specificity)
    members = load_members(workdirs, checkpoint, own_data=not input, trust_code=trust_code)
    if len(members) > 1 and (all_classifiers or medmnist):
        raise ConfigError("--all_classifiers and --medmnist take one run as --workdir")
    raw = raw or medmnist or not _is_calibrated_for(checkpoint, tta)
    panel = Panel(workdirs, rule, coverage, raw=raw)
    trained, workdir = members[0], workdirs[0]
    config, labels = trained.config, None
    if medmnist and (input or config.data.name not in MEDMNIST_NAMES):
        raise ConfigError(
            "--medmnist writes the predictions of a MedMNIST set's own split: it goes with a run "
            f"on one (this is on {config.data.name}), and without --input"
        )
    if input:
        # As in training: images of the same folders may be broken.
        skip_broken = skip_broken or config.data.skip_broken
        file = pathlib.Path(input)
        sources = [open_source(file, each, split, skip_broken=skip_broken) for each in members]
    else:
        own = own_data(trained, split)
        labels, names = own.labels, own.names or numbered(split, len(own.images))
        sources = [from_array(own.images, names)] * len(members)
    every = all_classifiers or panel.joint is not None
    said = [
        predict(*each, batch_size=batch_size, all_classifiers=every, tta=tta)
        for each in zip(members, sources, strict=True)
    ]
    sound = sorted(set.intersection(*(set(source.sound()) for source in sources)))
    names = [sources[0].names[i] for i in sound]
    said = [(p[:, sound], None if beta is None else beta[sound]) for p, beta in said]
    probabilities, beta, judged = panel.answer(said)
    if judged is not None:
        _say_what_decides(panel)
    if not all_classifiers:
        probabilities, beta = probabilities[-1:], None
    if medmnist:
        assert labels is not None  # It was refused together with --input.
        return write_medmnist(
            pathlib.Path(output or workdir), trained, split, probabilities[-1], labels
        )
    file = pathlib.Path(output or pathlib.Path(workdir) / "predictions.csv")
    write_csv(file, names, trained, probabilities, beta, judged)
    return file


def _is_calibrated_for(checkpoint: str, tta: str) -> bool:
    """Whether the calibration was fitted to such predictions; says what follows if not."""
    given = (f"--checkpoint={checkpoint}", f"--tta={tta}")
    unlike = [flag for flag in given if flag not in ("--checkpoint=selected", "--tta=none")]
    if unlike:
        log.warning(
            "%s: probabilities are not calibrated, and there are no decisions and sets, since the "
            "calibration was fitted to predictions without that",
            ", ".join(unlike),
        )
    return not unlike


def _check_output(file: pathlib.Path) -> None:
    """Check the flag --output before images are predicted."""
    check_output(file, _is_ours)
    if file.is_dir():
        raise ConfigError(f"--output={file} is a folder: name a CSV file in it")
    if file.suffix.lower() not in ("", ".csv", ".txt"):
        raise ConfigError(f"--output={file}: expected a name that ends in .csv")


def _is_ours(start: str) -> bool:
    """Whether a file begins as a table of predictions does, and not as one of labels."""
    try:
        header, *rows = csv.reader(start[: start.rfind("\n") + 1].splitlines())  # Whole lines.
    except (csv.Error, ValueError):
        return False
    probabilities = [cell for row in rows for cell in row[2:4]]
    return (
        header[:2] == ["file", "label"]
        and len(header) > 3
        and any("." in cell for cell in probabilities)
        and all(map(_PROBABILITY.fullmatch, probabilities))
    )


def _say_what_decides(panel: Panel) -> None:
    """Say which class of two the decision looks at, and what is wrong with the calibration."""
    found = panel.joint
    assert found is not None
    if found.task == "binary-class":
        (point,), name = found.points, found.class_names[1]
        log.info(
            "decision: %s if its probability is at least %.3g; sensitivity is that of finding %s",
            *(name, point.threshold, name),
        )
    for note in found.notes[:_MOST_NOTES]:
        log.warning("%s", note)
    if more := len(found.notes[_MOST_NOTES:]):
        log.warning("and %d more note(s), which the page of the run has", more)


def check_input(input: str | None) -> None:
    """Check the flag --input, which is empty if a variable of the user's is not set.

    Raises:
      ConfigError: it is.
    """
    if input == "":
        raise ConfigError("--input is empty: name images, or leave it out for the run's own data")


def check_split(input: str | None, split: str | None) -> str:
    """Check the flag --split; returns it, or "test".

    Raises:
      ConfigError: the images have no splits.
    """
    if input and split and pathlib.Path(input).suffix.lower() != ".npz":
        raise ConfigError(
            f"--split={split} is of an npz file or of the run's data, but --input={input} is "
            "neither: leave one of them out"
        )
    return split or "test"


def check_batch_size(batch_size: int) -> None:
    """Check the flag --batch_size.

    Raises:
      ConfigError: it is not a number of images that a machine can hold.
    """
    if not 1 <= batch_size <= _MOST_AT_ONCE:
        raise ConfigError(
            f"--batch_size={batch_size}: expected at least 1, at most {_MOST_AT_ONCE}"
        )


def own_data(trained: TrainedModel, split: str) -> Split:
    """A split of the data that a run was trained on.

    Raises:
      DataError: they cannot be read.
    """
    try:
        dataset = data_lib.load(trained.config.data, trained.config.seed)
        check_unchanged(dataset, trained.dataset.get("fingerprint"))
        return dataset.split(split)
    except (ConfigError, DataError) as error:
        raise DataError(
            f"{str(error).removesuffix('.')}. These are the run's own data; if they moved or are"
            " arrays, name images with --input."
        ) from error


def check_unchanged(dataset: Dataset, fingerprint: str | None) -> None:
    """Check that a run's data are those that it was trained on, if they are in memory.

    Of images that are decoded while they are used all would have to be read.

    Raises:
      DataError: they have another fingerprint than its manifest.
    """
    in_memory = isinstance(dataset.train.images, np.ndarray)
    if in_memory and fingerprint not in (None, dataset.fingerprint):
        raise DataError(
            "the images or labels have changed since the run was trained: their fingerprint is not "
            f"that in its {MANIFEST}."
        )


def predict(
    trained: TrainedModel,
    source: Source,
    *,
    batch_size: int,
    all_classifiers: bool,
    tta: str = "none",
) -> tuple[Float[np.ndarray, "l n k"], Float[np.ndarray, "n l"] | None]:
    """Probabilities of the classes, and beta.

    Args:
      trained: the network.
      source: the images.
      batch_size: images at a time.
      all_classifiers: all L classifiers, shallow to deep, and not only the network's own (l = 1).
      tta: a key of `VIEWS`.

    Returns:
      Softmax probabilities, or for each label of a multi-label task its own; and beta if there
      is attention and all classifiers were asked for.

    Raises:
      DataError: an image cannot be read.
    """
    run = trained.predictor(all_classifiers=all_classifiers)
    probabilities, betas = [], []
    with tqdm.tqdm(total=len(source.names), unit="image", dynamic_ncols=True) as bar:
        for images in source.batches(batch_size):
            views = [jax.device_get(run(view(images))) for view in VIEWS[tta]]
            batch, beta = views[0] if len(views) == 1 else jax.tree.map(_mean, *views)
            probabilities.append(batch)
            betas.append(beta)
            bar.update(min(batch_size, len(source.names) - bar.n))
    count = len(source.names)
    beta = None if betas[0] is None else np.concatenate(betas)[:count]
    return np.concatenate(probabilities, axis=1)[:, :count], beta


def _mean(*arrays: np.ndarray) -> np.ndarray:
    return np.mean(arrays, axis=0)


def write_csv(
    file: pathlib.Path,
    names: list[str],
    trained: TrainedModel,
    probabilities: Float[np.ndarray, "l n k"],
    beta: Float[np.ndarray, "n l"] | None,
    judged: Judged | None = None,
) -> None:
    """Write a row per image: file, label, probability per class; what was judged, if anything.

    Then follow the probabilities of each other classifier, and beta, if they were asked for.

    Columns are called as `columns` says.

    Raises:
      WorkdirError: the file cannot be written; then there is none, or the old one.
    """
    classes = trained.dataset["class_names"]
    multilabel = trained.dataset["task"] == "multi-label"
    taps = trained.model.taps[-len(probabilities) :]
    judging = JUDGED if judged else ()
    header = columns(classes, taps if beta is not None else (), taps[:-1], judging)

    def rows() -> Iterator[list]:
        for i, name in enumerate(names):
            own = probabilities[-1, i]
            chosen = np.flatnonzero(own > 0.5) if multilabel else [np.argmax(own)]
            others = [*probabilities[:-1, i], *([] if beta is None else [beta[i]])]
            label = "|".join(classes[k] for k in chosen)
            row = [name, label, *(f"{p:.6g}" for p in own)]
            if judged is not None:
                row += [judged.decisions[i], judged.sets[i], f"{judged.doubts[i]:.4g}"]
            yield row + [f"{p:.6g}" for other in others for p in other]

    _write(file, [header, *rows()])


def columns(
    classes: Sequence[str],
    with_beta: Sequence[int] = (),
    others: Sequence[int] = (),
    judged: Sequence[str] = (),
) -> list[str]:
    """Name the columns of the CSV; a name that another column has gets "class " in front of it.

    Args:
      classes: whose probabilities have a column each.
      with_beta: stages whose beta has a column.
      others: stages of other classifiers, whose probabilities have columns, too.
      judged: columns between those of the network's own classifier and of the others.
    """
    betas = [f"beta stage{stage}" for stage in with_beta]
    taken = {"file", "label", *betas, *judged}
    names = {_spelling(name) for name in classes}

    def free(name: str, wanted: set[str]) -> str:
        while _spelling(name) in taken | wanted:
            name = f"class {name}"
        taken.add(_spelling(name))
        return name

    own = [free(name, names - {_spelling(name)}) for name in classes]
    found = [free(f"stage{stage} {name}", set()) for stage in others for name in classes]
    return ["file", "label", *own, *judged, *found, *betas]


def _spelling(column: str) -> str:
    """Return a column's name as programs compare it that heed neither case nor blanks around it."""
    return column.strip().casefold()


def write_medmnist(
    directory: pathlib.Path,
    trained: TrainedModel,
    split: str,
    probabilities: Float[np.ndarray, "n k"],
    labels: np.ndarray,
) -> pathlib.Path:
    """Write {flag}_{split}_[AUC]a_[ACC]b@{seed}.csv: index and probabilities, no header.

    Raises:
      WorkdirError: it cannot be written.
    """
    task, data = trained.dataset["task"], trained.config.data
    flag = data.name if data.size == 28 else f"{data.name}_{data.size}"
    auc = metrics.auc(labels, probabilities, task)
    acc = metrics.accuracy(labels, probabilities, task)
    name = f"{flag}_{split}_[AUC]{auc:.3f}_[ACC]{acc:.3f}@{trained.config.seed}.csv"
    _write(
        directory / name, [[i, *(f"{p:.9g}" for p in row)] for i, row in enumerate(probabilities)]
    )
    return directory / name


def _write(file: pathlib.Path, rows: list[list]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(file) as temporary,
            temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as stream,
        ):
            csv.writer(stream).writerows(map(csv_cell, row) for row in rows)
    except OSError as error:
        raise WorkdirError(f"cannot write --output={file}: {error}") from error


def main() -> None:
    """Predict what the command line names."""
    parser = cli.parser(__doc__)
    cli.add_checkpoint(parser)
    add = functools.partial(parser.add_argument, type=cli.path)
    add("--input", help="folder, image or npz file (default: the run's data)")
    add("--output", help="CSV to write, or with --medmnist its folder (default: in the run)")
    parser.add_argument(
        "--split", choices=data_lib.SPLITS, help="of an npz file or the run's data (default: test)"
    )
    parser.add_argument(
        "--skip_broken",
        action="store_true",
        help="leave out, and count, images that cannot be read (default: as in training)",
    )
    parser.add_argument(
        "--all_classifiers", action="store_true", help="also the auxiliary classifiers, and beta"
    )
    parser.add_argument(
        "--medmnist",
        action="store_true",
        help="write the run's split as medmnist.Evaluator.parse_and_evaluate reads it",
    )
    parser.add_argument(
        "--raw", action="store_true", help="the networks' own probabilities, and no decisions"
    )
    cli.add_operating_point(parser)
    parser.add_argument(
        "--tta",
        default="none",
        choices=VIEWS,
        help="test-time augmentation: the mean over the image and its mirror image (hflip), its 4 "
        "flips, or its 8 flips and quarter turns; neither calibrated nor with decisions",
    )
    parser.add_argument("--batch_size", type=int, default=64, help="images at a time (default: 64)")
    args = parser.parse_args()
    cli.run(lambda: print(predict_to_file(**vars(args))))


if __name__ == "__main__":
    main()
