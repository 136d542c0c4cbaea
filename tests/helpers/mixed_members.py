"""Random small models of which a part has no integer form: detectors, heads that sort, trees, loops, odd operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.helpers.border_members import _scene
from tests.helpers.exact_members import Feed, Member, data_of, model_of, weight_of

SIDE = 12


def _conv(rng: np.random.Generator, outputs: int, inputs: int, size: int = 3) -> NDArray[Any]:
    return weight_of(rng, inputs * size * size, outputs).T.reshape(outputs, inputs, size, size)


def _pictures(rng: np.random.Generator) -> Callable[[int], Feed]:
    return lambda rows: {"x": _scene(rng, rows, SIDE)}


def _member(
    model: onnx.ModelProto, draw: Callable[[int], Feed], wanted: dict[str, float], rows: tuple[int, ...] = (1,)
) -> Member:
    return Member(model, [draw(1) for _ in range(48)], [draw(count) for count in rows for _ in range(4)], wanted)


def detector(rng: np.random.Generator) -> Member:
    """Boxes and scores of a network, chosen by NonMaxSuppression, gathered behind it."""
    width, classes = int(rng.integers(4, 10)), int(rng.integers(1, 4))
    text = f"""g (float[1, 3, {SIDE}, {SIDE}] x) => (float[K, 4] boxes, int64[K, 3] chosen, float[1, A, 4] all) {{
        a = Conv <kernel_shape = [3, 3], strides = [2, 2]> (x, u, c)  r = Relu(a)
        p = Conv <kernel_shape = [1, 1]> (r, w, f)  m = Mul(p, size)
        t = Transpose <perm = [0, 2, 3, 1]> (m)  all = Reshape(t, four)
        q = Conv <kernel_shape = [1, 1]> (r, z, o)  s = Sigmoid(q)  scores = Reshape(s, flat)
        chosen = NonMaxSuppression(all, scores, most, iou, least)
        i = Gather <axis = 1> (chosen, last)  rows = Squeeze(all, zero)  j = Squeeze(i, one)
        boxes = Gather <axis = 0> (rows, j) }}"""
    constants = {
        "u": _conv(rng, width, 3), "c": (0.1 * rng.standard_normal(width)).astype(np.float32),
        "w": _conv(rng, 4, width, 1), "f": rng.uniform(0.1, 1, 4).astype(np.float32),
        "z": 3 * _conv(rng, classes, width, 1), "o": np.zeros(classes, np.float32),
        "size": np.float32(10), "four": np.array([1, -1, 4]), "flat": np.array([1, classes, -1]),
        "most": np.array(5), "iou": np.float32(0.5), "least": np.float32(rng.choice([0.3, 0.999])),
        "last": np.array([2]), "zero": np.array([0]), "one": np.array([1]),
    }  # fmt: skip
    return _member(model_of(text, constants), _pictures(rng), {"all": 20.0})


def normalized(rng: np.random.Generator) -> Member:
    """A classifier whose head is an operator of another domain, and gives the best class besides."""
    width, classes = int(rng.integers(4, 12)), int(rng.integers(6, 30))
    text = f"""g (float[N, 3, {SIDE}, {SIDE}] x) => (float[N, K] best, int64[N, 1] which) {{
        a = Conv <kernel_shape = [3, 3], strides = [2, 2]> (x, u, c)  r = Relu(a)
        g0 = GlobalAveragePool(r)  h = Flatten(g0)  y = Gemm(h, w, e)  p = Softmax(y)
        best = ai.onnx.ml.Normalizer <norm = "L2"> (p)  which = ArgMax <axis = 1> (p) }}"""
    constants = {
        "u": _conv(rng, width, 3), "c": (0.1 * rng.standard_normal(width)).astype(np.float32),
        "w": 8 * weight_of(rng, width, classes), "e": (0.3 * rng.standard_normal(classes)).astype(np.float32),
    }  # fmt: skip
    return _member(model_of(text, constants), _pictures(rng), {"best": 20.0}, (1, 5))


SCALER = "ai.onnx.ml.Scaler <offset = [0.1], scale = [0.5]>"
"""An operator of another domain that works on any shape."""

_ODD = {
    "scaler": f"b = {SCALER} (r)",
    "imputer": "b = ai.onnx.ml.Imputer <imputed_value_floats = [0.0], replaced_value_float = -7.0> (r)",
    "determinant": "d = Det(r)  e = Unsqueeze(d, last)  f = Unsqueeze(e, last)  k = Tanh(f)  b = Mul(r, k)",
}


def learned(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the operators of classical machine learning."""
    model.opset_import.append(onnx.helper.make_opsetid("ai.onnx.ml", 3))
    return model


def in_the_middle(rng: np.random.Generator) -> Member:
    """An operator without an integer form between convolutions."""
    width = int(rng.integers(4, 10))
    odd = _ODD[str(rng.choice(list(_ODD)))]
    constants = {"last": np.array([2])} if "last" in odd else {}
    text = f"""g (float[1, 3, {SIDE}, {SIDE}] x) => (float[1, 16, 3, 3] y) {{
        a = Conv <kernel_shape = [3, 3], strides = [2, 2]> (x, u, c)  r = Relu(a)  {odd}
        y = Conv <kernel_shape = [3, 3]> (b, v) }}"""
    constants |= {
        "u": _conv(rng, width, 3), "c": (0.1 * rng.standard_normal(width)).astype(np.float32),
        "v": _conv(rng, 16, width),
    }  # fmt: skip
    return _member(learned(model_of(text, constants)), _pictures(rng), {"y": 18.0})


def in_sequence(rng: np.random.Generator) -> Member:
    """Two borders, one behind the other, over a length that is not known."""
    width = int(rng.integers(40, 80))
    text = f"""g (float[N, T, {width}] x) => (float[N, T, {width}] y) {{
        a = MatMul(x, u)  r = Relu(a)  b = {SCALER} (r)  e = MatMul(b, v)  f = Tanh(e)  h = {SCALER} (f)
        y = MatMul(h, w) }}"""
    constants = {name: weight_of(rng, width, width) for name in "uvw"}
    draw: Callable[[int], Feed] = lambda rows: {"x": data_of(rng, rows, int(rng.integers(4, 12)), width)}  # noqa: E731
    return _member(learned(model_of(text, constants)), draw, {"y": 18.0}, (1, 3))


def around(rng: np.random.Generator) -> Member:
    """A branch that goes around a border."""
    width = int(rng.integers(40, 80))
    text = f"""g (float[N, T, {width}] x) => (float[N, T, {width}] y, float[N, T, {width}] side) {{
        a = MatMul(x, u)  r = Relu(a)  b = {SCALER} (r)  e = MatMul(b, v)
        s = MatMul(r, w)  side = Tanh(s)  y = Add(e, side) }}"""
    constants = {name: weight_of(rng, width, width) for name in "uvw"}
    draw: Callable[[int], Feed] = lambda rows: {"x": data_of(rng, rows, int(rng.integers(4, 12)), width)}  # noqa: E731
    return _member(learned(model_of(text, constants)), draw, {"y": 20.0, "side": 20.0}, (1, 3))


def loop(rng: np.random.Generator) -> Member:
    """A loop whose end depends on data, with a value and weights from outside, between two layers."""
    width = int(rng.integers(24, 40))
    body = f"""body (int64 i, bool go, float[N, {width}] s) => (bool on, float[N, {width}] t) {{
        p = MatMul(s, w)  q = Tanh(p)  t = Add(q, r)  n = ReduceMax <keepdims = 0> (t)  on = Less(n, end) }}"""
    text = f"""g (float[N, {width}] x) => (float[N, 32] y) {{
        a = MatMul(x, u)  r = Relu(a)  z = Loop <body = {body}> (most, yes, r)  y = MatMul(z, v) }}"""
    constants = {
        "u": weight_of(rng, width, width), "w": weight_of(rng, width, width), "v": weight_of(rng, width, 32),
        "most": np.array(int(rng.integers(2, 5))), "yes": np.array(True), "end": np.float32(3),
    }  # fmt: skip
    draw: Callable[[int], Feed] = lambda rows: {"x": data_of(rng, rows, width)}  # noqa: E731
    return _member(model_of(text, constants), draw, {"y": 18.0}, (1, 5))


def trees(rng: np.random.Generator) -> Member:
    """A network that makes features, a tree ensemble on them, and a ZipMap."""
    width, classes = int(rng.integers(6, 20)), int(rng.integers(2, 5))
    text = f"""g (float[N, {width}] x) => (float[N, 6] f) {{ a = MatMul(x, u)  r = Relu(a)  f = MatMul(r, v) }}"""
    model = model_of(text, {"u": weight_of(rng, width, 24), "v": weight_of(rng, 24, 6)})
    count = int(rng.integers(2, 6))
    trees = onnx.helper.make_node(
        "TreeEnsembleClassifier", ["f"], ["label", "scores"], domain="ai.onnx.ml", name="trees",
        nodes_treeids=[t for t in range(count) for _ in range(3)], nodes_nodeids=[0, 1, 2] * count,
        nodes_featureids=[v for _ in range(count) for v in (int(rng.integers(6)), 0, 0)],
        nodes_modes=["BRANCH_LEQ", "LEAF", "LEAF"] * count,
        nodes_values=[v for _ in range(count) for v in (float(rng.uniform(-0.5, 0.5)), 0.0, 0.0)],
        nodes_truenodeids=[1, 0, 0] * count, nodes_falsenodeids=[2, 0, 0] * count,
        class_treeids=[t for t in range(count) for _ in range(2)], class_nodeids=[1, 2] * count,
        class_ids=[int(rng.integers(classes)) for _ in range(2 * count)],
        class_weights=[float(rng.uniform(0, 1)) for _ in range(2 * count)],
        classlabels_int64s=list(range(classes)),
    )  # fmt: skip
    zipped = onnx.helper.make_node(
        "ZipMap", ["scores"], ["named"], domain="ai.onnx.ml", name="zip", classlabels_int64s=list(range(classes))
    )
    model.graph.node.extend([trees, zipped])
    learned(model)
    label = onnx.helper.make_tensor_value_info("label", onnx.TensorProto.INT64, ["N"])
    value = onnx.helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    kind = onnx.helper.make_sequence_type_proto(onnx.helper.make_map_type_proto(onnx.TensorProto.INT64, value))
    model.graph.output.extend([label, onnx.helper.make_value_info("named", kind)])
    draw: Callable[[int], Feed] = lambda rows: {"x": data_of(rng, rows, width)}  # noqa: E731
    return _member(model, draw, {"f": 22.0, "label": 0.8}, (1, 40))


KINDS: dict[str, Callable[[np.random.Generator], Member]] = {
    "detector": detector, "normalized": normalized, "in_the_middle": in_the_middle, "in_sequence": in_sequence,
    "around": around, "loop": loop, "trees": trees,
}  # fmt: skip
