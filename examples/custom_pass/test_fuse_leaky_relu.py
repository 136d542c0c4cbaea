"""The idiom of every pass test: a graph in, a graph out, and the same numbers before and after."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from fuse_leaky_relu import FuseLeakyRelu

from qcompiler import Context
from qcompiler.graph.ir import Graph
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager

FEED = {"x": np.linspace(-3, 3, 8, dtype=np.float32).reshape(2, 4)}


def graph_of(body: str) -> Graph:
    header = '<ir_version: 10, opset_import: ["" : 21]> g (float[N, 4] x) => (float[N, 4] y)'
    return gs.import_onnx(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(header + body)))


@pytest.mark.parametrize(
    "body",
    [
        "<float a = {0.125}> { p = Mul(x, a) y = Max(x, p) }",
        "<float a = {0.125}> { p = Mul(a, x) y = Max(p, x) }",
        "<float[1] a = {1.0}> { p = Mul(x, a) y = Max(p, x) }",
        "<float a = {0.0}> { p = Mul(x, a) y = Max(x, p) }",
    ],
)
def test_a_leaky_relu_is_recognized_and_computes_the_same(body: str) -> None:
    graph = graph_of(body)
    before = Runner(graph).run(FEED)
    Manager([FuseLeakyRelu()], feed=FEED).run(graph, Context())
    assert [node.op for node in graph.nodes] == ["LeakyRelu"]
    np.testing.assert_array_equal(Runner(graph).run(FEED)["y"], before["y"])


def test_a_product_that_others_read_stays() -> None:
    graph = graph_of("<float a = {0.5}> { p = Mul(x, a) m = Max(x, p) y = Add(m, p) }")
    before = Runner(graph).run(FEED)
    Manager([FuseLeakyRelu()]).run(graph, Context())
    assert [node.op for node in graph.nodes] == ["Mul", "LeakyRelu", "Add"]
    np.testing.assert_array_equal(Runner(graph).run(FEED)["y"], before["y"])


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("<float a = {1.5}> { p = Mul(x, a) y = Max(x, p) }", "the slope 1.5 is outside [0, 1]"),
        ("<float a = {-0.5}> { p = Mul(x, a) y = Max(x, p) }", "the slope -0.5 is outside [0, 1]"),
        ("<float[4] a = {0.1, 0.2, 0.3, 0.4}> { p = Mul(x, a) y = Max(x, p) }", "the slope is not one constant number"),
    ],
)
def test_it_declines_and_says_why(body: str, reason: str) -> None:
    graph, ctx = graph_of(body), Context()
    Manager([FuseLeakyRelu()]).run(graph, ctx)
    assert [node.op for node in graph.nodes] == ["Mul", "Max"]
    assert [item.reason for item in ctx.report.declined] == [reason]


def test_another_maximum_is_left_alone_in_silence() -> None:
    graph, ctx = graph_of("<float a = {0.5}> { p = Mul(x, a) q = Neg(x) y = Max(q, p) }"), Context()
    Manager([FuseLeakyRelu()]).run(graph, ctx)
    assert ctx.report.declined == []
    assert [node.op for node in graph.nodes] == ["Mul", "Neg", "Max"]


def test_its_option() -> None:
    graph, ctx = graph_of("<float a = {0.5}> { p = Mul(x, a) y = Max(x, p) }"), Context()
    Manager([FuseLeakyRelu(max_slope=0.25)]).run(graph, ctx)
    assert [item.reason for item in ctx.report.declined] == ["the slope 0.5 is outside [0, 0.25]"]
