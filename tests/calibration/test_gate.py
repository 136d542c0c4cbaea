from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration.gate import take_if_better
from qcompiler.graph.ir import copy_of
from qcompiler.graph.runner import Runner
from qcompiler.pass_base import Context
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

FEED = {"x": random(3, 4)}


def scaled(by: float):
    return graph_of("g (float[3, 4] x) => (float[3, 4] y) { y = Mul(x, k) }", k=np.array([by], np.float32))


@pytest.mark.parametrize(("tuned", "kept"), [(1.1, True), (0.5, False), (1.4, False)])
def test_a_change_stays_only_where_the_outputs_come_closer(tuned, kept):
    graph, ctx = scaled(1.4), Context(reference=copy_of(scaled(1.0)), running="a-pass")
    assert take_if_better(graph, scaled(tuned), [FEED], ctx) == kept
    np.testing.assert_array_equal(Runner(graph).run(FEED)["y"], FEED["x"] * np.float32(tuned if kept else 1.4))
    record = ctx.report.tunings[0]
    assert (record.pass_name, record.kept) == ("a-pass", kept)
    assert record.before == pytest.approx(0.16, rel=1e-3)
    assert record.after == pytest.approx((tuned - 1) ** 2, rel=1e-3)


def test_without_a_float_model_there_is_no_judge():
    graph, ctx = scaled(1.4), Context()
    assert take_if_better(graph, scaled(0.5), [FEED], ctx)
    assert ctx.report.tunings == []


@pytest.mark.parametrize(("most", "kept"), [(1.0, True), (0.5, False), (0.6, True)])
def test_a_gain_may_be_too_small_to_count(most, kept):
    graph, ctx = scaled(1.4), Context(reference=copy_of(scaled(1.0)))
    assert take_if_better(graph, scaled(1.3), [FEED], ctx, most=most) == kept  # 0.09 of 0.16 is left
