from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.collect import collect_ranges
from qcompiler.calibration.softmax_floor import MARGIN, softmax_floors
from qcompiler.graph.runner import Runner
from tests.helpers.graphs import graph_of


def floors_of(text: str, feed: dict[str, np.ndarray], **initializers: np.ndarray):
    graph = graph_of(text, **initializers)
    softmax = next(node for node in graph.nodes if node.op == "Softmax")
    names = sorted(
        {
            t.name
            for node in graph.nodes
            for t in (*node.inputs, *node.outputs)
            if t.dtype == np.float32 and t.name not in initializers
        }
    )
    seen = collect_ranges(graph, names, [feed], {softmax.inputs[0].name: -1})
    return graph, seen, softmax_floors(graph, seen.ranges, seen.row_maxima)


X = np.random.default_rng(0).uniform(-4, 4, (3, 5)).astype(np.float32)
MASK = (np.random.default_rng(1).random((3, 5)) > 0.3).astype(np.float32)
MASK[:, 0] = 1


def test_the_mask_of_a_sum_is_bounded_and_the_result_does_not_change():
    text = (
        "g (float[3, 5] x, float[3, 5] m) => (float[3, 5] y) { i = Sub(one, m)  b = Mul(i, big)  s = Add(x, b)  y = "
        "Softmax(s) }"
    )
    constants = {"one": np.float32(1), "big": np.float32(-1e4)}
    graph, seen, floors = floors_of(text, {"x": X, "m": MASK}, **constants)
    assert seen.ranges["s"].lo < -9000
    assert floors["s"] == pytest.approx(seen.row_maxima["s"] - MARGIN)
    assert floors["b"] == pytest.approx(floors["s"] - seen.ranges["x"].hi)
    before = Runner(graph).run({"x": X, "m": MASK})["y"]
    bias = np.maximum((1 - MASK) * -1e4, floors["b"])
    scores = np.maximum(X + bias, floors["s"])
    after = np.exp(scores - scores.max(axis=1, keepdims=True))
    np.testing.assert_allclose(after / after.sum(axis=1, keepdims=True), before, atol=1e-6)


def test_a_chosen_constant_and_scaled_scores_are_bounded():
    text = (
        "g (float[3, 5] x, bool[3, 5] c) => (float[3, 5] y) { d = Div(x, two)  s = Where(c, d, big)  y = Softmax(s) }"
    )
    _, seen, floors = floors_of(text, {"x": X, "c": MASK > 0}, two=np.float32(2), big=np.float32(-3.4e38))
    assert floors["big"] == floors["d"] == floors["s"] == pytest.approx(seen.row_maxima["s"] - MARGIN)
    assert floors["x"] == pytest.approx(2 * floors["d"])


def test_a_tensor_that_is_also_read_elsewhere_has_no_floor():
    text = (
        "g (float[3, 5] x) => (float[3, 5] y, float[3, 5] z) { a = Mul(x, c)  s = Identity(a)  y = Softmax(s)  z = "
        "Relu(a) }"
    )
    _, _, floors = floors_of(text, {"x": X}, c=np.float32(3))
    assert set(floors) == {"s"}


def test_a_graph_output_has_no_floor():
    text = "g (float[3, 5] x) => (float[3, 5] y, float[3, 5] s) { s = Mul(x, c)  y = Softmax(s) }"
    _, _, floors = floors_of(text, {"x": X}, c=np.float32(3))
    assert floors == {}


def test_a_negative_factor_passes_no_floor_on():
    text = "g (float[3, 5] x) => (float[3, 5] y) { s = Mul(x, c)  y = Softmax(s) }"
    _, _, floors = floors_of(text, {"x": X}, c=np.float32(-3))
    assert set(floors) == {"s"}


def test_one_reader_is_enough_for_minus_infinity():
    text = """g (float[3, 5] x, bool[3, 5] c) => (float[3, 5] y, float[3] z) {
        s = Where(c, x, inf)  y = Softmax(s)  z = ReduceMax <keepdims = 0> (s, a) }"""
    _, seen, floors = floors_of(text, {"x": X, "c": MASK > 0}, inf=np.float32(-np.inf), a=np.array([1]))
    assert floors["inf"] == floors["s"] == pytest.approx(seen.row_maxima["s"] - MARGIN)


def test_a_graph_output_that_is_minus_infinite_takes_the_floor_of_its_reader():
    text = "g (float[3, 5] x, bool[3, 5] c) => (float[3, 5] y, float[3, 5] s) { s = Where(c, x, inf)  y = Softmax(s) }"
    _, seen, floors = floors_of(text, {"x": X, "c": MASK > 0}, inf=np.float32(-np.inf))
    assert floors["inf"] == floors["s"] == pytest.approx(seen.row_maxima["s"] - MARGIN)
