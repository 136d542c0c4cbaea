from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.network_loss import NetworkLoss
from qcompiler.feeds.selection import held_out
from qcompiler.graph.ir import copy_of, read_spec
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.correct.tune_statistics import TuneStatistics
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from tests.passes.weights.test_reconstruct_layers import correlated, network

QUANTIZE = (QuantizeActivations(), QuantizeWeights(), ReconstructLayers(grid="int3", solver="nearest"))


def quantized(feeds):
    graph = network()
    ctx = Context(data=feeds, reference=copy_of(graph))
    Manager(QUANTIZE).run(graph, ctx)
    return graph, ctx


def channels(graph, name, feeds):
    values = np.concatenate([Runner(graph, [name], fusions=False).run(feed)[name] for feed in feeds]).astype(np.float64)
    axes = (0, 2, 3) if values.ndim == 4 else 0
    return values.mean(axis=axes), values.std(axis=axes)


@pytest.mark.parametrize("deviations", [False, True])
def test_every_channel_has_the_moments_of_the_float_model_and_no_code_moved(deviations):
    feeds = [{"x": correlated(seed)} for seed in range(4)]  # too few to hold any out: the pass measures on all of them
    graph, ctx = quantized(feeds)
    codes = [read_spec(layer.weight.inputs[0]).quantize(layer.values) for layer in find_layers(graph)]
    Manager([TuneStatistics(deviations=deviations, most=1.0)]).run(graph, ctx)
    assert ctx.report.tunings[0].kept
    for inner in ("a", "c"):
        want, have = channels(network(), inner, feeds), channels(graph, inner, feeds)
        np.testing.assert_allclose(have[0], want[0], atol=1e-4 * want[1].max())
        if deviations:
            np.testing.assert_allclose(have[1], want[1], rtol=1e-4)
    for layer, before in zip(find_layers(graph), codes, strict=True):
        np.testing.assert_array_equal(read_spec(layer.weight.inputs[0]).quantize(layer.values), before)


def test_it_is_kept_only_where_unseen_feeds_gain():
    feeds = [{"x": correlated(seed)} for seed in range(20)]
    graph, ctx = quantized(feeds)
    judge = NetworkLoss(network(), [{"x": correlated(seed)} for seed in range(50, 60)])
    before = judge(graph)
    Manager([TuneStatistics(most=1.0)]).run(graph, ctx)
    assert judge(graph) < before
    record = ctx.report.tunings[0]
    assert record.after < record.before


def test_a_gain_that_is_too_small_leaves_the_graph_as_it_was():
    graph, ctx = quantized([{"x": correlated(seed)} for seed in range(10)])
    before = [(layer.values, layer.bias_node.inputs[layer.bias_slot].values) for layer in find_layers(graph)]
    assert not TuneStatistics(most=0.0).run(graph, ctx)
    assert not ctx.report.tunings[0].kept
    for layer, (weight, bias) in zip(find_layers(graph), before, strict=True):
        np.testing.assert_array_equal(layer.values, weight)
        np.testing.assert_array_equal(layer.bias_node.inputs[layer.bias_slot].values, bias)


def test_a_network_that_gets_worse_is_rolled_back():
    """What is measured on tiny inputs says nothing of large ones, and the feeds held out are large."""
    held = held_out(10, seed=0)
    feeds = [{"x": correlated(seed) * np.float32(30 if seed in held else 0.02)} for seed in range(10)]
    graph, ctx = quantized(feeds)
    before = [layer.values for layer in find_layers(graph)]
    assert not TuneStatistics(most=1.0).run(graph, ctx)
    record = ctx.report.tunings[0]
    assert record.after > record.before
    for layer, values in zip(find_layers(graph), before, strict=True):
        np.testing.assert_array_equal(layer.values, values)


def test_without_a_float_graph_nothing_is_tuned():
    graph, ctx = quantized([{"x": correlated(0)}])
    ctx.reference = None
    assert not TuneStatistics().run(graph, ctx)
