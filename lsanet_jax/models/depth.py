"""How deep in a network each parameter lies, for layer-wise rates and for freezing stages."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend.core import Var


def depths(
    graphdef: nnx.GraphDef, params: nnx.State, others: nnx.State, image_shape: tuple[int, int, int]
) -> dict[str, int]:
    """The first stage, counted from 1, whose feature map each parameter is needed for.

    It is read off the trace of the backbone, so it holds for any; nothing is computed.

    Args:
      graphdef: of a `DeeplySupervised`.
      params: its parameters, or their shapes.
      others: its other variables, likewise.
      image_shape: (height, width, channels) of an image.

    Returns:
      By the parameter's path, such as "backbone/conv1/kernel/value". What no stage needs, the
      classifiers and all that serves training only, is one deeper than the last stage.
    """

    def maps(params, others, x):
        return nnx.merge(graphdef, params, others, copy=True).backbone(x)

    image = jax.ShapeDtypeStruct((2, *image_shape), jnp.float32)  # as batch norm needs
    traced = jax.make_jaxpr(maps)(params, others, image).jaxpr
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    # By variable of the trace: which parameters it follows from.
    follows = {v: frozenset([i]) for i, v in enumerate(traced.invars[: len(paths)])}
    nothing = frozenset()
    for equation in traced.eqns:
        inputs = (v for v in equation.invars if isinstance(v, Var))
        found = nothing.union(*(follows.get(v, nothing) for v in inputs))
        follows |= dict.fromkeys(equation.outvars, found)
    stages = [follows.get(v, nothing) for v in traced.outvars]
    deepest = len(stages) + 1
    depth = [
        next((n for n, s in enumerate(stages, 1) if i in s), deepest) for i in range(len(paths))
    ]
    names = (jax.tree_util.keystr(path, simple=True, separator="/") for path in paths)
    return dict(zip(names, depth, strict=True))


def in_evaluation_mode(
    graphdef: nnx.GraphDef, params: nnx.State, others: nnx.State, kept: frozenset[str]
) -> nnx.GraphDef:
    """The structure of a network whose layers of `kept` parameters are in evaluation mode.

    So their batch norms use the running statistics and leave them as they are.

    Args:
      graphdef: of the network.
      params: its parameters.
      others: its other variables.
      kept: names of parameters, as in `depths`.
    """
    model = nnx.merge(graphdef, params, others, copy=True)
    for path, module in nnx.iter_modules(model):
        if "/".join(map(str, (*path, "scale", "value"))) in kept:
            module.eval()
    return nnx.split(model, nnx.Param, nnx.BatchStat)[0]
