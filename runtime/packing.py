"""Packs the weights of matrix products for this CPU, once, when a program is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .instruction import Element
from .opcodes import BY_NUMBER
from .plan import Bound
from .program import Program
from .simd import LANES, Isa

Packed = NDArray[np.uint8]
_ALIGNMENT = 64


def pack_program(program: Program, bound: Bound, isa: Isa) -> dict[int, Packed]:
    """Packed weights by instruction, for those that have a packed kernel; kept by the program for later bindings."""
    if isa is Isa.PLAIN:
        return {}
    packed: dict[int, Packed] = {}
    for index in range(len(bound.code)):
        opcode = BY_NUMBER[int(bound.code[index, 0])]
        fields = opcode.row(bound.code[index].tolist())
        size = product_size(opcode.name, fields)
        if size is None:
            continue
        group = 4 if isa.has_quads and fields["x_type"] == Element.U8 else 2
        constants = tuple(int(program.code[index, opcode.position(name)]) for name in ("w", "bias", "m", "n"))
        key = (*constants, *size, group)
        if key not in program.packed:
            program.packed[key] = _pack(program, constants, size, group)
        packed[index] = program.packed[key]
    return packed


def product_size(opcode: str, fields: Mapping[str, int]) -> tuple[int, int] | None:
    """``(k, cols)`` of an instruction that is one matrix product with constant weights, else None."""
    if opcode == "gemm" and fields["k"] > 0 and fields["cols"] > 0:
        return fields["k"], fields["cols"]
    if opcode == "conv" and fields["groups"] == 1 and fields["in_c"] > 0 and fields["out_c"] > 0:
        return fields["kernel_h"] * fields["kernel_w"] * fields["in_c"], fields["out_c"]
    return None


def _pack(program: Program, constants: tuple[int, ...], size: tuple[int, int], group: int) -> Packed:
    k, cols = size
    weights = program.constant(constants[0]).reshape(-1)[: k * cols].reshape(k, cols)
    heads = [_padded(program.constant(c).reshape(-1)[:cols], fill) for c, fill in zip(constants[1:], (0, 0, 1), strict=True)]
    parts = [*(head.view(np.uint8) for head in heads), pack_weights(weights, group)]
    raw = np.empty(sum(part.size for part in parts) + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    result = raw[start : start + raw.size - _ALIGNMENT]
    np.concatenate(parts, out=result)
    return result


def _padded(values: NDArray[Any], fill: int) -> NDArray[np.int32]:
    result = np.full(-(-values.size // LANES) * LANES, fill, np.int32)
    result[: values.size] = values
    return result


def pack_weights(weights: NDArray[Any], group: int) -> Packed:
    """``weights`` int8 [k, cols] as [panels, steps, 16, group] bytes, zeros where k or cols end."""
    k, cols = weights.shape
    steps, panels = -(-k // group), -(-cols // LANES)
    full = np.zeros((steps * group, panels * LANES), np.int8)
    full[:k, :cols] = weights
    ordered = full.reshape(steps, group, panels, LANES).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(ordered).reshape(-1).view(np.uint8)
