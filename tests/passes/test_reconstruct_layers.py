from __future__ import annotations

import numpy as np
import pytest
from qcompiler.passes.quantize_activations import QuantizeActivations
from qcompiler.passes.quantize_weights import QuantizeWeights
from qcompiler.passes.reconstruct_layers import ReconstructLayers
from qcompiler.passes.store_codes import StoreCodes

from qcompiler.errors import OptionError
from qcompiler.grids import uniform
from qcompiler.ir import copy_of, read_spec
from qcompiler.layer_problem import Solution
from qcompiler.layers import find_layers
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.runner import Runner
from qcompiler.solvers import SOLVERS, Nearest, Solver
from tests.graphs import graph_of
from tests.passes.rewriting import random, reasons

NET = """g (float[N, 6, 8, 8] x) => (float[N, 5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) b = Relu(a) c = Conv <group = 8, strides = [2, 2]> (b, w2, b2) d = Relu(c)
    e = Flatten(d) f = MatMul(e, w3) y = Add(f, b3) }"""


def network():
    weights = {
        "w1": random(8, 6, 3, 3, seed=1), "b1": random(8, seed=2), "w2": random(8, 1, 3, 3, seed=3), "b2": random(8, seed=4),
        "w3": random(72, 5, seed=5), "b3": random(5, seed=6),
    }
    return graph_of(NET, **weights)


def correlated(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shared = (rng.standard_normal((4, 2, 8, 8)) @ rng.standard_normal((8, 8)) * 0.3).astype(np.float32)
    return shared.repeat(3, axis=1) + random(4, 6, 8, 8, seed=seed)


def compiled(**options):
    feeds = [{"x": correlated(seed)} for seed in range(15)]
    graph = network()
    ctx = Context(data=feeds, reference=copy_of(graph))
    Manager([QuantizeActivations(), QuantizeWeights(), ReconstructLayers(**options)]).run(graph, ctx)
    fresh = [{"x": correlated(seed)} for seed in range(100, 105)]
    expected = [Runner(network()).run(feed)["y"] for feed in fresh]
    error = sum(np.square(Runner(graph).run(feed)["y"] - want).sum() for feed, want in zip(fresh, expected, strict=True))
    return graph, ctx, error / sum(np.square(want).sum() for want in expected)


@pytest.mark.parametrize("solver", ["nearest", "clip", "gptq"])
def test_every_weight_is_a_level_times_a_scale_and_survives_storage(solver):
    graph, ctx, _ = compiled(solver=solver, grid="int3")
    before = {layer.node.name: layer.values for layer in find_layers(graph)}
    Manager([StoreCodes()]).run(graph, ctx)
    assert len(before) == 3
    for layer in find_layers(graph):
        spec = read_spec(layer.weight.inputs[0])
        assert set(np.unique(layer.values)) <= set(range(-3, 4))
        np.testing.assert_array_equal(spec.dequantize(layer.values), before[layer.node.name])


def test_a_better_solver_leaves_less_error_on_fresh_inputs():
    nearest, clip, gptq = (compiled(solver=solver, grid="int4")[2] for solver in ("nearest", "clip", "gptq"))
    assert gptq < clip < nearest


def test_the_record_holds_both_losses_and_what_was_kept():
    _, ctx, _ = compiled(solver="gptq", grid="int4")
    assert [record.node for record in ctx.report.reconstructions] == ["Conv_0", "Conv_2", "MatMul_5"]
    for record in ctx.report.reconstructions:
        assert record.fit_after <= record.fit_before
        assert record.kept == (record.held_after <= record.held_before)
        assert record.solver == ("gptq" if record.kept else "nearest")
        assert 0 < record.held_before < 1


def test_a_choice_that_is_worse_on_unseen_feeds_is_rolled_back(monkeypatch):
    class Overfitted(Solver):
        def solve(self, problem, start=None, seed=0):
            plain = Nearest().solve(problem)
            return Solution(np.zeros_like(plain.levels), plain.scale)

    monkeypatch.setitem(SOLVERS, "gptq", Overfitted())
    graph, ctx, _ = compiled(solver="gptq", grid="int4")
    plain, _, _ = compiled(solver="nearest", grid="int4")
    assert [(record.kept, record.solver) for record in ctx.report.reconstructions] == [(False, "nearest")] * 3
    for got, want in zip(find_layers(graph), find_layers(plain), strict=True):
        np.testing.assert_array_equal(got.values, want.values)


def test_a_pass_before_may_choose_the_grid_of_a_layer():
    graph, feeds = network(), [{"x": correlated(seed)} for seed in range(6)]
    ctx = Context(data=feeds, grids={"Conv_2": uniform(2)})
    Manager([QuantizeActivations(), QuantizeWeights(), ReconstructLayers(grid="int5")]).run(graph, ctx)
    levels = {layer.node.name: np.abs(read_spec(layer.weight.inputs[0]).quantize(layer.values)).max() for layer in find_layers(graph)}
    assert levels["Conv_2"] == 1
    assert levels["Conv_0"] > 7


def test_long_rows_may_be_left_alone():
    graph, ctx, _ = compiled(longest=60, memory=1)
    assert [record.node for record in ctx.report.reconstructions] == ["Conv_0", "Conv_2"]  # 54 and 9 products; the last has 72
    np.testing.assert_array_equal(list(find_layers(graph))[2].values, random(72, 5, seed=5))


def test_transposed_convolutions_are_left_to_plain_rounding():
    graph = graph_of("g (float[1, 4, 6, 6] x) => (float y) { y = ConvTranspose(x, w) }", w=random(4, 3, 2, 2))
    ctx = Context(data=[{"x": random(1, 4, 6, 6)}])
    Manager([QuantizeActivations(), QuantizeWeights(), ReconstructLayers()]).run(graph, ctx)
    assert any("transposed convolution" in reason for reason in reasons(ctx))


@pytest.mark.parametrize("options", [{"solver": "magic"}, {"grid": "float9"}])
def test_unknown_names_are_refused_with_those_known(options):
    with pytest.raises(OptionError, match="; known:"):
        ReconstructLayers(**options)


def test_processes_choose_the_same_weights():
    here, there = (compiled(executor=executor, grid="int3")[0] for executor in ("serial", "processes:2"))
    for got, want in zip(find_layers(there), find_layers(here), strict=True):
        np.testing.assert_array_equal(got.values, want.values)


DEEP = "g (float[N, 16] x) => (float[N, 16] y) {" + " ".join(
    f"h{n} = MatMul({'x' if n == 0 else f'r{n - 1}'}, w{n}) a{n} = Add(h{n}, b{n}) r{n} = Relu(a{n})" for n in range(6)) + " y = MatMul(r5, w6) }"


def deep(seed=0):
    weights = {f"w{n}": 0.4 * random(16, 16, seed=seed + n) for n in range(7)} | {f"b{n}": 0.1 * random(16, seed=seed + 20 + n) for n in range(6)}
    return graph_of(DEEP, **weights)


def deep_error(inputs, seed=0, reference=True):
    feeds, graph = [{"x": random(64, 16, seed=number)} for number in range(20)], deep(seed)
    ctx = Context(data=feeds, reference=copy_of(graph) if reference else None)
    Manager([QuantizeActivations(), QuantizeWeights(), ReconstructLayers(grid="int3", inputs=inputs)]).run(graph, ctx)
    fresh = {"x": random(1000, 16, seed=99)}
    want = Runner(deep(seed)).run(fresh)["y"]
    return np.square(Runner(graph).run(fresh)["y"] - want).sum() / np.square(want).sum(), ctx.report.reconstructions, graph


def test_layers_fitted_behind_quantized_ones_make_good_their_error():
    ratios = [deep_error("quantized", seed)[0] / deep_error("float", seed)[0] for seed in (0, 100, 200, 300)]
    assert max(ratios) < 1
    assert np.mean(ratios) < 0.93


def test_the_record_of_layers_behind_quantized_ones():
    _, records, graph = deep_error("quantized")
    assert [record.node for record in records] == [layer.node.name for layer in find_layers(graph)]
    losses = [record.held_after for record in records]
    assert losses[0] < losses[-1]  # errors of layers before count, too
    assert all(record.held_after <= record.held_before for record in records)
    for layer in find_layers(graph):
        assert set(np.unique(read_spec(layer.weight.inputs[0]).quantize(layer.values))) <= set(range(-3, 4))


def test_without_a_float_model_at_hand_the_graph_as_it_was_is_the_target():
    assert deep_error("quantized", reference=False)[0] < deep_error("float")[0]


def test_layers_that_wait_for_others_are_not_spread_over_processes():
    with pytest.raises(ValueError, match="leave executor out"):
        ReconstructLayers(inputs="quantized", executor="processes")
