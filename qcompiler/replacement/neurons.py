"""Which neurons of a hidden layer to keep, from second moments alone.

Two greedy orders, both nested: the first m of the order are the choice of m neurons.

- ``pivoting``: the neuron that those taken before it explain least, weighted by what the next layer makes of it:
  column-pivoted QR of the hidden activations, done on their Gram matrix as a pivoted Cholesky factorization.
- ``pursuit``: the neuron that takes most of the remaining error of the outputs (orthogonal matching pursuit with exact
  least squares at each step).

Features that stay anyway, such as those of an affine skip, are eliminated first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.linear_algebra import matmul, solve_positive

__all__ = ["ORDERS", "neuron_order"]

Array = NDArray[Any]

ORDERS = ("pursuit", "pivoting")
"""How neurons are ordered."""

_DEPENDENT = 1e-9
"""Share of a neuron's variance below which it counts as linearly dependent on those chosen."""


def neuron_order(
    gram: Array, cross: Array, neurons: int, kept: NDArray[np.int64], how: str, importance: Array, most: int
) -> NDArray[np.int64]:
    """The neurons by use, best first.

    Args:
        gram: covariance of all features [K, K]; the neurons are the first ones.
        cross: covariance of features and targets [K, O].
        neurons: how many there are.
        kept: indices of features that stay anyway.
        how: one of `ORDERS`.
        importance: weight of each neuron's variance, for ``pivoting`` [neurons].
        most: how many are wanted; fewer come where the rest says nothing new.
    """
    left, right = _eliminate(gram, cross, neurons, kept)
    original, variance, gains = np.diag(gram)[:neurons], np.diag(left).copy(), np.square(right).sum(axis=1)
    columns, targets = np.empty((neurons, min(most, neurons))), np.empty((min(most, neurons), right.shape[1]))
    order: list[int] = []
    alive = np.ones(neurons, np.bool_)
    for step in range(columns.shape[1]):
        alive &= variance > _DEPENDENT * original
        if not alive.any():
            break
        use = gains / np.where(alive, variance, 1.0) if how == "pursuit" else variance * importance
        best, done = int(np.argmax(np.where(alive, use, -1.0))), slice(step)
        root = np.sqrt(variance[best])
        # what this neuron says beyond those taken
        column = (left[:, best] - matmul(columns[:, done], columns[best, done])) / root
        target = (right[best] - matmul(columns[best, done], targets[done])) / root
        gains -= column * (
            2 * (matmul(right, target) - matmul(columns[:, done], matmul(targets[done], target)))
            - column * matmul(target, target)
        )
        variance -= np.square(column)
        columns[:, step], targets[step], alive[best] = column, target, False
        order.append(best)
    return np.array(order, np.int64)


def _eliminate(gram: Array, cross: Array, neurons: int, kept: NDArray[np.int64]) -> tuple[Array, Array]:
    """Covariances of the neurons given the kept features."""
    left, right = gram[:neurons, :neurons].copy(), cross[:neurons].copy()
    if not len(kept):
        return left, right
    inner = gram[np.ix_(kept, kept)]
    inner[np.diag_indices_from(inner)] += 1e-9 * max(float(np.diag(inner).max()), 1e-300)
    between = gram[np.ix_(np.arange(neurons), kept)]
    solved = solve_positive(inner, np.concatenate([between.T, cross[kept]], axis=1))
    left -= matmul(between, solved[:, :neurons])
    right -= matmul(between, solved[:, neurons:])
    return left, right
