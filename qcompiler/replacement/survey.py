"""Searches replacements of a region: feature maps of many kinds and sizes, fitted in closed form, compared held out.

All maps are observed in one run over the feeds. A family is a nested sequence of features, so its normal equations hold
those of every smaller size; of the region's own neurons there are as many families as there are orders to take them in,
all on the same equations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Graph
from qcompiler.replacement.chains import Region, matrix_of
from qcompiler.replacement.cost import Cost, bundle_cost, most_features
from qcompiler.replacement.features import FeatureMap, InputScale, draw_map
from qcompiler.replacement.fit import Fit, NormalEquations, best_ridge
from qcompiler.replacement.neurons import ORDERS, neuron_order
from qcompiler.replacement.observe import Batch, Observed
from qcompiler.replacement.rewrite import write_bundle

__all__ = ["KINDS", "Menu", "Replacement", "Survey", "survey"]

Array = NDArray[Any]

KINDS = ("neurons", "relu", "cos", "product")
"""Kinds of feature maps: some of the region's own neurons, or drawn ones."""

WIDTHS = {"relu": (1.0,), "cos": (0.25, 0.5, 1.0), "product": (1.0,)}
"""Deviations of the projections of drawn maps that are tried."""

_PROBED_FEEDS = 8
"""Feeds from which the scale of the inputs is taken."""


@dataclass(frozen=True)
class Menu:
    """What may be tried.

    Attributes:
        kinds: some of `KINDS`.
        directions: how drawn maps are drawn (`qcompiler.replacement.features.DIRECTIONS`).
        skips: whether maps with an affine skip, without one, or both are tried.
        affine: whether an affine function without any features is tried.
        seed: of the draws.
    """

    kinds: Sequence[str] = KINDS
    directions: str = "orthogonal"
    skips: Sequence[bool] = (True, False)
    affine: bool = True
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Replacement:
    """A region, a feature map, its closed-form fit and its cost.

    Attributes:
        region: what it stands for.
        kind: ``affine`` (no features at all), or one of `KINDS`, with how neurons were chosen or the width of a drawn
            map.
        features: a drawn map, or indices of neurons of the region's first layer.
        fit: over the features and, with a skip, the inputs.
        skip: it has an affine skip.
        cost: what it costs.
    """

    region: Region
    kind: str
    features: FeatureMap | NDArray[np.int64]
    fit: Fit
    skip: bool
    cost: Cost

    @property
    def count(self) -> int:
        """Number of features."""
        return self.features.count if isinstance(self.features, FeatureMap) else len(self.features)

    @property
    def title(self) -> str:
        """Kind, size, and whether there is a skip."""
        return f"{self.count} {self.kind}{' + skip' if self.skip and self.count else ''}" if self.count else "affine"

    def write(self, graph: Graph, region: Region) -> None:
        """Put it into a graph in the place of ``region``, its own one or that of a copy."""
        weight = self.fit.weight
        write_bundle(
            graph,
            region,
            self.features,
            weight[:, : self.count],
            weight[:, self.count :] if self.skip else None,
            self.fit.bias,
        )


@dataclass(eq=False)
class _Family:
    """Normal equations over ``(features, inputs, 1)`` to fit on and held out."""

    kind: str
    drawn: FeatureMap | None
    fit: NormalEquations
    held: NormalEquations

    @property
    def size(self) -> int:
        return len(self.fit.gram) - 1

    @property
    def factors(self) -> int:
        return 1 if self.drawn is None else len(self.drawn.factors)

    def add(self, batch: Batch) -> None:
        features = batch.hidden if self.drawn is None else self.drawn(batch.inputs)
        rows = np.concatenate([features, batch.inputs], axis=1)
        for equations, chosen in ((self.fit, ~batch.held), (self.held, batch.held)):
            equations.add(rows[chosen], batch.targets[chosen])


@dataclass(eq=False)
class Survey:
    """All that is known of a region: answers for any share of its cost up to the largest that was asked for."""

    region: Region
    menu: Menu
    largest: float
    families: list[_Family]

    def __post_init__(self) -> None:
        self._orders: dict[tuple[int, str, bool], NDArray[np.int64]] = {}

    def best(self, share: float) -> Replacement | None:
        """The replacement of least held-out error that costs at most ``share`` of the region; None if none does."""
        found = list(self.each(share))
        return min(found, key=lambda each: (each.fit.held, each.cost.macs)) if found else None

    def each(self, share: float) -> Iterator[Replacement]:
        """The largest replacement of every kind within a share of the cost."""
        widths, whole = self.region.widths, self.region.cost
        if self.menu.affine and bundle_cost(widths[0], 0, widths[-1], skip=True).within(whole, share):
            family = self.families[0]
            inputs = np.arange(family.size - widths[0], family.size)
            yield self._replacement("affine", family, np.zeros(0, np.int64), inputs, skip=True)
        for family in self.families:
            for skip in self.menu.skips:
                size = family.size - widths[0]
                count = most_features(widths[0], widths[-1], whole, share, factors=family.factors, skip=skip, most=size)
                if count > 0:
                    yield from self._of_family(family, count, skip)

    def _of_family(self, family: _Family, count: int, skip: bool) -> Iterator[Replacement]:
        inputs = np.arange(family.size - self.region.widths[0], family.size) if skip else np.zeros(0, np.int64)
        if family.drawn is not None:
            yield self._replacement(family.kind, family, np.arange(count), inputs, skip=skip)
            return
        for how in ORDERS:
            yield self._replacement(
                f"neurons by {how}", family, np.sort(self._order(family, how, skip)[:count]), inputs, skip=skip
            )

    def _replacement(
        self, kind: str, family: _Family, chosen: NDArray[np.int64], inputs: NDArray[np.int64], *, skip: bool
    ) -> Replacement:
        widths = self.region.widths
        fit = best_ridge(
            family.fit, family.held, np.concatenate([chosen, inputs]), self._prior(family, chosen, len(inputs))
        )
        features = chosen if family.drawn is None or not len(chosen) else family.drawn.first(len(chosen))
        cost = bundle_cost(widths[0], len(chosen), widths[-1], factors=family.factors, skip=skip)
        return Replacement(self.region, kind, features, fit, skip, cost)

    def _prior(self, family: _Family, chosen: NDArray[np.int64], inputs: int) -> Array | None:
        """The current last layer's weights of the neurons, as a prior of the fit; None for other features."""
        if family.drawn is not None or len(self.region.layers) != 2:
            return None
        return np.pad(matrix_of(self.region.layers[1])[:, chosen], ((0, 0), (0, inputs)))

    def _order(self, family: _Family, how: str, skip: bool) -> NDArray[np.int64]:
        key = (id(family), how, skip)
        if key not in self._orders:
            gram, cross = family.fit.covariance()
            neurons = self.region.widths[1]
            kept = np.arange(neurons, family.size) if skip else np.zeros(0, np.int64)
            importance = np.square(matrix_of(self.region.layers[1])).sum(axis=0)
            widths = self.region.widths
            most = most_features(widths[0], widths[-1], self.region.cost, self.largest, skip=skip, most=neurons)
            self._orders[key] = neuron_order(gram, cross, neurons, kept, how, importance, most)
        return self._orders[key]


def moment_bytes(region: Region, menu: Menu, share: float) -> int:
    """Bytes of the normal equations of a region's survey."""
    sizes = [region.widths[1]] if "neurons" in menu.kinds else []
    sizes += [_drawn_count(region, kind, share) for kind in menu.kinds if kind != "neurons" for _ in WIDTHS[kind]]
    return sum(
        2 * 8 * (size + region.widths[0] + 1) * (size + region.widths[0] + 1 + region.widths[-1]) for size in sizes
    )


def survey(region: Region, observed: Observed, menu: Menu, share: float) -> Survey:
    """Observe a region once, for replacements that cost at most ``share`` of it.

    Raises:
        DataError: no feed at all.
    """
    widths = region.widths
    families = [_family("neurons", None, widths[1], region)] if "neurons" in menu.kinds else []
    products = widths[0] + widths[1]
    batches = observed.batches(region, products)
    probe = list(islice(batches, _PROBED_FEEDS))
    scale = InputScale.of(np.concatenate([batch.inputs[~batch.held] for batch in probe]).astype(np.float64))
    for index, kind in enumerate(kind for kind in menu.kinds if kind != "neurons"):
        count = max(_drawn_count(region, kind, share), 0)
        for width in WIDTHS[kind]:
            rng = np.random.default_rng([menu.seed, index])
            drawn = draw_map(kind, count, scale, rng, directions=menu.directions, width=width)
            families.append(
                _family(f"{kind} of width {width:g}" if len(WIDTHS[kind]) > 1 else kind, drawn, count, region)
            )
    for batch in chain(probe, batches):
        for family in families:
            family.add(batch)
    return Survey(region, menu, share, families)


def _drawn_count(region: Region, kind: str, share: float) -> int:
    """Features of a drawn map that the cost admits; more than the region has neurons are never worth their moments."""
    factors = 2 if kind == "product" else 1
    most = 2 * max(region.widths[1:-1])
    return most_features(
        region.widths[0], region.widths[-1], region.cost, share, factors=factors, skip=False, most=most
    )


def _family(kind: str, drawn: FeatureMap | None, count: int, region: Region) -> _Family:
    sizes = (count + region.widths[0], region.widths[-1])
    return _Family(kind, drawn, NormalEquations(*sizes), NormalEquations(*sizes))
