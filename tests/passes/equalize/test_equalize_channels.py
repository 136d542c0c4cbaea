from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import Graph, constant_of
from qcompiler.manager import Manager
from qcompiler.pass_base import BatchNormStatistics, Context
from qcompiler.passes.equalize.equalize_channels import EqualizeChannels
from tests.helpers.equivalence_graphs import convolutional, transformer
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

X = random(2, 4, 6, 6)


def uneven(*shape: int, seed: int = 0) -> np.ndarray:
    """Weights whose output channels have ranges a hundred times apart."""
    sizes = np.geomspace(0.1, 10, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return (random(*shape, seed=seed) * sizes).astype(np.float32)


def triple() -> Graph:
    """Pointwise, depthwise, pointwise."""
    return graph_of(
        "g (float[N, 4, 6, 6] x) => (float[N, 3, 6, 6] y) "
        "{ a = Conv (x, w, b)  r = Relu (a)  c = Conv <group = 4, pads = [1, 1, 1, 1]> (r, d)  s = Relu (c)  y = Conv "
        "(s, p) }",
        w=uneven(4, 4, 1, 1), b=random(4), d=uneven(4, 1, 3, 3, seed=1), p=random(3, 4, 1, 1, seed=2),
    )  # fmt: skip


def ranges(graph: Graph, index: int, axis: int) -> np.ndarray:
    """Largest weight along each channel of the index-th convolution, relative to the layer's."""
    weight = np.abs(constant_of([node for node in graph.nodes if node.op == "Conv"][index].inputs[1]))
    largest = weight.max(axis=tuple(other for other in range(weight.ndim) if other != axis))
    return np.asarray(largest / largest.max())


def test_both_sides_of_every_channel_get_one_range() -> None:
    graph = triple()
    before = ranges(graph, 0, 0)
    rewrite(graph, EqualizeChannels(), x=X)
    np.testing.assert_allclose(ranges(graph, 0, 0), ranges(graph, 1, 0), rtol=2e-2)
    np.testing.assert_allclose(ranges(graph, 1, 0), ranges(graph, 2, 1), rtol=2e-2)
    assert ranges(graph, 0, 0).min() > 3 * before.min()


def test_equal_ranges_stay() -> None:
    ones = np.ones((4, 4, 1, 1), np.float32)
    graph = graph_of(
        "g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) { a = Conv (x, w)  r = Relu (a)  y = Conv (r, v) }",
        w=ones,
        v=ones * 2,
    )
    assert not EqualizeChannels().run(graph, Context())


def test_branches_of_a_sum_share_one_scale() -> None:
    graph = graph_of(
        "g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) "
        "{ a = Conv (x, w)  b = Conv (a, v)  c = Relu (b)  d = Conv (c, u)  s = Add (a, d)  y = Conv (s, t) }",
        w=uneven(4, 4, 1, 1), v=random(4, 4, 1, 1, seed=1), u=uneven(4, 4, 1, 1, seed=2), t=random(4, 4, 1, 1, seed=3),
    )  # fmt: skip
    ctx = rewrite(graph, EqualizeChannels(), x=X)
    assert any("output of the graph" in reason for reason in reasons(ctx))  # y's own region


def test_a_clip_that_is_crossed_gets_one_bound_a_channel() -> None:
    text = (
        "g (float[N, 4, 6, 6] x) => (float[N, 4, 6, 6] y) { a = Conv (x, w)  r = Clip (a, zero, six)  y = Conv (r, v) }"
    )
    constants = {"w": uneven(4, 4, 1, 1), "v": random(4, 4, 1, 1, seed=1), "zero": np.float32(0), "six": np.float32(6)}
    graph = graph_of(text, **constants)
    rewrite(graph, EqualizeChannels(), x=X)
    assert sorted(ops(graph)) == ["Clip", "Conv", "Conv", "Min"]
    declined = graph_of(text, **constants)
    ctx = rewrite(declined, EqualizeChannels(clips=False), x=X)
    assert "it passes a Clip" in reasons(ctx)
    assert ops(declined) == ["Conv", "Clip", "Conv"]


def test_statistics_of_batchnorm_follow_the_tensor() -> None:
    graph, ctx = triple(), Context()
    ctx.batchnorm["a"] = BatchNormStatistics(np.ones(4), np.ones(4))
    before = np.abs(constant_of(graph.nodes[0].inputs[1])).max(axis=(1, 2, 3))
    Manager([EqualizeChannels()]).run(graph, ctx)
    (name, known), = ctx.batchnorm.items()
    factor = np.abs(constant_of(graph.nodes[0].inputs[1])).max(axis=(1, 2, 3)) / before
    assert name == graph.nodes[0].outputs[0].name != "a"
    np.testing.assert_allclose(known.mean, factor, rtol=1e-5)
    np.testing.assert_allclose(known.variance, factor**2, rtol=1e-5)


def test_no_iteration_is_the_identity() -> None:
    assert not EqualizeChannels(iterations=0).run(triple(), Context())


@pytest.mark.parametrize("make", [convolutional, transformer])
def test_random_networks_compute_the_same(make: object) -> None:
    for seed in range(100, 108):
        graph, feed = make(seed)  # type: ignore[operator]
        rewrite(graph, EqualizeChannels(), tolerance=2e-4, **feed)
