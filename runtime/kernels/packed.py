"""Matrix products and convolutions on packed weights.

The blocks at the start of the scratch memory hold the addresses of rows; behind them lie the results of a tile, the
offsets of segments, and what had to be copied: rows of a matrix, or a band of an image.
"""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import (
    BLOCK_ROWS,
    FITTING_COLUMN,
    FORM_COLUMN,
    ISA_COLUMN,
    NEXT_COLUMN,
    PACKED_COLUMN,
    PART_COLUMN,
    SCALE_VECTORS,
    TILE_BYTES,
    Form,
)
from ..instructions.opcodes import columns
from ..vector.memory import store_64
from ..vector.sum_tiles import LANES, TABLE_BYTES, TILE_ROWS
from .bands import (
    band_lines,
    band_rows,
    copy_line,
    fill_run,
    gather_run,
    padded_width,
    point_pixels,
    product_layout,
    reads_lines,
    segment_count,
)
from .common import BLOCK_BYTES, BLOCKS, at, at_or, size_of
from .tiles import (
    I16,
    QUAD,
    coded_panels,
    columns_of,
    group_size,
    next_blocks,
    next_rows,
    packed_bytes,
    point_rows,
    run_coded,
    run_product,
)

_CONV, _GEMM = columns("conv"), columns("gemm")
_CODES_4, _CODES_2 = int(Form.CODES_4), int(Form.CODES_2)
_MOST_ROWS = BLOCKS * BLOCK_BYTES // 8 // TILE_ROWS * TILE_ROWS - TILE_ROWS
"""Rows whose addresses fit the blocks at the start of the scratch memory."""

_CACHED_BYTES = 1 << 17
"""Rows of a matrix that are multiplied by all columns before the next ones: half of a small second cache."""


@jit
def _steps_of(layout: int, k: int) -> int:
    return (k + 3) // 4 if layout == QUAD else (k + 1) // 2


@jit
def packed_gemm(row: int, scratch: int) -> None:
    """The opcode ``gemm`` on packed weights."""
    isa, packed, element, k, cols = (
        at(row, ISA_COLUMN),
        at(row, PACKED_COLUMN),
        at(row, _GEMM.x_type),
        at(row, _GEMM.k),
        at(row, _GEMM.cols),
    )
    layout, size, rows = product_layout(row, element), size_of(element), at(row, _GEMM.rows)
    steps, acc = _steps_of(layout, k), scratch + BLOCKS * BLOCK_BYTES
    offsets, panel, stride = acc + TILE_BYTES, acc + TILE_BYTES + 64, at(row, _GEMM.x_row) * size
    store_64(offsets, 0, 0)
    x = at(row, _GEMM.x) + at(row, _GEMM.x_offset) * size
    direct = k * size == steps * 4
    most = (
        min(max(_CACHED_BYTES // (4 * steps) // TILE_ROWS * TILE_ROWS, BLOCK_ROWS), _MOST_ROWS)
        if direct
        else BLOCK_ROWS
    )
    y_size = size_of(at(row, _GEMM.y_type))
    y, y_stride = at(row, _GEMM.y) + at(row, _GEMM.y_offset) * y_size, at(row, _GEMM.y_row) * y_size
    for first in range(0, rows, most):
        count = min(most, rows - first)
        source = x + first * stride
        if direct:
            point_rows(scratch, source, stride, count)
        else:
            for r in range(count):
                gather_run(panel + r * steps * 4, source + r * stride, layout, element, k)
            point_rows(scratch, panel, steps * 4, count)
        out = (
            y + first * y_stride,
            y_stride,
            at(row, _GEMM.y_type),
            at(row, _GEMM.y_zp),
            at(row, _GEMM.lo),
            at(row, _GEMM.hi),
        )
        span = columns_of(row, cols, at(row, NEXT_COLUMN) if first + count >= rows else 0)
        multiply_block(
            isa, layout, at(row, FITTING_COLUMN), count, scratch, offsets, 1, packed, span, steps, out,
            at(row, PART_COLUMN),
        )


@jit
def is_coded(row: int) -> bool:
    """The packed weights are codes."""
    return at(row, FORM_COLUMN) in (_CODES_4, _CODES_2)


@jit
def coded_gemm(row: int, scratch: int) -> None:
    """The opcode ``gemm`` on weights in codes, for a few rows."""
    isa, packed, element, k, cols = (
        at(row, ISA_COLUMN),
        at(row, PACKED_COLUMN),
        at(row, _GEMM.x_type),
        at(row, _GEMM.k),
        at(row, _GEMM.cols),
    )
    layout, size, rows, bits = (
        product_layout(row, element),
        size_of(element),
        at(row, _GEMM.rows),
        4 if at(row, FORM_COLUMN) == _CODES_4 else 2,
    )
    together = 8 // bits
    steps, acc = (_steps_of(layout, k) + together - 1) // together * together, scratch + BLOCKS * BLOCK_BYTES
    offsets, run, stride = acc + TILE_BYTES, acc + TILE_BYTES + 64, at(row, _GEMM.x_row) * size
    store_64(offsets, 0, 0)
    x, code_bytes = at(row, _GEMM.x) + at(row, _GEMM.x_offset) * size, 1 if layout == QUAD else 2
    if k * size == steps * 4:
        point_rows(scratch, x, stride, rows)
    else:
        for r in range(rows):
            gather_run(run + r * steps * 4, x + r * stride, layout, element, k)
            fill_run(run + r * steps * 4 + k * code_bytes, layout, steps * 4 // code_bytes - k, 0)
        point_rows(scratch, run, steps * 4, rows)
    y_size = size_of(at(row, _GEMM.y_type))
    y = at(row, _GEMM.y) + at(row, _GEMM.y_offset) * y_size
    out = (
        y,
        at(row, _GEMM.y_row) * y_size,
        at(row, _GEMM.y_type),
        at(row, _GEMM.y_zp),
        at(row, _GEMM.lo),
        at(row, _GEMM.hi),
    )
    multiply_coded(
        isa, layout, at(row, FITTING_COLUMN), bits, rows, scratch, offsets, packed, columns_of(row, cols, 0), steps,
        out, at(row, PART_COLUMN),
    )


@jit
def _is_direct(row: int, layout: int) -> bool:
    """The windows can be read where the image is: no padding, codes as the tiles want them, whole steps."""
    run, size = at(row, _CONV.in_c) // at(row, _CONV.groups), size_of(at(row, _CONV.x_type))
    if reads_lines(at(row, _CONV.groups), at(row, _CONV.dilation_w)):
        run *= at(row, _CONV.kernel_w)
    wide = padded_width(
        at(row, _CONV.out_w), at(row, _CONV.kernel_w), at(row, _CONV.stride_w), at(row, _CONV.dilation_w)
    )
    high = band_lines(at(row, _CONV.out_h), at(row, _CONV.kernel_h), at(row, _CONV.stride_h), at(row, _CONV.dilation_h))
    padded = (
        at(row, _CONV.pad_top) + at(row, _CONV.pad_left) > 0 or wide > at(row, _CONV.in_w) or high > at(row, _CONV.in_h)
    )
    return not padded and run * size == _steps_of(layout, run) * 4


@jit
def packed_conv(row: int, scratch: int) -> None:
    """The opcode ``conv`` on packed weights."""
    layout, out_h = product_layout(row, at(row, _CONV.x_type)), at(row, _CONV.out_h)
    kernel_h, stride_h, dilation_h = at(row, _CONV.kernel_h), at(row, _CONV.stride_h), at(row, _CONV.dilation_h)
    height, pixels = at(row, _CONV.in_h), out_h * at(row, _CONV.out_w)
    pixel_bytes = at(row, _CONV.in_c) * (1 if layout == QUAD else 2)
    if _is_direct(row, layout):
        line_bytes = at(row, _CONV.in_w) * pixel_bytes
        for image in range(at(row, _CONV.batch)):
            _convolve_band(
                row, scratch, at(row, _CONV.x) + image * height * line_bytes, line_bytes, image * pixels, pixels
            )
        return
    segments = segment_count(
        kernel_h, at(row, _CONV.kernel_w), reads_lines(at(row, _CONV.groups), at(row, _CONV.dilation_w))
    )
    band = scratch + BLOCKS * BLOCK_BYTES + TILE_BYTES + (segments + 7) // 8 * 64
    line_bytes = pixel_bytes * padded_width(
        at(row, _CONV.out_w), at(row, _CONV.kernel_w), at(row, _CONV.stride_w), at(row, _CONV.dilation_w)
    )
    most = band_rows(out_h, line_bytes, kernel_h, stride_h, dilation_h)
    for image in range(at(row, _CONV.batch)):
        for first in range(0, out_h, max(most, 1)):  # no rows: no bands
            count, top = min(most, out_h - first), first * stride_h - at(row, _CONV.pad_top)
            for i in range(band_lines(count, kernel_h, stride_h, dilation_h)):
                copy_line(row, band + i * line_bytes, layout, image * height + top + i if 0 <= top + i < height else -1)
            _convolve_band(
                row,
                scratch,
                band,
                line_bytes,
                image * pixels + first * at(row, _CONV.out_w),
                count * at(row, _CONV.out_w),
            )


@jit
def _point_segments(row: int, offsets: int, line_bytes: int, pixel_bytes: int, start: int) -> None:
    """Offsets of a window's segments, the first at ``start``."""
    by_lines = reads_lines(at(row, _CONV.groups), at(row, _CONV.dilation_w))
    width = 1 if by_lines else at(row, _CONV.kernel_w)
    for ky in range(at(row, _CONV.kernel_h)):
        for kx in range(width):
            place = ky * at(row, _CONV.dilation_h) * line_bytes + kx * at(row, _CONV.dilation_w) * pixel_bytes
            store_64(offsets, ky * width + kx, start + place)


@jit
def _convolve_band(row: int, scratch: int, base: int, line_bytes: int, first: int, pixels: int) -> None:
    """``pixels`` pixels of the output from ``first`` on, whose windows start at ``base``."""
    isa, element, groups = at(row, ISA_COLUMN), at(row, _CONV.x_type), at(row, _CONV.groups)
    layout, run, cols = product_layout(row, element), at(row, _CONV.in_c) // groups, at(row, _CONV.out_c) // groups
    by_lines = reads_lines(groups, at(row, _CONV.dilation_w))
    segments = segment_count(at(row, _CONV.kernel_h), at(row, _CONV.kernel_w), by_lines)
    steps, code_bytes = (
        _steps_of(layout, run * at(row, _CONV.kernel_w) if by_lines else run),
        (1 if layout == QUAD else 2),
    )
    offsets = scratch + BLOCKS * BLOCK_BYTES + TILE_BYTES
    y_size = size_of(at(row, _CONV.y_type))
    y_stride = at_or(row, _CONV.y_pitch, at(row, _CONV.out_c)) * y_size
    for start in range(0, pixels, _MOST_ROWS):
        count = min(_MOST_ROWS, pixels - start)
        point_pixels(row, scratch, base, line_bytes, at(row, _CONV.in_c) * code_bytes, start, count)
        for group in range(groups):
            _point_segments(row, offsets, line_bytes, at(row, _CONV.in_c) * code_bytes, group * run * code_bytes)
            packed = at(row, PACKED_COLUMN) + group * packed_bytes(layout, segments * steps, cols)
            y = at(row, _CONV.y) + (first + start) * y_stride + (at(row, _CONV.y_offset) + group * cols) * y_size
            out = (y, y_stride, at(row, _CONV.y_type), at(row, _CONV.y_zp), at(row, _CONV.lo), at(row, _CONV.hi))
            span = columns_of(row, cols, at(row, NEXT_COLUMN))
            multiply_block(
                isa, layout, at(row, FITTING_COLUMN), count, scratch, offsets, segments, packed, span, steps, out,
                at(row, PART_COLUMN),
            )


@jit
def multiply_coded(
    isa: int, layout: int, fitting: int, bits: int, rows: int, pointers: int, offsets: int, packed: int,
    columns: tuple[int, int, int, int], steps: int, out: tuple[int, int, int, int, int, int], shared: int,
) -> None:  # fmt: skip
    """A few rows of activations times ``columns`` of weights in codes of 4 or 2 bits; the arguments of
    `multiply_block`, one segment.
    """
    y, y_stride, element, y_zp, lo, hi = out
    cols, first, end, _ = columns
    panels = (cols + LANES - 1) // LANES
    head = panels * LANES * 4
    panel_bytes = steps * LANES * (4 if layout == QUAD else 2) * bits // 8
    size, wide = (2, 1) if element == I16 else (1, 0)
    weights = (
        packed + (1 + SCALE_VECTORS) * head + first * panel_bytes + first // coded_panels(isa, panels) * TABLE_BYTES
    )
    while first < end:
        group = coded_panels(isa, end - first)
        run_coded(
            isa, layout, fitting, bits, group, rows,
            (
                1, pointers, offsets, 1, weights, 0, steps, weights, 0, packed + first * LANES * 4, head,
                y + first * LANES * size, y_stride, min(group * LANES, cols - first * LANES), wide, y_zp, lo, hi,
                shared,
            ),
        )  # fmt: skip
        weights += TABLE_BYTES + group * panel_bytes
        first += group


@jit
def multiply_block(
    isa: int, layout: int, fitting: int, rows: int, pointers: int, offsets: int, segments: int, packed: int,
    columns: tuple[int, int, int, int], steps: int, out: tuple[int, int, int, int, int, int], shared: int,
) -> None:  # fmt: skip
    """``rows`` rows of activations times ``columns`` (as `columns_of` says) of packed weights.

    ``fitting`` as for `run_product`; ``pointers``: addresses of the rows; ``offsets``: of their segments, ``steps``
    steps each; ``out``: address of the first code, bytes between rows, element type, zero point, lo, hi; ``shared``: 1
    where other cores write such codes, too. Each tile fetches one of the panels that come next.
    """
    y, y_stride, element, y_zp, lo, hi = out
    cols, first, end, following = columns
    head = (cols + LANES - 1) // LANES * LANES * 4
    panel_bytes = segments * steps * LANES * (4 if layout == QUAD else 2)
    size, wide = (2, 1) if element == I16 else (1, 0)
    while first < end:
        group = group_size(isa, end - first)
        width = min(group * LANES, cols - first * LANES)
        column = packed + first * LANES * 4
        weights = packed + (1 + SCALE_VECTORS) * head + first * panel_bytes
        fetch = weights + group * panel_bytes if first + group < end else (following if following != 0 else weights)
        top, tile = 0, 0
        while top < rows:
            count, blocks = next_rows(rows - top), next_blocks(rows - top)
            target = y + top * y_stride + first * LANES * size
            run_product(
                isa, layout, fitting, group, count,
                (
                    blocks, pointers + 8 * top, offsets, segments, weights, panel_bytes, steps,
                    fetch + min(tile, group - 1) * panel_bytes, max(group - 1 - tile, 0), column, head, target,
                    y_stride, width, wide, y_zp, lo, hi, shared,
                ),
            )  # fmt: skip
            top += blocks * count
            tile += blocks
        first += group
