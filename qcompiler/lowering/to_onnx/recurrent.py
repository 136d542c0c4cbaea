"""LSTM and GRU as standard integer ONNX: a Scan whose body is the arithmetic of runtime/kernels/recurrent.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from qcompiler.graph.ir import Node, Tensor, Variable
from qcompiler.lowering.to_onnx.products import Part, split_bytes, sum_of_products, weight_part
from qcompiler.lowering.to_onnx.writer import Array, OnnxWriter

_INT32 = (-(1 << 31), (1 << 31) - 1)
_ONE = 1 << 15


@dataclass(frozen=True)
class _Cell:
    """What the body of a recurrent node needs: its attributes and constants."""

    op: str
    hidden: int
    attrs: dict[str, Any]
    w: list[Array]
    r: list[Array]
    sigmoid: Array
    tanh: Array

    @property
    def zero(self) -> int:
        """Zero point of the hidden state."""
        return int(self.attrs["y_zp"])


def write_recurrent(writer: OnnxWriter, node: Node) -> None:
    """LSTM and GRU of one direction."""
    x, initial, *constants = node.inputs
    arrays = [np.asarray(tensor.values) for tensor in constants[:10]]
    cell = _Cell(
        node.op, int(node.attrs["hidden_size"]), dict(node.attrs), arrays[:4], arrays[4:8], arrays[8], arrays[9]
    )
    rest = list(constants[10:])
    source = writer.tensor(x)
    shape = writer.emit("Shape", [source])
    wanted = writer.emit(
        "Concat", [writer.emit("Slice", [shape, np.array([1]), np.array([2])]), np.array([cell.hidden])], axis=0
    )
    starts = [initial, rest.pop(0)] if node.op == "LSTM" else [initial]
    states: list[Tensor] = [writer.emit("Expand", [writer.wide(writer.tensor(tensor)), wanted]) for tensor in starts]
    steps = writer.emit(
        "Range",
        [
            np.int64(0),
            writer.emit("Squeeze", [writer.emit("Slice", [shape, np.array([0]), np.array([1])])]),
            np.int64(1),
        ],
    )
    lengths = writer.wide(writer.tensor(rest[0])) if rest else None
    results = _scan(writer, node, cell, states, [source, steps], lengths)
    for output, result in zip(node.outputs, [results[-1], *results[:-1]], strict=True):
        writer.finish(output, writer.emit("Cast", [result], output.dtype, to=writer.type_of(output.dtype)))


def _scan(
    writer: OnnxWriter, node: Node, cell: _Cell, states: list[Tensor], scanned: list[Tensor], lengths: Tensor | None
) -> list[Variable]:
    """The Scan node; returns its final states and the sequence of hidden states."""
    body = OnnxWriter(writer.graph, f"{node.name}/")
    body.graph.name = f"{node.name}_step"
    befores = [Variable(f"{node.name}_{name}_before", np.int64) for name in "hc"[: len(states)]]
    x, step = Variable(f"{node.name}_x_step", scanned[0].dtype), Variable(f"{node.name}_position", np.int64)
    after = _lstm(body, cell, x, befores) if cell.op == "LSTM" else _gru(body, cell, x, befores[0])
    shown: Tensor = after[0]
    if lengths is not None:
        runs = body.emit("Unsqueeze", [body.test("Less", step, lengths), np.array([1])], bool)
        silence = min(max(cell.zero, int(cell.attrs["lo"])), int(cell.attrs["hi"]))
        shown = body.where(runs, after[0], silence)
        after = [body.where(runs, new, old) for new, old in zip(after, befores, strict=True)]
    finals = [body.emit("Identity", [tensor]) for tensor in (*after, shown)]
    body.graph.inputs, body.graph.outputs = [*befores, x, step], finals
    results = [writer.variable(f"{node.name}_{name}", np.int64) for name in ("h", "c", "y")[: len(states)]]
    results.append(writer.variable(f"{node.name}_sequence", np.int64))
    backwards = int(cell.attrs["reverse"])
    attrs = {
        "body": body.graph,
        "num_scan_inputs": 2,
        "scan_input_directions": [backwards] * 2,
        "scan_output_directions": [backwards],
    }
    writer.graph.nodes.append(Node("Scan", f"{node.name}_scan", attrs, [*states, *scanned], results))
    return results


def _project(body: OnnxWriter, values: list[Part], parameters: list[Array], columns: slice) -> Tensor:
    """Gate pre-activations in Q11: products, bias, one factor per column."""
    weight, bias, m, n = (array[..., columns] for array in parameters)
    total = sum_of_products(body, "MatMulInteger", values, weight_part(body, weight))
    scaled = body.mul(body.add(total, bias.astype(np.int64)), m.astype(np.int64))
    return body.round_shift_by(scaled, np.left_shift(np.int64(1), n.astype(np.int64)))


def _activate(body: OnnxWriter, table: Array, value: Tensor) -> Tensor:
    index = body.add(body.clip(value, -(1 << 15), (1 << 15) - 1), 1 << 15)
    return body.emit("Gather", [body.constant(table.astype(np.int64)), index], axis=0)


def _gate(cell: _Cell, index: int) -> slice:
    return slice(index * cell.hidden, (index + 1) * cell.hidden)


def _codes(body: OnnxWriter, cell: _Cell, state: Tensor) -> list[Part]:
    """Hidden state codes as operands of products."""
    return split_bytes(body, body.cast(state, cell.attrs["dtype"]), cell.zero)


def _hidden_code(body: OnnxWriter, cell: _Cell, value: Tensor) -> Tensor:
    """A Q30 number as a code of the hidden state."""
    code = body.requant(value, int(cell.attrs["m_h"]), int(cell.attrs["n_h"]))
    return body.clip(body.add(code, cell.zero), int(cell.attrs["lo"]), int(cell.attrs["hi"]))


def _lstm(body: OnnxWriter, cell: _Cell, x: Tensor, before: list[Variable]) -> list[Tensor]:
    h, c = before
    inputs, state = split_bytes(body, x, int(cell.attrs["x_zp"])), _codes(body, cell, h)
    gates = [
        body.add(_project(body, inputs, cell.w, _gate(cell, k)), _project(body, state, cell.r, _gate(cell, k)))
        for k in range(4)
    ]
    i, o, f = (_activate(body, cell.sigmoid, gate) for gate in gates[:3])
    g = _activate(body, cell.tanh, gates[3])
    total = body.add(body.mul(f, c), body.mul(body.mul(i, g), 2))
    new = body.clip(body.round_shift(total, 15), *_INT32)
    squashed = _activate(body, cell.tanh, body.shift(body.add(new, 1 << 4), 5))
    return [_hidden_code(body, cell, body.mul(o, squashed)), new]


def _gru(body: OnnxWriter, cell: _Cell, x: Tensor, h: Tensor) -> list[Tensor]:
    inputs, state = split_bytes(body, x, int(cell.attrs["x_zp"])), _codes(body, cell, h)
    z, r = (
        _activate(
            body,
            cell.sigmoid,
            body.add(_project(body, inputs, cell.w, _gate(cell, k)), _project(body, state, cell.r, _gate(cell, k))),
        )
        for k in range(2)
    )
    centred = body.sub(h, cell.zero)
    if int(cell.attrs["linear_before_reset"]):
        reset = body.round_shift(body.mul(r, _project(body, state, cell.r, _gate(cell, 2))), 15)
    else:
        kept = body.add(body.round_shift(body.mul(r, centred), 15), cell.zero)
        kept = body.clip(kept, int(cell.attrs["lo"]), int(cell.attrs["hi"]))
        reset = _project(body, _codes(body, cell, kept), cell.r, _gate(cell, 2))
    g = _activate(body, cell.tanh, body.add(_project(body, inputs, cell.w, _gate(cell, 2)), reset))
    old = body.requant(centred, int(cell.attrs["m_s"]), int(cell.attrs["n_s"]))
    return [_hidden_code(body, cell, body.add(body.mul(z, old), body.mul(body.emit("Sub", [_ONE, z]), g)))]
