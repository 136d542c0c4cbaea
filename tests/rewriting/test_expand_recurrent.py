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
