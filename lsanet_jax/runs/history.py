"""What a run remembers between epochs; each checkpoint holds it."""

import dataclasses
import math


@dataclasses.dataclass
class History:
    """The epochs so far.

    Attributes:
      epoch: the last finished one, counted from 1; 0 before the first.
      last_val: its scores on the validation split; see `metrics.summarize`.
      best_epoch: the first one with the best score on it.
      best_val: its scores.
      seconds: of training and validation.
      rates: images per second of each epoch.
      skipped: steps that were left out as their loss or a gradient was not finite.
    """

    epoch: int = 0
    last_val: dict | None = None
    best_epoch: int | None = None
    best_val: dict | None = None
    seconds: float = 0.0
    rates: list[float] = dataclasses.field(default_factory=list)
    skipped: int = 0

    def add(
        self,
        epoch: int,
        val: dict,
        *,
        seconds: float,
        rate: float,
        select: str = "best_val_auc",
    ) -> None:
        """Record an epoch.

        Args:
          epoch: counted from 1.
          val: see `metrics.summarize`.
          seconds: of its training and validation.
          rate: images per second.
          select: `config.eval.select`. With "best_val_loss" the first epoch with the lowest
            validation loss is the best, otherwise the first one with the highest AUC.
        """
        self.epoch, self.last_val = epoch, val
        self.seconds += seconds
        self.rates.append(rate)
        score = lambda val: -val["loss"] if select == "best_val_loss" else val["auc"]
        if not math.isnan(score(val)) and (
            self.best_val is None or score(val) > score(self.best_val)
        ):
            self.best_epoch, self.best_val = epoch, val

    def without_gain(self) -> int:
        """How many epochs have passed since the best one."""
        return self.epoch - (self.best_epoch or 0)
