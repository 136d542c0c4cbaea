from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qcompiler.grids import uniform
from qcompiler.solvers import CoordinateDescent, Gptq, Nearest
from qcompiler.solvers.base import nearest_solution
from qcompiler.solvers.descent import descend
from qcompiler.solvers.problem import LayerProblem, Solution
from tests.solvers.problems import GRIDS, UNEVEN, brute_force, check_valid, losses, problem_of

each_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.name}-{grid.block}")


@each_grid
@pytest.mark.parametrize("corrects_mean", [False, True])
def test_the_loss_falls_with_every_sweep_until_no_single_change_helps(grid, corrects_mean):
    problem = problem_of(groups=2, rows=4, products=11, grid=grid, corrects_mean=corrects_mean)
    solution = nearest_solution(problem)
    before = losses(problem, solution)
    for _ in range(50):
        solution = descend(problem, problem.metric, solution, 1)
        after = losses(problem, solution)
        assert (after <= before * (1 + 1e-6)).all()
        before = after
    for level in grid.levels:
        for column in range(11):
            changed = solution.levels.copy()
            changed[:, :, column] = level
            assert (losses(problem, Solution(changed, solution.scale)) >= before * (1 - 1e-6)).all()


@pytest.mark.parametrize("grid", [uniform(2), uniform(3), UNEVEN], ids=lambda grid: grid.name)
def test_close_to_the_best_of_all_codes(grid):
    problem = problem_of(groups=2, rows=8, products=4, grid=grid)
    start = Gptq().solve(problem)
    found = descend(problem, problem.metric, start, 50)
    optimum = brute_force(problem, start.scale)
    assert (losses(problem, found) >= optimum * (1 - 1e-5)).all()
    assert (losses(problem, found) <= optimum * (1 + 1e-5)).mean() > 0.5
    assert np.median(losses(problem, found) / optimum) < 1.2


def test_any_level_is_reached_from_anywhere():
    problem = problem_of(rows=4, products=6, grid=uniform(8), corrects_mean=False)
    apart = LayerProblem(problem.weight, np.eye(6)[None] * 3.0, problem.mean, problem.grid, corrects_mean=False)
    nearest = nearest_solution(apart)
    far = Solution(-nearest.levels, nearest.scale)
    np.testing.assert_array_equal(descend(apart, apart.metric, far, 1).levels, nearest.levels)


@each_grid
def test_never_worse_than_nearest_or_the_start(grid):
    problem = problem_of(groups=3, rows=7, products=18, grid=grid)
    for start in (Nearest().solve(problem), Gptq().solve(problem)):
        found = CoordinateDescent().solve(problem, start)
        check_valid(problem, found)
        assert (losses(problem, found) <= losses(problem, start)).all()
    assert (losses(problem, CoordinateDescent().solve(problem)) <= losses(problem, Gptq().solve(problem))).all()


def test_inputs_of_zeros_and_the_strength_of_all_inputs_do_not_matter():
    problem = problem_of(groups=2)
    problem.gram[1] = problem.mean[1] = 0
    found = CoordinateDescent().solve(problem)
    check_valid(problem, found)
    louder = replace(problem, gram=problem.gram * 2.0**90, mean=problem.mean * 2.0**45)
    np.testing.assert_array_equal(CoordinateDescent().solve(louder).levels, found.levels)


def test_rows_in_small_parts_give_the_same(monkeypatch):
    problem = problem_of(groups=2, rows=9)
    whole = CoordinateDescent().solve(problem)
    monkeypatch.setattr("qcompiler.solvers.problem.LARGEST_TEMPORARY", 50)
    np.testing.assert_array_equal(whole.levels, CoordinateDescent().solve(problem).levels)
