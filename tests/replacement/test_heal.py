from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import copy_of
from qcompiler.graph.layers import find_layers
from qcompiler.losses.network_loss import NetworkLoss
from qcompiler.pass_base import Context
from qcompiler.replacement.heal import heal, healable
from tests.helpers.graphs import graph_of

RNG = np.random.default_rng(0)
WEIGHTS = {
    "w1": RNG.standard_normal((8, 8)).astype(np.float32), "w2": RNG.standard_normal((8, 8)).astype(np.float32),
    "w3": RNG.standard_normal((8, 5)).astype(np.float32), "b": RNG.standard_normal(8).astype(np.float32),
    "factor": np.float32(0.25),
}  # fmt: skip


def network(harm="", last="y = Gemm(n, w3)"):
    """A layer whose output may be harmed, and two behind it: one beside a residual, one at the end."""
    source = "harmed" if harm else "a"
    body = (
        f"k = Gemm(x, w1, b) a = Softmax(k) {harm} l = Gemm({source}, w2, b) s = Add({source}, l) n = Softmax(s) {last}"
    )
    return graph_of(f"g (float[N, 8] x) => (float[N, 5] y) {{ {body} }}", **WEIGHTS)


def pair():
    """A harmed network and the original, with the same names."""
    graph, original = network(HARM), network()
    for node, twin in zip(original.nodes, [node for node in graph.nodes if node.op != "Mul"], strict=True):
        node.name = twin.name
    return graph, original


def feeds(count=10, seed=1):
    return [
        {"x": np.random.default_rng([seed, index]).standard_normal((100, 8)).astype(np.float32)}
        for index in range(count)
    ]


HARM = "harmed = Mul(a, factor)"


def test_layers_take_back_what_went_wrong_before_them():
    graph, original = pair()
    names = healable(graph, original)
    assert names == ["Gemm_3", "Gemm_6"]
    judge, ctx = NetworkLoss(original, feeds(seed=2)), Context()
    healed = heal(graph, original, feeds(), judge, ctx)
    assert judge(healed) < 1e-4 * judge(graph)
    assert ctx.report.tunings[0].kept
    first = next(layer for layer in find_layers(healed) if layer.node.name == "Gemm_3")
    residual = (first.values.T @ np.eye(8) * 0.25 + 0.25 * np.eye(8)).T  # of a and of a sum that is the same as before
    centred = np.eye(8) - 1 / 8  # a softmax sums to 1, so that weights count only up to a constant
    np.testing.assert_allclose(centred @ residual, centred @ (WEIGHTS["w2"] + np.eye(8)), atol=1e-2)


def test_nothing_is_healed_where_nothing_was_harmed():
    graph, original = network(), network()
    assert healable(graph, original) == []
    ctx = Context()
    assert heal(graph, original, feeds(), NetworkLoss(original, feeds(seed=2)), ctx) is graph
    assert ctx.report.tunings == []


def test_what_does_not_help_the_outputs_is_taken_back():
    graph, original = pair()
    strange = NetworkLoss(graph, feeds(seed=2))  # a judge that prefers the harmed graph
    ctx = Context()
    assert heal(graph, original, feeds(), strange, ctx) is graph
    assert not ctx.report.tunings[0].kept


@pytest.mark.parametrize("count", [1, 3])
def test_few_feeds_hold_out_rows(count):
    graph, original = pair()
    before = copy_of(graph)
    judge = NetworkLoss(original, feeds(seed=2))
    healed = heal(graph, original, feeds(count), judge, Context())
    assert judge(healed) < judge(before)
