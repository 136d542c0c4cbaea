from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import Constant
from qcompiler.graph.runner import Runner
from qcompiler.passes.normalize.clamp_attention_mask import ClampAttentionMask
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

LIMIT = -168.0
MASK = np.array([[1, 1, 1, 0, 0], [1, 0, 1, 1, 0]], np.int64)


def smallest_constant(graph) -> float:
    return min(
        float(t.values.min())
        for node in graph.nodes
        for t in node.inputs
        if isinstance(t, Constant) and t.dtype == np.float32
    )


@pytest.mark.parametrize("low", [-1e4, -3.4e38, -np.inf])
def test_probabilities_are_the_same_bits(low):
    causal = np.triu(np.full((5, 5), low, np.float32), 1)
    graph = graph_of("g (float[N, 5, 5] x) => (float[] y) { h = Add(x, m)  y = Softmax <axis = -1> (h) }", m=causal)
    ctx = rewrite(graph, ClampAttentionMask(), tolerance=0, x=random(2, 5, 5, low=-30, high=30))
    assert smallest_constant(graph) == LIMIT
    assert not reasons(ctx)


def test_underflow_is_exact_at_the_bound():
    """At the largest spread that is promised, onnxruntime's Softmax gives exactly 0 for the masked score."""
    graph = graph_of("g (float[1, 2] x) => (float[1, 2] y) { y = Softmax(x) }")
    result = Runner(graph).run({"x": np.array([[0.0, 64.0 + LIMIT]], np.float32)})["y"]
    assert result.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("low", [-1e4, -1e9])
def test_mask_made_from_token_mask(low):
    graph = graph_of(
        """g (float[N, H, 5, 5] x, int64[N, 5] mask) => (float[] y) {
            f = Cast <to = 1> (mask)  u = Unsqueeze(f, ax)  i = Sub(one, u)  m = Mul(i, low)  h = Add(x, m)
            y = Softmax(h) }""",
        ax=np.array([1, 2]), one=np.float32(1), low=np.float32(low),
    )  # fmt: skip
    rewrite(graph, ClampAttentionMask(), tolerance=0, x=random(2, 3, 5, 5, low=-20, high=20), mask=MASK)
    assert smallest_constant(graph) == LIMIT


def test_choice_between_scores_and_constant():
    graph = graph_of(
        "g (float[N, 5] x, int64[N, 5] mask) => (float[] y) { b = Cast <to = 9> (mask)  h = Where(b, x, low)  y = "
        "Softmax(h) }",
        low=np.float32(-np.inf),
    )  # fmt: skip
    rewrite(graph, ClampAttentionMask(), tolerance=0, x=random(2, 5), mask=MASK)
    assert smallest_constant(graph) == LIMIT


def test_only_the_reader_that_is_harmless_gets_the_new_constant():
    low = np.array([0, 0, 0, 0, -1e4], np.float32)
    graph = graph_of(
        "g (float[N, 5] x) => (float[] y, float[] z) { h = Add(x, low)  y = Softmax(h)  z = Add(x, low) }", low=low
    )
    rewrite(graph, ClampAttentionMask(), tolerance=0, x=random(2, 5))
    assert [node.inputs[1].values.min() for node in graph.nodes if node.op == "Add"] == [LIMIT, -1e4]


@pytest.mark.parametrize(
    "rest",
    [
        "y = Relu(h)",
        "y = LogSoftmax(h)",
        "s = Softmax(h)  y = Add(s, h)",
        "k = Mul(h, half)  y = Softmax(k)",
    ],
)
def test_keeps_constants_that_reach_anything_else(rest):
    low = np.array([0, 0, 0, 0, -1e4], np.float32)
    graph = graph_of(f"g (float[N, 5] x) => (float[] y) {{ h = Add(x, low)  {rest} }}", low=low, half=np.float32(0.5))
    rewrite(graph, ClampAttentionMask(), tolerance=0, x=random(2, 5))
    assert smallest_constant(graph) == -1e4


def test_keeps_a_factor_of_something_that_need_not_be_whole():
    graph = graph_of(
        "g (float[N, 5] x, float[N, 5] p) => (float[] y) { m = Mul(p, low)  h = Add(x, m)  y = Softmax(h) }",
        low=np.float32(-1e4),
    )
    rewrite(graph, ClampAttentionMask(), tolerance=0, x=random(2, 5), p=random(2, 5, low=0, high=1e-3))
    assert smallest_constant(graph) == -1e4


def test_says_why_a_mask_was_kept():
    graph = graph_of(
        "g (float[N, 5] x, int64[N, 5] mask) => (float[] y) { f = Cast <to = 1> (mask)  m = Mul(f, low)  y = Add(x, m) "
        "}",
        low=np.float32(-1e4),
    )
    ctx = rewrite(graph, ClampAttentionMask(), x=random(2, 5), mask=MASK)
    assert ops(graph) == ["Cast", "Mul", "Add"]
    assert "reaches more than a Softmax" in reasons(ctx)[0]
