"""The power law through learning curves that are made to known laws, and through others."""

import numpy as np
import pytest

from lsanet_jax.errors import DataError
from lsanet_jax.evaluation import learning_curve

FRACTIONS = np.array([0.01, 0.05, 0.1, 0.25, 0.5, 1.0])
LAWS = {  # c, a, b and the number of labels: of AUCs in percent
    "steep": (96.0, 150.0, 0.5, 7000),
    "shallow": (100.0, 40.0, 0.2, 7000),
    "few labels": (93.0, 90.0, 0.6, 1080),
}


def runs(law, noise=1.0, seeds=3, *, rng):
    """The labels and scores of some runs; the standard deviation falls from 2.4 to 0.5."""
    c, a, b, most = law
    n = np.repeat(FRACTIONS * most, seeds)
    sd = noise * 0.5 * (n / most) ** -0.34
    return n, np.minimum(c - a * n**-b + sd * rng.normal(size=len(n)), 100)


def truth(law, n):
    c, a, b, _ = law
    return c - a * np.asarray(n, float) ** -b


@pytest.mark.parametrize("name", LAWS)
def test_with_little_noise_the_law_is_found(name):
    law, rng = LAWS[name], np.random.default_rng(0)
    curve = learning_curve.fit(*runs(law, noise=0.05, rng=rng))
    n = FRACTIONS * law[3]
    assert not curve.silent
    np.testing.assert_allclose(curve.at(n)[0], truth(law, n), atol=0.2)
    gained = truth(law, 2 * law[3]) - truth(law, law[3])
    assert curve.gain(2).value == pytest.approx(gained, abs=0.1)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n == "steep")) for n in LAWS]
)
def test_the_band_covers_the_law_as_often_as_it_says(name):
    law = LAWS[name]
    rng = np.random.default_rng(1)
    gained = truth(law, 2 * law[3]) - truth(law, law[3])
    asked = np.array([0.1, 1.0, 2.0]) * law[3]
    covered = []
    for _ in range(200):
        curve = learning_curve.fit(*runs(law, rng=rng))
        _, low, high = curve.at(asked)
        gain = curve.gain(2)
        within = (low <= truth(law, asked)) & (truth(law, asked) <= high)
        covered.append([*within, gain.low <= gained <= gain.high])
    share = np.mean(covered, axis=0)
    assert (share >= 0.90).all(), share
    assert (share <= 0.99).all(), share


def test_a_flat_curve_and_a_noisy_one_make_no_claim():
    rng = np.random.default_rng(2)
    claims = 0
    for _ in range(100):
        curve = learning_curve.fit(*runs((80.0, 0.0, 1.0, 1000), rng=rng))
        claims += not curve.silent
    assert claims <= 5
    noisy = learning_curve.fit(*runs((80.0, 3.0, 0.3, 1000), noise=8, rng=rng))
    assert "do not rise with the labels by more than chance" in noisy.silent
    assert learning_curve.sentence(noisy, "AUC").startswith("These runs do not say")


def test_a_curve_that_is_no_power_law_makes_no_claim():
    n = np.repeat(FRACTIONS * 1000, 3)
    rng = np.random.default_rng(3)
    steps = np.where(n > 300, 90.0, 60.0) + 0.1 * rng.normal(size=len(n))
    assert "do not follow an inverse power law" in learning_curve.fit(n, steps).silent


def test_three_numbers_of_labels_do_not_determine_a_law():
    curve = learning_curve.fit([10, 100, 1000], [60, 70, 75])
    assert "at least 4 numbers of labels, and there are 3" in curve.silent


def test_the_labels_that_a_score_takes_are_those_of_the_law():
    law = LAWS["steep"]
    curve = learning_curve.fit(*runs(law, noise=0.1, rng=np.random.default_rng(4)))
    needed = curve.reach(95.0)  # 96 - 150 n^-0.5
    assert needed.low < 22500 < needed.high
    assert curve.reach(99.9).high == np.inf


def test_the_sentence_says_what_twice_the_labels_bring_and_what_a_score_takes():
    draws = np.tile([96.0, 150.0, 0.5], (3, 1))
    curve = learning_curve.LearningCurve(draws[0], draws, 5000.0)
    said = learning_curve.sentence(curve, "AUC")
    assert said == (
        "Twice the labels: AUC +0.6 [0.6, 0.6]; to reach 95.0 about 22,000 [22,000, 22,000] labels."
    )
    never, distant = [92.3, 40.0, 0.5], [93.1, 97.0, 0.5]  # the latter after 940,900 labels
    for laws, end in (
        ([never, never, never], "93.0 is out of their reach, however many there are."),
        ([never, never, distant], "to reach 93.0 takes at least 940,000 labels, if ever."),
        (
            [never, never, [96.0, 150.0, 0.5]],
            "these runs do not say how many it takes to reach 93.0.",
        ),
    ):
        curve = learning_curve.LearningCurve(np.array(never), np.array(laws), 5000.0)
        assert learning_curve.sentence(curve, "AUC").endswith(end)


def test_of_scores_that_level_off_the_little_gain_is_said():
    law, rng = (92.0, 300.0, 0.9, 1000), np.random.default_rng(7)
    gained, covered = truth(law, 2000) - truth(law, 1000), []
    for _ in range(60):
        curve = learning_curve.fit(*runs(law, rng=rng))
        if not curve.silent:
            assert learning_curve.sentence(curve, "AUC").startswith("Twice the labels: AUC +0.")
            gain = curve.gain(2)
            covered.append(gain.low <= gained <= gain.high)
    assert len(covered) >= 55 and np.mean(covered) >= 0.85


def test_equal_scores_make_no_claim():
    curve = learning_curve.fit(np.repeat([10, 20, 40, 80, 160], 2), np.full(10, 81.0))
    assert "do not rise with the labels by more than chance" in curve.silent


def test_scores_that_are_not_finite_are_refused():
    with pytest.raises(DataError, match="as many numbers > 0 as finite scores"):
        learning_curve.fit([1, 2, 3, 4], [50, 60, float("nan"), 70])
