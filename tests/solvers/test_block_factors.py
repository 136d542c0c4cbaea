"""Blocks with factors: levels from the tables of their blocks, under one scale a row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qcompiler.grids import block_levels, grid_named, uniform
from qcompiler.solvers import SOLVERS
from qcompiler.solvers.base import nearest_solution, rounded
from qcompiler.solvers.block_factors import on_tables
from qcompiler.solvers.problem import LayerProblem, Solution, loss_by_row
from tests.solvers.problems import problem_of

SOLVERS_OF_BLOCKS = ("nearest", "clip", "gptq", "beam", "descent")


def placed(name: str, **options: int) -> tuple[LayerProblem, LayerProblem, Solution]:
    """A problem on a grid with blocks, the same on tables, and where it starts."""
    problem = problem_of(rows=12, products=150, samples=300, **options)
    problem = replace(problem, grid=grid_named(name).fit(problem.weight, problem.gram))
    return problem, *on_tables(problem, SOLVERS["clip"].importance(problem))


def check_on_tables(problem: LayerProblem, solution: Solution) -> None:
    assert problem.tables is not None
    assert solution.scale.shape == (*problem.weight.shape[:2], 1)
    assert (solution.scale > 0).all()
    tables = problem.tables
    of_each = tables.levels[tables.kinds.repeat(tables.width, axis=2)[:, :, : problem.weight.shape[2]]]
    assert (of_each == solution.levels[..., None]).any(axis=3).all()


@pytest.mark.parametrize("solver", SOLVERS_OF_BLOCKS)
@pytest.mark.parametrize("name", ["int4/32", "nf4/64", "int2/64", "kmeans3/32"])
def test_solvers_choose_from_the_tables_and_are_no_worse_than_where_they_start(solver: str, name: str) -> None:
    _, problem, start = placed(name, groups=2)
    solution = SOLVERS[solver].solve(problem, start)
    check_on_tables(problem, solution)
    after = loss_by_row(problem, solution.weight())
    for known in (start, nearest_solution(problem)):
        assert (after <= loss_by_row(problem, known.weight()) * (1 + 1e-6)).all()


def test_the_nearest_level_is_that_of_the_table_of_its_block() -> None:
    _, problem, start = placed("nf4/32")
    assert problem.tables is not None
    values = problem.weight.astype(np.float64) / start.scale
    kinds = problem.tables.kinds.repeat(32, axis=2)[:, :, :150]
    distance = np.abs(values[..., None] - problem.tables.levels[kinds]).min(axis=3)
    np.testing.assert_allclose(np.abs(values - rounded(problem, start.scale).levels), distance)


def test_factors_are_as_good_as_float_scales_of_blocks_but_for_a_little() -> None:
    rng = np.random.default_rng(0)
    weight = rng.standard_t(5, (1, 40, 384)).astype(np.float32)
    problem = LayerProblem(weight, np.eye(384)[None], np.zeros((1, 384)), grid_named("nf4/64").fit(weight), False)
    clip = SOLVERS["clip"]
    in_float = loss_by_row(problem, clip.solve(problem).weight(64)).sum()
    in_one = loss_by_row(problem, clip.solve(replace(problem, grid=replace(problem.grid, block=None))).weight()).sum()
    on_factors = loss_by_row(problem, clip.solve(*on_tables(problem, np.ones((1, 384)))).weight()).sum()
    assert in_float < on_factors < 1.06 * in_float < 0.8 * in_one


@pytest.mark.parametrize("name", ["int4", "nf4", "int2", "fp4", "power4(0.5)"])
def test_the_last_table_is_the_grid_and_all_are_its_multiples_within_half_a_step(name: str) -> None:
    grid = grid_named(name).fit(np.ones((1, 1, 1)))
    tables = block_levels(grid)
    whole = 64 // grid.largest
    assert tables.shape == (16, len(grid.levels))
    np.testing.assert_array_equal(tables[-1], grid.levels * whole)
    factors = np.arange(3, 19)[:, None] / 18
    assert np.abs(tables - grid.levels * whole * factors).max() <= 0.5
    assert (np.diff(tables, axis=1) >= 0).all()
    assert np.abs(tables).max() <= 64


def test_a_layer_without_blocks_is_one_whose_blocks_have_the_last_table() -> None:
    problem = problem_of(rows=5, products=150)
    tables = block_levels(uniform(4))
    solution = SOLVERS["clip"].solve(problem)
    _, in_blocks, _ = placed("int4/32")
    assert in_blocks.tables is not None
    last = replace(
        in_blocks, tables=replace(in_blocks.tables, kinds=np.full((1, 5, 5), 15, np.uint8)), weight=problem.weight
    )
    again = rounded(last, (solution.scale / 9).astype(np.float32))
    np.testing.assert_array_equal(tables[-1], np.arange(-7, 8) * 9)
    np.testing.assert_array_equal(
        again.levels, 9 * rounded(problem, (solution.scale / 9).astype(np.float32) * 9).levels
    )
