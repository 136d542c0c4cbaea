"""What stands between data and an output that holds a fill beside them.

No grid holds both a score and the -1e9 beside it. The machine keeps data on their grid there and gives the fill a code
of its own, which becomes the fill again at the border; between the data and the output nothing may compute with it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qcompiler.graph.exactness import filled, is_fill, puts_fill, selections
from qcompiler.graph.ir import STANDARD_DOMAINS, Graph, Node, Tensor, constant_of, consumers, producer
from qcompiler.graph.value_kinds import Value

__all__ = ["ADDING", "LARGEST", "adds_little", "border_fills", "fill_tail", "filling_operands"]

MOVING = frozenset({
    "Expand", "Flatten", "Gather", "Identity", "Reshape", "ReduceMax", "ReduceMin", "Slice", "Split", "Squeeze", "Tile",
    "Transpose", "Unsqueeze",
})  # fmt: skip
CHOOSING = frozenset({"Concat", "Pad", "Where"})
ADDING = ("Add", "Sub")
"""They put a fill by adding it to a datum, which it swallows."""

LARGEST = 2.0**12
"""Magnitude from which what a mask adds gets a code of its own: 16 bits that held it would leave little of a datum."""


def fill_tail(graph: Graph, kinds: Mapping[str, Value], fills: set[str], output: Tensor) -> list[Node] | None:
    """The nodes from data to an output, last ones first; None where there is none, or something computes with a fill.

    Args:
        graph: float graph in topological order.
        kinds: what the values of its tensors are.
        fills: names of the tensors of data in which a fill may stand.
        output: an output of the graph.
    """
    if output.name not in fills:
        return None
    found: dict[int, Node] = {}
    pending = [output]
    while pending:
        tensor = pending.pop()
        node = producer(tensor)
        if tensor.name not in fills:
            if node is None and constant_of(tensor) is None:
                return None  # an input has no grid of its own
            continue
        if node is None or node.domain not in STANDARD_DOMAINS or not _passes(node, kinds):
            return None
        if id(node) not in found:
            found[id(node)] = node
            pending += selections(node, kinds)
    return [node for node in reversed(graph.nodes) if id(node) in found]


def _passes(node: Node, kinds: Mapping[str, Value]) -> bool:
    return node.op in MOVING or node.op in CHOOSING or (node.op in ADDING and puts_fill(node, kinds))


def filling_operands(node: Node, kinds: Mapping[str, Value]) -> list[int]:
    """Positions of the fills that a node of `CHOOSING` puts beside data."""
    slots = {"Where": (1, 2), "Pad": (2,), "Concat": range(len(node.inputs))}.get(node.op, ())
    return [slot for slot in slots if slot < len(node.inputs) and is_fill(node.inputs[slot], kinds)]


def border_fills(graph: Graph, kinds: Mapping[str, Value]) -> set[int]:
    """Ids of the nodes that the border of the machine does by itself for outputs with fills.

    They lead to one output alone, and their fills are constants (`keep-fills`): at most one below and one above 0.
    """
    fills = filled(graph, kinds) if kinds else set()
    found: set[int] = set()
    for output in graph.outputs:
        nodes = fill_tail(graph, kinds, fills, output)
        if nodes is None or consumers(output):
            continue
        if any(node.op in ADDING and not adds_little(node, kinds) for node in nodes):
            continue
        inside = {id(node) for node in nodes}
        inner = [tensor for node in nodes for tensor in node.outputs if tensor is not output]
        closed = all(id(reader) in inside for tensor in inner for reader in consumers(tensor))
        put = [node.inputs[slot] for node in nodes for slot in filling_operands(node, kinds)]
        if closed and not any(tensor is other for tensor in inner for other in graph.outputs) and _are_two(put):
            found |= inside | {id(node) for tensor in put if (node := producer(tensor)) is not None}
    return found


def adds_little(node: Node, kinds: Mapping[str, Value]) -> bool:
    """True where what masks add is so small that 16 bits hold it and the data."""
    data = selections(node, kinds)
    masks = [tensor for tensor in node.inputs if all(tensor is not other for other in data)]
    values = [kinds[tensor.name] for tensor in masks if tensor.name in kinds]
    return len(values) == len(masks) and all(max(abs(value.lo), abs(value.hi)) < LARGEST for value in values)


def _are_two(fills: list[Tensor]) -> bool:
    """True for constants, expanded or not, of at most one value below 0 and one above."""
    values: set[float] = set()
    for tensor in fills:
        node = producer(tensor)
        if node is not None and (node.op != "Expand" or len(consumers(tensor)) != 1):
            return False
        constant = constant_of(tensor if node is None else node.inputs[0])
        if constant is None:
            return False
        values |= set(np.unique(constant).astype(float).tolist())
    return sum(value < 0 for value in values) <= 1 and sum(value > 0 for value in values) <= 1
