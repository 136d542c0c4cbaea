"""Fused and compound operators are written as their parts: the same function, in operators that shape inference can
type and the machine has.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from qcompiler.graph.float_zones import AT_OUTPUT
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.passes.expand.expand_operators import ExpandOperators
from qcompiler.shapes.seen_types import complete_types
from tests.lowering.judged import FORMS, compiled

F = np.float32


def model_of(text: str, opset: int = 17, **initializers: Any) -> onnx.ModelProto:
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
    model = onnx.parser.parse_model(header + text)
    for name, value in initializers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return model


def real(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.5).astype(F)


def check_same(model: onnx.ModelProto, feed: dict[str, np.ndarray], gone: str) -> list[str]:
    """Expand, compare with onnxruntime's own kernel of the operator; the operators that came out."""
    expected = Runner(model).run(feed)
    graph = load_graph(model)
    complete_types(graph, feed)
    Manager([ExpandOperators()]).run(graph, Context())
    ops = [node.op for node in graph.nodes if node.op == gone and node.domain == "com.microsoft"]
    assert not ops
    for name, values in Runner(graph).run(feed).items():
        assert values.shape == expected[name].shape
        np.testing.assert_allclose(values, expected[name], rtol=2e-4, atol=2e-5)
    assert all(tensor.dtype is not None for node in graph.nodes for tensor in node.outputs if tensor.name)
    return [node.op for node in graph.nodes]


ONE_INPUT: dict[str, tuple[str, dict[str, Any]]] = {
    "Gelu": ("y = com.microsoft.Gelu(x)", {}),
    "BiasGelu": ("y = com.microsoft.BiasGelu(x, b)", {"b": real(1, 8)}),
    "FastGelu": ("y = com.microsoft.FastGelu(x, b)", {"b": real(1, 8)}),
    "QuickGelu": ("y = com.microsoft.QuickGelu<alpha = 1.5>(x)", {}),
    "FusedMatMul": ("y = com.microsoft.FusedMatMul<transB = 1, alpha = 0.3>(x, w)", {"w": real(2, 5, 8)}),
    "FusedGemm": (
        ('f = Reshape(x, s) y = com.microsoft.FusedGemm<activation = "LeakyRelu", activation_alpha = 0.2, transB = '
        '1>(f, w, b)'),
        {"s": np.array([-1, 8]), "w": real(2, 5, 8), "b": real(3, 5)},
    ),
    "SkipLayerNormalization": (
        "z = Neg(x) y, m, v, t = com.microsoft.SkipLayerNormalization<epsilon = 1e-6>(x, z, g, b, e)",
        {"g": real(4, 8), "b": real(5, 8), "e": real(6, 8)},
    ),
    "SkipSimplifiedLayerNormalization": (
        "z = Abs(x) y = com.microsoft.SkipSimplifiedLayerNormalization<epsilon = 1e-6>(x, z, g)", {"g": real(4, 8)},
    ),
    "SimplifiedLayerNormalization": ("y = SimplifiedLayerNormalization<epsilon = 1e-6, axis = -1>(x, g)",
    {"g": real(4, 8)}),
    "Attention": (
        "y = com.microsoft.Attention<num_heads = 2>(x, w, b)", {"w": real(8, 8, 24), "b": real(9, 24)},
    ),
    "causal Attention": (
        ("y = com.microsoft.Attention<num_heads = 4, unidirectional = 1>(x, w, "
        "b)"), {"w": real(8, 8, 24), "b": real(9, 24)},
    ),
    "Attention with lengths": (
        ("y = com.microsoft.Attention<num_heads = 2>(x, w, b, "
        "n)"), {"w": real(8, 8, 24), "b": real(9, 24), "n": np.array([4, 2], np.int32)},
    ),
    "Attention with a mask": (
        "y = com.microsoft.Attention<num_heads = 2, mask_filter_value = -5000.0>(x, w, b, n)",
        {"w": real(8, 8, 24), "b": real(9, 24), "n": np.array([[1, 0, 1, 1], [0, 1, 1, 0]], np.int32)},
    ),
    "MultiHeadAttention": (
        "k = MatMul(x, w) v = MatMul(x, u) y = com.microsoft.MultiHeadAttention<num_heads = 2>(x, k, v, b)",
        {"w": real(8, 8, 8), "u": real(10, 8, 8), "b": real(11, 24)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ONE_INPUT)
def test_fused_operators(case: str) -> None:
    text, constants = ONE_INPUT[case]
    model = model_of(f"g (float[2, S, 8] x) => (float y) {{ {text} }}", **constants)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    ops = check_same(model, {"x": real(0, 2, 4, 8)}, case.split()[-1])
    assert len(ops) > 1 or case == "Gelu"


@pytest.mark.parametrize(("activation", "parameters"), [
    ("Relu", ""), ("Clip", (", activation_params = [-0.5, "
                           "0.5]")), ("HardSigmoid", ", activation_params = [0.3, 0.4]"), ("", ""),
])  # fmt: skip
def test_fused_convolutions(activation: str, parameters: str) -> None:
    given = f', activation = "{activation}"{parameters}' if activation else ""
    text = f"y = com.microsoft.FusedConv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]{given}>(x, w, b, z)"
    model = model_of(
        f"g (float[N, 3, 6, 6] x, float[N, 4, 6, 6] z) => (float[N, 4, 6, 6] y) {{ {text} }}",
        w=real(1, 4, 3, 3, 3),
        b=real(2, 4),
    )
    check_same(model, {"x": real(0, 2, 3, 6, 6), "z": real(3, 2, 4, 6, 6)}, "FusedConv")


@pytest.mark.parametrize("segments", [True, False])
def test_embeddings_with_a_mask(segments: bool) -> None:
    rng = np.random.default_rng(0)
    names = "i, s, w, p, q, g, b, m" if segments else 'i, "", w, p, "", g, b, m'
    head = "int32[B, S] i, int32[B, S] s, int32[B, S] m" if segments else "int32[B, S] i, int32[B, S] m"
    body = f"t, n = com.microsoft.EmbedLayerNormalization<epsilon = 1e-12>({names.replace(chr(34) * 2, '')})"
    text = f"g ({head}) => (float y) {{ {body} y = com.microsoft.Attention<num_heads = 2>(t, a, c, n) }}"
    tables = {
        "w": real(1, 20, 8),
        "p": real(2, 16, 8),
        "g": real(4, 8),
        "b": real(5, 8),
        "a": real(6, 8, 24),
        "c": real(7, 24),
    }
    model = model_of(text, **tables, **({"q": real(3, 2, 8) + 1} if segments else {}))
    model.graph.output[0].type.tensor_type.ClearField("shape")

    def feed(length: int) -> dict[str, np.ndarray]:
        valid = rng.integers(1, length + 1, (3, 1))
        values = {"i": rng.integers(0, 20, (3, length)), "m": np.arange(length) < valid}
        values |= {"s": rng.integers(0, 2, (3, length))} if segments else {}
        return {name: array.astype(np.int32) for name, array in values.items()}

    check_same(model, feed(7), "EmbedLayerNormalization")
    for form in FORMS:
        decibels, report = compiled(model, [feed(int(n)) for n in rng.integers(3, 12, 8)], [feed(5), feed(14)], form)
        assert decibels > 20
        assert report.figures["integer_mac_share"] == 1.0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("body", "constants"), [
    ("y = LogSoftmax<axis = 1>(a)", {}), ("y = ReduceL2<axes = [1], keepdims = 1>(a)", {}),
    ("y = LpNormalization<axis = 1>(a)", {}),
    ("b = Sigmoid(a) c = Tanh(a) y = Sum(a, b, c)", {}), ("b = Sigmoid(a) c = Tanh(a) y = Mean(a, b, c)", {}),
    ("b = Neg(a) c = Tanh(a) y = Max(a, b, c)", {}), ("y = ReduceLogSumExp<axes = [1]>(a)", {}),
    ("y = ReduceL1<axes = [1]>(a)", {}),
    ("y = SimplifiedLayerNormalization<axis = -1>(a, g)", {"g": real(3, 12)}),
])  # fmt: skip
def test_compound_operators_run_as_integers(body: str, constants: dict[str, Any], form: str) -> None:
    rng = np.random.default_rng(1)
    model = model_of(f"g (float[N, 8] x) => (float y) {{ a = MatMul(x, w) {body} }}", w=real(2, 8, 12), **constants)
    model.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = [{"x": rng.standard_normal((4, 8)).astype(F)} for _ in range(16)]
    check_same(model, feeds[0], "SimplifiedLayerNormalization")
    decibels, report = compiled(model, feeds[:12], feeds[12:], form)
    assert decibels > 18
    assert report.figures["integer_mac_share"] == 1.0
    assert {node.reason for node in report.left_float} <= {AT_OUTPUT}


@pytest.mark.parametrize("form", FORMS)
def test_group_normalization(form: str) -> None:
    rng = np.random.default_rng(2)
    text = """g (float[N, 3, H, W] x) => (float y) { a = Conv<pads = [1, 1, 1, 1]>(x, w)
    b = GroupNormalization<num_groups = 4>(a, g, h)
        c = Sigmoid(b) d = Mul(b, c) y = Conv(d, v) }"""
    model = model_of(text, opset=21, w=real(3, 8, 3, 3, 3), g=real(4, 8) + 1, h=real(5, 8), v=real(6, 5, 8, 1, 1))
    model.graph.output[0].type.tensor_type.ClearField("shape")
    feeds = [{"x": rng.standard_normal((1, 3, 6, int(width))).astype(F)} for width in rng.integers(5, 9, 12)]
    decibels, report = compiled(model, feeds[:8], feeds[8:], form)
    assert decibels > 22
    assert not report.left_float


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize(("op", "attributes"), [
    ("Conv", "kernel_shape = [4], strides = [3]"), ("MaxPool", "kernel_shape = [3], strides = [2]"),
    ("Conv", "kernel_shape = [2], strides = [3]"), ("MaxPool", "kernel_shape = [4]"),
])  # fmt: skip
def test_same_padding_of_a_symbolic_length(op: str, attributes: str, mode: str) -> None:
    kernel = int(attributes.split("[")[1][0])
    weight, constants = (", w", {"w": real(1, 2, 2, kernel)}) if op == "Conv" else ("", {})
    model = model_of(
        f'g (float[1, 2, L] x) => (float y) {{ y = {op}<auto_pad = "{mode}", {attributes}>(x{weight}) }}', **constants
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for length in range(4, 13):
        check_same(model, {"x": real(length, 1, 2, length)}, op)
    feeds = [{"x": np.clip(real(seed, 1, 2, 8 + seed % 5), -0.8, 0.8)} for seed in range(32)]
    assert compiled(model, feeds[:28], feeds[28:], "machine")[0] > 20


def test_the_reason_for_what_stays() -> None:
    graph = load_graph(
        model_of(
            'g (float[N, 8] x) => (float[N, 8] y) { y = com.microsoft.FusedGemm<activation = "Elu2">(x, w) }',
            w=real(1, 8, 8),
        )
    )
    ctx = Context()
    assert not ExpandOperators().run(graph, ctx)
    assert "'Elu2' is not known" in ctx.report.declined[0].reason


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_same_padding_of_two_symbolic_sides(mode: str) -> None:
    model = model_of(
        f"""g (float[1, 2, H, W] x) => (float y) {{
            y = Conv<auto_pad = "{mode}", kernel_shape = [3, 3], strides = [2, 2]>(x, w) }}""",
        w=real(1, 3, 2, 3, 3),
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for height, width in ((4, 5), (7, 8), (9, 6)):
        check_same(model, {"x": real(height, 1, 2, height, width)}, "")
