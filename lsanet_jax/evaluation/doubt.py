"""How far to trust each answer: the disagreement of the classifiers. NumPy, no I/O.

References: El-Yaniv and Wiener, "On the foundations of noise-free selective classification", JMLR
2010 (risk-coverage curves); Geifman et al., "Bias-reduced uncertainty estimation for deep neural
classifiers", ICLR 2019 (their area).
"""

import numpy as np
from jaxtyping import Float

from lsanet_jax import metrics
from lsanet_jax.evaluation.resampling import Draws, interval


def doubt(
    answer: Float[np.ndarray, "n k"],
    votes: Float[np.ndarray, "l n k"],
    beta: Float[np.ndarray, "n l"] | None,
    task: str,
) -> Float[np.ndarray, " n"]:
    """Weigh the classifiers' votes against the answer.

    doubt_i = sum_l w_il (1 - p_il[a_i]), where a_i is the answer, p_il what classifier l says and
    w_il its weight: beta, or 1 / L without it. With one classifier it is 1 - its confidence. For
    multi-label it is the mean over the labels, of which each has its own answer, yes or no.

    Args:
        answer: the probabilities that decide.
        votes: those of each classifier.
        beta: weight of each classifier; rows sum to 1.
        task: one of `lsanet_jax.data.dataset.TASKS`.

    Returns:
        The doubt of each sample, in [0, 1].
    """
    if task == "multi-label":
        agreeing = np.where(answer > 0.5, votes, 1 - votes).mean(axis=-1)
    elif task == "binary-class":  # At exactly 1/2 `metrics.right` takes the first class.
        chosen = (answer[:, -1] > 0.5).astype(int)
        agreeing = votes[:, np.arange(len(answer)), chosen]
    else:
        agreeing = votes[:, np.arange(len(answer)), answer.argmax(axis=-1)]
    weights = np.full((len(answer), len(votes)), 1 / len(votes)) if beta is None else beta
    return 1 - np.einsum("ln,nl->n", agreeing, weights)


def errors(labels: np.ndarray, answer: Float[np.ndarray, "n k"], task: str) -> np.ndarray:
    """1 for each wrong answer [n]; for multi-label the share of the known labels that is wrong."""
    wrong = ~metrics.right(labels, answer, task)
    if task != "multi-label":
        return wrong.astype(np.float64)
    known = labels >= 0
    return (wrong & known).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def risk_coverage(
    wrong: Float[np.ndarray, " n"], doubts: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Mean error of the i least doubtful samples, i = 1 ... n; equal doubts share their errors.

    Args:
        wrong: the error of each sample, in [0, 1], of `errors`.
        doubts: of each sample, in any unit; only their order counts.
    """
    order = np.argsort(doubts, kind="stable")
    _, group, counts = np.unique(doubts[order], return_inverse=True, return_counts=True)
    shared = np.bincount(group, wrong[order]) / counts
    return np.cumsum(shared[group]) / np.arange(1, len(wrong) + 1)


def area_difference(
    wrong: Float[np.ndarray, " n"],
    first: Float[np.ndarray, " n"],
    second: Float[np.ndarray, " n"],
    draws: Draws,
) -> tuple[float, float, float]:
    """Area below the risk-coverage curve of `second` minus that of `first`, and its interval."""

    def difference(rows: np.ndarray) -> float:
        a, b = (risk_coverage(wrong[rows], d[rows]).mean() for d in (first, second))
        return float(b - a)

    found = np.array([difference(rows) for rows in draws.rows()])
    return difference(np.arange(len(wrong))), *interval(found)
