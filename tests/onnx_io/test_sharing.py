"""Equal constants are stored once, across the bodies of control flow too."""

from __future__ import annotations

import numpy as np
import onnx

from qcompiler.graph.runner import Runner
from qcompiler.onnx_io import export
from qcompiler.onnx_io.importer import load_graph

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (bool c, float[N, 64] x) => (float[N, 64] y) <float[64, 64] w> {
    y = If (c) <then_branch = t () => (float[N, 64] a) { a1 = MatMul(x, w) a = Relu(a1) },
                else_branch = e () => (float[N, 64] b) { b = MatMul(x, w) }>
}"""


def weight(seed: int) -> onnx.TensorProto:
    return onnx.numpy_helper.from_array(np.random.default_rng(seed).standard_normal((64, 64)).astype(np.float32), "w")


def branches(model: onnx.ModelProto) -> list[onnx.GraphProto]:
    return [attribute.g for node in model.graph.node for attribute in node.attribute]


def same(model: onnx.ModelProto, result: onnx.ModelProto) -> None:
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    for condition in (True, False):
        feed = {"c": np.array(condition), "x": x}
        np.testing.assert_array_equal(Runner(model).run(feed)["y"], Runner(result).run(feed)["y"])


def test_branches_read_the_outer_weight() -> None:
    model = onnx.parser.parse_model(TEXT)
    model.graph.initializer.append(weight(1))
    result = export.to_model(load_graph(model))
    assert result.ByteSize() < 1.05 * model.ByteSize()
    assert [tensor.name for tensor in result.graph.initializer] == ["w"]
    same(model, result)


def test_copies_in_branches_become_one() -> None:
    model = onnx.parser.parse_model(TEXT.replace("<float[64, 64] w>", ""))
    for branch in branches(model):
        branch.initializer.append(weight(1))
    result = export.to_model(load_graph(model))
    assert result.ByteSize() < 0.6 * model.ByteSize()
    same(model, result)


def test_different_weights_of_one_name_stay_apart() -> None:
    model = onnx.parser.parse_model(TEXT.replace("<float[64, 64] w>", ""))
    for seed, branch in enumerate(branches(model)):
        branch.initializer.append(weight(seed))
    result = export.to_model(load_graph(model))
    assert len({tensor.name for tensor in result.graph.initializer}) == 2
    same(model, result)
