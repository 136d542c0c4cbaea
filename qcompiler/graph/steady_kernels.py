"""Lets onnxruntime give a float graph the same bits on every x86 CPU with AVX2, with AVX-512 or without.

Its kernels are chosen by the CPU. As its sources say (MLAS: `platform.cpp`, `sgemm.cpp`, `convolve.cpp`, `snchwc.cpp`
and the kernels in `lib/x86_64`), elementwise kernels, `sgemm`, `dgemm` and the convolutions made of them give one
result by one chain of fused multiply-adds in one order, whatever the width of the registers. Three kinds do not, and
are written here in operators that do:

* ``Softmax`` and ``LogSoftmax`` add 8 or 16 lanes; ``Gelu`` is another polynomial on AVX-512. Each becomes the
  elementwise operators that define it: their ``Exp``, ``Erf`` and ``Tanh`` agree, and ``ReduceSum`` is compiled once.
* In the blocked layout NCHWc a convolution adds the channels of a block, 8 or 16 of them, before it adds blocks. It
  stays in that layout where every size of a block gives the same order: depthwise, ``1 x 1``, and from fewer than 8
  channels. The others get a bias that onnxruntime does not take for a constant, and so keep their layout.
* Pools enter that layout by the number of channels, and what is added behind them is then fused, or not. They read
  through a reshape whose result has no known number of channels.

CPUs without fused multiply-adds round twice where others round once: their bits differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

__all__ = ["FUSIONS_BY_CPU", "make_steady"]

FUSIONS_BY_CPU = ("GeluFusionL1", "GeluFusionL2", "QuickGeluFusion")
"""onnxruntime's transformers whose kernels differ by CPU."""

FEWEST, BLOCK = 8, 16
"""Smallest and largest block of NCHWc: fewer channels than the first are never blocked, multiples of the second
always.
"""

_ZERO, _SAME_SHAPE = "steady//zero", "steady//same_shape"

_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "LpPool"})
_KEEPS_SHAPE = frozenset({"QuantizeLinear", "DequantizeLinear", "Identity", "Cast"})

Nodes = list[onnx.NodeProto]
Shape = tuple[int, ...]


def make_steady(model: onnx.ModelProto) -> None:
    """Rewrite the model in place; names of tensors stay. Softmax means what it has meant since operator set 13."""
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    if opset >= 13:
        _Rewriter(opset).rewrite(model.graph, {})


@dataclass
class _Rewriter:
    opset: int
    used: set[str] = field(default_factory=set)
    ranks: dict[str, int] = field(default_factory=dict)
    count: int = 0

    def rewrite(self, graph: onnx.GraphProto, outer: Mapping[str, Shape]) -> None:
        """Rewrite a graph; ``outer``: shapes of constants that it sees from outside."""
        typed = (value for value in (*graph.input, *graph.value_info) if value.type.tensor_type.HasField("shape"))
        self.ranks.update((value.name, len(value.type.tensor_type.shape.dim)) for value in typed)
        shapes = {**outer, **_constant_shapes(graph)}
        channels_meet = any(node.op_type == "Concat" and _attribute(node, "axis", 0) in (1, -3) for node in graph.node)
        nodes = [new for node in graph.node for new in self._replaced(node, shapes, channels_meet)]
        del graph.node[:]
        graph.node.extend(nodes)
        if not outer:
            self._declare(graph)

    def _replaced(self, node: onnx.NodeProto, shapes: Mapping[str, Shape], channels_meet: bool) -> Nodes:
        for inner in (attribute.g for attribute in node.attribute if attribute.type == onnx.AttributeProto.GRAPH):
            self.rewrite(inner, shapes or {"": ()})
        if node.domain not in ("", "ai.onnx"):
            return [node]
        if node.op_type in _DEFINITIONS:
            return list(_DEFINITIONS[node.op_type](_Site(node, self.opset, self._prefix())))
        if node.op_type in _POOLS:
            return self._pool(node)
        if node.op_type == "Conv" and not keeps_order(node, shapes.get(node.input[1]), channels_meet=channels_meet):
            return self._plain_layout(node, shapes)
        return [node]

    def _pool(self, node: onnx.NodeProto) -> Nodes:
        if self._rank(node) != 4:
            return [node]  # only pictures enter that layout
        self.used.add(_SAME_SHAPE)
        hidden = f"{self._prefix()}x"
        reshape = helper.make_node("Reshape", [node.input[0], _SAME_SHAPE], [hidden])
        node.input[0] = hidden
        return [reshape, node]

    def _rank(self, node: onnx.NodeProto) -> int | None:
        """Number of dimensions of what a pool reads, None where it is unknown."""
        kernel = next((attribute.ints for attribute in node.attribute if attribute.name == "kernel_shape"), None)
        return self.ranks.get(node.input[0]) if kernel is None else len(kernel) + 2

    def _plain_layout(self, node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> Nodes:
        shape = shapes.get(node.input[1], ())
        has_bias = len(node.input) > 2 and bool(node.input[2])
        if not has_bias and len(shape) != 4:
            return [node]  # weights that are no constant are never blocked
        self.used.add(_ZERO)
        bias = f"{self._prefix()}bias"
        if has_bias:
            made = [helper.make_node("Add", [node.input[2], _ZERO], [bias])]
        else:
            count = helper.make_node("Constant", [], [f"{bias}//size"], value_ints=[shape[0]])
            made = [count, helper.make_node("Expand", [_ZERO, f"{bias}//size"], [bias])]
        inputs = [*node.input[:2], bias]
        del node.input[:]
        node.input.extend(inputs)
        return [*made, node]

    def _prefix(self) -> str:
        self.count += 1
        return f"steady//{self.count}//"

    def _declare(self, graph: onnx.GraphProto) -> None:
        """What is used, as inputs with a value: for onnxruntime they are no constants."""
        for name, value in ((_ZERO, np.zeros(1, np.float32)), (_SAME_SHAPE, np.array([0, 0, 0, -1], np.int64))):
            if name in self.used:
                graph.initializer.append(numpy_helper.from_array(value, name))
                graph.input.append(
                    helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                )


def keeps_order(node: onnx.NodeProto, weight: Shape | None, *, channels_meet: bool) -> bool:
    """Whether onnxruntime's Conv adds in one order whichever block size (8, 16 or none) its kernels take.

    Args:
        node: the Conv.
        weight: shape of its weight; None where it is no constant.
        channels_meet: a Concat joins channels somewhere, and its layout, too, depends on what divides their numbers.
    """
    if weight is None or len(weight) != 4:
        return weight is not None  # only two-dimensional ones are ever blocked
    outputs, inputs, *kernel = weight
    groups = _attribute(node, "group", 1)
    if channels_meet and outputs % BLOCK:
        return False
    if groups > 1:
        return inputs == 1 and outputs == groups and outputs % BLOCK == 0
    pointwise = (
        kernel == [1, 1]
        and not any(_attribute(node, "pads", []))
        and _attribute(node, "auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    )
    return inputs < FEWEST or (pointwise and inputs % BLOCK == 0)


def _constant_shapes(graph: onnx.GraphProto) -> dict[str, Shape]:
    """Shapes of initializers, and of what keeps their shape."""
    given = {value.name for value in graph.input}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer if tensor.name not in given}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            shapes[node.output[0]] = tuple(node.attribute[0].t.dims)
        elif node.op_type in _KEEPS_SHAPE and node.input[0] in shapes:
            shapes[node.output[0]] = shapes[node.input[0]]
    return shapes


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    return next(
        (helper.get_attribute_value(attribute) for attribute in node.attribute if attribute.name == name), default
    )


@dataclass(frozen=True)
class _Site:
    """A node that is to be written in others."""

    node: onnx.NodeProto
    opset: int
    prefix: str

    def make(self, kind: str, inputs: list[str], result: str, **attributes: Any) -> onnx.NodeProto:
        """A node whose tensors with names of one letter are the site's own; ``y`` is its result."""
        place = {"x": self.node.input[0], "y": self.node.output[0]}
        names = [place.get(name, f"{self.prefix}{name}") for name in (*inputs, result)]
        return helper.make_node(kind, names[:-1], names[-1:], **attributes)

    def numbers(self, **values: float) -> Iterator[onnx.NodeProto]:
        """Scalars of the type of ``x``."""
        for name, value in values.items():
            yield self.make("Constant", [], f"{name}32", value_float=value)
            yield self.make("CastLike", [f"{name}32", "x"], name)

    def reduced(self, kind: str, source: str, result: str) -> Iterator[onnx.NodeProto]:
        """A reduction along the node's axis, which stays with size 1."""
        axis = int(_attribute(self.node, "axis", -1))
        if kind == "ReduceSum" or self.opset >= 18:
            yield self.make("Constant", [], f"axes of {result}", value_ints=[axis])
            yield self.make(kind, [source, f"axes of {result}"], result)
        else:
            yield self.make(kind, [source], result, axes=[axis])


def _shifted(site: _Site) -> Iterator[onnx.NodeProto]:
    """``d = x - max x``, ``e = exp d`` and ``s``, the sum of these."""
    yield from site.reduced("ReduceMax", "x", "m")
    yield site.make("Sub", ["x", "m"], "d")
    yield site.make("Exp", ["d"], "e")
    yield from site.reduced("ReduceSum", "e", "s")


def _softmax(site: _Site) -> Iterator[onnx.NodeProto]:
    yield from _shifted(site)
    yield site.make("Div", ["e", "s"], "y")


def _log_softmax(site: _Site) -> Iterator[onnx.NodeProto]:
    yield from _shifted(site)
    yield site.make("Log", ["s"], "l")
    yield site.make("Sub", ["d", "l"], "y")


def _gelu(site: _Site) -> Iterator[onnx.NodeProto]:
    """``x (1 + erf(x / sqrt 2)) / 2``, or the same with ``tanh(sqrt(2 / pi) (x + 0.044715 x^3))``."""
    yield from site.numbers(h=0.5, o=1.0, a=0.5**0.5, b=(2 / np.pi) ** 0.5, c=0.044715)
    if _attribute(site.node, "approximate", b"none") == b"tanh":
        yield site.make("Mul", ["x", "x"], "q")
        yield site.make("Mul", ["q", "c"], "r")
        yield site.make("Add", ["r", "o"], "s")
        yield site.make("Mul", ["x", "s"], "t")
        yield site.make("Mul", ["t", "b"], "u")
        yield site.make("Tanh", ["u"], "v")
    else:
        yield site.make("Mul", ["x", "a"], "u")
        yield site.make("Erf", ["u"], "v")
    yield site.make("Add", ["v", "o"], "w")
    yield site.make("Mul", ["x", "w"], "z")
    yield site.make("Mul", ["z", "h"], "y")


_DEFINITIONS: dict[str, Callable[[_Site], Iterator[onnx.NodeProto]]] = {
    "Softmax": _softmax,
    "LogSoftmax": _log_softmax,
    "Gelu": _gelu,
}
"""The operators, written in others."""
