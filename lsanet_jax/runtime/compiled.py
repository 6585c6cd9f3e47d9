"""Compiled programs, kept from one command to the next, so that training starts at once.

XLA takes 5 to 60 seconds to compile a training step. JAX's own cache on disk keeps what it made; it
gives back the same machine code, so the bits of a run do not depend on it. It lies in the user's
cache folder, apart for each kind of processor, since code for one may not run on another.

`LSANET_COMPILATION_CACHE=off` switches it off; JAX_COMPILATION_CACHE_DIR puts it elsewhere, and its
size is then the user's affair.
"""

import hashlib
import os
import pathlib
import platform
import sys
from collections.abc import Mapping

VARIABLE = "LSANET_COMPILATION_CACHE"
_OURS = "LSANET_COMPILED"
LIMIT = 2 * 2**30
"""Bytes that the folder may hold when a command starts."""
LEAST = "0.1"
"""Seconds that a program took to compile if it is kept; JAX's default of 1 loses 5 s a command."""


def keep() -> pathlib.Path | None:
    """Have JAX keep compiled programs, whether it is imported already or not.

    Returns:
      The folder; None if the environment says otherwise, or it cannot be written.
    """
    if os.environ.get(VARIABLE) == "off" or "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = pathlib.Path(home) / "lsanet_jax" / "compiled" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _prune(folder)
    except OSError:
        return None
    # The environment is for processes that this one starts.
    os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ[_OURS] = str(folder)
    least = float(os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", LEAST))
    if jax := sys.modules.get("jax"):
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least)
    return folder


def without(environment: Mapping[str, str]) -> dict[str, str]:
    """Leave out what `keep` put into an environment: another machine has a folder of its own."""
    ours = environment.get(_OURS)
    return {
        name: value
        for name, value in environment.items()
        if name != _OURS and not (name == "JAX_COMPILATION_CACHE_DIR" and value == ours)
    }


def _prune(folder: pathlib.Path) -> None:
    """Delete the programs that were written first, until the rest is below the limit."""
    written = sorted((file.stat().st_mtime, file.stat().st_size, file) for file in folder.iterdir())
    size = sum(size for _, size, _ in written)
    for _, of_file, file in written:
        if size <= LIMIT:
            return
        file.unlink(missing_ok=True)
        size -= of_file


def _processor() -> str:
    """A name for the kind of processor: its architecture, and a digest of what it can do."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        able = sorted({line for line in lines if line.startswith(("flags", "Features"))})
    except OSError:
        able = [platform.processor()]
    digest = hashlib.sha256("\n".join(able).encode()).hexdigest()
    return f"{platform.machine()}-{digest[:12]}"
