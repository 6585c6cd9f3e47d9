"""The defaults of every field; docs/fields.md has their meanings.

They are kept in `lsanet_jax.config.fields`; this is `lsanet_jax.config.default_config` as a config
file, which works from any folder as --config=common.
"""

from lsanet_jax.config import default_config as get_config

__all__ = ["get_config"]
