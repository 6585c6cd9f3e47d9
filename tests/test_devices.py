"""Whole runs on several devices and in several processes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.conftest import ROOT

FLAGS = (
    "--config=configs/quickstart.py",
    "--config.model.backbone=tests.networks:TinyNet",
    "--config.model.taps=(1,2)",
    "--config.data.size=28",
    "--config.data.image_size=28",
    "--config.data.synthetic.num_train=128",
    "--config.data.synthetic.num_val=64",
    "--config.data.synthetic.num_test=64",
    "--config.train.epochs=3",
    "--page=false",
)


def start(workdir, *flags, devices=1):
    return subprocess.Popen(
        [sys.executable, "-m", "lsanet_jax.main", *FLAGS, f"--workdir={workdir}", *flags],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def start_two(workdir, *flags):
    """Two processes with two devices each."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"--coordinator=127.0.0.1:{server.getsockname()[1]}"
    return [
        start(workdir, coordinator, "--num_processes=2", f"--process_id={i}", *flags, devices=2)
        for i in (0, 1)
    ]


def ended(*processes, codes=(0,)):
    """The output of each process, all of which end with one of these exit codes."""
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    found = [process.returncode for process in processes]
    assert set(found) <= set(codes), (found, outputs)
    return outputs


def wait_for(path, processes):
    deadline = time.time() + 300
    while not path.exists():
        for process in processes:
            assert process.poll() is None, process.communicate()[0]
        assert time.time() < deadline
        time.sleep(0.02)


@contextlib.contextmanager
def killed_at_the_end(processes):
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def stopped_early(start_in, folder):
    """Stop a run by SIGTERM to its last process; the run's folder and the processes' outputs.

    One that ends before the signal comes is tried again.
    """
    for attempt in range(5):
        run = folder / f"run{attempt}"
        processes = start_in(run)
        with killed_at_the_end(processes):
            wait_for(run / "digests.jsonl", processes)
            processes[-1].send_signal(signal.SIGTERM)
            outputs = ended(*processes, codes=(0, 75))
        if all(process.returncode == 75 for process in processes):
            return run, outputs
        assert all(process.returncode == 0 for process in processes), outputs
    raise AssertionError("five runs ended before they could be stopped")


def assert_same_training(run, expected):
    """The losses and scores of every epoch, up to the order in which devices add."""
    ours, theirs = (
        [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        for path in (run, expected)
    )
    assert [record["epoch"] for record in ours] == [1, 2, 3]
    for a, b in zip(ours, theirs, strict=True):
        assert a["step"] == b["step"]
        for name, value in b["train"].items():
            np.testing.assert_allclose(a["train"][name], value, rtol=1e-4)
        np.testing.assert_allclose(a["val"]["auc"], b["val"]["auc"], atol=1e-3)


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """A run of one process with four devices."""
    path = tmp_path_factory.mktemp("four") / "run"
    ended(start(path, devices=4))
    return path


@pytest.mark.slow
def test_a_run_on_four_devices_resumes_on_two(four, tmp_path):
    run, (output,) = stopped_early(lambda path: [start(path, devices=4)], tmp_path)
    assert "saved: the same command resumes" in output
    (output,) = ended(start(run, devices=2))
    assert "resuming after epoch" in output
    assert "device_count is 4 there and 2 here" in output
    assert_same_training(run, four)


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["device", "grain"])
def test_two_processes_train_as_one_does(four, tmp_path, pipeline):
    processes = start_two(tmp_path / "run", f"--config.data.pipeline={pipeline}")
    with killed_at_the_end(processes):
        outputs = ended(*processes)
    assert_same_training(tmp_path / "run", four)
    assert {p.name for p in (tmp_path / "run").iterdir()} == {p.name for p in four.iterdir()}
    events = list((tmp_path / "run/tensorboard").iterdir())
    assert len(events) == 1
    assert "test split" in outputs[0]
    assert "test split" not in outputs[1]
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())["environment"]
    assert (manifest["process_count"], manifest["device_count"]) == (2, 4)


@pytest.mark.slow
def test_two_processes_set_a_damaged_checkpoint_aside(four, tmp_path):
    processes = start_two(tmp_path / "run")
    with killed_at_the_end(processes):
        wait_for(tmp_path / "run/checkpoints/last/2", processes)  # of 2 steps an epoch
        processes[0].send_signal(signal.SIGTERM)
        ended(*processes, codes=(0, 75))
    (tmp_path / "run/result.json").unlink(missing_ok=True)
    steps = sorted(int(place.name) for place in (tmp_path / "run/checkpoints/last").iterdir())
    assert len(steps) == 2
    for file in (tmp_path / f"run/checkpoints/last/{steps[1]}").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    processes = start_two(tmp_path / "run")
    with killed_at_the_end(processes):
        outputs = ended(*processes)
    place = tmp_path / f"run/checkpoints/damaged/{steps[1]}.0"
    assert place.is_dir() and f"moved it to {place}" in outputs[0]
    assert all(f"going on from the one before, {steps[0]}" in output for output in outputs)
    assert_same_training(tmp_path / "run", four)


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_process_ends_the_other_and_the_restart_resumes(four, tmp_path, lost):
    processes = start_two(tmp_path / "run", "--config.train.epochs=3")
    with killed_at_the_end(processes):
        wait_for(tmp_path / "run/digests.jsonl", processes)
        processes[lost].kill()
        since = time.time()
        code = processes[1 - lost].wait(timeout=120)
        assert time.time() - since < 60
        assert code != 0
    processes = start_two(tmp_path / "run")
    with killed_at_the_end(processes):
        outputs = ended(*processes)
    assert "test split" in outputs[0]
    assert_same_training(tmp_path / "run", four)


@pytest.mark.slow
def test_a_signal_to_one_process_stops_both_and_both_resume(four, tmp_path):
    run, outputs = stopped_early(start_two, tmp_path)
    assert "saved: the same command resumes" in outputs[0]
    processes = start_two(run)
    with killed_at_the_end(processes):
        outputs = ended(*processes)
    assert "resuming after epoch" in outputs[0]
    assert_same_training(run, four)
