"""What the command line tools share: paths, and how they end."""

import argparse
import logging
import signal

import jax
import pytest

from lsanet_jax import __main__ as lsanet
from lsanet_jax.errors import ConfigError
from lsanet_jax.runtime import cli


def test_paths_know_the_home_folder_and_are_never_empty(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    parser = cli.parser("")
    parser.add_argument("--input", type=cli.path)
    args = parser.parse_args(["--workdir=~/a,b,~/c", "--input=~/x"])
    assert args.workdir == "/home/me/a,b,/home/me/c" and args.input == "/home/me/x"
    for empty in ("", "  "):
        with pytest.raises(argparse.ArgumentTypeError, match="it is empty"):
            cli.path(empty)


def test_an_empty_flag_is_one_error(capsys):
    parser = cli.parser("")
    parser.add_argument("--input", type=cli.path)
    with pytest.raises(SystemExit) as stop:
        parser.parse_args(["--workdir=x", "--input="])
    assert stop.value.code == 2
    assert "argument --input: it is empty" in capsys.readouterr().err


def test_a_device_that_is_not_there_is_one_error(monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    monkeypatch.setattr(jax, "devices", lambda: (_ for _ in ()).throw(AssertionError))
    with (
        pytest.raises(ConfigError, match=r"no device \(.*JAX_PLATFORMS=cuda.*\): AssertionError\."),
        cli.needing_a_device(),
    ):
        jax.devices()
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError), cli.needing_a_device():
        1 / 0  # noqa: B018


def test_ctrl_c_while_modules_are_imported_leaves_no_traceback(monkeypatch):
    handlers = []
    monkeypatch.setattr(lsanet.pages, "ask", lambda: None)
    for name, value in (("handlers", []), ("propagate", True), ("level", logging.NOTSET)):
        monkeypatch.setattr(logging.getLogger("lsanet_jax"), name, value)
    look = lambda: handlers.append(signal.getsignal(signal.SIGINT))

    def main():
        look()
        cli.run(look)

    monkeypatch.setattr(lsanet, "main", main)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        lsanet.start()
        assert handlers == [signal.SIG_DFL, signal.default_int_handler]
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a shell's background
        lsanet.start()
        assert handlers[2:] == [signal.SIG_IGN] * 2
    finally:
        signal.signal(signal.SIGINT, before)
