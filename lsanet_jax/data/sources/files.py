"""Which files of a folder are images, by suffix or else by content; the rest is counted."""

import collections
import logging
import os
import pathlib
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lsanet_jax.errors import DataError

log = logging.getLogger(__name__)

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".dcm", ".dicom", ".ima"),
)

_NOT_DATA = {"__MACOSX", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
_NOT_DATA |= {"Thumbs.db", "desktop.ini", "DICOMDIR", "#recycle", "@Recycle", "RECYCLER"}
SIDE_FILES = {
    *(".csv", ".tsv", ".txt", ".md", ".json", ".xml", ".yaml", ".yml", ".xls", ".xlsx", ".ods"),
    *(".pdf", ".html", ".doc", ".docx", ".py", ".ipynb", ".log"),
}
_HINTS = {
    ".heic": "save as PNG or JPEG",
    ".heif": "save as PNG or JPEG",
    ".avif": "save as PNG or JPEG",
    ".nii": "a volume: save its slices as images",
    ".gz": "unpack, and save volumes as slices",
    ".mha": "a volume: save its slices as images",
    ".nrrd": "a volume: save its slices as images",
    ".svs": "a slide: cut it into tiles",
    ".npy": "use config.data.name=npz",
    ".npz": "use config.data.name=npz",
    ".zip": "unpack it",
}
_MAGIC = (
    (0, b"\x89PNG", "PNG"),
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (8, b"WEBP", "WebP"),
    (128, b"DICM", "DICOM"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_OTHER_MAGIC = (
    (0, b"II+\0", "BigTIFF"),
    (4, b"ftypavif", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (344, b"n+1\0", "NIfTI"),
    (0, b"NRRD", "NRRD"),
    (0, b"ObjectType", "MetaImage"),
    (0, b"\x89HDF", "HDF5"),
    (0, b"\x93NUMPY", "NumPy"),
    (0, b"MATLAB 5.0", "MATLAB"),
    (0, b"%PDF", "PDF"),
    (0, b"%!PS", "PostScript"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"PK\3\4", "zip (or npz, xlsx)"),
    (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Excel (xls) or another old Office format"),
    (0, b"PAR1\x15", "Parquet"),
    (0, b"ARROW1\0\0", "Arrow"),
    (0, b"SQLite format 3\0", "SQLite"),
    (0, b"$FL2@(#)", "SPSS"),
    (0, b"RDX", "R data"),
    (4, b"1AY&SY", "bzip2"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "Zstandard"),
    (0, b"<", "HTML or XML"),
)
_WORDS = (
    "(masks?|seg|segmentations?|gt|ground[ _-]?truth|labels?|anno|annotations?|roi|superpixels)"
)
_MASK = re.compile(rf"[ _.-]{_WORDS}([ _.-]?[0-9]+)?\Z", re.IGNORECASE)  # After an image's name,
_MASK_BEFORE = re.compile(rf"(?<![^/]){_WORDS}[ _.-](?=[^/]*\Z)", re.IGNORECASE)  # or before it.
_END = re.compile(r"(.+)[ _.-]([^ _./0-9-]+)", re.DOTALL)
_BEGIN = re.compile(r"([^ _./0-9-]+)[ _.-](.+)", re.DOTALL)
_NOT_CLASS = re.compile(
    rf"{_WORDS}|thumb(nail)?s?|previews?|pred(iction)?s?|originals?|all|unlabell?ed|raw"
    r"|(.*[ _.-])?augment(ed|ations?)?",
    re.IGNORECASE,
)


class Entries(NamedTuple):
    """What lies in a folder, sorted and without hidden files and folders.

    Attributes:
        folders: its folders, links to folders among them.
        images: its images.
        left_out: how many files of other kinds, by suffix.
    """

    folders: list[pathlib.Path]
    images: list[pathlib.Path]
    left_out: collections.Counter[str]


def content_kind(start: bytes) -> str:
    """Name the format that a file's first 512 bytes show, 'text', or '' for none that is known."""
    for offset, magic, name in (*_MAGIC, *_OTHER_MAGIC):
        if start[offset : offset + len(magic)] == magic:
            return name
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        text = start[: error.start].decode() if error.start > len(start) - 4 else "\0"
    return "text" if text and "\0" not in text else ""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is of the system's or ours, or the user has hidden it."""
    return name.startswith((".", "lsanet_splits")) or name in _NOT_DATA


def entries(folder: pathlib.Path) -> Entries:
    """List one folder.

    Raises:
        DataError: it cannot be listed, or a name is not UTF-8.
    """
    folders, images, left_out = [], [], collections.Counter()
    try:
        for entry in sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name)):
            if entry.is_dir():
                folders.append(entry)
                continue
            kind = _left_out_kind(entry)
            if kind:
                left_out[kind] += 1
            else:
                images.append(entry)
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed ({error.strerror}).") from error
    for entry in (*folders, *images):
        check_name(folder, entry.name)
    return Entries(folders, images, left_out)


def walk(
    folder: pathlib.Path, parents: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Entries]:
    """List a folder and those below it, through links.

    Raises:
        DataError: a folder cannot be listed, a name is not UTF-8, or links form a loop.
    """
    found = entries(folder)
    yield found
    status = folder.stat()
    above = parents | {(status.st_dev, status.st_ino)}
    for below in found.folders:
        status = below.stat()
        if (status.st_dev, status.st_ino) in above:
            raise DataError(f"{below}: a link to a folder that holds it, a loop: remove the link.")
        yield from walk(below, above)


def report_left_out(where: object, left_out: collections.Counter[str]) -> None:
    """Log how many files were left out, by kind."""
    if left_out:
        only_side_files = all(kind in SIDE_FILES for kind in left_out)
        log.log(
            logging.INFO if only_side_files else logging.WARNING,
            "%s: left out %d file(s) that are not images this reads: %s",
            where,
            left_out.total(),
            describe_left_out(left_out),
        )


def without_masks(where: object, names: Sequence[str]) -> list[str]:
    """Leave out masks that lie beside their images ('x_mask.png' and 'x.png'), and say so."""
    stems = {posixpath.splitext(name)[0] for name in names}

    def is_mask(name: str) -> bool:
        stem = posixpath.splitext(name)[0]
        images = {_MASK.sub("", stem), _MASK_BEFORE.sub("", stem)} - {stem}
        return bool(images & stems)

    kept = [name for name in names if not is_mask(name)]
    if len(kept) < len(names):
        log.warning(
            "%s: left out %d mask(s) beside their images, such as %s; to use them as images,"
            " rename them.",
            where,
            len(names) - len(kept),
            next(name for name in names if is_mask(name)),
        )
    _warn_of_ends(where, kept)
    return kept


def _warn_of_ends(where: object, names: Sequence[str]) -> None:
    """Log that many names are another's and the same word, as those of masks may be."""
    stems = {posixpath.splitext(name)[0] for name in names}
    ends = collections.defaultdict(list)
    for name in names:
        stem = posixpath.splitext(name)[0]
        folder, base = posixpath.split(stem)
        if (found := _END.fullmatch(stem)) and found[1] in stems:
            ends[found[2].lower()].append(name)
        elif (found := _BEGIN.fullmatch(base)) and posixpath.join(folder, found[2]) in stems:
            ends[found[1].lower()].append(name)
    ends = {end: found for end, found in ends.items() if len(found) > 2}
    if 4 * sum(map(len, ends.values())) > len(names):
        for end, found in ends.items():
            log.warning(
                "%s: %d name(s) are that of another image and %r, such as %s: are these images of"
                " their own? If not, take them out.",
                *(where, len(found), end, found[0]),
            )


def warn_of_strange_classes(where: object, names: Iterable[str]) -> None:
    """Log class folders that are called as if they held masks, copies or previews."""
    if found := [name for name in names if _NOT_CLASS.fullmatch(name)]:
        log.warning(
            "%s: the folder(s) %s are read as classes; if they hold no images of a class, move them"
            " out.",
            *(where, ", ".join(map(repr, found))),
        )


def describe_left_out(left_out: collections.Counter[str]) -> str:
    """List counts and kinds, such as '12 .heic (save as PNG or JPEG), 1 .txt'."""
    return ", ".join(
        f"{count} {kind}" + (f" ({_HINTS[kind]})" if kind in _HINTS else "")
        for kind, count in left_out.most_common()
    )


def check_name(folder: str | os.PathLike, name: str) -> None:
    """Raises DataError for the name of a file in a folder if no CSV could hold it."""
    if any("\ud800" <= character <= "\udfff" for character in name):
        raise DataError(f"{folder}: found {name!r}, expected a name in UTF-8: rename it.")


def _left_out_kind(file: pathlib.Path) -> str:
    """Name the kind of a file that is not read as an image: '' if it is read."""
    suffix = file.suffix.lower()
    if suffix in SUFFIXES:
        return ""
    kind = _kind_of_file(file)
    known = kind in {name for _, _, name in _MAGIC}
    if re.fullmatch(r"(\.[0-9]*)?", suffix):  # None, or the end of a number or a UID.
        return "" if known else f"without a suffix ({kind})" if kind else "without a suffix"
    return f"{suffix} ({kind} inside: rename it)" if known else suffix


def _kind_of_file(file: pathlib.Path) -> str:
    try:
        if not file.is_file():  # Opening a pipe would wait for its other end.
            return "not a file"
        with file.open("rb") as stream:
            return content_kind(stream.read(512))
    except OSError:
        return "cannot be read"
