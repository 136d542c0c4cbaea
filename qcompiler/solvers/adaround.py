"""AdaRound: learn for every weight whether it goes to the level below or above.

A weight is relaxed to ``s (below + h (above - below))`` with ``h = clip(1.2 sigmoid(v) - 0.1, 0, 1)``. The loss, plus a
penalty ``Σ 1 - |2h - 1|^b`` that drives every ``h`` to 0 or 1 while ``b`` falls, is minimized over ``v`` by Adam (Nagel
et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020). The layer is linear, so the gradient is
known in closed form and no samples are needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy  # loads its parts at their first use
from numpy.typing import NDArray

from qcompiler.solvers.base import refit_scale, spread
from qcompiler.solvers.learning import Adam, LearningSolver, Objective, objective_of
from qcompiler.solvers.problem import LayerProblem, Solution

Array = NDArray[Any]

STRETCH, OFFSET = 1.2, 0.1
"""Stretched sigmoid of AdaRound: ``h`` reaches 0 and 1 at finite ``v``."""


@dataclass(frozen=True)
class Relaxation:
    """Weights between the levels below and above.

    Attributes:
        below: float [G, R, K], the value of the lower level.
        gap: float [G, R, K], from there to the upper one.
    """

    below: Array
    gap: Array

    def __call__(self, objective: Objective, logits: Array, power: float, penalty: float) -> tuple[Array, Array]:
        """Loss with penalty of each row [G, R], and its gradient by the logits [G, R, K]."""
        share, slope = gate(logits)
        loss, by_value = objective(self.below + share * self.gap)
        cost, by_share = indecision(share, power)
        return loss + penalty * cost.sum(axis=2), (by_value * self.gap + penalty * by_share) * slope


@dataclass(frozen=True)
class AdaRound(LearningSolver):
    """The level below or above each weight, learned; the scales are those of the start, by default of `OptimalClip`.

    Attributes:
        iterations: steps of Adam.
        rate: its learning rate.
        penalty: weight of the penalty.
        warm_up: part of the iterations without penalty.
        powers: first and last ``b``.
    """

    iterations: int = 400
    rate: float = 0.1
    penalty: float = 5.0
    warm_up: float = 0.2
    powers: tuple[float, float] = (20.0, 2.0)

    def _rows(self, problem: LayerProblem, metric: Array, start: Solution) -> Solution:
        objective = objective_of(problem, metric, start)
        lower, logits, relaxation = relax(problem, start)
        adam = Adam(logits)
        for iteration in range(self.iterations):
            progress = (iteration / self.iterations - self.warm_up) / (1 - self.warm_up)
            power = self.powers[0] + max(progress, 0) * (self.powers[1] - self.powers[0])
            _, gradient = relaxation(objective, logits, power, self.penalty if progress > 0 else 0.0)
            adam.step(logits, gradient, self.rate)
        levels = problem.grid.levels[lower + (gate(logits)[0] >= 0.5)]
        return refit_scale(problem, Solution(levels, start.scale))[0]


def relax(problem: LayerProblem, start: Solution) -> tuple[NDArray[np.intp], Array, Relaxation]:
    """Index of the level below each weight, logits that reproduce the weights within the grid, and the relaxation."""
    grid = problem.grid.levels
    scale = spread(problem, start.scale)
    values = problem.weight / scale
    lower = np.clip(np.searchsorted(grid, values, side="right") - 1, 0, len(grid) - 2)
    below, above = grid[lower].astype(np.float32), grid[lower + 1].astype(np.float32)
    share = np.clip((values - below) / (above - below), 0, 1).astype(np.float32)
    sigmoid = (share + OFFSET) / STRETCH
    return lower, np.log(sigmoid / (1 - sigmoid)), Relaxation(scale * below, scale * (above - below))


def gate(logits: Array) -> tuple[Array, Array]:
    """``h`` of the logits and its derivative."""
    sigmoid = scipy.special.expit(logits)
    stretched = STRETCH * sigmoid - OFFSET
    inside = (stretched > 0) & (stretched < 1)
    return np.clip(stretched, 0, 1), np.where(inside, STRETCH * sigmoid * (1 - sigmoid), 0)


def indecision(share: Array, power: float) -> tuple[Array, Array]:
    """``1 - |2h - 1|^b`` and its derivative by ``h``."""
    away = 2 * share - 1
    size = np.abs(away)
    return 1 - size**power, -2 * power * size ** (power - 1) * np.sign(away)
