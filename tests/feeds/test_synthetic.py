from __future__ import annotations

import numpy as np

from qcompiler.feeds.synthetic import IMAGE, SEQUENCE, SyntheticFeeds, settle_sizes
from qcompiler.pass_base import BatchNormStatistics, Context
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random


def test_token_ids_stay_within_the_smallest_table_and_sizes_are_those_asked_for() -> None:
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
    assert len(set(ids.reshape(-1))) > 1
    assert ids.min() >= 0
    assert ids.max() < 7
    for feed in feeds:
        np.testing.assert_array_equal(feed["attention_mask"], feed["valid"])


ENCODER = """g (int64[B, L] ids, int64[B, L] attention_mask) => (float[B, L, 8] y) {
    a = Gather(table, ids)  m = Cast <to = 1> (attention_mask)  u = Unsqueeze(m, ax)  y = Mul(a, u) }"""


def test_texts_have_lengths_of_their_own_and_padding_that_the_mask_knows() -> None:
    graph = graph_of(ENCODER, table=random(900, 8), ax=np.array([2]))
    feeds = list(SyntheticFeeds(graph, Context(), 32))
    assert len({feed["ids"].shape for feed in feeds}) > 2
    shares = [float(feed["attention_mask"].mean()) for feed in feeds]
    assert min(shares) < 0.5
    assert max(shares) == 1.0
    for feed in feeds:
        mask = feed["attention_mask"][0]
        assert mask[0] == 1
        assert (np.diff(mask) <= 0).all()
        assert (feed["ids"][0][mask == 0] == 0).all()
        assert (feed["ids"][0][mask == 1] != 0).all()


def test_feeds_stay_the_same_when_the_graph_is_rewritten() -> None:
    graph = graph_of(ENCODER, table=random(900, 8), ax=np.array([2]))
    feeds = SyntheticFeeds(graph, Context(), 4)
    before = list(feeds)
    graph.nodes.clear()
    for first, second in zip(before, feeds, strict=True):
        for name, value in first.items():
            np.testing.assert_array_equal(value, second[name])


def test_a_table_of_positions_limits_the_length() -> None:
    graph = graph_of(
        """g (int64[B, L] ids) => (float[B, L, 8] y) {
            s = Shape(ids)  e = Slice(s, one, two, zero)  p = Slice(positions, zero, e, zero)
            a = Gather(table, ids)  y = Add(a, p) }""",
        table=random(90, 8), positions=random(40, 8), zero=np.array([0]), one=np.array([1]), two=np.array([2]),
    )  # fmt: skip
    feeds = list(SyntheticFeeds(graph, Context(), 16))
    assert {feed["ids"].shape[1] for feed in feeds} == {SEQUENCE}


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


def test_sizes_grow_until_outputs_have_frames():
    graph = graph_of(
        """g (float[1, T] x, float low) => (float[1, 1, F] y, float z) {
            u = Unsqueeze(x, one)  y = MaxPool <kernel_shape = [16], strides = [100]> (u)
            z = Abs(low) }""",
        one=np.array([1]),
    )  # fmt: skip
    ctx = Context()
    settle_sizes(graph, ctx)
    assert ctx.dims == {"T": 128}
    assert isinstance(next(iter(SyntheticFeeds(graph, ctx, 1)))["low"], np.ndarray)  # no scalar


def test_outputs_that_no_size_fills_change_nothing():
    graph = graph_of(
        """g (float[1, T] x) => (float[1, F] y) {
            s = ReduceSum <keepdims = 1> (x, one)  y = Abs(s) }""",
        one=np.array([1]),
    )  # fmt: skip
    ctx = Context()
    settle_sizes(graph, ctx)
    assert ctx.dims == {}


def test_a_number_that_is_compared_with_a_constant_is_that_constant():
    graph = graph_of(
        """g (float[N] x, int64 rate) => (float[N] y) {
            c = Equal(rate, wanted)  f = Cast <to = 1> (c)  y = Mul(x, f) }""",
        wanted=np.int64(16000),
    )  # fmt: skip
    assert next(iter(SyntheticFeeds(graph, Context(), 1)))["rate"] == 16000


def test_spread_is_read_from_a_batchnorm_that_is_not_folded_yet() -> None:
    weight, gamma = random(3, 2, 1, 1), np.full(3, 4.0, np.float32)
    graph = graph_of(
        """g (float[1, 2, 32, 32] x) => (float[1, 3, 32, 32] y) {
            c = Conv(x, w)  y = BatchNormalization(c, gamma, zero, zero, variance) }""",
        w=weight, gamma=gamma, zero=np.zeros(3, np.float32),
        variance=(25 * np.square(weight.astype(np.float64)).sum(axis=(1, 2, 3))).astype(np.float32),
    )  # fmt: skip
    feed = next(iter(SyntheticFeeds(graph, Context(), 1)))
    assert abs(feed["x"].std() / 5 - 1) < 0.1


def test_sizes_that_weights_decide_are_taken():
    graph = graph_of("g (float[T, F] x) => (float[T, 3] y) { y = MatMul(x, w) }", w=random(7, 3))
    context = Context()
    settle_sizes(graph, context)
    assert context.dims == {"F": 7}
    assert [feed["x"].shape for feed in SyntheticFeeds(graph, context, 1)] == [(1, 7)]
