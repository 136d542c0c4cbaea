"""LSTM and GRU: one integer node a direction; runtime/kernels/recurrent.py defines its roundings.

Gate pre-activations are Q11, activations Q15 (tables of 65536 entries), the cell state Q16. The hidden state is int16
over [-1, 1], or over what the state that it begins with may be: its error goes through every later step. Where the
recurrent weights are so large that their products with 16 bits might leave int32, it lives on the grid of the output Y,
or of Y_h where Y is not read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Node, Tensor, consumers, read_spec
from qcompiler.lowering.code_grid import Coded, CodeGrid, Target
from qcompiler.lowering.constants import Weight, read_weight
from qcompiler.lowering.engine import Bounds, Lowering
from qcompiler.lowering.factors import fixed_point, fixed_points, requantized
from qcompiler.lowering.overflow_proof import prove_accumulator

_GATE_BITS, _CELL_BITS = 11, 16
_WIDE_LIMIT = 2**30 // 2**15
"""Largest sum of magnitudes of recurrent weights for which int16 states leave room for a bias of 2^30 in an int32
accumulator."""
_GRU_LIMIT = 2.0
"""Largest magnitude of a GRU's hidden state: its mixture with the gates' result, times a factor, stays within int64."""
_ACTIVATIONS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"]}
_GATES = {"LSTM": 4, "GRU": 3}


@dataclass(frozen=True)
class _Matrix:
    """One of the two products of a gate: weights [K, gates*H], int32 bias, factors to Q11."""

    codes: NDArray[np.int8]
    bias: NDArray[np.int32]
    m: NDArray[np.int64]
    n: NDArray[np.int64]


def lower_recurrent(lw: Lowering, node: Node, index: int, target: Target) -> Coded:
    """Rule of LSTM and GRU; all outputs are written when the first is wanted."""
    key = f"recurrent:{node.name}:{node.outputs[0].name}"
    if key not in lw.shared:
        lw.shared[key] = _lower_node(lw, node)
    source = lw.shared[key][index]
    output = node.outputs[index]
    if index == 2:
        return _cell_codes(lw, source.tensor, target, output)
    return requantized(lw.out, source, target, 1.0, output.shape)


def recurrent_bounds(lw: Lowering, node: Node) -> Bounds:
    """Hidden states are products of sigmoid and tanh, or of a GRU's first one."""
    reach = max(1.0, _first_reach(lw, node)) if node.op == "GRU" else 1.0
    return -reach, reach


def _first_reach(lw: Lowering, node: Node) -> float:
    """Largest magnitude of the hidden state that a node begins with, as far as it is held."""
    if not _given(lw, node, 5):
        return 0.0
    known, limit = lw.constants.value(node.inputs[5]), _GRU_LIMIT if node.op == "GRU" else np.inf
    if known is not None:
        return min(float(np.abs(known).max()), limit)
    source = lw.natural(node.inputs[5])
    return min(source.grid.scale * source.magnitude, limit)


def recurrent_grid(lw: Lowering, node: Node) -> CodeGrid:
    """The grid of the hidden state."""
    weight, reach = read_weight(lw.constants, node.inputs[2], 1), max(1.0, _first_reach(lw, node))
    if weight is None or np.abs(weight.codes.astype(np.int64)).sum(axis=2).max(initial=0) < _WIDE_LIMIT:
        return CodeGrid.covering(-reach, reach)
    for output in node.outputs[:2]:
        for reader in consumers(output) if output.name else []:
            spec = read_spec(reader) if reader.op == "QuantizeLinear" else None
            if spec is not None:
                return CodeGrid.from_spec(spec)
    return CodeGrid.covering(-reach, reach)


def _lower_node(lw: Lowering, node: Node) -> list[Coded]:
    """Codes of Y, Y_h and the int32 cell state Y_c."""
    _check(lw, node)
    x, grid = lw.natural(node.inputs[0]), recurrent_grid(lw, node)
    direction = str(node.attrs.get("direction", "forward"))
    count = 2 if direction == "bidirectional" else 1
    parts = [_lower_direction(lw, node, d, x, grid, reverse=direction == "reverse" or d == 1) for d in range(count)]
    results = []
    for index, output in enumerate(node.outputs[: len(parts[0])]):
        axis = 1 if index == 0 else 0
        pieces = [_unsqueezed(lw, part[index], axis, f"{node.name}_{index}") for part in parts]
        name = f"{output.name or node.name}_state{index}"
        whole = (
            pieces[0]
            if count == 1
            else lw.out.op("Concat", name, pieces, {"axis": axis}, pieces[0].dtype, output.shape)
        )
        results.append(Coded(whole, grid, grid.qmin, grid.qmax))
    return results


def _check(lw: Lowering, node: Node) -> None:
    attrs = node.attrs
    count = 2 if attrs.get("direction", "forward") == "bidirectional" else 1
    if list(attrs.get("activations", _ACTIVATIONS[node.op] * count)) != _ACTIVATIONS[node.op] * count:
        raise UnsupportedError(
            f"its activations are {attrs['activations']}; only {_ACTIVATIONS[node.op]} have an integer form"
        )
    if attrs.get("clip") or attrs.get("input_forget") or attrs.get("layout"):
        raise UnsupportedError("its attributes clip, input_forget and layout have no integer form")
    if len(node.inputs) > 7 and node.inputs[7].name:
        raise UnsupportedError("its peephole weights have no integer form")
    if any(lw.constants.value(tensor) is None for tensor in node.inputs[1:4] if tensor.name):
        raise UnsupportedError("its weights are not constant")


def _unsqueezed(lw: Lowering, tensor: Tensor, axis: int, name: str) -> Tensor:
    shape = None if tensor.shape is None else [*tensor.shape[:axis], 1, *tensor.shape[axis:]]
    return lw.out.op("Unsqueeze", name, [tensor, lw.out.int64("axes", [axis])], {}, tensor.dtype, shape)


def _lower_direction(
    lw: Lowering, node: Node, direction: int, x: Coded, grid: CodeGrid, *, reverse: bool
) -> list[Tensor]:
    """One LSTM or GRU node of the integer graph: y [T, B, H], h [B, H] and, for LSTM, c [B, H]."""
    hidden = int(node.attrs["hidden_size"])
    state = Coded(node.outputs[0], grid, grid.qmin, grid.qmax)
    bias = _biases(lw, node, direction, _GATES[node.op] * hidden)
    products = [_matrix(lw, node, slot, direction, source, bias[slot - 1]) for slot, source in ((1, x), (2, state))]
    steps, batch = node.inputs[0].shape[:2]
    tables = [
        lw.out.constant(f"{node.name}_{name}", table)
        for name, table in (("sigmoid", _sigmoid_table()), ("tanh", _tanh_table()))
    ]
    initial = _initial_state(lw, node, direction, grid)
    inputs: list[Tensor] = [x.tensor, initial, *(_constants(lw, node, products)), *tables]
    attrs: dict[str, Any] = {
        "reverse": int(reverse),
        "hidden_size": hidden,
        "x_zp": x.grid.zero_point,
        **_factor("h", 2.0**-30 / grid.scale),
    }
    prefix = f"{node.name}_{direction}"
    outputs = [
        lw.out.variable(f"{prefix}_y", grid.dtype, [steps, batch, hidden]),
        lw.out.variable(f"{prefix}_h", grid.dtype, [batch, hidden]),
    ]
    if node.op == "LSTM":
        inputs.append(_initial_cell(lw, node, direction))
        outputs.append(lw.out.variable(f"{prefix}_c", np.int32, [batch, hidden]))
    else:
        attrs |= {
            "linear_before_reset": int(node.attrs.get("linear_before_reset", 0)),
            **_factor("s", grid.scale * 2.0**15),
        }
    if len(node.inputs) > 4 and node.inputs[4].name:
        inputs.append(lw.integer(node.inputs[4]))
    lw.out.append(node.op, inputs, attrs | Target.whole(grid, "").attributes(), outputs)
    return list(outputs)


def _factor(name: str, factor: float) -> dict[str, int]:
    m, n = fixed_point(factor)
    return {f"m_{name}": m, f"n_{name}": n}


def _constants(lw: Lowering, node: Node, products: list[_Matrix]) -> list[Tensor]:
    w, r = products
    arrays: list[NDArray[Any]] = [w.codes, w.bias, w.m, w.n, r.codes, r.bias, r.m, r.n]
    names = ("w", "bias_w", "m_w", "n_w", "r", "bias_r", "m_r", "n_r")
    return [lw.out.constant(f"{node.name}_{name}", array) for name, array in zip(names, arrays, strict=True)]


def _biases(lw: Lowering, node: Node, direction: int, width: int) -> list[NDArray[np.float64]]:
    if len(node.inputs) <= 3 or not node.inputs[3].name:
        return [np.zeros(width), np.zeros(width)]
    both = np.asarray(lw.constants.value(node.inputs[3]), np.float64)[direction]
    return [both[:width], both[width:]]


def _matrix(lw: Lowering, node: Node, slot: int, direction: int, source: Coded, bias: NDArray[np.float64]) -> _Matrix:
    weight = read_weight(lw.constants, node.inputs[slot], 1)
    if weight is None:
        raise UnsupportedError(f"its weight '{node.inputs[slot].name}' is not constant")
    if weight.codes.dtype != np.dtype(np.int8):
        raise UnsupportedError("its weight codes minus the zero point exceed int8; quantize the weights symmetrically")
    codes = np.ascontiguousarray(weight.codes[direction].T)
    step = source.grid.scale * _scales(weight, direction)
    whole = np.rint(bias / step)
    if np.any(np.abs(whole) >= 2**30):
        raise UnsupportedError("its bias exceeds the range of its accumulator; its weights are too small beside it")
    prove_accumulator(codes.T, whole.astype(np.int64), source)
    m, n = fixed_points(step * 2.0**_GATE_BITS)
    return _Matrix(codes, whole.astype(np.int32), m, n)


def _scales(weight: Weight, direction: int) -> NDArray[np.float64]:
    """One scale per gate row of one direction."""
    rows = weight.codes.shape[1]
    if weight.axis == 1:
        return weight.scale
    if weight.axis in (None, 0):
        return np.full(rows, weight.scale[direction if weight.axis == 0 else 0])
    raise UnsupportedError("its weight has scales along its inputs; one per gate row is needed")


def _sigmoid_table() -> NDArray[np.int16]:
    return _q15(1.0 / (1.0 + np.exp(-np.arange(-32768, 32768) / 2.0**_GATE_BITS)))


def _tanh_table() -> NDArray[np.int16]:
    return _q15(np.tanh(np.arange(-32768, 32768) / 2.0**_GATE_BITS))


def _q15(values: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.clip(np.rint(values * 2.0**15), -32768, 32767).astype(np.int16)


def _given(lw: Lowering, node: Node, slot: int) -> bool:
    """True for an initial state other than constant zeros."""
    if len(node.inputs) <= slot or not node.inputs[slot].name:
        return False
    known = lw.constants.value(node.inputs[slot])
    return known is None or bool(np.any(known))


def _initial_state(lw: Lowering, node: Node, direction: int, grid: CodeGrid) -> Tensor:
    """Codes of h before the first step: [B, H]; one code [1, 1] where it is 0."""
    if not _given(lw, node, 5):
        return lw.out.constant(f"{node.name}_zero", np.full((1, 1), grid.zero_point, grid.dtype))
    source = lw.value(node.inputs[5], Target.whole(grid, f"{node.inputs[5].name}_state"))
    return _select(lw, source.tensor, direction, f"{node.name}_h{direction}")


def _initial_cell(lw: Lowering, node: Node, direction: int) -> Tensor:
    """The cell state before the first step, int32 in Q16."""
    if not _given(lw, node, 6):
        return lw.out.constant(f"{node.name}_zero_cell", np.zeros((1, 1), np.int32))
    source = lw.natural(node.inputs[6])
    m, n = fixed_point(source.grid.scale * 2.0**_CELL_BITS)
    attrs = {
        "x_zp": source.grid.zero_point,
        "m": m,
        "n": n,
        "y_zp": 0,
        "lo": -(1 << 31),
        "hi": (1 << 31) - 1,
        "dtype": "int32",
    }
    wide = lw.out.op(
        "Requantize", f"{node.name}_c{direction}_wide", [source.tensor], attrs, np.int32, node.inputs[6].shape
    )
    return _select(lw, wide, direction, f"{node.name}_c{direction}")


def _select(lw: Lowering, tensor: Tensor, direction: int, name: str) -> Tensor:
    shape = None if tensor.shape is None else list(tensor.shape[1:])
    index = lw.out.constant("direction", np.asarray(direction, np.int64))
    return lw.out.op("Gather", name, [tensor, index], {"axis": 0}, tensor.dtype, shape)


def _cell_codes(lw: Lowering, cell: Tensor, target: Target, output: Tensor) -> Coded:
    """Q16 cell states on the target's grid."""
    m, n = fixed_point(2.0**-_CELL_BITS / target.grid.scale)
    return lw.emit("QuantizeInteger", [cell], {"m": m, "n": n}, target, output.shape)

