"""Layers of one output, one input, one pixel, and batches of one or none: whatever has one element keeps its axis."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from qcompiler import lowering
from qcompiler.graph.ir import Constant, Feed, Graph, Node, Variable, copy_of, dequantize_constant, read_spec, spec_of
from qcompiler.graph.layers import find_layers
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.options import ACTIVATION_GRIDS, Options
from qcompiler.pass_base import Context
from qcompiler.presets import Preset
from tests.helpers.layer_graphs import KINDS, RECURRENT, LayerGraph

WEIGHTS = (
    "int8",
    "int2",
    "int4",
    "int6",
    "nf4",
    "fp4",
    "power3",
    "post3",
    "split2",
    "kmeans3",
    "kmeans5",
    "int4/32",
    "nf4/64",
    "auto",
)
SIZES = st.sampled_from([1, 1, 2, 40])

CLOSE = {"uint8": 0.03, "int8": 0.03, "uint4": 0.35, "power4": 0.35, "int16": 0.03}
"""Largest error, of the largest output, that activations of this type and 8-bit weights make on feeds that calibration
saw.
"""


def preset_of(level: int, weights: str, activations: str) -> Preset:
    name, _, block = weights.partition("/")
    level = max(level, 1) if name == "auto" else level
    return Preset(Options(level, weights=name, block=int(block or 0), activations=activations), for_onnx=True)


def compiled(graph: Graph, preset: Preset, feeds: list[Feed]) -> Graph:
    passes = preset.pipeline().passes
    floats = next(index for index, step in enumerate(passes) if not step.exact)
    ctx = Context(data=feeds)
    Manager(passes[:floats]).run(graph, ctx)
    ctx.reference = copy_of(graph)
    Manager(passes[floats:]).run(graph, ctx)
    return graph


@given(
    case=st.builds(LayerGraph, st.sampled_from(KINDS), SIZES, SIZES, st.sampled_from([1, 3]), st.booleans(),
    st.booleans(), st.integers(0, 2**16)),
    level=st.integers(0, 3), weights=st.sampled_from(WEIGHTS), activations=st.sampled_from(ACTIVATION_GRIDS),
)  # fmt: skip
@example(LayerGraph("MatMul", 16, 1, 1), 2, "int8", "uint8")
@example(LayerGraph("Conv", 8, 1, 3), 2, "int8", "int16")
@example(LayerGraph("Gemm", 1, 1, 1), 1, "int8", "int16")
@example(LayerGraph("MatMul", 1, 1, 1), 2, "auto", "uint8")
@example(LayerGraph("DepthwiseTwice", 40, 1, 1), 2, "auto", "uint8")
@example(LayerGraph("ConvTranspose", 3, 1, 1), 2, "kmeans5", "uint8")
@example(LayerGraph("LSTM", 1, 1, 1), 2, "nf4/64", "uint8")
@settings(max_examples=10, deadline=None)
def test_every_preset_compiles_layers_of_one(case, level, weights, activations):
    graph = case.graph()
    feeds = [dict(case.feed(3, seed)) for seed in range(3)]
    reference, result = Runner(copy_of(graph)), compiled(graph, preset_of(level, weights, activations), feeds)
    integer = lowering.to_integer_onnx(lowering.lower_graph(result))
    for form in (Runner(result), Runner(integer)):
        for batch in (3, 1, 0):
            feed = {"x": feeds[0]["x"] if case.kind in RECURRENT else feeds[0]["x"][:batch]}
            expected, found = reference.run(feed)["y"], form.run(feed)["y"]
            assert found.shape == expected.shape
            largest = max(np.abs(reference.run(one)["y"]).max() for one in feeds)
            if weights == "int8":
                np.testing.assert_allclose(found, expected, atol=CLOSE[activations] * max(largest, 1e-6))


@pytest.mark.parametrize("kind", ["Gemm", "GemmT", "MatMulAdd", "Conv", "Grouped", "Depthwise", "ConvTranspose"])
def test_weights_and_biases_of_one_channel_keep_their_axis(kind):
    case = LayerGraph(kind, inputs=1 if kind == "Depthwise" else 3, outputs=1)
    graph = compiled(replace(case, relu=True).graph(), preset_of(2, "int8", "uint8"), [dict(case.feed(3))])
    layer = next(iter(find_layers(graph)))
    weight = spec_of(layer.weight)
    assert (weight.axis, weight.scale.shape) == (layer.axis, (layer.channels,))
    bias = spec_of(layer.bias_node.inputs[layer.bias_slot])
    assert (bias.axis, bias.scale.ndim) == (0, 1)


@pytest.mark.parametrize(
    ("shape", "axis", "expected"),
    [((1, 5), 0, 0), ((5, 1), 1, 1), ((5, 1), -1, -1), ((5, 4), 0, None), ((5, 4), 1, None), ((), 0, None)],
)
def test_a_vector_of_one_scale_is_per_channel_where_there_is_one_channel(shape, axis, expected):
    scale = Constant("s", np.full(1, 0.5, np.float32))
    node = Node(
        "DequantizeLinear",
        "n",
        {"axis": axis},
        [Constant("w", np.zeros(shape, np.int8)), scale],
        [Variable("y", np.float32)],
    )
    spec = read_spec(node)
    assert (spec.axis, spec.scale.shape) == (expected, () if expected is None else (1,))
    codes = np.arange(np.prod(shape), dtype=np.int8).reshape(shape)
    np.testing.assert_array_equal(spec.dequantize(codes), codes * np.float32(0.5))


@pytest.mark.parametrize("shape", [[1, 5], ["N", 5]])
def test_a_vector_of_one_scale_of_an_activation_is_per_tensor(shape):
    inputs = [
        Variable("x", np.float32, shape),
        Constant("s", np.ones(1, np.float32)),
        Constant("z", np.zeros(1, np.uint8)),
    ]
    spec = read_spec(Node("QuantizeLinear", "n", {"axis": 0}, inputs, [Variable("y", np.uint8)]))
    assert (spec.axis, spec.scale.shape, spec.zero_point.shape) == (None, (), ())


def test_scalar_scales_stay_per_tensor():
    graph = LayerGraph("MatMul", 3, 1, 1).graph()
    tensor = dequantize_constant(graph, "w", np.zeros((3, 1), np.int8), read_spec(scalar_node()), set())
    assert spec_of(tensor).axis is None


def scalar_node() -> Node:
    scale = Constant("s", np.array(0.5, np.float32))
    return Node(
        "DequantizeLinear", "n", {}, [Constant("w", np.zeros((3, 1), np.int8)), scale], [Variable("y", np.float32)]
    )
