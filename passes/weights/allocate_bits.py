"""Mixed precision: a grid for each layer within a size, time or loss budget (AdaQuant's program, ZeroQ's sensitivity).

Each layer, alone, is put on each grid of the menu, its bias taking back the mean error, and the error of the network's
outputs is measured: not a norm of weights. As the errors themselves are at hand, so are their products: what two layers
lose together, a quadratic form without any further run of the network. An integer program, exchanges under the
quadratic form, both with perturbed costs, and the uniform grids give candidates; all are really evaluated on feeds that
nothing was fitted to, and the best goes to ``ctx.grids`` for `reconstruct-layers`.

Losses are of the weights alone: activations stay float here. Times are measured on this machine
(`qcompiler.weights.layer_time`), so with a budget of time the choice may differ from run to run, unless the report of
an earlier one gives its times.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from ...calibration.gram import layer_inputs
from ...calibration.patches import as_matrix
from ...calibration.weight_sensitivity import BATCH, OutputErrors, RoundedWeight, round_weight, with_weights
from ...errors import OptionError
from ...feeds.selection import split_feeds
from ...feeds.sources import feeds_of
from ...graph.ir import Constant, Feed, Graph, quantized_source, spec_of
from ...graph.layers import Layer, find_layers
from ...grids import LARGEST_LEVEL, GridFamily, grid_label, grid_named
from ...linear_algebra import gram
from ...losses.network_loss import NetworkLoss
from ...losses.output_loss import OUTPUT_LOSSES
from ...onnx_io.packed_constants import stored_bytes
from ...pass_base import Context, Pass
from ...records import AllocatedTime, Allocation, Candidate, LayerBits
from ...solvers import SOLVERS
from ...weights.allocation import UNLIMITED, Front, OptionTable, allocate, exchange, pareto_front, perturbed, smallest
from ...weights.option_times import Clock, OptionTimes, measured_times, reported_times
from ...weights.saturation import pair_limit
from .reconstruct_layers import BLOCK_SOLVERS

SPREAD = 0.5
"""Standard deviation of the perturbed costs' logarithm."""
LOSS_STEPS = (2.0, 1.4, 1.0, 0.7, 0.5, 0.25)
"""Predicted losses that are tried for a wanted one, as multiples of it."""
FEEDS_PER_MEASURED = 5
"""One feed in this many is measured on; weights are fitted to the others, since a fit's own loss is no measure."""
REPORTED = 40
"""Points of the front that the report keeps."""

DEFAULT_MENU, DEFAULT_SHARE = "kmeans2,kmeans3,kmeans4,kmeans5,kmeans6,int8", 0.5

FAST_MENU = "int4,int5,int6"
"""Grids of small levels, which are multiplied faster on CPUs without a dot product of bytes."""

Choice = NDArray[np.int64]
Tables = dict[str, list[RoundedWeight]]


@dataclass(frozen=True)
class _Limits:
    """What a choice may take: bytes and nanoseconds; the time that was measured, where it was asked for."""

    size: int
    time: int = UNLIMITED
    times: OptionTimes | None = None


@dataclass(frozen=True)
class AllocateBits(Pass):
    """A grid for each layer, under a budget.

    Attributes:
        size_budget: bytes of the layers' weights, as a share of those at 8 bits; None: 0.5, or the least that there is,
            or any size where a time or a loss is asked for.
        latency_budget: time that the layers' products take on the machine, one after the other, as a share of that with
            weights of 8 bits.
        max_loss: where not 0: the smallest size (within ``latency_budget``) whose output loss is at most this, instead
            of ``size_budget``.
        menu: names of grids to choose among; ``int4/64`` has blocks.
        loss: of the outputs: ``mse``, the squared error over their energy, or, for classifiers, ``kl``, the divergence
            of their distributions.
        solver: what puts weights on a grid to measure its loss, by name.
        feeds: how many to measure on; as many others, where there are, judge the candidates.
        candidates: programs with perturbed costs.
        latency_costs: path of a report (JSON) whose times are taken instead of new ones.
        exact_pairs: see `ReconstructLayers`.
    """

    name: ClassVar[str] = "allocate-bits"
    clock: ClassVar[Clock] = staticmethod(measured_times)
    size_budget: float | None = None
    latency_budget: float | None = None
    max_loss: float = 0.0
    menu: str = DEFAULT_MENU
    loss: Literal["mse", "kl"] = "mse"
    solver: str = "gptq"
    feeds: int = 8
    candidates: int = 6
    latency_costs: str = ""
    exact_pairs: bool = False

    def __post_init__(self) -> None:
        if not self.grids:
            raise OptionError("pass 'allocate-bits': the menu is empty; name at least one grid")
        if self.solver not in SOLVERS:
            raise OptionError(f"unknown solver '{self.solver}'; known: {', '.join(SOLVERS)}")
        if self.solver not in BLOCK_SOLVERS and any(grid.block is not None for grid in self.grids):
            raise OptionError(
                f"solver '{self.solver}' knows no blocks; for a menu with blocks take one of {', '.join(BLOCK_SOLVERS)}"
            )
        if any(budget is not None and budget <= 0 for budget in (self.size_budget, self.latency_budget)):
            raise ValueError("size_budget and latency_budget must be positive")
        if self.max_loss < 0 or self.feeds < 1 or self.candidates < 0:
            raise ValueError("feeds must be positive, max_loss and candidates not negative")
        if self.max_loss and self.size_budget is not None:
            raise OptionError(
                "--max-loss: seeks the smallest size, so there is nothing for --size-budget to limit; "
                "leave one of them out"
            )
        if self.latency_costs and self.latency_budget is None:
            raise OptionError(f"--latency-costs {self.latency_costs}: are for --latency-budget; give that, too")

    @property
    def grids(self) -> list[GridFamily]:
        """The menu; the default one has grids of small levels, too, where time is limited."""
        is_default = self.latency_budget is not None and self.menu == DEFAULT_MENU
        names = f"{self.menu},{FAST_MENU}" if is_default else self.menu
        return [grid_named(name.strip()) for name in names.split(",") if name.strip()]

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Choose; the graph stays as it is, the choice is in ``ctx.grids``. False."""
        largest = {layer.node.name: self._largest_level(layer) for layer in find_layers(graph) if _has_choice(layer)}
        if not largest or ctx.reference is None:
            return False
        data = feeds_of(graph, ctx)
        fit, held = split_feeds(data, FEEDS_PER_MEASURED * self.feeds, ctx.seed)
        names, tables, menu = self._measure(ctx, ctx.reference, largest, fit)
        full = sum(weights[0].levels.size for weights in tables.values())
        menu, limits = self._limited(graph, menu, full, {name: tables[name] for name in names}, fit[0], ctx)
        judge = NetworkLoss(ctx.reference, held, OUTPUT_LOSSES[self.loss])
        best: tuple[Candidate, Choice] | None = None
        records, front = [], pareto_front(menu)
        for origin, choice in self._proposals(menu, front, limits, ctx.seed):
            rounded = {name: tables[name][option] for name, option in zip(names, choice, strict=True)}
            measured = judge(with_weights(ctx.reference, rounded))
            record = Candidate(origin, menu.size_of(choice), menu.cost_of(choice), measured)
            records.append(record)
            if best is None or self._better(record, best[0]):
                best = record, choice
        if best is None:
            return False
        self._report(ctx, names, menu, front, full, limits, best, records)
        grids = self.grids
        ctx.grids.update({name: grids[option] for name, option in zip(names, best[1], strict=True)})
        return False

    def _largest_level(self, layer: Layer) -> int:
        return pair_limit(layer) // 2 if self.exact_pairs else LARGEST_LEVEL

    def _measure(
        self, ctx: Context, reference: Graph, largest: Mapping[str, int], feeds: Sequence[Feed]
    ) -> tuple[list[str], Tables, OptionTable]:
        """Names of the layers that have a largest level, their weights on every grid, and what each costs."""
        layers = [layer for layer in find_layers(reference) if layer.node.name in largest]
        errors = OutputErrors(reference, feeds[::FEEDS_PER_MEASURED], ctx.seed, OUTPUT_LOSSES[self.loss])
        tables: Tables = {}
        found: dict[str, tuple[list[float], NDArray[Any]]] = {}
        fitted = [feed for index, feed in enumerate(feeds) if index % FEEDS_PER_MEASURED] or feeds
        for inputs in layer_inputs(reference, layers, fitted, seed=ctx.seed):
            name = inputs.layer.node.name
            grids = [family.within(largest[name]) for family in self.grids]
            tables[name] = [round_weight(inputs, family, SOLVERS[self.solver], ctx.seed) for family in grids]
            ctx.on_step(len(tables), 2 * len(layers))
        names = list(tables)
        for start in range(0, len(names), BATCH):
            found.update(errors.measure({name: tables[name] for name in names[start : start + BATCH]}))
            ctx.on_step(len(layers) + len(found), 2 * len(layers))
        cost = np.array([found[name][0] for name in names])
        size = np.array([[_bytes_of(weight) for weight in tables[name]] for name in names], np.int64)
        vectors = np.stack([found[name][1] for name in names])
        return names, tables, OptionTable(cost, size, 2 * _inner_products(vectors))

    def _limited(
        self, graph: Graph, menu: OptionTable, full: int, tables: Tables, feed: Feed, ctx: Context
    ) -> tuple[OptionTable, _Limits]:
        """The menu with the times of its options, where they are asked for, and what a choice may take."""
        unlimited = self.size_budget is None and (self.max_loss > 0 or self.latency_budget is not None)
        least = int(menu.size.min(axis=1).sum()) if self.size_budget is None else 0
        share = DEFAULT_SHARE if self.size_budget is None else self.size_budget
        size = UNLIMITED if unlimited else max(int(share * full), least)
        if self.latency_budget is None:
            return menu, _Limits(size)
        names = list(tables)
        layers = (
            reported_times(Path(self.latency_costs), names)
            if self.latency_costs
            else type(self).clock(graph, names, feed)
        )
        times = OptionTimes.of(layers, tables)
        limit = times.budget(self.latency_budget, menu, size)
        if not times.differ:
            ctx.warn(
                "--latency-budget limits nothing: with the calibration feeds no product has so few rows (up to 4), "
                "and this CPU no such instructions, that fewer bits are faster"
            )
        return replace(menu, time=times.table), _Limits(size, limit, times)

    def _proposals(self, menu: OptionTable, front: Front, limits: _Limits, seed: int) -> Iterator[tuple[str, Choice]]:
        """Different choices, each with what it comes from."""
        seen: set[bytes] = set()
        for origin, choice in self._small(menu, front, limits) if self.max_loss else self._within(menu, limits, seed):
            if choice.tobytes() not in seen:
                seen.add(choice.tobytes())
                yield origin, choice

    def _small(self, menu: OptionTable, front: Front, limits: _Limits) -> Iterator[tuple[str, Choice]]:
        """Small choices of about the wanted loss."""
        additive = replace(menu, pairs=None)
        for step in LOSS_STEPS:
            choice = self._smallest(additive, front, step * self.max_loss, limits)
            if choice is not None:
                yield f"front at {step:g} times the loss", choice
                yield (
                    f"front at {step:g} times the loss, exchanges",
                    exchange(menu, choice, menu.size_of(choice), limits.time),
                )
        yield "most accurate", allocate(additive, UNLIMITED, limits.time)

    def _smallest(self, menu: OptionTable, front: Front, loss: float, limits: _Limits) -> Choice | None:
        if limits.times is not None:
            return smallest(menu, loss, limits.time)
        point = front.below(loss)
        return None if point is None else front.choices[point]

    def _within(self, menu: OptionTable, limits: _Limits, seed: int) -> Iterator[tuple[str, Choice]]:
        """Choices of little loss within the budgets."""
        budgets = limits.size, limits.time
        plain = allocate(replace(menu, pairs=None), *budgets)
        yield "integer program", plain
        yield "exchanges", exchange(menu, plain, *budgets)
        for index in range(self.candidates):
            other = perturbed(menu, np.random.default_rng([seed, index]), SPREAD)
            yield (
                f"perturbed {index}, exchanges",
                exchange(other, allocate(replace(other, pairs=None), *budgets), *budgets),
            )
        for option, family in enumerate(self.grids):
            choice = np.full(len(menu.cost), option)
            if menu.fits(choice, *budgets):
                yield f"all {grid_label(family)}", choice
            elif (capped := _capped(menu, option, limits)) is not None:
                yield f"at most {grid_label(family)}", capped

    def _better(self, one: Candidate, other: Candidate) -> bool:
        if not self.max_loss:
            return one.measured < other.measured
        enough, other_enough = one.measured <= self.max_loss, other.measured <= self.max_loss
        if enough and other_enough:
            return (one.size, one.measured) < (other.size, other.measured)
        return enough if enough != other_enough else one.measured < other.measured

    def _report(
        self, ctx: Context, names: Sequence[str], menu: OptionTable, front: Front, full: int, limits: _Limits,
        best: tuple[Candidate, Choice],
        records: list[Candidate],
    ) -> None:  # fmt: skip
        chosen, choice = best
        if self.max_loss and chosen.measured > self.max_loss:
            ctx.warn(
                f"no allocation reaches a loss of {self.max_loss:g}: the best has {chosen.measured:.3g}; offer "
                "more bits in the menu"
            )
        layers = [
            LayerBits(
                name, grid_label(self.grids[option]), int(menu.size[index, option]), float(menu.cost[index, option])
            )
            for index, (name, option) in enumerate(zip(names, choice, strict=True))
        ]
        places = np.unique(np.linspace(0, len(front.size) - 1, REPORTED).round().astype(int))
        points = [(int(front.size[place]), float(front.cost[place])) for place in places]
        budget = None if limits.size == UNLIMITED else limits.size
        others = [record for record in records if record is not chosen]
        times = limits.times
        time = None if times is None else AllocatedTime(limits.time, times.full, menu.time_of(choice), times.layers)
        ctx.report.allocation = Allocation(
            budget, full, chosen.size, layers, [chosen, *others], points, time, self.loss
        )


def _capped(menu: OptionTable, option: int, limits: _Limits) -> Choice | None:
    """The program without options larger than this one, for where this one in all layers is just too large."""
    cost = np.where(menu.size > menu.size[:, option : option + 1], np.inf, menu.cost)
    try:
        return allocate(replace(menu, cost=cost, pairs=None), limits.size, limits.time)
    except OptionError:
        return None


def _bytes_of(weight: RoundedWeight) -> int:
    groups, rows, products = weight.levels.shape
    return stored_bytes(weight.distinct, groups * rows, products, weight.block)


def _inner_products(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Of every option of every layer with every other: [L, O, L, O] of vectors [L, O, D]."""
    flat = vectors.reshape(-1, vectors.shape[-1])
    return np.asarray(gram(flat.T[None])[0].reshape(*vectors.shape[:2], *vectors.shape[:2]), np.float64)


def _has_choice(layer: Layer) -> bool:
    """A float weight behind an int8 Q/DQ pair that the layer problem has a form for."""
    codes, spec = quantized_source(layer.weight), spec_of(layer.weight)
    if codes is None or isinstance(codes, Constant) or spec is None or spec.dtype != np.int8:
        return False
    return layer.values.dtype == np.float32 and as_matrix(layer, layer.values) is not None
