from __future__ import annotations

import functools
import json

import numpy as np
import pytest

from qcompiler.calibration.gram import layer_inputs
from qcompiler.calibration.weight_sensitivity import round_weight
from qcompiler.errors import OptionError
from qcompiler.graph.ir import copy_of, spec_of
from qcompiler.graph.layers import find_layers
from qcompiler.grids import grid_named
from qcompiler.losses.network_loss import NetworkLoss
from qcompiler.manager import Manager
from qcompiler.onnx_io.packed_constants import coded, packed, stored_bytes
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.allocate_bits import AllocateBits
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from qcompiler.records import LayerTime
from qcompiler.solvers import SOLVERS
from qcompiler.solvers.block_factors import on_tables
from qcompiler.solvers.problem import LayerProblem
from qcompiler.weights.option_times import measured_times, reported_times
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

NET = """g (float[N, 6, 8, 8] x) => (float[N, 40] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) b = Relu(a) c = Conv <pads = [1, 1, 1, 1]> (b, w2) d = Relu(c)
    e = Conv(d, w3) little = Mul(e, f)
    sum = Add(b, little) s = Conv <group = 32, strides = [2, 2]>(sum, w4) t = Flatten(s) u = MatMul(t, w5) h = Relu(u)
    y = MatMul(h, w6) }"""
"""The branch of w2 and w3 matters little."""


def network():
    return graph_of(
        NET,
        w1=random(32, 6, 3, 3, seed=1),
        b1=random(32, seed=2),
        w2=random(64, 32, 3, 3, seed=3),
        w3=random(32, 64, 1, 1, seed=4),
        f=np.float32(1e-3),
        w4=random(32, 1, 1, 1, seed=5),
        w5=random(512, 48, seed=6),
        w6=random(48, 40, seed=7),
    )


def feeds_of(seeds: range) -> list[dict[str, np.ndarray]]:
    return [{"x": random(16, 6, 8, 8, seed=seed)} for seed in seeds]


class Timed(AllocateBits):
    """A machine on which the products of two layers are fast with few bits, and all others take the same time with
    any."""

    @staticmethod
    def clock(graph, names, feed):
        del graph, feed
        return [
            LayerTime(name, {"2": 400, "4": 500, "8": 1000} if name in FAST else {"2": 700, "4": 700, "8": 700})
            for name in names
        ]


FAST = ("MatMul_9", "MatMul_11")
UNIFORM = "int2,int3,int4,int5,int6,int8"
"""Code books take longer."""

FULL = 2 * 1000 + 4 * 700


@functools.cache
def allocated(kind=AllocateBits, **options):
    """What the pass does with some options; not to be changed, several tests look at it."""
    graph = network()
    ctx = Context(data=feeds_of(range(12)), reference=copy_of(graph))
    Manager(
        [QuantizeActivations(), QuantizeWeights(), kind(feeds=2, **{"menu": UNIFORM, "candidates": 3, **options})]
    ).run(graph, ctx)
    return graph, ctx


def test_the_choice_fits_the_budget_and_names_a_grid_for_each_layer():
    graph, ctx = allocated(size_budget=0.4)
    found = ctx.report.allocation
    assert set(ctx.grids) == {layer.node.name for layer in find_layers(graph)}
    assert [layer.grid for layer in found.layers] == [ctx.grids[layer.node].name for layer in found.layers]
    assert found.full == sum(layer.values.size for layer in find_layers(graph))
    assert sum(layer.size for layer in found.layers) == found.size <= found.budget == int(0.4 * found.full)
    assert len({layer.grid for layer in found.layers}) > 1


def test_the_chosen_candidate_is_the_best_of_those_really_evaluated():
    _, ctx = allocated(size_budget=0.55)
    first, *others = ctx.report.allocation.candidates
    assert first.measured == min(candidate.measured for candidate in [first, *others])
    assert {"integer program", "all int4"} <= {candidate.origin for candidate in [first, *others]}
    assert all(candidate.size <= ctx.report.allocation.budget for candidate in others)


def test_the_front_falls_and_a_larger_budget_loses_less():
    losses = []
    for budget in (0.4, 0.55):
        front = allocated(size_budget=budget)[1].report.allocation
        assert (np.diff([size for size, _ in front.front]) > 0).all()
        assert (np.diff([loss for _, loss in front.front]) < 0).all()
        losses.append(front.candidates[0].measured)
    assert losses[1] < losses[0]


def test_reconstruction_on_the_chosen_grids_loses_less_than_uniform_4_bits_of_that_size():
    judge = NetworkLoss(network(), feeds_of(range(100, 106)))

    def loss(*passes):
        graph = network()
        ctx = Context(data=feeds_of(range(12)), reference=copy_of(graph))
        Manager([QuantizeActivations(), QuantizeWeights(), *passes, ReconstructLayers()]).run(graph, ctx)
        return judge(graph), ctx.report.allocation

    mixed, found = loss(AllocateBits(feeds=2, size_budget=0.505))
    uniform, _ = loss()
    assert sum(stored_bytes(15, 1, int(layer.values.size)) for layer in find_layers(network())) <= found.budget
    assert mixed < uniform


def test_with_a_wanted_loss_the_smallest_size_that_keeps_it_is_taken():
    sizes = []
    for wanted in (0.05, 0.002):
        _, ctx = allocated(max_loss=wanted)
        found = ctx.report.allocation
        assert found.budget is None
        assert found.candidates[0].measured <= wanted
        enough = [candidate.size for candidate in found.candidates if candidate.measured <= wanted]
        assert found.size == min(enough)
        sizes.append(found.size)
    assert sizes[0] < sizes[1] < found.full


def test_a_loss_out_of_reach_is_told():
    _, ctx = allocated(max_loss=1e-9)
    assert any("no allocation reaches" in warning for warning in ctx.report.warnings)


def test_a_budget_below_the_smallest_grid_is_refused():
    with pytest.raises(Exception, match="the smallest choice of the menu takes"):
        allocated(size_budget=0.1)


def test_the_same_seed_gives_the_same_choice():
    first, second = allocated(size_budget=0.4)[1], allocated.__wrapped__(size_budget=0.4)[1]
    assert first.report.allocation == second.report.allocation


def test_a_budget_of_time_alone_gives_few_bits_to_the_layers_that_they_make_faster():
    graph, ctx = allocated(Timed, latency_budget=0.9)
    assert set(FAST) <= {layer.node.name for layer in find_layers(graph)}
    found = ctx.report.allocation
    bits = {layer.node: grid_named(layer.grid).bits for layer in found.layers}
    assert found.budget is None
    assert found.time.full == FULL
    assert found.time.chosen <= found.time.budget == int(0.9 * FULL)
    assert any(bits[name] <= 4 for name in FAST)
    assert (
        max(layer.loss for layer in found.layers if layer.node not in FAST)
        < 1e-4
        < max(layer.loss for layer in found.layers)
    )


def test_budgets_of_size_and_time_hold_both():
    found = allocated(Timed, latency_budget=0.83, size_budget=0.6)[1].report.allocation
    by_size = allocated(size_budget=0.6)[1].report.allocation
    assert found.size <= found.budget == by_size.budget
    assert found.time.chosen <= found.time.budget
    assert all(grid_named(layer.grid).bits <= 4 for layer in found.layers if layer.node in FAST)


def test_a_wanted_loss_is_reached_within_the_time():
    slow, fast = (allocated(Timed, max_loss=0.02, latency_budget=share)[1].report.allocation for share in (1.0, 0.8))
    assert fast.time.chosen <= 0.8 * FULL
    assert fast.candidates[0].measured <= 0.02
    assert fast.size >= slow.size


def test_a_time_out_of_reach_is_refused_with_the_smallest_share_there_is():
    with pytest.raises(OptionError, match="--latency-budget 70%: the smallest share that the menu allows here is 75%"):
        allocated(Timed, latency_budget=0.7)
    assert allocated(Timed, latency_budget=0.75)[1].report.allocation.time.chosen == 2 * 400 + 4 * 700


def test_where_no_grid_is_faster_the_budget_says_so():
    class Level(AllocateBits):
        @staticmethod
        def clock(graph, names, feed):
            del graph, feed
            return [LayerTime(name, dict.fromkeys("248", 10)) for name in names]

    _, ctx = allocated(Level, latency_budget=1.0)
    assert any("--latency-budget limits nothing" in warning for warning in ctx.report.warnings)
    with pytest.raises(OptionError, match="100%; none is faster than 8 bits"):
        allocated(Level, latency_budget=0.9)


def test_the_times_of_a_report_are_taken_back(tmp_path):
    graph, first = allocated(Timed, latency_budget=0.9)
    path = tmp_path / "report.json"
    path.write_text(json.dumps(first.report.as_dict()))
    again = allocated(latency_budget=0.9, latency_costs=str(path))[1]
    assert again.report.allocation == first.report.allocation
    empty = '{"allocation": {"time": {"layers": []}}}'
    for text, match in (("{}", "holds no times"), ("[", "holds no times"), (empty, "has no time of layer 'Conv_0'")):
        path.write_text(text)
        with pytest.raises(OptionError, match=match):
            reported_times(path, [layer.node.name for layer in find_layers(graph)])
    with pytest.raises(OptionError, match="No such file"):
        reported_times(tmp_path / "none.json", [])


def test_the_clock_of_the_machine_times_every_layer_at_the_sizes_of_the_feed():
    graph = network()
    Manager([QuantizeActivations(), QuantizeWeights()]).run(graph, Context(data=feeds_of(range(2))))
    times = measured_times(graph, [layer.node.name for layer in find_layers(graph)], feeds_of(range(1))[0])
    assert [time.node for time in times] == [layer.node.name for layer in find_layers(graph)]
    assert all(time.nanoseconds["4"] == time.nanoseconds["8"] > 0 for time in times)  # 16 rows


def test_blocks_may_be_chosen_and_are_reconstructed():
    graph = network()
    ctx = Context(data=feeds_of(range(12)), reference=copy_of(graph))
    Manager([
        QuantizeActivations(), QuantizeWeights(),
        AllocateBits(feeds=2, size_budget=0.53, menu="int2,int4,int4/64,nf4/32,int8"), ReconstructLayers()
    ]).run(graph, ctx)  # fmt: skip
    found = ctx.report.allocation
    assert {layer.grid for layer in found.layers} & {"int4/64", "nf4/32"}
    assert found.size <= found.budget
    assert {ctx.grids[layer.node].block for layer in found.layers} & {32, 64}


def test_weights_in_blocks_are_those_of_the_tables_and_err_less():
    graph = network()
    layer = list(find_layers(graph))[1]
    inputs = next(iter(layer_inputs(graph, [layer], feeds_of(range(4)))))
    plain, blocks = (round_weight(inputs, grid_named(name), SOLVERS["gptq"], 0) for name in ("int4", "int4/32"))
    assert (blocks.block, plain.block, blocks.scale.shape) == (32, None, plain.scale.shape)
    errors = [float(np.square(weight.values(layer) - layer.values).sum()) for weight in (plain, blocks)]
    assert errors[1] < errors[0]
    taps_first = np.moveaxis(blocks.levels.reshape(layer.values.shape), 1, -1).reshape(len(layer.values), -1, 32)
    assert max(len(np.unique(block)) for row in taps_first for block in row) <= 15 < len(np.unique(blocks.levels))


def test_the_divergence_of_a_classifier_is_a_loss_of_its_own():
    found = {loss: allocated(size_budget=0.4, loss=loss)[1].report.allocation for loss in ("mse", "kl")}
    assert found["kl"].loss == "kl"
    assert [layer.loss for layer in found["kl"].layers] != [layer.loss for layer in found["mse"].layers]
    first, *others = found["kl"].candidates
    assert first.measured == min(candidate.measured for candidate in [first, *others])


@pytest.mark.parametrize("block", [32, 64, 128])
@pytest.mark.parametrize(("name", "shape"), [("nf4", (48, 640)), ("int4", (100, 300)), ("kmeans3", (96, 640))])
def test_stored_bytes_in_blocks_are_those_of_the_file_but_for_tables_that_nobody_uses(name, shape, block):
    weight = np.random.default_rng(0).laplace(size=(1, *shape))
    grid = grid_named(name, block).fit(weight)
    problem = LayerProblem(weight, np.eye(shape[1])[None], np.zeros((1, shape[1])), grid, corrects_mean=False)
    _, solution = on_tables(problem, np.ones((1, shape[1])))
    found = coded(np.ascontiguousarray(solution.levels[0].T.astype(np.int8)))
    assert found is not None
    # what is left free in words
    words = -(-found.codes.size // (64 // found.bits)) * 8 - found.codes.size * found.bits // 8
    unused = (16 - len(found.values)) * len(grid.levels)
    assert 0 <= stored_bytes(len(grid.levels), *shape, block) - found.nbytes <= max(words, 0) + unused + 16


@pytest.mark.parametrize(
    ("distinct", "elements"),
    [(3, 5000), (7, 5000), (7, 40000), (15, 5001), (31, 40000), (31, 5000), (63, 40000), (255, 5000)],
)
def test_stored_bytes_are_those_of_the_file(distinct, elements):
    rng = np.random.default_rng(0)
    codes = rng.integers(-(distinct // 2), distinct // 2 + 1, elements).astype(np.int8)
    text = f"g (float[N, {elements}] x) => (float[N, {elements}] y) {{ w = DequantizeLinear(q, s) y = Add(x, w) }}"
    graph = graph_of(text, q=codes, s=np.float32(1))
    assert spec_of(graph.nodes[0].outputs[0]) is not None
    stored = {id(t): t for node in packed(graph).nodes for t in node.inputs if hasattr(t, "values")}
    raw = max(stored.values(), key=lambda tensor: tensor.values.size)
    held = getattr(raw._values, "tensor", None)
    size = raw.values.nbytes if held is None else len(held.raw_data)
    assert stored_bytes(distinct, 1, elements) == size


@pytest.mark.parametrize(
    "options",
    [
        {"menu": "int9"},
        {"menu": " "},
        {"solver": "magic"},
        {"menu": "nf4/64", "solver": "adaround"},
        {"max_loss": 0.1, "size_budget": 0.5},
        {"latency_costs": "report.json"},
    ],
)
def test_options_are_checked(options):
    with pytest.raises(OptionError):
        AllocateBits(**options)


def test_numbers_are_checked():
    with pytest.raises(ValueError, match="must be positive"):
        AllocateBits(size_budget=0.0)
    with pytest.raises(ValueError, match="must be positive"):
        AllocateBits(latency_budget=-1.0)
