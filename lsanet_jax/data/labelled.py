"""Labelled images from elsewhere, to test a trained network on: its classes, their labels.

All that training reads is read here, too; but nothing is drawn, and a set may lack classes.
"""

import collections
import logging
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8

from lsanet_jax.data import duplicates, splits
from lsanet_jax.data.arrays import is_one_hot
from lsanet_jax.data.classes import spelling
from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources import folder, npz
from lsanet_jax.data.sources.table import UNKNOWN
from lsanet_jax.errors import DataError

log = logging.getLogger(__name__)

CHOICES = (*SPLITS, "all")
"""Which images of a set that is split: of one split, or all."""


class Labelled(NamedTuple):
    """Images with labels.

    Attributes:
        names: of the images: files relative to `root`, or npz/split/number.
        labels: class indices [n]; for multi-label 0, 1 or -1 (unknown) [n, k].
        groups: number of each image's patient or other group; none if no groups are known.
        root: folder of the files; None if the images are `arrays`.
        arrays: the images of an npz file.
    """

    names: list[str]
    labels: Int32[np.ndarray, " n"] | Int32[np.ndarray, "n k"]
    groups: tuple[int, ...] = ()
    root: pathlib.Path | None = None
    arrays: UInt8[np.ndarray, "n h w c"] | None = None


def read_folder(
    path: str | os.PathLike,
    class_names: Sequence[str],
    task: str,
    *,
    split: str | None = None,
    **options: str,
) -> Labelled:
    """Read class folders, or a folder and a table.

    Args:
        path: the folder.
        class_names: of the network.
        task: of the network.
        split: one of `CHOICES`; None for the test split if the set has one, else all images.
        **options: `csv`, `uncertain` and the names of columns, as `folder.list_folder` takes them.

    Raises:
        ConfigError: an option is outside its choices.
        DataError: the set cannot be read; a class is not one of the network's; or the split is not
            there.
    """
    root, source, table, _, _ = folder.find_records(
        path, task=task, folds=0, training=False, **options
    )
    if not table.records:
        raise DataError(f"{source}: found no images.")
    records = _of_split(source, table.records, split)
    labels = [record.label for record in records]
    if table.label_names:
        found = np.array(labels, np.int32)
        rest = 0 if table.joined else UNKNOWN
        numbers = _multi_label(source, found, table.label_names, class_names, rest)
    else:
        index = _match(source, dict.fromkeys(map(str, labels)), class_names)
        numbers = np.array([index[str(label)] for label in labels], np.int32)
        _warn_of_absent(source, numbers, class_names)
    names = [record.file for record in records]
    same = duplicates.identical_files([root / name for name in names])
    found = duplicates.of_files(names, [record.split for record in records], labels, same)
    duplicates.check(source, found, "warn")
    return Labelled(names, numbers, splits.number_groups(records), root)


def read_npz(
    path: str | os.PathLike, class_names: Sequence[str], task: str, *, split: str | None = None
) -> Labelled:
    """Read `{split}_images` and `{split}_labels` of an npz file; arguments as `read_folder`.

    Labels are numbers of the network's classes, unless the file's `class_names` say otherwise.

    Raises:
        DataError: the file cannot be read, or its labels do not fit the network's classes.
    """
    path = pathlib.Path(path)
    names, labels, arrays = [], [], []
    for key in SPLITS if split == "all" else (split or "test",):
        part, own_names = npz.read_split(path, key)
        if len(part.images) != len(part.labels) or not len(part.images):
            raise DataError(
                f"{path}: {key}_images holds {len(part.images)} images and {key}_labels"
                f" {len(part.labels)} labels, expected equally many, at least one."
            )
        names += [f"{path.name}/{key}/{i}" for i in range(len(part.images))]
        labels.append(_numbers(f"{path}: {key}_labels", part.labels, own_names, class_names, task))
        arrays.append(part.images)
    if len({array.shape[1:] for array in arrays}) > 1:
        raise DataError(f"{path}: its splits have images of several sizes: choose one with --split")
    numbers = np.concatenate(labels)
    if task != "multi-label":
        _warn_of_absent(path, numbers, class_names)
    return Labelled(names, numbers, arrays=np.concatenate(arrays))


def _of_split(
    source: pathlib.Path, records: list[folder.Record], split: str | None
) -> list[folder.Record]:
    """Choose the images of a split, and say how many there are of others."""
    counts = collections.Counter(record.split for record in records)
    is_split = len(counts) > 1 or "train" not in counts  # 'train' also means that nothing is said
    if split is None:
        split = "test" if "test" in counts else "all"
    if split == "all":
        return records
    if split not in counts or not is_split:
        found = ", ".join(f"{count} {key}" for key, count in counts.items()) if is_split else "none"
        raise DataError(
            f"{source}: there is no split {split!r} (found {found}): choose another with --split,"
            " or 'all'."
        )
    others = len(records) - counts[split]
    if others:
        log.warning(
            "%s: scored are the %d image(s) of its split %r; %d of other splits are left out"
            " (--split=all takes all).",
            source,
            counts[split],
            split,
            others,
        )
    return [record for record in records if record.split == split]


def _match(where: object, found: Iterable[str], class_names: Sequence[str]) -> dict[str, int]:
    """Number classes as the network does; a spelling that differs is taken, and logged.

    Raises:
        DataError: a class is none of the network's.
    """
    exact = {name: number for number, name in enumerate(class_names)}
    spelled = collections.defaultdict(list)
    for number, name in enumerate(class_names):
        spelled[spelling(name)].append(number)
    index, strange, renamed = {}, [], []
    for name in found:
        near = spelled.get(spelling(name), [])
        if name in exact:
            index[name] = exact[name]
        elif len(near) == 1:
            index[name] = near[0]
            renamed.append(f"{name!r} as {class_names[near[0]]!r}")
        else:
            strange.append(name)
    if strange:
        raise DataError(
            f"{where}: found {len(strange)} class(es) that are not the network's: {_list(strange)};"
            f" it knows {_list(class_names)}: rename them, or take their images out."
        )
    if renamed:
        log.warning("%s: read %s.", where, ", ".join(renamed))
    return index


def _multi_label(
    where: object,
    labels: Int32[np.ndarray, "n m"],
    found: Sequence[str],
    class_names: Sequence[str],
    rest: int = UNKNOWN,
) -> Int32[np.ndarray, "n k"]:
    """Put columns of labels in the network's order; labels that a set lacks are `rest`."""
    index = {}
    strange = []
    for name in found:
        try:
            index |= _match(where, [name], class_names)
        except DataError:
            strange.append(name)
    if not index:
        raise DataError(
            f"{where}: found labels {_list(found)}, none of the network's {_list(class_names)}:"
            " rename the columns."
        )
    if strange:
        log.warning("%s: labels that the network does not know: %s.", where, _list(strange))
    numbers = np.full((len(labels), len(class_names)), UNKNOWN, np.int32)
    columns = collections.defaultdict(list)
    for place, name in enumerate(found):
        if name in index:
            columns[index[name]].append(name)
            joined = numbers[:, index[name]]
            np.maximum(joined, labels[:, place], out=joined)  # 1 before 0 before unknown.
    if twice := [_list(names) for names in columns.values() if len(names) > 1]:
        log.warning("%s: joined labels (1 if one of them is 1): %s.", where, "; ".join(twice))
    absent = [place for place in range(len(class_names)) if place not in columns]
    numbers[:, absent] = rest
    if absent and rest == UNKNOWN:
        names = _list([class_names[place] for place in absent])
        log.warning("%s: has no labels %s; they are left out of all scores.", where, names)
    return numbers


def _numbers(
    where: str,
    labels: np.ndarray,
    own_names: Sequence[str] | None,
    class_names: Sequence[str],
    task: str,
) -> np.ndarray:
    """Bring the labels of an npz file to the form of the task, in the network's order."""
    names = own_names or class_names
    if task == "multi-label":
        labels = labels.reshape(len(labels), -1)
        shape, low, high = (len(labels), len(names)), UNKNOWN, 1
    else:
        if labels.shape[1:] == (len(names),) and is_one_hot(labels):
            labels = labels.argmax(axis=1).astype(np.int32)
        shape, low, high = (len(labels),), 0, len(names) - 1
    if labels.shape != shape:
        raise DataError(
            f"{where} is of shape {labels.shape}, expected {shape} for the network's task {task!r}"
            f" with {len(names)} classes or labels."
        )
    if labels.min() < low or labels.max() > high:
        raise DataError(
            f"{where} ranges from {labels.min()} to {labels.max()}, expected {low} to {high}: the"
            f" network knows {_list(class_names)}."
        )
    if own_names is None:
        return labels
    if task == "multi-label":
        return _multi_label(where, labels, own_names, class_names)
    used = [own_names[int(number)] for number in np.unique(labels)]
    index = _match(where, used, class_names)
    return np.array([index[own_names[int(number)]] for number in labels], np.int32)


def _warn_of_absent(where: object, labels: np.ndarray, class_names: Sequence[str]) -> None:
    absent = [name for number, name in enumerate(class_names) if number not in labels]
    if absent:
        log.warning("%s: has no images of %s, which have no part in the AUC.", where, _list(absent))


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:20]))
    return shown + (", ..." if len(names) > 20 else "")
