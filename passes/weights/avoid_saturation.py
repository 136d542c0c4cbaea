"""Keeps int8 weights within what `vpmaddubsw` multiplies exactly, for runtimes on CPUs without VNNI.

That instruction multiplies uint8 by int8 and adds two neighbouring products in int16: ``255 (w1 + w2)`` must stay below 2^15, which
``w1 + w2 <= 128`` guarantees. Which weights meet depends on a runtime's packing, so the rule asks it of the two largest weights of the same
sign in each output channel, whatever their order. A channel that breaks it gets a larger scale. Depthwise convolutions do not take that path.

The integer machine of this project never saturates and does not need this pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...calibration.sensitivity import measure_noise
from ...feeds.sources import synthetic_source
from ...graph.ir import Constant, Graph, QuantSpec, Tensor, constant_of, names_in, producer, quantized_source, spec_of
from ...graph.layers import Layer, find_layers, is_depthwise, set_weight_scale
from ...pass_base import Context, Pass

PAIR_LIMIT = 128
"""Largest sum of two weight codes that meet: 255 * 128 < 2^15."""

INT16_LIMIT = 2**15

GROWTH = 1 + 1 / 512
FEEDS = 8

Array = NDArray[Any]


def largest_pair(codes: Array, axis: int) -> Array:
    """Sum of the two largest codes of one sign, over both signs, for each channel along ``axis``: int64 [C]."""
    rows = np.moveaxis(codes, axis, 0).reshape(codes.shape[axis], -1).astype(np.int64)
    if rows.shape[1] < 2:
        return np.zeros(len(rows), np.int64)
    positive = np.partition(np.maximum(rows, 0), -2, axis=1)[:, -2:].sum(axis=1)
    negative = np.partition(np.maximum(-rows, 0), -2, axis=1)[:, -2:].sum(axis=1)
    return np.asarray(np.maximum(positive, negative))


def exact_scale(weight: Array, spec: QuantSpec) -> Array:
    """float32 scales [C], at least those of ``spec``, under which every channel keeps `PAIR_LIMIT`.

    Args:
        weight: float32 weight.
        spec: its int8 grid per output channel.
    """
    axis = spec.axis or 0
    scale = spec.scale.reshape(-1).astype(np.float64)
    start = scale * np.maximum(largest_pair(spec.quantize(weight), axis) / PAIR_LIMIT, 1.0)
    while True:
        result: Array = start.astype(np.float32)
        codes = QuantSpec(result.reshape(spec.scale.shape), spec.zero_point, spec.dtype, spec.axis).quantize(weight)
        broken = largest_pair(codes, axis) > PAIR_LIMIT
        if not broken.any():
            return result
        start = np.where(broken, start * GROWTH, start)


def _largest_code(tensor: Tensor) -> int:
    """The largest uint8 code that can occur in a tensor with a grid: less than 255 behind a Clip (`narrow-activations`).

    int8 codes are moved by 128 before they are multiplied.
    """
    spec, codes = spec_of(tensor), quantized_source(tensor)
    quantize = None if codes is None else producer(codes)
    source = None if quantize is None else producer(quantize.inputs[0])
    limit = constant_of(source.inputs[2]) if source is not None and source.op == "Clip" and len(source.inputs) > 2 else None
    return 255 if limit is None or spec is None else int(spec.quantize(limit).max(initial=spec.qmin)) - spec.qmin


def _eligible(graph: Graph) -> Iterator[tuple[Layer, QuantSpec]]:
    """Layers whose 8-bit inputs are large enough and whose weight is still float, with the weight's grid."""
    for layer in find_layers(graph):
        codes, inputs = quantized_source(layer.weight), spec_of(layer.node.inputs[0])
        if codes is None or isinstance(codes, Constant) or inputs is None or inputs.dtype not in (np.uint8, np.int8):
            continue
        if 2 * 127 * _largest_code(layer.node.inputs[0]) < INT16_LIMIT:
            continue
        spec = spec_of(layer.weight)
        if spec is not None and spec.dtype == np.int8 and layer.node.op != "ConvTranspose" and not is_depthwise(layer.node):
            yield layer, spec


@dataclass(frozen=True)
class AvoidSaturation(Pass):
    """Weight scales under which no pair of products leaves int16. The output noise that costs goes to the report."""

    name: ClassVar[str] = "avoid-saturation"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Enlarge scales; True when a channel needed it."""
        found = [(layer, spec, exact_scale(layer.values, spec)) for layer, spec in _eligible(graph)]
        needed = [item for item in found if not np.array_equal(item[2], item[1].scale.reshape(-1))]
        if not needed:
            return False
        data = ctx.data if ctx.data is not None else synthetic_source(graph, ctx)
        before = measure_noise(graph, [], data, FEEDS).weights
        taken = names_in(graph)
        for layer, spec, scale in needed:
            set_weight_scale(layer, scale.reshape(spec.scale.shape), taken)
        after = measure_noise(graph, [], data, FEEDS).weights
        ctx.report.figures["avoid_saturation_layers"] = len(needed)
        ctx.report.figures["avoid_saturation_cost_db"] = round(float(10 * np.log10(max(after, 1e-30) / max(before, 1e-30))), 2)
        return True
