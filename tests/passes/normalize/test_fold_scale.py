from __future__ import annotations

import numpy as np
import pytest

from qcompiler.pass_base import BatchNormStatistics, Context
from qcompiler.passes.normalize.fold_scale import FoldScale
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

CONV = "float[N, 4, 5, 5] x", "h = Conv <pads = [1, 1, 1, 1]> (x, w)", random(6, 4, 3, 3), random(2, 4, 5, 5)
CASES = {
    "conv times channels": (*CONV, "y = Mul(h, c)", random(6, 1, 1)),
    "conv times scalar": (*CONV, "y = Mul(c, h)", np.float32(-0.3)),
    "conv over channels": (*CONV, "y = Div(h, c)", random(1, 6, 1, 1, low=0.5)),
    "conv plus": (*CONV, "y = Add(c, h)", random(6, 1, 1)),
    "conv minus": (*CONV, "y = Sub(h, c)", random(6, 1, 1)),
    "minus conv": (*CONV, "y = Sub(c, h)", random(6, 1, 1)),
    "transposed": (CONV[0], ("h = ConvTranspose <group = 2> (x, "
                            "w)"), random(4, 3, 3, 3), CONV[3], "y = Mul(h, c)", random(6, 1, 1)),
    "gemm": ("float[N, 4] x", "h = Gemm(x, w)", random(4, 6), random(3, 4), "y = Add(h, c)", random(6)),
    "matmul": ("float[N, L, 4] x", "h = MatMul(x, w)", random(4, 6), random(2, 3, 4), "y = Mul(h, c)", random(6)),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_folds(case):
    declared, layer, w, x, scale, c = CASES[case]
    graph = graph_of(f"g ({declared}) => (float[] y) {{ {layer}  {scale} }}", w=w, c=c)
    rewrite(graph, FoldScale(), x=x)
    assert len(ops(graph)) == 1


def test_folds_a_chain_and_moves_statistics_along():
    constants = {"w": random(4, 6), "c": random(6), "d": random(6, seed=5)}
    graph = graph_of("g (float[N, 4] x) => (float[] y) { h = Gemm(x, w)  a = Mul(h, c)  y = Add(a, d) }", **constants)
    ctx = Context(batchnorm={"h": BatchNormStatistics(np.ones(6), np.full(6, 4.0))})
    assert FoldScale().run(graph, ctx)
    graph.cleanup()
    assert ops(graph) == ["Gemm"]
    np.testing.assert_allclose(ctx.batchnorm["y"].mean, random(6).astype(np.float64) + random(6, seed=5))
    np.testing.assert_allclose(ctx.batchnorm["y"].variance, 4.0 * random(6).astype(np.float64) ** 2)
    assert "h" not in ctx.batchnorm


def test_scale_of_attention_ends_in_the_projection():
    graph = graph_of(
        """g (float[N, L, 8] x) => (float[] y) {
            q0 = MatMul(x, wq)  q1 = Add(q0, bq)  q2 = Reshape(q1, s)  q = Transpose <perm = [0, 2, 1, 3]> (q2)
            k0 = MatMul(x, wk)  k1 = Add(k0, bk)  k2 = Reshape(k1, s)  k = Transpose <perm = [0, 2, 3, 1]> (k2)
            h = MatMul(q, k)  y = Div(h, root) }""",
        wq=random(8, 8), bq=random(8), wk=random(8, 8, seed=1), bk=random(8, seed=1), s=np.array([0, 0, 2, 4]),
        root=np.float32(2),
    )  # fmt: skip
    rewrite(graph, FoldScale(), x=random(2, 3, 8))
    assert sorted(ops(graph)) == sorted(["MatMul", "Add", "Reshape", "Transpose"] * 2 + ["MatMul"])


def test_bias_of_a_matmul_stays():
    graph = graph_of(
        "g (float[N, L, 4] x) => (float[] y) { h = MatMul(x, w)  y = Add(h, c) }", w=random(4, 6), c=random(6)
    )
    rewrite(graph, FoldScale(), x=random(2, 3, 4))
    assert ops(graph) == ["MatMul", "Add"]


@pytest.mark.parametrize("c", [random(5, 1), random(5, 5), random(1, 1, 5, 5), random(3, 1, 1, 1, 1)])
def test_leaves_constants_that_vary_elsewhere(c):
    graph = graph_of(
        "g (float[N, 4, 5, 5] x) => (float[] y) { h = Conv <pads = [1, 1, 1, 1]> (x, w)  y = Mul(h, c) }",
        w=random(6, 4, 3, 3),
        c=c,
    )
    rewrite(graph, FoldScale(), x=random(2, 4, 5, 5))
    assert ops(graph) == ["Conv", "Mul"]


def test_declines_a_layer_that_others_read():
    graph = graph_of(
        "g (float[N, 4] x) => (float[] y, float[] z) { h = Gemm(x, w)  y = Mul(h, c)  z = Relu(h) }",
        w=random(4, 6),
        c=random(6),
    )
    ctx = rewrite(graph, FoldScale(), x=random(3, 4))
    assert sorted(ops(graph)) == ["Gemm", "Mul", "Relu"]
    assert "other nodes read 'h'" in reasons(ctx)[0]


def test_leaves_division_by_the_layer():
    constants = {"w": random(4, 6), "b": np.full(6, 50, np.float32), "c": random(6)}
    graph = graph_of("g (float[N, 4] x) => (float[] y) { h = Gemm(x, w, b)  y = Div(c, h) }", **constants)
    rewrite(graph, FoldScale(), x=random(3, 4))
    assert ops(graph) == ["Gemm", "Div"]
