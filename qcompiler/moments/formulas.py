"""Mean and variance of functions of normal variables, element by element over channels.

Behind a BatchNormalization a channel is taken as normal. Piecewise polynomials of it (Relu, Clip, HardSwish, ...) have
moments in closed form from those of a truncated normal,

    I_k(a, b) = E[z^k; a < z < b],    I_0 = Phi(b) - Phi(a),    I_1 = phi(a) - phi(b),
    I_k = (k - 1) I_{k-2} + a^{k-1} phi(a) - b^{k-1} phi(b)        (z standard normal, by parts)

and smooth functions (Sigmoid, SiLU, GELU, ...) are integrated by the trapezoidal rule, which converges faster than any
power of the step for smooth functions times a normal density (Trefethen and Weideman, 2014).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # loads its parts at their first use
from numpy.polynomial import polynomial
from numpy.typing import NDArray

__all__ = [
    "Moments",
    "Piece",
    "clip_pieces",
    "hard_sigmoid_pieces",
    "hard_swish_pieces",
    "independent_product",
    "independent_sum",
    "layer_norm",
    "leaky_pieces",
    "mixture",
    "piecewise",
    "scaled",
    "smooth",
    "softmax_mean",
    "table_rows",
]

Vector = NDArray[np.float64]
Piece = tuple[float, float, tuple[float, ...]]
"""An interval and the coefficients of a polynomial there, constant first."""

REACH, NODES = 8.0, 1025
"""Deviations on each side over which smooth functions are integrated, and places there."""

INFINITY = np.inf


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of each channel: float64 [C] both, or of one number."""

    mean: Vector
    variance: Vector

    @property
    def deviation(self) -> Vector:
        """Square root of the variance."""
        return np.sqrt(np.maximum(self.variance, 0.0))


def clip_pieces(low: float, high: float) -> list[Piece]:
    """``min(max(x, low), high)``; either bound may be infinite."""
    outer: list[Piece] = [(low, high, (0.0, 1.0))]
    below: list[Piece] = [(-INFINITY, low, (low,))] if np.isfinite(low) else []
    above: list[Piece] = [(high, INFINITY, (high,))] if np.isfinite(high) else []
    return [*below, *outer, *above]


def leaky_pieces(slope: float) -> list[Piece]:
    """``x`` above 0, ``slope x`` below."""
    return [(-INFINITY, 0.0, (0.0, slope)), (0.0, INFINITY, (0.0, 1.0))]


def hard_sigmoid_pieces(alpha: float, beta: float) -> list[Piece]:
    """``min(max(alpha x + beta, 0), 1)`` for alpha > 0."""
    low, high = -beta / alpha, (1 - beta) / alpha
    return [(low, high, (beta, alpha)), (high, INFINITY, (1.0,))]


def hard_swish_pieces() -> list[Piece]:
    """``x min(max(x / 6 + 1 / 2, 0), 1)``."""
    return [(-3.0, 3.0, (0.0, 0.5, 1 / 6)), (3.0, INFINITY, (0.0, 1.0))]


def piecewise(x: Moments, pieces: Sequence[Piece]) -> Moments:
    """Moments of a piecewise polynomial of normal ``x``; 0 where no piece is."""
    spread = np.maximum(x.deviation, 1e-12)
    first: Vector = np.zeros(np.shape(x.mean))
    second: Vector = np.zeros(np.shape(x.mean))
    for low, high, coefficients in pieces:
        square = tuple(float(each) for each in polynomial.polymul(coefficients, coefficients))
        integrals = _truncated((low - x.mean) / spread, (high - x.mean) / spread, len(square))
        first = first + _expected(coefficients, x.mean, spread, integrals)
        second = second + _expected(square, x.mean, spread, integrals)
    return Moments(first, np.maximum(second - first**2, 0.0))


def _expected(coefficients: Sequence[float], mean: Vector, spread: Vector, integrals: Sequence[Vector]) -> Vector:
    """``E[p(mean + spread z); a < z < b]`` from the integrals of the powers of z."""
    total: Vector = np.zeros(np.shape(mean))
    for power, coefficient in enumerate(coefficients):
        for inner in range(power + 1):
            binomial = scipy.special.comb(power, inner)
            total = total + coefficient * binomial * mean ** (power - inner) * spread**inner * integrals[inner]
    return total


def _truncated(a: Vector, b: Vector, count: int) -> list[Vector]:
    """``I_0`` to ``I_{count - 1}`` between a and b, which may be infinite."""
    at_a, at_b = _density(a), _density(b)
    found: list[Vector] = [np.asarray(scipy.special.ndtr(b) - scipy.special.ndtr(a)), np.asarray(at_a - at_b)]
    for power in range(2, count):
        ends = _power(a, power - 1) * at_a - _power(b, power - 1) * at_b
        found.append((power - 1) * found[power - 2] + ends)
    return found


def _power(x: Vector, power: int) -> Vector:
    return np.where(np.isfinite(x), x, 0.0) ** power


def _density(x: Vector) -> Vector:
    return np.asarray(np.exp(-0.5 * np.square(x)) / np.sqrt(2 * np.pi))


def smooth(x: Moments, function: Callable[[Vector], Vector]) -> Moments:
    """Moments of a smooth function of normal ``x``."""
    z = np.linspace(-REACH, REACH, NODES)
    weight = _density(z) * (z[1] - z[0])
    values = function(np.reshape(x.mean, (-1, 1)) + np.reshape(x.deviation, (-1, 1)) * z)
    mean = (values * weight).sum(axis=1)
    variance = (np.square(values - mean[:, None]) * weight).sum(axis=1)
    return Moments(mean.reshape(np.shape(x.mean)), variance.reshape(np.shape(x.mean)))


def scaled(x: Moments, factor: Vector | float, shift: Vector | float = 0.0) -> Moments:
    """``factor x + shift``."""
    return Moments(factor * x.mean + shift, np.square(factor) * x.variance)


def independent_sum(x: Moments, y: Moments) -> Moments:
    """``x + y`` of independent operands; of others the mean holds."""
    return Moments(x.mean + y.mean, x.variance + y.variance)


def independent_product(x: Moments, y: Moments) -> Moments:
    """``x y`` of independent operands, as of features and a gate."""
    mean = x.mean * y.mean
    return Moments(mean, x.variance * y.variance + x.variance * y.mean**2 + y.variance * x.mean**2)


def mixture(parts: Sequence[Moments]) -> Moments:
    """A number drawn from one of several channels, all equally likely: moments of one number."""
    means = np.concatenate([np.atleast_1d(part.mean) for part in parts])
    variances = np.concatenate([np.atleast_1d(part.variance) for part in parts])
    return Moments(np.asarray(means.mean()), np.asarray(variances.mean() + means.var()))


def layer_norm(scale: Vector, shift: Vector) -> Moments:
    """Output of a LayerNormalization whose normalized elements are alike: of mean 0 and variance 1."""
    return Moments(np.asarray(shift, np.float64), np.square(np.asarray(scale, np.float64)))


def softmax_mean(length: int) -> float:
    """Mean of the elements of a row of probabilities, whatever the logits are."""
    return 1.0 / length


def table_rows(table: Vector) -> Moments:
    """Rows [N, C] of an embedding, all equally likely."""
    rows = np.asarray(table, np.float64)
    return Moments(rows.mean(axis=0), rows.var(axis=0))
