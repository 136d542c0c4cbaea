from __future__ import annotations

import numpy as np
import pytest

from qcompiler import compile
from qcompiler.api import Options
from qcompiler.feeds.sources import synthetic_source
from qcompiler.graph.ir import Graph, copy_of, spec_of
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.correct.match_batchnorm import MatchBatchnorm, UnmatchBatchnorm
from qcompiler.passes.normalize.fold_batchnorm import FoldBatchNorm
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

NET = """g (float[1, 3, 16, 16] x) => (float[1, 8, 16, 16] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w)  n = BatchNormalization(a, gamma, beta, mean, variance)  r = Relu(n)
    b = Conv(r, v)  y = BatchNormalization(b, gamma, beta, mean, variance) }"""


def net() -> Graph:
    return graph_of(
        NET, w=random(8, 3, 3, 3), v=random(8, 8, 1, 1, seed=1), gamma=random(8, seed=2, low=0.5, high=2),
        beta=random(8, seed=3), mean=random(8, seed=4), variance=random(8, seed=5, low=1, high=9),
    )  # fmt: skip


def codes(graph: Graph) -> list[np.ndarray]:
    return [spec_of(layer.weight).quantize(layer.values) for layer in find_layers(graph)]


def test_grids_are_those_of_the_statistics_and_codes_stay_when_the_function_comes_back() -> None:
    graph, ctx = net(), Context()
    ctx.data = synthetic_source(graph, ctx)
    Manager([FoldBatchNorm()]).run(graph, ctx)
    exact = copy_of(graph)
    ctx.reference = exact
    Manager([MatchBatchnorm(), QuantizeActivations(), QuantizeWeights()]).run(graph, ctx)
    assert len(ctx.matched) == 2
    assert ctx.reference is not exact
    before = codes(graph)
    Manager([UnmatchBatchnorm()]).run(graph, ctx)
    assert ctx.matched == {}
    assert ctx.reference is exact
    for first, second in zip(before, codes(graph), strict=True):
        np.testing.assert_array_equal(first, second)
    weights = {layer.node.name: layer.values for layer in find_layers(exact)}
    for layer in find_layers(graph):
        want = weights[layer.node.name]
        step = np.abs(want).reshape(len(want), -1).max(axis=1).reshape(-1, 1, 1, 1) / 127
        assert (np.abs(layer.values - want) <= 0.51 * step + 1e-6).all()


def test_with_data_nothing_happens() -> None:
    graph, ctx = net(), Context(data=[{"x": random(1, 3, 16, 16)}])
    Manager([FoldBatchNorm()]).run(graph, ctx)
    before = [layer.values.copy() for layer in find_layers(graph)]
    assert not MatchBatchnorm().run(graph, ctx)
    for layer, values in zip(find_layers(graph), before, strict=True):
        np.testing.assert_array_equal(layer.values, values)


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_a_net_compiled_without_data_answers_real_inputs_of_the_statistics(weights: str) -> None:
    """Inputs that the statistics were taken from; made-up ones have another spread and other correlations."""
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(3, 3))
    real = [
        {"x": np.einsum("ij,njhw->nihw", mixing, rng.uniform(-20, 60, (1, 3, 16, 16))).astype(np.float32)}
        for _ in range(16)
    ]
    graph = net()
    trained = _train_statistics(graph, real)
    result = compile(trained, options=Options(level=2, weights=weights))
    want = [Runner(trained).run(feed)["y"] for feed in real]
    got = [Runner(result.graph).run(feed)["y"] for feed in real]
    error = sum(float(np.square(a - b).sum()) for a, b in zip(want, got, strict=True))
    signal = sum(float(np.square(a).sum()) for a in want)
    assert 10 * np.log10(signal / error) > (25 if weights == "int8" else 12)
    assert any("BatchNorm statistics" in warning for warning in result.report.warnings)


def _train_statistics(graph: Graph, feeds: list[dict[str, np.ndarray]]):
    """The model with the mean and variance that its BatchNorms see on ``feeds``."""
    import onnx_graphsurgeon as gs

    for node in [node for node in graph.nodes if node.op == "BatchNormalization"]:
        values = np.concatenate([Runner(graph, [node.inputs[0].name]).run(feed)[node.inputs[0].name] for feed in feeds])
        for slot, value in ((3, values.mean((0, 2, 3))), (4, values.var((0, 2, 3)))):
            node.inputs[slot] = gs.Constant(f"{node.name}_{slot}", value.astype(np.float32))
    return gs.export_onnx(graph)


def test_statistics_that_feeds_are_far_from_are_not_matched_and_ranges_hold_both() -> None:
    graph, ctx = net_over(400), Context()
    ctx.data = synthetic_source(graph, ctx)
    Manager([FoldBatchNorm()]).run(graph, ctx)
    weights = [layer.values for layer in find_layers(graph)]
    assert not MatchBatchnorm().run(graph, ctx)
    assert ctx.matched == {}
    for before, layer in zip(weights, find_layers(graph), strict=True):
        np.testing.assert_array_equal(layer.values, before)
    assert any("far apart" in warning for warning in ctx.report.warnings)
    Manager([QuantizeActivations()]).run(graph, ctx)
    seen = max(np.abs(Runner(copy_of(graph)).run(feed)["y"]).max() for feed in ctx.data)
    exact = max(np.abs(Runner(net_over(400)).run(feed)["y"]).max() for feed in ctx.data)
    assert seen > 0.9 * exact


def net_over(divisor: float) -> Graph:
    """With variances that no input brings about: what the network computes is far from its own statistics."""
    graph = net()
    for node in graph.nodes:
        if node.op == "BatchNormalization":
            node.inputs[4].values = node.inputs[4].values / divisor
    return graph
