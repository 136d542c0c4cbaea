from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import Graph, spec_of
from qcompiler.graph.layers import BIAS_LIMIT, underlying_constant
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.quantize_weights import QuantizeWeights, absmax_scale
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

CASES = {
    "Conv": (
        "g (float[1, 4, 5, 5] x) => (float[1, 6, 5, 5] y) { y = Conv <group = 2, kernel_shape = [1, 1]> (x, w) }",
        (6, 2, 1, 1),
        0,
    ),
    "ConvTranspose": (
        "g (float[1, 4, 5, 5] x) => (float[1, 6, 5, 5] y) { y = ConvTranspose <group = 2> (x, w) }",
        (4, 3, 1, 1),
        1,
    ),
    "Gemm": ("g (float[5, 4] x) => (float[5, 6] y) { y = Gemm <transB = 1> (x, w) }", (6, 4), 0),
    "MatMul": ("g (float[5, 4] x) => (float[5, 6] y) { y = MatMul(x, w) }", (4, 6), 1),
}


def quantized(graph: Graph, feed: dict[str, np.ndarray]) -> Graph:
    Manager([QuantizeActivations(), QuantizeWeights()]).run(graph, Context(data=[feed]))
    return graph


@pytest.mark.parametrize("op", CASES)
def test_each_output_channel_has_its_own_scale(op):
    text, shape, axis = CASES[op]
    weight = random(*shape) * np.geomspace(0.01, 10, shape[axis]).astype(np.float32).reshape(
        [-1 if i == axis else 1 for i in range(len(shape))]
    )
    feed = {"x": random(1, 4, 5, 5) if "Conv" in op else random(5, 4)}
    graph = graph_of(text, w=weight)
    expected = Runner(graph).run(feed)["y"]
    quantized(graph, feed)
    layer = next(node for node in graph.nodes if node.op == op)
    spec = spec_of(layer.inputs[1])
    assert spec.dtype == np.int8
    assert not spec.zero_point.any()
    np.testing.assert_allclose(spec.scale, absmax_scale(weight, axis), rtol=1e-6)
    codes = spec.quantize(weight)
    assert codes.min() >= -127
    others = tuple(i for i in range(len(shape)) if i != axis)
    assert (np.abs(codes.astype(int)).max(axis=others) == 127).all()
    np.testing.assert_allclose(Runner(graph).run(feed)["y"], expected, atol=0.03 * np.abs(expected).max())


def test_the_weight_stays_float_for_later_passes():
    weight = random(4, 6)
    graph = quantized(graph_of(CASES["MatMul"][0], w=weight), {"x": random(5, 4)})
    layer = next(node for node in graph.nodes if node.op == "MatMul")
    assert np.array_equal(underlying_constant(layer.inputs[1]).values, weight)


def test_a_channel_of_zeros_has_a_scale():
    weight = random(4, 6)
    weight[:, 2] = 0
    graph = quantized(graph_of(CASES["MatMul"][0], w=weight), {"x": random(5, 4)})
    assert (spec_of(next(node for node in graph.nodes if node.op == "MatMul").inputs[1]).scale > 0).all()


def test_a_large_bias_beside_dead_weights_stays_within_int32():
    weight = random(4, 6)
    weight[:, 1] = 1e-12
    bias = np.full(6, 3.0, np.float32)
    graph = quantized(
        graph_of("g (float[5, 4] x) => (float[5, 6] y) { y = Gemm(x, w, b) }", w=weight, b=bias), {"x": random(5, 4)}
    )
    layer = next(node for node in graph.nodes if node.op == "Gemm")
    steps = bias / (spec_of(layer.inputs[0]).scale.astype(np.float64) * spec_of(layer.inputs[1]).scale)
    assert steps.max() <= BIAS_LIMIT * 1.001


def test_recurrent_weights_have_a_scale_for_each_gate_unit():
    graph = graph_of(
        "g (float[T, 1, 3] x) => (float[T, 2, 1, 2] y) { y = GRU <hidden_size = 2, direction = \"bidirectional\"> (x, "
        "w, r) }",
        w=random(2, 6, 3), r=random(2, 6, 2, seed=1),
    )  # fmt: skip
    feed = {"x": random(5, 1, 3)}
    expected = Runner(graph).run(feed)["y"]
    quantized(graph, feed)
    node = next(node for node in graph.nodes if node.op == "GRU")
    assert [spec_of(node.inputs[slot]).scale.shape for slot in (1, 2)] == [(6,), (6,)]
    np.testing.assert_allclose(Runner(graph).run(feed)["y"], expected, atol=0.03)


def test_a_layer_with_a_float_input_is_left():
    graph = graph_of(CASES["MatMul"][0], w=random(4, 6))
    assert not QuantizeWeights().run(graph, Context())


@pytest.mark.parametrize("op", CASES)
def test_a_layer_may_have_one_scale(op):
    text, shape, axis = CASES[op]
    weight = random(*shape) * np.geomspace(0.01, 10, shape[axis]).astype(np.float32).reshape(
        [-1 if i == axis else 1 for i in range(len(shape))]
    )
    graph, feed = graph_of(text, w=weight), {"x": random(1, 4, 5, 5) if "Conv" in op else random(5, 4)}
    Manager([QuantizeActivations(), QuantizeWeights(granularity="tensor")]).run(graph, Context(data=[feed]))
    spec = spec_of(next(node for node in graph.nodes if node.op == op).inputs[1])
    np.testing.assert_allclose(spec.scale, np.abs(weight).max() / 127, rtol=1e-6)
