"""The matrix of AffineQuant: its loss against brute force, its gradient against differences, its certificate."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.equivalence.affine import AffineProblem, dominance, fit_matrix, gradual_mask
from qcompiler.equivalence.levels import Levels

CHANNELS, BLOCK = 8, 4


def problem(bits: int = 4, *, readers: bool = True) -> AffineProblem:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, CHANNELS)) * np.exp(rng.standard_normal(CHANNELS))
    weights = [rng.standard_normal((7, CHANNELS))] if readers else []
    writers = [(rng.standard_normal((CHANNELS, 9)), 2.0)]
    return AffineProblem([x, x[:50] / 2], x.T @ x / len(x), weights, writers, BLOCK, Levels(255, 2 ** (bits - 1) - 1))


def matrices() -> np.ndarray:
    return np.asarray(np.eye(BLOCK) + 0.1 * np.random.default_rng(1).standard_normal((CHANNELS // BLOCK, BLOCK, BLOCK)))


def full(blocks: np.ndarray) -> np.ndarray:
    result = np.zeros((CHANNELS, CHANNELS))
    for index, block in enumerate(blocks):
        result[index * BLOCK:(index + 1) * BLOCK, index * BLOCK:(index + 1) * BLOCK] = block
    return result


def test_the_loss_of_rounded_weights_is_that_of_the_layer_problem() -> None:
    one = problem()
    alone = AffineProblem([], one.gram, one.readers, [], BLOCK, one.levels)
    a = full(matrices())
    weight = one.readers[0] @ np.linalg.inv(a)
    step = np.abs(weight).max(axis=1, keepdims=True) / one.levels.weight
    error = np.rint(weight / step) * step - weight
    assert alone.loss(matrices()) == pytest.approx(np.trace(error @ a @ one.gram @ a.T @ error.T), rel=1e-9)


def test_the_gradient_is_the_derivative() -> None:
    smooth = problem(bits=24)  # rounding errors of the readers vanish, and with them what goes straight through
    _, gradient = smooth.loss_and_gradient(matrices())
    for index in np.ndindex(*gradient.shape):
        moved = [matrices(), matrices()]
        moved[0][index] += 1e-6
        moved[1][index] -= 1e-6
        difference = (smooth.loss(moved[0]) - smooth.loss(moved[1])) / 2e-6
        assert gradient[index] == pytest.approx(difference, rel=1e-4, abs=1e-6 * np.abs(gradient).max())


def test_a_diagonal_a_band_and_the_full_matrix_lose_less_and_less() -> None:
    fits = [fit_matrix(problem(), np.ones(CHANNELS), widest=widest) for widest in (0.0, 0.4, 1.0)]
    losses = [fits[0].before, *(fit.after for fit in fits)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[1]
    assert np.count_nonzero(fits[0].matrices) == CHANNELS  # the diagonal alone
    for fit in fits:
        assert list(fit.history) == sorted(fit.history, reverse=True)
        assert dominance(fit.matrices).min() >= 0.01
        assert np.abs(np.linalg.inv(fit.matrices) @ fit.matrices - np.eye(BLOCK)).max() < 1e-12
        assert fit.condition == pytest.approx(np.linalg.cond(fit.matrices).max())


def test_no_step_is_the_start() -> None:
    start = np.linspace(0.5, 2, CHANNELS)
    fit = fit_matrix(problem(), start, epochs=0)
    np.testing.assert_array_equal(full(fit.matrices), np.diag(start))
    assert fit.before == fit.after


def test_the_mask_grows_from_the_diagonal() -> None:
    np.testing.assert_array_equal(gradual_mask(4, 0, 4, 0.1), np.eye(4))
    assert np.count_nonzero(gradual_mask(4, 1, 4, 0.1)) == 4 + 6
    np.testing.assert_allclose(gradual_mask(4, 3, 4, 0.1), np.where(np.eye(4) == 1, 1, 0.1))
    np.testing.assert_array_equal(gradual_mask(4, 0, 1, 1.0), np.eye(4))  # a single epoch divides by nothing


def test_dominance_is_refused_where_it_is_missing() -> None:
    assert dominance(np.eye(3)[None]).min() == 1
    assert dominance(np.array([[[1.0, 1.0], [0.0, 1.0]]])).min() == 0
