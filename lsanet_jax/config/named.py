"""Configs and sweeps by their names: those that the package ships, in the folder `configs`."""

import os
import pathlib
import types

import ml_collections

from lsanet_jax.errors import ConfigError, near_matches

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]


def folder() -> pathlib.Path:
    """The folder of the shipped configs: in the package if it was installed, else beside it."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def names(kind: str = "") -> list[str]:
    """The names of the shipped configs, or of the sweeps with `kind` "sweeps"."""
    files = (folder() / kind).glob("*.py")
    return sorted(file.stem for file in files if not file.stem.startswith("_"))


def find(name: str | pathlib.Path, kind: str = "") -> pathlib.Path:
    """Find the file of a config or a sweep.

    Args:
        name: a path from the current folder, or from the folder that holds `configs`; or the name
            of a shipped one, such as "resnet18".
        kind: "" for a config, "sweeps" for a sweep.

    Returns:
        An absolute path.

    Raises:
        ConfigError: there is no such file.
    """
    path = pathlib.Path(name)
    shipped = folder() / kind / f"{name}.py"
    for candidate in (path, folder().parent / path) if path.suffix else (shipped,):
        if os.path.isfile(candidate):
            return candidate.absolute()
    known = names(kind)
    if not path.suffix and os.path.isfile(f"{name}.py"):
        raise ConfigError(f"{name}: there is no such file; did you mean {name}.py?")
    hint = near_matches(path.stem, known) or f"; the shipped ones are {', '.join(known)}"
    what = kind.removesuffix("s") or "config"
    raise ConfigError(f"{name}: there is no such file, and no shipped {what} of that name{hint}")


def load_module(name: str | pathlib.Path, kind: str = "") -> types.ModuleType:
    """Import the file of a config or a sweep; see `find`.

    Raises:
        ConfigError: there is no such file, or it cannot be imported.
    """
    path = find(name, kind)
    # Not by importlib, whose cache takes an edit within the same second for the file before it.
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    try:
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)  # noqa: S102
    except Exception as error:  # whatever the user's own file raises
        raise ConfigError(f"{name} cannot be loaded: {_describe(error)}") from error
    return module


def load(name: str) -> ml_collections.ConfigDict:
    """Load a config by its name, such as "resnet18", or its path.

    Args:
        name: name or path; after a colon, if there is one, the argument for its `get_config`.

    Raises:
        ConfigError: there is no such file, it has no `get_config`, or either of them fails.
    """
    file, colon, argument = str(name).partition(":")
    module = load_module(file)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{module.__file__} has no function get_config()")
    try:
        config = module.get_config(*([argument] if colon else []))
    except Exception as error:  # whatever the user's own file raises
        raise ConfigError(f"{name}: get_config() fails: {_describe(error)}") from error
    if not isinstance(config, ml_collections.ConfigDict):
        raise ConfigError(
            f"{name}: get_config() returns {type(config).__name__}, expected a ConfigDict"
        )
    return config


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
