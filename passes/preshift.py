"""Powers of two between layers (the pre-shifted exponent bias of Liu et al., "LLM-FP4", 2023): SmoothQuant whose divisors are 2^k.

Every weight, bias and gain is multiplied by a power of two, so every product and every sum keeps its bits: the float outputs are unchanged to the
last one (as long as nothing leaves float32's range of exponents). The divisors are those of `smooth-activations`, rounded in the exponent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..equivalence.levels import Levels
from ..equivalence.noise import RegionNoise
from ..ir import Graph
from ..pass_base import Context, Pass
from ._region_noise import scalable_regions, scale_regions
from .smooth_activations import smoothing_divisors

Array = NDArray[Any]

LARGEST_SHIFT = 15
"""Exponents lie between this and its negative."""


def power_of_two(divisors: Array) -> Array:
    """The nearest powers of two, in the exponent."""
    return np.asarray(np.exp2(np.clip(np.rint(np.log2(divisors)), -LARGEST_SHIFT, LARGEST_SHIFT)))


def shifted_divisors(noise: RegionNoise) -> Iterator[Array]:
    """Those of `smoothing_divisors`, as powers of two."""
    yield from (power_of_two(divisors) for divisors in smoothing_divisors(noise))


@dataclass(frozen=True)
class Preshift(Pass):
    """Channels scaled by powers of two: bit-exact in float.

    Attributes:
        feeds: calibration feeds to see ranges on.
        gain: least part of a region's noise that must go for it to be changed.
        clips: also through Clip, which then costs a Min behind it.
    """

    name: ClassVar[str] = "preshift"
    exact: ClassVar[bool] = True
    feeds: int = 32
    gain: float = 0.1
    clips: bool = False

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a channel was scaled."""
        regions = list(scalable_regions(graph, ctx, clips=self.clips))
        return scale_regions(graph, ctx, regions, shifted_divisors, Levels(), feeds=self.feeds, gain=self.gain)
