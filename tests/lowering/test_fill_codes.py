"""Outputs with fills: the machine, onnxruntime on the pairs, and the integer file."""

from __future__ import annotations

import numpy as np
import pytest

from tests.helpers.graphs import graph_of
from tests.lowering.checked import check

GRID = (
    "s = Constant<value_float=0.02>() z = Constant<value=uint8 {128}>() a = QuantizeLinear(x, s, z) h = "
    "DequantizeLinear(a, s, z) "
)
WAYS = {
    "where": "y = Where(c, h, low)",
    "where, other side": "y = Where(c, low, h)",
    "both signs": "b = Where(c, h, low)  y = Where(d, high, b)",
    "pad": "y = Pad(h, pads, low)",
    "join": "p = Expand(low, sizes)  y = Concat <axis = 1> (p, h)",
    "nothing to join": "p = Expand(low, none)  y = Concat <axis = 1> (h, p)",
    "moved": "b = Where(c, h, low)  t = Transpose <perm = [1, 0]> (b)  y = Reshape(t, flat)",
    "largest": "b = Where(c, h, low)  y = ReduceMax <keepdims = 0> (b, one)",
    "smallest": "b = Where(c, h, high)  y = ReduceMin <keepdims = 0> (b, one)",
    "a fill among the data's range": "y = Where(c, h, near)",
}


@pytest.mark.parametrize("low", [-1e9, -100.0, float(np.finfo(np.float32).min), -np.inf])
@pytest.mark.parametrize("way", WAYS)
def test_fills_come_back(way: str, low: float) -> None:
    text = f"g (float[4, 6] x, bool[4, 6] c, bool[4, 6] d) => (float[] y) {{ {GRID} {WAYS[way]} }}"
    constants = {
        "low": np.float32(low), "high": np.float32(-low), "pads": np.array([0, 1, 1, 0]), "sizes": np.array([4, 2]),
        "none": np.array([4, 0]), "flat": np.array([-1]), "one": np.array([1]), "near": np.float32(-1.5),
    }  # fmt: skip
    words = WAYS[way].replace("(", " ").replace(")", " ").replace(",", " ").split()
    graph = graph_of(text, **{name: value for name, value in constants.items() if name in words})
    rng = np.random.default_rng(len(way))
    x, c, d = rng.uniform(-3, 3, (4, 6)).astype(np.float32), rng.random((4, 6)) < 0.6, rng.random((4, 6)) < 0.2
    feed = {"x": x, "c": c, "d": d}
    feed["c"][0] = False
    feed["x"][1, :2] = -9, 9  # the ends of the grid stay data
    result = check(graph, feed)
    far = np.abs(result.expected["y"]) > 30
    np.testing.assert_array_equal(result.outputs["y"][far], result.expected["y"][far])
    np.testing.assert_allclose(result.outputs["y"][~far], result.expected["y"][~far], atol=2e-4)
