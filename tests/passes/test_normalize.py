"""The float rewrites together, on real architectures and on onnx's own operator cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.backend.test.data
import onnxruntime as ort
import pytest

from qcompiler.errors import QCompilerError
from qcompiler.graph.runner import ORT_ERRORS, Runner
from qcompiler.manager import Manager
from qcompiler.onnx_io import export
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.pipeline import NORMALIZE
from qcompiler.shapes.infer import evaluate, infer_shapes
from tests.helpers.graphs import ops

LIGHT = sorted((Path(onnx.__file__).parent / "backend/test/data/light").glob("light_*.onnx"))
RUN = [path for path in LIGHT if any(name in path.name for name in ("squeezenet", "shufflenet", "inception_v2"))]
LAYERS = {
    "Conv",
    "Gemm",
    "Relu",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
    "Add",
    "Softmax",
    "Reshape",
    "Transpose",
    "LRN",
}
SAMPLE = 12
"""Every so manieth operator case is tried; benchmarks/onnx_cases.py tries all."""


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_architectures_import_as_static_graphs(path):
    graph = load_graph(path)
    assert graph.opset == 21
    assert len(graph.inputs) == 1
    shapes = infer_shapes(graph)
    assert all(shapes[tensor.name] is not None for node in graph.nodes for tensor in node.outputs if tensor.name)
    assert [evaluate(size, {}) for size in shapes[graph.outputs[0].name]][:2] == [1, 1000]


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.stem)
def test_architectures_compute_the_same_with_little_left(path):
    graph = load_graph(path)
    x = np.random.default_rng(0).random((1, 3, 224, 224), dtype=np.float32)
    expected = Runner(graph).run({graph.inputs[0].name: x})
    ctx = Context()
    Manager(NORMALIZE).run(graph, ctx)
    assert set(ops(graph)) <= LAYERS
    assert len(ctx.batchnorm) == {"light_squeezenet": 0, "light_shufflenet": 49, "light_inception_v2": 69}[path.stem]
    for name, value in Runner(graph).run({graph.inputs[0].name: x}).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-4, atol=1e-6)


def cases() -> list[Any]:
    from onnx.backend.test.case.node import collect_testcases

    return [case for case in collect_testcases(None) if case.data_sets][::SAMPLE]


def arrays(values: Any) -> list[Any]:
    return [
        onnx.numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else np.asarray(v) if np.isscalar(v) else v
        for v in values
    ]


def run(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    return list(
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)
    )


def assert_same(got: Any, wanted: Any) -> None:
    if isinstance(wanted, list):
        for one, other in zip(got, wanted, strict=True):
            assert_same(one, other)
    elif np.asarray(wanted).dtype.kind in "fc":
        half = wanted.dtype == np.float16
        np.testing.assert_allclose(got, wanted, rtol=2e-3 if half else 1e-4, atol=1e-3 if half else 1e-5)
    else:
        np.testing.assert_array_equal(got, wanted)


def through_both_doors(model: onnx.ModelProto) -> onnx.ModelProto | str:
    """The model behind import, rewrites and export, or the line with which it is refused."""
    try:
        graph = load_graph(model)
        Manager(NORMALIZE).run(graph, Context())
        return export.to_model(graph)
    except QCompilerError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", "ignore::UserWarning")
def test_operator_cases_compute_the_same_or_are_refused():
    same, refused = 0, []
    for case in cases():
        feed = dict(zip([value.name for value in case.model.graph.input], arrays(case.data_sets[0][0]), strict=False))
        feed = {name: value for name, value in feed.items() if value is not None}
        try:
            expected = run(case.model, feed)
        # onnxruntime lacks this operator, this type or this opset
        except (*ORT_ERRORS, RuntimeError, ValueError, TypeError):
            continue
        model = through_both_doors(case.model)
        if isinstance(model, str):
            refused.append(model)
            continue
        for got, wanted in zip(run(model, feed), expected, strict=True):
            assert_same(got, wanted)
        same += 1
    assert same > 100
    assert len(refused) <= 3
    assert not any("\n" in line for line in refused)
