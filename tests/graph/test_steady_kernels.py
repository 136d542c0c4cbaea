"""What onnxruntime is asked to run: the same function, and sums whose order is known and is that of every CPU."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.graph.runner import Runner
from qcompiler.graph.steady_kernels import FUSIONS_BY_CPU, make_steady

BY_CPU = {"Softmax", "LogSoftmax", "Gelu", "BiasGelu", "FastGelu", "QuickGelu", "Attention", "MultiHeadAttention"}
"""Operators whose kernels differ by CPU."""


def model_of(text: str, opset: int = 21, **initializers: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {opset}]>\n{text}')
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in initializers.items())
    return model


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def as_written(model: onnx.ModelProto, **feed: np.ndarray) -> list[np.ndarray]:
    """The answers of onnxruntime, whose optimizer does nothing."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)


def optimized(model: onnx.ModelProto, path) -> tuple[list[onnx.NodeProto], dict[str, list[int]]]:
    """The nodes that onnxruntime runs, and the sizes of their constants."""
    steady, options = onnx.ModelProto(), ort.SessionOptions()
    steady.CopyFrom(model)
    make_steady(steady)
    options.optimized_model_filepath, options.log_severity_level = str(path / "optimized.onnx"), 4
    ort.InferenceSession(
        steady.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=FUSIONS_BY_CPU
    )
    graph = onnx.load(path / "optimized.onnx").graph
    return list(graph.node), {tensor.name: list(tensor.dims) for tensor in graph.initializer}


OPERATORS = [
    "Softmax (x)", "Softmax <axis = 1> (x)", "Softmax <axis = -3> (x)", "LogSoftmax (x)", "LogSoftmax <axis = 0> (x)",
    "Gelu (x)",
    'Gelu <approximate = "tanh"> (x)',
]  # fmt: skip


@pytest.mark.parametrize("opset", [13, 17, 18, 21])
@pytest.mark.parametrize("operator", OPERATORS)
def test_operators_written_in_others_are_the_same_function(operator, opset, tmp_path):
    if operator.startswith("Gelu") and opset < 20:
        opset = 20
    model = model_of(f"g (float[2, 3, 21] x) => (float[2, 3, 21] y) {{ y = {operator} }}", opset)
    x = 4 * random(2, 3, 21)
    np.testing.assert_allclose(Runner(model).run({"x": x})["y"], as_written(model, x=x)[0], rtol=2e-6, atol=1e-6)
    assert not {node.op_type for node in optimized(model, tmp_path)[0]} & BY_CPU


@pytest.mark.parametrize("kind", ["float16", "double"])
def test_operators_of_other_types(kind):
    model = model_of(f"g ({kind}[3, 21] x) => ({kind}[3, 21] y) {{ y = Softmax (x) }}")
    x = random(3, 21).astype({"float16": np.float16, "double": np.float64}[kind])
    answer = Runner(model).run({"x": x})["y"]
    assert answer.dtype == x.dtype
    np.testing.assert_allclose(answer, as_written(model, x=x)[0], rtol=2e-3)


def test_older_operator_sets_keep_their_softmax():
    model = model_of("g (float[2, 3, 4] x) => (float[2, 3, 4] y) { y = Softmax <axis = 1> (x) }", 11)
    x = random(2, 3, 4)
    np.testing.assert_allclose(Runner(model).run({"x": x})["y"], as_written(model, x=x)[0], rtol=1e-6)


def test_a_sigmoid_times_its_input_is_not_fused(tmp_path):
    text = "g (float[4, 9] x) => (float[4, 9] y) { a = Mul(x, c) b = Sigmoid(a) y = Mul(x, b) }"
    assert not {node.op_type for node in optimized(model_of(text, c=np.array(1.702, np.float32)), tmp_path)[0]} & BY_CPU


def test_subgraphs_are_written_so_too():
    text = (
        "g (bool c, float[2, 4, 6, 6] x) => (float[2, 4, 6, 6] y) { y = If (c) <then_branch = t () => (float[2, 4, 6, "
        "6] a) { a = Softmax(x) },"
        " else_branch = e () => (float[2, 4, 6, 6] b) { p = MaxPool <kernel_shape = [1, 1]> (x) b = Conv <pads = [1, "
        "1, 1, 1]> (p, w) }> }"
    )
    model, x = model_of(text, w=random(4, 4, 3, 3)), random(2, 4, 6, 6)
    for condition in (True, False):
        feed = {"c": np.array(condition), "x": x}
        np.testing.assert_allclose(Runner(model).run(feed)["y"], as_written(model, **feed)[0], rtol=1e-4, atol=1e-5)


@st.composite
def networks(draw):
    """Two convolutions of any kind, between them pools, sums and concatenations, with the shape of their input."""
    channels = draw(st.sampled_from([1, 3, 7, 8, 16, 24, 32]))
    text, known, weights, count = [], "x", {}, channels
    for index in range(draw(st.integers(1, 3))):
        groups = draw(st.sampled_from([1, count, 2 if count % 2 == 0 else 1]))
        outputs = count if groups == count else draw(st.sampled_from([8, 16, 24, 32]))
        kernel = draw(st.sampled_from([1, 3]))
        weights[f"w{index}"] = random(outputs, count // groups, kernel, kernel, seed=index)
        weights[f"b{index}"] = random(outputs, seed=9 + index)
        bias = draw(st.sampled_from(["", f", b{index}"]))
        text.append(
            f"c{index} = Conv <group = {groups}, pads = [{', '.join([str(kernel // 2)] * 4)}]> ({known}, "
            f"w{index}{bias})"
        )
        end = draw(
            st.sampled_from(
                [
                    f"Relu(c{index})",
                    f"MaxPool <kernel_shape = [2, 2]> (c{index})",
                    f"Add(c{index}, c{index})",
                    f"AveragePool <kernel_shape = [2, 2]> (c{index})",
                    f"Concat <axis = 1> (c{index}, c{index})",
                ]
            )
        )
        text.append(f"d{index} = {end}")
        known, count = f"d{index}", outputs * (2 if "Concat" in end else 1)
    return f"g (float[1, {channels}, 7, 9] x) => (float y) {{ {' '.join(text)} y = Relu({known}) }}", weights


@settings(deadline=None, max_examples=40)
@given(networks())
def test_blocked_layout_only_where_every_block_adds_alike(tmp_path_factory, network):
    text, weights = network
    model = model_of(text, **weights)
    shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    x = random(*shape, seed=7)
    np.testing.assert_allclose(Runner(model).run({"x": x})["y"], as_written(model, x=x)[0], rtol=1e-3, atol=1e-3)
    nodes, sizes = optimized(model, tmp_path_factory.mktemp("model"))
    for node in (node for node in nodes if node.domain == "com.microsoft.nchwc" and "Reorder" not in node.op_type):
        assert "Pool" not in node.op_type
        if node.op_type == "Conv":
            outputs, inputs, *kernel = sizes[node.input[1]]  # their order is another one, their numbers are the same
            groups = next(attribute.i for attribute in node.attribute if attribute.name == "group")
            depthwise = groups == outputs and inputs == 1 and outputs % 16 == 0
            assert depthwise or (groups == 1 and (inputs < 8 or (inputs % 16 == 0 and kernel == [1, 1])))


def fused(total: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``total + a * b``, rounded once: products of float32 are exact in float64."""
    return (total.astype(np.float64) + a.astype(np.float64) * b.astype(np.float64)).astype(np.float32)


def chain(patches: np.ndarray, weight: np.ndarray, runs: list[slice]) -> np.ndarray:
    """Sums [P, O] of patches [P, K] times weights [O, K]: one chain of fused multiply-adds in each run of K, and runs
    added up.
    """
    total = None
    for run in runs:
        part = np.zeros((len(patches), len(weight)), np.float32)
        for k in range(run.start, run.stop):
            part = fused(part, patches[:, k, None], weight[None, :, k])
        total = part if total is None else part + total
    return total


def patches_of(x: np.ndarray, size: int) -> np.ndarray:
    """Windows of [C, H, W] as [positions, C * size * size]."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return windows.transpose(1, 2, 0, 3, 4).reshape(-1, len(x) * size * size)


SUMS = {
    "1 x 1": (160, 32, 1, 1, [slice(0, 128), slice(128, 160)]),
    "1 x 1, few": (24, 32, 1, 1, [slice(0, 24)]),
    "first of a network": (3, 32, 3, 1, [slice(9 * c, 9 * c + 9) for c in range(3)]),
    "3 x 3": (9, 16, 3, 1, [slice(0, 81)]),
}


@pytest.mark.parametrize("name", SUMS)
def test_convolutions_add_in_one_order_on_every_cpu(name):
    """To the last bit. No CPU is named: whichever runs this must have this order."""
    inputs, outputs, kernel, groups, runs = SUMS[name]
    weight, x = random(outputs, inputs, kernel, kernel), random(1, inputs, 5, 6, seed=1)
    model = model_of(f"g (float[1, {inputs}, 5, 6] x) => (float y) {{ y = Conv <group = {groups}> (x, w) }}", w=weight)
    answer = Runner(model).run({"x": x})["y"][0].reshape(outputs, -1).T
    np.testing.assert_array_equal(answer, chain(patches_of(x[0], kernel), weight.reshape(outputs, -1), runs))


@pytest.mark.parametrize("channels", [16, 24])
def test_depthwise_convolutions_add_in_one_order_on_every_cpu(channels):
    weight, x = random(channels, 1, 3, 3), random(1, channels, 5, 6, seed=1)
    model = model_of(
        f"g (float[1, {channels}, 5, 6] x) => (float y) {{ y = Conv <group = {channels}> (x, w) }}", w=weight
    )
    answer = Runner(model).run({"x": x})["y"][0].reshape(channels, -1)
    for channel in range(channels):
        expected = chain(patches_of(x[0, channel : channel + 1], 3), weight[channel].reshape(1, -1), [slice(0, 9)])
        if channels % 16 == 0:
            np.testing.assert_array_equal(answer[channel], expected[:, 0])
        else:  # a product of one row rounds products and sums one by one, on every CPU with AVX
            np.testing.assert_allclose(answer[channel], expected[:, 0], rtol=1e-4, atol=1e-5)
