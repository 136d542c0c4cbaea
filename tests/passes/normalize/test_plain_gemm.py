from __future__ import annotations

import numpy as np

from qcompiler.passes.normalize.plain_gemm import PlainGemm
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite


def test_factors_go_into_the_constants_and_transposition_out():
    graph = graph_of(
        "g (float[4, 3] x) => (float[3, 6] y) { y = Gemm <alpha = 0.5, beta = 3.0, transA = 1, transB = 1> (x, w, b) }",
        w=random(6, 4),
        b=random(6),
    )
    rewrite(graph, PlainGemm(), x=random(4, 3))
    assert ops(graph) == ["Transpose", "Gemm"]
    assert graph.nodes[1].attrs == {"transB": 1}


def test_declines_computed_weights():
    graph = graph_of("g (float[N, 4] x, float[4, 6] w) => (float[] y) { y = Gemm <alpha = 0.5> (x, w) }")
    ctx = rewrite(graph, PlainGemm(), x=random(3, 4), w=random(4, 6))
    assert ops(graph) == ["Gemm"]
    assert "not constant" in reasons(ctx)[0]


def test_plain_form_stays():
    graph = graph_of(
        "g (float[N, 4] x) => (float[] y) { y = Gemm(x, w, b) }", w=random(4, 6), b=np.zeros(6, np.float32)
    )
    assert not PlainGemm().run(graph, rewrite(graph, x=random(3, 4)))
