"""Look at a data set before training on it: what is there, what was left out, what is wrong.

Nothing is written beside the images. `inspect` reads; `text`, `markdown` and `page` show.
"""

import base64
import collections
import contextlib
import hashlib
import html
import io
import logging
import os
import pathlib
import re
import string
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from tqdm import tqdm

from lsanet_jax.data import quality
from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.data.sources import files as files_lib
from lsanet_jax.data.sources import folder, images, npz
from lsanet_jax.errors import DataError
from lsanet_jax.runtime.cores import usable_cores
from lsanet_jax.runtime.files import write_atomically

_ALIKE = 0.93  # Correlation of gradients from which two images are nearly the same.
_ENOUGH = 20  # Images, whose mean gradients say what all have in common.
_FEW = 3  # Images of a class: one for each split.
_IMBALANCED = 20  # Times as many images of the largest class as of the smallest.
_STRIP = 20  # Times as long as wide.
_GRID = 16  # Side of the perceptual fingerprint.
_THUMBNAIL = 72
_PER_SHEET = 24
_SHOWN = 20  # Rows of a list of images.


class Seen(NamedTuple):
    """One image as the check saw it.

    Attributes:
        name: relative to the folder.
        split: where it is, or was drawn.
        labels: its class, or its labels.
        size: 'width x height'.
        form: format and depth, such as 'PNG, grey, 16 bits'.
        odd: why it is odd; '' if not.
        digest: of its pixels.
        look: perceptual fingerprint of unit length; zeros for an image of one colour.
        thumbnail: for a contact sheet.
        error: why it cannot be read; '' if it can, and if not, the rest says nothing.
    """

    name: str
    split: str
    labels: tuple[str, ...]
    size: str = ""
    form: str = ""
    odd: str = ""
    digest: bytes = b""
    look: Float[np.ndarray, " d"] = np.zeros(0, np.float32)
    thumbnail: UInt8[np.ndarray, "t t 3"] | None = None
    error: str = ""

    @property
    def label(self) -> str:
        """Its class, or its labels joined."""
        return "|".join(self.labels) or "(none)"


class Section(NamedTuple):
    """A part of the report: a table below a sentence.

    Attributes:
        title: of the part.
        wrong: whether it tells of something that is wrong.
        header: names of the columns.
        rows: cells.
        note: a sentence.
    """

    title: str
    wrong: bool
    header: tuple[str, ...] = ()
    rows: tuple[tuple[object, ...], ...] = ()
    note: str = ""


class Report(NamedTuple):
    """What a check found.

    Attributes:
        path: of the set.
        sections: of the report, what is wrong first.
        sheets: a contact sheet for each class.
    """

    path: str
    sections: list[Section]
    sheets: dict[str, UInt8[np.ndarray, "h w 3"]]

    @property
    def is_wrong(self) -> bool:
        """Whether something is wrong."""
        return any(section.wrong for section in self.sections)


def inspect(path: str | os.PathLike, *, frame: int = 0, **options: Any) -> Report:
    """Read a folder or an npz file, and tell what is in it and what is wrong.

    Args:
        path: the folder, or the npz file.
        frame: of files with several, from 1.
        **options: of `folder.list_folder`.
    """
    path = pathlib.Path(os.path.expanduser(path))
    with _collected_warnings() as warnings:
        try:
            if path.suffix.lower() == ".npz":
                names, facts, seen = _inspect_npz(path, options.get("task"))
            else:
                names, facts, seen = _inspect_folder(path, frame, options)
        except DataError as error:
            return Report(str(path), [Section("It cannot be read", True, note=str(error))], {})
    sound = [image for image in seen if not image.error]
    sections = [
        *_of_classes(names, seen),
        _broken(seen),
        *_exact(sound),
        *_near(sound),
        _odd(sound),
        _greys(sound),
        _telling(names, sound),
        *facts,
        Section("What was said while reading", False, ("warning",), tuple((w,) for w in warnings)),
        _counted("Sizes", "size", [image.size for image in sound]),
        _counted("Formats and depths", "form", [image.form for image in sound]),
    ]
    shown = [section for section in sections if section.rows or section.note]
    shown.sort(key=lambda section: not section.wrong)
    return Report(str(path), shown, _sheets(sound))


def text(report: Report) -> str:
    """Return the report as a few plain lines."""
    lines = [f"{report.path}: {'something is wrong' if report.is_wrong else 'nothing is wrong'}"]
    for section in report.sections:
        lines.append(f"\n{'! ' if section.wrong else ''}{section.title}")
        lines += [f"  {section.note}"] * bool(section.note)
        table = [section.header, *section.rows[:_SHOWN]] if section.rows else []
        widths = [max(len(str(row[i])) for row in table) for i in range(len(section.header))]
        for row in table:
            cells = (str(cell).ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append(f"  {'  '.join(cells)}".rstrip())
        lines += [f"  ... {len(section.rows)} in all"] * (len(section.rows) > _SHOWN)
    return "\n".join(lines)


def markdown(report: Report) -> str:
    """Return the report as Markdown."""
    lines = [f"# Check of {report.path}", ""]
    for section in report.sections:
        lines += [f"## {'Wrong: ' * section.wrong}{section.title}", ""]
        lines += [section.note, ""] * bool(section.note)
        if section.rows:
            lines.append(f"| {' | '.join(section.header)} |")
            lines.append("|---" * len(section.header) + "|")
            for row in section.rows:
                # Names of files and classes are whatever their authors liked.
                cells = (re.sub(r"[\\|<`]", r"\\\g<0>", " ".join(str(c).split())) for c in row)
                lines.append(f"| {' | '.join(cells)} |")
            lines.append("")
    return "\n".join(lines)


def page(report: Report) -> str:
    """Return the report as an HTML page that needs no other file."""
    parts = []
    for section in report.sections:
        parts.append(
            f'<section class="{"wrong" if section.wrong else ""}"><h2>{_escape(section.title)}</h2>'
        )
        parts += [f"<p>{_escape(section.note)}</p>"] * bool(section.note)
        if section.rows:
            parts.append('<div class="scroll"><table><thead>')
            parts.append(_row("th", section.header))
            parts.append("</thead><tbody>")
            parts += [_row("td", row) for row in section.rows]
            parts.append("</tbody></table></div>")
        parts.append("</section>")
    for label, sheet in report.sheets.items():
        stream = io.BytesIO()
        Image.fromarray(sheet).save(stream, "JPEG", quality=85)
        data = base64.b64encode(stream.getvalue()).decode()
        parts.append(
            f"<section><h2>{_escape(label)}</h2>"
            f'<img src="data:image/jpeg;base64,{data}" alt="images of {_escape(label)}"></section>'
        )
    verdict = "Something is wrong." if report.is_wrong else "Nothing is wrong."
    template = pathlib.Path(__file__).with_name("check.html").read_text(encoding="utf-8")
    return string.Template(template).substitute(
        title=_escape(f"Check of {report.path}"), verdict=verdict, body="\n".join(parts)
    )


def write(report: Report, output: pathlib.Path) -> None:
    """Write the page and its Markdown.

    Raises:
        DataError: they cannot be written.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in (("check.html", page(report)), ("check.md", markdown(report))):
            write_atomically(output / name, content)
    except OSError as error:
        raise DataError(f"{output}: cannot be written ({error.strerror}).") from error


def look_of(image: Image.Image) -> Float[np.ndarray, " d"]:
    """Return a perceptual fingerprint: the gradients of a small grey copy, of unit length.

    Neither size, format, brightness nor contrast changes it much; of two images, the product is the
    correlation of their gradients.
    """
    side = _GRID + 1
    grey = np.asarray(image.convert("L").resize((side, side), Image.Resampling.BOX), np.float32)
    gradients = np.concatenate([np.diff(grey, axis=0).ravel(), np.diff(grey, axis=1).ravel()])
    length = np.linalg.norm(gradients)
    return gradients / length if length > 0 else gradients


def alike(looks: Float[np.ndarray, "n d"], least: float = _ALIKE) -> list[tuple[int, int]]:
    """List the pairs of images that look nearly the same.

    What all images of a set share, such as the round edge of a fundus, says nothing: it is taken
    off first.
    """
    if len(looks) >= _ENOUGH:
        looks = looks - looks.mean(axis=0)
        looks = looks / np.maximum(np.linalg.norm(looks, axis=1, keepdims=True), 1e-9)
    pairs = []
    for start in range(0, len(looks), 1024):
        products = looks[start : start + 1024] @ looks[start:].T
        first, second = np.nonzero(np.triu(products, 1) >= least)
        pairs += [(start + int(i), start + int(j)) for i, j in zip(first, second, strict=True)]
    return pairs


@contextlib.contextmanager
def _collected_warnings() -> Iterator[list[str]]:
    """Collect what the loaders warn of, instead of printing it."""
    messages: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    logger, handler = logging.getLogger("lsanet_jax.data"), Collector(logging.WARNING)
    propagate, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate


def _inspect_folder(
    path: pathlib.Path, frame: int, options: dict[str, Any]
) -> tuple[Sequence[str], list[Section], list[Seen]]:
    telling: dict[str, Any] = {"duplicates": "warn", "leaks": "warn"}
    listing = folder.list_folder(path, **telling | options)
    files = [file for key in SPLITS for file in listing.paths(key)]
    bits, deep = images.least_bits(files, frame=frame)
    jobs = []
    for key in SPLITS:
        part = listing.split(key)
        for name, label in zip(part.files, part.labels, strict=True):
            jobs.append((name, key, _labels(label, listing.class_names)))

    def see(job: tuple[str, str, tuple[str, ...]]) -> Seen:
        try:
            image = images.read(listing.root / job[0], bits=bits, frame=frame)
            form = images.describe(listing.root / job[0])
        except DataError as error:
            return Seen(*job, error=str(error).removeprefix(f"{listing.root / job[0]}: "))
        return _seen(job, image, form)

    facts = [
        Section(
            "Left out: not images that are read",
            any(kind not in files_lib.SIDE_FILES for kind in listing.left_out),
            ("kind", "files"),
            tuple(listing.left_out.most_common()),
        ),
        Section(
            "Patients or other groups in several splits",
            bool(listing.torn),
            ("image", "split", "other image", "split"),
            tuple((a.file, a.split, b.file, b.split) for a, b in listing.torn),
        ),
        Section(
            "Bits",
            False,
            note=f"{deep} image(s) have more than 8 bits per channel; their values need {bits}."
            if deep
            else "",
        ),
    ]
    return listing.class_names, facts, _all(see, jobs)


def _inspect_npz(
    path: pathlib.Path, task: str | None
) -> tuple[Sequence[str], list[Section], list[Seen]]:
    dataset = npz.load_npz(path, task=task or None)

    def see(job: tuple[str, str, tuple[str, ...], np.ndarray]) -> Seen:
        pixels = job[3].squeeze(2) if job[3].shape[2] == 1 else job[3]
        form = "grey, 8 bits" if pixels.ndim == 2 else "colour, 8 bits"
        return _seen(job[:3], Image.fromarray(pixels), form)

    jobs = [
        (f"{key}_images[{i}]", key, _labels(label, dataset.class_names), pixels)
        for key in SPLITS
        for i, (pixels, label) in enumerate(
            zip(dataset.split(key).images[:], dataset.split(key).labels, strict=True)
        )
    ]
    return dataset.class_names, [], _all(see, jobs)


def _all(see: Callable[[Any], Seen], jobs: Sequence[Any]) -> list[Seen]:
    with futures.ThreadPoolExecutor(usable_cores()) as pool:
        return list(tqdm(pool.map(see, jobs), "Reading", len(jobs), unit=" images", disable=None))


def _seen(job: tuple[str, str, tuple[str, ...]], image: Image.Image, form: str) -> Seen:
    pixels = np.asarray(image.convert("RGB"))
    square = image.convert("RGB").resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BILINEAR)
    return Seen(
        *job,
        size=f"{image.width} x {image.height}",
        form=form,
        odd=quality.odd_reason(pixels) or quality.strange_greys(pixels[None]) or _strip(image),
        digest=hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest(),
        look=look_of(image),
        thumbnail=np.asarray(square),
    )


def _strip(image: Image.Image) -> str:
    ratio = max(image.size) / min(image.size)
    return f"{ratio:.0f} times as long as wide" if ratio > _STRIP else ""


def _labels(label: np.ndarray, names: Sequence[str]) -> tuple[str, ...]:
    if np.ndim(label) == 0:
        return (names[int(label)],)
    return tuple(name for name, value in zip(names, label, strict=True) if value == 1)


def _of_classes(names: Sequence[str], seen: Sequence[Seen]) -> list[Section]:
    """Count images per class and split."""
    counts = collections.defaultdict(
        collections.Counter, {name: collections.Counter() for name in names}
    )
    for image in seen:
        for label in image.labels or ("(none)",):
            counts[label][image.split] += 1
    rows = [
        (label, *(split[key] for key in SPLITS), split.total())
        for label, split in sorted(counts.items())
    ]
    sizes = {label: split.total() for label, split in counts.items()}
    few = [(label, size) for label, size in sizes.items() if size < _FEW]
    largest, smallest = max(sizes, key=sizes.__getitem__), min(sizes, key=sizes.__getitem__)
    ratio = sizes[largest] / max(1, sizes[smallest])
    note = f"{largest!r} has {ratio:.1f} times as many images as {smallest!r}."
    return [
        Section("Images", False, ("class", *SPLITS, "all"), tuple(rows)),
        Section(
            f"Classes with fewer than {_FEW} images, one for each split",
            bool(few),
            ("class", "images"),
            tuple(few),
        ),
        Section(
            "Imbalance", ratio > _IMBALANCED, note=note if ratio > 1.5 and sizes[smallest] else ""
        ),
    ]


def _broken(seen: Sequence[Seen]) -> Section:
    rows = tuple((image.name, image.error) for image in seen if image.error)
    return Section("Images that cannot be read", bool(rows), ("image", "why"), rows)


def _exact(seen: Sequence[Seen]) -> list[Section]:
    """List identical images, in several splits or classes, or inside one."""
    groups = collections.defaultdict(list)
    for image in seen:
        if image.odd not in quality.BLANK:
            groups[image.digest].append(image)
    same = [group for group in groups.values() if len(group) > 1]
    return _compared("identical", [(a, b) for first, *rest in same for a in [first] for b in rest])


def _near(seen: Sequence[Seen]) -> list[Section]:
    """List images that look nearly the same, but are not identical."""
    usable = [image for image in seen if image.odd not in quality.BLANK]
    if not usable:
        return []
    pairs = alike(np.stack([image.look for image in usable]))
    different = [(usable[i], usable[j]) for i, j in pairs if usable[i].digest != usable[j].digest]
    return _compared("nearly identical", different)


def _compared(how: str, pairs: Sequence[tuple[Seen, Seen]]) -> list[Section]:
    header = ("image", "split", "class", "other image", "split", "class")
    kinds = collections.defaultdict(list)
    for a, b in pairs:
        kind = (
            "in several splits"
            if a.split != b.split
            else "with different labels"
            if a.label != b.label
            else "inside a class and split"
        )
        kinds[kind].append((a.name, a.split, a.label, b.name, b.split, b.label))
    return [
        Section(
            f"Pairs of {how} images {kind}: {len(rows)}",
            not kind.startswith("inside"),
            header,
            tuple(rows),
        )
        for kind, rows in sorted(kinds.items())
    ]


def _odd(seen: Sequence[Seen]) -> Section:
    rows = tuple((image.name, image.odd) for image in seen if image.odd)
    return Section("Odd images", bool(rows), ("image", "it is"), rows)


def _greys(seen: Sequence[Seen]) -> Section:
    """Tell whether the whole set is too dark, too bright or too flat."""
    thumbnails = [image.thumbnail for image in seen if image.thumbnail is not None]
    strange = quality.strange_greys(np.stack(thumbnails)) if thumbnails else ""
    note = f"The images are {strange}: {quality.ADVICE}" if strange else ""
    return Section("Greys of the whole set", bool(strange), note=note)


def _telling(names: Sequence[str], seen: Sequence[Seen]) -> Section:
    """List classes all of whose images have a size or form that no image of another class has."""
    rows = []
    if {image.label for image in seen} <= {*names}:  # Not several labels of one image.
        labels = [image.label for image in seen]
        for facts in ([image.form for image in seen], [image.size for image in seen]):
            found = folder.telling(labels, facts)
            rows += [(label, *own) for label, own in found.items() if len(own) == 1]
    header = ("class", "all of its images, and no others, are")
    return Section("Sizes or formats that may tell the class", False, header, tuple(rows))


def _counted(title: str, column: str, values: Sequence[str]) -> Section:
    counts = collections.Counter(values).most_common()
    rest = sum(count for _, count in counts[_SHOWN:])
    rows = [*counts[:_SHOWN], *([("others", rest)] if rest else [])]
    return Section(title, False, (column, "images"), tuple(rows))


def _sheets(seen: Sequence[Seen]) -> dict[str, UInt8[np.ndarray, "h w 3"]]:
    """Make a contact sheet for each class, evenly over its images."""
    classes = collections.defaultdict(list)
    for image in seen:
        classes[image.label].append(image.thumbnail)
    sheets = {}
    for label, found in sorted(classes.items(), key=lambda item: (-len(item[1]), item[0]))[:50]:
        places = np.linspace(0, len(found) - 1, min(len(found), _PER_SHEET)).astype(int)
        cells = [np.pad(found[i], ((2, 2), (2, 2), (0, 0)), constant_values=255) for i in places]
        cells += [np.full_like(cells[0], 255)] * (-len(cells) % 8)
        rows = [np.concatenate(cells[i : i + 8], axis=1) for i in range(0, len(cells), 8)]
        sheets[f"{label}: {len(places)} of {len(found)} images"] = np.concatenate(rows)
    return sheets


def _row(cell: str, values: Sequence[object]) -> str:
    cells = "".join(f"<{cell}>{_escape(value)}</{cell}>" for value in values)
    return f"<tr>{cells}</tr>"


def _escape(value: object) -> str:
    return html.escape(str(value))
