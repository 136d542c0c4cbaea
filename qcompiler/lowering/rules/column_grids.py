"""Grids per column at the border of the machine: scalers of inputs, and outputs that are joined from parts.

A scaler ``y = a x + c`` with a number per column in front of a grid ``q = round(y / s) + z`` is a grid of the input
itself, ``q = round(x / (s / a)) + z + round(c / s)``; the offset is off by at most half a step. Parts of an output keep
their codes and their scales.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.graph.ir import Node, Tensor, Variable, is_float, producer
from qcompiler.lowering.code_grid import Coded, CodeGrid, Target
from qcompiler.lowering.engine import Border, Lowering
from qcompiler.lowering.factors import requantized
from qcompiler.lowering.fill_codes import filled_output

Array = NDArray[Any]

MAX_ZERO_POINT = 1 << 24
"""float32, in which the border adds a zero point, holds every integer up to that."""


@dataclass(frozen=True, eq=False)
class Scaled:
    """``factor * x + offset`` of a graph input, or of several joined.

    factor, offset: float64 arrays that broadcast to its shape from the right.
    """

    source: Tensor
    factor: Array
    offset: Array


def scaled_input(lw: Lowering, tensor: Tensor) -> Scaled | None:
    """Sums and products with constants of a float graph input, as one scale and shift; None for anything else."""
    node = producer(tensor)
    if node is None or node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    values = [lw.constants.value(each) for each in node.inputs]
    if sum(value is None for value in values) != 1:
        return None
    slot = 0 if values[0] is None else 1
    constant = np.asarray(values[1 - slot], np.float64)
    source = node.inputs[slot]
    before = scaled_input(lw, source)
    if before is None:
        if not all(_is_given(lw, part) for part in _parts(source)):
            return None
        before = Scaled(source, np.ones(()), np.zeros(()))
    return _behind(node, slot, before, constant)


def _parts(tensor: Tensor) -> list[Tensor]:
    """The inputs that are joined in a tensor; the tensor itself where it is no Concat."""
    node = producer(tensor)
    return list(node.inputs) if node is not None and node.op == "Concat" else [tensor]


def _is_given(lw: Lowering, tensor: Tensor) -> bool:
    return producer(tensor) is None and is_float(tensor) and any(tensor is given for given in lw.source.inputs)


def _behind(node: Node, slot: int, before: Scaled, constant: Array) -> Scaled | None:
    if node.op == "Add":
        return replace(before, offset=before.offset + constant)
    if node.op == "Sub":
        return replace(before, offset=before.offset - constant) if slot == 0 else None
    if node.op == "Div" and (slot or not np.all(constant)):
        return None
    factor = constant if node.op == "Mul" else 1 / constant
    return replace(before, factor=before.factor * factor, offset=before.offset * factor)


def quantize_scaled(lw: Lowering, tensor: Tensor, target: Target) -> Coded | None:
    """The codes of a scaled graph input, quantized at the border; None where no grid per column says it."""
    found = scaled_input(lw, tensor)
    if (
        found is None
        or tensor.shape is None
        or found.source.shape is None
        or len(tensor.shape) != len(found.source.shape)
    ):
        return None
    grid = target.grid
    if (target.lo, target.hi) != (grid.qmin, grid.qmax):
        plain = quantize_scaled(lw, tensor, Target.whole(grid, f"{tensor.name}_codes"))
        return None if plain is None else requantized(lw.out, plain, target, 1.0, tensor.shape)
    axis = _column_axis(found, tensor.shape)
    zeros = grid.zero_point + np.rint(found.offset / grid.scale)
    if axis is None or np.any(found.factor <= 0) or np.any(np.abs(zeros) > MAX_ZERO_POINT):
        return None
    columns = int(tensor.shape[axis])
    scale, zero = (
        np.broadcast_to(each.reshape(-1), (columns,)).tolist()
        for each in (grid.scale / found.factor, zeros.astype(np.int64))
    )
    codes = _columns_quantized(lw, found.source, tensor, axis, (scale, zero), target)
    return None if codes is None else Coded(codes, grid, grid.qmin, grid.qmax)


def _columns_quantized(
    lw: Lowering, source: Tensor, tensor: Tensor, axis: int, columns: tuple[list[float], list[int]], target: Target
) -> Tensor | None:
    """Codes of a graph input, or of several joined along the axis of the columns; None along another."""
    parts, dtype, first = _parts(source), target.grid.dtype, 0
    node = producer(source)
    if node is not None and int(node.attrs["axis"]) % len(tensor.shape or ()) != axis:
        return None
    sizes = [part.shape[axis] for part in parts]
    if not all(isinstance(size, int | np.integer) for size in sizes):
        return None
    codes = []
    for part, size in zip(parts, sizes, strict=True):
        scale, zero = (each[first:first + int(size)] for each in columns)
        name = target.name if node is None else f"{target.name}_{part.name}"
        attrs = {"scale": scale, "zp": zero, "axis": axis, "dtype": dtype}
        codes.append(lw.out.op("Quantize", name, [lw.integers[id(part)]], attrs, dtype, part.shape))
        first += int(size)
    if node is None:
        return codes[0]
    return lw.out.op("Concat", target.name, codes, {"axis": axis}, dtype, tensor.shape)


def _column_axis(found: Scaled, shape: Any) -> int | None:
    """The one axis along which factor and offset differ; None where there are several, or it has no fixed length."""
    rank = len(shape)
    sizes = [(1,) * (rank - each.ndim) + each.shape for each in (found.factor, found.offset) if each.ndim <= rank]
    axes = {axis for size in sizes for axis, length in enumerate(size) if length > 1} or {rank - 1}
    if len(sizes) != 2 or len(axes) != 1:
        return None
    axis = axes.pop()
    return axis if isinstance(shape[axis], int | np.integer) and shape[axis] > 0 else None


def joined_output(lw: Lowering, tensor: Tensor) -> Tensor | None:
    """An output that a Concat of codes on several grids makes, dequantized column by column; None for any other."""
    node = producer(tensor)
    if node is None or node.op != "Concat" or tensor.shape is None:
        return None
    axis = int(node.attrs["axis"]) % len(tensor.shape)
    sizes = [None if part.shape is None else part.shape[axis] for part in node.inputs]
    if not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        return None
    parts = [_sixteen_bits(lw, lw.natural(part), part) for part in node.inputs]
    if len({part.grid for part in parts}) == 1:
        return None
    codes = lw.out.op(
        "Concat",
        f"{tensor.name}_codes",
        [part.tensor for part in parts],
        {"axis": axis},
        parts[0].grid.dtype,
        tensor.shape,
    )
    scale, zero = ([value for value, size in zip(values, sizes, strict=True) for _ in range(int(size))] for values in (  # type: ignore[arg-type]
        [part.grid.scale for part in parts], [part.grid.zero_point for part in parts],
    ))
    result = Variable(tensor.name, dtype=tensor.dtype, shape=tensor.shape)
    lw.out.append("Dequantize", [codes], {"scale": scale, "zp": zero, "axis": axis}, [result])
    return result


def _sixteen_bits(lw: Lowering, codes: Coded, part: Tensor) -> Coded:
    """Codes of 16 bits, which all parts have."""
    if codes.grid.dtype == "int16":
        return codes
    low, high = (codes.grid.scale * (end - codes.grid.zero_point) for end in (codes.grid.qmin, codes.grid.qmax))
    return requantized(lw.out, codes, Target.whole(CodeGrid.covering(low, high), f"{part.name}_wide"), 1.0, part.shape)


def leave(lw: Lowering, tensor: Tensor) -> Tensor | None:
    """An output with fills, or on several grids; None for any other."""
    filled = filled_output(lw, tensor)
    return joined_output(lw, tensor) if filled is None else filled


COLUMNS = Border(quantize_scaled, leave)
