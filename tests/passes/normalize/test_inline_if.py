from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.normalize.fold_constants import FoldConstants
from qcompiler.passes.normalize.fold_shapes import FoldShapes
from qcompiler.passes.normalize.inline_if import InlineIf
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

BRANCHES = """<then_branch = t () => (float[] a) { r = Relu(h)
a = Mul(r, w) }, else_branch = e () => (float[] b) { r = Neg(h)  b = Add(r, r) }>"""


@pytest.mark.parametrize(
    ("condition", "expected"), [(True, ["Exp", "Relu", "Mul", "Sin"]), (False, ["Exp", "Neg", "Add", "Sin"])]
)
def test_takes_the_chosen_branch(condition, expected):
    graph = graph_of(
        f"g (float[N, 4] x) => (float[] y, float[] z) {{ h = Exp(x)  i = If (c) {BRANCHES}  y = Sin(i)  z = Mul(h, h) "
        f"}}",
        c=np.bool_(condition), w=random(4),
    )  # fmt: skip
    rewrite(graph, InlineIf(), x=random(2, 4))
    assert sorted(ops(graph)) == sorted([*expected, "Mul"])


def test_output_of_the_graph():
    graph = graph_of(
        f"g (float[N, 4] x) => (float[] y) {{ h = Exp(x)  y = If (c) {BRANCHES} }}", c=np.bool_(1), w=random(4)
    )
    rewrite(graph, InlineIf(), x=random(2, 4))
    assert ops(graph) == ["Exp", "Relu", "Mul"]


def test_condition_on_a_shape_and_an_if_inside():
    inner = (
        "a = If (c) <then_branch = u () => (float[] p) { p = Relu(x) }, else_branch = v () => (float[] q) { q = Abs(x) "
        "}>"
    )
    graph = graph_of(
        f"""g (float[N, 1, 4] x) => (float[] y) {{
            s = Shape(x)  d = Gather(s, one)  c = Equal(d, one)
            i = If (c) <then_branch = t () => (float[] o) {{ {inner}  o = Squeeze(a, ax) }},
            else_branch = e () => (float[] b) {{ b = Identity(x) }}>
            y = Neg(i) }}""",
        one=np.int64(1), ax=np.array([1]),
    )  # fmt: skip
    rewrite(graph, FoldShapes(), FoldConstants(), InlineIf(), x=random(2, 1, 4))
    assert ops(graph) == ["Relu", "Squeeze", "Neg"]


def test_branch_that_is_a_constant():
    graph = graph_of(
        """g (float[N, 4] x) => (float[] y) {
            i = If (c) <then_branch = t () => (float[4] k) { k = Identity(w) },
            else_branch = e () => (float[4] b) { b = Neg(w) }>
            y = Add(x, i) }""",
        c=np.bool_(1), w=random(4),
    )  # fmt: skip
    rewrite(graph, InlineIf(), FoldConstants(), x=random(2, 4))
    assert ops(graph) == ["Add"]


def test_declines_a_condition_of_the_run():
    graph = graph_of(f"g (float[N, 4] x, bool c) => (float[] y) {{ h = Exp(x)  y = If (c) {BRANCHES} }}", w=random(4))
    ctx = rewrite(graph, InlineIf(), x=random(2, 4), c=np.array(True))
    assert ops(graph) == ["Exp", "If"]
    assert "only known when it runs" in reasons(ctx)[0]


def test_a_condition_that_follows_from_an_inlined_branch() -> None:
    """The size that the second If asks for is known only when the first is gone."""
    text = """g (float[2, 4] x, float[4, 3] w) => (float[?, ?] y) {
        s = Shape(x) n = Gather(s, i) c = Cast<to = 9>(n)
        a = If (c) <then_branch = t1 () => (float[2, 3] p) { p = MatMul(x, w) }, else_branch = e1 () => (float[2,
        4] q) { q = Relu(x) }>
        r = Shape(a) m = Gather(r, j) d = Equal(m, three)
        y = If (d) <then_branch = t2 () => (float[2, 3] u) { u = Neg(a) }, else_branch = e2 () => (float[2,
        3] v) { v = Abs(a) }>
    }"""
    graph = graph_of(text, i=np.int64(0), j=np.int64(1), three=np.int64(3))
    rewrite(graph, FoldShapes(), x=random(2, 4), w=random(4, 3))
    rewrite(graph, InlineIf(), x=random(2, 4), w=random(4, 3))
    assert sorted(op for op in ops(graph) if op in ("If", "MatMul", "Neg", "Abs", "Relu")) == ["MatMul", "Neg"]
