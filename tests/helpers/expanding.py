"""Expands one operator and compares what came out with onnxruntime's own kernel of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.passes.expand.expand_operators import ExpandOperators
from qcompiler.shapes.seen_types import complete_types
from tests.lowering.judged import compiled

Feed = dict[str, np.ndarray]


def real(seed: int, *shape: int) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * 0.5).astype(np.float32)


def model_of(inputs: str, body: str, outputs: str = "float y", opset: int = 21, **initializers: Any) -> onnx.ModelProto:
    """A model whose outputs have any shape."""
    header = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>\n'
    model = onnx.parser.parse_model(f"{header} g ({inputs}) => ({outputs}) {{ {body} }}")
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    for name, value in initializers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return model


def check_same(model: onnx.ModelProto, feed: Feed, *, machine: bool = True, remaining: int = 0) -> None:
    """The operator is gone but for some that remain, types are known, and outputs are as before."""
    gone, expected = model.graph.node[-1], Runner(model).run(feed)
    graph = load_graph(model)
    complete_types(graph, feed)
    Manager([ExpandOperators(machine=machine)]).run(graph, Context())
    left = [node for node in graph.nodes if node.op == gone.op_type and (node.domain or "") == gone.domain]
    assert len(left) == remaining
    for name, values in Runner(graph).run(feed).items():
        assert values.shape == expected[name].shape
        np.testing.assert_allclose(values, expected[name], rtol=2e-4, atol=2e-5)
    assert all(tensor.dtype is not None for node in graph.nodes for tensor in node.outputs if tensor.name)


def check_on_machine(model: onnx.ModelProto, feeds: list[Feed], least_db: float) -> None:
    """The program, on feeds that calibration did not see; integer outputs are equal."""
    decibels, _ = compiled(model, feeds[:-3], feeds[-3:], "machine", level=2)
    assert decibels >= least_db
