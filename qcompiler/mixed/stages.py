"""Few parts that a graph of two kinds of nodes falls into.

All nodes of a part are of one kind, and no part reads what a later one writes. Along a path of the graph every change
of kind begins a new part, so no partition has fewer parts than the path with the most changes, plus one. A node's stage
is the number of changes before it on the worst path to it, and the nodes of one stage are a part: at most one part more
than that bound, where paths of both kinds begin the graph.
"""

from __future__ import annotations

from collections.abc import Collection

import networkx as nx

from qcompiler.graph.ir import Graph
from qcompiler.mixed.dependencies import Reads

__all__ = ["Order", "dependencies", "stages_of"]

Order = nx.DiGraph
"""Names of nodes; an edge to each that reads what another writes, arithmetic of sizes seen through."""


def dependencies(graph: Graph, reads: Reads) -> Order[str]:
    """The order of the nodes that are not in every part."""
    order: Order[str] = nx.DiGraph()
    own = [node for node in graph.nodes if node.name not in reads.repeated]
    order.add_nodes_from(node.name for node in own)
    for node in own:
        sources = (reads.producers.get(name) for name in reads.needed([node])[1])
        order.add_edges_from((source.name, node.name) for source in sources if source is not None)
    return order


def stages_of(order: Order[str], outside: Collection[str]) -> list[tuple[bool, list[str]]]:
    """The parts in order: whether its nodes are ``outside``, and their names."""
    found = [_assigned(order, outside, first) for first in (False, True)]
    return min(found, key=len)


def _assigned(order: Order[str], outside: Collection[str], first: bool) -> list[tuple[bool, list[str]]]:
    """The parts where stage 0 is ``first``: of nodes outside, or of others."""
    stage: dict[str, int] = {}
    for name in order:  # in the order of the graph
        least = max((stage[source] for source in order.predecessors(name)), default=0)
        kind = (name in outside) != first  # the parity of its stages
        stage[name] = least + (least % 2 != kind)
    parts: dict[int, list[str]] = {}
    for name in order:
        parts.setdefault(stage[name], []).append(name)
    return [((index % 2 == 1) != first, parts[index]) for index in sorted(parts)]
