"""The user's own images in a folder: every format that `images` reads.

Labels are the names of class folders, or columns of a table:

    PATH/{train,val,test}/CLASS/*.png   val and test may be missing: they are drawn from train
    PATH/CLASS/*.png                    val and test are drawn
    PATH/**/*.png and a CSV             see `table` and `columns`

Listing and decoding are apart, so that images that do not fit into memory can be decoded lazily.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import logging
import math
import operator
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from tqdm import tqdm

from lsanet_jax.data import duplicates as duplicates_lib
from lsanet_jax.data import quality, splits
from lsanet_jax.data.classes import check_names, is_number, spelling
from lsanet_jax.data.dataset import SPLITS, TASKS, Dataset, Split
from lsanet_jax.data.lazy import LazyImages
from lsanet_jax.data.sources import columns, dicom
from lsanet_jax.data.sources import names as file_names
from lsanet_jax.data.sources.files import (
    SUFFIXES,
    describe_left_out,
    entries,
    report_left_out,
    walk,
    warn_of_strange_classes,
    without_masks,
)
from lsanet_jax.data.sources.images import (
    BITS,
    check_decoding,
    count_channels,
    decode,
    least_bits,
)
from lsanet_jax.data.sources.table import UNCERTAIN_CHOICES, Record, Table, read_table
from lsanet_jax.errors import ConfigError, DataError

SPLITS_FILE = splits.SPLITS_FILE
log = logging.getLogger(__name__)

_MOST_CLASSES = 10_000  # Beyond it, a table of images and classes may not fit into memory.
_SAME_FORMAT = dict.fromkeys((".jpeg", ".jpe", ".jfif"), ".jpg") | {".tiff": ".tif"}
_NOT_HELD = (
    "; they are read when they are used, so it was looked {}for blank images and for equal pixels"
    " in different files (lsanet data check does)"
)
_MOST_GRADES = 7
_MANY = 5  # Classes, of which it is strange if most have one or two images.
_FEW = 10  # Images; of more, each being a class of its own is a mistake.
_ANSWERS = {
    **dict.fromkeys(("1", "1.0", "true", "t", "yes", "y", "pos", "positive", "+"), True),
    **dict.fromkeys(("0", "0.0", "false", "f", "no", "n", "neg", "negative", "-"), False),
}


class Files(NamedTuple):
    """One split of a `Listing`, sorted by path.

    Attributes:
        files: POSIX paths relative to the listing's root.
        labels: [n] class indices, or for multi-label [n, k] of 0 and 1, or -1 if unknown.
        groups: as in `Split`.
    """

    files: tuple[str, ...]
    labels: Int32[np.ndarray, " n"] | Int32[np.ndarray, "n k"]
    groups: tuple[int, ...] = ()


class Found(NamedTuple):
    """The labelled images of a folder, before they are split.

    Attributes:
        root: the folder.
        source: the folder, or the table: what messages name.
        table: the images, sorted by file.
        left_out: files that are not images, by kind.
        guessed: whether the groups were guessed from names.
    """

    root: pathlib.Path
    source: pathlib.Path
    table: Table
    left_out: collections.Counter[str]
    guessed: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """A folder's images and labels, none of them decoded; fields as in `Dataset`.

    Attributes:
        drawn: the records, and the draw to write once all images could be read.
        identical: groups of files with the same content, if these were looked for.
        left_out: files that are not images, by kind.
        torn: for each group in several splits, two of its images.
    """

    name: str
    task: str
    class_names: tuple[str, ...]
    root: pathlib.Path
    train: Files
    val: Files
    test: Files
    drawn: splits.Drawn
    identical: list[list[duplicates_lib.Image]]
    left_out: collections.Counter[str]
    torn: list[tuple[Record, Record]]

    def split(self, key: str) -> Files:
        """The split called 'train', 'val' or 'test'."""
        return {"train": self.train, "val": self.val, "test": self.test}[key]

    def paths(self, key: str) -> list[pathlib.Path]:
        """A split's files, as `decode` takes them."""
        return [self.root / file for file in self.split(key).files]


def load_folder(
    path: str | os.PathLike,
    *,
    size: int,
    resize: str = "bicubic",
    fit: str = "squash",
    bits: int = 0,
    window: Sequence[float] = (),
    frame: int = 0,
    skip_broken: bool = False,
    max_megapixels: float = 100,
    memory_mb: float = math.inf,
    **listing_options: Any,
) -> Dataset:
    """List a folder and decode all its images, into memory if they fit.

    Args:
        path: the folder.
        size: pixels per side of the decoded images.
        resize: 'nearest', 'bilinear' or 'bicubic'.
        fit: how an image becomes a square: 'squash', 'pad' or 'crop'.
        bits: of deep greys, of which 2**bits - 1 is white; 0: what the set's values need.
        window: of DICOM files, centre and width; (): their own.
        frame: of files with several, from 1; 0: these are an error.
        skip_broken: leave out, count and log the images that `decode` refuses, for whatever reason.
        max_megapixels: larger images are refused.
        memory_mb: if the decoded images exceed so many MiB they are not held, but decoded whenever
            they are used.
        **listing_options: of `list_folder`.

    Raises:
        ConfigError: an argument is outside its choices.
        DataError: as `list_folder` and `decode` (for images that are not held, later, unless
            `skip_broken`); or with `skip_broken`, a split, or a class in a split, has no images
            left; or the same image is in two splits or two classes.
    """
    check_decoding(size, resize, fit=fit)
    _check_pixels(bits, window, frame)
    listing = list_folder(path, **listing_options)
    files = [file for key in SPLITS for file in listing.paths(key)]
    reading = {"frame": frame, "max_megapixels": max_megapixels}
    decoding = {"size": size, "resize": resize, "fit": fit, "window": tuple(window), **reading}
    decoding["channels"] = count_channels(files, max_megapixels)
    decoding["bits"] = bits or _find_bits(listing.root, files, reading)
    decode_one = functools.partial(decode if skip_broken else _decode, **decoding)
    shape = (size, size, decoding["channels"])
    held = len(files) * math.prod(shape) <= memory_mb * 2**20
    made, errors = {}, []
    for key in SPLITS:
        made[key], found = _load_split(listing, key, decode_one, shape, held, skip_broken)
        errors += found
    if errors:
        log.warning("Left out %d broken image(s), the first: %s", len(errors), errors[0])
    dataset = Dataset(
        listing.name,
        listing.task,
        listing.class_names,
        **made,
        source=str(path),
        decoding=decoding,
    )
    how = listing_options.get("duplicates", "allow")
    if how != "allow":
        duplicates_lib.check(listing.root, duplicates_lib.identical_images(dataset), how)
    quality.warn_of_odd_images(dataset)
    log.info(
        "%s: %s images for training, %s for validation, %s for testing, in %d classes%s.",
        listing.root,
        *(len(made[key]) for key in SPLITS),
        dataset.num_classes,
        ""
        if held
        else _NOT_HELD.format("" if how == "allow" else "only for identical files, not "),
    )
    splits.write(listing.drawn)
    return dataset


def list_folder(
    path: str | os.PathLike,
    *,
    csv: str = "",
    task: str | None = None,
    uncertain: str = "ignore",
    duplicates: str = "allow",
    leaks: str = "error",
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
    folds: int = 0,
    fold: int = 0,
    **column_names: str,
) -> Listing:
    """List a folder's images with labels and splits; no image is decoded.

    Hidden files and folders are left out, links followed, files of other kinds counted, and so are
    masks beside their images in class folders. With class folders, every split must have the same
    ones; an empty one in val or test says that the class is not there on purpose. Classes are
    sorted by name, or by value if all names are numbers, so for ordinal-regression name them
    accordingly ('0', '1', ... or '0_none', '1_mild', ...). Label columns keep their order. Images
    of one patient (a column of the table, the header of DICOM files, or 'patient12' and the like in
    file names) are drawn into one split.

    Args:
        path: the folder.
        csv: a table, relative to the folder or absolute; '' for class folders.
        task: one of `TASKS`; default: 'multi-label' for label columns that are not one-hot, else
            'binary-class' for two classes, else 'multi-class'.
        uncertain: what missing and uncertain labels of multi-label mean; see `table.read_table`.
        duplicates: what the same file in two splits or classes is: 'error', 'warn' or 'allow'.
            Unless it is 'allow', splits are drawn so that copies stay together.
        leaks: what images of one group in two given splits are: 'error', 'warn' or 'allow'.
        val_fraction: of the training images (or groups), if there is no split val.
        test_fraction: the same for test.
        seed: of the draw, from 0.
        folds: parts of a cross-validation; 0 for none.
        fold: which part is tested, from 0.
        **column_names: `file_column`, `label_column`, `split_column` and `group_column`, if they
            are not to be found by name.

    Raises:
        ConfigError: an argument is outside its choices.
        DataError: the folder, the table or an earlier draw is not as described above, a split is
            empty, or a class has no image, or none in train.
    """
    options = splits.Options(val_fraction, test_fraction, seed, folds, fold)
    how = duplicates_lib.CHOICES
    _check_choices(duplicates=(duplicates, how), leaks=(leaks, how))
    options.check()
    root, source, table, left_out, guessed = find_records(
        path,
        csv=csv,
        task=task,
        uncertain=uncertain,
        folds=folds,
        training=True,
        **column_names,
    )
    if not any(record.split == "train" for record in table.records):
        found = (
            f"{len(table.records)} images, but none for training" if table.records else "no images"
        )
        raise DataError(f"{source}: found {found}: add some.")
    records = table.records
    task, class_names = _infer_classes(source, table, task)
    labels = _labels(table, class_names)
    names = [record.file for record in records]
    same, together = [], []
    if duplicates != "allow":
        same = duplicates_lib.identical_files([root / name for name in names])
        together = [[names[place] for place in places] for places in same]
        together += file_names.together(source, names)
    drawn = splits.complete(
        source,
        root,
        records,
        table.label_names,
        _present(labels, len(class_names)),
        options,
        together,
    )
    split_of = np.array([record.split for record in drawn.records])
    identical = duplicates_lib.of_files(names, split_of.tolist(), [r.label for r in records], same)
    duplicates_lib.check(source, identical, duplicates)
    splits.check(source, drawn, classes=not table.label_names, groups=table.groups)
    torn = splits.torn_groups(drawn.records)
    splits.check_groups(source, torn, leaks, guessed)
    groups = splits.number_groups(records)
    parts = {key: _files(names, labels, groups, split_of == key) for key in SPLITS}
    name = root.resolve().name or str(root)
    found = {"drawn": drawn, "identical": identical, "left_out": left_out, "torn": torn}
    return Listing(name, task, class_names, root, **parts, **found)


def find_records(
    path: str | os.PathLike,
    *,
    csv: str = "",
    task: str | None = None,
    uncertain: str = "ignore",
    folds: int = 0,
    training: bool = True,
    **column_names: str,
) -> Found:
    """Find a folder's images and what is said of each: label, split and group.

    Arguments and errors are those of `list_folder`; but unless they are for `training`, the splits
    need not include one called train, nor have the same classes.
    """
    if task and task not in TASKS:
        raise ConfigError(
            f"config.data.task is {task!r}, expected '' or one of {', '.join(TASKS)}."
        )
    if task == "multi-label" and not csv:
        raise ConfigError(
            "config.data.task is 'multi-label', but class folders give each image one class: name a"
            " table with columns of 0 and 1 in config.data.csv."
        )
    _check_choices(uncertain=(uncertain, UNCERTAIN_CHOICES))
    root = _root(path)
    source = root / os.path.expanduser(csv) if csv else root
    if csv:
        table = read_table(
            source, root, task=task, uncertain=uncertain, folds=folds, **column_names
        )
        left_out = _outside_table(root, source, table.records)
    else:
        records, left_out = _walk_classes(root, training)
        warn_of_strange_classes(root, sorted({str(record.label) for record in records}))
        images = set(without_masks(root, [record.file for record in records]))
        table = Table([record for record in records if record.file in images])
    records, headers = _with_headers(root, table.records, left_out)
    guessed = False
    chosen = column_names.get("group_column", "")
    if chosen != columns.NONE:
        records, guessed = _with_groups(root, records, headers, () if chosen else table.groups)
    table = table._replace(records=records)
    report_left_out(root, left_out)
    records = sorted(table.records, key=operator.attrgetter("file"))
    if training:
        _warn_of_formats(root, records)
        told = {record.split for record in records} - {"train"}
        if not told and not column_names.get("split_column"):
            file_names.warn_of_splits(root, records)
    return Found(root, source, table._replace(records=records), left_out, guessed)


def _root(path: str | os.PathLike) -> pathlib.Path:
    root = pathlib.Path(os.path.expanduser(path))
    if not os.path.isdir(root):
        raise DataError(
            f"{root}: found no folder: set config.data.path to the folder of the images."
        )
    return root


def _labels(table: Table, class_names: Sequence[str]) -> Int32[np.ndarray, "..."]:
    """The labels of a table's records: class indices, or 0, 1 and -1 for each label."""
    index: dict[str | tuple[int, ...], int] = {
        name: number for number, name in enumerate(class_names)
    }
    label = lambda record: record.label if table.label_names else index[record.label]
    return np.array([label(record) for record in table.records], np.int32)


def _files(
    names: Sequence[str],
    labels: np.ndarray,
    groups: tuple[int, ...],
    kept: Bool[np.ndarray, " n"],
) -> Files:
    files = tuple(itertools.compress(names, kept))
    return Files(files, labels[kept], tuple(itertools.compress(groups, kept)))


def _warn_of_formats(root: pathlib.Path, records: Sequence[Record]) -> None:
    """Log classes all of whose files have a format that no other class has: it tells the class."""
    suffixes = [os.path.splitext(record.file)[1].lower() for record in records]
    labels = [record.label for record in records]
    formats = [_SAME_FORMAT.get(suffix, suffix) for suffix in suffixes]
    for label, own in telling(labels, formats).items():
        log.warning(
            "%s: all %d image(s) of class %r are %s, and those of other classes are not: the format"
            " may tell the class.",
            root,
            own.total(),
            label,
            " or ".join(sorted(own)) or "without a suffix",
        )


def telling(
    labels: Sequence[str | tuple[int, ...]], facts: Sequence[str]
) -> dict[str, collections.Counter[str]]:
    """Return the classes of which no image shares a fact with one of another class, and the facts.

    They are none if there is one class only, or labels are not classes.
    """
    found = collections.defaultdict(collections.Counter)
    for label, fact in zip(labels, facts, strict=True):
        found[label][fact] += 1
    if len(found) < 2 or any(isinstance(label, tuple) for label in found):
        return {}
    classes_with = collections.Counter(fact for own in found.values() for fact in own)
    return {
        label: own
        for label, own in found.items()
        if own.total() > 1 and all(classes_with[fact] == 1 for fact in own)
    }


def _check_pixels(bits: int, window: Sequence[float], frame: int) -> None:
    if bits not in (0, *BITS):
        raise ConfigError(
            f"config.data.bits is {bits}, expected 0 or one of {', '.join(map(str, BITS))}."
        )
    if len(window) not in (0, 2) or (len(window) == 2 and not window[1] > 0):
        raise ConfigError(
            f"config.data.window is {tuple(window)}, expected () or a centre and a width above 0."
        )
    if frame < 0:
        raise ConfigError(f"config.data.frame is {frame}, expected an integer >= 0.")


def _find_bits(root: pathlib.Path, files: Sequence[pathlib.Path], reading: dict[str, Any]) -> int:
    bits, deep = least_bits(files, **reading)
    if deep:
        log.warning(
            "%s: %d of %d image(s) have more than 8 bits per channel; their values need %d, so %d"
            " is white (config.data.bits).",
            root,
            deep,
            len(files),
            bits,
            2**bits - 1,
        )
    return bits


def _decode(file: pathlib.Path, **options: Any) -> UInt8[np.ndarray, "h w c"]:
    try:
        return decode(file, **options)
    except DataError as error:
        raise DataError(f"{error} config.data.skip_broken=True leaves such images out.") from error


def _load_split(
    listing: Listing,
    key: str,
    decode_one: Callable[[pathlib.Path], UInt8[np.ndarray, "h w c"]],
    shape: tuple[int, int, int],
    held: bool,
    skip_broken: bool,
) -> tuple[Split, list[DataError]]:
    """Decode a split, or prepare to; return what is wrong with images left out, too."""
    files, labels = listing.paths(key), listing.split(key).labels
    images = _room((len(files), *shape), key) if held else LazyImages(decode_one, files, shape)
    kept, errors = np.ones(len(files), bool), []
    if held or skip_broken:
        store = images.__setitem__ if isinstance(images, np.ndarray) else lambda *_: None
        kept, errors = _decode_all(files, decode_one, store, skip_broken, key)
    present = _present(labels, len(listing.class_names))
    lost = np.flatnonzero(present.any(axis=0) & ~present[kept].any(axis=0))
    if lost.size or not kept.any():
        what = f"class {listing.class_names[lost[0]]!r} in {key}" if lost.size else key
        raise DataError(
            f"{listing.root}: found no sound image of {what}, expected at least one: add some, or"
            " take the broken ones out of the folder, so that splits are drawn of the others; the"
            f" first broken one: {errors[0]}"
        )
    split = Split(images, labels, listing.split(key).files, listing.split(key).groups)
    return (split if kept.all() else split.select(kept)), errors


def _room(shape: tuple[int, ...], key: str) -> UInt8[np.ndarray, "n h w c"]:
    try:
        return np.zeros(shape, np.uint8)
    except (MemoryError, ValueError) as error:
        raise DataError(
            f"{key}_images of shape {shape} do not fit into memory: lower config.data.size."
        ) from error


def _decode_all(
    files: Sequence[pathlib.Path],
    decode_one: Callable[[pathlib.Path], UInt8[np.ndarray, "h w c"]],
    store: Callable[[int, UInt8[np.ndarray, "h w c"]], None],
    skip_broken: bool,
    key: str,
) -> tuple[Bool[np.ndarray, " n"], list[DataError]]:
    """Store a split's images; return which are sound, and what is wrong with the others."""

    def attempt(index: int) -> DataError | None:
        try:
            store(index, decode_one(files[index]))
        except DataError as error:
            return error

    errors = []
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        # It is a generator, whatever it is declared as; closing it cancels the rest.
        contextlib.closing(pool.map(attempt, range(len(files)))) as attempts,  # pyright: ignore[reportArgumentType]
    ):
        for error in tqdm(attempts, f"Decoding {key}", len(files), disable=None):
            if error and not skip_broken:
                raise error
            errors.append(error)
    kept = np.array([error is None for error in errors], bool)
    return kept, [error for error in errors if error]


def _walk_classes(
    root: pathlib.Path, training: bool
) -> tuple[list[Record], collections.Counter[str]]:
    """List the class folders of all splits, or of the folder itself."""
    top = entries(root)
    left_out = collections.Counter()
    names = [folder.name for folder in top.folders]
    parts = _split_folders(root, names, training) or {"train": root}
    records, classes = [], {}
    for key, part in parts.items():
        folders, loose, others = entries(part)
        left_out += others
        if loose:
            raise DataError(
                f"{loose[0]}: found an image outside class folders: move it into the folder of its"
                " class, or name a table of the labels in config.data.csv."
            )
        classes[key] = {folder.name for folder in folders}
        found = []
        for folder in folders:
            in_class, others = _walk_class(root, folder, key)
            found += in_class
            left_out += others
        if not found:
            raise DataError(
                f"{part}: found no images in {len(folders)} class folder(s), expected"
                f" {part.name}/CLASS/*{SUFFIXES[0]} (or {', '.join(SUFFIXES[1:])})"
                + (f", or no folder {key!r}, to have it drawn." if key != "train" else ".")
            )
        records += found
        for name in sorted(classes[key] ^ classes["train"]) if training else ():
            has, lacks = (key, "train") if name in classes[key] else ("train", key)
            raise DataError(
                f"{root}: found class {name!r} in {has} but not in {lacks}, expected the same class"
                f" folders: rename it, or, if {key} has no such images, make an empty folder."
            )
    empty = set().union(*classes.values()) - {record.label for record in records}
    if empty and training:
        raise DataError(
            f"{root}: class folder {min(empty)!r} is empty: remove it, or add images of the class."
        )
    return records, left_out


def _split_folders(
    root: pathlib.Path, names: Sequence[str], training: bool
) -> dict[str, pathlib.Path]:
    """Find the folders of splits, whatever they are called; none if there are only classes."""
    known = {name: split for name in names if (split := columns.split_of(name))}
    found = {split: root / name for name, split in known.items()}
    if not found:
        _refuse_splits_of_classes(root, names)
        return {}
    strange = [name for name in names if name not in known]
    twice = [name for name, split in known.items() if found[split] != root / name]
    splits_found = ", ".join(sorted(path.name for path in found.values()))
    if twice:
        split = known[twice[0]]
        raise DataError(
            f"{root}: found {twice[0]!r} and {found[split].name!r}, both folders of {split},"
            " expected one: rename one of them."
        )
    if strange or (training and "train" not in found):
        what = f"found folder {strange[0]!r}" if strange else "found no folder 'train'"
        raise DataError(
            f"{root}: {what} next to {splits_found}, expected train, perhaps val and test, and no"
            " other folder: rename or move it."
        )
    return {split: found[split] for split in SPLITS if split in found}


def _refuse_splits_of_classes(root: pathlib.Path, names: Sequence[str]) -> None:
    """Refuse folders such as trainA and testA, or train-benign and test-benign."""
    words = [
        re.findall("[A-Z]+(?![^\\W\\dA-Z_])|[A-Z]?[^\\W\\dA-Z_]+|[0-9]+", name) for name in names
    ]
    found = [[split for word in own if (split := columns.split_of(word))] for own in words]
    splits = {split for own in found for split in own}
    if all(len(own) == 1 < len(all_) for own, all_ in zip(found, words, strict=True)) and (
        "train" in splits and len(splits) > 1
    ):
        raise DataError(
            f"{root}: folders {', '.join(map(repr, names[:4]))} tell of a split and a class, each,"
            " expected folders of classes, or folders train, val and test with those of classes in"
            " them: move them, such as to train/A and test/A."
        )


def _walk_class(
    root: pathlib.Path, folder: pathlib.Path, key: str
) -> tuple[list[Record], collections.Counter[str]]:
    nested, images, left_out = entries(folder)
    if nested:
        raise DataError(
            f"{nested[0]}: found a folder in class folder {folder.name!r}, expected images only:"
            " move the images up, name a table of the labels in config.data.csv, or set"
            " config.data.path to the folder that holds train or the classes."
        )
    if left_out and not images:
        raise DataError(
            f"{folder}: class {folder.name!r} has no image that can be read, only"
            f" {describe_left_out(left_out)}: convert them, or remove the folder."
        )
    records = [Record(image.relative_to(root).as_posix(), folder.name, key) for image in images]
    return records, left_out


def _outside_table(
    root: pathlib.Path, table: pathlib.Path, records: Sequence[Record]
) -> collections.Counter[str]:
    """Count the files of a folder that are not images, and tell of images not in the table."""
    listed = {os.path.normpath(root / record.file) for record in records}
    left_out, unlisted = collections.Counter(), []
    try:
        for found in walk(root):
            left_out += found.left_out
            unlisted += [image for image in found.images if os.path.normpath(image) not in listed]
    except DataError as error:
        log.warning("Not looked for images outside the table: %s", error)
    if table.parent.resolve().is_relative_to(root.resolve()):
        left_out[table.suffix.lower()] -= 1
    left_out = +left_out
    if unlisted:
        log.warning(
            "%s: left out %d image(s) that the table does not list, such as %s",
            root,
            len(unlisted),
            unlisted[0].relative_to(root),
        )
    return left_out


def _with_headers(
    root: pathlib.Path, records: list[Record], left_out: collections.Counter[str]
) -> tuple[list[Record], list[dicom.Header | None]]:
    """Read DICOM headers; files that are no image (reports, segmentations) go, and are counted."""
    headers = dicom.read_headers([root / record.file for record in records])
    kept = [header is None or header.is_image for header in headers]
    left_out[dicom.NO_IMAGE] += kept.count(False)
    left_out += collections.Counter()  # Without those of which there are none.
    return list(itertools.compress(records, kept)), list(itertools.compress(headers, kept))


def _with_groups(
    root: pathlib.Path,
    records: list[Record],
    headers: Sequence[dicom.Header | None],
    grouped_by: Sequence[str],
) -> tuple[list[Record], bool]:
    """Group by patients of DICOM headers, or those in file names; also whether it is a guess.

    Groups of a column that was found by its name (`grouped_by`) stay, or get coarser.
    """
    if any(record.group for record in records):
        people = [header.patient if header else "" for header in headers]
        return file_names.with_coarser_groups(root, records, grouped_by, people), False
    patients = {header.patient for header in headers if header} - {""}
    by_study = len(patients) < 2
    grouped = []
    for record, header in zip(records, headers, strict=True):
        if header:
            group = header.study if by_study else header.patient or header.study
            record = record._replace(group=group)
        grouped.append(record)
    records = grouped
    if any(record.group for record in records):
        unnamed = sum(h is not None and not h.patient for h in headers)
        if unnamed:
            log.warning(
                "%s: %d DICOM file(s) have no PatientID, or one such as 'ANONYMOUS'; grouped by"
                " study instead.",
                *(root, unnamed),
            )
        elif by_study and len(records) > 1:
            log.warning("%s: all DICOM files have one PatientID; grouped by study instead.", root)
        more = len({header.identifier for header in headers if header} - {""}) - len(patients)
        if more:
            log.warning(
                "%s: %d PatientID(s) differ from others only in case, blanks or leading zeros: read"
                " as the same patient.",
                *(root, more),
            )
        what = "study" if by_study else "patient"
        log.info("%s: images of one DICOM %s stay in one split.", root, what)
        return records, False
    return file_names.with_persons(root, records)


def _infer_classes(
    source: pathlib.Path, table: Table, task: str | None
) -> tuple[str, tuple[str, ...]]:
    """Infer the task, and the names of its classes or labels in order."""
    records = table.records
    if table.label_names:
        _check_spellings(source, table.label_names)
        return task or "multi-label", table.label_names
    names = {record.label for record in records if isinstance(record.label, str)}  # All of them.
    class_names = tuple(name for name in table.class_order if name in names) or _in_order(names)
    if task == "ordinal-regression" and not table.class_order:
        class_names = _in_order_of_numbers(class_names)
    task = task or ("binary-class" if len(class_names) == 2 else "multi-class")
    _check_spellings(source, class_names)
    if len(class_names) < 2 or (task == "binary-class" and len(class_names) > 2):
        raise DataError(
            f"{source}: found {len(class_names)} class(es) ({', '.join(class_names[:10])}) for task"
            f" {task!r}, expected {'2' if task == 'binary-class' else 'at least 2'}."
        )
    if len(class_names) > _MOST_CLASSES:
        raise DataError(
            f"{source}: found {len(class_names)} classes in {len(records)} images, expected at most"
            f" {_MOST_CLASSES}: is another column the label?"
        )
    if len(records) > _FEW and 2 * len(class_names) > len(records):
        numbers = " (numbers: a measurement? It needs regression, which is not supported)"
        raise DataError(
            f"{source}: found {len(class_names)} classes in {len(records)} images, so most images"
            " would be the only one of their class"
            f"{numbers if all(map(is_number, class_names)) else ''}: name the column of classes in"
            " config.data.label_column, or put the values into a few classes."
        )
    _warn_of_unknown(source, records, class_names)
    if task == "ordinal-regression":
        log.log(
            logging.INFO if _is_plain_order(class_names) else logging.WARNING,
            "%s: the grades are, in this order: %s. If that is wrong, rename them, such as 0_none,"
            " 1_mild.",
            *(source, ", ".join(class_names)),
        )
    else:
        _warn_of_measurement(source, records, class_names)
    return task, class_names


def _check_spellings(source: pathlib.Path, class_names: Sequence[str]) -> None:
    """Refuse spellings of one class, and tell of names that may be."""
    check_names(source, class_names)
    alike = collections.defaultdict(list)
    for name in class_names:
        spelled = str(spelling(name))
        letters = name if is_number(name) else re.sub(r"[^\w+<>=%/]|_", "", spelled)
        alike[letters].append(name)
    for same in alike.values():
        if len(same) > 1:
            log.warning(
                "%s: classes %s differ in blanks or punctuation only, and stay different classes:"
                " if they are one, rename one of them.",
                *(source, " and ".join(map(repr, same))),
            )
    answers = {name: _ANSWERS.get(name.casefold().strip()) for name in class_names}
    if len(class_names) > 2 and None not in answers.values() and len({*answers.values()}) == 2:
        raise DataError(
            f"{source}: classes {', '.join(map(repr, class_names))} are two answers, yes and no, in"
            " several spellings: write each in one way."
        )


def _warn_of_unknown(
    source: pathlib.Path, records: Sequence[Record], class_names: Sequence[str]
) -> None:
    """Log classes whose names usually say that the class is not known."""
    numbers = {float(name) for name in class_names if is_number(name)}
    for name in class_names:
        value = float(name) if is_number(name) else math.nan
        is_code = value in columns.UNKNOWN_NUMBERS and value - 1 not in numbers
        if is_code or columns.key(name) in columns.UNKNOWN_WORDS:
            count = sum(record.label == name for record in records)
            log.warning(
                "%s: %d image(s) are of class %r, which is learned like any other; if it says that"
                " the class is not known, take these images out.",
                *(source, count, name),
            )


def _warn_of_measurement(
    source: pathlib.Path, records: Sequence[Record], class_names: Sequence[str]
) -> None:
    """Log that classes look like measurements or texts: numbers with gaps, or few images each."""
    values = [float(name) for name in class_names if is_number(name)]
    gaps = any(b - a != 1 for a, b in itertools.pairwise(sorted(values)))
    if len(values) == len(class_names) > _MOST_GRADES and gaps:
        found = (
            f"{len(values)} numbers with gaps, as of a measurement (regression is not supported)"
        )
    else:
        counts = collections.Counter(record.label for record in records)
        rare = sum(count < 3 for count in counts.values())
        if not (len(counts) >= _MANY and 2 * rare > len(counts)):
            return
        found = f"{len(counts)} values, {rare} of them of one or two images only"
    log.warning(
        "%s: the classes are %s, such as %s: if these are no classes, name the column of classes in"
        " config.data.label_column, or put the values into a few classes.",
        *(source, found, " and ".join(repr(name[:40]) for name in class_names[:2])),
    )


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sort, by value if all are numbers: '10' comes after '9'."""
    if all(map(is_number, names)):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def _is_plain_order(names: tuple[str, ...]) -> bool:
    """Whether the order of grades is that of their first letters, which are digits, or numbers."""
    are_sorted = all(map(is_number, names)) or tuple(sorted(names)) == names
    return are_sorted and all(name[0].isdigit() for name in names)


def _in_order_of_numbers(names: tuple[str, ...]) -> tuple[str, ...]:
    """Sort by the numbers that all names begin with, if these differ: '10_c' after '9_b'."""
    found = [re.match(r"\s*([0-9]+(?:[.,][0-9]+)?)", name) for name in names]
    numbers = [float(match[1].replace(",", ".")) for match in found if match]
    if len({*numbers}) < len(names):
        return names
    return tuple(name for _, name in sorted(zip(numbers, names, strict=True)))


def _present(labels: np.ndarray, num_classes: int) -> Bool[np.ndarray, "n classes"]:
    return labels == 1 if labels.ndim == 2 else np.eye(num_classes, dtype=bool)[labels]


def _check_choices(**given: tuple[str, Sequence[str]]) -> None:
    for field, (value, choices) in given.items():
        if value not in choices:
            raise ConfigError(
                f"config.data.{field} is {value!r}, expected one of {', '.join(choices)}."
            )
