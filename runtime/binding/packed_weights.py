"""Packs the weights of matrix products for this CPU, once, when a program is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

import numpy as np

from ..cpu.isa import LANES, Isa
from ..instructions.conv_windows import is_banded, is_summed, reads_lines, segment_count
from ..instructions.depthwise_layout import (
    chunk_bytes,
    chunk_order,
    is_depthwise,
    is_depthwise_size,
    line_groups,
    rows_at_once,
    vector_bytes,
)
from ..instructions.instruction import ELEMENT_DTYPE, ELEMENT_SIZE, Element, Form, Opcode, Source
from ..instructions.opcodes import BY_NUMBER
from ..instructions.piecewise_linear import Piecewise
from ..instructions.winograd import LARGEST_DISTANCE, PLANES, WEIGHTS, can_transform, pays
from ..program.model import Program
from .bind import Bound
from .channel_lines import can_scale, lines_of, scale_numbers
from .panels import Packed, fitting_steps, joined, pack_codes, pack_weights, padded, scale_vectors

RECURRENT = {"lstm": 4, "gru": 3}
"""Gates of the recurrent opcodes."""

_REPLACED = {"gemm": ("w",), "conv": ("w",), "conv_transpose": ("w",), "lstm": ("w", "r")}
"""Operands that are never read once weights are packed (but a GRU that resets before the product reads ``r``)."""

MOST_CODED_ROWS = 4
"""Rows of a product up to which 4-bit codes are looked up in registers; for more rows weights are decoded at packing.
"""

_LARGE = 1 << 21
"""Bytes that do not fit a second cache. Above it codes pay for int16 activations and 512-bit vectors, too (below,
widening bytes takes longer than reading them), and tables that rows are gathered from stay in codes.
"""

MOST_ROWS_OF_2_BITS = 2
"""The same for 2-bit codes; for more rows they become 4-bit codes."""

_SMALLEST_GROUP = 4
"""Output channels of a group below which a panel of 16 columns would be mostly padding."""


class Weights(NamedTuple):
    """What a kernel reads instead of the stored weights, and in which form."""

    codes: Packed
    form: Form = Form.PACKED
    fitting: int = 0
    """Steps whose byte products may be added in int16; 0: products are not so computed."""


def pack_program(program: Program, bound: Bound, isa: Isa) -> dict[int, Weights]:
    """Packed weights by instruction, for those that have a packed kernel; kept by the program for later bindings."""
    if isa is Isa.PLAIN:
        return {}
    packed: dict[int, Weights] = {}
    for index in range(len(bound.code)):
        opcode = BY_NUMBER[int(bound.code[index, 0])]
        fields = opcode.row(bound.code[index].tolist())
        if opcode.name in RECURRENT and fields["inputs"] > 0:
            packed[index] = Weights(_pack_recurrent(program, index, opcode, fields, isa))
            continue
        if opcode.name == "piecewise" and isa is not Isa.AVX512_VNNI:
            packed[index] = Weights(_listed_codes(program, index, opcode, fields))
            continue
        if opcode.name == "gather" and bound.kinds[index, opcode.position("x")] == Source.CONSTANT:
            packed |= _coded_gather(program, index, int(program.code[index, opcode.position("x")]), fields)
            continue
        if opcode.name == "conv_transpose" and is_summed(fields):
            weights = int(program.code[index, opcode.position("w")])
            packed[index] = Weights(_pack_transposed(program, weights, fields))
            continue
        size = product_size(opcode.name, fields)
        if size is None:
            continue
        constants = tuple(int(program.code[index, opcode.position(name)]) for name in ("w", "bias", "m", "n"))
        packed[index] = _pack_product(program, constants, fields, size, isa)
    return packed


def decoded_operands(
    program: Program, bound: Bound, packed: Mapping[int, Weights]
) -> dict[tuple[int, int], Packed | None]:
    """Values of coded constants that are read decoded, by instruction and column; None: nobody reads them. Cached."""
    found: dict[tuple[int, int], Packed | None] = {}
    for index, column in np.argwhere(bound.kinds == Source.CONSTANT).tolist():
        constant, opcode = int(program.code[index, column]), program.opcode(index)
        if program.constants[constant].coding is None or (
            index in packed and opcode.name == "gather" and column == opcode.position("x")
        ):
            continue
        replaced = _REPLACED.get(opcode.name, ()) if index in packed else ()
        found[index, column] = None if column in map(opcode.position, replaced) else _decoded(program, constant)
    return found


def _coded_gather(program: Program, index: int, constant: int, fields: Mapping[str, int]) -> dict[int, Weights]:
    """Bits and tables of a large table that is read in its stored codes; nothing where it is not one."""
    info = program.constants[constant]
    if info.coding is None or info.coding.block or info.coding.order or info.nbytes < _LARGE:
        return {}
    if info.coding.tables > 1 and (
        fields["outer"] != 1 or info.shape[0] * fields["inner"] * ELEMENT_SIZE[info.element] != info.nbytes
    ):
        return {}
    return {index: Weights(np.array(info.coding[:2], np.int64).view(np.uint8))}


def _decoded(program: Program, constant: int) -> Packed:
    with program.lock:
        key = ("decoded", constant)
        if key not in program.packed:
            program.packed[key] = joined([program.constant(constant).reshape(-1).view(np.uint8)])
        return program.packed[key]


def _pack_product(
    program: Program, constants: tuple[int, ...], fields: Mapping[str, int], size: ProductSize, isa: Isa
) -> Weights:
    """The weights of one instruction, in the form that is best for it."""
    of_bytes, by_channels = fields["x_type"] == Element.U8, size.cols == 1 and size.groups > 1
    fitting = _fitting(program, constants[0], size) if of_bytes and isa.has_byte_pairs and not by_channels else 0
    group = 4 if (of_bytes and isa.has_quads) or fitting else 2
    if _stays_coded(program, constants[0], fields, size, group, isa):
        return _pack_codes(program, constants, size, fitting, fields, isa)
    chunks = chunks_of(fields, isa, group) if by_channels else None
    key = (*constants, *(chunks or size), group)
    with program.lock:
        if "kernel_h" in fields and can_transform(fields) and pays(fields, isa, fitting):
            transformed = (*constants, fields["in_c"], fields["out_c"])
            if transformed not in program.packed:
                program.packed[transformed] = _transform(program, constants, fields["in_c"], fields["out_c"])
            if program.packed[transformed].size:
                return Weights(program.packed[transformed], Form.TRANSFORMED)
        if chunks is not None and can_scale(fields):
            scaled = (*constants, *(fields[name] for name in ("y_zp", "lo", "hi")), chunks.channels, chunks.vector)
            if scaled not in program.packed:
                program.packed[scaled] = _scale(program, constants, fields, chunks.vector)
            if program.packed[scaled].size:
                return Weights(program.packed[scaled], Form.SCALED)
        if key not in program.packed:
            program.packed[key] = (
                _pack(program, constants, size, group) if chunks is None else _pack_channels(program, constants, chunks)
            )
        return Weights(program.packed[key], fitting=fitting)


def _fitting(program: Program, constant: int, size: ProductSize) -> int:
    """Steps of byte products that may be added in int16; kept by the program."""
    key = ("fitting", constant, *size)
    with program.lock:
        if key not in program.packed:
            k, cols, groups, segments = size
            weights = program.constant(constant).reshape(-1)[: k * groups * cols].reshape(segments, -1, groups * cols)
            program.packed[key] = np.array([fitting_steps(weights)], np.uint8)
        return int(program.packed[key][0])


def _stays_coded(
    program: Program, constant: int, fields: Mapping[str, int], size: ProductSize, group: int, isa: Isa
) -> bool:
    """Whether a product reads codes: it has few rows, so memory is its limit."""
    coding = program.constants[constant].coding
    if coding is None or coding.tables > 1 or not isa.has_lookup or not 1 <= fields.get("rows", 0) <= MOST_CODED_ROWS:
        return False
    return group == 4 or isa is not Isa.AVX512_VNNI or size.k * size.cols >= _LARGE


def _pack_codes(
    program: Program,
    constants: tuple[int, ...],
    size: ProductSize,
    fitting: int,
    fields: Mapping[str, int],
    isa: Isa,
) -> Weights:
    """Bias and scale, then groups of panels of codes, each behind the levels; see `sum_tiles.py`."""
    with program.lock:
        coded = program.coded(constants[0])
        if coded is None:
            raise ValueError(f"constant {constants[0]} is not coded")
        bits = 2 if coded.coding.bits == 2 and fields["rows"] <= MOST_ROWS_OF_2_BITS else 4
        fitting -= fitting % (8 // bits)
        group = 4 if fitting or (isa.has_quads and fields["x_type"] == Element.U8) else 2
        key = ("codes", bits, isa, *constants, *size, group)
        if key not in program.packed:
            codes = coded.codes.reshape(-1)[: size.k * size.cols].reshape(size.k, size.cols)
            heads = _heads(program, constants, slice(0, size.cols))
            program.packed[key] = joined([*heads, *pack_codes(codes, coded.tables.reshape(-1), bits, group, isa)])
    return Weights(program.packed[key], Form.CODES_2 if bits == 2 else Form.CODES_4, fitting)


def _listed_codes(program: Program, index: int, opcode: Opcode, f: Mapping[str, int]) -> Packed:
    """The results of a piecewise linear function for every code, for CPUs that cannot permute wide registers."""
    base, slope = (int(program.code[index, opcode.position(name)]) for name in ("base", "slope"))
    numbers = tuple(f[name] for name in ("first", "width_bits", "fraction", "lo", "hi"))
    key = (base, slope, f["segments"], *numbers, f["y_type"])
    with program.lock:
        if key not in program.packed:
            starts, rises = (program.constant(constant).reshape(-1)[: f["segments"]] for constant in (base, slope))
            codes = Piecewise(starts, rises, *numbers).codes().astype(ELEMENT_DTYPE[Element(f["y_type"])])
            program.packed[key] = joined([codes.view(np.uint8)])
        return program.packed[key]


def _pack_recurrent(program: Program, index: int, opcode: Opcode, fields: Mapping[str, int], isa: Isa) -> Packed:
    """The weights of the inputs and, behind them, those of the state."""
    wide = RECURRENT[opcode.name] * fields["hidden"]
    parts = []
    for side, element, k in (("w", fields["x_type"], fields["inputs"]), ("r", fields["h_type"], fields["hidden"])):
        group = 4 if isa.has_quads and element == Element.U8 else 2
        names = (side, f"bias_{side}", f"m_{side}", f"n_{side}")
        parts.append(
            (
                tuple(int(program.code[index, opcode.position(name)]) for name in names),
                ProductSize(k, wide, 1, 1),
                group,
            )
        )
    key = ("recurrent", *parts)
    with program.lock:
        if key not in program.packed:
            program.packed[key] = joined([_pack(program, *part) for part in parts])
    return program.packed[key]


class ProductSize(NamedTuple):
    """``groups`` products of [rows, k] and [k, cols]; weights are stored [k, groups * cols], k in equal segments."""

    k: int
    cols: int
    groups: int
    segments: int


class Chunks(NamedTuple):
    """A depthwise convolution by chunks of channels: kernel, rows per tile, vector bytes, taps per group."""

    kernel_h: int
    kernel_w: int
    channels: int
    rows: int
    vector: int
    group: int


def chunks_of(fields: Mapping[str, int], isa: Isa, group: int) -> Chunks:
    """How a depthwise convolution is packed."""
    rows = rows_at_once(fields["stride_h"], fields["dilation_h"])
    return Chunks(fields["kernel_h"], fields["kernel_w"], fields["in_c"], rows, vector_bytes(isa), group)


def product_size(opcode: str, fields: Mapping[str, int]) -> ProductSize | None:
    """What an instruction multiplies with constant weights; None where packing does not pay."""
    if opcode == "gemm" and fields["k"] > 0 and fields["cols"] > 0:
        return ProductSize(fields["k"], fields["cols"], 1, 1)
    if opcode != "conv" or fields["in_c"] == 0:
        return None
    groups, channels, kernel_h, kernel_w = fields["groups"], fields["in_c"], fields["kernel_h"], fields["kernel_w"]
    cols = fields["out_c"] // groups
    if is_depthwise(groups, channels, fields["out_c"]):
        return ProductSize(kernel_h * kernel_w, 1, groups, 1) if is_depthwise_size(fields) else None
    if not is_banded(fields) or cols < (1 if groups == 1 else _SMALLEST_GROUP):
        return None
    segments = segment_count(kernel_h, kernel_w, reads_lines(groups, fields["dilation_w"]))
    return ProductSize(kernel_h * kernel_w * (channels // groups), cols, groups, segments)


def _pack(program: Program, constants: tuple[int, ...], size: ProductSize, group: int) -> Packed:
    """For every group its bias and scale, padded to whole panels, and its weights."""
    k, cols, groups, segments = size
    weights = program.constant(constants[0]).reshape(-1)[: k * cols * groups].reshape(k, groups, cols)
    parts: list[Packed] = []
    for g in range(groups):
        parts += _heads(program, constants, slice(g * cols, (g + 1) * cols))
        parts.append(pack_weights(weights[:, g], group, segments))
    return joined(parts)


def _heads(program: Program, constants: tuple[int, ...], columns: slice) -> list[Packed]:
    """Bias and scale of some columns, padded to whole panels."""
    heads = [program.constant(c).reshape(-1)[columns] for c in constants[1:]]
    size = -(-heads[0].size // LANES) * LANES
    bias, m, n = (padded(head, fill, size) for head, fill in zip(heads, (0, 0, 1), strict=True))
    return [head.view(np.uint8) for head in (bias, *scale_vectors(m, n))]


def _transform(program: Program, constants: tuple[int, ...], channels: int, outputs: int) -> Packed:
    """What `kernels/transformed.py` reads; nothing where a sum could be too large.

    For every output the bias plus the middle of its sums, the scale, 64 times the middle; 36 planes of weights [panels,
    channel pairs, 16, 2].
    """
    w = (
        program.constant(constants[0])
        .reshape(-1)[: 9 * channels * outputs]
        .reshape(3, 3, channels, outputs)
        .astype(np.int32)
    )
    highest, lowest = (255 * limit(w, 0).sum(axis=(0, 1, 2), dtype=np.int64) for limit in (np.maximum, np.minimum))
    middle = (highest + lowest) // 2
    if (highest - middle).max() >= LARGEST_DISTANCE:
        return np.empty(0, np.uint8)
    matrix = np.array(WEIGHTS, np.int32)
    planes = np.einsum("ia,jb,abco->ijco", matrix, matrix, w).astype(np.int16)
    ordered = planes.reshape(PLANES, channels // 2, 2, outputs // LANES, LANES).transpose(0, 3, 1, 4, 2)
    bias, m, n = (program.constant(c).reshape(-1)[:outputs].astype(np.int64) for c in constants[1:])
    heads = [values.astype(np.int32) for values in (bias + middle, *scale_vectors(m, n), 64 * middle)]
    return joined([values.view(np.uint8) for values in (*heads, np.ascontiguousarray(ordered).reshape(-1))])


def _pack_transposed(program: Program, constant: int, f: Mapping[str, int]) -> Packed:
    """Weights as int16: for each line of the kernel panels of the columns of all its taps, side by side."""
    shape = (f["kernel_h"], f["kernel_w"], f["in_c"], f["out_c"])
    key = ("transposed", constant, *shape)
    with program.lock:
        if key not in program.packed:
            w = program.constant(constant).reshape(-1)[: prod(shape)].reshape(shape).astype(np.int16)
            lines = w.transpose(0, 2, 1, 3).reshape(shape[0], shape[2], -1)
            program.packed[key] = joined([pack_weights(line, 2) for line in lines])
        return program.packed[key]


def _scale(program: Program, constants: tuple[int, ...], f: Mapping[str, int], vector: int) -> Packed:
    """What `depthwise.scaled_conv` reads; nothing where no line gives the codes of some channel."""
    w, bias, m, n = (program.constant(constant).reshape(-1)[: f["in_c"]].astype(np.int64) for constant in constants)
    lines = lines_of(w, bias, m, n, f["y_zp"], f["lo"], f["hi"])
    return np.empty(0, np.uint8) if lines is None else joined([scale_numbers(lines, vector).view(np.uint8)])


def _pack_channels(program: Program, constants: tuple[int, ...], chunks: Chunks) -> Packed:
    """Per chunk: bias, m, n and weights in vector order, for each kernel column, group of lines and tile row."""
    kernel_h, kernel_w, channels, rows, vector, group = chunks
    groups, size = line_groups(kernel_h, rows, group), 1 if group == 4 else 2
    weights = (
        program.constant(constants[0])
        .reshape(-1)[: kernel_h * kernel_w * channels]
        .reshape(kernel_h, kernel_w, channels)
    )
    lines = np.zeros((kernel_w, rows, groups * group, channels + vector), np.int8 if group == 4 else np.int16)
    for row in range(rows):
        lines[:, row, row : row + kernel_h, :channels] = weights.transpose(1, 0, 2)
    taps = lines.reshape(kernel_w, rows, groups, group, channels + vector).transpose(0, 2, 1, 4, 3)
    bias, m, n = (program.constant(c).reshape(-1)[:channels] for c in constants[1:])
    bias, m, n = padded(bias, 0, channels + vector), padded(m, 0, channels + vector), padded(n, 1, channels + vector)
    parts: list[Packed] = []
    first = 0
    while first < channels:
        chunk = chunk_bytes(vector, (channels - first) * size)
        alike = max((channels - first) * size // chunk, 1)
        starts = first + chunk // size * np.arange(alike)
        order = starts[:, None] + np.array(chunk_order(vector, chunk, group)).reshape(-1)  # [chunks, channels of one]
        heads = np.stack([bias[order].reshape(-1), *scale_vectors(m[order].reshape(-1), n[order].reshape(-1))])
        each = heads.reshape(len(heads), *order.shape).swapaxes(0, 1), np.moveaxis(taps[:, :, :, order], 3, 0)
        sides = [np.ascontiguousarray(side).reshape(alike, -1).view(np.uint8) for side in each]
        parts.append(np.concatenate(sides, axis=1).reshape(-1))
        first += alike * chunk // size
    return joined(parts)
