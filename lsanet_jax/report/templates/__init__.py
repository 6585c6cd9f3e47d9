"""The templates of reports, as files in this folder."""

import html
import importlib.resources
import string


def read(name: str) -> str:
    """Read a template, such as "page.html"."""
    return importlib.resources.files(__name__).joinpath(name).read_text(encoding="utf-8")


def paragraphs(name: str, **values: str) -> str:
    """Fill in a template of plain text, and make its paragraphs HTML."""
    filled = string.Template(read(name)).substitute(values)
    parts = [" ".join(part.split()) for part in filled.strip().split("\n\n")]
    return "".join(f'<p class="small">{html.escape(part)}</p>' for part in parts)
