from __future__ import annotations

import pytest

from qcompiler.passes.normalize.split_sum import SplitSum
from tests.graphs import graph_of, ops
from tests.passes.rewriting import random, rewrite


@pytest.mark.parametrize(
    ("node", "expected"), [("Sum(a, b, c)", ["Add"] * 2), ("Sum(a, b)", ["Add"]), ("Max(a, b, c)", ["Max"] * 2), ("Min(a, b, c, a)", ["Min"] * 3)]
)
def test_becomes_binary(node, expected):
    graph = graph_of(f"g (float[N, 4] a, float[4] b, float[3, 1, 1] c) => (float[] y) {{ y = {node} }}")
    feed = {"a": random(2, 4), "b": random(4, seed=1), "c": random(3, 1, 1, seed=2)}
    rewrite(graph, SplitSum(), tolerance=0, **{tensor.name: feed[tensor.name] for tensor in graph.inputs})
    assert ops(graph) == expected


def test_binary_and_unary_nodes_stay():
    graph = graph_of("g (float[N, 4] a, float[4] b) => (float[] y, float[] z) { y = Max(a, b)  z = Sum(a) }")
    rewrite(graph, SplitSum(), a=random(2, 4), b=random(4))
    assert ops(graph) == ["Max", "Sum"]
