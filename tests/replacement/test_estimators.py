from __future__ import annotations

import numpy as np
import pytest

from qcompiler.replacement.estimators import arc_cosine_kernel, relu_features, series_features, urf_features
from qcompiler.replacement.features import orthogonal_gaussian

D = 6
MANY = 200_000


def inputs(seed=0, rows=3, length=0.8):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((rows, D))
    return length * x / np.linalg.norm(x, axis=1, keepdims=True)


def gaussian(count, seed=7):
    return np.random.default_rng(seed).standard_normal((count, D))


def assert_unbiased(pair, expected):
    """Within five standard errors of what it claims."""
    terms = pair.terms()
    error = terms.std(axis=2) / np.sqrt(terms.shape[2])
    np.testing.assert_array_less(np.abs(pair.estimate() - expected), 5 * error)
    assert (error > 0).all()


@pytest.mark.parametrize("spread", [0.0, 0.1])
@pytest.mark.parametrize("function", ["sin", "cos"])
def test_universal_random_features_estimate_sine_and_cosine(function, spread):
    x, weight, bias = inputs(), inputs(1, 4), np.array([0.0, 0.5, -1.0, 2.0])
    assert_unbiased(
        urf_features(function, x, weight, bias, gaussian(MANY), spread=spread),
        getattr(np, function)(x @ weight.T + bias),
    )


def test_relu_features_estimate_the_arc_cosine_kernel_and_not_the_relu():
    x, weight = inputs(length=2.0), inputs(1, 4)
    pair = relu_features(x, weight, gaussian(MANY))
    assert_unbiased(pair, arc_cosine_kernel(x, weight))
    assert np.abs(pair.estimate() - np.maximum(x @ weight.T, 0)).max() > 0.1


def test_the_arc_cosine_kernel_of_parallel_opposite_and_orthogonal_vectors():
    x = np.array([[2.0, 0.0]])
    np.testing.assert_allclose(
        arc_cosine_kernel(x, np.array([[3.0, 0], [-3, 0], [0, 3]])), [[6, 0, 6 / np.pi]], atol=1e-12
    )


@pytest.mark.parametrize("coefficients", [(0.5, -1.0, 0.25, 0.1), (0.0, 0.0, 1.0)])
def test_series_features_estimate_the_series_with_coefficients_of_either_sign(coefficients):
    x, weight = inputs(), inputs(1, 4)
    pair = series_features(coefficients, x, weight, 20_000, np.random.default_rng(3))
    assert_unbiased(pair, sum(a * (x @ weight.T) ** n for n, a in enumerate(coefficients)))


@pytest.mark.parametrize("kind", ["cos", "relu", "series"])
def test_the_variance_falls_with_the_number_of_features(kind):
    """Sixteen times as many features, a sixteenth of the variance."""
    x, weight = inputs(rows=1), inputs(1, 1)
    rng = np.random.default_rng(5)

    def estimate(count):
        if kind == "series":
            return series_features((0.5, -1.0, 0.25), x, weight, count, rng).estimate()[0, 0]
        g = rng.standard_normal((count, D))
        return (
            urf_features("cos", x, weight, np.zeros(1), g) if kind == "cos" else relu_features(x, weight, g)
        ).estimate()[0, 0]

    few, many = (np.var([estimate(count) for _ in range(1500)]) for count in (16, 256))
    assert 12 < few / many < 21


def test_orthogonal_rows_lose_no_exactness_and_have_less_variance():
    x, weight = inputs(rows=1), inputs(1, 1)
    rng = np.random.default_rng(11)
    orthogonal = [relu_features(x, weight, orthogonal_gaussian(D, D, rng)).estimate()[0, 0] for _ in range(6000)]
    independent = [relu_features(x, weight, rng.standard_normal((D, D))).estimate()[0, 0] for _ in range(6000)]
    expected = arc_cosine_kernel(x, weight)[0, 0]
    assert abs(np.mean(orthogonal) - expected) < 5 * np.std(orthogonal) / np.sqrt(6000)
    assert np.var(orthogonal) < 0.95 * np.var(independent)


def test_another_function_has_no_universal_random_features_of_this_kind():
    with pytest.raises(ValueError, match="'tanh' has no features of this kind"):
        urf_features("tanh", inputs(), inputs(), np.zeros(3), gaussian(4))
