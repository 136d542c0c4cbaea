from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import Graph
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.correct.correct_bias import CorrectBias
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random, reasons

CASES = {
    "Conv": ("g (float[2, 4, 7, 7] x) => (float[2, 6, 7, 7] y) { y = Conv <group = 2> (x, w, b) }", (6, 2, 1, 1)),
    "Conv without bias": (
        "g (float[2, 4, 7, 7] x) => (float[2, 6, 7, 7] y) { y = Conv <group = 2> (x, w) }",
        (6, 2, 1, 1),
    ),
    "ConvTranspose": (
        "g (float[2, 4, 7, 7] x) => (float[2, 6, 7, 7] y) { y = ConvTranspose <group = 2> (x, w, b) }",
        (4, 3, 1, 1),
    ),
    "Gemm": ("g (float[40, 4] x) => (float[40, 6] y) { y = Gemm <transB = 1> (x, w, b) }", (6, 4)),
    "Gemm without bias": ("g (float[40, 4] x) => (float[40, 6] y) { y = Gemm(x, w) }", (4, 6)),
    "MatMul": ("g (float[40, 4] x) => (float[40, 6] y) { a = MatMul(x, w)  y = Add(b, a) }", (4, 6)),
}


def coarse(graph: Graph, feed: dict[str, np.ndarray]) -> Context:
    """Quantize, then make every weight's grid 16 times coarser, so that rounding shows; switch the output's grid
    off."""
    ctx = Context(data=[feed])
    Manager([QuantizeActivations(), QuantizeWeights()]).run(graph, ctx)
    for node in graph.nodes:
        if node.op in ("QuantizeLinear", "DequantizeLinear") and node.inputs[2].dtype == np.int8:
            node.inputs[1].values = node.inputs[1].values * np.float32(16)
    return ctx


@pytest.mark.parametrize("name", CASES)
def test_the_mean_error_of_every_channel_vanishes(name):
    text, shape = CASES[name]
    feed = {"x": random(2, 4, 7, 7, low=0, high=4) if "Conv" in name else random(40, 4, low=0, high=4)}
    initializers = {"w": random(*shape)} | ({} if "without" in name else {"b": random(6, seed=1)})
    graph = graph_of(text, **initializers)
    axes = (0, 2, 3) if "Conv" in name else 0
    ctx = coarse(graph, feed)
    # the correction is for the weights, not for the input's grid
    quantized_x = Runner(graph, ["x_dq"], fusions=False).run(feed)["x_dq"]
    expected = Runner(graph_of(text, **initializers)).run({"x": quantized_x})["y"].mean(axis=axes)
    inner = (
        next(node for node in graph.nodes if node.op == "QuantizeLinear" and node.inputs[0].name == "y_float")
        .inputs[0]
        .name
    )
    before = np.abs(Runner(graph, [inner], fusions=False).run(feed)[inner].mean(axis=axes) - expected).max()
    Manager([CorrectBias()]).run(graph, ctx)
    after = np.abs(Runner(graph, [inner], fusions=False).run(feed)[inner].mean(axis=axes) - expected).max()
    assert before > 0.05
    assert after < 1e-4


def test_a_matmul_without_bias_is_declined():
    graph = graph_of("g (float[5, 4] x) => (float[5, 6] y) { y = MatMul(x, w) }", w=random(4, 6))
    ctx = coarse(graph, {"x": random(5, 4)})
    assert not CorrectBias().run(graph, ctx)
    assert reasons(ctx) == ["a MatMul without an Add has no bias to correct"]


def test_a_float_graph_is_left():
    graph = graph_of("g (float[5, 4] x) => (float[5, 6] y) { y = MatMul(x, w) }", w=random(4, 6))
    assert not CorrectBias().run(graph, Context())
