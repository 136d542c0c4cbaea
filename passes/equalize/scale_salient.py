"""AWQ (Lin et al., 2024): weights that meet large activations are rounded more finely.

    x' = x / s,  W' = W s,      s_j = rms(x_j)^r,  r in {0, 0.1 ... 1}

Only the noise of rounded weights counts, so this is for weights of few bits beside activations of many. Divided by the
geometric mean, so that ``s = 1`` for r = 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...equivalence.levels import Levels
from ...equivalence.noise import RegionNoise
from ...equivalence.scaling import power_divisors, scalable_regions, scale_regions
from ...graph.ir import Graph
from ...pass_base import Context, Pass

Array = NDArray[Any]

WIDE = 65535
"""Steps of an activation grid whose noise is negligible."""


def salient_divisors(noise: RegionNoise) -> Iterator[Array]:
    """The divisors of every r."""
    size = np.sqrt(np.max([r.place.gather(r.square, noise.region.classes) for r in noise.readers], axis=0))
    yield from (power_divisors(size, float(power), np.ones_like(size), 0.0) for power in np.arange(1, 11) / 10)


@dataclass(frozen=True)
class ScaleSalient(Pass):
    """Finer steps for the weights that matter most.

    Attributes:
        bits: of the weights.
        feeds: calibration feeds to see activations on.
        gain: least part of a region's noise that must go for it to be changed.
    """

    name: ClassVar[str] = "scale-salient"
    exact: ClassVar[bool] = True
    bits: int = 4
    feeds: int = 32
    gain: float = 0.05

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise ValueError(f"bits must be between 2 and 8, not {self.bits}")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a channel was scaled."""
        regions = [
            region for region in scalable_regions(graph, ctx, clips=False) if region.ends(writes=False, role="weight")
        ]
        levels = Levels(WIDE, 2 ** (self.bits - 1) - 1)
        return scale_regions(graph, ctx, regions, salient_divisors, levels, feeds=self.feeds, gain=self.gain)
