"""QuaRot (Ashkboos et al., 2024): a randomized Hadamard matrix spreads outliers over the channels of a block.

    x' = R x,  W' = W R^T,      R = H D / sqrt(n),  D random signs

Folded on both sides, it costs nothing to run. It fits where nothing but linear operators lie between: the values of an
attention, head by head, from their projection to the output projection; queries and keys; residual streams without a
normalization in between. A LayerNormalization's gain is a diagonal, so what it writes stays as it is. Blocks whose size
is no power of two are rotated in parts that are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...equivalence.fold import Workspace
from ...equivalence.hadamard import hadamard
from ...equivalence.levels import Levels
from ...equivalence.mixing import mixable_regions, sampled_regions
from ...equivalence.regions import Region
from ...graph.ir import Graph
from ...pass_base import Context, Pass
from ...records import RegionChange

Array = NDArray[Any]


def rotations(region: Region, rng: np.random.Generator) -> Array:
    """A random rotation of every block: float64 [C / block, block, block]."""
    block, channels = region.block, region.places[0].channels
    part = block & -block
    matrices = np.zeros((channels // block, block, block))
    for start in range(0, block, part):
        signs = rng.choice([-1.0, 1.0], (channels // block, 1, part))
        matrices[:, start:start + part, start:start + part] = hadamard(part) / np.sqrt(part) * signs
    return matrices


@dataclass(frozen=True)
class Rotate(Pass):
    """Outliers spread over the channels of a block.

    Attributes:
        bits: of the weights that will be.
        draws: random signs that are tried.
        feeds: calibration feeds to see ranges on.
        gain: least part of a region's noise that must go for it to be rotated.
    """

    name: ClassVar[str] = "rotate"
    exact: ClassVar[bool] = True
    bits: int = 8
    draws: int = 2
    feeds: int = 16
    gain: float = 0.1

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a region was rotated."""
        regions = list(mixable_regions(graph, ctx))
        if not regions:
            return False
        work, rng, levels = Workspace(graph), np.random.default_rng(ctx.seed), Levels(255, 2 ** (self.bits - 1) - 1)
        mixed, trial = sampled_regions(graph, regions, ctx, self.feeds)
        for found in mixed:
            before = found.noise(trial, found.identity(), levels)
            tried = [rotations(found.region, rng) for _ in range(self.draws)]
            noises = [found.noise(trial, matrices, levels) for matrices in tried]
            if noises and min(noises) < (1 - self.gain) * before:
                work.mix(found.region, tried[int(np.argmin(noises))])
                ctx.report.regions.append(
                    RegionChange(
                        self.name, found.region.name, "matrix", found.region.classes, before, min(noises), condition=1.0
                    )
                )
        return work.commit(ctx.batchnorm)
