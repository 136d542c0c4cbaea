"""Chooses a grid for each layer's weights so that all of them together fit a size, or a loss (AdaQuant's integer program, ZeroQ's sensitivity).

Each layer, alone, is put on each grid of the menu, its bias taking back the mean error, and the error of the network's outputs is measured:
not a norm of weights. As the errors themselves are at hand, so are their products: what two layers lose together, a quadratic form without
any further run of the network. An integer program, exchanges under the quadratic form, both with perturbed costs, and the uniform grids give
candidates; all are really evaluated on feeds that nothing was fitted to, and the best goes to ``ctx.grids`` for `reconstruct-layers`.

Losses are of the weights alone: activations stay float here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ..allocation import Front, Menu, allocate, exchange, pareto_front, perturbed
from ..calibration.feeds import split_feeds
from ..calibration.gram import layer_inputs
from ..calibration.network_loss import NetworkLoss
from ..calibration.patches import as_matrix
from ..calibration.sources import synthetic_source
from ..calibration.weight_sensitivity import BATCH, OutputErrors, RoundedWeight, round_weight, with_weights
from ..errors import OptionError
from ..grids import GridFamily, grid_named
from ..ir import Constant, Graph, quantized_source, spec_of
from ..layers import Layer, find_layers
from ..packing import SMALLEST, Coded
from ..pass_base import Context, Feed, Pass
from ..report.record import Allocation, Candidate, LayerBits
from ..solvers import SOLVERS

SPREAD = 0.5
"""Of the perturbed costs, as a factor: exp(SPREAD * normal)."""
LOSS_STEPS = (2.0, 1.4, 1.0, 0.7, 0.5, 0.25)
"""Predicted losses that are tried for a wanted one, as multiples of it."""
FEEDS_PER_MEASURED = 5
"""Of so many feeds one is measured on; weights are fitted to the others, for a loss on those that were fitted to is no loss at all."""
REPORTED = 40
"""Points of the front that the report keeps."""

Choice = NDArray[np.int64]
Tables = dict[str, list[RoundedWeight]]


def stored_bytes(distinct: int, elements: int) -> int:
    """Bytes that a weight of so many elements takes in a file (`packing`), when it has ``distinct`` values."""
    if elements < SMALLEST:
        return elements
    bits = Coded(np.broadcast_to(np.uint8(0), elements), np.zeros(distinct, np.int8)).bits
    if bits in (2, 4, 8):
        return -(-elements * bits // 8)
    return 8 * -(-elements // (64 // bits))


@dataclass(frozen=True)
class AllocateBits(Pass):
    """A grid for each layer, under a budget.

    Attributes:
        size_budget: bytes of the layers' weights, as a share of those at 8 bits.
        max_loss: where not 0: the smallest size whose output error, relative to the outputs' energy, is at most this, whatever ``size_budget``.
        menu: names of grids to choose among.
        solver: what puts weights on a grid to measure its loss, by name.
        feeds: how many to measure on; as many others, where there are, judge the candidates.
        candidates: programs with perturbed costs.
    """

    name: ClassVar[str] = "allocate-bits"
    size_budget: float = 0.5
    max_loss: float = 0.0
    menu: str = "int2,int3,int4,int5,int6,int8"
    solver: str = "gptq"
    feeds: int = 8
    candidates: int = 6

    def __post_init__(self) -> None:
        if not self.grids:
            raise OptionError("pass 'allocate-bits': the menu is empty; name at least one grid")
        if self.solver not in SOLVERS:
            raise OptionError(f"unknown solver '{self.solver}'; known: {', '.join(SOLVERS)}")
        if self.size_budget <= 0 or self.max_loss < 0 or self.feeds < 1 or self.candidates < 0:
            raise ValueError("size_budget and feeds must be positive, max_loss and candidates not negative")

    @property
    def grids(self) -> list[GridFamily]:
        """The menu."""
        return [grid_named(name.strip()) for name in self.menu.split(",") if name.strip()]

    def run(self, graph: Graph, ctx: Context) -> bool:
        """Choose; the graph stays as it is, the choice is in ``ctx.grids``. False."""
        names = [layer.node.name for layer in find_layers(graph) if _has_choice(layer)]
        if not names or ctx.reference is None:
            return False
        data = ctx.data if ctx.data is not None else synthetic_source(graph, ctx)
        fit, held = split_feeds(data, FEEDS_PER_MEASURED * self.feeds, ctx.seed)
        names, tables, menu = self._measure(ctx, ctx.reference, set(names), fit)
        full = sum(weights[0].levels.size for weights in tables.values())
        judge = NetworkLoss(ctx.reference, held)
        best: tuple[Candidate, Choice] | None = None
        records, front = [], pareto_front(menu)
        for origin, choice in self._proposals(menu, front, full, ctx.seed):
            rounded = {name: tables[name][option] for name, option in zip(names, choice, strict=True)}
            measured = judge(with_weights(ctx.reference, rounded))
            record = Candidate(origin, menu.size_of(choice), menu.cost_of(choice), measured)
            records.append(record)
            if best is None or self._better(record, best[0]):
                best = record, choice
        if best is None:
            return False
        self._report(ctx, names, menu, front, full, best, records)
        grids = self.grids
        ctx.grids.update({name: grids[option] for name, option in zip(names, best[1], strict=True)})
        return False

    def _measure(self, ctx: Context, reference: Graph, wanted: set[str], feeds: Sequence[Feed]) -> tuple[list[str], Tables, Menu]:
        """Names of the layers, their weights on every grid, and what each costs."""
        layers = [layer for layer in find_layers(reference) if layer.node.name in wanted]
        errors = OutputErrors(reference, feeds[::FEEDS_PER_MEASURED], ctx.seed)
        tables: Tables = {}
        found: dict[str, tuple[list[float], NDArray[Any]]] = {}
        fitted = [feed for index, feed in enumerate(feeds) if index % FEEDS_PER_MEASURED] or feeds
        for inputs in layer_inputs(reference, layers, fitted, seed=ctx.seed):
            tables[inputs.layer.node.name] = [round_weight(inputs, family, SOLVERS[self.solver], ctx.seed) for family in self.grids]
            ctx.on_step(len(tables), 2 * len(layers))
        names = list(tables)
        for start in range(0, len(names), BATCH):
            found.update(errors.measure({name: tables[name] for name in names[start : start + BATCH]}))
            ctx.on_step(len(layers) + len(found), 2 * len(layers))
        cost = np.array([found[name][0] for name in names])
        size = np.array([[stored_bytes(weight.distinct, weight.levels.size) for weight in tables[name]] for name in names], np.int64)
        vectors = np.stack([found[name][1] for name in names])
        return names, tables, Menu(cost, size, 2 * np.tensordot(vectors, vectors, (2, 2)).astype(np.float64))

    def _proposals(self, menu: Menu, front: Front, full: int, seed: int) -> Iterator[tuple[str, Choice]]:
        """Different choices, each with what it comes from."""
        seen: set[bytes] = set()
        for origin, choice in self._all_proposals(menu, front, full, seed):
            if choice.tobytes() not in seen:
                seen.add(choice.tobytes())
                yield origin, choice

    def _all_proposals(self, menu: Menu, front: Front, full: int, seed: int) -> Iterator[tuple[str, Choice]]:
        additive = Menu(menu.cost, menu.size)
        if self.max_loss:
            for step in LOSS_STEPS:
                point = front.below(step * self.max_loss)
                if point is not None:
                    yield f"front at {step:g} times the loss", front.choices[point]
                    yield f"front at {step:g} times the loss, exchanges", exchange(menu, front.choices[point], int(front.size[point]))
            yield "most accurate", menu.cost.argmin(axis=1)
            return
        budget = int(self.size_budget * full)
        plain = allocate(additive, budget)
        yield "integer program", plain
        yield "exchanges", exchange(menu, plain, budget)
        for index in range(self.candidates):
            other = perturbed(menu, np.random.default_rng([seed, index]), SPREAD)
            yield f"perturbed {index}, exchanges", exchange(other, allocate(Menu(other.cost, other.size), budget), budget)
        for option, family in enumerate(self.grids):
            choice = np.full(len(menu.cost), option)
            if menu.size_of(choice) <= budget:
                yield f"all {family.name}", choice

    def _better(self, one: Candidate, other: Candidate) -> bool:
        if not self.max_loss:
            return one.measured < other.measured
        enough, other_enough = one.measured <= self.max_loss, other.measured <= self.max_loss
        if enough and other_enough:
            return (one.size, one.measured) < (other.size, other.measured)
        return enough if enough != other_enough else one.measured < other.measured

    def _report(
        self, ctx: Context, names: Sequence[str], menu: Menu, front: Front, full: int, best: tuple[Candidate, Choice], records: list[Candidate]
    ) -> None:
        chosen, choice = best
        if self.max_loss and chosen.measured > self.max_loss:
            ctx.warn(f"no allocation reaches a loss of {self.max_loss:g}: the best has {chosen.measured:.3g}; offer more bits in the menu")
        layers = [
            LayerBits(name, self.grids[option].name, int(menu.size[index, option]), float(menu.cost[index, option]))
            for index, (name, option) in enumerate(zip(names, choice, strict=True))
        ]
        places = np.unique(np.linspace(0, len(front.size) - 1, REPORTED).round().astype(int))
        points = [(int(front.size[place]), float(front.cost[place])) for place in places]
        budget = None if self.max_loss else int(self.size_budget * full)
        others = [record for record in records if record is not chosen]
        ctx.report.allocation = Allocation(budget, full, chosen.size, layers, [chosen, *others], points)


def _has_choice(layer: Layer) -> bool:
    """A float weight behind an int8 Q/DQ pair that the layer problem has a form for."""
    codes, spec = quantized_source(layer.weight), spec_of(layer.weight)
    if codes is None or isinstance(codes, Constant) or spec is None or spec.dtype != np.int8:
        return False
    return layer.values.dtype == np.float32 and as_matrix(layer, layer.values) is not None
