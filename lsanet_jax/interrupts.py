"""Ending early on request: SIGTERM, as schedulers send it before they take a machine, and Ctrl-C."""

import contextlib
import logging
import signal
import threading

import jax
from jax.experimental import multihost_utils

from lsanet_jax.errors import Interrupted

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupts(contextlib.AbstractContextManager):
    """While it is entered, SIGTERM and SIGINT end the work at the next `check`, not at once.

    A second signal has its usual effect. With several processes, one that gets a signal is enough:
    all of them end at the same check. Outside the main thread, signals stay as they are.
    """

    def __init__(self):
        """Nothing happens before it is entered."""
        self._received: int | None = None
        self._checks = 0
        self._before = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            # Where there are several processes jax has SIGTERM, and tells all of them.
            mine = _SIGNALS if jax.process_count() == 1 else (signal.SIGINT,)
            self._before = {number: signal.signal(number, self._receive) for number in mine}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        del frame
        self._received = number
        self.__exit__()
        if jax.process_count() > 1:
            signal.raise_signal(signal.SIGTERM)
        log.warning("%s: stopping as soon as all is saved", signal.Signals(number).name)

    def check(self) -> None:
        """Call it equally often in all processes.

        Raises:
          Interrupted: a signal has come.
        """
        if jax.process_count() > 1:
            self._checks += 1
            received = multihost_utils.reached_preemption_sync_point(self._checks)
        else:
            received = self._received is not None
        if received:
            raise Interrupted("stopped; all is saved: the same command resumes")
