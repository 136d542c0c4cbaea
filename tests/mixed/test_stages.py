"""The parts of random graphs: sound, and as few as there can be."""

from __future__ import annotations

from itertools import pairwise

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.mixed.stages import Order, stages_of


@st.composite
def orders(draw: st.DrawFn) -> tuple[Order[str], set[str]]:
    """A graph of up to ten nodes in topological order, and those outside."""
    count = draw(st.integers(1, 10))
    names = [f"n{index}" for index in range(count)]
    order: Order[str] = nx.DiGraph()
    order.add_nodes_from(names)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    order.add_edges_from(draw(st.lists(st.sampled_from(pairs), max_size=15)) if pairs else [])
    return order, draw(st.sets(st.sampled_from(names)))


def most_changes(order: Order[str], outside: set[str]) -> int:
    """Changes of kind along the worst path, counted path by path."""
    worst = 0
    for start in order:
        pending = [[start]]
        while pending:
            path = pending.pop()
            worst = max(worst, sum((a in outside) != (b in outside) for a, b in pairwise(path)))
            pending += [[*path, after] for after in order.successors(path[-1])]
    return worst


@given(orders())
def test_parts_are_of_one_kind_in_order_and_as_few_as_possible(drawn: tuple[Order[str], set[str]]) -> None:
    order, outside = drawn
    parts = stages_of(order, outside)
    assert sorted(name for _, names in parts for name in names) == sorted(order)
    assert all((name in outside) == kind for kind, names in parts for name in names)
    place = {name: index for index, (_, names) in enumerate(parts) for name in names}
    assert all(place[a] <= place[b] for a, b in order.edges)
    # one more than the worst path needs, where paths of as many changes begin with both kinds
    assert most_changes(order, outside) + 1 <= len(parts) <= most_changes(order, outside) + 2
