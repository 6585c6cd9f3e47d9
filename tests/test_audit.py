"""Manifests and audits: what is the same is found the same, and every difference is named."""

import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsanet_jax import audit, manifest, train
from lsanet_jax.errors import WorkdirError


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the finished run, to be changed."""
    return shutil.copytree(run[1], tmp_path / "copy")


def lines_of(path):
    return (path / "digests.jsonl").read_text().splitlines()


def rewrite(path, number, **changes):
    """Change fields of a line, counted from 1."""
    lines = lines_of(path)
    lines[number - 1] = json.dumps(json.loads(lines[number - 1]) | changes)
    (path / "digests.jsonl").write_text("".join(line + "\n" for line in lines))


def test_a_run_is_found_identical_when_trained_again(run):
    report = audit.audit(run[1])
    assert report == {"identical": True, "epochs": 2, "difference": None, "environment": []}


def change_manifest(path, section, **changes):
    """Change the manifest and make the chain whole again, as a forger would."""
    file = path / "manifest.json"
    content = json.loads(file.read_text())
    content[section] |= changes
    file.write_text(json.dumps(content))
    previous = file.read_bytes()
    for number in (1, 2):
        rewrite(path, number, previous=manifest.sha256(previous))
        previous = lines_of(path)[number - 1].encode()
    result = json.loads((path / "result.json").read_text())
    result["last_digest"] = manifest.sha256(previous)
    (path / "result.json").write_text(json.dumps(result))


def test_another_seed_is_found_at_the_first_epoch_with_tensor_and_losses(copy):
    change_manifest(copy, "config", seed=1)
    report = audit.audit(copy, epochs=1)
    assert not report["identical"]
    assert report["difference"].startswith(
        "epoch 1 differs in loss, params, batch_stats, opt_state"
    )
    assert "params['auxiliary'][0]['bias']" in report["difference"]
    assert " there, " in report["difference"]


def test_two_runs_are_compared_without_training(run, copy, monkeypatch):
    monkeypatch.delattr(train, "train_and_evaluate")
    assert audit.audit(run[1], against=copy)["identical"]
    rewrite(copy, 2, params="0" * 64)
    change_manifest(copy, "environment", python="2.7")
    report = audit.audit(run[1], against=copy)
    assert report["difference"].startswith("epoch 2 differs in params: ")
    (sentence,) = report["environment"]
    assert sentence.startswith('environment.python is "3.')
    assert sentence.endswith('"2.7" here')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: rewrite(p, 1, loss="0x1.0p+0"), "line 2 does not follow on line 1"),
        (lambda p: rewrite(p, 2, loss="0x1.0p+0"), "the last line, 2, is not the one that result"),
        (lambda p: rewrite(p, 1, previous="0" * 64), "line 1 does not follow on manifest.json"),
        (
            lambda p: (p / "digests.jsonl").write_text(lines_of(p)[0] + "\n"),
            "the last line, 1, is not the one",
        ),
        (
            lambda p: (p / "digests.jsonl").write_text(lines_of(p)[1] + "\n"),
            "line 1 does not follow",
        ),
        (lambda p: (p / "digests.jsonl").write_text('{"epoch'), "line 1 is damaged"),
        (lambda p: (p / "result.json").write_text("{"), r"result\.json is damaged"),
        (lambda p: (p / "digests.jsonl").unlink(), "digests.jsonl: cannot be read"),
    ],
)
def test_a_line_that_was_changed_shows(copy, change, message):
    change(copy)
    with pytest.raises(WorkdirError, match=message):
        audit.audit(copy)


def test_what_cannot_be_audited_is_named(run, tmp_path):
    with pytest.raises(WorkdirError, match=r"manifest\.json: cannot be read"):
        audit.audit(tmp_path)
    for epochs in (0, 3):
        with pytest.raises(WorkdirError, match=f"--epochs={epochs}: the run has 1 to 2"):
            audit.audit(run[1], epochs=epochs)


def test_exit_codes_and_json(run, copy, tmp_path):
    def call(*flags):
        command = [sys.executable, "-m", "lsanet_jax.audit", *map(str, flags)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    same = call(f"--workdir={run[1]}", f"--against={copy}")
    assert (same.returncode, same.stdout) == (0, "identical: 2 epochs, bit for bit\n")
    damaged = call(f"--workdir={tmp_path}", "--json")
    assert (damaged.returncode, damaged.stdout) == (2, "")
    assert damaged.stderr.startswith("error: ")
    other = json.loads(lines_of(copy)[1]) | {"params": "0" * 64}
    rewrite(copy, 2, **other)
    (copy / "result.json").unlink()
    different = call(f"--workdir={run[1]}", f"--against={copy}", "--json")
    assert different.returncode == 1
    assert json.loads(different.stdout)["identical"] is False


def test_digests_tell_one_bit_shape_and_dtype_apart():
    array = np.linspace(0, 1, 6, dtype=np.float32)
    digest = lambda x: manifest.tensor_digests({"x": x})["['x']"]
    flipped = array.copy()
    flipped.view(np.uint32)[3] ^= 1
    others = [flipped, array.reshape(2, 3), array.astype(np.float64), array.astype(np.float16)]
    assert digest(jnp.asarray(array)) == digest(array)
    assert len({digest(x) for x in (array, *others)}) == 5


def test_the_environment_says_what_bits_depend_on():
    found = manifest.environment()
    assert found["packages"]["jax"] == jax.__version__
    assert found["usable_cores"] >= 1
    assert (found["device"], found["device_count"]) == ("cpu", jax.device_count())
    assert json.loads(json.dumps(found)) == found
