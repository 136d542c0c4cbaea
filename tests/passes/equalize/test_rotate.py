"""rotate: an orthogonal matrix between linear layers, folded into both; outliers spread over the channels."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import Graph
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.equalize.rotate import Rotate
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random


def network(channels: int, outlier: float, seed: int = 0) -> Graph:
    """Two layers with nothing but a tensor between them, one of whose channels is large."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(8, channels)), rng.normal(size=(channels, 6))
    first[:, 1] *= outlier
    second[1] /= outlier
    text = "g (float[B, L, 8] x) => (float[B, L, 6] y) { h = MatMul (x, w)  y = MatMul (h, v) }"
    return graph_of(text, w=first.astype(np.float32), v=second.astype(np.float32))


def feeds(first: int = 0) -> list[dict[str, np.ndarray]]:
    return [{"x": random(2, 16, 8, seed=first + number)} for number in range(8)]


def rounding_error(graph: Graph) -> float:
    """Error of the outputs on fresh feeds where the tensor between the layers is rounded to 256 steps of its range."""
    names = [graph.nodes[0].outputs[0].name]
    weight, total = graph.nodes[1].inputs[1].values.astype(np.float64), 0.0
    inner = np.concatenate([Runner(graph, names).run(feed)[names[0]].reshape(-1, len(weight)) for feed in feeds(300)])
    step = (inner.max() - inner.min()) / 255
    total = np.square((step * np.rint(inner / step) - inner) @ weight).sum()
    return float(total)


@pytest.mark.parametrize("channels", [16, 12, 24])
def test_an_outlier_is_spread_and_the_float_function_stays(channels: int) -> None:
    graph = network(channels, 40)
    before, error = Runner(graph).run(feeds()[0])["y"], rounding_error(graph)
    old = graph.nodes[0].inputs[1].values.astype(np.float64)
    ctx = Context(data=feeds())
    Manager([Rotate()], feed=feeds()[0]).run(graph, ctx)
    (change,) = ctx.report.regions
    assert change.kind == "matrix"
    np.testing.assert_allclose(Runner(graph).run(feeds()[0])["y"], before, rtol=1e-3, atol=1e-3)
    new = graph.nodes[0].inputs[1].values.astype(np.float64)
    np.testing.assert_allclose(new @ new.T, old @ old.T, rtol=1e-4, atol=1e-3 * np.abs(old @ old.T).max())
    assert not np.allclose(new, old)
    assert rounding_error(graph) < 0.7 * error


def test_without_outliers_nothing_is_gained_and_nothing_changes() -> None:
    graph, ctx = network(16, 1), Context(data=feeds())
    assert not Rotate(gain=0.5).run(graph, ctx)
    assert ctx.report.regions == []


def test_the_seed_decides_the_signs() -> None:
    found = []
    for seed in (0, 0, 1):
        graph = network(16, 40)
        Rotate().run(graph, Context(data=feeds(), seed=seed))
        found.append(graph.nodes[0].inputs[1].values)
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
