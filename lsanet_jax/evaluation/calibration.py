"""Calibration of probabilities by temperature: NumPy in float64, no I/O.

Reference: Guo et al., "On calibration of modern neural networks", ICML 2017, Section 4.2.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from lsanet_jax import metrics
from lsanet_jax.evaluation import statistics

Labels = Int[np.ndarray, " n"] | Int[np.ndarray, "n k"]
Probabilities = Float[np.ndarray, "n k"]

FEWEST = 10
"""Samples from which on a temperature may be fitted."""

_LEAST = 2.0**-24  # Half of float32's step below 1: what a probability of 1 may have been.
LARGEST_LOGIT = float(np.log1p(-_LEAST) - np.log(_LEAST))  # of a label, that such p tell
_TINY = float(np.finfo(np.float32).tiny)  # What a probability of 0 among several may have been.
_INVERSE = (0.01, 100.0)  # Between these 1 / temperature is looked for.


class Temperature(NamedTuple):
    """What divides the logits.

    Attributes:
        value: one temperature, or for multi-label one of each label; 1 leaves all as it was.
        notes: why one of them could not be found, and is 1.
    """

    value: Float[np.ndarray, " t"]
    notes: tuple[str, ...]


def fit_temperature(
    labels: Labels, probabilities: Probabilities, task: str, class_names: tuple[str, ...]
) -> Temperature:
    """Find the temperature with the least cross entropy on these samples.

    The cross entropy is convex in 1 / temperature, so the result is never worse than temperature 1.
    It has no minimum if every sample is predicted correctly, however small the margin, or if the
    probabilities say less than chance.

    Args:
        labels: class indices; for multi-label 0 or 1 per label, or -1 if unknown.
        probabilities: of each class or label.
        task: one of `lsanet_jax.data.dataset.TASKS`.
        class_names: for the notes.
    """
    labels, probabilities = metrics.checked(labels, probabilities, task)
    if task != "multi-label":
        known = labels >= 0
        z = np.log(np.maximum(np.asarray(probabilities[known], np.float64), _TINY))
        value, problem = _least_cross_entropy(z, labels[known])
        return Temperature(np.array([value]), (problem,) if problem else ())
    z, values, notes = _logit(probabilities), [], []
    for k, name in enumerate(class_names):
        known = labels[:, k] >= 0
        two = np.stack([np.zeros(known.sum()), z[known, k]], axis=1)
        value, problem = _least_cross_entropy(two, labels[known, k])
        values.append(value)
        notes += [f"{name}: {problem}"] * bool(problem)
    return Temperature(np.array(values), tuple(notes))


def apply_temperature(
    probabilities: Float[np.ndarray, "... k"], temperature: Float[np.ndarray, " t"], task: str
) -> Float[np.ndarray, "... k"]:
    """Divide the logits by the temperature; a temperature of 1 returns the same bits.

    Args:
        probabilities: of each class or label, in [0, 1].
        temperature: `Temperature.value`: [1], or for multi-label [k]; above 0.
        task: one of `lsanet_jax.data.dataset.TASKS`.

    Returns:
        Probabilities of the same shape and type.
    """
    if np.all(temperature == 1):
        return probabilities
    if task == "multi-label":
        scaled = 1 / (1 + np.exp(-_logit(probabilities) / temperature))
    else:
        z = np.log(np.maximum(np.asarray(probabilities, np.float64), _TINY)) / temperature
        e = np.exp(z - z.max(axis=-1, keepdims=True))
        scaled = e / e.sum(axis=-1, keepdims=True)
    return scaled.astype(probabilities.dtype)


def cross_entropy(labels: Labels, probabilities: Probabilities, task: str) -> float:
    """Mean negative log-likelihood in nats; for multi-label over the known labels."""
    labels, probabilities = metrics.checked(labels, probabilities, task)
    if task != "multi-label":
        labels, probabilities = labels[labels >= 0], probabilities[labels >= 0]
        chosen = np.asarray(probabilities, np.float64)[np.arange(len(labels)), labels]
        return float(-np.log(np.maximum(chosen, _TINY)).mean()) + 0.0  # not -0.0
    known, p = labels >= 0, np.clip(np.asarray(probabilities, np.float64), _LEAST, 1 - _LEAST)
    return float(-np.log(np.where(labels == 1, p, 1 - p))[known].mean()) + 0.0


def reliability(
    labels: Labels, probabilities: Probabilities, bins: int = 15
) -> statistics.Reliability:
    """`statistics.reliability` of the known labels."""
    return statistics.reliability(*_known(labels, probabilities), bins)


def calibration_error(labels: Labels, probabilities: Probabilities, bins: int = 15) -> float:
    """`statistics.expected_calibration_error` of the known labels, in [0, 1]."""
    return statistics.expected_calibration_error(*_known(labels, probabilities), bins)


def _known(labels: Labels, probabilities: Probabilities) -> tuple[np.ndarray, np.ndarray]:
    if labels.ndim == 1:
        return labels, probabilities
    known: Bool[np.ndarray, "n k"] = labels >= 0
    return labels[known][:, None], probabilities[known][:, None]


def _logit(probabilities: Float[np.ndarray, "... k"]) -> Float[np.ndarray, "... k"]:
    p = np.clip(np.asarray(probabilities, np.float64), _LEAST, 1 - _LEAST)
    return np.log(p) - np.log1p(-p)


def _least_cross_entropy(
    z: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"]
) -> tuple[float, str]:
    """The temperature of logits z, and why there is none."""
    if len(labels) < FEWEST:
        return 1.0, f"fewer than {FEWEST} validation images: not calibrated"
    if len(np.unique(labels)) < 2:
        return 1.0, "the validation split has one class only: not calibrated"
    own = z[np.arange(len(z)), labels]

    def slope(inverse: float) -> float:
        """Derivative of the cross entropy by 1 / temperature, which grows with it."""
        e = np.exp(inverse * (z - z.max(axis=1, keepdims=True)))
        return float(np.mean((e * z).sum(axis=1) / e.sum(axis=1) - own))

    low, high = _INVERSE
    if slope(high) <= 0:
        if (z.argmax(axis=1) == labels).all():
            return 1.0, "every validation image is predicted correctly: no temperature can be found"
        return 1 / high, "the network says the same of all images, almost: the least temperature"
    if slope(low) > 0:
        return 1.0, "the predictions of the validation split are no better than chance"
    for _ in range(60):  # Halves the interval of the logarithm down to rounding.
        middle = float(np.sqrt(low * high))
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / float(np.sqrt(low * high)), ""
