from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx.parser
import onnxruntime as ort
import pytest

from qcompiler.errors import ModelError
from qcompiler.graph.ir import Constant, Graph, subgraphs
from qcompiler.graph.origin import origin_of
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.onnx_io import export
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.pipeline import NORMALIZE
from tests.helpers.graphs import ops
from tests.passes.rewriting import random


def model_of(text: str, opset: int = 21, ir: int = 10, domains: str = "", **initializers: Any) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}{domains}]>\n{text}')
    for name, value in initializers.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return model


def reference(model: onnx.ModelProto, feed: dict[str, Any]) -> list[Any]:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    # its kernels for few-bit weights round activations
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return list(
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"]).run(None, feed)
    )


def check_same(model: onnx.ModelProto, feed: dict[str, Any], tolerance: float = 1e-6) -> Graph:
    graph = load_graph(model)
    for expected, got in zip(reference(model, feed), Runner(graph).run(feed).values(), strict=True):
        assert got.dtype == np.asarray(expected).dtype
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance)
    return graph


IMAGE = "float[N, 4, 6, 8] x"
WEIGHTS = {
    "w": random(4, 4, 3, 3), "s": random(4, seed=1), "b": random(4, seed=2), "m": random(4, seed=3),
    "v": random(4, seed=4, low=0.5),
}  # fmt: skip
SINCE_7: dict[str, tuple[int, int, str]] = {
    "convolution": (7, 21, "h = Conv <pads = [1, 1, 1, 1]> (x, w)  n = BatchNormalization(h, s, b, m, v)  y = Relu(n)"),
    "pools": (7, 21, ("h = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x)  y = AveragePool <kernel_shape = [2, "
                     "2]> (h)")),
    "softmax in the middle": (7, 21, "y = Softmax <axis = 1> (x)"),
    "softmax at the end": (7, 21, "y = Softmax <axis = 3> (x)"),
    "elementwise": (7, 21, "a = Sigmoid(x)  c = Mul(a, x)  d = LeakyRelu <alpha = 0.1> (c)  y = Tanh(d)"),
    "flatten": (7, 21, "f = Flatten(x)  y = Dropout(f)"),
    "attributes of Clip": (7, 10, "y = Clip <min = -1.0, max = 2.0> (x)"),
    "attributes of Pad": (7, 10, "y = Pad <pads = [0, 0, 1, 2, 0, 0, 0, 3], value = 0.5> (x)"),
    "attributes of Slice": (7, 9, "y = Slice <axes = [2, 3], starts = [1, -3], ends = [100, -1]> (x)"),
    "attributes of Split": (7, 12, "y, z = Split <axis = 1, split = [1, 3]> (x)"),
    "attributes of ReduceMean": (7, 17, "y = ReduceMean <axes = [2, 3], keepdims = 0> (x)"),
    "attributes of ReduceSum": (7, 12, "y = ReduceSum <axes = [1]> (x)"),
    "attributes of Squeeze": (7, 12, "u = Unsqueeze <axes = [0, 3]> (x)  y = Squeeze <axes = [3]> (u)"),
    "attributes of TopK": (7, 9, "y, i = TopK <axis = 3, k = 2> (x)"),
    "Upsample by attribute": (7, 8, "y = Upsample <mode = \"nearest\", scales = [1.0, 1.0, 2.0, 3.0]> (x)"),
    "linear Upsample": (7, 8, "y = Upsample <mode = \"linear\", scales = [1.0, 1.0, 1.5, 2.0]> (x)"),
    "linear Resize of opset 10": (10, 10, "y = Resize <mode = \"linear\"> (x, up)"),
    "Resize that shrinks": (10, 10, "y = Resize <mode = \"nearest\"> (x, down)"),
    "Resize that grows": (10, 10, "y = Resize <mode = \"nearest\"> (x, up)"),
    "Resize with modes": (11, 12, "y = Resize <mode = \"cubic\"> (x, roi, up)"),
    "equal parts": (13, 17, "y, z = Split <axis = 1> (x)"),
}  # fmt: skip
OPSETS = [
    (name, version) for name, (low, high, _) in SINCE_7.items() for version in sorted({low, (low + high) // 2, high})
]


@pytest.mark.parametrize(("name", "version"), OPSETS)
def test_models_of_every_opset_compute_the_same(name, version):
    body = SINCE_7[name][2]
    outputs = "float[] y, float[] z" if "z =" in body else "float[] y"
    scales = {
        "roi": np.zeros(0, np.float32),
        "up": np.array([1, 1, 1.7, 2], np.float32),
        "down": np.array([1, 1, 0.6, 0.5], np.float32),
    }
    used = (
        WEIGHTS
        if name == "convolution"
        else {key: value for key, value in scales.items() if f" {key})" in body or f"{key}, up" in body}
    )
    model = model_of(f"g ({IMAGE}) => ({outputs}) {{ {body} }}", version, ir=7, **used)
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    graph = check_same(model, {"x": random(2, 4, 6, 8)})
    assert graph.opset == 21


def test_group_normalization_gets_a_scale_per_channel():
    text = "g (float[N, 4, 3] x) => (float[N, 4, 3] y) { y = GroupNormalization <num_groups = 2> (x, s, b) }"
    graph = check_same(model_of(text, 18, s=random(2), b=random(2, seed=1)), {"x": random(2, 4, 3)}, 1e-5)
    assert graph.opset == 21
    assert graph.nodes[0].inputs[1].shape == (4,)


@pytest.mark.parametrize("version", [22, 23])
def test_newer_opsets_come_down_if_their_content_allows(version):
    graph = check_same(
        model_of("g (float[N, 4] x) => (float[N, 4] y) { h = Elu(x)  y = Softmax(h) }", version), {"x": random(2, 4)}
    )
    assert graph.opset == 21


def test_initializers_are_no_inputs():
    model = model_of("g (float[N, 4] x, float[4, 3] w) => (float[N, 3] y) { y = MatMul(x, w) }", w=random(4, 3))
    graph = load_graph(model)
    assert [tensor.name for tensor in graph.inputs] == ["x"]
    assert isinstance(graph.nodes[0].inputs[1], Constant)


def test_constant_nodes_become_constants():
    model = model_of("""g (float[N, 4] x) => (float[N, 4] y, int64[] z) {
        c = Constant <value = float[4] {1, 2, 3, 4}> ()  n = Constant <value_float = 2.0> ()
        i = Constant <value_ints = [7, 8]> ()
        h = Mul(x, c)  y = Mul(h, n)  z = Identity(i) }""")
    graph = check_same(model, {"x": random(2, 4)})
    assert "Constant" not in ops(graph)


def test_names():
    model = model_of("g (float[N, 4] x) => (float[N, 4] y) { h = Relu(x)  k = Neg(h)  y = Add(h, k) }")
    model.graph.node[0].name = model.graph.node[1].name = "same"
    model.graph.name = ""
    graph = load_graph(model)
    names = [node.name for node in graph.nodes]
    assert names[0] == "same"
    assert len(set(names)) == 3
    assert all(names)


def test_unknown_dimensions_get_a_symbol_each():
    model = model_of("g (float[N, M, 3, K, 5] x) => (float[N, M, 3, K, 5] y) { y = Relu(x) }")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    dims[0].dim_param, dims[1].dim_value, dims[3].dim_param = "?", -1, "batch"
    dims[4].Clear()
    graph = load_graph(model)
    assert graph.inputs[0].shape == ["x_dim0", "x_dim1", 3, "batch", "x_dim4"]


def test_nodes_out_of_order_are_sorted_and_cycles_refused():
    model = model_of("g (float[N] x) => (float[N] y) { h = Relu(x)  y = Neg(h) }")
    first = onnx.NodeProto.FromString(model.graph.node[0].SerializeToString())
    del model.graph.node[0]
    model.graph.node.append(first)
    assert ops(load_graph(model)) == ["Relu", "Neg"]
    first.input[0] = "y"
    del model.graph.node[-1]
    model.graph.node.append(first)
    with pytest.raises(ModelError, match=r"depends on its own output"):
        load_graph(model)


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_half_precision_computes_in_float32_behind_its_border(kind):
    import ml_dtypes

    dtype = np.float16 if kind == "float16" else ml_dtypes.bfloat16
    number = 10 if kind == "float16" else 16
    body = f"h = MatMul(x, w)  y = Relu(h)  f = Cast <to = {number}> (h)  z = Cast <to = 1> (f)"
    model = model_of(
        f"g ({kind}[N, 4] x) => ({kind}[N, 3] y, float[N, 3] z) {{ {body} }}", w=random(4, 3).astype(dtype)
    )
    graph = load_graph(model)
    assert [tensor.dtype for tensor in graph.inputs] == [np.dtype(dtype) if kind == "float16" else 16]
    inner = [t for node in graph.nodes for t in node.inputs if isinstance(t, Constant)]
    assert all(t.dtype == np.float32 for t in inner)
    if kind == "float16":
        x = random(2, 4).astype(np.float16)
        result = Runner(graph).run({"x": x})
        assert result["y"].dtype == np.float16
        np.testing.assert_allclose(
            result["z"], x.astype(np.float32) @ random(4, 3).astype(np.float16).astype(np.float32), rtol=1e-5
        )


def test_half_precision_in_a_foreign_operator_is_refused():
    model = model_of("g (float16[N, 4] x) => (float16[N, 4] y) { y = my.Op(x) }", domains=', "my" : 1')
    with pytest.raises(ModelError, match=r"my\.Op\) computes in another type"):
        load_graph(model)


def test_control_flow_goes_through():
    text = """g (float[N, 4] x, bool c) => (float[N, 4] y) {
        h = Mul(x, w)
        y = If (c) <then_branch = t () => (float[N, 4] a) { r = ReduceMean <axes = [1]> (h)  a = Mul(h, r) },
                    else_branch = e () => (float[N, 4] b) { k = Constant <value = float[1] {3.0}> ()
                    b = Add(h, k) }> }"""
    model = model_of(text, 13, w=random(2000)[:4])
    graph = load_graph(model)
    assert graph.opset == 21
    assert all(body.opset == 21 for node in graph.nodes for body in subgraphs(node))
    for choice in (True, False):
        feed = {"x": random(2, 4), "c": np.array(choice)}
        np.testing.assert_allclose(Runner(graph).run(feed)["y"], reference(model, feed)[0], rtol=1e-6)


def test_local_functions_are_inlined():
    text = """g (float[N, 4] x) => (float[N, 4] y) { y = my.twice(x) }
        <domain: "my", opset_import: ["" : 17]> twice (a) => (b) { b = Add(a, a) }"""
    assert ops(check_same(model_of(text, 17, ir=8, domains=', "my" : 1'), {"x": random(2, 4)})) == ["Add"]


def test_foreign_operators_and_quantized_models_go_through():
    model = model_of(
        """g (float[N, 4] x) => (float[N, 4] y) {
            q = QuantizeLinear(x, s, z)  h = DequantizeLinear(q, s, z)  y = com.microsoft.Gelu(h) }""",
        13, ir=8, domains=', "com.microsoft" : 1', s=np.float32(0.02), z=np.uint8(128),
    )  # fmt: skip
    graph = check_same(model, {"x": random(2, 4)})
    assert ops(graph) == ["QuantizeLinear", "DequantizeLinear", "Gelu"]


def test_metadata_is_kept_aside():
    model = model_of("g (float[N] x) => (float[N] y) { y = Relu(x) }")
    onnx.helper.set_model_props(model, {"labels": "a,b"})
    assert [(entry.key, entry.value) for entry in origin_of(load_graph(model)).model.metadata_props] == [
        ("labels", "a,b")
    ]


def test_the_model_given_is_not_changed():
    body = "c = Constant <value_float = 1.0> ()  h = Mul(x, c)  y = Relu(h)"
    model = model_of(f"g (float[N, 4] x, float[40, 40] w) => (float[N, 4] y) {{ {body} }}", 12, ir=7, w=random(40, 40))
    before = model.SerializeToString(deterministic=True)
    load_graph(model)
    assert model.SerializeToString(deterministic=True) == before


def test_bad_files(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        load_graph(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="is a folder"):
        load_graph(tmp_path)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    with pytest.raises(ModelError, match="the file is empty"):
        load_graph(path)
    path.write_bytes(b"PK\x03\x04 this is not ONNX" * 10)
    with pytest.raises(ModelError, match="not an ONNX"):
        load_graph(path)


def test_a_file_cut_anywhere_gives_one_line(tmp_path):
    content = model_of(
        "g (float[N, 4] x) => (float[N, 4] y) { h = MatMul(x, w)  y = Relu(h) }", w=random(4, 4)
    ).SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(ModelError) as caught:
            load_graph(path)
        assert "\n" not in str(caught.value)
        assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("text", "version", "message"),
    [
        ("g (float[N] x) => (float[N] y) { y = Relu(x) }", 6, "opset 6 is too old"),
        ("g (float[N] x) => (float[N] y) { y = Relu(x) }", 99, "opset 99 is newer"),
        ("g (float[N] x) => () { y = Relu(x) }", 17, "the model has no outputs"),
        ("g (float[N] x) => (float[N] y) { y = NoSuchOperator(x) }", 17, "not a valid ONNX model"),
        ("g (float[N] x) => (float[N] y) { y = Add(x, missing) }", 17, "not a valid ONNX model"),
    ],
)
def test_invalid_models(text, version, message):
    with pytest.raises(ModelError, match=message) as caught:
        load_graph(model_of(text, version))
    assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_their_shape():
    model = model_of("g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, w) }", w=random(4, 4))
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    with pytest.raises(ModelError, match="weight 'w': its data does not fit its shape"):
        load_graph(model)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_damaged_weights(value, word):
    weight = random(4, 4)
    weight[2, 1] = value
    with pytest.raises(ModelError, match=rf"weight 'w' of node '.*' \(MatMul\) holds {word}"):
        load_graph(model_of("g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, w) }", w=weight))


def test_optional_values_and_the_old_scan_are_refused():
    model = model_of("g (optional(float[N]) x) => (bool y) { y = OptionalHasElement(x) }", 18)
    with pytest.raises(ModelError, match="'x' has the type optional_type"):
        load_graph(model)
    body = "y = Scan <num_scan_inputs = 1, body = b (float[2] i) => (float[2] o) { o = Relu(i) }> (, x)"
    with pytest.raises(ModelError, match="Scan of opset 8"):
        load_graph(model_of(f"g (float[1, 3, 2] x) => (float[1, 3, 2] y) {{ {body} }}", 8, ir=7))


def test_sequences_go_through():
    model = model_of(
        "g (float[4] x) => (float[4] y) { s = SequenceConstruct(x, x)  y = SequenceAt(s, i) }", i=np.int64(1)
    )
    check_same(model, {"x": random(4)})


@pytest.mark.parametrize(
    ("kind", "values"), [("INT4", range(-8, 8)), ("UINT4", range(16)), ("FLOAT8E4M3FN", [0.5, 1.0, -2.0, 3.0] * 4)]
)
def test_weights_of_types_that_numpy_lacks(kind, values):
    model = model_of(
        "g (float[N, 4] x) => (float[N, 4] y) { w = DequantizeLinear(q, s)  y = MatMul(x, w) }", s=np.float32(0.1)
    )
    model.graph.initializer.append(onnx.helper.make_tensor("q", getattr(onnx.TensorProto, kind), [4, 4], list(values)))
    graph = check_same(model, {"x": random(2, 4)})
    Manager(NORMALIZE).run(graph, Context())
    expected = reference(model, {"x": random(2, 4)})[0]
    np.testing.assert_array_equal(reference(export.to_model(graph), {"x": random(2, 4)})[0], expected)


def test_strings_go_through():
    model = model_of("g (float[N, 2] x) => (string[2] y, float[N, 2] z) { y = Identity(q)  z = Relu(x) }")
    model.graph.initializer.append(onnx.helper.make_tensor("q", onnx.TensorProto.STRING, [2], [b"a", b"b"]))
    graph = load_graph(model)
    Manager(NORMALIZE).run(graph, Context())
    assert reference(export.to_model(graph), {"x": random(2, 2)})[0].tolist() == ["a", "b"]


def test_infinite_masks_are_fine():
    model = model_of(
        "g (float[N, 4] x) => (float[N, 4] y) { h = Add(x, m)  y = Softmax(h) }",
        m=np.array([0, 0, -np.inf, 0], np.float32),
    )
    check_same(model, {"x": random(2, 4)})


def test_defaults_of_newer_attributes_are_dropped():
    model = model_of(
        'g (float[1, 4, 2, 2] x) => (float[1, 16, 1, 1] y) { y = SpaceToDepth <blocksize = 2, mode = "DCR"> (x) }',
        28,
        14,
    )
    assert set(load_graph(model).nodes[0].attrs) == {"blocksize"}


def test_indices_of_a_pool_that_nobody_reads_are_cut_off() -> None:
    """onnxruntime cannot run a MaxPool of codes that has them."""
    text = """g (float[2, 4, 9] x) => (float[2, 4, 4] y, int64[2, 4, 4] kept) {
        y, i = MaxPool <kernel_shape = [2], strides = [2]> (x)
        z, kept = MaxPool <kernel_shape = [2], strides = [2]> (x) }"""
    graph = load_graph(model_of(text))
    assert sorted(len(node.outputs) for node in graph.nodes) == [1, 2]
