"""Plots show what they were given, and their SVG suits a page."""

import re

import matplotlib
import numpy as np
import pytest

from lsanet_jax.evaluation import statistics
from lsanet_jax.report import figures
from lsanet_jax.report.figures import INK


def make_curves(stages=(1, 2, 4), seeds=3, epochs=6, seed=0):
    rng = np.random.default_rng(seed)
    return {stage: rng.uniform(40, 90, size=(seeds, epochs)) for stage in stages}


def texts(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def test_a_curve_is_the_mean_over_seeds_in_a_band_of_all():
    found = make_curves()
    (axes,) = figures.curves(found, "accuracy, %").axes
    assert [line.get_label() for line in axes.lines] == ["C1", "C2", "C4"]
    for line, band, stage in zip(axes.lines, axes.patches, found, strict=True):
        np.testing.assert_array_equal(line.get_xdata(), range(1, 7))
        np.testing.assert_allclose(line.get_ydata(), found[stage].mean(axis=0))
        edge = band.get_xy()[:, 1]
        assert (edge.min(), edge.max()) == (found[stage].min(), found[stage].max())
    colours = [line.get_color() for line in axes.lines]
    assert len(set(colours)) == 3 and colours[-1] == INK  # the network's own
    assert len({line.get_linestyle() for line in axes.lines}) > 1  # without colours, too


def test_a_single_seed_has_no_band():
    (axes,) = figures.curves(make_curves(seeds=1), "beta").axes
    assert len(axes.lines) == 3 and not axes.patches


def test_confusion_is_by_true_class():
    counts = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 199]])
    found = texts(
        figures.confusion(counts, ["nevus", "no samples", "a rather long name of a class"])
    )
    assert [text for text in found if text in ("80", "20", "100")] == ["80", "20", "100"]
    assert "nevus  1" in found and "a rather long name…  3" in found


@pytest.mark.parametrize(
    "name", ["$_$", "\\frac{", "a\x01b", "a\udcffb", "\0", "\uffff", "$5 or $10"]
)
def test_any_name_can_be_drawn(name):
    values = np.arange(3) / 2
    drawn = (
        figures.confusion(np.eye(2) * 3, [name, "other"]),
        figures.lines({name: (values, values), "other": (values, values)}, "x", "y"),
    )
    for figure in drawn:
        assert "other" in figures.svg(figure, "label", "key")


def test_reliability_shows_the_bins_that_hold_predictions():
    labels, p = np.array([0, 0, 1]), np.array([[0.95, 0.05], [0.55, 0.45], [0.6, 0.4]])
    found = statistics.reliability(labels, p, bins=10)
    above, axes = figures.reliability(found).axes
    assert [round(bar.get_height(), 1) for bar in above.patches][5:] == [66.7, 0, 0, 0, 33.3]
    assert [bar.get_height() for bar in axes.patches] == [0.5, 1]


def test_differences_stand_beside_the_papers():
    rows = [
        figures.Difference("DSN", 1.0, 0.5, 1.5, 1.7),
        figures.Difference("LSANet", 2.0, np.nan, np.nan, np.nan),
    ]
    (axes,) = figures.differences(rows, "percentage points").axes
    points = [line.get_xdata() for line in axes.lines]
    assert [list(x) for x in points[1:4]] == [[0.5, 1.5], [1.7], [1.0]]
    assert len(points) == 6 and [2.0] in [list(x) for x in points]  # no interval
    assert [text.get_text() for text in axes.get_yticklabels()] == ["DSN", "LSANet"]


def test_figure2_is_solid_without_and_dashed_with_deep_supervision():
    stages = (1, 2, 3, 4)
    without = {name: make_curves(stages) for name in ("RetinaMNIST", "BloodMNIST", "PathMNIST")}
    with_ = {"RetinaMNIST": make_curves(stages, seed=1)}
    figure = figures.figure2(without, with_, "Training accuracy")
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(without)
    styles = [line.get_linestyle() for line in figure.axes[0].lines]
    assert styles == ["-"] * 4 + ["--"] * 4
    colours = [line.get_color() for line in figure.axes[0].lines]
    assert colours[:4] == colours[4:] and len(set(colours)) == 4
    assert [len(axes.lines) for axes in figure.axes] == [8, 4, 4]
    shown = texts(figure)
    assert {"C1", "C4", "without DSL", "with DSL", "Training accuracy"} <= set(shown)
    assert figures.png(figure).startswith(b"\x89PNG")


def test_label_efficiency_has_a_line_for_each_method():
    acc = {"Baseline": {100.0: [80, 82], 1.0: [60, 70], 10.0: [75, 75]}, "DSN": {1.0: [66]}}
    found = {"ACC": acc, "AUC": acc}
    figure = figures.label_efficiency(found, "Label efficiency")
    assert len(figure.axes) == 2
    for axes in figure.axes:
        (baseline, dsn), band = axes.lines, axes.collections[0].get_paths()[0].vertices
        assert list(baseline.get_xdata()) == [1, 10, 100]
        assert list(baseline.get_ydata()) == [65, 75, 81] and list(dsn.get_ydata()) == [66]
        for share, low, high in ((1, 60, 70), (10, 75, 75), (100, 80, 82)):
            assert set(band[band[:, 0] == share][:, 1]) == {low, high}
        assert baseline.get_color() != dsn.get_color()
        assert baseline.get_marker() != dsn.get_marker()
        assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "10", "100"]
    assert {"Baseline", "DSN", "ACC, %", "AUC, %", "Label efficiency"} <= set(texts(figure))


@pytest.mark.parametrize("name", ["curves", "confusion", "reliability", "differences", "labels"])
def test_svg_suits_a_page(name):
    make = {
        "curves": lambda: figures.curves(make_curves(epochs=100), "accuracy"),
        "confusion": lambda: figures.confusion(np.eye(9) + 1, ["a < b & c"] * 9),
        "reliability": lambda: figures.reliability(
            statistics.reliability(
                np.zeros(50, int), np.random.default_rng(0).dirichlet([1, 1], 50)
            )
        ),
        "differences": lambda: figures.differences(
            [figures.Difference("a", 1.0, 0.0, 2.0, 3.0)] * 5, "points"
        ),
        "labels": lambda: figures.label_efficiency(
            {"ACC": {"DSN": {1.0: [60, 70], 100.0: [80, 82]}}}, "Label efficiency"
        ),
    }[name]
    text = figures.svg(make(), 'what it "shows" & more', "plot7")
    assert text.startswith('<svg viewBox="0 0 ') and text.endswith("</svg>")
    assert 'role="img" aria-label="what it &quot;shows&quot; &amp; more"' in text
    assert "xmlns" not in text and "http" not in text and "DejaVu" not in text
    assert not re.search(r"#[0-9a-f]{6}\b", text)  # the page's colours only
    assert set(re.findall(r"var\(--(\w+)\)", text)) <= set(figures.COLOURS)
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids)) and all(name.startswith("plot7-") for name in ids)
    assert set(re.findall(r'(?:url\(|href=")#([^")]*)', text)) == set(ids)
    assert len(text) < 40_000 and text.count("<") < 700
    assert text == figures.svg(make(), 'what it "shows" & more', "plot7")  # the same bytes again


def contrast(a, b):
    """WCAG's contrast ratio of two colours."""
    luminances = []
    for colour in (a, b):
        rgb = np.array(matplotlib.colors.to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminances.append(linear @ [0.2126, 0.7152, 0.0722])
    low, high = sorted(luminances)
    return (high + 0.05) / (low + 0.05)


def test_colours_stand_out_from_the_page():
    for name, pair in figures.COLOURS.items():
        for colour, page in zip(pair, ("#ffffff", "#15181c"), strict=True):
            least = {"line": 1.2, "ink": 7, "quiet": 4.5}.get(name, 3)
            assert contrast(colour, page) >= least, (name, colour)
