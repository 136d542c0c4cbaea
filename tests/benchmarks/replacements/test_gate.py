"""What the figures of docs/replacements.md rest on: the networks trained for them, and the gate on networks and data
drawn at random.
"""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.mlp import Shape, forward, gradients, to_onnx, train
from benchmarks.replacements.gate import as_bytes, random_case, relative_error
from models.data import Split
from qcompiler.feeds.sources import open_source
from qcompiler.graph.ir import copy_of
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.pipeline import NORMALIZE, Pipeline

SHAPES = {"blocks": Shape(5, 3, 4, 6, 2), "chain": Shape(5, 3, 0, 6, 0)}
MARGIN = 1.5
"""Budgets that an error on fresh data may reach: the worst of 500 networks is in docs/replacements.md."""


def data(rows=64, seed=0):
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((rows, 5)).astype(np.float32)
    return Split(inputs, (inputs[:, :3] + 0.5 * np.abs(inputs[:, 2:])).argmax(axis=1))


@pytest.mark.parametrize("kind", SHAPES)
def test_the_gradient_is_that_of_the_loss(kind):
    shape, split = SHAPES[kind], data(8)
    parameters = {key: value.astype(np.float64) + 0.1 for key, value in train(shape, data(), epochs=1).items()}

    def loss(changed):
        logits = forward(shape, changed, split.inputs)[0]
        return float(np.log(np.exp(logits).sum(axis=1)).sum() - logits[np.arange(8), split.labels].sum())

    logits, seen = forward(shape, parameters, split.inputs)
    slope = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    slope[np.arange(8), split.labels] -= 1
    for key, gradient in gradients(shape, parameters, seen, slope).items():
        place = np.unravel_index(int(np.abs(gradient).argmax()), gradient.shape)
        step = np.zeros_like(parameters[key])
        step[place] = 1e-5
        numeric = (
            loss(parameters | {key: parameters[key] + step}) - loss(parameters | {key: parameters[key] - step})
        ) / 2e-5
        assert gradient[place] == pytest.approx(numeric, rel=1e-4)


@pytest.mark.parametrize("kind", SHAPES)
def test_a_trained_network_is_the_same_in_onnx_and_has_learned(kind):
    shape, split = SHAPES[kind], data(512)
    parameters = train(shape, split, epochs=30, rate=1e-2)
    logits = Runner(to_onnx(shape, parameters)).run({"x": split.inputs})["logits"]
    np.testing.assert_allclose(logits, forward(shape, parameters, split.inputs)[0], rtol=1e-4, atol=1e-4)
    assert (logits.argmax(axis=1) == split.labels).mean() > 0.8  # a third, if it were guessing


@pytest.mark.parametrize("seed", range(12))
def test_what_the_gate_accepts_keeps_its_budget_on_fresh_data_and_what_it_refuses_stays_byte_identical(seed):
    model, calibration, fresh = random_case(seed)
    graph = load_graph(model)
    Manager(NORMALIZE).run(graph, Context())
    original, before, budget = copy_of(graph), as_bytes(graph), (0.01, 0.1)[seed % 2]
    ctx = Context(seed=seed, data=open_source(calibration, graph), reference=original)
    step = "low-rank" if seed % 4 == 0 else "snnk-bundle"
    Manager(Pipeline.parse(f"{step}(error={budget}, latency=off)").passes).run(graph, ctx)
    kept = [each for each in ctx.report.replacements if each.kept]
    assert (as_bytes(graph) == before) == (not kept)
    assert relative_error(graph, original, fresh, "y") <= MARGIN * budget
    assert all(each.macs_after < each.macs_before and each.bytes_after < each.bytes_before for each in kept)
