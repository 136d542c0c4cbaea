"""Operators on codes (QLinearConv, QLinearAdd, …) as float ones between DequantizeLinear and QuantizeLinear.

Source: docs/Operators.md of ONNX, docs/ContribOperators.md of onnxruntime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompiler.graph.ir import Constant, Graph, Node, Tensor, Variable, constant_of, producer, replace_uses, unique_name

__all__ = ["STATIC", "Site", "given", "to_qdq"]


def given(node: Node, index: int) -> Tensor | None:
    """The input at a position; None where the node has none."""
    tensor = node.inputs[index] if index < len(node.inputs) else None
    return tensor if tensor is not None and tensor.name else None


@dataclass
class Site:
    """A graph under change."""

    graph: Graph
    taken: set[str]

    def constant(self, name: str, values: Any) -> Constant:
        """A constant with a free name."""
        array = np.asarray(values)
        return Constant(unique_name(self.taken, name), np.array(array, order="C"))

    def op(self, op: str, inputs: Sequence[Tensor], name: str, dtype: Any = np.float32, **attrs: Any) -> Variable:
        """The output of a new node."""
        output = Variable(unique_name(self.taken, name), dtype=np.dtype(dtype))
        self.graph.nodes.append(Node(op, unique_name(self.taken, f"{op}_{output.name}"), attrs, list(inputs), [output]))
        return output

    @staticmethod
    def empty() -> Variable:
        """A missing input."""
        return Variable.empty()

    def finish(self, node: Node, result: Variable) -> None:
        """Let ``result`` take the name and the readers of the node's output."""
        output = node.outputs[0]
        replace_uses(self.graph, output, result)
        result.name, output.name = output.name, unique_name(self.taken, f"{output.name}_replaced")
        result.shape = output.shape
        node.inputs.clear()
        node.outputs.clear()

    def real(self, codes: Tensor, scale: Tensor, zero: Tensor | None, axis: int | None = None) -> Tensor:
        """The floats behind codes; ``axis`` counts where there is a scale for each channel."""
        channels = constant_of(scale)
        attrs = {"axis": axis} if axis is not None and channels is not None and channels.size > 1 else {}
        if channels is not None and channels.ndim == 1 and channels.size == 1:
            scale, zero = self._scalar(scale), None if zero is None else self._scalar(zero)
        return self.op(
            "DequantizeLinear", [codes, scale, *([] if zero is None else [zero])], f"{codes.name}_real", **attrs
        )

    def _scalar(self, tensor: Tensor) -> Tensor:
        value = constant_of(tensor)
        return tensor if value is None or value.ndim == 0 else self.constant(f"{tensor.name}_scalar", value.reshape(()))

    def codes(self, node: Node, result: Tensor, scale: Tensor, zero: Tensor | None) -> bool:
        """Let the codes of ``result`` take the place of the node's output."""
        kind = np.uint8 if zero is None or zero.dtype is None else zero.dtype
        inputs = [result, self._scalar(scale), *([] if zero is None else [self._scalar(zero)])]
        self.finish(node, self.op("QuantizeLinear", inputs, f"{node.outputs[0].name}_codes", kind))
        return True


Rule = Callable[[Site, Node], bool]


def _bias(site: Site, node: Node, slot: int, x_scale: Tensor, w_scale: Tensor) -> list[Tensor]:
    """An int32 bias in steps of ``x_scale * w_scale``; [] without one."""
    bias, steps = given(node, slot), (constant_of(x_scale), constant_of(w_scale))
    if bias is None or steps[0] is None or steps[1] is None:
        return []
    scale = np.asarray(steps[0].reshape(-1) * steps[1].reshape(-1), np.float32)
    codes = constant_of(bias)
    whole = np.broadcast_to(scale, (codes.size,)) if codes is not None else scale
    return [site.real(bias, site.constant(f"{bias.name}_scale", whole), None, 0)]


def _conv(site: Site, node: Node) -> bool:
    x, xs, xz, w, ws, wz, ys, yz = node.inputs[:8]
    inputs = [site.real(x, xs, xz), site.real(w, ws, wz, 0), *_bias(site, node, 8, xs, ws)]
    return site.codes(node, site.op("Conv", inputs, f"{node.outputs[0].name}_real", **node.attrs), ys, yz)


def _matmul(site: Site, node: Node) -> bool:
    a, a_s, az, b, bs, bz, ys, yz = node.inputs[:8]
    return site.codes(
        node,
        site.op("MatMul", [site.real(a, a_s, az), site.real(b, bs, bz, 1)], f"{node.outputs[0].name}_real"),
        ys,
        yz,
    )


def _gemm(site: Site, node: Node) -> bool:
    a, a_s, az, b, bs, bz = node.inputs[:6]
    inputs = [
        site.real(a, a_s, az),
        site.real(b, bs, bz, 0 if node.attrs.get("transB", 0) else 1),
        *_bias(site, node, 6, a_s, bs),
    ]
    result = site.op("Gemm", inputs, f"{node.outputs[0].name}_real", **node.attrs)
    scale = given(node, 7)
    if scale is not None:
        return site.codes(node, result, scale, given(node, 8))
    site.finish(node, result)
    return True


def _binary(op: str) -> Rule:
    def rule(site: Site, node: Node) -> bool:
        a, a_s, az, b, bs, bz, ys = node.inputs[:7]
        real = [site.real(a, a_s, az if az.name else None), site.real(b, bs, bz if bz.name else None)]
        return site.codes(node, site.op(op, real, f"{node.outputs[0].name}_real"), ys, given(node, 7))

    return rule


def _unary(op: str, keep: Sequence[str] = ()) -> Rule:
    def rule(site: Site, node: Node) -> bool:
        if node.attrs.get("channels_last", 0):
            return False
        x, xs, xz, ys = node.inputs[:4]
        attrs = {key: value for key, value in node.attrs.items() if key in keep}
        result = site.op(op, [site.real(x, xs, xz if xz.name else None)], f"{node.outputs[0].name}_real", **attrs)
        return site.codes(node, result, ys, given(node, 4))

    return rule


def _concat(site: Site, node: Node) -> bool:
    parts = [site.real(*node.inputs[index:index + 3]) for index in range(2, len(node.inputs), 3)]
    return site.codes(
        node,
        site.op("Concat", parts, f"{node.outputs[0].name}_real", axis=int(node.attrs["axis"])),
        node.inputs[0],
        node.inputs[1],
    )


def _mover(site: Site, node: Node) -> bool:
    """A mover (or maximum) of codes keeps the grid of the QuantizeLinear before it; False for other codes."""
    source = producer(node.inputs[0])
    if source is None or source.op != "QuantizeLinear" or (len(node.outputs) > 1 and node.outputs[1].name):
        return False
    scale, zero = source.inputs[1], given(source, 2)
    result = site.op(
        node.op,
        [site.real(node.inputs[0], scale, zero), *node.inputs[1:]],
        f"{node.outputs[0].name}_real",
        **node.attrs,
    )
    return site.codes(node, result, scale, zero)


_MOVES = ("MaxPool", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Identity")
_POOL = ("kernel_shape", "pads", "strides", "auto_pad", "ceil_mode", "count_include_pad")
STATIC: dict[str, Rule] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu", ("alpha",)),
    "QLinearSoftmax": _unary("Softmax", ("axis",)),
    **dict.fromkeys(_MOVES, _mover),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearAveragePool": _unary("AveragePool", _POOL),
    "QLinearConcat": _concat,
}


def to_qdq(site: Site, node: Node) -> bool:
    """Write a node of `STATIC` between Q/DQ nodes; False where it has no such form."""
    return STATIC[node.op](site, node)
