"""Commands whose output is closed, or whose reader goes away."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT


def shell(line):
    line = line.replace("lsanet", f"{sys.executable} -m lsanet_jax")
    return subprocess.run(
        ["bash", "-c", line],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_nothing_to_fail_of(closed):
    found = shell(f"lsanet train --help {closed}")
    assert (found.returncode, found.stderr) == (0, "")
    assert shell(f"lsanet train --workdir=x --config=quickstart extra {closed}").returncode == 2


@pytest.mark.parametrize("command", ["train --help", "--help"])
def test_a_reader_that_leaves_is_no_error(command):
    found = shell(f"lsanet {command} | head -1; exit ${{PIPESTATUS[0]}}")
    assert (found.returncode, found.stderr) == (0, "")
    assert len(found.stdout.splitlines()) == 1
