"""Is a method better than another by more than chance? For several seeds and several methods."""

import math
from collections.abc import Sequence

import numpy as np

from lsanet_jax.errors import DataError
from lsanet_jax.evaluation.statistics import Difference


def over_seeds(tests: Sequence[Difference]) -> Difference:
    """Join the tests of several seeds on one test split into one of the method.

    Two networks may differ by the draw of the test images or by the seeds that they were trained
    with. Let w be the squared mean of the seeds' standard errors, as if the seeds shared all of the
    chance in the test images (it is at most that), and b the sample variance of the differences
    between the S seeds, over S. The half width h of the interval of the mean difference is

      h^2 = z^2 w + t^2 b,

    with the quantiles z of the normal distribution and t of Student's with S - 1 degrees of
    freedom: it covers at least as often as it says (Banerjee, "On confidence interval for two-means
    problem based on separate estimates of variances", Sankhya A 1961). The p-value is that of the
    interval which just reaches 0.

    Args:
        tests: by DeLong, one for each seed.

    Returns:
        The mean difference; all else is nan for a single seed, which tells nothing of the method.

    Raises:
        DataError: there are no tests.
    """
    if not tests:
        raise DataError("Found no tests, expected at least one.")
    from scipy import special  # costs more time to import than most commands take

    differences = np.array([test.difference for test in tests])
    mean, seeds = float(differences.mean()), len(tests)
    if seeds == 1:
        return Difference(mean, *[math.nan] * 4)
    within = float(np.mean([test.standard_error for test in tests])) ** 2
    between = float(differences.var(ddof=1)) / seeds
    error = math.sqrt(within + between)
    if not error > 0:  # nan, or all networks rank all images alike
        return Difference(mean, error, mean, mean, 1.0 if mean == 0 else math.nan)

    def half_width(p_value: float) -> float:
        z, t = special.ndtri(p_value / 2), special.stdtrit(seeds - 1, p_value / 2)
        return math.sqrt(z**2 * within + t**2 * between)

    low, high = -15.0, 0.0  # powers of 10
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if half_width(10**middle) < abs(mean) else (middle, high)
    margin = half_width(0.05)
    return Difference(mean, error, mean - margin, mean + margin, 10**high)


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
