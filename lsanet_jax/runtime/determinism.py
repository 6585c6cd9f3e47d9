"""The switch `deterministic`: the same bits in every run, also from kernels of a GPU.

On a CPU the same environment gives the same bits anyway (see `manifest.environment`: the number of
usable cores counts). On a GPU some of XLA's kernels add in an order that depends on timing, and XLA
chooses kernels by how fast they are just then. The flag that forbids both must be set before the
backend starts.
"""

import logging
import os

log = logging.getLogger(__name__)

FLAG = "--xla_gpu_deterministic_ops"


def request(deterministic: bool) -> None:
    """Set the flag, unless XLA_FLAGS has it already; call it before any device is used."""
    flags = os.environ.get("XLA_FLAGS", "")
    if deterministic and FLAG not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {FLAG}=true".strip()


def check(deterministic: bool, platform: str) -> None:
    """Warn if determinism was requested but is unavailable.

    Args:
      deterministic: as in the config.
      platform: of the devices, such as "gpu".
    """
    if (
        deterministic
        and platform == "gpu"
        and f"{FLAG}=true" not in os.environ.get("XLA_FLAGS", "")
    ):
        log.warning(
            "config.deterministic is True, but XLA_FLAGS lacks %s=true: the bits of this run may "
            "differ from run to run. Set it before Python starts, or use lsanet train",
            FLAG,
        )
