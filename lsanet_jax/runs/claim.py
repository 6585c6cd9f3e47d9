"""A claim: what a finished run says, in one file that a stranger can check.

`pack` writes a zip file with the config, manifest, chain of digests, metrics, predictions, result
and seal of a run, or of each finished run of a sweep, with the sweep's report; with the versions of
all installed packages; and, if asked for, with the reported weights. `claim.json` holds the SHA-256
of each member. The same run gives the same bytes: so `unpack` can tell that not one was changed.
"""

import hashlib
import importlib.metadata
import os
import pathlib
import re
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from typing import Any

from lsanet_jax.errors import WorkdirError
from lsanet_jax.runs import chain, seal
from lsanet_jax.runs.layout import CHECKPOINTS, CONFIG, RESULT, SEAL
from lsanet_jax.runs.workdir import check_output, read_manifest, read_result
from lsanet_jax.runtime import strict_json
from lsanet_jax.runtime.files import json_text, replacing
from lsanet_jax.runtime.strict_json import Each

CLAIM = "claim.json"
PACKAGES = "packages.txt"
MAX_MEMBERS, MAX_BYTES = 50_000, 1 << 34
SHAPE = {"runs": Each({"test_looks": int, "data": str}), "files": Each(str), "sha256": str}

_NAME = re.compile(r"[\w.+-]+(/[\w.+-]+)*", re.ASCII)
_DATE = (1980, 1, 1, 0, 0, 0)


def pack(workdir: pathlib.Path, output: pathlib.Path, *, weights: bool = False) -> None:
    """Write the claim of a run, or of the finished runs of a sweep.

    Args:
      workdir: folder of the run or the sweep.
      output: the file; replaced if it exists.
      weights: with the checkpoints of the reported epochs.

    Raises:
      WorkdirError: there is no finished run, one is not sealed or damaged, or the file cannot be
        written.
    """
    check_output(output)
    members: dict[str, pathlib.Path | bytes] = {}
    about: dict[str, Any] = {}
    for name in _runs(workdir):
        path = workdir / name
        about[name or "."] = _check(path)
        files = [path / file for file in (*seal.SEALED, SEAL) if strict_json.exists(path / file)]
        if weights:
            files += _files_below(_reported_checkpoint(path))
        members |= {file.relative_to(workdir).as_posix(): file for file in files}
    if not (workdir / CONFIG).exists():  # a sweep
        files = [workdir / "sweep.json", *_files_below(workdir / "report")]
        members |= {f.relative_to(workdir).as_posix(): f for f in files if f.exists()}
    for name in members:
        if not _NAME.fullmatch(name):
            raise WorkdirError(
                f"{workdir / name}: a claim can only hold files with names of letters, digits and "
                '".", "_", "+", "-": rename it'
            )
    members[PACKAGES] = _packages().encode()
    content = {"runs": about, "files": {name: _sha256(of) for name, of in sorted(members.items())}}
    content["sha256"] = seal.own_sha256(content)
    members[CLAIM] = json_text(content, indent=1).encode()
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with replacing(output) as temporary:
            _write(temporary, members)
        _signature(output).unlink(missing_ok=True)  # Of what was there before.
    except OSError as error:
        raise WorkdirError(f"cannot write --output={output}: {error}") from error


def unpack(file: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """Unpack a claim, checking every byte of it.

    Args:
      file: the claim.
      folder: an empty folder for its members.

    Returns:
      The folders of its runs in `folder`; "" if it is of one run.

    Raises:
      WorkdirError: it cannot be read, or is not as `pack` wrote it; the member is named.
    """
    try:
        with strict_json.open_regular(file) as stream, zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
            _check_members(file, members, os.fstat(stream.fileno()).st_size)
            for member in members:
                place = folder / member.filename
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(member) as source, place.open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise _damaged(file, error) from error
    except OSError as error:
        raise WorkdirError(f"{file}: cannot be unpacked ({error})") from error
    content = strict_json.read_json(folder / CLAIM, SHAPE)
    if content["sha256"] != seal.own_sha256(content):
        raise _damaged(file, f"{CLAIM} has changed")
    found = {member.filename for member in members} - {CLAIM}
    for name in sorted(found | content["files"].keys()):
        then = content["files"].get(name)
        now = strict_json.sha256_of(folder / name) if name in found else None
        if then != now:
            what = "is missing" if now is None else "is new" if then is None else "has changed"
            raise _damaged(file, f"{name} {what}")
    with tempfile.NamedTemporaryFile(prefix="lsanet-claim-") as again:
        _write(pathlib.Path(again.name), {name: folder / name for name in found | {CLAIM}})
        if strict_json.sha256_of(pathlib.Path(again.name)) != strict_json.sha256_of(file):
            raise _damaged(file, "bytes outside of its members have changed")
    for name, about in content["runs"].items():
        prefix = "" if name == "." else f"{name}/"
        if f"{prefix}{RESULT}" not in content["files"]:  # nor a folder outside of the claim
            raise _damaged(file, f"it holds no run {name[:80]!r}")
        if _check(folder / name) != about:
            raise _damaged(file, f"{CLAIM} says of the run {name!r} what its files do not")
    results = (name.rpartition("/") for name in content["files"])
    runs = {folder or "." for folder, _, name in results if name == RESULT}
    if unlisted := runs - content["runs"].keys():
        raise _damaged(file, f"{CLAIM} does not list the run {min(unlisted)!r}")
    if not runs:
        raise _damaged(file, "it holds no run")
    return ["" if name == "." else name for name in content["runs"]]


def sign(file: pathlib.Path, private_key: pathlib.Path) -> pathlib.Path:
    """Sign a claim with an elliptic key in a PEM file; returns the signature, FILE.sig.

    Raises:
      WorkdirError: model-signing is not installed, or the key or the file cannot be used.
    """
    signature = _signature(file)
    check_key(private_key)
    strict_json.open_regular(file).close()
    try:
        _signing().signing.Config().use_elliptic_key_signer(private_key=private_key).sign(
            file, signature
        )
    except Exception as error:  # whatever it makes of keys and files
        raise WorkdirError(f"cannot sign {file} with {private_key}: {error}") from error
    return signature


def check_key(file: pathlib.Path) -> None:
    """Check that there are a file of a key and what signs with it.

    Raises:
      WorkdirError: there are not.
    """
    _signing()
    strict_json.open_regular(file).close()  # a pipe would keep us waiting


def _signature(file: pathlib.Path) -> pathlib.Path:
    return file.with_name(f"{file.name}.sig")


def verify(file: pathlib.Path, public_key: pathlib.Path) -> None:
    """Verify the signature FILE.sig of a claim, without a network.

    Raises:
      WorkdirError: model-signing is not installed, or the signature is not by this key or not of
        this file.
    """
    signature = _signature(file)
    for each in (file, signature, public_key):
        strict_json.open_regular(each).close()  # a pipe would keep us waiting
    try:
        _signing().verifying.Config().use_elliptic_key_verifier(public_key=public_key).verify(
            file, signature
        )
    except Exception as error:  # whatever it makes of keys and files
        raise WorkdirError(
            f"{signature} is not a signature of {file} by {public_key}: {error}"
        ) from (error)


def _signing():
    try:
        import model_signing  # pyright: ignore[reportMissingImports] (an extra)
    except ImportError as error:
        raise WorkdirError(
            "signatures need the package model-signing: pip install model-signing pyopenssl"
        ) from error
    return model_signing


def _runs(workdir: pathlib.Path) -> list[str]:
    """The folders of the finished runs in a workdir: "" for itself, else RUN/seedN."""
    if strict_json.exists(workdir / CONFIG):
        return [""]
    names = [f.parent.relative_to(workdir).as_posix() for f in workdir.glob(f"*/*/{RESULT}")]
    if not names:
        raise WorkdirError(f"--workdir={workdir} holds no run, and no sweep with a finished run")
    return sorted(names)


def _check(path: pathlib.Path) -> dict[str, Any]:
    """Check the files of a run; returns what `claim.json` says of it."""
    sealed = seal.check(path)
    if sealed is None:
        raise WorkdirError(
            f"{path} has no {SEAL}: only a finished run that is sealed can be packed"
        )
    chain.read(path)
    result, dataset = read_result(path), read_manifest(path)["dataset"]
    return {
        "dataset": dataset["name"],
        "data": dataset.get("fingerprint", ""),  # over the images and labels of each split
        "epochs": result["last_epoch"]["epoch"],
        "best_epoch": result["best_epoch"],
        "test": result["test"],
        "test_looks": sealed["test_looks"],
    }


def _reported_checkpoint(path: pathlib.Path) -> pathlib.Path:
    epoch = read_result(path)["best_epoch"]
    records = chain.read(path).records
    if not 1 <= epoch <= len(records):
        raise WorkdirError(f"{path / RESULT}: best_epoch is {epoch}, of {len(records)} epochs")
    step = records[epoch - 1]["step"]
    for place in (
        path / CHECKPOINTS / "best" / str(epoch),
        path / CHECKPOINTS / "last" / str(step),
    ):
        if place.is_dir():
            return place
    raise WorkdirError(
        f"{path / CHECKPOINTS} holds no checkpoint of epoch {epoch}: pack without it"
    )


def _files_below(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.is_symlink())


def _packages() -> str:
    """The installed packages with their versions, a line each."""
    found = {(d.name or "", d.version) for d in importlib.metadata.distributions()}
    return "".join(f"{name}=={version}\n" for name, version in sorted(found))


def _sha256(content: pathlib.Path | bytes) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return strict_json.sha256_of(content)


def _write(file: pathlib.Path, members: Mapping[str, pathlib.Path | bytes]) -> None:
    """Write a zip file whose bytes follow from its members: not compressed, without times."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in sorted(members.items()):
            about = zipfile.ZipInfo(name, _DATE)
            about.external_attr = 0o644 << 16
            about.create_system = 3
            if isinstance(content, bytes):
                archive.writestr(about, content)
                continue
            about.file_size = content.stat().st_size
            with content.open("rb") as source, archive.open(about, "w") as target:
                shutil.copyfileobj(source, target)


def _check_members(file: pathlib.Path, members: Iterable[zipfile.ZipInfo], size: int) -> None:
    names = [member.filename for member in members]
    if CLAIM not in names:
        raise _damaged(file, f"it holds no {CLAIM}")
    if len(names) > MAX_MEMBERS or len(set(names)) != len(names):
        raise _damaged(file, "it has too many members, or one twice")
    if sum(member.file_size for member in members) > min(size, MAX_BYTES):
        raise _damaged(file, f"its members are larger than itself, or than {MAX_BYTES >> 30} GiB")
    for member in members:
        parts = member.filename.split("/")
        if not _NAME.fullmatch(member.filename) or set(parts) & {".", ".."}:
            raise _damaged(file, f"a member is called {member.filename[:80]!r}")
        stored = member.compress_type == zipfile.ZIP_STORED
        if not stored or member.file_size != member.compress_size:
            raise _damaged(file, f"{member.filename} is compressed")


def _damaged(file: pathlib.Path, found: object) -> WorkdirError:
    return WorkdirError(
        f"{file} is not a claim as `lsanet audit pack` wrote it ({found}): ask for it again"
    )
