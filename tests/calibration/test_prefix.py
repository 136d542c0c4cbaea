from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.prefix import Prefix
from qcompiler.graph.ir import Constant
from qcompiler.graph.runner import Runner
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

NET = """g (float[N, 4] x, float[N, 4] mask) => (float[N, 4] y) {
    s = Constant <value = float {0.5}> () t = Mul(w1, s) a = MatMul(x, t) b = Relu(a) c = MatMul(b, w2) d = Add(c, mask)
    e = Add(d, x)
    f = MatMul(e, w3) h = MatMul(e, w4) i = Mul(f, h) j = Add(i, mask) y = MatMul(j, w5) }"""
FEEDS = [{"x": random(3, 4, seed=seed), "mask": random(3, 4, seed=10 + seed)} for seed in range(4)]


def network():
    return graph_of(NET, **{f"w{number}": random(4, 4, seed=number) for number in range(1, 6)}).toposort()


class Counted(list):
    """Feeds that know how often they were read."""

    reads = 0

    def __iter__(self):
        self.reads += 1
        return super().__iter__()


@pytest.mark.parametrize("limit", [0, 4 * 3 * 4 * 4, 1 << 20])
def test_what_layers_read_is_what_the_whole_graph_gives(limit):
    graph, feeds = network(), Counted(FEEDS)
    prefix, layers = Prefix(graph, feeds, len(FEEDS), limit), [node for node in graph.nodes if node.op == "MatMul"]
    assert len(layers) == 5
    for layer in layers:
        name = layer.inputs[0].name
        want = [{**Runner(graph, [name]).run(feed), **feed}[name] if name != "x" else feed["x"] for feed in FEEDS]
        np.testing.assert_array_equal(list(prefix.inputs_of(layer)), want)
    assert feeds.reads == (1 if limit == 1 << 20 else 5)


def test_layers_may_be_asked_for_in_any_order():
    graph, feeds = network(), Counted(FEEDS)
    prefix, layers = Prefix(graph, feeds, len(FEEDS)), [node for node in graph.nodes if node.op == "MatMul"]
    for layer in (layers[4], layers[1], layers[3]):
        name = layer.inputs[0].name
        np.testing.assert_array_equal(
            list(prefix.inputs_of(layer)), [Runner(graph, [name]).run(feed)[name] for feed in FEEDS]
        )
    assert feeds.reads == 2


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_a_layer_that_was_changed_shows_in_those_behind_it(limit):
    graph = network()
    prefix, layers = Prefix(graph, FEEDS, len(FEEDS), limit), [node for node in graph.nodes if node.op == "MatMul"]
    before = Runner(graph, ["e"]).run(FEEDS[0])["e"]
    for layer in layers[:2]:
        list(prefix.inputs_of(layer))
        layer.inputs[1] = Constant(f"{layer.name}_changed", random(4, 4, seed=99))
    got = next(iter(list(prefix.inputs_of(layers[2]))))
    np.testing.assert_array_equal(got, Runner(graph, ["e"]).run(FEEDS[0])["e"])
    assert np.abs(got - before).max() > 0.1


def test_bodies_that_read_outer_tensors_are_run_whole():
    graph = graph_of(
        """g (float[N, 4] x, bool c) => (float[N, 4] y) {
        a = MatMul(x, w1) b = Relu(a)
        d = If (c) <then_branch = t () => (float[N, 4] p) { p = Mul(b, b) }, else_branch = o () => (float[N,
        4] q) { q = Neg(a) }>
        y = MatMul(d, w2) }""",
        w1=random(4, 4, seed=1),
        w2=random(4, 4, seed=2),
    ).toposort()
    feeds = [{"x": FEEDS[0]["x"], "c": np.array(flag)} for flag in (True, False)]
    prefix = Prefix(graph, feeds, 2)
    for layer in (node for node in graph.nodes if node.op == "MatMul"):
        name = layer.inputs[0].name
        want = [feed["x"] if name == "x" else Runner(graph, [name]).run(feed)[name] for feed in feeds]
        np.testing.assert_array_equal(list(prefix.inputs_of(layer)), want)
