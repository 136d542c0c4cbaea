"""Outlier Suppression+ (Wei et al., 2023): centres every channel in the range, and scales the widest down.

    x' = (x - z) / s,  W' = W s,  b' = b + W z,      z_j = (max x_j + min x_j) / 2,  s_j = max(1, range_j / (2 t))

t is the half width that is left, tried on a grid. Only where all values between the layer that writes and the layers
that read are moved, not added or padded: what a convolution pads is 0, not z; a sum would need the shift of every
branch. The layers that read need a bias.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...equivalence.fold import Workspace, shift_refusal
from ...equivalence.levels import Levels
from ...equivalence.noise import RegionNoise
from ...equivalence.region_error import Trial
from ...equivalence.regions import Region
from ...equivalence.scaling import TRIAL_FEEDS, divided_noise, observed_regions, scalable_regions, spans_of
from ...equivalence.statistics import ChannelRange
from ...feeds.sources import feeds_of
from ...graph.ir import Graph
from ...pass_base import Context, Pass
from ...records import RegionChange

Array = NDArray[Any]

WIDTHS = (1.0, 0.8, 0.6, 0.4, 0.3, 0.2)
"""Half widths that are tried, relative to the widest channel's; 1 shifts only."""


def middles(seen: ChannelRange) -> Array:
    """``(max + min) / 2`` of each channel."""
    return (seen.high + seen.low) / 2


def narrowing(half: Array, width: float) -> Array:
    """``max(1, half / (width max half))`` of each channel."""
    return np.maximum(1.0, half / max(width * float(half.max(initial=0.0)), 1e-30))


@dataclass(frozen=True)
class ShiftChannels(Pass):
    """Channels in the middle of their tensor's range.

    Attributes:
        feeds: calibration feeds to see ranges on.
        gain: least part of a region's noise that must go for it to be changed.
    """

    name: ClassVar[str] = "shift-channels"
    exact: ClassVar[bool] = True
    feeds: int = 32
    gain: float = 0.1

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a channel was shifted."""
        regions = list(self._regions(graph, ctx))
        if not regions:
            return False
        data = list(islice(feeds_of(graph, ctx), 2 * self.feeds))
        trial = Trial.on(graph, data[1::2][:TRIAL_FEEDS] or data)
        work = Workspace(graph)
        for noise in observed_regions(graph, regions, data[::2]):
            offsets, divisors, before, after = self._best(noise, trial)
            if after < (1 - self.gain) * before:
                work.shift(noise.region, offsets)
                work.scale(noise.region, 1 / divisors)
                ctx.report.regions.append(
                    RegionChange(self.name, noise.region.name, "shift", noise.region.classes, before, after)
                )
        return work.commit(ctx.batchnorm)

    def _regions(self, graph: Graph, ctx: Context) -> Iterator[Region]:
        for region in scalable_regions(graph, ctx, clips=False):
            reason = shift_refusal(graph, region)
            if reason is None:
                yield region
            else:
                ctx.declined(region.node, reason)

    def _best(self, noise: RegionNoise, trial: Trial) -> tuple[Array, Array, float, float]:
        """Offsets [C] and divisors [classes] of least predicted noise, and what is measured before and after."""
        region = noise.region
        offsets = middles(noise.grids[0][0][1])
        shifted = replace(
            noise, grids=[[(place, _moved(seen, offsets)) for place, seen in grid] for grid in noise.grids]
        )
        candidates = [narrowing(shifted.largest, width) for width in WIDTHS]
        predicted = [shifted.total(divisors, Levels()) for divisors in candidates]
        divisors = candidates[int(np.argmin(predicted))]

        def transform(work: Workspace, here: Region) -> None:
            work.shift(here, offsets)
            work.scale(here, 1 / divisors)

        before = divided_noise(trial, noise, np.ones(region.classes), Levels())
        return offsets, divisors, before, trial.noise(region, transform, spans_of(shifted, divisors), Levels())


def _moved(seen: ChannelRange, offsets: Array) -> ChannelRange:
    return ChannelRange(seen.low - offsets, seen.high - offsets, seen.square)
