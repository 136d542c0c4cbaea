from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.normalize.split_sum import SplitSum
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, rewrite


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("Sum(a, b, c)", ["Add"] * 2),
        ("Sum(a, b)", ["Add"]),
        ("Max(a, b, c)", ["Max"] * 2),
        ("Min(a, b, c, a)", ["Min"] * 3),
    ],
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


@pytest.mark.parametrize("bounds", ["low", "low, high", ",high"])
def test_a_clip_with_computed_bounds_is_a_max_and_a_min(bounds):
    graph = graph_of(
        f"g (float[3, 4] x) => (float[3, 4] y) {{ m = ReduceMax <keepdims = 0> (x)  low = Sub(m, four)  high = Sub(m, "
        f"one)  y = Clip(x, {bounds}) }}",
        four=np.float32(4), one=np.float32(1),
    )  # fmt: skip
    rewrite(graph, SplitSum(), tolerance=0, x=random(3, 4))
    assert "Clip" not in ops(graph)
