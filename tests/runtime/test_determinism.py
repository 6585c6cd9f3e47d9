import logging
import os
import subprocess
import sys

import pytest

from lsanet_jax.runtime import determinism
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("before", "deterministic", "after"),
    [
        ("", True, "--xla_gpu_deterministic_ops=true"),
        ("--xla_a=1", True, "--xla_a=1 --xla_gpu_deterministic_ops=true"),
        ("--xla_gpu_deterministic_ops=false", True, "--xla_gpu_deterministic_ops=false"),
        ("--xla_a=1", False, "--xla_a=1"),
    ],
)
def test_the_flag_is_added_to_those_of_the_user(monkeypatch, before, deterministic, after):
    monkeypatch.setenv("XLA_FLAGS", before)
    determinism.request(deterministic)
    assert os.environ["XLA_FLAGS"] == after


@pytest.mark.parametrize(
    ("flags", "deterministic", "platform", "warns"),
    [
        ("", True, "gpu", True),
        ("--xla_gpu_deterministic_ops=false", True, "gpu", True),
        ("--xla_gpu_deterministic_ops=true", True, "gpu", False),
        ("", False, "gpu", False),
        ("", True, "cpu", False),
    ],
)
def test_a_gpu_without_the_flag_is_warned_of(
    monkeypatch, caplog, flags, deterministic, platform, warns
):
    monkeypatch.setenv("XLA_FLAGS", flags)
    with caplog.at_level(logging.WARNING, logger="lsanet_jax"):
        determinism.check(deterministic, platform)
    assert ("xla_gpu_deterministic_ops=true" in caplog.text) == warns


def test_xla_knows_the_flag():
    script = (
        "from lsanet_jax.runtime import determinism; determinism.request(True);"
        "import jax; jax.devices()"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    unknown = os.environ | {"XLA_FLAGS": "--xla_gpu_deterministic_oops=true"}
    command = [sys.executable, "-c", "import jax; jax.devices()"]
    assert subprocess.run(command, env=unknown, capture_output=True, check=False).returncode != 0
