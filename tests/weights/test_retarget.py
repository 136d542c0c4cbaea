"""Targets behind quantized layers, against least squares by numpy."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.gram import Moments
from qcompiler.calibration.paired import PairedMoments
from qcompiler.weights.retarget import OutputError, mean_shift, retargeted

ROWS = 4000


def samples(groups: int = 2, products: int = 6):
    """Vectors ``x`` and what became of them: a noisy mixture, with a mean."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((groups, ROWS, products)) @ rng.standard_normal(
        (groups, products, products)
    ) + rng.standard_normal((groups, 1, products))
    z = (
        x @ (np.eye(products) + 0.2 * rng.standard_normal((groups, products, products)))
        + 0.5 * rng.standard_normal(x.shape)
        + 0.3
    )
    return x, z, rng.standard_normal((groups, 4, products))


def moments(x, z):
    def one(left, right):
        return left.transpose(0, 2, 1) @ right / ROWS

    return PairedMoments(Moments(one(x, x), x.mean(axis=1), ROWS), Moments(one(z, z), z.mean(axis=1), ROWS), one(x, z))


@pytest.mark.parametrize("corrects_mean", [True, False])
def test_without_a_ridge_it_is_least_squares(corrects_mean):
    x, z, weight = samples()
    found = retargeted(weight, moments(x, z), 0.0, corrects_mean=corrects_mean)
    for group in range(2):
        inputs = np.column_stack([z[group], np.ones(ROWS)]) if corrects_mean else z[group]
        want = np.linalg.lstsq(inputs, x[group] @ weight[group].T, rcond=None)[0][:6].T
        np.testing.assert_allclose(found[group], want, rtol=1e-4, atol=1e-4)


def test_a_ridge_draws_to_the_weights():
    x, z, weight = samples()
    distances = [
        np.abs(retargeted(weight, moments(x, z), ridge, corrects_mean=True) - weight).max()
        for ridge in (0, 0.1, 1, 10, 1e9)
    ]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-6 < 0.05 < distances[0]


def test_with_exact_inputs_the_weights_stay():
    x, _, weight = samples()
    for ridge in (0.0, 1.0):
        np.testing.assert_allclose(retargeted(weight, moments(x, x), ridge, corrects_mean=True), weight, rtol=1e-5)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("mean_is_free", [True, False])
def test_the_error_is_what_the_best_gain_leaves(mean_is_free, in_place):
    x, z, weight = samples()
    rounded = np.rint(2 * weight) / 2
    shift = (
        mean_shift(weight, rounded, x.mean(axis=1), (z if in_place else x).mean(axis=1))
        if mean_is_free
        else np.zeros(weight.shape[:2])
    )
    want, got = x @ weight.transpose(0, 2, 1), z @ rounded.transpose(0, 2, 1)
    off = (want - got).mean(axis=1) - shift
    if mean_is_free:
        assert (np.abs(off).max() < 1e-9) == in_place
        want, got = want - want.mean(axis=1, keepdims=True), got - got.mean(axis=1, keepdims=True)
    left = 0.0
    for y, approximation in zip(
        want.transpose(0, 2, 1).reshape(-1, ROWS), got.transpose(0, 2, 1).reshape(-1, ROWS), strict=True
    ):
        left += np.linalg.lstsq(approximation[:, None], y, rcond=None)[1][0] / ROWS
    expected = (left + (np.square(off).sum() if mean_is_free else 0)) / np.square(want).mean(axis=1).sum()
    assert OutputError(weight, moments(x, z), mean_is_free)(rounded, shift) == pytest.approx([expected])


def test_outputs_that_shrink_are_no_better():
    x, z, weight = samples()
    zero = np.zeros(weight.shape[:2])
    errors = [OutputError(weight, moments(x, z), False)(gain * weight, zero)[0] for gain in (1.0, 0.5)]
    assert errors[0] == pytest.approx(errors[1])


def test_retargeting_lowers_the_error_on_fresh_vectors():
    x, z, weight = samples()
    first, second = (moments(x[:, part], z[:, part]) for part in (slice(None, None, 2), slice(1, None, 2)))
    zero = np.zeros(weight.shape[:2])
    plain, better = (
        OutputError(weight, second, False)(w, zero)[0]
        for w in (weight, retargeted(weight, first, 0.01, corrects_mean=False))
    )
    assert better < 0.8 * plain
