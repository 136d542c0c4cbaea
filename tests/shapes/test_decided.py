"""Sizes that weights decide, with onnxruntime as the judge: the model runs with them and with no other."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.errors import ModelError
from qcompiler.graph.runner import Runner
from qcompiler.shapes.decided import decided_sizes
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

CASES = {
    "MatMul": ("g (float[T, F] x) => (float[T, 3] y) { y = MatMul(x, w) }", {"w": random(7, 3)}),
    "Gemm": ("g (float[T, F] x) => (float[T, 3] y) { y = Gemm <transB = 1> (x, w) }", {"w": random(3, 7)}),
    "GRU": (
        "g (float[T, F] x) => (float[T, 1, 1, 5] y) { b = Unsqueeze(x, one)  y, h = GRU <hidden_size = 5> (b, w, r) }",
        {"w": random(1, 15, 7), "r": random(1, 15, 5), "one": np.array([1])},
    ),
    "channels of groups": (
        "g (float[1, F, T] x) => (float[1, 4, T] y) { y = Conv <group = 2, kernel_shape = [1]> (x, w) }",
        {"w": random(4, 3, 1)},
    ),
    "joined": (
        "g (float[T, F] x) => (float[T, 3] y) { j = Concat <axis = 1> (x, x, x)  y = MatMul(j, w) }",
        {"w": random(21, 3)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_sizes_that_weights_decide(case: str) -> None:
    text, constants = CASES[case]
    graph = graph_of(text, **constants)
    size = decided_sizes(graph)["F"]
    assert decided_sizes(graph) == {"F": size}
    shape = [1 if dim == 1 else size if dim == "F" else 4 for dim in graph.inputs[0].shape]
    Runner(graph).run({"x": np.zeros(shape, np.float32)})
    with pytest.raises(ModelError):
        Runner(graph).run({"x": np.zeros([dim + (dim == size) for dim in shape], np.float32)})


def test_what_is_not_decided_is_left_out() -> None:
    """Two layers that disagree, a size that only a computed weight meets, an odd number of twice a size."""
    graph = graph_of(
        """g (float[A, A] x, float[B, C] z, float[C, B] v, float[2, D] t) => (float y, float u, float w) {
            a = MatMul(x, p)  b = MatMul(x, q)  y1 = ReduceSum(a)  y2 = ReduceSum(b)  y = Add(y1, y2)
            c = MatMul(z, v)  u = ReduceSum(c)  r = Reshape(t, flat)  d = MatMul(r, o)  w = ReduceSum(d) }""",
        p=random(3, 2), q=random(4, 2), flat=np.array([1, -1]), o=random(7, 2),
    )  # fmt: skip
    assert decided_sizes(graph) == {}
