"""Statistics against scikit-learn, naive formulas, published results and simulated test splits."""

import inspect
import math
import textwrap

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    recall_score,
    roc_auc_score,
)

from lsanet_jax import metrics
from lsanet_jax.errors import DataError
from lsanet_jax.evaluation import small_samples, statistics

SINGLE_LABEL = ("multi-class", "binary-class", "ordinal-regression")
TASKS = (*SINGLE_LABEL, "multi-label")


def draw(task, n=200, k=4, seed=0):
    """Labels, unevenly frequent, and probabilities, float32 and with ties, that know of them."""
    rng = np.random.default_rng(seed)
    if task == "multi-label":
        labels = (rng.uniform(size=(n, k)) < np.linspace(0.2, 0.7, k)).astype(int)
        logits = 2 * labels - 1 + rng.normal(size=(n, k))
        return labels, np.round(1 / (1 + np.exp(-logits)), 2).astype(np.float32)
    k = 2 if task == "binary-class" else k
    labels = rng.choice(k, size=n, p=np.arange(1, k + 1) / (k * (k + 1) / 2))
    logits = np.eye(k)[labels] + np.round(rng.normal(size=(n, k)), 1)
    return labels, (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)


def delong_covariance(positives, negatives):
    """DeLong et al., Eq. 4 and 5: AUCs [r] and covariance [r, r] of scores [r, m] and [r, n]."""
    x, y = positives[:, :, None], negatives[:, None, :]
    kernel = (x > y) + 0.5 * (x == y)
    s10, s01 = np.cov(kernel.mean(axis=2)), np.cov(kernel.mean(axis=1))
    return kernel.mean(axis=(1, 2)), s10 / x.shape[1] + s01 / y.shape[2]


@pytest.mark.parametrize("task", SINGLE_LABEL)
def test_recall_and_balanced_accuracy_are_scikit_learns(task):
    for seed in range(5):
        labels, probabilities = draw(task, seed=seed)
        predicted = probabilities.argmax(axis=1)
        recall = statistics.recall_per_class(labels, probabilities, task)
        np.testing.assert_allclose(recall, recall_score(labels, predicted, average=None))
        expected = balanced_accuracy_score(labels, predicted)
        assert statistics.balanced_accuracy(labels, probabilities, task) == pytest.approx(expected)


def test_multi_label_recall_and_balanced_accuracy_are_scikit_learns_of_each_label():
    labels, probabilities = draw("multi-label")
    recall = statistics.recall_per_class(labels, probabilities, "multi-label")
    np.testing.assert_allclose(recall, recall_score(labels, probabilities > 0.5, average=None))
    expected = [balanced_accuracy_score(labels[:, k], probabilities[:, k] > 0.5) for k in range(4)]
    found = statistics.balanced_accuracy(labels, probabilities, "multi-label")
    assert found == pytest.approx(np.mean(expected))
    everywhere = np.concatenate([labels, np.ones((200, 1), int)], axis=1)
    more = np.concatenate([probabilities, np.full((200, 1), 0.9)], axis=1)
    assert statistics.balanced_accuracy(everywhere, more, "multi-label") == pytest.approx(found)
    assert math.isnan(statistics.balanced_accuracy(everywhere[:, 4:], more[:, 4:], "multi-label"))


def test_a_tie_at_one_half_is_class_0_as_for_the_accuracy():
    labels, probabilities = np.array([0, 1]), np.full((2, 2), 0.5)
    assert statistics.recall_per_class(labels, probabilities, "binary-class").tolist() == [1, 0]


def test_a_class_without_samples_has_no_recall_and_does_not_count():
    labels, probabilities = np.array([0, 0, 2, 2]), np.eye(3)[[0, 1, 2, 2]]
    recall = statistics.recall_per_class(labels, probabilities, "multi-class")
    np.testing.assert_array_equal(recall, [0.5, np.nan, 1])
    assert statistics.balanced_accuracy(labels, probabilities, "multi-class") == 0.75


@pytest.mark.parametrize("task", SINGLE_LABEL)
def test_the_confusion_matrix_is_scikit_learns(task):
    labels, probabilities = draw(task)
    expected = confusion_matrix(labels, probabilities.argmax(axis=1))
    found = statistics.confusion_matrix(labels, probabilities, task)
    np.testing.assert_array_equal(found, expected)


def test_calibration_of_a_hand_worked_example():
    # Two bins: (0, 0.5] holds confidence 0.5 (wrong), (0.5, 1] holds 0.6 (right) and 0.9 (wrong).
    labels = np.array([2, 0, 1])
    probabilities = np.array([[0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [0.9, 0.1, 0.0]])
    counts, confidence, accuracy = statistics.reliability(labels, probabilities, bins=2)
    assert counts.tolist() == [1, 2]
    np.testing.assert_allclose(confidence, [0.5, 0.75])
    np.testing.assert_allclose(accuracy, [0, 0.5])
    error = statistics.expected_calibration_error(labels, probabilities, bins=2)
    assert error == pytest.approx((1 * 0.5 + 2 * 0.25) / 3)
    # Per label: 0.7 right, 0.8 (that it is absent) right, 0.6 wrong, 0.9 right.
    labels, probabilities = np.array([[1, 0], [0, 1]]), np.array([[0.7, 0.2], [0.6, 0.9]])
    counts, confidence, accuracy = statistics.reliability(labels, probabilities, bins=4)
    assert counts.tolist() == [0, 0, 2, 2] and np.isnan(confidence[:2]).all()
    np.testing.assert_allclose(confidence[2:], [0.65, 0.85])
    np.testing.assert_allclose(accuracy[2:], [0.5, 1])


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_calibration_error_is_that_of_a_loop_over_bins(task, bins):
    labels, probabilities = draw(task, n=500)
    p = probabilities.astype(float)
    if task == "multi-label":
        confidence, right = np.maximum(p, 1 - p).ravel(), ((p > 0.5) == labels).ravel()
    else:
        confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    expected = 0
    for i in range(bins):
        inside = (confidence > i / bins) & (confidence <= (i + 1) / bins)
        if inside.any():
            gap = right[inside].mean() - confidence[inside].mean()
            expected += inside.mean() * abs(gap)
    found = statistics.expected_calibration_error(labels, probabilities, bins)
    assert found == pytest.approx(expected, abs=1e-12)
    assert statistics.reliability(labels, probabilities, bins).counts.sum() == len(right)


@pytest.mark.parametrize("task", TASKS)
def test_auc_is_that_of_the_metrics(task):
    labels, probabilities = draw(task)
    found, _ = statistics.auc_variance(labels, probabilities, task)
    assert found == pytest.approx(metrics.auc(labels, probabilities, task), abs=1e-12)


def test_binary_variance_is_delongs_covariance_with_ties():
    rng = np.random.default_rng(0)
    for m, n in ((2, 3), (30, 70), (80, 15)):
        labels = rng.permutation(np.repeat([1, 0], [m, n]))
        scores = np.round(rng.normal(size=(2, m + n)) + labels, 1)
        aucs, covariance = delong_covariance(scores[:, labels == 1], scores[:, labels == 0])
        auc, variance = statistics.auc_variance(labels, scores[[1, 0]].T, "binary-class")
        assert (auc, variance) == pytest.approx((aucs[0], covariance[0, 0]), abs=1e-12)
        found = statistics.delong(labels, *scores)
        expected = math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
        assert found.difference == pytest.approx(aucs[1] - aucs[0], abs=1e-12)
        assert found.standard_error == pytest.approx(expected, abs=1e-12)


def test_published_variance_of_hanley_and_mcneils_ratings():
    # CT images rated 1 to 5 (Hanley & McNeil, Radiology 1982). Stata's manual, [R] roctab.
    healthy, ill = np.repeat(range(5), [33, 6, 6, 11, 2]), np.repeat(range(5), [3, 2, 2, 11, 33])
    ratings, labels = np.concatenate([healthy, ill]), np.repeat([0, 1], [58, 51])
    scores = np.stack([-ratings, ratings], axis=1).astype(np.float64)
    auc, variance = statistics.auc_variance(labels, scores, "binary-class")
    assert (auc, math.sqrt(variance)) == pytest.approx((0.8932, 0.0307), abs=5e-5)


def test_published_comparison_of_delongs_patients():
    # 43 patients of DeLong et al. 1988, and the difference total protein - K-G score, as in the
    # SAS/STAT guide, PROC LOGISTIC, "Comparing Receiver Operating Characteristic Curves".
    outcome = "0110100111111110100110111111110011110101111"
    score = "0574752554645566464432554456544353451323455"
    protein = (
        "58636848584057565767546666577067447666586847747466827065514768406163776257486270576966"
    )
    labels, a = np.array(list(outcome), int), np.array(list(score), float)
    b = np.array(textwrap.wrap(protein, 2), float)
    found = statistics.delong(labels, a, b)
    assert found[:2] == pytest.approx((-0.0780, 0.1046), abs=5e-5)
    normal = stats.norm(found.difference, found.standard_error)
    assert normal.interval(0.95) == pytest.approx((-0.2830, 0.1271), abs=5e-5)
    assert 2 * normal.sf(0) == pytest.approx(0.4561, abs=5e-5)
    t = stats.t(found.freedom, found.difference, found.standard_error)  # for few patients
    assert 11 < found.freedom < 41
    assert found[2:5] == pytest.approx((*t.interval(0.95), 2 * t.sf(0)), rel=1e-9)


def test_two_classes_are_as_binary():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=90)
    p = (rng.integers(12, size=(2, 90)) + 3 * labels) / 16  # has ties, and 1 - p is exact
    a, b = (np.stack([1 - x, x], axis=1) for x in p)
    binary = statistics.delong_difference(labels, a, b, "binary-class")
    assert binary == statistics.delong(labels, a[:, 1], b[:, 1])
    macro = statistics.delong_difference(labels, a, b, "multi-class")
    assert macro == pytest.approx(binary, rel=1e-12) and 0 < macro.p_value < 1


@pytest.mark.parametrize("task", ["multi-class", "multi-label"])
def test_macro_variance_is_the_jackknifes(task):
    labels, a = draw(task, n=250, seed=3)
    b = a + np.random.default_rng(1).normal(scale=0.2, size=a.shape)

    def difference(i):
        return np.subtract(*(statistics.auc_variance(labels[i], x[i], task)[0] for x in (b, a)))

    without = [difference(np.delete(np.arange(250), i)) for i in range(250)]
    jackknife = math.sqrt(249 / 250 * np.sum((without - np.mean(without)) ** 2))
    found = statistics.delong_difference(labels, a, b, task)
    assert found.difference == pytest.approx(difference(slice(None)), abs=1e-12)
    assert found.standard_error == pytest.approx(jackknife, rel=0.02)


def test_macro_variance_is_the_variance_over_test_splits():
    # A variance from 1500 draws has a relative standard error of sqrt(2 / 1500) = 3.7 %; a coverage
    # of 95 % one of 0.6 points, and the normal approximation is not exact at n = 120.
    aucs, variances, tests = [], [], []
    for seed in range(1500):
        labels, a = draw("multi-class", n=120, k=3, seed=seed)
        b = a + np.random.default_rng(seed).normal(scale=0.2, size=a.shape)
        auc, variance = statistics.auc_variance(labels, a, "multi-class")
        aucs.append(auc)
        variances.append(variance)
        tests.append(statistics.delong_difference(labels, a, b, "multi-class"))
    difference, error, low, high, *_ = np.transpose(tests)
    assert np.mean(variances) == pytest.approx(np.var(aucs, ddof=1), rel=0.12)
    assert np.mean(error**2) == pytest.approx(np.var(difference, ddof=1), rel=0.12)
    true = difference.mean()
    assert np.mean((low <= true) & (true <= high)) == pytest.approx(0.95, abs=0.02)


def test_a_class_that_is_absent_or_alone_is_left_out_of_the_aucs():
    labels, a = draw("multi-class")
    b = draw("multi-class", seed=1)[1]
    expected = statistics.delong_difference(labels, a, b, "multi-class")
    wider = [np.concatenate([x, np.zeros((200, 1))], axis=1) for x in (a, b)]
    assert statistics.delong_difference(labels, *wider, "multi-class") == expected
    nothing = statistics.delong_difference(np.zeros(200, int), a, b, "multi-class")
    assert np.isnan(nothing).all()


def test_comparisons_without_an_error_estimate():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.4, 0.8])
    assert statistics.delong(labels, scores, scores**3) == (0, 0, 0, 0, 1, math.inf)
    reversed_ = statistics.delong(labels, labels * 1.0, 1.0 - labels)
    assert reversed_.difference == -1 and np.isnan(reversed_[1:]).all()
    upright = statistics.delong(labels, 1.0 - labels, labels * 1.0)
    assert upright.difference == 1 and np.isnan(upright[1:]).all()
    single = statistics.delong(np.array([0, 0, 1, 0]), scores, np.arange(4.0))
    assert single.difference == pytest.approx(1 / 3) and np.isnan(single[1:]).all()


def mean(labels, values):
    return values.mean()


def test_bootstrap_interval_of_a_mean_is_the_normal_one():
    values = np.random.default_rng(0).exponential(size=(400, 1))
    zeros, error = np.zeros((400, 1)), values.std() / 20
    for level, quantile in ((0.95, 1.96), (0.5, 0.674)):
        found = statistics.paired_bootstrap(
            mean, np.zeros(400, int), [zeros], [values], resamples=4000, level=level
        )
        assert found.difference == values.mean() and found.dropped == 0
        assert found.high - found.low == pytest.approx(2 * quantile * error, rel=0.08)
        assert found.low < found.difference < found.high


def test_bootstrap_pairs_samples_and_seeds():
    a = np.random.default_rng(0).normal(size=(5, 30, 1))
    found = statistics.paired_bootstrap(mean, np.zeros(30, int), list(a), list(a + 0.25))
    assert found[:3] == pytest.approx((0.25, 0.25, 0.25))
    # Of these only the seeds vary, and those of a are drawn apart from the three of b.
    a, b = ([np.full((30, 1), float(s)) for s in range(num)] for num in (2, 3))
    found = statistics.paired_bootstrap(mean, np.zeros(30, int), a, b, level=0.9999)
    assert found == (0.5, -1, 2, 0)
    found = statistics.paired_bootstrap(mean, np.zeros(30, int), b, a, level=0.9999)
    assert found == (-0.5, -2, 1, 0)
    # One of three seeds stands out: in 8, 12, 6, 1 of 27 cases it is 0, 1, 2, 3 of the three draws.
    a, b = ([np.full((30, 1), value) for value in values] for values in ([0.0], [0.0, 0.0, 9.0]))
    found = statistics.paired_bootstrap(mean, np.zeros(30, int), a, b, level=0.6)
    assert found == pytest.approx((3, 0, 6, 0))


def test_bootstrap_covers_the_true_difference():
    # Samples and seeds add half of the variance each. With 10 seeds the interval is some 3 % short,
    # and percentiles of small samples are short, too; 200 simulations have a standard error of 1.5
    # points. If only samples, or only seeds, were drawn anew, coverage would be 83 %.
    rng, covered = np.random.default_rng(0), 0
    for i in range(200):
        a = rng.normal(size=(10, 40, 1))
        b = a + 0.3 + rng.normal(size=(40, 1)) / 2 + rng.normal(size=(10, 1, 1)) / 4
        found = statistics.paired_bootstrap(
            mean, np.zeros(40, int), list(a), list(b), resamples=200, seed=i
        )
        covered += found.low <= 0.3 <= found.high
    assert 0.88 <= covered / 200 <= 0.98


def test_bootstrap_is_a_function_of_its_seed():
    labels, a = draw("multi-class", n=60)
    b = draw("multi-class", n=60, seed=1)[1]

    def interval(seed):
        return statistics.paired_bootstrap(
            lambda y, p: metrics.accuracy(y, p, "multi-class"), labels, [a], [b], seed=seed
        )

    assert interval(3) == interval(3) != interval(4)


def test_bootstrap_drops_and_counts_resamples_without_a_value():
    # All of 5 draws miss the only positive with probability 0.8^5: 655 of 2000, give or take 21.
    labels, scores = np.array([0, 0, 0, 0, 1]), np.linspace(0, 1, 5)[:, None] * [1, -1]

    def auc(labels, scores):
        return statistics.auc_variance(labels, scores, "binary-class")[0]

    found = statistics.paired_bootstrap(auc, labels, [scores], [scores[:, ::-1]])
    assert found.difference == 1 and abs(found.dropped - 655) < 85
    assert np.isnan([found.low, found.high]).all()  # All others agree, which is no certainty.
    found = statistics.paired_bootstrap(auc, labels * 0, [scores], [scores], resamples=10)
    assert np.isnan(found[:3]).all() and found.dropped == 10


SCORES = {
    "acc": metrics.accuracy,
    "balanced_acc": statistics.balanced_accuracy,
    "auc": lambda labels, p, task: statistics.auc_variance(labels, p, task)[0],
}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("task", TASKS)
def test_the_fast_bootstrap_of_a_score_is_the_plain_one(task, score):
    # 12 samples: many resamples lack a class or have the AUC of fewer classes, and scores tie.
    labels, _ = draw(task, n=12)
    a, b = ([draw(task, n=12, seed=10 * i + j)[1] for j in range(n)] for i, n in ((1, 2), (2, 3)))
    for others in (b, b[:2]):
        plain = statistics.paired_bootstrap(
            lambda y, p: SCORES[score](y, p, task), labels, a, others, resamples=120
        )
        fast = statistics.paired_bootstrap_score(score, labels, a, others, task, resamples=120)
        assert fast == pytest.approx(plain, abs=1e-12)


def test_an_auc_of_one_class_has_no_interval():
    labels, p = draw("multi-class", n=12)
    found = statistics.paired_bootstrap_score(
        "auc", labels * 0, [p], [p], "multi-class", resamples=30
    )
    assert np.isnan(found[:3]).all() and found.dropped == 30
    with pytest.raises(DataError, match="score 'f1', expected acc or balanced_acc or auc"):
        statistics.paired_bootstrap_score("f1", labels, [p], [p], "multi-class")


def outcomes(p_values, differences):
    """Results of DeLong's test: two-sided p-values, and differences whose sign counts."""
    return [
        statistics.Difference(d, math.nan, math.nan, math.nan, p)
        for p, d in zip(p_values, differences, strict=True)
    ]


@pytest.mark.parametrize(
    ("p_values", "differences", "expected"),
    [
        ([0.03], [1], 0.03),
        ([0.01, 0.2], [1, 1], 0.2),
        ([0.9, 0.01, 0.02], [-1, -1, -1], 1.5 * 0.02),
        ([0.9, 0.01, 0.02], [1, -1, -1], 1.5 * 0.02),
        ([0.8, 0.9, 1.0], [1, 1, 0], 1),
        ([1e-40], [-1], 1e-40),
        ([1e-9, 1e-9], [1, -1], 1),  # they contradict each other
        ([1e-9, 0.4, 1e-9], [1, 1, -1], 1.5 * 0.4),
        ([0.1, math.nan, math.nan], [1, 1, 1], math.nan),
    ],
)
def test_the_p_value_of_a_majority_of_seeds(p_values, differences, expected):
    found = statistics.majority_p_value(outcomes(p_values, differences))
    assert found == pytest.approx(expected, abs=0, nan_ok=True)


def test_the_p_value_of_a_majority_holds_whether_tests_depend_on_each_other_or_not():
    # Without a difference z is normal: apart, alike, and either by chance.
    rng = np.random.default_rng(0)
    apart, alike = rng.normal(size=(2000, 3)), rng.normal(size=(2000, 1)) * np.ones(3)
    for z in (apart, alike, np.where(rng.uniform(size=(2000, 3)) < 0.5, apart, alike)):
        found = []
        for row in z:
            p_values = [math.erfc(abs(x) / math.sqrt(2)) for x in row]
            found.append(statistics.majority_p_value(outcomes(p_values, row)))
        for level in (0.01, 0.05, 0.2):
            assert np.mean(np.array(found) <= level) <= level + 3 * math.sqrt(level / 2000)


def test_mean_and_sample_standard_deviation():
    assert statistics.mean_and_std([1, 2, 6]) == pytest.approx((3, math.sqrt(7)))
    alone = statistics.mean_and_std([0.5])
    assert alone[0] == 0.5 and math.isnan(alone[1])
    assert statistics.mean_and_std([1, 3]) == pytest.approx((2, math.sqrt(2)))


P = np.full((3, 2), 0.5)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (statistics.recall_per_class, ([0, 1, 1], P, "multiclass"), "task 'multiclass', .*one of"),
        (statistics.recall_per_class, ([0, 1], P, "multi-class"), r"shape \(2,\).*shape \(3,\)"),
        (
            statistics.balanced_accuracy,
            ([0, 1, 2], P, "multi-class"),
            "0 to 2 .*integers from 0 to 1",
        ),
        (statistics.balanced_accuracy, ([0, 1, 1], P + 1, "binary-class"), "1.5.*0 to 1"),
        (statistics.balanced_accuracy, ([0, 1, 1], P - 1, "binary-class"), "-0.5.*0 to 1"),
        (statistics.balanced_accuracy, ([0, -1, 1], P, "multi-class"), "from 0 to 1"),
        (statistics.balanced_accuracy, ([[0, 2]] * 3, P, "multi-label"), "from -1 to 1"),
        (statistics.balanced_accuracy, ([[0, -2]] * 3, P, "multi-label"), "from -1 to 1"),
        (statistics.confusion_matrix, ([[0, 1]] * 3, P, "multi-label"), "has one class"),
        (statistics.recall_per_class, ([0, 1, 1], P[:, 0], "multi-class"), r"\(3,\).*\[n, k\]"),
        (statistics.recall_per_class, ([0], P[None], "multi-class"), r"\(1, 3, 2\).*\[n, k\]"),
        (statistics.auc_variance, ([0, 1, 1], P[:, :1], "binary-class"), r"\(3, 1\).*\[n, 2\]"),
        (statistics.auc_variance, ([0, 1, 1], P[:, [0, 1, 1]], "binary-class"), r"\(3, 3\).*2\]"),
        (statistics.auc_variance, (P, P, "multi-label"), "0.5 to 0.5 .*integers from -1 to 1"),
        (statistics.auc_variance, ([0, 1, 1], P * np.nan, "multi-class"), "nan.*finite"),
        (statistics.delong, ([0, 1, 1], [1, 2], [1, 2]), r"\(3,\).*\(2, 2\)"),
        (statistics.reliability, ([], P[:0]), r"\(0, 2\).*not empty"),
        (statistics.reliability, ([0, 1, 1], P, 0), "bins=0"),
        (statistics.paired_bootstrap, (mean, [0, 1, 1], [], [P]), "0 and 1 seeds"),
        (statistics.paired_bootstrap, (mean, [0, 1, 1], [P], [P[:2]]), r"\(3, 2\), \(2, 2\)"),
        (statistics.paired_bootstrap, (mean, [0, 1], [P], [P]), r"labels of shape \(2,\)"),
        (statistics.paired_bootstrap, (mean, [0, 1, 1], [P], [P * np.inf]), "inf.*finite"),
        (statistics.paired_bootstrap, (mean, [0, 1, 1], [P[:, 0]], [P[:, 0]]), r"\(3,\), \(3,\)"),
        (statistics.paired_bootstrap, (mean, [0], [P[None]], [P[None]]), r"\(1, 3, 2\)"),
        (statistics.paired_bootstrap, (mean, [], [P[:0]], [P[:0]]), "n at least 1"),
        (statistics.bootstrap_scores, ([0, 1, 1], [], "multi-class"), "no run"),
        (statistics.majority_p_value, ([],), "no tests"),
        (statistics.mean_and_std, ([],), r"\(0,\).*n > 0"),
        (statistics.mean_and_std, ([[1, 2]],), r"\(1, 2\).*n > 0"),
    ],
)
def test_bad_input_is_named(function, arguments, message):
    with pytest.raises(DataError, match=message):
        function(*arguments)


@pytest.mark.parametrize(
    ("option", "value"), [("resamples", 0), ("level", 0.0), ("level", 1.0), ("level", 1.5)]
)
def test_no_resamples_and_no_level_are_named(option, value):
    labels = np.array([0, 1, 1])
    for call in (
        lambda **options: statistics.paired_bootstrap(mean, labels, [P], [P], **options),
        lambda **options: statistics.bootstrap_scores(labels, [P], "multi-class", **options),
    ):
        call(resamples=1)
        with pytest.raises(DataError, match=f"{option}={value}"):
            call(**{"resamples": 1, option: value})


@pytest.mark.parametrize("name", ["paired_bootstrap", "paired_bootstrap_score", "bootstrap_scores"])
def test_intervals_are_of_95_percent_and_2000_resamples_unless_asked(name):
    parameters = inspect.signature(getattr(statistics, name)).parameters
    defaults = {key: parameters[key].default for key in ("resamples", "seed", "level")}
    assert defaults == {"resamples": 2000, "seed": 0, "level": 0.95}


# ------------------------------------------------------------------------------ unknown labels


def with_unknown(n=80, k=3, seed=0):
    """Labels of which a third are unknown, and probabilities."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 2, size=(n, k))
    return labels, np.clip(rng.normal(0.5 + 0.2 * labels, 0.3), 0, 1)


def test_unknown_labels_are_in_no_score():
    labels, p = with_unknown()
    known = [labels[:, k] >= 0 for k in range(3)]
    columns = [(labels[m, k], p[m, k]) for k, m in enumerate(known)]
    recall = [np.mean(score[truth == 1] > 0.5) for truth, score in columns]
    specificity = [np.mean(score[truth == 0] <= 0.5) for truth, score in columns]
    task = "multi-label"
    np.testing.assert_allclose(statistics.recall_per_class(labels, p, task), recall)
    np.testing.assert_allclose(
        statistics.balanced_accuracy(labels, p, task), np.mean([recall, specificity])
    )
    auc, variance = statistics.auc_variance(labels, p, task)
    np.testing.assert_allclose(auc, np.mean([roc_auc_score(*column) for column in columns]))
    # A sample whose labels are all unknown is as good as none.
    more = np.concatenate([labels, np.full((5, 3), -1)]), np.concatenate([p, p[:5]])
    np.testing.assert_allclose(statistics.auc_variance(*more, task), (auc, variance))
    counts = statistics.reliability(labels, p).counts
    assert counts.sum() == (labels >= 0).sum()
    assert math.isnan(statistics.expected_calibration_error(np.full((4, 3), -1), p[:4]))


def test_the_variance_of_one_label_is_that_of_its_known_samples():
    labels, p = with_unknown(k=1)
    known = labels[:, 0] >= 0
    found = statistics.auc_variance(labels, p, "multi-label")
    np.testing.assert_allclose(
        found, statistics.auc_variance(labels[known], p[known], "multi-label")
    )


@pytest.mark.parametrize("score", SCORES)
def test_resampled_scores_leave_unknown_labels_out(score):
    labels, p = with_unknown()
    rng = np.random.default_rng(1)
    better = np.clip(p + 0.1 * labels * rng.random(p.shape), 0, 1)
    fast = statistics.paired_bootstrap_score(
        score, labels, [p], [better], "multi-label", resamples=30
    )
    slow = statistics.paired_bootstrap(
        lambda y, q: SCORES[score](y, q, "multi-label"), labels, [p], [better], resamples=30
    )
    np.testing.assert_allclose(fast, slow)


# ------------------------------------------------------------------------------ intervals


@pytest.mark.parametrize("task", ["multi-class", "binary-class", "multi-label"])
def test_scores_are_those_of_metrics_and_lie_in_their_intervals(task):
    rng = np.random.default_rng(0)
    if task == "multi-label":
        labels, p = with_unknown()
    else:
        labels = rng.integers(2, size=80)
        p = rng.dirichlet([1, 1], size=80) + 0.3 * np.eye(2)[labels]
        p /= p.sum(axis=1, keepdims=True)
    found = statistics.bootstrap_scores(labels, [p], task, resamples=200)
    for name, score in (("acc", metrics.accuracy), ("auc", metrics.auc)):
        np.testing.assert_allclose(found[name].value, score(labels, p, task))
        assert found[name].low < found[name].value < found[name].high


def test_the_interval_of_the_accuracy_has_the_binomials_width():
    labels = np.repeat([0, 1], 200)
    right = np.tile([1, 1, 1, 0], 100).astype(bool)
    p = np.eye(2)[np.where(right, labels, 1 - labels)]
    acc = statistics.bootstrap_scores(labels, [p], "binary-class", resamples=4000)["acc"]
    np.testing.assert_allclose(
        [acc.low, acc.high],
        0.75 + np.array([-1.96, 1.96]) * math.sqrt(0.75 * 0.25 / 400),
        atol=4e-3,
    )


def test_images_of_one_patient_count_as_one():
    """Each of 40 patients 10 times: as uncertain as 40 images, not as 400."""
    labels, right = np.arange(40) % 2, np.arange(40) % 4 > 0
    p = np.eye(2)[np.where(right, labels, 1 - labels)]
    one = statistics.bootstrap_scores(labels, [p], "binary-class")
    many = [np.repeat(array, 10, axis=0) for array in (labels, p, np.arange(40))]
    grouped = statistics.bootstrap_scores(many[0], [many[1]], "binary-class", groups=many[2])
    for name in ("acc", "auc"):
        np.testing.assert_allclose(grouped[name], one[name])
    images = statistics.bootstrap_scores(many[0], [many[1]], "binary-class")["acc"]
    assert images.high - images.low < 0.5 * (grouped["acc"].high - grouped["acc"].low)


def test_a_difference_to_a_baseline_is_paired():
    labels, p = with_unknown()
    q = np.clip(p + 0.05 * labels, 0, 1)
    same = statistics.bootstrap_scores(labels, [p], "multi-label", baseline=[p], resamples=20)
    for score in same.values():
        assert score.value == 0 and np.isnan([score.low, score.high]).all()
    found = statistics.bootstrap_scores(labels, [q], "multi-label", baseline=[p], resamples=20)
    expected = metrics.auc(labels, q, "multi-label") - metrics.auc(labels, p, "multi-label")
    np.testing.assert_allclose(found["auc"].value, expected)
    with pytest.raises(DataError, match="2 runs and 1 of the baseline"):
        statistics.bootstrap_scores(labels, [p, q], "multi-label", baseline=[p])


def test_a_score_that_is_undefined_has_no_interval():
    p = np.full((6, 2), 0.5)
    found = statistics.bootstrap_scores(np.zeros(6, int), [p], "binary-class", resamples=9)
    assert math.isnan(found["auc"].value) and math.isnan(found["auc"].low)
    assert found["auc"].dropped == 9 and found["acc"].value == 1


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_seeds_are_drawn_too(order):
    """Of two seeds, one always right and one always wrong, a quarter of the draws has one alone."""
    labels = np.arange(20) % 2
    runs = [np.eye(2)[labels], np.eye(2)[1 - labels]]
    runs = [runs[i] for i in order]
    wide = statistics.bootstrap_scores(labels, runs, "binary-class", level=0.9)
    narrow = statistics.bootstrap_scores(labels, runs, "binary-class", level=0.4)
    for name in ("acc", "auc"):
        assert wide[name][:3] == (0.5, 0, 1)
        assert narrow[name][:3] == (0.5, 0.5, 0.5)
    assert wide["acc"].dropped == 0


def test_a_single_group_says_little():
    labels, p = draw("multi-class", n=9)
    found = statistics.bootstrap_scores(
        labels, [p], "multi-class", groups=np.full(9, 5), resamples=30
    )
    for score in found.values():
        assert score.dropped == 0 and score.high - score.low > 0.5


def test_the_fewest_samples_have_scores_but_are_not_certain():
    p = np.array([[0.8, 0.2], [0.1, 0.9]])
    found = statistics.bootstrap_scores(np.array([0, 1]), [p], "binary-class", resamples=60)
    assert found["acc"] == (1, *small_samples.wilson(2, 2), 0)
    assert found["auc"][:3] == (1, *small_samples.newcombe(1, 1, 1))
    assert 15 < found["auc"].dropped < 45
    one = statistics.bootstrap_scores(np.array([0]), [p[:1]], "binary-class", resamples=5)
    assert one["acc"] == (1, *small_samples.wilson(1, 1), 0)


# ------------------------------------------------------------------------------ groups


def draw_patients(rng, patients=60, images=8):
    """Labels, scores of two methods of equal skill, and patients, whose images are alike."""
    of = np.repeat(np.arange(patients), images)
    labels, shared, *own = (rng.random((4, patients)) < 0.5, *rng.normal(size=(3, patients)))
    labels = labels[0].astype(int)[of]
    a, b = (1.2 * labels + shared[of] + 0.8 * x[of] + 0.5 * rng.normal(size=len(of)) for x in own)
    return labels, np.stack([-a, a], 1), np.stack([-b, b], 1), of


def test_images_of_a_patient_do_not_make_a_difference_of_chance_certain():
    rng = np.random.default_rng(1)
    p_values = {True: [], False: []}
    errors, differences = [], []
    for _ in range(300):
        labels, a, b, of = draw_patients(rng)
        for grouped, found in p_values.items():
            test = statistics.delong_difference(
                labels, a, b, "binary-class", of if grouped else None
            )
            found.append(test.p_value)
            errors += [test.standard_error] * grouped
        differences.append(test.difference)
    assert 0.02 < np.mean(np.array(p_values[True]) < 0.05) < 0.085
    assert np.mean(np.array(p_values[False]) < 0.05) > 0.25
    assert np.mean(errors) == pytest.approx(np.std(differences), rel=0.12)


def test_delong_with_groups_is_obuchowskis_variance():
    rng = np.random.default_rng(1)
    labels, a, _, of = draw_patients(rng, patients=15, images=3)
    mixed = labels ^ (rng.random(45) < 0.2)  # patients with both
    auc, variance = statistics.auc_variance(mixed, a, "binary-class", of)
    x, y = a[mixed == 1, 1], a[mixed == 0, 1]
    kernel = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    sums = np.zeros((2, 15))
    np.add.at(sums[0], of[mixed == 1], kernel.mean(axis=1) - auc)
    np.add.at(sums[1], of[mixed == 0], kernel.mean(axis=0) - auc)
    m, n = len(x), len(y)
    i10, i01 = (len(set(of[mixed == side])) for side in (1, 0))
    s10 = i10 / ((i10 - 1) * m) * (sums[0] ** 2).sum()
    s01 = i01 / ((i01 - 1) * n) * (sums[1] ** 2).sum()
    s11 = np.sqrt(i10 / (i10 - 1) * i01 / (i01 - 1)) * (sums[0] * sums[1]).sum()
    assert variance == pytest.approx(s10 / m + s01 / n + 2 * s11 / (m * n))
    alone = statistics.auc_variance(mixed, a, "binary-class", np.arange(45)[::-1])
    assert alone == pytest.approx(statistics.auc_variance(mixed, a, "binary-class"))
    of_one = np.where(mixed == 1, 0, 1 + np.arange(45))
    assert math.isnan(statistics.auc_variance(mixed, a, "binary-class", of_one)[1])


def test_the_paired_bootstrap_draws_patients():
    labels, a, b, of = draw_patients(np.random.default_rng(2))
    test = statistics.delong_difference(labels, a, b, "binary-class", of)
    found = statistics.paired_bootstrap_score("auc", labels, [a], [b], "binary-class", groups=of)
    assert found.difference == pytest.approx(test.difference)
    assert (found.high - found.low) / 3.92 == pytest.approx(test.standard_error, rel=0.15)
    same = statistics.paired_bootstrap_score(
        "auc", labels, [a], [b], "binary-class", groups=np.arange(len(of)), resamples=100
    )
    assert same == statistics.paired_bootstrap_score(
        "auc", labels, [a], [b], "binary-class", resamples=100
    )
    with pytest.raises(DataError, match="groups of shape"):
        statistics.delong_difference(labels, a, b, "binary-class", of[:-1].tolist())
