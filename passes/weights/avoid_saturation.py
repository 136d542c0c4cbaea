"""Keeps rounded int8 weights within what `vpmaddubsw` multiplies exactly (`qcompiler.weights.saturation`).

A channel that breaks the rule gets a larger scale. Grids that a solver puts weights on keep the rule by themselves, by
smaller levels (``reconstruct-layers(exact_pairs=True)``).

The integer machine of this project never saturates and does not need this pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...calibration.sensitivity import measure_noise
from ...feeds.sources import feeds_of
from ...graph.ir import Constant, Graph, QuantSpec, names_in, quantized_source, spec_of
from ...graph.layers import Layer, find_layers, set_weight_scale
from ...pass_base import Context, Pass
from ...weights.saturation import exact_scale, pair_limit

FEEDS = 8


def _float_weights(graph: Graph) -> Iterator[tuple[Layer, QuantSpec]]:
    """Layers whose weight is still float, with its int8 grid."""
    for layer in find_layers(graph):
        codes, spec = quantized_source(layer.weight), spec_of(layer.weight)
        if codes is not None and not isinstance(codes, Constant) and spec is not None and spec.dtype == np.int8:
            yield layer, spec


@dataclass(frozen=True)
class AvoidSaturation(Pass):
    """Weight scales under which no pair of products leaves int16. The output noise that costs goes to the report."""

    name: ClassVar[str] = "avoid-saturation"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Enlarge scales; True when a channel needed it."""
        found = [
            (layer, spec, exact_scale(layer.values, spec, pair_limit(layer))) for layer, spec in _float_weights(graph)
        ]
        needed = [item for item in found if not np.array_equal(item[2], item[1].scale)]
        if not needed:
            return False
        data = feeds_of(graph, ctx)
        before = measure_noise(graph, [], data, FEEDS).weights
        taken = names_in(graph)
        for layer, _, scale in needed:
            set_weight_scale(layer, scale, taken)
        after = measure_noise(graph, [], data, FEEDS).weights
        ctx.report.figures["avoid_saturation_layers"] = len(needed)
        ctx.report.figures["avoid_saturation_cost_db"] = round(
            float(10 * np.log10(max(after, 1e-30) / max(before, 1e-30))), 2
        )
        return True
