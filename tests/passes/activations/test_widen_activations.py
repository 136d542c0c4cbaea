from __future__ import annotations

import numpy as np

from qcompiler import lowering
from qcompiler.graph.ir import Graph, spec_of
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context, Pass
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.activations.widen_activations import WidenActivations
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.store_codes import StoreCodes
from qcompiler.runtime import Session
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

FEEDS = [{"x": random(6, 8, seed=seed)} for seed in range(3)]
TEXT = "a = MatMul(x, w)  r = Relu(a)  t = Transpose<perm=[1, 0]>(r)  y = MatMul(t, r)"


def compiled(graph: Graph, *passes: Pass) -> Context:
    ctx = Context(data=FEEDS)
    Manager([QuantizeActivations(), QuantizeWeights(), *passes, StoreCodes()]).run(graph, ctx)
    return ctx


def on_machine(graph: Graph) -> np.ndarray:
    return Session(lowering.to_program(lowering.lower_graph(graph))).run(FEEDS[0])["y"]


def test_all_is_wide_where_the_accumulators_hold_it_and_a_line_names_the_rest() -> None:
    graph = graph_of(f"g (float[6, 8] x) => (float[8, 8] y) {{ {TEXT} }}", w=random(8, 8))
    ctx = compiled(graph, WidenActivations())
    first, second = (node for node in graph.nodes if node.op == "MatMul")
    assert spec_of(first.inputs[0]).dtype == np.int16  # type: ignore[union-attr]
    assert {spec_of(tensor).dtype for tensor in second.inputs} == {np.dtype(np.uint8)}  # type: ignore[union-attr]
    assert spec_of(graph.outputs[0]).dtype == np.int16  # type: ignore[union-attr]
    assert len(ctx.report.warnings) == 1
    assert "'r' stays at 8 bits: 'MatMul_3'" in ctx.report.warnings[0]
    np.testing.assert_allclose(
        on_machine(graph), Runner(graph).run(FEEDS[0])["y"], atol=1.01 * float(spec_of(graph.outputs[0]).scale)
    )  # type: ignore[union-attr]


def test_a_layer_whose_sums_could_overflow_keeps_its_input_at_8_bits() -> None:
    weight = np.ones((1000, 8), np.float32)  # sum|w| = 127,000 > 2^16
    graph = graph_of(
        "g (float[6, 8] x) => (float[6, 8] y) { a = MatMul(x, v)  y = MatMul(a, w) }", v=random(8, 1000), w=weight
    )
    ctx = compiled(graph, WidenActivations())
    assert spec_of([node for node in graph.nodes if node.op == "MatMul"][1].inputs[0]).dtype == np.uint8  # type: ignore[union-attr]
    assert ctx.report.warnings == [
        "--activations int16: 'a' stays at 8 bits: the accumulator of 'MatMul_1' (MatMul) could leave 32 bits"
    ]
