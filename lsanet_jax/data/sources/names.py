"""What the names of files and of their folders say: of patients, of copies and of splits."""

import collections
import logging
import os
import posixpath
import re
from collections.abc import Callable, Collection, Hashable, Sequence

from lsanet_jax.data.sources import columns
from lsanet_jax.data.sources.files import SUFFIXES
from lsanet_jax.data.sources.table import Record

log = logging.getLogger(__name__)

_PERSON = re.compile(
    r"(?:^|[/_ .-])(sub-[a-z]*[0-9]+|(?:patient|pat|subject|subj|person|participant|case)"
    r"(?:[ _-]?id)?[ _-]?[0-9]+)[a-z]?(?=$|[/_ .-])",
    re.IGNORECASE,
)
_SEPARATORS = re.compile(r"[_ .()/-]+")
_TAIL = re.compile("([A-Za-z]*[0-9]+)([A-Za-z]{1,4}[0-9]?)")  # 9001695L, RET002OD, P01S2
_SIDE = re.compile("(left|right|[lr]|o[ds])([0-9]+)", re.IGNORECASE)  # L0012
_VIEW = re.compile(
    "o[dsu]|[lr]e?|left|right|[lr]?(?:cc|mlo)|ap|pa|lat(?:eral)?|frontal|axial|sagittal|coronal"
    "|fundus|oct|macula|disc|[a-z]|[0-9]{1,2}",
    re.IGNORECASE,
)
_LETTERS = re.compile("([A-Za-z]{3,})[0-9]{1,2}")
_COPY = (
    "(?:aug(?:mented|mentation)?|[hv]?[_-]?flip(?:ped)?|rot(?:ated?)?|mirror(?:ed)?|copy|crop(?:ped)?"
    "|shear(?:ed)?|noisy?e?|blur(?:red)?|zoom(?:ed)?)[ _.-]?[0-9]*"
)
_COPY_BEFORE = re.compile(f"{_COPY}[ _.-]+", re.IGNORECASE)
_COPY_AFTER = re.compile(rf"([ _.-]+{_COPY}| ?\([0-9]+\))+\Z", re.IGNORECASE)
_FEW = 500  # Images of one patient: of more at one place of a name, it says something else.


def with_persons(where: object, records: Sequence[Record]) -> tuple[list[Record], bool]:
    """Group images by the persons that names tell of; also whether names tell of any.

    What only looks as if several images were of one patient is logged.
    """
    persons = [_person(record) for record in records]
    counts = collections.Counter(filter(None, persons))
    if max(counts.values(), default=0) < 2:
        _warn_of_series(where, records)
        return [*records], False
    _tell_of_persons(where, counts)
    pairs = [*zip(records, persons, strict=True)]
    _warn_of_series(where, [record for record, person in pairs if not person])
    return [record._replace(group=person) for record, person in pairs], True


def with_coarser_groups(
    where: object, records: Sequence[Record], grouped_by: Sequence[str], patients: Sequence[str]
) -> list[Record]:
    """Join groups, such as studies, that names or headers show to be of one person.

    Args:
        where: the folder or table, for messages.
        records: images, some of which have groups.
        grouped_by: the columns of these, if they were found by their names.
        patients: of the DICOM headers of the images; '' for none.
    """
    if not grouped_by or not columns.is_part_of_patient(grouped_by[0]):
        return [*records]
    if len({*patients} - {""}) > 1:
        return _with_patients(where, records, grouped_by[0], patients)
    persons = [_person(record) for record in records]
    first, persons_of = {}, collections.defaultdict(set)  # Of each group.
    for record, person in zip(records, persons, strict=True):
        if record.group:
            first.setdefault(record.group, record)
            persons_of[record.group].add(person)
    known = {*persons} - {""}
    if 1 < len(known) < len(first) and all(len(found) == 1 for found in persons_of.values()):
        _tell_of_persons(where, known, f", whatever their {grouped_by[0]!r}")
        pairs = zip(records, persons, strict=True)
        return [record._replace(group=person or record.group) for record, person in pairs]
    named = [record._replace(file=group) for group, record in first.items()]
    _warn_of_series(where, named, f"the values of column {grouped_by[0]!r}", "a column of patients")
    return [*records]


def _with_patients(
    where: object, records: Sequence[Record], grouped_by: str, patients: Sequence[str]
) -> list[Record]:
    """Join the groups of a column that are of one patient of the DICOM headers."""
    log.warning(
        "%s: DICOM headers tell of %d patients; their images stay in one split, whatever their %r."
        " If that is wrong, set config.data.group_column to the column that is right.",
        *(where, len({*patients} - {""}), grouped_by),
    )
    pairs = [*zip(records, patients, strict=True)]
    rows = [{"group": record.group, "patient": patient} for record, patient in pairs]
    joined = columns.groups_of(rows, ("group", "patient"))
    return [record._replace(group=group) for record, group in zip(records, joined, strict=True)]


def _tell_of_persons(where: object, persons: Collection[str], more: str = "") -> None:
    right = "the column that is right" if more else "'none'"
    log.warning(
        "%s: file names tell of %d patients or persons, such as %r; their images stay in one"
        " split%s. If that is wrong, set config.data.group_column to %s.",
        *(where, len(persons), min(persons), more, right),
    )


def _person(record: Record) -> str:
    """Return what the names of a file and its folders, except its class's, call a person."""
    parts = [part for part in record.file.split("/") if part != record.label]
    found = _PERSON.search("/".join(parts))
    return found[1].lower() if found else ""


def _warn_of_series(
    where: object,
    records: Sequence[Record],
    what: str = "file names",
    better: str = "a table with columns 'file', 'label' and 'patient' in config.data.csv",
) -> None:
    """Log that names such as P001_0 and P001_1 may be of one patient, if most are like that."""
    classes = len({record.label for record in records})
    words = [_words(record) for record in records]
    parted = [[part for word in own for part in _parts(word)] for own in words]
    longest = max(map(len, parted), default=0)
    tests: list[tuple[list[list[str]], Callable[[Record, list[str]], Hashable], int]] = []
    for depth in range(1, longest):
        tests.append((parted, _start(depth), max(2, classes)))
    enough = max(4, 2 * classes, len(records) // _FEW)
    for own in (words, parted):
        tests += [(own, _word(place), enough) for place in range(longest)]
    tests.append((words, _without_side, max(4, 2 * classes, len(records) // 20)))
    for own, key_of, least in tests:
        series = collections.defaultdict(list)
        for record, parts in zip(records, own, strict=True):
            if (key := key_of(record, parts)) is not None:
                series[key].append(record.file)
        several = [files for files in series.values() if len(files) > 1]
        if len(several) > least and 2 * sum(map(len, several)) > len(records):
            log.warning(
                "%s: %s look as if several images are of one patient (such as %s and %s): if so,"
                " name %s, so that they stay in one split; if not, set config.data.group_column to"
                " 'none'.",
                *(where, what, *several[0][:2], better),
            )
            return


def _start(depth: int) -> Callable[[Record, list[str]], Hashable]:
    """What the first words of names are compared by; None where they hold no number."""

    def key(record: Record, words: list[str]) -> Hashable:
        start = words[:depth]
        if len(words) <= depth or not re.search("[0-9]", "".join(start)):
            return None
        folder = record.label if f"/{record.label}/" in f"/{record.file}" else ""
        return (folder, *start)

    return key


def _word(place: int) -> Callable[[Record, list[str]], Hashable]:
    """What one word of names is compared by, within a class; None where it holds no number."""

    def key(record: Record, words: list[str]) -> Hashable:
        if len(words) < 2 or len(words) <= place or not re.search("[0-9]", words[place]):
            return None
        return record.label, words[place].lower()

    return key


def _without_side(record: Record, words: list[str]) -> Hashable:
    """What names without numbers are compared by: AK_OD and AK_fundus, aebbeecg1 and aebbeecg2."""
    if len(words) > 1 and _VIEW.fullmatch(words[-1]):
        return tuple(words[:-1])
    found = _LETTERS.fullmatch(words[-1]) if words else None
    return (*words[:-1], found[1]) if found else None


def _words(record: Record) -> list[str]:
    """Return the words of an image's name and folders, without those of its class and split."""
    folders, _, name = record.file.rpartition("/")
    kept = [folder for folder in folders.split("/") if not columns.split_of(folder)]
    words = _SEPARATORS.split("/".join([*kept, os.path.splitext(name)[0]]))
    of_class = _SEPARATORS.split(record.label) if isinstance(record.label, str) else ()
    return [word for word in words if word and word not in of_class]


def _parts(word: str) -> tuple[str, ...]:
    """Part a number from what stands for a side or a view: 9001695L, L0012."""
    found = _SIDE.fullmatch(word) or _TAIL.fullmatch(word)
    return found.groups() if found else (word,)


def warn_of_splits(where: object, records: Sequence[Record]) -> None:
    """Log that names such as train_1 and test_1 tell of splits, which only folders can."""
    found = {}
    for record in records:
        splits = [*filter(columns.split_of, _words(record))]
        if not splits:
            return
        found.setdefault(columns.split_of(splits[0]), record.file)
    if "train" in found and len(found) > 1:
        log.warning(
            "%s: file names tell of splits (such as %s), which are not used: put the images into"
            " folders called so, or name a table with a column 'split' in config.data.csv.",
            *(where, " and ".join(found.values())),
        )


def together(where: object, names: Sequence[str]) -> list[list[str]]:
    """Group files that are one image in several formats, or called as copies are, and say so."""
    files = collections.defaultdict(list)
    for name in names:
        stem, suffix = os.path.splitext(name)
        files[stem if suffix.lower() in SUFFIXES else name].append(name)
    if formats := [own for own in files.values() if len(own) > 1]:
        log.warning(
            "%s: %d image(s) are there in several formats, such as %s: splits are drawn so that"
            " these stay together; if they are copies, keep one of each.",
            *(where, len(formats), " and ".join(formats[0])),
        )
    copies = collections.defaultdict(list)
    for stem, own in files.items():
        copies[_original(stem, files)] += own
    found = [own for stem, own in copies.items() if len(own) > len(files[stem])]
    if found:
        log.warning(
            "%s: %d image(s) are called as if they were copies of others, such as %s: where splits"
            " are drawn, these stay together; augmented images in test make a score wrong, and"
            " training augments by itself (config.data.augment): take them out.",
            *(where, sum(map(len, found)) - len(found), " and ".join(found[0][:2])),
        )
    return formats + found


def _original(stem: str, stems: Collection[str]) -> str:
    """The image of which another is called a copy, as im1 of aug_im1 and im1_flip2; or itself."""
    folder, name = posixpath.split(stem)
    for other in (_COPY_BEFORE.sub("", name, count=1), _COPY_AFTER.sub("", name)):
        original = posixpath.join(folder, other)
        if other != name and other and original in stems:
            return original
    return stem
