"""Random keys: every random choice is a pure function of (seed, purpose, epoch or step)."""

from typing import Literal

import jax
from jaxtyping import Array, Key

from lsanet_jax.errors import ConfigError

Purpose = Literal["init", "order", "augment", "subset", "second_view"]

# The numbers are part of what a seed means: never renumber, only append.
_PURPOSE_NUMBERS: dict[str, int] = {
    "init": 0,
    "order": 1,
    "augment": 2,
    "subset": 3,
    "second_view": 4,
}

MAX_SEED = 2**32 - 1


def stream(seed: int, purpose: Purpose) -> Key[Array, ""]:
    """The root key of one purpose, from which `jax.random.fold_in` derives one per epoch or step.

    Args:
        seed: the run's seed, 0 to 2**32 - 1. A larger one would be cut to 32 bits silently, so that
            two seeds could mean one run.
        purpose: what the numbers are for. Streams of different purposes are independent, so a
            change in how many numbers one of them draws leaves the others alone.

    Returns:
        A `threefry2x32` key, whatever `jax_default_prng_impl` says.

    Raises:
        ConfigError: the seed is out of range.
    """
    if not 0 <= seed <= MAX_SEED:
        raise ConfigError(f"seed is {seed}, expected 0 to {MAX_SEED}: choose a seed of 32 bits.")
    root = jax.random.key(seed, impl="threefry2x32")
    return jax.random.fold_in(root, _PURPOSE_NUMBERS[purpose])
