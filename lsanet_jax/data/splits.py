"""Which image is in which split: drawn by group and stratified, or folds of a cross-validation.

A draw is a pure function of the images, their labels and groups, and the options. It is written
beside the images, so that it stays the same; another draw gets a file of its own.
"""

import collections
import csv as csv_format
import hashlib
import json
import logging
import pathlib
import unicodedata
import warnings
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

from lsanet_jax.data import groups as groups_lib
from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources.columns import part
from lsanet_jax.data.sources.table import Record, read_csv
from lsanet_jax.errors import ConfigError, DataError
from lsanet_jax.runtime.files import replacing

SPLITS_FILE = "lsanet_splits.csv"

log = logging.getLogger(__name__)

_COLUMNS = ("file", "split", "draw")  # Of the file, beside the labels.
_FAR = 0.15  # Of all images: a share that differs so much from the one asked for.
_ENOUGH = 10  # Images, whose shares say something.


class Options(NamedTuple):
    """How missing splits are drawn.

    Attributes:
        val_fraction: of the images (or groups) for training, if there is no split val.
        test_fraction: the same for test.
        seed: of the draw, from 0.
        folds: parts of a cross-validation, each of which is the test split once (or, if a test
            split is given, the validation split); 0 for none.
        fold: which part it is now, from 0.
    """

    val_fraction: float = 0.1
    test_fraction: float = 0.2
    seed: int = 0
    folds: int = 0
    fold: int = 0

    def check(self) -> None:
        """Raises ConfigError for values outside their ranges."""
        for field in ("val_fraction", "test_fraction"):
            value = getattr(self, field)
            if not 0 < value < 1:
                raise ConfigError(
                    f"config.data.{field} is {value}, expected a number between 0 and 1."
                )
        if not self.val_fraction + self.test_fraction < 1:
            total = self.val_fraction + self.test_fraction
            raise ConfigError(
                f"config.data.val_fraction + config.data.test_fraction is {total:g}, expected less"
                " than 1: the rest is for training."
            )
        if self.seed < 0:
            raise ConfigError(f"config.data.split_seed is {self.seed}, expected an integer >= 0.")
        if self.folds < 0 or self.folds == 1:
            raise ConfigError(f"config.data.folds is {self.folds}, expected 0 or an integer >= 2.")
        if not 0 <= self.fold < max(1, self.folds):
            raise ConfigError(
                f"config.data.fold is {self.fold}, expected 0 to {max(1, self.folds) - 1}, since"
                f" config.data.folds is {self.folds}."
            )


class Drawn(NamedTuple):
    """Records with all their splits, and the file to write once all images could be read.

    Attributes:
        records: one per image.
        file: where the draw belongs; None if nothing was drawn, or it was read from there.
        content: of that file.
        units: how many images, or groups of them, can be drawn apart; 0 if nothing was drawn.
    """

    records: list[Record]
    file: pathlib.Path | None = None
    content: tuple[tuple[str, ...], ...] = ()
    units: int = 0


def complete(
    where: object,
    root: pathlib.Path,
    records: Sequence[Record],
    label_names: Sequence[str],
    present: Bool[np.ndarray, "n labels"],
    options: Options,
    identical: Iterable[Sequence[str]] = (),
) -> Drawn:
    """Read or draw the splits that the records lack; all images of a group get the same one.

    Args:
        where: what errors name.
        root: folder of the images, where earlier draws lie.
        records: sorted by file; 'train' may also mean that nothing is said.
        label_names: for multi-label; else none.
        present: whether an image has a label.
        options: of the draw.
        identical: files with the same content, which stay together too.

    Raises:
        DataError: an earlier draw is damaged; a split is empty or lacks a class.
    """
    given = {record.split for record in records}
    missing = tuple(split for split in ("val", "test") if split not in given)
    if options.folds:
        missing = _rotated(where, missing)
    if not missing:
        return Drawn(list(records))
    units = join_units(records, identical)
    draw = _describe(records, units, missing, options)
    file, stored = _find(root, records, draw, missing)
    if stored is not None:
        return Drawn(stored)
    drawn = _draw(records, units, present, missing, options)
    if not options.folds:
        _warn_of_shares(where, records, drawn, units, options)
    labels = [[record.label] if not label_names else record.label for record in drawn]
    names = [f"label {name}" if name in _COLUMNS else name for name in label_names or ["label"]]
    header = ("file", *names, "split", "draw")
    rows = [
        (record.file, *map(str, label), record.split, draw)
        for record, label in zip(drawn, labels, strict=True)
    ]
    return Drawn(drawn, file, (header, *rows), len(np.unique(units)))


def write(drawn: Drawn) -> None:
    """Write a draw into its file; a folder that cannot be written to gives a warning."""
    if drawn.file is None:
        return
    try:
        with (
            replacing(drawn.file) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as stream,
        ):
            csv_format.writer(stream).writerows(drawn.content)
    except OSError as error:
        log.warning(
            "%s: cannot be written (%s); the splits stay the same as long as files, labels and seed"
            " do.",
            drawn.file,
            error.strerror,
        )


def check(where: object, drawn: Drawn, *, classes: bool, groups: Sequence[str] = ()) -> None:
    """Check that each split has images, and train has each class.

    Args:
        where: the folder or table, for messages.
        drawn: the images and their splits.
        classes: whether labels are classes, not columns of 0 and 1.
        groups: the columns of groups.

    Raises:
        DataError: something is wrong.
    """
    records = drawn.records
    counts = {key: sum(record.split == key for record in records) for key in SPLITS}
    if not all(counts.values()):
        found = ", ".join(f"{count} {key}" for key, count in counts.items())
        whose = f"of column {' and '.join(map(repr, groups))}" if groups else "one patient's"
        units = f" in {drawn.units} group(s) ({whose}, or identical files)"
        raise DataError(
            f"{where}: found {len(records)} images"
            f"{units if 0 < drawn.units < len(records) else ''}, split to {found}, expected at"
            " least one each: add images, or split them by a column 'split' or by folders"
            + (", or name other groups in config.data.group_column ('none')." if groups else ".")
        )
    trained = {record.label for record in records if record.split == "train"}
    for record in records:
        if classes and record.label not in trained:
            raise DataError(
                f"{where}: class {record.label!r} has an image in {record.split} ({record.file})"
                " but none in train: move or add one."
            )


def torn_groups(records: Sequence[Record]) -> list[tuple[Record, Record]]:
    """List two images in different splits of each group that is in several."""
    first_of_group: dict[str, Record] = {}
    torn: dict[str, tuple[Record, Record]] = {}
    for record in records:
        if record.group:
            group = spelling(record.group)
            first = first_of_group.setdefault(group, record)
            if first.split != record.split:
                torn.setdefault(group, (first, record))
    return list(torn.values())


def check_groups(
    where: object, torn: Sequence[tuple[Record, Record]], leaks: str, guessed: bool
) -> None:
    """Refuse, or tell of, groups in several splits.

    Args:
        where: the folder or table, for messages.
        torn: from `torn_groups`.
        leaks: what they are: 'error', 'warn' or 'allow'.
        guessed: whether groups were guessed from names, which is enough for a warning only.

    Raises:
        DataError: there are such groups, and they are an error.
    """
    if not torn or leaks == "allow":
        return
    first, second = torn[0]
    message = (
        f"{where}: {len(torn)} patient(s) or other group(s) have images in several splits, such as"
        f" {first.file} ({first.split}) and {second.file} ({second.split}): the scores would be of"
        " images that are half known"
    )
    if leaks == "warn" or guessed:
        log.warning("%s.%s", message, " (Groups were guessed from file names.)" * guessed)
        return
    raise DataError(
        f"{message}. Move them into one split each, leave out the given splits to have them drawn,"
        " name the right column in config.data.group_column ('none' for no groups), or set"
        " config.data.leaks to 'warn'."
    )


def draw_splits(
    present: Bool[np.ndarray, "n labels"], fractions: Mapping[str, float], seed: int
) -> list[str]:
    """Draw a split for each of n images or groups, stratified by label.

    Labels are taken from the rarest on, as in iterative stratification; each of its images goes to
    the split that lacks most of that label. Where a label has three images or more and no other
    label interferes, every split gets at least one. If a split would be empty, or train would lack
    a label, single images or groups are moved.

    Args:
        present: whether an image, or any image of a group, has a label.
        fractions: of each label's images, for 'val', 'test' or both; the rest is 'train'.
        seed: of the order in which images are taken.

    References:
        Sechidis, Tsoumakas and Vlahavas, On the Stratification of Multi-Label Data (ECML 2011).
    """
    random = np.random.Generator(np.random.PCG64(seed))
    labels = present
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
    _fill(drawn, labels, len(fractions) + 1)
    keys = ("train", *fractions)
    return [keys[split] for split in drawn]


def draw_folds(
    present: Bool[np.ndarray, "n labels"],
    units: Int[np.ndarray, " n"],
    folds: int,
    seed: int,
) -> Int[np.ndarray, " n"]:
    """Draw a fold for each image, stratified by its combination of labels, whole units at a time.

    Args:
        present: whether an image has a label.
        units: which images stay together.
        folds: how many, >= 2.
        seed: of the draw.

    Raises:
        DataError: there are fewer units than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # It takes half a second.

    if len(np.unique(units)) < folds:
        raise DataError(
            f"config.data.folds is {folds}, expected at most {len(np.unique(units))}, the number of"
            " groups (patients or single images)."
        )
    _, combination = np.unique(present, axis=0, return_inverse=True)
    combination = combination.ravel()
    if np.bincount(combination).max() < folds:  # Nothing to stratify by.
        combination = np.zeros_like(combination)
    found = np.empty(len(units), int)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of labels rarer than folds.
        for fold, (_, tested) in enumerate(splitter.split(units, combination, units)):
            found[tested] = fold
    return found


def join_units(
    records: Sequence[Record], identical: Iterable[Sequence[str]] = ()
) -> Int[np.ndarray, " n"]:
    """Number what must stay together: images of a group, and files with the same content.

    Groups in two spellings ('P01' and 'p01 ', '7' and '007') are one, and a warning says so.
    """
    index = {record.file: place for place, record in enumerate(records)}
    groups: dict[Hashable, list[int]] = collections.defaultdict(list)
    spellings = collections.defaultdict(set)
    for place, record in enumerate(records):
        if record.group:
            groups[spelling(record.group)].append(place)
            spellings[spelling(record.group)].add(record.group)
    twice = [sorted(names) for names in spellings.values() if len(names) > 1]
    if twice:
        shown = ", ".join(" and ".join(map(repr, names)) for names in twice[:3])
        log.warning("%d group(s) are spelled in several ways, read as one: %s", len(twice), shown)
    same = [[index[file] for file in files if file in index] for files in identical]
    joined = groups_lib.join(len(records), (*groups.values(), *same))
    _, units = np.unique(joined, return_inverse=True)
    return units


def number_groups(records: Sequence[Record]) -> tuple[int, ...]:
    """Number the groups of images from 0, those without one each for itself; () without groups."""
    if not any(record.group for record in records):
        return ()
    keys = [(spelling(r.group), "") if r.group else ("", r.file) for r in records]
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return tuple(numbers[key] for key in keys)


def spelling(group: str) -> str:
    """Return a group's name without case, runs of blanks, leading zeros or a spreadsheet's '.0'."""
    text = "-".join(unicodedata.normalize("NFKC", group).casefold().replace("_", " ").split())
    whole = text.removesuffix(".0")
    return whole.lstrip("0") or "0" if whole.isdecimal() else text


def _rotated(where: object, missing: tuple[str, ...]) -> tuple[str, ...]:
    if not missing:
        raise DataError(
            f"{where}: config.data.folds draws the test split, or the validation split if there is"
            " a test split, but both are given: set it to 0, or leave one split out."
        )
    return missing


def _draw(
    records: Sequence[Record],
    units: Int[np.ndarray, " n"],
    present: Bool[np.ndarray, "n labels"],
    missing: Sequence[str],
    options: Options,
) -> list[Record]:
    """Move some of train to the missing splits, whole units at a time."""
    free = np.array([record.split == "train" for record in records])
    splits = np.array([record.split for record in records], dtype="<U5")
    if options.folds:
        given = [part(record.fold) for record in records if record.split == "train"]
        if any(given):
            order = sorted(set(given), key=lambda fold: (fold.zfill(9), fold))
            fold_of = np.array([order.index(fold) for fold in given])
        else:
            fold_of = draw_folds(present[free], units[free], options.folds, options.seed)
        rotating = "test" if "test" in missing else "val"
        places = np.flatnonzero(free)
        splits[places[fold_of == options.fold]] = rotating
        free[places[fold_of == options.fold]] = False
        missing = [split for split in missing if split != rotating]
    fractions = {
        split: {"val": options.val_fraction, "test": options.test_fraction}[split]
        for split in missing
    }
    if fractions:
        names, index = np.unique(units[free], return_inverse=True)
        unit_present = np.zeros((len(names), present.shape[1]), bool)
        np.logical_or.at(unit_present, index, present[free])
        splits[free] = np.array(draw_splits(unit_present, fractions, options.seed))[index]
    return [
        record._replace(split=str(split)) for record, split in zip(records, splits, strict=True)
    ]


def _warn_of_shares(
    where: object,
    records: Sequence[Record],
    drawn: Sequence[Record],
    units: Int[np.ndarray, " n"],
    options: Options,
) -> None:
    """Log that a drawn split has far more or fewer images than was asked."""
    given = {record.split for record in records}
    free = [new.split for old, new in zip(records, drawn, strict=True) if old.split == "train"]
    asked = {"val": options.val_fraction, "test": options.test_fraction}
    asked = {split: share for split, share in asked.items() if split not in given}
    asked = {"train": 1 - sum(asked.values()), **asked}
    far = [split for split in asked if abs(free.count(split) / len(free) - asked[split]) > _FAR]
    if far and len(free) >= _ENOUGH and np.bincount(units).max() > 1:
        log.warning(
            "%s: of %d images, %s were drawn, asked were %s, since images of one group (one"
            " patient's, or identical files) stay together, the largest of %d images: are the"
            " groups right (config.data.group_column)?",
            where,
            len(free),
            ", ".join(f"{free.count(split)} {split}" for split in asked),
            ", ".join(f"{100 * share:.0f} %" for share in asked.values()),
            np.bincount(units).max(),
        )


def _fill(drawn: Int[np.ndarray, " n"], present: Bool[np.ndarray, "n labels"], count: int) -> None:
    """Move as few units as needed, in place, if a split is empty or train lacks a label."""

    def spare(unit: int) -> bool:
        """Whether a unit's split can do without it."""
        others = (drawn == drawn[unit]) & (np.arange(len(drawn)) != unit)
        needed = drawn[unit] == 0 and (present[unit] & ~present[others].any(axis=0)).any()
        return bool(others.any()) and not needed

    def complete() -> bool:
        in_train = present[drawn == 0].any(axis=0)
        return len(np.unique(drawn)) == count and bool((in_train == present.any(axis=0)).all())

    simplest_first = np.argsort(present.sum(axis=1), kind="stable")
    for attempt in range(2):
        if complete():
            return
        if attempt == 1:  # Begin again with all in train.
            drawn[:] = 0
        for label in np.flatnonzero(present.any(axis=0)):
            owners = np.flatnonzero(present[:, label])
            if (drawn[owners] != 0).all():
                drawn[owners[0]] = 0
        for split in range(count):
            movable = [unit for unit in simplest_first if spare(unit)]
            if movable and not (drawn == split).any():
                drawn[movable[0]] = split


def _describe(
    records: Sequence[Record],
    units: Int[np.ndarray, " n"],
    missing: Sequence[str],
    options: Options,
) -> str:
    """Name a draw: its options, and a digest of all that it depends on."""
    settings = {"seed": options.seed}
    if options.folds:
        settings |= {"fold": options.fold, "of": options.folds}
    settings |= {
        split: getattr(options, f"{split}_fraction")
        for split in missing
        if not (options.folds and split == ("test" if "test" in missing else "val"))
    }
    table = [
        (record.file, record.label, record.split, int(unit), *filter(None, [record.fold]))
        for record, unit in zip(records, units, strict=True)
    ]
    digest = hashlib.sha256(json.dumps([settings, table]).encode()).hexdigest()[:8]
    return " ".join(f"{name} {value:g}" for name, value in settings.items()) + f" of {digest}"


def _find(
    root: pathlib.Path, records: Sequence[Record], draw: str, missing: Sequence[str]
) -> tuple[pathlib.Path, list[Record] | None]:
    """Find the file of a draw, and its splits if it was made before."""
    first = root / SPLITS_FILE
    own = first.with_stem(f"{first.stem}_{draw.rpartition(' ')[2]}")
    for file in (first, own):
        if file.exists() or file.is_symlink():
            stored = _read_stored(file, records, draw, missing)
            if stored is not None:
                log.info("Splits are those of %s; delete it to draw them again.", file)
                return file, stored
    if not (first.exists() or first.is_symlink()):
        return first, None
    log.warning(
        "%s is another draw (of other files, labels, groups, config.data.split_seed or fractions):"
        " the splits are drawn anew, into %s. To use the earlier ones, name that file in"
        " config.data.csv.",
        first,
        own.name,
    )
    return own, None


def _read_stored(
    file: pathlib.Path, records: Sequence[Record], draw: str, missing: Sequence[str]
) -> list[Record] | None:
    """Read the splits of an earlier draw; None if it is another one."""
    header, rows = read_csv(file)
    again = "correct it, or delete it to draw the splits again"
    for column in ("file", "split"):
        if column not in header.names:
            raise DataError(
                f"{file}: line 1: found no column {column!r} in {header.names}: {again}."
            )
    stored = {}
    for line, row in rows:
        if row["split"] not in SPLITS:
            raise DataError(
                f"{file}: line {line}: 'split' is {row['split']!r}, expected one of"
                f" {', '.join(SPLITS)}: {again}."
            )
        stored[row["file"]] = row["split"]
    if len(stored) < len(rows):
        raise DataError(f"{file}: found {len(rows) - len(stored)} file(s) twice: {again}.")
    named = "draw" in header.names
    if stored.keys() != {record.file for record in records} or (
        named and any(row["draw"] != draw for _, row in rows)
    ):
        return None
    if not named:
        log.warning(
            "%s does not say of which draw it is (an earlier version, or you, made it): it is used"
            " whatever config.data.split_seed and the fractions are.",
            file,
        )
    for record in records:
        drawn = stored[record.file]
        if drawn != record.split and (record.split != "train" or drawn not in missing):
            raise DataError(
                f"{file}: {record.file} is in {drawn}, but now given as {record.split}: {again}."
            )
    return [record._replace(split=stored[record.file]) for record in records]
