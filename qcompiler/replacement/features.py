"""Random feature maps φ(P x + c), drawn from a seed; of the network they know the scale of the inputs only.

| kind | features | estimates, where the rows of P are Gaussian |
|---|---|---|
| `relu` | max(P x + c, 0) | the arc-cosine kernel of order 1 (ReLU-SNNK) |
| `cos` | cos(P x + c) with c uniform in [0,
2π) | the Gaussian kernel (random Fourier features; the x side of SNNK's URF for sine and cosine) |
| `product` | (P₁ x + c₁)(P₂ x + c₂),
rows of ±1 | the square of the inner product (random Maclaurin features of degree 2) |

Rows come in blocks that are orthogonal (Gaussian lengths, so that each row alone is Gaussian),
or as rows of a Hadamard matrix with random signs,
whose entries are ±1. Sources: Choromanski et al.,
*Scalable Neural Network Kernels* (ICLR 2024); Cho and Saul (2009); Rahimi and Recht (2007); Kar
and Karnick (2012); Yu et al., *Orthogonal random features* (2016).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.eigenvalues import orthonormal
from qcompiler.equivalence.hadamard import hadamard
from qcompiler.linear_algebra import matmul

__all__ = [
    "DIRECTIONS", "DRAWN", "FeatureMap", "InputScale", "draw_directions", "draw_map", "orthogonal_gaussian",
    "rademacher",
    "signed_hadamard",
]  # fmt: skip

Array = NDArray[Any]

DRAWN = ("relu", "cos", "product")
"""Kinds of drawn feature maps."""

DIRECTIONS = ("orthogonal", "hadamard")
"""How the rows of P are drawn."""


@dataclass(frozen=True, eq=False)
class InputScale:
    """Where inputs lie: their mean [d], and the root mean square of their distance from it in one coordinate."""

    mean: NDArray[np.float64]
    spread: float

    @staticmethod
    def of(rows: Array) -> InputScale:
        """That of some rows [N, d]."""
        mean = rows.mean(axis=0, dtype=np.float64)
        spread = float(np.sqrt(np.mean(np.square(rows - mean))))
        return InputScale(mean, spread if spread > 0 else 1.0)


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """A drawn feature map of ``m`` features.

    Attributes:
        kind: one of `DRAWN`.
        factors: (P float64 [m, d], c float64 [m]), two of them for ``product``, one else.
    """

    kind: str
    factors: tuple[tuple[NDArray[np.float64], NDArray[np.float64]], ...]

    @property
    def count(self) -> int:
        """How many features it has."""
        return len(self.factors[0][1])

    def first(self, count: int) -> FeatureMap:
        """The map of the first ``count`` features."""
        return FeatureMap(self.kind, tuple((weight[:count], bias[:count]) for weight, bias in self.factors))

    def __call__(self, rows: Array) -> NDArray[np.float64]:
        """Features float64 [N, m] of inputs [N, d]."""
        projected = [matmul(rows, weight.T) + bias for weight, bias in self.factors]
        if self.kind == "relu":
            return np.asarray(np.maximum(projected[0], 0.0))
        if self.kind == "cos":
            return np.asarray(np.cos(projected[0]))
        return np.asarray(projected[0] * projected[1])


def draw_map(
    kind: str,
    count: int,
    scale: InputScale,
    rng: np.random.Generator,
    *,
    directions: str = "orthogonal",
    width: float = 1.0,
) -> FeatureMap:
    """A feature map for inputs of a known scale.

    Args:
        kind: one of `DRAWN`.
        count: number of features.
        scale: of the inputs; projections are of deviation ``width`` about.
        rng: where the draws come from.
        directions: one of `DIRECTIONS`; a ``product`` always multiplies signs.
        width: deviation of a projection: the frequency of ``cos``.

    Raises:
        ValueError: an unknown kind.
    """
    size = len(scale.mean)
    if kind not in DRAWN:
        raise ValueError(f"feature map '{kind}' is unknown; known: {', '.join(DRAWN)}")
    drawn = (
        [rademacher(count, size, rng) for _ in range(2)]
        if kind == "product"
        else [draw_directions(directions, count, size, rng)]
    )
    factors = []
    for rows in drawn:
        weight = rows * (width / (scale.spread * np.sqrt(size)))
        offset = rng.uniform(0.0, 2 * np.pi, count) if kind == "cos" else np.zeros(count)
        factors.append((weight, offset - matmul(weight, scale.mean)))
    return FeatureMap(kind, tuple(factors))


def draw_directions(directions: str, count: int, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Rows [count, size] whose entries have mean 0 and variance 1."""
    if directions not in DIRECTIONS:
        raise ValueError(f"directions '{directions}' are unknown; known: {', '.join(DIRECTIONS)}")
    return orthogonal_gaussian(count, size, rng) if directions == "orthogonal" else signed_hadamard(count, size, rng)


def orthogonal_gaussian(count: int, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Rows [count, size], each standard Gaussian by itself, orthogonal to the others of its block of ``size`` rows."""
    blocks = []
    for _ in range(-(-count // size)):
        normal = rng.standard_normal((size, size))
        basis = orthonormal(normal)  # uniform over all rotations
        lengths = np.sqrt(np.square(rng.standard_normal((size, size))).sum(axis=1))
        blocks.append(basis * lengths[:, None])
    return np.asarray(np.concatenate(blocks)[:count] if blocks else np.zeros((0, size)), np.float64)


def rademacher(count: int, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Independent signs [count, size]."""
    return np.asarray(rng.integers(0, 2, (count, size)) * 2.0 - 1.0, np.float64)


def signed_hadamard(count: int, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Rows [count, size] of ±1: blocks of a Hadamard matrix with permuted rows and random column signs."""
    order = 1 << max(size - 1, 0).bit_length()
    matrix = hadamard(order)
    blocks = [matrix[rng.permutation(order)][:, :size] * rademacher(1, size, rng) for _ in range(-(-count // order))]
    return np.concatenate(blocks)[:count] if blocks else np.zeros((0, size))
