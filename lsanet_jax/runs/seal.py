"""The seal of a finished run: `seal.json`, written last, and checked by all that read the run.

It holds the SHA-256 of the run's files, the end of the chain of digests, the digests of the
parameters and batch statistics that are reported, and how often the test split was looked at. It
shows damage and careless edits. A forger can write another one: against that there is training
again (`lsanet audit`), or a signature (`lsanet audit pack --sign`).
"""

import hashlib
import logging
import pathlib
from collections.abc import Collection
from typing import Any

from lsanet_jax.errors import WorkdirError
from lsanet_jax.runs import chain
from lsanet_jax.runs.layout import (
    CONFIG,
    DIGESTS,
    ENVIRONMENTS,
    MANIFEST,
    METRICS,
    PREDICTIONS,
    RESULT,
    SEAL,
)
from lsanet_jax.runtime import strict_json
from lsanet_jax.runtime.files import json_text, write_atomically
from lsanet_jax.runtime.strict_json import Each, Maybe

log = logging.getLogger(__name__)

_RESTORE = "restore it from a copy, or train the run again in another --workdir"

SEALED = (CONFIG, MANIFEST, ENVIRONMENTS, METRICS, DIGESTS, PREDICTIONS, RESULT)
WEIGHTS = ("params", "batch_stats")
SHAPE = {
    "files": Each(str),
    "chain": str,
    "weights": {"epoch": int, **dict.fromkeys(WEIGHTS, str)},
    "test_looks": int,
    "sha256": str,
}


def write(path: pathlib.Path) -> None:
    """Seal a run whose other files are written.

    Raises:
      WorkdirError: one of them is missing or damaged.
      OSError: the seal cannot be written.
    """
    found = chain.read(path)
    epoch = strict_json.read_json(path / RESULT, {"best_epoch": int})["best_epoch"]
    record = found.records[epoch - 1]
    content = {
        "files": _digests(path, SEALED),
        "chain": found.end,
        "weights": {"epoch": epoch} | {part: record[part] for part in WEIGHTS},
        "test_looks": len(found.looks),
    }
    content["sha256"] = own_sha256(content)
    write_atomically(path / SEAL, json_text(content, indent=1))


def check(path: pathlib.Path, uses: Collection[str] = SEALED) -> dict[str, Any] | None:
    """Check files of a run against its seal.

    Args:
      path: folder of the run.
      uses: the files that will be read, of `SEALED`.

    Returns:
      The seal; None if the run is not finished, or is of a version that sealed no runs.

    Raises:
      WorkdirError: a file, or the seal itself, is not what was sealed; it is named.
    """
    if not strict_json.exists(path / SEAL):
        if is_missing(path):
            raise WorkdirError(
                f"{path / SEAL} is missing: the run was stopped just before it was sealed, or the "
                "file was removed. Restore it, or finish the run with its training command"
            )
        return None
    seal = strict_json.read_json(path / SEAL, SHAPE)
    if seal["sha256"] != own_sha256(seal):
        raise WorkdirError(f"{path / SEAL} has changed since it was written: {_RESTORE}")
    found = _digests(path, uses)
    for name in uses:
        then, now = seal["files"].get(name), found.get(name)
        if then != now:
            what = "is missing" if now is None else "is new" if then is None else "has changed"
            raise WorkdirError(f"{path / name} {what} since the run was sealed: {_RESTORE}")
    return seal


def is_missing(path: pathlib.Path) -> bool:
    """Whether a run of a version that seals has a result, but was stopped before its seal."""
    if strict_json.exists(path / SEAL) or not strict_json.exists(path / RESULT):
        return False
    return "test_looks" in strict_json.read_json(path / RESULT, {"test_looks": Maybe(int)})


def note_if_old(path: pathlib.Path) -> None:
    """Say that a finished run of an earlier version has no seal, so nobody takes it for checked."""
    if strict_json.exists(path / RESULT) and not strict_json.exists(path / SEAL):
        log.warning("%s has no %s, as runs of earlier versions: nothing is checked", path, SEAL)


def _digests(path: pathlib.Path, names: Collection[str]) -> dict[str, str]:
    """SHA-256 of those of the files that exist."""
    there = [name for name in names if strict_json.exists(path / name)]
    return {name: strict_json.sha256_of(path / name) for name in there}


def own_sha256(content: dict[str, Any]) -> str:
    """SHA-256 in hex of what a seal or a claim says, without its own `sha256`."""
    rest = {name: value for name, value in content.items() if name != "sha256"}
    return hashlib.sha256(json_text(rest, sort_keys=True).encode()).hexdigest()
