from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from qcompiler.errors import DataError
from qcompiler.graph.ir import copy_of
from qcompiler.replacement.chains import find_chains
from qcompiler.replacement.observe import Judgement, Observed
from tests.replacement.test_chains import gemm


def feeds(count, rows=40):
    return [{"x": np.random.default_rng(index).standard_normal((rows, 6)).astype(np.float32)} for index in range(count)]


def observed(count, rows=40, **options):
    graph = gemm()
    return find_chains(graph)[0], Observed(graph, copy_of(graph), feeds(count, rows), **options)


@pytest.mark.parametrize("count", [1, 3, 10])
def test_some_rows_are_held_out_whether_there_are_many_feeds_or_one(count):
    region, seen = observed(count)
    batches = list(seen.batches(region, 16))
    held = np.concatenate([batch.held for batch in batches])
    assert len(batches) == count
    assert held.mean() == pytest.approx(0.2)
    if count >= 5:
        assert all(batch.held.all() or not batch.held.any() for batch in batches)


def test_rows_of_a_batch_belong_together():
    region, seen = observed(3, rows=500)
    for batch in seen.batches(region, 16):
        (w1, b1), (w2, b2) = ((layer.node.inputs[1].values, layer.node.inputs[2].values) for layer in region.layers)
        np.testing.assert_allclose(batch.hidden, np.maximum(batch.inputs @ w1 + b1, 0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(batch.targets, batch.hidden @ w2 + b2, rtol=1e-4, atol=1e-4)
        assert len(batch.inputs) < 500


def test_no_feed_at_all_is_told():
    region, seen = observed(0)
    with pytest.raises(DataError, match="calibration set is empty"):
        list(seen.batches(region, 16))


def test_the_error_of_a_judgement_is_over_the_variance_whatever_the_clusters():
    rng = np.random.default_rng(0)
    want = rng.standard_normal((6, 50, 3)) + 5
    got = want + 0.1 * rng.standard_normal(want.shape)
    rows = np.concatenate(want)
    expected = np.square(got - want).sum() / np.square(rows - rows.mean(axis=0)).sum()
    for together in (True, False):
        judgement = Judgement()
        for left, right in zip(got, want, strict=True):
            judgement.add(left, right, together=together)
        assert judgement.error == pytest.approx(expected)


def test_the_deviation_is_that_of_repeated_estimates():
    rng = np.random.default_rng(0)
    errors, deviations = [], []
    for _ in range(400):
        judgement, want = Judgement(), rng.standard_normal((200, 3))
        judgement.add(want + 0.2 * rng.standard_normal((200, 3)), want, together=False)
        errors.append(judgement.error)
        deviations.append(judgement.deviation)
    assert np.mean(deviations) == pytest.approx(np.std(errors), rel=0.15)


@pytest.mark.parametrize("samples", [2, 5, 100])
def test_the_bound_leaves_more_room_where_samples_are_few(samples):
    rng, judgement = np.random.default_rng(1), Judgement()
    want = rng.standard_normal((samples, 3))
    judgement.add(want + 0.2 * rng.standard_normal((samples, 3)), want, together=False)
    assert judgement.bound(0.977) == pytest.approx(
        judgement.error + stats.t.ppf(0.977, samples - 1) * judgement.deviation
    )


def test_one_sample_bounds_nothing():
    judgement = Judgement()
    judgement.add(np.ones((4, 2)), np.zeros((4, 2)), together=True)
    assert judgement.bound(0.9) == float("inf")
