"""The page of a run, in the order of CLAIM, the checklist for reports on AI in medical imaging.

Reference: Mongan, Moy and Kahn, "Checklist for artificial intelligence in medical imaging (CLAIM)",
Radiology: Artificial Intelligence 2020; its items are quoted by number.
"""

import collections
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lsanet_jax import metrics
from lsanet_jax.config import FIELDS, flatten
from lsanet_jax.data.dataset import SPLITS
from lsanet_jax.errors import LSANetError
from lsanet_jax.evaluation import (
    calibration,
    conformal,
    decisions,
    doubt,
    resampling,
    small_samples,
    statistics,
    subgroups,
    thresholds,
)
from lsanet_jax.evaluation.resampling import Score
from lsanet_jax.report import figures, page, pictures, templates
from lsanet_jax.report.page import text
from lsanet_jax.report.run import Finished, class_counts
from lsanet_jax.report.tables import NONE, Entry, Table

_MANY = 12  # Classes above which a plot has no legend of them.


def render(found: Finished, *, with_pictures: bool = True) -> str:
    """Render the page.

    Args:
        found: the run.
        with_pictures: show mistakes and doubtful images, with heat maps.
    """
    sections: list[tuple[str, str, Callable[[Finished], Iterator[str]]]] = [
        ("Data", "7, 9, 20, 21, 33", _data),
        ("Model", "22, 23, 24", _model),
        ("Training", "25, 26", _training),
        ("How the scores were made", "28, 29", _method),
        ("Scores on the test split", "35", _scores),
        ("Each class", "35, 36", _classes),
        ("Calibration", "36", _calibration),
        ("Operating points", "36", _operating_points),
        ("Prediction sets", "36", _sets),
        ("Doubt", "36", _doubt),
        ("What each stage knew", "31", _stages),
    ]
    if found.columns:
        sections.append(("Subgroups", "30, 34", _subgroups))
    if with_pictures and found.dataset is not None:
        sections.append(("Mistakes and doubtful images", "31, 37", pictures.section))
    sections.append(("What only its authors can say", "", _left))
    main = []
    for title, items, write in sections:
        quoted = f' <span class="items">CLAIM {items}</span>' if items else ""
        main.append(f"<h2>{text(title)}{quoted}</h2>")
        try:
            main += list(write(found))
        except LSANetError as error:
            main.append(f'<p class="small">This part could not be made: {text(error)}</p>')
    title = f"{found.result['dataset']}: {found.result['backbone']}, {found.result['objective']}"
    return page.render(title, warnings=found.problems, facts=_facts(found), main=main)


def _facts(found: Finished) -> list[tuple[str, str]]:
    result = found.result
    environment = found.manifest.get("environment", {})
    return [
        ("Run", found.path.name),
        ("Task", f"{found.task}, {len(found.names)} classes"),
        ("Test split", f"{len(found.test.labels)} images"),
        ("AUC, ACC", f"{_percent(result['test']['auc'])} %, {_percent(result['test']['acc'])} %"),
        ("Selected", f"epoch {result['best_epoch']} ({result['selected']}), seed {result['seed']}"),
        ("Software", f"lsanet_jax, jax {environment.get('packages', {}).get('jax', '?')}"),
    ]


# ------------------------------------------------------------------------------ data and training


def _data(found: Finished) -> Iterator[str]:
    about, data = found.manifest["dataset"], found.config.data
    shape = " x ".join(map(str, about.get("stored_shape", "?")))
    yield _definitions(
        ("Set", f"{about['name']} ({data.name})"),
        ("SHA-256 of its images and labels", about.get("fingerprint", NONE)),
        ("Stored images", f"{shape}, 8 bits"),
        (
            "Seen by the network",
            (
                f"{' x '.join(map(str, about['image_shape']))}, resized by {data.resize}, minus "
                f"{_plain(data.mean)}, divided by {_plain(data.std)}"
            ),
        ),
        *[("Decoding", ", ".join(f"{k} {v}" for k, v in about.get("decoding", {}).items()))]
        * ("decoding" in about),
        ("Patients or other groups", _groups(found)),
    )
    if (counts := class_counts(found)) is not None:
        rows = [[Entry(name), *(Entry(str(n)) for n in of)] for name, of in counts]
        assert found.dataset is not None  # There are counts of it.
        sizes = [len(found.dataset.split(split)) for split in SPLITS]
        rows.append([Entry("images"), *(Entry(str(n)) for n in sizes)])
        yield page.table(
            Table("Images of each class", ["class"], ["training", "validation", "test"], rows)
        )


def _groups(found: Finished) -> str:
    if not len(found.groups):
        if found.dataset is None:
            return "unknown: the data cannot be read"
        return "unknown: images were drawn one by one, and so are the intervals below"
    in_test = f"{len(set(found.groups))} in the test split"
    if found.dataset is None:
        return f"{in_test}; whether they are in other splits too is unknown without the data"
    of_splits = (set(found.dataset.split(split).groups) for split in SPLITS)
    times = collections.Counter(group for of in of_splits for group in of)
    torn = sum(count > 1 for count in times.values())
    if torn:
        return f"{in_test}; {torn} of all ARE IN SEVERAL SPLITS, so the scores may be too good"
    return f"{in_test}; none is in two splits"


def _model(found: Finished) -> Iterator[str]:
    model, environment = found.config.model, found.manifest.get("environment", {})
    packages = environment.get("packages", {})
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    revision = str(environment.get("revision") or NONE)
    yield _definitions(
        ("Backbone", f"{model.backbone}, stem {model.stem}, attention {model.attention}"),
        ("Objective", f"{model.objective}; classifiers at stages {_plain(found.stages)}"),
        ("Start", model.init_from or f"random, seed {found.config.seed}"),
        ("Software", f"Python {environment.get('python', '?')}, {versions}"),
        ("Machine", f"{environment.get('device_count', '?')} {environment.get('device', '?')}"),
        ("Source revision", f"{revision}, changed" if environment.get("modified") else revision),
        *[
            ("Resumed where", ", ".join(_what_differs(environment, other)))
            for other in found.resumed
        ],
    )


def _what_differs(before: dict, after: dict) -> Iterator[str]:
    """The fields of an environment that differ from those of another, with their values."""
    for name, value in after.items():
        was = before.get(name)
        if isinstance(value, dict) and isinstance(was, dict):
            yield from _what_differs(was, value)
        elif value != was:
            yield f"{name} {value}"


def _training(found: Finished) -> Iterator[str]:
    rate = found.result["images_per_second"]
    yield _definitions(
        ("Epochs", f"{len(found.epochs)}, {found.result['seconds'] / 60:.1f} minutes"),
        ("Images per second", f"{rate:.0f}" if rate else NONE),
        ("Selection", f"{found.result['selected']}: epoch {found.result['best_epoch']}"),
    )
    plots = []
    for caption, axis, name, where, factor in (
        ("Training accuracy", "accuracy, %", "acc", "train", 100),
        ("Validation AUC", "AUC, %", "auc", "val", 100),
        ("Weight of each classifier (beta)", "beta", "beta", "train", 1),
    ):
        curves = _curves(found, name, where, factor)
        if curves:
            last = ", ".join(f"C{stage} {x[0, -1]:.3g}" for stage, x in curves.items())
            label = f"{caption} by epoch; at the last one {last}"
            plots.append(page.figure(figures.curves(curves, axis), label, name + where, caption))
    yield f'<div class="plots">{"".join(plots)}</div>'
    fields = dict(flatten(found.config))
    changed = [
        [Entry(name), Entry(str(fields[name]))]
        for name, field in FIELDS.items()
        if name in fields and fields[name] != field.default
    ]
    yield "<details><summary>Fields of the config that differ from their defaults</summary>"
    yield page.table(Table("Changed fields", ["field"], ["value"], changed)) + "</details>"


def _curves(found: Finished, name: str, where: str, factor: float) -> dict[int, np.ndarray]:
    curves = {}
    for i, stage in enumerate(found.stages):
        try:
            values = [
                line["train"][f"{name}_stage{stage}"]
                if where == "train"
                else line["val"]["classifiers"][i][name]
                for line in found.epochs
            ]
        except (KeyError, IndexError, TypeError):
            continue
        if values:
            curves[stage] = factor * np.array([values], np.float64)
    return curves


# ----------------------------------------------------------------------------------------- scores


def _method(found: Finished) -> Iterator[str]:
    looks = found.result.get("test_looks")
    drawn = "patients (all images of one together)" if found.draws.grouped else "images"
    rule = found.calibration.rule if found.calibration is not None else thresholds.YOUDEN
    yield templates.paragraphs(
        "run_method.txt",
        drawn=drawn,
        resamples=str(len(found.draws.counts)),
        looks=f"{looks} times"
        if looks
        else "at the end of training only, for the last and the selected epoch",
        rule=str(rule),
    )


def _scores(found: Finished) -> Iterator[str]:
    labels, task, rows = found.test.labels, found.task, []
    auc = resampling.auc(labels, found.raw, task, found.draws)
    acc = resampling.accuracy(labels, found.answer, task, found.draws)
    rows.append(("AUC, %", _interval(auc)))
    rows.append(("Accuracy, %", _interval(acc)))
    recalls = [x[0] for x in _recall_and_precision(found)]
    defined = [score.value for score in recalls if not math.isnan(score.value)]
    rows.append(
        ("Mean recall of the classes, %", _percent(float(np.mean(defined)) if defined else None))
    )
    rows.append(("Cross entropy of what decides, nats", f"{_entropy(found, found.answer):.3f}"))
    yield page.table(
        Table("Scores", ["score"], ["value [95 %]"], [[Entry(a), Entry(b)] for a, b in rows])
    )


def _entropy(found: Finished, probabilities: np.ndarray) -> float:
    return calibration.cross_entropy(found.test.labels, probabilities, found.task)


def _recall_and_precision(found: Finished) -> list[tuple[Score, Score]]:
    """Of each class, with the label as `metrics.right` predicts it."""
    labels, p, task = found.test.labels, found.answer, found.task
    if task == "multi-label":
        predicted = p > 0.5
    elif task == "binary-class":
        predicted = (p[:, 1] > 0.5)[:, None] == np.arange(2)
    else:
        predicted = p.argmax(axis=1)[:, None] == np.arange(p.shape[1])
    scores = []
    for k in range(p.shape[1]):
        truth, known, _ = resampling.one_class(labels, p, k)
        hits, said = truth & predicted[:, k], predicted[:, k] & known
        scores.append(
            (
                _proportion(found, hits, truth),
                _proportion(found, hits, said),
            )
        )
    return scores


def _classes(found: Finished) -> Iterator[str]:
    labels, p, rows = found.test.labels, found.raw, []
    roc, recall_precision = {}, {}
    for k, (recall, precision) in enumerate(_recall_and_precision(found)):
        truth, known, scores = resampling.one_class(labels, p, k)
        auc = resampling.auc_of_class(labels, p, k, found.draws)
        average = math.nan
        if k in decisions.positives(found.task, len(found.names)) and 0 < truth.sum() < known.sum():
            curve = thresholds.curve(truth[known], scores[known])
            average = thresholds.average_precision(curve)
            roc[found.names[k]] = (1 - curve.specificity, curve.sensitivity)
            recall_precision[found.names[k]] = (curve.sensitivity[1:], curve.precision[1:])
        texts = (str(int(truth.sum())), *map(_interval, (recall, precision, auc)))
        rows.append([Entry(found.names[k]), *map(Entry, texts), Entry(_percent(average))])
    columns = ["images", "recall [95 %]", "precision [95 %]", "AUC [95 %]", "average precision"]
    yield page.table(Table("Each class, in percent", ["class"], columns, rows))
    plots = []
    for caption, curves, axes, diagonal in (
        ("ROC", roc, ("1 - specificity", "sensitivity"), True),
        ("Precision and recall", recall_precision, ("recall", "precision"), False),
    ):
        if curves:
            drawn = figures.lines(curves, *axes, diagonal=diagonal, legend=len(curves) <= _MANY)
            label = f"{caption} of {len(curves)} class(es); the table above has the areas"
            plots.append(page.figure(drawn, label, f"curves{len(plots)}", caption))
    if found.task != "multi-label":
        counts = statistics.confusion_matrix(labels, p, found.task)
        label = "; ".join(
            f"{name}: {counts[i, i]} of {counts[i].sum()} right"
            for i, name in enumerate(found.names)
        )
        drawn = figures.confusion(counts, found.names)
        caption = "Confusion, % of each true class"
        plots.append(page.figure(drawn, f"Confusion matrix. {label}", "confusion", caption))
    yield f'<div class="plots">{"".join(plots)}</div>'


def _calibration(found: Finished) -> Iterator[str]:
    labels, plots, rows = found.test.labels, [], []
    both = [("as the network gives them", found.raw)]
    if found.calibration is not None:
        both.append(("calibrated", found.answer))
    for i, (name, p) in enumerate(both):
        error = calibration.calibration_error(labels, p)
        numbers = _percent(error), f"{_entropy(found, p):.3f}"
        rows.append([Entry(name), *map(Entry, numbers)])
        drawn = figures.reliability(calibration.reliability(labels, p))
        label = f"Reliability of the probabilities {name}: calibration error {_percent(error)} %"
        caption = f"Reliability, {name}"
        plots.append(page.figure(drawn, label, f"reliability{i}", caption))
    yield page.table(
        Table("Calibration", ["probabilities"], ["ECE, % (15 bins)", "cross entropy, nats"], rows)
    )
    if found.calibration is not None:
        temperatures = found.calibration.temperatures[-1]
        of = found.names if found.task == "multi-label" else ("all classes",)
        pairs = zip(of, temperatures, strict=True)
        values = ", ".join(f"{name} {value:.2f}" for name, value in pairs)
        yield (
            f'<p class="small">Temperature, from {found.calibration.images} validation images: '
            f"{text(values)}. Above 1: the network was overconfident.</p>"
        )
        yield _notes(found.calibration.notes)
    yield f'<div class="plots two">{"".join(plots)}</div>'


def _operating_points(found: Finished) -> Iterator[str]:
    if found.calibration is None:
        yield '<p class="small">The run is not calibrated.</p>'
        return
    rows, p = [], found.answer
    pairs = zip(found.calibration.positives, found.calibration.points, strict=True)
    for k, point in pairs:
        truth, known, scores = resampling.one_class(found.test.labels, p, k)
        row = [f"{point.threshold:.3g}", _percent(point.sensitivity), _percent(point.specificity)]
        if math.isnan(point.threshold):
            row = [NONE] * 7
        else:
            yes, no = (scores >= point.threshold) & known, (scores < point.threshold) & known
            for hits, of in (
                (yes & truth, truth),
                (no & ~truth, ~truth & known),
                (yes & truth, yes),
                (no & ~truth, no),
            ):
                row.append(_interval(_proportion(found, hits, of)))
        rows.append([Entry(found.names[k]), *map(Entry, row)])
    columns = ["threshold", *["sensitivity", "specificity"] * 2, "positive p. v.", "negative p. v."]
    yield page.table(
        Table(
            "Operating points, in percent",
            ["class"],
            columns,
            rows,
            groups=[("", 1), ("validation", 2), ("test [95 %]", 4)],
        )
    )


def _proportion(found: Finished, hits: np.ndarray, of: np.ndarray) -> Score:
    """A proportion: by patients if these are known, else by Wilson, which small counts need."""
    if found.draws.grouped:
        value, *ends = resampling.ratio(hits, of, found.draws)
        patients = len(np.unique(np.asarray(found.groups)[of]))
        low, high = small_samples.proportion_interval(
            value, (ends[0], ends[1]), patients, int(of.sum())
        )
        return Score(value, low, high)
    n, count = int(of.sum()), int((hits & of).sum())
    return Score(count / n if n else math.nan, *small_samples.wilson(count, n))


def _sets(found: Finished) -> Iterator[str]:
    fitted = found.calibration
    if fitted is None:
        yield '<p class="small">The run is not calibrated.</p>'
        return
    labels, inside = found.test.labels, conformal.members(fitted.sets, found.answer)
    rows = []
    for k, name in enumerate(found.names):
        for value, what in ((0, " absent"), (1, " present")) if labels.ndim == 2 else ((k, ""),):
            of = labels[:, k] == value if labels.ndim == 2 else labels == k
            covered = inside[:, k, value] if labels.ndim == 2 else inside[:, k]
            rare = fitted.sets.rare[k, value] if labels.ndim == 2 else fitted.sets.rare[k]
            promise = "nothing: too rare" if rare else _percent(fitted.coverage)
            row = (promise, str(int(of.sum())), _interval(_proportion(found, covered & of, of)))
            rows.append([Entry(name + what), *map(Entry, row)])
    columns = ["promised", "test images", "covered [95 %]"]
    yield page.table(Table("Sets that hold the true class, in percent", ["class"], columns, rows))
    if labels.ndim == 1:
        of = conformal.coverage(labels, inside)
        yield (
            f'<p class="small">Over all classes {_percent(of.overall)} % of the sets hold the true '
            f"class. They have {of.mean_size:.2f} classes on average; {_percent(of.single)} % have "
            f"one, {_percent(of.empty)} % none.</p>"
        )


def _doubt(found: Finished) -> Iterator[str]:
    wrong = doubt.errors(found.test.labels, found.answer, found.task)
    joint = doubt.doubt(found.answer, found.votes, found.test.beta, found.task)
    single = doubt.doubt(found.raw, found.raw[None], None, found.task)
    curves, areas = {}, []
    coverage = np.arange(1, len(wrong) + 1) / len(wrong) * 100
    for name, values in (("doubt", joint), ("1 - confidence of the network", single)):
        risk = doubt.risk_coverage(wrong, values)
        curves[name] = (coverage, 100 * risk)
        areas.append([Entry(name), Entry(f"{100 * risk.mean():.2f}")])
    yield page.table(Table("Error, in percent", ["sorted by"], ["mean over all coverages"], areas))
    if len(found.votes) > 1:
        value, low, high = doubt.area_difference(wrong, joint, single, found.draws)
        verdict = (
            "The doubt sorts out mistakes better than"
            if low > 0
            else "The doubt sorts out mistakes worse than"
            if high < 0
            else "It is not certain whether the doubt sorts out mistakes better or worse than"
        )
        yield (
            f'<p class="small">{verdict} the confidence of the network does: difference '
            f"{100 * value:.2f} [{100 * low:.2f}, {100 * high:.2f}] percentage points.</p>"
        )
    drawn = figures.lines(curves, "images kept, least doubtful first, %", "error, %", unit=False)
    label = "Error by the share of images kept; the table above has the means"
    yield f'<div class="half">{page.figure(drawn, label, "risk")}</div>'


def _stages(found: Finished) -> Iterator[str]:
    labels, rows = found.test.labels, []
    beta = None if found.test.beta is None else found.test.beta.mean(axis=0)
    for i, (stage, p) in enumerate(zip(found.stages, found.test.probabilities, strict=True)):
        row = [_percent(metrics.auc(labels, p, found.task))]
        row.append(_percent(metrics.accuracy(labels, p, found.task)))
        row.append(_percent(calibration.calibration_error(labels, p)))
        row.append(NONE if beta is None else f"{beta[i]:.3f}")
        own = " (the network's own)" if i == len(found.stages) - 1 else ""
        rows.append([Entry(f"stage {stage}{own}"), *map(Entry, row)])
    columns = ["AUC, %", "ACC, %", "ECE, %, uncalibrated", "mean beta"]
    yield page.table(Table("Classifiers", ["classifier"], columns, rows))


def _subgroups(found: Finished) -> Iterator[str]:
    labels, raw, task = found.test.labels, found.raw, found.task
    for column, values in found.columns.items():
        rows = []
        for each in subgroups.compare(
            labels, raw, task, values, found.groups, class_names=found.names
        ):
            numbers = map(_interval, (each.auc, each.auc_difference, each.acc, each.acc_difference))
            row = [str(each.size), *numbers, each.note]
            rows.append([Entry(each.value), *map(Entry, row)])
        columns = [
            "images",
            "AUC [95 %]",
            "minus the rest",
            "ACC [95 %]",
            "minus the rest",
            "remark",
        ]
        yield page.table(Table(f"By {column}, in percent", [column], columns, rows))
    yield '<p class="small">Intervals are not corrected for the number of subgroups.</p>'


def _left(found: Finished) -> Iterator[str]:
    yield templates.paragraphs("run_left.txt")


# ------------------------------------------------------------------------------------------- text


def _definitions(*pairs: tuple[str, str]) -> str:
    rows = "".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs)
    return f"<dl>{rows}</dl>"


def _notes(notes: Sequence[str]) -> str:
    items = "".join(f"<li>{text(note)}</li>" for note in notes)
    return f'<ul class="small gap">{items}</ul>' if notes else ""


def _plain(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))


def _percent(value: float | None) -> str:
    return NONE if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _interval(score: Score) -> str:
    if math.isnan(score.value) or math.isnan(score.low):
        return _percent(score.value)
    return f"{_percent(score.value)} [{_percent(score.low)}, {_percent(score.high)}]"
