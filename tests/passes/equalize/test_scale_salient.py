"""scale-salient: weights that meet large activations are rounded more finely, as AWQ says."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import Graph, constant_of
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.equalize.scale_salient import ScaleSalient
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

SALIENT = 3


def network(salient: float, seed: int = 0) -> Graph:
    """A normalization whose channel `SALIENT` is large, in front of a layer."""
    gain = np.ones(16, np.float32)
    gain[SALIENT] = salient
    return graph_of(
        "g (float[B, L, 16] x) => (float[B, L, 12] y) { n = LayerNormalization <axis = -1> (x, gain)  y = MatMul "
        "(n, w) }",
        gain=gain, w=np.random.default_rng(seed).normal(size=(16, 12)).astype(np.float32),
    )  # fmt: skip


def feeds(first: int, count: int = 8) -> list[dict[str, np.ndarray]]:
    return [{"x": random(2, 16, 16, seed=first + number)} for number in range(count)]


def rounding_error(graph: Graph, bits: int) -> float:
    """Error of the outputs on fresh feeds where the weight alone is rounded to nearest, by output channel."""
    weight, most = constant_of(graph.nodes[1].inputs[1]).astype(np.float64), 2 ** (bits - 1) - 1
    step = np.abs(weight).max(axis=0) / most
    change = step * np.rint(weight / step) - weight
    name = graph.nodes[0].outputs[0].name
    inputs = np.concatenate([Runner(graph, [name]).run(feed)[name].reshape(-1, 16) for feed in feeds(500)])
    return float(np.square(inputs @ change).sum())


@pytest.mark.parametrize(("bits", "seed"), [(3, 0), (4, 1), (4, 2)])
def test_rounded_weights_hurt_the_outputs_less_and_the_float_function_stays(bits: int, seed: int) -> None:
    graph = network(12, seed)
    before, error = Runner(graph).run(feeds(0)[0])["y"], rounding_error(graph, bits)
    weight = constant_of(graph.nodes[1].inputs[1]).copy()
    ctx = Context(data=feeds(0))
    Manager([ScaleSalient(bits=bits)], feed=feeds(0)[0]).run(graph, ctx)
    np.testing.assert_allclose(Runner(graph).run(feeds(0)[0])["y"], before, rtol=1e-4, atol=1e-4)
    assert len(ctx.report.regions) == 1
    growth = np.abs(constant_of(graph.nodes[1].inputs[1]) / weight).mean(axis=1)
    assert growth.argmax() == SALIENT
    assert rounding_error(graph, bits) < 0.9 * error


def test_channels_of_one_size_are_left_alone() -> None:
    graph, ctx = network(1), Context(data=feeds(0))
    assert not ScaleSalient(gain=0.2).run(graph, ctx)
    assert ctx.report.regions == []


def test_bits_beyond_what_weights_have_are_refused() -> None:
    with pytest.raises(ValueError, match="between 2 and 8"):
        ScaleSalient(bits=9)
