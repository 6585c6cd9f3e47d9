"""Downloads: resumed where they broke off, tried again, checked, and by one process at a time."""

import contextlib
import errno
import hashlib
import http.client
import io
import logging
import os
import pathlib
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from tqdm import tqdm

from lsanet_jax.errors import DataError
from lsanet_jax.runtime.files import lock

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 30  # Without a byte.
_WAITS_SECONDS = (1, 2, 4)  # Before each further attempt.
_CHUNK_BYTES = 1 << 20
_MAX_BYTES = 1 << 36  # Several times the largest set.
_SLOW_SECONDS, _SLOW_BYTES = 60, 1 << 16  # Fewer bytes in that time are no download.


def download(url: str, path: pathlib.Path, md5: str) -> None:
    """Downloads a file and checks it before it gets its name.

    `path` is either whole and right or not there. What had come when a connection broke off stays
    beside it as `.NAME.part`; the next attempt, in this process or a later one, goes on from there,
    and the md5 of the whole decides. Of several processes one downloads and the others wait.

    Raises:
        DataError: no connection, an incomplete or wrong file, or no place to write it.
    """
    by_hand = f"Or put the file from {url} at {path} by hand (md5 {md5})."
    part = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(part, path) as file:
            if not path.exists():
                _fetch(url, file, md5, by_hand)
                os.replace(part, path)
    except (http.client.HTTPException, OSError, ValueError) as error:  # ValueError: of the URL
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} is missing and downloading it from {url} failed ({error}). Try again when the"
            f" network and the folder {path.parent} are available. {by_hand}"
        ) from error


def md5_of(file: io.BufferedReader | io.BufferedRandom) -> str:
    """MD5 in hex of an open file, from where it stands."""
    return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextlib.contextmanager
def _locked(part: pathlib.Path, path: pathlib.Path) -> Iterator[io.BufferedRandom]:
    """The part file, open for this process only; removed in the end if it is of no use."""
    while True:
        with part.open("a+b") as file:
            lock(file, f"downloads {path}")
            # Another process may have finished, or given up, and taken this file's name away.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                    try:
                        yield file
                    finally:
                        with contextlib.suppress(OSError):
                            if file.seek(0, os.SEEK_END) == 0 or path.exists():
                                part.unlink()
                    return


def _fetch(url: str, file: io.BufferedRandom, md5: str, by_hand: str) -> None:
    """Fills `file` from `url`, from its end on; it is empty again when that fails for good."""
    waits = iter(_WAITS_SECONDS)
    while True:
        start = file.seek(0, os.SEEK_END)
        try:
            _stream(url, file, start)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                file.truncate(0)
            wait = next(waits, None) if _may_pass(error) else None
            if wait is None:
                raise
            log.warning("%s: %s; trying again in %g s", url, error, wait)
            time.sleep(wait)
            continue
        file.seek(0)
        found = md5_of(file)
        if found == md5:
            return
        file.truncate(0)
        if start == 0:
            raise DataError(
                f"{url}: the download has md5 {found}, expected {md5}; nothing was kept. Try again."
                f" {by_hand}"
            )
        log.warning("%s: what was there from an earlier download does not fit; starting over", url)


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= 500 or error.code in (408, 416, 429)
    local = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG)
    return not (isinstance(error, OSError) and error.errno in local)


def _stream(url: str, file: io.BufferedRandom, start: int) -> None:
    """Appends what is at `url` from byte `start` on; if the server sends all, starts over."""
    headers = {"User-Agent": "lsanet_jax"} | ({"Range": f"bytes={start}-"} if start else {})
    request = urllib.request.Request(url, headers=headers)
    try:
        response = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # Nothing is left to send, or the file is another one.
            if error.headers.get("Content-Range") == f"bytes */{start}":
                return
            file.truncate(0)
        raise
    with response:
        if start and response.status != 206:
            file.truncate(0)
            start = 0
        length = response.headers.get("Content-Length", "")
        total = start + int(length) if length.isascii() and length.isdigit() else 0
        if total > _MAX_BYTES:
            raise http.client.HTTPException(f"the server announces {length[:30]} bytes")
        with tqdm(
            total=total or None, initial=start, unit="B", unit_scale=True, desc=url.split("?")[0]
        ) as bar:
            most = min(total or _MAX_BYTES, _MAX_BYTES)
            received, since, seconds = start, start, time.monotonic()
            while chunk := response.read1(_CHUNK_BYTES):
                file.write(chunk)
                bar.update(len(chunk))
                received += len(chunk)
                if received > most:
                    file.truncate(0)
                    raise http.client.HTTPException(f"the server sends more than {most} bytes")
                if time.monotonic() > seconds + _SLOW_SECONDS:
                    if received < since + _SLOW_BYTES:
                        raise http.client.HTTPException(
                            f"only {received - since} bytes came in {_SLOW_SECONDS} s"
                        )
                    since, seconds = received, time.monotonic()
        file.flush()
        received = file.seek(0, os.SEEK_END)
    if total and received != total:
        raise http.client.HTTPException(
            f"the connection broke off after {received} of {total} bytes"
        )
