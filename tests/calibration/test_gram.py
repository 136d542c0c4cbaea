from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.gram import Moments, layer_inputs
from qcompiler.calibration.patches import as_matrix, from_matrix, products_of_row, sample_inputs
from qcompiler.errors import DataError
from qcompiler.feeds.selection import held_out
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from qcompiler.grids import uniform
from qcompiler.solvers.problem import LayerProblem, loss
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

LAYERS = {
    "dense": ("float[2, 4, 7, 6] x", "Conv(x, w)", (6, 4, 3, 2), (2, 4, 7, 6)),
    "padded, strided": (
        "float[2, 4, 9, 8] x",
        "Conv <pads = [2, 0, 1, 1], strides = [2, 3]> (x, w)",
        (6, 4, 3, 3),
        (2, 4, 9, 8),
    ),
    "dilated": (
        "float[1, 4, 9, 9] x",
        "Conv <dilations = [2, 3], pads = [1, 1, 1, 1]> (x, w)",
        (6, 4, 3, 2),
        (1, 4, 9, 9),
    ),
    "grouped": ("float[2, 4, 5, 5] x", "Conv <group = 2> (x, w)", (6, 2, 2, 2), (2, 4, 5, 5)),
    "depthwise": ("float[2, 4, 5, 5] x", "Conv <group = 4, pads = [1, 1, 1, 1]> (x, w)", (4, 1, 3, 3), (2, 4, 5, 5)),
    "same upper": (
        "float[2, 4, 8, 7] x",
        'Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w)',
        (6, 4, 3, 3),
        (2, 4, 8, 7),
    ),
    "same lower": (
        "float[2, 4, 8, 7] x",
        'Conv <auto_pad = "SAME_LOWER", strides = [2, 2]> (x, w)',
        (6, 4, 2, 3),
        (2, 4, 8, 7),
    ),
    "one-dimensional": ("float[2, 4, 9] x", "Conv <pads = [1, 1]> (x, w)", (6, 4, 3), (2, 4, 9)),
    "three-dimensional": (
        "float[1, 2, 4, 5, 6] x",
        "Conv <pads = [1, 0, 1, 0, 1, 0]> (x, w)",
        (3, 2, 2, 2, 3),
        (1, 2, 4, 5, 6),
    ),
    "gemm": ("float[9, 4] x", "Gemm <transB = 1> (x, w)", (6, 4), (9, 4)),
    "gemm, columns": ("float[9, 4] x", "Gemm (x, w)", (4, 6), (9, 4)),
    "matmul": ("float[2, 5, 4] x", "MatMul (x, w)", (4, 6), (2, 5, 4)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_weight_matrix_times_every_vector_is_the_layer(name):
    given, operator, weight_shape, input_shape = LAYERS[name]
    weight, x = random(*weight_shape), random(*input_shape, seed=1)
    graph = graph_of(f"g ({given}) => (float y) {{ y = {operator} }}", w=weight)
    layer = next(find_layers(graph))
    matrix = as_matrix(layer, weight)
    vectors = sample_inputs(layer, x, 10**6, np.random.default_rng(0))
    assert (matrix.shape[0], matrix.shape[2]) == products_of_row(layer) == (vectors.shape[0], vectors.shape[2])
    expected = Runner(graph).run({"x": x})["y"]
    channels_first = np.moveaxis(expected, 1 if layer.node.op == "Conv" else -1, 0)
    got = (matrix @ vectors.transpose(0, 2, 1)).reshape(channels_first.shape)  # all of them were drawn, in order
    np.testing.assert_allclose(got, channels_first, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(from_matrix(layer, matrix), weight)


def test_a_transposed_convolution_has_no_matrix():
    graph = graph_of("g (float[1, 2, 4, 4] x) => (float y) { y = ConvTranspose(x, w) }", w=random(2, 3, 2, 2))
    assert as_matrix(next(find_layers(graph)), random(2, 3, 2, 2)) is None


def gemm_graph():
    return graph_of(
        "g (float[N, 5] x) => (float y) { a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) }",
        w=random(5, 4),
        v=random(4, 3),
    )


def test_moments_are_those_of_the_feeds_each_side_of_the_split():
    graph, feeds = gemm_graph(), [{"x": random(7, 5, seed=i)} for i in range(10)]
    held = held_out(10, seed=3)
    assert len(held) == 2
    found = list(layer_inputs(graph, list(find_layers(graph)), feeds, seed=3))
    assert [item.layer.node.op for item in found] == ["MatMul", "MatMul"]
    for want_held, moments in ((False, found[0].fit), (True, found[0].held)):
        rows = np.concatenate([feed["x"] for i, feed in enumerate(feeds) if (i in held) == want_held]).astype(
            np.float64
        )
        assert moments.rows == len(rows)
        np.testing.assert_allclose(moments.gram[0], rows.T @ rows / len(rows), rtol=1e-5)
        np.testing.assert_allclose(moments.mean[0], rows.mean(axis=0), rtol=1e-5, atol=1e-7)


def test_both_sides_together_are_all_the_feeds():
    graph, feeds = gemm_graph(), [{"x": random(7, 5, seed=i)} for i in range(10)]
    found = next(layer_inputs(graph, list(find_layers(graph)), feeds))
    every, rows = found.fit.with_those(found.held), np.concatenate([feed["x"] for feed in feeds]).astype(np.float64)
    assert every.rows == 70
    np.testing.assert_allclose(every.gram[0], rows.T @ rows / 70, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(every.mean[0], rows.mean(axis=0), rtol=1e-5, atol=1e-7)


def test_a_small_limit_changes_nothing_but_the_number_of_passes():
    graph, reads = gemm_graph(), []

    class Feeds:
        def __iter__(self):
            reads.append(1)
            return iter([{"x": random(7, 5, seed=i)} for i in range(6)])

    layers = list(find_layers(graph))
    together = list(layer_inputs(graph, layers, Feeds()))
    once = len(reads)
    apart = list(layer_inputs(graph, layers, Feeds(), limit=1))
    assert len(reads) - once > once
    for a, b in zip(together, apart, strict=True):
        np.testing.assert_array_equal(a.fit.gram, b.fit.gram)
        np.testing.assert_array_equal(a.held.mean, b.held.mean)


def test_few_feeds_are_split_by_vectors():
    graph = gemm_graph()
    found = next(layer_inputs(graph, list(find_layers(graph)), [{"x": random(50, 5)}]))
    assert (found.fit.rows, found.held.rows) == (40, 10)


def test_no_feed_is_an_error():
    graph = gemm_graph()
    with pytest.raises(DataError, match="empty"):
        next(layer_inputs(graph, list(find_layers(graph)), []))


def test_moments_about_another_mean_judge_a_bias_fitted_elsewhere():
    rng = np.random.default_rng(5)
    vectors, error, elsewhere = rng.standard_normal((200, 6)) + 0.3, rng.standard_normal((4, 6)), rng.standard_normal(6)
    own = Moments((vectors.T @ vectors / 200)[None], vectors.mean(axis=0)[None], 200)
    about = own.about(elsewhere[None])
    problem = LayerProblem(np.zeros((1, 4, 6)), about.gram, about.mean, uniform(8), corrects_mean=True)
    outputs = error @ vectors.T - (error @ elsewhere)[:, None]
    assert loss(problem, error[None]) == pytest.approx(np.square(outputs).mean(axis=1).sum())
