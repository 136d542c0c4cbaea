"""Least squares in closed form: normal equations that grow row by row, and ridge regression on them.

    minimize  Σ ‖y - W z - b‖² + λ n Σ v_j ‖W_j - W⁰_j‖²       (v_j: variance of feature j; the bias b is not penalized)

W⁰ is what is thought of W before any row is seen: the network's own weights where there are such, else 0. A large λ
keeps it.

The sums are float64 and of fixed size however many rows come; any subset of the features can be fitted from them
afterwards, and the error of any (W, b) on rows that were accounted for elsewhere is a matter of algebra, too. λ is
chosen on such rows held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.eigenvalues import eigh
from qcompiler.linear_algebra import matmul, solve_positive

__all__ = ["PENALTIES", "Fit", "NormalEquations", "best_ridge", "ridge"]

Array = NDArray[Any]

PENALTIES = (1e-9, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Values of λ that are tried, relative to each feature's variance."""

_SMALLEST = 1e-12
"""Share of the largest variance below which a feature counts as constant."""


class NormalEquations:
    """Second moments of features ``z`` [K], a constant 1, and targets ``y`` [O].

    Args:
        features: K.
        targets: O.

    Attributes:
        gram: float64 [K + 1, K + 1], the sum of ``z⁺ z⁺ᵀ`` with ``z⁺ = (z - origin, 1)``.
        cross: float64 [K + 1, O], the sum of ``z⁺ yᵀ``, y about its own origin.
        energy: float64 [O], the sum of ``y²``.
        rows: how many.
    """

    def __init__(self, features: int, targets: int) -> None:
        self.gram = np.zeros((features + 1, features + 1))
        self.cross = np.zeros((features + 1, targets))
        self.energy = np.zeros(targets)
        self.rows = 0
        self.origin: tuple[Array, Array] | None = None

    def add(self, features: Array, targets: Array) -> None:
        """Account for rows [N, K] and [N, O]."""
        if not len(features):
            return
        if self.origin is None:  # far from zero, small deviations would drown in the squares of the mean
            self.origin = features.mean(axis=0, dtype=np.float64), targets.mean(axis=0, dtype=np.float64)
        wide = np.empty((len(features), features.shape[1] + 1))
        np.subtract(features, self.origin[0], out=wide[:, :-1])
        wide[:, -1] = 1.0
        wanted = np.subtract(targets, self.origin[1], dtype=np.float64)
        self.gram += matmul(wide.T, wide)
        self.cross += matmul(wide.T, wanted)
        self.energy += np.square(wanted).sum(axis=0)
        self.rows += len(features)

    def covariance(self) -> tuple[Array, Array]:
        """Covariances of the features among themselves [K, K] and with the targets [K, O]."""
        count = max(self.rows, 1)
        mean = self.gram[-1, :-1] / count
        return (
            self.gram[:-1, :-1] / count - np.outer(mean, mean),
            self.cross[:-1] / count - np.outer(mean, self.cross[-1] / count),
        )

    def variance(self) -> float:
        """Energy of the targets about their mean, summed over outputs: what a constant leaves."""
        count = max(self.rows, 1)
        return float((self.energy / count - np.square(self.cross[-1] / count)).sum())

    def error(self, fit: Fit) -> float:
        """Mean squared error of a fit on these rows, relative to `variance`."""
        chosen = np.append(fit.chosen, len(self.gram) - 1)
        weight = np.concatenate([fit.weight, self._shifted_bias(fit)[:, None]], axis=1)
        product = matmul(weight, self.gram[np.ix_(chosen, chosen)])
        total = self.energy.sum() - 2 * np.sum(weight * self.cross[chosen].T) + np.sum(product * weight)
        return max(float(total) / max(self.rows, 1), 0.0) / max(self.variance(), 1e-30)

    def _shifted_bias(self, fit: Fit) -> Array:
        if self.origin is None:
            return fit.bias
        return np.asarray(fit.bias + matmul(fit.weight, self.origin[0][fit.chosen]) - self.origin[1])


@dataclass(frozen=True, eq=False)
class Fit:
    """``y = W z + b`` over some of the features.

    Attributes:
        chosen: indices of the features [k].
        weight: float64 [O, k].
        bias: float64 [O].
        penalty: the λ it was found with.
        held: error on the rows held out, relative to their variance.
    """

    chosen: NDArray[np.int64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    penalty: float
    held: float = float("nan")


class _System:
    """The normal equations of some features in units of their deviations: only the diagonal depends on λ."""

    def __init__(self, equations: NormalEquations, chosen: NDArray[np.int64], prior: Array | None) -> None:
        gram, cross = equations.covariance()
        gram, cross = gram[np.ix_(chosen, chosen)], cross[chosen]
        self._chosen, self._prior = chosen, np.zeros((cross.shape[1], len(chosen))) if prior is None else prior
        if prior is not None:
            cross = cross - matmul(gram, prior.T)
        variance = np.diag(gram)
        varies = variance > _SMALLEST * max(float(variance.max(initial=0.0)), 1e-300)
        self._unit = np.where(varies, 1 / np.sqrt(np.maximum(variance, 1e-300)), 0.0)
        self._scaled, self._right = gram * self._unit[:, None] * self._unit, cross * self._unit[:, None]
        count, origin = (
            max(equations.rows, 1),
            equations.origin or (np.zeros(len(equations.gram) - 1), np.zeros(len(equations.energy))),
        )
        self._means = (
            equations.gram[-1, :-1][chosen] / count + origin[0][chosen],
            equations.cross[-1] / count + origin[1],
        )

    def fit(self, penalty: float) -> Fit:
        """The minimum for one λ."""
        damped = self._scaled.copy()
        damped[np.diag_indices_from(damped)] += penalty + (self._unit == 0)
        weight = (_solve(damped, self._right) * self._unit[:, None]).T + self._prior
        inputs, outputs = self._means
        return Fit(self._chosen, weight, outputs - matmul(weight, inputs), penalty)


def ridge(equations: NormalEquations, chosen: NDArray[np.int64], penalty: float, prior: Array | None = None) -> Fit:
    """The minimum for one λ; features that do not vary keep their weight in ``prior`` [O, k], 0 without one."""
    return _System(equations, chosen, prior).fit(penalty)


def _solve(matrix: Array, right: Array) -> Array:
    """Solution for a symmetric positive definite matrix; by eigenvalues where rounding made it indefinite."""
    try:
        return solve_positive(matrix, right)
    except np.linalg.LinAlgError:
        values, vectors = eigh(matrix)
        inverse = np.where(values > 1e-13 * values[-1], 1 / np.maximum(values, 1e-300), 0.0)
        return np.asarray(matmul(vectors, inverse[:, None] * matmul(vectors.T, right)))


def best_ridge(
    fit: NormalEquations,
    held: NormalEquations,
    chosen: NDArray[np.int64],
    prior: Array | None = None,
    penalties: Sequence[float] = PENALTIES,
) -> Fit:
    """The fit of least error on ``held`` among several λ."""
    system = _System(fit, chosen, prior)
    found = [system.fit(penalty) for penalty in penalties]
    return min((replace(each, held=held.error(each)) for each in found), key=lambda each: each.held)
