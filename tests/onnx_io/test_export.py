from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from qcompiler.errors import ExportError, OptionError
from qcompiler.graph.ir import ORIGIN, Constant, Graph
from qcompiler.graph.origin import Origin
from qcompiler.graph.runner import Runner
from qcompiler.onnx_io import export
from qcompiler.onnx_io.importer import load_graph
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

QDQ = "q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  "
CODES8 = {"s": np.float32(0.02), "z": np.uint8(128)}
CODES16 = {"s": np.float32(0.001), "z": np.int16(0)}
NEEDS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "8-bit codes": (13, QDQ + "y = Relu(d)", CODES8),
    "16-bit codes": (21, QDQ + "y = Relu(d)", CODES16),
    "weights per channel": (13, ("w = DequantizeLinear <axis = 1> (k, s)  y = MatMul(x, "
                                "w)"), {"k": np.ones((4, 4), np.int8), "s": random(4, low=0.1)}),
    "weights per block": (
        21, ("w = DequantizeLinear <axis = 0, block_size = 2> (k, s)  y = MatMul(x, "
            "w)"), {"k": np.ones((4, 4), np.int8), "s": random(2, 4, low=0.1)},
    ),
    "HardSwish": (14, "y = HardSwish(x)", {}),
    "LayerNormalization": (17, "y = LayerNormalization(x, g)", {"g": random(4)}),
    "Gelu, which parts of it are": (13, "y = Gelu(x)", {}),
    "Gelu by tanh": (13, "y = Gelu <approximate = \"tanh\"> (x)", {}),
    "ReduceMean with constant axes": (13, "y = ReduceMean(x, a)", {"a": np.array([1])}),
    "ReduceMean over all": (13, "y = ReduceMean(x)", {}),
    "ReduceMean over none": (18, "y = ReduceMean <noop_with_empty_axes = 1> (x)", {}),
    "equal parts": (13, "y, t = Split <axis = 1, num_outputs = 2> (x)", {}),
    "unequal parts": (18, "y, t, u = Split <axis = 1, num_outputs = 3> (x)", {}),
    "defaults of a newer version": (13, "y = Reshape <allowzero = 0> (x, r)", {"r": np.array([0, 2, 2])}),
    "Shape of a part": (15, "y = Shape <start = 1> (x)", {}),
    "Pad of some axes": (18, "y = Pad(x, p, , a)", {"p": np.array([1, 1]), "a": np.array([1])}),
    "Pad that wraps": (19, "y = Pad <mode = \"wrap\"> (x, p)", {"p": np.array([0, 1, 0, 1])}),
    "Relu of integers": (14, "c = Cast <to = 6> (x)  r = Relu(c)  y = Cast <to = 1> (r)", {}),
    "Add of 16-bit integers": (14, "c = Cast <to = 5> (x)  r = Add(c, c)  y = Cast <to = 1> (r)", {}),
    "If with a Gelu in it": (
        20, """c = Greater(k, o)
        y = If (c) <then_branch = t () => (float[N, 4] a) { a = Gelu(x) }, else_branch = e () => (float[N,
        4] b) { b = Relu(x) }>""",
        {"k": np.float32(1), "o": np.float32(0)},
    ),
    "remainder of floats": (13, "y = Mod <fmod = 1> (x, k)", {"k": np.float32(0.7)}),
}  # fmt: skip


def run(model: onnx.ModelProto, **feed: np.ndarray) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # its kernels for few-bit weights round activations
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return list(
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)
    )


def graph_with(body: str, constants: dict[str, Any]) -> Graph:
    kind = "int64" if "Shape" in body and "Reshape" not in body else "float"
    return graph_of(f"g (float[N, 4] x) => ({kind}[] y) {{ {body} }}", **constants)


@pytest.mark.parametrize("case", NEEDS)
def test_lowest_opset(case):
    opset, body, constants = NEEDS[case]
    graph = graph_with(body, constants)
    expected = Runner(graph).run({"x": random(2, 4)})["y"]
    model = export.to_model(graph)
    assert model.opset_import[0].version == opset
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, x=random(2, 4))[0], expected, rtol=1e-6)
    assert graph.opset == 21


@pytest.mark.parametrize(("opset", "ir"), [(13, 7), (17, 8), (20, 9), (21, 10)])
def test_ir_version_matches(opset, ir):
    case = next(case for case, (needed, *_) in NEEDS.items() if needed == opset)
    assert export.to_model(graph_with(*NEEDS[case][1:])).ir_version == ir


def test_only_used_domains_and_metadata_are_written():
    graph = graph_of("g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }")
    graph.import_domains = [*graph.import_domains, onnx.helper.make_opsetid("com.unused", 3)]
    source = onnx.helper.make_model(
        onnx.GraphProto(), producer_name="torch", producer_version="2.9", doc_string="what", model_version=7
    )
    onnx.helper.set_model_props(source, {"b": "2", "a": "1"})
    graph.__dict__[ORIGIN] = Origin.of(source)
    model = export.to_model(graph)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    assert [(entry.key, entry.value) for entry in model.metadata_props] == [("a", "1"), ("b", "2")]
    assert (model.producer_name, model.producer_version, model.doc_string, model.model_version) == (
        "torch",
        "2.9",
        "what",
        7,
    )


def test_foreign_operators_keep_their_domain_and_version():
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
        g (float[N, 4] x) => (float[N, 4] y) { h = com.microsoft.Gelu(x)  y = Relu(h) }""")
    written = export.to_model(load_graph(model))
    assert [(entry.domain, entry.version) for entry in written.opset_import] == [("", 13), ("com.microsoft", 1)]
    np.testing.assert_array_equal(run(written, x=random(2, 4))[0], run(model, x=random(2, 4))[0])


def test_bytes_do_not_depend_on_the_hash_seed(tmp_path):
    script = """if True:
        import sys, numpy as np, onnx.parser
        from qcompiler.onnx_io import export
        from qcompiler.onnx_io.importer import load_graph
        text = '<ir_version: 8, opset_import: ["" : 17, "b.c" : 1, "a.b" : 2]>'
        text += 'g (float[N, 4] x) => (float[N, 4] y) { p = b.c.F(x)  q = a.b.G(p)  y = Relu(q) }'
        sys.stdout.buffer.write(export.to_model(load_graph(onnx.parser.parse_model(text))).SerializeToString(deterministic=True))"""
    results = set()
    for seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)}
        results.add(
            subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True).stdout
        )
    assert len(results) == 1
    assert len(results.pop()) > 100


def small() -> Graph:
    return graph_of("g (float[N, 4] x) => (float[N, 3] y) { y = MatMul(x, w) }", w=random(4, 3))


def test_save_writes_what_runs(tmp_path):
    path = tmp_path / "out.onnx"
    export.save(small(), path, reference_feed={"x": random(2, 4)})
    np.testing.assert_allclose(run(onnx.load(path), x=random(2, 4))[0], random(2, 4) @ random(4, 3), rtol=1e-5)
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]


def test_large_weights_go_to_a_file_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "EXTERNAL_FROM", 4000)
    path = tmp_path / "out.onnx"
    graph = graph_of(
        "g (float[N, 64] x) => (float[N, 64] y) { h = MatMul(x, w)  y = Add(h, b) }", w=random(64, 64), b=random(64)
    )
    export.save(graph, path, reference_feed={"x": random(2, 64)})
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out.onnx", "out.onnx.data"]
    assert (tmp_path / "out.onnx.data").stat().st_size == 64 * 64 * 4
    x = random(2, 64)
    np.testing.assert_allclose(Runner(load_graph(path)).run({"x": x})["y"], Runner(graph).run({"x": x})["y"], rtol=1e-6)


def test_existing_files_folders_and_missing_folders_are_refused(tmp_path):
    path = tmp_path / "out.onnx"
    path.write_bytes(b"precious")
    with pytest.raises(OptionError, match="exists"):
        export.save(small(), path)
    assert path.read_bytes() == b"precious"
    with pytest.raises(OptionError, match="is a folder"):
        export.save(small(), tmp_path, force=True)
    with pytest.raises(OptionError, match="does not exist; create it first"):
        export.save(small(), tmp_path / "no" / "out.onnx")
    export.save(small(), path, force=True)
    assert onnx.load(path).graph.node[0].op_type == "MatMul"


@pytest.mark.parametrize(
    ("body", "feed", "message"),
    [
        ("y = Log(x)", np.array([[-1.0, 1.0]], np.float32), "output 'y' of the compiled model is not finite"),
        ("y = Relu(x)", np.zeros((1, 2), np.int64), "onnxruntime cannot run the compiled model"),
        ("y = Reshape(x, r)", np.zeros((1, 2), np.float32), "onnxruntime cannot run the compiled model"),
    ],
)
def test_what_does_not_run_is_not_written(tmp_path, body, feed, message):
    path = tmp_path / "out.onnx"
    path.write_bytes(b"previous")
    graph = graph_of(f"g (float[N, 2] x) => (float[] y) {{ {body} }}", r=np.array([5, 7]))
    graph.outputs[0].shape = None
    with pytest.raises(ExportError, match=message) as caught:
        export.save(graph, path, reference_feed={"x": feed}, force=True)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"previous"
    assert [file.name for file in tmp_path.iterdir()] == ["out.onnx"]


def test_an_invalid_graph_is_refused():
    graph = small()
    graph.nodes[0].op = "NoSuchOperator"
    with pytest.raises(ExportError, match="not a valid model"):
        export.to_model(graph)


def test_finished_models_are_saved_as_they_are(tmp_path):
    model = export.to_model(small())
    export.save(model, tmp_path / "out.onnx", reference_feed={"x": random(2, 4)})
    assert onnx.load(tmp_path / "out.onnx") == model


def test_shared_constants_are_written_once():
    graph = graph_of("g (float[N, 4] x) => (float[N, 4] y) { h = MatMul(x, w)  y = MatMul(h, w) }", w=random(4, 4))
    assert isinstance(graph.nodes[0].inputs[1], Constant)
    assert len(export.to_model(graph).graph.initializer) == 1
