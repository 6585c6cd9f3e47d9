"""What is watched while steps run: it yields values, and the training loop decides."""

import collections
import dataclasses
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
import tqdm

# Dispatches that may be under way before the host waits for the oldest: enough to keep the device
# busy.
MAX_IN_FLIGHT = 4


@dataclasses.dataclass(frozen=True)
class StepRecord:
    """A step that has ended.

    Attributes:
      step: counted from 1.
      loss: of its batch, before its update.
      skipped: whether its update was left out, as its loss or a gradient was not finite.
      parts: `steps.TrainStep`'s, of the whole dispatch; `values` has those of this step.
      names: of the parts that `values` fetches, in this order.
      place: of the step in its dispatch.
    """

    step: int
    loss: float
    skipped: bool
    parts: Mapping[str, jax.Array]
    names: Sequence[str]
    place: int

    def values(self) -> dict[str, float]:
        """Fetch the loss and its parts from the device."""
        return {name: float(np.asarray(self.parts[name])[self.place]) for name in self.names}


class StepMonitor:
    """Follows the steps under way: waits for the oldest, yields what has ended, times it."""

    def __init__(self, batch_size: int, names: Sequence[str]):
        """Start.

        Args:
          batch_size: images per step.
          names: of the parts that a record fetches; see `losses.Objective.part_names`.
        """
        self._batch_size = batch_size
        self._names = names
        self._in_flight = collections.deque()
        self._compiled = False
        self.start_epoch()

    def start_epoch(self) -> None:
        """Measure the rate from here."""
        self._clock, self._timed_steps = time.perf_counter(), 0

    def add(self, step: int, parts: dict[str, jax.Array]) -> Iterator[StepRecord]:
        """Record a dispatch that starts with `step`; waits and yields if many are under way."""
        self._in_flight.append((step, parts))
        if not self._compiled:  # the first dispatch of a process compiles: keep it out of the rate
            yield from self._oldest()
            self._compiled = True
            self.start_epoch()
        elif len(self._in_flight) > MAX_IN_FLIGHT:
            yield from self._oldest()

    def rest(self) -> Iterator[StepRecord]:
        """Wait for all steps that are under way."""
        while self._in_flight:
            yield from self._oldest()

    @property
    def rate(self) -> float:
        """Images per second since `start_epoch`; nan if nothing was timed."""
        images = self._timed_steps * self._batch_size
        return images / (time.perf_counter() - self._clock) if images else math.nan

    def _oldest(self) -> Iterator[StepRecord]:
        step, parts = self._in_flight.popleft()
        losses = np.asarray(parts["loss"])
        skipped = np.asarray(parts.get("skipped", np.zeros(len(losses))))
        if self._compiled:
            self._timed_steps += len(losses)
        for i, loss in enumerate(losses):
            yield StepRecord(step + i, float(loss), bool(skipped[i]), parts, self._names, i)


class Progress:
    """A progress bar over all steps of a run: the epoch, the loss, the rate, the time left."""

    def __init__(self, epochs: int, steps_per_epoch: int, done: int, *, shown: bool):
        """Show it.

        Args:
          epochs: of the run.
          steps_per_epoch: steps of each.
          done: steps done before.
          shown: False for all but one of several processes.
        """
        self._epochs = epochs
        self._bar = tqdm.tqdm(
            total=epochs * steps_per_epoch,
            initial=done,
            unit="step",
            disable=not shown,
            dynamic_ncols=True,
            smoothing=0.05,
            mininterval=0.5 if sys.stderr.isatty() else 30,  # seconds; a log file fills up
        )
        self._bar.set_postfix_str("compiling", refresh=False)  # until the first step has ended

    def start_epoch(self, epoch: int) -> None:
        """Show which epoch it is."""
        self._bar.set_description(f"epoch {epoch}/{self._epochs}")

    def step(self, loss: float, rate: float) -> None:
        """Show that a step has ended.

        Args:
          loss: of the step.
          rate: images per second; nan while steps are compiled.
        """
        timed = not math.isnan(rate)
        speed = f", {rate:.0f} images/s" if timed else ""
        self._bar.set_postfix_str(f"loss {loss:.4f}{speed}", refresh=False)
        if timed:
            self._bar.update()
        else:  # This step waited for the compiler: the time left is reckoned from its end.
            self._bar.initial = self._bar.last_print_n = self._bar.n = self._bar.n + 1
            self._bar.unpause()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
