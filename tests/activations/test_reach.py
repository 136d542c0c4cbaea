"""Ranges of tensors in which a fill stands beside data."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.activations.reach import reached
from qcompiler.graph.exactness import filled, puts_fill
from qcompiler.graph.ranges import Range
from qcompiler.graph.value_kinds import value_kinds
from tests.helpers.graphs import graph_of

SEEN = {"h": Range(-3.0, 5.0), "p": Range(-1e9, -1e9), "j": Range(-1e9, 5.0), "e": Range(-1e9, -1e9)}
HEAD = "g (float[N, 5] x, int64[2] s) => (float[M, 5] y) { h = MatMul(x, w) "


@pytest.mark.parametrize("fill", ["p = ConstantOfShape <value = float[1] {-1e9}> (s)", "p = Expand(low, s)"])
@pytest.mark.parametrize("parts", ["h, p", "p, h"])
def test_a_fill_joined_to_data_ends_where_their_grid_does(fill: str, parts: str) -> None:
    constants = {"w": np.eye(5, dtype=np.float32), "low": np.float32(-1e9)}
    text = HEAD + f"{fill}  j = Concat <axis = 0> ({parts})  y = Relu(j) }}"
    graph = graph_of(text, **{name: value for name, value in constants.items() if name in text})
    kinds = value_kinds(graph)
    join = next(node for node in graph.nodes if node.op == "Concat")
    assert puts_fill(join, kinds)
    assert filled(graph, kinds) >= {"j"}
    ranges, floors = reached(graph, kinds, SEEN, {})
    assert ranges["j"].hi == 5.0
    assert -3.1 < ranges["j"].lo < -3.0
    assert ranges["p"].lo == ranges["p"].hi == ranges["j"].lo
    assert floors.get("low", ranges["j"].lo) == ranges["j"].lo
    untouched, _ = reached(graph, kinds, SEEN, {}, [id(join)])
    assert untouched["p"] == SEEN["p"]


def test_parts_that_are_fills_alone_join_no_data() -> None:
    graph = graph_of(
        "g (int64[2] s) => (float[M, 5] y) { p = ConstantOfShape <value = float[1] {-1e9}> (s)  "
        "y = Concat <axis = 0> (p, p) }"
    )
    kinds = value_kinds(graph)
    assert not puts_fill(graph.nodes[-1], kinds)
    assert not filled(graph, kinds)


def test_a_fill_that_somebody_else_reads_keeps_its_range() -> None:
    graph = graph_of(
        "g (float[N, 5] x, int64[2] s) => (float[M, 5] y, float[K, 5] e) { h = MatMul(x, w)  "
        "p = ConstantOfShape <value = float[1] {-1e9}> (s)  j = Concat <axis = 0> (h, p)  y = Relu(j)  e = Neg(p) }",
        w=np.eye(5, dtype=np.float32),
    )
    ranges, _ = reached(graph, value_kinds(graph), SEEN, {})
    assert ranges["p"] == SEEN["p"]
