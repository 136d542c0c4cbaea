"""Bias correction: subtracts the mean error of rounded weights (Nagel et al., 2019, section 4.2, measured means).

A layer with weights ``W`` that computes with ``Ŵ`` moves the mean of output channel o by ``sum (Ŵ - W)[o] E[x]``; the
bias gives it back: ``b[o] += sum (W - Ŵ)[o] E[x]``. ``E[x]`` is the mean of each input channel over the calibration
feeds in the quantized graph, or, where feeds are made up, what BatchNorm statistics say. At zero padding ``E[x]`` is
taken as inside. A layer without bias gets one, except a MatMul, which has no place for it.

Where the float model is at hand, a fifth of the feeds is held out, and the whole is kept only if it brings the outputs
closer on those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...calibration.collect import channel_means
from ...calibration.gate import HELD_FEEDS, take_if_better
from ...feeds.selection import held_feeds
from ...feeds.sources import feeds_of
from ...graph.ir import Constant, Feed, Graph, copy_of, names_in, quantized_source, read_spec
from ...graph.layers import Layer, add_to_bias, find_layers, output_shift
from ...moments.propagate import analytic_means
from ...pass_base import Context, Pass

Array = NDArray[Any]


def rounding_error(layer: Layer) -> Array | None:
    """``W - Ŵ`` of a layer whose float weight passes through a Q/DQ pair; None for any other."""
    codes = quantized_source(layer.weight)
    if codes is None or isinstance(codes, Constant) or layer.values.dtype != np.float32:
        return None
    spec = read_spec(codes.inputs[0])
    if spec is None:
        return None
    weight = layer.values
    return weight.astype(np.float64) - spec.dequantize(spec.quantize(weight))


def _correctable(layers: Iterable[Layer], ctx: Context) -> list[tuple[Layer, Array]]:
    found = []
    for layer in layers:
        error = rounding_error(layer)
        # nothing was rounded here, or `reconstruct-layers` has corrected it already
        if error is None or not error.any():
            continue
        if layer.node.op == "MatMul" and layer.bias_node is None:
            ctx.declined(layer.node, "a MatMul without an Add has no bias to correct")
            continue
        if layer.bias_node is None or isinstance(layer.bias_node.inputs[layer.bias_slot], Constant):
            found.append((layer, error))
    return found


def _input_channels(layers: Sequence[Layer]) -> Mapping[str, int | None]:
    """What `channel_means` wants to know of each layer's input."""
    return {
        layer.node.inputs[0].name: None
        if layer.node.op in ("Conv", "ConvTranspose")
        else layer.values.shape[1 - layer.axis]
        for layer in layers
    }


def _means(graph: Graph, layers: Sequence[Layer], data: Iterable[Feed], ctx: Context) -> Mapping[str, Array]:
    """Mean of each input channel of the layers, by name; BatchNorm statistics beat made-up feeds."""
    known = analytic_means([layer.node.inputs[0] for layer in layers], ctx.batchnorm) if ctx.made_up else {}
    return {**channel_means(graph, _input_channels(layers), data), **known}


@dataclass(frozen=True)
class CorrectBias(Pass):
    """Biases make up for the mean error of rounded weights."""

    name: ClassVar[str] = "correct-bias"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Correct the biases; True when there was a layer with rounded weights."""
        found = _correctable(find_layers(graph), ctx)
        if not found:
            return False
        data = feeds_of(graph, ctx)
        means = _means(graph, [layer for layer, _ in found], data, ctx)
        corrected = copy_of(graph)
        layers, taken = {layer.node.name: layer for layer in find_layers(corrected)}, names_in(graph)
        for layer, error in found:
            add_to_bias(layers[layer.node.name], output_shift(layer, error, means[layer.node.inputs[0].name]), taken)
        held = held_feeds(data, HELD_FEEDS, ctx.seed) if ctx.reference is not None else []
        return take_if_better(graph, corrected, held, ctx)
