from __future__ import annotations

import numpy as np
import pytest
from qcompiler.passes._layer_rows import Rows, is_rotation, least_range
from qcompiler.passes.narrow_activations import NarrowActivations
from qcompiler.passes.quantize_activations import QuantizeActivations
from qcompiler.passes.quantize_weights import QuantizeWeights
from qcompiler.passes.store_codes import StoreCodes

from qcompiler import lowering
from qcompiler.calibration.observers import Range
from qcompiler.equivalence.hadamard import hadamard
from qcompiler.ir import Graph, Node, producer, read_spec
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.runner import Runner
from qcompiler.runtime import Session
from tests.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons

TEXT = "a = MatMul(x, w1)  r = Relu(a)  b = MatMul(r, w2)  y = Add(b, bias)"
RESIDUAL = "a = MatMul(x, w1)  b = MatMul(a, w2)  s = Add(a, b)  y = MatMul(s, w3)"
MOVED = "a = MatMul(x, w1)  t = Transpose<perm=[1, 0]>(a)  u = Transpose<perm=[1, 0]>(t)  y = MatMul(u, w2)"
FEEDS = [{"x": random(12, 8, seed=seed)} for seed in range(4)]


def network(text: str = TEXT) -> Graph:
    weights = {"w1": random(8, 8, seed=10), "w2": random(8, 8, seed=11), "w3": random(8, 8, seed=12), "bias": random(8, seed=13)}
    return graph_of(f"g (float[N, 8] x) => (float[N, 8] y) {{ {text} }}", **{name: value for name, value in weights.items() if name in text})


def narrowed(graph: Graph, **options: int) -> Context:
    ctx = Context(data=FEEDS)
    Manager([QuantizeActivations(), QuantizeWeights(), NarrowActivations(**options), StoreCodes()]).run(graph, ctx)
    return ctx


def codes_into(graph: Graph, layer: Node) -> np.ndarray:
    quantize = producer(producer(layer.inputs[0]).inputs[0])  # type: ignore[union-attr]
    assert quantize is not None
    return Runner(graph, [quantize.outputs[0].name]).run(FEEDS[0])[quantize.outputs[0].name]


@pytest.mark.parametrize("bits", [2, 4])
def test_what_a_layer_multiplies_has_so_few_codes_and_what_comes_from_outside_keeps_its_own(bits: int) -> None:
    graph = network()
    ctx = narrowed(graph, bits=bits)
    first, second = (node for node in graph.nodes if node.op == "MatMul")
    assert codes_into(graph, second).max() == 2**bits - 1
    assert codes_into(graph, first).max() > 2**bits
    assert "comes from outside" in reasons(ctx)[0]
    assert [(item.tensor, item.bits) for item in ctx.report.widths if item.bits == bits] == [("r", bits)]


def test_others_that_read_the_tensor_read_the_wide_grid() -> None:
    graph = network(RESIDUAL)
    narrowed(graph)
    second, third = (node for node in graph.nodes if node.op == "MatMul" and node.name != "MatMul_0")
    add = next(node for node in graph.nodes if node.op == "Add")
    assert 8 <= max(codes_into(graph, layer).max() for layer in (second, third)) <= 15
    wide = read_spec(producer(add.inputs[0]))  # type: ignore[arg-type]
    narrow = read_spec(producer(second.inputs[0]))  # type: ignore[arg-type]
    assert wide is not None
    assert narrow is not None
    assert wide.scale < narrow.scale / 4
    assert ops(graph).count("Clip") == 2  # `s` has one reader: its grid is replaced


@pytest.mark.parametrize("text", [TEXT, RESIDUAL, MOVED])
def test_the_machine_computes_what_onnxruntime_does(text: str) -> None:
    graph = network(text)
    narrowed(graph)
    expected = Runner(graph).run(FEEDS[1])["y"]
    got = Session(lowering.to_program(lowering.lower_graph(graph))).run(FEEDS[1])["y"]
    step = float(read_spec(producer(graph.outputs[0])).scale)  # type: ignore[union-attr, arg-type]
    assert np.abs(got - expected).max() <= 1.01 * step


def test_ranges_are_those_of_least_error_of_the_products() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 400, 6)).astype(np.float32), rng.standard_normal((1, 5, 6)).astype(np.float32)
    x[0, 0, 0] = 40
    rows = Rows(weight, x, float(np.square(x @ weight.transpose(0, 2, 1)).sum()))
    whole = Range(float(x.min()), float(x.max()))
    best = least_range(lambda extent: rows.loss(extent, 16), whole)
    tried = [rows.loss(Range(whole.lo * a, whole.hi * b), 16) for a in np.linspace(0.1, 1, 40) for b in np.linspace(0.02, 1, 80)]
    assert rows.loss(best, 16) <= 1.05 * min(tried) < 0.6 * rows.loss(whole, 16)
    weight[0, :, 0] = 0  # nobody reads the outlier now
    silent = Rows(weight, x, float(np.square(x @ weight.transpose(0, 2, 1)).sum()))
    assert least_range(lambda extent: silent.loss(extent, 16), whole).hi < best.hi


def test_a_matrix_of_signs_is_a_rotation() -> None:
    assert is_rotation(hadamard(8) / np.sqrt(8))
    assert not is_rotation(random(8, 8))
    assert not is_rotation(np.ones((2, 3)))


def test_there_are_between_2_and_7_bits() -> None:
    with pytest.raises(ValueError, match="between 2 and 7"):
        NarrowActivations(bits=8)
