from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.graph.ir import Constant, Graph, QuantSpec, copy_of, spec_of
from qcompiler.graph.layers import underlying_constant
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.choose_widths import ChooseWidths
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.avoid_saturation import PAIR_LIMIT, AvoidSaturation, exact_scale, largest_pair
from qcompiler.passes.weights.quantize_weights import QuantizeWeights, absmax_scale, weight_spec
from tests.graphs import graph_of
from tests.passes.rewriting import random


def brute_force_pair(codes: np.ndarray) -> int:
    """Largest magnitude of a sum of two products with uint8 factors, over 255."""
    values = codes.reshape(-1).astype(int)
    sums = [abs(max(a, 0) + max(b, 0)) for i, a in enumerate(values) for b in values[:i]]
    sums += [abs(min(a, 0) + min(b, 0)) for i, a in enumerate(values) for b in values[:i]]
    return max(sums, default=0)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_no_pair_of_products_leaves_int16(seed, channels, inputs):
    weight = np.random.default_rng(seed).standard_t(2, (channels, inputs)).astype(np.float32)
    spec = weight_spec(absmax_scale(weight, 0), 0)
    scale = exact_scale(weight, spec)
    codes = QuantSpec(scale, spec.zero_point, spec.dtype, 0).quantize(weight)
    assert [brute_force_pair(row) for row in codes] == largest_pair(codes, 0).tolist()
    assert (255 * largest_pair(codes, 0) < 2**15).all()
    assert (scale >= spec.scale).all()
    assert (scale <= spec.scale * 2.01).all()


def test_a_channel_that_keeps_the_rule_keeps_its_scale():
    weight = np.array([[1.0, -1.0, 0.001], [1.0, 0.9, 0.0]], np.float32)
    spec = weight_spec(absmax_scale(weight, 0), 0)
    scale = exact_scale(weight, spec)
    assert scale[0] == spec.scale[0]
    assert scale[1] > spec.scale[1]


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
    graph = graph_of("g (float[9, 8] x) => (float[9, 6] y) { a = Gemm(x, w, b)  y = MatMul(a, v) }", w=random(8, 6), b=random(6), v=random(6, 6))
    feed = {"x": random(9, 8)}
    expected = Runner(graph).run(feed)["y"]
    ctx = quantized(graph, feed)
    assert pair_sums(graph, "Gemm").max() <= PAIR_LIMIT
    assert pair_sums(graph, "MatMul").max() <= PAIR_LIMIT
    assert ctx.report.figures["avoid_saturation_layers"] == 2
    assert isinstance(ctx.report.figures["avoid_saturation_cost_db"], float)
    np.testing.assert_allclose(Runner(graph).run(feed)["y"], expected, atol=0.04 * np.abs(expected).max())


def test_depthwise_layers_and_wide_inputs_are_left():
    depthwise = graph_of("g (float[1, 4, 5, 5] x) => (float[1, 4, 3, 3] y) { y = Conv <group = 4> (x, w) }", w=random(4, 1, 3, 3))
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
