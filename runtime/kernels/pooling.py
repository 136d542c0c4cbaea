"""Pools and reductions."""

from __future__ import annotations

from ..instruction import Element, Reduction
from ..jit import jit
from ..memory import load_i16, load_i32, load_i64, load_u8, store_8, store_16, store_64
from ..opcodes import columns
from .common import BLOCK_BYTES, BLOCKS, at, clamp, fetch, put, rounding

_MAX, _AVERAGE, _REDUCE, _ARGMAX = columns("max_pool"), columns("average_pool"), columns("reduce"), columns("argmax")
_I16 = int(Element.I16)
_SUM, _MEAN, _LARGEST = int(Reduction.SUM), int(Reduction.MEAN), int(Reduction.MAX)


@jit
def _max_row(y: int, x: int, element: int, count: int) -> None:
    if element == _I16:
        for c in range(count):
            store_16(y, c, max(load_i16(y, c), load_i16(x, c)))
    else:
        for c in range(count):
            store_8(y, c, max(load_u8(y, c), load_u8(x, c)))


@jit
def _max_window(row: int, target: int, image: int, oy: int, ox: int) -> None:
    channels, height, width, element = at(row, _MAX.in_c), at(row, _MAX.in_h), at(row, _MAX.in_w), at(row, _MAX.x_type)
    bytes_each = 2 if element == _I16 else 1
    for c in range(channels):
        put(target, element, c, -32768 if element == _I16 else 0)
    for ky in range(at(row, _MAX.kernel_h)):
        iy = oy * at(row, _MAX.stride_h) - at(row, _MAX.pad_top) + ky * at(row, _MAX.dilation_h)
        for kx in range(at(row, _MAX.kernel_w)):
            ix = ox * at(row, _MAX.stride_w) - at(row, _MAX.pad_left) + kx * at(row, _MAX.dilation_w)
            if 0 <= iy < height and 0 <= ix < width:
                pixel = (image * height + iy) * width + ix
                _max_row(target, at(row, _MAX.x) + pixel * channels * bytes_each, element, channels)


@jit
def max_pool(row: int, scratch: int) -> None:
    """Largest code of each window; padding never wins."""
    height, width = at(row, _MAX.out_h), at(row, _MAX.out_w)
    bytes_each = 2 if at(row, _MAX.x_type) == _I16 else 1
    for pixel in range(at(row, _MAX.batch) * height * width):
        target = at(row, _MAX.y) + pixel * at(row, _MAX.in_c) * bytes_each
        _max_window(row, target, pixel // (height * width), pixel // width % height, pixel % width)


@jit
def _add_row(acc: int, x: int, element: int, start: int, count: int) -> None:
    if element == _I16:
        for c in range(count):
            store_64(acc, c, load_i64(acc, c) + load_i16(x, start + c))
    else:
        for c in range(count):
            store_64(acc, c, load_i64(acc, c) + fetch(x, element, start + c))


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
                _add_row(acc, at(row, _AVERAGE.x), at(row, _AVERAGE.x_type), ((image * height + iy) * width + ix) * channels, channels)
                real += 1
            if iy < bottom and ix < right:
                counted += 1
    for c in range(channels):
        store_64(acc, c, load_i64(acc, c) - real * at(row, _AVERAGE.x_zp))
    return max(counted if padding_counts else real, 1)


@jit
def average_pool(row: int, scratch: int) -> None:
    """Mean of each window: one multiplier for every number of positions that count."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    height, width, channels = at(row, _AVERAGE.out_h), at(row, _AVERAGE.out_w), at(row, _AVERAGE.in_c)
    y_zp, lo, hi = at(row, _AVERAGE.y_zp), at(row, _AVERAGE.lo), at(row, _AVERAGE.hi)
    for pixel in range(at(row, _AVERAGE.batch) * height * width):
        counted = _average_window(row, acc, pixel // (height * width), pixel // width % height, pixel % width)
        m, n = load_i32(at(row, _AVERAGE.m), counted - 1), load_i32(at(row, _AVERAGE.n), counted - 1)
        for c in range(channels):
            code = clamp(((load_i64(acc, c) * m + rounding(n)) >> n) + y_zp, lo, hi)
            put(at(row, _AVERAGE.y), at(row, _AVERAGE.y_type), pixel * channels + c, code)


@jit
def _reduce_row(acc: int, kind: int, x: int, element: int, start: int, count: int) -> None:
    if kind in (_SUM, _MEAN):
        _add_row(acc, x, element, start, count)
    elif kind == _LARGEST:
        for c in range(count):
            store_64(acc, c, max(load_i64(acc, c), fetch(x, element, start + c)))
    else:
        for c in range(count):
            store_64(acc, c, min(load_i64(acc, c), fetch(x, element, start + c)))


@jit
def _reduced_code(row: int, total: int) -> int:
    """Code of a sum or mean from the sum of raw codes."""
    k, m, n = at(row, _REDUCE.k), at(row, _REDUCE.m), at(row, _REDUCE.n)
    y_zp, lo, hi = at(row, _REDUCE.y_zp), at(row, _REDUCE.lo), at(row, _REDUCE.hi)
    scaled = (total - k * at(row, _REDUCE.x_zp)) * m
    if at(row, _REDUCE.divide) != 0:
        denominator = k << n
        return clamp((2 * scaled + denominator) // (2 * denominator) + y_zp, lo, hi)
    return clamp(((scaled + rounding(n)) >> n) + y_zp, lo, hi)


@jit
def reduce(row: int, scratch: int) -> None:
    """Sum, mean, max or min over the middle axis of [outer, k, inner]."""
    acc = scratch + BLOCKS * BLOCK_BYTES
    kind, k, inner = at(row, _REDUCE.kind), at(row, _REDUCE.k), at(row, _REDUCE.inner)
    x, element, summed = at(row, _REDUCE.x), at(row, _REDUCE.x_type), kind in (_SUM, _MEAN)
    for outer in range(at(row, _REDUCE.outer)):
        for c in range(inner):
            store_64(acc, c, 0 if summed else fetch(x, element, outer * k * inner + c))
        for j in range(k):
            _reduce_row(acc, kind, x, element, (outer * k + j) * inner, inner)
        for c in range(inner):
            value = load_i64(acc, c)
            put(at(row, _REDUCE.y), at(row, _REDUCE.y_type), outer * inner + c, _reduced_code(row, value) if summed else value)


@jit
def _argmax_one(x: int, element: int, start: int, step: int, count: int, select_last: bool) -> int:
    best, position = fetch(x, element, start), 0
    for j in range(1, count):
        value = fetch(x, element, start + j * step)
        if value > best or (select_last and value == best):
            best, position = value, j
    return position


@jit
def argmax(row: int, scratch: int) -> None:
    """Position of the largest code along the middle axis of [outer, k, inner]."""
    k, inner = at(row, _ARGMAX.k), at(row, _ARGMAX.inner)
    for outer in range(at(row, _ARGMAX.outer)):
        for c in range(inner):
            position = _argmax_one(at(row, _ARGMAX.x), at(row, _ARGMAX.x_type), outer * k * inner + c, inner, k, at(row, _ARGMAX.select_last) != 0)
            store_64(at(row, _ARGMAX.y), outer * inner + c, position)
