"""AffineQuant (Ma et al., 2024): blocks ``x' = A x`` of least grid error for a region, by gradient descent.

With ``B = A^-1``, weights W that read x and V that write it, the predicted noise of the readers' outputs is

    sum_i (d^2 / 12 + n d_i^2 / 12) |(W B)_i|^2   +   tr(E A H A^T E^T),      E = Q(W B) - W B

d: step of the activation's grid, from a high norm of A x over sampled rows; d_i: step of row i of A V, n the mean
square of a row of its inputs; H = E[x x^T]. The gradient is in closed form: steps follow the elements that set them,
and a rounding error grows with its step (straight through the rounding itself).

A stays strictly diagonally dominant, so it is invertible and its inverse is bounded by 1 over its smallest margin
(Levy-Desplanques). The gradual mask lets the band around the diagonal grow from epoch to epoch; what is not on the
diagonal is learned at a part ``stability`` of the rate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.equivalence.levels import Levels
from qcompiler.linear_algebra import inverse as inverse_of
from qcompiler.linear_algebra import matmul

__all__ = ["AffineProblem", "Fit", "dominance", "fit_matrix", "gradual_mask"]

Array = NDArray[Any]

NORM = 12
"""Exponent of the p-norm that approximates the range."""

MARGIN = 0.01
"""Diagonal dominance that each row keeps, as a share of its diagonal element."""


@dataclass(frozen=True, eq=False)
class AffineProblem:
    """What `fit_matrix` minimizes.

    Attributes:
        samples: for every grid, rows of x [n, C].
        gram: float64 [C, C], ``E[x x^T]``.
        readers: weights [O, C], each relative to the root of its output's energy.
        writers: weights [C, K] with the mean square of a row of their inputs.
        block: size of the blocks of A.
        levels: of the grids.
    """

    samples: Sequence[Array]
    gram: Array
    readers: Sequence[Array]
    writers: Sequence[tuple[Array, float]]
    block: int
    levels: Levels

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return int(self.gram.shape[0] // self.block)

    def times(self, matrices: Array, values: Array) -> Array:
        """A v for column vectors: [C, n]."""
        return np.asarray(matmul(matrices, values.reshape(self.blocks, self.block, -1)).reshape(values.shape))

    def loss(self, matrices: Array) -> float:
        """Predicted noise under A [blocks, block, block]."""
        return self.loss_and_gradient(matrices)[0]

    def loss_and_gradient(self, matrices: Array) -> tuple[float, Array]:
        """The loss, and its derivative by A."""
        inverse = inverse_of(matrices)
        gradient, power = np.zeros_like(matrices), np.zeros(self.gram.shape[0])
        weights = [self.times(inverse.transpose(0, 2, 1), reader.T).T for reader in self.readers]  # W B
        energy = sum((np.square(weight).sum(axis=0) for weight in weights), np.zeros(len(power)))
        for rows in self.samples:
            power += self._activation_step(matrices, rows, float(energy.sum()), gradient)
        for weight, inputs in self.writers:
            power += self._writer_steps(matrices, weight, inputs, energy, gradient)
        crossed = sum((self._cross(weight, power) for weight in weights), np.zeros_like(matrices))
        gradient -= 2 * matmul(crossed, inverse.transpose(0, 2, 1))  # (W B)^T (W B) D B^T
        total = float((power * energy).sum())
        for weight in weights:
            total += self._rounding(matrices, inverse, weight, gradient)
        return total, gradient

    def _cross(self, weight: Array, power: Array) -> Array:
        """Blocks of ``(W B)^T (W B) D``."""
        parts = weight.reshape(len(weight), self.blocks, self.block).transpose(1, 0, 2)
        return np.asarray(matmul(parts.transpose(0, 2, 1), parts * power.reshape(self.blocks, 1, self.block)))

    def _activation_step(self, matrices: Array, rows: Array, energy: float, gradient: Array) -> float:
        """``d^2 / 12``; adds its share of the gradient.

        The range is taken as twice the `NORM`-norm of all values, which is near the largest one but feels the others: a
        matrix that squeezes the rows it has seen into one limit leaves no room for others.
        """
        values = self.times(matrices, rows.T)
        largest = max(float(np.abs(values).max(initial=0.0)), 1e-30)
        powers = np.abs(values / largest) ** (NORM - 1)
        total = float((powers * np.abs(values / largest)).sum())
        step = 2 * largest * total ** (1 / NORM) / self.levels.activation
        slope = 2 / self.levels.activation * total ** (1 / NORM - 1) * powers * np.sign(values)
        parts = matmul(
            slope.reshape(self.blocks, self.block, -1), rows.reshape(-1, self.blocks, self.block).transpose(1, 0, 2)
        )
        gradient += energy * step / 6 * parts
        return float(step**2 / 12)

    def _writer_steps(self, matrices: Array, weight: Array, inputs: float, energy: Array, gradient: Array) -> Array:
        """``n d_i^2 / 12`` of each channel; adds its share of the gradient."""
        rows = self.times(matrices, weight)
        largest = np.abs(rows).argmax(axis=1)
        peaks = rows[np.arange(len(rows)), largest]
        steps = np.abs(peaks) / self.levels.weight
        columns = weight[:, largest].reshape(self.blocks, self.block, self.blocks, self.block)
        sources = columns[np.arange(self.blocks), :, np.arange(self.blocks)].transpose(0, 2, 1)  # [blocks, i, l]
        factor = inputs * energy * steps / 6 * np.sign(peaks) / self.levels.weight
        gradient += factor.reshape(self.blocks, self.block, 1) * sources
        return np.asarray(inputs * steps**2 / 12)

    def _rounding(self, matrices: Array, inverse: Array, weight: Array, gradient: Array) -> float:
        """``tr(E A H A^T E^T)``; adds its share of the gradient."""
        largest = np.abs(weight).argmax(axis=1)
        peaks = weight[np.arange(len(weight)), largest]
        steps = np.maximum(np.abs(peaks) / self.levels.weight, 1e-30)
        error = np.rint(weight / steps[:, None]) * steps[:, None] - weight
        back = self.times(matrices.transpose(0, 2, 1), error.T).T  # E A
        seen = matmul(back, self.gram)
        losses = (seen * back).sum(axis=1)
        parts_error = error.reshape(len(error), self.blocks, self.block).transpose(1, 2, 0)
        gradient += matmul(2 * parts_error, seen.reshape(len(seen), self.blocks, self.block).transpose(1, 0, 2))
        factor = 2 * losses / steps * np.sign(peaks) / self.levels.weight
        block, inside = np.divmod(largest, self.block)
        parts = weight.reshape(len(weight), self.blocks, self.block)[np.arange(len(weight)), block]
        for number in range(self.blocks):
            chosen = block == number
            gradient[number] -= matmul((factor[chosen, None] * parts[chosen]).T, inverse[number][:, inside[chosen]].T)
        return float(losses.sum())


def gradual_mask(size: int, epoch: int, epochs: int, stability: float) -> Array:
    """[size, size]: 1 on the diagonal, ``stability`` in the epoch's band (empty at first), 0 beyond it."""
    distance = np.abs(np.subtract.outer(np.arange(size), np.arange(size)))
    band = (size - 1) * epoch // max(epochs - 1, 1)
    return np.where(distance == 0, 1.0, np.where(distance <= band, stability, 0.0))


def dominance(matrices: Array) -> Array:
    """``(|a_ii| - sum_j |a_ij|) / |a_ii|`` of each row: float [blocks, block]; positive everywhere: A is invertible."""
    diagonal = np.abs(np.diagonal(matrices, axis1=1, axis2=2))
    return np.asarray((2 * diagonal - np.abs(matrices).sum(axis=2)) / np.maximum(diagonal, 1e-300))


def _made_dominant(matrices: Array) -> Array:
    """A with the elements beside the diagonal scaled down in rows that have less than `MARGIN`."""
    diagonal = np.diagonal(matrices, axis1=1, axis2=2)
    beside = np.abs(matrices).sum(axis=2) - np.abs(diagonal)
    factor = np.minimum(1.0, (1 - 2 * MARGIN) * np.abs(diagonal) / np.maximum(beside, 1e-300))
    eye = np.eye(matrices.shape[1])
    return np.asarray(matrices * (eye + (1 - eye) * factor[:, :, None]))


@dataclass(frozen=True, eq=False)
class Fit:
    """The best matrix.

    Attributes:
        matrices: float64 [blocks, block, block].
        before, after: predicted noise of the start and of the result.
        condition: largest condition number of a block.
        history: best loss at the end of each epoch.
    """

    matrices: Array
    before: float
    after: float
    condition: float
    history: tuple[float, ...]


def fit_matrix(
    problem: AffineProblem,
    start: Array,
    *,
    epochs: int = 8,
    steps: int = 20,
    rate: float = 5e-3,
    stability: float = 1.0,
    widest: float = 1.0,
) -> Fit:
    """Minimize the predicted noise by Adam from the diagonal ``start`` [C]; the best of all steps is kept.

    Args:
        problem: what to minimize.
        start: positive diagonal of A.
        epochs: number of bands.
        steps: of descent within each.
        rate: of Adam, relative to each row's diagonal element.
        stability: factor of the gradient beside the diagonal.
        widest: the last band, relative to the block; 0 stays diagonal.
    """
    scale = start.reshape(problem.blocks, problem.block, 1)
    relative = np.broadcast_to(np.eye(problem.block), (problem.blocks, problem.block, problem.block)).copy()
    best, before = relative.copy(), problem.loss(relative * scale)
    least, moments, count, history = before, (np.zeros_like(relative), np.zeros_like(relative)), 0, []
    for epoch in range(epochs):
        mask = gradual_mask(problem.block, round(epoch * widest), epochs, stability)
        for _ in range(steps):
            total, gradient = problem.loss_and_gradient(relative * scale)
            if total < least:
                best, least = relative.copy(), total
            count += 1
            gradient = gradient * scale * mask
            moments = (0.9 * moments[0] + 0.1 * gradient, 0.99 * moments[1] + 0.01 * gradient**2)
            move = moments[0] / (1 - 0.9**count) / (np.sqrt(moments[1] / (1 - 0.99**count)) + 1e-30)
            relative = _made_dominant(relative - rate * (1 - epoch / (2 * epochs)) * move * (mask > 0))
        history.append(least)
    condition = float(np.linalg.cond(best * scale).max())
    return Fit(best * scale, before, least, condition, tuple(history))
