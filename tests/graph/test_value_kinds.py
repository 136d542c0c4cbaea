"""What is known of values without looking at data."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qcompiler.graph.exactness import exact_nodes, filled
from qcompiler.graph.mask_inputs import mask_candidates, mask_inputs
from qcompiler.graph.runner import Runner
from qcompiler.graph.value_kinds import Kind, value_kinds
from tests.helpers.graphs import graph_of

NUMBERS = {"one": np.float32(1), "low": np.float32(-1e9), "zero": np.float32(0), "ax": np.array([1])}


def used(text: str) -> dict[str, np.ndarray]:
    words = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return {name: np.asarray(value) for name, value in NUMBERS.items() if name in words}


@pytest.mark.parametrize("name", ["attention_mask", "tokens_seen"])
def test_a_mask_is_known_by_its_name_or_its_use(name: str) -> None:
    text = f"""g (float[N, T] x, int64[N, T] {name}) => (float[N, T] y) {{
        f = Cast <to = 1> ({name})  i = Sub(one, f)  m = Mul(i, low)  y = Add(x, m) }}"""
    graph = graph_of(text, **used(text))
    assert set(mask_candidates(graph)) == {name}
    assert set(mask_inputs(graph, {name: {1.0}})) == {name}
    assert not mask_inputs(graph, {name: {0.0, 1.0, 2.0}})
    kinds = value_kinds(graph, mask_inputs(graph))
    assert (kinds["m"].kind, kinds["m"].values) == (Kind.TRUTH, (float(np.float32(-1e9)), 0.0))
    assert kinds["y"].kind == Kind.DATA
    assert filled(graph, kinds) == {"y"}


@pytest.mark.parametrize(("text", "kind", "lo", "hi"), [
    ("f = Cast <to = 1> (p)  y = Sin(f)", Kind.INDEX, -1, 1),
    ("c = Cast <to = 1> (p)  l = Greater(c, zero)  f = Cast <to = 1> (l)  y = ReduceSum(f, ax)", Kind.INDEX, 0,
    math.inf),
    ("c = Cast <to = 1> (p)  l = Greater(c, zero)  f = Cast <to = 1> (l)  y = ReduceMean(f, ax)", Kind.INDEX, 0, 1),
    ("s = Shape(p)  f = Cast <to = 1> (s)  y = Neg(f)", Kind.INDEX, -math.inf, 0),
    ("f = Cast <to = 1> (p)  y = Mul(f, one)", Kind.DATA, -math.inf, math.inf),
])  # fmt: skip
def test_bounds_hold_whatever_the_feed(text: str, kind: Kind, lo: float, hi: float) -> None:
    graph = graph_of(f"g (int64[N, T] p) => (float[] y) {{ {text} }}", **used(text))
    value = value_kinds(graph)["y"]
    assert (value.kind, value.lo, value.hi) == (kind, lo, hi)


def test_bounds_hold_on_random_exact_arithmetic() -> None:
    rng = np.random.default_rng(0)
    binary, unary = ("Add", "Sub", "Mul", "Min", "Max"), ("Neg", "Abs", "Sin", "Cos", "Floor", "Relu", "Tanh")
    for _ in range(20):
        lines, names = ["a0 = Cast <to = 1> (m)", "a1 = Cast <to = 1> (p)", "k = Cos(a1)"], ["a0", "k", "one", "half"]
        for index in range(6):
            op = str(rng.choice((*binary, *unary)))
            operands = rng.choice(names, 2 if op in binary else 1)
            lines.append(f"b{index} = {op}({', '.join(operands)})")
            names.append(f"b{index}")
        text = f"g (bool[N, T] m, int64[N, T] p) => (float[] b5) {{ {'  '.join(lines)} }}"
        graph = graph_of(text, one=np.float32(1), half=np.float32(-0.5))
        value = value_kinds(graph)["b5"]
        feed = {"m": rng.random((5, 7)) < 0.5, "p": rng.integers(0, 10**6, (5, 7))}
        got = Runner(graph).run(feed)["b5"].astype(float)
        assert value.exact
        assert value.lo - 1e-5 <= got.min() <= got.max() <= value.hi + 1e-5, text
        assert value.values is None or np.abs(got[..., None] - np.asarray(value.values)).min(axis=-1).max() < 1e-5, text


def test_what_computes_with_positions_stays_and_what_reads_a_bounded_one_does_not() -> None:
    text = """g (float[N, T] x, int64[N, T] position) => (float[N, T] y) {
        f = Cast <to = 1> (position)  c = Cos(f)  h = Mul(x, c)  y = Div(h, f) }"""
    graph = graph_of(text)
    exact = exact_nodes(graph, value_kinds(graph))
    assert [node.op for node in graph.nodes if id(node) in exact] == ["Cast", "Cos", "Div"]


def test_an_operator_without_inputs_is_of_any_value() -> None:
    graph = graph_of("g (float[4] x) => (float[4] y) { r = RandomNormal <shape = [4]> ()  y = Add(x, r) }")
    assert not value_kinds(graph, {})["r"].exact
