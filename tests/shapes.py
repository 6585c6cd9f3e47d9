"""Check the shapes and dtypes in the package's annotations at every call that a test makes.

jaxtyping's pytest option in pyproject.toml puts `check` around every function of the package. Other
annotations are pyright's concern: tests pass what they forbid, to see the error it leads to.
"""

import types
import typing

import beartype
import jax
import numpy as np
from jaxtyping import AbstractArray


def check(function):
    hints = {name: _shapes(hint) for name, hint in function.__annotations__.items()}
    function.__annotations__ = {name: hint for name, hint in hints.items() if hint is not typing.Any}
    return beartype.beartype(function)


def _shapes(hint):
    """What a hint says of arrays; Any if that is nothing."""
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        if hint.array_type is jax.Array:  # for which JAX takes NumPy's as well
            return hint | hint.dtype[np.ndarray, hint.dim_str]
        return hint
    arguments = [_shapes(argument) for argument in typing.get_args(hint)]
    if all(argument is typing.Any for argument in arguments):
        return typing.Any
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        # What is no array may be anything but an array.
        return typing.Union[tuple(a if s is typing.Any else s for a, s in zip(typing.get_args(hint), arguments))]
    return hint
