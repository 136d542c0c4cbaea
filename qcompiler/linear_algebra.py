"""Matrix products and linear systems with the same bits on every x86 CPU with FMA and any number of cores.

The BLAS and LAPACK behind numpy take another order of summation on each kind of CPU, and the last bits of a sum decide
about codes: the same command would give another file elsewhere. onnxruntime's matrix product adds each result in one
chain of fused multiply-adds over K (`steady_kernels`), at about the speed of BLAS; numpy's elementwise operators round
each result by itself, and so does Numba without its fast-math. Everything here is made of these.

No module that decides anything takes ``@``, `numpy.matmul`, `numpy.dot` or `numpy.linalg` of floats instead.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cholesky", "compiled", "gram", "inverse", "matmul", "solve_positive"]

Array = NDArray[Any]

_BLOCK = 64
"""Columns that are factorized at once."""

_SPLIT = 192
"""Columns from which only one half of a (symmetric) Gram matrix is computed."""


def matmul(left: Array, right: Array) -> Array:
    """``left @ right`` as `numpy.matmul` defines it, in float32 when both are, in float64 otherwise."""
    kind = np.float32 if left.dtype == right.dtype == np.float32 else np.float64
    rows, columns = (left[None, :] if left.ndim == 1 else left), (right[:, None] if right.ndim == 1 else right)
    product = _multiply(np.ascontiguousarray(rows, kind), np.ascontiguousarray(columns, kind))
    product = product[..., 0, :] if left.ndim == 1 else product
    return product[..., 0] if right.ndim == 1 else product


def _multiply(left: Array, right: Array) -> Array:
    if left.shape[-1] == 0 or left.size == 0 or right.size == 0:
        shape = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        return np.zeros((*shape, left.shape[-2], right.shape[-1]), left.dtype)
    return np.asarray(_product(left.dtype.name).run(None, {"a": left, "b": right})[0])


@cache
def _product(name: str) -> Any:
    """An onnxruntime session of one MatMul, on one thread: more would divide K by what they are."""
    import onnxruntime as ort
    from onnx import helper

    element = helper.np_dtype_to_tensor_dtype(np.dtype(name))
    a, b, c = (helper.make_tensor_value_info(letter, element, None) for letter in "abc")
    graph = helper.make_graph([helper.make_node("MatMul", ["a", "b"], ["c"])], "product", [a, b], [c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def gram(vectors: Array) -> Array:
    """``xᵀ x`` of vectors [G, P, K]: [G, K, K], symmetric to the last bit."""
    groups, _, products = vectors.shape
    if products < _SPLIT:
        return matmul(vectors.transpose(0, 2, 1), vectors)
    half = products // 2
    left, right = vectors[:, :, :half], vectors[:, :, half:]
    result = np.empty((groups, products, products), np.float32 if vectors.dtype == np.float32 else np.float64)
    result[:, :half, :half], result[:, half:, half:] = gram(left), gram(right)
    result[:, :half, half:] = matmul(left.transpose(0, 2, 1), right)
    result[:, half:, :half] = result[:, :half, half:].transpose(0, 2, 1)
    return result


def cholesky(matrices: Array) -> NDArray[np.float64]:
    """Lower factors of symmetric positive definite matrices [G, K, K] or [K, K], of which the lower triangles are read.

    Raises:
        LinAlgError: one of them is not positive definite, as far as rounding errors let one see.
    """
    return _factorize(_stacked(matrices))[0].reshape(matrices.shape)


def _stacked(matrices: Array) -> NDArray[np.float64]:
    """float64 [G, …, …]."""
    return np.asarray(matrices if matrices.ndim == 3 else matrices[None], np.float64)


def _factorize(matrices: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Lower factors [G, K, K], and the inverses of the blocks on their diagonals."""
    lower, inverses = np.zeros_like(matrices), []
    size = matrices.shape[1]
    for first in range(0, size, _BLOCK):
        block, rest = slice(first, min(first + _BLOCK, size)), slice(min(first + _BLOCK, size), size)
        before = lower[:, block, :first].transpose(0, 2, 1)
        lower[:, block, block], inner = _small_factors(
            matrices[:, block, block] - matmul(lower[:, block, :first], before)
        )
        below = matrices[:, rest, block] - matmul(lower[:, rest, :first], before)
        lower[:, rest, block] = matmul(below, inner.transpose(0, 2, 1))
        inverses.append(inner)
    return lower, inverses


def _small_factors(matrices: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower factors [G, B, B] and their inverses."""
    factorize = compiled(_factorize_block)
    factors, inverses = np.ascontiguousarray(matrices), np.zeros(matrices.shape)
    for factor, inner in zip(factors, inverses, strict=True):
        if not factorize(factor, inner):
            raise np.linalg.LinAlgError("a matrix is not positive definite")
    return factors, inverses


@cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function`` as machine code; kept on disk where Numba finds a folder that it may write to."""
    import numba

    try:
        return numba.njit(nogil=True, cache=True)(function)  # type: ignore[no-any-return]
    except RuntimeError:  # "no locator available"
        return numba.njit(nogil=True)(function)  # type: ignore[no-any-return]


def _factorize_block(block: NDArray[np.float64], inverse: NDArray[np.float64]) -> bool:
    """Cholesky's factor of a small matrix, and the inverse of that factor.

    Args:
        block: [B, B], symmetric; its lower triangle becomes the factor, the upper one zeros.
        inverse: [B, B], zeros; its lower triangle is written.

    Returns:
        False where the matrix is not positive definite.
    """
    size = len(block)
    for column in range(size):
        pivot = block[column, column]
        if not pivot > 0:
            return False
        block[column:, column] /= np.sqrt(pivot)
        block[column, column + 1 :] = 0.0
        for row in range(column + 1, size):
            factor = block[row, column]
            for other in range(column + 1, row + 1):
                block[row, other] -= factor * block[other, column]
    for row in range(size):
        for before in range(row):
            factor = block[row, before]
            for column in range(before + 1):
                inverse[row, column] -= factor * inverse[before, column]
        inverse[row, :row] /= block[row, row]
        inverse[row, row] = 1 / block[row, row]
    return True


def solve_positive(matrices: Array, right: Array) -> NDArray[np.float64]:
    """``X`` of ``A X = B`` for symmetric positive definite ``A`` [G, K, K] or [K, K] and ``B`` [G, K, N] or [K, N].

    Raises:
        LinAlgError: a matrix is not positive definite.
    """
    wide = _stacked(matrices)
    lower, inverses = _factorize(wide)
    result = _stacked(right).copy()
    blocks = [slice(first, min(first + _BLOCK, wide.shape[1])) for first in range(0, wide.shape[1], _BLOCK)]
    for block, inner in zip(blocks, inverses, strict=True):
        result[:, block] = matmul(
            inner, result[:, block] - matmul(lower[:, block, : block.start], result[:, : block.start])
        )
    for block, inner in zip(reversed(blocks), reversed(inverses), strict=True):
        behind = matmul(lower[:, block.stop :, block].transpose(0, 2, 1), result[:, block.stop :])
        result[:, block] = matmul(inner.transpose(0, 2, 1), result[:, block] - behind)
    return result.reshape(right.shape)


def inverse(matrices: Array) -> NDArray[np.float64]:
    """Inverses of matrices [G, B, B] by Gauss and Jordan with the largest pivot of each column; B is small.

    Raises:
        LinAlgError: one of them has no inverse.
    """
    groups, size, _ = matrices.shape
    work = np.concatenate([np.asarray(matrices, np.float64), np.broadcast_to(np.eye(size), matrices.shape)], axis=2)
    every = np.arange(groups)
    for column in range(size):
        best = column + np.abs(work[:, column:, column]).argmax(axis=1)
        rows = work[every, best]
        work[every, best] = work[:, column]
        pivot = rows[:, column]
        if not (np.abs(pivot) > 0).all():
            raise np.linalg.LinAlgError("a matrix has no inverse")
        rows = rows / pivot[:, None]
        work -= work[:, :, column, None] * rows[:, None, :]
        work[:, column] = rows
    return work[:, :, size:].copy()
