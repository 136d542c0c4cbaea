from __future__ import annotations

import numpy as np

from qcompiler.passes.activations.split_fills import SplitFills
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, rewrite


def test_a_softmax_gets_scores_of_its_own() -> None:
    text = (
        "g (float[N, 5] x, bool[N, 5] c) => (float[N, 5] y, float[N, 1] z) { m = Where(c, x, low)  y = Softmax(m)  z = "
        "ReduceMax(m, one) }"
    )
    graph = graph_of(text, low=np.float32(-1e9), one=np.array([1]))
    rewrite(graph, SplitFills(), tolerance=0, x=random(4, 5), c=np.eye(4, 5, dtype=bool))
    assert sorted(ops(graph)) == ["ReduceMax", "Softmax", "Where", "Where"]


def test_scores_that_only_a_softmax_reads_stay() -> None:
    graph = graph_of(
        "g (float[N, 5] x, bool[N, 5] c) => (float[N, 5] y) { m = Where(c, x, low)  y = Softmax(m) }",
        low=np.float32(-1e9),
    )
    rewrite(graph, SplitFills(), tolerance=0, x=random(4, 5), c=np.eye(4, 5, dtype=bool))
    assert ops(graph) == ["Where", "Softmax"]
