"""Bit allocation: the option of each layer under a common budget, by integer program and Pareto front.

A `OptionTable` says what every option of every layer costs (the output loss that it adds), how large it is and how long
it takes. Losses of layers add up as long as they are small (the assumption of AdaQuant's integer program and of ZeroQ's
front); where they do not, ``pairs`` holds what two layers lose together beyond what each loses alone, a quadratic form
(arXiv 2511.17801). Pure mathematics: what layers, options, sizes and times are is the caller's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy  # loads its parts at their first use
from numpy.typing import NDArray

from qcompiler.errors import OptionError
from qcompiler.quiet import quiet

__all__ = ["UNLIMITED", "Front", "OptionTable", "allocate", "exchange", "pareto_front", "perturbed", "smallest"]

FRONT_POINTS = 4096
"""Most points of a Pareto front carried from layer to layer, evenly spread."""

RELATIVE_GAP = 1e-6
"""Relative optimality gap of the integer program."""

UNLIMITED = np.iinfo(np.int64).max
"""A budget that nothing exceeds."""

LESS_COST = 0.5
"""Ratio of costs below which the integer program is solved again, rescaled to the new cost."""

Array = NDArray[Any]
Choice = NDArray[np.int64]
"""int64 [L]: the option of each layer."""


@dataclass(frozen=True, eq=False)
class OptionTable:
    """What L layers may choose among, O options each.

    Attributes:
        cost: float64 [L, O], the loss that an option adds; infinite for an option that a layer does not have.
        size: int64 [L, O], not negative.
        pairs: float64 [L, O, L, O], symmetric: what two layers lose together beyond the sum of their costs; None:
            nothing.
        time: int64 [L, O], not negative; None: all take none.

    Raises:
        ValueError: shapes that do not fit, or a layer without any option.
    """

    cost: NDArray[np.float64]
    size: NDArray[np.int64]
    pairs: NDArray[np.float64] | None = None
    time: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        if self.cost.ndim != 2 or self.size.shape != self.cost.shape:
            raise ValueError(
                f"cost and size must both be [layers, options], not {self.cost.shape} and {self.size.shape}"
            )
        if self.time is not None and self.time.shape != self.cost.shape:
            raise ValueError(f"time must be {self.cost.shape}, not {self.time.shape}")
        if self.pairs is not None and self.pairs.shape != self.cost.shape * 2:
            raise ValueError(f"pairs must be {self.cost.shape * 2}, not {self.pairs.shape}")
        if np.isnan(self.cost).any() or not np.isfinite(self.cost).any(axis=1).all():
            raise ValueError("every layer needs an option of finite cost")

    def cost_of(self, choice: Choice) -> float:
        """Loss of a choice."""
        layers = np.arange(len(self.cost))
        total = float(self.cost[layers, choice].sum())
        if self.pairs is None:
            return total
        together = self.pairs[layers, choice][:, layers, choice]
        return total + float(together[np.triu_indices(len(layers), 1)].sum())

    def size_of(self, choice: Choice) -> int:
        """Size of a choice."""
        return int(self.size[np.arange(len(self.size)), choice].sum())

    def time_of(self, choice: Choice) -> int:
        """Time of a choice."""
        return 0 if self.time is None else int(self.time[np.arange(len(self.time)), choice].sum())

    def fits(self, choice: Choice, budget: int, time_budget: int = UNLIMITED) -> bool:
        """True where a choice is within both budgets."""
        return self.size_of(choice) <= budget and self.time_of(choice) <= time_budget


@dataclass(frozen=True, eq=False)
class Front:
    """Choices of which none is both smaller and better than another: sizes ascend, costs descend.

    Attributes:
        size: int64 [F].
        cost: float64 [F].
        choices: int64 [F, L].
    """

    size: NDArray[np.int64]
    cost: NDArray[np.float64]
    choices: NDArray[np.int64]

    def within(self, budget: int) -> int | None:
        """Index of the best point of at most that size; None when there is none."""
        index = int(np.searchsorted(self.size, budget, side="right")) - 1
        return index if index >= 0 else None

    def below(self, cost: float) -> int | None:
        """Index of the smallest point of at most that cost; None when there is none."""
        enough = np.flatnonzero(self.cost <= cost)
        return int(enough[0]) if len(enough) else None


def pareto_front(menu: OptionTable, limit: int = FRONT_POINTS) -> Front:
    """The front of all choices, layer by layer by dynamic programming; ``pairs`` are left out of it.

    Exact while no more than ``limit`` points are needed; beyond that every point is still a real choice, but better
    ones may lie between.
    """
    sizes, costs = np.zeros(1, np.int64), np.zeros(1)
    options = menu.cost.shape[1]
    parents: list[NDArray[np.int64]] = []
    for layer_cost, layer_size in zip(menu.cost, menu.size, strict=True):
        size, cost = (sizes[:, None] + layer_size).reshape(-1), (costs[:, None] + layer_cost).reshape(-1)
        kept = _non_dominated(size, cost)
        if len(kept) > limit:
            kept = kept[np.unique(np.linspace(0, len(kept) - 1, limit).round().astype(np.int64))]
        sizes, costs = size[kept], cost[kept]
        parents.append(kept)
    return Front(sizes, costs, _traced_back(parents, options))


def _non_dominated(size: NDArray[np.int64], cost: NDArray[np.float64]) -> NDArray[np.int64]:
    """Indices of the points of the front, sizes ascending."""
    order = np.lexsort((cost, size))
    best_before = np.minimum.accumulate(np.append(np.inf, cost[order][:-1]))
    return np.asarray(order[cost[order] < best_before], np.int64)


def _traced_back(parents: list[NDArray[np.int64]], options: int) -> NDArray[np.int64]:
    """The options that led to each point: ``parents`` holds, layer by layer, ``point before * options + option``."""
    point = np.arange(len(parents[-1]) if parents else 1)
    choices = np.empty((len(point), len(parents)), np.int64)
    for layer in range(len(parents) - 1, -1, -1):
        point, choices[:, layer] = np.divmod(parents[layer][point], options)
    return choices


def allocate(menu: OptionTable, budget: int, time_budget: int = UNLIMITED) -> Choice:
    """The cheapest choice within ``budget`` (size) and ``time_budget``, by integer program; counts ``pairs``.

    Raises:
        OptionError: no choice is within the budgets.
    """
    _check_size(menu, budget)
    cheapest = _least(menu, menu.cost)
    if menu.pairs is None and menu.fits(cheapest, budget, time_budget):
        return cheapest
    if menu.time is None or time_budget == UNLIMITED:
        known = pareto_front(replace(menu, pairs=None), limit=512)
        return _solve(
            menu, [(menu.size, budget)], float(known.cost[known.within(budget)]) if menu.pairs is None else np.inf
        )
    fastest = allocate(
        OptionTable(np.where(np.isfinite(menu.cost), menu.time, np.inf).astype(np.float64), menu.size), budget
    )
    if menu.time_of(fastest) > time_budget:
        raise OptionError(
            f"the fastest choice of that size takes {menu.time_of(fastest):,} ns, the budget is "
            f"{time_budget:,} ns: raise it"
        )
    limits = [(menu.size, budget), (menu.time, time_budget)]
    return _solve(menu, limits, np.inf) if menu.pairs is not None else _solve_closer(menu, limits, fastest)


def smallest(menu: OptionTable, cost: float, time_budget: int = UNLIMITED) -> Choice | None:
    """The smallest choice within that cost and time, by integer program; None without one. Ignores ``pairs``."""
    allowed = np.where(np.isfinite(menu.cost), menu.size, np.inf).astype(np.float64)
    bounded = OptionTable(allowed, menu.size, time=menu.time)
    limits: list[tuple[Array, float]] = [(np.where(np.isfinite(menu.cost), menu.cost, 0.0) / max(cost, 1e-300), 1.0)]
    if menu.time is not None and time_budget != UNLIMITED:
        limits.append((menu.time, time_budget))
    start = allocate(OptionTable(menu.cost, menu.size, time=menu.time), UNLIMITED, time_budget)
    return _solve_closer(bounded, limits, start) if menu.cost_of(start) <= cost else None


def _check_size(menu: OptionTable, budget: int) -> None:
    least = menu.size_of(_least(menu, np.where(np.isfinite(menu.cost), menu.size, np.inf)))
    if least > budget:
        raise OptionError(
            f"the smallest choice of the menu takes {least:,} bytes, the budget is {budget:,}: raise it "
            "or offer fewer bits"
        )


def _least(menu: OptionTable, what: Array) -> Choice:
    """Every layer by itself: the least of ``what``, of equals the smallest."""
    order = np.lexsort((menu.size, what), axis=1)
    return np.asarray(order[:, 0], np.int64)


def _solve_closer(menu: OptionTable, limits: Sequence[tuple[Array, float]], start: Choice) -> Choice:
    """The integer program, scaled to the cost of a choice that is within the limits, until no much better one is found.

    A solver's tolerances are absolute: they must be small beside the cost that is sought, of which there is no good
    bound in advance.
    """
    best = start
    while True:
        found = _solve(menu, limits, menu.cost_of(best))
        closer = menu.cost_of(found) < LESS_COST * menu.cost_of(best)
        best = found if menu.cost_of(found) < menu.cost_of(best) else best
        if not closer:
            return best


def _solve(menu: OptionTable, limits: Sequence[tuple[Array, float]], bound: float) -> Choice:
    """Integer program with limits on sums of [L, O]; options whose own cost exceeds ``bound`` are excluded."""
    layers, options = menu.cost.shape
    usable = np.isfinite(menu.cost) & (menu.cost <= bound * (1 + 1e-9))
    cost, (links, joint) = np.where(usable, menu.cost, 0.0).reshape(-1), _joint_choices(menu)
    objective = np.concatenate([cost, joint])
    objective /= max(float(np.abs(objective).max()), 1e-300) if not np.isfinite(bound) else max(bound, 1e-300)
    upper = np.concatenate([usable.reshape(-1).astype(float), np.ones(len(joint))])
    one_each = scipy.sparse.coo_array(
        (np.ones(cost.size), (np.arange(cost.size) // options, np.arange(cost.size))), (layers, objective.size)
    )
    constraints = [scipy.optimize.LinearConstraint(one_each, 1, 1)]
    for amounts, most in limits:
        row = np.concatenate([np.where(usable, amounts, 0).reshape(-1).astype(float), np.zeros(len(joint))])[None, :]
        constraints.append(scipy.optimize.LinearConstraint(row, -np.inf, most))
    if len(joint):
        constraints.append(scipy.optimize.LinearConstraint(links, 0, 0))
    binary = np.concatenate([np.ones(cost.size), np.zeros(len(joint))])
    # without presolve HiGHS seldom has to mend a solution, of which some versions print a line: not where JSON may be
    # printed
    how = {"mip_rel_gap": RELATIVE_GAP, "presolve": False}
    with quiet():
        found = scipy.optimize.milp(
            objective, integrality=binary, bounds=scipy.optimize.Bounds(0, upper), constraints=constraints, options=how
        )
    if found.x is None:
        raise OptionError(f"the integer program of the bit allocation was not solved: {found.message}")
    return np.asarray(found.x[: cost.size].reshape(layers, options).argmax(axis=1), np.int64)


def _joint_choices(menu: OptionTable) -> tuple[Any, NDArray[np.float64]]:
    """Variables for pairs of options of interacting layers, tied to their options: (constraint rows, costs)."""
    layers, options = menu.cost.shape
    pairs = menu.pairs
    found = (
        [] if pairs is None else [(i, j) for i in range(layers) for j in range(i + 1, layers) if pairs[i, :, j].any()]
    )
    if pairs is None or not found:
        return None, np.zeros(0)
    cost = np.concatenate([pairs[i, :, j].reshape(-1) for i, j in found])
    one, each = np.ones(options), np.eye(options)
    sums = scipy.sparse.vstack([scipy.sparse.coo_array(np.kron(each, one)), scipy.sparse.coo_array(np.kron(one, each))])
    columns = (np.array(found)[:, :, None] * options + np.arange(options)).reshape(-1)
    single = scipy.sparse.coo_array(
        (-np.ones(len(columns)), (np.arange(len(columns)), columns)), (len(columns), layers * options)
    )
    return scipy.sparse.hstack([single, scipy.sparse.kron(scipy.sparse.eye_array(len(found)), sums)]), cost


def exchange(menu: OptionTable, choice: Choice, budget: int, time_budget: int = UNLIMITED, most: int = 1000) -> Choice:
    """A choice that no change of one or two layers within the budgets improves; never worse than ``choice``.

    Args:
        menu: of which all costs count.
        choice: where to start, within the budgets.
        budget: largest size.
        time_budget: longest time.
        most: changes, at most.
    """
    options = menu.cost.shape[1]
    choice = choice.copy()
    for _ in range(most):
        delta = _changes(menu, choice)
        delta = np.where(_growth(menu.size, choice) <= budget - menu.size_of(choice), delta, np.inf)
        if menu.time is not None:
            delta = np.where(_growth(menu.time, choice) <= time_budget - menu.time_of(choice), delta, np.inf)
        first, second = np.unravel_index(int(delta.argmin()), delta.shape)
        if not delta[first, second] < -1e-12 * max(abs(menu.cost_of(choice)), 1e-300):
            break
        for index in (int(first), int(second)):
            choice[index // options] = index % options
    return choice


def _changes(menu: OptionTable, choice: Choice) -> NDArray[np.float64]:
    """Cost change when two layers take other options: [L*O, L*O]; one layer alone on the diagonal."""
    layers, options = menu.cost.shape
    index = np.arange(layers)
    pairs = np.zeros(menu.cost.shape * 2) if menu.pairs is None else menu.pairs.copy()
    pairs[index, :, index, :] = 0
    towards = pairs[:, :, index, choice]  # [L, O, L]: with each other layer as it is chosen
    alone = menu.cost + towards.sum(axis=2)
    alone = (alone - alone[index, choice][:, None]).reshape(-1)
    flat = towards - towards[index, choice][:, None, :]  # [i, a, j]: pairs[i, a, j, c_j] - pairs[i, c_i, j, c_j]
    here = pairs - pairs[index, choice][:, None, :, :]
    both = (here - flat[:, :, :, None]).reshape(layers * options, layers * options)
    delta = np.asarray(alone[:, None] + alone[None, :] + both)
    same = np.repeat(index, options)
    delta[same[:, None] == same[None, :]] = np.inf
    np.fill_diagonal(delta, alone)
    return delta


def _growth(amounts: NDArray[np.int64], choice: Choice) -> NDArray[np.int64]:
    """What the same changes add to a sum of ``amounts`` [L, O]."""
    growth = (amounts - amounts[np.arange(len(amounts)), choice][:, None]).reshape(-1)
    grown = growth[:, None] + growth[None, :]
    np.fill_diagonal(grown, growth)
    return np.asarray(grown)


def perturbed(menu: OptionTable, rng: np.random.Generator, spread: float) -> OptionTable:
    """The menu with every cost times ``exp(spread * z)``, z normal (``pairs`` likewise): as on other feeds."""
    factor = np.exp(spread / 2 * rng.standard_normal(menu.cost.shape))
    pairs = None if menu.pairs is None else menu.pairs * factor[:, :, None, None] * factor
    return replace(menu, cost=menu.cost * factor**2, pairs=pairs)
