"""Packs the weights of matrix products for this CPU, once, when a program is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .instruction import ELEMENT_DTYPE, Element, Opcode
from .isa import LANES, Isa
from .opcodes import BY_NUMBER
from .piecewise import Piecewise
from .plan import Bound
from .program import Program
from .windows import chunk_order, chunk_width, is_banded, padded_channels, reads_lines, segment_count, widest_chunk

Packed = NDArray[np.uint8]
RECURRENT = {"lstm": 4, "gru": 3}
"""Gates of the recurrent opcodes."""

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
        if opcode.name in RECURRENT and fields["inputs"] > 0:
            packed[index] = _pack_recurrent(program, index, opcode, fields, isa)
            continue
        if opcode.name == "piecewise" and isa is not Isa.AVX512_VNNI:
            packed[index] = _listed_codes(program, index, opcode, fields)
            continue
        size = product_size(opcode.name, fields)
        if size is None:
            continue
        group = 4 if isa.has_quads and fields["x_type"] == Element.U8 else 2
        constants = tuple(int(program.code[index, opcode.position(name)]) for name in ("w", "bias", "m", "n"))
        channelwise = size.cols == 1 and size.groups > 1
        key = (*constants, *size, group, isa if channelwise else 0)
        with program.lock:
            if key not in program.packed:
                program.packed[key] = _pack_channels(program, constants, size, group, isa) if channelwise else _pack(program, constants, size, group)
        packed[index] = program.packed[key]
    return packed


def _listed_codes(program: Program, index: int, opcode: Opcode, f: Mapping[str, int]) -> Packed:
    """The results of a piecewise linear function for every code, for CPUs that cannot permute wide registers."""
    base, slope = (int(program.code[index, opcode.position(name)]) for name in ("base", "slope"))
    numbers = tuple(f[name] for name in ("first", "width_bits", "fraction", "lo", "hi"))
    key = (base, slope, f["segments"], *numbers, f["y_type"])
    with program.lock:
        if key not in program.packed:
            starts, rises = (program.constant(constant).reshape(-1)[: f["segments"]] for constant in (base, slope))
            codes = Piecewise(starts, rises, *numbers).codes().astype(ELEMENT_DTYPE[Element(f["y_type"])])
            program.packed[key] = _joined([codes.view(np.uint8)])
        return program.packed[key]


def _pack_recurrent(program: Program, index: int, opcode: Opcode, fields: Mapping[str, int], isa: Isa) -> Packed:
    """The weights of the inputs and, behind them, those of the state."""
    wide = RECURRENT[opcode.name] * fields["hidden"]
    parts = []
    for side, element, k in (("w", fields["x_type"], fields["inputs"]), ("r", fields["h_type"], fields["hidden"])):
        group = 4 if isa.has_quads and element == Element.U8 else 2
        names = (side, f"bias_{side}", f"m_{side}", f"n_{side}")
        parts.append((tuple(int(program.code[index, opcode.position(name)]) for name in names), ProductSize(k, wide, 1, 1), group))
    key = ("recurrent", *parts)
    with program.lock:
        if key not in program.packed:
            program.packed[key] = _joined([_pack(program, *part) for part in parts])
    return program.packed[key]


class ProductSize(NamedTuple):
    """``groups`` independent products of [rows, k] and [k, cols]; the weights are stored as [k, groups * cols], k in equal segments."""

    k: int
    cols: int
    groups: int
    segments: int


def product_size(opcode: str, fields: Mapping[str, int]) -> ProductSize | None:
    """What an instruction multiplies with constant weights; None where packing does not pay."""
    if opcode == "gemm" and fields["k"] > 0 and fields["cols"] > 0:
        return ProductSize(fields["k"], fields["cols"], 1, 1)
    if opcode != "conv" or fields["in_c"] == 0 or not is_banded(fields):
        return None
    groups = fields["groups"]
    cols = fields["out_c"] // groups
    channelwise = groups == fields["in_c"] == fields["out_c"]
    if cols < (1 if groups == 1 or channelwise else _SMALLEST_GROUP):
        return None
    kernel_h, kernel_w = fields["kernel_h"], fields["kernel_w"]
    segments = segment_count(kernel_h, kernel_w, reads_lines(groups, fields["dilation_w"]))
    return ProductSize(kernel_h * kernel_w * (fields["in_c"] // groups), cols, groups, segments)


def _pack(program: Program, constants: tuple[int, ...], size: ProductSize, group: int) -> Packed:
    """For every group its bias, m and n, padded to whole panels, and its weights."""
    k, cols, groups, segments = size
    weights = program.constant(constants[0]).reshape(-1)[: k * cols * groups].reshape(k, groups, cols)
    parts: list[Packed] = []
    for g in range(groups):
        heads = (program.constant(c).reshape(-1)[g * cols : (g + 1) * cols] for c in constants[1:])
        parts += [_padded(head, fill, -(-cols // LANES) * LANES).view(np.uint8) for head, fill in zip(heads, (0, 0, 1), strict=True)]
        parts.append(pack_weights(weights[:, g], group, segments))
    return _joined(parts)


def _pack_channels(program: Program, constants: tuple[int, ...], size: ProductSize, group: int, isa: Isa) -> Packed:
    """Bias, m, n and weights of a depthwise convolution, padded to whole chunks."""
    taps, channels = size.k, size.groups
    heads = (program.constant(c).reshape(-1)[:channels] for c in constants[1:])
    parts = [_padded(head, fill, padded_channels(channels)).view(np.uint8) for head, fill in zip(heads, (0, 0, 1), strict=True)]
    weights = np.zeros((-(-taps // group) * group, padded_channels(channels)), np.int8 if group == 4 else np.int16)
    weights[:taps, :channels] = program.constant(constants[0]).reshape(-1)[: taps * channels].reshape(taps, channels)
    if taps == 1:
        alone = np.zeros((padded_channels(channels), 2), np.int16)
        alone[:, 0] = weights[0]
        return _joined([*parts, alone.reshape(-1).view(np.uint8)])
    first = 0
    while first < channels:
        width = chunk_width(widest_chunk(isa is Isa.AVX512_VNNI, group == 4), channels - first)
        chunk = weights[:, first : first + width][:, chunk_order(width, group)]
        parts.append(np.ascontiguousarray(chunk.reshape(-1, group, width).transpose(0, 2, 1)).reshape(-1).view(np.uint8))
        first += width
    return _joined(parts)


def _joined(parts: list[Packed]) -> Packed:
    """One array, aligned to a vector."""
    raw = np.empty(sum(part.size for part in parts) + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    result = raw[start : start + raw.size - _ALIGNMENT]
    np.concatenate(parts, out=result)
    return result


def _padded(values: NDArray[Any], fill: int, count: int) -> NDArray[np.int32]:
    result = np.full(count, fill, np.int32)
    result[: values.size] = values
    return result


def pack_weights(weights: NDArray[Any], group: int, segments: int = 1) -> Packed:
    """``weights`` int8 [k, cols] as [panels, steps, 16, group] bytes, zeros where a segment of k or cols end."""
    k, cols = weights.shape
    length = k // segments
    steps, panels = -(-length // group), -(-cols // LANES)
    full = np.zeros((segments, steps * group, panels * LANES), np.int8)
    full[:, :length, :cols] = weights.reshape(segments, length, cols)
    ordered = full.reshape(segments * steps, group, panels, LANES).transpose(2, 0, 3, 1)
    return np.ascontiguousarray(ordered).reshape(-1).view(np.uint8)
