"""The tables of a report, in Markdown and LaTeX."""

import collections
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from lsanet_jax.evaluation import statistics
from lsanet_jax.report import results
from lsanet_jax.report.results import Cell, Comparison
from lsanet_jax.runs.result import SCORES

NONE = "–"
DIFFERENCES = "Difference to the baseline"
PAPERS_SETS = {
    f"{name.lower()}mnist": f"{name}MNIST" for name in ("Path", "Derma", "Retina", "Blood")
}


class Entry(NamedTuple):
    """The content of one place of a table."""

    text: str
    bold: bool = False


class Table(NamedTuple):
    """A table: labels on the left, then numbers as text.

    Attributes:
        title: above it.
        labels: titles of the columns on the left.
        columns: titles of the other columns.
        rows: each with an entry for every label and column.
        groups: titles above `columns`, and how many of them each spans; may be empty.
    """

    title: str
    labels: list[str]
    columns: list[str]
    rows: list[list[Entry]]
    groups: Sequence[tuple[str, int]] = ()

    def same_as_above(self, i: int) -> bool:
        """Tell whether row i repeats the first label of the row above, which is then left out."""
        return i > 0 and len(self.labels) > 1 and self.rows[i][0] == self.rows[i - 1][0]

    def starts_group(self, i: int) -> bool:
        """Tell whether row i starts a group of rows with one first label, below a rule."""
        grouped = any(map(self.same_as_above, range(len(self.rows))))
        return grouped and i > 0 and not self.same_as_above(i)


def asked_dataset(cell: Cell) -> str | None:
    """Return the dataset that the paper has for a run, whatever was used instead."""
    return (cell.run.paper or {}).get("dataset") or cell.run.overrides.get("data.name")


def dataset_title(cell: Cell) -> str:
    """Name the data that a run used, and the paper's if it differs."""
    papers = PAPERS_SETS.get(asked_dataset(cell) or "")
    used = PAPERS_SETS.get(cell.dataset, cell.dataset)
    return used if papers in (None, used) else f"{used} (paper: {papers})"


def row_of(cell: Cell) -> dict[str, str]:
    """Return the labels of a run by their titles; "Data" is what was used."""
    row = dict(cell.run.row)
    return row | {"Data": dataset_title(cell)} if "Data" in row else row


def main_table(cells: list[Cell]) -> Table:
    """Lay runs out as the paper does: those that differ only in their dataset share a line."""
    columns, lines = {}, []  # of each line: its labels, and its cells by dataset
    for cell in cells:
        asked = asked_dataset(cell)
        key = asked if asked in PAPERS_SETS else cell.dataset  # "npz" and "folder" may mean several
        columns.setdefault(key, dataset_title(cell))
        for row, of in lines:
            if row == row_of(cell) and key not in of:
                of[key] = cell
                break
        else:
            lines.append((row_of(cell), {key: cell}))
    if all(len(of) == 1 for _, of in lines) and "Data" in _titles(cells):
        columns = {None: ""}  # the rows name the data
        lines = [(row, {None: next(iter(of.values()))}) for row, of in lines]
    best = _best(cells)
    with_papers = any((cell.run.paper or {}).get("acc") for cell in cells)
    parts = ["ACC", "paper", "AUC", "paper"] if with_papers else ["ACC", "AUC"]
    rows = []
    for row, of in lines:
        entries = []
        for key in columns:
            if (cell := of.get(key)) is None:
                entries += [Entry("")] * len(parts)
                continue
            for name in ("acc", "auc"):
                ours, papers = ((side, cell.run.name, name) in best for side in "op")
                entries.append(Entry(_score(cell, name), ours))
                if with_papers:
                    entries.append(Entry(_number((cell.run.paper or {}).get(name)), papers))
        rows.append([Entry(row.get(title, "")) for title in _titles(cells)] + entries)
    return Table(
        title="Results",
        labels=_titles(cells),
        groups=[(title, len(parts)) for title in columns.values()],
        columns=parts * len(columns),
        rows=rows,
    )


def _titles(cells: list[Cell]) -> list[str]:
    return list(dict.fromkeys(title for cell in cells for title in cell.run.row))


def _best(cells: list[Cell]) -> set[tuple[str, str, str]]:
    """Find the best of the runs that share a baseline, as ("o" ours or "p" paper's, run, score)."""
    groups = collections.defaultdict(list)
    baselines = {cell.run.baseline for cell in cells}
    for cell in cells:
        own = cell.run.name if cell.run.name in baselines else None
        groups[cell.run.baseline or own, dataset_title(cell)].append(cell)
    best = set()
    for group in groups.values():
        for name in ("acc", "auc"):
            ours = {c.run.name: _mean(c.percent("test", name)) for c in group}
            papers = {c.run.name: (c.run.paper or {}).get(name, math.nan) for c in group}
            for side, scores in (("o", ours), ("p", papers)):
                scores = {run: round(x, 2) for run, x in scores.items() if math.isfinite(x)}
                if len(scores) > 1:
                    highest = max(scores.values())
                    best |= {(side, run, name) for run, x in scores.items() if x == highest}
    return best


def _score(cell: Cell, name: str) -> str:
    if not cell.trained and cell.failed:
        return "failed"
    return spread(cell.percent("test", name)) + out_of(len(cell.trained), cell)


def out_of(count: int, cell: Cell) -> str:
    """Say how many of the seeds that were asked for a number is of, if not of all."""
    return f" ({count} of {cell.num_seeds})" if count < cell.num_seeds else ""


def differences(cells: list[Cell], comparisons: dict[str, Comparison]) -> Table:
    """Compare each run with its baseline, if it has one."""
    by_name = {cell.run.name: cell for cell in cells}
    rows = []
    for cell in cells:
        if cell.run.baseline is None:
            continue
        baseline, found = by_name[cell.run.baseline], comparisons.get(cell.run.name)
        against = [v for k, v in row_of(baseline).items() if v != row_of(cell).get(k)]
        row = [", ".join(against) or baseline.run.name]
        for name in SCORES:
            interval = _interval(found and getattr(found, name))
            if found:
                interval += out_of(len(found.seeds), cell)
            row.append(interval)
            if name != "balanced_acc":
                papers = [(c.run.paper or {}).get(name, math.nan) for c in (baseline, cell)]
                row.append(_signed(papers[1] - papers[0]))
        row += _significance(found)
        rows.append([*_labels(cells, cell), *map(Entry, row)])
    return Table(
        title=DIFFERENCES,
        labels=[*_label_titles(cells), "compared with"],
        columns=[
            *("ACC [95 %]", "paper", "balanced ACC [95 %]", "AUC [95 %]", "paper"),
            *("DeLong p", "p < .05"),
        ],
        rows=rows,
    )


def _significance(found: Comparison | None) -> tuple[str, str]:
    if found is None or not found.delong:
        return NONE, NONE
    text = p_text(statistics.majority_p_value(found.delong))
    # Seeds that contradict the mean difference do not support it.
    small = [
        t for t in found.delong if t.p_value < 0.05 and t.difference * found.auc.difference > 0
    ]
    return text, f"{len(small)} of {len(found.delong)}"


def per_class(cells: list[Cell]) -> list[Table]:
    """Show balanced accuracy, calibration and recall: a table for each dataset."""
    by_classes = collections.defaultdict(list)
    for cell in cells:
        if cell.predicted:
            by_classes[dataset_title(cell), class_names(cell)].append(cell)
    tables = []
    for (data, names), alike in by_classes.items():
        rows = []
        for cell in alike:
            scores = [per_run(each) for each in cell.predicted]
            texts = [spread([score[key] for score in scores]) for key in ("balanced_acc", "ece")]
            texts += map(_number, np.mean([score["recall"] for score in scores], axis=0))
            rows.append([*_labels(alike, cell), *map(Entry, texts)])
        tables.append(
            Table(
                title=f"Balanced accuracy, calibration, recall of each class: {data}",
                labels=_label_titles(alike),
                groups=[("", 2), ("recall", len(names))],
                columns=["balanced ACC", "ECE", *names],
                rows=rows,
            )
        )
    return tables


def per_run(each: results.Trained) -> dict[str, Any]:
    """Compute `balanced_acc`, `ece` and the `recall` of each class of a run, in percent."""
    labels, task = each.labels, each.result["task"]
    return {
        "balanced_acc": 100 * statistics.balanced_accuracy(labels, each.own, task),
        "ece": 100 * statistics.expected_calibration_error(labels, each.own),
        "recall": 100 * statistics.recall_per_class(labels, each.own, task),
    }


def class_names(cell: Cell) -> tuple[str, ...]:
    """Name the classes of a run's predictions; by their numbers if the names are unknown."""
    if not cell.predicted:
        return ()
    first = cell.predicted[0]
    names = first.manifest["dataset"].get("class_names") or []
    count = first.own.shape[1]
    return tuple(map(str, names)) if len(names) == count else tuple(map(str, range(count)))


def epochs(cells: list[Cell]) -> Table:
    """Show which epochs were selected, and the scores of the last ones."""
    rows = []
    for cell in cells:
        chosen = ", ".join(str(each.result["best_epoch"]) for each in cell.trained) or NONE
        last = [spread(cell.percent("last_epoch", "test", name)) for name in ("acc", "auc")]
        minutes = _mean([each.result["seconds"] / 60 for each in cell.trained])
        time = NONE if math.isnan(minutes) else f"{minutes:.1f}"
        rows.append([*_labels(cells, cell), *map(Entry, (chosen, *last, time))])
    return Table(
        title="Selected epoch, and the last one instead",
        labels=_label_titles(cells),
        columns=["epoch, by seed", "ACC, last", "AUC, last", "minutes"],
        rows=rows,
    )


def _label_titles(cells: list[Cell]) -> list[str]:
    titles = _titles(cells)
    several = len({dataset_title(cell) for cell in cells}) > 1
    return [*titles, "Data"] if several and "Data" not in titles else titles


def _labels(cells: list[Cell], cell: Cell) -> list[Entry]:
    row = row_of(cell) | {"Data": dataset_title(cell)}
    return [Entry(row.get(title, "")) for title in _label_titles(cells)]


def label_of(cells: list[Cell], cell: Cell) -> str:
    """Describe what tells a run from the others in one line, with the data that it used."""
    return ", ".join(entry.text.split(" (paper: ")[0] for entry in _labels(cells, cell))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _number(value: float | None) -> str:
    return NONE if value is None or math.isnan(value) else f"{value:.2f}"


def _signed(value: float) -> str:
    return NONE if math.isnan(value) else f"{value:+.2f}".replace("-", "−")


def p_text(p: float) -> str:
    """Format a p-value as .012, a small one as < .001, one next to .05 so that its side shows."""
    if math.isnan(p):
        return NONE
    digits = 3
    while float(f"{p:.{digits}f}") == 0.05 != p and digits < 9:
        digits += 1
    return "< .001" if p < 0.001 else f"{p:.{digits}f}".removeprefix("0")


def spread(values: Sequence[float]) -> str:
    """Format as mean ± sample standard deviation."""
    mean, std = statistics.mean_and_std(values) if values else (math.nan, math.nan)
    return _number(mean) + (f" ± {std:.2f}" if math.isfinite(std) else "")


def _interval(found: statistics.Bootstrap | None) -> str:
    if found is None or math.isnan(found.low):
        return _signed(found.difference) if found else NONE
    return f"{_signed(found.difference)} [{_signed(found.low)}, {_signed(found.high)}]"


def interval(found: statistics.Interval | None) -> str:
    """Format the difference of two scores in [0, 1], in percentage points."""
    if found is None or math.isnan(found.value):
        return NONE
    value, low, high = (_signed(100 * x) for x in found[:3])
    return value if low == NONE else f"{value} [{low}, {high}]"


def score_interval(found: statistics.Interval) -> str:
    """Format a score in [0, 1], in percent."""
    value, low, high = (_number(100 * x) for x in found[:3])
    return value if low == NONE else f"{value} [{low}, {high}]"


# ------------------------------------------------------------------------------ text


def plain(text: str, special: str = r"\\|*_`") -> str:
    """Escape text so that Markdown shows it as it is, on one line.

    Args:
        text: the text.
        special: the characters to escape wherever they are; links and HTML tags always are.
    """
    return re.sub(rf"[{special}]|<(?=\S)|\[(?=[^\]]*\]\()", r"\\\g<0>", " ".join(text.split()))


def markdown(table: Table) -> str:
    """Write a table in GitHub's Markdown; the title of a group precedes those of its columns."""
    groups = [title for title, span in table.groups for _ in range(span)] or [""] * len(
        table.columns
    )
    several = len(set(groups)) > 1
    columns = [
        f"{group} {column}".strip() if several else column
        for group, column in zip(groups, table.columns, strict=True)
    ]
    lines = [[plain(title) for title in (*table.labels, *columns)]]
    lines.append(["---"] * len(table.labels) + ["---:"] * len(columns))
    for row in table.rows:
        lines.append([f"**{plain(text)}**" if bold else plain(text) for text, bold in row])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


_LATEX = {
    "\\": r"\textbackslash{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "[": "{[}",  # after the end of a line it would be taken for an option
    "]": "{]}",
}


def latex(table: Table, comment: str) -> str:
    r"""Write a table as a LaTeX `tabular` with the rules of booktabs, for \input."""
    escape = lambda text: "".join(_LATEX.get(c, c) for c in " ".join(text.split()))
    cell = lambda entry: rf"\textbf{{{escape(entry.text)}}}" if entry.bold else escape(entry.text)
    line = lambda texts: " & ".join(texts) + r" \\"
    lines = [
        f"% {' '.join(comment.split())}: {table.title}. Needs \\usepackage{{booktabs}}.",
        rf"\begin{{tabular}}{{{'l' * len(table.labels)}{'r' * len(table.columns)}}}",
        r"\toprule",
    ]
    if any(title for title, _ in table.groups):
        first, rules = len(table.labels) + 1, []
        spans = []
        for title, span in table.groups:
            spans.append(rf"\multicolumn{{{span}}}{{c}}{{{escape(title)}}}")
            if title:
                rules.append(rf"\cmidrule(lr){{{first}-{first + span - 1}}}")
            first += span
        lines += [line([""] * len(table.labels) + spans), " ".join(rules)]
    lines += [line(map(escape, [*table.labels, *table.columns])), r"\midrule"]
    for i, row in enumerate(table.rows):
        texts = list(map(cell, row))
        if table.starts_group(i):
            lines.append(r"\midrule")
        if table.same_as_above(i):
            texts[0] = ""
        lines.append(line(texts))
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"
