from __future__ import annotations

import numpy as np
import pytest

from qcompiler.calibration import sensitivity
from qcompiler.calibration.sensitivity import activation_units, find_pairs, measure_noise
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
