"""Temperatures, operating points, sets, doubt and intervals against references and simulation."""

import math

import numpy as np
import pytest
import scipy.optimize
from sklearn import metrics as sklearn_metrics

from lsanet_jax import metrics
from lsanet_jax.errors import ConfigError, DataError
from lsanet_jax.evaluation import (
    calibration,
    conformal,
    decisions,
    doubt,
    resampling,
    small_samples,
    subgroups,
    thresholds,
)
from lsanet_jax.evaluation.thresholds import Rule
from tests.fake_runs import draw_labels, draw_probabilities

TASKS = ("multi-class", "binary-class", "multi-label")
NAMES = ("a", "b", "c")


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def drawn(task, n=400, skill=1.0, seed=0):
    labels = draw_labels(task, n, seed=seed)
    return labels, draw_probabilities(labels, task, skill=skill, seed=seed)


def names_of(task):
    return NAMES[:2] if task == "binary-class" else NAMES


# ------------------------------------------------------------------------------------ calibration


def test_the_temperature_of_overconfident_logits_is_found():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(20_000, 4))
    labels = np.array([rng.choice(4, p=p) for p in softmax(z)])
    found = calibration.fit_temperature(labels, softmax(2.5 * z), "multi-class", tuple("abcd"))
    np.testing.assert_allclose(found.value, 2.5, rtol=0.03)
    before, after = (
        softmax(2.5 * z),
        calibration.apply_temperature(softmax(2.5 * z), found.value, "multi-class"),
    )
    assert calibration.calibration_error(labels, after) < 0.02
    assert calibration.calibration_error(labels, before) > 0.1


def test_very_sure_mistakes_count_in_full():
    p = np.full((300, 2), (0.93, 0.07))
    p[:5] = 1e-20, 1.0
    labels = np.zeros(300, int)
    labels[5] = 1
    found = calibration.fit_temperature(labels, p, "multi-class", ("a", "b"))
    after = calibration.apply_temperature(p, found.value, "multi-class")
    assert calibration.cross_entropy(labels, after, "multi-class") < calibration.cross_entropy(
        labels, p, "multi-class"
    )
    z = np.log(p)
    exact = scipy.optimize.minimize_scalar(
        lambda t: -np.log(softmax(z / t)[np.arange(300), labels]).mean(),
        bounds=(1, 60),
        method="bounded",
    )
    np.testing.assert_allclose(found.value, exact.x, rtol=1e-3)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("task", TASKS)
def test_the_temperature_is_scipys_minimum_and_never_worse(task, seed):
    labels, probabilities = drawn(task, n=120, skill=0.3 + 0.2 * seed, seed=seed)
    own = probabilities[-1]
    found = calibration.fit_temperature(labels, own, task, names_of(task))
    after = calibration.apply_temperature(own, found.value, task)
    nll = lambda p: calibration.cross_entropy(labels, p, task)
    assert nll(after) <= nll(own) + 1e-7
    if task != "multi-label":
        z = np.log(own.astype(np.float64))
        loss = lambda t: sklearn_metrics.log_loss(labels, softmax(z / t))
        best = scipy.optimize.minimize_scalar(loss, bounds=(0.05, 20), method="bounded")
        np.testing.assert_allclose(found.value[0], best.x, rtol=1e-3)
        np.testing.assert_allclose(nll(own), loss(1), rtol=1e-5)
    assert np.array_equal(metrics.right(labels, after, task), metrics.right(labels, own, task))


def test_what_has_no_temperature_keeps_its_probabilities_and_says_why():
    labels = np.array([0, 1, 2, 0] * 3)
    right = softmax(3.0 * np.eye(3)[labels]).astype(np.float32)
    for given, note in (
        ((labels, right), "predicted correctly"),
        ((labels, np.roll(right, 1, axis=1)), "no better than chance"),
        ((np.zeros(12, int), right), "one class only"),
        ((labels[:9], right[:9]), "fewer than 10 validation images"),
    ):
        found = calibration.fit_temperature(*given, "multi-class", NAMES)
        assert found.value.tolist() == [1] and note in found.notes[0]
        after = calibration.apply_temperature(given[1], found.value, "multi-class")
        assert np.array_equal(after, given[1])
    flat = softmax(1e-3 * np.eye(3)[np.where(np.arange(12) < 9, labels, 1)])
    found = calibration.fit_temperature(labels, flat, "multi-class", NAMES)
    assert found.value.tolist() == [0.01] and "the same of all images" in found.notes[0]


def test_unknown_labels_do_not_count():
    labels, probabilities = drawn("multi-label", n=200)
    hidden = labels.copy()
    hidden[:100, 1] = -1
    own = probabilities[-1]
    found = calibration.fit_temperature(hidden, own, "multi-label", NAMES).value
    alone = calibration.fit_temperature(labels[100:], own[100:], "multi-label", NAMES).value
    whole = calibration.fit_temperature(labels, own, "multi-label", NAMES).value
    np.testing.assert_array_equal(found, [whole[0], alone[1], whole[2]])
    known = hidden >= 0
    flat = calibration.calibration_error(hidden[known][:, None], own[known][:, None])
    assert calibration.calibration_error(hidden, own) == flat


# ------------------------------------------------------------------------------- operating points


def test_curves_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.random(200) < 0.3
    scores = np.round(rng.random(200) + 0.4 * truth, 2)  # with ties
    found = thresholds.curve(truth, scores)
    fpr, tpr, at = sklearn_metrics.roc_curve(truth, scores, drop_intermediate=False)
    np.testing.assert_allclose(found.sensitivity, tpr)
    np.testing.assert_allclose(1 - found.specificity, fpr)
    np.testing.assert_allclose(found.thresholds, at)
    precision, recall, _ = sklearn_metrics.precision_recall_curve(truth, scores)
    kept = len(precision)
    np.testing.assert_allclose(found.precision[:kept][::-1], precision)
    np.testing.assert_allclose(found.sensitivity[:kept][::-1], recall)
    np.testing.assert_allclose(
        thresholds.average_precision(found), sklearn_metrics.average_precision_score(truth, scores)
    )


def test_operating_points_of_a_worked_example():
    truth = np.array([1, 1, 0, 1, 0, 0, 1, 0, 0, 0], bool)
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.05])
    point = lambda **kwargs: thresholds.operating_point(
        truth, scores, thresholds.make_rule(**kwargs) or thresholds.YOUDEN
    )
    assert point()[:3] == pytest.approx((0.55, 0.75, 5 / 6))
    assert point(sensitivity=0.95)[:3] == pytest.approx((0.25, 1, 0.5))
    assert point(specificity=0.95)[:3] == pytest.approx((0.75, 0.5, 1))
    assert point(sensitivity=0.5).threshold == pytest.approx(0.75)
    worst = thresholds.operating_point(truth, -scores + 1, Rule("sensitivity", 1.0))
    assert worst.specificity == 0 and "by deciding for the class always" in worst.note
    none = thresholds.operating_point(np.zeros(10, bool), scores, Rule())
    assert math.isnan(none.threshold) and "no positive" in none.note
    spared = thresholds.operating_point(
        np.repeat([True, False], (20, 100)),
        np.append(np.linspace(0.8, 1, 20), np.linspace(0, 0.5, 100)),
        Rule("specificity", 0.9),
    )  # No false alarm is bought that finds nothing.
    assert (spared.sensitivity, spared.specificity) == (1, 1)
    for wrong in ({"sensitivity": 0.0}, {"specificity": 2.0}, {"sensitivity": 1, "specificity": 1}):
        with pytest.raises(ConfigError, match="--s"):
            point(**wrong)


def test_wilsons_interval_is_that_of_the_literature():
    # Newcombe, "Two-sided confidence intervals for the single proportion", 1998, Table I, method 3.
    for successes, n, expected in ((81, 263, (0.2553, 0.3662)), (0, 20, (0, 0.1611))):
        np.testing.assert_allclose(small_samples.wilson(successes, n), expected, atol=5e-5)


# ------------------------------------------------------------------------------------------- sets


def test_sets_cover_what_they_promise_marginally_and_in_each_class():
    rng = np.random.default_rng(0)
    prior, covered, by_class = np.array([0.7, 0.2, 0.1]), [], []

    def draw(n):
        labels = rng.choice(3, size=n, p=prior)
        return labels, softmax(1.5 * np.eye(3)[labels] + rng.normal(size=(n, 3)))

    for _ in range(300):
        sets = conformal.fit(*draw(400), 0.9)
        labels, p = draw(1000)
        found = conformal.coverage(labels, conformal.members(sets, p))
        covered.append(found.overall)
        by_class.append(found.by_class)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.015)
    np.testing.assert_allclose(np.mean(by_class, axis=0), 0.9, atol=0.015)


def test_sets_cover_images_of_new_patients():
    rng = np.random.default_rng(0)
    covered = {True: [], False: []}

    def draw(patients, sizes):
        of = np.repeat(np.arange(patients), rng.choice(sizes, size=patients))
        return of, rng.normal(size=patients)[of] + 0.3 * rng.normal(size=len(of))

    for _ in range(400):
        of, scores = draw(12, (1, 5, 20))
        labels, p = np.ones(len(of), int), np.stack([-scores, scores], axis=1)
        _, new = draw(200, (1,))
        for grouped, found in covered.items():
            sets = conformal.fit(labels, p, 0.8, of if grouped else ())
            found.append(np.mean(new >= sets.least[1]))
    assert 0.79 <= np.mean(covered[True]) <= 0.88
    assert np.mean(covered[False]) < 0.79


def test_patients_are_counted_and_not_their_images():
    labels = np.repeat([0, 1], 30)
    p = softmax(np.eye(2)[labels] + np.random.default_rng(0).normal(size=(60, 2)))
    of = np.arange(60) // 4
    found = decisions.fit(labels, p[None], "binary-class", NAMES[:2], groups=of, coverage=0.9)
    assert found.sets.rare.tolist() == [True, True] and (found.sets.least == 0).all()
    assert any("fewer than the 9 validation patients" in note for note in found.notes)
    alone = conformal.fit(labels, p, 0.9, np.arange(60))
    np.testing.assert_array_equal(alone.least, conformal.fit(labels, p, 0.9).least)
    for k in (0, 1):  # the r-th lowest
        r = math.floor(31 * 0.1 + 1e-9)
        assert alone.least[k] == np.sort(p[labels == k, k])[r - 1]


def test_each_label_of_a_multi_label_task_is_covered():
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(100):
        parts = []
        for _ in range(2):
            labels = (rng.random((300, 2)) < (0.5, 0.2)).astype(int)
            parts.append((labels, 1 / (1 + np.exp(-2 * labels + 1 - rng.normal(size=(300, 2))))))
        sets = conformal.fit(*parts[0], 0.8)
        labels, p = parts[1]
        inside = conformal.members(sets, p)
        hits.append([inside[labels[:, k] == v, k, v].mean() for k in (0, 1) for v in (0, 1)])
    np.testing.assert_allclose(np.mean(hits, axis=0), 0.8, atol=0.02)


def test_a_class_too_rare_for_a_promise_is_in_every_set_and_named():
    assert [conformal.needed(c) for c in (0.5, 0.9, 0.95, 0.99)] == [1, 9, 19, 99]
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], (40, 9, 8))
    p = softmax(2 * np.eye(3)[labels] + rng.normal(size=(57, 3))).astype(np.float32)
    found = decisions.fit(labels, p[None], "multi-class", NAMES, coverage=0.9)
    assert found.sets.rare.tolist() == [False, False, True]
    assert found.sets.least[1] == pytest.approx(
        decisions.calibrated(found, p[None])[0][labels == 1, 1].min()
    )
    assert conformal.members(found.sets, p)[:, 2].all()
    assert any("c has fewer than the 9 validation images" in note for note in found.notes)
    with pytest.raises(ConfigError, match=r"--coverage=1.0"):
        conformal.fit(labels, p, 1.0)


# ------------------------------------------------------------------------------------------ doubt


def test_doubt_is_the_weighted_vote_against_the_answer():
    votes = np.array([[[0.9, 0.1]], [[0.4, 0.6]], [[0.2, 0.8]]])
    beta = np.array([[0.5, 0.25, 0.25]])
    of = lambda beta: doubt.doubt(votes[-1], votes, beta, "multi-class")[0]
    assert of(beta) == pytest.approx(0.5 * 0.9 + 0.25 * 0.4 + 0.25 * 0.2)
    assert of(None) == pytest.approx(1.5 / 3)
    alone = doubt.doubt(votes[-1], votes[-1:], None, "binary-class")
    assert alone[0] == pytest.approx(0.2)
    labels = doubt.doubt(votes[-1], votes, None, "multi-label")
    assert labels[0] == pytest.approx(np.mean([(0.9 + 0.4 + 0.2) / 3, (0.9 + 0.4 + 0.2) / 3]))


def test_risk_coverage_of_a_worked_example():
    wrong = np.array([1.0, 0, 0, 1])
    np.testing.assert_allclose(
        doubt.risk_coverage(wrong, np.array([0.9, 0.1, 0.2, 0.8])), [0, 0, 1 / 3, 1 / 2]
    )
    np.testing.assert_allclose(doubt.risk_coverage(wrong, np.zeros(4)), [0.5] * 4)
    draws = resampling.Draws(400, resamples=200)
    rng = np.random.default_rng(0)
    errors = (rng.random(400) < 0.3).astype(float)
    good, useless = errors + rng.normal(size=400), rng.normal(size=400)
    value, low, high = doubt.area_difference(errors, good, useless, draws)
    assert 0 < low < value < high


# -------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize("task", TASKS)
def test_scores_of_weighted_samples_are_those_of_repeated_samples(task):
    labels, probabilities = drawn(task, n=80)
    if task == "multi-label":
        labels[:20, 0] = -1
    own = np.round(probabilities[-1], 2)  # with ties
    draws = resampling.Draws(80, [i // 4 for i in range(80)], resamples=5)
    assert set(draws.counts[0].reshape(20, 4).std(axis=1)) == {0}  # whole patients
    for weighted, plain in (
        (resampling.accuracies, metrics.accuracy),
        (resampling.aucs, metrics.auc),
    ):
        found = weighted(labels, own, task, draws.weights())
        expected = [plain(labels, own, task)]
        expected += [plain(labels[rows], own[rows], task) for rows in draws.rows()]
        np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_patients_widen_the_interval_to_its_coverage():
    rng = np.random.default_rng(0)
    hits = {True: 0, False: 0}
    for seed in range(200):
        # 60 patients of 5 images; whether they are predicted rightly depends on the patient.
        skill = rng.beta(4 * 0.8, 4 * 0.2, size=60)
        right = rng.random((60, 5)) < skill[:, None]
        patients = np.repeat(np.arange(60), 5)
        for grouped in hits:
            draws = resampling.Draws(300, patients if grouped else (), resamples=300, seed=seed)
            found = resampling.ratio(right.ravel(), np.ones(300), draws)
            hits[grouped] += found.low <= 0.8 <= found.high
    assert 0.90 <= hits[True] / 200 <= 0.985
    assert hits[False] / 200 < 0.9


def test_a_worse_site_is_told_and_a_small_one_is_warned_of():
    rng = np.random.default_rng(0)
    labels = rng.integers(2, size=400)
    sites = np.array(["a"] * 200 + ["b"] * 190 + [""] * 10)
    skill = np.where(sites == "b", 0.0, 3.0)
    p1 = 1 / (1 + np.exp(-skill * (2 * labels - 1) - rng.normal(size=400)))
    p = np.stack([1 - p1, p1], axis=1)
    of = {each.value: each for each in subgroups.compare(labels, p, "binary-class", list(sites))}
    assert of["b"].acc_difference.high < 0 < of["a"].acc_difference.low
    assert of["b"].auc.value == pytest.approx(
        metrics.auc(labels[200:390], p[200:390], "binary-class")
    )
    assert of["a"].note == "" and "only 10 images" in of[subgroups.NONE].note
    (only,) = subgroups.compare(labels, p, "binary-class", ["x"] * 400)
    assert math.isnan(only.acc_difference.value)


def test_forty_images_of_one_patient_are_one():
    labels = np.random.default_rng(0).integers(2, size=240)
    p = np.eye(2)[labels]
    p[:3] = p[:3, ::-1]
    sites, patients = ["a"] * 40 + ["b"] * 200, [0] * 40 + list(range(1, 201))
    one, rest = subgroups.compare(labels, p, "binary-class", sites, patients)
    assert "only 1 patients or other groups" in one.note and rest.note == ""
    assert one.acc.high - one.acc.low > 0.7
    assert one.acc_difference.high - one.acc_difference.low > 0.7


# -------------------------------------------------------------------------------------- decisions


def test_labels_may_be_a_list_and_the_task_is_checked(unchecked):
    labels, probabilities = drawn("multi-class", n=150)
    names = names_of("multi-class")
    found = decisions.fit(labels.tolist(), probabilities.tolist(), "multi-class", names)
    expected = decisions.fit(labels, probabilities, "multi-class", names)
    np.testing.assert_array_equal(found.temperatures, expected.temperatures)
    with pytest.raises(DataError, match="task is 'multiclass'"):
        decisions.fit(labels, probabilities, "multiclass", names)


@pytest.mark.parametrize("task", TASKS)
def test_what_is_stored_decides_as_what_was_fitted(task):
    labels, probabilities = drawn(task, n=150)
    found = decisions.fit(
        labels, probabilities, task, names_of(task), rule=Rule("sensitivity", 0.9)
    )
    again = decisions.from_json(decisions.to_json(found))
    own = decisions.calibrated(found, probabilities)
    for a, b in zip(
        decisions.judge(found, own[-1], own, None),
        decisions.judge(again, decisions.calibrated(again, probabilities)[-1], own, None),
        strict=True,
    ):
        assert np.array_equal(a, b)
    judged = decisions.judge(found, own[-1], own, None)
    k = 1
    truth = labels[:, k] == 1 if task == "multi-label" else labels == k
    said = np.array([NAMES[k] in decision.split("|") for decision in judged.decisions])
    assert said[truth].mean() >= 0.9
    assert not said.all()
    inside = np.array([NAMES[k] in text.replace("?", "").split("|") for text in judged.sets])
    assert inside[truth].mean() >= 0.9


def test_truth_may_be_0_and_1_and_a_rule_has_a_name(unchecked):
    truth, scores = np.array([0, 1, 1, 0, 1]), np.array([0.1, 0.9, 0.4, 0.5, 0.7])
    for rule in (Rule("youden"), Rule("sensitivity", 0.9), Rule("specificity", 0.9)):
        found = thresholds.operating_point(truth, scores, rule)
        assert found == thresholds.operating_point(truth == 1, scores, rule)
    one, other = thresholds.curve(truth, scores), thresholds.curve(truth == 1, scores)
    assert thresholds.average_precision(one) == thresholds.average_precision(other)
    with pytest.raises(ConfigError, match="rule 'Sens', expected youden, sensitivity or specif"):
        thresholds.operating_point(truth, scores, Rule("Sens", 0.9))


def test_a_temperature_is_of_the_known_labels_of_one_shape(unchecked):
    labels, probabilities = drawn("multi-class")
    probabilities = probabilities[-1]
    unknown = np.where(np.arange(len(labels)) % 2, labels, -1)
    half = calibration.fit_temperature(labels[1::2], probabilities[1::2], "multi-class", NAMES)
    assert calibration.fit_temperature(unknown, probabilities, "multi-class", NAMES) == half
    found = calibration.cross_entropy(unknown, probabilities, "multi-class")
    assert found == calibration.cross_entropy(labels[1::2], probabilities[1::2], "multi-class")
    with pytest.raises(DataError, match="labels have shape"):
        calibration.fit_temperature(labels[:, None], probabilities, "multi-class", NAMES)
