from __future__ import annotations

import numpy as np
import pytest

from qcompiler.graph.ir import Constant, Graph, Stage, quantized_source, spec_of
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.store_codes import StoreCodes
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

CASES = {
    "Conv": ("g (float[1, 4, 5, 5] x) => (float[1, 6, 5, 5] y) { y = Conv <group = 2> (x, w, b) }", (6, 2, 1, 1), (6,)),
    "ConvTranspose": (
        "g (float[1, 4, 5, 5] x) => (float[1, 6, 5, 5] y) { y = ConvTranspose <group = 2> (x, w, b) }",
        (4, 3, 1, 1),
        (6,),
    ),
    "Gemm": ("g (float[5, 4] x) => (float[5, 6] y) { y = Gemm <transB = 1> (x, w, b) }", (6, 4), (6,)),
    "Gemm, one bias": ("g (float[5, 4] x) => (float[5, 6] y) { y = Gemm(x, w, b) }", (4, 6), (1,)),
    "MatMul": ("g (float[5, 4] x) => (float[5, 6] y) { a = MatMul(x, w)  y = Add(a, b) }", (4, 6), (1, 6)),
    "MatMul, Relu": (
        "g (float[5, 4] x) => (float[5, 6] y) { a = MatMul(x, w)  c = Add(b, a)  y = Relu(c) }",
        (4, 6),
        (),
    ),
}


def stored(graph: Graph, feed: dict[str, np.ndarray]) -> Graph:
    stage = Manager([QuantizeActivations(), QuantizeWeights(), StoreCodes()]).run(graph, Context(data=[feed]))
    assert stage == Stage.QUANTIZED
    return graph


def layer_of(graph: Graph, name: str):
    return next(node for node in graph.nodes if node.op == name.split(",")[0])


@pytest.mark.parametrize("name", CASES)
def test_weights_are_int8_and_biases_int32_in_steps_of_the_accumulator(name):
    text, shape, bias_shape = CASES[name]
    bias = random(*bias_shape, seed=1) if bias_shape else np.float32(0.7)
    graph, feed = (
        graph_of(text, w=random(*shape), b=bias),
        {"x": random(1, 4, 5, 5) if "Conv" in name else random(5, 4)},
    )
    expected = Runner(graph).run(feed)["y"]
    stored(graph, feed)
    layer = layer_of(graph, name)
    holder = next(node for node in graph.nodes if node.op == "Add") if "MatMul" in name else layer
    slot = 2 if holder is layer else [spec_of(t) is not None for t in holder.inputs].index(True)
    weight, bias_spec = quantized_source(layer.inputs[1]), spec_of(holder.inputs[slot])
    assert isinstance(weight, Constant)
    assert weight.dtype == np.int8
    assert quantized_source(holder.inputs[slot]).dtype == np.int32
    steps = np.tile(
        spec_of(layer.inputs[0]).scale * spec_of(layer.inputs[1]).scale,
        bias_spec.scale.size // spec_of(layer.inputs[1]).scale.size,
    )
    assert np.array_equal(bias_spec.scale, steps)
    for fusions in (True, False):
        np.testing.assert_allclose(
            Runner(graph, fusions=fusions).run(feed)["y"], expected, atol=0.04 * np.abs(expected).max()
        )


def test_nothing_changes_but_the_rounding_of_the_bias():
    graph, feed = graph_of(CASES["Gemm"][0], w=random(6, 4), b=random(6, seed=1)), {"x": random(5, 4)}
    Manager([QuantizeActivations(), QuantizeWeights()]).run(graph, Context(data=[feed]))
    before = Runner(graph, fusions=False).run(feed)["y"]
    Manager([StoreCodes()]).run(graph, Context())
    np.testing.assert_allclose(
        Runner(graph, fusions=False).run(feed)["y"], before, atol=1.01 * float(spec_of(graph.outputs[0]).scale)
    )


def test_tables_and_operands_become_codes():
    graph = graph_of(
        "g (int64[2] ids) => (float[2, 4] y) { e = Gather(table, ids)  y = Mul(e, half) }",
        table=random(9, 4),
        half=np.float32(0.5),
    )
    stored(graph, {"ids": np.array([1, 3])})
    constants = [
        node.inputs[0] for node in graph.nodes if node.op == "DequantizeLinear" and isinstance(node.inputs[0], Constant)
    ]
    assert sorted((c.dtype.name, tuple(c.shape)) for c in constants) == [("uint8", ()), ("uint8", (9, 4))]
    assert not any(node.op == "QuantizeLinear" and isinstance(node.inputs[0], Constant) for node in graph.nodes)


def test_a_weight_that_two_layers_read_is_stored_once():
    graph = graph_of(
        "g (float[5, 4] x) => (float[5, 4] y) { a = MatMul(x, w)  r = Relu(a)  y = MatMul(r, w) }", w=random(4, 4)
    )
    stored(graph, {"x": random(5, 4)})
    weights = {id(quantized_source(node.inputs[1])) for node in graph.nodes if node.op == "MatMul"}
    assert len(weights) == 1


def test_two_runs_give_the_same_graph():
    def run() -> list[tuple[str, str, bytes]]:
        graph = stored(graph_of(CASES["Gemm"][0], w=random(6, 4), b=random(6, seed=1)), {"x": random(5, 4)})
        return [
            (node.op, t.name, np.asarray(t.values).tobytes() if isinstance(t, Constant) else b"")
            for node in graph.nodes
            for t in node.inputs
        ]

    assert run() == run()
