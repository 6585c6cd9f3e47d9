"""Weights under torchvision's names and layouts (OIHW kernels, [out, in] matrices)."""

from collections.abc import Mapping

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


def torchvision_name(path: tuple) -> str:
    """Name of a variable of `DeeplySupervised`: backbone.layer1.0.bn1.scale -> layer1.0.bn1.weight."""
    path = path[1:] if path[0] == "backbone" else path
    return ".".join(str(part) for part in (*path[:-1], LEAVES[path[-1]]))


def inference_variables(model: nnx.Module) -> dict[str, nnx.Variable]:
    """The variables of the inference network (backbone and last classifier) by torchvision name."""
    state = nnx.to_flat_state(nnx.state(model, nnx.Any(nnx.Param, nnx.BatchStat)))
    return {torchvision_name(p): v for p, v in state if p[0] in ("backbone", "fc")}


def from_torchvision(array: np.ndarray) -> np.ndarray:
    """OIHW -> HWIO, [out, in] -> [in, out]; vectors as they are."""
    return {4: lambda a: a.transpose(2, 3, 1, 0), 2: np.transpose}.get(array.ndim, np.asarray)(
        array
    )


def load_torchvision(model: nnx.Module, tensors: Mapping[str, np.ndarray]) -> None:
    """Set the inference network's variables, in place.

    Args:
      model: a `DeeplySupervised`.
      tensors: arrays by torchvision name; `num_batches_tracked` is ignored.

    Raises:
      DataError: a tensor is missing, left over, or of another shape; it is named.
    """
    variables = inference_variables(model)
    tensors = {k: v for k, v in tensors.items() if not k.endswith("num_batches_tracked")}
    missing, extra = sorted(variables.keys() - tensors), sorted(tensors.keys() - variables)
    if missing or extra:
        raise DataError(f"weights do not fit the network: missing {missing}, unexpected {extra}")
    for name, variable in variables.items():
        value = from_torchvision(tensors[name])
        if value.shape != variable.shape:
            raise DataError(
                f"weights do not fit the network: {name} has shape {tensors[name].shape}, which in "
                f"our layout is {value.shape}; expected {variable.shape}"
            )
        variable[...] = jnp.asarray(value, variable.dtype)
