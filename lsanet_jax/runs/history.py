"""What a run remembers between epochs; each checkpoint holds it."""

import dataclasses
import math


@dataclasses.dataclass
class History:
    """The epochs so far.

    Attributes:
      epoch: the last finished one, counted from 1; 0 before the first.
      last_val: its scores on the validation split; see `metrics.summarize`.
      best_epoch: the first one with the highest validation AUC.
      best_val: its scores.
      seconds: of training and validation.
      rates: images per second of each epoch.
      skipped: steps that were left out as their loss or a gradient was not finite.
      logs: SHA-256 of the logs of these epochs; see `Workdir.logs_so_far`.
    """

    epoch: int = 0
    last_val: dict | None = None
    best_epoch: int | None = None
    best_val: dict | None = None
    seconds: float = 0.0
    rates: list[float] = dataclasses.field(default_factory=list)
    skipped: int = 0
    logs: dict[str, str] = dataclasses.field(default_factory=dict)

    def add(self, epoch: int, val: dict, *, seconds: float, rate: float) -> None:
        """Record an epoch; the first one with the highest validation AUC is the best."""
        self.epoch, self.last_val = epoch, val
        self.seconds += seconds
        self.rates.append(rate)
        if not math.isnan(val["auc"]) and (
            self.best_val is None or val["auc"] > self.best_val["auc"]
        ):
            self.best_epoch, self.best_val = epoch, val
