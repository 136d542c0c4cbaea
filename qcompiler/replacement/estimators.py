"""Kernels that random features estimate, ``K(x, w) = E[Φ(x) · Ψ(w)]``: a layer's parameters become features, too.

A Scalable Neural Network Kernel writes ``f(w · x + b)`` so, with m features of the input and m of the parameters; then
``W2 Ψ`` is one matrix of m columns, and layers are bundled without a look at any data. The closed-form fit of
`qcompiler.replacement.fit` needs Φ alone and errs less on the data it is fitted to; what the features estimate by
themselves is for judging how many of them a function takes. Each estimate is without bias, and its variance falls with
1/m.

    sin, cos  e^{i (w·x + b)} = E_g[ L_g(i x) · e^{i b} L_g(w) ]
              L_g(z) = (1 + 4M)^{d/4} exp(-M ‖g‖² + sqrt(1 + 4M) g·z - z·z / 2)
    relu        E_g[ 2 max(g·x, 0) max(g·w, 0) ] = ‖x‖ ‖w‖ (sin θ + (π - θ) cos θ) / π,  θ the angle of x and w
    series      Σ_n a_n (w·x)^n = E[ (a_N / p_N) Π_j (ω_j·x) (ω_j·w) ],  N drawn with p_n = 2^-(n+1), ω of random signs

g is standard Gaussian. ReLU features do not estimate ``max(w·x, 0)`` but the kernel above. Features of sin and cos grow
like ``e^{‖x‖² / 2}``; the drawn maps leave that factor out, and the fit takes its part. Sources: Choromanski et al.
(ICLR 2024); Cho and Saul (2009); Kar and Karnick (2012).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.replacement.features import rademacher

__all__ = ["arc_cosine_kernel", "relu_features", "series_features", "urf_features"]

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class _Pair:
    """Features of inputs [N, m] and of parameters [R, m]."""

    inputs: Array
    parameters: Array

    def estimate(self) -> NDArray[np.float64]:
        """[N, R]."""
        return np.asarray((self.inputs @ self.parameters.T).real)

    def terms(self) -> NDArray[np.float64]:
        """What each feature says alone [N, R, m]; `estimate` is their mean."""
        return np.asarray((self.inputs[:, None] * self.parameters[None]).real * self.inputs.shape[1])


def _exponential(z: Array, g: Array, spread: float) -> Array:
    """L_g(z) for rows z [N, d] (complex ones without conjugation) and g [m, d]."""
    size = g.shape[1]
    factor = 1 + 4 * spread
    exponent = -spread * np.square(g).sum(axis=1) + np.sqrt(factor) * (z @ g.T) - (z * z).sum(axis=1, keepdims=True) / 2
    return np.asarray(factor ** (size / 4) * np.exp(exponent))


def urf_features(function: str, x: Array, weight: Array, bias: Array, g: Array, *, spread: float = 0.0) -> _Pair:
    """Universal random features of ``sin(w·x + b)`` or ``cos(w·x + b)``.

    Args:
        function: ``sin`` or ``cos``.
        x: inputs [N, d].
        weight: parameters [R, d].
        bias: [R].
        g: Gaussian rows [m, d].
        spread: M above, 0 to 0.25.

    Raises:
        ValueError: another function: its Fourier transform is not two points.
    """
    if function not in ("sin", "cos"):
        raise ValueError(f"function '{function}' has no features of this kind; sin and cos have")
    phase = np.exp(1j * bias)[:, None] * (1.0 if function == "cos" else -1j)
    return _Pair(_exponential(1j * x, g, spread), phase * _exponential(weight, g, spread) / len(g))


def relu_features(x: Array, weight: Array, g: Array) -> _Pair:
    """ReLU features of inputs [N, d] and parameters [R, d] for Gaussian rows g [m, d]; estimate `arc_cosine_kernel`."""
    return _Pair(np.maximum(x @ g.T, 0.0), 2 * np.maximum(weight @ g.T, 0.0) / len(g))


def arc_cosine_kernel(x: Array, weight: Array) -> NDArray[np.float64]:
    """The arc-cosine kernel of order 1 of rows [N, d] and [R, d], in closed form."""
    lengths = np.linalg.norm(x, axis=1)[:, None] * np.linalg.norm(weight, axis=1)
    cosine = np.clip((x @ weight.T) / np.maximum(lengths, 1e-300), -1.0, 1.0)
    angle = np.arccos(cosine)
    return np.asarray(lengths * (np.sin(angle) + (np.pi - angle) * cosine) / np.pi)


def series_features(
    coefficients: Sequence[float], x: Array, weight: Array, count: int, rng: np.random.Generator
) -> _Pair:
    """Random Maclaurin features of ``Σ a_n (w·x)^n``; signs of the coefficients are kept on the side of the parameters.

    Args:
        coefficients: a_0, a_1, …
        x: inputs [N, d].
        weight: parameters [R, d].
        count: m.
        rng: where degrees and signs come from.
    """
    chance = 2.0 ** -(np.arange(len(coefficients)) + 1.0)
    chance /= chance.sum()
    degrees = rng.choice(len(coefficients), count, p=chance)
    inputs, parameters = np.ones((len(x), count)), np.ones((len(weight), count))
    for power in range(1, len(coefficients)):
        used = degrees >= power
        signs = rademacher(count, x.shape[1], rng)
        inputs[:, used] *= (x @ signs.T)[:, used]
        parameters[:, used] *= (weight @ signs.T)[:, used]
    factors = np.asarray(coefficients, np.float64)[degrees] / chance[degrees]
    return _Pair(inputs, parameters * factors / count)
