"""Layer problems for tests of solvers."""

from __future__ import annotations

from itertools import product

import numpy as np

from qcompiler.grids import Grid, uniform
from qcompiler.solvers.problem import LayerProblem, Solution, loss_by_row

UNEVEN = Grid("uneven", np.array([-127, -40, -11, 0, 7, 25, 90], np.int16))
"""Levels that are neither equally spaced nor symmetric."""

UNEVEN_BLOCKS = Grid("uneven", UNEVEN.levels, 5)

GRIDS = [uniform(2), uniform(4), uniform(8), uniform(3, block=4), UNEVEN, UNEVEN_BLOCKS]


def problem_of(groups=1, rows=6, products=12, grid=None, seed=0, corrects_mean=True, samples=64) -> LayerProblem:
    """A problem with inputs that depend on each other and have a mean."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(groups, products, products)) * np.geomspace(1, 0.1, products)[:, None]
    x = rng.normal(size=(groups, samples, products)) @ mixed + rng.normal(size=(groups, 1, products))
    weight = rng.standard_t(4, size=(groups, rows, products)).astype(np.float32)
    return LayerProblem(weight, x.transpose(0, 2, 1) @ x / samples, x.mean(1), grid or uniform(4), corrects_mean)


def losses(problem: LayerProblem, solution: Solution) -> np.ndarray:
    return loss_by_row(problem, solution.weight(problem.grid.block))


def check_valid(problem: LayerProblem, solution: Solution) -> None:
    """Levels of the grid, positive scales, the right shapes."""
    groups, rows, _ = problem.weight.shape
    assert solution.levels.dtype == np.int16
    assert solution.levels.shape == problem.weight.shape
    assert np.isin(solution.levels, problem.grid.levels).all()
    assert solution.scale.dtype == np.float32
    assert solution.scale.shape == (groups, rows, problem.blocks)
    assert (solution.scale > 0).all()
    assert np.isfinite(solution.scale).all()


def brute_force(problem: LayerProblem, scale: np.ndarray) -> np.ndarray:
    """The least loss of each row over all choices of levels under given scales [G, R, B]: [G, R]."""
    choices = np.array(list(product(problem.grid.levels.tolist(), repeat=problem.weight.shape[2])), np.int16)
    best = np.empty(problem.weight.shape[:2])
    for g, r in np.ndindex(best.shape):
        one = LayerProblem(
            np.repeat(problem.weight[g : g + 1, r : r + 1], len(choices), axis=1),
            problem.gram[g : g + 1], problem.mean[g : g + 1], problem.grid, problem.corrects_mean,
        )  # fmt: skip
        every = Solution(choices[None], np.repeat(scale[g : g + 1, r : r + 1], len(choices), axis=1))
        best[g, r] = losses(one, every).min()
    return best
