"""Plots of runs with matplotlib, as PNG or as SVG for an HTML page.

Curves belong to classifiers, by stage from shallow to deep; the last is the network's own.
"""

import io
import re
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from xml.etree import ElementTree

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, NullLocator
from matplotlib.typing import LineStyleType

from lsanet_jax.evaluation.learning_curve import LearningCurve
from lsanet_jax.evaluation.statistics import Reliability

# Light and dark. SVG refers to them by name, so that the page can choose; PNG is light. The stages'
# colours also differ in lightness, for those who cannot tell the hues apart.
COLOURS = {
    "ink": ("#1b1f24", "#e4e7eb"),
    "quiet": ("#6a737d", "#98a1ab"),
    "line": ("#d8dce1", "#3a4048"),
    "blue": ("#2f7ec2", "#5fa8e6"),
    "orange": ("#c9700a", "#e9a13b"),
    "green": ("#0a7d5a", "#2fbd8f"),
    "purple": ("#8a4fa8", "#bd8ad8"),
}
_LIGHT = {name: light for name, (light, _) in COLOURS.items()}
INK, QUIET, LINE, BLUE = (_LIGHT[name] for name in ("ink", "quiet", "line", "blue"))
_AUXILIARY = [_LIGHT[name] for name in ("blue", "orange", "green", "purple")]
_METHODS = [_LIGHT[name] for name in ("quiet", "blue", "orange", "ink", "green", "purple")]
# Without and with deep supervision, in Figure 2. A loop over both loses the type of either.
_WITHOUT: Any = "-"
_WITH: Any = (0, (3, 1.5))
_DASHES = ((0, (1.5, 1)), (0, (4, 1, 1, 1)), (0, (4, 1)), (0, (6, 1, 1, 1, 1, 1)))

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_STYLE: dict[Any, Any] = {  # matplotlib lists every key that it knows as its type
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": LINE,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,  # A class may be called $5.
    "legend.frameon": False,
    "legend.fontsize": 7,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.1,
    "lines.solid_capstyle": "round",
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "xtick.bottom": False,
    "ytick.left": False,
    "figure.constrained_layout.use": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "lsanet",
    "path.simplify_threshold": 0.2,
}

Curves = Mapping[int, Float[np.ndarray, "seeds epochs"]]


class Difference(NamedTuple):
    """A run against its baseline in percentage points; nan if unknown."""

    label: str
    difference: float
    low: float
    high: float
    paper: float


class Picture(NamedTuple):
    """The figure that a sweep is for, such as the paper's Figure 2."""

    title: str  # of its section in a page
    label: str  # what it shows, for those who do not see it
    figure: Figure


def curves(found: Curves, ylabel: str) -> Figure:
    """Draw a line for each classifier: the mean over the seeds, in a band of their range."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.4, 2.5))
        axes = figure.subplots()
        _draw_curves(axes, found, dashes=_DASHES)
        axes.set(xlabel="epoch", ylabel=ylabel)
        _legend_above(axes, len(found))
    return figure


def reliability(found: Reliability) -> Figure:
    """Draw accuracy by confidence beside the diagonal, and the share of predictions in each bin."""
    counts, _, accuracy = found
    width = 1 / len(counts)
    centres = (np.arange(len(counts)) + 0.5) * width
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.4, 2.8))
        above, axes = figure.subplots(2, sharex=True, height_ratios=(1, 4))
        above.bar(centres, counts / counts.sum() * 100, width * 0.86, color=QUIET, alpha=0.6)
        above.set(ylabel="share %", ylim=(0, None))
        above.yaxis.set_major_locator(MaxNLocator(2))
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=(0, (4, 2)))
        some = counts > 0
        axes.bar(centres[some], accuracy[some], width * 0.86, color=BLUE, alpha=0.75)
        axes.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    return figure


def confusion(counts: np.ndarray, class_names: Sequence[str]) -> Figure:
    """Draw the share of each class (row) that is predicted as each class (column), in percent."""
    with np.errstate(invalid="ignore"):  # a class without samples
        shares = counts / counts.sum(axis=1, keepdims=True)
    k = len(counts)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.4, max(1.8, 0.6 + 0.27 * k)))
        axes = figure.subplots()
        for i, j in np.ndindex(shares.shape):
            if not shares[i, j] > 0.005:
                continue
            # The ink stays legible on the fullest colour, in light and dark.
            axes.add_patch(
                Rectangle(
                    (j + 0.03, i + 0.03), 0.94, 0.94, color=BLUE, alpha=0.6 * shares[i, j], lw=0
                )
            )
            axes.text(
                j + 0.5, i + 0.53, f"{100 * shares[i, j]:.0f}", ha="center", va="center", size=7
            )
        numbers = [str(i + 1) for i in range(k)]
        names = [f"{_short(str(name))}  {i}" for name, i in zip(class_names, numbers, strict=True)]
        axes.set(xlim=(0, k), ylim=(k, 0), xlabel="predicted")
        axes.set_xticks(np.arange(k) + 0.5, numbers)
        axes.set_yticks(np.arange(k) + 0.5, names)
        axes.grid(False)
        axes.spines[:].set_visible(False)
    return figure


def lines(
    found: Mapping[str, tuple[np.ndarray, np.ndarray]],
    xlabel: str,
    ylabel: str,
    *,
    diagonal: bool = False,
    legend: bool = True,
    unit: bool = True,
) -> Figure:
    """Draw named curves.

    Args:
        found: x and y of each.
        xlabel: of the axis.
        ylabel: of the axis.
        diagonal: draw it, too.
        legend: name the curves.
        unit: both axes reach from 0 to 1.
    """
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(3.4, 2.8))
        axes = figure.subplots()
        if diagonal:
            axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle=(0, (4, 2)))
        for i, (name, (x, y)) in enumerate(found.items()):
            style: Any = ("-", *_DASHES)[i // len(_METHODS) % (1 + len(_DASHES))]
            colour = _METHODS[(i + 1) % len(_METHODS)]
            axes.plot(x, y, color=colour, linewidth=1.3, linestyle=style, label=_short(name, 24))
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if unit:
            axes.set(xlim=(0, 1.01), ylim=(0, 1.01))
        else:
            axes.set(ylim=(0, None))
        if legend and len(found) > 1:
            _legend_above(axes, 2)
    return figure


def differences(rows: Sequence[Difference], xlabel: str) -> Figure:
    """Draw differences to the baseline with their intervals; the paper's are hollow diamonds."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 0.85 + 0.26 * len(rows)))
        axes = figure.subplots()
        axes.axvline(0, color=QUIET, linewidth=0.8)
        for y, row in enumerate(rows):
            if np.isfinite(row.low):
                axes.plot([row.low, row.high], [y, y], color=BLUE, linewidth=2.5, alpha=0.55)
            axes.plot(row.paper, y, "D", color=QUIET, markersize=4.5, fillstyle="none")
            axes.plot(row.difference, y, "o", color=BLUE, markersize=5)
        axes.set_yticks(range(len(rows)), [_short(row.label, 34) for row in rows])
        axes.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        here = {"color": BLUE, "marker": "o", "markersize": 5, "linewidth": 2.5}
        handles = [Line2D([], [], **here, label="here, 95 %")]
        if any(np.isfinite(row.paper) for row in rows):
            paper = {"marker": "D", "markersize": 4.5, "fillstyle": "none", "linewidth": 0}
            handles.append(Line2D([], [], color=QUIET, **paper, label="paper"))
        axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
    return figure


def figure2(
    curves_without: Mapping[str, Curves], curves_with: Mapping[str, Curves], title: str
) -> Figure:
    """Draw Figure 2 of the paper: training accuracy of each classifier, a panel for each dataset.

    Args:
        curves_without: by dataset, training accuracies in percent if only the last classifier
            trains the network: solid lines.
        curves_with: those of deeply supervised training: dashed lines.
        title: above the panels.
    """
    names = list(dict.fromkeys([*curves_without, *curves_with]))
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    with matplotlib.rc_context({**_STYLE, "axes.titlesize": 9}):
        figure = Figure(figsize=(3.7 * columns, 0.6 + 2.7 * rows))
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes in panels[len(names) :]:
            axes.remove()
        stages = set()
        for axes, name in zip(panels, names, strict=False):
            for found, style in ((curves_without, _WITHOUT), (curves_with, _WITH)):
                _draw_curves(axes, found.get(name, {}), dashes=(style,), own_dash=style)
                stages |= set(found.get(name, {}))
            axes.set(
                title=_short(name, 80),
                xlabel="epoch",
                ylabel="training accuracy, %",
                ylim=(None, 101),
            )
        handles = [
            Line2D([], [], color=colour, linewidth=1.5, label=f"C{stage}")
            for stage, colour in _stage_colours(sorted(stages))
        ]
        for style, text in ((_WITHOUT, "without DSL"), (_WITH, "with DSL")):
            handles.append(Line2D([], [], color=QUIET, linewidth=1.5, linestyle=style, label=text))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=min(6, 3 * columns), fontsize=8
        )
        figure.suptitle(_short(title, 200), x=0.01, ha="left", size=10)
    return figure


def label_efficiency(
    found: Mapping[str, Mapping[str, Mapping[float, Sequence[float]]]],
    title: str,
    laws: Mapping[str, Mapping[str, tuple[float, LearningCurve]]] = types.MappingProxyType({}),
) -> Figure:
    """Draw scores by the share of training labels, a panel for each score, a line for each method.

    Args:
        found: by score, method and percent of the labels: the score of each seed in percent. Lines
            are means, in a band from the lowest to the highest seed.
        title: above the panels.
        laws: by score and method: percent for each label, and the curve that makes a claim. It is
            drawn dotted, up to twice the labels, and there with its 95 % band.
    """
    with matplotlib.rc_context({**_STYLE, "axes.titlesize": 9}):
        figure = Figure(figsize=(3.7 * len(found), 3.3))
        for axes, (score, methods) in zip(
            figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
        ):
            for i, (method, by_share) in enumerate(methods.items()):
                shares = sorted(by_share)
                seeds = [by_share[share] for share in shares]
                colour = _METHODS[i % len(_METHODS)]
                low, high = ([edge(x) for x in seeds] for edge in (min, max))
                axes.fill_between(shares, low, high, color=colour, alpha=0.12, lw=0)
                means = [np.mean(x) for x in seeds]
                style = {"color": colour, "marker": "o^Dsv"[i % 5], "markersize": 4}
                axes.plot(shares, means, label=_short(method, 80), linewidth=1.3, **style)
                if method in laws.get(score, {}):
                    _draw_law(axes, *laws[score][method], colour)
            ticks = sorted({share for by_share in methods.values() for share in by_share})
            axes.set_xscale("log")
            axes.set_xticks(ticks, [f"{share:g}" for share in ticks])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set(title=f"{score}, %", xlabel="training labels, %")
        figure.legend(
            *axes.get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8
        )
        figure.suptitle(_short(title, 200), x=0.01, ha="left", size=10)
    return figure


def _draw_law(axes: Axes, percent: float, curve: LearningCurve, colour: str) -> None:
    n = np.geomspace(curve.most / 100, 2 * curve.most, 40)
    axes.plot(percent * n, curve.at(n)[0], ":", color=colour, linewidth=1)
    beyond = n[n >= curve.most]
    _, low, high = curve.at(beyond)
    axes.fill_between(percent * beyond, low, high, color=colour, alpha=0.2, lw=0)


def png(figure: Figure) -> bytes:
    """Write a figure as PNG, on white."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=200, metadata={"Software": None})
    return stream.getvalue()


def svg(figure: Figure, label: str, key: str) -> str:
    """Write a figure as a small `svg` element in the font and colours of an HTML page.

    Args:
        figure: made by a function of this module.
        label: what it shows, for those who do not see it.
        key: unique in the page, of letters and digits; the ids of the element start with it.
    """
    stream = io.StringIO()
    with matplotlib.rc_context(_STYLE):
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(stream, format="svg", transparent=True, metadata=metadata)
    text = re.sub(r"<!DOCTYPE[^>]*>", "", stream.getvalue())
    root = ElementTree.fromstring(text)
    used = set(re.findall(r"#([\w-]+)[\")]", text))
    _simplify(root, used, key)
    root.attrib = {"viewBox": root.get("viewBox", ""), "role": "img", "aria-label": label}
    text = ElementTree.tostring(root, encoding="unicode")
    for name, light in _LIGHT.items():
        text = text.replace(light, f"var(--{name})")
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    return re.sub(r"\s+", " ", text)


def _draw_curves(
    axes: Axes, found: Curves, *, dashes: Sequence[LineStyleType], own_dash: LineStyleType = "-"
) -> None:
    stages = sorted(found)
    for i, (stage, colour) in enumerate(_stage_colours(stages)):
        own = stage == stages[-1]
        values = found[stage]
        epochs = np.arange(1, values.shape[1] + 1)
        if len(values) > 1:
            edge = np.concatenate([values.min(axis=0), values.max(axis=0)[::-1]])
            axes.fill(np.concatenate([epochs, epochs[::-1]]), edge, color=colour, alpha=0.15, lw=0)
        axes.plot(
            epochs,
            values.mean(axis=0),
            color=colour,
            linewidth=1.6 if own else 1.2,
            linestyle=own_dash if own else dashes[i % len(dashes)],
            label=f"C{stage}",
        )
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.margins(x=0.02)


def _stage_colours(stages: Sequence[int]) -> list[tuple[int, str]]:
    """Choose each stage's colour, the same in every plot; the last, the network's own, is ink."""
    return [
        (stage, INK if stage == stages[-1] else _AUXILIARY[(stage - 1) % len(_AUXILIARY)])
        for stage in stages
    ]


def _legend_above(axes: Axes, columns: int) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=max(1, columns))


def _short(text: str, length: int = 20) -> str:
    text = _NOT_XML.sub("\ufffd", text)
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"


def _simplify(element, used: set[str], key: str) -> None:
    """Drop what a page does not need: namespaces, metadata, unused ids, empty groups."""
    for child in list(element):
        _simplify(child, used, key)
    element.tag = element.tag.split("}")[-1]
    attributes = {}
    for name, value in element.attrib.items():
        name = name.split("}")[-1]
        if name == "id":
            if value not in used:
                continue
            value = f"{key}-{value}"
        elif name == "style":
            value = re.sub(r"font: ([\d.]+px)[^;]*", r"font-size:\1", value)
            value = re.sub(r"font-family: [^;]*;?", "", value)
        value = re.sub(r"#(?=[mp][0-9a-f]{8,})", f"#{key}-", value)
        if name in ("d", "x", "y", "transform", "points", "width", "height"):
            value = re.sub(r"-?\d+\.\d+", lambda m: f"{float(m[0]):.1f}".removesuffix(".0"), value)
        attributes[name] = value
    element.attrib = attributes
    children = []
    for child in element:
        if child.tag == "g" and not child.attrib:
            children += list(child)
        elif child.tag != "metadata" and not (child.tag == "defs" and _only_style(child)):
            children.append(child)
    element[:] = children


def _only_style(defs) -> bool:
    return all(child.tag == "style" for child in defs)
