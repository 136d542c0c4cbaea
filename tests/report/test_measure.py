from __future__ import annotations

import math

import numpy as np
import pytest

from qcompiler.report import measure
from tests.helpers.graphs import graph_of

CONV = """g (float[1, 4, 8, 8] x) => (float[1, 5] y) {
    c = Conv <pads = [1, 1, 1, 1], strides = [2, 2], group = 2> (x, w)
    p = GlobalAveragePool(c)  f = Flatten(p)  y = MatMul(f, v)
}"""
WEIGHTS = {"w": np.ones((6, 2, 3, 3), np.float32), "v": np.ones((6, 5), np.float32)}
FEED = {"x": np.random.default_rng(0).normal(size=(1, 4, 8, 8)).astype(np.float32)}


def test_sqnr_is_the_ratio_of_powers_over_all_feeds() -> None:
    total = measure.Sqnr()
    total.add({"y": np.array([3.0, 4.0])}, {"y": np.array([3.0, 4.5])})
    total.add({"y": np.array([0.0, 5.0])}, {"y": np.array([0.5, 5.0])})
    assert total.db()["y"] == pytest.approx(10 * math.log10(50 / 0.5))


def test_equal_tensors_have_the_top_ratio_and_odd_shapes_are_left_out() -> None:
    total = measure.Sqnr()
    total.add({"y": np.ones(3), "z": np.ones(3)}, {"y": np.ones(3), "z": np.ones(4)})
    assert total.db() == {"y": measure.SAME_DB}


def test_infinities_do_not_hide_an_error() -> None:
    total = measure.Sqnr()
    total.add({"y": np.array([-np.inf, 1.0])}, {"y": np.array([-np.inf, 0.9])})
    assert total.db()["y"] == pytest.approx(20.0)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_output_that_is_no_number_is_the_worst(broken: float) -> None:
    total = measure.Sqnr()
    total.add({"y": np.array([1.0, 2.0])}, {"y": np.array([1.0, broken])})
    assert total.db() == {"y": -measure.SAME_DB}


def test_macs_match_a_hand_count() -> None:
    graph = graph_of(CONV, **WEIGHTS)
    by_hand = 6 * 4 * 4 * 2 * 3 * 3 + 6 * 5
    assert measure.macs(graph, FEED) [:2] == (by_hand, 0)


def test_layer_errors_are_sorted_worst_first_and_zero_for_the_same_graph() -> None:
    first, second = graph_of(CONV, **WEIGHTS), graph_of(CONV, **{**WEIGHTS, "v": np.full((6, 5), 1.5, np.float32)})
    assert {error.sqnr_db for error in measure.layer_errors(first, first, FEED)} == {measure.SAME_DB}
    errors = measure.layer_errors(first, second, FEED)
    assert errors[0].op == "MatMul"
    assert errors[0].sqnr_db == pytest.approx(20 * math.log10(2), abs=1e-4)
    assert [error.sqnr_db for error in errors[1:]] == [measure.SAME_DB]
