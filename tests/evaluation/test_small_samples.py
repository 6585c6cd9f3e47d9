"""Intervals by formula, against simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from lsanet_jax.evaluation import resampling, small_samples


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
