from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.calibration.observers import (
    BINS,
    Histogram,
    Range,
    affine_grid,
    minmax_range,
    mse_range,
    percentile_range,
)

finite = st.floats(-1e6, 1e6, allow_nan=False)


def histogram_of(values: np.ndarray) -> Histogram:
    result = Histogram.empty(Range(float(values.min()), float(values.max())))
    result.add(values)
    return result


def squared_error(values: np.ndarray, extent: Range) -> float:
    scale, zero_point = affine_grid(extent)
    return float(np.square((np.clip(np.rint(values / scale) + zero_point, 0, 255) - zero_point) * scale - values).sum())


@given(finite, finite)
@settings(max_examples=200, deadline=None)
def test_zero_is_on_the_grid_and_the_range_is_covered(a, b):
    lo, hi = min(a, b), max(a, b)
    scale, zero_point = affine_grid(Range(lo, hi))
    assert 0 <= zero_point <= 255
    assert scale > 0
    assert (0 - zero_point) * scale <= min(lo, 0.0) + 0.51 * scale
    assert (255 - zero_point) * scale >= max(hi, 0.0) - 0.51 * scale


def test_a_range_of_zero_still_has_a_grid():
    assert affine_grid(Range(0.0, 0.0)) == (1.0, 0)


def test_counts_do_not_depend_on_batching_or_order():
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    extent = Range(float(values.min()), float(values.max()))
    whole, parts = Histogram.empty(extent), Histogram.empty(extent)
    whole.add(values.reshape(100, 100))
    for part in np.array_split(np.random.default_rng(1).permutation(values), 7):
        parts.add(part)
    assert np.array_equal(whole.counts, parts.counts)
    assert whole.counts.sum() == values.size


def test_histogram_agrees_with_numpy_but_for_rounding_at_edges():
    values = np.random.default_rng(0).uniform(-3, 5, 100_000).astype(np.float32)
    histogram = histogram_of(values)
    expected, _ = np.histogram(values, BINS, (histogram.range.lo, histogram.range.hi))
    assert np.abs(histogram.counts - expected).sum() < 200


def test_minmax_keeps_everything():
    assert minmax_range(histogram_of(np.array([-1.0, 4.0], np.float32))) == Range(-1.0, 4.0)


def test_percentile_leaves_the_tails_out():
    values = np.concatenate([np.linspace(-1, 1, 100_000), [50.0], [-50.0]]).astype(np.float32)
    extent = percentile_range(histogram_of(values))
    assert -1.1 < extent.lo < -0.99
    assert 0.99 < extent.hi < 1.1


@pytest.mark.parametrize("seed", [0, 1])
def test_mse_range_is_as_good_as_a_brute_force_search(seed):
    values = np.random.default_rng(seed).standard_t(3, 50_000).astype(np.float32)
    found = squared_error(values, mse_range(histogram_of(values)))
    lo, hi = float(values.min()), float(values.max())
    fractions = np.linspace(0.05, 1, 20)
    best = min(squared_error(values, Range(lo * a, hi * b)) for a in fractions for b in fractions)
    assert found < 1.1 * best
    assert found < 0.95 * squared_error(values, Range(lo, hi))


def test_mse_range_of_an_even_spread_is_the_whole():
    values = np.linspace(0, 6, 100_000).astype(np.float32)
    assert mse_range(histogram_of(values)).hi > 5.9


def test_range_algebra():
    assert Range(-1, 2).join(Range(0, 5)) == Range(-1, 5)
    assert Range(-9, 2).clamp(-3) == Range(-3, 2)
    assert Range(-9, -5).clamp(-3) == Range(-3, -3)
    assert Range(1, 2).with_zero() == Range(0, 2)
