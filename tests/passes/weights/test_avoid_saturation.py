from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import Constant, Graph, copy_of, spec_of
from qcompiler.graph.layers import underlying_constant
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.choose_widths import ChooseWidths
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.avoid_saturation import AvoidSaturation
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.weights.saturation import largest_pair
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

PAIR_LIMIT = 128


def test_pairs_are_taken_along_the_channel():
    codes = np.array([[100, 1], [100, 1], [-5, -120]], np.int8)
    assert largest_pair(codes, 1).tolist() == [200, 120]
    assert largest_pair(codes, 0).tolist() == [101, 101, 125]


def quantized(graph: Graph, feed: dict[str, np.ndarray], *more) -> Context:
    ctx = Context(data=[feed])
    Manager([QuantizeActivations(), QuantizeWeights(), *more, AvoidSaturation()]).run(graph, ctx)
    return ctx


def pair_sums(graph: Graph, op: str) -> np.ndarray:
    node = next(node for node in graph.nodes if node.op == op)
    spec = spec_of(node.inputs[1])
    return largest_pair(spec.quantize(underlying_constant(node.inputs[1]).values), spec.axis)


def test_layers_are_made_exact_and_the_cost_is_reported():
    graph = graph_of(
        "g (float[9, 8] x) => (float[9, 6] y) { a = Gemm(x, w, b)  y = MatMul(a, v) }",
        w=random(8, 6),
        b=random(6),
        v=random(6, 6),
    )
    feed = {"x": random(9, 8)}
    expected = Runner(graph).run(feed)["y"]
    ctx = quantized(graph, feed)
    assert pair_sums(graph, "Gemm").max() <= PAIR_LIMIT
    assert pair_sums(graph, "MatMul").max() <= PAIR_LIMIT
    assert ctx.report.figures["avoid_saturation_layers"] == 2
    assert isinstance(ctx.report.figures["avoid_saturation_cost_db"], float)
    np.testing.assert_allclose(Runner(graph).run(feed)["y"], expected, atol=0.04 * np.abs(expected).max())


@pytest.mark.parametrize("channels", [4, 8])
def test_depthwise_layers_of_several_outputs_a_channel_are_not_left(channels):
    depthwise = graph_of(
        f"g (float[1, 4, 5, 5] x) => (float[1, {channels}, 3, 3] y) {{ y = Conv <group = 4> (x, w) "
        f"}}", w=random(channels, 1, 3, 3),
    )  # fmt: skip
    assert ("avoid_saturation_layers" in quantized(depthwise, {"x": random(1, 4, 5, 5)}).report.figures) == (
        channels == 8
    )


def test_depthwise_layers_and_wide_inputs_are_left():
    depthwise = graph_of(
        "g (float[1, 4, 5, 5] x) => (float[1, 4, 3, 3] y) { y = Conv <group = 4> (x, w) }", w=random(4, 1, 3, 3)
    )
    assert "avoid_saturation_layers" not in quantized(depthwise, {"x": random(1, 4, 5, 5)}).report.figures
    wide = graph_of("g (float[9, 8] x) => (float[9, 6] y) { y = MatMul(x, w) }", w=random(8, 6))
    ctx = quantized(wide, {"x": random(9, 8)}, ChooseWidths(widen=9))
    assert spec_of(next(node for node in wide.nodes if node.op == "MatMul").inputs[0]).dtype == np.int16
    assert "avoid_saturation_layers" not in ctx.report.figures


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_clip_that_leaves_few_codes_needs_no_larger_scales(shape):
    graph = graph_of(
        "g (float[9, 8] x) => (float[9, 6] y) { a = Exp(x)  c = Clip(a, low, high)  y = MatMul(c, w) }",
        w=random(8, 6), low=np.zeros((), np.float32), high=np.full((), 0.1, np.float32),
    )  # fmt: skip
    ctx = Context(data=[{"x": random(9, 8)}])
    Manager([QuantizeActivations(), QuantizeWeights()]).run(graph, ctx)
    clip = next(node for node in graph.nodes if node.op == "Clip")
    spec = spec_of(next(node for node in graph.nodes if node.op == "MatMul").inputs[0])
    for high, needed in ((spec.scale * 100, False), (spec.scale * 255, True)):
        clip.inputs[2] = Constant("limit", np.full(shape, high, np.float32))
        copy, ctx = copy_of(graph), Context(data=ctx.data)
        Manager([AvoidSaturation()]).run(copy, ctx)
        assert ("avoid_saturation_layers" in ctx.report.figures) == needed
