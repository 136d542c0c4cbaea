from __future__ import annotations

import numpy as np
import pytest

import qcompiler.calibration.collect as collect
from qcompiler.calibration.collect import channel_means, collect_ranges, observe
from qcompiler.calibration.observers import OBSERVERS, Range
from qcompiler.errors import DataError
from qcompiler.graph.runner import Runner
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random


def small_net():
    return graph_of(
        "g (float[N, 4] x) => (float[N, 3] y) { a = MatMul(x, w)  b = Relu(a)  y = Softmax(b) }", w=random(4, 3)
    )


def feeds(count: int = 5):
    return [{"x": random(2 + i, 4, seed=i)} for i in range(count)]


def test_ranges_are_those_of_all_values():
    graph, data = small_net(), feeds()
    found = collect_ranges(graph, ["x", "a", "b", "y"], data, {"b": -1})
    values = [Runner(graph, ["x", "a", "b", "y"]).run(feed) for feed in data]
    for name in ("x", "a", "b", "y"):
        joined = np.concatenate([v[name].reshape(-1) for v in values])
        assert found.ranges[name] == Range(float(joined.min()), float(joined.max()))
        assert found.elements[name] == max(v[name].size for v in values)
    assert found.row_maxima == {"b": pytest.approx(min(v["b"].max(axis=1).min() for v in values))}


@pytest.mark.parametrize("observer", sorted(OBSERVERS))
def test_neither_batching_nor_order_changes_a_range(observer):
    graph = small_net()
    rows = np.concatenate([feed["x"] for feed in feeds()])
    ways = [[{"x": rows}], [{"x": row[None]} for row in rows], [{"x": row[None]} for row in rows[::-1]]]
    results = [observe(graph, collect_ranges(graph, ["x", "b"], way), way, observer) for way in ways]
    assert results[0] == results[1] == results[2]


def test_tensors_are_counted_in_groups_of_bounded_size(monkeypatch):
    graph, data = small_net(), feeds()
    statistics = collect_ranges(graph, ["x", "a", "b"], data)
    together = observe(graph, statistics, data, "mse")
    monkeypatch.setattr(collect, "CHUNK_BYTES", 1)
    assert observe(graph, statistics, data, "mse") == together


def test_a_floor_is_applied_before_anything_is_counted():
    graph, data = small_net(), feeds()
    statistics = collect_ranges(graph, ["a"], data)
    for observer in OBSERVERS:
        assert observe(graph, statistics, data, observer, {"a": -0.5})["a"].lo >= -0.5


def test_infinite_masks_are_left_out():
    graph = graph_of(
        "g (float[2, 3] x) => (float[2, 3] y, float[2, 3] m) { c = Greater(x, z)  m = Where(c, x, inf)  y = Softmax(m) "
        "}",
        z=np.float32(0), inf=np.float32(-np.inf),
    )  # fmt: skip
    x = np.array([[1, -2, 3], [0.5, 2, -1]], np.float32)
    data = [{"x": x}]
    found = collect_ranges(graph, ["m"], data, {"m": -1})
    assert found.ranges["m"] == Range(-np.inf, 3.0)
    assert found.row_maxima["m"] == 2.0
    assert observe(graph, found, data, "minmax")["m"] == Range(0.5, 3.0)
    assert observe(graph, found, data, "minmax", {"m": -18.0})["m"] == Range(-18.0, 3.0)


@pytest.mark.parametrize("mask", [-1e4, -168.0])
def test_rows_that_are_masked_altogether_do_not_count(mask):
    graph = graph_of("g (float[2, 3] x) => (float[2, 3] y) { y = Softmax(x) }")
    masked = np.array([[4, 5, 6], [mask, mask, mask]], np.float32)
    assert collect_ranges(graph, ["x"], [{"x": masked}], {"x": -1}).row_maxima["x"] == 6.0
    assert collect_ranges(graph, ["x"], [{"x": masked[1:].repeat(2, axis=0)}], {"x": -1}).row_maxima["x"] == mask


def test_nan_is_named_and_left_out():
    graph = graph_of("g (float[2] x) => (float[2] y) { y = Sqrt(x) }")
    data = [{"x": np.array([4, 1], np.float32)}, {"x": np.array([-1, 9], np.float32)}]
    found = collect_ranges(graph, ["y"], data)
    assert found.nan == ["y"]
    assert observe(graph, found, data, "minmax")["y"] == Range(1.0, 3.0)


def test_no_feeds_are_refused():
    graph = small_net()
    with pytest.raises(DataError, match="the calibration set is empty"):
        collect_ranges(graph, ["y"], [])


def test_channel_means_weigh_every_element_alike():
    graph = graph_of(
        "g (float[N, 3, H, W] x) => (float[N, 3, H, W] y, float[N, W, H, 3] z) { y = Relu(x)  z = "
        "Transpose <perm = [0, 3, 2, 1]> (y) }"
    )
    data = [{"x": random(1 + i, 3, 4, 5 + i, seed=i)} for i in range(3)]
    found = channel_means(graph, {"y": None, "z": 3}, data)
    relu = np.concatenate([np.maximum(feed["x"], 0).transpose(1, 0, 2, 3).reshape(3, -1) for feed in data], axis=1)
    np.testing.assert_allclose(found["y"], relu.mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["z"], relu.mean(axis=1), rtol=1e-5)
