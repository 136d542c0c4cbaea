from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from qcompiler.errors import OptionError
from qcompiler.graph.ir import Graph
from qcompiler.graph.layers import find_layers, underlying_constant, weight_slots
from qcompiler.grids import grid_named
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.choose_grid import CANDIDATES, ChooseGrid
from qcompiler.passes.weights.nupes import Nupes
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from qcompiler.passes.weights.round_weights import RoundWeights
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

NET = """g (float[N, 8, 6, 6] x) => (float[N, 16] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  b = Relu(a)  c = Conv <group = 8> (b, w2, b2)  d = Flatten(c)
    y = MatMul(d, w3) }"""


def network() -> Graph:
    rng = np.random.default_rng(4)
    heavy = rng.laplace(size=(128, 16)).astype(np.float32) ** 3
    return graph_of(
        NET,
        w1=random(8, 8, 3, 3, seed=1),
        b1=random(8, seed=2),
        w2=random(8, 1, 3, 3, seed=3),
        b2=random(8, seed=5),
        w3=heavy,
    )


def context(feeds: int = 6) -> Context:
    return Context(data=[{"x": random(4, 8, 6, 6, seed=seed)} for seed in range(feeds)])


@pytest.mark.parametrize("weighted", [True, False])
def test_every_layer_gets_the_grid_of_least_loss(weighted: bool) -> None:
    graph, ctx = network(), context()
    Manager([ChooseGrid(bits=3, weighted=weighted)]).run(graph, ctx)
    assert (
        set(ctx.grids)
        == {layer.node.name for layer in find_layers(graph)}
        == {choice.node for choice in ctx.report.grids}
    )
    for choice in ctx.report.grids:
        assert choice.losses[choice.grid] == min(choice.losses.values())
        assert tuple(choice.losses) == CANDIDATES[3]
        assert ctx.grids[choice.node].fit(np.ones((1, 1, 1))).bits <= choice.bits == 3


def test_the_loss_is_that_of_the_weights_where_there_is_no_data() -> None:
    graph, ctx = network(), Context()
    Manager([ChooseGrid(bits=8, weighted=False)]).run(graph, ctx)
    for layer, choice in zip(find_layers(graph), ctx.report.grids, strict=True):
        rows = layer.values.reshape(layer.channels, -1) if layer.axis == 0 else layer.values.T
        step = np.abs(rows).max(axis=1, keepdims=True) / 127
        plain = np.sum((rows - step * np.rint(rows / step)) ** 2) / np.sum(rows**2)
        assert 0.5 * plain < choice.losses["int8"] <= plain * 1.001


def test_more_bits_lose_less() -> None:
    losses = []
    for bits in (2, 3, 4, 5):
        ctx = context()
        Manager([ChooseGrid(bits=bits)]).run(network(), ctx)
        losses.append([min(choice.losses.values()) for choice in ctx.report.grids])
    assert all(more < less for less, more in pairwise(map(np.prod, losses)))


def test_blocks_reach_the_grids_and_levels_keep_pairs_exact() -> None:
    graph, ctx = network(), context()
    Manager([Nupes(bits=3, block=32)]).run(graph, ctx)
    assert {(grid.block, grid.largest) for grid in ctx.grids.values()} == {(32, 64)}
    Manager([ChooseGrid(bits=4, candidates="nf4 int4")]).run(graph, ctx)
    assert all(ctx.grids[choice.node].largest <= 64 for choice in ctx.report.grids)
    assert {tuple(choice.losses) for choice in ctx.report.grids} == {("nf4", "int4")}


def test_solvers_take_the_grids_that_were_chosen() -> None:
    graph, ctx = network(), context()
    Manager([QuantizeActivations(), QuantizeWeights(), Nupes(bits=3), ReconstructLayers(solver="nearest")]).run(
        graph, ctx
    )
    chosen = {record.node: record.grid for record in ctx.report.reconstructions}
    assert chosen == {node: grid.name for node, grid in ctx.grids.items()}
    for layer in find_layers(graph):
        rows = np.moveaxis(layer.values, layer.axis, 0).reshape(layer.channels, -1)
        assert all(len(np.unique(row)) <= 7 for row in rows)


def test_what_is_no_layer_problem_gets_a_grid_by_its_weights() -> None:
    text = """g (float[5, N, 8] x) => (float[5, 1, N, 6] y, float[N, 4, 5, 5] z) {
        y, h, c = LSTM <hidden_size = 6> (x, w, r)  s = Reshape(h, k)  z = ConvTranspose(s, t) }"""
    weights = {
        "w": random(1, 24, 8, seed=1),
        "r": random(1, 24, 6, seed=2),
        "t": random(3, 4, 4, 4, seed=3),
        "k": np.array([-1, 3, 2, 1]),
    }
    feeds = [{"x": random(5, 2, 8, seed=seed)} for seed in range(4)]
    for chooser in (ChooseGrid(bits=3), Nupes(bits=3)):
        graph, ctx = graph_of(text.replace("5, 5", "5, 4"), **weights), Context(data=feeds)
        Manager([QuantizeActivations(), QuantizeWeights(), chooser, RoundWeights()]).run(graph, ctx)
        assert len(ctx.grids) == 2
        for node in graph.nodes:
            for slot in weight_slots(node):
                values = np.moveaxis(underlying_constant(node.inputs[slot]).values, 1, 0)
                assert all(len(np.unique(row)) <= 8 for row in values.reshape(len(values), -1))


@pytest.mark.parametrize("options", [{"bits": 7}, {"candidates": "int4 int1"}])
def test_odd_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(OptionError):
        ChooseGrid(**options)


def test_the_candidates_exist_and_take_the_bits_they_stand_for() -> None:
    weight = np.random.default_rng(0).laplace(size=(1, 8, 512))
    for bits, names in CANDIDATES.items():
        assert {grid_named(name).fit(weight).bits for name in names} == {bits}


def test_chosen_grids_with_blocks_are_solved_by_solvers_that_know_them() -> None:
    graph, ctx = network(), context()
    steps = [QuantizeActivations(), QuantizeWeights(), ChooseGrid(bits=4, block=32)]
    Manager([*steps, ReconstructLayers(solver="clip")]).run(graph, ctx)
    blocks = {record.node: "/32" in record.grid for record in ctx.report.reconstructions}
    assert list(blocks.values()) == [True, False, True]  # a depthwise row is shorter
    with pytest.raises(OptionError, match="knows no blocks"):
        Manager([*steps, ReconstructLayers(solver="soft")]).run(network(), context())
    with pytest.raises(OptionError, match="at most 4 bits"):
        ChooseGrid(bits=5, block=32)
