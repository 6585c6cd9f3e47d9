"""Weights in and out under torchvision's names and layouts (OIHW kernels, [out, in] matrices).

Residual networks have these names in timm too. What torchvision does not have keeps our own names:
attention modules inside the blocks.
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from lsanet_jax.errors import DataError

LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def classifier_name(model: Any) -> str:
    """What torchvision calls the classifier of a `DeeplySupervised`'s backbone."""
    return getattr(model.backbone, "classifier_name", "fc")


def torchvision_name(path: tuple, classifier: str) -> str:
    """Name a variable as torchvision does: backbone.layer1.0.bn1.scale -> layer1.0.bn1.weight."""
    path = path[1:] if path[0] == "backbone" else (classifier, *path[1:])
    return ".".join(str(part) for part in (*path[:-1], LEAVES.get(path[-1], path[-1])))


def inference_variables(model: nnx.Module) -> dict[str, nnx.Variable]:
    """The variables of the inference network (backbone and last classifier) by torchvision name."""
    classifier = classifier_name(model)
    state = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    return {torchvision_name(p, classifier): v for p, v in state if p[0] in ("backbone", "fc")}


def from_torchvision(array: np.ndarray) -> np.ndarray:
    """OIHW -> HWIO, [out, in] -> [in, out]; vectors as they are."""
    return {4: lambda a: a.transpose(2, 3, 1, 0), 2: np.transpose}.get(array.ndim, np.asarray)(
        array
    )


def to_torchvision(array: np.ndarray) -> np.ndarray:
    """HWIO -> OIHW, [in, out] -> [out, in]; vectors as they are."""
    return {4: lambda a: a.transpose(3, 2, 0, 1), 2: np.transpose}.get(array.ndim, np.asarray)(
        array
    )


def torchvision_tensors(model: nnx.Module) -> dict[str, np.ndarray]:
    """The inference network's parameters and batch statistics by torchvision name and layout."""
    return {
        name: np.ascontiguousarray(to_torchvision(np.asarray(variable[...])))
        for name, variable in inference_variables(model).items()
    }


def load_torchvision(
    model: nnx.Module,
    tensors: Mapping[str, np.ndarray],
    *,
    keep: frozenset[str] = frozenset(),
    source: str = "the weights",
) -> None:
    """Set the inference network's variables, in place.

    Args:
      model: a `DeeplySupervised`.
      tensors: arrays by torchvision name; `num_batches_tracked` is ignored. A kernel for RGB is
        summed over its three channels if the network's stem takes grey images.
      keep: names to leave as they are, whether or not there are tensors of that name.
      source: where the tensors come from, for messages.

    Raises:
      DataError: a tensor is missing, left over, of another shape, or holds what is not finite or
        not a floating point number; it is named, and nothing is set.
    """
    variables = {k: v for k, v in inference_variables(model).items() if k not in keep}
    ignored = lambda name: name.endswith("num_batches_tracked") or name in keep
    tensors = {k: v for k, v in tensors.items() if not ignored(k)}
    missing, extra = sorted(variables.keys() - tensors), sorted(tensors.keys() - variables)
    if missing or extra:
        raise DataError(
            f"{source} does not fit the network: {_some(missing)} missing, {_some(extra)} "
            f"unexpected"
        )
    values = {}
    for name, variable in variables.items():
        value = from_torchvision(tensors[name])
        if value.ndim == 4 and (value.shape[2], variable.shape[2]) == (3, 1):
            value = value.sum(axis=2, keepdims=True)
        if value.shape != variable.shape:
            wanted = to_torchvision(np.empty(variable.shape, bool)).shape
            raise DataError(
                f"{source} does not fit the network: {name} has shape {tensors[name].shape}, "
                f"expected {wanted}"
            )
        values[name] = _checked(value, variable.dtype, f"{source}: {name}")
    for name, variable in variables.items():
        variable.set_value(jnp.asarray(values[name]))


def _checked(value: np.ndarray, dtype: Any, what: str) -> np.ndarray:
    """A tensor in the network's precision; raises DataError if no network can have its values."""
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise DataError(f"{what} is of type {value.dtype}, expected floating point numbers")
    with np.errstate(over="ignore"):
        cast = value.astype(dtype)
    wrong = ~np.isfinite(cast)
    must = f"finite numbers of type {np.dtype(dtype)}"
    if not wrong.any() and what.endswith("running_var"):
        wrong, must = cast < 0, "variances, which are never negative"
    if wrong.any():
        raise DataError(
            f"{what} holds {value[wrong].flat[0]}, expected {must}: the file is damaged, or not of "
            "a trained network"
        )
    return cast


def init_from(model: nnx.Module, file: str | pathlib.Path) -> list[str]:
    """Start from the weights in a safetensors file, in place; see `start_from`.

    Raises:
      DataError: the file cannot be read, or does not fit.
    """
    return start_from(model, read_safetensors(file), source=str(file))


def start_from(model: nnx.Module, tensors: Mapping[str, np.ndarray], *, source: str) -> list[str]:
    """Start from weights, in place.

    The backbone is loaded strictly. The classifier is loaded if it has as many classes, and
    attention modules if there are any; otherwise they stay as they were initialised.

    Args:
      model: a `DeeplySupervised`.
      tensors: by torchvision name; a VGG's may have timm's name for its classifier.
      source: where they come from, for messages.

    Returns:
      What was left at its initialisation and why, a sentence each.

    Raises:
      DataError: a tensor of the backbone is missing, left over or of another shape.
    """
    variables = inference_variables(model)
    keep, notes = set(), []

    prefix = classifier_name(model) + "."
    ours = {k: to_torchvision(np.empty(v.shape, bool)).shape for k, v in variables.items()}
    head = {k: v for k, v in ours.items() if k.startswith(prefix)}
    heads = (prefix, "pre_logits.", "head.") if prefix == "classifier." else (prefix,)
    theirs = {k: v.shape for k, v in tensors.items() if k.startswith(heads)}
    if theirs != head:
        keep |= head.keys() | theirs.keys()
        shape = theirs.get(prefix + "weight")
        wanted = head[prefix + "weight"][0]
        if shape and shape[0] == wanted:
            other = sorted(k for k in head.keys() | theirs.keys() if head.get(k) != theirs.get(k))
            found = "; ".join(
                f"{k} is {theirs.get(k, 'missing')} there, {head.get(k, 'missing')} here"
                for k in other
            )
            notes.append(f"the classifier is new: of {source}, {found}")
        else:
            found = "no classifier of one layer" if not shape else f"one of {shape[0]} classes"
            notes.append(
                f"the classifier is new: {source} has {found}, this network {wanted} classes"
            )

    attention = {k for k in variables if ".attention." in f".{k}"}
    if attention and not attention & tensors.keys():
        keep |= attention
        notes.append(f"the attention modules are new: {source} has none")

    load_torchvision(model, tensors, keep=frozenset(keep), source=source)
    return notes


def take_training_parts(model: nnx.Module, parent: nnx.Module, *, source: str) -> list[str]:
    """Take what serves training only, such as auxiliary classifiers, from another network.

    Args:
      model: a `DeeplySupervised`, changed in place: each part that `parent` has in the same shape.
      parent: another one.
      source: where it comes from, for messages.

    Returns:
      What was left at its initialisation, a sentence.
    """
    parts = lambda network: {
        path: variable
        for path, variable in nnx.to_flat_state(
            nnx.state(network, nnx.Any(nnx.Param, nnx.BatchStat))
        )
        if path[0] not in ("backbone", "fc")
    }
    ours, theirs, new = parts(model), parts(parent), set()
    for path, variable in ours.items():
        if path in theirs and theirs[path].shape == variable.shape:
            variable.set_value(theirs[path][...])
        else:
            new.add(path[0])
    return [f"new, for {source} has none that fit: {', '.join(sorted(new))}"] if new else []


def read_safetensors(file: str | pathlib.Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file.

    Raises:
      DataError: it does not exist, is damaged, or is a pickle, which is never opened.
    """
    import safetensors.numpy

    file = pathlib.Path(file)
    if file.suffix in (".pth", ".pt", ".bin", ".ckpt"):
        raise DataError(
            f"{file} is a pickle, which can run any code when it is opened. If you trust it, "
            'convert it with PyTorch: python -c "import torch, safetensors.torch as s; s.save_file('
            "{k: v.contiguous() for k, v in torch.load("
            f"'{file}', weights_only=True).items()}}, '{file.with_suffix('.safetensors')}')\""
        )
    if os.path.exists(file) and not os.path.isfile(file):  # a pipe would wait for its other end
        raise DataError(f"{file} is not a readable safetensors file: it is not a regular file")
    try:
        return safetensors.numpy.load_file(file)
    except FileNotFoundError as error:
        raise DataError(f"{file} does not exist") from error
    except AttributeError as error:  # how safetensors says that NumPy lacks a type, such as F8_E4M3
        raise DataError(
            f"{file} holds numbers of a type that cannot be read ({error}): convert them to float32"
        ) from error
    except (OSError, ValueError, KeyError, safetensors.SafetensorError) as error:
        raise DataError(f"{file} is not a readable safetensors file: {error}") from error


def _some(names: list[str]) -> str:
    """The first few of some names, and how many there are."""
    shown = ", ".join(names[:5])
    return f"{len(names)} tensors ({shown}{', ...' if len(names) > 5 else ''})" if names else "none"
