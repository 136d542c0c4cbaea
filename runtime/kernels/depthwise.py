"""Depthwise convolution: one weight a channel and tap, 16 channels to a vector.

For every output pixel a list of addresses, one a tap, says where the window's pixels are; a position in the padding points
to a pixel of zero points in scratch memory. Along a row of the image the list only moves by the stride.
"""

from __future__ import annotations

from ..instruction import Element
from ..jit import jit
from ..memory import load_i64, store_64
from ..opcodes import columns
from ..simd import LANES
from ..vectors import channels_i16_1, channels_i16_4, channels_u8_1, channels_u8_4
from .common import BLOCK_BYTES, BLOCKS, at, put, size_of
from .tiles import requant_codes

_CONV = columns("conv")
_I16 = int(Element.I16)


@jit
def is_depthwise(row: int) -> bool:
    """As many groups as input and output channels, and enough of them to fill a vector."""
    groups = at(row, _CONV.groups)
    return groups == at(row, _CONV.in_c) and groups == at(row, _CONV.out_c) and groups >= LANES


@jit
def _point(row: int, pointers: int, padding: int, image: int, oy: int, ox: int) -> None:
    """The addresses of a window's pixels."""
    height, width, kernel_w = at(row, _CONV.in_h), at(row, _CONV.in_w), at(row, _CONV.kernel_w)
    pixel_bytes = at(row, _CONV.in_c) * size_of(at(row, _CONV.x_type))
    for ky in range(at(row, _CONV.kernel_h)):
        iy = oy * at(row, _CONV.stride_h) - at(row, _CONV.pad_top) + ky * at(row, _CONV.dilation_h)
        for kx in range(kernel_w):
            ix = ox * at(row, _CONV.stride_w) - at(row, _CONV.pad_left) + kx * at(row, _CONV.dilation_w)
            inside = 0 <= iy < height and 0 <= ix < width
            place = at(row, _CONV.x) + ((image * height + iy) * width + ix) * pixel_bytes
            store_64(pointers, ky * kernel_w + kx, place if inside else padding)


@jit
def _advance(pointers: int, taps: int, step: int) -> None:
    for tap in range(taps):
        store_64(pointers, tap, load_i64(pointers, tap) + step)


@jit
def _is_inner(row: int, oy: int, ox: int) -> bool:
    """No position of the window lies in the padding."""
    top = oy * at(row, _CONV.stride_h) - at(row, _CONV.pad_top)
    left = ox * at(row, _CONV.stride_w) - at(row, _CONV.pad_left)
    bottom = top + (at(row, _CONV.kernel_h) - 1) * at(row, _CONV.dilation_h)
    right = left + (at(row, _CONV.kernel_w) - 1) * at(row, _CONV.dilation_w)
    return top >= 0 and left >= 0 and bottom < at(row, _CONV.in_h) and right < at(row, _CONV.in_w)


@jit
def _sum_channels(row: int, pointers: int, acc: int) -> None:
    """int32 sums of all channels of one pixel; the last vector overlaps its neighbour where channels are no multiple of 16."""
    channels, taps, wide = at(row, _CONV.in_c), at(row, _CONV.kernel_h) * at(row, _CONV.kernel_w), at(row, _CONV.x_type) == _I16
    w, bias = at(row, _CONV.w), at(row, _CONV.bias)
    c = 0
    while c < channels:
        if c + 4 * LANES <= channels:
            if wide:
                channels_i16_4(pointers, taps, 2 * c, w + c, channels, bias + 4 * c, acc + 4 * c)
            else:
                channels_u8_4(pointers, taps, c, w + c, channels, bias + 4 * c, acc + 4 * c)
            c += 4 * LANES
            continue
        first = min(c, channels - LANES)
        if wide:
            channels_i16_1(pointers, taps, 2 * first, w + first, channels, bias + 4 * first, acc + 4 * first)
        else:
            channels_u8_1(pointers, taps, first, w + first, channels, bias + 4 * first, acc + 4 * first)
        c += LANES


@jit
def depthwise_conv(row: int, scratch: int) -> None:
    """The opcode ``conv`` where every channel is its own group."""
    channels, taps, x_type = at(row, _CONV.in_c), at(row, _CONV.kernel_h) * at(row, _CONV.kernel_w), at(row, _CONV.x_type)
    acc = scratch + BLOCKS * BLOCK_BYTES
    pointers = acc + (channels + 1) // 2 * 8
    padding = pointers + 8 * taps
    for c in range(channels):
        put(padding, x_type, c, at(row, _CONV.x_zp))
    height, width, element = at(row, _CONV.out_h), at(row, _CONV.out_w), at(row, _CONV.y_type)
    m, n, y_zp, lo, hi = at(row, _CONV.m), at(row, _CONV.n), at(row, _CONV.y_zp), at(row, _CONV.lo), at(row, _CONV.hi)
    step, was_inner = at(row, _CONV.stride_w) * channels * size_of(x_type), False
    for pixel in range(at(row, _CONV.batch) * height * width):
        image, oy, ox = pixel // (height * width), pixel // width % height, pixel % width
        inner = _is_inner(row, oy, ox)
        if inner and was_inner and ox > 0:
            _advance(pointers, taps, step)
        else:
            _point(row, pointers, padding, image, oy, ox)
        was_inner = inner
        _sum_channels(row, pointers, acc)
        requant_codes(at(row, _CONV.y) + pixel * channels * size_of(element), element, acc, m, n, channels, y_zp, lo, hi)
