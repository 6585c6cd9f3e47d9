"""A command asks for large pages by starting itself again, once; and that changes no bits."""

import json
import os
import subprocess
import sys

import pytest

from lsanet_jax.runtime import pages
from tests.conftest import ROOT

PROGRAM = """
import os, sys
from lsanet_jax.runtime import pages
pages._on_request = lambda: {on_request}
{before}
print("started", flush=True)
pages.ask()
print(os.environ.get("GLIBC_TUNABLES"), sys.argv[1:], os.getpid())
"""


def started(tunables=None, on_request=True, before=""):
    """The lines that a program prints which asks for large pages, and its process id."""
    program = PROGRAM.format(on_request=on_request, before=before)
    env = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    env |= {} if tunables is None else {"GLIBC_TUNABLES": tunables}
    command = [sys.executable, "-c", program, "a b", "--c=ä"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    output = process.communicate()[0]
    assert process.returncode == 0
    return output.splitlines(), process.pid


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.arena_max=2", "glibc.malloc.arena_max=2:glibc.malloc.hugetlb=1"),
    ],
)
def test_a_command_starts_itself_again_once_as_the_same_process(before, after):
    lines, process = started(before)
    assert lines == ["started", "started", f"{after} ['a b', '--c=ä'] {process}"]


@pytest.mark.parametrize(
    "options",
    [
        {"tunables": "glibc.malloc.hugetlb=0"},
        {"on_request": False},
        {"before": "sys.modules['IPython'] = sys"},
        {
            "before": "import threading, time; "
            "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()"
        },
    ],
)
def test_nothing_is_started_again_where_it_would_not_help_or_not_survive(options):
    lines, process = started(**options)
    assert lines == ["started", f"{options.get('tunables')} ['a b', '--c=ä'] {process}"]


@pytest.mark.parametrize(
    ("modes", "libc", "expected"),
    [
        ("always [madvise] never\n", "glibc 2.36", True),
        ("[always] madvise never\n", "glibc 2.36", False),  # they come unasked
        ("always madvise [never]\n", "glibc 2.36", False),
        ("always [madvise] never\n", "glibc 2.34", False),
        ("always [madvise] never\n", None, False),
        (None, "glibc 2.36", False),
    ],
)
def test_large_pages_are_asked_for_where_they_can_be(modes, libc, expected, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "MODES", tmp_path / "enabled")
    if modes is not None:
        pages.MODES.write_text(modes)
    monkeypatch.setattr(os, "confstr", lambda name: libc)
    assert pages._on_request() == expected


@pytest.mark.slow
def test_large_pages_change_no_bits(tmp_path):
    digests = []
    for value in "01":
        workdir = tmp_path / value
        flags = [f"--workdir={workdir}", "--nopage", "--config.train.epochs=1"]
        flags += [
            "--config.data.synthetic.num_train=128",
            "--config.data.size=32",
            "--config.data.image_size=32",
        ]
        subprocess.run(
            [sys.executable, "-m", "lsanet_jax.main", "--config=quickstart", *flags],
            cwd=ROOT,
            env=os.environ | {"GLIBC_TUNABLES": f"{pages.SETTING}={value}"},
            check=True,
            capture_output=True,
        )
        record = json.loads((workdir / "digests.jsonl").read_text().splitlines()[0])
        digests.append({k: v for k, v in record.items() if k != "previous"})
    assert digests[0] == digests[1]
