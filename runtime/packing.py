"""Packs the weights of matrix products for this CPU, once, when a program is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .instruction import Element
from .isa import LANES, Isa
from .opcodes import BY_NUMBER
from .plan import Bound
from .program import Program

Packed = NDArray[np.uint8]
_ALIGNMENT = 64
_SMALLEST_GROUP = 4
"""Output channels of a group below which a panel of 16 columns would be mostly padding."""


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
        with program.lock:
            if key not in program.packed:
                program.packed[key] = _pack(program, constants, size, group)
        packed[index] = program.packed[key]
    return packed


class ProductSize(NamedTuple):
    """``groups`` independent products of [rows, k] and [k, cols]; the weights are stored as [k, groups * cols]."""

    k: int
    cols: int
    groups: int


def product_size(opcode: str, fields: Mapping[str, int]) -> ProductSize | None:
    """What an instruction multiplies with constant weights; None where packing does not pay."""
    if opcode == "gemm" and fields["k"] > 0 and fields["cols"] > 0:
        return ProductSize(fields["k"], fields["cols"], 1)
    if opcode != "conv" or fields["in_c"] == 0:
        return None
    groups = fields["groups"]
    cols = fields["out_c"] // groups
    if cols < (1 if groups == 1 else _SMALLEST_GROUP):
        return None
    return ProductSize(fields["kernel_h"] * fields["kernel_w"] * (fields["in_c"] // groups), cols, groups)


def _pack(program: Program, constants: tuple[int, ...], size: ProductSize, group: int) -> Packed:
    """For every group its bias, m and n, padded to whole panels, and its weights."""
    k, cols, groups = size
    weights = program.constant(constants[0]).reshape(-1)[: k * cols * groups].reshape(k, groups, cols)
    parts: list[Packed] = []
    for g in range(groups):
        heads = (program.constant(c).reshape(-1)[g * cols : (g + 1) * cols] for c in constants[1:])
        parts += [_padded(head, fill).view(np.uint8) for head, fill in zip(heads, (0, 0, 1), strict=True)]
        parts.append(pack_weights(weights[:, g], group))
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
