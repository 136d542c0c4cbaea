"""smooth-activations, preshift, scale-salient: scales by measured noise."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.equivalence.levels import Levels
from qcompiler.equivalence.regions import find_regions
from qcompiler.equivalence.scaling import observed_regions, power_divisors
from qcompiler.graph.ir import Graph, constant_of
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context, Pass
from qcompiler.passes.equalize.preshift import Preshift, power_of_two
from qcompiler.passes.equalize.scale_salient import ScaleSalient
from qcompiler.passes.equalize.smooth_activations import SmoothActivations
from tests.helpers.equivalence_graphs import convolutional, transformer
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random, reasons, tensors_of

GAIN = np.array([1, 1, 1, 40, 1, 1, 1, 1], np.float32)
"""One channel of the normalized tensor is an outlier."""


def norm_and_layer() -> Graph:
    return graph_of(
        "g (float[B, L, 8] x) => (float[B, L, 6] y) { n = LayerNormalization <axis = -1> (x, gain, bias)  m = MatMul "
        "(n, w)  y = Add (m, c) }",
        gain=GAIN, bias=random(8, seed=1), w=random(8, 6, seed=2), c=random(6, seed=3),
    )  # fmt: skip


def feeds(count: int = 8) -> list[dict[str, np.ndarray]]:
    return [{"x": random(2, 16, 8, seed=10 + seed)} for seed in range(count)]


def spread(graph: Graph) -> float:
    """Largest over smallest gain of the normalization."""
    gain = np.abs(constant_of(next(node for node in graph.nodes if node.op == "LayerNormalization").inputs[1]))
    return float(gain.max() / gain.min())


@pytest.mark.parametrize("step", [SmoothActivations(), Preshift()])
def test_an_outlier_channel_is_made_smaller(step: Pass) -> None:
    graph = norm_and_layer()
    before = Runner(graph).run(feeds()[0])["y"]
    assert Manager([step], feed=feeds()[0]).run(graph, Context(data=feeds())) == 0
    assert spread(graph) < 20
    np.testing.assert_allclose(Runner(graph).run(feeds()[0])["y"], before, atol=1e-4)


def test_the_prediction_ranks_as_the_closed_form() -> None:
    graph = norm_and_layer()
    region = next(region for region in find_regions(graph) if region.classes)
    noise, = observed_regions(graph, [region], feeds())
    x = np.concatenate([Runner(graph, ["n"]).run(feed)["n"].reshape(-1, 8) for feed in feeds()]).astype(np.float64)
    weight, divisors = constant_of(graph.nodes[1].inputs[1]).astype(np.float64), np.linspace(0.5, 2, 8)
    scaled = x / divisors
    step = (max(scaled.max(), 0) - min(scaled.min(), 0)) / 255
    rows = np.abs(weight * divisors[:, None]).max(axis=0) / 127
    expected = (
        step**2 * np.square(weight * divisors[:, None]).sum()
        + np.square(rows).sum() * np.square(scaled).mean(axis=0).sum()
    )
    signal = (np.square(x).mean(axis=0)[:, None] * np.square(weight)).sum()
    assert noise.total(divisors, Levels()) == pytest.approx(expected / 12 / signal, rel=1e-5)


def test_alpha_one_half_balances_activations_and_weights() -> None:
    x, w = np.array([1.0, 100.0, 3.0]), np.array([2.0, 0.5, 7.0])
    divisors = power_divisors(x, 0.5, w, 0.5)
    ratio = (x / divisors) / (w * divisors)
    np.testing.assert_allclose(ratio, ratio[0])
    assert np.prod(divisors) == pytest.approx(1)
    np.testing.assert_array_equal(power_divisors(x * [1, 0, 1], 0.5, w, 0.5)[1], 1)


def test_powers_of_two_leave_every_bit() -> None:
    graph = norm_and_layer()
    before = Runner(graph, fusions=False).run(feeds()[0])["y"]
    assert Preshift().run(graph, Context(data=feeds()))
    np.testing.assert_array_equal(Runner(graph, fusions=False).run(feeds()[0])["y"], before)
    assert np.all(np.mod(np.log2(power_of_two(np.array([0.3, 5.0, 1e9]))), 1) == 0)


def test_salient_weights_become_larger() -> None:
    graph = norm_and_layer()
    assert ScaleSalient(bits=3).run(graph, Context(data=feeds()))
    assert spread(graph) < 20
    with pytest.raises(ValueError, match="bits"):
        ScaleSalient(bits=1)


def test_nothing_to_gain_is_the_identity() -> None:
    graph = norm_and_layer()
    names = tensors_of(graph)
    assert not SmoothActivations(gain=1.0).run(graph, Context(data=feeds()))
    assert tensors_of(graph) == names


def test_a_region_that_cannot_be_scaled_is_declined() -> None:
    graph = graph_of(
        "g (float[B, 8] x) => (float[B, 8] y) { a = MatMul (x, w)  g = Gelu (a)  y = MatMul (g, v) }",
        w=random(8, 8),
        v=random(8, 8),
    )
    ctx = Context()
    assert not Manager([SmoothActivations()]).run(graph, ctx)
    assert any("Gelu does not commute" in reason for reason in reasons(ctx))


@pytest.mark.parametrize("make", [convolutional, transformer])
def test_random_networks_compute_the_same(make: object) -> None:
    for seed in range(200, 203):
        graph, feed = make(seed)  # type: ignore[operator]
        before = Runner(graph, fusions=False).run(feed)
        ctx = Context(data=[feed, feed])
        Manager([SmoothActivations(clips=True, gain=0.0), ScaleSalient(gain=0.0)], feed=feed).run(graph, ctx)
        for name, value in Runner(graph, fusions=False).run(feed).items():
            np.testing.assert_allclose(value, before[name], atol=2e-4 * max(float(np.abs(before[name]).max()), 1e-3))
