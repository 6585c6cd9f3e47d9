"""The progress bar: what it takes for the time that is left."""

import math

import pytest

from lsanet_jax import monitor


def test_the_time_left_does_not_include_compiling():
    now = [0.0]
    progress = monitor.Progress(2, 50, 10, shown=True)
    bar = progress._bar
    bar._time = lambda: now[0]
    bar.start_t = bar.last_print_t = now[0]
    now[0] = 300.0
    progress.step(1.0, math.nan)  # the first of this process, which compiled for 300 s
    assert (bar.n, bar.format_dict["elapsed"]) == (11, 0)
    for _ in range(4):
        now[0] += 40  # a log file gets a line each 30 s
        progress.step(1.0, 32.0)
    shown = bar.format_dict
    assert (shown["n"], shown["elapsed"]) == (15, 160)
    assert shown["rate"] == pytest.approx(1 / 40)
    progress.close()
