"""Add, Sub, Mul, Div, Min, Max, Where and PRelu of two tensors that both vary, or of one and a constant tensor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qcompiler.errors import UnsupportedError
from qcompiler.graph.ir import Node, Tensor
from qcompiler.lowering.code_grid import Coded, CodeGrid, Target, common_factors
from qcompiler.lowering.constants import Array
from qcompiler.lowering.engine import Bounds, Lowering
from qcompiler.lowering.factors import wide_fixed_point
from qcompiler.lowering.fill_codes import holds_choice
from qcompiler.lowering.rules.linear import with_bias
from qcompiler.lowering.rules.operands import operand
from qcompiler.lowering.rules.products import bounds_of, emit_layer


def lower_binary(lw: Lowering, node: Node, target: Target) -> Coded:
    """Codes of a node with two varying operands, or a varying one and a constant tensor."""
    rule = _RULES.get(node.op)
    inputs = [tensor for tensor in node.inputs if tensor.name]
    if rule is None or len(inputs) not in (2, 3):
        raise UnsupportedError(f"{node.op} of {len(inputs)} varying tensors has no integer form")
    return rule(lw, node, target)


def _scaled_terms(
    lw: Lowering, kind: str, node: Node, terms: tuple[Tensor, Tensor], target: Target, sign: float = 1.0
) -> Coded:
    """Add, Min and Max: both operands scaled to one common factor, one rounding."""
    (a, a_factor), (b, b_factor) = (operand(lw, tensor) for tensor in terms)
    step = target.grid.scale
    (a_m, b_m), n = common_factors([a_factor * a.grid.scale / step, sign * b_factor * b.grid.scale / step])
    attrs = {"a_zp": a.grid.zero_point, "b_zp": b.grid.zero_point, "a_m": a_m, "b_m": b_m, "n": n}
    return lw.emit(kind, [a.tensor, b.tensor], attrs, target, node.outputs[0].shape)


def _add(lw: Lowering, node: Node, target: Target) -> Coded:
    if len(node.inputs) != 2:
        raise UnsupportedError(f"{node.op} of {len(node.inputs)} tensors; write it as a chain of Add")
    layer = with_bias(lw, node)
    if layer is not None:
        return emit_layer(lw, layer, node.outputs[0], target)
    return _scaled_terms(lw, "Add", node, (node.inputs[0], node.inputs[1]), target)


def _sub(lw: Lowering, node: Node, target: Target) -> Coded:
    return _scaled_terms(lw, "Add", node, (node.inputs[0], node.inputs[1]), target, sign=-1.0)


def _extreme(lw: Lowering, node: Node, target: Target) -> Coded:
    if len(node.inputs) != 2:
        raise UnsupportedError(f"{node.op} of {len(node.inputs)} tensors; write it as a chain of {node.op} of two")
    return _scaled_terms(lw, node.op, node, (node.inputs[0], node.inputs[1]), target)


def multiply(lw: Lowering, pair: tuple[tuple[Coded, float], tuple[Coded, float]], node: Node, target: Target) -> Coded:
    """Mul of two code tensors, each with a real factor; the result has the shape of ``node``'s output."""
    (a, a_factor), (b, b_factor) = pair
    factor = a_factor * b_factor * a.grid.scale * b.grid.scale / target.grid.scale
    m, n = wide_fixed_point(factor, a.magnitude * b.magnitude)
    attrs = {"a_zp": a.grid.zero_point, "b_zp": b.grid.zero_point, "m": m, "n": n}
    return lw.emit("Mul", [a.tensor, b.tensor], attrs, target, node.outputs[0].shape)


def _mul(lw: Lowering, node: Node, target: Target) -> Coded:
    pair = operand(lw, node.inputs[0]), operand(lw, node.inputs[1])
    return multiply(lw, pair, node, target)


def _div(lw: Lowering, node: Node, target: Target) -> Coded:
    divisor = lw.constants.value(node.inputs[1])
    if divisor is not None:
        if np.any(divisor == 0.0):
            raise UnsupportedError(f"it divides by zeros in the constant '{node.inputs[1].name}'")
        return multiply(lw, (operand(lw, node.inputs[0]), (_fine_constant(lw, node, 1.0 / divisor), 1.0)), node, target)
    (a, a_factor), (b, b_factor) = (operand(lw, tensor) for tensor in node.inputs)
    (m,), n = common_factors([a_factor * a.grid.scale / (b_factor * b.grid.scale * target.grid.scale)])
    attrs = {"a_zp": a.grid.zero_point, "b_zp": b.grid.zero_point, "m": m, "n": n}
    return lw.emit("Div", [a.tensor, b.tensor], attrs, target, node.outputs[0].shape)


def _fine_constant(lw: Lowering, node: Node, values: Array) -> Coded:
    grid = CodeGrid.covering(float(values.min()), float(values.max()))
    return lw.constant(values, Target.whole(grid, f"{node.name or node.outputs[0].name}_constant"))


def _where(lw: Lowering, node: Node, target: Target) -> Coded:
    condition = lw.integer(node.inputs[0])
    (a, a_factor), (b, b_factor) = (_branch(lw, tensor, target) for tensor in node.inputs[1:])
    step = target.grid.scale
    (a_m, b_m), n = common_factors([a_factor * a.grid.scale / step, b_factor * b.grid.scale / step])
    attrs = {"a_zp": a.grid.zero_point, "b_zp": b.grid.zero_point, "a_m": a_m, "b_m": b_m, "n": n}
    return lw.emit("Where", [condition, a.tensor, b.tensor], attrs, target, node.outputs[0].shape)


def _branch(lw: Lowering, tensor: Tensor, target: Target) -> tuple[Coded, float]:
    """A branch of Where; a constant one, and what holds constants among data, is put on the target's grid (-inf
    saturates).
    """
    known = lw.constants.value(tensor)
    if known is None and holds_choice(tensor):
        return lw.value(tensor, Target(target.grid, target.lo, target.hi, f"{tensor.name}_codes")), 1.0
    if known is None:
        return operand(lw, tensor)
    return lw.constant(known, Target(target.grid, target.lo, target.hi, tensor.name)), 1.0


def _prelu(lw: Lowering, node: Node, target: Target) -> Coded:
    """PRelu with one slope per channel, ``Where(x > 0, x, slope * x)``: the sum of two halves of which one is 0."""
    x = lw.natural(node.inputs[0])
    slope = lw.constants.value(node.inputs[1])
    if slope is None:
        raise UnsupportedError(f"its slope '{node.inputs[1].name}' is not constant")
    zero, shape = x.grid.zero_point, node.outputs[0].shape
    halves = []
    for name, lo, hi in (("positive", zero, x.grid.qmax), ("negative", x.grid.qmin, zero)):
        attrs = {"x_zp": zero, "m": 1 << 30, "n": 30}
        halves.append(lw.emit("Requantize", [x.tensor], attrs, Target(x.grid, lo, hi, f"{target.name}_{name}"), shape))
    largest = float(np.abs(slope).max(initial=0.0)) * max(abs(v) for v in x.bounds)
    grid = CodeGrid.covering(-largest, largest)
    steep = multiply(
        lw, ((halves[1], 1.0), (_fine_constant(lw, node, slope), 1.0)), node, Target.whole(grid, f"{target.name}_slope")
    )
    step = target.grid.scale
    (a_m, b_m), n = common_factors([x.grid.scale / step, grid.scale / step])
    attrs = {"a_zp": zero, "b_zp": 0, "a_m": a_m, "b_m": b_m, "n": n}
    return lw.emit("Add", [halves[0].tensor, steep.tensor], attrs, target, shape)


_RULES: dict[str, Callable[[Lowering, Node, Target], Coded]] = {
    "Add": _add,
    "Sum": _add,
    "Sub": _sub,
    "Mul": _mul,
    "Div": _div,
    "Min": _extreme,
    "Max": _extreme,
    "Where": _where,
    "PRelu": _prelu,
}


def binary_bounds(lw: Lowering, node: Node) -> Bounds:
    """Range of a node with two varying operands, by interval arithmetic."""
    if node.op in ("Add", "Sum"):
        layer = with_bias(lw, node) if len(node.inputs) == 2 else None
        if layer is not None:
            return bounds_of(lw, layer)
    parts = [lw.bounds(tensor) for tensor in (node.inputs[1:] if node.op == "Where" else node.inputs)]
    lows, highs = [low for low, _ in parts], [high for _, high in parts]
    if node.op in ("Add", "Sum"):
        return sum(lows), sum(highs)
    if node.op == "Sub":
        return lows[0] - highs[1], highs[0] - lows[1]
    if node.op == "Where":
        return min(lows), max(highs)
    if node.op in ("Min", "Max"):
        pick = min if node.op == "Min" else max
        return pick(lows), pick(highs)
    if node.op == "PRelu":
        parts = [parts[0], (min(0.0, lows[1]), max(1.0, highs[1]))]
    elif node.op == "Div" and not lows[1] <= 0.0 <= highs[1]:
        parts = [parts[0], (1.0 / highs[1], 1.0 / lows[1])]
    elif node.op != "Mul":
        raise UnsupportedError(
            "the range of its result is unknown; put a QuantizeLinear/DequantizeLinear pair behind it"
        )
    corners = [a * b for a in parts[0] for b in parts[1]]
    return min(corners), max(corners)
