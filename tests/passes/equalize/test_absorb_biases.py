from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import Graph
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import BatchNormStatistics, Context
from qcompiler.passes.equalize.absorb_biases import AbsorbBiases, absorbable
from qcompiler.passes.equalize.equalize_channels import EqualizeChannels
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons

STATISTICS = BatchNormStatistics(np.array([5.0, 0.5, 2.0, -1.0]), np.array([1.0, 1.0, 0.25, 0.01]))
OFFSETS = np.array([2.0, 0.0, 0.5, 0.0])


def network(activation: str = "Relu (a)", reader: str = "Conv (r, w2, b2)") -> Graph:
    return graph_of(
        f"g (float[N, 3, 5, 5] x) => (float[N, 2, h, w] y) {{ a = Conv (x, w1, b1)  r = {activation}  y = {reader} }}",
        w1=random(4, 3, 1, 1, low=-0.5, high=0.5), b1=np.array([9, 0.5, 5, -1], np.float32),
        w2=random(2, 4, 3, 3, seed=1), b2=random(2, seed=2),
        zero=np.float32(0), six=np.float32(7),
    )  # fmt: skip


def absorbed(graph: Graph) -> Context:
    ctx = Context(batchnorm={"a": STATISTICS})
    Manager([AbsorbBiases()]).run(graph, ctx)
    return ctx


def test_what_is_absorbed_is_three_deviations_below_the_mean() -> None:
    np.testing.assert_allclose(absorbable(STATISTICS), OFFSETS)


@pytest.mark.parametrize("activation", ["Relu (a)", "Clip (a, zero, six)"])
def test_the_function_stays_where_channels_are_above_their_bound_and_only_there(activation: str) -> None:
    feed = {"x": random(2, 3, 5, 5, low=-1, high=1)}
    values = Runner(network(activation), ["a", "y"]).run(feed)
    assert (values["a"].min(axis=(0, 2, 3)) > OFFSETS)[OFFSETS > 0].all()
    graph = network(activation)
    ctx = absorbed(graph)
    np.testing.assert_allclose(Runner(graph).run(feed)["y"], values["y"], rtol=1e-5, atol=1e-4)
    layer = graph.nodes[0]
    np.testing.assert_allclose(layer.inputs[2].values, np.array([9, 0.5, 5, -1]) - OFFSETS)
    assert layer.outputs[0].name != "a"
    np.testing.assert_allclose(ctx.batchnorm[layer.outputs[0].name].mean, STATISTICS.mean - OFFSETS)
    far = {"x": random(2, 3, 5, 5, low=-30, high=30)}
    assert np.abs(Runner(graph).run(far)["y"] - Runner(network(activation)).run(far)["y"]).max() > 0.1


def test_behind_equalization_the_bounds_of_channels_fall() -> None:
    graph, feed = network("Clip (a, zero, six)"), {"x": random(2, 3, 5, 5, low=-1, high=1)}
    before = Runner(graph).run(feed)["y"]
    Manager([EqualizeChannels(), AbsorbBiases()]).run(graph, Context(batchnorm={"a": STATISTICS}))
    assert ops(graph) == ["Conv", "Clip", "Min", "Conv"]
    np.testing.assert_allclose(Runner(graph).run(feed)["y"], before, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("reader", "reason"), [
    ("Conv <pads = [1, 1, 1, 1]> (r, w2, b2)", "pads it with 0"),
    ("GlobalAveragePool (r)", "not all that read"),
])  # fmt: skip
def test_what_is_declined_says_why(reader: str, reason: str) -> None:
    ctx = absorbed(network(reader=reader))
    assert any(reason in text for text in reasons(ctx))
    assert not ctx.report.regions


def test_without_statistics_nothing_is_known() -> None:
    graph = network()
    assert not AbsorbBiases().run(graph, Context())
