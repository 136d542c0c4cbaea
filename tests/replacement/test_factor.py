from __future__ import annotations

import numpy as np
import pytest

from qcompiler.replacement.factor import balanced_divisors, fit_cores, spectrum


def problem(rows=10, products=12, seed=0, rank=None):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((rows, products))
    x = (
        rng.standard_normal((300, rank or products))
        @ rng.standard_normal((rank or products, products))
        * np.exp(rng.standard_normal(products))
    )
    return weight, np.cov(x.T, bias=True)


def error(weight, other, covariance):
    return float(np.einsum("rk,kl,rl->", weight - other, covariance, weight - other))


def by_the_book(weight, covariance, rank):
    """SVD of W C^{1/2}, multiplied back by C^{-1/2}."""
    values, vectors = np.linalg.eigh(covariance)
    root, inverse = (vectors * values**power @ vectors.T for power in (0.5, -0.5))
    left, kept, right = np.linalg.svd(weight @ root, full_matrices=False)
    return (left[:, :rank] * kept[:rank]) @ right[:rank] @ inverse


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_low_rank_is_the_svd_of_the_weight_times_the_root_of_the_covariance(rank):
    weight, covariance = problem()
    left, right = spectrum(weight, covariance).factors(rank)
    assert (left.shape, right.shape) == ((10, rank), (rank, 12))
    np.testing.assert_allclose(left @ right, by_the_book(weight, covariance, rank), atol=1e-8)


def test_without_a_covariance_what_is_lost_are_the_other_singular_values():
    weight, _ = problem()
    lost = spectrum(weight, np.eye(12)).lost(np.eye(12))
    squares = np.linalg.svd(weight, compute_uv=False) ** 2
    np.testing.assert_allclose(lost, [squares[rank:].sum() / squares.sum() for rank in range(11)], atol=1e-12)


def test_what_is_lost_on_other_inputs_is_measured_there():
    weight, covariance = problem()
    _, other = problem(seed=5)
    found = spectrum(weight, covariance)
    for rank in (0, 3, 10):
        left, right = found.factors(rank)
        assert found.lost(other)[rank] == pytest.approx(
            error(weight, left @ right, other) / error(weight, 0 * weight, other), abs=1e-9
        )


def test_full_rank_and_inputs_of_low_rank_lose_nothing():
    weight, covariance = problem(rank=3)
    found = spectrum(weight, covariance)
    assert found.lost(covariance)[3] < 1e-9
    left, right = found.factors(10)
    np.testing.assert_allclose(left @ right, weight, atol=1e-8)


def test_channels_between_the_factors_have_the_same_energy():
    weight, covariance = problem()
    _, right = spectrum(weight, covariance).factors(6)
    np.testing.assert_allclose(np.diag(right @ covariance @ right.T), 1.0)


@pytest.mark.parametrize(("size", "expected"), [(384, (16, 24)), (64, (8, 8)), (7, (1, 7)), (1, (1, 1))])
def test_balanced_divisors(size, expected):
    assert balanced_divisors(size) == expected


def test_a_sum_of_kronecker_products_is_found():
    rng = np.random.default_rng(1)
    weight = sum(np.kron(rng.standard_normal((2, 3)), rng.standard_normal((5, 4))) for _ in range(2))
    cores = fit_cores(weight, np.eye(12), (2, 5), (3, 4), 2)
    np.testing.assert_allclose(cores.weight(), weight, atol=1e-6)
    assert cores.parameters == 2 * (2 * 3 + 5 * 4)


def test_full_bond_reproduces_the_weight_and_plain_low_rank_is_a_case_of_it():
    weight, covariance = problem()
    np.testing.assert_allclose(fit_cores(weight, covariance, (2, 5), (3, 4), 99).weight(), weight, atol=1e-5)
    plain = fit_cores(weight, covariance, (10, 1), (1, 12), 4)
    left, right = spectrum(weight, covariance).factors(4)
    assert error(weight, plain.weight(), covariance) == pytest.approx(error(weight, left @ right, covariance), rel=0.05)
    assert plain.macs == plain.parameters == 4 * (10 + 12)


def test_cores_know_the_inputs_and_macs_are_those_of_the_two_products():
    weight, covariance = problem()
    fitted, blind = (fit_cores(weight, metric, (2, 5), (3, 4), 2) for metric in (covariance, np.eye(12)))
    assert error(weight, fitted.weight(), covariance) < 0.8 * error(weight, blind.weight(), covariance)
    assert fitted.macs == 3 * 4 * (2 * 5) + 5 * (3 * 2) * 2  # [3, 4] times [4, 10], then [5, 6] times [6, 2]
