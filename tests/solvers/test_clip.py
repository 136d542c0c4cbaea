from __future__ import annotations

import numpy as np
import pytest

from qcompiler.grids import uniform
from qcompiler.solvers import Nearest, OptimalClip
from qcompiler.solvers.base import nearest_solution, positive, refit_scale, rounded
from qcompiler.solvers.problem import LayerProblem
from tests.solvers.problems import GRIDS, UNEVEN, check_valid, losses, problem_of


def test_the_largest_weight_lies_on_the_largest_level():
    problem = LayerProblem(
        np.array([[[0.7, -7.0, 0.0], [0, 0, 0]]], np.float32), np.eye(3)[None], np.zeros((1, 3)), uniform(4)
    )
    solution = Nearest().solve(problem)
    np.testing.assert_array_equal(solution.levels, [[[1, -7, 0], [0, 0, 0]]])
    np.testing.assert_array_equal(solution.scale, [[[1], [1]]])


def test_each_block_has_the_scale_of_its_largest_weight_and_the_last_may_be_short():
    problem = problem_of(rows=3, products=10, grid=uniform(4, block=4))
    scale = nearest_solution(problem).scale
    weight = np.abs(problem.weight)
    expected = np.stack([weight[:, :, :4].max(2), weight[:, :, 4:8].max(2), weight[:, :, 8:].max(2)], axis=2) / 7
    np.testing.assert_allclose(scale, expected, rtol=1e-6)


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.name}-{grid.block}")
@pytest.mark.parametrize("corrects_mean", [False, True])
def test_a_refit_never_raises_the_loss_and_is_a_minimum(grid, corrects_mean):
    problem = problem_of(groups=2, grid=grid, seed=4, corrects_mean=corrects_mean)
    start = nearest_solution(problem)
    fitted, _ = refit_scale(problem, start)
    np.testing.assert_array_equal(fitted.levels, start.levels)
    assert (losses(problem, fitted) <= losses(problem, start) * (1 + 1e-9)).all()
    for _ in range(200):
        fitted, least = refit_scale(problem, fitted)
    np.testing.assert_allclose(least, losses(problem, fitted), rtol=1e-4)
    for block in range(problem.blocks):
        for factor in (0.99, 1.01):
            other = fitted.scale.copy()
            other[:, :, block] *= factor
            assert (losses(problem, fitted) <= losses(problem, type(fitted)(fitted.levels, other)) * (1 + 1e-5)).all()


@pytest.mark.parametrize("grid", [uniform(2), uniform(3), UNEVEN], ids=lambda grid: grid.name)
def test_clip_is_close_to_the_best_of_very_many_scales(grid):
    problem = problem_of(rows=20, products=16, grid=grid)
    largest = nearest_solution(problem).scale
    best = np.min(
        [losses(problem, rounded(problem, positive(largest * ratio))) for ratio in np.linspace(0.05, 1, 2000)], axis=0
    )
    found = losses(problem, OptimalClip(candidates=2000, lowest=0.05).solve(problem))
    assert found.sum() <= 1.02 * best.sum()


@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.name}-{grid.block}")
def test_clip_is_never_worse_than_nearest_and_better_with_an_outlier(grid):
    problem = problem_of(groups=3, rows=5, products=14, grid=grid)
    problem.weight[:, :, 3] *= 4
    clipped = OptimalClip().solve(problem)
    check_valid(problem, clipped)
    before, after = losses(problem, nearest_solution(problem)), losses(problem, clipped)
    assert (after <= before).all()
    assert after.sum() < before.sum()


def test_a_good_start_is_kept():
    problem = problem_of(grid=uniform(2))
    weight = problem.weight.copy()
    start = OptimalClip().solve(problem)
    exact = LayerProblem(start.weight(), problem.gram, problem.mean, problem.grid)
    np.testing.assert_array_equal(losses(exact, Nearest().solve(exact, start)), 0)
    np.testing.assert_array_equal(problem.weight, weight)


def test_rows_in_small_parts_give_the_same(monkeypatch):
    problem = problem_of(groups=2, rows=9, grid=uniform(3))
    whole = OptimalClip().solve(problem)
    monkeypatch.setattr("qcompiler.solvers.problem.LARGEST_TEMPORARY", 50)
    parts = OptimalClip().solve(problem)
    np.testing.assert_array_equal(whole.levels, parts.levels)
    np.testing.assert_allclose(whole.scale, parts.scale, rtol=1e-6)
