from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.spsa import Spsa, gradient_estimate


def quadratic(size: int = 6):
    rng = np.random.default_rng(0)
    half = rng.standard_normal((size, size))
    matrix, centre = half @ half.T, rng.standard_normal(size)
    return lambda x: float((x - centre) @ matrix @ (x - centre)), lambda x: 2 * matrix @ (x - centre)


def test_the_mean_estimate_is_the_gradient():
    loss, gradient = quadratic()
    rng, at = np.random.default_rng(1), np.ones(6)
    estimates = np.array([gradient_estimate(loss, at, 0.01, 1, rng) for _ in range(4000)])
    error, sigma = estimates.mean(axis=0) - gradient(at), estimates.std(axis=0) / np.sqrt(len(estimates))
    assert (np.abs(error) < 5 * sigma).all()
    assert (sigma < 0.2 * np.abs(gradient(at)).max()).all()


def test_averaging_directions_narrows_the_estimate():
    loss, gradient = quadratic()
    at = np.ones(6)
    errors = [
        np.mean(
            [
                np.sum((gradient_estimate(loss, at, 0.01, count, np.random.default_rng(seed)) - gradient(at)) ** 2)
                for seed in range(200)
            ]
        )
        for count in (1, 16)
    ]
    assert errors[1] < errors[0] / 8


def test_descent_lowers_a_quadratic_and_reports_what_it_reached():
    loss, _ = quadratic()
    best, least, first = Spsa(steps=100, radius=0.05, reach=4).minimize(loss, np.zeros(6))
    assert first == loss(np.zeros(6))
    assert least == loss(best) < 0.2 * first


@pytest.mark.parametrize("seed", range(5))
def test_the_result_is_never_worse_than_the_start(seed):
    def rough(x):
        return float(np.sum(np.abs(x)) + np.sin(100 * x).sum())

    start = np.random.default_rng(seed).standard_normal(4)
    _, least, first = Spsa(steps=8, radius=0.5).minimize(rough, start, seed)
    assert least <= first == rough(start)


def test_a_flat_function_moves_nothing():
    start = np.arange(3.0)
    best, least, first = Spsa(steps=3).minimize(lambda _: 1.0, start)
    np.testing.assert_array_equal(best, start)
    assert least == first == 1


def test_the_seed_decides_everything_and_the_start_is_left_alone():
    loss, _ = quadratic()
    start = np.zeros(6)
    first, again, other = (Spsa(steps=5).minimize(loss, start, seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not start.any()
