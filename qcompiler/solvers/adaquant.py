"""AdaQuant: learn continuous weights and scales whose rounding is good.

The weights ``u``, at first the exact ones, and the scales ``s`` move by Adam down the loss at ``s level(u / s)``; the
rounding counts as the identity in the gradient (straight through), so that over many steps a weight may reach any level
(Hubara et al., "Improving Post Training Neural Quantization: Layer-wise Calibration and Integer Programming", 2020). By
the scale the gradient is that of LSQ (Esser et al., 2020): ``level - u / s`` inside the grid, the outermost level
outside. Each row keeps the best it has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.solvers.base import Best, refit_scale, spread
from qcompiler.solvers.learning import Adam, LearningSolver, annealed, objective_of
from qcompiler.solvers.problem import LayerProblem, Solution

Array = NDArray[Any]


@dataclass(frozen=True)
class AdaQuant(LearningSolver):
    """Any level for each weight, and the scales, learned; by default from the scales of `OptimalClip`.

    Attributes:
        iterations: steps of Adam.
        rates: its first and last learning rate for the weights, in steps of the grid.
        scale_rate: that for the scales, relative to each.
    """

    iterations: int = 400
    rates: tuple[float, float] = (0.03, 0.003)
    scale_rate: float = 0.01

    def _rows(self, problem: LayerProblem, metric: Array, start: Solution) -> Solution:
        objective = objective_of(problem, metric, start)
        step = mean_gap(problem) * spread(problem, start.scale)
        weight, log_scale = np.array(problem.weight, np.float32), np.log(start.scale)
        by_weight, by_scale = Adam(weight), Adam(log_scale)
        best = Best(start, np.full(problem.weight.shape[:2], np.inf))
        for iteration in range(self.iterations):
            scale = np.exp(log_scale)
            levels = problem.grid.nearest(weight / spread(problem, scale))
            losses, gradient = objective(spread(problem, scale) * levels.astype(np.float32))
            best.show(Solution(levels, scale), losses)
            rate = annealed(*self.rates, iteration / self.iterations)
            along = scale_gradient(problem, gradient, weight, levels, scale)
            by_weight.step(weight, np.where(_inside(problem, weight, scale), gradient, 0), rate * step)
            by_scale.step(log_scale, along * scale, self.scale_rate)
        return refit_scale(problem, best.solution)[0]


def scale_gradient(
    problem: LayerProblem, gradient: Array, weight: Array, levels: NDArray[np.int16], scale: Array
) -> Array:
    """The gradient by the scales [G, R, B], rounding taken as the identity.

    Args:
        problem: for the grid.
        gradient: [G, R, K], by the rounded weights.
        weight: [G, R, K], what is rounded.
        levels: int16 [G, R, K], what it is rounded to.
        scale: [G, R, B].
    """
    distance = np.where(_inside(problem, weight, scale), levels - weight / spread(problem, scale), levels)
    width = problem.grid.block or weight.shape[2]
    return np.asarray(np.add.reduceat(gradient * distance, np.arange(0, weight.shape[2], width), axis=2))


def mean_gap(problem: LayerProblem) -> float:
    """Mean distance of neighbouring levels."""
    levels = problem.grid.levels
    return float(levels[-1] - levels[0]) / (len(levels) - 1)


def _inside(problem: LayerProblem, weight: Array, scale: Array) -> NDArray[np.bool_]:
    """Where a weight lies between the outermost levels."""
    values = weight / spread(problem, scale)
    return np.asarray((values >= problem.grid.levels[0]) & (values <= problem.grid.levels[-1]))
