from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompiler.graph.runner import Runner
from qcompiler.shapes.dims import ceil_div, floor_div, is_nonnegative, maximum, minimum, same
from qcompiler.shapes.infer import annotate, evaluate, infer, infer_shapes, symbol, to_nested
from tests.helpers.graphs import graph_of

N, H, W, L = (symbol(name) for name in "NHWL")
SIZES = {"N": 2, "H": 9, "W": 12, "L": 5}

IMAGE = "float[N, 4, H, W] x"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x, "
    "w)": (IMAGE, {"w": np.zeros((6, 4, 3, 3), np.float32)}),
    "Conv <dilations = [2, 2], auto_pad = \"VALID\"> (x, w)": (IMAGE, {"w": np.zeros((6, 4, 3, 3), np.float32)}),
    "Conv <strides = [2, 2], auto_pad = \"SAME_UPPER\"> (x, w)": (IMAGE, {"w": np.zeros((6, 4, 3, 3), np.float32)}),
    "ConvTranspose <strides = [2, 2], output_padding = [1, 1], pads = [1, 1, 1, 1]> (x, "
    "w)": (IMAGE, {"w": np.zeros((4, 3, 3, 3), np.float32)}),
    "ConvTranspose <group = 2> (x, w)": (IMAGE, {"w": np.zeros((4, 3, 3, 3), np.float32)}),
    "MaxPool <kernel_shape = [3, 3], strides = [2, 2], ceil_mode = 1> (x)": (IMAGE, {}),
    "AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)": (IMAGE, {}),
    "GlobalAveragePool(x)": (IMAGE, {}),
    "DepthToSpace <blocksize = 2> (x)": (IMAGE, {}),
    "SpaceToDepth <blocksize = 3> (x)": ("float[N, 4, 9, 12] x", {}),
    "Resize <mode = \"nearest\"> (x, , sc)": (IMAGE, {"sc": np.array([1, 1, 0.5, 2], np.float32)}),
    "Pad(x, p)": (IMAGE, {"p": np.array([0, 0, 1, 2, 0, 0, 3, -1])}),
    "Pad(x, p, , ax)": (IMAGE, {"p": np.array([1, 2]), "ax": np.array([-1])}),
    "Transpose <perm = [0, 2, 3, 1]> (x)": (IMAGE, {}),
    "Flatten <axis = 2> (x)": (IMAGE, {}),
    "Reshape(x, s)": (IMAGE, {"s": np.array([0, 2, -1, 2])}),
    "Slice(x, a, b, ax, r)": (IMAGE,
    {"a": np.array([1, -1]), "b": np.array([-1, -100]), "ax": np.array([2, 3]), "r": np.array([2, -3])}),
    "Slice(x, a, b, ax)": (IMAGE, {"a": np.array([-3]), "b": np.array([2**62]), "ax": np.array([2])}),
    "Slice(x, a, b)": (IMAGE, {"a": np.array([0, 1]), "b": np.array([5, 3])}),
    "ReduceMean <keepdims = 0> (x, ax)": (IMAGE, {"ax": np.array([-1, 1])}),
    "ReduceSum(x)": (IMAGE, {}),
    "ReduceMax <noop_with_empty_axes = 1> (x)": (IMAGE, {}),
    "ArgMax <axis = 1, keepdims = 0> (x)": (IMAGE, {}),
    "Tile(x, s)": (IMAGE, {"s": np.array([1, 2, 1, 3])}),
    "Expand(x, s)": ("float[N, 1, W] x", {"s": np.array([3, 1])}),
    "Gather <axis = 1> (x, i)": (IMAGE, {"i": np.array([[0, 1], [2, 3]])}),
    "MatMul(x, w)": ("float[N, L, 4] x", {"w": np.zeros((4, 7), np.float32)}),
    "MatMul(x, v)": ("float[N, L, 4] x", {"v": np.zeros(4, np.float32)}),
    "Gemm <transB = 1> (x, w)": ("float[N, 4] x", {"w": np.zeros((7, 4), np.float32)}),
    "Einsum <equation = \"nlc,cd->nld\"> (x, w)": ("float[N, L, 4] x", {"w": np.zeros((4, 7), np.float32)}),
    "Concat <axis = 2> (x, x)": (IMAGE, {}),
    "Unsqueeze(x, ax)": (IMAGE, {"ax": np.array([0, -1])}),
    "Squeeze(x, ax)": ("float[N, 1, W] x", {"ax": np.array([1])}),
    "OneHot <axis = -1> (i, d, v)": ("int64[N, L] i", {"d": np.int64(7), "v": np.array([0, 1], np.float32)}),
    "LayerNormalization(x, g)": ("float[N, L, 4] x", {"g": np.ones(4, np.float32)}),
    "Softmax(x)": (IMAGE, {}),
    "QuantizeLinear(x, s, z)": (IMAGE, {"s": np.float32(1), "z": np.uint8(3)}),
    "Where(c, x, z)": (IMAGE, {"c": np.ones((1, 1, 1, 12), bool), "z": np.float32(0)}),
}  # fmt: skip


def as_numbers(shape: Any) -> tuple[int, ...]:
    return tuple(evaluate(dim, SIZES) for dim in shape)


@pytest.mark.parametrize("node", CASES)
def test_shape_is_the_one_onnxruntime_gives(node):
    declared, constants = CASES[node]
    kind = {"ArgMax": "int64", "QuantizeLinear": "uint8"}.get(node.split("(")[0].split()[0], "float")
    graph = graph_of(f"g ({declared}) => ({kind}[] y) {{ y = {node} }}", **constants)
    source = graph.inputs[0]
    feed = {source.name: np.zeros([SIZES.get(size, size) for size in source.shape], source.dtype)}
    shape = infer_shapes(graph)["y"]
    assert shape is not None
    assert as_numbers(shape) == Runner(graph).run(feed)["y"].shape


def test_outputs_of_a_node_with_many():
    graph = graph_of(
        """g (float[N, 7, H] x, float[L, N, 7] s) => (float[] a, float[] b, float[] c, float[] t, float[] h,
        float[] e) {
            a, b, c = Split <axis = 1, num_outputs = 3> (x)  t, i = TopK <axis = 1> (x, k)
            e, h, q = LSTM <hidden_size = 6, direction = "bidirectional"> (s, w, r) }""",
        k=np.array([2]), w=np.zeros((2, 24, 7), np.float32), r=np.zeros((2, 24, 6), np.float32),
    )  # fmt: skip
    result = Runner(graph).run({"x": np.zeros((2, 7, 9), np.float32), "s": np.zeros((5, 2, 7), np.float32)})
    shapes = infer_shapes(graph)
    assert {name: as_numbers(shapes[name]) for name in result} == {name: array.shape for name, array in result.items()}


def test_two_symbols_broadcast_to_the_larger():
    graph = graph_of(
        "g (float[N, 1] x, float[L] z, float[H] q) => (float[] y, float[] v) { y = Add(x, z)  v = Add(z, q) }"
    )
    shapes = infer_shapes(graph)
    assert shapes["y"] == (N, L)
    assert shapes["v"] == (sympy.Max(L, H),)


def test_values_of_shape_arithmetic():
    graph = graph_of(
        """g (float[N, L, 12] x) => (int64[] t, bool[] e, int64[] w) {
            s = Shape(x)  l = Gather(s, one)  d = Div(l, two)  l1 = Unsqueeze(d, ax)
            t = Concat <axis = 0> (l1, minus, l1)
            e = Equal(t, minus)  w = Where(e, tens, t) }""",
        one=np.int64(1), two=np.int64(2), ax=np.array([0]), minus=np.array([-1]), tens=np.array([10, 10, 10]),
    )  # fmt: skip
    values = infer(graph).values
    half = floor_div(L, 2)
    assert values["t"].ints() == [half, -1, half]
    assert values["e"].ints() == [False, True, False]
    assert values["w"].ints() == [half, 10, half]
    assert Runner(graph).run({"x": np.zeros((2, 5, 12), np.float32)})["w"].tolist() == [2, 10, 2]


def test_values_of_remainders():
    graph = graph_of(
        """g (float[N, L, 12] x) => (int64[] t, int64[] u, int64[] v) {
            s = Shape(x)  l = Gather(s, one)  m = Sub(eight, l)  t = Mod(m, eight)  u = Mod(l, minus)
            v = Mod <fmod = 1> (m, eight) }""",
        one=np.int64(1), eight=np.int64(8), minus=np.int64(-3),
    )  # fmt: skip
    values = infer(graph).values
    for length in (1, 5, 8, 9, 30):
        found = int(values["t"].ints()[0].subs(L, length))
        assert found == Runner(graph).run({"x": np.zeros((2, length, 12), np.float32)})["t"]
    assert "u" not in values  # the sign of a negative divisor, and of fmod's dividend, are not followed
    assert "v" not in values


def test_inexact_float_arithmetic_is_not_followed():
    graph = graph_of(
        "g (float[N, L] x) => (int64[2] t) { s = Shape(x)  f = Cast <to = 1> (s)  m = Mul(f, k)  t = Cast <to = 7> (m) "
        "}",
        k=np.float32(0.1),
    )
    assert "t" not in infer(graph).values


def test_unknown_operators_give_none_or_what_is_declared():
    graph = graph_of(
        "g (float[N, 4] x) => (float[N, 4] y, float[] z) { y = my.Op(x)  z = my.Other(y) }".replace("my.", "")
    )
    for node in graph.nodes:
        node.domain = "my"
    graph.outputs[1].shape = None
    shapes = infer_shapes(graph)
    assert shapes["y"] == (N, 4)
    assert shapes["z"] is None


def test_annotate_writes_numbers_and_names():
    graph = graph_of(
        "g (float[N, 4, H, W] x) => (float[] y) { h = Relu(x)  y = MaxPool <kernel_shape = [2, 2], "
        "strides = [2, 2]> (h) }"
    )
    annotate(graph)
    assert graph.nodes[0].outputs[0].shape == ["N", 4, "H", "W"]
    assert graph.outputs[0].shape == ["N", 4, None, None]


def from_nested(form: Any, sizes: dict[str, int]) -> int:
    if isinstance(form, int):
        return form
    if isinstance(form, str):
        return sizes[form]
    op, left, right = form
    a, b = from_nested(left, sizes), from_nested(right, sizes)
    if op == "floordiv":
        assert isinstance(right, int)
        assert right >= 1
        return a // right
    return {"add": a + b, "mul": a * b, "max": max(a, b), "min": min(a, b)}[op]


def expressions() -> st.SearchStrategy[tuple[Any, Any]]:
    """Pairs of a size and a function that computes it with Python ints."""
    leaves = st.one_of(
        st.integers(-5, 9).map(lambda k: (k, lambda n, m: k)), st.just((N, lambda n, m: n)),
        st.just((H, lambda n, m: m)),
    )  # fmt: skip

    def combine(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        pairs = st.tuples(children, children)
        return st.one_of(
            pairs.map(lambda p: (p[0][0] + p[1][0], lambda n, m: p[0][1](n, m) + p[1][1](n, m))),
            pairs.map(lambda p: (p[0][0] * p[1][0], lambda n, m: p[0][1](n, m) * p[1][1](n, m))),
            pairs.map(lambda p: (maximum(p[0][0], p[1][0]), lambda n, m: max(p[0][1](n, m), p[1][1](n, m)))),
            pairs.map(lambda p: (minimum(p[0][0], p[1][0]), lambda n, m: min(p[0][1](n, m), p[1][1](n, m)))),
            st.tuples(children, st.integers(1, 6)).map(
                lambda p: (floor_div(p[0][0], p[1]), lambda n, m: p[0][1](n, m) // p[1])
            ),
            st.tuples(children, st.integers(1, 6)).map(
                lambda p: (ceil_div(p[0][0], p[1]), lambda n, m: -(-p[0][1](n, m) // p[1]))
            ),
        )

    return st.recursive(leaves, combine, max_leaves=6)


@settings(max_examples=60, deadline=None)
@given(expressions())
def test_sizes_and_their_nested_form_compute_what_python_does(pair):
    dim, function = pair
    form = to_nested(dim)
    for n, m in itertools.product((1, 2, 3, 7, 12), (1, 4, 5)):
        sizes = {"N": n, "H": m}
        assert evaluate(dim, sizes) == function(n, m)
        assert from_nested(form, sizes) == function(n, m)


def test_two_ways_to_one_size_are_the_same():
    assert same(floor_div(N + 1, 2), floor_div(N - 1, 2) + 1)
    assert same(floor_div(floor_div(N - 1, 2) + 1, 2), floor_div(N + 1, 4))
    assert not same(floor_div(N, 2), floor_div(N + 1, 2))


def test_nested_form_refuses_division_by_a_symbol():
    with pytest.raises(ValueError, match="divides by a symbol"):
        to_nested(sympy.Integer(6) / N)


@pytest.mark.parametrize(("expr", "sure"), [
    (2 - L + 2 * floor_div(L, 2), True), (1 - L + 2 * floor_div(L, 2), True), (2 * floor_div(L, 2) - L, False),
    (L - 2 * floor_div(L, 2), True), (L - 3 * floor_div(L, 2), False), (3 * floor_div(L, 2) - L, False),
    (7 - L + 8 * floor_div(L, 8) + N, True), (4 * floor_div(L + 3, 4) - L, True), (L - floor_div(L, 3) * N, False),
])  # fmt: skip
def test_what_is_sure_not_to_be_negative(expr: Any, sure: bool) -> None:
    values = [int(expr.subs({L: a, N: b})) for a in range(1, 40) for b in range(1, 6)]
    assert is_nonnegative(expr) == sure
    assert min(values) >= 0 or not sure


def test_remainders_by_division_are_followed() -> None:
    """As TensorFlow's SAME and dilated convolutions are exported: a - a / b * b of what rounds a size up."""
    graph = graph_of(
        """g (float[N, L, 12] x) => (int64[] t) {
            s = Shape(x)  l = Gather(s, one)  h = Div(l, two)  d = Mul(h, two)  r = Sub(l, d)  m = Sub(two, r)
            q = Div(m, two)  p = Mul(q, two)  t = Sub(m, p) }""",
        one=np.int64(1), two=np.int64(2),
    )  # fmt: skip
    found = infer(graph).values["t"].ints()[0]
    for length in (1, 2, 5, 8):
        assert int(found.subs(L, length)) == Runner(graph).run({"x": np.zeros((2, length, 12), np.float32)})["t"]
