"""The files of a sweep's report: Markdown, CSV, LaTeX, an HTML page and a picture."""

import csv
import io
import math
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from lsanet_jax.errors import WorkdirError
from lsanet_jax.evaluation import statistics
from lsanet_jax.report import results, words
from lsanet_jax.report import tables as report_tables
from lsanet_jax.report.sweep import Report
from lsanet_jax.report.tables import class_names, dataset_title, latex, markdown, plain, row_of
from lsanet_jax.runs.result import SCORES
from lsanet_jax.runtime.files import csv_cell, replacing

if TYPE_CHECKING:  # elsewhere only when something is drawn: matplotlib is slow to import
    from lsanet_jax.report import figures

FORMATS = ("md", "csv", "tex", "html")


def to_markdown(report: Report) -> str:
    """Write a report as a Markdown page."""
    parts = [f"# {report.title}", *(f"> **{_prose(warning)}**" for warning in report.warnings)]
    parts.append("\n".join(f"- {name}: {_prose(text)}" for name, text in report.facts))
    for table in report.tables:
        parts.append(f"## {table.title}\n\n{markdown(table)}")
        if table is report.tables[0] and report.problems:
            parts.append("\n".join(f"- {_prose(problem)}" for problem in report.problems))
    if report.words:
        parts.append("\n\n".join(["## In words", *report.words]))
    parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in report.notes))
    return "\n\n".join(parts) + "\n"


def _prose(text: str) -> str:
    """Escape a sentence for Markdown, in which _ and | mean nothing within words."""
    return plain(text, r"\\*`")


def to_csv(report: Report) -> tuple[str, str]:
    """Write a report as CSV: a row per run and seed, and a row per run; scores in percent."""
    runs, summary = [], []
    for cell in report.cells:
        row: dict[str, Any] = row_of(cell) | {"run": cell.run.name, "dataset": cell.dataset}
        row["asked_dataset"] = report_tables.asked_dataset(cell)
        row |= {f"paper_{key}": value for key, value in (cell.run.paper or {}).items()}
        for i, each in enumerate(cell.trained):
            own = {"seed": each.job.seed, "state": "finished", "task": each.result["task"]}
            for name in ("acc", "auc"):
                own[name] = cell.percent("test", name)[i]
                own[f"last_{name}"] = cell.percent("last_epoch", "test", name)[i]
            own |= {key: each.result.get(key) for key in ("best_epoch", "seconds")}
            if each.predictions is not None:
                scores = report_tables.per_run(each)
                recall = zip(class_names(cell), scores.pop("recall"), strict=True)
                own |= scores | {f"recall_{name}": value for name, value in recall}
            runs.append(row | own)
        for seed, why in cell.failed.items():
            runs.append(row | {"seed": seed, "state": "failed", "error": why})
        runs += [row | {"seed": seed, "state": "missing"} for seed in cell.missing]
        for name in ("acc", "auc"):
            values = cell.percent("test", name)
            pair = statistics.mean_and_std(values) if values else (None, None)
            row |= {f"{name}_mean": pair[0], f"{name}_std": pair[1]}
        row |= {"seeds": len(cell.trained), "baseline": cell.run.baseline}
        if found := report.comparisons.get(cell.run.name):
            for name in SCORES:
                of = getattr(found, name)
                values = {"difference": of.difference, "low": of.low, "high": of.high}
                row |= {f"{name}_{key}": value for key, value in values.items()}
            row["difference_seeds"] = " ".join(map(str, found.seeds))
            if found.delong:
                row["delong_p"] = statistics.majority_p_value(found.delong)
                of_seeds = {
                    "p": [t.p_value for t in found.delong],
                    "difference": [100 * t.difference for t in found.delong],
                    "error": [100 * t.standard_error for t in found.delong],
                    "freedom": [t.freedom for t in found.delong],
                }
                for name, values in of_seeds.items():
                    row[f"delong_{name}_of_seeds"] = " ".join(f"{x:.6g}" for x in values)
        summary.append(row)
    for each in report.joined:
        for name, score in each.scores.items() if each.tested else ():
            values = {"mean": score.value, "low": score.low, "high": score.high}
            joined = {f"{name}_{key}": 100 * value for key, value in values.items()}
            if name == "acc":
                summary.append({"run": each.name, "seeds": len(each.seeds)})
            summary[-1] |= joined
    return _csv_text(runs), _csv_text(summary)


def _csv_text(rows: list[dict]) -> str:
    stream = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writerow({name: csv_cell(name) for name in names})
    for row in rows:
        undefined = lambda v: isinstance(v, float) and math.isnan(v)
        short = lambda v: f"{v:.8g}" if isinstance(v, float) else csv_cell(v)
        writer.writerow({k: short(v) for k, v in row.items() if not undefined(v)})
    return stream.getvalue()


def write(report: Report, output: pathlib.Path, formats: Sequence[str]) -> list[pathlib.Path]:
    """Write the files of a report, each whole or not at all.

    Args:
        report: the report.
        output: the folder.
        formats: some of `FORMATS`.

    Returns:
        The files.

    Raises:
        WorkdirError: the folder cannot be written to.
    """
    contents: dict[str, str | bytes] = {}
    if "md" in formats:
        contents[f"{report.name}.md"] = to_markdown(report)
    if "csv" in formats:
        runs, summary = to_csv(report)
        contents[f"{report.name}_runs.csv"] = runs
        contents[f"{report.name}_summary.csv"] = summary
    if "tex" in formats:
        contents[f"{report.name}.tex"] = latex(report.tables[0], report.title)
        if report.tables[1].title == report_tables.DIFFERENCES:
            contents[f"{report.name}_differences.tex"] = latex(report.tables[1], report.title)
    draw = {
        "compare": _compare,
        "figure2": _figure2,
        "label_efficiency": _label_efficiency,
    }.get(report.name)
    picture = draw(report) if draw else None
    if picture is not None:
        from lsanet_jax.report import figures

        contents[f"{report.name}.png"] = figures.png(picture.figure)
    if "html" in formats:
        from lsanet_jax.report import sweep_page

        contents[f"{report.name}.html"] = sweep_page.render(report, picture)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            data = (
                content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
            )
            with replacing(output / name) as temporary:
                temporary.write_bytes(data)
    except OSError as error:
        raise WorkdirError(f"cannot write to --output={output}: {error}") from error
    return [output / name for name in contents]


def _compare(report: Report) -> "figures.Picture | None":
    """Draw each method's gain in AUC over the plain network, the highest first; None without."""
    from lsanet_jax.report import figures

    ordered = sorted(report.verdicts, key=lambda v: -v.difference.difference)
    if not ordered:
        return None
    rows = []
    for title, of, *_ in ordered:
        rows.append(figures.Difference(title, of.difference, of.low, of.high, math.nan))
    label = "Gain in AUC over the plain network; " + "; ".join(map(str, ordered))
    figure = figures.differences(rows, "gain in AUC, percentage points")
    return figures.Picture("Which method?", label, figure)


def _figure2(report: Report) -> "figures.Picture | None":
    """Draw the paper's Figure 2; None if no run has curves for it."""
    from lsanet_jax.report import figures

    without, deep = {}, {}
    found = {"without DSL": without, "with DSL": deep}
    for cell in report.cells:
        curves = results.curves(cell, results.train_curve("acc"))
        training = cell.run.row.get("Training")
        if curves and training in found:
            percent = {stage: 100 * values for stage, values in curves.items()}
            found[training][dataset_title(cell)] = percent
    if not any(found.values()):
        return None
    label = "Training accuracy of each classifier by epoch, without and with deep supervision"
    return figures.Picture("Figure 2", label, figures.figure2(without, deep, report.title))


def _label_efficiency(report: Report) -> "figures.Picture | None":
    """Draw the scores by the share of labels; None if no run is finished."""
    from lsanet_jax.report import figures

    found = {"ACC": {}, "AUC": {}}
    for cell in report.cells:
        for score, methods in found.items():
            if scores := cell.percent("test", score.lower()):
                percent = 100 * cell.config.data.train_fraction
                methods.setdefault(words.method_of(cell), {})[percent] = scores
    if not found["ACC"]:
        return None
    laws = {}
    for score, methods in found.items():
        curves = words.learning_curves(report.cells, score.lower())
        laws[score] = {
            method: (max(methods[method]) / curve.most, curve)
            for method, (curve, _) in curves.items()
            if not curve.silent
        }
    label = "ACC and AUC of each method by the share of labels, and what twice as many would bring"
    figure = figures.label_efficiency(found, report.title, laws)
    return figures.Picture("Scores by labels", label, figure)
