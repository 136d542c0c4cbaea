"""The layer problem behind already quantized layers, and its solution; see `solve_alone.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.paired import PairedInputs, PairedMoments
from qcompiler.calibration.patches import as_matrix, taps_first
from qcompiler.graph.layers import has_bias
from qcompiler.grids import Grid, GridFamily
from qcompiler.records import Reconstruction
from qcompiler.solvers import SOLVERS, Nearest
from qcompiler.solvers.problem import LayerProblem, Solution
from qcompiler.weights.retarget import RIDGES, OutputError, mean_shift, retargeted
from qcompiler.weights.solve_alone import Choice, Solved, choices, fitted_grid, has_blocks, label, solution_of

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _PairedLayer:
    """A layer behind quantized ones: its weights [G, R, K], what it sees and should have seen."""

    weight: Array
    has_bias: bool
    fit: PairedMoments
    held: PairedMoments

    def problem(self, moments: PairedMoments, grid: Grid, ridge: float | None) -> LayerProblem:
        """With the targets of this ridge; None: with the layer's own weights."""
        target = self.weight if ridge is None else retargeted(self.weight, moments, ridge, corrects_mean=self.has_bias)
        return LayerProblem(target, moments.given.gram, moments.given.mean, grid, self.has_bias)

    def judge(self, grid: Grid) -> LayerProblem:
        """The layer's own weights on the vectors held out, where the bias is the one that fits the others."""
        given, mean = self.held.given, self.fit.given.mean
        given = given.about(mean) if self.has_bias else given
        return LayerProblem(self.weight, given.gram, given.mean, grid, self.has_bias)

    def shift(self, solution: Solution, moments: PairedMoments, in_place: bool) -> Array:
        """What the bias adds, [G, R]."""
        if not self.has_bias:
            return np.zeros(self.weight.shape[:2])
        return mean_shift(
            self.weight, solution.weight(), moments.exact.mean, moments.given.mean if in_place else moments.exact.mean
        )

    def error(self, moments: PairedMoments) -> OutputError:
        """The judge of solutions by these moments."""
        return OutputError(self.weight, moments, self.has_bias)


def _paired_layer(inputs: PairedInputs, family: GridFamily) -> _PairedLayer:
    layer, fit, held = inputs.layer, inputs.fit, inputs.held
    weight = np.asarray(as_matrix(layer, layer.values))
    if has_blocks(family, weight):
        order = taps_first(layer)
        weight, fit, held = weight[:, :, order], fit.reordered(order), held.reordered(order)
    return _PairedLayer(weight, has_bias(layer), fit, held)


def solve_paired(inputs: PairedInputs, family: GridFamily, solver: str, seed: int) -> Solved:
    """The same behind layers that are quantized already; the ridge of the targets and the bias are decided, too."""
    paired, name = _paired_layer(inputs, family), inputs.layer.node.name
    choice, every = _decide(name, paired, family, solver, seed), paired.fit.with_those(paired.held)
    grid = choice.on(fitted_grid(family, paired.weight, every.exact.gram))
    solution, problem = solution_of(choice.solver, paired.problem(every, grid, choice.ridge), seed)
    return Solved(solution, problem, paired.shift(solution, every, choice.in_place).reshape(-1), choice.record)


def _decide(node: str, paired: _PairedLayer, family: GridFamily, name: str, seed: int) -> Choice:
    fitted = fitted_grid(family, paired.weight, paired.fit.exact.gram)
    plain, judge = paired.problem(paired.fit, fitted, None), paired.error(paired.held)
    solver = SOLVERS[name].tuned(plain, paired.judge(fitted))
    tried: dict[tuple[Grid, float | None], Solution] = {}
    losses: dict[tuple[Grid, float | None, bool], float] = {}
    ridges: tuple[float | None, ...] = (None, *RIDGES)
    for grid in choices(fitted):
        for ridge in ridges:
            found = tried[grid, ridge] = solution_of(solver.hasty(), paired.problem(paired.fit, grid, ridge), seed)[0]
            errors = judge(found.weight(), *(paired.shift(found, paired.fit, in_place) for in_place in (False, True)))
            losses |= {(grid, ridge, in_place): error for in_place, error in zip((False, True), errors, strict=True)}
        ridges = (min(losses, key=lambda choice: losses[choice])[1],)
    grid, ridge, in_place = best = min(losses, key=lambda choice: losses[choice])
    sides = paired.error(paired.fit), judge
    (fit_before, held_before), (fit_after, _) = (
        [side(found.weight(), paired.shift(found, paired.fit, in_place))[0] for side in sides]
        for found in (solution_of(Nearest(), plain, seed)[0], tried[grid, ridge])
    )
    kept = losses[best] <= held_before
    taken = grid if kept else fitted
    record = Reconstruction(
        node, label(taken), name if kept else "nearest", fit_before, fit_after, held_before, losses[best], kept
    )
    return Choice(record, solver if kept else Nearest(), taken.block is not None, ridge if kept else None, in_place)
