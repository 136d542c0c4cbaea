"""Eigenvalues, singular values and orthonormal bases with the same bits on every x86 CPU with fused multiply-adds.

Made of loops of scalars, as Numba compiles them without its fast-math, and of `linear_algebra`'s products.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.linear_algebra import cholesky, compiled, inverse, matmul

__all__ = ["eigh", "orthonormal", "svd"]

Array = NDArray[Any]


def orthonormal(matrix: Array) -> NDArray[np.float64]:
    """Q of ``A = Q R`` with a positive diagonal of R, for A [N, K] whose columns are well apart.

    R is Cholesky's factor of ``Aᵀ A``; done twice, Q is orthonormal to rounding errors (Yamamoto et al., "Roundoff
    error analysis of the CholeskyQR2 algorithm", 2015).

    Raises:
        LinAlgError: the columns depend on each other, as far as rounding errors let one see.
    """
    basis = np.asarray(matrix, np.float64)
    for _ in range(2):
        basis = matmul(basis, inverse(cholesky(matmul(basis.T, basis))[None])[0].T)
    return basis


def svd(matrix: Array) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Left vectors [N, r], singular values [r] descending and right vectors [r, K] of a matrix [N, K], r = min(N, K).

    By way of the eigenvectors of the smaller Gram matrix: values below 1e-8 of the largest are lost in its rounding
    errors, and so are their vectors, which are zeros on the longer side.
    """
    wide = np.asarray(matrix, np.float64)
    if len(wide) > wide.shape[1]:
        left, values, right = svd(wide.T)
        return right.T, values, left.T
    energy, vectors = eigh(matmul(wide, wide.T))
    values, left = np.sqrt(np.maximum(energy[::-1], 0.0)), vectors[:, ::-1].copy()
    inverse_values = np.where(values > 1e-8 * values[:1], 1 / np.maximum(values, 1e-300), 0.0)
    return left, values, inverse_values[:, None] * matmul(left.T, wide)


def eigh(matrix: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues [K], ascending, and eigenvectors [K, K] in columns of a symmetric matrix, of which the lower triangle
    is read.

    Householder's reduction to three diagonals and implicit QL steps (EISPACK's ``tred2`` and ``tql2``). The sign of a
    vector is that of its largest element.

    Raises:
        LinAlgError: the QL steps do not converge.
    """
    vectors = np.array(matrix, np.float64, order="C")
    vectors = np.tril(vectors) + np.tril(vectors, -1).T
    exponent = int(np.frexp(np.abs(vectors).max(initial=0.0))[1])
    vectors = np.ldexp(vectors, -exponent)  # squares of its elements neither overflow nor vanish
    values, beside = np.zeros(len(vectors)), np.zeros(len(vectors))
    if not len(vectors):
        return values, vectors
    compiled(_three_diagonals)(vectors, values, beside)
    compiled(_reflections)(vectors, values)
    vectors = np.ascontiguousarray(vectors.T)  # a vector in a row: the steps turn neighbours
    if not compiled(_ql_steps)(vectors, values, beside):
        raise np.linalg.LinAlgError("the eigenvalues of a matrix do not converge")
    order = np.argsort(values, kind="stable")
    values, vectors = values[order], vectors[order]
    largest = vectors[np.arange(len(vectors)), np.abs(vectors).argmax(axis=1)]
    return np.ldexp(values, exponent), np.ascontiguousarray((vectors * np.where(largest < 0, -1.0, 1.0)[:, None]).T)


def _three_diagonals(vectors: Array, values: Array, beside: Array) -> None:
    """Reduce a symmetric matrix [K, K] to three diagonals by reflections, from the last row up.

    Args:
        vectors: the matrix, of which the lower triangle is read. Row i becomes the i-th reflection's vector u, column i
            that vector over half its squared length.
        values: half the squared length of each u; 0: no reflection.
        beside: element i becomes the one of T below the diagonal, in row i.
    """
    for row in range(len(vectors) - 1, 0, -1):
        norm = 0.0
        for k in range(row):
            norm += abs(vectors[row, k])
        if row == 1 or norm == 0.0:
            beside[row], values[row] = vectors[row, row - 1], 0.0
            continue
        length = 0.0
        for k in range(row):
            vectors[row, k] /= norm
            length += vectors[row, k] * vectors[row, k]
        last = vectors[row, row - 1]
        root = -np.sqrt(length) if last >= 0 else np.sqrt(length)
        beside[row] = norm * root
        length -= last * root
        vectors[row, row - 1] = last - root
        product = np.zeros(row)  # A u, from the lower triangle, row by row
        for j in range(row):
            u, total = vectors[row, j], vectors[j, j] * vectors[row, j]
            for k in range(j):
                product[k] += vectors[j, k] * u
                total += vectors[j, k] * vectors[row, k]
            product[j] += total
        across = 0.0
        for j in range(row):
            vectors[j, row] = vectors[row, j] / length
            product[j] /= length
            across += product[j] * vectors[row, j]
        for j in range(row):
            u = vectors[row, j]
            product[j] -= across / (length + length) * u
            for k in range(j + 1):
                vectors[j, k] -= u * product[k] + product[j] * vectors[row, k]
        values[row] = length


def _reflections(vectors: Array, values: Array) -> None:
    """Q [K, K] of ``Qᵀ A Q = T`` out of what `_three_diagonals` leaves, and the diagonal of T."""
    for row in range(len(vectors)):
        if values[row] != 0.0:
            total = np.zeros(row)
            for k in range(row):
                for j in range(row):
                    total[j] += vectors[row, k] * vectors[k, j]
            for k in range(row):
                for j in range(row):
                    vectors[k, j] -= total[j] * vectors[k, row]
        values[row] = vectors[row, row]
        vectors[row, row] = 1.0
        for k in range(row):
            vectors[row, k] = vectors[k, row] = 0.0


def _ql_steps(vectors: Array, values: Array, beside: Array) -> bool:
    """Diagonalize T by implicit QL steps; ``vectors`` [K, K], the transposed Q, is turned along.

    Returns:
        False where an eigenvalue takes more than 60 steps.
    """
    size = len(values)
    for k in range(1, size):
        beside[k - 1] = beside[k]
    beside[size - 1] = 0.0
    for low in range(size):
        for step in range(61):
            high = low
            while high < size - 1:
                scale = abs(values[high]) + abs(values[high + 1])
                if abs(beside[high]) <= 2.220446049250313e-16 * scale:
                    break
                high += 1
            if high == low:
                break
            if step == 60:
                return False
            g = (values[low + 1] - values[low]) / (2.0 * beside[low])
            r = np.sqrt(g * g + 1.0)
            g = values[high] - values[low] + beside[low] / (g + (r if g >= 0 else -r))
            sine, cosine, moved = 1.0, 1.0, 0.0
            k = high - 1
            while k >= low:
                f, b = sine * beside[k], cosine * beside[k]
                r = np.sqrt(f * f + g * g)
                beside[k + 1] = r
                if r == 0.0:
                    values[k + 1] -= moved
                    beside[high] = 0.0
                    break
                sine, cosine = f / r, g / r
                g = values[k + 1] - moved
                r = (values[k] - g) * sine + 2.0 * cosine * b
                moved = sine * r
                values[k + 1] = g + moved
                g = cosine * r - b
                for j in range(size):
                    one, other = vectors[k, j], vectors[k + 1, j]
                    vectors[k + 1, j] = sine * one + cosine * other
                    vectors[k, j] = cosine * one - sine * other
                k -= 1
            if k >= low:
                continue
            values[low] -= moved
            beside[low] = g
            beside[high] = 0.0
    return True
