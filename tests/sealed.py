"""Making a finished run whole again after an edit, as a forger would; and undoing its seal."""

import json

from lsanet_jax.runs import seal
from lsanet_jax.runs.manifest import sha256
from lsanet_jax.runtime.files import json_text


def reseal(path):
    """Write the seal that fits the files, whatever they say."""
    content = json.loads((path / "seal.json").read_text())
    content["files"] = seal._digests(path, seal.SEALED)
    if "digests.jsonl" in content["files"]:
        content["chain"] = sha256((path / "digests.jsonl").read_bytes().splitlines()[-1])
    content["sha256"] = seal.own_sha256(content)
    (path / "seal.json").write_text(json_text(content, indent=1))


def as_earlier_version(path):
    """Make a run look as if it was finished before runs were sealed."""
    (path / "seal.json").unlink()
    result = json.loads((path / "result.json").read_text())
    del result["test_looks"]
    (path / "result.json").write_text(json_text(result, indent=1))


def as_unfinished(path):
    """Make a run look as if it was stopped after its last epoch."""
    for name in ("seal.json", "result.json", "predictions.npz"):
        (path / name).unlink()
