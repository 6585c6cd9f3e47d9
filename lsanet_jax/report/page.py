"""The page of a report: one HTML file, without scripts, that loads nothing else."""

import html
import string
from collections.abc import Sequence

from matplotlib.figure import Figure

from lsanet_jax.report import figures, templates
from lsanet_jax.report.tables import Table


def render(
    title: str, *, warnings: Sequence[str], facts: Sequence[tuple[str, str]], main: Sequence[str]
) -> str:
    """Render a page.

    Args:
        title: of the page.
        warnings: paragraphs that stand out at its top.
        facts: names and what is said of them, below the warnings.
        main: the HTML of its sections.
    """
    light, dark = (
        " ".join(f"--{name}: {pair[i]};" for name, pair in figures.COLOURS.items()) for i in (0, 1)
    )
    style = string.Template(templates.read("page.css"))
    notes = "".join(f"<p>{text(warning)}</p>" for warning in warnings)
    return string.Template(templates.read("page.html")).substitute(
        title=text(title),
        style=style.substitute(light=light, dark=dark).rstrip(),
        warnings=f'<div class="note" role="note">{notes}</div>' if notes else "",
        facts="\n".join(f"<dt>{text(name)}</dt><dd>{text(fact)}</dd>" for name, fact in facts),
        main="\n".join(main),
    )


def text(value: object) -> str:
    """Escape text for HTML."""
    return html.escape(str(value))


def table(shown: Table) -> str:
    """Write a table as HTML."""
    rows = []
    if any(title for title, _ in shown.groups):
        row = f'<td colspan="{len(shown.labels)}"></td>'
        for title, span in shown.groups:
            tag = 'th scope="colgroup" class="group"' if title else "td"
            row += f'<{tag} colspan="{span}">{text(title)}</{tag.split()[0]}>'
        rows.append(f"<tr>{row}</tr>")
    head = "".join(f'<th scope="col" class="label">{text(t)}</th>' for t in shown.labels)
    head += "".join(f'<th scope="col">{text(title)}</th>' for title in shown.columns)
    rows.append(f"<tr>{head}</tr>")
    body = []
    for i, row in enumerate(shown.rows):
        cells = []
        for j, entry in enumerate(row):
            content = text(entry.text)
            content = f"<strong>{content}</strong>" if entry.bold else content
            if j < len(shown.labels):
                same = " same" if j == 0 and shown.same_as_above(i) else ""
                cells.append(f'<th scope="row" class="label{same}">{content}</th>')
            else:
                paper = shown.columns[j - len(shown.labels)] == "paper"
                cells.append(
                    f'<td class="paper">{content}</td>' if paper else f"<td>{content}</td>"
                )
        rule = ' class="rule"' if shown.starts_group(i) else ""
        body.append(f"<tr{rule}>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(shown.title)}">\n'
        f"<table>\n<thead>\n{chr(10).join(rows)}\n</thead>\n<tbody>\n{chr(10).join(body)}\n</tbody>"
        "\n</table></div>"
    )


def figure(drawn: Figure, label: str, key: str, caption: str = "", css: str = "") -> str:
    """Write a figure as HTML.

    Args:
        drawn: the figure.
        label: what it shows, for those who do not see it.
        key: unique in the page, of letters and digits.
        caption: above it, if any.
        css: its classes, if any.
    """
    caption = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    css = f' class="{css}"' if css else ""
    return f"<figure{css}>{caption}{figures.svg(drawn, label, key)}</figure>"
