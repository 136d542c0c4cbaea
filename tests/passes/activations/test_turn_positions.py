from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.turn_positions import TurnPositions
from tests.helpers.graphs import graph_of, ops

FREQUENCIES = (1e4 ** (-np.arange(8) / 8)).astype(np.float32)


@pytest.mark.parametrize("kind", ["int64", "int32"])
@pytest.mark.parametrize(("angle", "constants"), [
    ("u = Unsqueeze(f, last)  a = Mul(u, k)", {"k": FREQUENCIES, "last": np.array([2])}),
    ("u = Unsqueeze(f, last)  a = Div(u, k)", {"k": (1 / FREQUENCIES), "last": np.array([2])}),
    ("u = Unsqueeze(f, one)  b = MatMul(k, u)  a = Transpose <perm = [0, 2, 1]> (b)",
    {"k": FREQUENCIES[None, :, None], "one": np.array([1])}),
])  # fmt: skip
def test_sines_of_large_positions_are_those_of_exact_angles(
    angle: str, constants: dict[str, np.ndarray], kind: str
) -> None:
    text = f"""g ({kind}[N, T] p) => (float[N, T, 16] s, float[N, T, 16] c) {{
        f = Cast <to = 1> (p)  {angle}  e = Concat <axis = -1> (a, a)  s = Sin(e)  c = Cos(e) }}"""
    graph = graph_of(text, **constants)
    Manager([TurnPositions()]).run(graph, Context())
    assert ops(graph).count("Concat") == 1
    positions = np.random.default_rng(0).integers(-(10**5), 10**5, (2, 9)).astype(kind)
    got = Runner(graph).run({"p": positions})
    exact = np.concatenate([positions[..., None] * FREQUENCIES.astype(np.float64)] * 2, axis=-1)
    # of which 10^5 times the frequencies' own rounding in Div
    np.testing.assert_allclose(got["s"], np.sin(exact), atol=1e-2)
    np.testing.assert_allclose(got["c"], np.cos(exact), atol=1e-2)


def test_a_sine_of_data_stays() -> None:
    graph = graph_of("g (float[N, 4] x) => (float[N, 4] y) { a = Mul(x, k)  y = Sin(a) }", k=np.float32(3))
    assert Manager([TurnPositions()]).run(graph, Context()) is not None
    assert ops(graph) == ["Mul", "Sin"]
