"""Gradient-free minimization by simultaneous perturbation (SPSA, Spall 1992; as in ZeroQAT, arXiv 2509.00031).

Along a random direction ``z``, ``(L(t + c z) - L(t - c z)) / (2 c) * z`` is on average the gradient, at two evaluations
whatever the number of parameters. Steps shrink as ``1 / (k + 1 + A)^0.602`` and perturbations as ``1 / (k + 1)^0.101``.
The function must be free of noise; what is returned is the best point seen, the start included.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Spsa", "gradient_estimate"]

Vector = NDArray[np.float64]
Loss = Callable[[Vector], float]


def gradient_estimate(loss: Loss, at: Vector, radius: float, directions: int, rng: np.random.Generator) -> Vector:
    """A noisy gradient of the loss at a point: the mean over random directions, two evaluations each."""
    total = np.zeros_like(at)
    for _ in range(directions):
        z = rng.standard_normal(at.shape)
        total += (loss(at + radius * z) - loss(at - radius * z)) / (2 * radius) * z
    return total / directions


@dataclass(frozen=True)
class Spsa:
    """Descent along estimated gradients.

    Attributes:
        steps: how many; each takes ``2 * directions + 1`` evaluations.
        directions: averaged in one estimate.
        radius: of the perturbations of a parameter; it must exceed what changes nothing, such as half a step of a grid.
        reach: root mean square of the first step, in units of ``radius``. A step that makes things worse is taken back,
            and the next half as long.
    """

    steps: int = 30
    directions: int = 4
    radius: float = 0.01
    reach: float = 1.0

    def minimize(
        self, loss: Loss, start: Vector, seed: int = 0, on_step: Callable[[int, int], None] = lambda _done, _total: None
    ) -> tuple[Vector, float, float]:
        """The best point seen, its loss, and that of the start. ``on_step`` is called with (done, total)."""
        rng, delay = np.random.default_rng(seed), self.steps / 10
        best, first = start.copy(), loss(start)
        least, factor = first, 1.0
        for k in range(self.steps):
            on_step(k, self.steps)
            gradient = gradient_estimate(loss, best, self.radius / (k + 1) ** 0.101, self.directions, rng)
            size = float(np.sqrt(np.mean(np.square(gradient))))
            if size == 0:
                continue
            stride = factor * self.reach * self.radius * ((1 + delay) / (k + 1 + delay)) ** 0.602
            point = best - stride / size * gradient
            value = loss(point)
            if value < least:
                best, least = point, value
            else:
                factor /= 2
        return best, least, first
