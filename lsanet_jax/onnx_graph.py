"""A traced function as an ONNX graph, for what a convolutional network does when it predicts.

It reads the jaxpr of a function, so any backbone is written that uses only the primitives of
`_WRITERS`, whatever its layers are called. Constants are folded; broadcasts stay implicit, as
ONNX's arithmetic has them. One dimension, the batch, may be symbolic.
"""

import importlib
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from lsanet_jax.errors import ConfigError

OPSET = 18


class Value(NamedTuple):
    """A tensor of the graph, or a constant.

    Attributes:
        name: in the graph; "" for a constant.
        constant: its value; None for a tensor.
        shape: that the program sees.
        stored: that the tensor has: 1 wherever it is still to be broadcast.
        dtype: of the elements.
    """

    name: str
    constant: np.ndarray | None
    shape: tuple
    stored: tuple
    dtype: np.dtype


def write(function: Callable, spec: jax.ShapeDtypeStruct, name: str, output: str):
    """Write a function of one array as an ONNX model.

    Args:
        function: traced once.
        spec: shape and dtype of its argument; a symbolic dimension stays free.
        name: of the input.
        output: name of the result.

    Returns:
        The `onnx.ModelProto`, checked.

    Raises:
        ConfigError: the function uses a primitive that cannot be written.
    """
    onnx = _onnx()
    helper = onnx.helper
    traced = jax.jit(function).trace(spec).jaxpr
    graph = _Graph(name)
    given = Value(name, None, tuple(spec.shape), tuple(spec.shape), np.dtype(spec.dtype))
    (result,) = graph.run(traced.jaxpr, traced.consts, [given])
    graph.add("Identity", [graph.whole(result)], result.shape, result.dtype, name=output)
    tensor = lambda name, value: helper.make_tensor_value_info(
        name,
        helper.np_dtype_to_tensor_dtype(value.dtype),
        [side if isinstance(side, int) else "batch" for side in value.shape],
    )
    body = helper.make_graph(
        graph.nodes, "lsanet", [tensor(name, given)], [tensor(output, result)], graph.constants
    )
    model = helper.make_model(
        body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="lsanet_jax"
    )
    model.ir_version = 9  # of opset 18 or later, and read by every onnxruntime since 1.16
    onnx.checker.check_model(model)
    return model


def _onnx() -> Any:
    """The package, which is an extra."""
    return importlib.import_module("onnx")


class _Graph:
    """Nodes and constants so far."""

    def __init__(self, given: str):
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._given, self._count, self._batch = given, 0, ""

    def run(self, jaxpr, consts: Sequence, arguments: Sequence[Value]) -> list[Value]:
        """Write a jaxpr; returns its results."""
        known = dict(zip(jaxpr.constvars, map(constant, consts), strict=True))
        known |= dict(zip(jaxpr.invars, arguments, strict=True))
        read = lambda atom: constant(atom.val) if hasattr(atom, "val") else known[atom]
        for equation in jaxpr.eqns:
            values = [read(atom) for atom in equation.invars]
            results = self._equation(equation, values)
            known |= dict(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation, values: list[Value]) -> list[Value]:
        name, parameters = equation.primitive.name, equation.params
        for key in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
            if key in parameters:  # jit, custom derivatives, remat
                inner = parameters[key]
                jaxpr, consts = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
                return self.run(jaxpr, consts, values)
        out = equation.outvars[0].aval
        if name == "broadcast_in_dim":
            return [self._broadcast(values[0], out.shape, parameters["broadcast_dimensions"])]
        if all(value.constant is not None for value in values) and _fixed(out.shape):
            return self._fold(equation, values)
        if name not in _WRITERS:
            raise ConfigError(
                f"--format=onnx: the network uses {name}, which is not written; export it with "
                "--format=stablehlo"
            )
        return [_WRITERS[name](self, values, out, parameters)]

    def _fold(self, equation, values: list[Value]) -> list[Value]:
        arrays = [np.broadcast_to(np.asarray(value.constant), value.shape) for value in values]
        parameters = equation.primitive.get_bind_params(equation.params)
        with jax.ensure_compile_time_eval():
            found = equation.primitive.bind(*arrays, **parameters)
        found = found if equation.primitive.multiple_results else [found]
        return [constant(each) for each in found]

    def _broadcast(self, value: Value, shape: tuple, dimensions: tuple[int, ...]) -> Value:
        stored = [1] * len(shape)
        for i, at in enumerate(dimensions):
            stored[at] = value.stored[i]
        if value.constant is not None:
            array = value.constant.reshape(stored)
            return Value("", array, tuple(shape), tuple(stored), value.dtype)
        if tuple(stored) != value.stored:
            value = self.reshape(value, tuple(stored))
        return value._replace(shape=tuple(shape), stored=tuple(stored))

    # ------------------------------------------------------------------------------ nodes

    def add(self, kind: str, inputs: Sequence[Value], shape, dtype, *, name="", **attributes):
        """Add a node with one result, whole unless its shape says otherwise."""
        self._count += 1
        name = name or f"{kind.lower()}_{self._count}"
        names = [self.name_of(value) for value in inputs]
        self.nodes.append(
            _onnx().helper.make_node(kind, names, [name], name=f"n_{name}", **attributes)
        )
        return Value(name, None, tuple(shape), tuple(shape), np.dtype(dtype))

    def name_of(self, value: Value) -> str:
        """The tensor's name; a constant gets one."""
        if value.constant is None:
            return value.name
        self._count += 1
        name = f"c_{self._count}"
        array = np.ascontiguousarray(value.constant)
        self.constants.append(_onnx().numpy_helper.from_array(array, name))
        return name

    def whole(self, value: Value) -> Value:
        """The value with every dimension broadcast."""
        if value.stored == value.shape:
            return value
        inputs = [value, self._shape(value.shape)]
        return self.add("Expand", inputs, value.shape, value.dtype)

    def reshape(self, value: Value, shape: tuple) -> Value:
        """Reshape what is stored; at most one dimension is symbolic."""
        sides = np.array([side if isinstance(side, int) else -1 for side in shape], np.int64)
        return self.add("Reshape", [value, constant(sides)], shape, value.dtype)

    def _shape(self, shape: tuple) -> Value:
        if _fixed(shape):
            return constant(np.array(shape, np.int64))
        if not self._batch:
            given = Value(self._given, None, (), (), np.dtype(np.int64))
            self._batch = self.add("Shape", [given], (1,), np.int64, start=0, end=1).name
        batch = Value(self._batch, None, (1,), (1,), np.dtype(np.int64))
        sides = [
            constant(np.array([side], np.int64)) if isinstance(side, int) else batch
            for side in shape
        ]
        return self.add("Concat", sides, (len(shape),), np.int64, axis=0)

    def elementwise(self, kind: str, values: Sequence[Value], out) -> Value:
        """Add a node that broadcasts its inputs."""
        stored = list(out.shape)
        for i in range(len(stored)):
            if all(value.stored[i] == 1 for value in values if value.shape):
                stored[i] = 1
        return self.add(kind, values, out.shape, out.dtype)._replace(stored=tuple(stored))


def constant(array) -> Value:
    """A constant as a value."""
    array = np.asarray(array)
    return Value("", array, array.shape, array.shape, array.dtype)


def _fixed(shape) -> bool:
    return all(isinstance(side, int) for side in shape)


# -------------------------------------------------------------------------- primitives as nodes


def _elementwise(kind: str):
    return lambda graph, values, out, parameters: graph.elementwise(kind, values, out)


def _scalar(value: float, dtype) -> Value:
    return constant(np.array(value, dtype))


def _rsqrt(graph: _Graph, values, out, parameters) -> Value:
    return graph.elementwise("Reciprocal", [graph.elementwise("Sqrt", values, out)], out)


def _square(graph: _Graph, values, out, parameters) -> Value:
    return graph.elementwise("Mul", [values[0], values[0]], out)


def _integer_pow(graph: _Graph, values, out, parameters) -> Value:
    return graph.elementwise("Pow", [values[0], _scalar(parameters["y"], out.dtype)], out)


def _not_equal(graph: _Graph, values, out, parameters) -> Value:
    return graph.elementwise("Not", [graph.elementwise("Equal", values, out)], out)


def _select(graph: _Graph, values, out, parameters) -> Value:
    return graph.elementwise("Where", [values[0], values[2], values[1]], out)


def _clamp(graph: _Graph, values, out, parameters) -> Value:
    low, x, high = values
    return graph.elementwise("Min", [graph.elementwise("Max", [x, low], out), high], out)


def _shift_right(graph: _Graph, values, out, parameters) -> Value:
    """Arithmetic shift: division by a power of 2, rounded down."""
    x, shift = values
    if shift.constant is None:
        raise ConfigError("--format=onnx: a shift by a computed number is not written")
    divisor = constant(np.left_shift(np.array(1, x.dtype), shift.constant.astype(x.dtype)))
    rest = graph.elementwise("Mod", [x, divisor], out)
    return graph.elementwise("Div", [graph.elementwise("Sub", [x, rest], out), divisor], out)


def _convert(graph: _Graph, values, out, parameters) -> Value:
    (x,) = values
    kind = _onnx().helper.np_dtype_to_tensor_dtype(np.dtype(out.dtype))
    return graph.add("Cast", [x], x.shape, out.dtype, to=kind)._replace(stored=x.stored)


def _same(graph: _Graph, values, out, parameters) -> Value:
    return values[0]


def _reshape(graph: _Graph, values, out, parameters) -> Value:
    return graph.reshape(graph.whole(values[0]), tuple(out.shape))


def _transpose(graph: _Graph, values, out, parameters) -> Value:
    order = list(parameters["permutation"])
    return graph.add("Transpose", [graph.whole(values[0])], out.shape, out.dtype, perm=order)


def _reduce(kind: str):
    def written(graph: _Graph, values, out, parameters) -> Value:
        axes = constant(np.array(parameters["axes"], np.int64))
        return graph.add(kind, [graph.whole(values[0]), axes], out.shape, out.dtype, keepdims=0)

    return written


def _slice(graph: _Graph, values, out, parameters) -> Value:
    (x,) = values
    cut = [
        (axis, low, high, step)
        for axis, (low, high, step) in enumerate(
            zip(
                parameters["start_indices"],
                parameters["limit_indices"],
                parameters["strides"] or (1,) * len(x.shape),
                strict=True,
            )
        )
        if (low, high, step) != (0, x.shape[axis], 1)
    ]
    if not cut:
        return x
    axes, low, high, step = (constant(np.array(each, np.int64)) for each in zip(*cut, strict=True))
    return graph.add("Slice", [graph.whole(x), low, high, axes, step], out.shape, out.dtype)


def _window_of(starts: np.ndarray, sizes: Sequence, shape: Sequence) -> dict[str, Any]:
    """The parameters of the slice that has these sizes; whole dimensions may be symbolic."""
    ends = [
        side if size == side else int(start) + size
        for start, size, side in zip(starts, sizes, shape, strict=True)
    ]
    return {"start_indices": starts.tolist(), "limit_indices": ends, "strides": None}


def _pad(graph: _Graph, values, out, parameters) -> Value:
    x, filling = values
    config = parameters["padding_config"]
    if any(inside for _, _, inside in config) or filling.constant is None:
        raise ConfigError("--format=onnx: padding between elements is not written")
    # A negative padding cuts off, in ONNX too.
    pads = constant(np.array([*(low for low, _, _ in config), *(high for _, high, _ in config)]))
    return graph.add("Pad", [graph.whole(x), pads, filling], out.shape, out.dtype)


def _concatenate(graph: _Graph, values, out, parameters) -> Value:
    parts = [graph.whole(value) for value in values]
    return graph.add("Concat", parts, out.shape, out.dtype, axis=parameters["dimension"])


def _gather(graph: _Graph, values, out, parameters) -> Value:
    """Constant positions along an axis, as of `jnp.take`, or one constant window, as of x[:, i]."""
    x, indices = values
    numbers, sizes = parameters["dimension_numbers"], parameters["slice_sizes"]
    axes = numbers.start_index_map
    if indices.constant is not None and len(indices.shape) == 1:
        starts = np.zeros(len(x.shape), np.int64)
        starts[list(axes)] = np.broadcast_to(indices.constant, indices.shape)
        cut = _window_of(starts, sizes, x.shape)
        window = _slice(graph, [x], jax.ShapeDtypeStruct(sizes, x.dtype), cut)
        return graph.reshape(graph.whole(window), tuple(out.shape))
    taken = [i for i in range(len(x.shape)) if sizes[i] != x.shape[i]] or list(axes)
    simple = len(axes) == 1 and numbers.collapsed_slice_dims == axes and taken == list(axes)
    others = tuple(i for i in range(len(out.shape)) if i != axes[0])
    if indices.constant is None or not simple or numbers.offset_dims != others:
        raise ConfigError("--format=onnx: taking elements at computed positions is not written")
    positions = constant(np.asarray(indices.constant)[..., 0].astype(np.int64))
    return graph.add("Gather", [graph.whole(x), positions], out.shape, out.dtype, axis=axes[0])


def _dot(graph: _Graph, values, out, parameters) -> Value:
    (of_x, of_y), (batch_x, batch_y) = parameters["dimension_numbers"]
    x, y = map(graph.whole, values)
    letters = iter("abcdefghijklmnop")
    names = [[""] * len(x.shape), [""] * len(y.shape)]
    for i, j in (*zip(batch_x, batch_y, strict=True), *zip(of_x, of_y, strict=True)):
        names[0][i] = names[1][j] = next(letters)
    names = [[name or next(letters) for name in each] for each in names]
    free = [[n for i, n in enumerate(names[0]) if i not in (*of_x, *batch_x)]]
    free += [[n for i, n in enumerate(names[1]) if i not in (*of_y, *batch_y)]]
    result = [names[0][i] for i in batch_x] + free[0] + free[1]
    equation = f"{''.join(names[0])},{''.join(names[1])}->{''.join(result)}"
    return graph.add("Einsum", [x, y], out.shape, out.dtype, equation=equation)


def _convolution(graph: _Graph, values, out, parameters) -> Value:
    x, kernel = map(graph.whole, values)
    numbers, pads = parameters["dimension_numbers"], parameters["padding"]
    if kernel.constant is None or set(parameters["lhs_dilation"]) != {1}:
        raise ConfigError("--format=onnx: a transposed convolution is not written")
    turned = [x.shape[i] for i in numbers.lhs_spec]
    x = graph.add("Transpose", [x], turned, x.dtype, perm=list(numbers.lhs_spec))
    kernel = constant(kernel.constant.transpose(numbers.rhs_spec))
    y = graph.add(
        "Conv",
        [x, kernel],
        [out.shape[i] for i in numbers.out_spec],
        out.dtype,
        strides=list(parameters["window_strides"]),
        pads=[low for low, _ in pads] + [high for _, high in pads],
        dilations=list(parameters["rhs_dilation"]),
        group=parameters["feature_group_count"],
    )
    back = [int(i) for i in np.argsort(numbers.out_spec)]
    return graph.add("Transpose", [y], out.shape, out.dtype, perm=back)


def _window(kind: str):
    """Pooling, in ONNX over the last dimensions; a sum is a mean times the size."""

    def written(graph: _Graph, values, out, parameters) -> Value:
        x, window = graph.whole(values[0]), parameters["window_dimensions"]
        if len(window) != 4 or (window[0], window[3]) != (1, 1):
            raise ConfigError(f"--format=onnx: {kind} over other than height and width")
        turned, pads = [x.shape[i] for i in (0, 3, 1, 2)], parameters["padding"][1:3]
        x = graph.add("Transpose", [x], turned, x.dtype, perm=[0, 3, 1, 2])
        options: dict[str, Any] = {"count_include_pad": 1} if kind == "AveragePool" else {}
        y = graph.add(
            kind,
            [x],
            [out.shape[i] for i in (0, 3, 1, 2)],
            out.dtype,
            kernel_shape=list(window[1:3]),
            strides=list(parameters["window_strides"][1:3]),
            pads=[low for low, _ in pads] + [high for _, high in pads],
            **options,
        )
        y = graph.add("Transpose", [y], out.shape, out.dtype, perm=[0, 2, 3, 1])
        size = _scalar(math.prod(window), out.dtype)
        return graph.elementwise("Mul", [y, size], out) if options else y

    return written


_WRITERS: dict[str, Callable[..., Value]] = {
    **{
        name: _elementwise(kind)
        for name, kind in {
            "abs": "Abs",
            "add": "Add",
            "add_any": "Add",
            "and": "And",
            "ceil": "Ceil",
            "div": "Div",
            "eq": "Equal",
            "erf": "Erf",
            "exp": "Exp",
            "floor": "Floor",
            "ge": "GreaterOrEqual",
            "gt": "Greater",
            "le": "LessOrEqual",
            "log": "Log",
            "logistic": "Sigmoid",
            "lt": "Less",
            "max": "Max",
            "min": "Min",
            "mul": "Mul",
            "neg": "Neg",
            "not": "Not",
            "or": "Or",
            "pow": "Pow",
            "sign": "Sign",
            "sqrt": "Sqrt",
            "sub": "Sub",
            "tanh": "Tanh",
        }.items()
    },
    "clamp": _clamp,
    "concatenate": _concatenate,
    "conv_general_dilated": _convolution,
    "convert_element_type": _convert,
    "copy": _same,
    "dot_general": _dot,
    "expand_dims": _reshape,
    "gather": _gather,
    "integer_pow": _integer_pow,
    "ne": _not_equal,
    "pad": _pad,
    "reduce_max": _reduce("ReduceMax"),
    "reduce_min": _reduce("ReduceMin"),
    "reduce_sum": _reduce("ReduceSum"),
    "reduce_window_max": _window("MaxPool"),
    "reduce_window_sum": _window("AveragePool"),
    "reshape": _reshape,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "shift_right_arithmetic": _shift_right,
    "slice": _slice,
    "square": _square,
    "squeeze": _reshape,
    "stop_gradient": _same,
    "transpose": _transpose,
}
