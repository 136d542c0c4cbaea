from __future__ import annotations

import numpy as np

from qcompiler.graph.runner import Runner
from qcompiler.moments import formulas
from qcompiler.moments.formulas import Moments
from qcompiler.moments.propagate import analytic_means, likely_range
from qcompiler.pass_base import BatchNormStatistics
from tests.helpers.graphs import graph_of

STATISTICS = BatchNormStatistics(np.array([0.5, -3.0]), np.array([1.0, 0.25]))
OTHER = BatchNormStatistics(np.array([1.0, 0.2]), np.array([0.04, 4.0]))
WEIGHT = np.ones((2, 2, 1, 1), np.float32)


def test_statistics_are_found_through_clips_and_grids_and_nowhere_else() -> None:
    text = """g (float[1, 2, 4, 4] x) => (float y, float z) { a = Conv(x, w) b = Relu(a) c = QuantizeLinear(b, s, o)
        d = DequantizeLinear(c, s, o)
        e = Identity(d) f = Exp(a) y = Conv(e, w) z = Conv(f, w) }"""
    graph = graph_of(text, w=WEIGHT, s=np.float32(0.1), o=np.uint8(0))
    inputs = [node.inputs[0] for node in graph.nodes if node.op == "Conv"]
    found = analytic_means(inputs, {"a": STATISTICS})
    assert list(found) == ["e"]
    moments = Moments(STATISTICS.mean, STATISTICS.variance)
    np.testing.assert_array_equal(found["e"], formulas.piecewise(moments, formulas.clip_pieces(0.0, np.inf)).mean)


def test_means_behind_every_known_operator_are_those_of_many_draws() -> None:
    """a and b are drawn as their statistics say; a gate is what a pool of a gives."""
    text = """g (float[N, 2, 64, 64] a, float[N, 2, 64, 64] b) => (
        float[N, 2, 64, 64] r, float[N, 2, 64, 64] c, float[N, 2, 64, 64] l, float[N, 2, 64, 64] h,
        float[N, 2, 64, 64] s, float[N, 2, 64, 64] t, float[N, 2, 1, 1] p, float[N, 4, 64, 64] j, float[N, 2] f) {
        r = Relu(a) c = Clip(a, lo, hi) l = LeakyRelu(a) h = HardSwish(a) q = HardSigmoid(b) s = Sigmoid(b)
        sum = Add(a, b) t = Relu(sum) p = GlobalAveragePool(h) j = Concat <axis = 1> (r, q) f = Flatten(p) }"""
    graph = graph_of(text, lo=np.float32(-0.5), hi=np.float32(0.7))
    rng, known = np.random.default_rng(0), {"a": STATISTICS, "b": OTHER}
    feed = {
        name: rng.normal(
            each.mean.reshape(1, 2, 1, 1), np.sqrt(each.variance).reshape(1, 2, 1, 1), (16, 2, 64, 64)
        ).astype(np.float32)
        for name, each in known.items()
    }
    found = analytic_means(graph.outputs, known)
    assert list(found) == [tensor.name for tensor in graph.outputs]
    for name, value in Runner(graph).run(feed).items():
        rows = np.moveaxis(value.astype(np.float64), 1, 0).reshape(value.shape[1], -1)
        draws = 16 * 64 * 64
        deviation = 2.0  # the largest of any channel
        np.testing.assert_array_less(np.abs(found[name] - rows.mean(axis=1)), 3.5 * deviation / np.sqrt(draws))


def test_features_times_a_gate_are_known_and_two_maps_of_positions_are_not() -> None:
    text = """g (float[1, 2, 4, 4] a, float[1, 2, 4, 4] b) => (float[1, 2, 4, 4] y, float[1, 2, 4, 4] z) {
        p = GlobalAveragePool(b) y = Mul(a, p) z = Mul(a, b) }"""
    graph = graph_of(text)
    found = analytic_means(graph.outputs, {"a": STATISTICS, "b": OTHER})
    assert list(found) == ["y"]
    np.testing.assert_allclose(found["y"], STATISTICS.mean * OTHER.mean)


def test_a_likely_range_covers_the_widest_channel_and_goes_through_functions() -> None:
    graph = graph_of("g (float[1, 2, 4, 4] a) => (float[1, 2, 4, 4] y, float[1, 2, 4, 4] z) "
                     "{ y = Relu(a) z = HardSigmoid(y) }")
    a, (y, z) = graph.inputs[0], graph.outputs
    known = {"a": STATISTICS}
    extent = likely_range(a, known, 4.0)
    assert extent is not None
    assert (extent.lo, extent.hi) == (-5.0, 4.5)
    behind = likely_range(y, known, 4.0)
    assert behind is not None
    assert behind.lo == 0.0
    assert abs(behind.hi - 4.5) < 0.05
    assert likely_range(z, known, 4.0) is None


def test_branches_that_meet_again_are_followed_once() -> None:
    text = " ".join(f"a{i} = Relu(x{i}) b{i} = Tanh(x{i}) x{i + 1} = Add(a{i}, b{i})" for i in range(60))
    graph = graph_of(f"g (float[1, 4, 2, 2] x0) => (float[1, 4, 2, 2] x60) {{ {text} }}")
    assert likely_range(graph.outputs[0], {}, 4.0) is None  # two to the power of 60 paths
