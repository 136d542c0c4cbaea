"""fuse-split: the layer that `split-layers` divided comes back, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.errors import OptionError
from qcompiler.graph.ir import constant_of
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.weights.fuse_split import FuseSplit
from qcompiler.passes.weights.split_layers import SplitLayers
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite
from tests.passes.weights.test_split_layers import NETS, network, weights


@pytest.mark.parametrize("kind", NETS)
def test_fusing_gives_the_layer_back_bit_for_bit(kind: str) -> None:
    graph, x = network(kind)
    before, result = (
        [np.array(t.values) for n in graph.nodes for t in n.inputs if constant_of(t) is not None],
        Runner(graph).run({"x": x})["y"],
    )
    names, kinds = [node.name for node in graph.nodes], ops(graph)
    Manager([SplitLayers()]).run(graph, Context())
    rewrite(graph, FuseSplit(), x=x)
    after = [np.array(t.values) for n in graph.nodes for t in n.inputs if constant_of(t) is not None]
    assert (ops(graph), [node.name for node in graph.nodes]) == (kinds, names)
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    np.testing.assert_array_equal(Runner(graph).run({"x": x})["y"], result)


def three(u: np.ndarray, v: np.ndarray, w: np.ndarray, **biases: np.ndarray):
    a, b, c = (f"{name}{f', {name}b' if biases else ''}" for name in "uvw")
    text = f"""g (float[N, 4] x) => (float[N, 4] y) {{ p = Gemm(x, {a})  q = Gemm(x, {b})  r = Gemm(x, {c})
    d = Add(p, q)  y = Add(d, r) }}"""
    return graph_of(text, u=u, v=v, w=w, **biases)


def disjoint_thirds() -> list[np.ndarray]:
    whole, owner = random(4, 4, seed=1), np.arange(16).reshape(4, 4) % 3
    return [np.where(owner == part, whole, 0).astype(np.float32) for part in range(3)]


def test_branches_whose_weights_do_not_overlap_are_one_layer_with_their_sum() -> None:
    graph = three(*disjoint_thirds())
    rewrite(graph, FuseSplit(), x=random(3, 4, seed=7))
    assert ops(graph) == ["Gemm"]
    np.testing.assert_array_equal(weights(graph)[0], random(4, 4, seed=1))


def test_branches_that_overlap_are_left_alone() -> None:
    graph = three(random(4, 4, seed=1), random(4, 4, seed=2), random(4, 4, seed=3))
    assert not FuseSplit().run(graph, Context())
    assert ops(graph).count("Gemm") == 3


def test_overlapping_biases_are_a_reason_to_decline() -> None:
    ctx, bias = Context(), random(4, seed=5)
    graph = three(*disjoint_thirds(), ub=bias, vb=bias, wb=bias)
    assert not FuseSplit().run(graph, ctx)
    assert reasons(ctx) == ["the biases of its branches overlap"]


def test_the_fused_layer_gets_a_grid_of_three_clusters_where_bits_are_given() -> None:
    graph, _ = network("gemm")
    ctx = Context()
    Manager([SplitLayers(), FuseSplit(bits=2)]).run(graph, ctx)
    (name,) = [node.name for node in graph.nodes if node.op == "Gemm"]
    assert set(ctx.grids) == {name}
    assert 4 < len(ctx.grids[name].levels) <= 12  # type: ignore[attr-defined]
    with pytest.raises(OptionError):
        FuseSplit(bits=9)
