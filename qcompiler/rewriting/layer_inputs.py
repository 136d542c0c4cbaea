"""What scales or shifts the input of layers with constant weights, moved into these: per input channel, float64."""

from __future__ import annotations

import numpy as np

from qcompiler.graph.ir import Graph, Node, Tensor, constant_of, consumers
from qcompiler.graph.operators import LAYERS
from qcompiler.rewriting.fold_into_layer import why_not
from qcompiler.rewriting.match import Array, is_output, new_constant

__all__ = ["input_channels", "input_energy", "is_padded", "layers_behind", "scale_weights", "shift_of"]


def layers_behind(graph: Graph, tensor: Tensor) -> list[Node]:
    """The layers with constant weights that read ``tensor``; empty when anybody else reads it."""
    users = consumers(tensor)
    if is_output(graph, tensor) or not all(_takes(graph, user, tensor) for user in users):
        return []
    return users


def _takes(graph: Graph, node: Node, tensor: Tensor) -> bool:
    inside = any(node is other for other in graph.nodes)
    first_only = [index for index, source in enumerate(node.inputs) if source is tensor] == [0]
    return (
        inside
        and node.op in LAYERS
        and first_only
        and not node.attrs.get("transA", 0)
        and why_not(node, shift=False) is None
    )


def input_channels(node: Node) -> int:
    """Number of input channels of a layer."""
    weight = np.asarray(constant_of(node.inputs[1]))
    if node.op == "Conv":
        return int(weight.shape[1] * node.attrs.get("group", 1))
    return int(weight.shape[1] if node.op == "Gemm" and node.attrs.get("transB", 0) else weight.shape[0])


def _weighted(node: Node, factor: Array) -> Array:
    """The weight with every input channel multiplied by its factor, float64."""
    weight: Array = np.asarray(constant_of(node.inputs[1]), np.float64)
    factors: Array = np.broadcast_to(factor, (input_channels(node),))
    if node.op == "Conv":
        groups = int(node.attrs.get("group", 1))
        parts = weight.reshape(groups, -1, *weight.shape[1:])
        weight = (parts * factors.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))).reshape(weight.shape)
    elif node.op == "Gemm" and node.attrs.get("transB", 0):
        weight = weight * factors
    else:
        weight = weight * factors.reshape(-1, *[1] * (weight.ndim - 1))
    return weight


def input_energy(node: Node) -> Array:
    """Sum of the squares of what each input channel of a layer without groups is multiplied by."""
    weight = np.asarray(constant_of(node.inputs[1]), np.float64)
    by_columns = node.op == "Conv" or (node.op == "Gemm" and node.attrs.get("transB", 0))
    values = np.moveaxis(weight, 1 if by_columns else 0, 0)
    return np.asarray(np.square(values.reshape(len(values), -1)).sum(axis=1))


def is_padded(node: Node) -> bool:
    """True for a convolution that pads."""
    return any(node.attrs.get("pads") or []) or node.attrs.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID")


def shift_of(node: Node, offset: Array) -> Array:
    """What adding ``offset`` to a layer's input adds to its output, per output channel, float64."""
    moved = _weighted(node, offset)
    if node.op == "Gemm":
        return np.asarray(node.attrs.get("alpha", 1.0) * moved.sum(axis=1 if node.attrs.get("transB", 0) else 0))
    return np.asarray(moved.reshape(moved.shape[0], -1).sum(axis=1))


def scale_weights(graph: Graph, layers: list[Node], factor: Array) -> None:
    """Multiply every input channel of the layers' weights by its factor."""
    for layer in layers:
        dtype = np.asarray(constant_of(layer.inputs[1])).dtype
        layer.inputs[1] = new_constant(graph, f"{layer.inputs[1].name}_scaled", _weighted(layer, factor).astype(dtype))
