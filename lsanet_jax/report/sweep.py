"""The report of a sweep: the paper's table beside its runs, with intervals, and their details."""

import collections
import datetime
import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from lsanet_jax.config import default_config, flatten
from lsanet_jax.report import folds, results, templates, words
from lsanet_jax.report import tables as report_tables
from lsanet_jax.report.results import Cell, Comparison
from lsanet_jax.report.tables import Table, dataset_title
from lsanet_jax.runs.layout import PREDICTIONS, SEAL
from lsanet_jax.sweeps.spec import Sweep

# The fields of the paper's protocol (Section 4.1). Their defaults are the paper's values.
PROTOCOL = (
    "data.image_size",
    "data.train_fraction",
    "data.train_per_class",
    "train.epochs",
    "train.batch_size",
    "train.optimizer",
    "train.learning_rate",
)


class Report(NamedTuple):
    """The contents of a report, in their order."""

    name: str
    title: str
    warnings: list[str]
    facts: list[tuple[str, str]]
    tables: list[Table]
    notes: list[str]
    problems: list[str]
    cells: list[Cell]
    comparisons: dict[str, Comparison]  # by the run's name
    verdicts: list[words.Verdict]  # of compare
    words: list[str]  # paragraphs
    joined: list[folds.Joined]  # of a cross-validation


def make(swept: Sweep, workdir: str | pathlib.Path, *, resamples: int = 2000) -> Report:
    """Read the finished runs of a sweep, and compare them.

    Args:
        swept: the sweep.
        workdir: of the sweep.
        resamples: of each bootstrap.

    Raises:
        WorkdirError: a file is damaged or does not fit the others; it is named.
    """
    cells = results.collect(swept, workdir)
    by_name = {cell.run.name: cell for cell in cells}
    comparisons = {}
    joined = folds.join(cells)  # whose folds are not compared one by one
    for cell in cells:
        if cell.run.baseline is not None and cell.run.fold_of is None:
            found = results.compare(cell, by_name[cell.run.baseline], resamples=resamples)
            if found is not None:
                comparisons[cell.run.name] = found
    tables = [folds.table(joined)] if joined else []
    tables.append(report_tables.main_table(cells))
    if any(cell.run.baseline is not None and cell.run.fold_of is None for cell in cells):
        tables.append(report_tables.differences(cells, comparisons))
    verdicts = words.verdicts_on(cells, comparisons, joined) if swept.name == "compare" else []
    if verdicts:
        tables.append(words.table(verdicts))
    tables += [*report_tables.per_class(cells), report_tables.epochs(cells)]
    trained = [each for cell in cells for each in cell.trained]
    old = [each.job.name for each in trained if each.predictions is None]
    unsealed = [each.job.name for each in trained if each.looks is None]
    texts = {"sweep": True, "fold": joined, "compare": verdicts}
    notes = [
        " ".join(note.split())
        for about, there in texts.items()
        if there
        for note in templates.read(f"{about}_notes.txt").split("\n\n")
    ]
    if unsealed:
        which = "all runs" if len(unsealed) == len(trained) else ", ".join(unsealed)
        notes.append(f"No {SEAL}, as in runs of earlier versions, so not checked: {which}.")
    if old:
        notes.append(f"No {PREDICTIONS}, so no intervals and no calibration: {', '.join(old)}.")
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
        verdicts=verdicts,
        words=words.of(swept.name, cells, verdicts, joined),
        joined=joined,
    )


# ------------------------------------------------------------------------------ what was run


def _warnings(cells: list[Cell]) -> list[str]:
    others = dict.fromkeys(dataset_title(c) for c in cells if "(paper: " in dataset_title(c))
    warnings = [f"Not the paper's data: {', '.join(others)}."] if others else []
    changed = []
    papers, fields = dict(flatten(default_config())), [dict(flatten(c.config)) for c in cells]
    for name in PROTOCOL:
        values = dict.fromkeys(each[name] for each in fields)
        if papers[name] not in values:  # else the sweep is about the field
            changed += [f"{name} = {value} (paper: {papers[name]})" for value in values]
    small = [cell for cell in cells if cell.config.model.stem == "small"]
    if small:
        backbones = ", ".join(dict.fromkeys(cell.config.model.backbone for cell in small))
        which = "" if len(small) == len(cells) else f" of {backbones}"
        changed.append(f"model.stem{which} = small (paper: imagenet)")
    if changed:
        warnings.append(f"Not the paper's protocol: {', '.join(changed)}.")
    if warnings and any((cell.run.paper or {}).get("acc") for cell in cells):
        warnings.append("Compare the order of the rows with the paper's numbers, not their level.")
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
        more = f" and {len(missing) - 12} others" if len(missing) > 12 else ""
        problems.append(f"not finished: {', '.join(missing[:12])}{more}")
    return problems


def _facts(swept: Sweep, cells: list[Cell]) -> list[tuple[str, str]]:
    trained = [each for cell in cells for each in cell.trained]
    data = []
    for cell in cells:
        if cell.trained:
            first = cell.trained[0]
            shape = first.manifest["dataset"].get("image_shape", ["?"])
            tested = _tested(cell.predicted[0]) if cell.predicted else ""
            about = f"{first.result['task']}, {tested}{' x '.join(map(str, shape))}"
            data.append(f"{dataset_title(cell)}: {about}")
    not_paper = "" if swept.scale == "paper" else ", not the paper's protocol"
    expected = len(cells) * len(swept.seeds)
    facts = [
        ("Sweep", f"{swept.name}, scale {swept.scale}{not_paper}"),
        ("Data", "; ".join(dict.fromkeys(data)) or "no run is finished yet"),
        (
            "Seeds",
            f"{', '.join(map(str, swept.seeds))}; {len(trained)} of {expected} runs finished",
        ),
    ]
    if swept.overrides:
        given = ", ".join(f"{name} = {value}" for name, value in swept.overrides.items())
        facts.append(("Overrides", given))
    looks = [each.looks for each in trained if each.looks is not None]
    if looks:
        times = f"{sum(looks)} times in {len(looks)} run{'' if len(looks) == 1 else 's'}"
        selects = "no epoch" if swept.name == "compare" else "nothing"  # words name a method
        facts.append(("Test split", f"evaluated {times}, after training; it selects {selects}"))
    if trained:
        facts += [
            (title, _tally(" then ".join(dict.fromkeys(map(of, t.environments))) for t in trained))
            for title, of in (("Devices", _device), ("Versions", _versions), ("Code", _revision))
        ]
    return [*facts, ("Date", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}")]


def _tested(each: results.Trained) -> str:
    unknown, labels = int((each.labels < 0).sum()), each.labels.size
    left_out = f"{unknown} of their {labels} labels unknown and in no score, " if unknown else ""
    return f"{len(each.labels)} test images, {left_out}"


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
