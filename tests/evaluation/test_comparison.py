"""Tests of methods over seeds, and their correction for the number of methods."""

import math

import numpy as np
import pytest

from lsanet_jax.errors import DataError
from lsanet_jax.evaluation.comparison import FEWEST, Spread, holm, over_seeds, spreads_of
from lsanet_jax.evaluation.statistics import Difference


def seed_with(difference, error):
    return Difference(difference, error, math.nan, math.nan, math.nan)


def test_seeds_that_agree_have_the_error_of_one_test():
    found = over_seeds([seed_with(0.02, 0.01)] * 3)
    assert found.difference == pytest.approx(0.02)
    assert found.standard_error == pytest.approx(0.01)
    assert found.p_value == pytest.approx(math.erfc(2 / math.sqrt(2)), rel=1e-3)
    assert found.low == pytest.approx(0.02 - 1.959964 * 0.01, rel=1e-4)


def test_seeds_alone_are_a_t_test():
    stats = pytest.importorskip("scipy.stats")
    differences = [0.01, 0.03, 0.05, 0.02]
    found = over_seeds([seed_with(d, 1e-12) for d in differences])
    expected = stats.ttest_1samp(differences, 0)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-5)
    interval = expected.confidence_interval()
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), rel=1e-6)


@pytest.mark.parametrize("seed_error", [0.0, 0.02, 0.1])
def test_without_a_difference_five_in_a_hundred_are_found_at_most(seed_error):
    rng = np.random.default_rng(0)
    small = 0
    for _ in range(500):
        images = 0.02 * rng.normal()
        seeds = images + seed_error * rng.normal(size=3)
        small += over_seeds([seed_with(d, 0.02) for d in seeds]).p_value < 0.05
    assert small <= 35  # 25, and two deviations


def test_spreads_of_many_networks_are_moved_to_what_they_have_in_common():
    """Draws from the law that is assumed: the moderated variances are the posterior means."""
    rng = np.random.default_rng(0)
    freedom, common, seeds, networks = 6.0, 0.04, 3, 20000
    variances = common * freedom / rng.chisquare(freedom, networks)
    scores = rng.normal(size=(networks, seeds)) * np.sqrt(variances)[:, None]
    found = spreads_of(scores)
    assert found[0].freedom == pytest.approx(freedom + seeds - 1, rel=0.1)
    samples = scores.var(axis=1, ddof=1)
    expected = (freedom * common + (seeds - 1) * samples) / (freedom + seeds - 1)
    assert [spread.variance for spread in found] == pytest.approx(expected, rel=0.05)


def test_spreads_that_differ_by_chance_only_are_one():
    scores = np.array([[0, 1, 2], [0, 1.1, 2.2], [0, 0.9, 1.8], [5, 6, 7]])
    found = spreads_of(scores)
    assert found[0].freedom > 1e5
    assert [spread.variance for spread in found] == pytest.approx(
        [scores.var(axis=1, ddof=1).mean()] * 4, rel=1e-4
    )


def test_few_networks_or_equal_scores_have_no_common_spread():
    assert spreads_of([[0.1, 0.2]] * (FEWEST - 1)) == []
    assert spreads_of([[0.1, 0.2]] * FEWEST + [[0.3, 0.3]]) == []
    assert spreads_of([]) == []


def test_two_spreads_are_added():
    tests = [seed_with(0.03, 0.01)] * 4
    found = over_seeds(tests, [Spread(1e-4, 1e9), Spread(3e-4, 1e9)])
    assert found.standard_error == pytest.approx(math.sqrt(1e-4 + 1e-4))
    assert found.p_value == pytest.approx(
        math.erfc(0.03 / math.sqrt(2e-4) / math.sqrt(2)), rel=1e-3
    )


@pytest.mark.parametrize(("alike", "image_error"), [(True, 0.3), (False, 0.0)])
def test_ten_methods_without_a_difference_and_one_with(alike, image_error):
    """At most one comparison of ten in twenty claims too much, and a clear gain is found."""
    rng = np.random.default_rng(0)
    false, found, rounds = 0, 0, 300
    for _ in range(rounds):
        sd = np.full(11, 0.4) if alike else rng.uniform(0.1, 0.7, 11)
        scores = 90 + sd[:, None] * rng.normal(size=(11, 3))
        images = image_error * rng.normal(size=(11, 1))  # of a method against the plain network
        scores[10] += 2.5
        spreads = spreads_of(scores)
        joined = []
        for i in range(1, 11):
            of_seeds = scores[i] - scores[0] + images[i]
            tests = [seed_with(d, max(image_error, 1e-9)) for d in of_seeds]
            joined.append(over_seeds(tests, [spreads[0], spreads[i]]).p_value)
        claimed = np.array(holm(joined)) < 0.05
        false += claimed[:9].any()
        found += claimed[9]
    assert false <= 0.05 * rounds + 2 * math.sqrt(rounds * 0.05 * 0.95)
    assert found >= 0.9 * rounds


def test_one_seed_tells_nothing_of_a_method():
    found = over_seeds([seed_with(0.1, 0.01)])
    assert found.difference == 0.1
    assert math.isnan(found.p_value) and math.isnan(found.low)
    with pytest.raises(DataError, match="no tests"):
        over_seeds([])


def test_tests_without_an_error_tell_nothing():
    nothing = Difference(0.2, *[math.nan] * 5)
    found = over_seeds([nothing, nothing._replace(difference=0.4)])
    assert found.difference == pytest.approx(0.3)
    assert np.isnan(found[1:]).all()


def test_networks_that_rank_alike_tell_nothing():
    found = over_seeds([seed_with(0.0, 0.0)] * 2)
    assert found.difference == 0 and math.isnan(found.p_value) and math.isnan(found.low)


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    found = holm([math.nan, 0.02, 0.04])
    assert math.isnan(found[0]) and found[1:] == pytest.approx([0.04, 0.04])
