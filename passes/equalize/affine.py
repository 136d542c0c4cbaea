"""AffineQuant (Ma et al., ICLR 2024): an invertible matrix between the layers that write and read a tensor.

    x' = A x,  W' = W A^-1

A is fitted region by region to the predicted noise of its grids (`qcompiler.equivalence.affine`), head by head between
the values and the output projection of an attention, from the diagonal that smoothing would choose. It is refused
unless every row is strictly diagonally dominant, and kept only where the outputs are seen to err less on feeds that it
was not fitted to. Both sides fold, so it costs nothing to run. Behind a LayerNormalization a full matrix would not fold
(its gain is a diagonal): such regions are for `smooth-activations`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ...equivalence.affine import MARGIN, AffineProblem, Fit, dominance, fit_matrix
from ...equivalence.fold import Workspace
from ...equivalence.levels import Levels
from ...equivalence.matrices import rows_of
from ...equivalence.mixing import Mixed, mixable_regions, sampled_regions
from ...equivalence.scaling import power_divisors
from ...feeds.sources import feeds_of
from ...graph.ir import Graph, Node, constant_of
from ...graph.runner import Runner
from ...linear_algebra import matmul
from ...pass_base import Context, Pass
from ...records import RegionChange

Array = NDArray[Any]

MOST_ROWS = 768
"""Approximate number of sample rows from which a range is taken."""

INPUT_FEEDS = 4
"""Feeds on which the mean square of the writers' inputs is measured."""


def _weight(node: Node) -> Array:
    """A layer's weight as [outputs, K], float64."""
    rows = rows_of(node, np.asarray(constant_of(node.inputs[1]), np.float64))
    return rows.reshape(len(rows), -1)


def affine_problem(found: Mixed, squares: Mapping[str, float], levels: Levels) -> AffineProblem:
    """What the matrix of a region shall minimize; ``squares``: mean square of the writers' inputs, by name."""
    region = found.region
    readers, gram = [], np.zeros((region.places[0].channels,) * 2)
    for place, end in region.ends(writes=False, role="weight"):
        weight, seen = _weight(end.node), found.samples[place.tensor.name].gram
        readers.append(weight / np.sqrt(max(float((matmul(weight, seen) * weight).sum()), 1e-30)))
        gram = np.maximum(gram, seen) if not readers[1:] else (gram + seen) / 2
    writers = [(weight, squares[end.node.inputs[0].name] * weight.shape[1]) for _,
    end in region.ends(writes=True, role="weight")
               for weight in [_weight(end.node)]]  # fmt: skip
    samples = [np.concatenate([found.samples[spot.tensor.name].rows for spot in grid]) for grid in found.grids]
    samples = [rows[:: max(len(rows) // MOST_ROWS, 1)] for rows in samples]
    return AffineProblem(samples, gram, readers, writers, region.block, levels)


def starting_diagonal(problem: AffineProblem) -> Array:
    """The diagonal of A of least predicted noise among those of SmoothQuant, [C]."""
    largest = np.max([np.abs(rows).max(axis=0) for rows in problem.samples], axis=0)
    columns = np.max([np.abs(reader).max(axis=0) for reader in problem.readers], axis=0)
    candidates = [
        np.ones(len(largest)),
        *(1 / power_divisors(largest, alpha, columns, 1 - alpha) for alpha in (0.5, 0.625, 0.75, 0.875)),
    ]
    eye = np.eye(problem.block)
    losses = [problem.loss(eye * diagonal.reshape(problem.blocks, problem.block, 1)) for diagonal in candidates]
    return np.asarray(candidates[int(np.argmin(losses))])


@dataclass(frozen=True)
class Affine(Pass):
    """A matrix of least noise between layers.

    Attributes:
        bits: of the weights that will be.
        epochs: bands of the gradual mask.
        steps: of descent in each.
        stability: factor of the elements beside the diagonal in a step.
        widest: width of the last band, relative to a block; 0 stays diagonal.
        feeds: calibration feeds to see activations on.
        gain: least part of a region's noise that must go for it to be changed.
    """

    name: ClassVar[str] = "affine"
    exact: ClassVar[bool] = True
    bits: int = 8
    epochs: int = 8
    steps: int = 20
    stability: float = 1.0
    widest: float = 1.0
    feeds: int = 16
    gain: float = 0.1

    def __post_init__(self) -> None:
        if not (0 <= self.widest <= 1 and self.epochs > 0 and self.steps > 0 and 2 <= self.bits <= 8):
            raise ValueError("widest must lie between 0 and 1, epochs and steps above 0, bits between 2 and 8")

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Rewrite ``graph`` in place; True when a region was changed."""
        regions = [region for region in mixable_regions(graph, ctx) if region.ends(writes=False, role="weight")]
        if not regions:
            return False
        levels = Levels(255, 2 ** (self.bits - 1) - 1)
        mixed, trial = sampled_regions(graph, regions, ctx, self.feeds)
        names = {end.node.inputs[0].name for region in regions for _, end in region.ends(writes=True, role="weight")}
        squares, work = self._mean_squares(graph, names, ctx), Workspace(graph)
        for found in mixed:
            fit = self._fit(found, squares, levels)
            if float(dominance(fit.matrices).min()) < MARGIN:
                ctx.declined(found.region.node, "its matrix is not strictly diagonally dominant")
                continue
            before, after = found.noise(trial, found.identity(), levels), found.noise(trial, fit.matrices, levels)
            if after < (1 - self.gain) * before:
                work.mix(found.region, fit.matrices)
                ctx.report.regions.append(
                    RegionChange(
                        self.name,
                        found.region.name,
                        "matrix",
                        found.region.classes,
                        before,
                        after,
                        condition=fit.condition,
                    )
                )
        return work.commit(ctx.batchnorm)

    def _fit(self, found: Mixed, squares: Mapping[str, float], levels: Levels) -> Fit:
        """The best matrix of a region."""
        problem = affine_problem(found, squares, levels)
        return fit_matrix(
            problem,
            starting_diagonal(problem),
            epochs=self.epochs,
            steps=self.steps,
            stability=self.stability,
            widest=self.widest,
        )

    def _mean_squares(self, graph: Graph, names: set[str], ctx: Context) -> dict[str, float]:
        """Mean square of some tensors over a few feeds."""
        runner, sums = Runner(graph, sorted(names)), dict.fromkeys(names, 0.0)
        data = list(islice(feeds_of(graph, ctx), INPUT_FEEDS))
        for feed in data:
            for name, values in runner.run(feed).items():
                sums[name] += float(np.square(values, dtype=np.float64).mean()) / len(data)
        return sums
