"""Soft assignment: learn for every weight a distribution over the levels around it, and sharpen it.

A weight is relaxed to the mean of its levels, ``s Σ_k p_k L_k`` with ``p = softmax(θ / T)``. The loss plus the entropy
of ``p`` is minimized over ``θ`` by Adam while the temperature ``T`` falls; at the end each weight takes its most
probable level. Learning over the whole space of codes instead of two neighbours is the idea of NUPES (Yvinec et al.,
2023); a window of levels bounds the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.solvers.base import refit_scale, spread
from qcompiler.solvers.learning import Adam, LearningSolver, Objective, annealed, objective_of
from qcompiler.solvers.problem import LayerProblem, Solution

Array = NDArray[Any]


@dataclass(frozen=True)
class SoftAssignment(LearningSolver):
    """One of the levels around each weight, learned; the scales are those of the start, by default of `OptimalClip`.

    Attributes:
        reach: how many levels up and down from the start's.
        iterations: steps of Adam.
        rate: its learning rate.
        temperatures: the first and the last.
        entropy: weight of the entropy, which grows from 0 to this.
    """

    reach: int = 2
    iterations: int = 300
    rate: float = 0.1
    temperatures: tuple[float, float] = (1.0, 0.05)
    entropy: float = 2.0

    def _rows(self, problem: LayerProblem, metric: Array, start: Solution) -> Solution:
        objective = objective_of(problem, metric, start)
        levels = window(problem, start, self.reach)
        scale = spread(problem, start.scale)
        values = scale * levels.astype(np.float32)
        logits = -np.square((problem.weight - values) / scale) / np.square(
            np.diff(levels, axis=0).astype(np.float32).mean(axis=0)
        )
        adam = Adam(logits)
        for iteration in range(self.iterations):
            progress = iteration / self.iterations
            temperature = annealed(*self.temperatures, progress)
            _, gradient = soft_loss(objective, logits, values, temperature, self.entropy * progress)
            adam.step(logits, gradient, self.rate)
        chosen = np.take_along_axis(levels, logits.argmax(axis=0)[None], axis=0)[0]
        return refit_scale(problem, Solution(chosen, start.scale))[0]


def window(problem: LayerProblem, start: Solution, reach: int) -> NDArray[np.int16]:
    """Levels around those of ``start``, clipped to the grid: int16 [W, G, R, K], W at most ``2 reach + 1``."""
    grid = problem.grid.levels
    size = min(2 * reach + 1, len(grid))
    first = np.clip(np.searchsorted(grid, start.levels) - reach, 0, len(grid) - size)
    return np.stack([grid[first + offset] for offset in range(size)])


def soft_loss(
    objective: Objective, logits: Array, values: Array, temperature: float, entropy: float
) -> tuple[Array, Array]:
    """Loss with entropy [G, R] and its gradient by logits [W, G, R, K]; ``values``: what levels stand for."""
    shifted = (logits - logits.max(axis=0)) / temperature
    log_share = shifted - np.log(np.exp(shifted).sum(axis=0))
    share = np.exp(log_share)
    mean = (share * values).sum(axis=0)
    loss, by_value = objective(mean)
    surprise = -(share * log_share).sum(axis=0)
    gradient = share * (by_value * (values - mean) - entropy * (log_share + surprise)) / temperature
    return loss + entropy * surprise.sum(axis=2), gradient
