"""Tests of methods over seeds, and their correction for the number of methods."""

import math

import numpy as np
import pytest

from lsanet_jax.errors import DataError
from lsanet_jax.evaluation.comparison import holm, over_seeds
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


def test_one_seed_tells_nothing_of_a_method():
    found = over_seeds([seed_with(0.1, 0.01)])
    assert found.difference == 0.1
    assert math.isnan(found.p_value) and math.isnan(found.low)
    with pytest.raises(DataError, match="no tests"):
        over_seeds([])


def test_networks_that_rank_alike_do_not_differ():
    assert over_seeds([seed_with(0.0, 0.0)] * 2).p_value == 1


def test_holms_correction():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1]
    found = holm([math.nan, 0.02, 0.04])
    assert math.isnan(found[0]) and found[1:] == pytest.approx([0.04, 0.04])
