"""Statistics for comparing classifiers on one test split: NumPy in float64, no I/O.

Differences are b - a throughout: a positive one means that b scores higher. Labels of multi-label
may be -1 (unknown): they are left out of every score, as in `lsanet_jax.metrics`.

References: DeLong et al., "Comparing the areas under two or more correlated receiver operating
characteristic curves", Biometrics 1988; Sun & Xu, "Fast implementation of DeLong's algorithm",
IEEE SPL 2014; Obuchowski, "Nonparametric analysis of clustered ROC curve data", Biometrics 1997;
Guo et al., "On calibration of modern neural networks", ICML 2017; Efron &
Tibshirani, "An introduction to the bootstrap", 1993.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lsanet_jax.data.dataset import TASKS
from lsanet_jax.errors import DataError
from lsanet_jax.evaluation import resampling, small_samples

Labels = Int[np.ndarray, " n"] | Int[np.ndarray, "n k"]
Probabilities = Float[np.ndarray, "n k"]
Groups = Sequence[int] | Int[np.ndarray, " n"] | None

_NORMAL_975 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution
_CHUNK = 25  # resamples at a time, so that they fit the cache


class Reliability(NamedTuple):
    """The numbers of a reliability diagram; confidence and accuracy are nan in empty bins."""

    counts: Int[np.ndarray, " bins"]
    confidence: Float[np.ndarray, " bins"]  # mean in the bin, in [0, 1]
    accuracy: Float[np.ndarray, " bins"]  # in [0, 1]


class Difference(NamedTuple):
    """Difference of two AUCs, b - a, with its approximation by Student's t distribution."""

    difference: float
    standard_error: float  # nan, as are all below, if the samples do not determine it
    low: float  # of the 95 % interval
    high: float
    p_value: float  # two-sided; 1 if a and b rank all samples alike
    freedom: float = math.inf  # degrees of freedom of the standard error


class Bootstrap(NamedTuple):
    """Difference of a statistic, b - a, and its percentile interval."""

    difference: float  # on the split itself, averaged over all seeds
    low: float
    high: float
    dropped: int  # resamples in which the statistic is undefined; they do not enter the interval


class Interval(NamedTuple):
    """A score and its interval; nan if it is undefined."""

    value: float  # on the split itself, averaged over all seeds
    low: float
    high: float
    dropped: int  # resamples in which the score is undefined; they do not enter percentiles


def recall_per_class(
    labels: Labels, probabilities: Probabilities, task: str
) -> Float[np.ndarray, " k"]:
    """Compute the fraction of each class (multi-label: of each label's positives) that is found.

    Args:
        labels: class indices [n]; for multi-label 0, 1 or -1 (unknown) per label [n, k].
        probabilities: of each class or label, in [0, 1]; they predict as in `metrics.accuracy`.
        task: one of `lsanet_jax.data.dataset.TASKS`.

    Returns:
        The recall of each class, in [0, 1]; nan if it has no samples.
    """
    truth, predicted, _ = _truth_and_prediction(labels, probabilities, task)
    return _recall(truth, predicted)


def confusion_matrix(
    labels: Int[np.ndarray, " n"], probabilities: Probabilities, task: str
) -> Int[np.ndarray, "k k"]:
    """Count the samples of each class (row) by predicted class (column); not for multi-label."""
    _expect(task != "multi-label", f"task {task!r}", "one in which each sample has one class")
    truth, predicted, _ = _truth_and_prediction(labels, probabilities, task)
    return truth.T.astype(int) @ predicted.astype(int)


def balanced_accuracy(labels: Labels, probabilities: Probabilities, task: str) -> float:
    """Compute the mean recall of the classes that have samples, in [0, 1].

    Arguments are those of `recall_per_class`.

    Multi-label: the mean over labels of (sensitivity + specificity) / 2; labels that are positive
    everywhere or nowhere are left out (nan if all are).
    """
    truth, predicted, known = _truth_and_prediction(labels, probabilities, task)
    recall = _recall(truth, predicted)
    if task == "multi-label":
        recall = (recall + _recall(known & ~truth, ~predicted)) / 2
    recall = recall[~np.isnan(recall)]
    return float(recall.mean()) if len(recall) else math.nan


def reliability(labels: Labels, probabilities: Probabilities, bins: int = 15) -> Reliability:
    """Bin the predictions by confidence (Guo et al., Section 2).

    The bins ((i - 1) / bins, i / bins] are equally wide. The prediction is the most probable class,
    its confidence that class's probability. With labels [n, k] (multi-label) each label of each
    sample is a prediction of its own, with confidence max(p, 1 - p). Probabilities are those of
    `recall_per_class`.
    """
    _expect(bins >= 1, f"bins={bins}", "at least 1")
    task = "multi-label" if np.ndim(labels) == 2 else "multi-class"
    truth, predicted, known = _truth_and_prediction(labels, probabilities, task)
    probabilities = np.asarray(probabilities, np.float64)
    if task == "multi-label":
        right = (predicted == truth)[known]
        confidence = np.maximum(probabilities, 1 - probabilities)[known]
    else:
        right, confidence = (predicted & truth).any(axis=1), probabilities.max(axis=1)
    index = np.searchsorted(np.arange(1, bins) / bins, confidence)
    counts = np.bincount(index, minlength=bins)
    sums = (np.bincount(index, weights, minlength=bins) for weights in (confidence, right))
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        return Reliability(counts, *(total / counts for total in sums))


def expected_calibration_error(
    labels: Labels, probabilities: Probabilities, bins: int = 15
) -> float:
    """Average |accuracy - confidence| over the bins of `reliability`, weighted by their counts.

    Guo et al., Eq. 3; in [0, 1]. Few samples per bin bias it upwards: compare only values from one
    split with the same number of bins.
    """
    counts, confidence, accuracy = reliability(labels, probabilities, bins)
    if not counts.sum():
        return math.nan
    return float(np.nansum(counts * np.abs(accuracy - confidence)) / counts.sum())


def auc_variance(
    labels: Labels, probabilities: Probabilities, task: str, groups: Groups = None
) -> tuple[float, float]:
    r"""Compute the AUC as `lsanet_jax.metrics.auc` defines it, and its variance over test splits.

    Let class c have m positives, n negatives and AUC A_c, and let V_ic be sample i's structural
    component: the share of the other group that i is ranked correctly against; ties count half.
    Both the positives' and the negatives' V_ic have the mean A_c. The influence of i on A_c is

      u_ic = (V_ic - A_c) / sqrt(g (g - 1)),  g = m if i is positive, else n.

    A sample is positive or negative for each of the C classes that have both, so its influence on
    the mean AUC is the mean of these. As samples (labels included, so that the classes' counts vary
    from split to split) are drawn independently,

      variance = \sum_i (1/C \sum_c u_ic)^2.

    For one class this is DeLong's S10 / m + S01 / n; and so it is for two classes with p0 = 1 - p1,
    where u_i0 = u_i1. V is found by binary search, in O(n log n) as Sun & Xu's midranks. A sample
    whose label c is unknown has no influence on A_c: u_ic = 0.

    Samples of one group, such as a patient, depend on each other: their influences are added up
    before they are squared, and in u_ic sqrt(g (g - 1)) becomes g sqrt((I - 1) / I), with the I
    groups that have a positive, or a negative. That is Obuchowski's variance, save that the
    covariance of a group's positives and negatives has the geometric mean of both factors.

    Arguments are those of `recall_per_class`, but any finite scores are allowed; and the number of
    each sample's group, if there are any.

    Returns:
        AUC, nan if no class has one; variance, nan also if a class has a single positive or a
        single negative, or all of them in one group. At AUC 0 or 1 the variance is 0: an artefact,
        not certainty.
    """
    auc, influence = _auc_and_influence(labels, probabilities, task, groups)
    return auc, float(np.sum(influence**2))


def delong(
    labels: Int[np.ndarray, " n"], a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]
) -> Difference:
    """Test two correlated AUCs, of finite scores a and b for labels 0 and 1, by DeLong's method."""
    a, b = (np.stack([scores, scores], axis=-1) for scores in (a, b))  # only column 1 counts
    return delong_difference(labels, a, b, "binary-class")


def delong_difference(
    labels: Labels, a: Probabilities, b: Probabilities, task: str, groups: Groups = None
) -> Difference:
    r"""Test two AUCs by `lsanet_jax.metrics.auc` on the same samples by DeLong's method.

    As `auc_variance`, with the difference of each sample's two influences; a and b are the
    probabilities (or any finite scores) of two classifiers. DeLong's normal distribution holds for
    many samples of each class: with 2 positives a sixth of equal networks would differ with p
    < .05. So the quantiles are those of Student's t with Welch's degrees of freedom,

      variance^2 / \sum_c variance_c^2 / (n_c - 1),

    where variance_c is the part of the n_c samples, or groups, whose rarest class is c.
    """
    auc_a, influence_a = _auc_and_influence(labels, a, task, groups)
    auc_b, influence_b = _auc_and_influence(labels, b, task, groups)
    difference = auc_b - auc_a
    squares = (influence_b - influence_a) ** 2
    error = math.sqrt(np.sum(squares))
    if error == 0:
        if difference != 0:  # such as AUC 1 against 0: nothing varies
            return Difference(difference, *[math.nan] * 5)
        return Difference(difference, error, difference, difference, 1.0)
    from scipy import special  # costs more time to import than most commands take

    strata = _strata(labels, a, task, groups)
    parts, counts = np.bincount(strata, squares), np.bincount(strata)
    freedom = float(parts.sum() ** 2 / np.sum(parts**2 / np.maximum(counts - 1, 1)))
    p_value = 2 * float(special.stdtr(freedom, -abs(difference) / error))
    margin = float(special.stdtrit(freedom, 0.975)) * error
    low, high = difference - margin, difference + margin
    return Difference(difference, error, low, high, p_value, freedom)


def paired_bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray], float],
    labels: Labels,
    a: Sequence[Float[np.ndarray, "n m"]],
    b: Sequence[Float[np.ndarray, "n m"]],
    *,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Bootstrap:
    """Compute a percentile interval of a statistic's difference between two sets of runs.

    Each resample draws test samples with replacement, the same for all runs, and seeds: the same of
    a and b if they have equally many (in the same order), else independently. With S seeds the
    variance between seeds is estimated at (S - 1) / S of its size (0 with one seed), that of the
    interaction of sample and seed at up to 3 times (Owen, "The pigeonhole bootstrap", 2007).

    Args:
        statistic: of labels and probabilities of n samples, nan if undefined; called for each
            distinct run of each resample. For a mean over samples, such as the accuracy, pass each
            sample's term [n, 1] as a and b; for scores use `paired_bootstrap_score`.
        labels: [n] or [n, k], for the statistic alone.
        a: the probabilities [n, k] of each seed.
        b: those of the other set.
        resamples: how many.
        seed: of the draws.
        level: probability with which the interval should cover the difference, in (0, 1).

    Returns:
        The difference on the split itself and its interval, nan if every resample is dropped or
        all agree, which is no certainty.
    """
    labels = np.asarray(labels)

    def prepare(run):
        return lambda rows: [statistic(labels[i], run[i]) for i in rows]

    return _paired_bootstrap(prepare, labels, len(labels), a, b, resamples, seed, level)


def paired_bootstrap_score(
    score: str,
    labels: Labels,
    a: Sequence[Probabilities],
    b: Sequence[Probabilities],
    task: str,
    *,
    groups: Groups = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Bootstrap:
    """Do `paired_bootstrap` for "acc", "balanced_acc" or "auc": the same results, but faster.

    They are `metrics.accuracy`, `balanced_accuracy` and `auc_variance(...)[0]`. Each run is
    prepared once, and resamples are counts of each sample. With groups, all samples of a group are
    drawn at once.
    """
    _expect(score in _RESAMPLED, f"score {score!r}", " or ".join(_RESAMPLED))
    labels = np.asarray(labels)
    units = _units(len(labels), groups)

    def prepare(run):
        of_counts = _RESAMPLED[score](labels, run, task)
        return lambda rows: of_counts(_counts(rows)[units])

    num_units = int(units.max(initial=-1)) + 1
    return _paired_bootstrap(prepare, labels, num_units, a, b, resamples, seed, level)


def bootstrap_scores(
    labels: Labels,
    runs: Sequence[Probabilities],
    task: str,
    *,
    baseline: Sequence[Probabilities] = (),
    groups: Groups = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Compute ACC and AUC with percentile intervals: of one run, or the mean of several seeds.

    Each resample draws groups with replacement, all samples of a group at once since they depend on
    each other, and seeds as `paired_bootstrap` does. It scores what was drawn, by the runs and by
    the baseline alike. Where the percentiles say too little, as if all is right, a score's interval
    is by formula (`small_samples`), at a level of 0.95 only, and a difference has none.

    Args:
        labels: as for `recall_per_class`.
        runs: the probabilities [n, k] of each seed.
        task: one of `lsanet_jax.data.dataset.TASKS`.
        baseline: the same of as many seeds of another network, whose scores are taken off.
        groups: number of each sample's group, such as its patient; None: each is its own.
        resamples: how many.
        seed: of the draws.
        level: probability with which an interval should cover its score, in (0, 1).

    Returns:
        `acc` and `auc`, as `lsanet_jax.metrics` defines them, in [0, 1].
    """
    _expect(len(runs), "no run", "at least one")
    given = f"{len(runs)} runs and {len(baseline)} of the baseline"
    _expect(len(baseline) in (0, len(runs)), given, "equally many, or no baseline")
    _expect(resamples >= 1, f"resamples={resamples}", "at least 1")
    _expect(0 < level < 1, f"level={level}", "a number between 0 and 1")
    n = len(labels)
    units = _units(n, groups)
    num_units = int(units.max()) + 1
    truth, _, known = _checked(labels, runs[0], task)
    classes = []
    for k in _classes(truth, known, task):
        of = truth[:, k], known[:, k]
        aucs = [resampling.weighted_auc(*of, np.asarray(r)[:, k], np.ones((1, n))) for r in runs]
        classes.append(
            small_samples.ClassAUC(float(np.mean(aucs)), *small_samples.sides(*of, units))
        )
    num_known = int((np.asarray(labels) >= 0).sum())
    by_formula = {
        "acc": lambda value, ends: small_samples.proportion_interval(
            value, ends, num_units, num_known
        ),
        "auc": lambda _, ends: small_samples.auc_interval(classes, ends),
    }
    scorers = {}
    for name in ("acc", "auc"):
        of_runs = [_RESAMPLED[name](labels, run, task) for run in runs]
        of_baseline = [_RESAMPLED[name](labels, run, task) for run in baseline]
        scorers[name] = [
            (lambda counts, a=a, b=b: a(counts) - b(counts)) if b else a
            for a, b in itertools.zip_longest(of_runs, of_baseline)
        ]
    rng = np.random.Generator(np.random.PCG64(seed))
    found: dict[str, list[np.ndarray]] = {name: [] for name in scorers}
    for start in range(0, resamples, _CHUNK):
        num = min(_CHUNK, resamples - start)
        counts = _counts(rng.integers(num_units, size=(num, num_units)))[units]
        drawn = rng.integers(len(runs), size=(num, len(runs)))
        times = np.stack([(drawn == i).mean(axis=1) for i in range(len(runs))])
        for name, of in scorers.items():
            values = np.stack([scorer(counts) for scorer in of])
            found[name].append(np.where(times > 0, times * values, 0).sum(axis=0))
    intervals = {}
    tail = (1 - level) / 2
    for name, of in scorers.items():
        value = float(np.mean([scorer(np.ones((n, 1))) for scorer in of]))
        all_drawn = np.concatenate(found[name])
        defined = all_drawn[~np.isnan(all_drawn)]
        low, high = np.quantile(defined, [tail, 1 - tail]) if len(defined) else (math.nan, math.nan)
        if baseline and low == high:
            low = high = math.nan
        elif not baseline and level == 0.95:
            ends = by_formula[name](value, (float(low), float(high)))
            # A formula knows nothing of several seeds.
            low, high = ends if len(runs) == 1 else (np.fmin(low, ends[0]), np.fmax(high, ends[1]))
        intervals[name] = Interval(value, float(low), float(high), resamples - len(defined))
    return intervals


def majority_p_value(tests: Sequence[Difference]) -> float:
    """Combine the tests of several seeds into a p-value, however they depend on each other.

    Two-sided; small if a majority of seeds finds a difference in the same direction. With k the
    least majority of the n seeds and p_(k) the k-th smallest one-sided p-value, n / k p_(k) is a
    p-value: on average n t of n p-values are below t, so at least k of them are below t with a
    probability of at most n t / k (Rüger, "Das maximale Signifikanzniveau des Tests", Metrika
    1978). The result is twice the smaller one of the two directions; nan if too many tests are
    undefined.
    """
    n = len(tests)
    _expect(n, "no tests", "at least one")
    k = n // 2 + 1
    half = np.array([test.p_value for test in tests]) / 2
    up = np.array([test.difference > 0 for test in tests])
    sides = np.sort([np.where(up, half, 1 - half), np.where(up, 1 - half, half)])[:, k - 1]
    return float(np.minimum(1, 2 * n / k * sides.min()))


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Compute mean and sample standard deviation (n - 1 in the denominator; nan for one value)."""
    array = np.asarray(values, np.float64)
    _expect(array.ndim == 1 and len(array), f"values of shape {array.shape}", "[n], n > 0")
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else math.nan


def _units(n: int, groups: Groups) -> Int[np.ndarray, " n"]:
    """Number what is drawn as one, from 0: of each sample its group, or itself."""
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    _expect(units.shape == (n,), f"groups of shape {units.shape}", f"shape {(n,)}")
    return units


def _paired_bootstrap(prepare, labels, num_units, a, b, resamples, seed, level) -> Bootstrap:
    """See `paired_bootstrap`; `prepare(run)` returns its statistic as a function of rows [r, u]."""
    _expect(len(a) and len(b), f"{len(a)} and {len(b)} seeds", "at least one of each")
    a, b = ([np.asarray(run, np.float64) for run in runs] for runs in (a, b))
    shapes = [run.shape for run in (*a, *b)]
    ok = len(set(shapes)) == 1 and len(shapes[0]) == 2 and labels.shape[:1] == shapes[0][:1]
    found = f"labels of shape {labels.shape} with probabilities of shapes {shapes}"
    _expect(ok and len(labels), found, "[n] or [n, k] with [n, k] for every run, n at least 1")
    _expect(all(np.isfinite(run).all() for run in (*a, *b)), "nan or inf", "finite probabilities")
    _expect(resamples >= 1, f"resamples={resamples}", "at least 1")
    _expect(0 < level < 1, f"level={level}", "a number between 0 and 1")
    statistics = [[prepare(run) for run in runs] for runs in (a, b)]

    def differences(rows, of_a, of_b):
        means = []
        for statistics_of, drawn in zip(statistics, (of_a, of_b), strict=True):
            total = np.zeros(len(rows))
            for i, statistic in enumerate(statistics_of):
                times = (drawn == i).sum(axis=1)
                used = times > 0
                total[used] += times[used] * np.asarray(statistic(rows[used]))
            means.append(total / drawn.shape[1])
        return means[1] - means[0]

    def draw():
        rows = rng.integers(num_units, size=num_units)
        of_a = rng.integers(len(a), size=len(a))
        return rows, of_a, of_a if len(a) == len(b) else rng.integers(len(b), size=len(b))

    rng = np.random.Generator(np.random.PCG64(seed))
    found = []
    for start in range(0, resamples, _CHUNK):
        draws = [draw() for _ in range(min(_CHUNK, resamples - start))]
        found.append(differences(*map(np.stack, zip(*draws, strict=True))))
    found = np.concatenate(found)
    defined = found[~np.isnan(found)]
    tail = (1 - level) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]) if len(defined) else (math.nan, math.nan)
    if low == high:
        low = high = math.nan
    (observed,) = differences(*(np.arange(count)[None] for count in (num_units, len(a), len(b))))
    return Bootstrap(float(observed), float(low), float(high), resamples - len(defined))


def _counts(rows: Int[np.ndarray, "r n"]) -> Float[np.ndarray, "n r"]:
    """Count how often each of r resamples has each sample."""
    num, n = rows.shape
    counts = np.bincount((rows + n * np.arange(num)[:, None]).ravel(), minlength=num * n)
    return np.ascontiguousarray(counts.reshape(num, n).T, dtype=np.float64)


def _resampled_acc(labels, probabilities, task) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from the `_counts` [n, r] of r resamples to the accuracy of each."""
    truth, predicted, known = _truth_and_prediction(labels, probabilities, task)
    if task == "multi-label":
        right, asked = ((predicted == truth) & known).sum(axis=1), known.sum(axis=1)
    else:
        right, asked = (predicted & truth).any(axis=1), np.ones(len(truth))

    def accuracies(counts):
        total = asked @ counts
        return np.divide(right @ counts, total, out=np.full(len(total), math.nan), where=total > 0)

    return accuracies


def _resampled_balanced_acc(labels, probabilities, task) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from the `_counts` [n, r] to the balanced accuracy of each."""
    truth, predicted, known = _truth_and_prediction(labels, probabilities, task)

    def recall(of, found, counts):
        return ((of & found).T @ counts) / (of.T @ counts)

    def balanced(counts):
        with np.errstate(invalid="ignore"):  # 0 / 0 for a class without samples
            recalls = recall(truth, predicted, counts)
            if task == "multi-label":
                recalls = (recalls + recall(known & ~truth, ~predicted, counts)) / 2
            there = ~np.isnan(recalls)
            return np.where(there, recalls, 0).sum(axis=0) / there.sum(axis=0)

    return balanced


def _resampled_auc(labels, scores, task) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from the `_counts` [n, r] of r resamples to the AUC of each."""
    truth, scores, known = _checked(labels, scores, task)
    rankings = []
    for k in _classes(truth, known, task):
        positives, negatives = (
            np.flatnonzero(known[:, k] & side) for side in (truth[:, k], ~truth[:, k])
        )
        negatives = negatives[np.argsort(scores[negatives, k])]
        found = (scores[negatives, k], scores[positives, k])
        below, not_above = (np.searchsorted(*found, side) for side in ("left", "right"))
        rankings.append((positives, negatives, below, not_above))

    def aucs(counts):
        num = counts.shape[1]
        total, defined = np.zeros(num), np.zeros(num)
        for positives, negatives, below, not_above in rankings:
            drawn = counts[positives]
            first = np.zeros((len(negatives) + 1, num))  # of the i lowest negatives, how many
            np.cumsum(counts[negatives], axis=0, out=first[1:])
            right = np.einsum("mr,mr->r", drawn, first[below] + first[not_above]) / 2
            pairs = drawn.sum(axis=0) * first[-1]
            total += np.divide(right, pairs, out=np.zeros(num), where=pairs > 0)
            defined += pairs > 0
        return np.divide(total, defined, out=np.full(num, math.nan), where=defined > 0)

    return aucs


_RESAMPLED = {
    "acc": _resampled_acc,
    "balanced_acc": _resampled_balanced_acc,
    "auc": _resampled_auc,
}


def _classes(truth, known, task) -> list[int]:
    """List the classes that have an AUC and enter the mean."""
    classes = [1] if task == "binary-class" else range(truth.shape[1])
    return [k for k in classes if truth[:, k].any() and (known & ~truth)[:, k].any()]


def _truth_and_prediction(labels, probabilities, task):
    truth, probabilities, known = _checked(labels, probabilities, task, unit_interval=True)
    if task == "multi-label":
        return truth, probabilities > 0.5, known
    binary = task == "binary-class"
    predicted = probabilities[:, 1] > 0.5 if binary else np.argmax(probabilities, axis=1)
    return truth, predicted[:, None] == np.arange(truth.shape[1]), known


def _recall(truth, predicted):
    with np.errstate(invalid="ignore"):  # 0 / 0 for a class without samples
        return (truth & predicted).sum(axis=0) / truth.sum(axis=0)


def _auc_and_influence(labels, scores, task, groups) -> tuple[float, Float[np.ndarray, " u"]]:
    """Compute the mean AUC, and the influence on it of each group: see `auc_variance`."""
    truth, scores, known = _checked(labels, scores, task)
    units = _units(len(truth), groups)
    aucs, influences = [], []
    for k in _classes(truth, known, task):
        rows = np.flatnonzero(known[:, k])
        order = rows[np.argsort(scores[rows, k])]  # searching for sorted numbers: half the time
        positive, score = truth[order, k], scores[order, k]
        component = np.empty(len(score))
        component[positive] = _share_below(score[positive], score[~positive])
        component[~positive] = 1 - _share_below(score[~positive], score[positive])
        aucs.append(component[positive].mean())
        influences.append(np.zeros(len(truth)))
        for side in (positive, ~positive):
            independent = len(np.unique(units[order[side]]))
            # A single one does not tell how its side varies.
            scale = math.sqrt(independent / (independent - 1)) if independent > 1 else math.nan
            influences[-1][order[side]] = (component[side] - aucs[-1]) * scale / side.sum()
    if not aucs:
        return math.nan, np.full(len(truth), math.nan)
    return float(np.mean(aucs)), np.bincount(units, np.mean(influences, axis=0))


def _strata(labels, scores, task, groups) -> Int[np.ndarray, " u"]:
    """Number the groups by the rarest class that each has; those without any class are another."""
    truth, _, _ = _checked(labels, scores, task)
    units = _units(len(truth), groups)
    has = np.zeros((units.max() + 1, truth.shape[1] + 1), bool)
    np.logical_or.at(has, units, np.pad(truth, ((0, 0), (0, 1))))
    has[:, -1] = ~has.any(axis=1)
    return np.argmin(np.where(has, has.sum(axis=0), len(has) + 1), axis=1)


def _share_below(scores, others):
    """Compute the share of the others, which ascend, that is below each score; ties count half."""
    below, not_above = (np.searchsorted(others, scores, side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(others))


def _checked(labels, probabilities, task, unit_interval=False):
    """Check the arguments.

    Returns:
        Booleans [n, k], whether a label is there; the probabilities in float64; and booleans
        [n, k], whether a label is known.
    """
    _expect(task in TASKS, f"task {task!r}", f"one of {', '.join(TASKS)}")
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, np.float64)
    shape = probabilities.shape
    wanted = "[n, 2]" if task == "binary-class" else "[n, k]"
    ok = len(shape) == 2 and probabilities.size and (wanted == "[n, k]" or shape[1] == 2)
    _expect(ok, f"probabilities of shape {shape} for {task}", f"{wanted}, not empty")
    multilabel = task == "multi-label"
    wanted, lowest, highest = (shape, -1, 1) if multilabel else (shape[:1], 0, shape[1] - 1)
    found = f"labels of shape {labels.shape} with probabilities of shape {shape} for {task}"
    _expect(labels.shape == wanted, found, f"labels of shape {wanted}")
    found = f"labels from {labels.min()} to {labels.max()} for {task}"
    allowed = np.isin(labels, np.arange(lowest, highest + 1))
    _expect(allowed.all(), found, f"integers from {lowest} to {highest}")
    low, high = probabilities.min(), probabilities.max()
    found = f"probabilities from {low} to {high}"
    _expect(np.isfinite([low, high]).all(), found, "finite numbers")
    # Rounding can leave a probability above 1 by a few units in the last place.
    _expect(not unit_interval or (low >= 0 and high <= 1 + 1e-6), found, "0 to 1")
    truth = labels == 1 if multilabel else labels[:, None] == np.arange(shape[1])
    known = labels >= 0 if multilabel else np.ones(shape, bool)
    return truth, probabilities, known


def _expect(condition, found: str, expected: str):
    if not condition:
        raise DataError(f"Found {found}, expected {expected}.")
