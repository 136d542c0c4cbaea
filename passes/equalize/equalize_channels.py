"""Cross-layer equalization (Nagel et al., "Data-Free Quantization", 2019, section 4.1), for whole regions.

Where a channel x of a tensor is written by weights of range r1 and read by weights of range r2, dividing it by ``s =
sqrt(r1 / r2)`` gives both the range ``sqrt(r1 r2)``. In a region with several writers or readers (branches of a
residual sum, a Concat) every range is taken relative to the largest of its layer, and the largest counts: all branches
share one scale. A depthwise convolution between two pointwise ones lies in two regions; repeating the step over all
regions until nothing moves makes the three ranges equal.

A Clip that is crossed gets one bound a channel: a Min with a vector behind a Clip with the widest bounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...equivalence.fold import Workspace
from ...equivalence.regions import Region, find_regions
from ...graph.ir import Graph
from ...pass_base import Context, Pass
from ...records import RegionChange

LARGEST_RATIO = 1e4
"""A channel is divided by at most this and at least its inverse."""

CONVERGED = 1e-3
"""Largest relative change of a scale at convergence."""

Array = NDArray[Any]


def refusal(region: Region, *, clips: bool) -> str | None:
    """Why a region cannot be equalized; None where it can."""
    if region.classes == 0:
        return region.reasons[0][1] if region.reasons else "its channels are tied to their own inverse"
    written = {end.role for _, end in region.ends(writes=True)}
    if "weight" not in written or not written <= {"weight", "operand", "bounds"}:
        return "what writes it is not a layer"
    if not region.ends(writes=False, role="weight") and not region.has_inverse:
        return "no layer reads it"
    return "it passes a Clip" if not clips and "bounds" in written else None


def relative_ranges(region: Region, work: Workspace) -> tuple[Array, Array]:
    """Largest writing and reading weight of each class relative to its layer's largest: float64 [classes] each.

    A channel that takes the inverse of its class counts on the other side.
    """
    sides = np.zeros((2, region.classes))
    for writes in (True, False):
        for place, end in region.ends(writes=writes, role="weight"):
            parts = work.rows(end.node) if writes else work.columns(end.node)
            largest = np.abs(parts).max(axis=(1, 2), initial=0.0)
            ranges = largest / max(float(largest.max(initial=0.0)), 1e-30)
            for inverse in (False, True):
                live = np.where(place.inverse == inverse, ranges, 0.0)
                side = 0 if writes != inverse else 1
                sides[side] = np.maximum(sides[side], place.gather(live, region.classes))
    return sides[0], sides[1]


def smallest_range(region: Region, work: Workspace) -> float:
    """Smallest weight range of a channel that is not always 0, relative to the largest of its layer."""
    ranges = np.concatenate(relative_ranges(region, work))
    return float(ranges[ranges > 0].min(initial=1.0))


def equalizing_factors(written: Array, read: Array) -> Array:
    """What each class is multiplied by: ``sqrt(read / written)``, 1 where one of them is 0."""
    live = (written > 0) & (read > 0)
    ratio = np.where(live, read, 1.0) / np.where(live, written, 1.0)
    return np.sqrt(np.clip(ratio, LARGEST_RATIO**-2, LARGEST_RATIO**2))


@dataclass(frozen=True)
class EqualizeChannels(Pass):
    """Equal weight ranges along the channels between layers.

    Attributes:
        iterations: rounds over all regions, at most.
        clips: also through Clip, which then costs a Min behind it.
    """

    name: ClassVar[str] = "equalize-channels"
    exact: ClassVar[bool] = True
    iterations: int = 40
    clips: bool = True

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a channel was scaled."""
        work = Workspace(graph)
        regions = list(self._regions(graph, ctx))
        before = [smallest_range(region, work) for region in regions]
        for _ in range(self.iterations):
            largest = max((self._step(region, work) for region in regions), default=0.0)
            if largest < CONVERGED:
                break
        for region, known in zip(regions, before, strict=True):
            ratios = (1 / known, 1 / smallest_range(region, work))
            ctx.report.regions.append(
                RegionChange(self.name, region.name, "diagonal", region.classes, None, None, *ratios)
            )
        return work.commit(ctx.batchnorm)

    def _regions(self, graph: Graph, ctx: Context) -> Iterator[Region]:
        for region in find_regions(graph):
            reason = refusal(region, clips=self.clips)
            if reason is None:
                yield region
            else:
                ctx.declined(region.node, reason)

    def _step(self, region: Region, work: Workspace) -> float:
        """Equalize one region; how far the scales moved."""
        factors = equalizing_factors(*relative_ranges(region, work))
        work.scale(region, factors)
        return float(np.abs(np.log(factors)).max(initial=0.0))
