"""The page of a report: one file, without scripts, that asks for nothing else."""

import html
import string
from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from lsanet_jax.evaluation import statistics
from lsanet_jax.report import figures, results
from lsanet_jax.report import tables as report_tables
from lsanet_jax.report.results import Cell
from lsanet_jax.report.tables import Table

_PAGE = string.Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
:root { color-scheme: light dark; --page: #ffffff; --note: #fdf6e8; --edge: #d9a441; $light }
@media (prefers-color-scheme: dark) {
  :root { --page: #15181c; --note: #2a2416; --edge: #a67c2d; $dark }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 66rem; padding: 2.5rem 1.25rem 4rem; background: var(--page);
  color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.6rem; line-height: 1.25; font-weight: 600; margin: 0 0 1.25rem; }
h2 { font-size: 1.1rem; font-weight: 600; margin: 2.75rem 0 .75rem; }
.note { border-left: 3px solid var(--edge); background: var(--note); padding: .7rem 1rem;
  margin: 0 0 1.25rem; }
.note p { margin: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.25rem; margin: 0;
  font-size: .85rem; color: var(--quiet); }
dd { margin: 0; min-width: 0; }
dt { color: var(--ink); }
.scroll { overflow-x: auto; margin: 0 -1.25rem; padding: 0 1.25rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums;
  border-top: 1.5px solid var(--ink); border-bottom: 1.5px solid var(--ink); }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; font-weight: 400; }
th:first-child, td:first-child { padding-left: .1rem; }
thead th { color: var(--quiet); font-size: .8rem; vertical-align: bottom; white-space: normal; }
thead tr:last-child th { border-bottom: 1px solid var(--quiet); }
thead th.group { text-align: center; color: var(--ink); border-bottom: 1px solid var(--line); }
th.label { text-align: left; color: var(--ink); white-space: nowrap; }
thead th.label { color: var(--quiet); }
tbody th:first-child { position: sticky; left: 0; background: var(--page); }
tbody th.same { color: transparent; }
tr.rule > * { border-top: 1px solid var(--line); }
td.paper { color: var(--quiet); }
td strong { font-weight: 650; color: var(--ink); }
figure { margin: 0; min-width: 0; }
figcaption { font-size: .85rem; color: var(--ink); margin-bottom: .25rem; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit; }
.plots { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(17.5rem, 100%), 1fr));
  gap: 1.75rem 1.5rem; padding: .75rem 0 1.75rem; align-items: start; }
.two { grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); }
.gap { margin-top: .75rem; }
.wide { max-width: 52rem; }
.half { max-width: 28rem; }
details { border-top: 1px solid var(--line); }
details:last-of-type { border-bottom: 1px solid var(--line); }
summary { cursor: pointer; padding: .55rem 0; }
summary span { color: var(--quiet); font-size: .85rem; margin-left: .6rem;
  font-variant-numeric: tabular-nums; }
ul { padding-left: 1.1rem; margin: 0; }
li { margin: .35rem 0; }
.small { font-size: .85rem; color: var(--quiet); }
:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
@media (max-width: 32rem) {
  body { padding-top: 1.5rem; }
  dl { grid-template-columns: 1fr; gap: 0; }
  dd { margin-bottom: .4rem; }
  summary span { display: block; margin-left: 1.05rem; }
}
@media print { body { max-width: none; } figure { break-inside: avoid; } }
</style>
</head>
<body>
<header>
<h1>$title</h1>
$warnings
<dl>
$facts
</dl>
</header>
<main>
$main
</main>
</body>
</html>
""")


def page(report, picture: figures.Picture | None = None) -> str:
    """The page of a `report.Report`, with the picture of its sweep above the tables, if it has one."""
    parts = []
    if picture is not None:
        title, label, figure = picture
        parts.append(f"<h2>{_text(title)}</h2>")
        width = "wide" if figure.get_figwidth() > 5 else "half"  # inches: two panels, or one
        parts.append(_figure(figure, label, "picture", "", width))
    for i, table in enumerate(report.tables):
        parts.append(f"<h2>{_text(table.title)}</h2>\n{_table(table)}")
        if i == 0 and report.problems:
            items = "".join(f"<li>{_text(problem)}</li>" for problem in report.problems)
            parts.append(f'<ul class="small gap">{items}</ul>')
        if i == 1:
            parts.append(_difference_plots(report))
    finished = [cell for cell in report.cells if cell.trained]
    if finished:
        parts.append("<h2>Runs</h2>")
        parts.append(
            '<p class="small">C1, C2, … are the classifiers by their stage; the last one, black or '
            "white, is the network's own. Lines are means over the seeds, bands reach from the lowest "
            "to the highest seed. Reliability and confusion pool the test predictions of all seeds.</p>"
        )
    for i, cell in enumerate(finished):
        name = report_tables.label_of(report.cells, cell)
        parts.append(_run(name, cell, f"run{i}", is_open=i == len(finished) - 1))
    notes = "".join(f"<li>{_text(note)}</li>" for note in report.notes)
    parts.append(f'<h2>Notes</h2>\n<ul class="small">{notes}</ul>')
    warnings = "".join(f"<p>{_text(warning)}</p>" for warning in report.warnings)
    colours = [
        " ".join(f"--{name}: {pair[i]};" for name, pair in figures.COLOURS.items()) for i in (0, 1)
    ]
    return _PAGE.substitute(
        title=_text(report.title),
        light=colours[0],
        dark=colours[1],
        warnings=f'<div class="note" role="note">{warnings}</div>' if warnings else "",
        facts="\n".join(
            f"<dt>{_text(name)}</dt><dd>{_text(text)}</dd>" for name, text in report.facts
        ),
        main="\n".join(parts),
    )


def _text(text: str) -> str:
    return html.escape(str(text))


def _table(table: Table) -> str:
    rows = []
    if any(title for title, _ in table.groups):
        row = f'<td colspan="{len(table.labels)}"></td>'
        for title, span in table.groups:
            tag = 'th scope="colgroup" class="group"' if title else "td"
            row += f'<{tag} colspan="{span}">{_text(title)}</{tag.split()[0]}>'
        rows.append(f"<tr>{row}</tr>")
    head = "".join(f'<th scope="col" class="label">{_text(t)}</th>' for t in table.labels)
    head += "".join(f'<th scope="col">{_text(title)}</th>' for title in table.columns)
    rows.append(f"<tr>{head}</tr>")
    body = []
    for i, row in enumerate(table.rows):
        cells = []
        for j, entry in enumerate(row):
            text = f"<strong>{_text(entry.text)}</strong>" if entry.bold else _text(entry.text)
            if j < len(table.labels):
                same = " same" if j == 0 and table.same_as_above(i) else ""
                cells.append(f'<th scope="row" class="label{same}">{text}</th>')
            else:
                paper = table.columns[j - len(table.labels)] == "paper"
                cells.append(f'<td class="paper">{text}</td>' if paper else f"<td>{text}</td>")
        rule = ' class="rule"' if table.starts_group(i) else ""
        body.append(f"<tr{rule}>{''.join(cells)}</tr>")
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{_text(table.title)}">\n'
        f"<table>\n<thead>\n{chr(10).join(rows)}\n</thead>\n<tbody>\n{chr(10).join(body)}\n</tbody>"
        "\n</table></div>"
    )


def _figure(figure: Figure, label: str, key: str, caption: str, css: str = "") -> str:
    caption = f"<figcaption>{_text(caption)}</figcaption>" if caption else ""
    css = f' class="{css}"' if css else ""
    return f"<figure{css}>{caption}{figures.svg(figure, label, key)}</figure>"


def _difference_plots(report) -> str:
    by_name = {cell.run.name: cell for cell in report.cells}
    plots = []
    for name in ("acc", "auc"):
        rows = []
        for run, comparison in report.comparisons.items():
            cell, found = by_name[run], getattr(comparison, name)
            papers = [
                (c.run.paper or {}).get(name, np.nan) for c in (by_name[cell.run.baseline], cell)
            ]
            label = report_tables.label_of(report.cells, cell)
            rows.append(figures.Difference(label, *found[:3], papers[1] - papers[0]))
        if rows:
            figure = figures.differences(rows, "percentage points")
            label = "; ".join(f"{row.label}: {row.difference:+.2f}" for row in rows)
            title = f"{name.upper()}, difference to the baseline"
            plots.append(_figure(figure, f"{title}: {label}", f"difference-{name}", title))
    return f'<div class="plots two">{"".join(plots)}</div>' if plots else ""


def _run(name: str, cell: Cell, key: str, *, is_open: bool) -> str:
    scores = [report_tables.spread(cell.percent("test", score)) for score in ("acc", "auc")]
    about = f"ACC {scores[0]} · AUC {scores[1]}"
    plots = "".join(
        _figure(figure, f"{name}: {label}", f"{key}-{i}", caption)
        for i, (figure, label, caption) in enumerate(_plots(cell))
    )
    opened = " open" if is_open else ""
    return (
        f"<details{opened}><summary>{_text(name)}<span>{_text(about)}</span></summary>\n"
        f'<div class="plots">{plots}</div></details>'
    )


def _plots(cell: Cell) -> Iterator[tuple[Figure, str, str]]:
    """Figures with what they show, for those who do not see them, and their captions."""
    for caption, axis, read, factor in (
        ("Training accuracy", "accuracy, %", results.train_curve("acc"), 100),
        ("Validation AUC", "AUC, %", results.val_curve("auc"), 100),
        ("Weight of each classifier (beta)", "beta", results.train_curve("beta"), 1),
    ):
        found = {stage: factor * x for stage, x in results.curves(cell, read).items()}
        if found:
            last = ", ".join(f"C{stage} {x[:, -1].mean():.3g}" for stage, x in found.items())
            label = f"{caption.lower()} by epoch; at the last one {last}"
            yield figures.curves(found, axis), label, caption
    if not cell.predicted:
        return
    labels = np.concatenate([each.predictions.labels for each in cell.predicted])
    probabilities = np.concatenate([each.own for each in cell.predicted])
    task = cell.predicted[0].result["task"]
    diagram = statistics.reliability(labels, probabilities)
    label = "reliability diagram: accuracy by confidence, 15 bins"
    yield figures.reliability(diagram), label, "Reliability"
    if task != "multi-label":
        counts = statistics.confusion_matrix(labels, probabilities, task)
        label = "confusion matrix: share of each class, in percent, predicted as each class"
        names = report_tables.class_names(cell)
        yield figures.confusion(counts, names), label, "Confusion, % of each true class"
