"""Seals: an edit or a flipped bit of a run ends in an error that names the file."""

import contextlib
import json
import logging
import os
import random
import re
import shutil
import subprocess
import zipfile

import numpy as np
import pytest

from lsanet_jax import audit, export, predict, train
from lsanet_jax import config as config_lib
from lsanet_jax.errors import ConfigError, WorkdirError
from lsanet_jax.report import results
from lsanet_jax.runs import chain, claim, seal, trained
from lsanet_jax.runs.manifest import sha256
from lsanet_jax.runs.workdir import Workdir, check_same_config, read_config
from lsanet_jax.runtime.files import json_text
from lsanet_jax.sweeps import spec
from tests.sealed import as_earlier_version, as_unfinished

FILES = ("config.json", "manifest.json", "metrics.jsonl", "digests.jsonl", "result.json")


@pytest.fixture
def copy(run, tmp_path):
    """A copy of the finished run, to be changed."""
    return shutil.copytree(run[1], tmp_path / "copy")


@pytest.fixture(scope="module")
def small_copy(run, tmp_path_factory):
    """The files of the finished run, without checkpoints; a test puts back what it changes."""
    ignore = shutil.ignore_patterns("checkpoints", "tensorboard")
    return shutil.copytree(run[1], tmp_path_factory.mktemp("small") / "run", ignore=ignore)


@pytest.fixture(scope="module")
def swept(run):
    """A sweep whose only run is the finished one, and a function from its folder to the job."""
    fields = {k: v for k, v in config_lib.flatten(run[0]) if k != "seed"}
    made = spec.Sweep("mine", "", (spec.Run("tiny", "quickstart", {}, {}),), overrides=fields)
    return made, lambda path: spec.Job(made.runs[0], run[0].seed, path)


def seen(value):
    """What a reader returned, comparable."""
    return repr(value)


@pytest.fixture(scope="module")
def readers(run, swept):
    """What each command reads of a finished run, as functions of its folder."""
    sweep, job = swept

    def resume(path):
        with Workdir(path, run[0]) as folder:
            return folder.finished_result()

    def report(path):
        assert spec.result(sweep, job(path)) is not None
        return results._read(job(path))

    return {
        "predict and export": trained.read_checked,
        "report": report,
        "audit": audit.check_files,
        "resume": resume,
    }


def flips(path, names, step):
    """Each bit of files flipped, one at a time; every `step`th of them."""
    for name in names:
        whole = (path / name).read_bytes()
        for bit in range(0, 8 * len(whole), step):
            flipped = bytearray(whole)
            flipped[bit // 8] ^= 1 << bit % 8
            (path / name).write_bytes(flipped)
            yield name, bit
        (path / name).write_bytes(whole)


def check_flips(path, readers, step):
    sound = {name: seen(read(path)) for name, read in readers.items()}
    noticed = 0
    for name, bit in flips(path, (*FILES, "seal.json"), step):
        for reader, read in readers.items():
            try:
                found = seen(read(path))
            except WorkdirError as error:
                noticed += 1
                assert re.search(r"\b(config|manifest|result|seal)\.json|\.jsonl", str(error))
            else:
                assert found == sound[reader], f"bit {bit} of {name}: {reader}"
    return noticed


def test_a_flipped_bit_is_never_read_as_another_value(small_copy, readers):
    assert check_flips(small_copy, readers, step=1499) > 200


@pytest.mark.slow
def test_no_flipped_bit_at_all_passes_the_seal(small_copy, readers):
    assert check_flips(small_copy, {"seal": seal.check}, step=1) > 100_000
    assert check_flips(small_copy, readers, step=53) > 5_000


def check_flips_of_unfinished(path, config, step):
    as_unfinished(path)
    with Workdir(path, config) as folder:
        logs = folder.logs_so_far()
        epochs = {name: (path / name).read_bytes() for name in logs}
        for name, bit in flips(path, FILES[:4], step):
            with contextlib.suppress(WorkdirError):
                check_same_config(path, config)
                fixed = dict(config_lib.flatten(read_config(path)))
                folder.keep_epochs(2, logs)
                for log in logs:
                    # The looks at the test split, at the end, are taken again.
                    found = (path / log).read_bytes()
                    two = b"".join(epochs[log].splitlines(keepends=True)[:2])
                    assert found.startswith(two), f"bit {bit} of {name}"
                for field in fixed.keys() - config_lib.MAY_CHANGE:
                    assert fixed[field] == dict(config_lib.flatten(config))[field]
            for log, whole in epochs.items():
                (path / log).write_bytes(whole)


def test_an_unfinished_run_with_a_flipped_bit_is_not_resumed_from_other_values(copy, run):
    check_flips_of_unfinished(copy, run[0], step=1999)


@pytest.mark.slow
def test_an_unfinished_run_with_any_flipped_bit_is_not_resumed_from_other_values(copy, run):
    check_flips_of_unfinished(copy, run[0], step=29)


def rewrite(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content, indent=1))


def swap_names(content):
    names = content["dataset"]["class_names"]
    names[0], names[1] = names[1], names[0]


def replace_predictions(path):
    with np.load(path / "predictions.npz") as arrays:
        content = dict(arrays)
    content["probabilities"] = content["probabilities"][:, ::-1].copy()
    np.savez(path / "predictions.npz", **content)


def damage_line(file, number):
    lines = file.read_bytes().splitlines(keepends=True)
    lines[number - 1] = b"x" + lines[number - 1]
    file.write_bytes(b"".join(lines))


EDITS = {
    "mean": ("config.json", lambda p: rewrite(p, lambda c: c.update({"data.mean": [0.1]}))),
    "class names": ("manifest.json", lambda p: rewrite(p, swap_names)),
    "best epoch": ("result.json", lambda p: rewrite(p, lambda c: c.update(best_epoch=1))),
    "accuracy": ("result.json", lambda p: rewrite(p, lambda c: c["test"].update(acc=0.999))),
    "predictions": ("predictions.npz", lambda p: replace_predictions(p.parent)),
    "a middle line of digests": ("digests.jsonl", lambda p: damage_line(p, 1)),
    "a middle line of metrics": ("metrics.jsonl", lambda p: damage_line(p, 1)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_file_is_named(copy, readers, edit):
    name, change = EDITS[edit]
    change(copy / name)
    message = rf"{re.escape(str(copy / name))} (has changed since the run was sealed|is not the)"
    for reader in ("report", "audit", "resume"):
        with pytest.raises(WorkdirError, match=message):
            readers[reader](copy)
    if name not in ("predictions.npz", "metrics.jsonl"):  # which predict does not read
        with pytest.raises(WorkdirError, match=message):
            predict.predict_to_file(copy)
        with pytest.raises(WorkdirError, match=message):
            export.export(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: (p / "result.json").unlink(), r"result\.json is missing since the run was"),
        (lambda p: (p / "environments.jsonl").write_text("{}\n"), r"environments\.jsonl is new"),
        (
            lambda p: rewrite(p / "seal.json", lambda c: c.update(test_looks=0)),
            r"seal\.json has changed since it was written",
        ),
        (lambda p: (p / "seal.json").unlink(), r"seal\.json is missing: the run was stopped"),
        (lambda p: (p / "seal.json").write_text("{}"), r"seal\.json is damaged \(files is missing"),
    ],
)
def test_missing_new_and_resealed_files_are_named(copy, change, message):
    change(copy)
    with pytest.raises(WorkdirError, match=message):
        seal.check(copy)


def test_weights_other_than_the_sealed_ones_are_not_used(copy):
    content = json.loads((copy / "seal.json").read_text())
    content["weights"]["params"] = 64 * "0"
    content["sha256"] = seal.own_sha256(content)
    (copy / "seal.json").write_text(json.dumps(content))
    with pytest.raises(WorkdirError, match="checkpoints does not hold the params of epoch"):
        trained.load(copy)


def test_a_run_of_an_earlier_version_is_read_with_a_note(copy, readers, caplog):
    as_earlier_version(copy)
    with caplog.at_level(logging.WARNING):
        assert trained.read_checked(copy).seal is None
    assert f"{copy} has no seal.json" in caplog.text
    assert readers["report"](copy).looks is None
    assert not audit.check_files(copy).sealed
    assert readers["resume"](copy)["seed"] == 0


def test_the_chain_counts_how_often_the_test_split_was_looked_at(run, readers):
    found = chain.read(run[1])
    epochs = {2, json.loads((run[1] / "result.json").read_text())["best_epoch"]}
    assert {look["epoch"] for look in found.looks} == epochs
    assert seal.check(run[1])["test_looks"] == len(epochs) == len(found.looks)
    assert readers["report"](run[1]).looks == len(epochs)


def test_a_look_that_gives_the_same_is_counted_once(copy, run):
    before = chain.read(copy)
    as_unfinished(copy)
    with Workdir(copy, run[0]) as folder:
        for look in before.looks:
            folder.write_look(look["epoch"], look["predictions"])
        assert chain.read(copy).looks == before.looks
        folder.write_look(1, 64 * "0")
    assert len(chain.read(copy).looks) == len(before.looks) + 1


# ------------------------------------------------------------------------------ the seal alone


def sealable(path, best):
    """The least of a run of four epochs that can be sealed, which looked once at the test split."""
    end = sha256(b"{}")
    (path / "manifest.json").write_text("{}")
    lines = []
    digests = ("params", "batch_stats", "opt_state")
    for epoch in range(1, 5):
        line = {"epoch": epoch, "step": epoch, "loss": (0.5).hex(), "tensors": {}, "previous": end}
        lines.append(json.dumps(line | {name: f"{name} of {epoch}" for name in digests}))
        end = sha256(lines[-1].encode())
    look = {"split": "test", "epoch": best, "predictions": "", "previous": end}
    lines.append(json.dumps(look))
    end = sha256(lines[-1].encode())
    (path / "digests.jsonl").write_text("".join(f"{line}\n" for line in lines))
    result = {"best_epoch": best, "test_looks": 1, "last_digest": end}
    (path / "result.json").write_text(json.dumps(result))
    return end


@pytest.mark.parametrize("best", [1, 2, 3, 4])
def test_a_seal_holds_the_weights_of_the_best_epoch(tmp_path, best):
    end = sealable(tmp_path, best)
    seal.write(tmp_path)
    found = seal.check(tmp_path)
    weights = {"params": f"params of {best}", "batch_stats": f"batch_stats of {best}"}
    assert found["weights"] == {"epoch": best} | weights
    assert (found["chain"], found["test_looks"]) == (end, 1)
    names = ("manifest.json", "digests.jsonl", "result.json")
    assert found["files"] == {name: sha256((tmp_path / name).read_bytes()) for name in names}


def test_no_part_of_a_seal_can_be_edited(tmp_path):
    sealable(tmp_path, 2)
    seal.write(tmp_path)
    whole = json.loads((tmp_path / "seal.json").read_text())
    assert seal.own_sha256(dict(reversed(whole.items()))) == whole["sha256"]
    edits = [{"files": {}}, {"chain": ""}, {"weights": whole["weights"] | {"epoch": 3}}]
    edits += [{"test_looks": number} for number in (0, *range(2, 8))]
    for edit in edits:
        (tmp_path / "seal.json").write_text(json.dumps(whole | edit))
        with pytest.raises(WorkdirError, match=r"seal\.json has changed since it was written"):
            seal.check(tmp_path, ())


def test_a_run_is_asked_for_its_seal_from_its_result_on(tmp_path, caplog):
    assert seal.check(tmp_path) is None and not seal.is_missing(tmp_path)
    seal.note_if_old(tmp_path)
    sealable(tmp_path, 2)
    assert seal.is_missing(tmp_path)
    seal.write(tmp_path)
    assert not seal.is_missing(tmp_path)
    seal.note_if_old(tmp_path)
    assert not caplog.records
    (tmp_path / "result.json").unlink()
    assert not seal.is_missing(tmp_path)


# ------------------------------------------------------------------------------ resume


@pytest.fixture
def unfinished(copy):
    as_unfinished(copy)
    return copy


@pytest.mark.parametrize("name", ["metrics.jsonl", "digests.jsonl"])
def test_a_line_that_a_crash_cut_off_is_dropped(unfinished, run, name):
    whole = (unfinished / name).read_bytes()
    with (unfinished / name).open("ab") as file:
        file.write(whole[: len(whole) // 5])
    with Workdir(unfinished, run[0]) as folder:
        folder.keep_epochs(2, {})
    assert (unfinished / name).read_bytes() == whole


@pytest.mark.parametrize("name", ["metrics.jsonl", "digests.jsonl"])
def test_a_damaged_line_before_the_last_stops_a_resume(unfinished, run, name):
    damage_line(unfinished / name, 1)
    with (
        Workdir(unfinished, run[0]) as folder,
        pytest.raises(WorkdirError, match=rf"{name}: line 1 is damaged"),
    ):
        folder.keep_epochs(1, {})


@pytest.mark.parametrize("name", ["metrics.jsonl", "digests.jsonl"])
def test_an_epoch_before_the_checkpoint_must_be_there(unfinished, run, name):
    lines = (unfinished / name).read_bytes().splitlines(keepends=True)
    (unfinished / name).write_bytes(lines[0])
    with (
        Workdir(unfinished, run[0]) as folder,
        pytest.raises(WorkdirError, match=rf"{name} is damaged: it lacks lines of the 2 epochs"),
    ):
        folder.keep_epochs(2, {})


def test_a_log_other_than_the_checkpoint_remembers_is_named(unfinished, run):
    with Workdir(unfinished, run[0]) as folder:
        logs = folder.logs_so_far()
        file = unfinished / "metrics.jsonl"
        file.write_text(file.read_text().replace('"acc": 0.', '"acc": 1.', 1))
        with pytest.raises(WorkdirError, match=r"metrics\.jsonl is damaged: its first 2 lines"):
            folder.keep_epochs(2, logs)


def test_a_config_other_than_the_manifests_copy_is_named(unfinished, run):
    rewrite(unfinished / "config.json", lambda c: c.update({"data.mean": [0.1, 0.1, 0.1]}))
    for read in (read_config, lambda path: Workdir(path, run[0])):
        with pytest.raises(WorkdirError, match=r"config\.json is not the config.*data\.mean is"):
            read(unfinished)


def test_a_run_that_was_stopped_before_its_seal_is_finished_with_the_same_result(copy, run):
    before = {name: (copy / name).read_bytes() for name in (*FILES, "seal.json")}
    (copy / "seal.json").unlink()
    train.train_and_evaluate(run[0], copy)
    after = {name: (copy / name).read_bytes() for name in before}
    assert after == before


# ------------------------------------------------------------------------------ strangers


@pytest.mark.parametrize("name", ["metrics.jsonl", "lock", "result.json"])
def test_links_named_like_our_files_are_not_written_through(tmp_path, run, name):
    target = tmp_path / "diary.txt"
    target.write_text("dear diary")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_bytes((run[1] / "config.json").read_bytes())
    (folder / name).symlink_to(target)
    with (
        Workdir(folder, run[0]) as workdir,
        pytest.raises(WorkdirError, match=f"{name} is a link, to {target}"),
    ):
        workdir.claim({})
    assert target.read_text() == "dear diary"


def test_code_that_only_a_run_names_is_not_imported(copy, tmp_path, monkeypatch):
    (tmp_path / "strangers_net.py").write_text("raise SystemExit('their code ran')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("config.json", "manifest.json"):
        text = (copy / name).read_text().replace("tests.networks:TinyNet", "strangers_net:Net")
        (copy / name).write_text(text)
    as_unfinished(copy)
    (copy / "digests.jsonl").unlink()
    with pytest.raises(ConfigError, match="strangers_net.*--trust_code"):
        predict.predict_to_file(copy, checkpoint="last")


def test_exports_of_one_run_are_the_same_bytes_and_readable_by_others(run, tmp_path):
    files = [export.export(run[1], tmp_path / name) for name in ("a.safetensors", "b.safetensors")]
    assert files[0].read_bytes() == files[1].read_bytes()
    umask = os.umask(0)
    os.umask(umask)
    assert files[0].stat().st_mode & 0o777 == 0o666 & ~umask


# ------------------------------------------------------------------------------ claims


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    """The claim of the finished run."""
    file = tmp_path_factory.mktemp("claim") / "claim.zip"
    claim.pack(run[1], file)
    return file


def unpack(file, folder):
    folder.mkdir()
    return claim.unpack(file, folder)


def test_a_claim_is_the_same_bytes_each_time_and_holds_the_run(packed, run, tmp_path):
    claim.pack(run[1], tmp_path / "again.zip")
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    assert unpack(packed, tmp_path / "there") == [""]
    for name in (*FILES, "predictions.npz", "seal.json"):
        assert (tmp_path / "there" / name).read_bytes() == (run[1] / name).read_bytes()
    assert "jax==" in (tmp_path / "there/packages.txt").read_text()
    about = json.loads((tmp_path / "there/claim.json").read_text())["runs"]["."]
    assert about["test_looks"] == seal.check(run[1])["test_looks"]


def test_a_sweep_packs_as_one_with_its_report(small_copy, tmp_path):
    for name in ("ours/seed0", "ours/seed1"):
        shutil.copytree(small_copy, tmp_path / "sweep" / name)
    (tmp_path / "sweep/sweep.json").write_text("{}")
    (tmp_path / "sweep/report").mkdir()
    (tmp_path / "sweep/report/mine.md").write_text("# Mine")
    claim.pack(tmp_path / "sweep", tmp_path / "claim.zip")
    assert unpack(tmp_path / "claim.zip", tmp_path / "there") == ["ours/seed0", "ours/seed1"]
    assert (tmp_path / "there/report/mine.md").read_text() == "# Mine"
    assert audit.check_files(tmp_path / "there/ours/seed1").sealed


def test_a_folder_without_a_run_is_not_packed(tmp_path):
    with pytest.raises(WorkdirError, match="holds no run, and no sweep with a finished run"):
        claim.pack(tmp_path, tmp_path / "claim.zip")


def test_one_changed_byte_of_a_claim_is_noticed(packed, tmp_path):
    whole = packed.read_bytes()
    draw = random.Random(0)
    places = draw.sample(range(len(whole)), 60) + [0, 4, 10, len(whole) - 1, len(whole) - 20]
    for number, place in enumerate(places):
        changed = bytearray(whole)
        changed[place] ^= 1 << draw.randrange(8)
        (tmp_path / "claim.zip").write_bytes(changed)
        with pytest.raises(WorkdirError):
            unpack(tmp_path / "claim.zip", tmp_path / str(number))


@pytest.mark.parametrize("name", ["../outside", "/outside", "a/../../outside", "a\\b"])
def test_a_claim_writes_only_below_its_folder(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "claim.zip", "w") as archive:
        archive.writestr("claim.json", "{}")
        archive.writestr(name, "x")
    with pytest.raises(WorkdirError, match="a member is called"):
        unpack(tmp_path / "claim.zip", tmp_path / "there")
    assert not list(tmp_path.rglob("outside"))


def test_a_claim_with_weights_predicts(run, tmp_path):
    claim.pack(run[1], tmp_path / "claim.zip", weights=True)
    unpack(tmp_path / "claim.zip", tmp_path / "there")
    images = np.zeros((2, 28, 28, 3), np.uint8)
    ours, theirs = (trained.load_run(path).predict(images) for path in (run[1], tmp_path / "there"))
    np.testing.assert_array_equal(ours, theirs)


def repacked(file, folder, change):
    """Write a claim again as a forger would, after a change to what `claim.json` says."""
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder)
    content = json.loads((folder / "claim.json").read_text())
    change(content, folder)
    files = [path for path in folder.rglob("*") if path.is_file()]
    members = {path.relative_to(folder).as_posix(): path for path in files}
    del members["claim.json"]
    content["files"] = {name: claim._sha256(path) for name, path in members.items()}
    content["sha256"] = seal.own_sha256(content)
    members["claim.json"] = json_text(content, indent=1).encode()
    claim._write(folder / "again.zip", members)
    return folder / "again.zip"


def better(content, folder):
    content["runs"]["."]["test"]["acc"] = 0.999


def a_run_of_the_readers_own(content, folder):
    content["runs"] = {str(folder.parent / "mine"): content["runs"]["."]}


def a_run_above(content, folder):
    content["runs"] = {"../mine": content["runs"]["."]}


def without_a_run(content, folder):
    content["runs"] = {}


def without_a_seal(content, folder):
    as_earlier_version(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (better, "says of the run '.' what its files do not"),
        (a_run_of_the_readers_own, "it holds no run '/"),
        (a_run_above, r"it holds no run '\.\./mine'"),
        (without_a_run, r"does not list the run '\.'"),
        (without_a_seal, r"has no seal\.json|chain|last line"),
    ],
)
def test_a_claim_that_says_more_than_its_runs_is_refused(packed, run, tmp_path, change, message):
    (tmp_path / "forged").mkdir()
    same = repacked(packed, tmp_path / "forged", lambda content, folder: None)
    assert unpack(same, tmp_path / "there") == [""]
    same.unlink()
    file = repacked(packed, tmp_path / "forged", change)
    with pytest.raises(WorkdirError, match=message):
        unpack(file, tmp_path / "elsewhere")


def test_a_claim_that_declares_more_than_it_holds_is_refused_unread(packed, tmp_path):
    whole = bytearray(packed.read_bytes())
    with zipfile.ZipFile(packed) as archive:
        end = archive.start_dir
    for place in (end + 20, end + 24):  # Of the first member: both of its sizes.
        whole[place : place + 4] = (2**31).to_bytes(4, "little")
    (tmp_path / "claim.zip").write_bytes(whole)
    with pytest.raises(WorkdirError, match="its members are larger than itself"):
        unpack(tmp_path / "claim.zip", tmp_path / "there")
    assert not list((tmp_path / "there").iterdir())


@pytest.mark.parametrize("name", ["claim.zip", "key.pem", "claim.zip.sig"])
def test_pipes_are_not_waited_for(packed, tmp_path, name):
    for each in ("claim.zip", "key.pem", "claim.zip.sig"):
        (tmp_path / each).write_bytes(packed.read_bytes())
    (tmp_path / name).unlink()
    os.mkfifo(tmp_path / name)
    with pytest.raises(WorkdirError, match="not a regular file"):
        claim.verify(tmp_path / "claim.zip", tmp_path / "key.pem")


def test_only_sealed_runs_are_packed(copy, tmp_path):
    as_earlier_version(copy)
    with pytest.raises(WorkdirError, match=r"has no seal\.json: only a finished run"):
        claim.pack(copy, tmp_path / "claim.zip")
    assert not (tmp_path / "claim.zip").exists()


def test_a_claim_is_checked_from_the_command_line(packed, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lsanet audit", "check", str(packed)])
    monkeypatch.setattr(audit.cli, "run", lambda tool: tool())  # which sets up logging for good
    with pytest.raises(SystemExit) as stop:
        audit.main()
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "The test split was evaluated" in out
    assert "Proven: the files of the run are those that were sealed when it ended" in out
    assert "Not proven: that training gives them" in out


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
def test_claims_are_signed_and_verified_offline(packed, tmp_path):
    pytest.importorskip("model_signing")
    pytest.importorskip("OpenSSL")
    for name in ("ours", "other"):  # as docs/audits.md says
        for command in (
            f"openssl ecparam -name prime256v1 -genkey -noout -out {name}.pem",
            f"openssl ec -in {name}.pem -pubout -out {name}.pub",
        ):
            subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    file = tmp_path / "claim.zip"
    shutil.copy(packed, file)
    with pytest.raises(WorkdirError, match="nokey"):
        claim.check_key(tmp_path / "nokey.pem")
    claim.sign(file, tmp_path / "ours.pem")
    claim.verify(file, tmp_path / "ours.pub")
    with pytest.raises(WorkdirError, match="is not a signature of"):
        claim.verify(file, tmp_path / "other.pub")
    with file.open("ab") as stream:
        stream.write(b"x")
    with pytest.raises(WorkdirError, match="is not a signature of"):
        claim.verify(file, tmp_path / "ours.pub")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_shape": [32, 32]}, r"image_shape is \[32, 32\]"),
        ({"image_shape": [1 << 30, 1 << 30, 3]}, "image_shape is"),
        ({"image_shape": [32, 32, 1 << 30]}, "image_shape is"),
        ({"stored_shape": [1, 1 << 40, 3]}, "stored_shape is"),
        ({"decoding": {"size": 28, "resize": "magic", "channels": 3}}, "'magic'"),
        ({"decoding": {"size": 1 << 40, "resize": "bicubic", "channels": 3}}, "decoding.size is"),
        ({"decoding": {"size": 28, "resize": "bicubic", "channels": 3, "x": 1}}, "decoding has x"),
    ],
)
def test_a_forged_form_of_the_images_is_refused(copy, change, message):
    as_earlier_version(copy)
    (copy / "digests.jsonl").unlink()  # what would notice the edit
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["dataset"] |= change
    (copy / "manifest.json").write_text(json_text(manifest))
    with pytest.raises(WorkdirError, match=f"manifest.json is damaged: .*{message}"):
        trained.load(copy)
