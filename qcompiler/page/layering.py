"""Where the nodes of a network are drawn: in layers from top to bottom, each near the middle of what it reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import networkx as nx

__all__ = ["ACROSS", "DOWN", "positions"]

ACROSS, DOWN = 190.0, 76.0
"""Distance of the middles of neighbours, in the units of the drawing."""
SWEEPS = 4


def positions(count: int, edges: Iterable[tuple[int, int]]) -> list[tuple[float, float]]:
    """(x, y) of nodes 0 to ``count`` - 1 of a directed graph without cycles.

    A node's layer is the length of the longest way to it. Within a layer, nodes are ordered by the mean position of
    their neighbours in the layers above, then below (barycentres, Sugiyama et al. 1981), and kept apart.
    """
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(count))
    graph.add_edges_from(edges)
    layers = [sorted(layer) for layer in nx.topological_generations(graph)]
    x = {node: index * ACROSS for layer in layers for index, node in enumerate(layer)}
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            wanted = {node: _mean(list(graph.pred[node] if down else graph.succ[node]), x, x[node]) for node in layer}
            x.update(_apart(sorted(layer, key=lambda node, at=wanted: (at[node], node)), wanted))  # type: ignore[misc]
    depth = {node: index for index, layer in enumerate(layers) for node in layer}
    return [(round(x[node], 1), depth[node] * DOWN) for node in range(count)]


def _mean(nodes: Sequence[int], x: dict[int, float], otherwise: float) -> float:
    return sum(x[node] for node in nodes) / len(nodes) if nodes else otherwise


def _apart(order: Sequence[int], wanted: dict[int, float]) -> dict[int, float]:
    """Positions in this order, at least `ACROSS` apart, with the mean that is wanted."""
    placed: dict[int, float] = {}
    last = -float("inf")
    for node in order:
        last = max(wanted[node], last + ACROSS)
        placed[node] = last
    shift = sum(wanted[node] - placed[node] for node in order) / len(order)
    return {node: at + shift for node, at in placed.items()}
