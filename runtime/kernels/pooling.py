"""Pools."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import Element
from ..instructions.opcodes import columns
from ..vector.memory import load_i32, load_i64, store_8, store_16, store_64
from ..vector.pools import max_i16_8, max_i16_32, max_u8_16, max_u8_64, sum_i16_8, sum_i16_32, sum_u8_16, sum_u8_64
from .common import BLOCK_BYTES, BLOCKS, add_row, at, clamp, fetch, put, rounding

_MAX, _AVERAGE = columns("max_pool"), columns("average_pool")
_I16 = int(Element.I16)
_MOST_POSITIONS = BLOCKS * BLOCK_BYTES // 8


@jit
def _point_window(geometry: int, x: int, size: int, pointers: int, image: int, oy: int, ox: int) -> int:
    """Addresses of the real positions of a window; returns how many they are.

    ``geometry``: the row, shifted so that `_MAX` names its geometry; ``x``, ``size``: address of the image and bytes of
    a code.
    """
    height, width, count = at(geometry, _MAX.in_h), at(geometry, _MAX.in_w), 0
    pixel_bytes = at(geometry, _MAX.in_c) * size
    top = oy * at(geometry, _MAX.stride_h) - at(geometry, _MAX.pad_top)
    left = ox * at(geometry, _MAX.stride_w) - at(geometry, _MAX.pad_left)
    for ky in range(at(geometry, _MAX.kernel_h)):
        iy = top + ky * at(geometry, _MAX.dilation_h)
        if iy < 0 or iy >= height:
            continue
        for kx in range(at(geometry, _MAX.kernel_w)):
            ix = left + kx * at(geometry, _MAX.dilation_w)
            if 0 <= ix < width:
                store_64(pointers, count, x + ((image * height + iy) * width + ix) * pixel_bytes)
                count += 1
    return count


@jit
def _is_inner(geometry: int, oy: int, ox: int) -> bool:
    """No position of the window lies in the padding."""
    top = oy * at(geometry, _MAX.stride_h) - at(geometry, _MAX.pad_top)
    left = ox * at(geometry, _MAX.stride_w) - at(geometry, _MAX.pad_left)
    bottom = top + (at(geometry, _MAX.kernel_h) - 1) * at(geometry, _MAX.dilation_h)
    right = left + (at(geometry, _MAX.kernel_w) - 1) * at(geometry, _MAX.dilation_w)
    return top >= 0 and left >= 0 and bottom < at(geometry, _MAX.in_h) and right < at(geometry, _MAX.in_w)


@jit
def _fits(geometry: int, element: int) -> bool:
    """Enough channels for a vector, and a window whose addresses fit the blocks of the scratch memory."""
    taps = at(geometry, _MAX.kernel_h) * at(geometry, _MAX.kernel_w)
    return taps <= _MOST_POSITIONS and at(geometry, _MAX.in_c) >= (8 if element == _I16 else 16)


@jit
def _max_channels(y: int, pointers: int, count: int, shift: int, element: int, channels: int) -> None:
    """The largest codes of ``count`` positions, ``shift`` bytes behind their addresses; the last vector overlaps its
    neighbour.
    """
    c = 0
    while c < channels:
        if element == _I16:
            if channels - c >= 32:
                max_i16_32(y + 2 * c, pointers, count, shift + 2 * c)
                c += 32
            else:
                c = min(c, channels - 8)
                max_i16_8(y + 2 * c, pointers, count, shift + 2 * c)
                c += 8
        elif channels - c >= 64:
            max_u8_64(y + c, pointers, count, shift + c)
            c += 64
        else:
            c = min(c, channels - 16)
            max_u8_16(y + c, pointers, count, shift + c)
            c += 16


@jit
def _sum_channels(acc: int, pointers: int, count: int, shift: int, element: int, channels: int) -> None:
    """int32 sums of the codes of ``count`` positions, ``shift`` bytes behind their addresses; the last vector overlaps
    its neighbour.
    """
    c = 0
    while c < channels:
        if element == _I16:
            if channels - c >= 32:
                sum_i16_32(acc + 4 * c, pointers, count, shift + 2 * c)
                c += 32
            else:
                c = min(c, channels - 8)
                sum_i16_8(acc + 4 * c, pointers, count, shift + 2 * c)
                c += 8
        elif channels - c >= 64:
            sum_u8_64(acc + 4 * c, pointers, count, shift + c)
            c += 64
        else:
            c = min(c, channels - 16)
            sum_u8_16(acc + 4 * c, pointers, count, shift + c)
            c += 16


@jit
def _max_window(row: int, target: int, image: int, oy: int, ox: int) -> None:
    """The general form, code by code."""
    channels, height, width, element = at(row, _MAX.in_c), at(row, _MAX.in_h), at(row, _MAX.in_w), at(row, _MAX.x_type)
    for c in range(channels):
        put(target, element, c, -32768 if element == _I16 else 0)
    for ky in range(at(row, _MAX.kernel_h)):
        iy = oy * at(row, _MAX.stride_h) - at(row, _MAX.pad_top) + ky * at(row, _MAX.dilation_h)
        for kx in range(at(row, _MAX.kernel_w)):
            ix = ox * at(row, _MAX.stride_w) - at(row, _MAX.pad_left) + kx * at(row, _MAX.dilation_w)
            if 0 <= iy < height and 0 <= ix < width:
                start = ((image * height + iy) * width + ix) * channels
                for c in range(channels):
                    put(target, element, c, max(fetch(target, element, c), fetch(at(row, _MAX.x), element, start + c)))


@jit
def max_pool(row: int, scratch: int) -> None:
    """Largest code of each window; padding never wins."""
    height, width, element = at(row, _MAX.out_h), at(row, _MAX.out_w), at(row, _MAX.x_type)
    size, channels, fits = 2 if element == _I16 else 1, at(row, _MAX.in_c), _fits(row, element)
    step, count, shift, was_inner = at(row, _MAX.stride_w) * channels * size, 0, 0, False
    for pixel in range(at(row, _MAX.batch) * height * width):
        target = at(row, _MAX.y) + pixel * channels * size
        image, oy, ox = pixel // (height * width), pixel // width % height, pixel % width
        if not fits:
            _max_window(row, target, image, oy, ox)
            continue
        inner = _is_inner(row, oy, ox)
        if inner and was_inner and ox > 0:
            shift += step
        else:
            count, shift = _point_window(row, at(row, _MAX.x), size, scratch, image, oy, ox), 0
        was_inner = inner
        _max_channels(target, scratch, count, shift, element, channels)


@jit
def _average_window(row: int, acc: int, image: int, oy: int, ox: int) -> int:
    """Sum the window's codes, each less its zero point, into ``acc``; returns how many positions count."""
    channels, height, width = at(row, _AVERAGE.in_c), at(row, _AVERAGE.in_h), at(row, _AVERAGE.in_w)
    bottom, right = height + at(row, _AVERAGE.pad_bottom), width + at(row, _AVERAGE.pad_right)
    padding_counts = at(row, _AVERAGE.count_include_pad) != 0
    real, counted = 0, 0
    for c in range(channels):
        store_64(acc, c, 0)
    for ky in range(at(row, _AVERAGE.kernel_h)):
        iy = oy * at(row, _AVERAGE.stride_h) - at(row, _AVERAGE.pad_top) + ky * at(row, _AVERAGE.dilation_h)
        for kx in range(at(row, _AVERAGE.kernel_w)):
            ix = ox * at(row, _AVERAGE.stride_w) - at(row, _AVERAGE.pad_left) + kx * at(row, _AVERAGE.dilation_w)
            if 0 <= iy < height and 0 <= ix < width:
                add_row(
                    acc,
                    at(row, _AVERAGE.x),
                    at(row, _AVERAGE.x_type),
                    ((image * height + iy) * width + ix) * channels,
                    channels,
                )
                real += 1
            if iy < bottom and ix < right:
                counted += 1
    for c in range(channels):
        store_64(acc, c, load_i64(acc, c) - real * at(row, _AVERAGE.x_zp))
    return max(counted if padding_counts else real, 1)


@jit
def _counted(row: int, oy: int, ox: int, real: int) -> int:
    """Positions of a window that its mean divides by: the real ones, or those inside the declared padding as well."""
    if at(row, _AVERAGE.count_include_pad) == 0:
        return max(real, 1)
    bottom, right = (
        at(row, _AVERAGE.in_h) + at(row, _AVERAGE.pad_bottom),
        at(row, _AVERAGE.in_w) + at(row, _AVERAGE.pad_right),
    )
    top = oy * at(row, _AVERAGE.stride_h) - at(row, _AVERAGE.pad_top)
    left = ox * at(row, _AVERAGE.stride_w) - at(row, _AVERAGE.pad_left)
    lines, columns_inside = 0, 0
    for ky in range(at(row, _AVERAGE.kernel_h)):
        lines += 1 if top + ky * at(row, _AVERAGE.dilation_h) < bottom else 0
    for kx in range(at(row, _AVERAGE.kernel_w)):
        columns_inside += 1 if left + kx * at(row, _AVERAGE.dilation_w) < right else 0
    return max(lines * columns_inside, 1)


@jit
def _average_codes(row: int, y: int, acc: int, real: int, counted: int) -> None:
    """Codes of int32 sums of all channels."""
    m, n = load_i32(at(row, _AVERAGE.m), counted - 1), load_i32(at(row, _AVERAGE.n), counted - 1)
    y_zp, lo, hi, half = at(row, _AVERAGE.y_zp), at(row, _AVERAGE.lo), at(row, _AVERAGE.hi), rounding(n)
    offset = real * at(row, _AVERAGE.x_zp)
    if at(row, _AVERAGE.y_type) == _I16:
        for c in range(at(row, _AVERAGE.in_c)):
            store_16(y, c, clamp((((load_i32(acc, c) - offset) * m + half) >> n) + y_zp, lo, hi))
    else:
        for c in range(at(row, _AVERAGE.in_c)):
            store_8(y, c, clamp((((load_i32(acc, c) - offset) * m + half) >> n) + y_zp, lo, hi))


@jit
def average_pool(row: int, scratch: int) -> None:
    """Mean of each window: one multiplier for every number of positions that count."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    height, width, channels, element = (
        at(row, _AVERAGE.out_h),
        at(row, _AVERAGE.out_w),
        at(row, _AVERAGE.in_c),
        at(row, _AVERAGE.x_type),
    )
    y_zp, lo, hi = at(row, _AVERAGE.y_zp), at(row, _AVERAGE.lo), at(row, _AVERAGE.hi)
    size, y_size, geometry = (
        2 if element == _I16 else 1,
        2 if at(row, _AVERAGE.y_type) == _I16 else 1,
        row + 8 * (_AVERAGE.batch - _MAX.batch),
    )
    fits, real, shift, was_inner = _fits(geometry, element), 0, 0, False
    for pixel in range(at(row, _AVERAGE.batch) * height * width):
        image, oy, ox = pixel // (height * width), pixel // width % height, pixel % width
        if fits:
            inner = _is_inner(geometry, oy, ox)
            if inner and was_inner and ox > 0:
                shift += at(row, _AVERAGE.stride_w) * channels * size
            else:
                real, shift = _point_window(geometry, at(row, _AVERAGE.x), size, scratch, image, oy, ox), 0
            was_inner = inner
            _sum_channels(acc, scratch, real, shift, element, channels)
            _average_codes(
                row,
                at(row, _AVERAGE.y) + pixel * channels * y_size,
                acc,
                real,
                real if inner else _counted(row, oy, ox, real),
            )
            continue
        counted = _average_window(row, acc, image, oy, ox)
        m, n = load_i32(at(row, _AVERAGE.m), counted - 1), load_i32(at(row, _AVERAGE.n), counted - 1)
        for c in range(channels):
            code = clamp(((load_i64(acc, c) * m + rounding(n)) >> n) + y_zp, lo, hi)
            put(at(row, _AVERAGE.y), at(row, _AVERAGE.y_type), pixel * channels + c, code)
