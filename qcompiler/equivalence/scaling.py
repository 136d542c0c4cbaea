"""What the passes that scale channels by measured noise share: regions, candidates, and the choice among them.

The calibration feeds are split: on every other one the ranges are seen and the candidates are made and ranked by
predicted noise; on the rest the best few are tried (`qcompiler.equivalence.region_error`). A region is changed only
where the outputs then err less by a stated part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.equivalence.fold import Workspace
from qcompiler.equivalence.levels import Levels
from qcompiler.equivalence.noise import RegionNoise, grid_range, region_noise
from qcompiler.equivalence.region_error import Span, Trial
from qcompiler.equivalence.regions import Region, find_regions
from qcompiler.equivalence.statistics import channel_ranges
from qcompiler.feeds.sources import feeds_of
from qcompiler.graph.ir import Constant, Feed, Graph
from qcompiler.graph.placement import place
from qcompiler.pass_base import Context
from qcompiler.records import RegionChange

Array = NDArray[Any]
Candidates = Callable[[RegionNoise], Iterable[Array]]
"""Divisors worth trying for a region, float64 [classes] each."""

TRIALS = 3
"""Candidates of a region that are tried: those of least predicted noise."""

TRIAL_FEEDS = 6
"""Feeds on which candidates are tried."""

SMALLEST = 1e-5
"""Lower bound of a channel's size, relative to the largest one's."""


def refusal(region: Region, *, clips: bool) -> str | None:
    """Why a region cannot be scaled for its readers' sake; None where it can."""
    if region.classes == 0:
        return region.reasons[0][1] if region.reasons else "its channels are tied to their own inverse"
    if not region.ends(writes=False, role="weight") and not region.has_inverse:
        return "no layer reads it"
    return "it passes a Clip" if not clips and region.ends(writes=True, role="bounds") else None


def scalable_regions(graph: Graph, ctx: Context, *, clips: bool) -> Iterator[Region]:
    """The regions that may be scaled; the others are declined."""
    for region in find_regions(graph):
        reason = refusal(region, clips=clips)
        if reason is None:
            yield region
        else:
            ctx.declined(region.node, reason)


def power_divisors(x: Array, x_power: float, w: Array, w_power: float) -> Array:
    """``x^x_power / w^w_power`` of each class, their geometric mean 1; 1 for one that is always 0 or never read."""
    live = (x > 0) & (w > 0)
    if not live.any():
        return np.ones_like(x)
    large_x, large_w = (np.maximum(values, SMALLEST * values.max()) for values in (x, w))
    exponent = np.where(live, x_power * np.log(large_x) - w_power * np.log(large_w), 0.0)
    return np.where(live, np.exp(exponent - exponent[live].mean()), 1.0)


def observed_regions(graph: Graph, regions: Sequence[Region], data: Iterable[Feed]) -> list[RegionNoise]:
    """The noise of each region, from feeds."""
    grids = {
        tensor.name: group.name
        for group in place(graph).groups
        for tensor in group.tensors
        if not isinstance(tensor, Constant)
    }
    read = {spot.tensor.name for region in regions for spot, _ in region.ends(writes=False, role="weight")}
    watched = {
        spot.tensor.name: spot
        for region in regions
        for spot in region.places
        if spot.tensor.name in read or spot.tensor.name in grids
    }
    seen = channel_ranges(graph, list(watched.values()), data)
    return [region_noise(region, seen, grids) for region in regions]


def scale_regions(
    graph: Graph,
    ctx: Context,
    regions: Sequence[Region],
    candidates: Candidates,
    levels: Levels,
    *,
    feeds: int,
    gain: float,
) -> bool:
    """Divide each region by the candidate of least noise where it removes the part ``gain`` of it; True if any was."""
    if not regions:
        return False
    data = list(islice(feeds_of(graph, ctx), 2 * feeds))
    trial = Trial.on(graph, data[1::2][:TRIAL_FEEDS] or data)
    work = Workspace(graph)
    for noise in observed_regions(graph, regions, data[::2]):
        best = _best(noise, list(candidates(noise)), trial, levels, gain)
        if best is not None:
            divisors, before, after = best
            work.scale(noise.region, 1 / divisors)
            ratios = (range_ratio(noise.largest), range_ratio(noise.largest / divisors))
            ctx.report.regions.append(
                RegionChange(ctx.running, noise.region.name, "diagonal", noise.region.classes, before, after, *ratios)
            )
    return work.commit(ctx.batchnorm)


def range_ratio(ranges: Array) -> float:
    """Largest over smallest range of a channel that is not always 0."""
    live = ranges[ranges > 0]
    return float(live.max() / live.min()) if live.size else 1.0


def spans_of(noise: RegionNoise, divisors: Array) -> list[Span]:
    """The grids of a region whose classes are divided by ``divisors``."""
    numbers = {id(place): number for number, place in enumerate(noise.region.places)}
    return [Span([numbers[id(place)] for place, _ in grid], *grid_range(grid, divisors)) for grid in noise.grids]


def divided_noise(trial: Trial, noise: RegionNoise, divisors: Array, levels: Levels) -> float:
    """Measured noise of a region whose classes are divided by ``divisors``."""
    return trial.noise(
        noise.region, lambda work, region: work.scale(region, 1 / divisors), spans_of(noise, divisors), levels
    )


def _best(
    noise: RegionNoise, candidates: Sequence[Array], trial: Trial, levels: Levels, gain: float
) -> tuple[Array, float, float] | None:
    """The candidate of least noise, with the noise before and after; None where none is good enough."""
    identity = np.ones(noise.region.classes)
    limit = noise.total(identity, levels) if noise.readers else np.inf  # without readers nothing is predicted
    predicted = [noise.total(divisors, levels) for divisors in candidates]
    promising = [
        candidates[index] for index in np.argsort(predicted, kind="stable")[:TRIALS] if predicted[index] < limit
    ]
    if not promising:
        return None
    before = divided_noise(trial, noise, identity, levels)
    measured = [divided_noise(trial, noise, divisors, levels) for divisors in promising]
    best = int(np.argmin(measured))
    return (promising[best], before, measured[best]) if measured[best] < (1 - gain) * before else None
