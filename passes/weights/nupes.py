"""Gives every layer the power grid whose exponent suits its weights (PowerQuant, NUPES).

Codes q of b bits stand for ``scale * sign(q) |q|^(1/a)``. Exponent and clipping compete, so every exponent is judged
under the best scale of each output channel, and by the nearest level, not by rounding in the power domain; ``a = 1``
(uniform) stands where nothing does better. The power keeps products but not sums: levels are decoded, to int8, before
anything is added up.

With ``learn`` exponent and codes are chosen together, on the outputs of the layer: for each exponent error feedback
(`qcompiler.solvers.Gptq`) picks the codes among all levels, not only those next to a weight, and the exponent whose
codes lose least is taken where it also loses less on inputs that it was not fitted to. No gradient of ``|w|^a`` occurs,
which has none at 0, and the exponent stays within bounds. (Taking turns, an exponent for fixed codes and codes for it,
does not move: codes are best for the exponent that they were chosen for.)

The graph stays as it is: the grids go to ``ctx.grids``; `reconstruct-layers` chooses the codes that stay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...graph.ir import Graph
from ...graph.layers import has_bias
from ...grids import Grid, GridFamily, grid_named, minimize, power
from ...pass_base import Context, Pass
from ...solvers import Gptq
from ...solvers.problem import LayerProblem, loss
from ...weights.observed import Observed, loose_weights, observed_layers

LOWEST, HIGHEST, REACH = 0.35, 1.2, 0.15
"""Bounds of an exponent, and how far learning moves it."""


@dataclass(frozen=True)
class Nupes(Pass):
    """Power grids for the weights of all layers.

    Attributes:
        bits: of a code.
        block: weights along K that share a scale, 32, 64 or 128; 0: one scale per output channel.
        weighted: errors count as much as the inputs they meet; False needs no data.
        learn: exponents together with codes; needs ``weighted``.
    """

    name: ClassVar[str] = "nupes"
    exact: ClassVar[bool] = True
    bits: int = 4
    block: int = 0
    weighted: bool = True
    learn: bool = False

    def __post_init__(self) -> None:
        self._family()
        if self.learn and not self.weighted:
            raise ValueError("learn=True needs weighted=True")

    def _family(self) -> GridFamily:
        return grid_named(f"power{self.bits}/{self.block}" if self.block else f"power{self.bits}")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Choose the exponents; False, as the graph stays as it is."""
        for observed in observed_layers(graph, ctx, weighted=self.weighted):
            grid = self._family().fit(observed.weight, observed.metric)
            learns = self.learn and self.bits > 2
            ctx.grids[observed.layer.node.name] = _learned(observed, grid, self.bits, ctx.seed) if learns else grid
        for node, _ in loose_weights(graph):
            ctx.grids[node.name] = self._family()  # `round-weights` fits it to each weight
        return False


def _learned(observed: Observed, start: Grid, bits: int, seed: int) -> Grid:
    """The power grid near ``start`` of least GPTQ loss, if it also loses less than ``start`` on held-out vectors."""
    if observed.fit is None or observed.held is None or start.exponent is None:
        return start
    fit, held = (
        LayerProblem(observed.weight, side.gram, side.mean, start, has_bias(observed.layer))
        for side in (observed.fit, observed.held)
    )

    def losses(grid: Grid) -> tuple[float, float]:
        weight = Gptq().solve(replace(fit, grid=grid), None, seed).weight(grid.block)
        return loss(fit, weight), loss(held, weight)

    def fit_loss(exponents: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array(
            [losses(power(float(exponent), bits, start.block, start.largest))[0] for exponent in exponents.reshape(-1)]
        )

    middle = start.exponent
    exponent, _ = minimize(fit_loss, np.linspace(max(middle - REACH, LOWEST), min(middle + REACH, HIGHEST), 5), 3)
    learned = power(float(exponent.reshape(-1)[0]), bits, start.block, start.largest)
    return learned if losses(learned)[1] < losses(start)[1] else start
