"""A layer as a problem by itself, and its solution.

A `Choice` is made on held-out vectors with fast solver settings; the layer is then solved at full effort on all
vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.gram import LayerInputs, Moments
from qcompiler.calibration.patches import as_matrix, taps_first
from qcompiler.graph.layers import Layer, has_bias
from qcompiler.grids import Grid, GridFamily
from qcompiler.records import Reconstruction
from qcompiler.solvers import SOLVERS, Nearest, Solver
from qcompiler.solvers.block_factors import on_tables
from qcompiler.solvers.problem import LayerProblem, Solution, mean_error, relative_loss

Array = NDArray[Any]


@dataclass(frozen=True)
class Choice:
    """What the vectors held out decided.

    Attributes:
        record: how it came about.
        solver: with the options that suit the layer; `Nearest` where it lost to plain rounding.
        blocks: whether a grid with blocks keeps them.
        ridge: of the targets; None: the layer's own weights are the target.
        in_place: the bias puts the mean of the outputs in place, instead of giving back what rounding this layer moved
            it.
    """

    record: Reconstruction
    solver: Solver
    blocks: bool
    ridge: float | None = None
    in_place: bool = False

    def on(self, grid: Grid) -> Grid:
        """The grid, with its blocks if they are kept."""
        return grid if self.blocks else replace(grid, block=None)


@dataclass(frozen=True, eq=False)
class Solved:
    """A layer's solution with one scale per row, its problem, the bias correction [C], and how it came about."""

    solution: Solution
    problem: LayerProblem
    shift: Array
    record: Reconstruction


@dataclass(frozen=True, eq=False)
class Task:
    """One layer problem: weights [G, R, K], Gram matrix in the order of the grid's blocks, and a solver's name."""

    node: str
    weight: Array
    has_bias: bool
    family: GridFamily
    fit: Moments
    held: Moments
    solver: str
    seed: int

    def problem(self, moments: Moments, grid: Grid) -> LayerProblem:
        """On these moments."""
        return LayerProblem(self.weight, moments.gram, moments.mean, grid, self.has_bias)

    def judge(self, grid: Grid) -> LayerProblem:
        """On the vectors held out, where the bias is the one that fits the others."""
        return self.problem(self.held.about(self.fit.mean) if self.has_bias else self.held, grid)


def task_of(layer: Layer, inputs: LayerInputs, family: GridFamily, solver: str, seed: int) -> Task:
    """The problem of a layer by itself."""
    weight, fit, held = np.asarray(as_matrix(layer, layer.values)), inputs.fit, inputs.held
    if has_blocks(family, weight):
        order = taps_first(layer)
        weight, fit, held = weight[:, :, order], fit.reordered(order), held.reordered(order)
    return Task(layer.node.name, weight, has_bias(layer), family, fit, held, solver, seed)


def solve(task: Task) -> Solved:
    """The solver's result where it beats plain rounding held out, else that; blocks only where they do not lose."""
    choice, every = _decide(task), task.fit.with_those(task.held)
    plain = task.problem(every, choice.on(fitted_grid(task.family, task.weight, every.gram)))
    solution, problem = solution_of(choice.solver, plain, task.seed)
    return Solved(solution, problem, mean_error(plain, solution.weight()).reshape(-1), choice.record)


def _decide(task: Task) -> Choice:
    grid = fitted_grid(task.family, task.weight, task.fit.gram)
    fit, held = task.problem(task.fit, grid), task.judge(grid)
    solver, grids = SOLVERS[task.solver].tuned(fit, held), choices(grid)
    plain = solution_of(Nearest(), fit, task.seed)[0].weight()
    tried = [solution_of(solver.hasty(), replace(fit, grid=grid), task.seed)[0].weight() for grid in grids]
    losses = [relative_loss(held, weight) for weight in tried]
    best = int(np.argmin(losses))
    held_before, held_after = relative_loss(held, plain), losses[best]
    kept = held_after <= held_before
    taken, name = (grids[best], task.solver) if kept else (grid, "nearest")
    record = Reconstruction(
        task.node,
        label(taken),
        name,
        relative_loss(fit, plain),
        relative_loss(fit, tried[best]),
        held_before,
        held_after,
        kept,
    )
    return Choice(record, solver if kept else Nearest(), taken.block is not None)


def has_blocks(family: GridFamily, weight: Array) -> bool:
    """True where a row of the weight is longer than a block of the grid."""
    return family.block is not None and family.block < weight.shape[2]


def fitted_grid(family: GridFamily, weight: Array, gram: Array) -> Grid:
    """The grid of a weight, without blocks where a row is no longer than one."""
    grid = family.fit(weight, gram)
    return grid if has_blocks(grid, weight) else replace(grid, block=None)


def choices(grid: Grid) -> tuple[Grid, ...]:
    """A grid and, if it has blocks, the same without."""
    return (grid,) if grid.block is None else (grid, replace(grid, block=None))


def label(grid: Grid) -> str:
    """Name of a grid with the size of its blocks."""
    return grid.name if grid.block is None else f"{grid.name}/{grid.block}"


def solution_of(solver: Solver, problem: LayerProblem, seed: int) -> tuple[Solution, LayerProblem]:
    """A solution with one scale per row, and its problem: on tables of levels where the grid has blocks."""
    if problem.grid.block is None:
        return solver.solve(problem, None, seed), problem
    placed, start = on_tables(problem, solver.importance(problem))
    return solver.solve(placed, start, seed), placed
