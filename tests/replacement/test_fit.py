from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.replacement.fit import PENALTIES, Fit, NormalEquations, best_ridge, ridge


def problem(rows=400, features=7, targets=3, noise=0.1, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((rows, features)) + mean
    weight = rng.standard_normal((targets, features))
    return z, z @ weight.T + 2 + noise * rng.standard_normal((rows, targets)), weight


def equations(z, y, parts=3):
    result = NormalEquations(z.shape[1], y.shape[1])
    for rows in np.array_split(np.arange(len(z)), parts):
        result.add(z[rows], y[rows])
    return result


@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_without_a_penalty_it_is_least_squares(mean):
    z, y, _ = problem(mean=mean)
    fit = ridge(equations(z, y), np.arange(7), 0.0)
    design = np.column_stack([z - z.mean(axis=0), np.ones(len(z))])
    expected = np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(fit.weight, expected[:-1].T, rtol=1e-6)
    np.testing.assert_allclose(z @ fit.weight.T + fit.bias, design @ expected, atol=1e-6)


@given(st.integers(0, 1000), st.sampled_from([1e-6, 1e-2, 1.0]))
@settings(max_examples=15, deadline=None)
def test_the_normal_equations_hold(seed, penalty):
    """(Y - W Z) Zᵀ / n = λ W V, with everything about its mean and V the features' variances."""
    z, y, _ = problem(rows=60, seed=seed)
    fit = ridge(equations(z, y), np.arange(7), penalty)
    centred = z - z.mean(axis=0)
    residual = y - z @ fit.weight.T - fit.bias
    np.testing.assert_allclose(residual.mean(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(residual.T @ centred / len(z), penalty * fit.weight * z.var(axis=0), atol=1e-10)


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_what_is_known_before_is_kept_where_rows_say_nothing_and_given_up_where_they_do(seed):
    z, y, weight = problem(rows=60, seed=seed)
    z[:, 6] = 1.0
    normal = equations(z, y)
    prior = weight + 1
    kept, free = (ridge(normal, np.arange(7), penalty, prior) for penalty in (1e9, 0.0))
    np.testing.assert_allclose(kept.weight, prior, atol=1e-6)
    np.testing.assert_allclose(free.weight[:, :6], ridge(normal, np.arange(7), 0.0).weight[:, :6], atol=1e-8)
    np.testing.assert_allclose(free.weight[:, 6], prior[:, 6])  # a feature that never varied
    some, centred = ridge(normal, np.arange(7), 0.1, prior), z - z.mean(axis=0)
    residual = y - z @ some.weight.T - some.bias
    np.testing.assert_allclose(residual.T @ centred / len(z), 0.1 * (some.weight - prior) * z.var(axis=0), atol=1e-10)


def test_the_error_of_any_fit_on_other_rows_is_what_it_is_when_computed_row_by_row():
    _, _, weight = problem(seed=1)
    other_z, other_y, _ = problem(seed=2, mean=-2)
    held, chosen = equations(other_z, other_y), np.array([4, 1])
    fit = Fit(chosen, weight[:, chosen] + 0.1, np.array([1.0, -1, 2]), 0.0)
    residual = other_y - other_z[:, chosen] @ fit.weight.T - fit.bias
    expected = (residual**2).sum() / ((other_y - other_y.mean(axis=0)) ** 2).sum()
    assert held.error(fit) == pytest.approx(expected, rel=1e-9)
    assert held.variance() == pytest.approx(float(other_y.var(axis=0).sum()))


def test_any_subset_of_the_features_is_fitted_as_if_there_were_no_others():
    z, y, _ = problem()
    chosen = np.array([5, 0, 3])
    part = ridge(equations(z, y), chosen, 1e-3)
    alone = ridge(equations(z[:, chosen], y), np.arange(3), 1e-3)
    np.testing.assert_allclose(part.weight, alone.weight, rtol=1e-9)
    np.testing.assert_allclose(part.bias, alone.bias, rtol=1e-9)


def test_no_features_leave_the_mean():
    z, y, _ = problem()
    fit = ridge(equations(z, y), np.zeros(0, np.int64), 1e-3)
    np.testing.assert_allclose(fit.bias, y.mean(axis=0))
    assert equations(z, y).error(fit) == pytest.approx(1.0)


def test_constant_and_repeated_features_do_no_harm():
    z, y, _ = problem(noise=0.0)
    z = np.column_stack([z, np.full(len(z), 3.0), z[:, 0], z[:, 0]])
    normal = equations(z, y)
    for penalty in (0.0, 1e-9):
        fit = ridge(normal, np.arange(10), penalty)
        assert np.isfinite(fit.weight).all()
        assert normal.error(fit) < 1e-9


def test_the_penalty_is_that_of_least_error_on_rows_held_out():
    """Fewer rows than features: without a penalty they are met exactly, and say nothing of others."""
    z, y, _ = problem(rows=30, features=40, noise=1.0, seed=4)
    other_z, other_y, _ = problem(rows=500, features=40, noise=1.0, seed=4)
    normal, held = equations(z, y), equations(other_z[30:], other_y[30:])
    everything = np.arange(40)
    best = best_ridge(normal, held, everything)
    assert best.held == min(held.error(ridge(normal, everything, penalty)) for penalty in PENALTIES)
    assert best.held == pytest.approx(held.error(best))
    assert best.penalty > 1e-9


def test_sums_do_not_grow_with_the_rows():
    normal = NormalEquations(5, 2)
    for seed in range(50):
        z, y, _ = problem(features=5, targets=2, seed=seed)
        normal.add(z, y)
    normal.add(z[:0], y[:0])
    assert normal.rows == 20_000
    assert normal.gram.shape == (6, 6)
    assert normal.gram.dtype == normal.cross.dtype == np.float64
