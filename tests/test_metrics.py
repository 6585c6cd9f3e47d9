"""ACC and AUC against MedMNIST's own evaluator."""

import contextlib
import io

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, recall_score

from lsanet_jax import metrics
from lsanet_jax.data.dataset import TASKS
from lsanet_jax.errors import DataError

with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
    from medmnist import evaluator  # prints a hint about PyTorch


def scores(task, n=200, k=5, seed=0):
    rng = np.random.default_rng(seed)
    if task == "multi-label":
        return rng.integers(2, size=(n, k)), rng.uniform(size=(n, k))
    k = 2 if task == "binary-class" else k
    return rng.integers(k, size=n), rng.dirichlet(np.ones(k), size=n)


@pytest.mark.parametrize(
    "task", ["multi-class", "binary-class", "ordinal-regression", "multi-label"]
)
def test_acc_and_auc_are_medmnists(task):
    theirs = "multi-label, binary-class" if task == "multi-label" else task
    for seed in range(5):
        labels, probabilities = scores(task, seed=seed)
        expected = evaluator.getAUC(labels, probabilities, theirs)
        assert metrics.auc(labels, probabilities, task) == pytest.approx(expected, abs=1e-12)
        expected = evaluator.getACC(labels, probabilities, theirs)
        assert metrics.accuracy(labels, probabilities, task) == pytest.approx(expected, abs=1e-12)


def test_tied_scores_count_as_medmnist_counts_them():
    labels, probabilities = scores("multi-class")
    probabilities = np.round(probabilities, 1)
    expected = evaluator.getAUC(labels, probabilities, "multi-class")
    assert metrics.auc(labels, probabilities, "multi-class") == pytest.approx(expected)
    expected = evaluator.getACC(labels, probabilities, "multi-class")
    assert metrics.accuracy(labels, probabilities, "multi-class") == expected


def test_a_class_without_samples_is_left_out_of_the_auc():
    labels, probabilities = scores("multi-class", k=3)
    with_empty = np.concatenate([probabilities, np.zeros((200, 1))], axis=1)
    expected = metrics.auc(labels, probabilities, "multi-class")
    assert metrics.auc(labels, with_empty, "multi-class") == expected
    assert np.isnan(metrics.auc(np.zeros(200, int), probabilities, "multi-class"))


def test_a_label_that_all_have_is_left_out_of_the_auc_and_one_positive_is_enough():
    labels, probabilities = scores("multi-label", n=20, k=3)
    labels[:, 0] = 1
    labels[:, 1] = np.arange(20) == 7
    expected = [evaluator.getAUC(labels[:, k], probabilities[:, k], "binary-class") for k in (1, 2)]
    found = metrics.auc(labels, probabilities, "multi-label")
    assert found == pytest.approx(np.mean(expected), abs=1e-12)


def test_unknown_labels_are_in_no_score():
    labels = np.array([[1, 0], [-1, 1], [0, -1], [1, 0]])
    p = np.array([[0.9, 0.2], [0.1, 0.4], [0.7, 0.9], [0.6, 0.3]])
    assert metrics.accuracy(labels, p, "multi-label") == 4 / 6
    assert metrics.auc(labels, p, "multi-label") == np.mean([1 / 2, 1])


def test_a_probability_of_one_half_is_a_no():
    half = np.full((2, 2), 0.5)
    assert metrics.right(np.array([0, 1]), half, "binary-class").tolist() == [True, False]
    answers = metrics.right(np.array([[0, 1], [1, 0]]), half, "multi-label")
    assert answers.tolist() == [[True, False], [False, True]]


def test_the_networks_own_classifier_is_the_last_of_any_number():
    labels, own = scores("multi-class", n=10, k=3)
    other = np.roll(own, 1, axis=-1)
    for probabilities in ([own], [other, other, own]):
        ce = np.arange(len(probabilities))[:, None] + np.zeros(10)
        predictions = metrics.gather([(np.stack(probabilities), ce, None)], 10)
        assert predictions.beta is None
        summary = metrics.summarize(predictions, labels, "multi-class", (2, 3, 4)[-len(ce) :])
        assert summary["loss"] == len(ce) - 1
        assert summary["acc"] == metrics.accuracy(labels, own, "multi-class")
        assert summary["recalls"] == metrics.recalls(labels, own, "multi-class").tolist()


def test_summary_drops_the_padding_of_the_last_batch():
    labels, own = scores("multi-class", n=10, k=3)
    shallow = np.roll(own, 1, axis=-1)
    padded = np.stack([shallow, own])[:, [*range(10), 9, 9]]
    beta = np.tile([0.25, 0.75], (12, 1))
    ce = np.tile(np.arange(12.0), (2, 1))
    batches = [(padded[:, i : i + 4], ce[:, i : i + 4], beta[i : i + 4]) for i in (0, 4, 8)]
    predictions = metrics.gather(batches, 10)
    np.testing.assert_array_equal(predictions.probabilities, [shallow, own])
    summary = metrics.summarize(predictions, labels, "multi-class", stages=(2, 4))
    assert summary["acc"] == metrics.accuracy(labels, own, "multi-class")
    assert summary["loss"] == 4.5
    assert summary["recalls"] == metrics.recalls(labels, own, "multi-class").tolist()
    assert summary["balanced_acc"] == metrics.balanced_accuracy(labels, own, "multi-class")
    assert [c["stage"] for c in summary["classifiers"]] == [2, 4]
    assert [c["beta"] for c in summary["classifiers"]] == [0.25, 0.75]
    assert summary["classifiers"][0]["auc"] == metrics.auc(labels, shallow, "multi-class")


def test_training_means_average_over_steps():
    Means = metrics.training_means(["loss", "synergy"])
    means = Means.empty()
    for loss in (1.0, 2.0, 6.0):
        means = means.merge(Means.single_from_model_output(loss=loss, synergy=2 * loss))
    assert {k: float(v) for k, v in means.compute().items()} == {"loss": 3.0, "synergy": 6.0}


@pytest.mark.parametrize(
    "task", ["multi-class", "binary-class", "ordinal-regression", "multi-label"]
)
def test_recalls_and_balanced_accuracy_are_scikit_learns(task):
    labels, probabilities = scores(task)
    if task == "multi-label":
        answers = (probabilities > 0.5).astype(int)
        each = [balanced_accuracy_score(t, a) for t, a in zip(labels.T, answers.T, strict=True)]
        expected = np.mean(each)
    else:
        answers = probabilities.argmax(axis=1)
        expected = balanced_accuracy_score(labels, answers)
    found = metrics.balanced_accuracy(labels, probabilities, task)
    assert found == pytest.approx(expected, abs=1e-12)
    recalls = metrics.recalls(labels, probabilities, task)
    np.testing.assert_allclose(recalls, recall_score(labels, answers, average=None))


def test_a_class_without_samples_has_no_recall_and_is_left_out_of_the_balance():
    recalls = metrics.recalls(np.array([0, 0, 2]), np.eye(3)[[0, 1, 2]], "multi-class")
    np.testing.assert_array_equal(recalls, [0.5, np.nan, 1])
    of = lambda labels, task: metrics.balanced_accuracy(np.array(labels), np.eye(2)[[0, 1]], task)
    assert of([0, 0], "multi-class") == 0.5
    assert np.isnan(of([[-1, -1], [-1, -1]], "multi-label"))


SCORES = [metrics.accuracy, metrics.auc, metrics.recalls, metrics.balanced_accuracy]


def test_the_tasks_are_those_of_datasets():
    assert metrics.TASKS == TASKS


@pytest.mark.parametrize("score", SCORES)
def test_lists_are_scored_as_arrays_are(score, unchecked):
    labels, probabilities = scores("multi-class")
    found = score(labels.tolist(), probabilities.tolist(), "multi-class")
    np.testing.assert_array_equal(found, score(labels, probabilities, "multi-class"))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize(
    ("labels", "probabilities", "task", "message"),
    [
        ([0, 1], np.eye(2), "multiclass", "task is 'multiclass', expected one of multi-class"),
        ([0, 1], np.eye(2), "multi-label", r"expected both \[n, k\]"),
        ([0, 1, 1], np.eye(2), "multi-class", r"shape \(3,\) and probabilities \(2, 2\)"),
        ([0, 2], np.eye(2), "binary-class", "labels range from 0 to 2, expected 0 to 1"),
        ([0.0, 1.0], np.eye(2), "binary-class", "labels are of dtype float64"),
        ([0, 1], np.full((2, 2), np.nan), "multi-class", "4 of 4 probabilities are nan"),
    ],
)
def test_what_cannot_be_scored_is_one_error(score, labels, probabilities, task, message, unchecked):
    with pytest.raises(DataError, match=message):
        score(labels, probabilities, task)


def test_an_image_without_a_label_is_in_no_score_of_classes():
    labels, probabilities = scores("multi-class")
    some = np.where(np.arange(len(labels)) < 50, -1, labels)
    for score in SCORES:
        expected = score(labels[50:], probabilities[50:], "multi-class")
        np.testing.assert_array_equal(score(some, probabilities, "multi-class"), expected)


def test_one_column_of_a_binary_task_has_two_classes(unchecked):
    labels, p = np.array([0, 1, 1, 0]), np.array([0.2, 0.3, 0.6, 0.1])
    both = np.stack([1 - p, p], axis=1)
    for score in (metrics.recalls, metrics.balanced_accuracy, metrics.auc):
        one = score(labels, p[:, None], "binary-class")
        np.testing.assert_array_equal(one, score(labels, both, "binary-class"))
    assert metrics.balanced_accuracy(labels, p[:, None], "binary-class") == 0.75


def test_nothing_has_no_auc():
    assert np.isnan(metrics.auc(np.zeros(0, int), np.zeros((0, 3)), "multi-class"))
