"""What passes that mix channels share: regions that admit a matrix, samples of their channels, and its trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.equivalence.levels import Levels
from qcompiler.equivalence.region_error import Span, Trial
from qcompiler.equivalence.regions import Place, Region, find_regions
from qcompiler.equivalence.scaling import TRIAL_FEEDS
from qcompiler.equivalence.statistics import Samples, sample_channels
from qcompiler.feeds.sources import feeds_of
from qcompiler.graph.ir import Constant, Graph, Node, constant_of
from qcompiler.graph.placement import place
from qcompiler.linear_algebra import inverse as inverse_of
from qcompiler.pass_base import Context

Array = NDArray[Any]

ROOM = 1.05
"""Range of a tried grid relative to that of the samples: the final grid covers every value of every feed."""

MOST_CHANNELS = 1536
"""Most channels of a region that is mixed: Gram matrices and inverses would be too large."""


def _is_dense(node: Node) -> bool:
    """True for a layer that multiplies all its input channels by one matrix, without taps."""
    weight = constant_of(node.inputs[1])
    return weight is not None and int(node.attrs.get("group", 1)) == 1 and int(np.prod(weight.shape[2:])) == 1


def refusal(region: Region) -> str | None:
    """Why the channels of a region cannot be mixed; None where they can."""
    if region.classes == 0:
        return region.reasons[0][1] if region.reasons else "its channels are tied to their own inverse"
    if region.block == 1:
        return "what lies between its layers admits a diagonal only"
    if not region.ends(writes=False, role="weight") and not region.has_inverse:
        return "no layer reads it"
    if region.places[0].channels > MOST_CHANNELS:
        return f"it has more than {MOST_CHANNELS} channels"
    return (
        None
        if all(_is_dense(end.node) for _, end in region.ends(writes=False, role="weight"))
        else "a layer that reads it has groups or taps"
    )


@dataclass(frozen=True, eq=False)
class Mixed:
    """A region whose channels may be mixed.

    Attributes:
        region: the region.
        samples: of its tensors that have a grid or are read by a layer, by name.
        grids: for each grid, its places.
    """

    region: Region
    samples: Mapping[str, Samples]
    grids: Sequence[Sequence[Place]]

    def spans(self, matrices: Array) -> list[Span]:
        """The grids under blocks [C / block, block, block] of a matrix; places that take the inverse have it."""
        numbers = {id(spot): number for number, spot in enumerate(self.region.places)}
        inverse = inverse_of(matrices).transpose(0, 2, 1)
        found = []
        for grid in self.grids:
            values = [
                _times(inverse if spot.inverse.any() else matrices, self.samples[spot.tensor.name].rows)
                for spot in grid
            ]
            low, high = (float(pick([pick(rows) for rows in values])) for pick in (np.min, np.max))
            found.append(Span([numbers[id(spot)] for spot in grid], ROOM * min(low, 0.0), ROOM * max(high, 0.0)))
        return found

    def noise(self, trial: Trial, matrices: Array, levels: Levels) -> float:
        """Measured noise under a matrix."""
        return trial.noise(self.region, lambda work, region: work.mix(region, matrices), self.spans(matrices), levels)

    def identity(self) -> Array:
        """Blocks that change nothing."""
        block = self.region.block
        return np.broadcast_to(np.eye(block), (self.region.places[0].channels // block, block, block))


def _times(matrices: Array, rows: Array) -> Array:
    blocks, block = matrices.shape[:2]
    return np.asarray(np.einsum("bij,nbj->nbi", matrices, rows.reshape(-1, blocks, block)))


def mixable_regions(graph: Graph, ctx: Context) -> Iterator[Region]:
    """The regions that may be mixed; the others are declined."""
    for region in find_regions(graph):
        reason = refusal(region)
        if reason is None:
            yield region
        else:
            ctx.declined(region.node, reason)


def sampled_regions(graph: Graph, regions: Sequence[Region], ctx: Context, feeds: int) -> tuple[list[Mixed], Trial]:
    """The regions with samples from every other feed, and a trial on the rest."""
    data = list(islice(feeds_of(graph, ctx), 2 * feeds))
    grids = {
        tensor.name: group.name
        for group in place(graph).groups
        for tensor in group.tensors
        if not isinstance(tensor, Constant)
    }
    read = {spot.tensor.name for region in regions for spot, _ in region.ends(writes=False, role="weight")}
    watched = [
        spot for region in regions for spot in region.places if spot.tensor.name in read or spot.tensor.name in grids
    ]
    samples = sample_channels(graph, watched, data[::2], ctx.seed)
    found = []
    for region in regions:
        by_grid: dict[str, list[Place]] = {}
        for spot in region.places:
            if spot.tensor.name in grids:
                by_grid.setdefault(grids[spot.tensor.name], []).append(spot)
        found.append(Mixed(region, samples, list(by_grid.values())))
    return found, Trial.on(graph, data[1::2][:TRIAL_FEEDS] or data)
