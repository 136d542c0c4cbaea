from __future__ import annotations

import numpy as np

from qcompiler.equivalence.statistics import ChannelRange
from qcompiler.graph.ir import Graph, constant_of
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.equalize.shift_channels import ShiftChannels, middles, narrowing
from tests.helpers.equivalence_graphs import convolutional, transformer
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random, reasons


def asymmetric(tail: str = "y = Add (m, c)") -> Graph:
    """A normalization whose bias puts one channel far from the others."""
    return graph_of(
        f"g (float[B, L, 8] x) => (float[B, L, 6] y) {{ n = LayerNormalization <axis = -1> (x, gain, bias)  m = MatMul "
        f"(n, w)  {tail} }}",
        gain=np.ones(8, np.float32), bias=np.array([0, 0, 60, 0, 0, 0, -40, 0], np.float32), w=random(8, 6, seed=2),
        c=random(6, seed=3),
    )  # fmt: skip


def feeds() -> list[dict[str, np.ndarray]]:
    return [{"x": random(2, 16, 8, seed=seed)} for seed in range(8)]


def test_every_channel_moves_to_the_middle() -> None:
    graph = asymmetric()
    before = Runner(graph).run(feeds()[0])["y"]
    Manager([ShiftChannels()], feed=feeds()[0]).run(graph, Context(data=feeds()))
    bias = constant_of(graph.nodes[0].inputs[2])
    assert np.abs(bias).max() < 2
    np.testing.assert_allclose(Runner(graph).run(feeds()[0])["y"], before, atol=1e-3)


def test_a_layer_without_bias_is_declined() -> None:
    graph, ctx = asymmetric("y = Relu (m)"), Context(data=feeds())
    Manager([ShiftChannels()]).run(graph, ctx)
    assert "a layer that reads it has no bias" in reasons(ctx)


def test_middles_and_narrowing() -> None:
    seen = ChannelRange(np.array([-1.0, 4.0]), np.array([3.0, 10.0]), np.ones(2))
    np.testing.assert_array_equal(middles(seen), [1, 7])
    np.testing.assert_array_equal(narrowing(np.array([1.0, 4.0]), 1.0), [1, 1])  # the widest stays: a shift only
    np.testing.assert_array_equal(narrowing(np.array([1.0, 4.0]), 0.5), [1, 2])


def test_random_networks_compute_the_same() -> None:
    for make in (convolutional, transformer):
        for seed in range(300, 303):
            graph, feed = make(seed)
            before = Runner(graph, fusions=False).run(feed)
            Manager([ShiftChannels(gain=0.0)], feed=feed).run(graph, Context(data=[feed, feed]))
            for name, value in Runner(graph, fusions=False).run(feed).items():
                np.testing.assert_allclose(
                    value, before[name], atol=2e-4 * max(float(np.abs(before[name]).max()), 1e-3)
                )
