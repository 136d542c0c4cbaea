"""Recurrent networks as exporters write them: unnamed outputs, both directions, lengths, zero states, peepholes, plain
RNN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from qcompiler.errors import UnsupportedError
from qcompiler.graph.runner import Runner
from qcompiler.manager import Manager
from qcompiler.onnx_io.importer import load_graph
from qcompiler.pass_base import Context
from qcompiler.passes.expand.expand_operators import ExpandOperators
from tests.lowering.judged import FORMS, compiled

HIDDEN, INPUTS = 6, 5
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def model_of(
    op: str,
    direction: str,
    outputs: str,
    *,
    lengths: bool = False,
    zero_states: bool = False,
    peepholes: float | None = None,
) -> onnx.ModelProto:
    """``outputs``: names of the outputs, '-' for one without a name."""
    rng, directions = np.random.default_rng(0), 2 if direction == "bidirectional" else 1
    arrays = {
        "W": rng.standard_normal((directions, GATES[op] * HIDDEN, INPUTS)) * 0.4,
        "R": rng.standard_normal((directions, GATES[op] * HIDDEN, HIDDEN)) * 0.4,
        "B": rng.standard_normal((directions, 2 * GATES[op] * HIDDEN)) * 0.4,
    }  # fmt: skip
    nodes, inputs = [], [helper.make_tensor_value_info("x", 1, ["T", "N", INPUTS])]
    slots = ["x", "W", "R", "B", "", "", "", ""]
    if lengths:
        slots[4] = "lengths"
        inputs.append(helper.make_tensor_value_info("lengths", 6, ["N"]))
    if zero_states:
        arrays |= {"d": np.array([directions]), "hidden": np.array([HIDDEN]), "batch_axis": np.array([1])}
        nodes += [
            helper.make_node("Shape", ["x"], ["sizes"]), helper.make_node("Gather", ["sizes", "batch_axis"], ["n"]),
            helper.make_node("Concat", ["d", "n", "hidden"], ["state"], axis=0),
            helper.make_node("ConstantOfShape", ["state"], ["zeros"]),
        ]  # fmt: skip
        slots[5], slots[6] = "zeros", "zeros" if op == "LSTM" else ""
    if peepholes is not None:
        arrays["P"], slots[7] = rng.standard_normal((directions, 3 * HIDDEN)) * peepholes, "P"
    while not slots[-1]:
        slots.pop()
    names = [name.replace("-", "") for name in outputs.split()]
    nodes.append(helper.make_node(op, slots, names, hidden_size=HIDDEN, direction=direction))
    tensors = [
        onnx.numpy_helper.from_array(a if a.dtype == np.int64 else a.astype(np.float32), name)
        for name, a in arrays.items()
    ]
    results = [helper.make_tensor_value_info(name, 1, None) for name in names if name]
    return helper.make_model(
        helper.make_graph(nodes, "g", inputs, results, tensors),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )


def feeds(count: int, *, lengths: bool) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    found = [{"x": np.clip(rng.standard_normal((7, 3, INPUTS)), -2, 2).astype(np.float32)} for _ in range(count)]
    return [feed | {"lengths": rng.integers(1, 8, 3).astype(np.int32)} for feed in found] if lengths else found


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("op", "direction", "outputs", "options"), [
    ("LSTM", "forward", "- h", {}), ("LSTM", "bidirectional", "y", {"lengths": True}),
    ("LSTM", "reverse", "y h c", {"zero_states": True}),
    ("GRU", "bidirectional", "- h", {"zero_states": True, "lengths": True}), ("RNN", "bidirectional", "y h", {}),
    ("RNN", "forward", "- h", {"lengths": True, "zero_states": True}), ("LSTM", "forward", "y", {"peepholes": 0.0}),
])  # fmt: skip
def test_members_of_the_kind(op: str, direction: str, outputs: str, options: dict[str, Any], form: str) -> None:
    given = feeds(20, lengths=bool(options.get("lengths")))
    decibels, report = compiled(model_of(op, direction, outputs, **options), given[:16], given[16:], form)
    assert decibels > 20
    assert report.figures["integer_mac_share"] == 1.0
    assert not report.left_float


def test_peepholes_stay_float_and_say_so() -> None:
    given = feeds(6, lengths=False)
    model = model_of("LSTM", "forward", "y", peepholes=0.5)
    decibels, report = compiled(model, given[:4], given[4:], "onnx")
    assert decibels > 60
    assert report.warnings[0].startswith("only 0 % of all multiply-accumulates are integer")
    with pytest.raises(UnsupportedError, match="peephole"):
        compiled(model, given[:4], given[4:], "machine")


CELL = """x_t = Gather(x, t)  a = MatMul(x_t, W)  b = MatMul(h, R)  s = Add(a, b)  g = Add(s, B)
    gi, gf, gc, go = Split <axis = 1, num_outputs = 4> (g)  i = Sigmoid(gi)  f = Sigmoid(gf)  k = Tanh(gc)
    o = Sigmoid(go)  fc = Mul(f, c)  ik = Mul(i, k)  c_next = Add(fc, ik)  m = Tanh(c_next)  h_next = Mul(o, m)"""
LOOPS = {
    "as tf2onnx writes it": ("", ""),
    "without a trip count": ("(n1, start", "(, start"),
    "the last step left out": ("Less(t_next, n)", "Less(u, n)"),
    "every other step": ("one)  h_out", "two)  h_out"),
    "gates in another order": ("gi, gf, gc, go", "gf, gi, gc, go"),
    "an output that is not the state": ("y_t = Identity(h_next)", "y_t = Tanh(h_next)"),
}


def loop_of(change: tuple[str, str]) -> onnx.ModelProto:
    """An LSTM as a Loop over the steps of a sequence, with a state that is fed."""
    rng = np.random.default_rng(1)
    arrays = {
        "W": rng.standard_normal((INPUTS, 4 * HIDDEN)) * 0.4, "R": rng.standard_normal((HIDDEN, 4 * HIDDEN)) * 0.4,
        "B": rng.standard_normal(4 * HIDDEN) * 0.4,
    }  # fmt: skip
    body = f"""body (int64 count, bool go_on, int64 t, float[N, {HIDDEN}] h, float[N, {HIDDEN}] c)
        => (bool again, int64 t_out, float[N, {HIDDEN}] h_out, float[N, {HIDDEN}] c_out, float[N, {HIDDEN}] y_t) {{
        {CELL}  t_next = Add(t, one)  h_out = Identity(h_next)  c_out = Identity(c_next)  t_out = Identity(t_next)
        y_t = Identity(h_next)  u = Add(t_next, one)  again = Less(t_next, n) }}"""
    text = f"""<ir_version: 8, opset_import: ["" : 18]> g (float[N, T, {INPUTS}] z, float[N, {HIDDEN}] h0)
        => (float[T2, N, {HIDDEN}] y, float[N, {HIDDEN}] last) {{ x = Transpose <perm = [1, 0, 2]> (z)
        e = Shape(x)  n1 = Slice(e, from, to)  n = Squeeze(n1)  start = Less(zero, n)
        t_end, last, c_end, y = Loop <body = {body}> (n1, start, zero, h0, h0) }}"""
    assert change[0] in text
    model = onnx.parser.parse_model(text.replace(*change) if change[0] else text)
    whole = {"zero": 0, "one": 1, "two": 2, "from": [0], "to": [1]}
    for name, value in {**{k: v.astype(np.float32) for k, v in arrays.items()}, **whole}.items():
        array = np.asarray(value, None if isinstance(value, np.ndarray) else np.int64)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    return model


@pytest.mark.parametrize("case", LOOPS)
def test_a_loop_over_the_cell_of_an_lstm_is_one_and_others_stay(case: str) -> None:
    model = loop_of(LOOPS[case])
    graph = load_graph(model)
    Manager([ExpandOperators()]).run(graph, Context())
    ops = {node.op for node in graph.nodes}
    assert ("LSTM" in ops, "Loop" in ops) == ((True, False) if list(LOOPS).index(case) < 2 else (False, True))
    for length in (2, 5, 9):
        rng = np.random.default_rng(length)
        feed = {"z": rng.standard_normal((3, length, INPUTS)), "h0": rng.standard_normal((3, HIDDEN)) * 0.3}
        feed = {name: value.astype(np.float32) for name, value in feed.items()}
        expected = Runner(model).run(feed)
        for name, got in Runner(graph).run(feed).items():
            np.testing.assert_allclose(got, expected[name], atol=1e-5)


def test_a_loop_over_the_cell_of_an_lstm_runs_on_the_machine() -> None:
    feeds = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        feed = {"z": rng.standard_normal((2, 4 + seed % 3, INPUTS)), "h0": rng.uniform(-0.9, 0.9, (2, HIDDEN))}
        feeds.append({name: value.astype(np.float32) for name, value in feed.items()})
    decibels, _ = compiled(loop_of(("", "")), feeds[:9], feeds[9:], "machine")
    assert decibels > 25
