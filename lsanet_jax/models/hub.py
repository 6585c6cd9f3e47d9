"""Weights from the Hugging Face Hub, or from a mirror that speaks its protocol.

huggingface-hub, of the extra `hub`, downloads: it shows how far it is, goes on after a
broken connection, and keeps a cache. Its environment variables hold here too: `HF_ENDPOINT` for a
mirror, `HF_HOME` for the cache, `HF_HUB_OFFLINE=1` to use nothing but the cache, `HF_TOKEN`.
"""

import hashlib
import json
import logging
import os
import pathlib
import re
from typing import Any, NamedTuple

from lsanet_jax.errors import ConfigError, DataError

log = logging.getLogger(__name__)

PREFIX = "hf:"
FILE = "model.safetensors"
_FORM = r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<file>[\w./-]+\.safetensors))?"


class Reference(NamedTuple):
    """A file on the hub: OWNER/REPO, a branch, tag or commit, and the file in it."""

    repo: str
    revision: str
    file: str

    @classmethod
    def parse(cls, text: str) -> "Reference":
        """Read hf:OWNER/REPO[@REVISION][/FILE].

        Raises:
            ConfigError: it is something else.
        """
        found = re.fullmatch(_FORM, text.removeprefix(PREFIX))
        if found is None:
            raise ConfigError(
                f"config.model.init_from = {text!r}: expected hf:OWNER/REPO[@REVISION][/FILE], "
                f"where FILE ends in .safetensors and is {FILE} if it is left out; such as "
                "hf:timm/resnet18.a1_in1k"
            )
        return cls(found["repo"], found["revision"] or "main", found["file"] or FILE)

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}@{self.revision}/{self.file}"


class Downloaded(NamedTuple):
    """A file of the hub on this machine.

    Attributes:
        file: in the hub's cache.
        commit: of the repository, 40 hex digits.
        about: `config.json` of the repository, if it has one; timm's say how to normalise images.
    """

    file: pathlib.Path
    commit: str
    about: dict[str, Any]


def download(reference: Reference, *, cache: str | None = None) -> Downloaded:
    """Download a file, unless it is in the cache already.

    Args:
        reference: of the file.
        cache: folder of the cache (default: the hub's own).

    Raises:
        ConfigError: huggingface-hub is not installed.
        DataError: the hub cannot be reached; it does not have the repository, the revision or the
            file; or what came is not what it announced.
    """
    file = _fetch(reference, cache)
    commit = file.parents[len(pathlib.PurePath(reference.file).parts) - 1].name
    _check(file)
    about: dict[str, Any] = {}
    try:
        config = _fetch(reference._replace(revision=commit, file="config.json"), cache)
        about = json.loads(config.read_text())
    except (DataError, OSError, ValueError, RecursionError):
        log.info("%s has no config.json, which might say how to normalise images", reference.repo)
    return Downloaded(file, commit, about if isinstance(about, dict) else {})


def _fetch(reference: Reference, cache: str | None) -> pathlib.Path:
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise ConfigError(
            f"config.model.init_from = {reference} needs huggingface-hub: install it with "
            "pip install huggingface-hub"
        ) from error
    where = f"config.model.init_from = {reference}"
    endpoint = os.environ.get("HF_ENDPOINT")
    host = endpoint or "https://huggingface.co"
    try:
        found = huggingface_hub.hf_hub_download(
            reference.repo,
            reference.file,
            revision=reference.revision,
            cache_dir=cache,
            endpoint=endpoint,
        )
        return pathlib.Path(found)
    except errors.GatedRepoError as error:
        raise DataError(
            f"{where}: {reference.repo} is given out on request only: ask for access on its page, "
            "then log in with `hf auth login`"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(f"{where}: {host} has no public repository {reference.repo}") from error
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"{where}: {reference.repo} has no revision {reference.revision!r} (any more); leave "
            "it out for the newest, or give a branch, tag or commit that it has"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise DataError(
            f"{where}: it is not in the cache, and {host} cannot be reached ({_reason(error)}). "
            "Connect to the network, set HF_ENDPOINT to a mirror, or give a local file"
        ) from error
    except errors.EntryNotFoundError as error:
        raise DataError(
            f"{where}: {reference.repo} has no file {reference.file} at {reference.revision}"
        ) from error
    except Exception as error:  # of the network and of the disk; its libraries have many kinds
        raise DataError(
            f"{where}: the download from {host} failed ({_reason(error)}); the same command "
            "starts it again"
        ) from error


def _check(file: pathlib.Path) -> None:
    """Check the SHA-256 of a large file, by which the cache names it.

    Raises:
        DataError: it is another; the file has been deleted.
    """
    # One link only: the blob may itself be a link, into a store that other repositories share.
    blob = file.parent / file.readlink() if file.is_symlink() else file
    if not re.fullmatch("[0-9a-f]{64}", blob.name):
        return  # A small file, which git keeps, is named by git's own hash.
    with blob.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != blob.name:
        for damaged in {blob.resolve(), blob, file}:
            damaged.unlink(missing_ok=True)
        raise DataError(
            f"{file} is damaged: its SHA-256 is {found}, the hub announced {blob.name}. It has "
            "been deleted; the same command downloads it again"
        )


def _reason(error: BaseException) -> str:
    """The first line of the innermost error, which says what went wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {text[:200]}"
