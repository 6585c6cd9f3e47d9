"""The folder of a run: who may write to it, and how its files are written; see `layout`."""

import contextlib
import json
import logging
import math
import os
import pathlib
import platform
import re
import time
from collections.abc import Iterator
from typing import IO, Self

import ml_collections
import numpy as np

from lsanet_jax.config import FIELDS, MAY_CHANGE, complete, flatten, unflatten
from lsanet_jax.data.dataset import Split
from lsanet_jax.errors import WorkdirError
from lsanet_jax.metrics import Predictions
from lsanet_jax.runs.layout import (
    CONFIG,
    DIGESTS,
    ENVIRONMENTS,
    LOCK,
    MANIFEST,
    METRICS,
    PREDICTIONS,
    RESULT,
    TENSORBOARD,
)
from lsanet_jax.runs.manifest import differences, make_record, sha256
from lsanet_jax.runtime.files import json_text, read_json, replacing, try_lock, write_atomically

log = logging.getLogger(__name__)

WRITTEN_ATOMICALLY = (CONFIG, MANIFEST, METRICS, DIGESTS, RESULT, PREDICTIONS, ENVIRONMENTS)
FLUSH_SECONDS = 30  # How long TensorBoard may have to wait for a point.


class Workdir:
    """The files of one run; as a context it closes them, and gives up the lock.

    Attributes:
      path: the folder.
    """

    def __init__(
        self, path: str | pathlib.Path, config: ml_collections.ConfigDict, *, writes: bool = True
    ):
        """Look at the folder, which need not exist; nothing is written before `claim`.

        Args:
          path: the folder.
          config: of the run.
          writes: False for all but one of several processes; then everything that writes does
            nothing.

        Raises:
          WorkdirError: the folder belongs to a run of another config, or holds damaged files.
        """
        self.path = pathlib.Path(path).absolute()
        self._writes = writes
        self._lock_file: IO | None = None
        self._scalars, self._flushed = None, 0.0
        self._config = _as_json(config)
        self._config_file = self.path / CONFIG
        if not writes:
            return
        if self._config_file.exists():
            check_same_config(self.path, config)
        elif self.path.is_dir() and not all(map(_left_behind, self.path.iterdir())):
            raise WorkdirError(
                f"--workdir={path} is not empty and holds no config.json: it was not created by "
                "lsanet_jax; choose another folder"
            )

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
            self._lock()
            for temporary in filter(_temporary, self.path.iterdir()):
                temporary.unlink()
        file = self.path / MANIFEST
        found = read_json(file) if file.exists() else None
        if found is not None:
            # A file or folder that was moved may have another name; runs of 0.1.0 did not record
            # the decoding, which the fingerprint of the pixels follows from.
            then, now = found.get("dataset"), dict(manifest["dataset"])
            if isinstance(then, dict):
                then, now = then | {"name": ""}, now | {"name": ""}
                now = {k: v for k, v in now.items() if k in then or k != "decoding"}
            if changed := differences(then, now):
                raise WorkdirError(
                    f"{self.path} holds a run on other data: {'; '.join(changed)}. Use another "
                    "--workdir, or the same data to resume"
                )
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

    def _add_environment(self, line: str) -> None:
        file = self.path / ENVIRONMENTS
        with self._writing():
            known = file.read_text() if file.exists() else ""
            if line not in known.splitlines(keepends=True):
                write_atomically(file, known + line)

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
        """The contents of `result.json`, or None while the run is not finished."""
        file = self.path / RESULT
        return read_json(file) if file.exists() else None

    def keep_epochs(self, last: int) -> None:
        """Drop the epochs after `last` from the logs: they will be trained again."""
        if not self._writes:
            return
        for name in (METRICS, DIGESTS):
            file = self.path / name
            if not file.exists():
                continue
            kept = []
            for line in file.read_text().splitlines():
                try:
                    epoch = json.loads(line)["epoch"]
                except (ValueError, KeyError, TypeError):  # cut off in the middle of a write
                    break
                if epoch <= last:
                    kept.append(line + "\n")
            with self._writing():
                write_atomically(file, "".join(kept))

    def write_digests(self, digests: dict[str, str], *, epoch: int, step: int, loss: float) -> None:
        """Append the record of an epoch to `digests.jsonl`; see `manifest.make_record`."""
        if not self._writes:
            return
        previous = self.last_digest()
        record = make_record(digests, epoch=epoch, step=step, loss=loss, previous=previous)
        self._append(DIGESTS, record)

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
        # Not its SummaryWriter, whose thread dies if a disk is full, while everything waits for it.
        from tensorboardX import event_file_writer, summary  # protobuf: half a second
        from tensorboardX.proto import event_pb2

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
        """Write `result.json`, which marks the run as finished; it holds `last_digest` too."""
        if self._writes:
            result["last_digest"] = self.last_digest()
            with self._writing():
                write_atomically(self.path / RESULT, json_text(result, indent=1))

    def write_predictions(self, predictions: Predictions, tested: Split, epoch: int | None) -> None:
        """Write `predictions.npz`: what every classifier says of the test split, for `report`.

        Its arrays: `labels` [n] or [n, k], `probabilities` [l, n, k], `beta` [n, l] if there is
        attention, and `epoch`, the one that is reported; of a folder, `names` [n] of the files, and
        `groups` [n], numbers of the patients or other groups, if they are known.
        """
        if not self._writes:
            return
        arrays = {
            "labels": tested.labels,
            "probabilities": predictions.probabilities,
            "epoch": epoch,
        }
        if predictions.beta is not None:
            arrays["beta"] = predictions.beta
        of_files = {"names": tested.names, "groups": tested.groups}
        arrays |= {name: np.array(values) for name, values in of_files.items() if values}
        with (
            self._writing(),
            replacing(self.path / PREDICTIONS) as temporary,
            temporary.open("wb") as file,
        ):
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())

    def last_digest(self) -> str:
        """SHA-256 of the chain's last link: the last line of `digests.jsonl`, else the manifest."""
        file = self.path / DIGESTS
        lines = file.read_bytes().splitlines() if file.exists() else []
        return sha256(lines[-1] if lines else (self.path / MANIFEST).read_bytes())


def _temporary(file: pathlib.Path) -> bool:
    """Whether `files.replacing` made it, for one of our files."""
    ours = "|".join(re.escape(name) for name in WRITTEN_ATOMICALLY)
    return bool(re.fullmatch(rf"\.({ours})\.\d+\.tmp", file.name))


def _left_behind(file: pathlib.Path) -> bool:
    """Whether it may be in a folder whose run was killed before it had a config."""
    return file.name == LOCK or _temporary(file)


def _as_json(config: ml_collections.ConfigDict) -> dict:
    return json.loads(json.dumps(dict(flatten(config))))


def check_same_config(path: pathlib.Path, config: ml_collections.ConfigDict) -> None:
    """Check that the run in a folder has this config, except for the fields in `MAY_CHANGE`.

    Raises:
      WorkdirError: it has another config, or its `config.json` is damaged.
    """
    found = json.loads(json.dumps(complete(read_json(path / CONFIG))))
    wanted = _as_json(config)
    if wanted["model.init_from"] and wanted["model.init_from"] == found["model.init_from"]:
        # What is at its default may have been set to what the weights want: see `weights`.
        for name in ("data.mean", "data.std"):
            if wanted[name] == list(FIELDS[name].default):
                wanted[name] = found[name]
    fixed = lambda config: {k: v for k, v in config.items() if k not in MAY_CHANGE}
    if changed := differences(fixed(found), fixed(wanted)):
        raise WorkdirError(
            f"{path} holds a run of another config: {'; '.join(changed)}. Use another "
            "--workdir, or the same config to resume"
        )


def read_config(path: pathlib.Path) -> ml_collections.ConfigDict:
    """Read the config of the run in a folder; fields that came after it have their defaults.

    Raises:
      WorkdirError: there is none.
    """
    file = path / CONFIG
    if not file.exists():
        raise WorkdirError(f"--workdir={path} holds no run: {file.name} is missing")
    return unflatten(complete(read_json(file)))
