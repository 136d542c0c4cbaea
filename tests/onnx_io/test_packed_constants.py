"""Constants of few values leave packed and come back as they were; onnxruntime runs the layers it would have run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from qcompiler.graph.ir import Constant, Graph, constant_of, producer
from qcompiler.graph.runner import Runner
from qcompiler.lowering import lower_graph, to_integer_onnx, to_program
from qcompiler.manager import Manager
from qcompiler.onnx_io import export, packed_constants
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.pipeline import Pipeline
from qcompiler.runtime import Session
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random

NF4 = [-127, -88, -67, -50, -36, -23, -12, 0, 10, 20, 31, 43, 56, 71, 92, 127]
LAYER = """g (float[N, 128] x) => (float[N, 192] y) {
    q = QuantizeLinear(x, sx, zx)  d = DequantizeLinear(q, sx, zx)  w = DequantizeLinear <axis = 1> (k, s)
    m = MatMul(d, w)
    r = QuantizeLinear(m, sy, zx)  y = DequantizeLinear(r, sy, zx) }"""
LOOKUP = """g (int64[N] x) => (float[N, 192] y) { q = Gather(k, x)  y = DequantizeLinear(q, sx, zx) }"""
GRIDS = {"sx": np.float32(0.02), "zx": np.uint8(128), "sy": np.float32(0.4)}


def codes(levels: list[int] | str, dtype: type = np.int8) -> np.ndarray:
    """A matrix [128, 192] of these levels; or of 11 multiples of another number in each row or column, or of 15 in
    each block of one.
    """
    rng = np.random.default_rng(7)
    if isinstance(levels, str) and levels.startswith("blocks"):
        along = levels == "blocks of columns"
        steps = (
            rng.integers(5, 10, (2, 192)).repeat(64, axis=0)
            if along
            else rng.integers(5, 10, (128, 3)).repeat(64, axis=1)
        )
        return (rng.integers(-7, 8, (128, 192)) * steps).astype(dtype)
    if not isinstance(levels, str):
        return rng.choice(np.array(levels), (128, 192)).astype(dtype)
    steps = rng.integers(1, 24, (128, 1) if levels == "rows" else (1, 192))
    return (rng.integers(-5, 6, (128, 192)) * steps + (128 if dtype is np.uint8 else 0)).astype(dtype)


def layer(k: np.ndarray) -> Graph:
    scale = np.random.default_rng(1).uniform(0.005, 0.01, 192).astype(np.float32)
    return graph_of(LAYER, k=k, s=scale, **GRIDS)


def stored(graph: Graph, dtype: type) -> list[np.ndarray]:
    return [
        t.values
        for node in graph.nodes
        for t in node.inputs
        if isinstance(t, Constant) and t.dtype == dtype and t.values.size > 1000
    ]


@pytest.mark.parametrize(("levels", "bits", "opset", "nodes"), [
    ([-1, 0, 1], 2, 25, ["Cast"]),
    ([-127, 0, 5, 9], 2, 25, ["Cast", "Gather"]),
    ([-3, -2, -1, 0, 1, 2, 3], 3.05, 18, ["BitShift", "BitwiseAnd", "Cast", "Reshape", "Slice", "Reshape", "Gather"]),
    (list(range(-7, 8)), 4, 21, ["Cast"]),
    (NF4, 4, 21, ["Cast", "Gather"]),
    (list(range(-15, 16)), 5.34, 18, ["BitShift", "BitwiseAnd", "Cast", "Reshape", "Reshape", "Gather"]),
    (list(range(-31, 32)), 6.4, 18, ["BitShift", "BitwiseAnd", "Cast", "Reshape", "Slice", "Reshape", "Gather"]),
    ("rows", 4, 21, ["Cast", "GatherElements"]),
    ("columns", 4, 21, ["Cast", "GatherElements"]),
    ("blocks of columns", 4.08, 21, ["Cast", "Cast", "Gather", "Mul", "Add", "Gather"]),
    ("blocks of rows", 4.08, 21, ["Cast", "Cast", "Gather", "Mul", "Add", "Gather"]),
    (list(range(-100, 100)), 8, 13, []),
])  # fmt: skip
def test_weights_of_few_values_leave_packed_and_come_back(
    levels: list[int] | str, bits: float, opset: int, nodes: list[str], tmp_path: Path
) -> None:
    k = codes(levels)
    graph, x = layer(k), np.random.default_rng(2).standard_normal((3, 128)).astype(np.float32)
    path = tmp_path / "packed.onnx"
    export.save(graph, path, reference_feed={"x": x})
    table = 11 * (len(k) if levels == "rows" else k.shape[1]) if isinstance(levels, str) else 0
    assert path.stat().st_size <= k.size * bits / 8 + table + 3500
    model = onnx.load(path)
    assert model.opset_import[0].version == opset
    assert [
        node.op_type
        for node in model.graph.node
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "MatMul")
    ] == nodes
    np.testing.assert_array_equal(Runner(model).run({"x": x})["y"], Runner(graph).run({"x": x})["y"])
    back = load_graph(path)
    assert (ops(back), back.opset) == (ops(graph), 21)
    np.testing.assert_array_equal(stored(back, np.int8), [k])
    again = export.to_model(back)
    assert sorted(node.op_type for node in again.graph.node) == sorted(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("levels", [
    [-1, 0, 1], [-127, 0, 5], [-3, -2, -1, 0, 1, 2, 3], list(range(-7, 8)), NF4, "rows", "columns", "blocks of columns",
])  # fmt: skip
def test_onnxruntime_evaluates_the_codes_once_and_keeps_its_integer_layer(
    levels: list[int] | str, tmp_path: Path
) -> None:
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(
        export.to_model(layer(codes(levels))).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    nodes = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert nodes == ["QuantizeLinear", "QLinearMatMul", "DequantizeLinear"]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("levels", [[120, 128, 131], list(range(120, 135)), list(range(16)), "rows"])
def test_tables_of_few_values_leave_packed_and_come_back(levels: list[int] | str, dtype: type) -> None:
    k = codes(levels, dtype)
    graph, x = graph_of(LOOKUP, k=k, sx=GRIDS["sx"], zx=dtype(128)), np.array([0, 5, 127])
    model = export.to_model(graph)
    assert model.ByteSize() < k.nbytes * 0.66
    np.testing.assert_array_equal(Runner(model).run({"x": x})["y"], Runner(graph).run({"x": x})["y"])
    np.testing.assert_array_equal(stored(load_graph(model), dtype), [k])


@pytest.mark.parametrize(
    ("words_from", "version", "least", "most"), [(1 << 14, 18, 1 / 4, 0.4), (1 << 15, 21, 1 / 2, 0.65)]
)
def test_two_bits_go_in_words_or_take_four_where_onnx_does_not_know_them_yet(
    words_from: int, version: int, least: float, most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx.defs, "onnx_opset_version", lambda: 24)
    monkeypatch.setattr(packed_constants, "WORDS_FROM", words_from)
    k, feed = codes([-1, 0, 1]), {"x": np.random.default_rng(2).standard_normal((3, 128)).astype(np.float32)}
    model = export.to_model(layer(k))
    assert model.opset_import[0].version == version
    assert least * k.size < model.ByteSize() < most * k.size
    np.testing.assert_array_equal(stored(load_graph(model), np.int8), [k])
    np.testing.assert_array_equal(Runner(model).run(feed)["y"], Runner(layer(k)).run(feed)["y"])


def test_a_graph_that_cannot_reach_a_newer_opset_stays_as_it_is() -> None:
    text = """g (float[4, 128] x, float[1, 4, 2] c, float[2] e) => (float[4, 192] y) {
        a = GroupNormalization <num_groups = 2> (c, e, e)  w = DequantizeLinear <axis = 1> (k, s)  y = MatMul(x, w) }"""
    graph = graph_of(text, opset=20, k=codes([-1, 0, 1]), s=np.ones(192, np.float32))
    graph.outputs.append(graph.nodes[0].outputs[0])
    assert packed_constants.packed(graph) is graph  # its scale per group is computed, and is one per channel from 21 on


def test_constants_that_a_body_reads_stay_as_they_are() -> None:
    text = """g (float[3, 128] x, bool c) => (float[3, 192] y, float[3, 192] z) {
        w = DequantizeLinear <axis = 1> (k, s)  y = MatMul(x, w)
        z = If (c) <then_branch = t () => (float[3, 192] a) { v = DequantizeLinear <axis = 1> (k, s)
        a = MatMul(x, v) },
                    else_branch = e () => (float[3, 192] b) { u = DequantizeLinear <axis = 1> (k, s)  n = Neg(u)
                    b = MatMul(x, n) }> }"""
    graph = graph_of(text, k=codes([-1, 0, 1]), s=np.ones(192, np.float32))
    feed = {"x": random(3, 128), "c": np.array(False)}
    before, after = Runner(graph).run(feed), Runner(export.to_model(graph)).run(feed)
    assert all(np.array_equal(before[name], after[name]) for name in ("y", "z"))


def test_an_8_bit_model_is_left_alone() -> None:
    k = codes(list(range(-127, 128)))
    k[:, :2] = 0
    graph = layer(k)
    assert packed_constants.packed(graph) is graph


NETWORK = """g (float[N, 32, 8, 8] x) => (float[N, 96] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  b = Relu(a)  c = Conv(b, w2)  d = GlobalAveragePool(c)  e = Flatten(d)
    y = MatMul(e, w3) }"""


@pytest.mark.parametrize(
    ("grid", "large", "small"), [("int2", 2, 2), ("kmeans3", 3.05, 4), ("nf4", 4, 4), ("power5", 5.34, 8)]
)
def test_the_machine_runs_packed_files_within_a_step_of_onnxruntime(
    grid: str, large: float, small: float, tmp_path: Path
) -> None:
    weights = {
        "w1": random(64, 32, 3, 3, seed=1),
        "b1": random(64, seed=2),
        "w2": random(48, 64, 1, 1, seed=3),
        "w3": random(48, 96, seed=4),
    }
    graph, feeds = graph_of(NETWORK, **weights), [{"x": random(4, 32, 8, 8, seed=seed)} for seed in range(3)]
    passes = f"quantize-activations,quantize-weights,reconstruct-layers(grid={grid!r},solver=clip),store-codes"
    Manager(Pipeline.parse(passes).passes).run(graph, Context(data=feeds))
    export.save(graph, tmp_path / "out.onnx", reference_feed=feeds[0])
    bits = [weights[name].size * (large if name == "w1" else small) for name in ("w1", "w2", "w3")]
    assert (tmp_path / "out.onnx").stat().st_size < sum(bits) / 8 + 8500
    step = float(constant_of(producer(graph.outputs[0]).inputs[1]))
    onnxruntime = Runner(onnx.load(tmp_path / "out.onnx"))
    machine = Session(to_program(lower_graph(load_graph(tmp_path / "out.onnx"))))
    for feed in feeds:
        assert np.abs(machine.run(feed)["y"] - onnxruntime.run(feed)["y"]).max() <= step * 1.01


BLOCKS = """g (float[N, 80, 6, 6] x) => (float[N, 150] y) {
    a = Conv <pads = [1, 1, 1, 1]> (x, w1, b1)  b = Relu(a)  c = Conv(b, w2)  d = GlobalAveragePool(c)  e = Flatten(d)
    f = MatMul(e, w3)
    y = Gemm <transB = 1> (f, w4) }"""


@pytest.mark.parametrize("grid", ["int4/32", "nf4/64"])
def test_blocks_leave_packed_and_all_three_forms_agree(grid: str, tmp_path: Path) -> None:
    """Rows that no block divides, taps of a convolution, and blocks along either axis of a matrix."""
    shapes = {"w1": (72, 80, 3, 3), "w2": (130, 72, 1, 1), "w3": (130, 150), "w4": (150, 150)}
    weights = {
        name: random(*shape, seed=seed) * random(*shape[:1], *[1] * (len(shape) - 1), seed=9)
        for seed, (name, shape) in enumerate(shapes.items())
    }
    graph, feeds = (
        graph_of(BLOCKS, b1=random(72, seed=8), **weights),
        [{"x": random(4, 80, 6, 6, seed=seed)} for seed in range(3)],
    )
    passes = f"quantize-activations,quantize-weights,reconstruct-layers(grid={grid!r},solver=clip),store-codes"
    Manager(Pipeline.parse(passes).passes).run(graph, Context(data=feeds))
    export.save(graph, tmp_path / "out.onnx", reference_feed=feeds[0])
    elements, block = sum(int(np.prod(shape)) for shape in shapes.values()), int(grid.partition("/")[2])
    assert (tmp_path / "out.onnx").stat().st_size < elements * (4 + 4.5 / block) / 8 + 24000
    again = load_graph(tmp_path / "out.onnx")
    lowered = lower_graph(again)
    to_program(lowered).save(tmp_path / "out.qprog")
    assert (tmp_path / "out.qprog").stat().st_size < elements * (4 + 4.5 / block) / 8 + 24000
    step = float(constant_of(producer(graph.outputs[0]).inputs[1]))
    onnxruntime, machine = Runner(onnx.load(tmp_path / "out.onnx")), Session(tmp_path / "out.qprog")
    integer = Runner(export.to_model(to_integer_onnx(lowered)), fusions=False)
    for feed in feeds:
        answer = machine.run(feed)["y"]
        np.testing.assert_array_equal(answer, integer.run(feed)["y"])
        assert np.abs(answer - onnxruntime.run(feed)["y"]).max() <= step * 1.01
