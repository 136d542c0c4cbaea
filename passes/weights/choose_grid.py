"""Gives every layer the grid that loses least at the given storage, by measured loss.

Each candidate is fitted to the layer's weight, the weight put on its nearest levels under the best scales, and the
error of the layer's outputs taken from moments of inputs that nothing was fitted to. Without data, and for LSTM, GRU
and transposed convolutions (`round-weights`), the error of the weights themselves decides.

The graph stays as it is: the grids go to ``ctx.grids``, all the losses to the report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ...errors import OptionError
from ...graph.ir import Graph, Node
from ...grids import GridFamily, grid_named
from ...pass_base import Context, Pass
from ...records import GridChoice
from ...weights.observed import loose_weights, observed_layers, output_loss, weight_loss

CANDIDATES: dict[int, tuple[str, ...]] = {
    2: ("int2", "kmeans2"),
    3: ("int3", "power3", "post3", "kmeans3", "split1"),
    4: ("int4", "power4", "post4", "nf4", "fp4_e2m1", "fp4_e3m0", "fp4_bnb", "kmeans4", "split2"),
    5: ("int5", "power5", "post5", "kmeans5", "split3"),
    6: ("int6", "power6", "kmeans6"),
    8: ("int8",),
}
"""Candidate grids by bits per code; the first of equal ones (uniform) is taken."""


@dataclass(frozen=True)
class ChooseGrid(Pass):
    """The grid of least loss for the weights of every layer.

    Attributes:
        bits: of a stored code: 2, 3, 4, 5, 6 or 8.
        block: weights along K that share a scale, 32, 64 or 128; 0: one scale per output channel.
        candidates: names of grids, separated by spaces; empty: all of these bits.
        weighted: errors of outputs decide; False: errors of weights, without data.
    """

    name: ClassVar[str] = "choose-grid"
    exact: ClassVar[bool] = True
    bits: int = 4
    block: int = 0
    candidates: str = ""
    weighted: bool = True

    def __post_init__(self) -> None:
        if self.bits not in CANDIDATES:
            raise OptionError(f"choose-grid: bits is one of {', '.join(map(str, CANDIDATES))}, not {self.bits}")
        self._families()

    def _families(self) -> list[GridFamily]:
        return [
            grid_named(f"{name}/{self.block}" if self.block else name)
            for name in self.candidates.split() or CANDIDATES[self.bits]
        ]

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Choose the grids; False, as the graph stays as it is."""
        families = self._families()
        for observed in observed_layers(graph, ctx, weighted=self.weighted):
            best = _best(
                observed.layer.node, families, [output_loss(observed, family) for family in families], self.bits, ctx
            )
            ctx.grids[observed.layer.node.name] = best.fit(observed.weight, observed.metric)
        for node, weights in loose_weights(graph):
            ctx.grids[node.name] = _best(
                node, families, [weight_loss(weights, family) for family in families], self.bits, ctx
            )
        return False


def _best(node: Node, families: list[GridFamily], losses: list[float], bits: int, ctx: Context) -> GridFamily:
    """The grid of least loss; all losses go to the report."""
    best = families[losses.index(min(losses))]
    table = {family.name: value for family, value in zip(families, losses, strict=True)}
    ctx.report.grids.append(GridChoice(node.name, best.name, bits, table))
    return best
