from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.errors import OptionError
from qcompiler.weights.allocation import UNLIMITED, OptionTable, allocate, exchange, pareto_front, perturbed, smallest


def random_menu(seed: int, layers: int, options: int, *, pairs: bool = False) -> OptionTable:
    """Costs over six decades that fall as sizes grow, as those of bit widths do."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(5, 1000, layers)
    size = weights[:, None] * np.arange(2, 2 + options)
    cost = (
        10.0 ** rng.uniform(-6, -1, (layers, 1)) * 0.25 ** np.arange(options) * rng.uniform(0.5, 1.5, (layers, options))
    )
    if not pairs:
        return OptionTable(cost, size)
    vectors = rng.standard_normal((layers, options, 4))
    vectors *= np.sqrt(cost)[:, :, None] / np.linalg.norm(vectors, axis=2, keepdims=True)
    return OptionTable(cost, size, 2 * np.einsum("iax,jbx->iajb", vectors, vectors))


def timed_menu(seed: int, layers: int, options: int, *, pairs: bool = False) -> OptionTable:
    """The same where some layers are faster with few bits, as much as it happens, and others take the same time
    whatever they have.
    """
    menu, rng = random_menu(seed, layers, options, pairs=pairs), np.random.default_rng(seed + 1000)
    faster = np.where(rng.random((layers, 1)) < 0.7, rng.uniform(0.4, 1, (layers, options)), 1)
    return replace(menu, time=np.rint(rng.uniform(1e3, 1e6, (layers, 1)) * faster).astype(np.int64))


def every_choice(menu: OptionTable) -> Iterator[np.ndarray]:
    layers, options = menu.cost.shape
    return (np.array(choice) for choice in itertools.product(range(options), repeat=layers))


def brute_force(menu: OptionTable, budget: int, time_budget: int = UNLIMITED) -> tuple[float, tuple[int, ...]]:
    return min(
        (menu.cost_of(choice), tuple(choice.tolist()))
        for choice in every_choice(menu)
        if menu.fits(choice, budget, time_budget)
    )


def time_budgets(menu: OptionTable, budget: int) -> list[int]:
    """Between the fastest choice of a size and the slowest one."""
    times = [menu.time_of(choice) for choice in every_choice(menu) if menu.size_of(choice) <= budget]
    return [int(min(times) + share * (max(times) - min(times))) for share in (0, 0.1, 0.4)]


def budgets(menu: OptionTable) -> list[int]:
    least, most = menu.size.min(axis=1).sum(), menu.size.max(axis=1).sum()
    return [int(least + share * (most - least)) for share in (0, 0.2, 0.5, 0.9, 1)]


@pytest.mark.parametrize("seed", range(4))
def test_the_integer_program_equals_brute_force_on_8_layers_of_3_options(seed):
    menu = random_menu(seed, 8, 3)
    for budget in budgets(menu)[1:4]:
        choice = allocate(menu, budget)
        least, best = brute_force(menu, budget)
        assert menu.size_of(choice) <= budget
        assert menu.cost_of(choice) == pytest.approx(least, rel=1e-5)
        assert tuple(choice) == best


@pytest.mark.parametrize("seed", range(4))
def test_with_a_budget_of_time_beside_that_of_size_too(seed):
    menu = timed_menu(seed, 8, 3)
    for budget in budgets(menu)[2:4]:
        for time_budget in time_budgets(menu, budget):
            choice = allocate(menu, budget, time_budget)
            assert menu.fits(choice, budget, time_budget)
            assert tuple(choice) == brute_force(menu, budget, time_budget)[1]


def test_both_budgets_bind_and_neither_is_taken_for_the_other():
    menu = timed_menu(1, 8, 3)
    budget = budgets(menu)[2]
    time_budget = time_budgets(menu, budget)[1]
    by_size, by_time, by_both = (
        allocate(menu, budget),
        allocate(menu, UNLIMITED, time_budget),
        allocate(menu, budget, time_budget),
    )
    assert menu.time_of(by_size) > time_budget
    assert menu.size_of(by_time) > budget
    assert menu.cost_of(by_both) > max(menu.cost_of(by_size), menu.cost_of(by_time))


def test_a_time_that_no_choice_of_that_size_reaches_is_refused_with_the_least_there_is():
    menu = timed_menu(2, 8, 3)
    budget = budgets(menu)[1]
    least = time_budgets(menu, budget)[0]
    assert menu.time_of(allocate(menu, budget, least)) == least
    with pytest.raises(OptionError, match=f"takes {least:,} ns"):
        allocate(menu, budget, least - 1)


def test_interactions_count_with_a_budget_of_time_too():
    menu = timed_menu(3, 6, 3, pairs=True)
    budget = budgets(menu)[3]
    time_budget = time_budgets(menu, budget)[1]
    assert menu.cost_of(allocate(menu, budget, time_budget)) == pytest.approx(
        brute_force(menu, budget, time_budget)[0], rel=1e-5
    )


@pytest.mark.parametrize("seed", range(3))
def test_the_smallest_choice_of_a_loss_and_a_time_equals_brute_force(seed):
    menu = timed_menu(seed, 7, 3)
    costs = sorted(menu.cost_of(choice) for choice in every_choice(menu))
    time_budget = time_budgets(menu, UNLIMITED)[2]
    for cost in (costs[len(costs) // 20], costs[len(costs) // 3]):
        fitting = [
            choice
            for choice in every_choice(menu)
            if menu.cost_of(choice) <= cost and menu.time_of(choice) <= time_budget
        ]
        found = smallest(menu, cost * (1 + 1e-9), time_budget)
        assert (found is None) == (not fitting)
        if found is not None:
            assert menu.size_of(found) == min(menu.size_of(choice) for choice in fitting)
            assert menu.cost_of(found) <= cost * (1 + 1e-5)
            assert menu.time_of(found) <= time_budget


def test_no_choice_is_small_where_none_loses_so_little():
    menu = timed_menu(0, 4, 3)
    assert smallest(menu, float(menu.cost.min(axis=1).sum()) / 2) is None


@pytest.mark.parametrize("seed", range(3))
def test_interactions_count_as_brute_force_counts_them(seed):
    menu = random_menu(seed, 6, 3, pairs=True)
    for budget in budgets(menu)[1:4]:
        choice = allocate(menu, budget)
        assert menu.size_of(choice) <= budget
        assert menu.cost_of(choice) == pytest.approx(brute_force(menu, budget)[0], rel=1e-5)


def test_interactions_within_blocks_alone_are_a_sparse_program():
    menu = random_menu(0, 6, 3, pairs=True)
    block = np.arange(6) // 3
    menu = OptionTable(menu.cost, menu.size, menu.pairs * (block[:, None, None, None] == block[None, None, :, None]))
    budget = budgets(menu)[2]
    assert menu.cost_of(allocate(menu, budget)) == pytest.approx(brute_force(menu, budget)[0], rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), layers=st.integers(1, 5), options=st.integers(1, 4))
def test_the_front_holds_exactly_the_choices_that_none_beats(seed, layers, options):
    menu = random_menu(seed, layers, options)
    front = pareto_front(menu)
    assert (np.diff(front.size) > 0).all()
    assert (np.diff(front.cost) < 0).all()
    for size, cost, choice in zip(front.size, front.cost, front.choices, strict=True):
        assert menu.size_of(choice) == size
        assert menu.cost_of(choice) == pytest.approx(cost)
    every = [np.array(choice) for choice in itertools.product(range(options), repeat=layers)]
    points = {(menu.size_of(choice), round(menu.cost_of(choice), 14)) for choice in every}
    best = {p for p in points if not any(q != p and q[0] <= p[0] and q[1] <= p[1] for q in points)}
    assert {(int(size), round(float(cost), 14)) for size, cost in zip(front.size, front.cost, strict=True)} == best


def test_a_thinned_front_keeps_real_choices_in_order():
    menu = random_menu(5, 30, 6)
    front = pareto_front(menu, limit=64)
    assert len(front.size) <= 64
    assert (np.diff(front.size) > 0).all()
    assert (np.diff(front.cost) < 0).all()
    assert [menu.size_of(choice) for choice in front.choices] == front.size.tolist()
    budget = budgets(menu)[2]
    assert menu.cost_of(allocate(menu, budget)) <= front.cost[front.within(budget)] * (1 + 1e-5)


def test_a_larger_budget_never_costs_more():
    menu = random_menu(9, 20, 5)
    costs = [menu.cost_of(allocate(menu, budget)) for budget in budgets(menu)]
    assert all(after <= before * (1 + 1e-5) for before, after in itertools.pairwise(costs))


def test_an_inactive_budget_takes_the_best_options_and_an_impossible_one_is_refused():
    menu = random_menu(1, 5, 3)
    np.testing.assert_array_equal(allocate(menu, 10**9), menu.cost.argmin(axis=1))
    with pytest.raises(OptionError, match="the smallest choice of the menu takes"):
        allocate(menu, budgets(menu)[0] - 1)


def test_points_of_a_front_are_found_by_size_and_by_cost():
    front = pareto_front(random_menu(2, 4, 3))
    middle = len(front.size) // 2
    assert front.within(int(front.size[middle])) == front.below(float(front.cost[middle])) == middle
    assert front.within(int(front.size[0]) - 1) is None
    assert front.below(float(front.cost[-1]) / 2) is None


def test_an_option_of_infinite_cost_is_never_taken():
    menu = random_menu(3, 5, 3)
    menu.cost[:, 1] = np.inf
    for budget in budgets(menu)[1:]:
        assert 1 not in allocate(menu, budget)
    assert 1 not in pareto_front(menu).choices


@pytest.mark.parametrize("seed", range(3))
def test_exchanges_lower_the_cost_with_interactions_until_no_two_layers_can(seed):
    menu = random_menu(seed, 5, 3, pairs=True)
    budget = budgets(menu)[2]
    start = allocate(OptionTable(menu.cost, menu.size), budget)
    choice = exchange(menu, start, budget)
    assert menu.size_of(choice) <= budget
    assert menu.cost_of(choice) <= menu.cost_of(start)
    for i, j in itertools.product(range(5), repeat=2):
        for a, b in itertools.product(range(3), repeat=2):
            other = choice.copy()
            other[i], other[j] = a, b
            assert menu.size_of(other) > budget or menu.cost_of(other) >= menu.cost_of(choice) * (1 - 1e-9)


NOISY = """if True:
    import ctypes
    from qcompiler.quiet import quiet
    with quiet():
        ctypes.CDLL(None).puts(b"what HiGHS prints when it mends a solution")
    print("{}")"""


@pytest.mark.skipif(os.name != "posix", reason="prints by the C library of Linux and macOS")
def test_what_the_solver_prints_does_not_reach_standard_output_where_json_may_be_printed():
    ran = subprocess.run(
        [sys.executable, "-c", NOISY],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (ran.stdout, ran.stderr) == ("{}\n", "")


def test_exchanges_stay_within_the_budget_of_time():
    menu = timed_menu(1, 6, 3, pairs=True)
    budget = budgets(menu)[3]
    time_budget = time_budgets(menu, budget)[1]
    start = allocate(replace(menu, pairs=None), budget, time_budget)
    choice = exchange(menu, start, budget, time_budget)
    assert menu.fits(choice, budget, time_budget)
    assert menu.cost_of(choice) <= menu.cost_of(start)
    free = exchange(menu, start, budget)
    assert menu.time_of(free) > time_budget


def test_perturbed_costs_are_seeded():
    menu = random_menu(4, 3, 3)
    first, again, other = (perturbed(menu, np.random.default_rng(seed), 0.3).cost for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_perturbed_costs_and_interactions_are_those_of_longer_or_shorter_errors():
    menu = random_menu(0, 4, 3, pairs=True)
    other = perturbed(menu, np.random.default_rng(0), 0.5)
    size = np.sqrt(menu.cost)[:, :, None, None] * np.sqrt(menu.cost)
    np.testing.assert_allclose(
        other.pairs / (np.sqrt(other.cost)[:, :, None, None] * np.sqrt(other.cost)), menu.pairs / size
    )
    assert not np.allclose(other.cost, menu.cost)


def test_shapes_and_costs_are_checked():
    with pytest.raises(ValueError, match="both be"):
        OptionTable(np.zeros((2, 3)), np.zeros((3, 2), np.int64))
    with pytest.raises(ValueError, match="time must be"):
        OptionTable(np.zeros((2, 3)), np.zeros((2, 3), np.int64), time=np.zeros((3, 2), np.int64))
    with pytest.raises(ValueError, match="finite cost"):
        OptionTable(np.full((1, 2), np.inf), np.zeros((1, 2), np.int64))
