"""Configs and sweeps by their names: those that the package ships, in the folder `configs`."""

import importlib.util
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
        name: a path from the current folder, or from the folder that holds `configs`; or the name of
            a shipped one, such as "resnet18".
        kind: "" for a config, "sweeps" for a sweep.

    Returns:
        An absolute path.

    Raises:
        ConfigError: there is no such file.
    """
    path = pathlib.Path(name)
    shipped = folder() / kind / f"{name}.py"
    for candidate in (path, folder().parent / path, shipped):
        if candidate.is_file():
            return candidate.absolute()
    hint = near_matches(path.stem, names(kind)) or f"; shipped are {', '.join(names(kind))}"
    raise ConfigError(f"{name}: there is no such file, nor a shipped one of that name{hint}")


def load_module(name: str | pathlib.Path, kind: str = "") -> types.ModuleType:
    """Import the file of a config or a sweep; see `find`.

    Raises:
        ConfigError: there is no such file, or it cannot be imported.
    """
    path = find(name, kind)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's own file raises
        raise ConfigError(f"{name} cannot be loaded: {type(error).__name__}: {error}") from error
    return module


def load(name: str | pathlib.Path) -> ml_collections.ConfigDict:
    """Load a config by its name, such as "resnet18", or its path.

    Raises:
        ConfigError: there is no such file, or it cannot be imported.
    """
    return load_module(name).get_config()
