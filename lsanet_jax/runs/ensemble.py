"""One run or several that answer together."""

import logging
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from flax import nnx
from jaxtyping import Float

from lsanet_jax.errors import ConfigError
from lsanet_jax.evaluation import decisions
from lsanet_jax.evaluation.thresholds import Rule
from lsanet_jax.runs.calibrated import Saved, read_calibration, read_predictions
from lsanet_jax.runs.layout import VALIDATION
from lsanet_jax.runs.manifest import tensor_digests
from lsanet_jax.runs.trained import TrainedModel, load
from lsanet_jax.runs.workdir import read_manifest

log = logging.getLogger(__name__)

Said = tuple[Float[np.ndarray, "l n k"], Float[np.ndarray, "n l"] | None]
"""What the classifiers of a run say of n images, shallow to deep; and beta, if there is any."""


def split_workdirs(workdir: str | pathlib.Path) -> list[pathlib.Path]:
    """The folders that --workdir names, joined by commas; a folder with a comma is one."""
    if pathlib.Path(workdir).exists():
        return [pathlib.Path(workdir)]
    return [pathlib.Path(path) for path in str(workdir).split(",")]


def load_members(
    workdirs: Sequence[pathlib.Path],
    checkpoint: str,
    *,
    own_data: bool,
    trust_code: bool = False,
) -> list[TrainedModel]:
    """Load the networks of runs that are to answer together.

    Args:
        workdirs: folders of the runs.
        checkpoint: see `trained.load`.
        own_data: whether they are to predict the data that they were trained on.
        trust_code: see `trained.load`.

    Raises:
        WorkdirError: one of them cannot be loaded.
        ConfigError: one is named twice or is a copy of another, they have other classes, or would
            predict what one of them was trained on.
    """
    places = [path.resolve() for path in workdirs]
    if twice := [
        path for path, place in zip(workdirs, places, strict=True) if places.count(place) > 1
    ]:
        raise ConfigError(f"--workdir names {twice[0]} twice: an ensemble takes different runs")
    members = [load(path, checkpoint, trust_code=trust_code) for path in workdirs]
    for path, member in zip(workdirs[1:], members[1:], strict=True):
        for what in ("class_names", "task"):
            first, other = members[0].dataset[what], member.dataset[what]
            if first != other:
                raise ConfigError(
                    f"--workdir: {workdirs[0]} has {what} {first}, but {path} has {other}: an "
                    "ensemble needs the same"
                )
        if own_data and member.dataset.get("fingerprint") != members[0].dataset.get("fingerprint"):
            raise ConfigError(
                f"--workdir: {workdirs[0]} and {path} were trained on other data, or on other "
                "splits of it, so one may have been trained on what the other is tested on: name "
                "new images with --input"
            )
    if len(members) == 1:
        return members
    seen: dict[str, pathlib.Path] = {}
    for path, member in zip(workdirs, members, strict=True):
        weights = str(tensor_digests(nnx.state(member.model)))
        if (first := seen.setdefault(weights, path)) is not path:
            raise ConfigError(
                f"--workdir: {first} and {path} hold the same weights, as copies of one run do: an "
                "ensemble takes different runs"
            )
    return members


class Answers(NamedTuple):
    """What one run or several say of n images.

    Attributes:
        probabilities: of each classifier, calibrated if the runs are; the last decides.
        beta: their weights, if there is attention; none of several runs.
        judged: decisions, sets and doubts; None if there is no calibration.
    """

    probabilities: Float[np.ndarray, "l n k"]
    beta: Float[np.ndarray, "n l"] | None
    judged: decisions.Judged | None


class Panel:
    """One run, or several whose answers are joined: the mean of their calibrated probabilities.

    Attributes:
        calibrations: of each run; empty unless all of them are calibrated.
        joint: of the joined answers; None if they cannot be calibrated.
    """

    def __init__(
        self,
        workdirs: Sequence[pathlib.Path],
        rule: Rule | None = None,
        coverage: float | None = None,
        *,
        raw: bool = False,
    ):
        """Read the calibrations.

        Several runs of one validation split get operating points and sets of their own, fitted on
        their joined answers. Runs of different validation splits, such as folds, get none: there is
        no image that none of them has seen.

        Args:
            workdirs: folders of the runs.
            rule: of the operating points; None for the stored one.
            coverage: of the sets; None for the stored one.
            raw: leave probabilities as the networks give them, and decide nothing.

        Raises:
            WorkdirError: a file is damaged.
            ConfigError: the coverage is not in (0, 1), or there is nothing to fit to.
        """
        self.calibrations: list[decisions.Calibration] = []
        self.joint = None if raw else self._read(workdirs, rule, coverage)
        if self.joint is None and (rule or coverage is not None):
            raise ConfigError(
                "--sensitivity, --specificity and --coverage need calibrated runs of one "
                "validation split: run lsanet calibrate, and leave out --raw, --tta and "
                "--checkpoint=last"
            )

    def _read(self, workdirs, rule, coverage) -> decisions.Calibration | None:
        found = [read_calibration(workdir, rule, coverage) for workdir in workdirs]
        missing = [str(path) for path, each in zip(workdirs, found, strict=True) if each is None]
        if missing:
            log.warning(
                "not calibrated, so nothing is decided: %s; see lsanet calibrate",
                ", ".join(missing),
            )
            return None
        self.calibrations = [each for each in found if each is not None]
        first = self.calibrations[0]
        if len(workdirs) == 1:
            return first
        saved = [read_predictions(path / VALIDATION) for path in workdirs]
        if not _of_one_split(workdirs, saved):
            log.warning("the runs have different validation splits: no decisions and no sets")
            return None
        answer = self._join([(each.probabilities, each.beta) for each in saved])[0]
        return decisions.fit(
            saved[0].labels,
            answer[None],
            first.task,
            first.class_names,
            groups=saved[0].groups,
            rule=first.rule,
            coverage=first.coverage,
        )

    def answer(self, said: Sequence[Said]) -> Answers:
        """Join what all classifiers of each run say of the same images, and judge it."""
        answer, votes, weights = self._join(said)
        if len(said) == 1:
            probabilities, beta = votes, said[0][1]
        else:
            if self.joint is not None:
                answer = decisions.calibrated(self.joint, answer[None])[0]
            probabilities, beta = answer[None], None
        if self.joint is None:
            return Answers(probabilities, beta, None)
        return Answers(probabilities, beta, decisions.judge(self.joint, answer, votes, weights))

    def _join(self, said: Sequence[Said]):
        """Mean of the own classifiers [n, k]; all votes [l, n, k] and their weights [n, l]."""
        votes, weights = [], []
        for i, (probabilities, beta) in enumerate(said):
            if self.calibrations:
                probabilities = decisions.calibrated(self.calibrations[i], probabilities)
            equal = np.full((probabilities.shape[1], len(probabilities)), 1 / len(probabilities))
            votes.append(probabilities)
            weights.append((equal if beta is None else beta) / len(said))
        answer = votes[0][-1] if len(votes) == 1 else np.mean([v[-1] for v in votes], axis=0)
        return answer, np.concatenate(votes), np.concatenate(weights, axis=1)


def _of_one_split(workdirs: Sequence[pathlib.Path], saved: Sequence[Saved]) -> bool:
    """Whether predictions are of the same images; sorted by class, folds may have equal labels."""
    first = saved[0]
    if not all(np.array_equal(first.labels, other.labels) for other in saved):
        return False
    if all(each.names for each in saved):
        return all(first.names == other.names for other in saved)
    return len({read_manifest(path)["dataset"].get("fingerprint") for path in workdirs}) == 1
