"""The user's own images: PNG, JPEG, BMP or TIFF files in a folder.

Labels are the names of class folders, or columns of a CSV:

    PATH/{train,val,test}/CLASS/*.png   val and test may be missing: they are drawn from train
    PATH/CLASS/*.png                    val and test are drawn
    PATH/**/*.png and a CSV             columns file, label, and perhaps split, patient, lesion_id
                                        or file and columns of 0 and 1 for multi-label

Listing and decoding are apart, so that images that do not fit into memory can be decoded lazily.
"""

import collections
import concurrent.futures
import contextlib
import csv as csv_format
import dataclasses
import functools
import io
import logging
import math
import operator
import os
import pathlib
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int32, UInt8
from tqdm import tqdm

from lsanet_jax.data.dataset import SPLITS, TASKS, Dataset, Split
from lsanet_jax.data.lazy import LazyImages
from lsanet_jax.data.sources.images import (
    SUFFIXES,
    check_decoding,
    check_name,
    count_channels,
    decode,
)
from lsanet_jax.errors import ConfigError, DataError
from lsanet_jax.runtime.files import replacing

SPLITS_FILE = "lsanet_splits.csv"
log = logging.getLogger(__name__)

_GROUPS = ("patient", "lesion_id")
_MOST_CLASSES = 10_000  # Beyond it, a table of images and classes may not fit into memory.
_ZERO_OR_ONE = ("0", "1", "0.0", "1.0")


class Files(NamedTuple):
    """One split of a `Listing`, sorted by path.

    Attributes:
        files: POSIX paths relative to the listing's root.
        labels: [n] class indices, or [n, k] of 0 and 1 for multi-label.
    """

    files: tuple[str, ...]
    labels: Int32[np.ndarray, " n"] | Int32[np.ndarray, "n k"]


@dataclasses.dataclass(frozen=True, eq=False)
class Listing:
    """A folder's images and labels, none of them decoded; fields as in `Dataset`."""

    name: str
    task: str
    class_names: tuple[str, ...]
    root: pathlib.Path
    train: Files
    val: Files
    test: Files

    def split(self, key: str) -> Files:
        """The split called 'train', 'val' or 'test'."""
        return {"train": self.train, "val": self.val, "test": self.test}[key]

    def paths(self, key: str) -> list[pathlib.Path]:
        """A split's files, as `decode` takes them."""
        return [self.root / file for file in self.split(key).files]


class _Record(NamedTuple):
    file: str  # POSIX, relative to the root.
    label: str | tuple[int, ...]
    split: str
    group: str = ""


def load_folder(
    path: str | os.PathLike,
    *,
    size: int,
    resize: str = "bicubic",
    skip_broken: bool = False,
    max_megapixels: float = 100,
    memory_mb: float = math.inf,
    **listing_options: Any,
) -> Dataset:
    """Lists a folder and decodes all its images, into memory if they fit.

    Args:
        path: the folder.
        size: pixels per side of the decoded images, which are squashed to a square.
        resize: 'nearest', 'bilinear' or 'bicubic'.
        skip_broken: leave out, count and log the images that `decode` refuses, for whatever reason.
        max_megapixels: larger images are refused.
        memory_mb: if the decoded images exceed so many MiB they are not held, but decoded whenever
            they are used.
        **listing_options: `csv`, `task`, `val_fraction`, `test_fraction` and `seed` of
            `list_folder`.

    Raises:
        ConfigError: an argument is outside its choices.
        DataError: as `list_folder` and `decode` (for images that are not held, later, unless
            `skip_broken`); or with `skip_broken`, a split, or a class in a split, has no images
            left.
    """
    check_decoding(size, resize)
    listing = list_folder(path, **listing_options)
    files = [file for key in SPLITS for file in listing.paths(key)]
    channels = count_channels(files, max_megapixels)
    decode_one = functools.partial(
        _decode, size=size, resize=resize, channels=channels, max_megapixels=max_megapixels
    )
    held = len(files) * size * size * channels <= memory_mb * 2**20
    splits, errors = {}, []
    for key in SPLITS:
        files = listing.paths(key)
        shape = (len(files), size, size, channels)
        images = _room(shape, key) if held else LazyImages(decode_one, files, shape[1:])
        kept, found = np.ones(len(files), bool), []
        if held or skip_broken:
            store = images.__setitem__ if held else lambda *_: None
            kept, found = _decode_all(files, decode_one, store, skip_broken, key)
        errors += found
        labels = listing.split(key).labels
        present = _present(labels, len(listing.class_names))
        lost = np.flatnonzero(present.any(axis=0) & ~present[kept].any(axis=0))
        if lost.size or not kept.any():
            what = f"class {listing.class_names[lost[0]]!r} in {key}" if lost.size else key
            raise DataError(
                f"{listing.root}: found no sound image of {what}, expected at least one though"
                f" data.skip_broken is set; the first broken one: {errors[0]}"
            )
        split = Split(images, labels, listing.split(key).files)
        splits[key] = split if kept.all() else split.select(kept)
    if errors:
        log.warning("Left out %d broken image(s), the first: %s", len(errors), errors[0])
    return Dataset(listing.name, listing.task, listing.class_names, **splits, source=str(path))


def list_folder(
    path: str | os.PathLike,
    *,
    csv: str = "",
    task: str | None = None,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Listing:
    """Lists a folder's images with labels and splits; no image is opened.

    Hidden files and files of other kinds are ignored. With class folders, every split must have the
    same ones; an empty one in val or test says that the class is not there on purpose. Classes are
    sorted by name, or by value where all names are numbers, so for ordinal-regression name them
    accordingly ('0', '1', ... or '0_none', '1_mild', ...). Label columns keep their order.

    Missing splits are drawn by `draw_splits` and written to `lsanet_splits.csv` in the folder,
    which later calls read back, whatever their fractions and seed.

    Args:
        path: the folder.
        csv: a UTF-8 CSV with a header, relative to the folder or absolute; '' for class folders.
            `file` is relative to the folder or absolute. With a column `label`, other columns but
            those named above are ignored; without it, they are labels of 0 and 1. Images of one
            `patient` (else, of one `lesion_id`) must not be in two splits.
        task: one of `TASKS`; default: 'multi-label' for label columns, else 'binary-class' for two
            classes, else 'multi-class'. With 'multi-label', `label` is one column of 0 and 1.
        val_fraction: of the training images (or groups), if there is no split val.
        test_fraction: likewise for test.
        seed: of the draw, from 0.

    Raises:
        ConfigError: an argument is outside its choices.
        DataError: the folder, the CSV or `lsanet_splits.csv` is not as described above, a split is
            empty, or a class has no training image.
    """
    _check_listing(csv, task, val_fraction, test_fraction, seed)
    root = pathlib.Path(os.path.expanduser(path))
    if not os.path.isdir(root):
        raise DataError(f"{root}: found no folder: set data.path to the folder of the images.")
    source = root / os.path.expanduser(csv) if csv else root
    columns, records = _read_records(source, root, task) if csv else ((), _walk(root))
    records.sort(key=operator.attrgetter("file"))
    if not any(record.split == "train" for record in records):
        raise DataError(f"{source}: found {len(records)} images, but none for training.")

    task, class_names = _infer_classes(source, records, columns, task)
    index = {name: number for number, name in enumerate(class_names)}
    labels = [record.label if columns else index[record.label] for record in records]
    labels = np.array(labels, np.int32)
    records = _with_all_splits(
        source, root, records, columns, labels, {"val": val_fraction, "test": test_fraction}, seed
    )
    in_split = {key: [record.split == key for record in records] for key in SPLITS}
    splits = {
        key: Files(tuple(r.file for r in records if r.split == key), labels[in_split[key]])
        for key in SPLITS
    }
    name = root.resolve().name or str(root)
    return Listing(name, task, class_names, root, **splits)


def _infer_classes(
    source: pathlib.Path, records: Sequence[_Record], columns: tuple[str, ...], task: str | None
) -> tuple[str, tuple[str, ...]]:
    """Infer the task, and the names of its classes or labels in order."""
    class_names = columns or _in_order({record.label for record in records})
    if not task:
        few = "binary-class" if len(class_names) == 2 else "multi-class"
        task = "multi-label" if columns else few
    if not columns and (len(class_names) < 2 or (task == "binary-class" and len(class_names) > 2)):
        raise DataError(
            f"{source}: found {len(class_names)} class(es) ({', '.join(class_names[:10])}) for task"
            f" {task!r}, expected {'2' if task == 'binary-class' else 'at least 2'}."
        )
    if len(class_names) > _MOST_CLASSES:
        raise DataError(
            f"{source}: found {len(class_names)} classes in {len(records)} images, expected at most"
            f" {_MOST_CLASSES}: is another column the label?"
        )
    return task, class_names


def _with_all_splits(
    source: pathlib.Path,
    root: pathlib.Path,
    records: list[_Record],
    columns: Sequence[str],
    labels: np.ndarray,
    fractions: dict[str, float],
    seed: int,
) -> list[_Record]:
    """Read or draw, check and store the splits that the records lack."""
    for record in records:
        fractions.pop(record.split, None)
    stored = root / SPLITS_FILE
    read_back = bool(fractions) and os.path.lexists(stored)
    num_classes = labels.shape[1] if columns else int(labels.max()) + 1
    if read_back:
        records = _with_stored_splits(records, stored, fractions)
    elif fractions:
        records = _with_drawn_splits(records, _present(labels, num_classes), fractions, seed)
    _check_splits(source, records, not columns)
    if fractions and not read_back:
        _write_splits(stored, records, columns)
    return records


def draw_splits(
    present: Bool[np.ndarray, "n labels"], fractions: Mapping[str, float], seed: int
) -> list[str]:
    """Draws a split for each of n images or groups, stratified by label.

    Labels are taken from the rarest on, as in iterative stratification; each of its images goes to
    the split that lacks most of that label. Where a label has three images or more and no other
    label interferes, every split gets at least one.

    Args:
        present: whether an image, or any image of a group, has a label.
        fractions: of each label's images, for 'val', 'test' or both; the rest is 'train'.
        seed: of the order in which images are taken.

    References:
        Sechidis, Tsoumakas and Vlahavas, On the Stratification of Multi-Label Data (ECML 2011).
    """
    random = np.random.Generator(np.random.PCG64(seed))
    present = np.concatenate([present, ~present.any(axis=1, keepdims=True)], axis=1)
    counts = present.sum(axis=0)
    drawn_from_train = [
        np.maximum(1, np.rint(fraction * counts).astype(int)) for fraction in fractions.values()
    ]
    lacking = np.array([np.maximum(1, counts - sum(drawn_from_train)), *drawn_from_train])
    drawn = np.full(len(present), -1)
    for label in np.argsort(counts, kind="stable"):
        for image in random.permutation(np.flatnonzero(present[:, label])):
            if drawn[image] < 0:
                drawn[image] = lacking[:, label].argmax()  # The first, train, of equals.
                lacking[drawn[image]] -= present[image]
    keys = ("train", *fractions)
    return [keys[split] for split in drawn]


def _decode(file: pathlib.Path, **options: Any) -> UInt8[np.ndarray, "h w c"]:
    try:
        return decode(file, **options)
    except DataError as error:
        raise DataError(f"{error} data.skip_broken=True leaves such images out.") from error


def _room(shape: tuple[int, ...], key: str) -> UInt8[np.ndarray, "n h w c"]:
    try:
        return np.zeros(shape, np.uint8)
    except (MemoryError, ValueError) as error:
        raise DataError(
            f"{key}_images of shape {shape} do not fit into memory: lower data.size."
        ) from error


def _decode_all(
    files: Sequence[pathlib.Path],
    decode_one: Callable[[pathlib.Path], UInt8[np.ndarray, "h w c"]],
    store: Callable[[int, UInt8[np.ndarray, "h w c"]], None],
    skip_broken: bool,
    key: str,
) -> tuple[Bool[np.ndarray, " n"], list[DataError]]:
    """Stores a split's images; returns which are sound, and what is wrong with the others."""

    def attempt(index: int) -> DataError | None:
        try:
            store(index, decode_one(files[index]))
        except DataError as error:
            return error

    errors = []
    with (
        concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool,
        contextlib.closing(pool.map(attempt, range(len(files)))) as attempts,  # Cancels the rest.
    ):
        for error in tqdm(attempts, f"Decoding {key}", len(files), disable=None):
            if error and not skip_broken:
                raise error
            errors.append(error)
    kept = np.array([error is None for error in errors], bool)
    return kept, [error for error in errors if error]


def _walk(root: pathlib.Path) -> list[_Record]:
    folders, _ = _entries(root)
    names = {folder.name for folder in folders}
    parts = {"train": root}
    if names & set(SPLITS):
        strange = sorted(names - set(SPLITS))
        if strange or "train" not in names:
            found = f"found folder {strange[0]!r}" if strange else "found no folder 'train'"
            raise DataError(
                f"{root}: {found} next to {', '.join(sorted(names & set(SPLITS)))}, expected"
                " train, perhaps val and test, and no other folder: rename or move it."
            )
        parts = {key: root / key for key in SPLITS if key in names}
    records, classes = [], {}
    for key, part in parts.items():
        folders, loose = _entries(part)
        if loose:
            raise DataError(
                f"{loose[0]}: found an image outside class folders: move it into the folder of its"
                " class, or name a CSV of the labels in data.csv."
            )
        classes[key] = {folder.name for folder in folders}
        found = [record for folder in folders for record in _walk_class(root, folder, key)]
        if not found:
            raise DataError(
                f"{part}: found no images in {len(folders)} class folder(s), expected"
                f" {part.name}/CLASS/*{SUFFIXES[0]} (or {', '.join(SUFFIXES[1:])})"
                + (f", or no folder {key!r}, to have it drawn." if key != "train" else ".")
            )
        records += found
        for name in sorted(classes[key] ^ classes["train"]):
            has, lacks = (key, "train") if name in classes[key] else ("train", key)
            raise DataError(
                f"{root}: found class {name!r} in {has} but not in {lacks}, expected the same class"
                f" folders: rename it, or, if {key} has no such images, make an empty folder."
            )
    return records


def _walk_class(root: pathlib.Path, folder: pathlib.Path, key: str) -> list[_Record]:
    nested, images = _entries(folder)
    if nested:
        raise DataError(
            f"{nested[0]}: found a folder in class folder {folder.name!r}, expected images only:"
            " move the images up, or name a CSV of the labels in data.csv."
        )
    return [_Record(image.relative_to(root).as_posix(), folder.name, key) for image in images]


def _entries(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """A folder's subfolders and images, without hidden ones, sorted."""
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
        folders = [entry for entry in entries if entry.is_dir()]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}).") from error
    images = set(entries) - set(folders)
    images = sorted(entry for entry in images if entry.suffix.lower() in SUFFIXES)
    for entry in (*folders, *images):
        check_name(folder, entry.name)
    return folders, images


def _read_csv(file: pathlib.Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The header, and each row with its line number."""
    try:
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file}: cannot be read ({reason}), expected a CSV file.") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{file}: line {line}: not UTF-8: save the file as UTF-8.") from error
    reader = csv_format.reader(io.StringIO(text, newline=""), strict=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv_format.Error as error:
        raise DataError(f"{file}: line {reader.line_num}: not CSV ({error}): mend it.") from error
    if not rows:
        raise DataError(f"{file}: line 1: the file is empty, expected a header with 'file'.")
    line, header = rows[0]
    header = [name.strip() for name in header]
    repeated = [name for name, count in collections.Counter(header).items() if count > 1]
    if repeated or "file" not in header:
        found = (
            f"column {repeated[0]!r} twice" if repeated else f"no column 'file' in {header[:20]}"
        )
        raise DataError(f"{file}: line {line}: found {found}, expected a header, with commas.")
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise DataError(
                f"{file}: line {line}: found {len(row)} cells, expected {len(header)} as in the"
                " header: mend the line, or quote cells that hold a comma."
            )
    return header, [(line, dict(zip(header, row, strict=True))) for line, row in rows[1:]]


def _read_records(
    file: pathlib.Path, root: pathlib.Path, task: str | None
) -> tuple[tuple[str, ...], list[_Record]]:
    """The label columns, which are none for a column of classes, and the rows."""
    header, rows = _read_csv(file)
    others = [name for name in header if name not in ("file", "split", *_GROUPS)]
    columns = ()
    if task == "multi-label" or (not task and "label" not in header and len(others) > 1):
        columns = tuple(others)
    if not (all(columns) if columns else "label" in header):
        raise DataError(
            f"{file}: line 1: found columns {header[:20]}, expected 'label', or for multi-label two or"
            " more named columns of 0 and 1."
        )
    group = next((name for name in _GROUPS if name in header), None)
    records, lines = [], {}
    for line, row in rows:
        where = f"{file}: line {line}:"
        name = posixpath.normpath(row["file"])
        if name in lines:
            raise DataError(f"{where} {name!r} is in line {lines[name]} too: keep one of them.")
        if not os.path.isfile(root / name):
            raise DataError(f"{where} there is no file {row['file']!r} in {root}: mend the path.")
        lines[name] = line
        if columns:
            cells = [_cell(where, row, column, _ZERO_OR_ONE) for column in columns]
            label = tuple(int(float(cell)) for cell in cells)
        else:
            label = _cell(where, row, "label")
        split = _cell(where, row, "split", SPLITS) if "split" in header else "train"
        records.append(_Record(name, label, split, _cell(where, row, group) if group else ""))
    return columns, records


def _cell(where: str, row: Mapping[str, str], column: str, choices: Sequence[str] = ()) -> str:
    value = row[column].strip()
    if not value or (choices and value not in choices):
        expected = f"expected one of {', '.join(choices)}" if choices else "expected a value"
        raise DataError(f"{where} {column!r} is {row[column]!r}, {expected}: mend the cell.")
    return value


def _in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Sorted, by value if all are numbers: '10' comes after '9'."""
    if all(re.fullmatch(r"-?[0-9]{1,15}(\.[0-9]{1,15})?", name) for name in names):
        return tuple(sorted(names, key=lambda name: (float(name), name)))
    return tuple(sorted(names))


def _present(labels: np.ndarray, num_classes: int) -> Bool[np.ndarray, "n classes"]:
    return labels == 1 if labels.ndim == 2 else np.eye(num_classes, dtype=bool)[labels]


def _with_drawn_splits(
    records: Sequence[_Record], present: np.ndarray, fractions: Mapping[str, float], seed: int
) -> list[_Record]:
    """Moves some of train to the splits in `fractions`, whole groups at a time."""
    units = [record.group or record.file for record in records]
    names = sorted({units[i] for i, record in enumerate(records) if record.split == "train"})
    index = {name: number for number, name in enumerate(names)}
    unit_present = np.zeros((len(names), present.shape[1]), bool)
    for record, unit, row in zip(records, units, present, strict=True):
        if record.split == "train":
            unit_present[index[unit]] |= row
    drawn = draw_splits(unit_present, fractions, seed)
    return [
        record._replace(split=drawn[index[unit]]) if record.split == "train" else record
        for record, unit in zip(records, units, strict=True)
    ]


def _with_stored_splits(
    records: Sequence[_Record], file: pathlib.Path, fractions: Mapping[str, float]
) -> list[_Record]:
    header, rows = _read_csv(file)
    again = "mend it, or delete it to draw the splits again"
    if "split" not in header:
        raise DataError(f"{file}: line 1: found no column 'split' in {header}: {again}.")
    stored = {
        row["file"]: _cell(f"{file}: line {line}:", row, "split", SPLITS) for line, row in rows
    }
    if len(stored) < len(rows):
        raise DataError(f"{file}: found {len(rows) - len(stored)} file(s) twice: {again}.")
    for what, files in (
        ("new", {record.file for record in records} - stored.keys()),
        ("gone", stored.keys() - {record.file for record in records}),
    ):
        if files:
            few = ", ".join(sorted(files)[:5]) + (", ..." if len(files) > 5 else "")
            raise DataError(
                f"{file}: {len(files)} file(s) are {what} since it was made: {few}: {again}."
            )
    for record in records:
        drawn = stored[record.file]
        if drawn != record.split and (record.split != "train" or drawn not in fractions):
            raise DataError(
                f"{file}: {record.file} is in {drawn}, but now given as {record.split}: {again}."
            )
    log.info("Splits are those of %s; delete it to draw them again.", file)
    return [record._replace(split=stored[record.file]) for record in records]


def _write_splits(file: pathlib.Path, records: Sequence[_Record], columns: Sequence[str]) -> None:
    rows = [["file", *(columns or ["label"]), "split"]]
    for record in records:
        rows.append([record.file, *(record.label if columns else [record.label]), record.split])
    try:
        with (
            replacing(file) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            csv_format.writer(stream).writerows(rows)
    except OSError as error:
        log.warning(
            "%s: cannot be written (%s); the splits stay the same as long as files, labels and seed"
            " do.",
            file,
            error.strerror,
        )


def _check_splits(source: pathlib.Path, records: Sequence[_Record], classes: bool) -> None:
    counts = {key: sum(record.split == key for record in records) for key in SPLITS}
    if not all(counts.values()):
        found = ", ".join(f"{count} {key}" for key, count in counts.items())
        raise DataError(
            f"{source}: found {len(records)} images, split to {found}, expected at least one each:"
            " add images, or split them by a column 'split' or by folders."
        )
    trained = {record.label for record in records if record.split == "train"}
    splits_of_group = {}
    for record in records:
        if classes and record.label not in trained:
            raise DataError(
                f"{source}: class {record.label!r} has an image in {record.split} ({record.file})"
                " but none in train: move or add one."
            )
        if record.group and splits_of_group.setdefault(record.group, record.split) != record.split:
            raise DataError(
                f"{source}: images of {record.group!r} are in {splits_of_group[record.group]} and"
                f" in {record.split}, expected each patient or lesion_id in one split: mend column"
                " 'split', or rename the column of groups if that is meant."
            )


def _check_listing(
    csv: str, task: str | None, val_fraction: float, test_fraction: float, seed: int
) -> None:
    if task and task not in TASKS:
        raise ConfigError(f"data.task is {task!r}, expected '' or one of {', '.join(TASKS)}.")
    if task == "multi-label" and not csv:
        raise ConfigError(
            "data.task is 'multi-label', but class folders give each image one class: name a CSV"
            " with columns of 0 and 1 in data.csv."
        )
    for field, value in (("val_fraction", val_fraction), ("test_fraction", test_fraction)):
        if not 0 < value < 1:
            raise ConfigError(f"data.{field} is {value}, expected a number between 0 and 1.")
    if not val_fraction + test_fraction < 1:
        raise ConfigError(
            f"data.val_fraction + data.test_fraction is {val_fraction + test_fraction:g}, expected"
            " less than 1: the rest is for training."
        )
    if seed < 0:
        raise ConfigError(f"data.split_seed is {seed}, expected an integer from 0.")
