"""Files that were quantized by other tools: dynamic quantization is undone, operators on codes become float ones
between Q/DQ nodes.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_dynamic, quantize_static

from qcompiler.graph.runner import Runner
from qcompiler.onnx_io.importer import load_graph
from tests.lowering.judged import FORMS, compiled, decibels

MODELS = {
    "mlp": (
        ("g (float[N, 16] x) => (float[N, 4] y) { a = MatMul(x, w) b = Add(a, c) d = Relu(b) e = Gemm(d, v, u) y = "
        "Softmax(e) }"),
        {"w": (16, 32), "c": (32,), "v": (32, 4), "u": (4,)}, (5, 16),
    ),
    "cnn": (
        """g (float[N, 3, 8, 8] x) => (float[N, 5] y) { a = Conv<pads = [1, 1, 1, 1]>(x, w, c) b = Relu(a)
        p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(b) k = Conv<pads = [1, 1, 1, 1]>(p, w2, c2) s = Add(k, p)
        t = Sigmoid(s) z = Concat<axis = 1>(t, s) d = GlobalAveragePool(z) e = Flatten(d) y = Gemm(e, v, u) }""",
        {"w": (8, 3, 3, 3), "c": (8,), "w2": (8, 8, 3, 3), "c2": (8,), "v": (16, 5), "u": (5,)}, (2, 3, 8, 8),
    ),
    "lstm": (
        ("g (float[T, N, 8] x) => (float[N, 4] y) { q, h = LSTM<hidden_size = 12>(x, w, r, c) s = Squeeze(h, zero) y = "
        "Gemm(s, v, u) }"),
        {"w": (1, 48, 8), "r": (1, 48, 12), "c": (1, 96), "v": (12, 4), "u": (4,)}, (6, 3, 8),
    ),
}  # fmt: skip


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: list[dict[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def float_model(name: str, seed: int) -> onnx.ModelProto:
    text, weights, _ = MODELS[name]
    rng = np.random.default_rng(seed)
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 13]>\n{text}')
    for key, shape in weights.items():
        values = (rng.standard_normal(shape) * 0.3).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, key))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), "zero"))
    return model


def feeds(name: str, count: int, seed: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"x": rng.standard_normal(MODELS[name][2]).astype(np.float32)} for _ in range(count)]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("name", "per_channel"), [("mlp", False), ("cnn", True), ("lstm", True), ("lstm", False)])
def test_dynamic_quantization_is_undone(name: str, per_channel: bool, form: str, tmp_path: Path) -> None:
    logging.disable(logging.WARNING)
    onnx.save(float_model(name, 1), tmp_path / "m.onnx")
    kind = QuantType.QInt8 if per_channel else QuantType.QUInt8
    quantize_dynamic(tmp_path / "m.onnx", tmp_path / "q.onnx", per_channel=per_channel, weight_type=kind)
    model = onnx.load(tmp_path / "q.onnx")
    ops = {node.op for node in load_graph(model).nodes}
    assert not ops & {
        "DynamicQuantizeLinear",
        "MatMulInteger",
        "ConvInteger",
        "DynamicQuantizeLSTM",
        "DequantizeLinear",
    }
    tests = feeds(name, 3, 2)
    exact, imported = Runner(onnx.load(tmp_path / "m.onnx")), Runner(load_graph(model))
    # rounding of the weights alone
    assert decibels([exact.run(feed) for feed in tests], [imported.run(feed) for feed in tests]) > 25
    _, report = compiled(model, feeds(name, 32, 3), tests, form)
    assert report.figures["integer_mac_share"] == 1.0
    assert min(report.output_sqnr_db.values()) > 25


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("codes", [QuantType.QUInt8, QuantType.QInt8])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_operators_on_codes_go_through_as_they_are(name: str, codes: QuantType, form: str, tmp_path: Path) -> None:
    logging.disable(logging.WARNING)
    onnx.save(float_model(name, 4), tmp_path / "m.onnx")
    reader = _Reader(feeds(name, 6, 5))
    quantize_static(
        tmp_path / "m.onnx", tmp_path / "q.onnx", reader, quant_format=QuantFormat.QOperator, activation_type=codes,
        weight_type=QuantType.QInt8
    )  # fmt: skip
    model = onnx.load(tmp_path / "q.onnx")
    assert not [node.op for node in load_graph(model).nodes if node.op.startswith("Q") and node.op != "QuantizeLinear"]
    tests = feeds(name, 3, 6)
    exact, imported = Runner(onnx.load(tmp_path / "m.onnx")), Runner(load_graph(model))
    before = decibels([exact.run(feed) for feed in tests], [imported.run(feed) for feed in tests])
    _, report = compiled(model, feeds(name, 6, 7), tests, form)
    assert before > 20
    assert report.figures["integer_mac_share"] == 1.0
    assert min(report.output_sqnr_db.values()) > 35  # what the other tool decided, no matter how well, is kept


def test_weights_alone_become_float_again() -> None:
    text = "g (float[N, 4] x) => (float[N, 3] y) { w = DequantizeLinear<axis = 1>(q, s, z)  y = MatMul(x, w) }"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 13]>\n{text}')
    rng = np.random.default_rng(0)
    for key, values in (
        ("q", rng.integers(-128, 128, (4, 3), np.int8)),
        ("s", rng.random(3, np.float32)),
        ("z", np.array([1, -2, 3], np.int8)),
    ):
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, key))
    graph = load_graph(model)
    feed = {"x": rng.standard_normal((5, 4)).astype(np.float32)}
    assert [node.op for node in graph.nodes] == ["MatMul"]
    np.testing.assert_allclose(Runner(graph).run(feed)["y"], Runner(model).run(feed)["y"], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("bits", "symmetric"), [(4, True), (4, False), (8, False)])
def test_blocks_of_packed_weights_become_float(bits: int, symmetric: bool) -> None:
    rng = np.random.default_rng(bits)
    k, n, block = 64, 6, 32
    node = onnx.helper.make_node(
        "MatMulNBits",
        ["x", "b", "s", *([] if symmetric else ["z"])],
        ["y"],
        domain="com.microsoft",
        K=k,
        N=n,
        bits=bits,
        block_size=block,
    )
    arrays = {
        "b": rng.integers(0, 256, (n, k // block, block * bits // 8), np.uint8),
        "s": rng.random((n, k // block), np.float32),
    }
    if not symmetric:
        arrays["z"] = rng.integers(0, 256, (n, -(-(k // block) * bits // 8)), np.uint8)
    inputs, outputs = (
        [onnx.helper.make_tensor_value_info(name, 1, ["N", width])] for name, width in (("x", k), ("y", n))
    )
    graph = onnx.helper.make_graph(
        [node], "g", inputs, outputs, [onnx.numpy_helper.from_array(a, key) for key, a in arrays.items()]
    )
    opsets = [onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8)
    feed = {"x": rng.standard_normal((3, k)).astype(np.float32)}
    imported = load_graph(model)
    assert [each.op for each in imported.nodes] == ["MatMul"]
    np.testing.assert_allclose(Runner(imported).run(feed)["y"], Runner(model).run(feed)["y"], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("rounding", ["Floor", "Round"])
def test_a_bias_that_was_added_as_whole_numbers(rounding: str) -> None:
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 13]>
        g (float[1, 3, 8, 8] x) => (float[1, 4, 6, 6] y) {{
            q, s, z = DynamicQuantizeLinear(x)  k = ConvInteger(q, w, z, wz)  t = Mul(s, ws)
            d = Div(b, t)  f = {rounding}(d)  i = Cast <to = 6> (f)  j = Reshape(i, shape)  a = Add(k, j)
            c = Cast <to = 1> (a)  y = Mul(c, t) }}""")
    rng = np.random.default_rng(3)
    constants = {
        "w": rng.integers(0, 255, (4, 3, 3, 3), np.uint8), "wz": np.uint8(128), "ws": np.float32(0.01),
        "b": rng.standard_normal(4).astype(np.float32), "shape": np.array([1, 4, 1, 1]),
    }  # fmt: skip
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    feed = {"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)}
    graph = load_graph(model)
    assert {node.op for node in graph.nodes} & {"ConvInteger", "DynamicQuantizeLinear", rounding} == set()
    assert decibels([Runner(model).run(feed)], [Runner(graph).run(feed)]) > 30


@pytest.mark.parametrize("other", [False, True])
def test_a_table_of_codes_that_are_picked_before_they_are_floats(other: bool) -> None:
    """As dynamic quantizers write embeddings; what also reads the codes themselves keeps them."""
    also = "y2 = Cast <to = 1> (p)" if other else "y2 = Identity(f)"
    text = f"""g (int64[N, L] ids) => (float[N, L, 4] y, float[L, N, 4] z, float[N, L, 4] y2) {{
        p = Gather(table, ids)  t = Transpose <perm = [1, 0, 2]> (p)  f = DequantizeLinear(p, s, o)
        d = DequantizeLinear(t, s, o)  y = MatMul(f, w)  z = Neg(d)  {also} }}"""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 13]>\n{text}')
    rng = np.random.default_rng(0)
    constants = {"table": rng.integers(0, 256, (9, 4), np.uint8), "s": np.float32(0.02), "o": np.uint8(120)}
    constants["w"] = rng.standard_normal((4, 4)).astype(np.float32)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items())
    graph, feed = load_graph(model), {"ids": rng.integers(0, 9, (2, 5))}
    assert any(node.op == "DequantizeLinear" for node in graph.nodes) == other
    for name, expected in Runner(model).run(feed).items():
        np.testing.assert_allclose(Runner(graph).run(feed)[name], expected, rtol=1e-5, atol=1e-6)
