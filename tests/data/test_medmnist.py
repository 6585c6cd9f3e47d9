import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from lsanet_jax.data import medmnist
from lsanet_jax.errors import ConfigError, DataError

FILE = "breastmnist.npz"


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    """A file in the layout of BreastMNIST."""
    path = tmp_path_factory.mktemp("made") / FILE
    images = np.random.default_rng(0).integers(0, 256, (4, 28, 28), np.uint8)
    labels = np.array([[0], [1], [0], [1]], np.uint8)
    splits = ("train", "val", "test")
    made = {f"{key}_images": images for key in splits} | {f"{key}_labels": labels for key in splits}
    np.savez(path, **made)
    return path.read_bytes()


@pytest.fixture
def server():
    """Serves `server.content` at any path, in the way that `server.behaviour` says."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body, behaviour = self.server.content, self.server.behaviour
            self.server.requests += 1
            if behaviour == "missing":
                self.send_error(404)
                return
            if behaviour == "silent":
                time.sleep(1)
                return
            self.send_response(200)
            if behaviour != "no length":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if behaviour == "breaks off" else body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.behaviour, server.content, server.requests = "well", b"", 0
        server.url = f"http://127.0.0.1:{server.server_port}/{FILE}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def official(monkeypatch, server, content):
    """Makes `content`, as the server serves it, the official BreastMNIST."""
    server.content = content
    md5 = hashlib.md5(content).hexdigest()
    facts = dict(medmnist._facts("breastmnist"), url=server.url, MD5=md5)
    monkeypatch.setitem(medmnist._read_info(), "breastmnist", facts)
    return facts


def error_of(root, **options):
    with pytest.raises(DataError) as caught:
        medmnist.load_medmnist("breastmnist", root=str(root), **options)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "task", "class_names", "counts", "channels"),
    [
        ("retinamnist", "ordinal-regression", tuple("01234"), (1080, 120, 400), 3),
        ("breastmnist", "binary-class", ("malignant", "normal, benign"), (546, 78, 156), 1),
    ],
)
def test_official_files(shared, name, task, class_names, counts, channels):
    dataset = medmnist.load_medmnist(name, root=str(shared / "data"))
    assert (dataset.name, dataset.task, dataset.class_names) == (name, task, class_names)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == counts
    assert dataset.train.images.shape[1:] == (28, 28, channels)


def test_facts_of_all_sets():
    tasks = {}
    for name in medmnist.NAMES:
        facts = medmnist._facts(name)
        tasks[name] = facts["task"]
        for suffix in ("", "_64", "_128", "_224"):
            assert facts[f"url{suffix}"].startswith("https://")
            assert f"/{name}{suffix}.npz" in facts[f"url{suffix}"]
            assert len(facts[f"MD5{suffix}"]) == 32
    assert set(tasks.values()) == {
        "multi-class",
        "binary-class",
        "ordinal-regression",
        "multi-label, binary-class",
    }


def test_the_facts_cost_neither_torch_nor_a_line_of_output():
    program = (
        "import sys; from lsanet_jax.data import medmnist; medmnist._read_info();"
        "assert not {'torch', 'sklearn', 'pandas', 'medmnist'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_multi_label_is_called_so(monkeypatch, tmp_path):
    images = np.zeros((2, 28, 28), np.uint8)
    labels = np.eye(2, 14, dtype=np.uint8)
    path = tmp_path / "chestmnist.npz"
    splits = ("train", "val", "test")
    np.savez(
        path,
        **{f"{key}_images": images for key in splits},
        **{f"{key}_labels": labels for key in splits},
    )
    facts = dict(medmnist._facts("chestmnist"), MD5=hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setitem(medmnist._read_info(), "chestmnist", facts)
    dataset = medmnist.load_medmnist("chestmnist", root=str(tmp_path))
    assert dataset.task == "multi-label"
    assert dataset.train.labels.shape == (2, 14)
    assert dataset.class_names[0] == "atelectasis"


def test_unknown_size(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.size is 32, expected one of 28, 64, 128, 224"):
        medmnist.load_medmnist("breastmnist", 32, str(tmp_path))


def test_a_missing_file_is_downloaded_once(official, server, tmp_path):
    root = tmp_path / "a" / "b"
    for _ in range(2):
        dataset = medmnist.load_medmnist("breastmnist", root=str(root))
    assert len(dataset.train) == 4
    assert server.requests == 1
    assert [path.name for path in root.iterdir()] == [FILE]
    assert (root / FILE).stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_a_server_need_not_tell_the_length(official, server, tmp_path):
    server.behaviour = "no length"
    assert len(medmnist.load_medmnist("breastmnist", root=str(tmp_path)).train) == 4


def test_larger_sizes_have_files_of_their_own(official, server, monkeypatch, tmp_path):
    official.update(url_64=server.url, MD5_64=official["MD5"])
    medmnist.load_medmnist("breastmnist", 64, str(tmp_path))
    assert (tmp_path / "breastmnist_64.npz").is_file()


def test_the_root_can_come_from_the_environment(official, monkeypatch, tmp_path):
    monkeypatch.setenv("MEDMNIST_ROOT", str(tmp_path / "root"))
    medmnist.load_medmnist("breastmnist")
    assert (tmp_path / "root" / FILE).is_file()


def test_the_root_defaults_to_the_home_folder(official, monkeypatch, tmp_path):
    monkeypatch.delenv("MEDMNIST_ROOT", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    medmnist.load_medmnist("breastmnist")
    assert (tmp_path / ".medmnist" / FILE).is_file()


def test_wrong_bytes_are_not_kept(official, server, tmp_path):
    server.content = b"a page that says: log in first"
    found = hashlib.md5(server.content).hexdigest()
    message = error_of(tmp_path)
    assert f"md5 {found}, expected {official['MD5']}" in message
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_breaks_off_is_not_kept(official, server, tmp_path):
    server.behaviour = "breaks off"
    message = error_of(tmp_path)
    size = len(server.content)
    assert f"broke off after {size // 2} of {size} bytes" in message
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_download_is_not_kept(official, monkeypatch, tmp_path):
    def interrupt(url, part):
        part.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(medmnist, "_stream", interrupt)
    with pytest.raises(KeyboardInterrupt):
        medmnist.load_medmnist("breastmnist", root=str(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("behaviour", "reason"), [("missing", "HTTP Error 404"), ("silent", "timed out")]
)
def test_a_server_without_an_answer(official, server, monkeypatch, tmp_path, behaviour, reason):
    server.behaviour = behaviour
    monkeypatch.setattr(medmnist, "_TIMEOUT_SECONDS", 0.2)
    assert reason in error_of(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_message_says_what_to_put_where(official, server, tmp_path):
    official["url"] = "http://127.0.0.1:1/breastmnist.npz"
    message = error_of(tmp_path)
    for part in (official["url"], str(tmp_path / FILE), official["MD5"], "Connection refused"):
        assert part in message


def test_a_root_that_is_a_file(official, tmp_path):
    root = tmp_path / "root"
    root.touch()
    assert str(root / FILE) in error_of(root)


def test_a_file_with_another_md5_is_named_and_left_alone(official, server, tmp_path):
    path = tmp_path / FILE
    path.write_bytes(b"mine")
    message = error_of(tmp_path)
    assert f"{path}: found md5 {hashlib.md5(b'mine').hexdigest()}, expected {official['MD5']}" in (
        message
    )
    assert f"data.name=npz and data.path={path}" in message
    assert path.read_bytes() == b"mine"
    assert server.requests == 0


def test_a_folder_in_the_files_place(official, tmp_path):
    (tmp_path / FILE).mkdir()
    assert "cannot be read" in error_of(tmp_path)
