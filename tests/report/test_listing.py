from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from qcompiler.report.listing import listing
from tests.helpers.graphs import graph_of


def test_one_line_a_node_with_types_shapes_and_small_constants():
    graph = graph_of(
        "g (float[N, 4] x) => (float[N, 3] y) { m = MatMul(x, w)  y = Clip(m, low) }",
        w=np.zeros((4, 3), np.float32),
        low=np.float32(0.5),
    )
    assert list(listing(graph)) == [
        "inputs  %x: float32[N, 4]",
        "%m: float32[N, 3] = MatMul(%x, w: float32[4, 3])",
        "%y: float32[N, 3] = Clip(%m, 0.5: float32)",
        "outputs %y: float32[N, 3]",
    ]


def test_types_that_numpy_lacks_and_bodies_of_control_flow_are_listed():
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
        g (bfloat16[2] x, bool c) => (bfloat16[2] y) {
            y = If (c) <then_branch = t () => (bfloat16[2] a) { a = Abs(x) },
            else_branch = e () => (bfloat16[2] b) { b = Neg(x) }> }""")
    lines = list(listing(gs.import_onnx(model)))
    assert lines[0] == "inputs  %x: bfloat16[2], %c: bool[]"
    assert lines[2].startswith("    %a: bfloat16[2] = Abs(%x)")
