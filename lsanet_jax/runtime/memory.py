"""How much memory the machine has."""

import os


def physical_bytes() -> int:
    """Bytes of memory of this machine: more than that can never be allocated."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def in_words(count: int) -> str:
    """Bytes as GB, for messages."""
    return f"{count / 1e9:,.1f} GB"
