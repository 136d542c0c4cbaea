from __future__ import annotations

import numpy as np
import pytest

from qcompiler.activations.fine_layers import fine_parts, refine_layers
from qcompiler.calibration.needed import hold_wide_input
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from tests.helpers.graphs import graph_of, ops

RNG = np.random.default_rng(1)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("g (float[2, 9] x) => (float[2, 4] y) { y = MatMul(x, w) }", (9, 4)),
        ("g (float[2, 9] x) => (float[2, 4] y) { y = Gemm <transB = 1> (x, w, b) }", (4, 9)),
        ("g (float[2, 3, 20] x) => (float[2, 4, 16] y) { y = Conv <kernel_shape = [5]> (x, w, b) }", (4, 3, 5)),
    ],
)
def test_the_parts_of_a_layer_add_up_to_it(text: str, shape: tuple[int, ...]) -> None:
    constants = {"w": normal(*shape)} | ({"b": normal(4)} if "b)" in text else {})
    graph = graph_of(text, **constants)
    feed = {"x": normal(*graph.inputs[0].shape)}
    before = Runner(graph).run(feed)["y"]
    layer = next(iter(find_layers(graph)))
    first = np.moveaxis(fine_parts(layer)[0], layer.axis, 0).reshape(4, -1)
    levels = first / (np.abs(first).max(axis=1, keepdims=True) / 127)
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
    refine_layers(graph, {id(layer.node)}, {*graph.tensors()})
    assert ops(graph).count("Add") == 1
    np.testing.assert_allclose(Runner(graph).run(feed)["y"], before, atol=1e-5)


def test_long_sums_are_divided_until_16_bits_fit() -> None:
    weights = RNG.choice([-1.0, 1.0], (3000, 2)).astype(np.float32)
    weights += np.float32(0.001) * normal(3000, 2)
    graph = graph_of("g (float[2, 3000] x) => (float[2, 2] y) { y = MatMul(x, w) }", w=weights)
    parts = fine_parts(next(iter(find_layers(graph))))
    assert len(parts) > 2
    assert all(hold_wide_input(part.T) for part in parts)
    np.testing.assert_allclose(sum(parts), graph.nodes[0].inputs[1].values, atol=1e-6)
