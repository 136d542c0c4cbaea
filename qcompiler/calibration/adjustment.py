"""Layers with a gain and a shift behind them (``y * gain + shift``), both inputs of the graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Graph, Node, Variable, replace_uses, unique_name
from qcompiler.graph.layers import Layer

__all__ = ["Adjustment", "adjust", "channels_of"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Adjustment:
    """What was put behind a layer.

    Attributes:
        gain, shift: names of the graph's inputs.
        shape: of both: the channels, and as many ones as the output has spatial axes.
        result: the adjusted output.
    """

    gain: str
    shift: str
    shape: tuple[int, ...]
    result: Variable

    def feed(self, gain: Array, shift: Array) -> dict[str, Array]:
        """The inputs under which each channel has its gain and shift, float32 [C] or of one number."""
        values = {self.gain: gain, self.shift: shift}
        return {name: np.broadcast_to(value, self.shape[:1]).reshape(self.shape) for name, value in values.items()}


def channels_of(layer: Layer) -> int:
    """Output channels of a layer: those of its weight, times the groups of a ConvTranspose."""
    groups = int(layer.node.attrs.get("group", 1)) if layer.node.op == "ConvTranspose" else 1
    return layer.channels * groups


def adjust(graph: Graph, layer: Layer, taken: set[str]) -> Adjustment:
    """Put the two operators behind a layer, its bias included, its activation not."""
    y = (layer.node if layer.bias_node is None else layer.bias_node).outputs[0]
    spatial = len(layer.values.shape) - 2 if layer.node.op in ("Conv", "ConvTranspose") else 0
    shape = (channels_of(layer), *[1] * spatial)
    gain, shift = (
        Variable(unique_name(taken, f"{layer.node.name}_{kind}"), np.dtype(np.float32), list(shape))
        for kind in ("gain", "shift")
    )
    scaled, result = (
        Variable(unique_name(taken, f"{y.name}_{kind}"), np.dtype(np.float32), y.shape)
        for kind in ("scaled", "shifted")
    )
    graph.inputs = [*graph.inputs, gain, shift]
    replace_uses(graph, y, result)
    graph.nodes.append(Node("Mul", scaled.name, {}, [y, gain], [scaled]))
    graph.nodes.append(Node("Add", result.name, {}, [scaled, shift], [result]))
    return Adjustment(gain.name, shift.name, shape, result)
