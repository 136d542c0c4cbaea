from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.normalize.fold_shapes import FoldShapes, reshape_form
from qcompiler.shapes.infer import symbol
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

N, L = symbol("N"), symbol("L")


@pytest.mark.parametrize(
    ("x", "target", "form"),
    [
        ((N, L, 384), [N, L, 12, 32], [0, 0, 12, 32]),
        ((N, L, 12, 32), [N, L, 384], [0, 0, 384]),
        ((N, 12, L, 32), [N * 12, L, 32], None),
        ((N, 8, L), [N * 8, L], None),
        ((N, 8, 4), [N * 8, 4], [-1, 4]),
        ((N, 120, 4), [0, 1, L, 120], [0, 1, -1, 120]),
        ((N, 6), [-1, 2], [-1, 2]),
        ((4, 6), [6, 4], [6, 4]),
        (None, [L, 3], [-1, 3]),
        (None, [N, L], None),
    ],
)
def test_reshape_form(x, target, form):
    assert reshape_form(x, target) == form


def test_folds_heads_of_attention():
    graph = graph_of(
        """g (float[N, L, 12] x) => (float[N, L, 3, 4] y) {
            s = Shape(x)  n = Gather(s, zero)  l = Gather(s, one)
            n1 = Unsqueeze(n, ax)  l1 = Unsqueeze(l, ax)  t = Concat <axis = 0> (n1, l1, rest)  y = Reshape(x, t) }""",
        zero=np.int64(0), one=np.int64(1), ax=np.array([0]), rest=np.array([3, 4]),
    )  # fmt: skip
    rewrite(graph, FoldShapes(), x=random(2, 5, 12))
    assert ops(graph) == ["Reshape"]
    assert graph.nodes[0].inputs[1].values.tolist() == [0, 0, 3, 4]


def test_folds_numbers_that_come_through_float():
    graph = graph_of(
        """g (float[N, 8, 6] x) => (float[N, 16, 3] y) {
            s = Shape(x)  c = Gather(s, one)  f = Cast <to = 1> (c)  d = Mul(f, two)  r = Floor(d)
            i = Cast <to = 7> (r)
            i1 = Unsqueeze(i, ax)  t = Concat <axis = 0> (m, i1, three)  y = Reshape(x, t) }""",
        one=np.int64(1), two=np.float32(2), ax=np.array([0]), m=np.array([-1]), three=np.array([3]),
    )  # fmt: skip
    rewrite(graph, FoldShapes(), x=random(2, 8, 6))
    assert ops(graph) == ["Reshape"]
    assert graph.nodes[0].inputs[1].values.tolist() == [-1, 16, 3]


def test_resize_to_twice_the_size_becomes_scales():
    graph = graph_of(
        """g (float[N, 2, H, W] x) => (float[N, 2, U, V] y) {
            s = Shape(x)  hw = Slice(s, two, four)  d = Mul(hw, k)  nc = Slice(s, zero, two)
            t = Concat <axis = 0> (nc, d)
            y = Resize <mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , ,
            t) }""",
        zero=np.array([0]), two=np.array([2]), four=np.array([4]), k=np.array([2]),
    )  # fmt: skip
    rewrite(graph, FoldShapes(), x=random(1, 2, 3, 5))
    assert ops(graph) == ["Resize"]
    assert graph.nodes[0].inputs[2].values.tolist() == [1, 1, 2, 2]


def test_slice_to_the_own_end_and_expand_to_the_own_shape():
    graph = graph_of(
        """g (float[N, L] x) => (float[N, L] y) {
            s = Shape(x)  l = Slice(s, one, two)  h = Slice(x, zero, l, one, one)  y = Expand(h, s) }""",
        zero=np.array([0]), one=np.array([1]), two=np.array([2]),
    )  # fmt: skip
    rewrite(graph, FoldShapes(), x=random(2, 5))
    assert ops(graph) == ["Slice", "Expand"]
    assert graph.nodes[1].inputs[1].values.tolist() == [1, 1]


def test_declines_a_table_sliced_to_a_symbolic_length():
    graph = graph_of(
        """g (float[N, L] x) => (float[M] y) { s = Shape(x)  l = Slice(s, one, two)
        y = Slice(table, zero, l, zero) }""",
        zero=np.array([0]), one=np.array([1]), two=np.array([2]), table=random(16),
    )  # fmt: skip
    ctx = rewrite(graph, FoldShapes(), x=random(2, 5))
    assert "depends on symbolic sizes" in reasons(ctx)[0]


def test_an_output_keeps_its_node():
    graph = graph_of("g (float[2, 3] x) => (int64[2] y) { y = Shape(x) }")
    rewrite(graph, FoldShapes(), x=random(2, 3))
    assert ops(graph) == ["Shape"]
