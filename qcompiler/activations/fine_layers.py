"""A layer as a sum of layers: weights of 16 bits out of weights of 8, and inputs of 16 bits for long sums.

``W = W1 + W2`` with ``W1`` on the 8-bit grid of each channel and ``W2`` what that leaves, which has an 8-bit grid of
its own, 254 times as fine. Where the accumulator of one of them would not hold 16-bit inputs, its taps are divided
among several.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.needed import hold_wide_input
from qcompiler.graph.ir import Constant, Graph, Node, Variable, replace_uses, unique_name
from qcompiler.graph.layers import Layer, find_layers
from qcompiler.grids import byte_parts

__all__ = ["refine_layers"]

Array = NDArray[Any]


def refine_layers(graph: Graph, nodes: Collection[int], taken: set[str]) -> list[Variable]:
    """Write the layers ``nodes`` (by id) as such sums; gives what is added, and the sums."""
    found: list[Variable] = []
    for layer in [layer for layer in find_layers(graph) if id(layer.node) in nodes]:
        found += _divided(graph, layer.node, fine_parts(layer), taken)
    if found:
        graph.toposort()
    return found


def fine_parts(layer: Layer) -> list[Array]:
    """Weights of the layer's shape, float32, that add up to its own: first those on its 8-bit grid."""
    rows = np.moveaxis(np.asarray(layer.values, np.float32), layer.axis, 0)
    parts = [part for half in byte_parts(rows) for part in _held(half)]
    return [np.ascontiguousarray(np.moveaxis(part, 0, layer.axis)) for part in parts]


def _held(rows: Array) -> list[Array]:
    """Weights [R, ...] as a sum of such that hold inputs of 16 bits: the taps of each are those of a run."""
    flat = rows.reshape(rows.shape[0], -1)
    if hold_wide_input(flat) or np.count_nonzero(flat.any(axis=0)) < 2:
        return [rows]
    taps = np.flatnonzero(flat.any(axis=0))
    later = np.arange(flat.shape[1]) >= taps[taps.size // 2]
    halves = [np.where(mask, flat, np.float32(0)).reshape(rows.shape) for mask in (~later, later)]
    return [part for half in halves for part in _held(half)]


def _divided(graph: Graph, node: Node, weights: list[Array], taken: set[str]) -> list[Variable]:
    output, found = node.outputs[0], list[Variable]()
    total: Variable | None = None
    for index, values in enumerate(weights):
        weight = Constant(unique_name(taken, f"{node.inputs[1].name}_part"), values)
        inputs = [node.inputs[0], weight, *(node.inputs[2:] if index == 0 else [])]
        part = _apply(graph, node.op, inputs, output, taken, dict(node.attrs))
        total = part if total is None else _apply(graph, "Add", [total, part], output, taken, {})
        found += [part] if total is part else [part, total]
    if total is not None:
        replace_uses(graph, output, total)
        leaves = any(total is each for each in graph.outputs)
        total.name, output.name = (output.name, total.name) if leaves else (total.name, output.name)
    return found


def _apply(
    graph: Graph, op: str, inputs: list[Any], like: Variable, taken: set[str], attrs: dict[str, Any]
) -> Variable:
    result = Variable(unique_name(taken, f"{like.name}_{op}_part"), dtype=like.dtype, shape=like.shape)
    graph.nodes.append(Node(op, unique_name(taken, f"{result.name}_node"), attrs, inputs, [result]))
    return result
