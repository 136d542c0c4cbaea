"""Every float operator: the machine against onnxruntime (within one step), and against integer ONNX (equal)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcompiler.graph.ir import QuantSpec, dequantize_constant, insert_qdq, names_in, spec_of
from tests.helpers.graphs import graph_of
from tests.lowering.checked import check, quantize

RNG = np.random.default_rng(7)
CODES = [np.uint8, np.int8, np.int16, np.uint16]


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


ELEMENTWISE = {
    "chain": ("float[2,3,4,5]", "c = Constant<value_float=1.5>() d = Div(x, c) e = Erf(d) f = Add(e, c) y = Mul(x, f)"),
    "silu": ("float[2,3,4,5]", "_s = Sigmoid(x) y = Mul(x, _s)"),
    "exp": ("float[2,7]", "y = Exp(x)"),
    "clip": ("float[2,7]", "l = Constant<value_float=-0.5>() h = Constant<value_float=0.75>() y = Clip(x, l, h)"),
    "relu": ("float[2,7]", "y = Relu(x)"),
    "neg": ("float[2,7]", "y = Neg(x)"),
    "scale": ("float[2,7]", "c = Constant<value_float=0.3>() y = Mul(x, c)"),
    "softmax": ("float[2,3,9]", "y = Softmax<axis=-1>(x)"),
    "softmax middle": ("float[2,5,3]", "y = Softmax<axis=1>(x)"),
    "mean": ("float[2,3,4,5]", "a = Constant<value_ints=[1,3]>() y = ReduceMean<keepdims=0>(x, a)"),
    "sum": ("float[2,3,4,5]", "a = Constant<value_ints=[2]>() y = ReduceSum<keepdims=1>(x, a)"),
    "max": ("float[2,3,4,5]", "a = Constant<value_ints=[-1]>() y = ReduceMax<keepdims=0>(x, a)"),
    "min": ("float[2,3,4,5]", "a = Constant<value_ints=[0]>() y = ReduceMin(x, a)"),
    "global average": ("float[2,3,4,5]", "y = GlobalAveragePool(x)"),
    "global max": ("float[2,3,4,5]", "y = GlobalMaxPool(x)"),
    "average pool": ("float[2,3,7,5]", "y = AveragePool<kernel_shape=[3,2], strides=[2,1], pads=[1,0,1,1]>(x)"),
    "average pool counting": (
        "float[2,3,7,5]",
        ("y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(x)"),
    ),
    "average pool ceil": ("float[1,2,7,8]", "y = AveragePool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x)"),
    "average pool 1d": ("float[2,3,9]", "y = AveragePool<kernel_shape=[4], strides=[2]>(x)"),
    "max pool": ("float[2,3,7,6]", "y = MaxPool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,1]>(x)"),
    "max pool ceil": ("float[1,2,7,8]", "y = MaxPool<kernel_shape=[2,3], strides=[2,2], ceil_mode=1>(x)"),
    "max pool dilated": ("float[1,2,9,8]", "y = MaxPool<kernel_shape=[2,3], dilations=[2,2]>(x)"),
    "max pool 1d": ("float[2,3,9]", "y = MaxPool<kernel_shape=[3], strides=[2], pads=[1,1]>(x)"),
    "resize twice": (
        "float[2,3,4,5]",
        ('r = Constant<value_floats=[1.0,1.0,2.0,3.0]>() y = Resize<mode="nearest">(x, , r)'),
    ),
    "resize nearest": ("float[1,2,4,6]", 's = Constant<value_ints=[1,2,7,4]>() y = Resize<mode="nearest">(x, , , s)'),
    "resize linear": ("float[2,3,4,5]", 's = Constant<value_ints=[2,3,7,8]>() y = Resize<mode="linear">(x, , , s)'),
    "resize corners": (
        "float[1,3,4,5]",
        (
            's = Constant<value_ints=[1,3,9,3]>() y = Resize<mode="linear", '
            'coordinate_transformation_mode="align_corners">(x, , , s)'
        ),
    ),
}


@pytest.mark.parametrize("dtype", CODES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("case", ELEMENTWISE)
def test_one_input(case: str, dtype: Any) -> None:
    shape, body = ELEMENTWISE[case]
    x = 2 * normal(*map(int, shape[6:-1].split(",")))
    graph = quantize(graph_of(f"g ({shape} x) => (float[] y) {{ {body} }}"), {"x": x}, dtype)
    result = check(graph, {"x": x})
    assert set(result.outputs) == set(result.expected)


@pytest.mark.parametrize(("dtype", "steps"), [(np.uint8, 1), (np.int8, 1), (np.int16, 3)])
def test_lrn(dtype: Any, steps: int) -> None:
    """Three of its four intermediate results are rounded to 16 bits themselves."""
    feed = {"x": 2 * normal(2, 6, 3, 4)}
    graph = graph_of("g (float[2,6,3,4] x) => (float[] y) { y = LRN<size=3, alpha=0.5, beta=0.75, bias=1.2>(x) }")
    check(quantize(graph, feed, dtype), feed, steps=steps)


JOINT = {
    "add": "y = Add(a, b)",
    "sub": "y = Sub(a, b)",
    "mul": "y = Mul(a, b)",
    "min": "y = Min(a, b)",
    "max": "y = Max(a, b)",
    "add relu": "_z = Add(a, b) y = Relu(_z)",
    "scaled add": "k = Constant<value_float=0.25>() _z = Mul(b, k) y = Add(a, _z)",
    "where": "_c = Greater(a, b) y = Where(_c, a, b)",
    "not": "_c = Less(a, b) _n = Not(_c) y = Where(_n, a, b)",
}


@pytest.mark.parametrize("dtype", CODES, ids=lambda dtype: np.dtype(dtype).name)
@pytest.mark.parametrize("case", JOINT)
def test_two_inputs(case: str, dtype: Any) -> None:
    feed = {"a": normal(2, 3, 4), "b": 3 * normal(3, 1)}
    check(quantize(graph_of(f"g (float[2,3,4] a, float[3,1] b) => (float[] y) {{ {JOINT[case]} }}"), feed, dtype), feed)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_division(dtype: Any) -> None:
    feed = {
        "a": normal(4, 50),
        "b": (np.abs(normal(4, 50)) + 1) * np.where(normal(4, 50) > 0, 1, -1).astype(np.float32),
    }
    check(quantize(graph_of("g (float[4,50] a, float[4,50] b) => (float[] y) { y = Div(a, b) }"), feed, dtype), feed)


def test_division_by_zero_saturates() -> None:
    feed = {"a": np.array([1.0, -1.0, 0.5], np.float32), "b": np.array([0.0, 0.0, 2.0], np.float32)}
    graph = graph_of("g (float[3] a, float[3] b) => (float[3] y) { y = Div(a, b) }")
    taken = names_in(graph)
    for tensor in (*graph.inputs, graph.outputs[0]):
        insert_qdq(graph, tensor, QuantSpec.per_tensor(1 / 64, 128, np.uint8), taken)
    result = check(graph.toposort(), feed)
    assert result.outputs["y"].tolist() == [127 / 64, -2.0, 0.25]


MOVERS = {
    "transpose": "y = Transpose<perm=[2,0,1]>(x)",
    "reshape": "s = Constant<value_ints=[4,-1]>() y = Reshape(x, s)",
    "flatten": "y = Flatten<axis=2>(x)",
    "squeeze": "a = Constant<value_ints=[0]>() _u = Unsqueeze(x, a) b = Constant<value_ints=[0]>() y = Squeeze(_u, b)",
    "slice": "s = Constant<value_ints=[1,5]>() e = Constant<value_ints=[3,-9]>() a = Constant<value_ints=[1,2]>() "
    "t = Constant<value_ints=[1,-2]>() y = Slice(x, s, e, a, t)",
    "split": "p, _q = Split<axis=1, num_outputs=2>(x) y = Relu(p)",
    "concat": "_n = Neg(x) z = Relu(_n) y = Concat<axis=1>(x, z)",
    "pad": "p = Constant<value_ints=[0,1,2,1,0,1]>() c = Constant<value_float=0.5>() y = Pad(x, p, c)",
    "pad reflect": 'p = Constant<value_ints=[0,1,2,0,2,1]>() y = Pad<mode="reflect">(x, p)',
    "pad edge": 'p = Constant<value_ints=[1,1,0,0,0,3]>() y = Pad<mode="edge">(x, p)',
    "crop": "p = Constant<value_ints=[0,-1,0,0,0,-2]>() y = Pad(x, p)",
    "gather": "i = Constant<value_ints=[3,0,-1,2]>() y = Gather<axis=1>(x, i)",
    "gather one": "i = Constant<value_int=2>() y = Gather<axis=1>(x, i)",
    "expand": "s = Constant<value_ints=[3,2,4,6]>() y = Expand(x, s)",
    "tile": "s = Constant<value_ints=[1,3,2]>() y = Tile(x, s)",
    "tile all": "s = Constant<value_ints=[2,3,2]>() y = Tile(x, s)",
    "transpose twice": "_t = Transpose<perm=[1,2,0]>(x) _u = Transpose<perm=[2,0,1]>(_t) y = Relu(_u)",
    "sum of slices": "s = Constant<value_ints=[0]>() m = Constant<value_ints=[2]>() e = Constant<value_ints=[4]>() a = "
    "Constant<value_ints=[1]>() "
    "_f = Slice(x, s, m, a) _g = Slice(x, m, e, a) y = Add(_f, _g)",
}


@pytest.mark.parametrize("dtype", [np.uint8, np.int16], ids=["uint8", "int16"])
@pytest.mark.parametrize("case", MOVERS)
def test_movers(case: str, dtype: Any) -> None:
    feed = {"x": normal(2, 4, 6)}
    result = check(
        quantize(graph_of(f"g (float[2,4,6] x) => (float[] y) {{ {MOVERS[case]} }}"), feed, dtype), feed, within=1.0
    )
    assert result.outputs["y"].shape == result.expected["y"].shape


@pytest.mark.parametrize(
    "op",
    ['DepthToSpace<blocksize=2, mode="CRD">', 'DepthToSpace<blocksize=2, mode="DCR">', "SpaceToDepth<blocksize=2>"],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_depth_to_space(op: str, dtype: Any) -> None:
    feed = {"x": normal(2, 8, 4, 6)}
    graph = quantize(graph_of(f"g (float[2,8,4,6] x) => (float[] y) {{ y = {op}(x) }}"), feed, dtype)
    assert check(graph, feed).exact == 1.0


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("op", ["LayerNormalization<axis=-1>", "LayerNormalization<axis=1, epsilon=0.1>"])
def test_layer_norm(op: str, dtype: Any) -> None:
    feed = {"x": 3 * normal(5, 4, 32) + 1}
    shape = (32,) if "-1" in op else (4, 32)
    graph = graph_of(
        f"g (float[5,4,32] x) => (float[] y) {{ y = {op}(x, gamma, beta) }}", gamma=normal(*shape), beta=normal(*shape)
    )
    check(quantize(graph, feed, dtype), feed)


def test_layer_norm_of_constant_rows_is_beta() -> None:
    feed = {"x": np.full((3, 16), 2.5, np.float32)}
    graph = graph_of(
        "g (float[3,16] x) => (float[] y) { y = LayerNormalization(x, gamma, beta) }",
        gamma=np.ones(16, np.float32),
        beta=normal(16),
    )
    check(quantize(graph, feed, np.int16), feed)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("before", ["Identity", "MaxPool<kernel_shape=[1,1]>"], ids=["nchw", "nhwc"])
def test_instance_norm(before: str, dtype: Any) -> None:
    feed = {"x": 3 * normal(2, 3, 5, 4) + 1}
    text = f"g (float[2,3,5,4] x) => (float[] y) {{ z = {before}(x) y = InstanceNormalization(z, gamma, beta) }}"
    check(quantize(graph_of(text, gamma=normal(3), beta=normal(3)), feed, dtype), feed)


def test_prelu_per_channel() -> None:
    feed = {"x": normal(2, 3, 4, 5)}
    graph = graph_of(
        "g (float[2,3,4,5] x) => (float[] y) { y = PRelu(x, slope) }",
        slope=np.array([0.1, -0.5, 2.0], np.float32).reshape(3, 1, 1),
    )
    check(quantize(graph, feed), feed)


def test_constant_operands() -> None:
    feed = {"x": normal(2, 3, 4)}
    text = "g (float[2,3,4] x) => (float[] y) { a = Add(x, p) m = Mul(a, q) d = Div(m, r) y = Sub(p, d) }"
    check(quantize(graph_of(text, p=normal(3, 1), q=normal(4), r=np.abs(normal(3, 4)) + 0.5), feed), feed)


def test_argmax_and_shape_leave_as_integers() -> None:
    feed = {"x": normal(2, 5, 3)}
    text = "g (float[2,5,3] x) => (int64[2,1,3] i, float[] y) { y = Relu(x) i = ArgMax<axis=1>(y) }"
    graph = quantize(graph_of(text), feed)
    result = check(graph, feed)
    assert np.array_equal(result.outputs["i"], result.expected["i"])


@pytest.mark.parametrize("attributes", ["axis = 1", "axis = -1, largest = 0", "axis = 0"])
def test_positions_of_the_largest_leave_as_integers(attributes: str) -> None:
    feed = {"x": np.round(normal(2, 5, 3), 1)}
    text = f"g (float[2,5,3] x) => (int64[P,Q,R] i, float[] y) {{ y = Relu(x)  _v, i = TopK <{attributes}> (y, k) }}"
    result = check(quantize(graph_of(text, k=np.array([2])), feed), feed)
    assert np.array_equal(result.outputs["i"], result.expected["i"])


def test_integers_are_put_in_computed_places() -> None:
    feed = {"x": normal(4), "i": np.array([2, -4, 1])}
    text = "g (float[4] x, int64[3] i) => (int64[4] s, float[] y) { y = Relu(x)  s = ScatterElements(d, i, u) }"
    graph = quantize(graph_of(text, d=np.array([7, 8, 9, 10]), u=np.array([0, 1, 2])), feed)
    result = check(graph, feed)
    assert np.array_equal(result.outputs["s"], [1, 2, 0, 10])


@pytest.mark.parametrize("limits", ["low, high", "low", "'', high"])
def test_integers_are_clipped(limits: str) -> None:
    feed = {"x": normal(2, 5, 3)}
    text = f"""g (float[2,5,3] x) => (int64[2,1,3] i, float[] y) {{
        y = Relu(x) a = ArgMax<axis=1>(y) i = Clip(a, {limits.replace("''", "")}) }}"""
    graph = quantize(graph_of(text, low=np.int64(1), high=np.int64(3)), feed)
    result = check(graph, feed)
    assert np.array_equal(result.outputs["i"], result.expected["i"])


def test_comparison_with_a_constant_on_the_same_grid_keeps_ties() -> None:
    feed = {"x": np.arange(-8, 8, dtype=np.float32).reshape(4, 4)}
    text = "g (float[4,4] x) => (bool[4,4] b, float[] y) { b = GreaterOrEqual(x, k) y = Relu(x) }"
    graph = quantize(graph_of(text, k=np.zeros(1, np.float32)), feed)
    node = next(node for node in graph.nodes if node.op == "GreaterOrEqual")
    spec = spec_of(node.inputs[0])
    assert spec is not None
    node.inputs[1] = dequantize_constant(graph, "k", spec.quantize(feed["x"]), spec, names_in(graph))
    assert check(graph.toposort(), feed).outputs["b"].all()


def test_ids_and_mask() -> None:
    feed = {"ids": RNG.integers(0, 11, (2, 6)), "mask": RNG.integers(0, 2, (2, 6))}
    text = """g (int64[2,6] ids, int64[2,6] mask) => (float[] y) {
        e = Gather(table, ids) m = Cast<to=1>(mask) a = Constant<value_ints=[2]>() _u = Unsqueeze(m, a) s = Mul(e, _u)
        b = Constant<value_ints=[1]>() t = ReduceSum<keepdims=0>(s, b) n = ReduceSum<keepdims=0>(_u, b)
        y = Div(t, n) }"""
    graph = quantize(graph_of(text, table=normal(11, 8)), feed)
    assert "Gather" in check(graph, feed).ops
