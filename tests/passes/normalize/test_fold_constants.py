from __future__ import annotations

import numpy as np

from qcompiler.graph.ir import Constant
from qcompiler.passes.normalize.fold_constants import FoldConstants
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite


def test_folds_a_subgraph_with_two_readers():
    graph = graph_of(
        """g (float[N, 4] x) => (float[N, 3] y, float[N, 3] z) {
            t = Transpose(w)  s = Mul(t, c)  r = Add(s, s)  y = MatMul(x, r)  z = MatMul(x, s) }""",
        w=random(3, 4), c=np.float32(2),
    )  # fmt: skip
    rewrite(graph, FoldConstants(), x=random(2, 4))
    assert ops(graph) == ["MatMul", "MatMul"]


def test_fills_weights_without_spending_memory():
    graph = graph_of(
        "g (float[1, 4096] x) => (float[1, 4096] y) { w = ConstantOfShape <value = float[1] {0.5}> (s)  y = MatMul(x, "
        "w) }",
        s=np.array([4096, 4096]),
    )
    rewrite(graph, FoldConstants(), x=random(1, 4096))
    weight = graph.nodes[0].inputs[1]
    assert ops(graph) == ["MatMul"]
    assert weight.shape == (4096, 4096)
    assert weight.values.strides == (0, 0)


def test_leaves_a_mask_that_would_blow_up():
    graph = graph_of(
        "g (float[64, 4, 64] x) => (float[64, 4, 64] y) { m = Expand(c, s)  y = Add(x, m) }",
        c=random(1, 4, 1), s=np.array([64, 4, 64]),
    )  # fmt: skip
    ctx = rewrite(graph, FoldConstants(limit=1000), x=random(64, 4, 64))
    assert ops(graph) == ["Expand", "Add"]
    assert "more than 1000 elements" in reasons(ctx)[0]


def test_keeps_dequantized_weights_and_random_numbers():
    graph = graph_of(
        """g (float[N, 4] x) => (float[N, 4] y, float[2] z) {
            w = DequantizeLinear(q, s)  y = MatMul(x, w)  z = RandomNormal <shape = [2], seed = 1.0> () }""",
        q=np.arange(16, dtype=np.int8).reshape(4, 4), s=np.float32(0.1),
    )  # fmt: skip
    FoldConstants().run(graph, rewrite(graph, x=random(2, 4)))
    assert ops(graph) == ["DequantizeLinear", "MatMul", "RandomNormal"]


def test_output_of_the_graph_stays_with_its_node():
    graph = graph_of(
        "g (float[4] x) => (float[4] y, float[4] z) { a = Neg(c)  y = Exp(a)  z = Add(x, y) }", c=random(4)
    )
    rewrite(graph, FoldConstants(), x=random(4))
    assert ops(graph) == ["Exp", "Add"]
    assert isinstance(graph.nodes[0].inputs[0], Constant)


def test_nodes_without_constants_are_left():
    graph = graph_of("g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
    assert not FoldConstants().run(graph, rewrite(graph, x=random(2, 4)))


def test_of_the_second_input_of_a_cast_like_only_the_type_counts():
    graph = graph_of(
        "g (float[N] x) => (float[N] y) { a = CastLike(c, x)  b = CastLike(x, x)  y = Add(a, b) }",
        c=np.array([3], np.int64),
    )
    rewrite(graph, FoldConstants(), x=random(4))
    assert ops(graph) == ["Cast", "Add"]
