"""The pass `lower`: a quantized graph in, an integer graph out, or every reason why not."""

from __future__ import annotations

import numpy as np
import pytest

from qcompiler.errors import PassError
from qcompiler.graph.ir import INTEGER_DOMAIN, Stage
from qcompiler.graph.runner import Runner
from qcompiler.lowering import to_program
from qcompiler.manager import Manager
from qcompiler.pass_base import Context
from qcompiler.passes.lower import Lower
from qcompiler.runtime import Session
from tests.helpers.graphs import graph_of, ops
from tests.lowering.checked import quantize

FEED = {"x": np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)}


def test_the_graph_becomes_integer_in_place() -> None:
    graph = quantize(
        graph_of(
            "g (float[3,8] x) => (float[] y) { _m = MatMul(x, w_1) y = Relu(_m) }", w_1=np.eye(8, dtype=np.float32)
        ),
        FEED,
    )
    expected = Runner(graph, fusions=False).run(FEED)["y"]
    assert Manager((Lower(),)).run(graph, Context(), Stage.QUANTIZED) == Stage.INTEGER
    assert ops(graph) == ["Quantize", "Gemm", "Dequantize"]
    assert {node.domain for node in graph.nodes} == {INTEGER_DOMAIN}
    np.testing.assert_array_equal(Session(to_program(graph)).run(FEED)["y"], expected)


def test_a_node_without_an_integer_form_is_named() -> None:
    graph = quantize(graph_of("g (float[3,8] x) => (float[] y) { y = Hardmax(x) }"), FEED)
    with pytest.raises(PassError, match=r"pass 'lower'.*'Hardmax_0' \(Hardmax\): this operator has no integer form"):
        Manager((Lower(),)).run(graph, Context(), Stage.QUANTIZED)
