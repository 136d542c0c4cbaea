"""Matrix products and convolutions on packed weights: blocks of rows gathered in scratch memory, then register tiles."""

from __future__ import annotations

from ..instruction import BLOCK_ROWS, ISA_COLUMN, PACKED_COLUMN, TILE_BYTES, Element
from ..jit import jit
from ..memory import load_i16, load_u8, store_8, store_16
from ..opcodes import columns
from ..simd import Isa
from .common import BLOCK_BYTES, BLOCKS, at, size_of
from .tiles import PAIR, QUAD, multiply_block, packed_bytes

_CONV, _GEMM = columns("conv"), columns("gemm")
_U8, _I16 = int(Element.U8), int(Element.I16)
_AVX512, _AVX_VNNI = int(Isa.AVX512_VNNI), int(Isa.AVX_VNNI)


@jit
def _layout_of(isa: int, element: int) -> int:
    return QUAD if element == _U8 and isa in (_AVX512, _AVX_VNNI) else PAIR


@jit
def _steps_of(layout: int, k: int) -> int:
    return (k + 3) // 4 if layout == QUAD else (k + 1) // 2


@jit
def _gather_run(target: int, source: int, layout: int, element: int, count: int) -> None:
    """Copy ``count`` codes; in pair layout they become int16."""
    if element == _I16:
        for i in range(count):
            store_16(target, i, load_i16(source, i))
    elif layout == QUAD:
        for i in range(count):
            store_8(target, i, load_u8(source, i))
    else:
        for i in range(count):
            store_16(target, i, load_u8(source, i))


@jit
def _fill_run(target: int, layout: int, count: int, value: int) -> None:
    if layout == QUAD:
        for i in range(count):
            store_8(target, i, value)
    else:
        for i in range(count):
            store_16(target, i, value)


@jit
def packed_gemm(row: int, scratch: int) -> None:
    """The opcode ``gemm`` on packed weights."""
    isa, packed, element, k, cols = at(row, ISA_COLUMN), at(row, PACKED_COLUMN), at(row, _GEMM.x_type), at(row, _GEMM.k), at(row, _GEMM.cols)
    layout, size, rows = _layout_of(isa, element), size_of(element), at(row, _GEMM.rows)
    steps, acc = _steps_of(layout, k), scratch + BLOCKS * BLOCK_BYTES
    panel, stride = acc + TILE_BYTES, at(row, _GEMM.x_row) * size
    x = at(row, _GEMM.x) + at(row, _GEMM.x_offset) * size
    direct = k * size == steps * 4
    y_size = size_of(at(row, _GEMM.y_type))
    y, y_stride = at(row, _GEMM.y) + at(row, _GEMM.y_offset) * y_size, at(row, _GEMM.y_row) * y_size
    for first in range(0, rows, BLOCK_ROWS):
        count = min(BLOCK_ROWS, rows - first)
        source = x + first * stride
        if not direct:
            for r in range(count):
                _gather_run(panel + r * steps * 4, source + r * stride, layout, element, k)
        out = (y + first * y_stride, y_stride, at(row, _GEMM.y_type), at(row, _GEMM.y_zp), at(row, _GEMM.lo), at(row, _GEMM.hi))
        if direct:
            multiply_block(isa, layout, source, stride, count, packed, cols, steps, out, acc)
        else:
            multiply_block(isa, layout, panel, steps * 4, count, packed, cols, steps, out, acc)


@jit
def _gather_line(row: int, target: int, layout: int, line: int, left: int, group: int) -> None:
    """A group's channels of one kernel row of a window: pixels ``left``, ``left + dilation`` ... of the image line ``line`` (< 0: padding)."""
    channels, width, element = at(row, _CONV.in_c), at(row, _CONV.in_w), at(row, _CONV.x_type)
    taps, dilation, zero_point = at(row, _CONV.kernel_w), at(row, _CONV.dilation_w), at(row, _CONV.x_zp)
    run = channels // at(row, _CONV.groups)
    each = run if layout == QUAD else 2 * run
    size = size_of(element)
    x, pixel_bytes = at(row, _CONV.x) + group * run * size, channels * size
    if line >= 0 and dilation == 1 and left >= 0 and left + taps <= width and run == channels:
        _gather_run(target, x + (line * width + left) * pixel_bytes, layout, element, taps * channels)
        return
    for kx in range(taps):
        ix = left + kx * dilation
        if line >= 0 and 0 <= ix < width:
            _gather_run(target + kx * each, x + (line * width + ix) * pixel_bytes, layout, element, run)
        else:
            _fill_run(target + kx * each, layout, run, zero_point)


@jit
def _gather_window(row: int, target: int, layout: int, pixel: int, group: int) -> None:
    """A group's channels of the window of one output pixel, kernel row by kernel row."""
    out_h, out_w, height = at(row, _CONV.out_h), at(row, _CONV.out_w), at(row, _CONV.in_h)
    image, oy, ox = pixel // (out_h * out_w), pixel // out_w % out_h, pixel % out_w
    line_bytes = at(row, _CONV.kernel_w) * (at(row, _CONV.in_c) // at(row, _CONV.groups)) * (1 if layout == QUAD else 2)
    left = ox * at(row, _CONV.stride_w) - at(row, _CONV.pad_left)
    for ky in range(at(row, _CONV.kernel_h)):
        iy = oy * at(row, _CONV.stride_h) - at(row, _CONV.pad_top) + ky * at(row, _CONV.dilation_h)
        line = image * height + iy if 0 <= iy < height else -1
        _gather_line(row, target + ky * line_bytes, layout, line, left, group)


@jit
def _is_pointwise(row: int) -> bool:
    """A 1x1 convolution without stride, padding and groups: the image is the matrix."""
    single = at(row, _CONV.kernel_h) * at(row, _CONV.kernel_w) * at(row, _CONV.groups) == 1
    strides = at(row, _CONV.stride_h) * at(row, _CONV.stride_w)
    same = at(row, _CONV.in_h) == at(row, _CONV.out_h) and at(row, _CONV.in_w) == at(row, _CONV.out_w)
    return single and strides == 1 and same and at(row, _CONV.pad_top) == 0 and at(row, _CONV.pad_left) == 0


@jit
def packed_conv(row: int, scratch: int) -> None:
    """The opcode ``conv`` on packed weights, group by group."""
    pixels = at(row, _CONV.batch) * at(row, _CONV.out_h) * at(row, _CONV.out_w)
    for group in range(at(row, _CONV.groups)):
        for first in range(0, pixels, BLOCK_ROWS):
            _convolve_block(row, scratch + BLOCKS * BLOCK_BYTES, group, first, min(BLOCK_ROWS, pixels - first))


@jit
def _convolve_block(row: int, acc: int, group: int, first: int, count: int) -> None:
    """``count`` output pixels from ``first`` on, the channels of one group."""
    isa, element, groups = at(row, ISA_COLUMN), at(row, _CONV.x_type), at(row, _CONV.groups)
    layout, size, cols = _layout_of(isa, element), size_of(element), at(row, _CONV.out_c) // groups
    k = at(row, _CONV.kernel_h) * at(row, _CONV.kernel_w) * (at(row, _CONV.in_c) // groups)
    steps = _steps_of(layout, k)
    packed = at(row, PACKED_COLUMN) + group * packed_bytes(layout, steps, cols)
    y_size = size_of(at(row, _CONV.y_type))
    y_stride = at(row, _CONV.out_c) * y_size
    y = at(row, _CONV.y) + first * y_stride + group * cols * y_size
    out = (y, y_stride, at(row, _CONV.y_type), at(row, _CONV.y_zp), at(row, _CONV.lo), at(row, _CONV.hi))
    if _is_pointwise(row) and k * size == steps * 4:
        multiply_block(isa, layout, at(row, _CONV.x) + first * k * size, k * size, count, packed, cols, steps, out, acc)
        return
    panel = acc + TILE_BYTES
    for r in range(count):
        _gather_window(row, panel + r * steps * 4, layout, first + r, group)
    multiply_block(isa, layout, panel, steps * 4, count, packed, cols, steps, out, acc)
