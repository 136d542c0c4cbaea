from __future__ import annotations

import numpy as np

from qcompiler.feeds.synthetic import IMAGE, SEQUENCE, SyntheticFeeds, settle_sizes
from qcompiler.pass_base import BatchNormStatistics, Context
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random


def test_token_ids_stay_within_the_smallest_table_and_masks_are_one():
    graph = graph_of(
        """g (int64[B, L] ids, int64[B, L] attention_mask, int64[B, L] valid) => (float[B, L, 4] y) {
            r = Reshape(ids, flat)  a = Gather(big, ids)  b = Gather(small, r)
            m = Cast <to = 1> (attention_mask)  v = Cast <to = 1> (valid)  mv = Mul(m, v)  u = Unsqueeze(mv, ax)
            s = Shape(a)  bb = Reshape(b, s)  c = Add(a, bb)  y = Mul(c, u) }""",
        big=random(50, 4), small=random(7, 4), flat=np.array([-1]), ax=np.array([2]),
    )  # fmt: skip
    feeds = list(SyntheticFeeds(graph, Context(dims={"L": 200}), 3))
    ids = np.concatenate([feed["ids"] for feed in feeds])
    assert ids.shape == (3, 200)
    assert set(ids.reshape(-1)) == set(range(7))
    assert all((feed["attention_mask"] == 1).all() and (feed["valid"] == 1).all() for feed in feeds)


def test_floats_are_standard_normal_and_symbolic_sizes_small():
    graph = graph_of(
        "g (float[N, C, H, W] image, float[N, T] row) => (float[N, C, H, W] y, float[N, T] z) { y = "
        "Relu(image)  z = Relu(row) }"
    )
    feed = next(iter(SyntheticFeeds(graph, Context(), 1)))
    assert feed["image"].shape == (1, 3, IMAGE, IMAGE)
    assert feed["row"].shape == (1, SEQUENCE)
    assert abs(feed["image"].mean()) < 0.05
    assert abs(feed["image"].std() - 1) < 0.05


def test_spread_follows_the_batchnorm_statistics_of_the_first_layer():
    graph = graph_of("g (float[1, 2, 32, 32] x) => (float[1, 3, 32, 32] y) { y = Conv(x, w) }", w=random(3, 2, 1, 1))
    weight = graph.nodes[0].inputs[1].values.astype(np.float64).reshape(3, 2)
    spread = 5.0
    statistics = BatchNormStatistics(np.zeros(3), spread**2 * np.square(weight).sum(axis=1))
    feed = next(iter(SyntheticFeeds(graph, Context(batchnorm={"y": statistics}), 1)))
    assert abs(feed["x"].std() / spread - 1) < 0.1


def test_pictures_have_large_structures():
    graph = graph_of("g (float[4, 3, 64, 64] x) => (float[4, 3, 64, 64] y) { y = Relu(x) }")
    x = next(iter(SyntheticFeeds(graph, Context(), 1)))["x"]
    blocks = x.reshape(4, 3, 4, 16, 4, 16).mean(axis=(3, 5))
    assert abs(x.std() - 1) < 1e-3
    assert blocks.std() > 0.3  # white noise: 1/16


def test_sizes_grow_until_the_model_runs():
    graph = graph_of(
        """g (float[B, T] x, float[2, B, 3] state) => (float[] y, float[2, B, 3] z) {
            p = Pad <mode = "reflect"> (x, pads)  y = Abs(p)  z = Relu(state) }""",
        pads=np.array([0, 200, 0, 200]),
    )  # fmt: skip
    ctx = Context()
    settle_sizes(graph, ctx)
    assert ctx.dims == {"B": 1, "T": 512}
    feed = next(iter(SyntheticFeeds(graph, ctx, 1)))
    assert feed["x"].shape == (1, 512)
    assert feed["state"].shape == (2, 1, 3)


def test_sizes_that_run_or_were_given_stay():
    graph = graph_of("g (float[B, T] x) => (float[B, T] y) { y = Abs(x) }")
    ctx = Context(dims={"T": 7})
    settle_sizes(graph, ctx)
    assert ctx.dims == {"T": 7}


def test_a_number_that_is_compared_with_a_constant_is_that_constant():
    graph = graph_of(
        """g (float[N] x, int64 rate) => (float[N] y) {
            c = Equal(rate, wanted)  f = Cast <to = 1> (c)  y = Mul(x, f) }""",
        wanted=np.int64(16000),
    )  # fmt: skip
    assert next(iter(SyntheticFeeds(graph, Context(), 1)))["rate"] == 16000
