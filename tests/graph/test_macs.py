"""Multiply-accumulates of control flow: what a Loop carries through its steps is read at each of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from qcompiler.graph.macs import all_macs
from qcompiler.onnx_io.importer import load_graph

INPUTS, STEPS = 6, 7
BODY = """body (int64 count, bool go_on, float[1, 6] state{carried})
    => (bool again, float[1, 6] next{passed}, float[1, 6] seen) {{
    again = Identity(go_on)  p = MatMul(state, {weights})  next = Tanh(p)  seen = Identity(next) {pass_on} }}"""


@pytest.mark.parametrize("carried", [False, True])
def test_weights_in_a_loop_count_once_for_each_step(carried: bool) -> None:
    body = BODY.format(
        carried=", float[6, 6] v" if carried else "", passed=", float[6, 6] v_out" if carried else "",
        weights="v" if carried else "w", pass_on="v_out = Identity(v)" if carried else "",
    )  # fmt: skip
    given, left = ("x, w", "last, rest") if carried else ("x", "last")
    text = f"""<ir_version: 8, opset_import: ["" : 18]> g (float[1, 6] x) => (float[T, 1, 6] y) {{
        {left}, y = Loop <body = {body}> (steps, on, {given}) }}"""
    model = onnx.parser.parse_model(text)
    constants = {"w": np.eye(INPUTS, dtype=np.float32), "steps": np.array(STEPS), "on": np.array(True)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in constants.items())
    graph = load_graph(model)
    counts = all_macs(graph, {"x": np.ones((1, INPUTS), np.float32)})
    assert [(node.op, count) for node, count in counts] == [("Loop", STEPS * INPUTS * INPUTS)]
