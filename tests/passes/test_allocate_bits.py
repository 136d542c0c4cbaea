from __future__ import annotations

import functools

import numpy as np
import pytest
from qcompiler.passes.allocate_bits import AllocateBits, stored_bytes
from qcompiler.passes.quantize_activations import QuantizeActivations
from qcompiler.passes.quantize_weights import QuantizeWeights
from qcompiler.passes.reconstruct_layers import ReconstructLayers

from qcompiler.calibration.network_loss import NetworkLoss
from qcompiler.errors import OptionError
from qcompiler.ir import copy_of, spec_of
from qcompiler.layers import find_layers
from qcompiler.manager import Manager
from qcompiler.packing import packed
from qcompiler.pass_base import Context
from tests.graphs import graph_of
from tests.passes.rewriting import random

NET = """g (float[N, 6, 8, 8] x) => (float[N, 40] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) b = Relu(a) c = Conv <pads = [1, 1, 1, 1]> (b, w2) d = Relu(c) e = Conv(d, w3) little = Mul(e, f)
    sum = Add(b, little) s = Conv <group = 32, strides = [2, 2]>(sum, w4) t = Flatten(s) u = MatMul(t, w5) h = Relu(u) y = MatMul(h, w6) }"""
"""The branch of w2 and w3 matters little."""


def network():
    return graph_of(
        NET, w1=random(32, 6, 3, 3, seed=1), b1=random(32, seed=2), w2=random(64, 32, 3, 3, seed=3), w3=random(32, 64, 1, 1, seed=4),
        f=np.float32(1e-3), w4=random(32, 1, 1, 1, seed=5), w5=random(512, 48, seed=6), w6=random(48, 40, seed=7),
    )


def feeds_of(seeds: range) -> list[dict[str, np.ndarray]]:
    return [{"x": random(16, 6, 8, 8, seed=seed)} for seed in seeds]


@functools.cache
def allocated(**options):
    """What the pass does with some options; not to be changed, several tests look at it."""
    graph = network()
    ctx = Context(data=feeds_of(range(12)), reference=copy_of(graph))
    Manager([QuantizeActivations(), QuantizeWeights(), AllocateBits(feeds=2, **options)]).run(graph, ctx)
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
    assert sum(stored_bytes(15, int(layer.values.size)) for layer in find_layers(network())) <= found.budget
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


@pytest.mark.parametrize(("distinct", "elements"), [(3, 5000), (7, 5000), (7, 40000), (15, 5001), (31, 40000), (31, 5000), (63, 40000), (255, 5000)])
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
    assert stored_bytes(distinct, elements) == size


@pytest.mark.parametrize("options", [{"menu": "int9"}, {"menu": " "}, {"solver": "magic"}])
def test_options_are_checked(options):
    with pytest.raises(OptionError):
        AllocateBits(**options)


def test_numbers_are_checked():
    with pytest.raises(ValueError, match="must be positive"):
        AllocateBits(size_budget=0.0)
