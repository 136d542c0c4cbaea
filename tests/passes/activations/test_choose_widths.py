from __future__ import annotations

import numpy as np
import pytest

from qcompiler.activations.int16 import bias_steps, weights_fit, wide_spec
from qcompiler.graph.ir import ORIGIN, Graph, QuantSpec, read_spec, spec_of
from qcompiler.graph.layers import find_layers
from qcompiler.graph.origin import Origin
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.activations.choose_widths import ChooseWidths
from qcompiler.passes.activations.quantize_activations import QuantizeActivations
from qcompiler.passes.weights.quantize_weights import QuantizeWeights
from qcompiler.passes.weights.store_codes import StoreCodes
from tests.helpers.graphs import graph_of
from tests.passes.rewriting import random

RESIDUAL = """g (float[8, 16] x) => (float[8, 4] y) {
    a = MatMul(x, w)  r = Relu(a)  s = Mul(r, big)  t = Add(s, x)  n = LayerNormalization <axis = -1> (t, gamma)
    y = MatMul(n, v) }"""


def residual() -> tuple[Graph, dict[str, np.ndarray]]:
    """A residual stream with one huge channel in front of a LayerNorm: the classic case for 16 bits."""
    big = np.ones(16, np.float32)
    big[3] = 300
    return graph_of(RESIDUAL, w=random(16, 16), big=big, gamma=np.ones(16, np.float32), v=random(16, 4, seed=2)), {
        "x": random(8, 16)
    }


def widths(graph: Graph) -> dict[str, str]:
    return {
        node.inputs[0].name: str(read_spec(node).dtype)
        for node in graph.nodes
        if node.op == "QuantizeLinear" and node.inputs[0].inputs
    }


def run(graph: Graph, feed: dict[str, np.ndarray], widen: str | int = "auto") -> Context:
    ctx = Context(data=[feed])
    Manager([QuantizeActivations(), QuantizeWeights(), ChooseWidths(widen=widen)]).run(graph, ctx)
    return ctx


def test_the_loud_residual_stream_becomes_wide_and_the_output_better():
    graph, feed = residual()
    expected = Runner(graph).run(feed)["y"]
    errors = {}
    for widen in ("off", "auto"):
        graph, feed = residual()
        ctx = run(graph, feed, widen)
        Manager([StoreCodes()]).run(graph, ctx)
        for fusions in (True, False):
            errors[widen, fusions] = float(np.square(Runner(graph, fusions=fusions).run(feed)["y"] - expected).sum())
    assert widths(graph)["t"] == "int16"
    assert errors["auto", True] < 0.2 * errors["off", True]
    assert errors["auto", False] < 0.2 * errors["off", False]


def test_the_report_tells_each_width_with_the_noise_measured():
    graph, feed = residual()
    ctx = run(graph, feed)
    choices = {choice.tensor: choice for choice in ctx.report.widths}
    assert choices["t"].bits == 16
    assert choices["t"].sqnr_db < 25
    assert choices["n"].feeds_gemm
    assert not choices["t"].feeds_gemm
    assert {name for name, kind in widths(graph).items() if kind == "int16"} <= {
        name for name, choice in choices.items() if choice.bits == 16
    }


@pytest.mark.parametrize("limit", [1, 2])
def test_a_number_limits_the_wide_tensors(limit):
    graph, feed = residual()
    run(graph, feed, limit)
    assert list(widths(graph).values()).count("int16") <= limit


@pytest.mark.parametrize(("most", "fewest", "limit"), [(0.25, 1, 2), (0.75, 3, 6), (0.0, 0, 0)])
def test_wide_products_stay_within_their_part_of_the_work(most, fewest, limit):
    names = [f"w{i}" for i in range(8)]
    body = "  ".join(f"a{i + 1} = MatMul(a{i}, w{i})" for i in range(8))
    weights = {name: random(16, 16, seed=i) for i, name in enumerate(names)}
    for weight in weights.values():
        weight[:, 0], weight[0] = 100 * weight[:, 0], weight[0] / 100  # one loud channel in every activation
    graph = graph_of(f"g (float[6, 16] a0) => (float[6, 16] a8) {{ {body} }}", **weights)
    ctx = Context(data=[{"a0": random(6, 16)}])
    Manager([QuantizeActivations(), QuantizeWeights(), ChooseWidths(most=most)]).run(graph, ctx)
    wide = [node for node in graph.nodes if node.op == "MatMul" and spec_of(node.inputs[0]).dtype == np.int16]
    assert fewest <= len(wide) <= limit


@pytest.mark.parametrize(("axis", "wide"), [(-1, True), (0, False)])
def test_what_probabilities_weigh_is_widened_whatever_the_length(axis, wide):
    graph = graph_of(
        f"g (float[L, L] x, float[L, 3] v) => (float[L, 3] y) {{ p = Softmax <axis = {axis}> (x)  y = MatMul(p, v) }}"
    )
    run(graph, {"x": random(300, 300), "v": random(300, 3, seed=1)}, 9)
    node = next(node for node in graph.nodes if node.op == "MatMul")
    assert [spec_of(tensor).dtype.name for tensor in node.inputs] == ["int16" if wide else "uint8"] * 2


def test_movers_widen_together():
    graph = graph_of(
        "g (float[4, 6] x) => (float[6, 4] y) { a = Exp(x)  t = Transpose(a)  r = Reshape(t, s)  y = Log(r) }",
        s=np.array([6, 4]),
    )
    run(graph, {"x": random(4, 6)}, 9)
    assert len({widths(graph)[name] for name in ("a", "t", "r")}) == 1


def test_an_input_whose_accumulator_could_overflow_stays_narrow():
    weight = np.ones((1100, 2), np.float32)  # 1100 * 127 * 2^15 > 2^31
    graph = graph_of("g (float[3, 1100] x) => (float[3, 2] y) { y = MatMul(x, w) }", w=weight)
    run(graph, {"x": random(3, 1100)}, 9)
    assert spec_of(next(node for node in graph.nodes if node.op == "MatMul").inputs[0]).dtype == np.uint8


@pytest.mark.parametrize(("inner", "wide"), [(200, True), (300, False)])
def test_a_product_of_activations_is_widened_on_one_side_where_proven(inner, wide):
    graph = graph_of(f"g (float[2, {inner}] a, float[{inner}, 3] b) => (float[2, 3] y) {{ y = MatMul(a, b) }}")
    run(graph, {"a": random(2, inner), "b": random(inner, 3, seed=1)}, 9)
    node = next(node for node in graph.nodes if node.op == "MatMul")
    assert [spec_of(tensor).dtype.name for tensor in node.inputs].count("int16") == int(wide)


def test_the_bound_holds_for_the_worst_codes():
    graph = graph_of(
        "g (float[5, 40] x) => (float[5, 6] y) { y = Gemm(x, w, b) }", w=random(40, 6), b=random(6, seed=1)
    )
    run(graph, {"x": random(5, 40)}, 9)
    layer = next(find_layers(graph))
    x, w = spec_of(layer.node.inputs[0]), spec_of(layer.weight)
    assert x.dtype == np.int16
    worst = np.abs(w.quantize(layer.values).astype(np.int64)).sum(axis=0) * 2**15 + bias_steps(layer, w, float(x.scale))
    assert worst.max() < 2**31
    assert weights_fit(layer, float(x.scale))


def test_dead_channels_do_not_keep_an_input_narrow():
    weight = random(16, 6)
    weight[:, 2] = 1e-9
    graph = graph_of(
        "g (float[5, 16] x) => (float[5, 6] y) { y = Gemm(x, w, b) }", w=weight, b=np.full(6, 2, np.float32)
    )
    expected = Runner(graph).run({"x": random(5, 16)})["y"]
    ctx = run(graph, {"x": random(5, 16)}, 9)
    Manager([StoreCodes()]).run(graph, ctx)
    assert spec_of(next(node for node in graph.nodes if node.op == "Gemm").inputs[0]).dtype == np.int16
    np.testing.assert_allclose(
        Runner(graph).run({"x": random(5, 16)})["y"], expected, atol=0.03 * np.abs(expected).max()
    )


def test_a_wide_grid_covers_the_narrow_one():
    narrow = QuantSpec.per_tensor(0.1, 100, np.uint8)
    wide = wide_spec(narrow, None)
    ends = narrow.dequantize(np.array([0, 255], np.uint8))
    np.testing.assert_allclose(wide.dequantize(wide.quantize(ends)), ends, rtol=1e-4)
    assert int(wide.zero_point) == 0


def test_a_probability_takes_a_power_of_two():
    graph = graph_of("g (float[5, 7] x) => (float[5, 7] y) { p = Softmax(x)  y = Mul(p, k) }", k=np.float32(2))
    run(graph, {"x": random(5, 7)}, 99)
    spec = read_spec(next(node for node in graph.nodes if node.op == "QuantizeLinear" and node.inputs[0].name == "p"))
    assert spec.dtype == np.int16
    assert float(spec.scale) == 2.0**-15


@pytest.mark.parametrize(("rows", "dtype"), [(8, "int16"), (2048, "uint8")])
def test_a_large_stored_table_stays_narrow(rows: int, dtype: str):
    table = random(rows, 16)
    table[1, 3] = 500
    graph = graph_of("g (int64[6] i) => (float[6, 16] y) { e = Gather(table, i)  y = LayerNormalization <axis = -1> "
                     "(e, gamma) }",
                     table=table, gamma=np.ones(16, np.float32))  # fmt: skip
    run(graph, {"i": np.arange(6)}, 99)
    stored = next(node for node in graph.nodes if node.op == "QuantizeLinear" and node.inputs[0].name == "table")
    assert str(read_spec(stored).dtype) == dtype


def test_a_program_gets_more_wide_tensors_than_an_onnx_file():
    counts = []
    for enough in (10.0, 60.0):
        graph, feed = residual()
        Manager([QuantizeActivations(), QuantizeWeights(), ChooseWidths(enough_db=enough)]).run(
            graph, Context(data=[feed])
        )
        counts.append(list(widths(graph).values()).count("int16"))
    assert 0 < counts[0] < counts[1]


@pytest.mark.parametrize("options", [{"widen": "some"}, {"widen": -1}, {"feeds": 0}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        ChooseWidths(**options)


def test_an_unquantized_graph_is_left():
    graph = graph_of("g (float[5, 4] x) => (float[5, 4] y) { y = Relu(x) }")
    assert not ChooseWidths().run(graph, Context())


def from_a_file(graph: Graph, opset: int) -> Graph:
    """``graph``, as if it came from a file of that opset."""
    graph.__dict__[ORIGIN] = Origin(opset=opset)
    return graph


def test_an_older_file_is_not_moved_to_the_opset_of_16_bits():
    graph, feed = residual()
    expected = Runner(graph).run(feed)["y"]
    errors = {}
    for widen in ("off", "auto"):
        graph = from_a_file(residual()[0], 17)
        ctx = Context(data=[feed])
        Manager([QuantizeActivations(), QuantizeWeights(), ChooseWidths(widen=widen, keep_opset=True)]).run(graph, ctx)
        errors[widen] = float(np.square(Runner(graph).run(feed)["y"] - expected).sum())
    assert {choice.tensor: choice.bits for choice in ctx.report.widths}["t"] == 32
    assert set(widths(graph).values()) == {"uint8"}
    assert "t" not in widths(graph)
    assert errors["auto"] < 0.2 * errors["off"]


@pytest.mark.parametrize(("opset", "wide"), [(0, True), (21, True), (20, False)])
def test_a_file_of_a_new_opset_and_a_graph_made_here_take_16_bits(opset: int, wide: bool):
    graph, feed = residual()
    graph = from_a_file(graph, opset)
    Manager([QuantizeActivations(), QuantizeWeights(), ChooseWidths(keep_opset=True)]).run(graph, Context(data=[feed]))
    assert ("int16" in widths(graph).values()) == wide


def test_noise_of_the_inputs_of_layers_alone_is_worth_a_newer_opset():
    big = np.ones(16, np.float32)
    big[3] = 3000
    graph = from_a_file(
        graph_of(
            "g (float[8, 16] x) => (float[8, 4] y) { a = Mul(x, big)  y = MatMul(a, v) }", big=big,
            v=random(16, 4, seed=2) / big[:, None],
        ),
        17,
    )  # fmt: skip
    chosen, ctx = ChooseWidths(keep_opset=True, most=1.0), Context(data=[{"x": random(8, 16)}])
    Manager([QuantizeActivations(), QuantizeWeights(), chosen]).run(graph, ctx)
    assert widths(graph)["a"] == "int16"
