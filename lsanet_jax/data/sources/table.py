"""Tables of images and labels, as people export them and as sets are published.

CSV, TSV or with semicolons; UTF-8, UTF-16 or cp1252; one column of classes, columns of 0 and 1,
one-hot columns, or several labels in a cell, joined by '|'.
"""

import collections
import csv as csv_format
import functools
import io
import itertools
import logging
import os
import pathlib
import posixpath
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lsanet_jax.data.sources import columns as columns_lib
from lsanet_jax.data.sources.columns import (
    MISSING,
    NO_FINDING,
    UNCERTAIN,
    Chosen,
    choose,
    zero_or_one,
)
from lsanet_jax.data.sources.files import SUFFIXES, content_kind, walk
from lsanet_jax.errors import DataError

log = logging.getLogger(__name__)

UNKNOWN = -1  # Of a label of multi-label, which counts neither as 0 nor as 1.
UNCERTAIN_CHOICES = ("error", "ignore", "zero", "one")

_DELIMITERS = ",;\t|"
_COMMAS = ";,，；、"
_MARKS = (*f"{_COMMAS}\n/+&\\-", " and ", " ")  # Which may join labels.
_VECTOR = re.compile(r"[\[(]\s*[01][01.,\s]*[\])]")
_LIST = re.compile(r"\[.*\]|[({]\s*['\"].*[)}]", re.DOTALL)


class Record(NamedTuple):
    """An image of a folder.

    Attributes:
        file: POSIX path relative to the root.
        label: a class's name, or 0, 1 or `UNKNOWN` for each label.
        split: 'train' too where nothing is said.
        group: of which all images stay in one split; '' for none.
        fold: of a cross-validation, if it is given; else ''.
    """

    file: str
    label: str | tuple[int, ...]
    split: str
    group: str = ""
    fold: str = ""


class Table(NamedTuple):
    """A table's images and what it says of their labels.

    Attributes:
        records: a record per image.
        label_names: of the labels, for multi-label; else none.
        class_order: the classes in the order of their columns, if these are one-hot; else none.
        groups: the columns of groups.
        joined: whether labels were joined in cells, so that those not named are 0.
    """

    records: list[Record]
    label_names: tuple[str, ...] = ()
    class_order: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    joined: bool = False


def read_table(
    file: pathlib.Path,
    root: pathlib.Path,
    *,
    task: str | None = None,
    uncertain: str = "ignore",
    folds: int = 0,
    **given: str,
) -> Table:
    """Read a table of images.

    Args:
        file: the table.
        root: the folder of the images.
        task: one of `TASKS`, or None to infer whether it is multi-label.
        uncertain: what blank cells and -1 mean in columns of labels: 'error', 'ignore' (known
            neither way), 'zero', or 'one' (-1 is 1, blank is 0).
        folds: parts of a cross-validation, which a column may give; 0 for none.
        **given: the names of columns, as `columns.choose` takes them.

    Raises:
        ConfigError: a column that was given does not exist.
        DataError: the table cannot be read, a column is missing or not certain, or a cell is not
            what its column needs; with the line.
    """
    header, rows = read_csv(file)
    if not rows:
        raise DataError(f"{file}: found a header but no rows, expected one for each image.")
    files = _Files(root)
    where = f"{file}: line {header.line}:"
    cells = [row for _, row in rows]
    for name in header.names:
        # A column may be called as an image without its suffix is: image, mask.
        is_name = without_suffix(name.casefold()) != name.casefold() or any(map(str.isdigit, name))
        if is_name and files.exists(name):
            raise DataError(
                f"{where} {name!r} is an image, so the table has no header: put a line with the"
                " names of the columns, such as file,label, at its top."
            )
    chosen = choose(where, header.names, cells, files.find, task=task, folds=folds, **given)
    names = list(chosen.labels)
    _refuse_vectors(where, names[0], cells)
    joint = _joint(names[0], cells, task)
    if task == "multi-label" and len(names) == 1 and not columns_lib.is_binary(names[0], cells):
        values = {columns_lib.key(row[names[0]]) for row in cells}
        if len(values) > 2 or values & NO_FINDING:
            joint = joint or "|"  # One finding in each cell.
    if len(names) > 1 or (task == "multi-label" and not joint):
        labels = [_zeros_and_ones(file, line, row, names) for line, row in rows]
        one_hot = _are_one_hot(file, rows, labels, task)
        one_hot &= uncertain != "error" or not any(None in label for label in labels)
        if one_hot and task != "multi-label":
            labels, names = _from_one_hot(file, labels, names)
            records = _records(file, rows, labels, chosen, files)
            return Table(records, (), tuple(names), chosen.groups)
        if task not in (None, "multi-label"):
            raise DataError(
                f"{where} the columns {', '.join(names[:20])} are not one-hot (exactly one 1 in"
                f" each row), expected 'label' for task {task!r}: set config.data.task to"
                " 'multi-label', or name the column of classes in config.data.label_column."
            )
        labels = _settle(file, labels, names, uncertain)
    elif joint:
        labels, names = _split_joined(file, rows, names[0], joint)
    else:
        labels, names = _classes(file, rows, names[0]), ()
    records = _records(file, rows, labels, chosen, files)
    return Table(records, tuple(names), (), chosen.groups, bool(joint) and len(chosen.labels) == 1)


def _refuse_vectors(where: str, column: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Refuse cells such as [1, 0, 0]: a label for each of its places, which have no names."""
    cells = [row[column].strip() for row in rows]
    found = [re.findall(r"[^\s,]+", cell[1:-1]) for cell in cells if _VECTOR.fullmatch(cell)]
    if len(found) == len(cells) and len({*map(len, found)}) == 1 and len(found[0]) > 1:
        raise DataError(
            f"{where} column {column!r} holds vectors, such as {cells[0][:40]}, expected a column"
            f" of 0 and 1 with a name for each of the {len(found[0])} labels: part them, or name"
            " another column in config.data.label_column."
        )


def _with_splits_of_paths(
    file: pathlib.Path, records: list[Record], cells: Sequence[str]
) -> list[Record]:
    """Take the splits from the folders of the files, or of the cells, if these tell of several."""
    folders_of = [
        [posixpath.dirname(name) for name in names]
        for names in ([record.file for record in records], map(_as_posix, cells))
    ]
    for folders in folders_of:
        words = [
            next(filter(columns_lib.split_of, folder.split("/")), folder or ".")
            for folder in folders
        ]
        if len({*map(columns_lib.split_of, words)}) > 1:
            break
    else:
        parts = {part for folder in itertools.chain(*folders_of) for part in folder.split("/")}
        parts -= {""}
        if columns_lib.look_like_splits(parts):
            log.warning(
                "%s: there is no column of splits; the folders of the files, such as %s, look like"
                " splits, and are not used: call them train, val and test, or, if they say"
                " something else, set config.data.split_column to 'none'.",
                *(file, " and ".join(map(repr, sorted(parts)[:2]))),
            )
        return records
    where = f"{file}: there is no column of splits;"
    columns_lib.refuse_partly(where, "the folders", {*words})
    found = [columns_lib.split_of(word) for word in words]
    if None in found:
        return records
    columns_lib.refuse_two_words(where, "the folders", {*words})
    log.warning("%s: no column of splits; they are taken from the folders of the files.", file)
    return [
        record._replace(split=split) for record, split in zip(records, found, strict=True) if split
    ]


class Header(NamedTuple):
    """The first line of a table: the names of its columns and its number."""

    names: list[str]
    line: int


def read_csv(file: pathlib.Path) -> tuple[Header, list[tuple[int, dict[str, str]]]]:
    """Read the header, and each row that is not blank with its line number.

    Raises:
        DataError: the file cannot be read, or is not a table.
    """
    text = _text(file)
    delimiter = _delimiter(text)
    reader = csv_format.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        strict=True,
        skipinitialspace=bool(re.search(rf'{re.escape(delimiter)} +"', text)),
    )
    try:
        lines = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv_format.Error as error:
        raise DataError(
            f"{file}: line {reader.line_num}: not CSV ({error}): correct it."
        ) from error
    if lines and re.fullmatch(r"sep=.?", "".join(lines[0][1]).strip().lower()):
        lines = lines[1:]
    if not lines:
        raise DataError(f"{file}: line 1: the file is empty, expected a header with 'file'.")
    number, header = lines[0]
    words = {len(" ".join(row).split()) for _, row in lines[:200]}
    if len(header) == 1 and len(words) == 1 and words != {1}:
        raise DataError(
            f"{file}: line {number}: cells are parted by blanks, expected commas, semicolons or"
            " tabs, and a header such as file,label: export the table as CSV."
        )
    header = [name.strip() for name in header]
    rows = []
    for line, row in lines[1:]:
        while len(row) > len(header) and not row[-1].strip():
            row = row[:-1]
        if len(row) != len(header):
            raise DataError(
                f"{file}: line {line}: found {len(row)} cells, expected {len(header)} as in the"
                f" header, line {number} ({', '.join(header)[:80]}): correct the line, or quote"
                " cells that hold a comma."
            )
        rows.append((line, row))
    return _named(file, number, header, rows)


def _named(
    file: pathlib.Path, line: int, header: list[str], rows: list[tuple[int, list[str]]]
) -> tuple[Header, list[tuple[int, dict[str, str]]]]:
    """Name the cells; columns without a name are dropped if they are blank or count the rows."""
    kept = []
    for place, name in enumerate(header):
        cells = [row[place].strip() for _, row in rows]
        if name or not (_counts_rows(cells, gaps=place == 0) or not any(cells)):
            kept.append(place)
    names = [header[place] for place in kept]
    for name, count in collections.Counter(names).items():
        if count > 1 or not name:
            found = f"column {name!r} twice" if name else f"a column without a name in {names[:20]}"
            raise DataError(f"{file}: line {line}: found {found}, expected a name for each column.")
    return Header(names, line), [
        (number, {header[place]: row[place] for place in kept}) for number, row in rows
    ]


def _counts_rows(cells: Sequence[str], *, gaps: bool) -> bool:
    """Whether cells count from 0 or 1; or, with `gaps`, did so before rows were taken out."""
    counted = [str(i) for i in range(len(cells) + 1)]
    if cells == counted[:-1] or (len(cells) > 1 and cells == counted[1:]):
        return True
    numbers = [int(cell) for cell in cells if cell.isdecimal() and str(int(cell)) == cell]
    ascending = all(a < b for a, b in itertools.pairwise(numbers))
    return gaps and len(cells) > 1 and len(numbers) == len(cells) and ascending


def _text(file: pathlib.Path) -> str:
    """Decode a table; UTF-8 unless its bytes say otherwise."""
    try:
        if not file.is_file() and file.exists() and not file.is_dir():
            raise OSError(0, "not a file but a pipe, a socket or a device")
        data = file.read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file}: cannot be read ({reason}), expected a CSV file.") from error
    kind = content_kind(data[:512])
    if kind not in ("", "text"):
        raise DataError(f"{file}: is {kind}, expected a CSV file: export the table as CSV.")
    no_text = f"{file}: is not text, expected a CSV file: export the table as CSV."
    if data[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        encoding = "utf-32"
    elif data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16"
    elif len(data) > 3 and len(data) % 2 == 0 and 0 not in data[::2] and not any(data[1::2]):
        encoding = "utf-16-le"
    elif len(data) > 3 and len(data) % 2 == 0 and 0 not in data[1::2] and not any(data[::2]):
        encoding = "utf-16-be"
    else:
        encoding = "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        if encoding == "utf-8-sig" and not any(
            byte < 32 and byte not in b"\t\n\r" for byte in data
        ):
            try:
                text = data.decode("cp1252")
            except UnicodeDecodeError:
                pass
            else:
                log.warning("%s: line %d: not UTF-8; read as cp1252 (Windows).", file, line)
                return text
            raise DataError(f"{file}: line {line}: not UTF-8: save the file as UTF-8.") from error
        raise DataError(no_text) from error


def _delimiter(text: str) -> str:
    """Find what parts the cells of the header."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ","
    separator = re.fullmatch(r"sep=(.)", lines[0].strip().lower())
    if separator:
        return separator[1]
    header = re.sub(r'"[^"]*"', "", lines[0])
    return max(_DELIMITERS, key=header.count)  # The first, a comma, of equals.


class _Files:
    """The images of a folder, found by what a table calls them."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        self._found: dict[str, tuple[str, ...]] = {}

    def exists(self, cell: str) -> bool:
        """Whether a cell leads to at least one image."""
        return bool(self.find(cell))

    def find(self, cell: str) -> Sequence[str]:
        """List the images that a cell may mean: its path, else without case, folder or suffix."""
        if cell not in self._found:
            self._found[cell] = self._find(cell.strip())
        return self._found[cell]

    def _find(self, cell: str) -> tuple[str, ...]:
        if not cell or "\0" in cell:
            return ()
        for name in dict.fromkeys((cell, cell.replace("\\", "/"))):
            if os.path.isfile(self.root / name):
                return (posixpath.normpath(name),)
        parts = folded(_as_posix(cell)).split("/")
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            found = self._by_tail.get(tail) or self._by_tail_stem.get(without_suffix(tail)) or ()
            if start:  # Without folders above the root; never an image of another folder.
                found = [
                    name for name in found if without_suffix(folded(name)) == without_suffix(tail)
                ]
            if found:
                return tuple(found)
        return ()

    @functools.cached_property
    def _by_tail(self) -> dict[str, list[str]]:
        """Every image under each ending of its path, in lower case."""
        found = collections.defaultdict(list)
        for entries in walk(self.root):
            for image in entries.images:
                name = image.relative_to(self.root).as_posix()
                parts = folded(name).split("/")
                for start in range(len(parts)):
                    found["/".join(parts[start:])].append(name)
        return found

    @functools.cached_property
    def _by_tail_stem(self) -> dict[str, list[str]]:
        found = collections.defaultdict(list)
        for tail, names in self._by_tail.items():
            found[without_suffix(tail)] += names
        return found


def _as_posix(cell: str) -> str:
    """Write the path that a cell holds with '/', and without '.' and '..'."""
    return posixpath.normpath(cell.strip().replace("\\", "/"))


def folded(name: str) -> str:
    """Write a name of a file in lower case, and accents as one letter: macOS writes them as two."""
    return unicodedata.normalize("NFC", name).casefold()


def without_suffix(name: str) -> str:
    """Cut off the suffix of an image in lower case, not what follows a dot in an identifier."""
    stem, suffix = posixpath.splitext(name)
    return stem if suffix in SUFFIXES else name


def _records(
    file: pathlib.Path,
    rows: Sequence[tuple[int, Mapping[str, str]]],
    labels: Sequence[str | tuple[int, ...]],
    chosen: Chosen,
    files: _Files,
) -> list[Record]:
    """Join labels, splits and groups to the images; rows that say the same again are counted."""
    records: dict[str, tuple[int, Record]] = {}
    cells: dict[str, str] = {}  # Of the images.
    repeated, nobody = 0, collections.Counter()
    groups = columns_lib.groups_of([row for _, row in rows], chosen.groups)
    for (line, row), label, group in zip(rows, labels, groups, strict=True):
        where = f"{file}: line {line}:"
        found = files.find(row[chosen.file])
        if not found:
            raise DataError(
                f"{where} there is no file {row[chosen.file]!r} in the folder, neither with one of"
                f" {', '.join(SUFFIXES[:3])}, ...: correct the path, or take the row out."
            )
        if len(found) > 1:
            raise DataError(
                f"{where} {row[chosen.file]!r} may be {' or '.join(found[:3])}: write the path, or"
                " move the others away."
            )
        split = _split(where, row, chosen.split) if chosen.split else "train"
        if len(chosen.groups) == 1:
            group = _filled(where, row, chosen.groups[0], "group_column")
        if columns_lib.is_nobody(group):
            nobody[group] += 1
            group = ""
        has_fold = chosen.fold and split == "train"
        fold = _part(where, row, chosen.fold) if has_fold else ""
        record = Record(found[0], label, split, group, fold)
        line_of_first, first = records.setdefault(found[0], (line, record))
        cell = cells.setdefault(found[0], row[chosen.file])
        if not _are_one_path(cell, row[chosen.file]):
            raise DataError(
                f"{where} {row[chosen.file]!r} leads to {found[0]!r}, as {cell!r} in line"
                f" {line_of_first} does, since its folder is not there: put the images into these"
                " folders, or take one of the rows out."
            )
        if first != record:
            raise DataError(
                f"{where} {found[0]!r} is in line {line_of_first} too, with another label, split or"
                " group: keep one of them."
            )
        repeated += line_of_first != line
    if repeated:
        log.warning("%s: %d row(s) repeat an earlier one; each image counts once.", file, repeated)
    if nobody:
        log.warning(
            "%s: %r is %s in %d row(s), so each of these images is a group of its own: if some are"
            " of one patient, give these a name.",
            *(file, chosen.groups[0], " or ".join(map(repr, nobody)), nobody.total()),
        )
    found = [record for _, record in records.values()]
    given = chosen.split or chosen.no_split
    _tell_of_other_folders(file, files.root, cells)
    return found if given else _with_splits_of_paths(file, found, [*cells.values()])


def _are_one_path(one: str, other: str) -> bool:
    """Whether two cells may name one file: they are equal, or one is the end of the other."""
    if one == other:
        return True
    parts = [without_suffix(folded(_as_posix(cell))).split("/") for cell in (one, other)]
    return all(a == b for a, b in zip(*map(reversed, parts), strict=False))


def _tell_of_other_folders(
    file: pathlib.Path, root: pathlib.Path, cells: Mapping[str, str]
) -> None:
    """Log cells whose folder is not there, so that an image of another one was taken."""
    here = root.resolve().as_posix()

    def folder_of(path: str) -> str:
        return posixpath.basename(posixpath.dirname(folded(path)))

    found = []
    for image, cell in cells.items():
        named = folder_of(_as_posix(cell))
        if named and named != folder_of(posixpath.join(here, image)):
            found.append((cell, image))
    if found:
        log.warning(
            "%s: %d cell(s) name a folder that is not there; such as %r, for which %r is read: if"
            " that is another image, correct the path.",
            *(file, len(found), *found[0]),
        )


def _split(where: str, row: Mapping[str, str], column: str) -> str:
    split = columns_lib.split_of(row[column])
    if split is None:
        raise DataError(
            f"{where} {column!r} is {row[column]!r}, expected one of train, val, test: correct the"
            " cell."
        )
    return split


def _part(where: str, row: Mapping[str, str], column: str) -> str:
    value = row[column].strip()
    if value.lower() in MISSING | UNCERTAIN:
        raise DataError(
            f"{where} {column!r} is {row[column]!r}, expected the number of a fold: correct the"
            " cell, take the row out, or set config.data.split_column to 'none'."
        )
    return value


def _filled(where: str, row: Mapping[str, str], column: str, field: str) -> str:
    value = row[column].strip()
    if value.lower() in MISSING:
        raise DataError(
            f"{where} {column!r} is {row[column]!r}, expected a value, since images with the same"
            f" one stay in one split: correct the cell, or set config.data.{field}."
        )
    return value


def _classes(
    file: pathlib.Path, rows: Sequence[tuple[int, Mapping[str, str]]], column: str
) -> list[str]:
    """Read the classes; a missing one is an error."""
    values = [row[column].strip() for _, row in rows]
    if all(_LIST.fullmatch(value) and len(_tokens(value, "[")) == 1 for value in values):
        values = [min(_tokens(value, "[")) for value in values]
    counting = all(value in UNCERTAIN or value.removesuffix(".0").isdecimal() for value in values)
    no_class = MISSING | UNCERTAIN if counting else MISSING  # -1 beside 0, 1, ...
    missing = [i for i, value in enumerate(values) if value.lower() in no_class]
    if missing:
        line, row = rows[missing[0]]
        raise DataError(
            f"{file}: line {line}: {column!r} is {row[column]!r}, expected a value: it is missing"
            f" in {len(missing)} row(s); fill them or take them out (a class may not be called so)."
        )
    for mark in _MARKS:
        if _joins(mark, {*values}):
            log.warning(
                "%s: labels hold %r, which is read as part of a class's name; if it joins several"
                " labels, set config.data.task to 'multi-label'.",
                file,
                mark,
            )
    return values


def _joins(mark: str, names: set[str]) -> bool:
    """Whether a mark may join labels: what it parts are numbers, or labels on their own too."""
    parts = [[*map(str.strip, name.split(mark))] for name in names if mark in name.strip()]
    if mark in f"{_COMMAS}\n":
        return bool(parts)
    return any({*p} <= names or (mark == " " and all(map(str.isdecimal, p))) for p in parts)


def _joint(column: str, rows: Sequence[Mapping[str, str]], task: str | None) -> str:
    """Return what joins several labels in a cell, or ''."""
    if task not in (None, "multi-label"):
        return ""
    cells = {row[column].strip() for row in rows} - {""}
    are_lists = all(map(_LIST.fullmatch, cells))
    if are_lists and any(len(_tokens(cell, "[")) != 1 for cell in cells):
        return "["
    for separator in f"|{_COMMAS}":
        if not any(separator in cell for cell in cells):
            continue
        tokens = {token for cell in cells for token in _tokens(cell, separator)}
        # Names of classes may hold a comma: joined labels recur alone or in other company.
        if separator == "|" or task == "multi-label" or len(tokens) < len(cells):
            return separator
    return next((mark for mark in _MARKS if task and _joins(mark, cells)), "")


def _tokens(cell: str, separator: str) -> set[str]:
    """Part a cell of several labels; '[' stands for a list such as "['Mass', 'Effusion']"."""
    if separator == "[":
        found = re.findall("'([^']*)'|\"([^\"]*)\"|([^,'\"]+)", cell[1:-1])
        parts = ["".join(part) for part in found]
    else:
        parts = cell.split(separator)
    return {part.strip() for part in parts} - {""}


def _split_joined(
    file: pathlib.Path,
    rows: Sequence[tuple[int, Mapping[str, str]]],
    column: str,
    separator: str,
) -> tuple[list[tuple[int, ...]], tuple[str, ...]]:
    """Part joined labels into 0 and 1 for each label; 'No Finding' is none of them."""
    sets = []
    for value, (line, row) in zip(_classes_of_joined(file, rows, column), rows, strict=True):
        tokens = _tokens(value, separator)
        none = {token for token in tokens if columns_lib.key(token) in NO_FINDING}
        if none and len(tokens) > 1:
            raise DataError(
                f"{file}: line {line}: {column!r} is {row[column]!r}, expected {min(none)!r} alone:"
                " correct the cell."
            )
        sets.append(tokens - none)
    names = tuple(sorted(set().union(*sets)))
    log.warning(
        "%s: labels are %s: read as multi-label with %d labels.",
        file,
        "lists in brackets" if separator == "[" else f"joined by {separator!r}",
        len(names),
    )
    return [tuple(int(name in tokens) for name in names) for tokens in sets], names


def _classes_of_joined(
    file: pathlib.Path, rows: Sequence[tuple[int, Mapping[str, str]]], column: str
) -> list[str]:
    for line, row in rows:
        if row[column].strip().lower() in MISSING:
            raise DataError(
                f"{file}: line {line}: {column!r} is {row[column]!r}, expected labels: write 'No"
                " Finding' if there is none, or take the row out."
            )
    return [row[column].strip() for _, row in rows]


def _zeros_and_ones(
    file: pathlib.Path, line: int, row: Mapping[str, str], names: Sequence[str]
) -> tuple[int | None, ...]:
    """Read labels: 0, 1, `UNKNOWN` for -1, None for a missing one."""
    labels = []
    for name in names:
        cell = row[name].strip().lower()
        if (value := zero_or_one(cell)) is not None:
            labels.append(value)
        elif cell in UNCERTAIN:
            labels.append(UNKNOWN)
        elif cell in MISSING:
            labels.append(None)
        else:
            raise DataError(
                f"{file}: line {line}: {name!r} is {row[name]!r}, expected one of 0, 1, 0.0, 1.0,"
                " True, False (or -1 or blank: see config.data.uncertain): correct the cell."
            )
    return tuple(labels)


def _are_one_hot(
    file: pathlib.Path,
    rows: Sequence[tuple[int, Mapping[str, str]]],
    labels: Sequence[tuple[int | None, ...]],
    task: str | None,
) -> bool:
    """Whether each row has exactly one 1; if only a few have not, log the first of them."""
    right = [_is_one_hot(label) for label in labels]
    few = len(right) - sum(right)
    if not right or len(labels[0]) < 2 or few == 0:
        return bool(right) and len(labels[0]) > 1
    if task != "multi-label" and few <= 0.1 * len(right):
        log.warning(
            "%s: line %d: not exactly one 1, unlike %d of %d rows, so the columns are read as"
            " separate labels (multi-label); if each image has one class, correct such rows.",
            file,
            rows[right.index(False)][0],
            sum(right),
            len(right),
        )
    return False


def _is_one_hot(label: Sequence[int | None]) -> bool:
    return label.count(1) == 1 and (set(label) <= {0, 1} or set(label) <= {1, None})


def _from_one_hot(
    file: pathlib.Path, labels: Sequence[tuple[int | None, ...]], names: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Name each image's class; columns without any 1 are left out."""
    empty = [name for place, name in enumerate(names) if not any(row[place] for row in labels)]
    if empty:
        log.warning("%s: left out %s: 0 in every row.", file, ", ".join(map(repr, empty)))
    log.warning(
        "%s: the %d label columns are one-hot (exactly one 1 in each row%s): read as one class per"
        " image. Set config.data.task to 'multi-label' if they are separate questions.",
        file,
        len(names),
        ", others blank" if any(None in row for row in labels) else "",
    )
    return [names[row.index(1)] for row in labels], [name for name in names if name not in empty]


def _settle(
    file: pathlib.Path,
    labels: Sequence[tuple[int | None, ...]],
    names: Sequence[str],
    uncertain: str,
) -> list[tuple[int, ...]]:
    """Give missing and uncertain labels the meaning that was asked for."""
    blank = sum(label is None for row in labels for label in row)
    unsure = sum(label == UNKNOWN for row in labels for label in row)
    unclear = bool(blank or unsure)
    if unclear and uncertain == "error":
        raise DataError(
            f"{file}: {blank} label(s) are missing and {unsure} are -1: fill them, or set"
            " config.data.uncertain to 'ignore' (left out of loss and metrics), 'zero' or 'one' (-1"
            " is 1, missing is 0)."
        )
    meaning = {0: 0, 1: 1} | {
        "error": {},
        "ignore": {None: UNKNOWN, UNKNOWN: UNKNOWN},
        "zero": {None: 0, UNKNOWN: 0},
        "one": {None: 0, UNKNOWN: 1},
    }[uncertain]
    if unclear:
        log.warning(
            "%s: %d label(s) are missing and %d are -1: config.data.uncertain is %r.",
            file,
            blank,
            unsure,
            uncertain,
        )
    settled = [tuple(meaning[label] for label in row) for row in labels]
    empty = [name for place, name in enumerate(names) if all(row[place] != 1 for row in settled)]
    if empty:
        log.warning(
            "%s: no row has a 1 for %s, from which it cannot be learned: to train, take the"
            " column(s) out, or name the others in config.data.label_column.",
            *(file, ", ".join(map(repr, empty))),
        )
    full = [name for place, name in enumerate(names) if all(row[place] != 0 for row in settled)]
    full = [name for name in full if name not in empty]
    if full:
        log.warning(
            "%s: no row has a 0 for %s, from which it cannot be learned: if blank means 0, set"
            " config.data.uncertain to 'zero'; else, to train, take the column(s) out.",
            *(file, ", ".join(map(repr, full))),
        )
    return settled
