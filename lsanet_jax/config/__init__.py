"""What a run may be told: fields, their defaults and checks, and the shipped configs."""

from lsanet_jax.config.checks import validate
from lsanet_jax.config.defaults import default_config, flatten, unflatten
from lsanet_jax.config.fields import FIELDS, MAY_CHANGE, Field
from lsanet_jax.config.named import find, load, names

__all__ = [
    "FIELDS",
    "MAY_CHANGE",
    "Field",
    "default_config",
    "find",
    "flatten",
    "load",
    "names",
    "unflatten",
    "validate",
]
