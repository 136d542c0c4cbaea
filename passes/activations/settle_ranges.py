"""Lets grids cover what all calibration feeds show, when the graph has been measured on those that were held out.

A grid that is still the one `quantize-activations` took from the fitted feeds, or its 16-bit or signed form, becomes
the same form of the one from all feeds. Others (of few bits, on a curve) were searched and stay. A range grows with the
values that are added, and may shrink by about a percent, as more values need less room beyond the largest one; the
lowering proves anew that accumulators stay within 32 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ...activations.int16 import wide_spec
from ...activations.pairs import set_grid
from ...calibration.sensitivity import find_pairs
from ...graph.ir import Graph, Node, QuantSpec, names_in, producer, read_spec
from ...pass_base import Context, Pass


def _as_it_is(spec: QuantSpec, _source: Node | None) -> QuantSpec:
    return spec


def _wide(spec: QuantSpec, source: Node | None) -> QuantSpec:
    return wide_spec(spec, source) if spec.dtype == np.uint8 else spec


def _signed(spec: QuantSpec, _source: Node | None) -> QuantSpec:
    return (
        QuantSpec.per_tensor(float(spec.scale), int(spec.zero_point) - 128, np.int8) if spec.dtype == np.uint8 else spec
    )


_FORMS: tuple[Callable[[QuantSpec, Node | None], QuantSpec], ...] = (_as_it_is, _wide, _signed)


@dataclass(frozen=True)
class SettleRanges(Pass):
    """The ranges of all calibration feeds."""

    name: ClassVar[str] = "settle-ranges"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Replace the grids; True when one changed."""
        taken, changed = names_in(graph), False
        for pair in find_pairs(graph):
            now, source = read_spec(pair.quantize), producer(pair.quantize.inputs[0])
            if now is None or pair.name not in ctx.final_grids:
                continue
            fitted, final = ctx.final_grids[pair.name]
            form = next((form for form in _FORMS if now.same_as(form(fitted, source))), None)
            if form is not None and not now.same_as(form(final, source)):
                set_grid(pair, form(final, source), taken)
                changed = True
        return changed
