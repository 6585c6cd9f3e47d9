"""What a run was, so that anyone can check it: environment, data, digests of each epoch.

`manifest.json` is written when a run starts. `digests.jsonl` gets a record after each epoch: the
mean loss as a hex float, and SHA-256 digests of the parameters, batch statistics and optimizer
state. Each record holds the SHA-256 of the line before it (the first one that of `manifest.json`)
and `result.json` that of the last, so a line that is changed later shows. `audit` checks all this
by training again.
"""

import concurrent.futures
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from typing import Any, cast

import jax
import numpy as np

from lsanet_jax.errors import DataError, WorkdirError
from lsanet_jax.runs.layout import DIGESTS, MANIFEST, RESULT
from lsanet_jax.runtime.cores import usable_cores
from lsanet_jax.runtime.files import read_json

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "lsanet-jax")
PARTS = ("params", "batch_stats", "opt_state")

_SHORT = 12  # Hex digits kept of each tensor's digest, enough to tell which one differs


def environment() -> dict[str, Any]:
    """All that bits may depend on besides the config and the data, as JSON has it."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    devices = jax.devices()
    options = cast(Any, jax.config)  # It declares few of its fields.
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
        "usable_cores": usable_cores(),
        "packages": versions,
        "device": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "process_count": jax.process_count(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "matmul_precision": str(options.jax_default_matmul_precision),
        "x64": bool(options.jax_enable_x64),
        "prng": "threefry2x32",
        **_revision(),
    }


def _revision() -> dict[str, str | bool | None]:
    """The commit that the package's source is at, and whether files differ from it."""
    folder = pathlib.Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *arguments],
                capture_output=True,
                text=True,
                check=True,
                timeout=10,
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    revision = git("rev-parse", "HEAD")
    status = git("status", "--porcelain", "--", ".") if revision else None
    return {"revision": revision, "modified": None if status is None else bool(status)}


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Sentences about the fields in which two JSON objects differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            sentence
            for key in sorted(there.keys() | here.keys())
            for sentence in differences(there.get(key), here.get(key), f"{name}.{key}".lstrip("."))
        ]
    if there == here:
        return []
    return [f"{name} is {json.dumps(there)} there and {json.dumps(here)} here"]


def tensor_digests(tree) -> dict[str, str]:
    """SHA-256 in hex of each array's shape, dtype and bytes, by its path in the tree.

    All arrays are copied from the devices at once, and hashed in as many threads as there are
    cores: the steps of the next epoch wait for it.
    """
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    arrays = jax.device_get(jax.tree.leaves(tree))
    with concurrent.futures.ThreadPoolExecutor(usable_cores()) as threads:
        return dict(zip(paths, threads.map(_array_digest, arrays), strict=True))


def _array_digest(array) -> str:
    array = np.asarray(array)
    array = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"), copy=False))
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str}\n".encode())
    # NumPy's annotations know arrays as buffers from Python 3.12 on.
    digest.update(array)  # pyright: ignore[reportArgumentType]
    return digest.hexdigest()


def part_digests(digests: dict[str, str], part: str) -> dict[str, str]:
    """Of the `tensor_digests` of a `TrainState`, those of one of `PARTS`, named within it."""
    prefix = f".{part}"
    return {
        name.removeprefix(prefix): digest
        for name, digest in digests.items()
        if name.startswith(prefix)
    }


def make_record(
    digests: dict[str, str], *, epoch: int, step: int, loss: float, previous: str
) -> dict[str, Any]:
    """The record of an epoch.

    Args:
      digests: `tensor_digests` of the `TrainState` after the epoch.
      epoch: counted from 1.
      step: steps done.
      loss: mean over the epoch.
      previous: SHA-256 of the line before, or of the manifest.
    """
    record = {"epoch": epoch, "step": step, "loss": float(loss).hex()}
    tensors = {}
    for part in PARTS:
        of_part = part_digests(digests, part)
        lines = "".join(f"{name} {digest}\n" for name, digest in of_part.items())
        record[part] = sha256(lines.encode())
        if part != "opt_state":
            tensors |= {f"{part}{name}": digest[:_SHORT] for name, digest in of_part.items()}
    return record | {"tensors": tensors, "previous": previous}


def sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def weights_sha256(file: str | pathlib.Path) -> str:
    """SHA-256 in hex of the file of weights that a run begins with.

    Raises:
      DataError: it cannot be read.
    """
    try:
        with open(file, "rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{file}, config.model.init_from, cannot be read ({error.strerror}): restore it"
        ) from error


def read_records(workdir: pathlib.Path) -> list[dict[str, Any]]:
    """The records of a run, their chain checked.

    Raises:
      WorkdirError: a file is missing, or a line was changed, added or taken out; it is named.
    """
    manifest, file = workdir / MANIFEST, workdir / DIGESTS
    try:
        previous, lines = sha256(manifest.read_bytes()), file.read_bytes().splitlines()
    except OSError as error:
        raise WorkdirError(f"{error.filename}: cannot be read ({error.strerror})") from error
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            found, epoch = record["previous"], record["epoch"]
        except (ValueError, KeyError, TypeError) as error:
            raise WorkdirError(f"{file}: line {number} is damaged ({error})") from error
        if found != previous or epoch != number:
            before = f"line {number - 1}" if number > 1 else MANIFEST
            raise WorkdirError(
                f"{file}: line {number} does not follow on {before}: one of the two was changed, "
                "or a line was added or taken out"
            )
        records.append(record)
        previous = sha256(line)
    if (workdir / RESULT).exists():
        promised = read_json(workdir / RESULT).get("last_digest")
        if promised != previous:
            raise WorkdirError(
                f"{file}: the last line, {len(records)}, is not the one that {RESULT} records: "
                "one of the two was changed, or lines were added or taken out"
            )
    return records
