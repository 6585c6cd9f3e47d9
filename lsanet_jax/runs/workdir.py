"""The folder of a run: who may write to it, and how its files are written; see `layout`."""

import contextlib
import functools
import json
import logging
import math
import os
import pathlib
import platform
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Self, cast

import ml_collections
import numpy as np

from lsanet_jax.config import FIELDS, MAY_CHANGE, complete, flatten, unflatten
from lsanet_jax.data.dataset import Split
from lsanet_jax.errors import WorkdirError
from lsanet_jax.metrics import Predictions
from lsanet_jax.runs import chain, seal
from lsanet_jax.runs.layout import (
    CALIBRATION,
    CHECKPOINTS,
    CONFIG,
    DIGESTS,
    ENVIRONMENTS,
    LOCK,
    MANIFEST,
    METRICS,
    PREDICTIONS,
    RESULT,
    SEAL,
    TENSORBOARD,
)
from lsanet_jax.runs.manifest import differences, make_record, sha256
from lsanet_jax.runtime import strict_json
from lsanet_jax.runtime.files import json_text, replacing, try_lock, write_atomically
from lsanet_jax.runtime.strict_json import Each, Maybe

log = logging.getLogger(__name__)

WRITTEN_ATOMICALLY = (*seal.SEALED, SEAL)
DECODING = {
    "size": int,
    "resize": str,
    "channels": int,
    "fit": Maybe(str),
    "bits": Maybe(int),
    "window": Maybe([float]),
    "frame": Maybe(int),
    "max_megapixels": Maybe(float),
}
MANIFEST_SHAPE = {
    "config": Maybe(dict),
    "dataset": {
        "name": str,
        "task": str,
        "class_names": [str],
        "image_shape": [int],
        "stored_shape": Maybe([int]),
        "fingerprint": Maybe(str),
        "labelled": Maybe(int),
        "decoding": Maybe(DECODING),
    },
    "environment": {"packages": Maybe(Each(str)), "xla_flags": Maybe(str)},
    "weights": Maybe({"sha256": str}),
    "weights_from": Maybe({"commit": Maybe(str)}),
}
SCORE = {"acc": float, "auc": (float, None)}
RESULT_SHAPE = {
    "dataset": str,
    "task": str,
    "backbone": Maybe(str),
    "objective": Maybe(str),
    "seed": int,
    "selected": Maybe(str),
    "best_epoch": int,
    "val": Maybe(SCORE),
    "test": SCORE,
    "last_epoch": {"epoch": int, "val": Maybe(SCORE), "test": SCORE},
    "classifiers": [SCORE | {"stage": int}],
    "beta": Maybe(([float], None)),
    "images_per_second": Maybe((float, None)),
    "seconds": float,
    "skipped_steps": Maybe(int),
    "last_digest": Maybe(str),
    "test_looks": Maybe(int),
}
FLUSH_SECONDS = 30  # How long TensorBoard may have to wait for a point.

Track = Callable[[int, Mapping[str, float]], None]
"""Takes a step, and numbers by name."""


class Workdir:
    """The files of one run; as a context it closes them, and gives up the lock.

    Attributes:
      path: the folder.
    """

    def __init__(
        self,
        path: str | pathlib.Path,
        config: ml_collections.ConfigDict,
        *,
        writes: bool = True,
        track: Track | None = None,
    ):
        """Look at the folder, which need not exist; nothing is written before `claim`.

        Args:
          path: the folder.
          config: of the run.
          writes: False for all but one of several processes; then everything that writes does
            nothing.
          track: gets what TensorBoard gets, too.

        Raises:
          WorkdirError: the folder belongs to a run of another config, or holds damaged files.
        """
        _check_place(path)
        self.path = pathlib.Path(path).absolute()
        self._writes, self._track = writes, track
        self._lock_file: IO | None = None
        self._scalars, self._flushed = None, 0.0
        self._config = _as_json(config)
        self._config_file = self.path / CONFIG
        if not writes:
            return
        if strict_json.exists(self._config_file):
            check_same_config(self.path, config)
        elif self._holds_other_files():
            raise WorkdirError(
                f"--workdir={path} is not empty and holds no config.json: it was not created by "
                "lsanet_jax; choose another folder"
            )

    def _holds_other_files(self) -> bool:
        try:
            return self.path.is_dir() and not all(map(_left_behind, self.path.iterdir()))
        except OSError as error:
            raise WorkdirError(f"cannot read --workdir={self.path}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def close(self) -> None:
        """Close the files and give up the lock."""
        with contextlib.suppress(OSError):  # What stopped the run has been said.
            if self._scalars is not None:
                self._scalars.close()
        if self._lock_file is not None:
            self._lock_file.close()
        self._scalars = self._lock_file = None

    def claim(self, manifest: dict) -> None:
        """Make the folder and write its config and manifest: from now on it belongs to this run.

        Args:
          manifest: `dataset`, `environment` and, if it starts from a file of weights, `weights`,
            as JSON has them. A resumed run keeps its own; another environment is a warning, since
            bits may then differ, and is added to `environments.jsonl`.

        Raises:
          WorkdirError: it cannot be written to, another process is training in it, or its run was
            started on other data or with other weights.
        """
        if not self._writes:
            return
        with self._writing():
            self.path.mkdir(parents=True, exist_ok=True)
            self._refuse_links()
            self._lock()
        # Since it was looked for; runs of earlier versions have no seal.
        if strict_json.exists(self.path / SEAL) and self.finished_result() is not None:
            raise WorkdirError(
                f"another process has just finished the run in {self.path}: the same command "
                "reports it"
            )
        with self._writing():
            for temporary in filter(_temporary, self.path.iterdir()):
                temporary.unlink()
        file = self.path / MANIFEST
        found = read_manifest(self.path) if strict_json.exists(file) else None
        if found is not None:
            # A file or folder that was moved may have another name; older runs did not record the
            # decoding, nor how many images have labels: the fingerprint says as much.
            then, now = found["dataset"] | {"name": ""}, manifest["dataset"] | {"name": ""}
            now = {k: v for k, v in now.items() if k in then or k not in ("decoding", "labelled")}
            _refuse_other_data(self.path, then, now)
            weights = found.get("weights")
            if weights and manifest.get("weights", weights) != weights:
                raise WorkdirError(
                    f"{self.path} holds a run that began with other weights: by its SHA-256, "
                    "config.model.init_from was another file. Use another --workdir, or that file"
                )
            changed = differences(found.get("environment"), manifest["environment"])
            for sentence in changed:
                log.warning("resuming in another environment: %s", sentence)
            if changed:
                self._add_environment(json_text(manifest["environment"]))
        with self._writing():
            write_atomically(self._config_file, json_text(self._config, indent=1))
            if found is None:
                write_atomically(file, json_text({"config": self._config} | manifest, indent=1))

    def _refuse_links(self) -> None:
        """Keep a folder that someone else made from having us write elsewhere."""
        for name in (*WRITTEN_ATOMICALLY, LOCK):
            if (self.path / name).is_symlink():
                raise WorkdirError(
                    f"{self.path / name} is a link, to {(self.path / name).readlink()}: a run "
                    "writes only to files of its own. Put the file itself there, or remove the link"
                )

    def _add_environment(self, line: str) -> None:
        file = self.path / ENVIRONMENTS
        known = strict_json.read_json_lines(file, cut=True)
        lines = [json_text(each) for each in known]
        if line not in lines:
            with self._writing():
                write_atomically(file, "".join([*lines, line]))

    def _lock(self) -> None:
        self._lock_file = stream = (self.path / LOCK).open("a+")
        try:
            locked = try_lock(stream)
        except OSError as error:  # Some network file systems have no locks.
            log.warning("cannot lock %s (%s): start no second process in it", self.path, error)
            return
        if not locked:
            stream.seek(0)
            raise WorkdirError(
                f"another process is training in --workdir={self.path} ({stream.read().strip()}): "
                "wait until it ends, or use another --workdir"
            )
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {platform.node()}\n")
        stream.flush()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WorkdirError(
                f"cannot write to --workdir={self.path}: {error}. Free some space or fix what is "
                "wrong, and resume with the same command"
            ) from error

    def finished_result(self) -> dict | None:
        """The contents of `result.json`, or None while the run is not finished and sealed.

        Raises:
          WorkdirError: a file of the finished run is damaged, or is not what was sealed.
        """
        result = self.path / RESULT
        sealed = strict_json.exists(self.path / SEAL)
        if seal.is_missing(self.path) or not (sealed or strict_json.exists(result)):
            return None
        seal.check(self.path)
        seal.note_if_old(self.path)
        return read_result(self.path)

    def keep_epochs(self, last: int, logs: Mapping[str, str]) -> None:
        """Drop what the logs have after epoch `last`: it will be trained again.

        Args:
          last: the epoch after which a checkpoint was restored; 0 if there is none.
          logs: the `logs_so_far` that this checkpoint remembers; none in those of 0.1.0.

        Raises:
          WorkdirError: a line is damaged, other than the last one, which a crash may have cut off;
            or an epoch before the checkpoint is missing, or is not what was written then.
        """
        if not self._writes:
            return
        for name in (METRICS, DIGESTS):
            file = self.path / name
            epochs = self._epochs_of_lines(name)
            if epochs[:last] != list(range(1, last + 1)):
                raise WorkdirError(
                    f"{file} is damaged: it lacks lines of the {last} epochs that the checkpoint "
                    "comes after; restore it, or use another --workdir"
                )
            if not epochs and not strict_json.exists(file):
                continue
            lines = strict_json.read_lines(file, cut=True)
            if name in logs and logs[name] != sha256(_joined(lines[:last])):
                raise WorkdirError(
                    f"{file} is damaged: its first {last} lines are not those that the checkpoint "
                    "after them remembers; restore it, or use another --workdir"
                )
            with self._writing():
                kept = lines[: sum(epoch <= last for epoch in epochs)]
                write_atomically(file, _joined(kept).decode())
        if strict_json.exists(self.path / RESULT):  # not sealed: it is evaluated again
            with self._writing():
                (self.path / RESULT).unlink()

    def refuse_lost_checkpoints(self) -> None:
        """Check that a run with epochs in its logs has its folder of checkpoints.

        The folder is made before the first epoch is logged, so a crash cannot have left it out; the
        checkpoints in it may be fewer than the epochs.

        Raises:
          WorkdirError: it has not.
        """
        last = self.path / CHECKPOINTS / "last"
        if not self._writes or last.is_dir():
            return
        if epochs := len(self._epochs_of_lines(METRICS)):
            raise WorkdirError(
                f"{last} is missing, though {METRICS} has {epochs} epochs: restore it to resume, "
                "or use another --workdir to begin anew"
            )

    def _epochs_of_lines(self, name: str) -> list[int]:
        """The epoch of each line of a log; of the looks at the test split the last, as they end it.

        Raises:
          WorkdirError: a line is damaged, other than one that a crash cut off.
        """
        file = self.path / name
        if not strict_json.exists(file):
            return []
        if name == METRICS:
            entries = strict_json.read_json_lines(file, {"epoch": int}, cut=True)
            return [entry["epoch"] for entry in entries]
        found = chain.read(self.path, cut=True)
        epochs = [record["epoch"] for record in found.records]
        return epochs + [len(epochs)] * len(found.looks)

    def logs_so_far(self) -> dict[str, str]:
        """SHA-256 of the logs, by name, for a checkpoint to remember."""
        if not self._writes:
            return {}
        files = [self.path / name for name in (METRICS, DIGESTS)]
        return {file.name: strict_json.sha256_of(file) for file in files if file.exists()}

    def write_digests(self, digests: dict[str, str], *, epoch: int, step: int, loss: float) -> None:
        """Append the record of an epoch to `digests.jsonl`; see `manifest.make_record`."""
        if not self._writes:
            return
        previous = self.last_digest()
        record = make_record(digests, epoch=epoch, step=step, loss=loss, previous=previous)
        self._append(DIGESTS, record)

    def write_look(self, epoch: int, predictions: str) -> None:
        """Append an evaluation on the test split to the chain in `digests.jsonl`.

        One that is there already, from before a crash, is not counted again: nothing new was seen.

        Args:
          epoch: whose parameters were evaluated.
          predictions: SHA-256 of what they say.
        """
        if not self._writes:
            return
        found = chain.read(self.path, cut=True)
        look = {"split": "test", "epoch": epoch, "predictions": predictions}
        if all(look != {name: each[name] for name in look} for each in found.looks):
            self._append(DIGESTS, look | {"previous": found.end})

    def write_epoch(self, record: dict) -> None:
        """Append a line to `metrics.jsonl`, and its defined values to TensorBoard."""
        if not self._writes:
            return
        self._append(METRICS, record)
        numbers = {k: v for k, v in record["val"].items() if isinstance(v, float)}
        val = {f"val/{k}": v for k, v in numbers.items()}
        for classifier in record["val"]["classifiers"]:
            stage = f"stage{classifier['stage']}"
            val |= {f"val/{k}_{stage}": v for k, v in classifier.items() if k != "stage"}
        others = {name: record[name] for name in ("learning_rate", "images_per_second")}
        defined = {name: value for name, value in (val | others).items() if math.isfinite(value)}
        self.write_scalars(record["step"], defined)

    def _append(self, name: str, record: dict) -> None:
        with self._writing(), (self.path / name).open("a") as stream:
            stream.write(json_text(record))
            stream.flush()
            os.fsync(stream.fileno())  # A checkpoint that is on the disk has its lines there.

    def write_scalars(self, step: int, scalars: dict[str, float]) -> None:
        """Write numbers to TensorBoard."""
        if not self._writes:
            return
        if self._track is not None:
            self._track(step, scalars)
        event_file_writer, summary, event_pb2 = _tensorboard()
        with self._writing():
            if self._scalars is None:
                folder = self.path / TENSORBOARD
                folder.mkdir(exist_ok=True)
                self._scalars = event_file_writer.EventsWriter(str(folder / "events"))
            for name, value in scalars.items():
                make = event_pb2.Event  # pyright: ignore[reportAttributeAccessIssue] (generated)
                event = make(step=step, summary=summary.scalar(name, value))
                event.wall_time = time.time()
                self._scalars.write_event(event)
            if time.monotonic() > self._flushed + FLUSH_SECONDS:
                self._scalars.flush()
                self._flushed = time.monotonic()

    def write_result(self, result: dict) -> None:
        """Write `result.json`, with `last_digest` and `test_looks`, and seal the run."""
        if self._writes:
            found = chain.read(self.path, cut=True)
            result |= {"last_digest": found.end, "test_looks": len(found.looks)}
            with self._writing():
                write_atomically(self.path / RESULT, json_text(result, indent=1))
                seal.write(self.path)

    def write_predictions(
        self,
        predictions: Predictions,
        tested: Split,
        epoch: int | None,
        name: str = PREDICTIONS,
    ) -> None:
        """Write what every classifier says of the test split, or under another name of another.

        The arrays: `labels` [n] or [n, k], `probabilities` [l, n, k], `beta` [n, l] if there is
        attention, and `epoch`, the one that is reported; of a folder, `names` [n] of the files, and
        `groups` [n], numbers of the patients or other groups, if they are known.
        """
        if self._writes:
            with self._writing():
                save_predictions(self.path / name, predictions, tested, epoch)

    def write_calibration(self, content: dict) -> None:
        """Write `calibration.json`; see `evaluation.decisions`."""
        if self._writes:
            with self._writing():
                write_atomically(self.path / CALIBRATION, json_text(content, indent=1))

    def last_digest(self) -> str:
        """SHA-256 of the chain's last link: the last line of `digests.jsonl`, else the manifest."""
        file = self.path / DIGESTS
        lines = strict_json.read_lines(file) if file.exists() else []
        return sha256(lines[-1] if lines else (self.path / MANIFEST).read_bytes())


def _check_place(path: str | pathlib.Path) -> None:
    """Check that a path can be a folder of this machine."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", str(path)):
        raise WorkdirError(
            f"--workdir={path} is an address: name a folder, such as one where the storage is "
            "mounted"
        )
    if os.path.exists(path) and not os.path.isdir(path):
        raise WorkdirError(f"--workdir={path} is a file: name a folder")


def save_predictions(
    file: pathlib.Path, predictions: Predictions, of: Split, epoch: int | None
) -> None:
    """Write a file as `Workdir.write_predictions` does."""
    arrays = {"labels": of.labels, "probabilities": predictions.probabilities, "epoch": epoch}
    if predictions.beta is not None:
        arrays["beta"] = predictions.beta
    of_files = {"names": of.names, "groups": of.groups}
    arrays |= {name: np.array(values) for name, values in of_files.items() if values}
    with replacing(file) as temporary, temporary.open("wb") as stream:
        np.savez(stream, **arrays)
        stream.flush()
        os.fsync(stream.fileno())


def _temporary(file: pathlib.Path) -> bool:
    """Whether `files.replacing` made it, for one of our files."""
    ours = "|".join(re.escape(name) for name in WRITTEN_ATOMICALLY)
    return bool(re.fullmatch(rf"\.({ours})\.\d+\.tmp", file.name))


def _left_behind(file: pathlib.Path) -> bool:
    """Whether it may be in a folder whose run was killed before it had a config."""
    return file.name == LOCK or _temporary(file)


def _as_json(config: ml_collections.ConfigDict) -> dict:
    return json.loads(json.dumps(dict(flatten(config))))


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _fixed(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that a resumed run must not change, as JSON has them."""
    fixed = {k: v for k, v in complete(values).items() if k not in MAY_CHANGE}
    return json.loads(json.dumps(fixed))


def check_same_config(path: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Check that the run in a folder has this config, except for the fields in `MAY_CHANGE`.

    Raises:
      WorkdirError: it has another config, or its `config.json` is damaged.
    """
    found, wanted = _fixed(_stored_config(path)), _fixed(dict(flatten(config)))
    if wanted["model.init_from"] and wanted["model.init_from"] == found["model.init_from"]:
        # What is at its default may have been set to what the weights want: see `weights`.
        for name in ("data.mean", "data.std"):
            if wanted[name] == list(cast(tuple, FIELDS[name].default)):
                wanted[name] = found[name]
    if changed := differences(found, wanted):
        raise WorkdirError(
            f"{path} holds a run of another config: {'; '.join(changed)}. Use another "
            "--workdir, or the same config to resume"
        )


def check_same_data(path: pathlib.Path, identity: Mapping[str, Any]) -> None:
    """Check that the run in a folder was trained on this data.

    Args:
      path: the folder.
      identity: fields of the manifest's `dataset`; those that an older manifest lacks are not
        compared.

    Raises:
      WorkdirError: it was trained on other data.
    """
    then = read_manifest(path)["dataset"]
    common = identity.keys() & then.keys()
    _refuse_other_data(path, *({name: each[name] for name in common} for each in (then, identity)))


def check_output(file: str | pathlib.Path, is_ours: Callable[[str], bool] | None = None) -> None:
    """Check that a file to be written can be, and is not one of a run's own, or of the user's.

    Args:
      file: to be written.
      is_ours: whether a file that begins like this may be overwritten, since we wrote it; None:
        any file may be.

    Raises:
      WorkdirError: it may not be; or there is a device, or no folder, in its place.
    """
    file = pathlib.Path(file).resolve()
    above = next(folder for folder in file.parents if folder.exists())
    if not above.is_dir():
        raise WorkdirError(f"cannot write --output={file}: {above} is not a folder")
    if file.exists() and not (file.is_file() or file.is_dir()):
        raise WorkdirError(f"cannot write --output={file}: it is a device, a pipe or a socket")
    own = (*WRITTEN_ATOMICALLY, LOCK, CHECKPOINTS, TENSORBOARD)
    if file.name in own and strict_json.exists(file.parent / CONFIG):
        raise WorkdirError(
            f"--output={file} is a file of the run in that folder, which would be damaged: choose "
            "another name"
        )
    if is_ours is None:
        return
    try:
        with file.open(encoding="utf-8", errors="replace", newline="") as stream:
            start = stream.read(1 << 16)
    except OSError:
        return  # It is a folder, is not there, or cannot be read.
    if start.strip() and not is_ours(start):
        raise WorkdirError(
            f"--output={file} is there already and was not written by this command, so it is not "
            "overwritten: choose another name, or move the file away"
        )


def _refuse_other_data(path: pathlib.Path, then: dict, now: dict) -> None:
    if changed := differences(then, now):
        raise WorkdirError(
            f"{path} holds a run on other data: {'; '.join(changed)}. Use another --workdir, or "
            "the same data"
        )


def read_config(path: pathlib.Path) -> ml_collections.ConfigDict:
    """Read the config of the run in a folder; fields that came after it have their defaults.

    Raises:
      WorkdirError: there is none, or it is not the one that the manifest has a copy of.
    """
    if not strict_json.exists(path / CONFIG):
        raise WorkdirError(f"workdir {path} holds no run: {CONFIG} is missing")
    return unflatten(complete(_stored_config(path)))


def _stored_config(path: pathlib.Path) -> dict[str, Any]:
    """The fields in `config.json`, checked against the copy in the manifest if there is one."""
    found = strict_json.read_json(path / CONFIG)
    if strict_json.exists(path / MANIFEST):
        copy = strict_json.read_json(path / MANIFEST, {"config": Maybe(dict)}).get("config", found)
        if changed := differences(_fixed(copy), _fixed(found)):
            raise WorkdirError(
                f"{path / CONFIG} is not the config that {MANIFEST} has a copy of (there) but "
                f"another (here): {'; '.join(changed)}. Restore it, or use another --workdir"
            )
    return found


def read_manifest(path: pathlib.Path) -> dict[str, Any]:
    """The manifest of the run in a folder.

    Raises:
      WorkdirError: there is none, or it is damaged.
    """
    if not strict_json.exists(path / MANIFEST):
        raise WorkdirError(f"--workdir={path} holds no {MANIFEST}: its training never started")
    return strict_json.read_json(path / MANIFEST, MANIFEST_SHAPE)


def read_result(path: pathlib.Path) -> dict[str, Any]:
    """The result of a finished run.

    Raises:
      WorkdirError: there is none, or it is damaged.
    """
    return strict_json.read_json(path / RESULT, RESULT_SHAPE)


@functools.cache
def _tensorboard():
    """What of tensorboardX writes numbers; imported late, as protobuf takes half a second.

    It imports PyTorch where that is installed, for 2 s, and lives without. Its SummaryWriter is not
    used: if a disk is full, its thread dies while everything waits for it.
    """
    torch = sys.modules.get("torch")
    sys.modules["torch"] = torch  # pyright: ignore[reportArgumentType] (None: not to be imported)
    try:
        from tensorboardX import event_file_writer, summary
        from tensorboardX.proto import event_pb2
    finally:
        if torch is None:
            del sys.modules["torch"]
    return event_file_writer, summary, event_pb2
