"""What every test runs under, and the reference data that some compare with."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports jax. Tests of several devices run in a process of their own.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["TFDS_DATA_DIR"] = str(ROOT / ".cache/none")  # sets that the user has prepared
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache/jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

# A shell starts what it puts in the background with SIGINT ignored, and the tests' children inherit it.
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


@pytest.fixture(scope="session")
def shared() -> Path:
    path = ROOT.parent / "shared"
    if not path.is_dir():
        pytest.skip(f"no reference data: {path} does not exist")
    return path


@pytest.fixture(scope="session")
def reference(shared):
    """Returns a function from a name, such as "losses", to the arrays of that npz file."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(shared / "reference" / f"{name}.npz") as arrays:
            return dict(arrays)

    return load


@pytest.fixture
def small_families(monkeypatch):
    """The families with one block, convolution or dense layer or two in each stage."""
    from tests.networks import shrink_families

    shrink_families(monkeypatch)


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
