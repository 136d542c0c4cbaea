"""What a layer should compute from inputs that are not quite those of the float model.

The float model's layer gives ``W x``. In the quantized graph it sees ``z``, which carries the errors of all layers
before; part of them can be told from ``z`` itself. The weights that come closest to ``W x`` on average are the least
squares ``W E[x zᵀ] E[z zᵀ]⁻¹``; with a ridge ``r`` that draws them to ``W``::

    W' = W + W (E[x zᵀ] - E[z zᵀ]) (E[z zᵀ] + r I)⁻¹

(covariances in the place of moments where a bias takes the mean error). Few feeds ask for a strong ridge: least squares
without one fits them and nothing else. The bias gives back the mean error of the layer's own rounding, ``(W' - Ŵ)
E[x]``, or all that the mean of its outputs is off, also by the layers before. Which, and which ridge, held-out feeds
must say: on EfficientNet-Lite0, calibrated on crops of eight pictures, means put in place layer by layer took 4-bit
weights from 9 dB to 1 dB on other pictures; on MiniLM they gain half a dB. (Targets behind a quantized prefix: Li et
al., "GPTAQ", 2025. The ridge and the choices are ours.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.paired import PairedMoments
from qcompiler.linear_algebra import matmul, solve_positive

Array = NDArray[Any]

RIDGES = (10.0, 30.0, 100.0)
"""Ridges to choose among, relative to the mean diagonal, besides none at all; smaller ones overfit."""


def retargeted(weight: Array, moments: PairedMoments, ridge: float, *, corrects_mean: bool) -> NDArray[np.float32]:
    """Ridge regression: weights [G, R, K] from quantized inputs to float outputs, drawn to ``weight`` by ``ridge``."""
    cross, given = moments.cross, moments.given.gram
    if corrects_mean:
        cross, given = (
            cross - _outer(moments.exact.mean, moments.given.mean),
            given - _outer(moments.given.mean, moments.given.mean),
        )
    pull = matmul(np.asarray(weight, np.float64), cross - given)
    products = given.shape[1]
    added = ridge * np.trace(given, axis1=1, axis2=2) / products + np.finfo(np.float64).tiny
    damped = given + added[:, None, None] * np.eye(products)
    return np.asarray(weight + solve_positive(damped, pull.transpose(0, 2, 1)).transpose(0, 2, 1), np.float32)


def mean_shift(weight: Array, rounded: Array, exact: Array, given: Array) -> NDArray[np.float64]:
    """Bias correction ``W E[x] - Ŵ E[z]``, float64 [G, R], for input means ``exact`` and ``given``, both [G, K]."""
    return np.asarray(_outputs(weight, exact) - _outputs(rounded, given))


class OutputError:
    """What ``Ŵ z`` leaves of ``W x`` over all outputs, each under its best gain, relative to the energy.

    Under a gain, because squared error alone praises outputs that shrink where they are unsure, and a shrunken logit is
    no better one. Where the mean ``is_free``, as behind a bias, energies are those without means, and what a ``shift``
    leaves of the means counts besides.

    Args:
        weight: ``W`` [G, R, K].
        moments: those of ``x`` and ``z``.
        mean_is_free: see above.
    """

    def __init__(self, weight: Array, moments: PairedMoments, mean_is_free: bool) -> None:
        exact = np.asarray(weight, np.float64)
        self._moments, self._free = moments, mean_is_free
        self._mean = _outputs(exact, moments.exact.mean) if mean_is_free else np.zeros(exact.shape[:2])
        self._energy = _inner(matmul(exact, moments.exact.gram), exact) - self._mean**2
        self._crossed = matmul(exact, moments.cross)

    def __call__(self, rounded: Array, *shifts: Array) -> list[float]:
        """For weights ``Ŵ`` [G, R, K] the error under each of the shifts [G, R]."""
        given = np.asarray(rounded, np.float64)
        mean = _outputs(given, self._moments.given.mean) if self._free else np.zeros(given.shape[:2])
        cross = _inner(self._crossed, given) - self._mean * mean
        spread = _inner(matmul(given, self._moments.given.gram), given) - mean**2
        error = self._energy - np.maximum(cross, 0) ** 2 / np.maximum(spread, np.finfo(np.float64).tiny)
        off = [np.square(self._mean - mean - shift) if self._free else 0.0 for shift in shifts]
        return [float((error + square).sum()) / max(float(self._energy.sum()), 1e-30) for square in off]


def _outputs(weight: Array, inputs: Array) -> Array:
    """``W x`` for one vector a group: float64 [G, R]."""
    return np.asarray(np.einsum("grk,gk->gr", np.asarray(weight, np.float64), inputs))


def _inner(left: Array, right: Array) -> Array:
    """``left[r] @ right[r]`` for each row: [G, R]."""
    return np.asarray(np.einsum("grk,grk->gr", left, right))


def _outer(left: Array, right: Array) -> Array:
    return np.asarray(left[:, :, None] * right[:, None, :])
