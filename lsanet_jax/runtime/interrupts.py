"""Ending early on request: SIGTERM, as schedulers send it, and Ctrl-C."""

import collections
import contextlib
import logging
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lsanet_jax.errors import Interrupted

log = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_DELAY = 4  # Checks until the processes heed a signal, so that none waits for the devices.


class Interrupts(contextlib.AbstractContextManager):
    """While it is entered, SIGTERM and SIGINT end the work at a `check`, not at once.

    A second signal has its usual effect. With several processes, one that gets a signal is enough:
    all of them end at the same check. Outside the main thread, signals stay as they are.
    """

    def __init__(self, mesh: Mesh):
        """Nothing happens before it is entered.

        Args:
          mesh: the devices of all processes, with the axis "data".
        """
        self._received = False
        self._before = {}
        self._asked = collections.deque()  # Whether any process had a signal, at the last checks.
        self._flags = NamedSharding(mesh, PartitionSpec("data"))
        self._any = jax.jit(jnp.any, out_shardings=NamedSharding(mesh, PartitionSpec()))

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._receive) for number in _SIGNALS}
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame) -> None:
        del frame
        self._received = True
        self.__exit__()
        log.warning("%s: stopping as soon as all is saved", signal.Signals(number).name)

    def check(self) -> None:
        """Call it equally often in all processes.

        Raises:
          Interrupted: a signal has come.
        """
        received = self._received
        if jax.process_count() > 1:
            own = np.full(jax.local_device_count(), received)
            flags = jax.make_array_from_process_local_data(self._flags, own)
            self._asked.append(self._any(flags))
            received = len(self._asked) > _DELAY and bool(self._asked.popleft())
        if received:
            raise Interrupted("stopped; all is saved: the same command resumes")
