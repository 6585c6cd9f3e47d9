"""What a run was, so that anyone can check it: environment, data, digests of each epoch.

`manifest.json` is written when a run starts. `digests.jsonl` gets a record after each epoch: the
mean loss as a hex float, and SHA-256 digests of the parameters, batch statistics and optimizer
state. `chain` has how its lines follow on each other. `audit` checks all this by training again.
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
from lsanet_jax.runs.chain import PARTS
from lsanet_jax.runtime import strict_json
from lsanet_jax.runtime.cores import usable_cores

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "lsanet-jax")
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
        record[part] = digest_of_part(of_part)
        if part != "opt_state":
            tensors |= {f"{part}{name}": digest[:_SHORT] for name, digest in of_part.items()}
    return record | {"tensors": tensors, "previous": previous}


def digest_of_part(digests: dict[str, str]) -> str:
    """The digest of one of `PARTS` in a record, from its `part_digests`."""
    return sha256("".join(f"{name} {digest}\n" for name, digest in digests.items()).encode())


def sha256(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()


def predictions_sha256(probabilities: np.ndarray) -> str:
    """SHA-256 in hex of predictions, their shape and dtype."""
    return tensor_digests(probabilities)[""]


def weights_sha256(file: str | pathlib.Path) -> str:
    """SHA-256 in hex of the file of weights that a run begins with.

    Raises:
      DataError: it cannot be read.
    """
    try:
        return strict_json.sha256_of(pathlib.Path(file))
    except WorkdirError as error:
        raise DataError(f"config.model.init_from = {error}: restore it") from error
