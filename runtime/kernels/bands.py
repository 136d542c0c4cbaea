"""Bands of padded image lines in scratch memory, and the addresses of the windows in them (`conv_windows.py` says
why).
"""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions import conv_windows
from ..instructions.instruction import FITTING_COLUMN, ISA_COLUMN, Element
from ..instructions.opcodes import columns
from ..vector.memory import load_i16, load_u8, store_8, store_16, store_64
from ..vector.sum_tiles import TILE_ROWS, Isa
from .common import at, size_of
from .tiles import PAIR, QUAD

_CONV = columns("conv")
_U8, _I16 = int(Element.U8), int(Element.I16)
_AVX512, _AVX_VNNI = int(Isa.AVX512_VNNI), int(Isa.AVX_VNNI)

reads_lines, segment_count, padded_width = (
    jit(conv_windows.reads_lines),
    jit(conv_windows.segment_count),
    jit(conv_windows.padded_width),
)
band_lines, band_rows = jit(conv_windows.band_lines), jit(conv_windows.band_rows)


@jit
def layout_of(isa: int, element: int) -> int:
    """How tiles of this instruction set want codes of this type."""
    return QUAD if element == _U8 and isa in (_AVX512, _AVX_VNNI) else PAIR


@jit
def product_layout(row: int, element: int) -> int:
    """The same for a product with constant weights."""
    return QUAD if at(row, FITTING_COLUMN) > 0 else layout_of(at(row, ISA_COLUMN), element)


@jit
def gather_run(target: int, source: int, layout: int, element: int, count: int) -> None:
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
def fill_run(target: int, layout: int, count: int, value: int) -> None:
    """``count`` times one code."""
    if layout == QUAD:
        for i in range(count):
            store_8(target, i, value)
    else:
        for i in range(count):
            store_16(target, i, value)


@jit
def copy_line(row: int, target: int, layout: int, line: int) -> None:
    """One line of a band; ``line`` < 0: all padding."""
    channels, width, element, zero_point = (
        at(row, _CONV.in_c),
        at(row, _CONV.in_w),
        at(row, _CONV.x_type),
        at(row, _CONV.x_zp),
    )
    pixels = padded_width(
        at(row, _CONV.out_w), at(row, _CONV.kernel_w), at(row, _CONV.stride_w), at(row, _CONV.dilation_w)
    )
    before = min(at(row, _CONV.pad_left), pixels) if line >= 0 else pixels
    inside = max(min(pixels - before, width), 0)
    size = 1 if layout == QUAD else 2
    fill_run(target, layout, before * channels, zero_point)
    source = at(row, _CONV.x) + line * width * channels * size_of(element)
    gather_run(target + before * channels * size, source, layout, element, inside * channels)
    fill_run(target + (before + inside) * channels * size, layout, (pixels - before - inside) * channels, zero_point)


@jit
def point_pixels(row: int, pointers: int, base: int, line_bytes: int, pixel_bytes: int, first: int, count: int) -> None:
    """Addresses of the windows of ``count`` pixels of the band from pixel ``first`` on, the last one repeated."""
    width, across, down = (
        at(row, _CONV.out_w),
        at(row, _CONV.stride_w) * pixel_bytes,
        at(row, _CONV.stride_h) * line_bytes,
    )
    y, x = first // width, first % width
    place = base
    for r in range(count):
        place = base + y * down + x * across
        store_64(pointers, r, place)
        x += 1
        if x == width:
            x, y = 0, y + 1
    for r in range(count, count + TILE_ROWS - 1):
        store_64(pointers, r, place)
