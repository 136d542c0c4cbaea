from __future__ import annotations

import numpy as np

from qcompiler.feeds.tokens import FILL, TokenInput, token_input
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

RNG = np.random.default_rng(0)
INT64 = np.dtype(np.int64)


def drawn(how: TokenInput | None, shape: tuple[int, ...], used: float, dtype: np.dtype = INT64) -> np.ndarray:
    assert how is not None
    return how.draw(shape, dtype, used, np.random.default_rng(1))


def test_a_table_tells_usual_tokens_from_rare_ones() -> None:
    """Rows with a few large coordinates are usual, rows next to nothing were never used."""
    table = RNG.normal(size=(400, 32))
    usual, unused = np.arange(10, 20), np.arange(300, 400)
    table[usual, 3] += 30
    table[unused] *= 0.05
    graph = graph_of("g (int64[1, L] ids) => (float[1, L, 32] y) { y = Gather(table, ids) }",
                     table=table.astype(np.float32))
    how = token_input(graph, graph.inputs[0])
    ids = drawn(how, (1, 2000), 1.0)
    assert not np.isin(ids, unused).any()
    assert np.isin(ids[0, 0], usual)
    assert 0.1 < np.isin(ids, usual).mean() < 0.6


def test_the_id_that_the_graph_compares_with_is_padding() -> None:
    graph = graph_of(
        "g (int64[1, L] ids) => (float[1, L, 8] y, bool[1, L] z) { y = Gather(table, ids) z = Equal(ids, pad) }",
        table=random(60, 8), pad=np.int64(5),
    )  # fmt: skip
    ids = drawn(token_input(graph, graph.inputs[0]), (3, 40), 0.5)
    assert (ids[:, 20:] == 5).all()
    assert (ids[:, :20] != 5).all()


def test_masks_segments_and_positions_by_name_and_use() -> None:
    graph = graph_of(
        """g (int64[1, L] attention_mask, int64[1, L] kinds, int64[1, L] position_ids, float[1, 1, 1, L] bias_mask,
            float[1, 2, L, L] scores) => (float[1, L, 4] y, float[1, L, 4] p, float[1, 2, L, L] s, float[1, L] m) {
            y = Gather(two, kinds)  p = Gather(many, position_ids)
            sum = Add(scores, bias_mask)  s = Softmax(sum)  m = Cast <to = 1> (attention_mask) }""",
        two=random(2, 4), many=random(16, 4),
    )  # fmt: skip
    mask, kinds, positions, bias, scores = (token_input(graph, tensor) for tensor in graph.inputs)
    np.testing.assert_array_equal(drawn(mask, (1, 8), 0.5), [[1, 1, 1, 1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(drawn(positions, (1, 20), 0.5)[0], np.arange(20) % 16)
    values = drawn(bias, (1, 1, 1, 8), 0.5, np.dtype(np.float32)).reshape(-1)
    np.testing.assert_array_equal(values, [0, 0, 0, 0, *[FILL] * 4])
    segments = drawn(kinds, (1, 30), 0.5)[0]
    assert set(segments) == {0, 1}
    assert (segments[15:] == 0).all()
    assert scores is None


def test_a_text_has_at_least_one_token() -> None:
    graph = graph_of("g (int64[1, L] mask) => (float[1, L] y) { y = Cast <to = 1> (mask) }")
    assert drawn(token_input(graph, graph.inputs[0]), (1, 8), 0.0).sum() == 1


def test_ids_are_found_behind_the_arithmetic_of_negative_ones() -> None:
    graph = graph_of(
        """g (float[1, L] ids, int64[1, L] scale) => (float[1, L, 4] y) {
            i = Cast <to = 7> (ids)  b = Less(i, zero)  n = Add(i, rows)  j = Where(b, n, i)  a = Gather(table, j)
            f = Cast <to = 1> (scale)  u = Unsqueeze(f, ax)  y = Mul(a, u) }""",
        table=random(9, 4), zero=np.int64(0), rows=np.int64(9), ax=np.array([2]),
    )  # fmt: skip
    how = token_input(graph, graph.inputs[0])
    ids = drawn(how, (1, 200), 1.0)
    assert how is not None
    assert how.kind == "ids"
    assert set(ids.reshape(-1)) <= set(range(9))
    assert len(set(ids.reshape(-1))) > 4
    other = token_input(graph, graph.inputs[1])
    assert other is not None
    assert other.kind == "mask"
