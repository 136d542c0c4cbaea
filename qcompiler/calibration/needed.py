"""Ranges without which part of a known output range could never be reached.

A detector that was calibrated on nothing it is to detect gives scores near 0 throughout: what its Sigmoid reads, and
perhaps the inputs of the layers in front, are seen in a corner of what they can be. Where the calibration leaves the
further half of the range of such an output empty, the input of the operator gets what the whole range asks for, and the
input of the layer that computes it grows until typical values (independent, spread evenly over the range, two standard
deviations of their weighted sum) reach that, at most `GROWTH` times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.intervals import bounded_source
from qcompiler.graph.ir import Graph, Tensor
from qcompiler.graph.layers import Layer, bias_constant, find_layers
from qcompiler.graph.ranges import Range

__all__ = ["hold_wide_input", "holds_wide_input", "needed_ranges"]

GROWTH = 8.0
DEPTH = 4
MIDDLE, REACH = 0.5, math.log(2 * 255)
"""Middle of the range of a Sigmoid, and the magnitude of its input from which on its output is within half a step of 8
bits of the end."""


def needed_ranges(graph: Graph, seen: Callable[[Tensor], Range | None]) -> dict[str, Range]:
    """By tensor name, a range that its grid should hold besides what was seen.

    Args:
        graph: float graph.
        seen: the range of a tensor, None for one that was not observed.
    """
    layers = {layer.output.name: layer for layer in find_layers(graph)}
    found: dict[str, Range] = {}
    for output in graph.outputs:
        node = bounded_source(output)
        if node is None or node.op != "Sigmoid":
            continue
        extent, source = seen(node.outputs[0]), node.inputs[0]
        if extent is None or extent.lo < MIDDLE < extent.hi:
            continue
        found[source.name] = Range(0.0, REACH) if extent.hi <= MIDDLE else Range(-REACH, 0.0)
        _reach_back(source, found, layers, seen)
    return found


def _reach_back(
    tensor: Tensor, found: dict[str, Range], layers: Mapping[str, Layer], seen: Callable[[Tensor], Range | None]
) -> None:
    """Widen what the layers in front of ``tensor`` read until they reach its range."""
    for _ in range(DEPTH):
        layer = layers.get(tensor.name)
        source = None if layer is None else layer.node.inputs[0]
        extent = None if source is None else seen(source)
        if layer is None or source is None or extent is None:
            return
        growth = min(_growth(layer, found[tensor.name], extent), GROWTH)
        if growth <= 1:
            return
        largest = max(abs(extent.lo), abs(extent.hi)) * growth
        found[source.name] = Range(-largest if extent.lo < 0 else 0.0, largest)
        tensor = source


def _growth(layer: Layer, wanted: Range, extent: Range) -> float:
    """How many times as large its input must be for every channel of a layer to reach a range."""
    weights = np.moveaxis(np.asarray(layer.values, np.float64), layer.axis, 0).reshape(layer.channels, -1)
    bias = bias_constant(layer)
    offset = np.zeros(1) if bias is None else np.asarray(bias.values, np.float64).reshape(-1)
    missing = np.maximum(wanted.hi - offset, offset - wanted.lo if wanted.lo < 0 else 0.0)
    typical = 2 / math.sqrt(3) * np.sqrt(np.square(weights).sum(axis=1)) * max(abs(extent.lo), abs(extent.hi))
    return float(np.max(missing / np.maximum(typical, 1e-30)))


def holds_wide_input(layer: Layer) -> bool:
    """True when 8-bit weights times 16-bit inputs surely fit int32, with a quarter left for the bias."""
    values = np.moveaxis(np.asarray(layer.values, np.float64), layer.axis, 0)
    return hold_wide_input(values.reshape(layer.channels, -1))


def hold_wide_input(rows: NDArray[Any]) -> bool:
    """The same of weights [channels, K]."""
    weights = np.abs(np.asarray(rows, np.float64))
    steps = 127 * weights.sum(axis=1) / np.maximum(weights.max(axis=1), 1e-30)
    return bool(np.all((steps + weights.shape[1] / 2) * 2**15 < 0.75 * 2**31))
