"""Compiled programs are kept in the user's cache folder, bounded, and change no bits."""

import os
import subprocess
import sys

import pytest

from lsanet_jax.runtime import compiled
from tests.conftest import ROOT

BITS = """
from lsanet_jax.runtime import compiled
folder = compiled.keep()
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
x = jax.random.normal(jax.random.key(0), (4, 9, 9, 8))
kernel = jax.random.normal(jax.random.key(1), (3, 3, 8, 8))
step = lambda x: jax.lax.conv(x.transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), (1, 1), "SAME")
y = jax.jit(jax.grad(lambda x: jnp.tanh(step(x)).sum()))(x)
print(jax.numpy.asarray(y).tobytes().hex())
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv(compiled.VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "jax", None)  # The test's own cache stays as it is.
    return tmp_path


def bits():
    command = [sys.executable, "-c", BITS]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_a_program_from_the_cache_gives_the_same_bits_as_one_just_compiled(home, monkeypatch):
    first = bits()
    kept = [file for file in home.rglob("*") if file.name.endswith("-cache")]
    assert kept
    times = [file.stat().st_mtime_ns for file in kept]
    assert bits() == first
    assert [file.stat().st_mtime_ns for file in kept] == times
    assert {file for file in home.rglob("*-cache")} == set(kept)  # All came from the cache.
    monkeypatch.setenv(compiled.VARIABLE, "off")
    assert bits() == first


@pytest.mark.parametrize(
    ("name", "value"), [(compiled.VARIABLE, "off"), ("JAX_COMPILATION_CACHE_DIR", "/elsewhere")]
)
def test_the_environment_switches_it_off_or_puts_it_elsewhere(home, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert compiled.keep() is None
    assert not list(home.iterdir())


def test_another_machine_has_a_folder_of_its_own(home, monkeypatch):
    assert compiled.keep() is not None
    assert "JAX_COMPILATION_CACHE_DIR" in os.environ
    left = compiled.without(os.environ)
    assert left.keys() == os.environ.keys() - {"JAX_COMPILATION_CACHE_DIR", "LSANET_COMPILED"}
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/the/users")
    assert compiled.without(os.environ)["JAX_COMPILATION_CACHE_DIR"] == "/the/users"


def test_the_oldest_programs_go_first_when_there_are_too_many(home, monkeypatch):
    folder = compiled.keep()
    assert folder and os.environ["JAX_COMPILATION_CACHE_DIR"] == str(folder)
    for age, name in enumerate(["new", "middle", "old"]):
        (folder / name).write_bytes(bytes(10))
        os.utime(folder / name, (1e9 - age, 1e9 - age))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setattr(compiled, "LIMIT", 20)
    compiled.keep()
    assert {file.name for file in folder.iterdir()} == {"new", "middle"}


def test_a_home_that_cannot_be_written_is_no_error(home, monkeypatch):
    (home / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "file"))
    assert compiled.keep() is None
