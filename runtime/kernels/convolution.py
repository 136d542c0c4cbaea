"""Convolutions on NHWC images, plain: the reference that the packed kernels are tested equal to; and transposed ones on
packed weights.
"""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions import conv_windows
from ..instructions.instruction import BLOCK, ISA_COLUMN, PACKED_COLUMN, TILE_BYTES, ZERO_BYTES, Element
from ..instructions.opcodes import columns
from ..vector.memory import load_i32, store_32
from ..vector.sum_tiles import LANES
from .common import BLOCK_BYTES, BLOCKS, at, at_or, code_block, fetch, load_block, requant_block, size_of, store_block
from .product import accumulate, copy_i32, store_row
from .tiles import group_size, point_rows, run_wide, wide_rows
from .wide import pack_rows

_CONV, _TRANSPOSED = columns("conv"), columns("conv_transpose")
_I32 = int(Element.I32)
_line_bytes, _summed_pixels = jit(conv_windows.summed_line_bytes), jit(conv_windows.summed_pixels)


@jit
def _conv_tap(row: int, acc: int, pixel: int, tap: int) -> None:
    """Add one kernel position to the accumulators of a pixel; ``pixel`` < 0: padding, which counts as the zero
    point.
    """
    groups, channels, outputs = at(row, _CONV.groups), at(row, _CONV.in_c), at(row, _CONV.out_c)
    per_group, width = channels // groups, outputs // groups
    x, element, zero_point = at(row, _CONV.x), at(row, _CONV.x_type), at(row, _CONV.x_zp)
    for c in range(channels):
        value = zero_point if pixel < 0 else fetch(x, element, pixel * channels + c)
        group = c // per_group
        weights = at(row, _CONV.w) + (tap * per_group + c - group * per_group) * outputs + group * width
        accumulate(acc + 4 * group * width, weights, value, width)


@jit
def _conv_pixel(row: int, acc: int, image: int, oy: int, ox: int) -> None:
    copy_i32(acc, at(row, _CONV.bias), at(row, _CONV.out_c))
    height, width, kernel_w = at(row, _CONV.in_h), at(row, _CONV.in_w), at(row, _CONV.kernel_w)
    for ky in range(at(row, _CONV.kernel_h)):
        iy = oy * at(row, _CONV.stride_h) - at(row, _CONV.pad_top) + ky * at(row, _CONV.dilation_h)
        for kx in range(kernel_w):
            ix = ox * at(row, _CONV.stride_w) - at(row, _CONV.pad_left) + kx * at(row, _CONV.dilation_w)
            inside = 0 <= iy < height and 0 <= ix < width
            _conv_tap(row, acc, (image * height + iy) * width + ix if inside else -1, ky * kernel_w + kx)


@jit
def conv(row: int, scratch: int) -> None:
    """Convolution; x's zero point is in the bias, padding reads as the zero point."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    height, width, outputs = at(row, _CONV.out_h), at(row, _CONV.out_w), at(row, _CONV.out_c)
    pitch = at_or(row, _CONV.y_pitch, outputs)
    for pixel in range(at(row, _CONV.batch) * height * width):
        _conv_pixel(row, acc, pixel // (height * width), pixel // width % height, pixel % width)
        store_row(
            at(row, _CONV.y),
            at(row, _CONV.y_type),
            at(row, _CONV.y_offset) + pixel * pitch,
            acc,
            at(row, _CONV.m),
            at(row, _CONV.n),
            outputs,
            at(row, _CONV.y_zp),
            at(row, _CONV.lo),
            at(row, _CONV.hi),
        )


@jit
def _transposed_tap(row: int, acc: int, pixel: int, tap: int) -> None:
    groups, channels = at(row, _TRANSPOSED.groups), at(row, _TRANSPOSED.in_c)
    per_group, width = channels // groups, at(row, _TRANSPOSED.out_c) // groups
    x, element, zero_point = at(row, _TRANSPOSED.x), at(row, _TRANSPOSED.x_type), at(row, _TRANSPOSED.x_zp)
    for c in range(channels):
        value = fetch(x, element, pixel * channels + c) - zero_point
        accumulate(
            acc + 4 * (c // per_group) * width, at(row, _TRANSPOSED.w) + (tap * channels + c) * width, value, width
        )


@jit
def _transposed_pixel(row: int, acc: int, image: int, oy: int, ox: int) -> None:
    copy_i32(acc, at(row, _TRANSPOSED.bias), at(row, _TRANSPOSED.out_c))
    height, width, kernel_w = at(row, _TRANSPOSED.in_h), at(row, _TRANSPOSED.in_w), at(row, _TRANSPOSED.kernel_w)
    stride_h, stride_w = at(row, _TRANSPOSED.stride_h), at(row, _TRANSPOSED.stride_w)
    for ky in range(at(row, _TRANSPOSED.kernel_h)):
        down = oy + at(row, _TRANSPOSED.pad_top) - ky * at(row, _TRANSPOSED.dilation_h)
        if down < 0 or down % stride_h != 0 or down // stride_h >= height:
            continue
        for kx in range(kernel_w):
            right = ox + at(row, _TRANSPOSED.pad_left) - kx * at(row, _TRANSPOSED.dilation_w)
            if right >= 0 and right % stride_w == 0 and right // stride_w < width:
                _transposed_tap(
                    row, acc, (image * height + down // stride_h) * width + right // stride_w, ky * kernel_w + kx
                )


@jit
def conv_transpose(row: int, scratch: int) -> None:
    """Transposed convolution, gathered: each output pixel collects the inputs that reach it."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    height, width, outputs = at(row, _TRANSPOSED.out_h), at(row, _TRANSPOSED.out_w), at(row, _TRANSPOSED.out_c)
    for pixel in range(at(row, _TRANSPOSED.batch) * height * width):
        _transposed_pixel(row, acc, pixel // (height * width), pixel // width % height, pixel % width)
        store_row(
            at(row, _TRANSPOSED.y),
            at(row, _TRANSPOSED.y_type),
            pixel * outputs,
            acc,
            at(row, _TRANSPOSED.m),
            at(row, _TRANSPOSED.n),
            outputs,
            at(row, _TRANSPOSED.y_zp),
            at(row, _TRANSPOSED.lo),
            at(row, _TRANSPOSED.hi),
        )


@jit
def packed_conv_transpose(row: int, scratch: int) -> None:
    """The opcode ``conv_transpose`` on packed weights.

    A line of the image times a line of the kernel gives ``kernel_w * out_c`` sums for each pixel. They lie side by side
    in the line of the output, where those of neighbouring pixels are added.
    """
    zeros, out_h = scratch + BLOCKS * BLOCK_BYTES + TILE_BYTES, at(row, _TRANSPOSED.out_h)
    for i in range(ZERO_BYTES // 4):
        store_32(zeros, i, 0)
    codes = zeros + ZERO_BYTES
    sums = codes + _line_bytes(at(row, _TRANSPOSED.in_w), at(row, _TRANSPOSED.in_c))
    for line in range(at(row, _TRANSPOSED.batch) * out_h):
        _sum_line(row, scratch, codes, sums, line // out_h, line % out_h)
        _store_line(row, scratch, sums + 4 * at(row, _TRANSPOSED.pad_left) * at(row, _TRANSPOSED.out_c), line)


@jit
def _sum_line(row: int, scratch: int, codes: int, sums: int, image: int, oy: int) -> None:
    """The sums of a line of the output, from the bias on."""
    in_w, channels, outputs = at(row, _TRANSPOSED.in_w), at(row, _TRANSPOSED.in_c), at(row, _TRANSPOSED.out_c)
    x, element, zero_point = at(row, _TRANSPOSED.x), at(row, _TRANSPOSED.x_type), at(row, _TRANSPOSED.x_zp)
    height, stride_h, steps = at(row, _TRANSPOSED.in_h), at(row, _TRANSPOSED.stride_h), (channels + 1) // 2
    out_w, kernel_w = at(row, _TRANSPOSED.out_w), at(row, _TRANSPOSED.kernel_w)
    for p in range(_summed_pixels(in_w, out_w, kernel_w, at(row, _TRANSPOSED.stride_w), at(row, _TRANSPOSED.pad_left))):
        copy_i32(sums + 4 * p * outputs, at(row, _TRANSPOSED.bias), outputs)
    for ky in range(at(row, _TRANSPOSED.kernel_h)):
        down = oy + at(row, _TRANSPOSED.pad_top) - ky * at(row, _TRANSPOSED.dilation_h)
        if down >= 0 and down % stride_h == 0 and down // stride_h < height:
            source = x + (image * height + down // stride_h) * in_w * channels * size_of(element)
            pack_rows(codes, source, element, zero_point, (channels, 1), in_w, channels, steps)
            _add_products(row, scratch, codes, sums, ky)


@jit
def _add_products(row: int, scratch: int, codes: int, sums: int, ky: int) -> None:
    """Add the products of a line of the image with line ``ky`` of the kernel."""
    isa, in_w, steps = at(row, ISA_COLUMN), at(row, _TRANSPOSED.in_w), (at(row, _TRANSPOSED.in_c) + 1) // 2
    outputs, step = at(row, _TRANSPOSED.out_c), at(row, _TRANSPOSED.stride_w) * at(row, _TRANSPOSED.out_c)
    acc, cols = scratch + BLOCKS * BLOCK_BYTES, at(row, _TRANSPOSED.kernel_w) * outputs
    zeros, panels, panel_bytes, first = acc + TILE_BYTES, (cols + LANES - 1) // LANES, steps * LANES * 4, 0
    while first < panels:
        group, top = group_size(isa, panels - first), 0
        weights, width = (
            at(row, PACKED_COLUMN) + (ky * panels + first) * panel_bytes,
            min(group * LANES, cols - first * LANES),
        )
        while top < in_w:
            rows = wide_rows(in_w - top)
            count = min(rows, in_w - top)
            point_rows(scratch, codes + top * steps * 4, steps * 4, count)
            run_wide(isa, group, rows, scratch, zeros, weights, panel_bytes, steps, weights, zeros, acc)
            for r in range(count):
                _add_i32(sums + 4 * ((top + r) * step + first * LANES), acc + r * group * LANES * 4, width)
            top += rows
        first += group


@jit
def _add_i32(target: int, source: int, count: int) -> None:
    for j in range(count):
        store_32(target, j, load_i32(target, j) + load_i32(source, j))


@jit
def _store_line(row: int, scratch: int, sums: int, line: int) -> None:
    """The codes of a line of the output."""
    outputs, width, y, element = (
        at(row, _TRANSPOSED.out_c),
        at(row, _TRANSPOSED.out_w),
        at(row, _TRANSPOSED.y),
        at(row, _TRANSPOSED.y_type),
    )
    m, n, y_zp = at(row, _TRANSPOSED.m), at(row, _TRANSPOSED.n), at(row, _TRANSPOSED.y_zp)
    lo, hi = at(row, _TRANSPOSED.lo), at(row, _TRANSPOSED.hi)
    if outputs != 1:
        for p in range(width):
            store_row(y, element, (line * width + p) * outputs, sums + 4 * p * outputs, m, n, outputs, y_zp, lo, hi)
        return
    for first in range(0, width, BLOCK):
        count = min(BLOCK, width - first)
        load_block(scratch, sums, _I32, first, 1, count)
        requant_block(scratch, count, load_i32(m, 0), load_i32(n, 0))
        code_block(scratch, count, y_zp, lo, hi)
        store_block(y, element, line * width + first, scratch, count)
