"""Fit calibration, operating points and sets of a run that was trained before runs did so.

Example:
  lsanet calibrate --workdir=runs/r18

Predicts the validation split of the run's own data, and writes validation.npz and calibration.json.
Training does so by itself. A run that has them keeps them, since its seal may hold them: to choose
another operating point or coverage, give predict, report or export the flags.
"""

import logging
import pathlib

import numpy as np

from lsanet_jax import predict
from lsanet_jax.errors import WorkdirError
from lsanet_jax.evaluation import decisions
from lsanet_jax.metrics import Predictions
from lsanet_jax.runs import trained as trained_lib
from lsanet_jax.runs.layout import CALIBRATION, SEAL, VALIDATION
from lsanet_jax.runs.workdir import save_predictions
from lsanet_jax.runtime import cli, strict_json
from lsanet_jax.runtime.files import json_text, write_atomically

log = logging.getLogger(__name__)


def calibrate(
    workdir: str | pathlib.Path, batch_size: int = 64, *, trust_code: bool = False
) -> pathlib.Path:
    """Calibrate a finished run that is not calibrated yet; `trust_code` is that of `trained.load`.

    Returns:
        The file `calibration.json`.

    Raises:
        LSANetError: the run or its data cannot be read, or it is calibrated already.
    """
    predict.check_batch_size(batch_size)
    path = pathlib.Path(workdir).absolute()
    file = path / CALIBRATION
    if strict_json.exists(file):
        raise WorkdirError(
            f"{file} exists: the run is calibrated. predict, report and export take --sensitivity, "
            "--specificity and --coverage"
        )
    if strict_json.exists(path / SEAL):
        raise WorkdirError(
            f"{path} is sealed without {CALIBRATION}: a new file would break its {SEAL}"
        )
    trained = trained_lib.load(path, trust_code=trust_code)
    val = predict.own_data(trained, "val")
    source = predict.from_array(val.images, predict.numbered("val", len(val.images)))
    probabilities, beta = predict.predict(
        trained, source, batch_size=batch_size, all_classifiers=True
    )
    task, names = trained.dataset["task"], tuple(trained.dataset["class_names"])
    found = decisions.fit(val.labels, probabilities, task, names, groups=val.groups)
    saved = Predictions(probabilities, np.zeros(probabilities.shape[:2], np.float32), beta)
    try:
        save_predictions(path / VALIDATION, saved, val, trained.epoch)
        write_atomically(file, json_text(decisions.to_json(found), indent=1))
    except OSError as error:
        raise WorkdirError(f"cannot write to --workdir={path}: {error}") from error
    for note in found.notes:
        log.warning("%s", note)
    return file


def main() -> None:
    """Calibrate the run that --workdir names."""
    parser = cli.parser(__doc__)
    parser.add_argument("--batch_size", type=int, default=64, help="images at a time (default: 64)")
    cli.add_trust_code(parser)
    args = parser.parse_args()
    cli.run(lambda: print(calibrate(**vars(args))))


if __name__ == "__main__":
    main()
