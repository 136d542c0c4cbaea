"""Each formula against Monte Carlo: within 3 standard errors of 200,000 draws with a fixed seed."""

from __future__ import annotations

import numpy as np
import pytest
import scipy

from qcompiler.moments import formulas
from qcompiler.moments.formulas import Moments, Piece

DRAWS = 200_000
CASES = [(0.7, 1.0), (-2.0, 0.5), (4.0, 3.0), (0.0, 8.0)]


def draws(mean: float, deviation: float, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, deviation, DRAWS)


def one(mean: float, deviation: float) -> Moments:
    return Moments(np.array([mean]), np.array([deviation**2]))


def assert_moments_of(got: Moments, sample: np.ndarray) -> None:
    """Mean and variance within 3 standard errors of those of a sample [draws]."""
    centred = sample - sample.mean()
    variance, fourth = np.mean(centred**2), np.mean(centred**4)
    assert abs(got.mean.item() - sample.mean()) <= 3 * np.sqrt(variance / sample.size) + 1e-9
    assert abs(got.variance.item() - variance) <= 3 * np.sqrt(max(fourth - variance**2, 0) / sample.size) + 1e-9


PIECEWISE = {
    "relu": (formulas.clip_pieces(0.0, np.inf), lambda x: np.maximum(x, 0)),
    "relu6": (formulas.clip_pieces(0.0, 6.0), lambda x: np.clip(x, 0, 6)),
    "clip": (formulas.clip_pieces(-1.0, 0.5), lambda x: np.clip(x, -1, 0.5)),
    "min": (formulas.clip_pieces(-np.inf, 0.3), lambda x: np.minimum(x, 0.3)),
    "identity": (formulas.clip_pieces(-np.inf, np.inf), lambda x: x),
    "leaky": (formulas.leaky_pieces(0.1), lambda x: np.where(x > 0, x, 0.1 * x)),
    "hard sigmoid": (formulas.hard_sigmoid_pieces(0.2, 0.5), lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    "hard swish": (formulas.hard_swish_pieces(), lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
}
SMOOTH = {
    "sigmoid": scipy.special.expit,
    "tanh": np.tanh,
    "silu": lambda x: x * scipy.special.expit(x),
    "gelu": lambda x: x * scipy.special.ndtr(x),
    "softplus": lambda x: np.logaddexp(0, x),
}


@pytest.mark.parametrize(("mean", "deviation"), CASES)
@pytest.mark.parametrize("name", PIECEWISE)
def test_piecewise_polynomials(name: str, mean: float, deviation: float) -> None:
    pieces, function = PIECEWISE[name]
    assert_moments_of(formulas.piecewise(one(mean, deviation), pieces), function(draws(mean, deviation)))


@pytest.mark.parametrize(("mean", "deviation"), CASES)
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions(name: str, mean: float, deviation: float) -> None:
    got = formulas.smooth(one(mean, deviation), SMOOTH[name])
    assert_moments_of(got, SMOOTH[name](draws(mean, deviation)))


def test_both_ways_agree_on_a_polynomial() -> None:
    x, pieces = one(0.3, 1.7), [(-np.inf, np.inf, (1.0, -2.0, 0.5))]
    exact, integrated = formulas.piecewise(x, pieces), formulas.smooth(x, lambda v: 1 - 2 * v + 0.5 * v**2)
    np.testing.assert_allclose(exact.mean, integrated.mean, rtol=1e-9)
    np.testing.assert_allclose(exact.variance, integrated.variance, rtol=1e-9)


def test_a_channel_without_deviation_is_the_function_itself() -> None:
    x = Moments(np.array([-1.0, 2.0, 9.0]), np.zeros(3))
    got = formulas.piecewise(x, formulas.clip_pieces(0.0, 6.0))
    np.testing.assert_allclose(got.mean, [0.0, 2.0, 6.0], atol=1e-9)
    np.testing.assert_allclose(got.variance, 0.0, atol=1e-9)


def test_sums_products_and_scales_of_independent_variables() -> None:
    x, y = draws(0.7, 1.0, 1), draws(-1.5, 2.0, 2)
    assert_moments_of(formulas.independent_sum(one(0.7, 1.0), one(-1.5, 2.0)), x + y)
    assert_moments_of(formulas.independent_product(one(0.7, 1.0), one(-1.5, 2.0)), x * y)
    assert_moments_of(formulas.scaled(one(0.7, 1.0), -3.0, 2.0), -3 * x + 2)


def test_a_mixture_of_channels() -> None:
    parts = [Moments(np.array([0.0, 5.0]), np.array([1.0, 4.0])), one(-2.0, 0.5)]
    rng = np.random.default_rng(3)
    channel = rng.integers(0, 3, DRAWS)
    means, deviations = np.array([0.0, 5.0, -2.0])[channel], np.array([1.0, 2.0, 0.5])[channel]
    assert_moments_of(formulas.mixture(parts), rng.normal(means, deviations))


def test_layer_norm_softmax_and_embeddings() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(20_000, 64))
    normalized = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    scale, shift = rng.normal(size=64), rng.normal(size=64)
    got = formulas.layer_norm(scale, shift)
    for channel in (0, 17, 63):
        sample = normalized[:, channel] * scale[channel] + shift[channel]
        assert_moments_of(Moments(got.mean[[channel]], got.variance[[channel]]), sample)
    probabilities = scipy.special.softmax(rows, axis=1)
    assert probabilities.mean() == pytest.approx(formulas.softmax_mean(64), rel=1e-9)
    table = rng.normal(size=(50, 3))
    sample = table[rng.integers(0, 50, DRAWS)]
    moments = formulas.table_rows(table)
    for channel in range(3):
        assert_moments_of(Moments(moments.mean[[channel]], moments.variance[[channel]]), sample[:, channel])


def test_pieces_without_cover_are_zero() -> None:
    pieces: list[Piece] = [(1.0, 2.0, (3.0,))]
    x = draws(1.0, 1.0)
    assert_moments_of(formulas.piecewise(one(1.0, 1.0), pieces), np.where((x > 1) & (x < 2), 3.0, 0.0))
