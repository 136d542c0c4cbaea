"""Lets grids cover what all calibration feeds show, when the graph has been measured on those that were held out.

What `quantize-activations` took from the fitted feeds becomes what it took from all (`activations.settle`). A range
grows with the values that are added, and may shrink by about a percent, as more values need less room beyond the
largest one; the lowering proves anew that accumulators stay within 32 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...activations.settle import settle
from ...graph.ir import Graph
from ...pass_base import Context, Pass


@dataclass(frozen=True)
class SettleRanges(Pass):
    """The ranges of all calibration feeds."""

    name: ClassVar[str] = "settle-ranges"

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Replace the grids; True when one changed."""
        return settle(graph, ctx.final_grids)
