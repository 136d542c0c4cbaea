from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qcompiler.errors import OptionError
from qcompiler.graph.ir import copy_of, read_spec
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from qcompiler.grids import block_levels, uniform
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights import reconstruct_layers
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from qcompiler.passes.weights.store_codes import StoreCodes
from qcompiler.solvers import SOLVERS, Nearest, Solver
from qcompiler.solvers.base import rounded
from qcompiler.solvers.block_factors import on_tables
from qcompiler.solvers.problem import Solution
from qcompiler.weights import solve_alone
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random, reasons

NET = """g (float[N, 6, 8, 8] x) => (float[N, 5] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) b = Relu(a) c = Conv <group = 8, strides = [2, 2]> (b, w2, b2)
    d = Relu(c)
    e = Flatten(d) f = MatMul(e, w3) y = Add(f, b3) }"""


def network():
    weights = {
        "w1": random(8, 6, 3, 3, seed=1),
        "b1": random(8, seed=2),
        "w2": random(8, 1, 3, 3, seed=3),
        "b2": random(8, seed=4),
        "w3": random(72, 5, seed=5),
        "b3": random(5, seed=6),
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
    error = sum(
        np.square(Runner(graph).run(feed)["y"] - want).sum() for feed, want in zip(fresh, expected, strict=True)
    )
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
    assert gptq < min(nearest, clip)
    assert (
        compiled(solver="clip", grid="int3")[2] < compiled(solver="nearest", grid="int3")[2]
    )  # a step is worth more than what is clipped


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
    levels = {
        layer.node.name: np.abs(read_spec(layer.weight.inputs[0]).quantize(layer.values)).max()
        for layer in find_layers(graph)
    }
    assert levels["Conv_2"] == 1
    assert levels["Conv_0"] > 7


def test_long_rows_may_be_left_alone():
    graph, ctx, _ = compiled(longest=60, memory=1)
    assert [record.node for record in ctx.report.reconstructions] == [
        "Conv_0",
        "Conv_2",
    ]  # 54 and 9 products; the last has 72
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


WIDE = """g (float[N, 40, 6, 6] x) => (float[N, 30] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) b = Relu(a) c = GlobalAveragePool(b) d = Flatten(c)
    y = MatMul(d, w2) }"""


@pytest.mark.parametrize(("solver", "inputs"), [
    ("nearest", "float"), ("clip", "float"), ("gptq", "float"), ("gptq", "quantized"), ("descent", "float"),
])  # fmt: skip
def test_blocks_have_factors_along_the_taps_and_lose_less(solver, inputs):
    rng = np.random.default_rng(0)
    weights = {
        "w1": rng.standard_t(3, (80, 40, 3, 3)).astype(np.float32),
        "b1": random(80),
        "w2": rng.standard_t(3, (80, 30)).astype(np.float32),
    }
    feeds, losses = [{"x": random(3, 40, 6, 6, seed=seed)} for seed in range(10)], {}
    for grid in ("int4", "int4/32"):
        graph = graph_of(WIDE, **weights)
        ctx = Context(data=feeds, reference=copy_of(graph))
        Manager(
            [QuantizeActivations(), QuantizeWeights(), ReconstructLayers(solver=solver, grid=grid, inputs=inputs)]
        ).run(graph, ctx)
        losses[grid] = [record.fit_after for record in ctx.report.reconstructions]
    assert [record.grid for record in ctx.report.reconstructions] == ["int4/32"] * 2
    assert all(small < large for small, large in zip(losses["int4/32"], losses["int4"], strict=True))
    Manager([StoreCodes()]).run(graph, ctx)
    tables = block_levels(uniform(4))
    for layer in find_layers(graph):
        assert read_spec(layer.weight.inputs[0]).scale.size == layer.channels
        codes = layer.values.transpose(0, 2, 3, 1).reshape(80, 360) if layer.node.op == "Conv" else layer.values.T
        for row in codes[::7]:
            assert all(
                any(np.isin(part, table).all() for table in tables) for part in np.split(row, range(32, len(row), 32))
            )


def test_a_layer_whose_blocks_lose_more_on_unseen_feeds_has_none(monkeypatch):
    def poor(problem, importance):
        placed, start = on_tables(problem, importance)
        ternary = replace(placed, tables=replace(placed.tables, levels=np.sign(placed.tables.levels)))
        return ternary, rounded(ternary, start.scale)

    _, good, _ = compiled(grid="int4/64", solver="clip")
    monkeypatch.setattr(solve_alone, "on_tables", poor)
    _, ctx, _ = compiled(grid="int4/64", solver="clip")
    _, without, _ = compiled(grid="int4", solver="clip")
    assert good.report.reconstructions[2].grid == "int4/64"
    assert ctx.report.reconstructions[2].grid == "int4"
    assert ctx.report.reconstructions[2].held_after == without.report.reconstructions[2].held_after


def test_a_row_within_a_block_has_none():
    _, ctx, _ = compiled(grid="int4/64", solver="clip")
    assert [record.grid for record in ctx.report.reconstructions] == ["int4", "int4", "int4/64"]


@pytest.mark.parametrize(
    "options",
    [{"grid": "int5/64"}, {"grid": "int4/48"}, {"grid": "int4/64", "solver": "adaround"}, {"grid": "split3/32"}],
)
def test_blocks_that_cannot_be_are_refused(options):
    with pytest.raises(OptionError, match="block"):
        ReconstructLayers(**options)


DEEP = (
    "g (float[N, 16] x) => (float[N, 16] y) {"
    + " ".join(
        f"h{n} = MatMul({'x' if n == 0 else f'r{n - 1}'}, w{n}) a{n} = Add(h{n}, b{n}) r{n} = Relu(a{n})"
        for n in range(6)
    )
    + " y = MatMul(r5, w6) }"
)


def deep(seed=0):
    weights = {f"w{n}": 0.4 * random(16, 16, seed=seed + n) for n in range(7)} | {
        f"b{n}": 0.1 * random(16, seed=seed + 20 + n) for n in range(6)
    }
    return graph_of(DEEP, **weights)


def deep_error(inputs, seed=0, reference=True):
    feeds, graph = [{"x": random(64, 16, seed=number)} for number in range(20)], deep(seed)
    ctx = Context(data=feeds, reference=copy_of(graph) if reference else None)
    Manager([QuantizeActivations(), QuantizeWeights(), ReconstructLayers(grid="int3", inputs=inputs)]).run(graph, ctx)
    fresh = {"x": random(1000, 16, seed=99)}
    want = Runner(deep(seed)).run(fresh)["y"]
    return (
        np.square(Runner(graph).run(fresh)["y"] - want).sum() / np.square(want).sum(),
        ctx.report.reconstructions,
        graph,
    )


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


def test_mixed_inputs_are_quantized_for_convolutions_and_the_float_models_for_products():
    ways = [compiled(inputs=inputs, grid="int3")[0] for inputs in ("float", "quantized", "mixed")]
    alone, behind, mixed = ([layer.values for layer in find_layers(graph)] for graph in ways)
    for got, want, other in zip(mixed, [*behind[:2], alone[2]], [*alone[:2], behind[2]], strict=True):
        np.testing.assert_array_equal(got, want)
        assert not np.array_equal(got, other)


def test_layers_that_wait_for_others_are_not_spread_over_processes():
    with pytest.raises(ValueError, match="leave executor out"):
        ReconstructLayers(inputs="quantized", executor="processes")


@pytest.mark.parametrize("loses", [False, True])
def test_gated_solutions_stay_only_where_the_network_gains(monkeypatch, loses):
    solve = solve_alone.solve

    def spoiled(task):
        solved = solve(task)
        return replace(solved, solution=replace(solved.solution, scale=solved.solution.scale * np.float32(1.5)))

    monkeypatch.setattr(reconstruct_layers, "solve", spoiled if loses else solve)
    graph, ctx, _ = compiled(grid="int8", solver="gptq", gated=True)
    free, _, _ = compiled(grid="int8", solver="gptq")
    (tuning,) = ctx.report.tunings
    assert tuning.kept == (tuning.after < tuning.before) == (not loses)
    assert bool(ctx.report.reconstructions) == (not loses)
    weights, others = ([layer.values for layer in find_layers(each)] for each in (graph, network() if loses else free))
    assert all(np.array_equal(one, other) for one, other in zip(weights, others, strict=True))
