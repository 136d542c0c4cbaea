"""One weight as the product of two smaller ones, for the inputs it meets: low rank, and the two-core tensor-train form.

Low rank.  The best weight of rank r for ``E‖(W - Ŵ)(x - E x)‖²`` with covariance C of x is ``U Uᵀ W``, U the r leading
eigenvectors of ``W C Wᵀ``: the singular value decomposition of ``W C^{1/2}`` multiplied back by ``C^{-1/2}``, without
either root. What is lost is the sum of the other eigenvalues.

Two cores.  With outputs (o1, o2) and inputs (i1, i2), ``W[o1 o2, i1 i2] ≈ Σ_k A[o1, i1, k] B[k, o2, i2]``: a matrix
product operator of bond dimension k, a sum of k Kronecker products. It starts from the SVD of the permuted weight and
is then fitted to C by alternating least squares, each core in closed form. Plain low rank is the case o2 = i1 = 1.
Sources: Tomut et al., *CompactifAI* (2024); Van Loan and Pitsianis (1993); Oseledets (2011).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.eigenvalues import eigh, svd
from qcompiler.linear_algebra import matmul, solve_positive

__all__ = ["Cores", "Spectrum", "balanced_divisors", "fit_cores", "spectrum"]

Array = NDArray[Any]

_SWEEPS = 4
"""Times that both cores are fitted."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """All low-rank forms of a weight at once.

    Attributes:
        weight: float64 [R, K].
        basis: orthonormal columns [R, min(R, K)], by falling importance.
        energy: energy of the outputs along each, on the inputs it was made for.
    """

    weight: NDArray[np.float64]
    basis: NDArray[np.float64]
    energy: NDArray[np.float64]

    def lost(self, covariance: Array) -> NDArray[np.float64]:
        """Squared error at rank 0 … R, for inputs of any covariance, relative to the outputs' energy: [R + 1]."""
        along = np.sum(self.basis * matmul(matmul(matmul(self.weight, covariance), self.weight.T), self.basis), axis=0)
        left = np.concatenate([np.cumsum(np.maximum(along, 0.0)[::-1])[::-1], [0.0]])
        return np.asarray(left / max(left[0], 1e-300))

    def factors(self, rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(left [R, r], right [r, K]); between them every channel has the same energy, so that one scale suits all."""
        basis = self.basis[:, :rank]
        spread = np.sqrt(np.maximum(self.energy[:rank], 1e-12 * max(float(self.energy[0]), 1e-300)))
        return basis * spread, matmul(basis.T, self.weight) / spread[:, None]


def spectrum(weight: Array, covariance: Array) -> Spectrum:
    """The eigenvectors of ``W C Wᵀ``.

    Args:
        weight: [R, K].
        covariance: C [K, K] of the inputs; the identity for the plain SVD.
    """
    exact = np.asarray(weight, np.float64)
    if len(exact) > exact.shape[1]:
        spread, directions = eigh(covariance)
        basis, values, _ = svd(matmul(exact, directions * np.sqrt(np.maximum(spread, 0.0))))
        return Spectrum(exact, basis, np.square(values))
    energy, basis = eigh(matmul(matmul(exact, covariance), exact.T))
    return Spectrum(exact, basis[:, ::-1].copy(), np.maximum(energy[::-1], 0.0))


@dataclass(frozen=True, eq=False)
class Cores:
    """The two-core form.

    Attributes:
        first: A, float64 [o1, i1, k].
        second: B, float64 [k, o2, i2].
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]

    @property
    def parameters(self) -> int:
        """``k (o1 i1 + o2 i2)``."""
        return self.first.size + self.second.size

    @property
    def macs(self) -> int:
        """Of one row: the inputs meet B first."""
        (outer, rows, bond), (_, inner, columns) = self.first.shape, self.second.shape
        return int(bond * inner * rows * (columns + outer))

    def weight(self) -> NDArray[np.float64]:
        """[R, K]."""
        whole = np.einsum("aik,kbj->abij", self.first, self.second)
        return np.asarray(whole.reshape(whole.shape[0] * whole.shape[1], -1))


def balanced_divisors(size: int) -> tuple[int, int]:
    """(a, b) with ``a b = size`` and a the largest divisor up to the square root; (1, size) for a prime."""
    first = next(each for each in range(int(np.sqrt(size)), 0, -1) if size % each == 0)
    return first, size // first


def fit_cores(weight: Array, covariance: Array, outputs: tuple[int, int], inputs: tuple[int, int], bond: int) -> Cores:
    """The cores of a weight for inputs of a covariance.

    Args:
        weight: [R, K].
        covariance: C [K, K].
        outputs: (o1, o2) with ``o1 o2 = R``.
        inputs: (i1, i2) with ``i1 i2 = K``.
        bond: k; at most ``min(o1 i1, o2 i2)`` are of use.
    """
    blocks = np.asarray(weight, np.float64).reshape(*outputs, *inputs)
    bond = min(bond, outputs[0] * inputs[0], outputs[1] * inputs[1])
    left, values, right = svd(blocks.transpose(0, 2, 1, 3).reshape(outputs[0] * inputs[0], -1))
    root = np.sqrt(values[:bond])
    first = (left[:, :bond] * root).reshape(outputs[0], inputs[0], bond)
    second = (root[:, None] * right[:bond]).reshape(bond, outputs[1], inputs[1])
    metric = np.asarray(covariance, np.float64).reshape(*inputs, *inputs)
    wanted = matmul(np.asarray(weight, np.float64), covariance).reshape(*outputs, *inputs)
    for _ in range(_SWEEPS):
        first = _first_core(second, metric, wanted)
        second = _second_core(first, metric, wanted)
    return Cores(first, second)


def _first_core(second: Array, metric: Array, wanted: Array) -> Array:
    """A of least error for a given B."""
    bond, rows = len(second), metric.shape[0]
    pairs = np.einsum("kbj,lbm->kjlm", second, second)
    normal = _contracted(metric, (0, 2), (1, 3), pairs, (1, 3), (0, 2)).transpose(0, 2, 1, 3).reshape(rows * bond, -1)
    right = _contracted(wanted, (0, 2), (1, 3), second, (1, 2), (0,)).reshape(-1, rows * bond)
    return _solve(normal, right).reshape(-1, rows, bond)


def _second_core(first: Array, metric: Array, wanted: Array) -> Array:
    """B of least error for a given A."""
    bond, columns = first.shape[2], metric.shape[1]
    pairs = np.einsum("aik,anl->iknl", first, first)
    normal = _contracted(pairs, (1, 3), (0, 2), metric, (0, 2), (1, 3))
    normal = normal.transpose(0, 2, 1, 3).reshape(bond * columns, -1)
    right = _contracted(wanted, (1, 3), (0, 2), first, (0, 1), (2,)).transpose(0, 2, 1).reshape(-1, bond * columns)
    return _solve(normal, right).reshape(-1, bond, columns).transpose(1, 0, 2)


def _contracted(
    left: Array, kept: tuple[int, ...], summed: tuple[int, ...], right: Array, matched: tuple[int, ...],
    others: tuple[int, ...],
) -> Array:  # fmt: skip
    """The sum over the axes ``summed`` of ``left`` and ``matched`` of ``right``; the others stay, in this order."""
    rows = left.transpose(*kept, *summed).reshape(*(left.shape[axis] for axis in kept), -1)
    columns = right.transpose(*matched, *others).reshape(rows.shape[-1], -1)
    return matmul(rows.reshape(-1, rows.shape[-1]), columns).reshape(
        *rows.shape[:-1], *(right.shape[axis] for axis in others)
    )


def _solve(normal: Array, right: Array) -> Array:
    """X of ``X N = R`` for a positive semidefinite N."""
    damped = normal + np.eye(len(normal)) * (1e-9 * max(float(np.trace(normal)) / len(normal), 1e-300))
    return solve_positive(damped, right.T).T
