"""Which integer islands are too small for their borders.

An island is a connected piece of a segment. Each element that enters it from another part, or leaves it to one, is
converted between float and codes and rounded once more; that costs about as much time as some tens of
multiply-accumulates save. So an island with less work than `MACS_AN_ELEMENT` stays outside, but for the largest one: a
model has a program where anything of it can be integer.

Measured once on one core (AMD Zen 3, AVX2), a MatMul of 1024 rows with both borders on the machine against onnxruntime
in float, each timed by itself: 1.3 of its time at 16 multiply-accumulates an element, 0.9 at 32 and 64, 0.3 at 128.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import networkx as nx

from qcompiler.graph.ir import Graph
from qcompiler.mixed.dependencies import Reads, tensors_read
from qcompiler.mixed.stages import Order

__all__ = ["MACS_AN_ELEMENT", "too_small"]

MACS_AN_ELEMENT = 16
"""Multiply-accumulates of an island for an element that crosses its borders, at least: below it is clearly slower."""

_PAIRS = ("QuantizeLinear", "DequantizeLinear")


def too_small(
    graph: Graph,
    reads: Reads,
    order: Order[str],
    segments: Iterable[Collection[str]],
    macs: Mapping[str, int],
    elements: Mapping[str, int],
) -> dict[str, str]:
    """Names of the nodes of islands that stay outside, with the reason.

    Args:
        graph: the whole graph.
        reads: of ``graph``.
        order: of ``graph``.
        segments: names of their nodes.
        macs: multiply-accumulates by node.
        elements: elements of tensors on a feed, by name.
    """
    undirected = order.to_undirected(as_view=True)
    islands = [sorted(names) for nodes in segments for names in nx.connected_components(undirected.subgraph(nodes))]
    operators = {node.name: node.op for node in graph.nodes}
    crossing = _crossing(graph, reads, islands)
    work = [sum(macs.get(name, 0) for name in island) for island in islands]
    sizes = [sum(operators[name] not in _PAIRS for name in island) for island in islands]
    largest = max(range(len(islands)), key=lambda index: (work[index], sizes[index]), default=0)
    found = {}
    for index, island in enumerate(islands):
        paid = MACS_AN_ELEMENT * sum(elements.get(name, 0) for name in crossing[index])
        if sizes[index] == 0 or (index != largest and work[index] <= paid):
            why = f"its {work[index]:,} multiply-accumulates are fewer than what borders around it cost"
            found.update(dict.fromkeys(island, why))
    return found


def _crossing(graph: Graph, reads: Reads, islands: list[list[str]]) -> list[set[str]]:
    """Tensors between each island and other nodes; inputs and outputs of the graph cost a border anyway."""
    island_of = {name: index for index, names in enumerate(islands) for name in names}
    found: list[set[str]] = [set() for _ in islands]
    for node in (node for node in graph.nodes if node.name not in reads.repeated):
        for tensor in tensors_read(node):
            source = reads.producers.get(tensor.name)
            ends = {island_of.get(each.name, -1) for each in (source, node) if each is not None}
            if source is not None and source.name not in reads.repeated and len(ends) > 1:
                for index in ends - {-1}:
                    found[index].add(tensor.name)
    return found
