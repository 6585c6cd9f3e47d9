"""The default config, and a config as a flat table of its leaves."""

from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from lsanet_jax.config.fields import FIELDS


def default_config() -> ml_collections.ConfigDict:
    """Return every field at its default: LSANet on ResNet-18, on the synthetic set, at 224 pixels.

    The defaults are the paper's protocol if it states one; `FIELDS` has the meanings and sources.
    """
    return unflatten({name: field.default for name, field in FIELDS.items()})


def flatten(config: ml_collections.ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, value) for each leaf of a config."""
    for name, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def unflatten(values: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Make the config with these leaves, the inverse of `flatten`.

    Args:
        values: by dotted names; lists, which JSON has in place of tuples, become tuples.
    """
    config = ml_collections.ConfigDict()
    for name, value in values.items():
        *sections, leaf = name.split(".")
        node = config
        for section in sections:
            if section not in node:
                node[section] = ml_collections.ConfigDict()
            node = node[section]
        node[leaf] = tuple(value) if isinstance(value, list) else value
    return config
