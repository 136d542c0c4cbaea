"""Layers as problems, and their solutions: by themselves, or behind layers that are quantized already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration.gram import LayerInputs
from ..calibration.paired import PairedInputs, PairedMoments
from ..calibration.patches import as_matrix
from ..grids import Grid, GridFamily
from ..layer_problem import LayerProblem, Solution, mean_error, relative_loss
from ..layers import Layer, has_bias
from ..report.record import Reconstruction
from ..retarget import RIDGES, mean_shift, output_error, retargeted
from ..solvers import SOLVERS, Nearest

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Task:
    """A layer to solve: its problem on the moments to fit on, on those held out and on both together, the solver's name, the seed."""

    node: str
    fit: LayerProblem
    held: LayerProblem
    whole: LayerProblem
    solver: str
    seed: int


@dataclass(frozen=True, eq=False)
class Solved:
    """A layer's solution, what its bias must add [C], and how it came about."""

    solution: Solution
    grid: Grid
    shift: Array
    record: Reconstruction


def task_of(layer: Layer, inputs: LayerInputs, family: GridFamily, solver: str, seed: int) -> Task:
    """The problem of a layer by itself."""
    weight = np.asarray(as_matrix(layer, layer.values))
    every = inputs.fit.with_those(inputs.held)
    grid = family.fit(weight, every.gram)
    fit, held, whole = (LayerProblem(weight, side.gram, side.mean, grid, has_bias(layer)) for side in (inputs.fit, inputs.held, every))
    return Task(layer.node.name, fit, held, whole, solver, seed)


def solve(task: Task) -> Solved:
    """The solver's choice where it beats plain rounding on what it did not see, else that."""
    block, solver = task.fit.grid.block, SOLVERS[task.solver].tuned(task.fit, task.held)
    plain, tuned = Nearest().solve(task.fit, None, task.seed), solver.solve(task.fit, None, task.seed)
    weights = [solution.weight(block) for solution in (plain, tuned)]
    (fit_before, fit_after), (held_before, held_after) = ([relative_loss(side, w) for w in weights] for side in (task.fit, task.held))
    kept = held_after <= held_before
    name = task.solver if kept else "nearest"
    record = Reconstruction(task.node, task.fit.grid.name, name, fit_before, fit_after, held_before, held_after, kept)
    solution = solver.solve(task.whole, None, task.seed) if kept else plain
    return Solved(solution, task.fit.grid, mean_error(task.whole, solution.weight(block)).reshape(-1), record)


@dataclass(frozen=True, eq=False)
class _PairedLayer:
    """A layer behind quantized ones: its weights, what it sees and should have seen, and the losses of solutions."""

    weight: Array
    grid: Grid
    has_bias: bool
    inputs: PairedInputs

    def problem(self, moments: PairedMoments, ridge: float | None) -> LayerProblem:
        """With the targets of this ridge; None: with the layer's own weights."""
        target = self.weight if ridge is None else retargeted(self.weight, moments, ridge, corrects_mean=self.has_bias)
        return LayerProblem(target, moments.given.gram, moments.given.mean, self.grid, self.has_bias)

    def shift(self, solution: Solution, moments: PairedMoments, in_place: bool) -> Array:
        """What the bias adds, [G, R]: the mean error of this layer's rounding or, ``in_place``, all that the outputs' mean is off."""
        if not self.has_bias:
            return np.zeros(self.weight.shape[:2])
        return mean_shift(self.weight, solution.weight(self.grid.block), moments.exact.mean, moments.given.mean if in_place else moments.exact.mean)

    def losses(self, solution: Solution, in_place: bool) -> tuple[float, float]:
        """Error of the outputs relative to their energy: on what was fitted to, and held out."""
        shift, rounded = self.shift(solution, self.inputs.fit, in_place), solution.weight(self.grid.block)
        fit, held = (output_error(self.weight, rounded, shift, side, self.has_bias) for side in (self.inputs.fit, self.inputs.held))
        return fit, held


def solve_paired(inputs: PairedInputs, family: GridFamily, solver: str, seed: int) -> Solved:
    """The same behind layers that are quantized already. What does best on what was held out decides about the ridge of the targets and the bias.

    These, and the solver against plain rounding, are compared by what the solver finds in a hurry.
    """
    layer, every = inputs.layer, inputs.fit.with_those(inputs.held)
    weight = np.asarray(as_matrix(layer, layer.values))
    paired = _PairedLayer(weight, family.fit(weight, every.exact.gram), has_bias(layer), inputs)
    plain = paired.problem(inputs.fit, None)
    tuned = SOLVERS[solver].tuned(plain, paired.problem(inputs.held, None))
    tried: dict[tuple[float | None, bool], tuple[float, float]] = {}
    for ridge in (None, *RIDGES):
        solution = tuned.hasty().solve(paired.problem(inputs.fit, ridge), None, seed)
        tried |= {(ridge, in_place): paired.losses(solution, in_place) for in_place in (False, True)}
    ridge, in_place = min(tried, key=lambda choice: tried[choice][1])
    nearest = Nearest().solve(plain, None, seed)
    (fit_before, held_before), (fit_after, held_after) = paired.losses(nearest, in_place), tried[ridge, in_place]
    kept = held_after <= held_before
    solution = tuned.solve(paired.problem(every, ridge), None, seed) if kept else nearest
    name = solver if kept else "nearest"
    record = Reconstruction(layer.node.name, paired.grid.name, name, fit_before, fit_after, held_before, held_after, kept)
    return Solved(solution, paired.grid, paired.shift(solution, every, in_place).reshape(-1), record)
