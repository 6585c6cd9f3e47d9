import jax
import pytest

from lsanet_jax import keys
from lsanet_jax.errors import ConfigError


def test_streams_differ_by_purpose_and_seed():
    made = {
        tuple(jax.random.key_data(keys.stream(seed, purpose)).tolist())
        for seed in (0, 1, keys.MAX_SEED)
        for purpose in ("init", "order", "augment")
    }
    assert len(made) == 9


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_seeds_beyond_32_bits_are_refused(seed):
    with pytest.raises(ConfigError, match=f"seed is {seed}, expected 0 to 4294967295"):
        keys.stream(seed, "init")
