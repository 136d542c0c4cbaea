from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration import sensitivity
from qcompiler.calibration.sensitivity import activation_units, find_pairs, measure_noise
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random


def test_sharing_sessions_does_not_change_the_noise(monkeypatch):
    text = (
        "g (float[N, 8] x) => (float[N, 8] y) { a = Tanh(x)  b = Mul(a, c)  d = Sigmoid(b)  e = Add(d, x)  y = "
        "Softmax(e) }"
    )
    graph, feeds = graph_of(text, c=np.float32(3)), [{"x": random(4, 8)}]
    Manager([QuantizeActivations()]).run(graph, Context(data=feeds))
    units = activation_units(graph, find_pairs(graph))
    together = measure_noise(graph, units, feeds, 1)
    monkeypatch.setattr(sensitivity, "BATCH", 1)
    monkeypatch.setattr(sensitivity, "SESSIONS", len(units))
    alone = measure_noise(graph, units, feeds, 1)
    assert len(units) >= 5
    assert together.units == pytest.approx(alone.units)
    assert max(alone.units) > 0


def test_a_graph_of_sequences_can_be_measured():
    text = (
        "g (float[N, 8] x) => (float[N, 4] y) { a = Tanh(x)  s = SplitToSequence <axis = 1> (a, n)  y = SequenceAt(s, "
        "i) }"
    )
    graph, feeds = graph_of(text, n=np.int64(4), i=np.int64(1)), [{"x": random(4, 8)}]
    Manager([QuantizeActivations()]).run(graph, Context(data=feeds))
    assert 0 < max(measure_noise(graph, activation_units(graph, find_pairs(graph)), feeds, 1).units) < 1e-3


def test_outputs_whose_size_is_data_can_be_measured():
    """As many elements as a value says, which a grid may change: speech of a length that is computed."""
    graph = graph_of(
        """g (float[1, 4] x) => (float[F] y) {
            h = MatMul(x, w)  q = QuantizeLinear(h, s, z)  d = DequantizeLinear(q, s, z)
            a = Abs(d)  t = ReduceSum <keepdims = 0> (a)  n = Cast <to = 7> (t)
            r = Range(zero, n, one)  f = Cast <to = 1> (r)  y = Mul(f, t) }""",
        w=np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32), s=np.float32(0.9), z=np.uint8(128),
        zero=np.int64(0), one=np.int64(1),
    )  # fmt: skip
    feeds = [{"x": np.random.default_rng(seed).standard_normal((1, 4)).astype(np.float32) * 3} for seed in range(6)]
    sizes = [Runner(graph).run(feed)["y"].shape for feed in feeds]
    assert len(set(sizes)) > 1
    noise = measure_noise(graph, activation_units(graph, find_pairs(graph)), feeds, 6)
    assert 0 < noise.units[0] <= 1
