"""preshift: powers of two move between layers, so no output changes by a bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompiler.graph.ir import constant_of
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.equalize.preshift import LARGEST_SHIFT, Preshift, power_of_two
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_divisors_become_the_nearest_power_of_two_in_the_exponent(divisors: list[float]) -> None:
    found = power_of_two(np.array(divisors))
    powers = 2.0 ** np.arange(-LARGEST_SHIFT, LARGEST_SHIFT + 1)
    for divisor, power in zip(divisors, found, strict=True):
        assert power in powers
        assert abs(np.log2(power / divisor)) <= np.abs(np.log2(powers / divisor)).min() + 1e-12


@pytest.mark.parametrize("outlier", [30, 300])
@pytest.mark.parametrize("seed", range(4))
def test_outputs_keep_every_bit_and_only_exponents_of_weights_change(outlier: int, seed: int) -> None:
    gain = random(8, seed=seed, low=0.5, high=2)
    gain[seed] *= outlier
    graph = graph_of(
        "g (float[B, L, 8] x) => (float[B, L, 6] y) { n = LayerNormalization <axis = -1> (x, gain, bias)  m = MatMul "
        "(n, w)  y = Add (m, c) }",
        gain=gain, bias=random(8, seed=seed + 1), w=random(8, 6, seed=seed + 2), c=random(6, seed=seed + 3),
    )  # fmt: skip
    feeds = [{"x": random(2, 16, 8, seed=10 + number)} for number in range(6)]
    before = Runner(graph, fusions=False).run(feeds[0])["y"]
    weights = [constant_of(graph.nodes[0].inputs[1]).copy(), constant_of(graph.nodes[1].inputs[1]).copy()]
    ctx = Context(data=feeds)
    Manager([Preshift(gain=-1e9)]).run(graph, ctx)
    assert len(ctx.report.regions) == 1
    np.testing.assert_array_equal(Runner(graph, fusions=False).run(feeds[0])["y"], before)
    first, second = (constant_of(graph.nodes[index].inputs[1]) / old for index, old in enumerate(weights))
    np.testing.assert_array_equal(np.frexp(first)[0], 0.5)
    np.testing.assert_array_equal(second * first[:, None], 1)
    assert len(np.unique(first)) > 1
