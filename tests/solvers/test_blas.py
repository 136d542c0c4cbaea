from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import scipy.linalg
from threadpoolctl import threadpool_info, threadpool_limits

from qcompiler.graph.ir import copy_of
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.reconstruct_layers import ReconstructLayers
from qcompiler.solvers import SOLVERS, Nearest
from qcompiler.solvers.blas import LARGE, steady_blas
from tests.graphs import graph_of
from tests.passes.rewriting import random


def threads():
    """Of numpy's BLAS and of scipy's."""
    assert scipy.linalg.lapack is not None
    return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]


@pytest.fixture
def _two_threads():
    with threadpool_limits(limits=2, user_api="blas"):
        yield


@pytest.mark.usefixtures("_two_threads")
def test_usual_products_take_one_thread_and_large_ones_what_there_is():
    before = threads()
    assert set(before) == {2}
    with steady_blas(LARGE - 1):
        assert set(threads()) == {1}
    with steady_blas(LARGE):
        assert threads() == before
    assert threads() == before


@dataclass(frozen=True)
class Probe(Nearest):
    """Notes how many threads there are while it solves."""

    seen: ClassVar[list[int]] = []

    def solve(self, problem, start=None, seed=0):
        self.seen.extend(threads())
        return super().solve(problem, start, seed)


@pytest.mark.usefixtures("_two_threads")
@pytest.mark.parametrize("inputs", ["float", "quantized"])
def test_layers_are_solved_on_one_thread(inputs, monkeypatch):
    monkeypatch.setitem(SOLVERS, "probe", Probe())
    Probe.seen.clear()
    graph = graph_of("g (float[N, 6] x) => (float[N, 3] y) { a = MatMul(x, v) y = MatMul(a, w) }", v=random(6, 5), w=random(5, 3))
    ctx = Context(data=[{"x": random(8, 6, seed=seed)} for seed in range(6)], reference=copy_of(graph))
    Manager([QuantizeActivations(), QuantizeWeights(), ReconstructLayers(solver="probe", inputs=inputs)]).run(graph, ctx)
    assert len(Probe.seen) >= 4
    assert set(Probe.seen) == {1}
    assert np.isfinite(ctx.report.reconstructions[0].held_after)
