"""Downloads from a local server that speaks the hub's protocol."""

import hashlib
import http.server
import json
import re
import socket
import threading
import time

import pytest

from lsanet_jax.errors import ConfigError, DataError
from lsanet_jax.models import hub

COMMIT = 40 * "c"
CONTENT = bytes(range(256)) * 4096  # a megabyte
ABOUT = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.4], "std": [0.2]}}


class Hub(http.server.BaseHTTPRequestHandler):
    """owner/net: its main and one commit, with model.safetensors and config.json."""

    protocol_version = "HTTP/1.1"
    log_message = lambda *_: None

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        server = self.server
        server.seen.append((self.command, self.path, self.headers.get("Range")))
        if self.path == "/cdn/blob":
            return self.blob(body)
        found = re.fullmatch("/([^/]+/[^/]+)/resolve/([^/]+)/(.*)", self.path)
        repo, revision, file = found.groups() if found else ("", "", "")
        if repo != "owner/net":
            return self.fail("RepoNotFound")
        if revision not in ("main", COMMIT):
            return self.fail("RevisionNotFound")
        if file == "config.json" and server.about:
            about = json.dumps(ABOUT).encode()
            etag = {"ETag": f'"{hashlib.sha1(about).hexdigest()}"'}
            return self.send(200, {"X-Repo-Commit": COMMIT, **etag}, about, body)
        if file != "model.safetensors":
            return self.fail("EntryNotFound", {"X-Repo-Commit": COMMIT})
        linked = {"X-Linked-Etag": f'"{server.announced}"', "X-Linked-Size": str(len(CONTENT))}
        cdn = f"http://localhost:{server.server_port}/cdn/blob"  # another host, as the hub's
        headers = {"X-Repo-Commit": COMMIT, "Location": cdn, **linked}
        return self.send(302, headers, b"", body)

    def blob(self, body):
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        content = CONTENT[start:]
        headers = {"ETag": '"x"', "Content-Length": str(len(content))}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
        if body and self.server.cuts:  # the connection breaks half-way
            self.server.cuts -= 1
            self.close_connection = True
            content = content[: len(content) // 2]
        self.send(206 if start else 200, headers, content, body)

    def fail(self, code, headers=None):
        self.send(404, {"X-Error-Code": code, **(headers or {})}, b"", True)

    def send(self, status, headers, content, body):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture
def server(monkeypatch):
    pytest.importorskip("huggingface_hub")
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 2**16)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        server.seen, server.cuts, server.about = [], 0, True
        server.announced = hashlib.sha256(CONTENT).hexdigest()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        yield server
        server.shutdown()


def get(text, cache):
    return hub.download(hub.Reference.parse(text), cache=str(cache))


def downloads(server):
    return [request for request in server.seen if request[:2] == ("GET", "/cdn/blob")]


def test_a_file_comes_through_its_redirect_once_and_names_its_commit(server, tmp_path):
    for _ in range(2):
        got = get("hf:owner/net", tmp_path)
        assert got.file.read_bytes() == CONTENT
        assert (got.commit, got.about) == (COMMIT, ABOUT)
    assert len(downloads(server)) == 1
    assert get(f"hf:owner/net@{COMMIT}/model.safetensors", tmp_path).commit == COMMIT


def test_an_interrupted_transfer_goes_on_where_it_was(server, tmp_path):
    server.cuts = 2
    assert get("hf:owner/net", tmp_path).file.read_bytes() == CONTENT
    starts = [int(re.match(r"bytes=(\d+)", seen or "bytes=0")[1]) for *_, seen in downloads(server)]
    assert len(starts) == 3 and starts == sorted(set(starts))


def test_without_network_the_cache_serves_and_what_it_lacks_is_named(server, tmp_path, monkeypatch):
    get("hf:owner/net", tmp_path)
    with socket.socket() as unused:  # bound, and nobody listens
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert get("hf:owner/net", tmp_path).file.read_bytes() == CONTENT
        with pytest.raises(DataError, match="not in the cache, and http://127.* cannot be reached"):
            get("hf:owner/other", tmp_path)


def test_another_content_than_announced_is_refused_and_deleted(server, tmp_path):
    server.announced = 64 * "a"
    with pytest.raises(DataError, match=f"is damaged: .* the hub announced {64 * 'a'}"):
        get("hf:owner/net", tmp_path)
    assert not list(tmp_path.rglob(64 * "a"))


def test_a_blob_may_lie_in_a_store_that_repositories_share(server, tmp_path):
    """As huggingface-hub 2.4 keeps files of Xet: the blob is a link to a file of another name."""
    file = get("hf:owner/net", tmp_path).file
    blob = file.parent / file.readlink()
    shared = tmp_path / "blobs" / "ab" / (64 * "b")
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    assert get("hf:owner/net", tmp_path).file.read_bytes() == CONTENT
    shared.write_bytes(b"damaged")
    with pytest.raises(DataError, match="is damaged: .* the hub announced [0-9a-f]{64}"):
        get("hf:owner/net", tmp_path)
    assert get("hf:owner/net", tmp_path).file.read_bytes() == CONTENT


def test_a_repository_without_a_config_says_nothing_of_images(server, tmp_path):
    server.about = False
    assert get("hf:owner/net", tmp_path).about == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf:nobody/net", "has no public repository nobody/net"),
        ("hf:owner/net@gone", "owner/net has no revision 'gone'"),
        ("hf:owner/net/other.safetensors", "owner/net has no file other.safetensors at main"),
    ],
)
def test_what_the_hub_does_not_have_is_named(server, tmp_path, text, message):
    with pytest.raises(DataError, match=f"config.model.init_from = hf:.*{message}"):
        get(text, tmp_path)


@pytest.mark.parametrize("text", ["hf:resnet18", "hf:a/b/c.bin", "hf:a/b@", "hf:a b/c"])
def test_a_reference_of_another_form_is_refused(text):
    with pytest.raises(ConfigError, match=r"expected hf:OWNER/REPO\[@REVISION\]\[/FILE\]"):
        hub.Reference.parse(text)


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ConfigError, match=r"pip install huggingface-hub"):
        hub.download(hub.Reference.parse("hf:owner/net"))
