"""SmoothQuant (Xiao et al., 2023): moves quantization difficulty from activations to the weights that read them.

    x' = x / s,  W' = W s,      s_j = max|x_j|^a / max|W_j|^(1-a)

a = 0 makes the weights' columns equal, a = 1 the activations' channels. Every region gets the a of least noise, or
keeps s = 1 where none is better. All layers that read a tensor share s: the largest weight of any counts. Where two
activations are multiplied (Q and K of an attention), one is divided and the other one multiplied: ``s_j = (max|q_j| /
max|k_j|)^a``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from ...equivalence.levels import Levels
from ...equivalence.noise import RegionNoise
from ...equivalence.scaling import power_divisors, scalable_regions, scale_regions
from ...graph.ir import Graph
from ...pass_base import Context, Pass

Array = NDArray[Any]

ALPHAS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0)


def smoothing_divisors(noise: RegionNoise) -> Iterator[Array]:
    """The divisors of every a."""
    if not noise.readers:
        largest, inverse = noise.largest_by_side
        yield from (power_divisors(largest, alpha, inverse, alpha) for alpha in ALPHAS[1:5])
        return
    yield from (power_divisors(noise.largest, alpha, noise.columns, 1 - alpha) for alpha in ALPHAS)


@dataclass(frozen=True)
class SmoothActivations(Pass):
    """Smaller outlier channels.

    Attributes:
        feeds: calibration feeds to see ranges on.
        gain: least part of a region's noise that must go for it to be changed.
        clips: also through Clip, which then costs a Min behind it.
    """

    name: ClassVar[str] = "smooth-activations"
    exact: ClassVar[bool] = True
    feeds: int = 32
    gain: float = 0.1
    clips: bool = False

    def divisors(self, noise: RegionNoise) -> Iterator[Array]:
        """What is tried for a region: float64 [classes] each."""
        return smoothing_divisors(noise)

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a channel was scaled."""
        regions = list(scalable_regions(graph, ctx, clips=self.clips))
        return scale_regions(graph, ctx, regions, self.divisors, Levels(), feeds=self.feeds, gain=self.gain)
