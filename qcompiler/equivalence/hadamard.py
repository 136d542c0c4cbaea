"""Hadamard matrices (orthogonal rows of signs; ``H / sqrt(n)`` rotates) of sizes 2^k, 12·2^k and 20·2^k (Paley)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["hadamard", "hadamard_order"]

Array = NDArray[Any]


def _paley(prime: int) -> Array:
    """Paley's Hadamard matrix of size ``prime + 1``, for a prime that leaves 3 divided by 4."""
    squares = {i * i % prime for i in range(1, prime)}
    signs = np.array([0, *(1 if i in squares else -1 for i in range(1, prime))])
    matrix = np.ones((prime + 1, prime + 1))
    matrix[1:, 0] = -1
    matrix[1:, 1:] = signs[np.subtract.outer(np.arange(prime), np.arange(prime)).T % prime] + np.eye(prime)
    return matrix


def hadamard(size: int) -> Array:
    """A Hadamard matrix, elements 1 and -1: float64 [size, size], for a size that `hadamard_order` gives."""
    start = {3: 12, 5: 20}.get(size // (size & -size), 1)
    matrix = np.ones((1, 1)) if start == 1 else _paley(start - 1)
    while len(matrix) < size:
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    return matrix


def hadamard_order(channels: int, most: int) -> int:
    """The largest size of a Hadamard matrix that divides ``channels`` and is at most ``most``."""
    powers = [1 << k for k in range(most.bit_length())]
    sizes: list[int] = [*powers, *(12 * size for size in powers), *(20 * size for size in powers)]
    return max(size for size in sizes if size <= most and channels % size == 0)
