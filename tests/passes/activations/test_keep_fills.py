from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.fill_tails import border_fills
from qcompiler.graph.ir import producer
from qcompiler.graph.value_kinds import value_kinds
from qcompiler.passes.activations.keep_fills import KeepFills
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, rewrite

HEAD = "g (float[N, 5] x, bool[N, 5] c) => (float[] y, int64[N] k) { h = MatMul(x, w) "
W = np.eye(5, dtype=np.float32)
FEED = {"x": random(4, 5), "c": np.eye(4, 5, dtype=bool)}
LOW = np.float32(-1e9)


def at_border(graph: object) -> list[str]:
    found = border_fills(graph, value_kinds(graph))  # type: ignore[arg-type]
    return [node.op for node in graph.nodes if id(node) in found]  # type: ignore[attr-defined]


def test_an_output_has_the_nodes_that_fill_it_for_itself() -> None:
    graph = graph_of(HEAD + "y = Where(c, h, low)  k = ArgMax <axis = 1, keepdims = 0> (y) }", w=W, low=LOW)
    assert at_border(graph) == []
    rewrite(graph, KeepFills(), tolerance=0, **FEED)
    assert sorted(ops(graph)) == ["ArgMax", "MatMul", "Where", "Where"]
    assert at_border(graph) == ["Where"]


@pytest.mark.parametrize("mask", [
    "f = Cast <to = 1> (c)  i = Sub(one, f)  b = Mul(i, low)",
    "f = Cast <to = 1> (c)  b = Mul(f, low)",
    "b = Where(c, zero, low)",
    "b = Where(c, low, zero)",
])  # fmt: skip
@pytest.mark.parametrize("add", ["y = Add(h, b)", "y = Add(b, h)", "n = Neg(b)  y = Sub(h, n)"])
def test_what_a_mask_adds_becomes_a_choice(mask: str, add: str) -> None:
    constants = {"w": W, "low": LOW, "one": np.float32(1), "zero": np.float32(0)}
    text = HEAD + f"{mask}  {add}  k = ArgMax <axis = 1, keepdims = 0> (h) }}"
    graph = graph_of(text, **{name: value for name, value in constants.items() if name in text})
    rewrite(graph, KeepFills(), tolerance=1e-6, **FEED)
    last = producer(graph.outputs[0])
    assert last is not None
    assert last.op == "Where"
    assert at_border(graph) == ["Where"]


def test_small_fills_are_added_at_the_border() -> None:
    text = HEAD + "b = Where(c, zero, low)  y = Add(h, b)  k = ArgMax <axis = 1, keepdims = 0> (h) }"
    graph = graph_of(text, w=W, low=np.float32(-100), zero=np.float32(0))
    rewrite(graph, KeepFills(), tolerance=0, **FEED)
    assert at_border(graph) == ["Add"]


def test_a_computed_fill_becomes_a_number_in_its_shape() -> None:
    graph = graph_of(
        HEAD + "s = Shape(h)  one = ConstantOfShape <value = float[1] {1}> (s)  p = Mul(one, low)  "
        "y = Concat <axis = 0> (h, p)  k = ArgMax <axis = 1, keepdims = 0> (h) }",
        w=W, low=LOW,
    )  # fmt: skip
    rewrite(graph, KeepFills(), tolerance=0, **FEED)
    assert "Mul" not in ops(graph)
    assert at_border(graph) == ["Expand", "Concat"]


@pytest.mark.parametrize("rest", [
    "a = Where(c, h, low)  y = Relu(a)",
    "y = Where(c, x, low)",
    "a = Where(c, h, low)  y = Where(c, a, other)",
])  # fmt: skip
def test_what_computes_with_a_fill_has_no_input_grid_or_two_fills_of_a_sign_is_left(rest: str) -> None:
    text = HEAD + rest + "  k = ArgMax <axis = 1, keepdims = 0> (h) }"
    constants = {"w": W, "low": LOW, "other": np.float32(-1e5)}
    graph = graph_of(text, **{name: value for name, value in constants.items() if name in text})
    rewrite(graph, KeepFills(), tolerance=0, **FEED)
    assert at_border(graph) == []
