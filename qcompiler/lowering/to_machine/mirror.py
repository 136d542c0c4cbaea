"""An integer graph as a standard one with the same shapes: what shape inference reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompiler.graph.ir import Graph, Node, copy_of

_CODES = (np.dtype(np.uint8), np.dtype(np.int16))

_ALIKE = (
    "Quantize",
    "Label",
    "Dequantize",
    "QuantizeInteger",
    "Table",
    "PiecewiseLinear",
    "Requantize",
    "Softmax",
    "LayerNorm",
    "InstanceNorm",
    "Scatter",
)


_COMPARISONS = {
    "less": "Less",
    "less_equal": "LessOrEqual",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "equal": "Equal",
}


def mirror(graph: Graph) -> Graph:
    """A graph of standard operators with the tensors of ``graph``: names, shapes, values of shape arithmetic.

    Codes have no values here: what makes them or compares them is mirrored by an operator of the same shape whose
    value nothing follows.
    """
    copy = copy_of(graph)
    for node in copy.nodes:
        _standardize(node)
    return copy


def _standardize(node: Node) -> None:
    node.domain = None
    op, attrs = _standard(node)
    node.op = op
    node.attrs.clear()
    node.attrs.update(attrs)


def _standard(node: Node) -> tuple[str, dict[str, Any]]:
    attrs: dict[str, Any] = dict(node.attrs)
    if node.op in _ALIKE:
        return "Sigmoid", {}
    if node.op.startswith("Integer"):
        return node.op.removeprefix("Integer"), attrs
    if node.op == "Gemm":
        return "MatMul", {}
    if node.op == "Compare":
        of_codes = any(tensor.dtype is None or np.dtype(tensor.dtype) in _CODES for tensor in node.inputs)
        return "And" if of_codes else _COMPARISONS[str(attrs["kind"])], {}
    if node.op == "Reduce":
        _keep_inputs(node, 1)
        return "ReduceMax", {"axes": attrs["axes"], "keepdims": attrs["keepdims"]}
    if node.op in ("LSTM", "GRU"):
        return "Recurrent", attrs
    if node.op == "Repeat":
        return "Tile", {}
    if node.op in ("AveragePool", "Conv", "ConvTranspose"):
        _keep_inputs(node, 1 if node.op == "AveragePool" else 2)
    return node.op, attrs


def _keep_inputs(node: Node, count: int) -> None:
    node.inputs = list(node.inputs)[:count]
