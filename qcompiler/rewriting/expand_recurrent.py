"""RNN, GRU and LSTM in the form that has integer kernels.

zeros as initial states or peepholes (made from sizes, mostly)   left out
layout 1 (batch first)                                           Transposes around layout 0
RNN with tanh                                                    a GRU whose update gate is closed
and whose reset gate is open:
z = sigmoid(-40) = 0, r = sigmoid(40) = 1 in float32,
h' = (1 - z) tanh(W x + b_w + r (R h + b_r)) + z h
Loop over the steps of a sequence with the cell of an LSTM as body (tf2onnx)   an LSTM
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from qcompiler.graph.ir import Graph, Node, Tensor, constant_of, producer, subgraphs
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


class _Body:
    """The body of a Loop: what it carries from step to step, and what its tensors are."""

    def __init__(self, node: Node, body: Graph) -> None:
        self.carried, self.next = list(body.inputs[2:]), list(body.outputs[1:len(body.inputs) - 1])
        self.scanned = list(body.outputs[len(body.inputs) - 1:])
        self.counter, self.condition, self._first = body.inputs[0], body.outputs[0], list(node.inputs[2:])

    def source(self, tensor: Tensor) -> Tensor:
        """What a tensor is a copy of: of another one, or of what is outside, where every step passes it on."""
        node = producer(tensor)
        while node is not None and node.op in ("Identity", "Cast", "Squeeze", "Unsqueeze"):
            tensor, node = node.inputs[0], producer(node.inputs[0])
        place = self.place(tensor)
        passed = place is not None and (self.next[place] is tensor or producer_input(self.next[place]) is tensor)
        return self.source(self._first[place]) if place is not None and passed else tensor

    def place(self, tensor: Tensor) -> int | None:
        """Which of the carried tensors it is."""
        return next((place for place, each in enumerate(self.carried) if each is tensor), None)

    def first(self, place: int) -> Tensor:
        """What a carried tensor is before the first step."""
        return self._first[place]

    def value(self, tensor: Tensor) -> Any:
        """The constant that a tensor is; None for others."""
        return constant_of(self.source(tensor))

    def made_by(self, tensor: Tensor, op: str) -> list[Tensor]:
        """The inputs of the node of this operator that writes a tensor; none where another does."""
        node = producer(self.source(tensor))
        return list(node.inputs) if node is not None and node.op == op else []


def producer_input(tensor: Tensor) -> Tensor | None:
    """What an Identity that writes ``tensor`` reads."""
    node = producer(tensor)
    return node.inputs[0] if node is not None and node.op == "Identity" else None


def lstm_of_loop(w: Writer, node: Node) -> Results:
    """An LSTM in the place of a Loop whose body is its cell; None for other loops."""
    body = _Body(node, subgraphs(node)[0])
    found = _cell_of(body)
    if found is None:
        return None
    hidden, cell, gates, output = found
    terms = [body.made_by(term, "MatMul") for term in _summands(body, gates)]
    bias = [body.value(term) for term in _summands(body, gates) if not body.made_by(term, "MatMul")]
    of_state = [term for term in terms if term and body.place(term[0]) == hidden]
    of_input = [term for term in terms if term and body.place(term[0]) != hidden]
    if len(of_state) != 1 or len(of_input) != 1 or any(value is None for value in bias):
        return None
    weights, recurrent_weights = body.value(of_input[0][1]), body.value(of_state[0][1])
    x = _steps_of(node, body, of_input[0][0])
    read = [place for place in range(len(body.carried)) if w.is_read(node.outputs[place])]
    if x is None or weights is None or recurrent_weights is None or not set(read) <= {hidden, cell}:
        return None
    if not all(body.source(tensor) is body.source(output) for tensor in body.scanned):
        return None
    return _written(w, node, body, (hidden, cell), x, (weights, recurrent_weights), sum(bias))


def _cell_of(body: _Body) -> tuple[int, int, Tensor, Tensor] | None:
    """Places of the hidden state and of the cell's, the sum of the gates (in the order i f c o), the new state."""
    for hidden, tensor in enumerate(body.next):
        for out, squashed in _both_ways(body.made_by(tensor, "Mul")):
            for new in body.made_by(squashed, "Tanh"):
                cells = [place for place, each in enumerate(body.next) if body.source(each) is body.source(new)]
                cell = cells[0] if cells else None
                parts = None if cell is None else _gates_of(body, new, body.carried[cell], out)
                if parts is not None and cell is not None:
                    return hidden, cell, parts, tensor
    return None


def _gates_of(body: _Body, new: Tensor, old: Tensor, out: Tensor) -> Tensor | None:
    """What is split into the four gates where ``new`` is sigmoid(f) ``old`` + sigmoid(i) tanh(c), and ``out`` is
    sigmoid(o).
    """
    for kept, added in _both_ways(body.made_by(new, "Add")):
        for forget, state in _both_ways(body.made_by(kept, "Mul")):
            for enter, value in _both_ways(body.made_by(added, "Mul")):
                gates = [
                    next(iter(body.made_by(tensor, op)), None)
                    for tensor, op in ((enter, "Sigmoid"), (forget, "Sigmoid"), (value, "Tanh"), (out, "Sigmoid"))
                ]
                if state is old and all(gate is not None for gate in gates):
                    split = producer(gates[0])
                    if split is not None and split.op == "Split" and len(split.outputs) == 4 and all(
                        gate is part for gate, part in zip(gates, split.outputs, strict=True)
                    ):
                        return split.inputs[0]
    return None


def _both_ways(operands: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    if len(operands) == 2:
        yield operands[0], operands[1]
        yield operands[1], operands[0]


def _summands(body: _Body, total: Tensor) -> list[Tensor]:
    operands = body.made_by(total, "Add")
    return [term for operand in operands for term in _summands(body, operand)] if operands else [total]


def _steps_of(node: Node, body: _Body, step: Tensor) -> Tensor | None:
    """The sequence whose steps the Loop takes one after the other, all of them; None where it is not sure to."""
    picked = producer(step)
    if picked is None or picked.op != "Gather" or picked.attrs.get("axis", 0) != 0:
        return None
    x, time = body.source(picked.inputs[0]), picked.inputs[1]
    place = body.place(time)
    if time is not body.counter and (place is None or not _counts(body, place)):
        return None
    following = None if place is None else body.source(body.next[place])
    counters = {id(each) for each in (body.counter, time, following) if each is not None}
    limits = _limits(body, body.condition, counters)
    if limits is None or not all(_is_length(body, limit, x) for limit in limits):
        return None
    most = node.inputs[0] if node.inputs[0].name else None
    if most is not None and not _is_length(body, most, x):
        return None
    return x if (most is not None or limits) and _begins(node.inputs[1], body, x) else None


def _counts(body: _Body, place: int) -> bool:
    """A carried number begins with 0 and grows by 1."""
    first = body.value(body.first(place))
    steps = [body.value(other) for tensor, other in _both_ways(body.made_by(body.next[place], "Add"))
             if tensor is body.carried[place]]  # fmt: skip
    return first is not None and not np.any(first) and len(steps) == 1 and steps[0] is not None and bool(steps[0] == 1)


def _limits(body: _Body, condition: Tensor, counters: set[int]) -> list[Tensor] | None:
    """The numbers below which one of ``counters`` must be for another step; None for another condition."""
    value = body.value(condition)
    if value is not None:
        return [] if np.all(value) else None
    both = body.made_by(condition, "And")
    if both:
        parts = [_limits(body, part, counters) for part in both]
        return None if any(part is None for part in parts) else [each for part in parts for each in part or []]
    compared = body.made_by(condition, "Less")
    return [compared[1]] if compared and id(body.source(compared[0])) in counters else None


def _is_length(body: _Body, tensor: Tensor, x: Tensor) -> bool:
    """Whether a number is the size of the first axis of ``x``."""
    source = producer(body.source(tensor))
    if source is None or source.op not in ("Slice", "Gather"):
        return False
    shape = producer(body.source(source.inputs[0]))
    values = [constant_of(each) for each in source.inputs[1:]]
    wanted = [0] if source.op == "Gather" else [0, 1, 0, 1][: len(values)]
    return (
        shape is not None and shape.op == "Shape" and body.source(shape.inputs[0]) is x
        and shape.attrs.get("start", 0) == 0
        and all(value is not None and value.reshape(-1).tolist() == [one]
                for value, one in zip(values, wanted, strict=True))
    )  # fmt: skip


def _begins(condition: Tensor, body: _Body, x: Tensor) -> bool:
    """Whether the first step is taken where there is one."""
    value, node = constant_of(condition), producer(condition)
    if value is not None:
        return bool(np.all(value))
    if not condition.name:
        return True
    if node is not None and node.op == "And":
        return all(_begins(each, body, x) for each in node.inputs)
    if node is None or node.op != "Less":
        return False
    first = constant_of(body.source(node.inputs[0]))
    return first is not None and not np.any(first) and _is_length(body, node.inputs[1], x)


def _written(
    w: Writer, node: Node, body: _Body, places: tuple[int, int], x: Tensor, own: tuple[Any, Any], bias: Any
) -> Results:
    """The LSTM, its gates in the order i o f c, and its outputs as the Loop's."""
    size = own[1].shape[0]
    order = np.concatenate([np.arange(size) + size * gate for gate in (0, 3, 1, 2)])
    both = np.zeros((1, 8 * size))
    both[0, :4 * size] = np.broadcast_to(np.asarray(bias).reshape(-1), 4 * size)[order]
    inputs = [
        x, *(w.constant(name, each.T[order][None]) for name, each in zip(("weights", "recurrent"), own, strict=True)),
        w.constant("bias", both), None,
        *(w.op("Unsqueeze", body.first(place), w.int64("axis", [0])) for place in places),
    ]  # fmt: skip
    y, *states = w.ops("LSTM", inputs, [True, True, True], hidden_size=size)
    results: list[Tensor | None] = [None] * len(node.outputs)
    for place, state in zip(places, states, strict=True):
        results[place] = w.op("Squeeze", state, w.int64("axis", [0])) if w.is_read(node.outputs[place]) else None
    for place in range(len(body.carried), len(node.outputs)):
        results[place] = w.op("Squeeze", y, w.int64("axis", [1]))
    return results
