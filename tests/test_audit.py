"""Manifests and audits: what is the same is found the same, and every difference is named."""

import importlib.metadata
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lsanet_jax import audit, train
from lsanet_jax.errors import ConfigError, WorkdirError
from lsanet_jax.runs import chain, checkpoint, manifest
from tests.sealed import as_earlier_version, as_unfinished, reseal


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


def test_a_run_is_found_identical_when_trained_again(run, capsys):
    report = audit.audit(run[1])
    nothing = {"difference": None, "size": None, "environment": []}
    looks = report.pop("test_looks")
    assert looks == len(chain.read(run[1]).looks) > 0
    proven = (
        "Proven: training again gives all 2 epochs, the selected epoch, the predictions and the "
        "scores, bit for bit. Not proven: that nobody evaluated the test split outside of this run."
    )
    assert report == {"identical": True, "epochs": 2, "proven": proven} | nothing
    assert capsys.readouterr().out == ""  # for the report alone


def change_manifest(path, section, **changes):
    """Change the manifest and make the chain whole again, as a forger would."""
    file = path / "manifest.json"
    content = json.loads(file.read_text())
    content[section] |= changes
    file.write_text(json.dumps(content))
    previous = file.read_bytes()
    for number in range(1, len(lines_of(path)) + 1):
        rewrite(path, number, previous=manifest.sha256(previous))
        previous = lines_of(path)[number - 1].encode()
    result = json.loads((path / "result.json").read_text())
    result["last_digest"] = manifest.sha256(previous)
    (path / "result.json").write_text(json.dumps(result))
    reseal(path)


def test_another_seed_is_found_at_the_first_epoch_with_tensor_losses_and_amount(copy):
    change_manifest(copy, "config", seed=1)
    report = audit.audit(copy, epochs=1)
    assert not report["identical"]
    assert report["difference"].startswith(
        "epoch 1 differs in loss, params, batch_stats, opt_state"
    )
    assert " there, " in report["difference"]
    first, most = report["size"]["first"], report["size"]["most"]
    assert report["size"]["epoch"] == 1
    assert first["name"] == "params['auxiliary'][0]['bias'].value"
    assert most["difference"] > first["difference"] > 0
    assert f"first {first['name']}, by {first['difference']:.3g} (" in report["difference"]
    assert f"; most {most['name']}, by {most['difference']:.3g} (" in report["difference"]


@pytest.fixture(scope="module")
def other(run, tmp_path_factory):
    """A run like the finished one, with another learning rate."""
    config = run[0].copy_and_resolve_references()
    config.train.learning_rate *= 1.01
    path = tmp_path_factory.mktemp("other") / "run"
    train.train_and_evaluate(config, path)
    return path


def forget(path, epoch):
    """Remove what a run keeps of an epoch."""
    for place in (f"last/{2 * epoch}", f"best/{epoch}"):  # 2 steps in each epoch
        shutil.rmtree(path / "checkpoints" / place, ignore_errors=True)


def test_the_amount_is_that_between_the_checkpoints(run, other):
    size = audit.audit(run[1], against=other)["size"]
    a, b = (checkpoint.read_arrays(p / "checkpoints/last/2/state") for p in (run[1], other))
    difference = {
        name: np.abs(a[name].astype(np.float64) - b[name]).max()
        for name in a
        if name.startswith(("params/", "batch_stats/"))
    }
    most = max(difference, key=difference.get)
    assert size["most"]["difference"] == difference[most]
    assert size["most"]["relative"] == difference[most] / np.abs(a[most]).max()
    assert most.split("/")[-2] in size["most"]["name"]
    assert size["first"]["difference"] == difference["params/auxiliary/0/bias/value"]


def test_without_a_checkpoint_of_the_epoch_a_later_one_says_by_how_much(run, other, copy):
    forget(copy, 1)
    report = audit.audit(copy, against=other)
    assert report["size"]["epoch"] == 2
    unknown = "no checkpoint of epoch 1 is kept, so by how much is not known"
    assert f"; {unknown}; at epoch 2 params['auxiliary']" in report["difference"]
    forget(copy, 2)
    report = audit.audit(copy, against=other)
    assert report["size"] is None
    assert report["difference"].endswith(f"; {unknown}")


def test_an_epoch_that_training_again_no_longer_keeps_is_trained_once_more(copy, monkeypatch):
    trained = []

    def train_and_forget(config, path, epochs):
        trained.append(epochs)
        really_train(config, path, epochs)
        if epochs == 2:
            forget(path, 1)

    really_train = audit._train
    monkeypatch.setattr(audit, "_train", train_and_forget)
    change_manifest(copy, "config", seed=1)
    assert audit.audit(copy)["size"]["epoch"] == 1
    assert trained == [2, 1]


def test_a_checkpoint_that_is_not_what_the_digests_say_is_named(run, other, copy):
    state = copy / "checkpoints/last/2/state"
    forget(copy, 1)
    shutil.copytree(copy / "checkpoints/last/4/state", state)
    report = audit.audit(copy, against=other)
    assert report["size"] is None
    assert f"by how much is not known: {state} does not hold the params[" in report["difference"]
    for file in state.rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    report = audit.audit(copy, against=other)
    assert f"by how much is not known: cannot read the checkpoint {state}: " in report["difference"]


def test_data_that_would_not_be_read_are_refused(run):
    for flags, message in (
        ({"epochs": 0}, "only read to train again"),
        ({"against": run[1]}, "only read to train again"),
        ({"epochs": 1}, "the data of 'synthetic' are in no file"),
    ):
        with pytest.raises(ConfigError, match=f"--data=nope.npz.*{message}"):
            audit.audit(run[1], data="nope.npz", **flags)


def test_another_version_of_a_package_is_told(copy):
    packages = manifest.environment()["packages"] | {"optax": "0.0.1"}
    change_manifest(copy, "environment", packages=packages)
    report = audit.audit(copy, epochs=1)
    assert report["identical"]
    here = importlib.metadata.version("optax")
    assert report["environment"] == [f'packages.optax is "0.0.1" there and "{here}" here']


def test_a_run_whose_data_has_changed_is_not_audited(run, tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for split, n in {"train": 12, "val": 6, "test": 6}.items():
        arrays[f"{split}_images"] = rng.integers(0, 256, (n, 8, 8, 3), np.uint8)
        arrays[f"{split}_labels"] = np.arange(n) % 2
    np.savez(tmp_path / "own.npz", **arrays)
    config = run[0].copy_and_resolve_references()
    config.data.update(name="npz", path=str(tmp_path / "own.npz"))
    train.train_and_evaluate(config, tmp_path / "run", epochs=1)
    assert audit.audit(tmp_path / "run")["identical"]
    then = json.loads((tmp_path / "run/manifest.json").read_text())["dataset"]["fingerprint"]
    arrays["test_images"][0, 0, 0, 0] ^= 1
    np.savez(tmp_path / "own.npz", **arrays)
    message = rf"its data has changed. The fingerprint is {then} in manifest.json and \w{{64}} "
    with pytest.raises(WorkdirError, match=message):
        audit.audit(tmp_path / "run")


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


def test_fewer_epochs_than_asked_for_are_no_comparison(run, copy):
    shorter = f"{copy} has finished {{}} epochs, {run[1]} 2 that are to be compared"
    as_unfinished(copy)
    for number in (1, 0):
        (copy / "digests.jsonl").write_text("".join(lines_of(copy)[:number]) + "\n" * number)
        with pytest.raises(WorkdirError, match=shorter.format(number)):
            audit.audit(run[1], against=copy)
    (copy / "digests.jsonl").write_text(lines_of(run[1])[0] + "\n")
    assert audit.audit(run[1], against=copy, epochs=1)["epochs"] == 1
    assert audit.audit(copy, against=run[1])["epochs"] == 1


def change_a_digit(file):
    text = file.read_text()
    place = text.index('"params": "') + len('"params": "')
    file.write_text(text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: rewrite(p, 1, loss="0x1.0p+0"), "line 2 does not follow on line 1"),
        (lambda p: rewrite(p, 2, loss="0x1.0p+0"), "line 3 does not follow on line 2"),
        (
            lambda p: rewrite(p, len(lines_of(p)), epoch=1, predictions="0"),
            "the last line, [34], is not the one that result",
        ),
        (lambda p: rewrite(p, 1, loss="a lot"), "line 1 does not follow on manifest.json"),
        (lambda p: rewrite(p, 1, previous="0" * 64), "line 1 does not follow on manifest.json"),
        (
            lambda p: (p / "digests.jsonl").write_text(lines_of(p)[0] + "\n"),
            "the last line, 1, is not the one",
        ),
        (
            lambda p: (p / "digests.jsonl").write_text(lines_of(p)[1] + "\n"),
            "line 1 does not follow",
        ),
        (lambda p: change_a_digit(p / "digests.jsonl"), "line 2 does not follow on line 1"),
        (lambda p: (p / "digests.jsonl").write_text('{"epoch'), "line 1 is damaged"),
        (lambda p: (p / "result.json").write_text("{"), r"result\.json is damaged"),
        (lambda p: (p / "digests.jsonl").unlink(), "digests.jsonl: cannot be read"),
    ],
)
def test_a_line_that_was_changed_shows(copy, change, message):
    change(copy)
    reseal(copy)
    with pytest.raises(WorkdirError, match=message):
        audit.audit(copy)


def test_what_cannot_be_audited_is_named(run, tmp_path):
    with pytest.raises(WorkdirError, match=r"manifest\.json: cannot be read"):
        audit.audit(tmp_path)
    for epochs in (-1, 3):
        with pytest.raises(WorkdirError, match=f"--epochs={epochs}: the run has 2, 0 trains none"):
            audit.audit(run[1], epochs=epochs)


def test_without_training_the_files_are_checked(run, monkeypatch):
    monkeypatch.delattr(train, "train_and_evaluate")
    report = audit.audit(run[1], epochs=0)
    assert (report["identical"], report["epochs"], report["environment"]) == (True, 0, [])
    assert report["proven"].endswith("that training gives them: audit with --epochs=all.")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "result.json",
            lambda c: c["val"].update(acc=0.999),
            r"result.json differs: val.acc is 0.999",
        ),
        (
            "result.json",
            lambda c: c.update(skipped_steps=5),
            "result.json differs: skipped_steps is 5",
        ),
        (
            "metrics.jsonl",
            lambda c: c["val"].update(auc=0.5),
            "metrics.jsonl differs: val.auc is 0.5 ",
        ),
    ],
)
def test_scores_that_training_does_not_give_are_found(run, copy, name, change, message):
    content = json.loads((copy / name).read_text().splitlines()[0]) if name[0] == "m" else None
    if content is not None:
        change(content)
        rest = (copy / name).read_text().splitlines(keepends=True)[1:]
        (copy / name).write_text(json.dumps(content) + "\n" + "".join(rest))
    else:
        content = json.loads((copy / name).read_text())
        change(content)
        (copy / name).write_text(json.dumps(content))
    reseal(copy)
    report = audit.audit(copy, against=run[1])
    assert not report["identical"] and report["proven"] is None
    assert message in report["difference"]


def test_metrics_without_their_lines_are_no_proof(run, copy):
    content = (copy / "metrics.jsonl").read_text()
    for changed in ("", content.replace('"epoch": 2', '"epoch": 1002').replace("0.", "0.9")):
        (copy / "metrics.jsonl").write_text(changed)
        reseal(copy)
        report = audit.audit(copy, against=run[1])
        assert "has not one line for each of the 2 epochs" in report["difference"]


def test_what_was_not_compared_is_not_called_proven(run, copy, tmp_path):
    (copy / "predictions.npz").unlink()
    as_earlier_version(copy)
    proven = audit.audit(copy, against=run[1])["proven"]
    assert "the selected epoch and the scores" in proven and "predictions" not in proven


def test_replaced_predictions_are_found_though_they_are_resealed(run, copy):
    with np.load(copy / "predictions.npz") as arrays:
        content = dict(arrays)
    content["probabilities"] = content["probabilities"] * np.float32(0.999)  # of the same scores
    np.savez(copy / "predictions.npz", **content)
    reseal(copy)
    report = audit.audit(copy, against=run[1])
    assert report["difference"] == "predictions.npz differs: its array probabilities"


def test_exit_codes_and_json(run, copy, tmp_path):
    def call(*flags):
        command = [sys.executable, "-m", "lsanet_jax.audit", *map(str, flags)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    same = call(f"--workdir={run[1]}", f"--against={copy}")
    assert same.returncode == 0
    assert same.stdout.startswith("identical: 2 epochs, bit for bit\nThe test split was evaluated ")
    damaged = call(f"--workdir={tmp_path}", "--json")
    assert (damaged.returncode, damaged.stdout) == (2, "")
    assert damaged.stderr.startswith("error: ")
    other = json.loads(lines_of(copy)[1]) | {"params": "0" * 64}
    rewrite(copy, 2, **other)
    (copy / "digests.jsonl").write_text("".join(line + "\n" for line in lines_of(copy)[:2]))
    as_unfinished(copy)
    different = call(f"--workdir={run[1]}", f"--against={copy}", "--json")
    assert different.returncode == 1
    report = json.loads(different.stdout)
    assert (report["identical"], report["size"]) == (False, None)
    change_a_digit(copy / "digests.jsonl")
    changed = call(f"--workdir={copy}")
    assert (changed.returncode, changed.stdout) == (2, "")
    assert "line 2 does not follow on line 1" in changed.stderr


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
