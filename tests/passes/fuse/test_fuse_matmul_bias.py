from __future__ import annotations

import numpy as np
import pytest

from qcompiler.pass_base import Context
from qcompiler.passes.fuse.fuse_matmul_bias import FuseMatMulBias
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, rewrite


@pytest.mark.parametrize("bias", [random(6), random(1, 6)])
def test_two_dimensions_become_a_gemm(bias):
    graph = graph_of("g (float[N, 4] x) => (float[] y) { h = MatMul(x, w)  y = Add(b, h) }", w=random(4, 6), b=bias)
    rewrite(graph, FuseMatMulBias(), x=random(3, 4))
    assert ops(graph) == ["Gemm"]


@pytest.mark.parametrize(
    ("dims", "bias"), [((2, 3, 4), random(6)), ((3, 4), random(3, 6)), ((3, 4), random(1, 1, 6)), ((3, 4), random(1))]
)
def test_other_forms_stay(dims, bias):
    declared = ", ".join(["N", *map(str, dims[1:])])
    graph = graph_of(
        f"g (float[{declared}] x) => (float[] y) {{ h = MatMul(x, w)  y = Add(h, b) }}", w=random(4, 6), b=bias
    )
    rewrite(graph, FuseMatMulBias(), x=random(*dims))
    assert ops(graph) == ["MatMul", "Add"]


def test_a_mask_is_no_bias():
    mask = np.array([0, 0, -np.inf, 0, 0, 0], np.float32)
    graph = graph_of(
        "g (float[N, 4] x) => (float[] y) { h = MatMul(x, w)  s = Add(h, m)  y = Softmax(s) }", w=random(4, 6), m=mask
    )
    FuseMatMulBias().run(graph, Context())
    assert ops(graph) == ["MatMul", "Add", "Softmax"]
