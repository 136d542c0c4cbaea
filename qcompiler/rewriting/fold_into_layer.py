"""Folds ``y -> a y + b`` per output channel into the weights and the bias of the layer that writes y.

    Conv, ConvTranspose:  W'[o] = a[o] W[o],  bias' = a bias + b
    Gemm:                 y = alpha x W + beta c:  W' = alpha a W,  c' = a beta c + b,  alpha' = beta' = 1
    MatMul:               W' = a W            (no place for b)

Weights that other nodes read, too, stay as they are: the layer gets a copy of its own.
"""

from __future__ import annotations

import numpy as np

from qcompiler.graph.ir import Graph, Node, Tensor, constant_of
from qcompiler.rewriting.match import Array, new_constant


def channels_of(node: Node) -> int | None:
    """Number of output channels; None when weights are not constant (or a MatMul's not two-dimensional)."""
    weight = constant_of(node.inputs[1])
    if weight is None or not np.issubdtype(weight.dtype, np.floating):
        return None
    if node.op == "Conv":
        return int(weight.shape[0])
    if node.op == "ConvTranspose":
        return int(weight.shape[1]) * int(node.attrs.get("group", 1))
    if weight.ndim != 2:
        return None
    return int(weight.shape[0 if node.op == "Gemm" and node.attrs.get("transB", 0) else 1])


def channel_axis(node: Node, rank: int) -> int:
    """The axis of a layer's output, of that rank, that holds its channels."""
    return 1 if node.op in ("Conv", "ConvTranspose") else rank - 1


def _scaled_weight(node: Node, weight: Array, scale: Array) -> Array:
    if node.op == "Conv":
        return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    if node.op == "ConvTranspose":
        groups = int(node.attrs.get("group", 1))
        parts = weight.reshape(groups, -1, *weight.shape[1:])
        return (parts * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    return weight * (scale.reshape(-1, 1) if node.op == "Gemm" and node.attrs.get("transB", 0) else scale)


def _bias(node: Node) -> Tensor | None:
    return node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None


def why_not(node: Node, *, shift: bool) -> str | None:
    """The reason why nothing can be folded into ``node``; None when it can."""
    channels, bias = channels_of(node), _bias(node)
    if channels is None:
        return "the weights of the layer before it are not constant"
    if bias is None:
        return "a MatMul has no bias to take the offset" if node.op == "MatMul" and shift else None
    values = constant_of(bias)
    if values is None:
        return "the bias of the layer before it is not constant"
    return None if values.size in (1, channels) else "the layer before it adds a matrix, not a bias"


def fold(graph: Graph, node: Node, scale: Array, shift: Array) -> None:
    """Multiply the output of layer ``node`` by ``scale`` and add ``shift``, both float64 [C]; needs `why_not` None."""
    weight, channels = np.asarray(constant_of(node.inputs[1])), channels_of(node) or 1
    alpha, beta = float(node.attrs.pop("alpha", 1.0)), float(node.attrs.pop("beta", 1.0))
    new_weight = _scaled_weight(node, weight.astype(np.float64), alpha * np.broadcast_to(scale, (channels,)))
    node.inputs[1] = new_constant(graph, f"{node.inputs[1].name}_folded", new_weight.astype(weight.dtype))
    bias = _bias(node)
    if bias is None and not shift.any():
        return
    old = beta * np.asarray(constant_of(bias), np.float64).reshape(-1) if bias is not None else np.zeros(1)
    new_bias = np.broadcast_to(old * scale + shift, (channels,)).astype(weight.dtype)
    constant = new_constant(graph, f"{bias.name}_folded" if bias is not None else f"{node.name}_bias", new_bias)
    if len(node.inputs) > 2:
        node.inputs[2] = constant
    else:
        node.inputs.append(constant)
