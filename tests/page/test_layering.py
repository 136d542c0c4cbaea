"""Where nodes are drawn."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from qcompiler.page.layering import ACROSS, DOWN, positions


@st.composite
def networks(draw):
    count = draw(st.integers(1, 40))
    pairs = draw(st.lists(st.tuples(st.integers(0, count - 1), st.integers(0, count - 1)), max_size=80))
    return count, [(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]]


@given(networks())
def test_edges_lead_down_and_no_node_lies_on_another(network):
    count, edges = network
    found = positions(count, edges)
    assert len(found) == count
    assert all(found[one][1] + DOWN <= found[other][1] for one, other in edges)
    rows = {}
    for x, y in found:
        rows.setdefault(y, []).append(x)
    for row in rows.values():
        assert all(other - one >= ACROSS - 0.2 for one, other in pairwise(sorted(row)))
    assert positions(count, edges) == found


def test_a_chain_is_straight_and_what_joins_lies_between():
    assert {x for x, _ in positions(5, pairwise(range(5)))} == {0.0}
    (left, _), (right, _), (end, _) = positions(3, [(0, 2), (1, 2)])
    assert end == (left + right) / 2
