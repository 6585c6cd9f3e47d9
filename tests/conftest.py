"""What every test runs under, and the data and reference values that they share."""

import gc
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

import jaxtyping
import numpy as np
import pytest

from tests.shapes import check

jaxtyping.install_import_hook("lsanet_jax", f"{check.__module__}.{check.__name__}")

ROOT = Path(__file__).resolve().parents[1]
PEAKS = pytest.StashKey[dict[str, int]]()

# Before anything imports jax. Tests of several devices run in a process of their own.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["TFDS_DATA_DIR"] = str(ROOT / ".cache/none")  # sets that the user has prepared
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache/jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

# A shell starts what it puts in the background with SIGINT ignored, and the tests' children inherit
# that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too, last")


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)
    if not config.option.slow and not config.option.markexpr:
        fast = [item for item in items if item.get_closest_marker("slow") is None]
        config.hook.pytest_deselected(items=items[len(fast) :])
        items[:] = fast


def pytest_runtest_setup(item):
    deadline = float(os.environ.get("LSANET_TEST_DEADLINE", "inf"))
    if item.get_closest_marker("slow") is not None and time.time() > deadline:
        pytest.skip("slow, and LSANET_TEST_DEADLINE has passed")


def peak_memory_mb() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (1 << 20 if sys.platform == "darwin" else 1 << 10)


def pytest_sessionfinish(session):
    if hasattr(session.config, "workeroutput"):  # in a worker of pytest-xdist
        session.config.workeroutput["peak_memory_mb"] = peak_memory_mb()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    if hasattr(node, "workeroutput"):  # it has not crashed
        node.config.stash.setdefault(PEAKS, {})[node.gateway.id] = node.workeroutput[
            "peak_memory_mb"
        ]


def pytest_terminal_summary(terminalreporter, config):
    peaks = config.stash.get(PEAKS, {"this process": peak_memory_mb()})
    told = ", ".join(f"{name} {peak} MB" for name, peak in sorted(peaks.items()))
    terminalreporter.write_line(f"peak memory: {told}")


@pytest.fixture(scope="module", autouse=True)
def forget_compiled_programs():
    """Keep a process under 2 GB: programs of past modules took more than twice that."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    gc.collect()


@pytest.fixture
def unchecked():
    """Let a test pass arrays that the annotations forbid, to see our own error: see shapes.py."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the repository whose `data` holds published sets; skips without it."""
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"no published sets: {path} does not exist")
    return path


@pytest.fixture(scope="session")
def reference():
    """A function from a name, such as "losses", to the values of that file in tests/reference."""

    def load(name: str) -> dict:
        path = ROOT / "tests/reference" / name
        if path.with_suffix(".json").exists():
            return json.loads(path.with_suffix(".json").read_text())
        with np.load(path.with_suffix(".npz")) as arrays:
            return dict(arrays)

    return load


@pytest.fixture
def small_families(monkeypatch):
    """The families with one block, convolution or dense layer or two in each stage."""
    from lsanet_jax.models import densenet, resnet, vgg

    monkeypatch.setitem(resnet.SPECS, "resnet18", resnet.Spec(resnet.BasicBlock, (1, 1, 1, 1)))
    spec = resnet.SPECS["resnext50"]._replace(stage_sizes=(1, 1, 1, 1))
    monkeypatch.setitem(resnet.SPECS, "resnext50", spec)
    monkeypatch.setitem(vgg.SPECS, "vgg16", (1, 1, 2, 1, 1))
    monkeypatch.setitem(densenet.SPECS, "densenet121", (2, 1, 1, 2))


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A finished run of two epochs: (config, workdir)."""
    from configs import quickstart
    from lsanet_jax import train

    config = quickstart.get_config()
    config.model.update(backbone="tests.networks:TinyNet", taps=(1, 2))
    config.data.size = config.data.image_size = 28
    config.data.synthetic.update(num_train=32, num_val=16, num_test=20, num_classes=3)
    config.train.update(epochs=2, batch_size=16)
    config.eval.batch_size = 16
    path = tmp_path_factory.mktemp("run") / "run"
    train.train_and_evaluate(config, path)
    return config, path
