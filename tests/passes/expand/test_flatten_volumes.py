"""Convolutions and pools over volumes, written as ones over pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.graph.float_zones import AT_OUTPUT
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.passes.expand.flatten_volumes import FlattenVolumes
from tests.lowering.judged import FORMS, compiled


def model_of(body: str, sizes: str, **arrays: Any) -> onnx.ModelProto:
    text = f"g (float[N, 2, {sizes}] x) => (float y) {{ {body} }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    model.graph.output[0].type.tensor_type.ClearField("shape")
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in arrays.items()
    )
    return model


@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_the_function_stays(data: st.DataObject) -> None:
    op = data.draw(st.sampled_from(["Conv", "MaxPool"]))
    kernel, strides, dilations = ([data.draw(st.integers(1, 3)) for _ in range(3)] for _ in range(3))
    if op == "MaxPool":
        dilations = [1, 1, 1]
    pads = [data.draw(st.integers(0, size - 1)) for size in (*kernel, *kernel)]
    sizes = [
        (size - 1) * dilation + 1 + data.draw(st.integers(0, 3))
        for size, dilation in zip(kernel, dilations, strict=True)
    ]
    rng = np.random.default_rng(0)
    weight = ", w, b" if op == "Conv" else ""
    arrays = {"w": rng.standard_normal((3, 2, *kernel)), "b": rng.standard_normal(3)} if op == "Conv" else {}
    attributes = f"kernel_shape = {kernel}, strides = {strides}, pads = {pads}, dilations = {dilations}"
    model = model_of(f"y = {op}<{attributes}>(x{weight})", ", ".join(map(str, sizes)), **arrays)
    graph, feed = load_graph(model), {"x": rng.standard_normal((2, 2, *sizes)).astype(np.float32)}
    assert Manager([FlattenVolumes()]).run(graph, Context()) is not None
    assert all(len(node.inputs[0].shape) == 4 for node in graph.nodes if node.op == op)
    expected, got = Runner(model).run(feed)["y"], Runner(graph).run(feed)["y"]
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_a_network_runs_as_integers(form: str) -> None:
    rng = np.random.default_rng(1)
    body = """a = Conv<pads = [1, 1, 1, 1, 1, 1], strides = [1, 2, 2]>(x, w) b = Relu(a)
    c = MaxPool<kernel_shape = [2, 2, 2], strides = [2, 2, 2]>(b)
        d = Conv<pads = [1, 0, 0, 1, 0, 0]>(c, v) e = Add(c, d) f = GlobalAveragePool(e) y = Flatten(f)"""
    model = model_of(
        body, "4, 8, 8", w=rng.standard_normal((5, 2, 3, 3, 3)) * 0.3, v=rng.standard_normal((5, 5, 3, 1, 1)) * 0.3
    )
    feeds = [{"x": np.clip(rng.standard_normal((2, 2, 4, 8, 8)), -2, 2).astype(np.float32)} for _ in range(12)]
    decibels, report = compiled(model, feeds[:8], feeds[8:], form)
    assert decibels > 25
    assert report.figures["integer_mac_share"] == 1.0
    assert {node.reason for node in report.left_float} <= {AT_OUTPUT}
