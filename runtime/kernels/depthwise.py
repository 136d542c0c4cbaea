"""Depthwise convolution: one weight a channel and tap, chunks of channels to a vector.

The image is copied band by band with its padding (`windows.py`), so that every tap lies at a fixed distance from its pixel. Six pixels at a
time are summed, then requantized together.
"""

from __future__ import annotations

from ..channels import (
    pair256_16,
    pair512_16,
    pair512_32,
    pairany_16,
    quad256_16,
    quad256_32,
    quad512_16,
    quad512_32,
    quad512_64,
    single_i16,
    single_u8,
)
from ..instruction import ISA_COLUMN, PACKED_COLUMN, TILE_BYTES
from ..jit import jit
from ..memory import load_i64, store_64
from ..opcodes import columns
from ..simd import LANES, TILE_ROWS, Isa
from ..windows import chunk_width, padded_channels, widest_chunk
from .bands import band_lines, band_rows, copy_line, layout_of, padded_width, point_pixels
from .common import BLOCK_BYTES, BLOCKS, at, at_or, size_of
from .tiles import QUAD, requant_rows

_CONV = columns("conv")
_AVX512, _AVX_VNNI, _AVX2 = int(Isa.AVX512_VNNI), int(Isa.AVX_VNNI), int(Isa.AVX2)
_MOST_PIXELS = BLOCKS * BLOCK_BYTES // 8 - TILE_ROWS

_chunk_width, _padded_channels, _widest_chunk = jit(chunk_width), jit(padded_channels), jit(widest_chunk)


@jit
def is_depthwise(row: int) -> bool:
    """As many groups as input and output channels."""
    groups = at(row, _CONV.groups)
    return groups > 1 and groups == at(row, _CONV.in_c) and groups == at(row, _CONV.out_c)


@jit
def _sum_chunk(isa: int, layout: int, width: int, x: int, offsets: int, groups: int, w: int, bias: int, acc: int) -> None:
    if layout == QUAD:
        if isa == _AVX512:
            if width == 64:
                quad512_64(x, offsets, groups, w, bias, acc)
            elif width == 32:
                quad512_32(x, offsets, groups, w, bias, acc)
            else:
                quad512_16(x, offsets, groups, w, bias, acc)
        elif width == 32:
            quad256_32(x, offsets, groups, w, bias, acc)
        else:
            quad256_16(x, offsets, groups, w, bias, acc)
    elif isa == _AVX512:
        if width == 32:
            pair512_32(x, offsets, groups, w, bias, acc)
        else:
            pair512_16(x, offsets, groups, w, bias, acc)
    elif isa in (_AVX2, _AVX_VNNI):
        pair256_16(x, offsets, groups, w, bias, acc)
    else:
        pairany_16(x, offsets, groups, w, bias, acc)


@jit
def _point_taps(row: int, offsets: int, line_bytes: int, pixel_bytes: int, taps: int) -> None:
    """Offsets of a window's taps; those that fill the last group have no weight and are read at the first."""
    width = at(row, _CONV.kernel_w)
    for tap in range(taps):
        inside = tap < width * at(row, _CONV.kernel_h)
        place = tap // width * at(row, _CONV.dilation_h) * line_bytes + tap % width * at(row, _CONV.dilation_w) * pixel_bytes
        store_64(offsets, tap, place if inside else 0)


@jit
def _is_direct(row: int, layout: int) -> bool:
    """The taps can be read where the image is: no padding, codes as the tiles want them, whole chunks of channels."""
    wide = padded_width(at(row, _CONV.out_w), at(row, _CONV.kernel_w), at(row, _CONV.stride_w), at(row, _CONV.dilation_w))
    high = band_lines(at(row, _CONV.out_h), at(row, _CONV.kernel_h), at(row, _CONV.stride_h), at(row, _CONV.dilation_h))
    padded = at(row, _CONV.pad_top) + at(row, _CONV.pad_left) > 0 or wide > at(row, _CONV.in_w) or high > at(row, _CONV.in_h)
    channels, covered = at(row, _CONV.in_c), 0
    while covered < channels:
        covered += _chunk_width(_widest_chunk(at(row, ISA_COLUMN) == _AVX512, layout == QUAD), channels - covered)
    return not padded and covered == channels and size_of(at(row, _CONV.x_type)) == (1 if layout == QUAD else 2)


@jit
def depthwise_conv(row: int, scratch: int) -> None:
    """The opcode ``conv`` where every channel is its own group, on packed weights."""
    layout, out_h, height = layout_of(at(row, ISA_COLUMN), at(row, _CONV.x_type)), at(row, _CONV.out_h), at(row, _CONV.in_h)
    kernel_h, stride_h, dilation_h = at(row, _CONV.kernel_h), at(row, _CONV.stride_h), at(row, _CONV.dilation_h)
    pixel_bytes = at(row, _CONV.in_c) * (1 if layout == QUAD else 2)
    pixels = out_h * at(row, _CONV.out_w)
    if _is_direct(row, layout):
        line_bytes = pixel_bytes * at(row, _CONV.in_w)
        for image in range(at(row, _CONV.batch)):
            _convolve_band(row, scratch, layout, at(row, _CONV.x) + image * height * line_bytes, line_bytes, image * pixels, pixels)
        return
    line_bytes = pixel_bytes * padded_width(at(row, _CONV.out_w), at(row, _CONV.kernel_w), at(row, _CONV.stride_w), at(row, _CONV.dilation_w))
    band = scratch + BLOCKS * BLOCK_BYTES + TILE_BYTES + (kernel_h * at(row, _CONV.kernel_w) + 11) // 8 * 64
    most = band_rows(out_h, line_bytes, kernel_h, stride_h, dilation_h)
    for image in range(at(row, _CONV.batch)):
        for first in range(0, out_h, most):
            count, top = min(most, out_h - first), first * stride_h - at(row, _CONV.pad_top)
            for i in range(band_lines(count, kernel_h, stride_h, dilation_h)):
                copy_line(row, band + i * line_bytes, layout, image * height + top + i if 0 <= top + i < height else -1)
            start = image * pixels + first * at(row, _CONV.out_w)
            _convolve_band(row, scratch, layout, band, line_bytes, start, count * at(row, _CONV.out_w))


@jit
def _convolve_band(row: int, scratch: int, layout: int, base: int, line_bytes: int, first: int, pixels: int) -> None:
    """``pixels`` pixels of the output from ``first`` on, whose windows start at ``base``."""
    group, pixel_bytes = 4 if layout == QUAD else 2, at(row, _CONV.in_c) * (1 if layout == QUAD else 2)
    groups = (at(row, _CONV.kernel_h) * at(row, _CONV.kernel_w) + group - 1) // group
    _point_taps(row, scratch + BLOCKS * BLOCK_BYTES + TILE_BYTES, line_bytes, pixel_bytes, groups * group)
    for start in range(0, pixels, _MOST_PIXELS):
        count = min(_MOST_PIXELS, pixels - start)
        point_pixels(row, scratch, base, line_bytes, pixel_bytes, start, count)
        _convolve_pixels(row, scratch, groups, first + start, count)


@jit
def _convolve_pixels(row: int, scratch: int, groups: int, first: int, pixels: int) -> None:
    """``pixels`` pixels of the output from ``first`` on; the addresses of their windows are at ``scratch``."""
    isa, channels, element, y_size = at(row, ISA_COLUMN), at(row, _CONV.in_c), at(row, _CONV.y_type), size_of(at(row, _CONV.y_type))
    layout = layout_of(isa, at(row, _CONV.x_type))
    x_size = 1 if layout == QUAD else 2
    acc, packed = scratch + BLOCKS * BLOCK_BYTES, at(row, PACKED_COLUMN)
    offsets, pitch = acc + TILE_BYTES, at_or(row, _CONV.y_pitch, channels)
    padded, single = _padded_channels(channels), at(row, _CONV.kernel_h) * at(row, _CONV.kernel_w) == 1
    m, n, w = packed + 4 * padded, packed + 8 * padded, packed + 12 * padded
    for top in range(0, pixels, TILE_ROWS):
        count = min(TILE_ROWS, pixels - top)
        y, c = at(row, _CONV.y) + (at(row, _CONV.y_offset) + (first + top) * pitch) * y_size, 0
        while c < channels:
            width = _chunk_width(_widest_chunk(isa == _AVX512, layout == QUAD), channels - c)
            weights = w + c * groups * 4
            for r in range(count):
                x = load_i64(scratch, top + r) + c * x_size
                if not single:
                    _sum_chunk(isa, layout, width, x, offsets, groups, weights, packed + 4 * c, acc + r * 4 * width)
                elif layout == QUAD:
                    single_u8(x, width // LANES, weights, packed + 4 * c, acc + r * 4 * width)
                else:
                    single_i16(x, width // LANES, weights, packed + 4 * c, acc + r * 4 * width)
            used = min(width, channels - c)
            requant_rows(
                y + c * y_size, pitch * y_size, element, acc, 4 * width, count, m + 4 * c, n + 4 * c, used,
                at(row, _CONV.y_zp), at(row, _CONV.lo), at(row, _CONV.hi),
            )
            c += width
