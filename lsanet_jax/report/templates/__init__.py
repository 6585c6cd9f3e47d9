"""The templates of reports, as files in this folder."""

import importlib.resources


def read(name: str) -> str:
    """Read a template, such as "page.html"."""
    return importlib.resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
