from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.allocation import Menu, allocate, exchange, pareto_front, perturbed
from qcompiler.errors import OptionError


def random_menu(seed: int, layers: int, options: int, *, pairs: bool = False) -> Menu:
    """Costs over six decades that fall as sizes grow, as those of bit widths do."""
    rng = np.random.default_rng(seed)
    weights = rng.integers(5, 1000, layers)
    size = weights[:, None] * np.arange(2, 2 + options)
    cost = 10.0 ** rng.uniform(-6, -1, (layers, 1)) * 0.25 ** np.arange(options) * rng.uniform(0.5, 1.5, (layers, options))
    if not pairs:
        return Menu(cost, size)
    vectors = rng.standard_normal((layers, options, 4))
    vectors *= np.sqrt(cost)[:, :, None] / np.linalg.norm(vectors, axis=2, keepdims=True)
    return Menu(cost, size, 2 * np.einsum("iax,jbx->iajb", vectors, vectors))


def brute_force(menu: Menu, budget: int) -> tuple[float, tuple[int, ...]]:
    layers, options = menu.cost.shape
    every = (np.array(choice) for choice in itertools.product(range(options), repeat=layers))
    return min((menu.cost_of(choice), tuple(choice.tolist())) for choice in every if menu.size_of(choice) <= budget)


def budgets(menu: Menu) -> list[int]:
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
    menu = Menu(menu.cost, menu.size, menu.pairs * (block[:, None, None, None] == block[None, None, :, None]))
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
    start = allocate(Menu(menu.cost, menu.size), budget)
    choice = exchange(menu, start, budget)
    assert menu.size_of(choice) <= budget
    assert menu.cost_of(choice) <= menu.cost_of(start)
    for i, j in itertools.product(range(5), repeat=2):
        for a, b in itertools.product(range(3), repeat=2):
            other = choice.copy()
            other[i], other[j] = a, b
            assert menu.size_of(other) > budget or menu.cost_of(other) >= menu.cost_of(choice) * (1 - 1e-9)


def test_perturbed_costs_are_seeded():
    menu = random_menu(4, 3, 3)
    first, again, other = (perturbed(menu, np.random.default_rng(seed), 0.3).cost for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_perturbed_costs_and_interactions_are_those_of_longer_or_shorter_errors():
    menu = random_menu(0, 4, 3, pairs=True)
    other = perturbed(menu, np.random.default_rng(0), 0.5)
    size = np.sqrt(menu.cost)[:, :, None, None] * np.sqrt(menu.cost)
    np.testing.assert_allclose(other.pairs / (np.sqrt(other.cost)[:, :, None, None] * np.sqrt(other.cost)), menu.pairs / size)
    assert not np.allclose(other.cost, menu.cost)


def test_shapes_and_costs_are_checked():
    with pytest.raises(ValueError, match="both be"):
        Menu(np.zeros((2, 3)), np.zeros((3, 2), np.int64))
    with pytest.raises(ValueError, match="finite cost"):
        Menu(np.full((1, 2), np.inf), np.zeros((1, 2), np.int64))
