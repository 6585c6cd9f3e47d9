"""Is a method better than another by more than chance? For several seeds and several methods."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from lsanet_jax.errors import DataError
from lsanet_jax.evaluation.statistics import Difference

FEWEST = 4
"""Networks from which on their spreads between seeds say something of each other."""
_MANY = 1e6  # degrees of freedom that are as good as infinitely many


class Spread(NamedTuple):
    """How a network's score varies from seed to seed: a variance and its degrees of freedom."""

    variance: float
    freedom: float


def over_seeds(
    tests: Sequence[Difference], spreads: Sequence[Spread] = (), *, level: float = 0.05
) -> Difference:
    """Join the tests of several seeds on one test split into one of the method.

    Two networks may differ by the draw of the test images or by the seeds that they were trained
    with. Let w be the squared mean of the seeds' standard errors, as if the seeds shared all of the
    chance in the test images (it is at most that), and b_i the variances between the S seeds, over
    S. The half width h of the interval of the mean difference is

      h^2 = t^2 w + sum_i t_i^2 b_i,

    with the quantiles t and t_i of Student's distribution with the degrees of freedom of the tests
    and of b_i: it covers at least as often as it says (Banerjee, "On confidence interval for
    two-means problem based on separate estimates of variances", Sankhya A 1961). The p-value is
    that of the interval which just reaches 0.

    Args:
        tests: by DeLong, one for each seed.
        spreads: of both networks, from `spreads_of`. Without them there is one b, the sample
            variance of the differences, with S - 1 degrees of freedom.
        level: of the test that the interval belongs to; 0.05 for the 95 % interval.

    Returns:
        The mean difference; all else is nan for a single seed, which tells nothing of the method,
        and if there is no standard error, as if a class has one image, or if all networks rank all
        images alike.

    Raises:
        DataError: there are no tests.
    """
    if not tests:
        raise DataError("Found no tests, expected at least one.")
    from scipy import special  # costs more time to import than most commands take

    differences = np.array([test.difference for test in tests])
    mean, seeds = float(differences.mean()), len(tests)
    if seeds == 1:
        return Difference(mean, *[math.nan] * 5)
    within = float(np.mean([test.standard_error for test in tests])) ** 2
    spreads = spreads or [Spread(float(differences.var(ddof=1)), seeds - 1)]
    between = [(spread.variance / seeds, min(spread.freedom, _MANY)) for spread in spreads]
    error = math.sqrt(within + sum(b for b, _ in between))
    parts = [(within, min(_MANY, *(test.freedom for test in tests))), *between]
    if not error > 0:
        return Difference(mean, *[math.nan] * 5)

    def half_width(p_value: float) -> float:
        squared = [special.stdtrit(freedom, p_value / 2) ** 2 * part for part, freedom in parts]
        return math.sqrt(sum(squared))

    low, high = -15.0, 0.0  # powers of 10
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if half_width(10**middle) < abs(mean) else (middle, high)
    margin = half_width(level)
    return Difference(mean, error, mean - margin, mean + margin, 10**high)


def spreads_of(scores: Sequence[Sequence[float]]) -> list[Spread]:
    """Estimate how each of several networks' scores vary between seeds, from all of them.

    Three seeds say little of a variance, but ten networks on the same data have similar ones. Each
    sample variance is moved towards their common value s_0^2, which counts as d_0 degrees of
    freedom: (d_0 s_0^2 + d s^2) / (d_0 + d). Both follow from how much the variances differ; if no
    more than by chance, d_0 is infinite. This holds if the true variances are like draws from a
    scaled inverse chi-squared distribution.

    Reference: Smyth, "Linear models and empirical Bayes methods for assessing differential
    expression in microarray experiments", Stat. Appl. Genet. Mol. Biol. 2004, section 6.2.

    Args:
        scores: of each network, one of each seed, at least two.

    Returns:
        The spread of each; nothing of fewer than `FEWEST` networks, or if one does not vary.
    """
    if len(scores) < FEWEST:
        return []
    variances = np.array([np.var(each, ddof=1) for each in scores])
    if not (variances > 0).all():  # nan, too
        return []
    from scipy import special

    freedom = np.array([len(each) - 1.0 for each in scores])
    logs = np.log(variances) - special.digamma(freedom / 2) + np.log(freedom / 2)
    excess = logs.var(ddof=1) - special.polygamma(1, freedom / 2).mean()
    if excess > 0:
        prior = 2 * _inverse_trigamma(float(excess))
        common = math.exp(logs.mean() + special.digamma(prior / 2) - math.log(prior / 2))
    else:
        prior, common = _MANY, float(np.average(variances, weights=freedom))
    moderated = (prior * common + freedom * variances) / (prior + freedom)
    return [Spread(float(v), float(d)) for v, d in zip(moderated, prior + freedom, strict=True)]


def _inverse_trigamma(value: float) -> float:
    """The x > 0 whose trigamma is the value, by Newton's method as in Smyth's appendix."""
    from scipy import special

    x = 0.5 + 1 / value
    for _ in range(50):
        trigamma = special.polygamma(1, x)
        x += trigamma * (1 - trigamma / value) / special.polygamma(2, x)
    return float(x)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for their number: a method that is called different is so with 95 %.

    Below 0.05 after the correction, the probability of even one false claim among all is at most
    0.05, however the tests depend on each other. Undefined ones (nan) stay so and are not counted.

    Reference: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist.
    1979.
    """
    found = np.asarray(p_values, np.float64)
    order = np.argsort(found)  # nan last
    count = int(np.isfinite(found).sum())
    adjusted = np.full(len(found), math.nan)
    factors = np.arange(count, 0, -1)
    adjusted[order[:count]] = np.minimum(np.maximum.accumulate(factors * found[order[:count]]), 1)
    return adjusted.tolist()
