from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from qcompiler import lowering
from qcompiler.activations.power_curve import PowerLevels, least_power
from qcompiler.activations.range_search import Rows, is_rotation, least_range
from qcompiler.calibration.observers import Range
from qcompiler.equivalence.hadamard import hadamard
from qcompiler.graph.ir import Graph, Node, producer, read_spec
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.onnx_io import export
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.passes.activations.narrow_activations import NarrowActivations
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.store_codes import StoreCodes
from qcompiler.runtime import Session
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons

TEXT = "a = MatMul(x, w1)  r = Relu(a)  b = MatMul(r, w2)  y = Add(b, bias)"
RESIDUAL = "a = MatMul(x, w1)  b = MatMul(a, w2)  s = Add(a, b)  y = MatMul(s, w3)"
MOVED = "a = MatMul(x, w1)  t = Transpose<perm=[1, 0]>(a)  u = Transpose<perm=[1, 0]>(t)  y = MatMul(u, w2)"
FEEDS = [{"x": random(12, 8, seed=seed)} for seed in range(4)]


def network(text: str = TEXT) -> Graph:
    weights = {
        "w1": random(8, 8, seed=10),
        "w2": random(8, 8, seed=11),
        "w3": random(8, 8, seed=12),
        "bias": random(8, seed=13),
    }
    return graph_of(
        f"g (float[N, 8] x) => (float[N, 8] y) {{ {text} }}",
        **{name: value for name, value in weights.items() if name in text},
    )


def narrowed(graph: Graph, **options: Any) -> Context:
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
@pytest.mark.parametrize("curve", ["uniform", "power"])
def test_the_machine_computes_what_onnxruntime_does(text: str, curve: str, tmp_path: Path) -> None:
    graph = network(text)
    narrowed(graph, curve=curve)
    export.save(graph, tmp_path / "out.onnx", reference_feed=FEEDS[0])
    expected = Runner(graph).run(FEEDS[1])["y"]
    lowered = lowering.lower_graph(load_graph(tmp_path / "out.onnx"))
    got = Session(lowering.to_program(lowered)).run(FEEDS[1])["y"]
    np.testing.assert_array_equal(got, Runner(lowering.to_integer_onnx(lowered), fusions=False).run(FEEDS[1])["y"])
    step = float(read_spec(producer(graph.outputs[0])).scale)  # type: ignore[union-attr, arg-type]
    assert np.abs(got - expected).max() <= 1.01 * step


@pytest.mark.parametrize("bits", [2, 4])
@pytest.mark.parametrize("text", [TEXT, RESIDUAL, MOVED])
def test_codes_on_a_curve_are_so_few_of_256(bits: int, text: str) -> None:
    graph = network(text)
    narrowed(graph, bits=bits, curve="power")
    for layer in [node for node in graph.nodes if node.op == "MatMul"][1:]:
        codes = producer(layer.inputs[0]).inputs[0]  # type: ignore[union-attr]
        found = Runner(graph, [codes.name]).run(FEEDS[0])[codes.name]
        assert 2 ** (bits - 1) < len(np.unique(found)) <= 2**bits
        assert found.max() - found.min() > 100
    assert ops(graph).count("Gather") == (2 if text == RESIDUAL else 1)
    assert "Clip" not in ops(graph)


def test_onnxruntime_keeps_its_integer_layers_behind_a_table(tmp_path: Path) -> None:
    graph = network()
    narrowed(graph, curve="power")
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(export.to_model(graph).SerializeToString(), options, providers=["CPUExecutionProvider"])
    nodes = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert nodes == ["QuantizeLinear", "QLinearMatMul", "Cast", "Gather", "QGemm", "DequantizeLinear"]


@pytest.mark.parametrize(("low", "high"), [(-3.0, 3.0), (0.0, 5.0), (-0.2, 4.0), (-2.0, 0.0)])
@pytest.mark.parametrize("exponent", [0.4, 0.5, 1.0])
def test_levels_lie_on_the_curve_and_every_value_goes_to_the_nearest(low: float, high: float, exponent: float) -> None:
    levels = PowerLevels(Range(low, high), exponent, 16)
    scale, zero_point = levels.grid
    table = levels.table().astype(int)
    kept = np.unique(table)
    assert len(kept) <= 16
    assert zero_point in kept
    assert np.isclose((kept[[0, -1]] - zero_point) * scale, [low, high], atol=scale).all()
    codes = np.arange(256)
    np.testing.assert_array_equal(np.abs(codes - table), np.abs(codes[:, None] - kept).min(axis=1))
    above = kept[kept > zero_point] - zero_point
    curve = (np.arange(1, len(above) + 1) / max(len(above), 1)) ** (1 / exponent) * (high / scale)
    assert len(above) < 4 or np.abs(np.maximum(curve, np.arange(1, len(above) + 1)) - above).max() <= 1
    x = np.random.default_rng(0).uniform(2 * low - 1, 2 * high + 1, 1000).astype(np.float32)
    values = (kept - zero_point) * scale
    error = np.abs(levels.rounded(x) - x)
    assert (error <= np.abs(x[:, None] - values).min(axis=1) + scale).all()


def test_a_curve_loses_less_where_values_gather_near_zero() -> None:
    rng = np.random.default_rng(1)
    x, weight = rng.laplace(size=(1, 800, 6)).astype(np.float32), rng.standard_normal((1, 5, 6)).astype(np.float32)
    rows = Rows(weight, x, float(np.square(x @ weight.transpose(0, 2, 1)).sum()))
    whole = Range(float(x.min()), float(x.max()))
    levels, loss = least_power([rows], whole, 16)
    assert levels.exponent < 0.9
    uniform = rows.loss(least_range(lambda extent: rows.loss(extent, 16), whole), 16)
    assert loss < 0.88 * uniform
    every = [
        PowerLevels(Range(whole.lo * k, whole.hi * k), a, 16)
        for a in np.linspace(0.3, 1, 15)
        for k in np.linspace(0.1, 1, 30)
    ]
    assert loss <= 1.1 * min(rows.loss_of(tried.rounded(x)) for tried in every)


def test_ranges_are_those_of_least_error_of_the_products() -> None:
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, 400, 6)).astype(np.float32), rng.standard_normal((1, 5, 6)).astype(np.float32)
    x[0, 0, 0] = 40
    rows = Rows(weight, x, float(np.square(x @ weight.transpose(0, 2, 1)).sum()))
    whole = Range(float(x.min()), float(x.max()))
    best = least_range(lambda extent: rows.loss(extent, 16), whole)
    tried = [
        rows.loss(Range(whole.lo * a, whole.hi * b), 16)
        for a in np.linspace(0.1, 1, 40)
        for b in np.linspace(0.02, 1, 80)
    ]
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
