"""What a finished run says of the test split: its `predictions.npz`, checked against its result."""

import io
import math
import pathlib
import zipfile
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from lsanet_jax import metrics
from lsanet_jax.errors import DataError, WorkdirError
from lsanet_jax.evaluation import statistics
from lsanet_jax.runs.layout import PREDICTIONS, RESULT
from lsanet_jax.runtime import strict_json

_OF_FILES = ("names", "groups")


class Predictions(NamedTuple):
    """The classifiers' predictions for the test split, at the epoch that the run reports."""

    labels: Int[np.ndarray, " n"] | Int[np.ndarray, "n k"]
    probabilities: Float[np.ndarray, "l n k"]  # shallow to deep; the last is the network's own
    names: tuple[str, ...] = ()  # of the images, if they were files
    groups: tuple[int, ...] = ()  # numbers of their patients or other groups, if they are known


def read_predictions(workdir: pathlib.Path, result: dict) -> Predictions | None:
    """Read the predictions of a finished run; None if there are none, as in the first versions.

    Args:
        workdir: folder of the run.
        result: of the run.

    Raises:
        WorkdirError: they are damaged, or the scores of the result do not follow from them.
    """
    file = workdir / PREDICTIONS
    if not strict_json.exists(file):
        return None
    arrays = read_arrays(file)
    try:
        labels, probabilities, epoch = (
            arrays[name] for name in ("labels", "probabilities", "epoch")
        )
        epoch = int(epoch)
        names, groups = (tuple(arrays[n].tolist()) if n in arrays else () for n in _OF_FILES)
    except KeyError as error:
        raise damaged(file, error.args[0]) from error
    except (TypeError, ValueError, OverflowError) as error:
        raise damaged(file, error) from error
    task, shape = result["task"], probabilities.shape
    count = len(result["classifiers"])
    wanted = shape[1:] if task == "multi-label" else shape[1:2]
    if len(shape) != 3 or 0 in shape or shape[0] != count or labels.shape != wanted:
        found = f"labels of shape {labels.shape} and probabilities of shape {shape}"
        raise damaged(file, f"{found} for {count} classifiers and {task}")
    if labels.dtype.kind not in "iu" or probabilities.dtype.kind != "f":
        found = f"labels are {labels.dtype} and probabilities {probabilities.dtype}"
        raise damaged(file, found)
    for name, values in zip(_OF_FILES, (names, groups), strict=True):
        if len(values) not in (0, len(labels)):
            raise damaged(file, f"{len(values)} {name} for {len(labels)} labels")
    if epoch != result["best_epoch"]:
        found = f"they are for epoch {epoch}, {RESULT} for epoch {result['best_epoch']}"
        raise damaged(file, found)
    _check_scores(file, labels, probabilities, result)
    return Predictions(labels, probabilities, names, groups)


def read_arrays(file: pathlib.Path) -> dict[str, np.ndarray]:
    """Read the arrays of an npz file of ours, which is not compressed.

    Raises:
        WorkdirError: it is damaged, or would take more memory than it has bytes.
    """
    data = strict_json.read_bytes(file)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
            size = sum(member.file_size for member in archive.infolist())
        if size > len(data) or len(set(names)) != len(names):
            raise ValueError("its members are compressed, or one is there twice")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # whatever zipfile and NumPy make of damaged bytes
        raise damaged(file, error) from error


def _check_scores(
    file: pathlib.Path, labels: np.ndarray, probabilities: np.ndarray, result: dict
) -> None:
    task = result["task"]
    for classifier, own in zip(result["classifiers"], probabilities, strict=True):
        try:
            statistics.recall_per_class(labels, own, task)  # which checks both
        except DataError as error:
            raise damaged(file, error) from error
        auc, _ = statistics.auc_variance(labels, own, task)
        acc = metrics.accuracy(labels, own, task)
        for name, here, there in (
            ("accuracy", acc, classifier["acc"]),
            ("AUC", auc, math.nan if classifier["auc"] is None else classifier["auc"]),
        ):
            if not np.isclose(here, there, rtol=0, atol=1e-5, equal_nan=True):
                found = (
                    f"the {name} of stage {classifier['stage']} is {here:.6f} by them but "
                    f"{there:.6f} in {RESULT}"
                )
                raise damaged(file, found)


def damaged(file: pathlib.Path, found: object) -> WorkdirError:
    """An error about a file of a run."""
    return WorkdirError(
        f"{file} is damaged or belongs to another run ({found}); restore it, or remove "
        f"{file.parent} and train the run again"
    )
