"""Counts of values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from qcompiler.page.histograms import BINS, SAMPLE, histogram, histograms
from tests.helpers.graphs import graph_of


@given(arrays(np.float32, st.integers(1, 300), elements=st.floats(-1e6, 1e6, width=32)))
def test_every_value_is_in_its_bin(values):
    found = histogram([values])
    assert sum(found.counts) == values.size
    assert (found.least, found.most) == (values.min(), values.max())
    borders, near = np.linspace(found.least, found.most, BINS + 1)[1:-1, None], 1e-9 * (found.most - found.least)
    below = np.cumsum(found.counts)[:-1]  # a value at the border of two bins may be in either
    if near > 0:
        assert np.all((values < borders - near).sum(axis=1) <= below)
        assert np.all(below <= (values < borders + near).sum(axis=1))


def test_what_is_not_finite_is_told_apart():
    found = histogram([np.array([1.0, np.inf, np.nan, 2.0], np.float32)])
    assert (found.least, found.most, found.odd, sum(found.counts)) == (1.0, 2.0, 2, 2)
    assert histogram([np.full(3, np.nan, np.float32), np.zeros(0, np.float32)]).counts == []


def test_large_tensors_are_sampled_but_not_their_extremes():
    values = np.zeros(5 * SAMPLE, np.float32)
    values[1] = 7.0
    found = histogram([values])
    assert found.most == 7.0
    assert SAMPLE / 2 < sum(found.counts) <= SAMPLE


def test_inputs_and_inner_tensors_of_a_graph():
    graph = graph_of("g (float[N, 4] x, int64[N] i) => (float[N, 4] y) { a = Neg(x) y = Relu(a) }")
    feeds = [{"x": np.full((2, 4), value, np.float32), "i": np.zeros(2, np.int64)} for value in (1.0, 3.0)]
    found = histograms(graph, ["x", "i", "a", "y"], feeds)
    assert {name: (each.least, each.most) for name, each in found.items()} == {
        "x": (1, 3), "a": (-3, -1), "y": (0, 0)
    }  # fmt: skip
    assert histograms(graph, ["x"], []) == {}


@pytest.mark.parametrize("value", [0.0, -5.0])
def test_a_constant_tensor_is_one_bin(value):
    assert sum(count > 0 for count in histogram([np.full(9, value, np.float32)]).counts) == 1
