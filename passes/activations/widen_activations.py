"""Gives every activation 16 bits, as far as integers allow: ``--activations int16``.

`choose-widths` weighs what 16 bits gain against what they cost; this pass does not ask. A grid becomes int16 with zero
point 0 over the same range wherever the accumulators of the layers that read it provably stay within int32 (``sum|w| *
2^15 + |bias| < 2^31`` for every output channel), and of two activations that are multiplied both only where one is a
row of probabilities. What cannot be widened stays at 8 bits, and a line says which tensor and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...activations.int16 import gemm_slots, slot_fits, wide_spec, widen
from ...calibration.sensitivity import activation_units, find_pairs
from ...graph.ir import Graph, Node, names_in, producer, read_spec
from ...graph.layers import Layer, find_layers, weight_slots
from ...graph.operators import RECURRENT
from ...pass_base import Context, Pass


def refusal(slots: Sequence[tuple[Node, int]], layers: Mapping[int, Layer], scale: float) -> str | None:
    """Why what is read at ``slots`` cannot take 16 bits at that scale; None where it can."""
    places = {(id(node), slot) for node, slot in slots}
    for node, slot in slots:
        is_product = id(node) not in layers and node.op not in RECURRENT
        if is_product and (node.op != "MatMul" or weight_slots(node)):
            return f"'{node.name}' ({node.op}) has no form with 16-bit inputs"
        if slot_fits(node, slot, layers, scale) and not (is_product and (id(node), 1 - slot) in places):
            continue
        if not is_product:
            return f"the accumulator of '{node.name}' ({node.op}) could leave 32 bits"
        return (
            f"'{node.name}' (MatMul) multiplies it by activations, and their products are not proven to stay "
            "within 32 bits"
        )
    return None


@dataclass(frozen=True)
class WidenActivations(Pass):
    """16-bit grids wherever accumulators provably hold them."""

    name: ClassVar[str] = "widen-activations"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Widen the grids; True when there was one."""
        layers, taken, changed = {id(layer.node): layer for layer in find_layers(graph)}, names_in(graph), False
        for unit in activation_units(graph, find_pairs(graph)):
            spec = read_spec(unit[0].quantize)
            if spec is None or spec.dtype != np.uint8:
                continue
            wide, slots = (
                wide_spec(spec, producer(unit[0].quantize.inputs[0])),
                gemm_slots([pair.dequantize.outputs[0] for pair in unit]),
            )
            reason = refusal(slots, layers, float(wide.scale))
            if reason is not None:
                ctx.warn(f"--activations int16: '{unit[0].name}' stays at 8 bits: {reason}")
                continue
            widen(unit, slots, layers, taken)
            changed = True
        return changed
