"""Layers as problems, and their solutions: by themselves, or behind layers that are quantized already."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration.gram import LayerInputs, Moments
from ..calibration.paired import PairedInputs, PairedMoments
from ..calibration.patches import as_matrix, taps_first
from ..grids import Grid, GridFamily
from ..layer_problem import LayerProblem, Solution, mean_error, relative_loss
from ..layers import Layer, has_bias
from ..report.record import Reconstruction
from ..retarget import RIDGES, mean_shift, output_error, retargeted
from ..solvers import SOLVERS, Nearest, Solver
from ..solvers.blocks import on_tables

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Task:
    """A layer to solve: its problem on the moments to fit on, on those held out and on what decides in the end, the solver's name, the seed."""

    node: str
    fit: LayerProblem
    held: LayerProblem
    whole: LayerProblem
    solver: str
    seed: int


@dataclass(frozen=True, eq=False)
class Solved:
    """A layer's solution with one scale a row, the problem that it solves, what its bias must add [C], and how it came about."""

    solution: Solution
    problem: LayerProblem
    shift: Array
    record: Reconstruction


def task_of(layer: Layer, inputs: LayerInputs, family: GridFamily, solver: str, seed: int, refit: bool = True) -> Task:
    """The problem of a layer by itself."""
    weight, fit, held = np.asarray(as_matrix(layer, layer.values)), inputs.fit, inputs.held
    if _has_blocks(family, weight):
        order = taps_first(layer)
        weight, fit, held = weight[:, :, order], _reordered(fit, order), _reordered(held, order)
    every = fit.with_those(held) if refit else fit
    grid = _fitted(family, weight, every.gram)
    on_fit, on_held, on_every = (LayerProblem(weight, side.gram, side.mean, grid, has_bias(layer)) for side in (fit, held, every))
    return Task(layer.node.name, on_fit, on_held, on_every if refit else on_fit, solver, seed)


def _has_blocks(family: GridFamily, weight: Array) -> bool:
    return family.block is not None and family.block < weight.shape[2]


def _fitted(family: GridFamily, weight: Array, gram: Array) -> Grid:
    """The grid of a weight, without blocks where a row is no longer than one."""
    grid = family.fit(weight, gram)
    return grid if _has_blocks(grid, weight) else replace(grid, block=None)


def _reordered(moments: Moments, order: NDArray[np.intp]) -> Moments:
    return Moments(moments.gram[:, order[:, None], order], moments.mean[:, order], moments.rows)


def _choices(grid: Grid) -> tuple[Grid, ...]:
    """A grid and, if it has blocks, the same without."""
    return (grid,) if grid.block is None else (grid, replace(grid, block=None))


def _label(grid: Grid) -> str:
    return grid.name if grid.block is None else f"{grid.name}/{grid.block}"


def _solution(solver: Solver, problem: LayerProblem, seed: int) -> tuple[Solution, LayerProblem]:
    """A solution with one scale a row, and the problem that it solves: on tables of levels where the grid has blocks."""
    if problem.grid.block is None:
        return solver.solve(problem, None, seed), problem
    placed, start = on_tables(problem, solver.importance(problem))
    return solver.solve(placed, start, seed), placed


def solve(task: Task) -> Solved:
    """The solver's choice where it beats plain rounding on what it did not see, else that; without blocks where these do not lose less there."""
    solver, grids = SOLVERS[task.solver].tuned(task.fit, task.held), _choices(task.fit.grid)
    plain, problem = _solution(Nearest(), task.fit, task.seed)
    tried = [_solution(solver, replace(task.fit, grid=grid), task.seed) for grid in grids]
    best = int(np.argmin([relative_loss(task.held, found.weight()) for found, _ in tried]))
    (fit_before, fit_after), (held_before, held_after) = (
        [relative_loss(side, found.weight()) for found in (plain, tried[best][0])] for side in (task.fit, task.held)
    )
    solution, kept, grid = plain, held_after <= held_before, task.fit.grid
    if kept:
        grid = grids[best]
        solution, problem = tried[best] if task.whole is task.fit else _solution(solver, replace(task.whole, grid=grid), task.seed)
    name = task.solver if kept else "nearest"
    record = Reconstruction(task.node, _label(grid), name, fit_before, fit_after, held_before, held_after, kept)
    return Solved(solution, problem, mean_error(task.whole, solution.weight()).reshape(-1), record)


@dataclass(frozen=True, eq=False)
class _PairedLayer:
    """A layer behind quantized ones: its weights, what it sees and should have seen, and the losses of solutions."""

    weight: Array
    grid: Grid
    has_bias: bool
    fit: PairedMoments
    held: PairedMoments

    def problem(self, moments: PairedMoments, ridge: float | None) -> LayerProblem:
        """With the targets of this ridge; None: with the layer's own weights."""
        target = self.weight if ridge is None else retargeted(self.weight, moments, ridge, corrects_mean=self.has_bias)
        return LayerProblem(target, moments.given.gram, moments.given.mean, self.grid, self.has_bias)

    def shift(self, solution: Solution, moments: PairedMoments, in_place: bool) -> Array:
        """What the bias adds, [G, R]: the mean error of this layer's rounding or, ``in_place``, all that the outputs' mean is off."""
        if not self.has_bias:
            return np.zeros(self.weight.shape[:2])
        return mean_shift(self.weight, solution.weight(), moments.exact.mean, moments.given.mean if in_place else moments.exact.mean)

    def losses(self, solution: Solution, in_place: bool) -> tuple[float, float]:
        """Error of the outputs relative to their energy: on what was fitted to, and held out."""
        shift, rounded = self.shift(solution, self.fit, in_place), solution.weight()
        fit, held = (output_error(self.weight, rounded, shift, side, self.has_bias) for side in (self.fit, self.held))
        return fit, held


def _paired_layer(inputs: PairedInputs, family: GridFamily) -> _PairedLayer:
    layer, fit, held = inputs.layer, inputs.fit, inputs.held
    weight = np.asarray(as_matrix(layer, layer.values))
    if _has_blocks(family, weight):
        order = taps_first(layer)
        weight, fit, held = weight[:, :, order], _reordered_pair(fit, order), _reordered_pair(held, order)
    return _PairedLayer(weight, _fitted(family, weight, fit.with_those(held).exact.gram), has_bias(layer), fit, held)


def _reordered_pair(moments: PairedMoments, order: NDArray[np.intp]) -> PairedMoments:
    return PairedMoments(_reordered(moments.exact, order), _reordered(moments.given, order), moments.cross[:, order[:, None], order])


def solve_paired(inputs: PairedInputs, family: GridFamily, solver: str, seed: int, refit: bool = True) -> Solved:
    """The same behind layers that are quantized already. What does best on what was held out decides about the ridge of the targets, bias and blocks.

    These, and the solver against plain rounding, are compared by what the solver finds in a hurry.
    """
    paired = _paired_layer(inputs, family)
    plain, every = paired.problem(paired.fit, None), paired.fit.with_those(paired.held) if refit else paired.fit
    tuned = SOLVERS[solver].tuned(plain, paired.problem(paired.held, None))
    tried: dict[tuple[Grid, float | None, bool], tuple[float, float]] = {}
    ridges: tuple[float | None, ...] = (None, *RIDGES)
    for grid in _choices(paired.grid):
        for ridge in ridges:
            found, _ = _solution(tuned.hasty(), replace(paired.problem(paired.fit, ridge), grid=grid), seed)
            tried |= {(grid, ridge, in_place): paired.losses(found, in_place) for in_place in (False, True)}
        best = min(tried, key=lambda choice: tried[choice][1])
        ridges = (best[1],)
    grid, ridge, in_place = best
    solution, problem = _solution(Nearest(), plain, seed)
    (fit_before, held_before), (fit_after, held_after) = paired.losses(solution, in_place), tried[best]
    kept = held_after <= held_before
    if kept:
        solution, problem = _solution(tuned, replace(paired.problem(every, ridge), grid=grid), seed)
    label, name = _label(grid if kept else paired.grid), solver if kept else "nearest"
    record = Reconstruction(inputs.layer.node.name, label, name, fit_before, fit_after, held_before, held_after, kept)
    return Solved(solution, problem, paired.shift(solution, every, in_place).reshape(-1), record)
