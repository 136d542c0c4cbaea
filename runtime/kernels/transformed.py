"""3x3 convolutions by Winograd's transform: some rows of tiles at a time are padded, transformed, multiplied plane by
plane, transformed back.
"""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions import winograd
from ..instructions.instruction import ISA_COLUMN, NEXT_COLUMN, PACKED_COLUMN, SCALE_VECTORS, Element
from ..instructions.opcodes import columns
from ..vector.memory import store_64
from ..vector.sum_tiles import LANES
from ..vector.winograd_tiles import output_codes, transform_16, transform_32
from .bands import copy_line, fill_run
from .common import BLOCK_BYTES, BLOCKS, at, at_or, size_of
from .tiles import PAIR, columns_of, group_size, point_rows, run_wide, wide_rows

_CONV = columns("conv")
_I16 = int(Element.I16)
_PLANES, _SPARE_ROWS = winograd.PLANES, winograd.SPARE_ROWS
_ZEROS = 256
"""Bytes of zeros, and behind them of codes that are thrown away."""

_tiles_of, _tile_rows, _parts = jit(winograd.tiles_of), jit(winograd.tile_rows), jit(winograd.transformed_parts)


@jit
def transformed_conv(row: int, scratch: int) -> None:
    """The opcode ``conv`` on transformed weights."""
    out_h, height = at(row, _CONV.out_h), at(row, _CONV.in_h)
    across, down = _tiles_of(at(row, _CONV.out_w)), _tiles_of(out_h)
    most, zeros = _tile_rows(across, down), scratch + BLOCKS * BLOCK_BYTES
    for i in range(_ZEROS // 8):
        store_64(zeros, i, 0)
    parts = _parts(at(row, _CONV.in_c), across, most)
    band, line_bytes = zeros + parts[0], (4 * across + 2) * 2 * at(row, _CONV.in_c)
    for image in range(at(row, _CONV.batch)):
        for first in range(0, down, most):
            rows, top = min(most, down - first), 4 * first - at(row, _CONV.pad_top)
            for i in range(4 * rows + 2):
                inside = 0 <= top + i < height
                copy_line(row, band + i * line_bytes, PAIR, image * height + top + i if inside else -1)
                missing = (4 * across - at(row, _CONV.out_w)) * at(row, _CONV.in_c)
                fill_run(band + (i + 1) * line_bytes - 2 * missing, PAIR, missing, at(row, _CONV.x_zp))
            _convolve_tiles(
                row, zeros, parts, line_bytes, across, rows, image * out_h + 4 * first, min(4 * rows, out_h - 4 * first)
            )


@jit
def _convolve_tiles(
    row: int,
    zeros: int,
    parts: tuple[int, int, int, int],
    line_bytes: int,
    across: int,
    rows: int,
    y_line: int,
    lines: int,
) -> None:
    """``lines`` lines of the output from ``y_line`` on, from the padded lines in scratch memory."""
    channels, tiles = at(row, _CONV.in_c), rows * across
    band, codes = zeros + parts[0], zeros + parts[0] + parts[1]
    plane_bytes = (tiles + _SPARE_ROWS) * 2 * channels
    for tile in range(tiles):
        source = band + tile // across * 4 * line_bytes + tile % across * 8 * channels
        if channels % 32 == 0:
            transform_32(source, line_bytes, 2 * channels, codes + tile * 2 * channels, plane_bytes, channels // 32)
        else:
            transform_16(source, line_bytes, 2 * channels, codes + tile * 2 * channels, plane_bytes, channels // 16)
    isa, following = (
        at(row, ISA_COLUMN),
        at(row, NEXT_COLUMN) if y_line + lines >= at(row, _CONV.batch) * at(row, _CONV.out_h) else 0,
    )
    _, first, end, following = columns_of(row, at(row, _CONV.out_c), following)
    while first < end:
        group = group_size(isa, end - first)
        _multiply_planes(
            row, zeros, codes, codes + parts[2], tiles, first, group, 0 if first + group < end else following
        )
        _store_tiles(row, zeros, codes + parts[2], across, tiles, first, group, y_line, lines)
        first += group


@jit
def _multiply_planes(
    row: int, zeros: int, codes: int, sums: int, tiles: int, first: int, group: int, following: int
) -> None:
    """All 36 products for ``group`` panels of output channels; fetches what comes next: at the end ``following``,
    0: the next panels.
    """
    isa, channels, outputs, pointers = at(row, ISA_COLUMN), at(row, _CONV.in_c), at(row, _CONV.out_c), zeros + 512
    panel_bytes, offsets = channels * 2 * LANES, zeros
    weights = at(row, PACKED_COLUMN) + (2 + SCALE_VECTORS) * 4 * outputs + first * panel_bytes
    for plane in range(_PLANES):
        point_rows(pointers, codes + plane * (tiles + _SPARE_ROWS) * 2 * channels, 2 * channels, tiles)
        b, top, ahead = weights + plane * outputs * 2 * channels, 0, 0
        fetch = (
            b + outputs * 2 * channels
            if plane < _PLANES - 1
            else (following if following != 0 else weights + group * panel_bytes)
        )
        while top < tiles:
            count = wide_rows(tiles - top)
            acc = sums + (plane * (tiles + _SPARE_ROWS) + top) * group * LANES * 4
            run_wide(
                isa,
                group,
                count,
                pointers + 8 * top,
                offsets,
                b,
                panel_bytes,
                channels // 2,
                fetch + ahead * panel_bytes,
                zeros,
                acc,
            )
            ahead = min(ahead + 1, group - 1)
            top += count


@jit
def _store_tiles(
    row: int, zeros: int, sums: int, across: int, tiles: int, first: int, group: int, y_line: int, lines: int
) -> None:
    """The codes of all tiles for ``group`` panels of output channels."""
    outputs, size, out_w = at(row, _CONV.out_c), size_of(at(row, _CONV.y_type)), at(row, _CONV.out_w)
    pitch = at_or(row, _CONV.y_pitch, outputs)
    heads, wide = at(row, PACKED_COLUMN) + first * LANES * 4, 1 if at(row, _CONV.y_type) == _I16 else 0
    for tile in range(tiles):
        line, column = tile // across * 4, tile % across * 4
        y = (
            at(row, _CONV.y)
            + (at(row, _CONV.y_offset) + ((y_line + line) * out_w + column) * pitch + first * LANES) * size
        )
        output_codes(
            sums + tile * group * LANES * 4,
            (tiles + _SPARE_ROWS) * group * LANES * 4,
            group,
            heads,
            4 * outputs,
            y,
            pitch * size,
            out_w * pitch * size,
            lines - line,
            out_w - column,
            zeros + _ZEROS,
            wide,
            at(row, _CONV.y_zp),
            at(row, _CONV.lo),
            at(row, _CONV.hi),
        )
