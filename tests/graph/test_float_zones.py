"""Parts of different size and decades survive, in both forms: generated members, judged by the float model on fresh
feeds.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import helper, numpy_helper

import qcompiler
from qcompiler.graph.float_zones import AT_DECADES, AT_INPUT, AT_OUTPUT, float_zones
from qcompiler.graph.ir import Graph, copy_of
from qcompiler.graph.runner import Runner
from tests.helpers.graphs import graph_of

Feeds = list[dict[str, np.ndarray]]


def zones(graph: Graph) -> dict[str, str]:
    """Reason by operator."""
    found = float_zones(graph)
    return {node.op: found[id(node)] for node in graph.nodes if id(node) in found}


def columns_db(graph: Graph, feeds: Feeds, fresh: Feeds, *, for_onnx: bool) -> np.ndarray:
    """SQNR of each column (last axis) of the output."""
    compiled = qcompiler.compile(gs.export_onnx(copy_of(graph)), data=feeds, for_onnx=for_onnx)
    run = Runner(compiled.graph).run if for_onnx else compiled.session().run
    real = Runner(graph)
    pairs = [(np.float64(real.run(feed)["y"]), np.float64(run(feed)["y"])) for feed in fresh]
    flat = [(a.reshape(-1, a.shape[-1]), b.reshape(-1, a.shape[-1])) for a, b in pairs]
    signal = sum(np.square(a).sum(axis=0) for a, _ in flat)
    noise = sum(np.square(a - b).sum(axis=0) for a, b in flat)
    return 10 * np.log10(signal / np.maximum(noise, 1e-30))


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("for_onnx", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_scaler_of_unequal_columns_is_quantized_behind(seed: int, *, for_onnx: bool) -> None:
    rng = np.random.default_rng(seed)
    columns = int(rng.integers(3, 10))
    size = (10.0 ** rng.uniform(-2, 6, columns)).astype(np.float32)
    mean = (size * rng.uniform(-3, 3, columns)).astype(np.float32)
    graph = graph_of(
        f"""g (float[N, {columns}] x) => (float[N, 3] y) {{
            c = Sub(x, mean)  n = Div(c, size)  a = Gemm(n, w, b)  h = Relu(a)  y = Gemm(h, v, d) }}""",
        mean=mean, size=size, w=normal(rng, columns, 16), b=normal(rng, 16), v=normal(rng, 16, 3), d=normal(rng, 3),
    )  # fmt: skip
    feeds, fresh = (
        [{"x": (mean + size * normal(rng, 4, columns)).astype(np.float32)} for _ in range(30)] for _ in range(2)
    )
    assert columns_db(graph, feeds, fresh, for_onnx=for_onnx).min() >= 25


@pytest.mark.parametrize("for_onnx", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_parts_of_an_output_are_as_good_as_alone(seed: int, *, for_onnx: bool) -> None:
    rng = np.random.default_rng(seed)
    sizes, ratio = rng.integers(2, 5, 3), 10.0 ** rng.uniform(1, 4, 2)
    graph = graph_of(
        f"""g (float[N, 10] x) => (float[N, {sizes.sum()}] y) {{
            a = MatMul(x, u)  p = Mul(a, k)  b = MatMul(x, v)  q = Tanh(b)  c = MatMul(x, w)  r = Mul(c, l)
            y = Concat <axis = 1> (p, q, r) }}""",
        u=normal(rng, 10, sizes[0]), v=normal(rng, 10, sizes[1]), w=normal(rng, 10, sizes[2]), k=np.float32(ratio[0]),
        l=np.float32(1 / ratio[1]),
    )  # fmt: skip
    feeds, fresh = ([{"x": normal(rng, 5, 10)} for _ in range(30)] for _ in range(2))
    assert columns_db(graph, feeds, fresh, for_onnx=for_onnx).min() >= 30


def as_type(graph: Graph, dtype: np.dtype) -> onnx.ModelProto:
    """A float32 model that computes in ``dtype`` from its inputs to its outputs."""
    model, number = gs.export_onnx(copy_of(graph)), helper.np_dtype_to_tensor_dtype(dtype)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = number
    del model.graph.value_info[:]
    return model


@pytest.mark.parametrize("for_onnx", [True, False])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_models_of_other_float_types_have_the_same_borders(dtype: type, *, for_onnx: bool) -> None:
    rng = np.random.default_rng(5)
    mean, size = np.linspace(-3, 40, 8).astype(np.float32), np.geomspace(0.1, 30, 8).astype(np.float32)
    graph = graph_of(
        """g (float[N, 8] x) => (float[N, 7] y) {
            c = Sub(x, mean)  n = Div(c, size)  a = MatMul(n, w)  h = Relu(a)
            p = MatMul(h, u)  s = MatMul(h, v)  q = Sigmoid(s)  y = Concat <axis = 1> (p, q) }""",
        mean=mean, size=size, w=normal(rng, 8, 16), u=30 * normal(rng, 16, 4),
        v=normal(rng, 16, 3) / 4,
    )  # fmt: skip
    model, real = as_type(graph, np.dtype(dtype)), Runner(graph)
    feeds, fresh = ([{"x": (mean + size * normal(rng, 4, 8)).astype(dtype)} for _ in range(30)] for _ in range(2))
    compiled = qcompiler.compile(model, data=feeds, for_onnx=for_onnx)
    run = Runner(compiled.graph).run if for_onnx else compiled.session().run
    got = [run(feed)["y"] for feed in fresh]
    wanted = np.concatenate([real.run({"x": feed["x"].astype(np.float32)})["y"] for feed in fresh]).astype(float)
    noise = np.concatenate(got).astype(float) - wanted
    assert {each.dtype for each in got} == {np.dtype(dtype)}
    for part in (slice(4), slice(4, 7)):
        assert np.square(wanted[:, part]).sum() >= 1000 * np.square(noise[:, part]).sum()  # 30 dB


@pytest.mark.parametrize("seed", range(3))
def test_decades_survive_in_a_file_of_onnx(seed: int) -> None:
    rng = np.random.default_rng(seed)
    inputs, bands = int(rng.integers(16, 40)), int(rng.integers(4, 12))
    graph = graph_of(
        f"""g (float[N, {inputs}] x) => (float[N, {bands}] y) {{
            r = MatMul(x, u)  i = MatMul(x, v)  s = Mul(r, r)  t = Mul(i, i)  p = Add(s, t)  m = MatMul(p, mel)
            q = Max(m, eps)  y = Log(q) }}""",
        u=normal(rng, inputs, 20), v=normal(rng, inputs, 20), mel=np.abs(normal(rng, 20, bands)), eps=np.float32(1e-8),
    )  # fmt: skip
    loud = lambda: 10.0 ** rng.uniform(-3, 1)  # noqa: E731
    feeds, fresh = ([{"x": (loud() * normal(rng, 4, inputs)).astype(np.float32)} for _ in range(30)] for _ in range(2))
    assert columns_db(graph, feeds, fresh, for_onnx=True).min() >= 25


@pytest.mark.parametrize("seed", range(3))
def test_each_series_that_normalizes_itself_keeps_its_own_size(seed: int) -> None:
    rng = np.random.default_rng(seed)
    length, ahead = int(rng.integers(8, 33)), int(rng.integers(2, 7))
    graph = graph_of(
        f"""g (float[N, {length}] x) => (float[N, {ahead}] y) {{
            m = ReduceMean(x, axes)  c = Sub(x, m)  q = Mul(c, c)  s = ReduceMean(q, axes)  e = Add(s, eps)  d = Sqrt(e)
            n = Div(c, d)
            a = MatMul(n, w)  h = Tanh(a)  f = MatMul(h, v)  g1 = Mul(f, d)  y = Add(g1, m) }}""",
        axes=np.array([1]), eps=np.float32(1e-9), w=normal(rng, length, 16), v=normal(rng, 16, ahead),
    )  # fmt: skip

    def series():
        return [{"x": (10.0 ** rng.uniform(-2, 3) * normal(rng, 1, length)).astype(np.float32)} for _ in range(40)]

    feeds, fresh = series(), series()
    compiled = qcompiler.compile(gs.export_onnx(copy_of(graph)), data=feeds)
    run, real = Runner(compiled.graph), Runner(graph)
    errors = [
        np.abs(run.run(feed)["y"] - (wanted := real.run(feed)["y"])).max() / np.abs(wanted).max() for feed in fresh
    ]
    assert np.median(errors) < 0.05
    assert max(errors) < 0.3


def test_what_stays_float_and_why() -> None:
    for ratio, wanted in ((1000, {"Div": AT_INPUT}), (2, {})):
        text = "g (float[N, 2] x) => (float[N, 3] y) { n = Div(x, s)  y = MatMul(n, w) }"
        assert zones(graph_of(text, s=np.float32([1, ratio]), w=np.ones((2, 3), np.float32))) == wanted
    text = "g (float[N, 2] x) => (float[N, 2] y) { e = Sigmoid(x)  a = Add(e, one)  l = Log(a)  y = Relu(l) }"
    near = graph_of(text, one=np.float32(1))
    assert AT_DECADES not in zones(near).values()
    parts = graph_of(
        "g (float[N, 2] x) => (float[N, 4] y) { a = Sigmoid(x)  b = Exp(x)  y = Concat <axis = 1> (a, b) }"
    )
    assert zones(parts) == {"Concat": AT_OUTPUT}


def test_what_a_logarithm_reads_has_no_grid() -> None:
    text = "g (float[N, 8] x) => (float[N, 5] y) { a = MatMul(x, w)  p = Softmax(a)  l = Log(p)  y = Mul(l, k) }"
    rng = np.random.default_rng(0)
    graph = graph_of(text, w=4 * normal(rng, 8, 5), k=np.float32(2))
    feeds, fresh = ([{"x": normal(rng, 6, 8)} for _ in range(30)] for _ in range(2))
    assert columns_db(graph, feeds, fresh, for_onnx=True).min() >= 25


def test_an_encoder_that_ends_in_unit_vectors_stays_integer() -> None:
    graph = graph_of(
        "g (float[N, 8] x) => (float[N, 5] y) { a = MatMul(x, w)  q = Mul(a, a)  s = ReduceSum(q, axes)  r = Sqrt(s)  "
        "y = Div(a, r) }",
        w=np.ones((8, 5), np.float32), axes=np.array([1]),
    )  # fmt: skip
    assert "MatMul" not in zones(graph)


@pytest.mark.parametrize(("exponent", "inverts"), [(0.5, False), (0.25, False), (-0.5, True), (-1.0, True)])
def test_a_product_with_a_reciprocal_stays_float_with_it_and_one_with_a_root_does_not(
    exponent: float, inverts: bool
) -> None:
    graph = graph_of(
        "g (float[N, 8] x, float[N, 8] z) => (float[N, 8] y) { h = Exp(x)  e = Relu(h)  r = Pow(e, p)  q = Mul(r, z)  "
        "y = Relu(q) }",
        p=np.float32(exponent),
    )
    operand = next(node.inputs[0] for node in graph.nodes if node.op == "Pow")
    found = float_zones(graph, {id(operand)})
    names = {node.op for node in graph.nodes if id(node) in found}
    assert "Pow" in names
    assert ("Mul" in names) == inverts
