"""Puts a Q/DQ pair on every constant weight: int8 in [-127, 127], one scale an output channel, zero point 0.

The weight itself stays float until `store-codes`, so later passes may still choose another scale or another rounding.

The scale of a channel is ``max|w| / 127`` (the scale of least squared error measured no better, end to end, at 8 bits).
It is never so small that the bias, in steps of ``scale_x * scale_w``, would leave a quarter of the int32 range.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...graph.ir import Constant, Graph, QuantSpec, insert_qdq, names_in, spec_of
from ...graph.layers import Layer, bias_constant, bias_floor, find_layers, weight_axis, weight_slots
from ...pass_base import Context, Pass

LARGEST_CODE = 127

Array = NDArray[Any]


def absmax_scale(weight: Array, axis: int) -> Array:
    """float64 scales [C] under which the largest weight of each channel along ``axis`` is code 127."""
    others = tuple(i for i in range(weight.ndim) if i != axis)
    largest: Array = np.abs(weight.astype(np.float64)).max(axis=others, initial=0.0)
    return largest / LARGEST_CODE


def weight_spec(scale: Array, axis: int) -> QuantSpec:
    """The int8 grid of scales [C]; a channel of zeros gets scale 1."""
    safe = np.where(scale > 2.0**-120, scale, 1.0).astype(np.float32)
    return QuantSpec(safe, np.zeros(safe.shape, np.int8), np.dtype(np.int8), axis)


def _float_layers(graph: Graph) -> Iterator[tuple[Layer, QuantSpec]]:
    """Layers with float weights and a quantized input, with the grid of that input."""
    for layer in find_layers(graph):
        spec = spec_of(layer.node.inputs[0])
        if spec is not None and isinstance(layer.weight, Constant) and layer.weight.dtype == np.float32:
            yield layer, spec


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """int8 grids per output channel for the weights of Conv, ConvTranspose, Gemm, MatMul, LSTM and GRU.

    Attributes:
        granularity: ``tensor`` gives all channels of a layer the scale of the largest (recurrent nodes excepted).
    """

    name: ClassVar[str] = "quantize-weights"
    granularity: Literal["channel", "tensor"] = "channel"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Insert the pairs; True when there was a float weight behind a quantized input."""
        taken, changed = names_in(graph), False
        for layer, spec in list(_float_layers(graph)):
            bias = bias_constant(layer)
            floor = bias_floor(None if bias is None else bias.values, float(spec.scale), layer.channels)
            scale = np.maximum(absmax_scale(layer.values, layer.axis), floor)
            if self.granularity == "tensor":
                scale = np.full_like(scale, scale.max(initial=0.0))
            layer.node.inputs[1] = insert_qdq(graph, layer.weight, weight_spec(scale, layer.axis), taken, [])
            changed = True
        for node in [
            n for n in graph.nodes if n.op in ("LSTM", "GRU") and weight_slots(n) and spec_of(n.inputs[0]) is not None
        ]:
            for slot in weight_slots(node):
                if isinstance(node.inputs[slot], Constant):
                    axis = weight_axis(node, slot)
                    spec = weight_spec(absmax_scale(np.asarray(node.inputs[slot].values), axis), axis)
                    node.inputs[slot] = insert_qdq(graph, node.inputs[slot], spec, taken, [])
                    changed = True
        graph.toposort()
        return changed
