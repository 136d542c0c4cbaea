from __future__ import annotations

import numpy as np
import pytest

from qcompiler.grids import uniform
from qcompiler.solvers import AdaQuant, AdaRound, OptimalClip, SoftAssignment, Solver
from qcompiler.solvers.adaquant import scale_gradient
from qcompiler.solvers.adaround import gate, relax
from qcompiler.solvers.base import nearest_solution, spread
from qcompiler.solvers.learning import normalized_metric, objective_of
from qcompiler.solvers.problem import LayerProblem
from qcompiler.solvers.soft import soft_loss, window
from tests.solvers.problems import GRIDS, UNEVEN, check_valid, losses, problem_of

LEARNED = [AdaRound(iterations=200), AdaQuant(iterations=200), SoftAssignment(iterations=200)]
each_solver = pytest.mark.parametrize("solver", LEARNED, ids=lambda solver: type(solver).__name__)


def exact_objective(problem: LayerProblem):
    return objective_of(problem, normalized_metric(problem, np.float64), nearest_solution(problem), np.float64)


def check_gradient(function, at: np.ndarray, step: float = 1e-6) -> None:
    """Compare the gradient with central differences, at some of the elements."""
    _, gradient = function(at)
    rng = np.random.default_rng(0)
    largest = np.abs(gradient).max()
    for index in rng.choice(at.size, size=min(30, at.size), replace=False):
        where = np.unravel_index(index, at.shape)
        up, down = at.copy(), at.copy()
        up[where] += step
        down[where] -= step
        difference = (function(up)[0].sum() - function(down)[0].sum()) / (2 * step)
        assert abs(difference - gradient[where]) <= 1e-5 * largest


def test_gradient_of_the_layer_loss():
    problem = problem_of(groups=2)
    objective = exact_objective(problem)
    check_gradient(objective, problem.weight + np.random.default_rng(1).normal(size=problem.weight.shape))


def test_a_unit_of_loss_is_one_weight_of_the_start():
    problem = problem_of(groups=2)
    loss, _ = exact_objective(problem)(nearest_solution(problem).weight())
    np.testing.assert_allclose(loss, problem.weight.shape[2], rtol=1e-6)


@pytest.mark.parametrize("grid", [uniform(4), UNEVEN], ids=lambda grid: grid.name)
def test_gradient_of_adaround(grid):
    problem = problem_of(groups=2, grid=grid)
    objective = exact_objective(problem)
    _, logits, relaxation = relax(problem, nearest_solution(problem))
    logits = logits.astype(np.float64) + np.random.default_rng(1).normal(size=logits.shape)
    share = gate(logits)[0]
    assert (share == 0).any()
    assert (share == 1).any()
    for power in (20.0, 3.3, 2.0):
        check_gradient(lambda at, power=power: relaxation(objective, at, power, 0.7), logits)


@pytest.mark.parametrize("grid", GRIDS[:5], ids=lambda grid: grid.name)
def test_adaround_starts_at_the_exact_weights_and_takes_the_level_below_or_above(grid):
    problem = problem_of(groups=2, grid=grid)
    start = nearest_solution(problem)
    lower, logits, relaxation = relax(problem, start)
    relaxed = relaxation.below + gate(logits)[0] * relaxation.gap
    values = problem.weight / spread(problem, start.scale)
    reached = (values >= grid.levels[0]) & (values <= grid.levels[-1])
    np.testing.assert_allclose(relaxed[reached], problem.weight[reached], rtol=1e-4, atol=1e-5)
    assert (grid.levels[lower] <= values)[reached].all()
    assert (values <= grid.levels[lower + 1] + 1e-5)[reached].all()


@pytest.mark.parametrize(
    "grid", [uniform(3), uniform(3, block=5), UNEVEN], ids=lambda grid: f"{grid.name}-{grid.block}"
)
def test_gradient_of_adaquant_by_the_scale_is_exact_but_for_the_rounding(grid):
    problem = problem_of(groups=2, grid=grid)
    objective = exact_objective(problem)
    scale = nearest_solution(problem).scale.astype(np.float64) * 0.6
    values = problem.weight / spread(problem, scale)
    levels = grid.nearest(values)
    inside = (values >= grid.levels[0]) & (values <= grid.levels[-1])
    assert not inside.all()
    # the rounding error in steps, held fixed; outside the level itself
    rest = np.where(inside, levels - values, levels)

    def straight_through(at):
        wide = spread(problem, at)
        quantized = np.where(inside, problem.weight, 0) + wide * rest
        loss, gradient = objective(quantized)
        return loss, scale_gradient(problem, gradient, problem.weight, levels, scale)

    check_gradient(straight_through, scale)


@pytest.mark.parametrize("grid", [uniform(4), uniform(2), UNEVEN], ids=lambda grid: grid.name)
def test_gradient_of_soft_assignment(grid):
    problem = problem_of(groups=2, grid=grid)
    objective, start = exact_objective(problem), nearest_solution(problem)
    values = spread(problem, start.scale) * window(problem, start, 2).astype(np.float64)
    logits = np.random.default_rng(1).normal(size=values.shape)
    for temperature in (1.0, 0.3):
        check_gradient(lambda at, t=temperature: soft_loss(objective, at, values, t, 0.7), logits)


def test_the_window_holds_the_level_of_the_start_and_stays_on_the_grid():
    problem = problem_of(groups=2, grid=uniform(4))
    start = nearest_solution(problem)
    levels = window(problem, start, 2)
    assert levels.shape == (5, *problem.weight.shape)
    assert (levels == start.levels).any(axis=0).all()
    assert (np.diff(levels, axis=0) == 1).all()
    assert np.abs(levels).max() == 7
    assert len(window(problem_of(grid=uniform(2)), nearest_solution(problem_of(grid=uniform(2))), 2)) == 3


@each_solver
@pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.name}-{grid.block}")
def test_never_worse_than_nearest_or_the_start_and_better_on_the_whole(solver: Solver, grid):
    problem = problem_of(groups=3, rows=7, products=18, grid=grid)
    start = OptimalClip().solve(problem)
    found = solver.solve(problem, start)
    check_valid(problem, found)
    assert (losses(problem, found) <= losses(problem, start)).all()
    assert (losses(problem, found) <= losses(problem, nearest_solution(problem))).all()
    assert (losses(problem, found) / losses(problem, start)).mean() < 0.9


@each_solver
def test_the_same_twice(solver: Solver):
    problem = problem_of(groups=2)
    one, two = solver.solve(problem), solver.solve(problem)
    np.testing.assert_array_equal(one.levels, two.levels)
    np.testing.assert_array_equal(one.scale, two.scale)


@each_solver
@pytest.mark.parametrize("factor", [2.0**-80, 2.0**80])
def test_the_strength_of_all_inputs_does_not_matter(solver: Solver, factor):
    problem = problem_of(rows=4)
    louder = LayerProblem(problem.weight, problem.gram * factor, problem.mean * factor**0.5, problem.grid)
    np.testing.assert_array_equal(solver.solve(problem).levels, solver.solve(louder).levels)


@each_solver
def test_rows_of_zeros_and_inputs_of_zeros_work(solver: Solver):
    problem = problem_of(groups=2)
    problem.weight[0, 1] = 0
    problem.gram[1] = problem.mean[1] = 0
    check_valid(problem, solver.solve(problem))
