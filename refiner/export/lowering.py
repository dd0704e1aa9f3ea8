"""A PyTorch module as operators of a TFLite graph: builtin ones alone, and of these the ones that GPU delegates have too.

`torch.export` says what a module computes; each of its operations is written down here in TFLite's. One that is missing is
named in the error: networks are few, and what they need is added when they need it. Shapes are fixed.
"""

import operator
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from refiner.export.graph import Graph, Value

aten = torch.ops.aten
Shape = Sequence[int]
_EVERYTHING = 1 << 31  # PyTorch's "to the end" is larger


def append(graph: Graph, module: nn.Module, inputs: Sequence[Value]) -> list[Value]:
    """Appends what a module computes to a graph.

    Args:
        graph: to append to.
        module: in evaluation mode, its weights fp32 on the CPU.
        inputs: of `forward`, in order.

    Returns:
        Its outputs; an operation that no output needs is left out.

    Raises:
        NotImplementedError: it does something that has no form in TFLite here.
    """
    example = tuple(torch.rand(value.shape) for value in inputs)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's exporter warns of what its own next version changes
        traced = torch.export.export(module, example, strict=False).run_decompositions({}).module()
    traced.graph.eliminate_dead_code()
    answer = _Lowering(traced, graph).run(*inputs)
    return list(answer) if isinstance(answer, tuple | list) else [answer]


class _Lowering(Interpreter):
    """Runs a traced module: what hangs on no input is computed by PyTorch, the rest becomes operators."""

    def __init__(self, module: Any, graph: Graph) -> None:
        super().__init__(module)
        self._graph = graph
        self._node: Node | None = None

    def run_node(self, n: Node) -> Any:
        self._node = n
        return super().run_node(n)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        return None  # the guards that torch.export puts before a module, on the shapes of its inputs

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if not any(isinstance(leaf, Value) for leaf in _leaves((*args, *kwargs.values()))):
            return super().call_function(target, args, kwargs)
        if target not in _OPERATIONS:
            raise NotImplementedError(f"{target} has no form in TFLite here: add it to refiner.export.lowering")
        assert self._node is not None
        return _OPERATIONS[target](_Context(self._graph, self._node), *args, **kwargs)


def _leaves(values: Any) -> list[Any]:
    if isinstance(values, tuple | list):
        return [leaf for value in values for leaf in _leaves(value)]
    return [values]


class _Context:
    """The graph, and what torch.export knows of the operation at hand."""

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph, self.node = graph, node

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the operation's one result."""
        return tuple(int(size) for size in self.node.meta["val"].shape)

    def value(self, x: Any) -> Value:
        """A value of the graph; tensors and numbers become constants."""
        if isinstance(x, Value):
            return x
        array = x.detach().numpy() if isinstance(x, Tensor) else np.array([x], dtype=np.float32)
        return self.graph.constant(array.astype(np.float32))

    def op(self, kind: str, inputs: Sequence[Any], shape: Shape, options: str = "", /, **fields: Any) -> Value:
        chosen = (options, fields) if options else None
        return self.graph.append(kind, [self.value(x) for x in inputs], shape, chosen)

    def binary(self, kind: str, a: Any, b: Any) -> Value:
        a, b = self.value(a), self.value(b)
        return self.op(kind, (a, b), np.broadcast_shapes(a.shape, b.shape), _BINARY[kind])

    def numbers(self, *values: int) -> Value:
        return self.graph.constant(np.array(values, dtype=np.int32))

    def reshape(self, x: Value, shape: Shape) -> Value:
        shape = tuple(shape)
        if shape == x.shape:
            return x
        return self.op("RESHAPE", (x, self.numbers(*shape)), shape, "ReshapeOptions", newShape=list(shape))

    def slice(self, x: Value, dim: int, start: int, length: int) -> Value:
        dim %= len(x.shape)
        if length == x.shape[dim]:
            return x
        begin, size = [0] * len(x.shape), list(x.shape)
        begin[dim], size[dim] = start, length
        return self.op("SLICE", (x, self.numbers(*begin), self.numbers(*size)), size, "SliceOptions")

    def cat(self, parts: Sequence[Any], dim: int) -> Value:
        values = [self.value(part) for part in parts]
        if len(values) == 1:
            return values[0]
        shape, dim = list(values[0].shape), dim % len(values[0].shape)
        shape[dim] = sum(value.shape[dim] for value in values)
        return self.op("CONCATENATION", values, shape, "ConcatenationOptions", axis=dim)

    def reduce(self, kind: str, x: Value, dims: Any, keep: bool) -> Value:
        dims = [d % len(x.shape) for d in ([dims] if isinstance(dims, int) else dims or range(len(x.shape)))]
        kept = [1 if d in dims else size for d, size in enumerate(x.shape)]
        shape = kept if keep else [size for d, size in enumerate(x.shape) if d not in dims]
        return self.op(kind, (x, self.numbers(*dims)), shape, "ReducerOptions", keepDims=keep)

    def permute(self, x: Value, order: Shape) -> Value:
        order = [d % len(x.shape) for d in order]
        return self.op("TRANSPOSE", (x, self.numbers(*order)), [x.shape[d] for d in order], "TransposeOptions")


_BINARY = {
    "ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions", "DIV": "DivOptions",
    "MAXIMUM": "MaximumMinimumOptions", "MINIMUM": "MaximumMinimumOptions",
    "SQUARED_DIFFERENCE": "SquaredDifferenceOptions",
}  # fmt: skip


def _elementwise(kind: str) -> Callable[..., Value]:
    def lowered(c: _Context, a: Any, b: Any, *, alpha: float = 1) -> Value:
        return c.binary(kind, a, b if alpha == 1 else c.binary("MUL", b, alpha))

    return lowered


def _unary(kind: str, options: str = "") -> Callable[..., Value]:
    def lowered(c: _Context, x: Value) -> Value:
        return c.op(kind, (x,), x.shape, options)

    return lowered


def _reduced(kind: str) -> Callable[..., Value]:
    def lowered(c: _Context, x: Value, dims: Any = None, keep: bool = False, *, dtype: Any = None) -> Value:
        return c.reduce(kind, x, dims, keep)

    return lowered


def _same(c: _Context, x: Value, *_: Any, **__: Any) -> Value:
    return x


def _reshaped(c: _Context, x: Value, *_: Any, **__: Any) -> Value:
    return c.reshape(x, c.shape)


def _expanded(c: _Context, x: Value, *_: Any, **__: Any) -> Value:
    x = c.reshape(x, (1,) * (len(c.shape) - len(x.shape)) + x.shape)
    if x.shape == c.shape or all(user.target in _BROADCASTING for user in c.node.users):
        return x  # whoever reads it broadcasts by itself
    return c.binary("MUL", x, torch.ones(c.shape))


def _clamped(c: _Context, x: Value, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Value:
    for kind, limit in (("MAXIMUM", min if low is None else low), ("MINIMUM", max if high is None else high)):
        x = x if limit is None else c.binary(kind, x, limit)
    return x


def _sliced(c: _Context, x: Value, dim: int = 0, start: Any = None, end: Any = None, step: int = 1) -> Value:
    if step != 1:
        raise NotImplementedError("slices with steps have no form here: add it to refiner.export.lowering")
    size = x.shape[dim]
    first = (start or 0) + size * ((start or 0) < 0)
    last = size if end is None or end > _EVERYTHING else end + size * (end < 0)
    return c.slice(x, dim, first, min(last, size) - first)


def _selected(c: _Context, x: Value, dim: int, index: int) -> Value:
    return c.reshape(c.slice(x, dim, index % x.shape[dim], 1), c.shape)


def _split(c: _Context, x: Value, sizes: Any, dim: int = 0) -> list[Value]:
    whole = x.shape[dim]
    if isinstance(sizes, int):
        sizes = [min(sizes, whole - start) for start in range(0, whole, sizes)]
    starts = np.cumsum([0, *sizes]).tolist()
    return [c.slice(x, dim, start, size) for start, size in zip(starts, sizes, strict=False)]


def _unbound(c: _Context, x: Value, dim: int = 0) -> list[Value]:
    shape = [size for d, size in enumerate(x.shape) if d != dim % len(x.shape)]
    return [c.reshape(c.slice(x, dim, i, 1), shape) for i in range(x.shape[dim])]


def _stacked(c: _Context, parts: Sequence[Any], dim: int = 0) -> Value:
    dim %= len(c.shape)
    whole = [size if d != dim else 1 for d, size in enumerate(c.shape)]
    return c.cat([c.reshape(c.value(part), whole) for part in parts], dim)


def _flipped(c: _Context, x: Value, dims: Shape) -> Value:
    for dim in dims:
        x = c.cat([c.slice(x, dim, i, 1) for i in reversed(range(x.shape[dim]))], dim)
    return x


def _transposed(c: _Context, x: Value, a: int, b: int) -> Value:
    order = list(range(len(x.shape)))
    order[a], order[b] = order[b], order[a]
    return c.permute(x, order)


def _linear(c: _Context, x: Value, weight: Tensor, bias: Tensor | None = None) -> Value:
    inputs = (x, weight) if bias is None else (x, weight, bias)
    shape = (*x.shape[:-1], weight.shape[0])
    return c.op("FULLY_CONNECTED", inputs, shape, "FullyConnectedOptions", keepNumDims=len(shape) > 2)


def _product(c: _Context, a: Any, b: Any) -> Value:
    return c.op("BATCH_MATMUL", (a, b), c.shape, "BatchMatMulOptions")


def _normalised(c: _Context, x: Value, shape: Shape, weight: Tensor, bias: Tensor, eps: float = 1e-5, *_: Any) -> Value:
    dims = list(range(-len(shape), 0))
    mean = c.reduce("MEAN", x, dims, True)
    variance = c.reduce("MEAN", c.binary("SQUARED_DIFFERENCE", x, mean), dims, True)
    scale = c.op("RSQRT", (c.binary("ADD", variance, eps),), variance.shape)
    return c.binary("ADD", c.binary("MUL", c.binary("MUL", c.binary("SUB", x, mean), scale), weight), bias)


def _gelu(c: _Context, x: Value, *, approximate: str = "none") -> Value:
    return c.op("GELU", (x,), x.shape, "GeluOptions", approximate=approximate == "tanh")


def _length(
    c: _Context, x: Value, order: float = 2, dims: Any = None, keep: bool = False, *, dtype: Any = None
) -> Value:
    if order != 2:
        raise NotImplementedError("only Euclidean lengths have a form here: add others to refiner.export.lowering")
    squares = c.reduce("SUM", c.binary("MUL", x, x), dims, keep)
    return c.op("SQRT", (squares,), squares.shape)


def _softmax(c: _Context, x: Value, dim: int, *_: Any) -> Value:
    if dim % len(x.shape) != len(x.shape) - 1:
        raise NotImplementedError("a softmax is over the last axis here: add others to refiner.export.lowering")
    return c.op("SOFTMAX", (x,), x.shape, "SoftmaxOptions", beta=1.0)


def _attention(c: _Context, q: Value, k: Value, v: Value, *_: Any, **__: Any) -> Value:
    """softmax(q kᵀ / √d) v, (B, H, T, d) each."""
    scores = (*q.shape[:-1], k.shape[-2])
    keys = c.binary("MUL", k, q.shape[-1] ** -0.5)
    seen = c.op("BATCH_MATMUL", (q, keys), scores, "BatchMatMulOptions", adjY=True)
    return c.op("BATCH_MATMUL", (_softmax(c, seen, -1), v), c.shape, "BatchMatMulOptions")


_OPERATIONS: Mapping[Any, Callable[..., Any]] = {
    aten.add.Tensor: _elementwise("ADD"), aten.sub.Tensor: _elementwise("SUB"),
    aten.mul.Tensor: _elementwise("MUL"), aten.div.Tensor: _elementwise("DIV"),
    aten.rsub.Scalar: lambda c, a, b: c.binary("SUB", b, a),
    aten.neg.default: _unary("NEG", "NegOptions"), aten.sigmoid.default: _unary("LOGISTIC"),
    aten.floor.default: _unary("FLOOR"), aten.relu.default: _unary("RELU"), aten.abs.default: _unary("ABS", "AbsOptions"),
    aten.exp.default: _unary("EXP", "ExpOptions"), aten.sqrt.default: _unary("SQRT"),
    aten.clamp.default: _clamped, aten.clamp_min.default: _clamped,
    aten.clamp_max.default: lambda c, x, high: _clamped(c, x, high=high),
    aten.amin.default: _reduced("REDUCE_MIN"), aten.amax.default: _reduced("REDUCE_MAX"),
    aten.sum.dim_IntList: _reduced("SUM"), aten.mean.dim: _reduced("MEAN"),
    aten.linalg_vector_norm.default: _length,
    aten.view.default: _reshaped, aten.reshape.default: _reshaped, aten._unsafe_view.default: _reshaped,
    aten.unflatten.int: _reshaped, aten.flatten.using_ints: _reshaped,
    aten.unsqueeze.default: _reshaped, aten.squeeze.dim: _reshaped, aten.squeeze.dims: _reshaped,
    aten.expand.default: _expanded, aten.expand_as.default: _expanded,
    aten.slice.Tensor: _sliced, aten.select.int: _selected,
    aten.split_with_sizes.default: _split, aten.split.Tensor: _split, aten.unbind.int: _unbound,
    aten.cat.default: lambda c, parts, dim=0: c.cat(parts, dim), aten.stack.default: _stacked,
    aten.flip.default: _flipped, aten.transpose.int: _transposed,
    aten.permute.default: lambda c, x, order: c.permute(x, order),
    aten.linear.default: _linear, aten.matmul.default: _product, aten.bmm.default: _product,
    aten.layer_norm.default: _normalised, aten.gelu.default: _gelu,
    aten.softmax.int: _softmax, aten._softmax.default: _softmax,
    aten.scaled_dot_product_attention.default: _attention,
    aten.dropout.default: _same, aten.clone.default: _same, aten.contiguous.default: _same,
    aten._to_copy.default: _same, aten.to.dtype: _same, aten.detach.default: _same, aten.alias.default: _same,
    aten.lift_fresh_copy.default: _same, aten._assert_tensor_metadata.default: _same,
    operator.getitem: lambda c, parts, index: parts[index],
}  # fmt: skip
_BROADCASTING = {
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor,
}  # fmt: skip
