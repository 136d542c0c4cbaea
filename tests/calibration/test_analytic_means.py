from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.analytic_means import analytic_means, clipped_normal_mean
from qcompiler.pass_base import BatchNormStatistics
from tests.helpers.graphs import graph_of


@pytest.mark.parametrize(("low", "high"), [(0.0, np.inf), (0.0, 6.0), (-1.0, 0.5), (-np.inf, np.inf), (-np.inf, 0.3)])
@pytest.mark.parametrize(("mean", "deviation"), [(0.7, 1.0), (-2.0, 0.5), (5.0, 3.0)])
def test_the_mean_is_that_of_many_draws(low, high, mean, deviation):
    draws = np.clip(np.random.default_rng(0).normal(mean, deviation, 400_000), low, high)
    got = clipped_normal_mean(np.array([mean]), np.array([deviation]), low, high)[0]
    assert got == pytest.approx(draws.mean(), abs=5 * deviation / np.sqrt(400_000) + 1e-9)


def test_a_constant_channel_is_clipped_itself():
    np.testing.assert_allclose(
        clipped_normal_mean(np.array([-1.0, 2.0, 9.0]), np.zeros(3), 0.0, 6.0), [0.0, 2.0, 6.0], atol=1e-9
    )


def test_statistics_are_found_through_clips_and_grids_and_nowhere_else():
    text = """g (float[1, 2, 4, 4] x) => (float y, float z) { a = Conv(x, w) b = Relu(a) c = QuantizeLinear(b, s, o)
    d = DequantizeLinear(c, s, o)
        e = Clip(d, lo, hi) f = Sigmoid(a) y = Conv(e, w) z = Conv(f, w) }"""
    graph = graph_of(
        text, w=np.ones((2, 2, 1, 1), np.float32), s=np.float32(0.1), o=np.uint8(0), lo=np.float32(-9), hi=np.float32(1)
    )
    known = {"a": BatchNormStatistics(np.array([0.5, -3.0]), np.array([1.0, 0.25]))}
    inputs = [node.inputs[0] for node in graph.nodes if node.op == "Conv"]
    found = analytic_means(inputs, known)
    assert list(found) == ["e"]
    np.testing.assert_array_equal(found["e"], clipped_normal_mean(known["a"].mean, np.array([1.0, 0.5]), 0.0, 1.0))
