from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qcompiler.grids import uniform
from qcompiler.solvers import Gptq, OptimalClip
from qcompiler.solvers.base import nearest_solution, rounded, spread
from qcompiler.solvers.gptq import factorize, round_with_feedback
from qcompiler.solvers.problem import LayerProblem
from tests.solvers.problems import GRIDS, UNEVEN, brute_force, check_valid, losses, problem_of

each_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda grid: f"{grid.name}-{grid.block}")


def codes(
    problem: LayerProblem, scale: np.ndarray, block: int = 128, act_order: bool = True, damping: float = 0.01
) -> np.ndarray:
    return round_with_feedback(problem, factorize(problem, damping, act_order), scale, block)[0].levels


def obq(problem: LayerProblem, scale: np.ndarray, damping: float, act_order: bool) -> np.ndarray:
    """Optimal Brain Quantization, one row at a time: round a weight, move all free ones, take it out of the inverse."""
    levels = np.zeros(problem.weight.shape, np.int16)
    steps = np.broadcast_to(spread(problem, scale), levels.shape)
    for g, r in np.ndindex(levels.shape[:2]):
        metric = problem.metric[g]
        inverse = np.linalg.inv(metric + damping * np.diag(metric).mean() * np.eye(len(metric)))
        weight = problem.weight[g, r].astype(np.float64)
        order = np.argsort(np.diag(metric), kind="stable")[::-1] if act_order else np.arange(len(metric))
        for j in order:
            levels[g, r, j] = problem.grid.nearest(weight[j : j + 1] / steps[g, r, j])[0]
            error = (weight[j] - levels[g, r, j] * float(steps[g, r, j])) / inverse[j, j]
            weight -= error * inverse[j]
            inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
            inverse[j, j] = 1  # done with: its row and column are zeros, up to rounding
    return levels


@each_grid
@pytest.mark.parametrize("act_order", [False, True])
def test_the_codes_are_those_of_obq(grid, act_order):
    problem = problem_of(groups=2, rows=8, products=13, grid=grid, seed=3)
    scale = nearest_solution(problem).scale
    np.testing.assert_array_equal(codes(problem, scale, act_order=act_order), obq(problem, scale, 0.01, act_order))


@each_grid
def test_independent_inputs_of_equal_strength_mean_plain_rounding(grid):
    problem = problem_of(groups=2, rows=5, products=20, grid=grid, corrects_mean=False)
    for strength in (1e-12, 3.7, 1e9):
        problem = replace(problem, gram=np.tile(strength * np.eye(20), (2, 1, 1)))
        start = nearest_solution(problem)
        np.testing.assert_array_equal(codes(problem, start.scale), start.levels)


@pytest.mark.parametrize("block", [1, 2, 7, 40, 41, 128])
def test_blocks_of_columns_change_nothing(block):
    problem = problem_of(groups=2, rows=17, products=41, grid=uniform(4), samples=90)
    scale = nearest_solution(problem).scale
    np.testing.assert_array_equal(codes(problem, scale, block=block), codes(problem, scale, block=1000))


@pytest.mark.parametrize("factor", [2.0**-60, 3e-7, 5e8])
def test_the_strength_of_all_inputs_does_not_matter(factor):
    problem = problem_of(rows=9, products=20)
    louder = replace(problem, gram=problem.gram * factor, mean=problem.mean * factor**0.5)
    found, other = Gptq().solve(problem), Gptq().solve(louder)
    np.testing.assert_array_equal(found.levels, other.levels)
    np.testing.assert_allclose(found.scale, other.scale, rtol=1e-6)


@each_grid
@pytest.mark.parametrize("corrects_mean", [False, True])
def test_never_worse_than_nearest_or_the_start_and_mostly_much_better(grid, corrects_mean):
    problem = problem_of(groups=3, rows=7, products=24, grid=grid, corrects_mean=corrects_mean)
    start = OptimalClip().solve(problem)
    found = Gptq().solve(problem, start)
    check_valid(problem, found)
    assert (losses(problem, found) <= losses(problem, start)).all()
    assert (losses(problem, found) <= losses(problem, nearest_solution(problem))).all()
    assert losses(problem, found).sum() < 0.7 * losses(problem, start).sum()


def test_dead_and_dependent_columns_work():
    problem = problem_of(rows=4, products=12, samples=5)  # rank 5 at most
    problem.gram[:, 3] = problem.gram[:, :, 3] = problem.mean[:, 3] = 0
    for damping in (0.01, 0.0):
        found = Gptq(damping=damping).solve(problem)
        check_valid(problem, found)
        assert (losses(problem, found) <= losses(problem, nearest_solution(problem)) + 1e-9).all()
    scale = nearest_solution(problem).scale
    np.testing.assert_array_equal(codes(problem, scale)[:, :, 3], rounded(problem, scale).levels[:, :, 3])


def test_inputs_that_are_always_zero_mean_plain_rounding():
    problem = problem_of(groups=2)
    silent = replace(problem, gram=np.zeros_like(problem.gram), mean=np.zeros_like(problem.mean))
    start = nearest_solution(silent)
    found = Gptq().solve(silent, start)
    np.testing.assert_array_equal(found.levels, start.levels)


def test_what_is_not_finite_is_named():
    problem = problem_of()
    problem.gram[0, 2, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        Gptq().solve(problem)
    problem = problem_of()
    problem.weight[0, 1, 3] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        Gptq().solve(problem, nearest_solution(problem_of()))


def test_rows_in_small_parts_give_the_same(monkeypatch):
    problem = problem_of(groups=2, rows=9)
    whole = Gptq().solve(problem)
    monkeypatch.setattr("qcompiler.solvers.problem.LARGEST_TEMPORARY", 50)
    np.testing.assert_array_equal(whole.levels, Gptq().solve(problem).levels)


@pytest.mark.parametrize("grid", [uniform(2), uniform(3, block=3), UNEVEN], ids=lambda grid: grid.name)
def test_a_beam_wide_enough_for_everything_finds_the_optimum(grid):
    problem = problem_of(groups=2, rows=3, products=4, grid=grid)
    scale = OptimalClip().solve(problem).scale
    factor = factorize(problem, 0, True)
    found, least = round_with_feedback(problem, factor, scale, 128, beam=1000)
    optimum = brute_force(problem, scale)
    np.testing.assert_allclose(losses(problem, found), least, rtol=1e-5)
    if len(grid.levels) == 3:  # all levels are tried
        np.testing.assert_allclose(least, optimum, rtol=1e-5)
    else:
        assert (least >= optimum * (1 - 1e-5)).all()
        assert (least <= optimum * 1.05).mean() > 0.8


@each_grid
def test_the_loss_told_is_that_of_the_damped_metric(grid):
    problem = problem_of(groups=2, rows=5, grid=grid)
    scale, factor = nearest_solution(problem).scale, factorize(problem, 0.02, True)
    diagonal = np.diagonal(problem.metric, axis1=1, axis2=2)
    damped = replace(problem, gram=problem.gram + 0.02 * diagonal.mean(1)[:, None, None] * np.eye(12))
    for beam in (1, 4):
        solution, told = round_with_feedback(problem, factor, scale, 5, beam)
        np.testing.assert_allclose(told, losses(damped, solution), rtol=1e-4)


def test_a_wider_beam_is_better():
    problem = problem_of(groups=1, rows=40, products=30, grid=uniform(3))
    scale, factor = nearest_solution(problem).scale, factorize(problem, 0.01, True)
    sums = [round_with_feedback(problem, factor, scale, 128, beam)[1].sum() for beam in (1, 2, 8, 64)]
    assert sums == sorted(sums, reverse=True)
    assert sums[2] < 0.9 * sums[0]


def test_the_damping_follows_what_the_vectors_held_out_have_in_common():
    fit = problem_of(groups=1, rows=40, products=24, grid=uniform(3), seed=5)
    others = replace(fit, gram=np.eye(24)[None], mean=np.zeros((1, 24)))  # nothing
    solver = Gptq()
    alike, unlike = solver.tuned(fit, fit), solver.tuned(fit, others)
    assert alike.damping < unlike.damping
    assert replace(alike, damping=solver.damping) == solver
    assert losses(others, unlike.solve(fit)).sum() < losses(others, alike.solve(fit)).sum()
