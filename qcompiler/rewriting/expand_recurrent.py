"""RNN, GRU and LSTM in the form that has integer kernels.

zeros as initial states or peepholes (made from sizes, mostly)   left out
layout 1 (batch first)                                           Transposes around layout 0
RNN with tanh                                                    a GRU whose update gate is closed
and whose reset gate is open:
z = sigmoid(-40) = 0, r = sigmoid(40) = 1 in float32,
h' = (1 - z) tanh(W x + b_w + r (R h + b_r)) + z h
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qcompiler.graph.ir import Node, Tensor, constant_of, producer
from qcompiler.graph.operators import MOVEMENT
from qcompiler.rewriting.node_writer import Results, Writer, given

_STATES = (5, 6)
_PEEPHOLES = 7
_CLOSED = 40.0


def is_zero(tensor: Tensor) -> bool:
    """True for a tensor of zeros, whatever its shape is."""
    value = constant_of(tensor)
    if value is not None:
        return not np.any(value)
    node = producer(tensor)
    if node is None:
        return False
    if node.op == "ConstantOfShape":
        fill = node.attrs.get("value")
        return fill is None or not np.any(fill.values)
    if node.op in (*MOVEMENT, "Cast", "CastLike", "Split"):
        return is_zero(node.inputs[0])
    if node.op == "Mul":
        return any(is_zero(operand) for operand in node.inputs)
    return node.op == "Concat" and all(is_zero(part) for part in node.inputs)


def recurrent(w: Writer, node: Node) -> Results:
    """One node, or the reason why its operator has no integer kernel."""
    zeros = [slot for slot in (*_STATES, _PEEPHOLES) if given(node, slot) is not None and is_zero(node.inputs[slot])]
    turned, plain = bool(node.attrs.get("layout", 0)), node.op == "RNN"
    if plain and _cell(node) != "Tanh":
        return f"its activation {_cell(node)} has no integer form"
    if plain and any(constant_of(given(node, slot)) is None for slot in (1, 2)):
        return "its weights are not constant"
    if not (zeros or turned or plain):
        return None
    inputs = [None if slot in zeros or not tensor.name else tensor for slot, tensor in enumerate(node.inputs)]
    attrs = {key: value for key, value in node.attrs.items() if key != "layout"}
    if turned:
        inputs = [
            _swapped(w, tensor) if slot in (0, *_STATES) and tensor is not None else tensor
            for slot, tensor in enumerate(inputs)
        ]
    op = "GRU" if plain else node.op
    if plain:
        inputs, attrs = _gated(w, node, inputs, attrs)
    outputs = w.ops(op, inputs, [bool(output.name) for output in node.outputs], **attrs)
    if not turned:
        return outputs
    perms = ([2, 0, 1, 3], [1, 0, 2], [1, 0, 2])
    return [None if y is None else w.op("Transpose", y, perm=perm) for y, perm in zip(outputs, perms, strict=False)]


def _swapped(w: Writer, tensor: Tensor) -> Tensor:
    return w.op("Transpose", tensor, perm=[1, 0, 2])


def _cell(node: Node) -> str:
    """The activation of an RNN; all that there are where the directions differ."""
    names = set(node.attrs.get("activations", ["Tanh"]))
    special = node.attrs.get("clip") or node.attrs.get("activation_alpha") or node.attrs.get("activation_beta")
    return "with parameters" if special else " and ".join(sorted(names))


def _gated(
    w: Writer, node: Node, inputs: list[Tensor | None], attrs: dict[str, Any]
) -> tuple[list[Tensor | None], dict[str, Any]]:
    """Inputs and attributes of the GRU that an RNN is: gates z, r and h."""
    hidden = int(node.attrs["hidden_size"])
    for slot, name in ((1, "weights"), (2, "recurrent_weights")):
        own = np.asarray(constant_of(node.inputs[slot]))
        none = np.zeros_like(own)
        inputs[slot] = w.constant(name, np.concatenate([none, none, own], axis=1))
    given_bias = constant_of(given(node, 3))
    directions = np.asarray(constant_of(node.inputs[1])).shape[0]
    bias = np.zeros((directions, 2 * hidden)) if given_bias is None else given_bias
    gates = np.zeros((directions, 6 * hidden))
    gates[:, :hidden], gates[:, hidden:2 * hidden] = -_CLOSED, _CLOSED
    gates[:, 2 * hidden:3 * hidden], gates[:, 5 * hidden:] = bias[:, :hidden], bias[:, hidden:]
    inputs = [*inputs, None][: max(len(inputs), 4)]
    inputs[3] = w.constant("bias", gates)
    kept = {key: value for key, value in attrs.items() if key in ("hidden_size", "direction")}
    return inputs, {**kept, "linear_before_reset": 1}
