from __future__ import annotations

import numpy as np
import pytest

from qcompiler.feeds.sources import SYNTHETIC_WARNING
from qcompiler.graph.ir import Graph, producer, read_spec, spec_of
from qcompiler.graph.origin import ORIGIN, Origin
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.quantize_activations import HEADROOM, QuantizeActivations
from tests.helpers.graphs import graph_of, ops
from tests.passes.rewriting import random, reasons


def quantize(graph: Graph, *feeds: dict[str, np.ndarray], observer: str = "minmax") -> Context:
    """Run the pass and hold the result to the float graph: one step of the widest grid for every operator on the
    way."""
    float_run = Runner(graph)
    before = [float_run.run(feed) for feed in feeds]
    ctx = Context(data=feeds)
    Manager([QuantizeActivations(observer=observer)]).run(graph, ctx)
    for fusions in (True, False):
        after = Runner(graph, fusions=fusions)
        for feed, expected in zip(feeds, before, strict=True):
            for name, value in after.run(feed).items():
                reach = max(float(np.abs(expected[name]).max(initial=0)), 1e-3)
                np.testing.assert_allclose(value, expected[name], atol=0.06 * reach)
    return ctx


def pairs(graph: Graph) -> list[str]:
    """Names of the float tensors in front of the pairs."""
    return sorted(node.inputs[0].name for node in graph.nodes if node.op == "QuantizeLinear")


def grid(graph: Graph, name: str) -> tuple[float, int, str]:
    """Scale, zero point and type of the pair behind a tensor."""
    spec = read_spec(next(node for node in graph.nodes if node.op == "QuantizeLinear" and node.inputs[0].name == name))
    return float(spec.scale), int(spec.zero_point), str(spec.dtype)


def test_one_pair_between_operators_and_none_inside_a_layer():
    graph = graph_of(
        """g (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) {
            a = Conv <kernel_shape = [1, 1]> (x, w, b)  r = Clip(a, lo, hi)  s = Add(r, r)  t = Relu(s)
            y = Sigmoid(t) }""",
        w=random(4, 3, 1, 1), b=random(4, seed=1), lo=np.float32(0), hi=np.float32(6),
    )  # fmt: skip
    quantize(graph, {"x": random(1, 3, 8, 8)})
    assert pairs(graph) == ["r", "t", "x", "y_float"]
    assert [tensor.name for tensor in graph.outputs] == ["y"]
    assert grid(graph, "r")[1:] == (0, "uint8")


def test_the_bias_of_a_matmul_belongs_to_it():
    graph = graph_of(
        "g (float[N, 4] x) => (float[N, 3] y) { a = MatMul(x, w)  b = Add(c, a)  y = Relu(b) }",
        w=random(4, 3),
        c=random(3, seed=1),
    )
    quantize(graph, {"x": random(5, 4)})
    assert pairs(graph) == ["x", "y_float"]


def test_a_bias_with_another_reader_or_shape_is_an_operand():
    graph = graph_of(
        "g (float[N, 4] x) => (float[N, 3] y, float[N, 3] z) { a = MatMul(x, w)  y = Add(a, c)  z = Tanh(a) }",
        w=random(4, 3),
        c=random(3, seed=1),
    )
    quantize(graph, {"x": random(5, 4)})
    assert pairs(graph) == ["a", "c", "x", "y_float", "z_float"]


def test_movers_keep_the_grid():
    graph = graph_of(
        """g (float[1, 4, 6] x) => (float[2, 3, 4] y) {
            t = Transpose <perm = [0, 2, 1]> (x)  r = Reshape(t, s)  p = Pad(r, q)
            a, b = Split <axis = 1, num_outputs = 2> (p)  y = Identity(b) }""",
        s=np.array([2, 3, 4]), q=np.array([0, 1, 0, 0, 2, 0]),
    )  # fmt: skip
    quantize(graph, {"x": random(1, 4, 6)})
    found = {grid(graph, name) for name in pairs(graph)}
    assert len(found) == 1


def test_concat_shares_with_inputs_that_nothing_else_reads():
    graph = graph_of(
        """g (float[2, 3] x, float[2, 3] u) => (float[2, 9] y, float[2, 3] z) {
            a = Sigmoid(x)  m = Mul(u, k)  t = Transpose <perm = [0, 1]> (m)  e = Exp(x)
            y = Concat <axis = 1> (a, t, e)  z = Sqrt(e) }""",
        k=np.float32(5),
    )  # fmt: skip
    quantize(graph, {"x": random(2, 3), "u": random(2, 3, seed=1)})
    assert grid(graph, "a") == grid(graph, "m") == grid(graph, "t") == grid(graph, "y_float")
    assert grid(graph, "e") != grid(graph, "y_float")


def test_softmax_has_the_grid_of_probabilities():
    graph = graph_of("g (float[2, 3] x) => (float[6] y) { p = Softmax(x)  y = Reshape(p, s) }", s=np.array([6]))
    quantize(graph, {"x": random(2, 3)})
    assert grid(graph, "p") == grid(graph, "y_float") == (float(np.float32(1 / 255)), 0, "uint8")


def test_a_mask_does_not_stretch_the_range_of_scores():
    graph = graph_of(
        "g (float[4, 6] x, float[4, 6] m) => (float[4, 6] y) { i = Sub(one, m)  b = Mul(i, big)  s = Add(x, b)  y = "
        "Softmax(s) }",
        one=np.float32(1), big=np.float32(-1e4),
    )  # fmt: skip
    mask = np.ones((4, 6), np.float32)
    mask[:, 4:] = 0
    quantize(graph, {"x": random(4, 6), "m": mask})
    assert grid(graph, "s")[0] < 0.15


@pytest.mark.parametrize("value", [-np.inf, -3.4e38])
def test_an_infinite_mask_still_masks(value):
    graph = graph_of(
        "g (float[4, 6] x, bool[4, 6] c) => (float[4, 6] y) { s = Where(c, x, big)  y = Softmax(s) }",
        big=np.float32(value),
    )
    quantize(graph, {"x": random(4, 6), "c": np.arange(24).reshape(4, 6) % 3 > 0})


def test_embedding_tables_and_scalar_constants_are_operands():
    graph = graph_of(
        "g (int64[B, L] ids) => (float[B, L, 4] y) { e = Gather(table, ids)  y = Mul(e, half) }",
        table=random(9, 4),
        half=np.float32(0.37),
    )
    quantize(graph, {"ids": np.arange(6).reshape(2, 3)})
    assert pairs(graph) == ["e", "half", "table", "y_float"]
    assert grid(graph, "table") == grid(graph, "e")
    half = next(node for node in graph.nodes if node.op == "Mul").inputs[1]
    assert abs(float(read_spec(producer(half)).dequantize(np.array(255))) - 0.37) < 1e-6


def test_sums_over_an_unknown_length_have_headroom():
    text = "g (float[B, {L}] x) => (float[B] y) {{ s = ReduceSum <keepdims = 0> (x, a)  y = Tanh(s) }}"
    feed = {"x": np.ones((2, 8), np.float32)}
    unknown, known = (graph_of(text.format(L=length), a=np.array([1])) for length in ("L", "8"))
    quantize(unknown, feed)
    quantize(known, feed)
    assert grid(unknown, "s") == (pytest.approx(HEADROOM * 8 / 32767), 0, "int16")
    assert grid(known, "s")[2] == "uint8"
    longer = Runner(unknown, ["s_dq"]).run({"x": np.ones((2, 60), np.float32)})["s_dq"]
    np.testing.assert_allclose(longer, 60, rtol=1e-3)


def test_recurrent_states_share_a_grid():
    graph = graph_of(
        "g (float[T, 1, 3] x) => (float[T, 1, 1, 2] y, float[1, 1, 2] h) { y, h = LSTM <hidden_size = 2> (x, w, r) }",
        w=random(1, 8, 3), r=random(1, 8, 2, seed=1),
    )  # fmt: skip
    quantize(graph, {"x": random(5, 1, 3, low=-0.5, high=0.5)})
    assert grid(graph, "y_float") == grid(graph, "h_float")


def test_what_has_no_integer_form_stays_float_with_a_reason():
    graph = graph_of(
        """g (float[4, 4] x, float[4, 4] w2) => (float[4, 4] y, float[4, 4] z) {
            a = Relu(x)  f = CumSum(a, axis)  t = Transpose(f)  n = Det(f)  y = Add(t, n)  c = Cos(x)
            z = Gemm <alpha = 0.5> (c, w2) }""",
        axis=np.array(0),
    )  # fmt: skip
    ctx = quantize(graph, {"x": random(4, 4), "w2": random(4, 4, seed=1)})
    left = {node.op: node.reason for node in ctx.report.left_float}
    assert left["CumSum"] == left["Det"] == "no integer form of this operator"
    assert "not constant" in left["Gemm"]
    assert spec_of(next(node for node in graph.nodes if node.op == "CumSum").inputs[0]) is not None


def test_movers_between_float_operators_stay_float():
    graph = graph_of(
        "g (float[4, 4] x) => (float[4, 4] y) { a = CumSum(x, k)  t = Transpose(a)  y = CumSum(t, k) }", k=np.array(0)
    )
    ctx = Context(data=[{"x": random(4, 4)}])
    assert not QuantizeActivations().run(graph, ctx)
    assert ops(graph) == ["CumSum", "Transpose", "CumSum"]
    assert "moves values" in {node.op: node.reason for node in ctx.report.left_float}["Transpose"]


def test_a_branch_stays_float():
    graph = graph_of(
        """g (float[4] x, bool c) => (float[4] y) {
            a = Tanh(x)
            b = If <then_branch = t () => (float[4] p) { p = Neg(a) },
            else_branch = e () => (float[4] q) { q = Abs(a) }> (c)
            y = Relu(b) }"""
    )
    ctx = quantize(graph, {"x": random(4), "c": np.array(True)})
    assert [(node.op, node.reason) for node in ctx.report.left_float] == [("If", "control flow")]


def test_a_quantized_model_goes_through():
    graph = graph_of(
        "g (float[4] x) => (float[4] y) { q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = Relu(d) }",
        s=np.float32(0.1), z=np.int8(3),
    )  # fmt: skip
    ctx = Context(data=[{"x": random(4)}])
    assert not QuantizeActivations().run(graph, ctx)
    assert ops(graph) == ["QuantizeLinear", "DequantizeLinear", "Relu"]
    assert "quantized already" in reasons(ctx)[0]


def test_double_stays_float_with_a_reason():
    graph = graph_of("g (double[4] x) => (double[4] y) { y = Exp(x) }")
    ctx = Context(data=[{"x": np.ones(4)}])
    assert not QuantizeActivations().run(graph, ctx)
    assert "float64, not float32" in ctx.report.left_float[0].reason


def test_without_data_feeds_are_made_up_with_a_warning():
    graph, ctx = graph_of("g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }"), Context()
    assert QuantizeActivations().run(graph, ctx)
    assert ctx.report.warnings == [SYNTHETIC_WARNING]


def test_observers_differ_on_outliers_only():
    def scale(observer: str) -> float:
        graph = graph_of("g (float[N, 1000] x) => (float[N, 1000] y) { y = Abs(x) }")
        values = random(20, 1000)
        values[0, 0] = 500.0
        Manager([QuantizeActivations(observer=observer)]).run(graph, Context(data=[{"x": values}]))
        return grid(graph, "x")[0]

    assert scale("percentile") < scale("mse") < scale("minmax")


def test_outputs_have_headroom_when_the_feeds_are_made_up():
    graph, ctx = graph_of("g (float[N, 4] x) => (float[N, 3] y) { y = MatMul(x, w) }", w=random(4, 3)), Context()
    QuantizeActivations().run(graph, ctx)
    assert grid(graph, "y_float")[1:] == (0, "int16")
    x = np.full((1, 4), 9, np.float32)
    np.testing.assert_allclose(
        Runner(graph, ["y_float"]).run({"x": x})["y_float"], Runner(graph).run({"x": x})["y"], atol=1e-2
    )


def test_what_is_examined_for_infinity_stays_float():
    graph = graph_of(
        """g (float[4, 6] x, bool[4, 6] c) => (float[4, 6] y) {
            m = Where(c, zero, low)  s = Add(x, m)  p = Softmax(s)
            top = ReduceMax(m, last)  empty = Equal(top, low)  y = Where(empty, zero, p) }""",
        zero=np.float32(0), low=np.float32(-np.inf), last=np.array([-1]),
    )  # fmt: skip
    seen = np.arange(24).reshape(4, 6) % 3 > 0
    seen[2] = False
    ctx = quantize(graph, {"x": random(4, 6), "c": seen})
    assert {left.op for left in ctx.report.left_float} == {"Where", "ReduceMax", "Equal"}
    assert {"s", "p"} <= set(pairs(graph))


def test_a_node_that_has_the_name_of_an_output_keeps_it_alone() -> None:
    graph = graph_of("g (float[9, 8] x) => (float[9, 6] y) { y = MatMul(x, w) }", w=random(8, 6))
    graph.nodes[0].name = "y"
    Manager([QuantizeActivations()]).run(graph, Context(data=[{"x": random(9, 8)}]))
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names)
    assert graph.outputs[0].name == "y"


@pytest.mark.parametrize(("opset", "dtype"), [(0, np.int16), (21, np.int16), (17, np.uint8)])
def test_few_values_give_a_file_of_an_older_opset_no_16_bits(opset: int, dtype: type):
    graph = graph_of(
        "g (float[1, 6] x) => (float[1, 4] y) { a = MatMul(x, w)  b = Mul(a, a)  c = Add(b, k)  y = MatMul(c, v) }",
        w=random(6, 8), v=random(8, 4, seed=1), k=random(8, seed=2),
    )  # fmt: skip
    if opset:
        graph.__dict__[ORIGIN] = Origin(opset=opset)
    feeds = [{"x": random(1, 6, seed=seed)} for seed in range(12)]
    Manager([QuantizeActivations(wide="between layers")]).run(graph, Context(data=feeds))
    found = {spec_of(node.outputs[0]).dtype for node in graph.nodes if node.op == "DequantizeLinear"}
    assert found == {np.dtype(dtype)}


def test_room_for_values_not_seen_ends_where_mathematics_does():
    graph = graph_of(
        """g (float[N, 4] x) => (float[N, 4] y, float[N, 4] z) {
            q = Mul(x, x)  e = Add(q, eps)  y = Log(e)  z = Exp(x) }""",
        eps=np.float32(1e-3),
    )  # fmt: skip
    feeds = [{"x": random(2, 4, seed=seed) / 4} for seed in (0, 1)]
    Manager([QuantizeActivations(wide="anything")]).run(graph, Context(data=feeds))
    reach = {name: grid(graph, f"{name}_float")[0] * 32767 for name in "yz"}
    assert reach["y"] <= -1.01 * np.log(1e-3)
    assert reach["z"] >= 2 * max(np.exp(feed["x"]).max() for feed in feeds)


def test_a_handful_of_rows_leaves_8_bits_some_room_on_both_sides():
    text = "g (float[N, 4] x) => (float[N, 4] y) { a = MatMul(x, w)  h = Relu(a)  y = MatMul(h, v) }"
    rows = np.float32([[1, -0.7, 0.2, 0], [0.5, 0.9, -0.1, 0.3]])
    for wide, far, near in (("nothing", 1.0, 0.7), ("between layers", 1.25, 1.25)):
        graph = graph_of(text, w=random(4, 4), v=random(4, 4, seed=1))
        graph.__dict__[ORIGIN] = Origin(opset=17)
        Manager([QuantizeActivations(wide=wide)]).run(graph, Context(data=[{"x": rows[:1]}, {"x": rows[1:]}]))
        scale, zero_point, dtype = grid(graph, "x")
        assert dtype == "uint8"
        assert (255 - zero_point) * scale == pytest.approx(far, abs=0.02)
        assert zero_point * scale == pytest.approx(near, abs=0.02)
