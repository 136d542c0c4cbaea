"""Division and remainder of integers against ONNX's."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

import qcompiler
from qcompiler.api import Options
from qcompiler.errors import UnsupportedError
from qcompiler.graph.runner import Runner
from tests.helpers.graphs import graph_of

TEXT = "g (int64[N, 6] a, float[N, 4] x) => (int64[N, 6] q, int64[N, 6] r, int64[N, 6] s, float[N, 4] y) {{ {} }}"
BODY = "q = Div(a, b)  r = Mod(a, b)  z = Shape <start = 0, end = 1> (x)  s = Div(a, z)  y = Relu(x)"


def test_quotients_are_those_of_onnx() -> None:
    rng = np.random.default_rng(0)
    divisors = np.array([1, 2, 3, 7, 1000, 1 << 31])
    model = gs.export_onnx(graph_of(TEXT.format(BODY), b=divisors))

    def feed(rows: int) -> dict[str, np.ndarray]:
        near = rng.integers(-20, 20, (rows, 6)) * divisors + rng.integers(-1, 2, (rows, 6))
        return {"a": near, "x": rng.normal(size=(rows, 4)).astype(np.float32)}

    program = qcompiler.compile(model, data=[feed(3), feed(5)], options=Options(level=0), for_onnx=False).session()
    for rows in (1, 2, 7, 40):
        given = feed(rows)
        got, wanted = program.run(given), Runner(model).run(given)
        for name in "qrs":
            np.testing.assert_array_equal(got[name], wanted[name])


def test_a_divisor_of_unknown_sign_is_refused() -> None:
    text = TEXT.format("q = Div(a, a)  r = Mod(a, a)  s = Add(a, a)  y = Relu(x)")
    feed = {"a": np.ones((2, 6), np.int64), "x": np.ones((2, 4), np.float32)}
    compiled = qcompiler.compile(
        gs.export_onnx(graph_of(text)), data=[feed], options=Options(level=0), for_onnx=False
    )
    with pytest.raises(UnsupportedError, match="'a' is not known to be positive"):
        compiled.session()
