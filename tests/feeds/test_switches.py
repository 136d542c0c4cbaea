from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from qcompiler.api import Options, compile
from qcompiler.feeds.switches import find_switches, fix_switches
from qcompiler.graph.runner import Runner
from qcompiler.runtime import Program, Session
from qcompiler.runtime.errors import FeedError
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

TWO = """g (float[N, 8] x, int64 rate) => (float[N, 4] y) {
    c = Equal(rate, wanted)
    y = If (c) <then_branch = t () => (float[] a) { a = MatMul(x, w) },
                else_branch = e () => (float[] b) { h = Relu(x)  b = MatMul(h, v) }> }"""
WEIGHTS = {"wanted": np.int64(16000), "w": random(8, 4), "v": random(8, 4, seed=1)}


def feeds(rates):
    return [{"x": random(6, 8, seed=index), "rate": np.array(rate)} for index, rate in enumerate(rates)]


def test_a_number_on_which_all_feeds_agree_is_fixed():
    graph = graph_of(TWO, **WEIGHTS)
    data = feeds([8000, 8000])
    before = Runner(graph).run(data[0])["y"]
    assert [tensor.name for tensor in find_switches(graph)] == ["rate"]
    assert fix_switches(graph, data) == {"rate": 8000}
    np.testing.assert_array_equal(Runner(graph).run(data[0])["y"], before)
    assert [tensor.name for tensor in graph.inputs] == ["x", "rate"]
    assert not find_switches(graph)


def test_feeds_of_two_numbers_leave_the_switch():
    graph = graph_of(TWO, **WEIGHTS)
    assert fix_switches(graph, feeds([8000, 16000])) == {}


@pytest.mark.parametrize("rate", [8000, 16000])
def test_the_program_holds_one_branch_and_refuses_other_numbers(rate, tmp_path):
    model, data = gs.export_onnx(graph_of(TWO, **WEIGHTS)), feeds([rate] * 6)
    compiled = compile(model, data=data, options=Options(level=0), for_onnx=False)
    compiled.save(tmp_path / "net.qprog")
    session = Session(Program.load(tmp_path / "net.qprog"))
    fresh = {"x": random(6, 8, seed=99), "rate": np.array(rate)}
    expected, got = Runner(model).run(fresh)["y"], session.run(fresh)["y"]
    assert np.square(expected - got).sum() < 1e-2 * np.square(expected).sum()
    for _ in range(2):  # known shapes take a shorter way
        with pytest.raises(FeedError, match="'rate' must be"):
            session.run({**fresh, "rate": np.array(24000 - rate)})


def test_feeds_of_both_numbers_need_both_branches():
    model, data = gs.export_onnx(graph_of(TWO, **WEIGHTS)), feeds([8000, 16000] * 3)
    session = compile(model, data=data, options=Options(level=0), for_onnx=False).session()
    for fresh in feeds([16000, 8000]):
        expected, got = Runner(model).run(fresh)["y"], session.run(fresh)["y"]
        assert np.square(expected - got).sum() < 1e-2 * np.square(expected).sum()
