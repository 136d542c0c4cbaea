from __future__ import annotations

import numpy as np
import pytest

from qcompiler.passes.normalize.masked_mean import MaskedMean
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

MASK = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0], [0, 0, 0, 0, 0]], np.int64)
HEAD = "f = Cast <to = 1> (m)  u = Unsqueeze(f, last)  k = Mul(x, u)  s = ReduceSum <keepdims = 0> (k, one)"
TEXT = "g (float[N, T, 4] x, int64[N, T] m) => (float[N, 4] y) {{ " + HEAD + "  {count}  y = Div(s, n) }}"


@pytest.mark.parametrize(("count", "constants"), [
    ("n0 = ReduceSum <keepdims = 0> (u, one)  n = Clip(n0, least)", {"least": np.float32(1e-9)}),
    ("n0 = ReduceSum <keepdims = 0> (u, one)  n = Max(n0, least)", {"least": np.float32(1)}),
    ("n0 = ReduceSum <keepdims = 1> (f, one)  n = Clip(n0, least)", {"least": np.float32(0.5)}),
    ("n0 = ReduceSum <keepdims = 1> (f, one)  n = Add(least, n0)", {"least": np.float32(1e-7)}),
])  # fmt: skip
def test_a_quotient_of_sums_is_one_of_means(count: str, constants: dict[str, np.ndarray]) -> None:
    graph = graph_of(TEXT.format(count=count), last=np.array([2]), one=np.array([1]), **constants)
    rewrite(graph, MaskedMean(), tolerance=1e-6, x=random(3, 5, 4), m=MASK)
    assert ops(graph).count("ReduceMean") == 2
    assert "ReduceSum" not in ops(graph)


def test_a_bound_that_counts_stays() -> None:
    text = TEXT.format(count="n0 = ReduceSum <keepdims = 0> (u, one)  n = Max(n0, least)")
    graph = graph_of(text, last=np.array([2]), one=np.array([1]), least=np.float32(2))
    rewrite(graph, MaskedMean(), x=random(3, 5, 4), m=MASK)
    assert "ReduceMean" not in ops(graph)


def test_sums_over_other_lengths_stay() -> None:
    text = """g (float[N, T, 4] x, int64[N, S] m) => (float[N, 4] y) {
        f = Cast <to = 1> (m)  s = ReduceSum <keepdims = 0> (x, one)  n = ReduceSum <keepdims = 1> (f, one)
        y = Div(s, n) }"""
    graph = graph_of(text, one=np.array([1]))
    ctx = rewrite(graph, MaskedMean(), x=random(3, 5, 4), m=MASK[:, :4] | 1)
    assert "different lengths" in reasons(ctx)[0]
