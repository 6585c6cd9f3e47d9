import errno
import hashlib
import http.server
import os
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from lsanet_jax.data.sources import download, medmnist
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
    """Serves `server.content` at any path; `server.behaviour` lists what goes wrong each time."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            server = self.server
            server.requests.append(self.headers.get("Range"))
            body = server.content
            behaviour = server.behaviour.pop(0) if server.behaviour else "well"
            if behaviour.isdigit():
                self.send_error(int(behaviour))
                return
            if behaviour == "silent":
                time.sleep(1)
                return
            start = 0
            if server.resumes and (wanted := self.headers.get("Range")):
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            if behaviour != "no length":
                self.send_header("Content-Length", str(len(body) - start))
            self.end_headers()
            middle = (start + len(body)) // 2
            self.wfile.write(body[start:middle])
            self.wfile.flush()
            if behaviour == "stalls":
                time.sleep(1)
            elif behaviour == "slow":
                time.sleep(0.5)
            if behaviour not in ("breaks off", "stalls"):
                self.wfile.write(body[middle:])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.behaviour, server.resumes, server.content, server.requests = [], True, b"", []
        server.url = f"http://127.0.0.1:{server.server_port}/{FILE}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def official(monkeypatch, server, content):
    """Makes `content`, as the server serves it, the official BreastMNIST; nobody waits long."""
    monkeypatch.setattr(download, "_TIMEOUT_SECONDS", 0.3)
    monkeypatch.setattr(download, "_WAITS_SECONDS", (0.01, 0.02, 0.04))
    server.content = content
    md5 = hashlib.md5(content).hexdigest()
    facts = dict(medmnist.info("breastmnist"), url=server.url, MD5=md5)
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
        facts = medmnist.info(name)
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
        "import sys; from lsanet_jax.data.sources import medmnist; medmnist._read_info();"
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
    facts = dict(medmnist.info("chestmnist"), MD5=hashlib.md5(path.read_bytes()).hexdigest())
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
    assert server.requests == [None]
    assert [path.name for path in root.iterdir()] == [FILE]
    assert (root / FILE).stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    umask = os.umask(0)
    os.umask(umask)
    return umask


def test_a_server_need_not_tell_the_length(official, server, tmp_path):
    server.behaviour = ["no length"]
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


@pytest.mark.parametrize("failure", ["breaks off", "stalls", "503", "silent"])
def test_a_failure_is_tried_again_from_where_it_broke_off(official, server, tmp_path, failure):
    server.behaviour = [failure]
    assert len(medmnist.load_medmnist("breastmnist", root=str(tmp_path)).train) == 4
    came = len(server.content) // 2 if failure in ("breaks off", "stalls") else 0
    assert server.requests == [None, f"bytes={came}-" if came else None]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


def test_a_server_that_cannot_resume_sends_all_again(official, server, tmp_path):
    server.behaviour, server.resumes = ["breaks off"], False
    assert len(medmnist.load_medmnist("breastmnist", root=str(tmp_path)).train) == 4


def test_what_came_before_giving_up_is_resumed_by_a_later_process(official, server, tmp_path):
    server.behaviour = ["breaks off"] + ["503"] * 3
    assert "HTTP Error 503" in error_of(tmp_path)
    half = len(server.content) // 2
    (part,) = tmp_path.iterdir()
    assert (part.name, part.stat().st_size) == (f".{FILE}.part", half)
    medmnist.load_medmnist("breastmnist", root=str(tmp_path))
    assert server.requests[-1] == f"bytes={half}-"
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("left", ["other", "all", "more"])
def test_a_part_of_another_file_or_a_whole_one_is_not_trusted_blindly(
    official, server, tmp_path, left
):
    content = {"other": b"x" * 99, "all": server.content, "more": server.content + b"x"}[left]
    (tmp_path / f".{FILE}.part").write_bytes(content)
    assert len(medmnist.load_medmnist("breastmnist", root=str(tmp_path)).train) == 4
    assert len(server.requests) == {"other": 2, "all": 1, "more": 2}[left]
    assert (tmp_path / FILE).read_bytes() == server.content


def test_an_interrupted_download_leaves_nothing_under_the_files_name(
    official, monkeypatch, tmp_path
):
    def interrupt(url, file, start):
        file.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "_stream", interrupt)
        with pytest.raises(KeyboardInterrupt):
            medmnist.load_medmnist("breastmnist", root=str(tmp_path))
    assert not (tmp_path / FILE).exists()
    assert len(medmnist.load_medmnist("breastmnist", root=str(tmp_path)).train) == 4


def test_a_full_disk_ends_it_at_once_and_leaves_nothing(official, monkeypatch, tmp_path):
    calls = []

    def full(url, file, start):
        file.write(b"half")
        calls.append(start)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(download, "_stream", full)
    assert "No space left on device" in error_of(tmp_path)
    assert calls == [0]
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_is_asked_for_the_same_file(official, server, tmp_path):
    official["url"] = "http://127.0.0.1:1/nothing"
    mirror = server.url.removesuffix(FILE) + "mirror/"
    dataset = medmnist.load_medmnist("breastmnist", root=str(tmp_path), mirror=mirror)
    assert len(dataset.train) == 4
    server.content = b"wrong"
    (tmp_path / FILE).unlink()
    assert f"{mirror}{FILE}: the download has md5" in error_of(tmp_path, mirror=mirror)


def test_of_two_processes_one_downloads_and_both_have_the_file(official, server, tmp_path):
    server.behaviour = ["slow"]
    program = (
        "import sys, pathlib; from lsanet_jax.data.sources.download import download;"
        f"download({server.url!r}, pathlib.Path({str(tmp_path / FILE)!r}), {official['MD5']!r})"
    )
    command = [sys.executable, "-c", program]
    running = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert server.requests == [None]
    assert (tmp_path / FILE).read_bytes() == server.content
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("behaviour", "reason", "attempts"),
    [("404", "HTTP Error 404", 1), ("silent", "timed out|closed connection", 4)],
)
def test_a_server_without_an_answer(official, server, tmp_path, behaviour, reason, attempts):
    server.behaviour = [behaviour] * 9
    assert re.search(reason, error_of(tmp_path))
    assert len(server.requests) == attempts
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
    assert server.requests == []


def test_a_folder_in_the_files_place(official, tmp_path):
    (tmp_path / FILE).mkdir()
    assert "cannot be read" in error_of(tmp_path)
