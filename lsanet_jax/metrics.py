"""ACC and AUC as MedMNIST defines them, and running means of the training losses."""

import math
from typing import NamedTuple

import numpy as np
from clu import metrics as clu_metrics
from jaxtyping import Bool, Float, Int

from lsanet_jax.errors import DataError

TASKS = ("multi-class", "binary-class", "ordinal-regression", "multi-label")
"""As `lsanet_jax.data.dataset.TASKS`."""


def checked(
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n k"],
    probabilities: Float[np.ndarray, "n k"],
    task: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities, which may be lists, as arrays; arguments as `right`.

    Raises:
      DataError: the task is unknown, the shapes do not fit it or each other, a label is not the
        number of a class, or a probability is nan or infinite.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    if task not in TASKS:
        raise DataError(f"task is {task!r}, expected one of {', '.join(TASKS)}.")
    multilabel = task == "multi-label"
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[: 1 + multilabel]:
        expected = "both [n, k]" if multilabel else "[n] and [n, k]"
        raise DataError(
            f"labels have shape {labels.shape} and probabilities {probabilities.shape}, expected "
            f"{expected} for task {task!r}."
        )
    if labels.size and labels.dtype.kind not in "iub":
        raise DataError(f"labels are of dtype {labels.dtype}, expected integers.")
    highest = 1 if multilabel else max(2, probabilities.shape[1]) - 1
    if labels.size and not -1 <= labels.min() <= labels.max() <= highest:
        raise DataError(
            f"labels range from {labels.min()} to {labels.max()}, expected 0 to {highest} (or -1, "
            f"unknown) for task {task!r} with {probabilities.shape[1]} column(s) of probabilities."
        )
    if bad := int(np.sum(~np.isfinite(probabilities))):
        raise DataError(
            f"{bad} of {probabilities.size} probabilities are nan or infinite: nothing is scored. "
            "Look at what predicted them."
        )
    return labels, probabilities


def accuracy(
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n k"],
    probabilities: Float[np.ndarray, "n k"],
    task: str,
) -> float:
    """Fraction of right answers, in [0, 1], as `medmnist.evaluator.getACC` computes it: `right`.

    Unknown labels (-1) do not count; nan if there is no other. For arguments see `right`.
    """
    answers = right(labels, probabilities, task)[np.asarray(labels) >= 0]
    return float(np.mean(answers)) if answers.size else float("nan")


def right(
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n k"],
    probabilities: Float[np.ndarray, "n k"],
    task: str,
) -> Bool[np.ndarray, " n"] | Bool[np.ndarray, "n k"]:
    """Which answers are right.

    Args:
      labels: class indices [n]; for multi-label 0 or 1 per label [n, k], or -1 if unknown.
      probabilities: of each class or label, in [0, 1].
      task: one of `lsanet_jax.data.dataset.TASKS`.

    Returns:
      Multi-class and ordinal: whether the most probable class (the first, if several tie) is right;
      binary: whether P(class 1) > 0.5 is; multi-label: the same of each label.

    Raises:
      DataError: see `checked`.
    """
    labels, probabilities = checked(labels, probabilities, task)
    if task == "multi-label":
        return (probabilities > 0.5) == labels
    if task == "binary-class":
        return (probabilities[:, -1] > 0.5) == labels
    return np.argmax(probabilities, axis=-1) == labels


def recalls(
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n k"],
    probabilities: Float[np.ndarray, "n k"],
    task: str,
) -> Float[np.ndarray, " k"]:
    """Of the samples of each class, or that have each label, the fraction with the right answer.

    In [0, 1]; nan for a class without samples. For arguments see `right`.
    """
    return _right_of(labels, probabilities, task, positive=True)


def balanced_accuracy(
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n k"],
    probabilities: Float[np.ndarray, "n k"],
    task: str,
) -> float:
    """Mean of `recalls`, in [0, 1]; for multi-label, of each label's sensitivity and specificity.

    Classes without samples are left out, as scikit-learn's `balanced_accuracy_score` does; nan if
    there is no other.
    """
    scores = _right_of(labels, probabilities, task, positive=True)
    if task == "multi-label":
        scores = (scores + _right_of(labels, probabilities, task, positive=False)) / 2
    scores = scores[~np.isnan(scores)]
    return float(np.mean(scores)) if scores.size else float("nan")


def _right_of(labels, probabilities, task: str, *, positive: bool) -> Float[np.ndarray, " k"]:
    """Of the samples that are of each class (or not), the fraction with the right answer."""
    answers = right(labels, probabilities, task)
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    num_classes = 2 if task == "binary-class" else probabilities.shape[1]
    if task == "multi-label":
        members = labels == int(positive)
    else:
        members = (labels[:, None] == np.arange(num_classes)) == positive
        answers = answers[:, None]
    count = members.sum(axis=0)
    return np.where(count, (answers & members).sum(axis=0) / np.maximum(count, 1), np.nan)


def auc(
    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n k"],
    probabilities: Float[np.ndarray, "n k"],
    task: str,
) -> float:
    """Area under the ROC curve, in [0, 1], as `medmnist.evaluator.getAUC` computes it.

    Binary: of P(class 1). Otherwise the mean over the classes, each against the rest
    (multi-class, ordinal), or over the labels. Classes for which `labels` holds only positives or
    only negatives have no AUC and are left out of the mean (MedMNIST's function fails there). So
    are samples whose label is unknown (-1), of multi-label for that label. For arguments see
    `right`.

    Returns:
      The AUC; nan if no class has one.
    """
    # Costs a second, and commands such as --help need none of it.
    from sklearn.metrics import roc_auc_score

    labels, probabilities = checked(labels, probabilities, task)
    if task == "binary-class":
        one_hot, scores = labels[:, None] == 1, probabilities[:, -1:]
    elif task == "multi-label":
        one_hot, scores = labels == 1, probabilities
    else:
        one_hot, scores = labels[:, None] == np.arange(probabilities.shape[1]), probabilities
    if not len(labels):
        return float("nan")
    known = np.broadcast_to(labels.reshape(len(labels), -1) >= 0, one_hot.shape)
    aucs = []
    for k in range(one_hot.shape[1]):
        truth, score = one_hot[known[:, k], k], scores[known[:, k], k]
        if 0 < truth.sum() < len(truth):
            aucs.append(roc_auc_score(truth, score))
    return float(np.mean(aucs or np.nan))


def training_means(names) -> type[clu_metrics.Collection]:
    """A `clu.metrics.Collection` that averages the step outputs of these names."""
    averages = {name: clu_metrics.Average.from_output(name) for name in names}
    return clu_metrics.Collection.create(**averages)


class Predictions(NamedTuple):
    """What every classifier says of a split, shallow to deep; the last one is the network's own."""

    probabilities: Float[np.ndarray, "l n k"]  # in [0, 1]
    ce: Float[np.ndarray, "l n"]  # cross entropy in nats
    beta: Float[np.ndarray, "n l"] | None


def gather(outputs, num: int) -> Predictions:
    """Join what the evaluation step returned for each batch, and cut it off after `num` samples."""
    probabilities, ce, beta = zip(*outputs, strict=True)
    return Predictions(
        np.concatenate(probabilities, axis=1)[:, :num],
        np.concatenate(ce, axis=1)[:, :num],
        None if beta[0] is None else np.concatenate(beta)[:num],
    )


def summarize(
    predictions: Predictions, labels: np.ndarray, task: str, stages: tuple[int, ...]
) -> dict:
    """Scores of every classifier on a split.

    Args:
      predictions: for all samples of the split.
      labels: of the split.
      task: one of `lsanet_jax.data.dataset.TASKS`.
      stages: the classifiers' stages, shallow to deep.

    Returns:
      `acc`, `balanced_acc`, `auc`, `loss` and, by class, `recalls` of the network's own classifier;
      and `classifiers`: for each `stage`, `acc`, `balanced_acc`, `auc`, `loss` (mean cross entropy
      of the known labels, in nats) and, with attention, `beta` (its mean weight).
    """
    probabilities, ce, beta = predictions
    known = float(np.mean(labels >= 0))  # The others count as 0 in `ce`.
    classifiers = []
    for i, stage in enumerate(stages):
        classifier = {
            "stage": stage,
            "acc": accuracy(labels, probabilities[i], task),
            "balanced_acc": balanced_accuracy(labels, probabilities[i], task),
            "auc": auc(labels, probabilities[i], task),
            "loss": float(np.mean(ce[i], dtype=np.float64)) / known if known else math.nan,
        }
        if beta is not None:
            classifier["beta"] = float(np.mean(beta[:, i], dtype=np.float64))
        classifiers.append(classifier)
    own = {name: classifiers[-1][name] for name in ("acc", "balanced_acc", "auc", "loss")}
    recall = recalls(labels, probabilities[-1], task).tolist()
    return own | {"recalls": recall, "classifiers": classifiers}
