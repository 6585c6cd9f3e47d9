"""The page of a sweep: its tables, and plots of what lies behind them."""

from collections.abc import Iterator

import numpy as np
from matplotlib.figure import Figure

from lsanet_jax.evaluation import statistics
from lsanet_jax.report import figures, page, results
from lsanet_jax.report import tables as report_tables
from lsanet_jax.report.page import text
from lsanet_jax.report.results import Cell
from lsanet_jax.report.sweep import Report

_ABOUT_RUNS = """
C1, C2, … are the classifiers by their stage; the last one, black or white, is the network's own. \
Lines are means over the seeds, bands reach from the lowest to the highest seed. Reliability and \
confusion pool the test predictions of all seeds.
""".strip()


def render(report: Report, picture: figures.Picture | None = None) -> str:
    """Render the page of a report, with the sweep's picture, if it has one, above the tables."""
    parts = []
    if picture is not None:
        # In inches: two panels, or one.
        width = "wide" if picture.figure.get_figwidth() > 5 else "half"
        parts.append(f"<h2>{text(picture.title)}</h2>")
        parts.append(page.figure(picture.figure, picture.label, "picture", css=width))
    for i, table in enumerate(report.tables):
        parts.append(f"<h2>{text(table.title)}</h2>\n{page.table(table)}")
        if i == 0 and report.problems:
            items = "".join(f"<li>{text(problem)}</li>" for problem in report.problems)
            parts.append(f'<ul class="small gap">{items}</ul>')
        if i == 1:
            parts.append(_difference_plots(report))
    finished = [cell for cell in report.cells if cell.trained]
    if finished:
        parts.append("<h2>Runs</h2>")
        parts.append(f'<p class="small">{_ABOUT_RUNS}</p>')
    for i, cell in enumerate(finished):
        name = report_tables.label_of(report.cells, cell)
        parts.append(_run(name, cell, f"run{i}", is_open=i == len(finished) - 1))
    if report.words:
        paragraphs = "".join(f"<p>{text(paragraph)}</p>" for paragraph in report.words)
        parts.append(f"<h2>In words</h2>\n{paragraphs}")
    notes = "".join(f"<li>{text(note)}</li>" for note in report.notes)
    parts.append(f'<h2>Notes</h2>\n<ul class="small">{notes}</ul>')
    return page.render(report.title, warnings=report.warnings, facts=report.facts, main=parts)


def _difference_plots(report: Report) -> str:
    by_name = {cell.run.name: cell for cell in report.cells}
    plots = []
    for name in ("acc", "auc"):
        rows = []
        for run, comparison in report.comparisons.items():
            cell, found = by_name[run], getattr(comparison, name)
            assert cell.run.baseline is not None  # It was compared with it.
            before, paper = (
                (c.run.paper or {}).get(name, np.nan) for c in (by_name[cell.run.baseline], cell)
            )
            label = report_tables.label_of(report.cells, cell)
            row = figures.Difference(label, found.difference, found.low, found.high, paper - before)
            rows.append(row)
        if rows:
            figure = figures.differences(rows, "percentage points")
            label = "; ".join(f"{row.label}: {row.difference:+.2f}" for row in rows)
            title = f"{name.upper()}, difference to the baseline"
            plots.append(page.figure(figure, f"{title}: {label}", f"difference-{name}", title))
    return f'<div class="plots two">{"".join(plots)}</div>' if plots else ""


def _run(name: str, cell: Cell, key: str, *, is_open: bool) -> str:
    scores = [report_tables.spread(cell.percent("test", score)) for score in ("acc", "auc")]
    about = f"ACC {scores[0]} · AUC {scores[1]}"
    plots = "".join(
        page.figure(figure, f"{name}: {label}", f"{key}-{i}", caption)
        for i, (figure, label, caption) in enumerate(_plots(cell))
    )
    opened = " open" if is_open else ""
    return (
        f"<details{opened}><summary>{text(name)}<span>{text(about)}</span></summary>\n"
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
    labels = np.concatenate([each.labels for each in cell.predicted])
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
