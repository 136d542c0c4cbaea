"""Gives each channel of the layers' outputs its float mean and deviation (BatchNorm tuning, CalibTIP 2020).

A channel with mean ``m`` and deviation ``s`` in the float model, ``m'`` and ``s'`` in the quantized one, is scaled by
``s / s'``: its weight scale grows by that, its codes stay, and its bias becomes ``(b - m') s / s' + m``. Layer by layer
in graph order, each behind those already tuned, so no error is corrected twice. The whole is kept only where it takes
away a good part of the error of the outputs on feeds that were not measured, for these may be close relatives of those
that were: on EfficientNet-Lite0 with 8-bit weights, calibrated on crops of eight pictures, 10 % less error on other
crops of these was 1.6 dB more on other pictures. On PP-OCR recognition with weights of 4 bits half the error was gone
on other lines, too, and 75 of 80 lines were read instead of 44.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...calibration.channel_statistics import match_channels
from ...calibration.gate import take_if_better
from ...feeds.selection import split_feeds
from ...feeds.sources import feeds_of
from ...graph.ir import Graph, copy_of, names_in, spec_of
from ...graph.layers import Layer, add_to_bias, find_layers, has_bias, set_weight, weight_pair
from ...pass_base import Context, Pass


def tunable(graph: Graph, ctx: Context) -> list[Layer]:
    """Layers with float weights behind a Q/DQ pair and a bias."""
    found = []
    for layer in find_layers(graph):
        if weight_pair(layer) is None:
            continue
        if not has_bias(layer):
            ctx.declined(layer.node, "a MatMul without an Add has no bias to correct")
        elif layer.node.op == "ConvTranspose" and layer.node.attrs.get("group", 1) > 1:
            ctx.declined(layer.node, "the groups of a transposed convolution share their scales")
        else:
            found.append(layer)
    return found


def scale_layer(layer: Layer, gain: NDArray[np.float32], taken: set[str]) -> None:
    """Multiply each channel of a layer, without its bias, by ``gain`` [C]: weights and scales, so codes stay."""
    spec = spec_of(layer.weight)
    if spec is None:
        return
    levels = spec.quantize(layer.values)
    scale = (spec.scale.reshape(-1) * gain).astype(np.float32)
    shape = [1] * levels.ndim
    shape[layer.axis] = -1
    set_weight(layer, levels.astype(np.float32) * scale.reshape(shape), scale, taken, "tuned")


def apply_tuning(layer: Layer, gain: NDArray[np.float32], shift: NDArray[np.float32], taken: set[str]) -> None:
    """Make a layer compute ``y * gain + shift``."""
    if bool((gain != 1).any()):
        bias = (
            None if layer.bias_node is None else np.asarray(layer.bias_node.inputs[layer.bias_slot].values).reshape(-1)
        )
        scale_layer(layer, gain, taken)
        shift = shift if bias is None else shift + (gain - 1) * bias
    add_to_bias(layer, np.asarray(shift, np.float64), taken)


@dataclass(frozen=True)
class TuneStatistics(Pass):
    """Means, and deviations, of all channels as in the float model.

    Attributes:
        deviations: match them, too, not the means alone.
        feeds: how many to measure on.
        most: share of the error on held-out feeds that may be left.
    """

    name: ClassVar[str] = "tune-statistics"
    deviations: bool = True
    feeds: int = 64
    most: float = 0.6

    def __post_init__(self) -> None:
        if self.feeds < 1:
            raise ValueError(f"feeds must be at least 1, not {self.feeds}")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Tune all layers; True when that brought the outputs closer to the float model's."""
        layers = tunable(graph, ctx)
        if not layers or ctx.reference is None:
            return False
        data = feeds_of(graph, ctx)
        fit, held = split_feeds(data, self.feeds, ctx.seed)
        tuned, names = copy_of(graph), [layer.node.name for layer in layers]
        found = match_channels(graph, ctx.reference, names, fit, deviations=self.deviations, on_step=ctx.on_step)
        by_name, taken = {layer.node.name: layer for layer in find_layers(tuned)}, names_in(tuned)
        for name, (gain, shift) in found.items():
            apply_tuning(by_name[name], gain, shift, taken)
        return take_if_better(graph, tuned, held, ctx, most=self.most)
