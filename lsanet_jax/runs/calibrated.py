"""What a run predicts for its own splits, and what was fitted on its validation split."""

import pathlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from lsanet_jax.errors import WorkdirError
from lsanet_jax.evaluation import decisions
from lsanet_jax.evaluation.decisions import Calibration
from lsanet_jax.evaluation.thresholds import Rule
from lsanet_jax.runs import seal, stored
from lsanet_jax.runs.layout import CALIBRATION, MANIFEST, PREDICTIONS, RESULT, VALIDATION
from lsanet_jax.runs.workdir import read_manifest, read_result
from lsanet_jax.runtime import strict_json

_NUMBER = (float, None)
SHAPE = {
    "task": str,
    "classes": [str],
    "validation_images": int,
    "temperatures": [[float]],
    "rule": {"name": str, "value": _NUMBER},
    "operating_points": [
        {
            "class": str,
            **dict.fromkeys(("threshold", "sensitivity", "specificity"), _NUMBER),
            "note": str,
        }
    ],
    "coverage": float,
    "least_probability": [(float, [float])],
    "too_rare": [(bool, [bool])],
    "notes": [str],
}


class Saved(NamedTuple):
    """What every classifier says of a split, shallow to deep; the last is the network's own.

    Attributes:
        labels: [n], or [n, k] for multi-label.
        probabilities: of each classifier.
        beta: weight of each classifier, if there is attention.
        epoch: that predicts.
        names: of the images, if they were files.
        groups: numbers of their patients or other groups, if they are known.
    """

    labels: np.ndarray
    probabilities: Float[np.ndarray, "l n k"]
    beta: Float[np.ndarray, "n l"] | None
    epoch: int
    names: tuple[str, ...] = ()
    groups: tuple[int, ...] = ()


def read_predictions(file: pathlib.Path) -> Saved:
    """Read `predictions.npz` or `validation.npz`.

    Raises:
        WorkdirError: there is no such file, or it is damaged.
    """
    if not file.exists():
        what = "the run is not finished" if file.name == PREDICTIONS else "run lsanet calibrate"
        raise WorkdirError(f"{file} does not exist: {what}")
    arrays = stored.read_arrays(file)
    try:
        labels, probabilities = arrays["labels"], arrays["probabilities"]
        of_files = (tuple(arrays[n].tolist()) if n in arrays else () for n in ("names", "groups"))
        found = Saved(labels, probabilities, arrays.get("beta"), int(arrays["epoch"]), *of_files)
        _check_arrays(found)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise stored.damaged(file, error) from error
    return found


def _check_arrays(found: Saved) -> None:
    """Check that arrays are of the kinds and shapes that fit each other; raises a ValueError."""
    labels, probabilities, beta, *_ = found
    if labels.dtype.kind not in "iu" or probabilities.dtype.kind != "f":
        raise ValueError(f"labels are {labels.dtype} and probabilities {probabilities.dtype}")
    shape = probabilities.shape
    wanted = (shape[1:], shape[1:2])[labels.ndim == 1]
    if len(shape) != 3 or 0 in shape or labels.shape != wanted:
        raise ValueError(f"labels of shape {labels.shape}, probabilities of shape {shape}")
    if not np.isfinite(probabilities).all() or probabilities.min() < 0 or probabilities.max() > 1.1:
        raise ValueError("there are values that are not probabilities")
    low, high = (0, shape[2] - 1) if labels.ndim == 1 else (-1, 1)
    if labels.min() < low or labels.max() > high:
        raise ValueError(f"labels range from {labels.min()} to {labels.max()}")
    if any(len(values) not in (0, len(labels)) for values in (found.names, found.groups)):
        raise ValueError("it has other numbers of names or groups than of labels")
    if beta is not None and (
        beta.dtype.kind != "f" or beta.shape != shape[1::-1] or not np.isfinite(beta).all()
    ):
        raise ValueError(f"beta is {beta.dtype} of shape {beta.shape}, or not finite")


def _check_fits(found: Calibration, path: pathlib.Path) -> None:
    """Check that a calibration is of the network of a run; raises a ValueError."""
    about = read_manifest(path)["dataset"]
    for what, here, there in (
        ("task", found.task, about["task"]),
        ("classes", list(found.class_names), about["class_names"]),
    ):
        if here != there:
            raise ValueError(f"{what}: {here}, but {there} in {MANIFEST}")
    if strict_json.exists(path / RESULT):
        count = len(read_result(path)["classifiers"])
        if len(found.temperatures) != count:
            raise ValueError(f"temperatures of {len(found.temperatures)} classifiers, not {count}")


def read_calibration(
    workdir: str | pathlib.Path, rule: Rule | None = None, coverage: float | None = None
) -> Calibration | None:
    """Read what is stored with a run, or fit it anew on what is stored of its validation split.

    Args:
        workdir: folder of the run.
        rule: of the operating points; None for the stored one.
        coverage: of the sets; None for the stored one.

    Returns:
        None if nothing is stored: an unfinished run, or one of before runs were calibrated.

    Raises:
        WorkdirError: a file is damaged, or is not what was sealed.
        ConfigError: the coverage is not in (0, 1).
    """
    path = pathlib.Path(workdir).absolute()
    file = path / CALIBRATION
    seal.check(path, (CALIBRATION, VALIDATION))
    if not file.exists():
        return None
    content = strict_json.read_json(file, SHAPE)
    try:
        found = decisions.from_json(content)
        _check_fits(found, path)
    except ValueError as error:
        raise WorkdirError(
            f"{file} is damaged ({error}); restore it, or remove it and run lsanet calibrate"
        ) from error
    if rule in (None, found.rule) and coverage in (None, found.coverage):
        return found
    saved = read_predictions(path / VALIDATION)
    count, _, width = saved.probabilities.shape
    multilabel = found.task == "multi-label"
    if (count, width) != (len(found.temperatures), len(found.class_names)) or (
        multilabel != (saved.labels.ndim == 2)
    ):
        raise stored.damaged(path / VALIDATION, f"it does not fit {CALIBRATION}")
    return decisions.fit(
        saved.labels,
        saved.probabilities,
        found.task,
        found.class_names,
        groups=saved.groups,
        rule=rule or found.rule,
        coverage=found.coverage if coverage is None else coverage,
    )
