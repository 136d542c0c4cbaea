"""Means of activations from BatchNorm statistics alone (Nagel et al., "Data-Free Quantization", 2019, appendix).

Behind a folded BatchNormalization a channel is taken as normal with mean beta and deviation gamma; a Relu or Clip
behind it clips that normal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import scipy  # loads its parts at their first use
from numpy.typing import NDArray

from qcompiler.graph.ir import Tensor, constant_of, producer
from qcompiler.pass_base import BatchNormStatistics

__all__ = ["analytic_means", "clipped_normal_mean"]

Vector = NDArray[np.float64]

_QDQ = ("QuantizeLinear", "DequantizeLinear")


def clipped_normal_mean(mean: Vector, deviation: Vector, low: float, high: float) -> Vector:
    """``E[clip(x, low, high)]`` of normal ``x``, element by element; the bounds may be infinite, a deviation 0."""
    spread = np.maximum(deviation, 1e-12)
    below, above = (low - mean) / spread, (high - mean) / spread
    inside = mean * (scipy.special.ndtr(above) - scipy.special.ndtr(below)) + spread * (
        _density(below) - _density(above)
    )
    at_low = low * scipy.special.ndtr(below) if np.isfinite(low) else 0.0
    at_high = high * (1 - scipy.special.ndtr(above)) if np.isfinite(high) else 0.0
    return np.asarray(at_low + inside + at_high)


def _density(x: Vector) -> Vector:
    return np.asarray(np.exp(-0.5 * np.square(x)) / np.sqrt(2 * np.pi))


def analytic_means(tensors: Iterable[Tensor], statistics: Mapping[str, BatchNormStatistics]) -> dict[str, Vector]:
    """Channel means, float64 [C] by name, of those ``tensors`` that follow from BatchNorm statistics."""
    found = {}
    for tensor in tensors:
        source, low, high = _source(tensor)
        known = statistics.get(source.name)
        if known is not None:
            found[tensor.name] = clipped_normal_mean(known.mean, np.sqrt(known.variance), low, high)
    return found


def _source(tensor: Tensor) -> tuple[Tensor, float, float]:
    """The tensor before grids and clips, and the bounds of the clips together."""
    low, high = -np.inf, np.inf
    while (node := producer(tensor)) is not None and node.op in (*_QDQ, "Relu", "Clip"):
        if node.op == "Relu":
            low = max(low, 0.0)
        if node.op == "Clip":
            bounds = [constant_of(bound) for bound in node.inputs[1:]]
            low = max(low, float(bounds[0].item())) if bounds and bounds[0] is not None else low
            high = min(high, float(bounds[1].item())) if len(bounds) > 1 and bounds[1] is not None else high
        tensor = node.inputs[0]
    return tensor, low, high
