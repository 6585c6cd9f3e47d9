"""The chain of `digests.jsonl`: each line holds the SHA-256 of the line before it.

The first line holds that of `manifest.json`, and `result.json` that of the last, so a line that
is changed later shows. After the records of all epochs (`manifest.make_record`) comes an entry for
each evaluation on the test split: `split`, `epoch`, and in `predictions` the SHA-256 of what the
network said of it.
"""

import hashlib
import pathlib
from typing import Any, NamedTuple

from lsanet_jax.errors import WorkdirError
from lsanet_jax.runs.layout import DIGESTS, MANIFEST, RESULT
from lsanet_jax.runtime import strict_json
from lsanet_jax.runtime.strict_json import Each, Maybe

PARTS = ("params", "batch_stats", "opt_state")
RECORD = {
    "epoch": int,
    "step": int,
    "loss": str,
    **dict.fromkeys(PARTS, str),
    "tensors": Each(str),
    "previous": str,
}
LOOK = {"split": str, "epoch": int, "predictions": str, "previous": str}


class Chain(NamedTuple):
    """The lines of `digests.jsonl`, each checked to follow on the one before.

    Attributes:
      records: of the epochs 1, 2, ...
      looks: the entries of the evaluations on the test split.
      lines: all of them as they are in the file.
      end: SHA-256 of the last line; without one, of the manifest.
    """

    records: list[dict[str, Any]]
    looks: list[dict[str, Any]]
    lines: list[bytes]
    end: str


def read(workdir: pathlib.Path, *, cut: bool = False) -> Chain:
    """Read the chain of a run and check it.

    Args:
      workdir: folder of the run.
      cut: leave out the end of a line whose writing a crash cut off, and do not look at the
        result, which may be of an earlier end of the run.

    Raises:
      WorkdirError: a file is missing, or a line was changed, added or taken out; it is named.
    """
    file = workdir / DIGESTS
    previous = hashlib.sha256(strict_json.read_bytes(workdir / MANIFEST)).hexdigest()
    lines = strict_json.read_lines(file, cut=cut)
    records, looks = [], []
    for number, line in enumerate(lines, start=1):
        is_look = line.startswith(b'{"split"')
        entry = strict_json.parse(line, f"{file}: line {number}", LOOK if is_look else RECORD)
        in_order = is_look or (
            entry["epoch"] == number and not looks and _is_hex_float(entry["loss"])
        )
        if entry["previous"] != previous or not in_order:
            before = f"line {number - 1}" if number > 1 else MANIFEST
            raise WorkdirError(
                f"{file}: line {number} does not follow on {before}: one of the two was changed, "
                "or a line was added or taken out"
            )
        (looks if is_look else records).append(entry)
        previous = hashlib.sha256(line).hexdigest()
    if not cut and strict_json.exists(workdir / RESULT):
        result = strict_json.read_json(workdir / RESULT, {"last_digest": Maybe(str)})
        if result.get("last_digest") != previous:
            raise WorkdirError(
                f"{file}: the last line, {len(lines)}, is not the one that {RESULT} records: "
                "one of the two was changed, or lines were added or taken out"
            )
    return Chain(records, looks, lines, previous)


def _is_hex_float(text: str) -> bool:
    try:
        float.fromhex(text)
    except (ValueError, OverflowError):
        return False
    return True
