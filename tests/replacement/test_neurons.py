from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import scipy.linalg

from qcompiler.replacement.neurons import ORDERS, neuron_order


def moments(neurons=12, extra=0, targets=3, rank=None, seed=0):
    rng = np.random.default_rng(seed)
    rows = (
        rng.standard_normal((300, rank or neurons))
        @ rng.standard_normal((rank or neurons, neurons))
        * np.exp(rng.standard_normal(neurons))
    )
    rows = np.concatenate([rows, rng.standard_normal((300, extra)) + rows[:, :extra]], axis=1)
    rows -= rows.mean(axis=0)
    y = rows[:, :neurons] @ rng.standard_normal((neurons, targets)) + 0.1 * rng.standard_normal((300, targets))
    y -= y.mean(axis=0)
    return rows, y, rows.T @ rows / 300, rows.T @ y / 300


def left_over(rows, y, chosen):
    return float(np.square(y - rows[:, chosen] @ np.linalg.lstsq(rows[:, chosen], y, rcond=None)[0]).sum())


def test_pivoting_is_column_pivoted_qr():
    rows, _, gram, cross = moments()
    _, _, pivots = scipy.linalg.qr(rows, mode="economic", pivoting=True)
    order = neuron_order(gram, cross, 12, np.zeros(0, np.int64), "pivoting", np.ones(12), 12)
    np.testing.assert_array_equal(order, pivots)


@pytest.mark.parametrize("extra", [0, 4])
def test_pursuit_takes_at_every_step_what_leaves_least(extra):
    rows, y, gram, cross = moments(extra=extra)
    kept = np.arange(12, 12 + extra)
    order = neuron_order(gram, cross, 12, kept, "pursuit", np.ones(12), 6)
    for step in range(6):
        before = [*order[:step], *kept]
        best = min((left_over(rows, y, [*before, neuron]), neuron) for neuron in range(12) if neuron not in before)
        assert order[step] == best[1]


def test_pursuit_is_close_to_the_best_subset():
    rows, y, gram, cross = moments(neurons=9, targets=2, seed=3)
    order = neuron_order(gram, cross, 9, np.zeros(0, np.int64), "pursuit", np.ones(9), 3)
    best = min(left_over(rows, y, list(subset)) for subset in combinations(range(9), 3))
    assert left_over(rows, y, order) <= 1.5 * best


@pytest.mark.parametrize("how", ORDERS)
def test_dependent_neurons_are_not_taken(how):
    _, _, gram, cross = moments(rank=5)
    order = neuron_order(gram, cross, 12, np.zeros(0, np.int64), how, np.ones(12), 12)
    assert len(order) == len(set(order.tolist())) == 5


@pytest.mark.parametrize("how", ORDERS)
def test_neurons_that_are_inputs_in_disguise_come_last_beside_an_affine_skip(how):
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((400, 3))
    linear, curved = inputs @ rng.standard_normal((3, 4)) * 10, np.maximum(inputs @ rng.standard_normal((3, 4)), 0)
    rows = np.concatenate([linear, curved, inputs], axis=1)
    rows -= rows.mean(axis=0)
    y = rows[:, :8] @ rng.standard_normal((8, 2))
    order = neuron_order(rows.T @ rows / 400, rows.T @ y / 400, 8, np.arange(8, 11), how, np.ones(8), 8)
    assert set(order[:4].tolist()) == {4, 5, 6, 7}
