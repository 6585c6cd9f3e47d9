"""Send a run's numbers to an experiment tracker as they are written: `lsanet train --track=NAME`.

Each tracker keeps its own settings (MLFLOW_TRACKING_URI, WANDB_PROJECT and the like), and is a
package of its own, such as mlflow. What it gets is what TensorBoard gets, the config and, at the
end, the result.
"""

import importlib
import logging
import math
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Self

from lsanet_jax.errors import ConfigError

log = logging.getLogger(__name__)

TRACKERS = ("mlflow", "wandb", "trackio")
_PROJECT = "lsanet"


class Tracker:
    """A run at a tracker; a context that closes it."""

    def __init__(self, name: str, workdir: str | pathlib.Path, config: Mapping[str, Any]):
        """Start a run, named after its folder.

        Args:
            name: one of `TRACKERS`.
            workdir: folder of the run.
            config: its fields by dotted name.

        Raises:
            ConfigError: the tracker is not installed, or refuses.
        """
        try:
            self._client = importlib.import_module(name)
        except ImportError as error:
            raise ConfigError(
                f"--track={name}: {error}; install it with pip install {name}"
            ) from error
        self._refused = False
        self._name, title = name, pathlib.Path(workdir).absolute().name
        fields = {key: str(value) for key, value in config.items()}
        try:
            if name == "mlflow":
                self._client.set_experiment(_PROJECT)
                self._client.start_run(run_name=title)
                self._client.log_params(fields)
            else:
                self._client.init(project=_PROJECT, name=title, config=fields)
        except Exception as error:  # of as many kinds as there are trackers
            raise ConfigError(f"--track={name} cannot start: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self._send(self._client.end_run if self._name == "mlflow" else self._client.finish)

    def log(self, step: int | None, scalars: Mapping[str, float]) -> None:
        """Send numbers of a step, or of the last one."""
        mlflow = self._name == "mlflow"
        self._send(
            self._client.log_metrics if mlflow else self._client.log, dict(scalars), step=step
        )

    def _send(self, call: Callable[..., Any], *args, **kwargs) -> None:
        """Call the tracker; the first time that it fails is a warning, as the run goes on."""
        try:
            call(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 (of as many kinds as there are trackers)
            if not self._refused:
                log.warning("--track=%s: numbers are missing there: %s", self._name, error)
            self._refused = True

    def finish(self, result: Mapping[str, Any] | None) -> None:
        """Send the scores of `result.json`, if there are any."""
        if result is None:
            return
        scores = {
            f"result/{split}_{name}": result[split][name]
            for split in ("val", "test")
            for name in ("acc", "auc")
        }
        defined = lambda x: x is not None and math.isfinite(x)
        self.log(None, {name: value for name, value in scores.items() if defined(value)})
