"""The range of a layer's input grid: sampled input rows, and the error of the layer's outputs on that grid."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.observers import Range, affine_grid
from qcompiler.calibration.patches import as_matrix, sample_inputs
from qcompiler.graph.ir import Feed, Graph
from qcompiler.graph.layers import Layer
from qcompiler.graph.runner import Runner
from qcompiler.linear_algebra import matmul

Array = NDArray[Any]

ROWS = 2048
"""Vectors of a layer's inputs that a range is chosen on."""

ELEMENTS = 1 << 21
"""Largest number of elements in those vectors."""

SHRINK = 0.9
"""Ratio of neighbouring ranges that are tried."""

TOGETHER, APART = 24, 4
"""Steps by which both ends of a range are drawn in together, and then each end alone."""


def is_rotation(weight: Array) -> bool:
    """True for a square matrix whose elements differ in nothing but their sign."""
    return (
        weight.ndim == 2
        and weight.shape[0] == weight.shape[1]
        and bool(np.all(np.abs(weight) == np.abs(weight.flat[0])))
    )


def rounded(x: Array, extent: Range, levels: int) -> Array:
    """``x`` on the unsigned grid of this many codes over a range."""
    scale, zero_point = affine_grid(extent, levels)
    codes = np.clip(np.rint(x / np.float32(scale)), -zero_point, levels - 1 - zero_point)
    return np.asarray(codes * np.float32(scale), np.float32)


def least_range(loss: Callable[[Range], float], extent: Range) -> Range:
    """The range within ``extent`` of least loss: both ends are drawn in together, then by turns each by itself."""
    whole = extent.with_zero()
    return refined(
        loss, min((Range(whole.lo * SHRINK**k, whole.hi * SHRINK**k) for k in range(TOGETHER)), key=loss), whole
    )


def refined(loss: Callable[[Range], float], best: Range, whole: Range) -> Range:
    """A range near ``best`` and within ``whole`` of less loss: each end moved by itself."""
    for _ in range(2):
        factors = [SHRINK**k for k in range(-APART, APART + 1)]
        if whole.hi > 0:
            best = min((Range(best.lo, min(best.hi * factor, whole.hi)) for factor in factors), key=loss)
        if whole.lo < 0:
            best = min((Range(max(best.lo * factor, whole.lo), best.hi) for factor in factors), key=loss)
    return best


@dataclass(frozen=True, eq=False)
class Rows:
    """A layer's weight [G, R, K], samples of its inputs [G, P, K], and the energy of their products."""

    weight: Array
    x: Array
    energy: float

    def loss(self, extent: Range, levels: int) -> float:
        """Error of the products, relative to their energy, with the inputs on a grid."""
        return self.loss_of(rounded(self.x, extent, levels))

    def loss_of(self, x: Array) -> float:
        """The same with ``x`` in the place of the inputs."""
        return float(np.square(matmul(x - self.x, self.weight.transpose(0, 2, 1))).sum()) / self.energy

    def weight_loss(self, levels: int) -> float:
        """The same with the weights rounded to this many steps of each row's largest."""
        step = np.maximum(np.abs(self.weight).max(axis=2, keepdims=True, initial=0.0) / levels, 1e-30)
        error = np.rint(self.weight / step) * step - self.weight
        return float(np.square(matmul(self.x, error.transpose(0, 2, 1))).sum()) / self.energy


def sample_rows(graph: Graph, layers: Sequence[Layer], feeds: Sequence[Feed], seed: int) -> dict[str, Rows]:
    """Samples for each layer, by the name of its node."""
    runner = Runner(graph, list(dict.fromkeys(layer.node.inputs[0].name for layer in layers)))
    parts: dict[str, list[Array]] = {layer.node.name: [] for layer in layers}
    weights = {layer.node.name: np.asarray(as_matrix(layer, layer.values)) for layer in layers}
    for number, feed in enumerate(feeds):
        values = runner.run(feed)
        for layer in layers:
            shape = weights[layer.node.name].shape
            count = max(min(ROWS, ELEMENTS // (shape[0] * shape[2])) // len(feeds), 1)
            parts[layer.node.name].append(
                sample_inputs(layer, values[layer.node.inputs[0].name], count, np.random.default_rng([seed, number]))
            )
    found = {}
    for name, weight in weights.items():
        x = np.concatenate(parts[name], axis=1)
        found[name] = Rows(weight, x, max(float(np.square(matmul(x, weight.transpose(0, 2, 1))).sum()), 1e-30))
    return found
