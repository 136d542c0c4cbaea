from __future__ import annotations

import math

import numpy as np
import pytest

from qcompiler.graph.intervals import Intervals, bounded_source
from qcompiler.graph.runner import Runner
from tests.helpers.graphs import graph_of

CASES = {
    "y = Sigmoid(x)": (0, 1), "y = Relu(x)": (0, math.inf), "a = Tanh(x)  y = Mul(a, k)": (-3, 3),
    "a = Sigmoid(x)  y = Sub(k, a)": (2, 3),
    "a = Softmax(x)  b = Transpose(a)  y = Add(b, "
    "k)": (3, 4), "y = Mul(x, x)": (0, math.inf), "a = Tanh(x)  y = Mul(a, a)": (0, 1),
    "y = Clip(x, k, big)": (3, 50), "y = Add(x, k)": (-math.inf, math.inf),
    "a = Erf(x)  b = Sigmoid(x)  y = Concat <axis = 0> (a, b)": (-1, 1),
    "a = Sigmoid(x)  y = Div(a, k)": (0, 1 / 3), "a = Abs(x)  y = Neg(a)": (-math.inf, 0),
    "y = Max(x, k)": (3, math.inf),
    "a = Mul(x, x)  b = Add(a, k)  y = Log(b)": (math.log(3), math.inf),
    "a = Tanh(x)  y = Exp(a)": (math.exp(-1), math.e),
    "a = Sigmoid(x)  b = Mul(a, k)  y = Sqrt(b)": (0, math.sqrt(3)),
    "y = HardSwish(x)": (-0.375, math.inf), "y = LeakyRelu(x)": (-math.inf, math.inf),
    "a = Sigmoid(x)  y = LeakyRelu(a)": (0, 1),
}  # fmt: skip


@pytest.mark.parametrize("body", CASES)
def test_bounds_are_those_of_mathematics_and_hold(body: str) -> None:
    graph = graph_of(f"g (float[5, 5] x) => (float[R, C] y) {{ {body} }}", k=np.float32(3), big=np.float32(50))
    found = Intervals(graph).of(graph.outputs[0])
    assert (found.lo, found.hi) == pytest.approx(CASES[body])
    values = Runner(graph).run({"x": np.random.default_rng(0).uniform(-90, 90, (5, 5)).astype(np.float32)})["y"]
    assert found.lo - 1e-3 <= values.min()
    assert values.max() <= found.hi + 1e-3


def test_a_picture_of_bytes_is_known_behind_its_scaling() -> None:
    graph = graph_of(
        "g (uint8[1, 4, 4, 3] x) => (float[1, 4, 4, 3] y) { a = Cast <to = 1> (x)  b = Div(a, k)  y = Sub(b, one) }",
        k=np.float32(127.5), one=np.float32(1),
    )
    found = Intervals(graph).of(graph.outputs[0])
    assert (found.lo, found.hi) == pytest.approx((-1, 1))


def test_what_moves_a_bounded_value_shows_its_source() -> None:
    graph = graph_of(
        "g (float[2, 3] x) => (float[3, 2] y, float[2, 3] z) { a = Sigmoid(x)  y = Transpose(a)  z = Neg(a) }"
    )
    assert bounded_source(graph.outputs[0]).op == "Sigmoid"  # type: ignore[union-attr]
    assert bounded_source(graph.outputs[1]) is None
