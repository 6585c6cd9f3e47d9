"""The list of fields for people: as text for a terminal, and as a page of the documentation."""

import itertools
import textwrap
from collections.abc import Iterator, Sequence

from lsanet_jax.config.fields import FIELDS, SECTIONS, SOURCES, Field

_NAME, _DEFAULT = 26, 15  # columns of the text

_PAGE = """\
# Fields of a config

<!-- From lsanet_jax/config/fields.py: python -m lsanet_jax.config > docs/fields.md -->

A config holds every field below. A config file starts from `default_config()`, or from a shipped
config by `load(NAME)`, both in `lsanet_jax.config`, and changes what it needs. On the command line,
`--config.SECTION.FIELD=VALUE` changes one field.

A mark after a default names its source:
{sources}.
The fields that end in *May change.* may have another value when a run is resumed; all others are
fixed when it starts."""


def as_text(width: int) -> str:
    """Return the table of all fields, in columns: name, default, meaning with allowed values.

    Args:
        width: of the terminal, in columns.
    """
    lines = [f"({key}) {source}." for key, source in SOURCES.items()]
    for section, fields in _by_section():
        lines += ["", f"--config.{section}.FIELD" if section else "--config.FIELD"]
        lines += textwrap.wrap(f"{SECTIONS[section]}.", width) + [""]
        for field in fields:
            meaning = f"{_meaning(field)} [{field.allowed}]" if field.allowed else _meaning(field)
            lines += in_columns((_leaf(field), _shown(field)), meaning, width)
    return "\n".join(lines)


def in_columns(head: Sequence[str], text: str, width: int) -> list[str]:
    """Return lines with a name, and perhaps a default, on the left, and wrapped text on the right.

    Args:
        head: the first columns.
        text: of the last column.
        width: of the terminal, in columns.
    """
    columns = zip(head, (_NAME, _DEFAULT), strict=False)
    first = "  " + "".join(f"{cell:<{size - 1}} " for cell, size in columns)
    rest = 2 + _NAME + (_DEFAULT if len(head) > 1 else 0)
    wrapped = textwrap.wrap(text, max(width - rest, 24), break_on_hyphens=False)
    if len(first) > rest:
        return [first.rstrip(), *(" " * rest + line for line in wrapped)]
    return [first + wrapped[0], *(" " * rest + line for line in wrapped[1:])]


def as_markdown() -> str:
    """Return the documentation's page of all fields."""
    sources = "; ".join(f"({key}) {source}" for key, source in SOURCES.items())
    lines = [_PAGE.format(sources=sources)]
    for section, fields in _by_section():
        lines += ["", f"## `config.{section}`" if section else "## `config`", ""]
        lines += [f"{SECTIONS[section]}.", ""]
        lines += ["| Field | Type | Default | Allowed | Meaning |", "|---|---|---|---|---|"]
        for field in fields:
            source = f" ({field.source})" if field.source else ""
            default = f"`{_shown(field)}`{source}"
            meaning = field.meaning + (" *May change.*" if field.may_change else "")
            row = f"`{_leaf(field)}`", field.type.__name__, default, field.allowed, meaning
            lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
    return "\n".join(lines) + "\n"


def _by_section() -> Iterator[tuple[str, list[Field]]]:
    """Yield each section with its fields, in the order of the list."""
    order = list(SECTIONS)
    fields = sorted(FIELDS.values(), key=lambda field: order.index(_section(field)))
    for section, members in itertools.groupby(fields, key=_section):
        yield section, list(members)


def _section(field: Field) -> str:
    return field.name.rpartition(".")[0]


def _leaf(field: Field) -> str:
    return field.name.rpartition(".")[2]


def _shown(field: Field) -> str:
    """The default as it is typed on the command line."""
    return str(field.default) if field.default != "" else '""'


def _meaning(field: Field) -> str:
    return f"{field.meaning} ({field.source})" if field.source else field.meaning
