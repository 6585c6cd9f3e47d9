"""Intervals by formula, against simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from lsanet_jax.evaluation import resampling, small_samples, statistics, subgroups


@pytest.mark.parametrize(("true", "positives"), [(0.7, 2), (0.856, 1), (0.856, 5), (0.95, 8)])
def test_newcombes_interval_of_an_auc_covers_it(true, positives):
    rng = np.random.default_rng(0)
    shift, hits, resampled = math.sqrt(2) * stats.norm.ppf(true), 0, 0
    labels = np.repeat([1, 0], (positives, 60))
    for seed in range(200):
        scores = rng.normal(shift * labels)
        p = np.stack([-scores, scores], axis=1)
        draws = resampling.Draws(len(labels), resamples=200, seed=seed)
        found = resampling.auc(labels, p, "binary-class", draws)
        assert found == resampling.auc_of_class(labels, p, 1, draws)
        hits += found.low <= true <= found.high
        low, high = resampling.interval(
            resampling.aucs(labels, p, "binary-class", draws.weights())[1:]
        )
        resampled += low <= true <= high
    assert 0.91 <= hits / 200
    assert resampled / 200 < 0.9  # which is why


def test_newcombes_interval_ends_where_its_statistic_is_z():
    for auc, m, n in ((0.8, 5, 9), (0.5, 3, 3), (1.0, 4, 30), (0.0, 4, 30)):
        low, high = small_samples.newcombe(auc, m, n)
        assert 0 <= low <= auc <= high <= 1
        for t in {low, high} - {0.0, 1.0}:
            q1, q2, half = t / (2 - t), 2 * t**2 / (1 + t), (m + n) / 2 - 1
            variance = (t * (1 - t) + half * (q1 - t**2) + half * (q2 - t**2)) / (m * n)
            assert abs(auc - t) == pytest.approx(1.959964 * math.sqrt(variance))
    assert np.isnan(small_samples.newcombe(0.8, 0, 5)).all()


def test_what_is_always_right_is_not_certain():
    labels = np.arange(40) % 3
    p = np.eye(3)[labels]
    draws = resampling.Draws(40, np.arange(40) // 4, resamples=100)
    acc, auc = (f(labels, p, "multi-class", draws) for f in (resampling.accuracy, resampling.auc))
    assert acc == (1, *small_samples.wilson(10, 10))  # of ten patients
    assert auc.value == auc.high == 1 and 0.6 < auc.low < 0.9


def test_the_difference_of_two_proportions_is_newcombes():
    # Newcombe, "Interval estimation for the difference", 1998, Table II, method 10.
    for (a, m), (b, n), expected in (
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
    ):
        one, other = ((x / size, *small_samples.wilson(x, size)) for x, size in ((a, m), (b, n)))
        found = small_samples.difference_interval(one, other)
        np.testing.assert_allclose(found, expected, atol=6e-4)


def binary(rng, positives, negatives, true):
    labels = np.repeat([1, 0], (positives, negatives))
    scores = stats.norm.cdf(rng.normal(math.sqrt(2) * stats.norm.ppf(true) * labels))
    return labels, np.stack([1 - scores, scores], axis=1)


def test_an_auc_near_1_has_few_wrong_pairs_and_newcombes_interval():
    rng, hits, resampled = np.random.default_rng(0), 0, 0
    for seed in range(200):
        labels, p = binary(rng, 25, 100, 0.98)
        draws = resampling.Draws(125, resamples=200, seed=seed)
        found = resampling.auc(labels, p, "binary-class", draws)
        hits += found.low <= 0.98 <= found.high
        low, high = resampling.interval(resampling.aucs(labels, p, "binary-class", draws.counts))
        resampled += low <= 0.98 <= high
    assert hits / 200 >= 0.93
    assert resampled / 200 < 0.91  # which is why


@pytest.mark.parametrize("sizes", [(1, 40, 40), (2, 3, 60)])
def test_mean_auc_of_classes_of_which_some_are_rare(sizes):
    rng, hits, resampled = np.random.default_rng(0), 0, 0
    labels = np.repeat(np.arange(3), sizes)
    shift = math.sqrt(2) * stats.norm.ppf(0.85)
    for seed in range(200):
        scores = rng.normal(shift * np.eye(3)[labels])
        draws = resampling.Draws(len(labels), resamples=100, seed=seed)
        found = resampling.auc(labels, scores, "multi-class", draws)
        hits += found.low <= 0.85 <= found.high
        low, high = resampling.interval(
            resampling.aucs(labels, scores, "multi-class", draws.counts)
        )
        resampled += low <= 0.85 <= high
    assert hits / 200 >= 0.94
    assert resampled / 200 < 0.92


def test_two_classes_have_the_interval_of_one():
    labels, p = binary(np.random.default_rng(0), 8, 30, 0.8)
    draws = resampling.Draws(38, resamples=50)
    one, both = (resampling.auc(labels, p, t, draws) for t in ("binary-class", "multi-class"))
    assert both.low <= one.low + 1e-12 and both.high >= one.high - 1e-12
    at_formula = small_samples.auc_interval([small_samples.ClassAUC(0.8, 8, 30)] * 2, (0.8, 0.8))
    assert at_formula == pytest.approx(small_samples.newcombe(0.8, 8, 30))


def test_a_proportion_of_few_patients():
    rng, hits, resampled = np.random.default_rng(0), 0, 0
    patients = np.repeat(np.arange(10), 6)
    for seed in range(300):
        right = rng.random(60) < rng.beta(1.6, 0.4, 10)[patients]  # 80 %, alike within a patient
        p = np.eye(2)[right.astype(int)]
        draws = resampling.Draws(60, patients, resamples=200, seed=seed)
        found = resampling.accuracy(np.ones(60, int), p, "binary-class", draws)
        hits += found.low <= 0.8 <= found.high
        low, high = resampling.ratio(right, np.ones(60), draws)[1:]
        resampled += low <= 0.8 <= high
    assert hits / 300 >= 0.9
    assert resampled < hits - 9


def test_delongs_test_of_few_positives():
    rng, rejected, normal = np.random.default_rng(0), 0, 0
    labels = np.repeat([1, 0], (2, 100))
    for _ in range(400):
        common, *own = rng.normal(1.2 * labels, size=(3, 102))
        found = statistics.delong(labels, *(common + x for x in own))
        rejected += found.p_value < 0.05
        normal += abs(found.difference) > 1.96 * found.standard_error
    assert rejected / 400 < 0.07
    assert normal / 400 > 0.08  # which is why


def test_a_subgroup_is_compared_over_the_classes_that_both_sides_have():
    """A class that is hard to tell, and that only one sex has, is no difference between them."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2, 0, 1], 60)
    sex = ["m"] * 180 + ["f"] * 120
    scores = rng.normal((np.eye(3) * [3.0, 3.0, 0.3])[labels])
    f, m = subgroups.compare(
        labels, scores, "multi-class", sex, class_names=["a", "b", "c"], resamples=200
    )
    assert f.auc.value - m.auc.value > 0.1  # the means over what each has
    for each in (f, m):
        assert abs(each.auc_difference.value) < 0.05
        assert each.auc_difference.low < 0 < each.auc_difference.high
        assert each.note == "AUC compared without c, which only one side can tell from others"


def test_subgroups_with_few_positives_differ_by_chance_only():
    rng, excluded = np.random.default_rng(0), 0
    for _ in range(150):
        parts = [binary(rng, 3, 30, 0.85), binary(rng, 40, 100, 0.85)]
        labels, p = (np.concatenate(each) for each in zip(*parts, strict=True))
        found = subgroups.compare(
            labels, p, "binary-class", ["a"] * 33 + ["b"] * 140, resamples=100
        )[0].auc_difference
        excluded += not found.low <= 0 <= found.high
    assert excluded / 150 <= 0.09
