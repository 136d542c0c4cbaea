from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import Graph
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from qcompiler.grids import SplitGrid, fit_scale
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.fuse_split import FuseSplit
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from qcompiler.passes.weights.split_layers import SplitLayers
from qcompiler.weights.split_matrices import clusters, disjoint, find_splits
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

CONV = "g (float[N, 6, 8, 8] x) => (float[N, 5, 8, 8] y) { c = Conv <pads = [1, 1, 1, 1]> (x, w, b)  y = Relu(c) }"
GEMM = "g (float[N, 12] x) => (float[N, 7] y) { c = Gemm <transB = 1> (x, w, b)  y = Tanh(c) }"
MATMUL = "g (float[N, 12] x) => (float[N, 7] y) { c = MatMul(x, w)  y = Add(c, b) }"
NETS = {
    "conv": (CONV, (5, 6, 3, 3), (5,), (2, 6, 8, 8)),
    "gemm": (GEMM, (7, 12), (7,), (3, 12)),
    "matmul": (MATMUL, (12, 7), (7,), (3, 12)),
}


def network(kind: str) -> tuple[Graph, np.ndarray]:
    text, weight, bias, feed = NETS[kind]
    return graph_of(text, w=random(*weight, seed=1), b=random(*bias, seed=2)), random(*feed, seed=3)


def weights(graph: Graph) -> list[np.ndarray]:
    return [layer.values for layer in find_layers(graph)]


@pytest.mark.parametrize("kind", NETS)
def test_three_branches_compute_what_the_layer_did_and_hold_its_weights(kind: str) -> None:
    graph, x = network(kind)
    whole = weights(graph)[0]
    rewrite(graph, SplitLayers(), x=x)
    op = {"conv": "Conv", "gemm": "Gemm", "matmul": "MatMul"}[kind]
    assert sorted(ops(graph)).count(op) == 3
    assert len(list(find_splits(graph))) == 1
    parts = weights(graph)
    np.testing.assert_array_equal((parts[0] + parts[1]) + parts[2], whole)
    assert disjoint(parts)


def test_integers_are_added_without_any_error() -> None:
    rng = np.random.default_rng(0)
    graph = graph_of(
        GEMM, w=rng.integers(-40, 41, (7, 12)).astype(np.float32), b=rng.integers(-9, 10, 7).astype(np.float32)
    )
    graph.outputs = [graph.nodes[0].outputs[0]]
    x = rng.integers(-100, 101, (3, 12)).astype(np.float32)
    rewrite(graph, SplitLayers(), tolerance=0, x=x)
    rewrite(graph, FuseSplit(), tolerance=0, x=x)


def test_a_split_is_not_split_again_and_goes_with_permuted_channels() -> None:
    graph, _ = network("gemm")
    Manager([SplitLayers()]).run(graph, Context())
    names = [node.name for node in graph.nodes]
    assert not SplitLayers().run(graph, Context())
    assert [node.name for node in graph.nodes] == names
    order = np.array([3, 0, 6, 2, 1, 5, 4])
    permuted = graph_of(GEMM, w=random(7, 12, seed=1)[order], b=random(7, seed=2)[order])
    Manager([SplitLayers()]).run(permuted, Context())
    for part, other in zip(weights(graph), weights(permuted), strict=True):
        np.testing.assert_array_equal(part[order], other)


@pytest.mark.parametrize("values", [[1.0, 1, 1, 1], [0.0, 0, 0], [2.0, -1, 2], [-3.0, 0, 5], [0.5, 1.5, 2.5, 1.0, 2.0]])
def test_odd_values_fall_into_three_parts_that_add_up(values: list[float]) -> None:
    array = np.array(values, np.float32)
    parts = clusters(array)
    assert disjoint(parts)
    np.testing.assert_array_equal((parts[0] + parts[1]) + parts[2], array)


def test_what_cannot_be_split_says_why() -> None:
    ctx = Context()
    graph = graph_of(
        "g (float[3, 4] x, float[4, 4] z) => (float[3, 4] y) { a = MatMul(x, w)  y = MatMul(a, z) }",
        w=np.eye(4, dtype=np.float32),
    )
    assert not SplitLayers().run(graph, ctx)
    assert "fewer than three" in reasons(ctx)[0]
    assert "not constant" in reasons(ctx)[1]


def test_activations_are_split_into_three_parts_of_their_channels() -> None:
    graph, x = network("conv")
    rewrite(graph, SplitLayers(activations=True), x=x)
    assert (ops(graph).count("Relu"), ops(graph).count("Split"), ops(graph).count("Concat")) == (3, 1, 1)
    assert not SplitLayers(activations=True).run(graph, Context())


@pytest.mark.parametrize("kind", NETS)
def test_three_quantized_branches_are_one_layer_on_the_union_of_their_grids(kind: str) -> None:
    graph, _ = network(kind)
    layer = next(iter(find_layers(graph)))
    matrix = (layer.values if layer.axis == 0 else layer.values.T).reshape(1, layer.channels, -1)
    grid = SplitGrid(2).fit(matrix)
    scale = fit_scale(grid, matrix).max() * np.ones((1, layer.channels, 1), np.float32)
    codes = grid.nearest(matrix / scale)
    rounded = (scale * codes)[0]
    graph.nodes[0].inputs[1].values = (
        (rounded if layer.axis == 0 else rounded.T).reshape(layer.values.shape).astype(np.float32)
    )
    Manager([SplitLayers()]).run(graph, Context())
    parts = [(w if layer.axis == 0 else w.T).reshape(layer.channels, -1) / scale[0] for w in weights(graph)]
    levels = [np.rint(part).astype(np.int64) for part in parts]
    x = np.random.default_rng(0).integers(0, 256, (matrix.shape[2], 5))
    accumulators = sum(part @ x for part in levels)
    np.testing.assert_array_equal(accumulators, codes[0].astype(np.int64) @ x)
    assert set().union(*(np.unique(part) for part in levels)) <= set(grid.levels.tolist())


def test_grids_of_branches_and_of_the_fused_layer_reach_the_solver() -> None:
    losses = {}
    for name, steps in {
        "split": [SplitLayers(bits=2)],
        "fused": [SplitLayers(), FuseSplit(bits=2)],
        "plain": [],
    }.items():
        graph, _ = network("gemm")
        ctx = Context(data=[{"x": random(8, 12, seed=seed)} for seed in range(6)])
        Manager([*steps, QuantizeActivations(), QuantizeWeights(), ReconstructLayers(grid="int2", solver="clip")]).run(
            graph, ctx
        )
        x = random(64, 12, seed=99)
        losses[name] = np.mean((Runner(graph).run({"x": x})["y"] - Runner(network("gemm")[0]).run({"x": x})["y"]) ** 2)
        if name == "split":
            assert all(len(np.unique(w / np.abs(w).max(axis=1, keepdims=True))) <= 4 * 7 for w in weights(graph))
    assert losses["split"] < losses["plain"] / 2
    assert losses["fused"] < losses["plain"] / 2


def test_bits_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="bits"):
        SplitLayers(bits=8)
