from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.tunable_graph import Settings, TunableGraph, scale_units, scales_of, set_scales
from qcompiler.feeds.selection import split_feeds
from qcompiler.graph.ir import Constant, copy_of, names_in, read_spec, spec_of
from qcompiler.graph.layers import add_to_bias, find_layers
from qcompiler.graph.runner import Runner
from qcompiler.losses.network_loss import NetworkLoss
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.correct.polish import Polish
from qcompiler.passes.correct.tune_statistics import apply_tuning
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from qcompiler.passes.weights.store_codes import StoreCodes
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

NET = """g (float[N, 6, 8, 8] x) => (float[N, 5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) b = Relu(a) c = Conv <group = 8, strides = [2, 2]> (b, w2) d = Relu(c)
    p = Softmax <axis = 1> (d) e = Flatten(p) f = MatMul(e, w3) y = Add(f, b3) }"""


def network():
    return graph_of(
        NET,
        w1=random(8, 6, 3, 3, seed=1),
        b1=random(8, seed=2),
        w2=random(8, 1, 3, 3, seed=3),
        w3=random(72, 5, seed=5),
        b3=random(5, seed=6),
    )


def feeds_of(count: int) -> list[dict[str, np.ndarray]]:
    return [{"x": random(4, 6, 8, 8, seed=seed)} for seed in range(count)]


def quantized(grid: str = "int3", stretch: float = 1.0):
    """On few levels, its activations' scales ``stretch`` times too large."""
    graph = network()
    ctx = Context(data=feeds_of(60), reference=copy_of(graph))
    Manager([QuantizeActivations(), QuantizeWeights(), ReconstructLayers(grid=grid)]).run(graph, ctx)
    set_scales(graph, scales_of(scale_units(graph)) * np.float32(stretch))
    return graph, ctx


@pytest.mark.parametrize(("shifts", "stretch"), [(False, 4.0), (True, 1.0)])
def test_held_feeds_lose_less_and_the_record_says_so(shifts, stretch):
    graph, ctx = quantized(stretch=stretch)
    if shifts:
        last = list(find_layers(graph))[-1]
        add_to_bias(last, np.linspace(-2, 2, last.channels), names_in(graph))
    _, held = split_feeds(ctx.data, 64, ctx.seed)
    judge = NetworkLoss(ctx.reference, held)
    before = judge(graph)
    assert Polish(feeds=64, steps=12, radius=0.2, shifts=shifts, ranges=not shifts).run(graph, ctx)
    (record,) = ctx.report.tunings
    assert (record.before, record.after, record.kept) == (before, judge(graph), True)
    assert record.after < record.before


def test_by_default_gains_alone_are_tuned_and_ranges_stay():
    graph, ctx = quantized("int8")
    before = scales_of(scale_units(graph))
    judge = NetworkLoss(ctx.reference, split_feeds(ctx.data, 64, ctx.seed)[1])
    least = judge(graph)
    for layer in find_layers(graph):
        apply_tuning(
            layer, np.full(layer.channels, 1.05, np.float32), np.zeros(layer.channels, np.float32), names_in(graph)
        )
    spoilt = judge(graph)
    assert Polish(feeds=64, steps=100, radius=1.0).run(graph, ctx)
    # a gain 5 % off is one unit: smaller steps are lost between 8-bit codes
    assert judge(graph) - least < 0.1 * (spoilt - least)
    np.testing.assert_array_equal(scales_of(scale_units(graph)), before)


def test_codes_stay_and_storage_gives_the_polished_graph_back():
    graph, ctx = quantized(stretch=4.0)
    codes = {layer.node.name: read_spec(layer.weight.inputs[0]).quantize(layer.values) for layer in find_layers(graph)}
    assert Polish(feeds=64, steps=12, radius=0.2, shifts=True, ranges=True).run(graph, ctx)
    feed = ctx.data[0]
    polished = Runner(graph).run(feed)["y"]
    Manager([StoreCodes()]).run(graph, ctx)
    for layer in find_layers(graph):
        np.testing.assert_array_equal(layer.values, codes[layer.node.name])
    stored, step = Runner(graph).run(feed)["y"], float(spec_of(graph.outputs[0]).scale)
    np.testing.assert_allclose(stored, polished, atol=1.01 * step)
    # biases are integers now: an output may be on the next code
    assert np.mean(stored == polished) > 0.9


def test_a_result_that_is_worse_on_held_feeds_is_rolled_back(monkeypatch):
    monkeypatch.setattr(
        "qcompiler.calibration.spsa.Spsa.minimize", lambda self, loss, start, seed, on_step: (start + 0.7, 0.0, 1.0)
    )
    graph, ctx = quantized("int8")
    values = [np.asarray(layer.values).copy() for layer in find_layers(graph)]
    before = Runner(graph).run(ctx.data[0])["y"]
    assert not Polish(steps=1).run(graph, ctx)
    assert not ctx.report.tunings[0].kept
    np.testing.assert_array_equal(Runner(graph).run(ctx.data[0])["y"], before)
    for layer, kept in zip(find_layers(graph), values, strict=True):
        np.testing.assert_array_equal(layer.values, kept)


def test_the_same_seed_gives_the_same_graph():
    answers, steps = [], []
    for _ in range(2):
        graph, ctx = quantized(stretch=4.0)
        ctx.on_step = lambda done, total: steps.append((done, total))
        Polish(feeds=64, steps=3, radius=0.05, ranges=True).run(graph, ctx)
        answers.append(Runner(graph).run(ctx.data[0])["y"])
    np.testing.assert_array_equal(*answers)
    assert steps == [(0, 3), (1, 3), (2, 3)] * 2


def test_a_tunable_graph_as_it_is_answers_as_the_graph_does():
    graph, ctx = quantized()
    names = [layer.node.name for layer in find_layers(graph)]
    tuned = TunableGraph(graph, names, ranges=True)
    got = tuned.run(ctx.data[0], Settings(scales_of(scale_units(graph)), np.ones(len(names), np.float32)))
    np.testing.assert_allclose(got["y"], Runner(graph, fusions=False).run(ctx.data[0])["y"], rtol=1e-4, atol=1e-4)


def test_grids_of_known_range_are_left_alone():
    graph, _ = quantized()
    tuned = {pair.name for unit in scale_units(graph) for pair in unit}
    assert "x" in tuned
    assert "p" not in tuned
    assert not any(isinstance(pair.quantize.inputs[0], Constant) for unit in scale_units(graph) for pair in unit)
    assert len(names_in(graph)) > len(tuned)


def test_without_the_float_graph_nothing_is_done():
    graph, ctx = quantized()
    ctx.reference = None
    assert not Polish().run(graph, ctx)


@pytest.mark.parametrize("options", [{"steps": 0}, {"radius": 0.0}, {"feeds": 0}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="must be positive"):
        Polish(**options)
