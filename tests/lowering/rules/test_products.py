"""Conv, ConvTranspose, Gemm, MatMul, BatchNormalization, LSTM and GRU against onnxruntime and integer ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import QuantSpec, dequantize_constant, insert_qdq, names_in, spec_of
from qcompiler.lowering import lower_graph, to_program
from qcompiler.runtime import Session
from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.errors import MachineError
from tests.helpers.graphs import graph_of
from tests.lowering.checked import check, quantize

RNG = np.random.default_rng(11)
WIDTHS = [np.uint8, np.int8, np.int16, np.uint16]


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


CONVS = {
    "plain": ((2, 3, 8, 7), (4, 3, 3, 3), ""),
    "strided": ((2, 3, 9, 7), (4, 3, 3, 2), "strides=[2,3], pads=[1,0,2,1]"),
    "dilated": ((1, 2, 9, 9), (3, 2, 3, 3), "dilations=[2,3], pads=[2,2,2,2]"),
    "grouped": ((2, 4, 6, 6), (6, 2, 3, 3), "group=2, pads=[1,1,1,1]"),
    "depthwise": ((2, 5, 6, 6), (5, 1, 3, 3), "group=5, pads=[1,1,1,1]"),
    "pointwise": ((2, 5, 4, 6), (7, 5, 1, 1), ""),
    "same": ((1, 2, 7, 6), (3, 2, 3, 3), 'auto_pad="SAME_UPPER", strides=[2,2]'),
    "sequence": ((2, 3, 9), (4, 3, 3), "strides=[2], pads=[1,1]"),
}


@pytest.mark.parametrize("dtype", WIDTHS, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("case", CONVS)
def test_conv(case: str, dtype: Any) -> None:
    shape, weight, attrs = CONVS[case]
    feed = {"x": normal(*shape)}
    text = f"g (float{list(shape)} x) => (float[] y) {{ _c = Conv<{attrs}>(x, w_0, b) y = Relu(_c) }}".replace("<>", "")
    result = check(quantize(graph_of(text, w_0=normal(*weight), b=normal(weight[0])), feed, dtype), feed)
    assert result.ops == ["Conv"]


TRANSPOSED = {
    "plain": ((2, 3, 4, 5), (3, 4, 3, 3), ""),
    "strided": ((2, 3, 4, 5), (3, 4, 2, 3), "strides=[2,3], pads=[1,0,0,2], output_padding=[1,0]"),
    "grouped": ((1, 4, 4, 3), (4, 3, 3, 3), "group=2, strides=[2,2]"),
    "dilated": ((1, 2, 4, 3), (2, 3, 2, 2), "dilations=[2,2], strides=[1,2]"),
    "to a shape": ((1, 2, 4, 3), (2, 3, 3, 3), "strides=[2,2], output_shape=[8,7]"),
    "sequence": ((2, 3, 5), (3, 4, 3), "strides=[2]"),
}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("case", TRANSPOSED)
def test_conv_transpose(case: str, dtype: Any) -> None:
    shape, weight, attrs = TRANSPOSED[case]
    feed = {"x": normal(*shape)}
    text = f"g (float{list(shape)} x) => (float[] y) {{ y = ConvTranspose<{attrs}>(x, w, b) }}".replace("<>", "")
    groups = 2 if "group" in attrs else 1
    check(quantize(graph_of(text, w=normal(*weight), b=normal(weight[1] * groups)), feed, dtype), feed)


@pytest.mark.parametrize("dtype", WIDTHS, ids=lambda dtype: np.dtype(dtype).name)
def test_matmul_with_bias_is_one_gemm(dtype: Any) -> None:
    feed = {"x": normal(2, 5, 16)}
    text = "g (float[2,5,16] x) => (float[] y) { _m = MatMul(x, w_1) _b = Add(b, _m) y = Relu(_b) }"
    result = check(quantize(graph_of(text, w_1=normal(16, 9), b=normal(9)), feed, dtype), feed)
    assert result.ops == ["Gemm"]


@pytest.mark.parametrize(("a", "b"), [((5,), (5, 3)), ((2, 4, 5), (5,)), ((5,), (5,)), ((5,), (2, 5, 3))])
def test_matmul_of_vectors(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    feed = {"a": normal(*a), "b": normal(*b)}
    text = f"g (float{list(a)} a, float{list(b)} b) => (float[] y) {{ y = MatMul(a, b) }}"
    result = check(quantize(graph_of(text), feed), feed)
    assert result.outputs["y"].shape == result.expected["y"].shape


@pytest.mark.parametrize("attrs", ["transB=1, alpha=0.5, beta=2.0", "transA=1, transB=1", "beta=0.5"])
def test_gemm(attrs: str) -> None:
    feed = {"x": normal(16, 5) if "transA" in attrs else normal(5, 16)}
    weight = normal(9, 16) if "transB" in attrs else normal(16, 9)
    text = f"g (float{list(feed['x'].shape)} x) => (float[] y) {{ y = Gemm<{attrs}>(x, w, b) }}"
    check(quantize(graph_of(text, w=weight, b=normal(1, 9)), feed), feed)


@pytest.mark.parametrize("dtypes", [np.uint8, np.int16])
def test_attention_moves_nothing(dtypes: Any) -> None:
    feed = {"q": normal(2, 6, 8), "k": normal(2, 6, 8), "v": normal(2, 6, 8)}
    text = """g (float[2,6,8] q, float[2,6,8] k, float[2,6,8] v) => (float[] y) {
        h = Constant<value_ints=[2,6,2,4]>() _q = Reshape(q, h) _k = Reshape(k, h) _v = Reshape(v, h)
        _a = Transpose<perm=[0,2,1,3]>(_q) _b = Transpose<perm=[0,2,3,1]>(_k) _c = Transpose<perm=[0,2,1,3]>(_v)
        s = MatMul(_a, _b) p = Softmax<axis=-1>(s) o = MatMul(p, _c) _t = Transpose<perm=[0,2,1,3]>(o)
        m = Constant<value_ints=[2,6,8]>() _r = Reshape(_t, m) y = Relu(_r) }"""
    graph = quantize(graph_of(text), feed, dtypes)
    check(graph, feed)
    program = to_program(lower_graph(graph))
    assert "move" not in {program.opcode(i).name for i in range(len(program.nodes))}


def test_batch_normalization_is_exact_to_one_rounding() -> None:
    feed = {"x": normal(2, 4, 5, 6)}
    text = "g (float[2,4,5,6] x) => (float[] y) { y = BatchNormalization(x, gamma, beta, mean, var) }"
    values = {
        "gamma": np.array([1.5, -0.3, 0.0, 2.0], np.float32),
        "beta": normal(4),
        "mean": normal(4),
        "var": np.abs(normal(4)) + 0.1,
    }
    assert check(quantize(graph_of(text, **values), feed, np.int16), feed, within=1.0).ops == ["Conv"]


@pytest.mark.parametrize("layer", ["Conv<pads=[1,1,1,1]>(x, w_0)", "ConvTranspose(x, w2_1)"])
def test_batch_normalization_behind_a_layer_is_part_of_it(layer: str) -> None:
    feed = {"x": normal(2, 4, 5, 6)}
    text = (
        f"g (float[2,4,5,6] x) => (float[] y) {{ _c = {layer} _b = BatchNormalization(_c, gamma, beta, mean, var) y = "
        f"Relu(_b) }}"
    )
    values = {
        "gamma": np.array([1.5, -0.3, 0.0, 2.0], np.float32),
        "beta": normal(4),
        "mean": normal(4),
        "var": np.abs(normal(4)) + 0.1,
    }
    weights = {"w_0": normal(4, 4, 3, 3)} if layer.startswith("Conv<") else {"w2_1": normal(4, 4, 2, 2)}
    assert len(check(quantize(graph_of(text, **values, **weights), feed), feed).ops) == 1


def test_layer_without_grid_behind_it_gets_one() -> None:
    """MatMul -> Sigmoid -> Add, as quantizers that only look at MatMul leave it."""
    feed = {"x": normal(4, 8), "z": normal(4, 6)}
    text = (
        "g (float[4,8] x, float[4,6] z) => (float[] y) { _m = MatMul(x, w_1) _s = Sigmoid(_m) _a = Add(_s, z) y = "
        "Identity(_a) }"
    )
    result = check(quantize(graph_of(text, w_1=normal(8, 6)), feed), feed)
    assert result.ops == ["Gemm", "Table", "Add"]


def test_output_without_grid_gets_one() -> None:
    feed = {"x": normal(4, 8)}
    graph = graph_of("g (float[4,8] x) => (float[] _y) { z = MatMul(x, w) _y = Softmax(z) }", w=normal(8, 6))
    result = check(quantize(graph, feed), feed)
    assert np.abs(result.outputs["_y"] - result.expected["_y"]).max() < 2e-4


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_lstm(direction: str, dtype: Any) -> None:
    """Steps feed back into each other: a Q11 gate and a Q15 activation are finer than 8 bits, not finer than 16."""
    count = 2 if direction == "bidirectional" else 1
    feed = {"x": normal(7, 3, 5)}
    text = f"""g (float[7,3,5] x) => (float[] y, float[] h, float[] c) {{
        y, h, c = LSTM<hidden_size=4, direction="{direction}">(x, w_1, w2_1, b) }}"""
    values = {"w_1": normal(count, 16, 5), "w2_1": normal(count, 16, 4), "b": normal(count, 32)}
    result = check(quantize(graph_of(text, **values), feed, dtype), feed, steps=2 if dtype == np.uint8 else 80)
    for name, value in result.outputs.items():
        assert np.abs(value - result.expected[name]).max() < 0.03


@pytest.mark.parametrize("before", [0, 1])
def test_gru(before: int) -> None:
    feed = {"x": normal(7, 3, 5)}
    text = (
        f"g (float[7,3,5] x) => (float[] y, float[] h) {{ y, h = GRU<hidden_size=4, linear_before_reset={before}>(x, "
        f"w_1, w2_1, b) }}"
    )
    values = {"w_1": normal(1, 12, 5), "w2_1": normal(1, 12, 4), "b": normal(1, 24)}
    check(quantize(graph_of(text, **values), feed), feed, steps=2)


def test_lstm_with_initial_state_and_lengths() -> None:
    feed = {
        "x": normal(6, 3, 5),
        "h0": 0.1 * normal(1, 3, 4),
        "c0": normal(1, 3, 4),
        "n": np.array([6, 2, 4], np.int32),
    }
    text = """g (float[6,3,5] x, float[1,3,4] h0, float[1,3,4] c0, int32[3] n) => (float[] y, float[] h, float[] c) {
        y, h, c = LSTM<hidden_size=4>(x, w_1, w2_1, b, n, h0, c0) }"""
    values = {"w_1": normal(1, 16, 5), "w2_1": normal(1, 16, 4), "b": normal(1, 32)}
    # h has a finer grid than y, which is the state's
    result = check(quantize(graph_of(text, **values), feed), feed, steps=12)
    for name, value in result.outputs.items():
        assert np.abs(value - result.expected[name]).max() < 0.03


@pytest.mark.parametrize("zero", [0, 3, 128, 250])
@pytest.mark.parametrize("body", ["Conv<group=2>(x, v)", "MatMul(x, v)"])
def test_uint8_weights_with_any_zero_point(body: str, zero: int) -> None:
    """What other quantizers store; codes less the zero point reach 255."""
    conv = body.startswith("Conv")
    feed = {"x": normal(2, 6, 5, 4) if conv else normal(7, 20)}
    shape = (4, 3, 3, 2) if conv else (20, 6)
    spec = QuantSpec.per_tensor(0.01, zero, np.uint8)
    codes = RNG.integers(0, 256, shape)
    codes.flat[:2] = (0, 255)
    text = f"g (float{list(feed['x'].shape)} x) => (float[] y) {{ y = {body} }}"
    graph = quantize(graph_of(text, v=spec.dequantize(codes)), feed)
    layer = next(node for node in graph.nodes if node.op in ("Conv", "MatMul"))
    layer.inputs[1] = dequantize_constant(graph, "v", codes, spec, names_in(graph))
    check(graph.toposort(), feed)


def test_a_factor_beyond_every_code_saturates() -> None:
    graph = graph_of("g (float[2,2] x) => (float[2,2] y) { y = MatMul(x, w) }", w=np.eye(2, dtype=np.float32))
    taken = names_in(graph)
    for tensor, scale in ((graph.inputs[0], 1e25), (graph.outputs[0], 1.0)):
        insert_qdq(graph, tensor, QuantSpec.per_tensor(scale, 128, np.uint8), taken)
    result = check(graph.toposort(), {"x": np.array([[3e25, -1e26], [0.0, 1e25]], np.float32)})
    assert result.outputs["y"].tolist() == [[127.0, -128.0], [0.0, 127.0]]


def test_16_bit_weights_are_refused() -> None:
    feed = {"x": normal(3, 4)}
    graph = quantize(graph_of("g (float[3,4] x) => (float[] y) { y = MatMul(x, v) }", v=normal(4, 2)), feed)
    layer = next(node for node in graph.nodes if node.op == "MatMul")
    spec = QuantSpec.per_tensor(1e-4, 0, np.int16)
    layer.inputs[1] = dequantize_constant(graph, "v", np.full((4, 2), -32768), spec, names_in(graph))
    with pytest.raises(UnsupportedError, match="its weight codes minus the zero point exceed int8"):
        lower_graph(graph.toposort())


def _with_scale(scale: float, weight: np.ndarray, dtype: Any) -> Any:
    graph = graph_of("g (float[1,60000] x) => (float[1,1] y) { y = MatMul(x, w) }", w=weight)
    taken = names_in(graph)
    for tensor in (graph.inputs[0], graph.outputs[0]):
        insert_qdq(graph, tensor, QuantSpec.per_tensor(scale, 0, dtype), taken)
    return graph.toposort()


def test_accumulator_that_could_overflow_is_refused() -> None:
    graph = _with_scale(1.0, np.ones((60000, 1), np.float32), np.int16)
    with pytest.raises(UnsupportedError, match=r"'MatMul_0' \(MatMul\): its accumulator may reach \d+, beyond int32"):
        lower_graph(graph)


def test_the_same_sum_of_8_bit_codes_is_proven() -> None:
    graph = _with_scale(1.0, np.ones((60000, 1), np.float32), np.uint8)
    assert [node.op for node in lower_graph(graph).nodes] == ["Quantize", "Gemm", "Dequantize"]


def test_every_node_without_an_integer_form_is_listed() -> None:
    feed = {"x": normal(2, 6)}
    graph = graph_of(
        "g (float[2,6] x) => (float[] y) { a = CumSum(x, one) b = Relu(a) y = Hardmax(b) }", one=np.int64(1)
    )
    with pytest.raises(UnsupportedError) as caught:
        lower_graph(quantize(graph, feed))
    text = str(caught.value)
    assert "\n" not in text
    for part in ("2 node(s)", "'CumSum_0' (CumSum)", "'Hardmax_2' (Hardmax)"):
        assert part in text


def test_nodes_that_fail_alike_are_named_once() -> None:
    feed = {"x": normal(2, 6)}
    text = "g (float[2,6] x) => (float[] y) { a = CumSum(x, one) b = Relu(a) c = CumSum(b, one) y = CumSum(c, one) }"
    with pytest.raises(UnsupportedError) as caught:
        lower_graph(quantize(graph_of(text, one=np.int64(1)), feed))
    assert str(caught.value).startswith("no integer form for 3 node(s): 'CumSum_0' (CumSum) and 2 more: ")
    assert str(caught.value).count("CumSum_") == 1


def test_second_outputs_are_refused() -> None:
    feed = {"x": normal(2, 6)}
    graph = graph_of("g (float[2,6] x) => (float[] y, float[] m) { y, m = LayerNormalization(x, g0) }", g0=normal(6))
    with pytest.raises(UnsupportedError, match=r"its output 'm\w*' \(number 2\) has no integer form"):
        lower_graph(quantize(graph, feed))


def test_symbolic_sizes_share_one_program() -> None:
    feed = {"x": normal(2, 6, 8)}
    text = """g (float[B,L,8] x) => (float[] y) {
        _q = MatMul(x, w) _k = Transpose<perm=[0,2,1]>(x) s = MatMul(_q, _k) p = Softmax<axis=-1>(s)
        y = MatMul(p, x) }""".replace("_q", "q")
    graph = quantize(graph_of(text, w=normal(8, 8)), feed)
    session = Session(to_program(lower_graph(graph)))
    for batch, length in ((1, 1), (3, 5), (2, 6)):
        x = normal(batch, length, 8)
        assert session.run({"x": x})["y"].shape == (batch, length, 8)
    check(graph, {"x": normal(3, 5, 8)})


@pytest.mark.parametrize(("axis", "bits"), [(-1, 32), (-2, 64)])
def test_rows_of_probabilities_bound_a_sum_of_any_length(axis: int, bits: int) -> None:
    feed = {"x": normal(6, 6) + 30 * np.eye(6, dtype=np.float32), "v": normal(6, 3)}
    text = f"g (float[L,L] x, float[L,3] v) => (float[] y) {{ p = Softmax<axis={axis}>(x) y = MatMul(p, v) }}"
    graph = quantize(graph_of(text), feed, np.int16)
    assert next(node.attrs["acc_bits"] for node in lower_graph(graph).nodes if node.op == "MatMul") == bits
    check(graph, feed)


@pytest.mark.parametrize("length", [2, 33, 170, 171, 510, 511])  # 255 / 170 and 255 / 510 are rounded up in every place
def test_a_row_of_codes_is_off_by_at_most_half_a_step_a_code(length: int) -> None:
    graph = graph_of(f"g (float[3,{length}] x) => (float[3,{length}] y) {{ y = Softmax(x) }}")
    feed = {"x": np.stack([np.zeros(length), np.linspace(-3, 3, length), np.eye(length)[0] * 9]).astype(np.float32)}
    quantized = quantize(graph, feed)
    step = float(spec_of(quantized.outputs[0]).scale)
    codes = np.rint(Session(to_program(lower_graph(quantized))).run(feed)["y"] / step)
    assert np.all(codes.sum(axis=1) <= 1 / step + length / 2 + 1e-3)


def test_sizes_that_must_be_equal_are_checked_at_binding() -> None:
    feed = {"a": normal(1, 4), "b": normal(1, 4)}
    graph = quantize(graph_of("g (float[1,N] a, float[1,M] b) => (float[] y) { y = Add(a, b) }"), feed)
    session = Session(to_program(lower_graph(graph)))
    session.run(feed)
    for sizes in ((4, 3), (3, 4)):
        with pytest.raises(MachineError, match="must be equal"):
            session.run({"a": normal(1, sizes[0]), "b": normal(1, sizes[1])})


def test_symbolic_sums_are_limited_at_binding() -> None:
    feed = {"a": normal(1, 2, 4)}
    graph = quantize(
        graph_of("g (float[1,2,N] a) => (float[] y) { t = Transpose<perm=[0,2,1]>(a) y = MatMul(a, t) }"), feed
    )
    program = to_program(lower_graph(graph))
    bind(program, N=2**15)
    with pytest.raises(MachineError, match="N must be at most 32768"):
        bind(program, N=2**15 + 1)
