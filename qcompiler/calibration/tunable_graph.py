"""A quantized graph with activation scales, layer gains and shifts as inputs: one session serves all values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.calibration.adjustment import adjust
from qcompiler.calibration.sensitivity import Pair, activation_units, find_pairs
from qcompiler.graph.ir import Constant, Feed, Graph, Variable, copy_of, names_in, producer, read_spec, unique_name
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner

__all__ = ["Settings", "TunableGraph", "scale_units", "scales_of", "set_scales"]

FIXED = ("Softmax", "Sigmoid", "HardSigmoid", "Tanh", "LSTM", "GRU")
"""Operators whose outputs have ranges known in advance: their grids are left alone."""

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Settings:
    """Values of what can be tuned.

    Attributes:
        scales: float32 [U], one for each unit of activations that share a grid; empty: they stay as they are.
        gains: float32 [L], one for each layer: its output, the bias included, is multiplied by it.
        shifts: for each layer float32 [C], added to that; none: no layer has shifts.
    """

    scales: NDArray[np.float32]
    gains: NDArray[np.float32]
    shifts: Sequence[NDArray[np.float32]] = ()


def scale_units(graph: Graph) -> list[list[Pair]]:
    """The units of 8-bit activations whose scales may be tuned, in graph order."""
    return [unit for unit in activation_units(graph, find_pairs(graph)) if all(_is_free(pair) for pair in unit)]


def _is_free(pair: Pair) -> bool:
    spec, source = read_spec(pair.quantize), producer(pair.quantize.inputs[0])
    constant = isinstance(pair.quantize.inputs[0], Constant)
    fixed = source is not None and source.op in FIXED
    return spec is not None and spec.axis is None and spec.dtype.itemsize == 1 and not constant and not fixed


def scales_of(units: Sequence[Sequence[Pair]]) -> NDArray[np.float32]:
    """Present scales of the units."""
    return np.array([float(np.asarray(unit[0].quantize.inputs[1].values)) for unit in units], np.float32)


def set_scales(graph: Graph, scales: NDArray[np.float32]) -> None:
    """Give the units of `scale_units` other scales."""
    taken = names_in(graph)
    for unit, scale in zip(scale_units(graph), scales, strict=True):
        for pair in unit:
            constant = Constant(
                unique_name(taken, f"{pair.name}_tuned_scale"),
                np.array(scale, np.float32).reshape(pair.quantize.inputs[1].shape),
            )
            pair.quantize.inputs[1] = pair.dequantize.inputs[1] = constant


class TunableGraph:
    """The session.

    Args:
        graph: with Q/DQ pairs; it is not changed.
        layers: names of the layers' nodes that get gains and shifts.
        ranges: scales of activations are inputs, too.
    """

    def __init__(self, graph: Graph, layers: Sequence[str], *, ranges: bool) -> None:
        copy = copy_of(graph)
        taken = names_in(copy)
        self._scales = [self._open_scale(copy, unit, taken) for unit in (scale_units(copy) if ranges else ())]
        by_name = {layer.node.name: layer for layer in find_layers(copy)}
        self._layers = [adjust(copy, by_name[name], taken) for name in layers]
        self._runner = Runner(copy.toposort())

    def _open_scale(self, graph: Graph, unit: Sequence[Pair], taken: set[str]) -> tuple[str, tuple[int, ...]]:
        shape = tuple(unit[0].quantize.inputs[1].shape)
        variable = Variable(unique_name(taken, f"{unit[0].name}_scale_input"), np.dtype(np.float32), list(shape))
        graph.inputs = [*graph.inputs, variable]
        for pair in unit:
            pair.quantize.inputs[1] = pair.dequantize.inputs[1] = variable
        return variable.name, shape

    def run(self, feed: Feed, settings: Settings) -> dict[str, Array]:
        """The outputs for one feed."""
        return self._runner.run({**feed, **self._inputs(settings)})

    def _inputs(self, settings: Settings) -> dict[str, Array]:
        found = {
            name: np.array(scale, np.float32).reshape(shape)
            for (name, shape), scale in zip(self._scales, settings.scales, strict=True)
        }
        shifts = settings.shifts or [np.zeros(1, np.float32)] * len(self._layers)
        for layer, gain, shift in zip(self._layers, settings.gains, shifts, strict=True):
            found.update(layer.feed(np.asarray(gain, np.float32), shift))
        return found
