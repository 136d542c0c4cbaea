from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.renormalize import match_statistics, set_gain
from qcompiler.graph.ir import Graph, names_in
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from qcompiler.pass_base import BatchNormStatistics
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

NET = """g (float[N, 3, 12, 12] x) => (float[N, 5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w)  r = HardSwish(a)  b = Conv <group = 6> (r, d, e)  s = Add(r, b)
    p = GlobalAveragePool(s)  f = Flatten <axis = 1> (p)  m = MatMul(f, v)  y = Add(m, c) }"""


def net() -> Graph:
    return graph_of(
        NET, w=random(6, 3, 3, 3), d=random(6, 1, 1, 1, seed=1, low=0.5, high=1.5), e=random(6, seed=2),
        v=random(6, 5, seed=3), c=random(5, seed=4),
    )  # fmt: skip


def statistics(channels: int, seed: int) -> BatchNormStatistics:
    rng = np.random.default_rng(seed)
    return BatchNormStatistics(rng.normal(size=channels), rng.uniform(0.2, 4.0, channels))


FEEDS = [{"x": random(2, 3, 12, 12, seed=seed)} for seed in range(8)]
KNOWN = {"a": statistics(6, 0), "b": statistics(6, 1), "y": statistics(5, 2)}


def test_every_known_tensor_has_its_moments_and_gains_undo_to_the_same_function() -> None:
    graph = net()
    before = Runner(graph).run(FEEDS[0])["y"]
    matched = match_statistics(graph, KNOWN, FEEDS, len(FEEDS))
    assert len(matched) == 3
    runner = Runner(graph, list(KNOWN))
    seen = [runner.run(feed) for feed in FEEDS]
    for name, want in KNOWN.items():
        rows = np.concatenate([np.moveaxis(each[name], 1, 0).reshape(want.mean.size, -1) for each in seen], axis=1)
        np.testing.assert_allclose(rows.mean(axis=1), want.mean, atol=2e-4)
        np.testing.assert_allclose(rows.var(axis=1), want.variance, rtol=2e-3)
    taken = names_in(graph)
    for layer in list(find_layers(graph)):
        gain, shift = matched[layer.node.name]
        set_gain(layer, 1 / gain, -shift / gain, taken)
    np.testing.assert_allclose(Runner(graph).run(FEEDS[0])["y"], before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("limit", [0, 1 << 28])
def test_layers_that_share_a_weight_and_those_without_statistics_stay(limit: int) -> None:
    graph = graph_of(
        "g (float[N, 4] x) => (float[N, 4] y) { a = Gemm(x, w, b)  r = Relu(a)  c = Gemm(r, w, b)  y = Gemm(c, v, b) }",
        w=random(4, 4), v=random(4, 4, seed=1), b=random(4, seed=2),
    )  # fmt: skip
    known = {"a": statistics(4, 0), "c": statistics(4, 1)}
    assert match_statistics(graph, known, [{"x": random(16, 4, seed=limit % 7)}], 1) == {}
