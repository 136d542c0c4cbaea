"""Gives every layer the power grid whose exponent suits its weights (PowerQuant, NUPES).

Codes q of b bits stand for ``scale * sign(q) |q|^(1/a)``. Exponent and clipping compete, so every exponent is judged under the best scale of
each output channel, and by the nearest level, not by rounding in the power domain; ``a = 1`` (uniform) stands where nothing does better. The
power keeps products but not sums: levels are decoded, to int8, before anything is added up. The codes themselves are the solver's
(`reconstruct-layers`), which reaches every level.

The graph stays as it is: the grids go to ``ctx.grids``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..grids import GridFamily, grid_named
from ..ir import Graph
from ..pass_base import Context, Pass
from ._grids import observed_layers


@dataclass(frozen=True)
class Nupes(Pass):
    """Power grids for the weights of all layers.

    Attributes:
        bits: of a code.
        block: products along a row that share a scale; 0: the whole row.
        weighted: errors count as much as the inputs they meet; False needs no data.
    """

    name: ClassVar[str] = "nupes"
    exact: ClassVar[bool] = True
    bits: int = 4
    block: int = 0
    weighted: bool = True

    def __post_init__(self) -> None:
        self._family()

    def _family(self) -> GridFamily:
        return grid_named(f"power{self.bits}", self.block or None)

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Choose the exponents; False, as the graph stays as it is."""
        for observed in observed_layers(graph, ctx, weighted=self.weighted):
            ctx.grids[observed.layer.node.name] = self._family().fit(observed.weight, observed.metric)
        return False
