"""The report of a sweep: the paper's table beside the runs, with intervals, and what lies behind it."""

import collections
import csv
import datetime
import io
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lsanet_jax.errors import WorkdirError
from lsanet_jax.evaluation import statistics
from lsanet_jax.report import results
from lsanet_jax.report import tables as report_tables
from lsanet_jax.report.results import Cell, Comparison
from lsanet_jax.report.tables import Table, class_names, dataset_title, latex, markdown, row_of
from lsanet_jax.runtime.files import replacing
from lsanet_jax.sweeps.spec import Sweep

FORMATS = ("md", "csv", "tex", "html")

# What the paper states of its protocol (Section 4.1).
PROTOCOL = {
    "data.image_size": 224,
    "data.train_fraction": 1.0,
    "data.train_per_class": 0,
    "train.epochs": 100,
    "train.batch_size": 64,
    "train.optimizer": "adam",
    "train.learning_rate": 0.001,
}

NOTES = """
ACC and AUC: percent, on the test split, at the epoch with the best validation AUC unless the config \
selects another; mean ± sample standard deviation over the seeds. The paper's are means of 3 runs. Bold: \
the best of the runs that share a baseline.
Differences: percentage points, with 95 % intervals by a percentile bootstrap of test images and of \
seeds (2000 resamples), paired in both. Of S seeds it finds (S - 1) / S of the variance between seeds; \
with one seed the interval is for that seed only. (1 of 3): of the one seed of three that both have.
DeLong: p, two-sided, of DeLong's test for the AUC in a majority of seeds and one direction, that is n / k \
times the k-th smallest of the n p-values, k the least majority: valid although the seeds share their test \
images. Beside it, in how many seeds p < .05 in the direction of the mean. Not corrected for the number \
of rows.
Balanced ACC: mean recall of the classes (multi-label: of sensitivity and specificity). ECE: expected \
calibration error, 15 bins. Percent.
""".strip().splitlines()


class Report(NamedTuple):
    """All that a report says, in the order in which it says it."""

    name: str
    title: str
    warnings: list[str]
    facts: list[tuple[str, str]]
    tables: list[Table]
    notes: list[str]
    problems: list[str]
    cells: list[Cell]
    comparisons: dict[str, Comparison]  # by the run's name


def make(swept: Sweep, workdir: str | pathlib.Path, *, resamples: int = 2000) -> Report:
    """Read what is finished of a sweep, and compare.

    Raises:
      WorkdirError: a file is damaged, or does not fit the others. It is named.
    """
    cells = results.collect(swept, workdir)
    by_name = {cell.run.name: cell for cell in cells}
    comparisons = {}
    for cell in cells:
        if cell.run.baseline is not None:
            found = results.compare(cell, by_name[cell.run.baseline], resamples=resamples)
            if found is not None:
                comparisons[cell.run.name] = found
    tables = [report_tables.main_table(cells)]
    if any(cell.run.baseline is not None for cell in cells):
        tables.append(report_tables.differences(cells, comparisons))
    tables += [*report_tables.per_class(cells), report_tables.epochs(cells)]
    old = [each.job.name for cell in cells for each in cell.trained if each.predictions is None]
    notes = list(NOTES)
    if old:
        notes.append(
            f"Without {results.PREDICTIONS}, so without intervals and calibration: {', '.join(old)}."
        )
    return Report(
        name=swept.name,
        title=swept.title,
        warnings=_warnings(cells),
        facts=_facts(swept, cells),
        tables=tables,
        notes=notes,
        problems=_problems(swept, cells),
        cells=cells,
        comparisons=comparisons,
    )


# ------------------------------------------------------------------------------ what was run


def _warnings(cells: list[Cell]) -> list[str]:
    others = dict.fromkeys(dataset_title(c) for c in cells if "(paper: " in dataset_title(c))
    warnings = [f"Not the paper's data: {', '.join(others)}."] if others else []
    changed = []
    for name, papers in PROTOCOL.items():
        section, field = name.split(".")
        values = dict.fromkeys(cell.config[section][field] for cell in cells)
        if papers not in values:  # where some have it, the sweep is about the field
            changed += [f"{name} = {value} (paper: {papers})" for value in values]
    small = [cell for cell in cells if cell.config.model.stem == "small"]
    if small:
        backbones = ", ".join(dict.fromkeys(cell.config.model.backbone for cell in small))
        where = "" if len(small) == len(cells) else f" of {backbones}"
        changed.append(f"model.stem{where} = small (paper: imagenet)")
    if changed:
        warnings.append(f"Not the paper's protocol: {', '.join(changed)}.")
    if warnings and any((cell.run.paper or {}).get("acc") for cell in cells):
        warnings.append(
            "The paper's numbers stand beside these for the order of the rows, not for their level."
        )
    return warnings


def _problems(swept: Sweep, cells: list[Cell]) -> list[str]:
    problems = [
        f"{cell.run.name}/seed{seed} failed: {why}"
        for cell in cells
        for seed, why in cell.failed.items()
    ]
    missing = []
    for cell in cells:
        if len(cell.missing) == len(swept.seeds):
            missing.append(cell.run.name)
        else:
            missing += [f"{cell.run.name}/seed{seed}" for seed in cell.missing]
    if missing:
        more = f" and {len(missing) - 12} more" if len(missing) > 12 else ""
        problems.append(f"not finished: {', '.join(missing[:12])}{more}")
    return problems


def _facts(swept: Sweep, cells: list[Cell]) -> list[tuple[str, str]]:
    trained = [each for cell in cells for each in cell.trained]
    data = []
    for cell in cells:
        if cell.trained:
            first = cell.trained[0]
            shape = first.manifest["dataset"].get("image_shape", ["?"])
            tested = f"{len(cell.predicted[0].own)} test images, " if cell.predicted else ""
            about = f"{first.result['task']}, {tested}{' x '.join(map(str, shape))}"
            data.append(f"{dataset_title(cell)}: {about}")
    not_paper = "" if swept.scale == "paper" else ", not the paper's protocol"
    expected = len(cells) * len(swept.seeds)
    facts = [
        ("Sweep", f"{swept.name}, scale {swept.scale}{not_paper}"),
        ("Data", "; ".join(dict.fromkeys(data)) or "nothing is finished yet"),
        (
            "Seeds",
            f"{', '.join(map(str, swept.seeds))}; {len(trained)} of {expected} runs finished",
        ),
    ]
    if swept.overrides:
        given = ", ".join(f"{name} = {value}" for name, value in swept.overrides.items())
        facts.append(("Overrides", given))
    if trained:
        facts += [
            (title, _tally(" then ".join(dict.fromkeys(map(of, t.environments))) for t in trained))
            for title, of in (("Devices", _device), ("Versions", _versions), ("Code", _revision))
        ]
    return [*facts, ("Date", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}")]


def _device(environment: dict) -> str:
    device, kind = environment.get("device", "?"), environment.get("device_kind", "?")
    cores = f", {environment.get('usable_cores', '?')} cores" if device == "cpu" else ""
    return f"{environment.get('device_count', '?')} x {kind}{cores}"


def _versions(environment: dict) -> str:
    packages = environment.get("packages", {})
    named = [f"{name} {version}" for name, version in packages.items()]
    return ", ".join([f"Python {environment.get('python', '?')}", *named])


def _revision(environment: dict) -> str:
    revision = environment.get("revision")
    changed = ", with changes" if environment.get("modified") else ""
    return f"{revision[:12]}{changed}" if revision else "unknown revision"


def _tally(values: Iterable[str]) -> str:
    counts = collections.Counter(values)
    if len(counts) == 1:
        return next(iter(counts))
    runs = lambda count: "1 run" if count == 1 else f"{count} runs"
    return "; ".join(f"{value} ({runs(count)})" for value, count in counts.most_common())


# ------------------------------------------------------------------------------ files


def to_markdown(report: Report) -> str:
    """The report as a Markdown page."""
    parts = [f"# {report.title}", *(f"> **{warning}**" for warning in report.warnings)]
    parts.append("\n".join(f"- {name}: {text}" for name, text in report.facts))
    for table in report.tables:
        parts.append(f"## {table.title}\n\n{markdown(table)}")
        if table is report.tables[0] and report.problems:
            parts.append("\n".join(f"- {problem}" for problem in report.problems))
    parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in report.notes))
    return "\n\n".join(parts) + "\n"


def to_csv(report: Report) -> tuple[str, str]:
    """A row per run and seed, and a row per run; scores in percent."""
    runs, summary = [], []
    for cell in report.cells:
        row = row_of(cell) | {"run": cell.run.name, "dataset": cell.dataset}
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
            for name, of in (("acc", found.acc), ("auc", found.auc)):
                values = {"difference": of.difference, "low": of.low, "high": of.high}
                row |= {f"{name}_{key}": value for key, value in values.items()}
            row["difference_seeds"] = " ".join(map(str, found.seeds))
            if found.delong:
                row["delong_p"] = statistics.majority_p_value(found.delong)
                row["delong_p_of_seeds"] = " ".join(f"{t.p_value:.6g}" for t in found.delong)
        summary.append(row)
    return _csv_text(runs), _csv_text(summary)


def _csv_text(rows: list[dict]) -> str:
    stream = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        undefined = lambda v: isinstance(v, float) and math.isnan(v)
        short = lambda v: f"{v:.8g}" if isinstance(v, float) else v
        writer.writerow({k: short(v) for k, v in row.items() if not undefined(v)})
    return stream.getvalue()


def write(report: Report, output: pathlib.Path, formats: Sequence[str]) -> list[pathlib.Path]:
    """Write a report's files, each whole or not at all.

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
        if any(cell.run.baseline is not None for cell in report.cells):
            contents[f"{report.name}_differences.tex"] = latex(report.tables[1], report.title)
    draw = {"figure2": _figure2, "label_efficiency": _label_efficiency}.get(report.name)
    picture = draw(report) if draw else None
    if picture is not None:
        from lsanet_jax.report import figures

        contents[f"{report.name}.png"] = figures.png(picture.figure)
    if "html" in formats:
        from lsanet_jax.report import sweep_page  # matplotlib, which is slow to import

        contents[f"{report.name}.html"] = sweep_page.render(report, picture)
    try:
        output.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            data = content if isinstance(content, bytes) else content.encode()
            with replacing(output / name) as temporary:
                temporary.write_bytes(data)
    except OSError as error:
        raise WorkdirError(f"cannot write to --output={output}: {error}") from error
    return [output / name for name in contents]


def _figure2(report: Report):
    """The paper's Figure 2; None where no run has the curves for it."""
    from lsanet_jax.report import figures

    found = {"without DSL": {}, "with DSL": {}}
    for cell in report.cells:
        curves = results.curves(cell, results.train_curve("acc"))
        training = cell.run.row.get("Training")
        if curves and training in found:
            percent = {stage: 100 * values for stage, values in curves.items()}
            found[training][dataset_title(cell)] = percent
    if not any(found.values()):
        return None
    label = "Training accuracy of each classifier by epoch, without and with deep supervision"
    return figures.Picture("Figure 2", label, figures.figure2(*found.values(), report.title))


def _label_efficiency(report: Report):
    """Scores by the share of labels; None where no run is finished."""
    from lsanet_jax.report import figures

    found = {"ACC": {}, "AUC": {}}
    for cell in report.cells:
        method = ", ".join(text for title, text in cell.run.row.items() if title != "Labels")
        for score, methods in found.items():
            if scores := cell.percent("test", score.lower()):
                percent = 100 * cell.config.data.train_fraction
                methods.setdefault(method, {})[percent] = scores
    if not found["ACC"]:
        return None
    label = "ACC and AUC of each method by the share of labels"
    figure = figures.label_efficiency(found, report.title)
    return figures.Picture("Scores by labels", label, figure)
