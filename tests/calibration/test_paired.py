from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.paired import paired_inputs
from qcompiler.errors import DataError
from qcompiler.feeds.selection import held_out
from qcompiler.graph.ir import copy_of
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

NET = (
    "g (float[N, 6] x) => (float[N, 3] y) { a = MatMul(x, w1) b = Relu(a) c = MatMul(b, w2) d = Relu(c) y = MatMul(d, "
    "w3) }"
)


def network(noise: float = 0.0):
    weights = {f"w{number}": random(*shape, seed=number) for number, shape in enumerate([(6, 8), (8, 5), (5, 3)], 1)}
    return graph_of(
        NET, **{name: weight + noise * random(*weight.shape, seed=7) for name, weight in weights.items()}
    ).toposort()


def moments_of(x, z):
    return x.T @ x / len(x), z.T @ z / len(x), x.T @ z / len(x), x.mean(axis=0), z.mean(axis=0)


@pytest.mark.parametrize("feeds", [3, 10])
def test_moments_are_those_of_the_same_rows_in_both_graphs(feeds):
    source, graph = network(), network(0.2)
    data = [{"x": random(5, 6, seed=seed)} for seed in range(feeds)]
    pairs = list(zip(find_layers(source), find_layers(graph), strict=True))
    found = list(paired_inputs(source, graph, pairs, data))
    held = held_out(feeds, 0)
    for item, name in zip(found, "xbd", strict=True):
        rows = [
            [feed["x"] if name == "x" else Runner(g, [name]).run(feed)[name] for feed in data] for g in (source, graph)
        ]
        every = item.fit.with_those(item.held)
        sides = [(every, [np.concatenate(side) for side in rows])]
        if held:
            sides += [
                (part, [np.concatenate([side[i] for i in range(feeds) if (i in held) == judges]) for side in rows])
                for part, judges in ((item.fit, False), (item.held, True))
            ]
        for got, (x, z) in sides:
            parts = (got.exact.gram[0], got.given.gram[0], got.cross[0], got.exact.mean[0], got.given.mean[0])
            for have, want in zip(parts, moments_of(x.astype(float), z.astype(float)), strict=True):
                np.testing.assert_allclose(have, want, rtol=1e-5, atol=1e-5)
        assert item.fit.exact.rows + item.held.exact.rows == 5 * feeds


def test_a_layer_changed_on_the_way_shows_in_the_next():
    source, graph = network(), copy_of(network())
    data = [{"x": random(5, 6, seed=seed)} for seed in range(10)]
    pairs = list(zip(find_layers(source), find_layers(graph), strict=True))
    for number, item in enumerate(paired_inputs(source, graph, pairs, data)):
        same = np.allclose(item.fit.exact.gram, item.fit.given.gram)
        assert same == (number == 0)
        if number == 0:
            item.layer.node.inputs[1].values = item.layer.node.inputs[1].values * np.float32(0.5)


def test_no_feeds_are_refused():
    source, graph = network(), network()
    with pytest.raises(DataError, match="calibration set is empty"):
        next(paired_inputs(source, graph, list(zip(find_layers(source), find_layers(graph), strict=True)), []))
