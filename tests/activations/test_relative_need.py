from __future__ import annotations

import numpy as np
import pytest

from qcompiler.activations.relative_need import lost_operands
from tests.helpers.graphs import graph_of

RNG = np.random.default_rng(2)
FLAT = RNG.uniform(0.5, 1, (64, 4)).astype(np.float32)
DECADES = (10.0 ** RNG.uniform(-6, 0, (64, 1)) * FLAT).astype(np.float32)


def names(text: str, x: np.ndarray, *, by_bytes: bool = False, **constants: np.ndarray) -> set[str]:
    """Names of the operands whose small values are lost."""
    graph = graph_of(f"g (float[N, 4] x) => (float y) {{ {text} }}", **constants)
    tensors = {id(tensor): tensor.name for node in graph.nodes for tensor in node.inputs}
    lost = lost_operands(graph, [{"x": x}])
    return {tensors[key] for key in (lost.bytes if by_bytes else lost.words)}


@pytest.mark.parametrize(
    "text", ["y = Log(a)", "y = Reciprocal(a)", "y = Div(x, a)", "y = Pow(a, minus)", "r = Sqrt(a)  y = Log(r)"]
)
def test_decades_are_lost_to_even_steps_and_one_is_not(text: str) -> None:
    constants = {"minus": np.float32(-0.5)} if "minus" in text else {}
    assert names(f"a = Abs(x)  {text}", DECADES, **constants)
    assert not names(f"a = Abs(x)  {text}", FLAT, **constants)


@pytest.mark.parametrize("exponent", [0.5, 0.25])
def test_what_even_steps_lose_of_a_root_is_what_rounding_to_them_costs(exponent: float) -> None:
    told = set()
    for decades in (0.0, 2.0, 4.0, 6.0, 9.0, 12.0):
        x = (10.0 ** RNG.uniform(-decades, 0, (512, 4)) * RNG.choice([1e-3, 1.0, 50.0])).astype(np.float32)
        step = x.max() / 255
        roots, rounded = (np.float64(values) ** exponent for values in (x, np.rint(x / step) * step))
        noise = np.square(rounded - roots).mean() / np.square(roots).mean() / 1e-3
        lost = bool(names("a = Abs(x)  y = Pow(a, e)", x, by_bytes=True, e=np.float32(exponent)))
        assert lost == (noise > 1) or 1 / 3 < noise < 3
        told.add(lost)
    assert told == {False, True}


def test_fewer_bits_lose_sooner() -> None:
    three = np.sqrt(DECADES)
    assert not names("a = Abs(x)  y = Log(a)", three)
    assert names("a = Abs(x)  y = Log(a)", three, by_bytes=True) == {"a"}


def test_small_numerators_of_small_quotients_are_not_told_from_each_other() -> None:
    text = "a = Exp(x)  m = ReduceMax(a, axes)  n = Div(a, m)  y = Relu(n)"
    rows = (RNG.uniform(0, 16, (64, 1)) * np.ones((1, 4))).astype(np.float32)
    assert "m" in names(text, rows, axes=np.array([1]))


def test_rows_of_a_normalization() -> None:
    text = "y = LayerNormalization (x, one)"
    assert names(text, DECADES, by_bytes=True, one=np.ones(4, np.float32)) == {"x"}
    assert not names(text, DECADES, one=np.ones(4, np.float32))
    assert not names(text, RNG.standard_normal((64, 4)).astype(np.float32), by_bytes=True, one=np.ones(4, np.float32))


def test_counts_are_exact() -> None:
    assert not names("s = Shape <start = 0, end = 1> (x)  c = Cast <to = 1> (s)  y = Div(x, c)", FLAT)
