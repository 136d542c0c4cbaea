from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from qcompiler.api import Options, compile
from qcompiler.graph.runner import Runner
from qcompiler.passes.normalize.select_branches import SelectBranches
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons, rewrite

UNSURE = """g (float[1, 8] x) => (float[1, 1] y) {
    s = MatMul(x, w)  p = Sigmoid(s)  c = GreaterOrEqual(p, half)
    y = If (c) <then_branch = t () => (float[1, 1] a) { m = MatMul(x, v)  a = Sigmoid(m) },
                else_branch = e () => (float[1, 1] b) { b = Identity(p) }> }"""
WEIGHTS = {"w": random(8, 1), "v": random(8, 1, seed=5), "half": np.float32(0.5)}


@pytest.mark.parametrize("seed", range(4))
def test_both_branches_run_and_one_is_taken(seed):
    graph = graph_of(UNSURE, **WEIGHTS)
    rewrite(graph, SelectBranches(), x=random(1, 8, seed=seed))
    assert "If" not in ops(graph)
    assert "Where" in ops(graph)


def test_the_machine_runs_a_choice_that_depends_on_data():
    model = gs.export_onnx(graph_of(UNSURE, **WEIGHTS))
    feeds = [{"x": random(1, 8, seed=seed)} for seed in range(24)]
    session = compile(model, data=feeds[:16], options=Options(level=0), for_onnx=False).session()
    float_model = Runner(model)
    expected = np.concatenate([float_model.run(feed)["y"] for feed in feeds])
    got = np.concatenate([session.run(feed)["y"] for feed in feeds])
    assert np.median(np.abs(expected - got)) < 0.02


def test_results_of_different_shapes_stay_a_choice():
    graph = graph_of(
        """g (float[N, 4] x, bool c) => (float[] y) {
            y = If (c) <then_branch = t () => (float[] a) { a = Relu(x) },
                        else_branch = e () => (float[] b) { b = Concat <axis = 0> (x, x) }> }"""
    )
    ctx = rewrite(graph, SelectBranches(), x=random(2, 4), c=np.array(True))
    assert reasons(ctx) == ["its branches give tensors whose shapes differ or are unknown"]


def test_the_same_symbolic_shape_will_do():
    graph = graph_of(
        """g (float[N, 4] x, bool c) => (float[N, 4] y) {
            y = If (c) <then_branch = t () => (float[] a) { a = Relu(x) },
                        else_branch = e () => (float[] b) { n = Neg(x)  b = Mul(n, n) }> }"""
    )
    rewrite(graph, SelectBranches(), x=random(2, 4), c=np.array(False))
    assert sorted(ops(graph)) == ["Mul", "Neg", "Relu", "Where"]
