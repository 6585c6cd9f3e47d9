"""Large pages for what a step needs, which make training on a CPU faster by a tenth to a quarter.

XLA asks the system anew for the memory of each step, and the system clears it page by page. glibc
can ask for pages of 2 MiB in place of 4 KiB, if it is told before the process starts.
"""

import contextlib
import os
import pathlib
import sys
import threading

SETTING = "glibc.malloc.hugetlb"
MODES = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def ask() -> None:
    """Start this command again, once, with large pages where Linux gives them on request only.

    Call it first of all. It does nothing if GLIBC_TUNABLES has the setting (glibc.malloc.hugetlb=0
    switches it off), or if more than the command lives in this process: IPython, a debugger.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    alone = threading.active_count() == 1 and "IPython" not in sys.modules
    if SETTING in tunables or not alone or not _on_request():
        return
    os.environ["GLIBC_TUNABLES"] = f"{tunables}:{SETTING}=1".lstrip(":")
    sys.stdout.flush()
    with contextlib.suppress(OSError):  # then it goes on without
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _on_request() -> bool:
    """Whether the system has large pages for who asks, and glibc, from 2.35 on, can ask."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        new_enough = tuple(map(int, version.split(".")[:2])) >= (2, 35)
        return name == "glibc" and new_enough and "[madvise]" in MODES.read_text()
    except (OSError, ValueError):
        return False
