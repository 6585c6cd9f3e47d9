"""Check the shapes and dtypes in the package's annotations at every call that a test makes.

conftest.py has jaxtyping put `check` around every function of the package.
"""

import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

import beartype
import jax
import numpy as np
from jaxtyping import AbstractArray


def check(function: Callable) -> Callable:
    function.__annotations__ = {n: of_arrays(h) for n, h in function.__annotations__.items()}
    return beartype.beartype(function)


def of_arrays(hint):
    """The part of an annotation that is about arrays; Any if there is none.

    The rest is pyright's concern: some tests pass what it forbids, to see the error that follows.
    """
    if isinstance(hint, type) and issubclass(hint, AbstractArray):
        if hint.array_type is jax.Array:  # in place of which JAX takes NumPy's too
            return hint | hint.dtype[np.ndarray, hint.dim_str]
        return hint
    inner = [(part, of_arrays(part)) for part in get_args(hint)]
    origin = get_origin(hint)
    if origin is Callable or all(checked is Any for _, checked in inner):
        return Any
    parts = tuple(part if checked is Any else checked for part, checked in inner)
    return Union[parts] if origin in (Union, types.UnionType) else origin[parts]  # noqa: UP007
