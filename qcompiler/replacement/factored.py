"""Puts the factors of a weight where its layer was."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Constant, Graph, Tensor, Variable, names_in, unique_name
from qcompiler.graph.layers import Layer
from qcompiler.replacement.chains import linear_output
from qcompiler.replacement.factor import Cores
from qcompiler.replacement.rewrite import Writer, inherit_name

__all__ = ["write_cores", "write_low_rank"]

Array = NDArray[Any]


def write_low_rank(graph: Graph, layer: Layer, left: Array, right: Array, bias: Array) -> None:
    """Replace a layer by ``right`` [r, K] (same operator), then ``left`` [O, r] with ``bias`` [O]."""
    out = Writer(graph, names_in(graph), f"{layer.node.name}_rank")
    inner = (
        _convolution(out, layer, right)
        if layer.node.op == "Conv"
        else out.dense("down", layer.node.inputs[0], right, None, layer)
    )
    result = out.dense("up", inner, left, bias, layer)
    inherit_name(result, layer.node)
    out.take_over(result, linear_output(layer))


def _convolution(out: Writer, layer: Layer, right: Array) -> Variable:
    """The layer's convolution with ``right`` as its channels."""
    weight = out.constant("down_weight", right.reshape(len(right), *layer.values.shape[1:]))
    return out.node("Conv", "down", [layer.node.inputs[0], weight], linear_output(layer), len(right), layer.node.attrs)


def write_cores(graph: Graph, layer: Layer, cores: Cores, bias: Array) -> None:
    """Replace a Gemm or MatMul by two MatMuls over its split channels, the moves between them, and the bias."""
    out, x = Writer(graph, names_in(graph), f"{layer.node.name}_cores"), layer.node.inputs[0]
    (outer, rows, bond), (_, inner, columns) = cores.first.shape, cores.second.shape
    leading = len(layer.node.outputs[0].shape) - 1
    axes = list(range(leading))
    split = _reshape(out, x, x, [rows, columns])
    product = _matmul(out, split, cores.second.transpose(2, 0, 1).reshape(columns, bond * inner))
    apart = _reshape(out, product, x, [rows, bond, inner])
    turned = _transpose(out, apart, [*axes, leading + 2, leading, leading + 1], x, [inner, rows, bond])
    joined = _reshape(out, turned, x, [inner, rows * bond])
    second = _matmul(out, joined, cores.first.transpose(1, 2, 0).reshape(rows * bond, outer))
    back = _transpose(out, second, [*axes, leading + 1, leading], x, [outer, inner])
    whole = _reshape(out, back, x, [outer * inner])
    result = out.node("Add", "sum", [whole, out.constant("bias", bias)], linear_output(layer))
    out.take_over(result, linear_output(layer))


def _shape(like: Tensor, channels: list[int]) -> list[Any] | None:
    return None if like.shape is None else [*list(like.shape)[:-1], *channels]


def _with_shape(variable: Variable, like: Tensor, channels: list[int]) -> Variable:
    variable.shape = _shape(like, channels)
    return variable


def _reshape(out: Writer, tensor: Tensor, x: Tensor, channels: list[int]) -> Variable:
    """``tensor`` with its last axes split or joined to ``channels``; leading axes stay those of ``x``."""
    target = Constant(
        unique_name(out.taken, f"{out.stem}_shape"), np.array([*[0] * (len(x.shape) - 1), *channels], np.int64)
    )
    return _with_shape(out.node("Reshape", "split", [tensor, target], tensor), x, channels)


def _transpose(out: Writer, tensor: Tensor, perm: list[int], x: Tensor, channels: list[int]) -> Variable:
    return _with_shape(out.node("Transpose", "turn", [tensor], tensor, attrs={"perm": perm}), x, channels)


def _matmul(out: Writer, tensor: Tensor, weight: Array) -> Variable:
    return out.node("MatMul", "core", [tensor, out.constant("core_weight", weight)], tensor, weight.shape[1])


