"""What enters and leaves a program: codes, integers, sizes, values that nothing quantizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcompiler.errors import UnsupportedError
from qcompiler.lowering import lower_graph
from tests.helpers.graphs import graph_of
from tests.lowering.checked import check

GRIDS = (
    "s = Constant<value_float=0.02>() t = Constant<value_float=0.05>() z = Constant<value=uint8 {128}>() k = "
    "Constant<value=int8 {3}>() "
)
QUANTIZED = "a = QuantizeLinear(x, s, z) y = DequantizeLinear(a, s, z) "
READ = "a = QuantizeLinear(x, s, z) c = DequantizeLinear(a, s, z) "
RELU = "b = Relu(a) c = QuantizeLinear(b, t, z) y = DequantizeLinear(c, t, z)"
SUM = (
    "b = QuantizeLinear(x, t, z) d = DequantizeLinear(b, t, z) e = Add(c, d) f = QuantizeLinear(e, t, z) y = "
    "DequantizeLinear(f, t, z)"
)
CASES = {
    "one input on two grids": ("float[2,3,4] x", "float[] y", READ + SUM),
    "codes leave": ("float[2,3,4] x", "uint8[] q", READ + "d = Relu(c) q = QuantizeLinear(d, t, z)"),
    "codes enter": ("uint8[2,3,4] x", "float[] y", "a = DequantizeLinear(x, s, z) " + RELU),
    "int8 codes enter": ("int8[2,3,4] x", "float[] y", "a = DequantizeLinear(x, s, k) " + RELU),
    "one value twice": ("float[2,3,4] x", "float[] y, float[] w", QUANTIZED + "w = Transpose<perm=[0,2,1]>(y)"),
    "sizes leave": ("float[2,3,4] x", "int64[] n, float[] y", QUANTIZED + "n = Shape(x)"),
    "inputs that nothing reads": ("float[2,3,4] x, float[3] u, int64[2] v", "float[] y", QUANTIZED),
    "images leave in ONNX order": (
        "float[2,3,4,4] x",
        "uint8[] q",
        READ + "d = MaxPool<kernel_shape=[2,2]>(c) q = QuantizeLinear(d, s, z)",
    ),
}


def _feed(kind: Any, shape: list[int]) -> np.ndarray:
    rng = np.random.default_rng(0)
    if np.dtype(kind) == np.float32:
        return rng.normal(size=shape).astype(np.float32)
    info = np.iinfo(kind)
    return rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)


@pytest.mark.parametrize("case", CASES)
def test_borders(case: str) -> None:
    inputs, outputs, body = CASES[case]
    graph = graph_of(f"g ({inputs}) => ({outputs}) {{ {GRIDS} {body} }}")
    feed = {tensor.name: _feed(tensor.dtype, tensor.shape) for tensor in graph.inputs}
    result = check(graph, feed)
    for name, value in result.expected.items():
        assert result.outputs[name].dtype == value.dtype
        np.testing.assert_allclose(result.outputs[name], value, atol=1e-6)


@pytest.mark.parametrize("body", ["y = Identity(x)", "y = Softmax(x)"])
def test_a_float_input_without_a_grid_is_refused(body: str) -> None:
    with pytest.raises(
        UnsupportedError,
        match="it needs the range of 'x'; put a QuantizeLinear/DequantizeLinear pair behind that tensor",
    ):
        lower_graph(graph_of(f"g (float[2,3] x) => (float[] y) {{ {body} }}"))
