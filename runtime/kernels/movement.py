"""Kernels that move codes: strided copy, fill, gather, scatter; conversion; and linear resizing."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import PACKED_COLUMN, Element
from ..instructions.opcodes import columns
from ..vector.copies import (
    PIXELS,
    SHORTEST,
    copy_run,
    interleave_three,
    transpose_1,
    transpose_2,
    transpose_4,
    transpose_8,
)
from ..vector.memory import load_i16, load_i32, load_i64, load_u8, store_8, store_16, store_32, store_64
from .common import BLOCK, as_int32, at, clamp, fetch, load_block, put, rounding, size_of, store_block

_MOVE, _FILL, _CAST, _GATHER, _SCATTER, _RESIZE = (
    columns(name) for name in ("move", "fill", "cast", "gather", "scatter", "resize_linear")
)
_I16, _BOOL = int(Element.I16), int(Element.BOOL)
_CACHE_LINE = 64
"""Bytes of a line of the cache."""


@jit
def copy_bytes(target: int, source: int, count: int) -> None:
    """Dense copy."""
    if count >= SHORTEST:
        copy_run(target, source, count)
        return
    for i in range(count):
        store_8(target, i, load_u8(source, i))


@jit
def copy_elements(target: int, source: int, size: int, count: int, target_step: int, source_step: int) -> None:
    """Copy ``count`` elements of ``size`` bytes, with steps in elements."""
    if target_step == 1 and source_step == 1:
        copy_bytes(target, source, count * size)
    elif size == 1:
        for i in range(count):
            store_8(target, i * target_step, load_u8(source, i * source_step))
    elif size == 2:
        for i in range(count):
            store_16(target, i * target_step, load_i16(source, i * source_step))
    elif size == 4:
        for i in range(count):
            store_32(target, i * target_step, load_i32(source, i * source_step))
    else:
        for i in range(count):
            store_64(target, i * target_step, load_i64(source, i * source_step))


@jit
def _square(size: int) -> int:
    """Rows and columns of elements that are transposed at a time."""
    return 16 if size == 1 else 8 if size == 2 else 4


@jit
def _is_transposition(row: int) -> bool:
    """The two inner dimensions change places, and are at least a square."""
    steps = (at(row, _MOVE.x_s4) == 1 and at(row, _MOVE.y_s5) == 1) or (
        at(row, _MOVE.x_s5) == 1 and at(row, _MOVE.y_s4) == 1
    )
    return steps and min(at(row, _MOVE.d4), at(row, _MOVE.d5)) >= _square(size_of(at(row, _MOVE.x_type)))


@jit
def _transpose_square(size: int, target: int, target_step: int, source: int, source_step: int) -> None:
    if size == 1:
        transpose_1(target, target_step, source, source_step)
    elif size == 2:
        transpose_2(target, target_step, source, source_step)
    elif size == 4:
        transpose_4(target, target_step, source, source_step)
    else:
        transpose_8(target, target_step, source, source_step)


@jit
def _transpose(target: int, source: int, rows: int, cols: int, target_step: int, source_step: int, size: int) -> None:
    """``rows`` dense runs of ``cols`` elements at ``target``, whose columns are dense at ``source``.

    Steps are in bytes. Squares at the end overlap; a line of the cache is read as a whole before the next one.
    """
    square, together = _square(size), _CACHE_LINE // size
    for block in range(0, rows, together):
        for left in range(0, cols, square):
            start = min(left, cols - square)
            for top in range(block, min(block + together, rows), square):
                first = min(top, rows - square)
                _transpose_square(
                    size,
                    target + first * target_step + start * size,
                    target_step,
                    source + first * size + start * source_step,
                    source_step,
                )


@jit
def _outer_place(row: int, strides: int, index: int) -> int:
    """Element offset of the ``index``-th pair of inner dimensions."""
    place = 0
    for k in range(3, -1, -1):
        size = at(row, _MOVE.d0 + k)
        if size > 1:
            place += index % size * at(row, strides + k)
            index //= size
    return place


@jit
def _is_interleaving(row: int) -> bool:
    """Three planes of bytes become pixels: an image of three colours."""
    planes = (
        at(row, _MOVE.d4) == 3 and at(row, _MOVE.x_s5) == 1 and at(row, _MOVE.y_s4) == 1 and at(row, _MOVE.y_s5) == 3
    )
    return planes and size_of(at(row, _MOVE.x_type)) == 1


@jit
def _interleave(target: int, source: int, plane: int, pixels: int) -> None:
    blocks = pixels // PIXELS
    interleave_three(target, source, plane, blocks)
    done = blocks * PIXELS
    for c in range(3):
        copy_elements(target + 3 * done + c, source + c * plane + done, 1, pixels - done, 3, 1)


@jit
def _move_plane(row: int, target: int, source: int, size: int) -> None:
    """The two inner dimensions."""
    rows, cols = at(row, _MOVE.d4), at(row, _MOVE.d5)
    x_row, x_step, y_row, y_step = at(row, _MOVE.x_s4), at(row, _MOVE.x_s5), at(row, _MOVE.y_s4), at(row, _MOVE.y_s5)
    if _is_transposition(row):
        if y_step == 1:
            _transpose(target, source, rows, cols, y_row * size, x_step * size, size)
        else:
            _transpose(target, source, cols, rows, y_step * size, x_row * size, size)
        return
    if _is_interleaving(row):
        _interleave(target, source, x_row, cols)
        return
    for i in range(rows):
        copy_elements(target + i * y_row * size, source + i * x_row * size, size, cols, y_step, x_step)


@jit
def move(row: int, scratch: int) -> None:
    """Copy along six dimensions with strides on both sides."""
    size = size_of(at(row, _MOVE.x_type))
    for outer in range(at(row, _MOVE.d0) * at(row, _MOVE.d1) * at(row, _MOVE.d2) * at(row, _MOVE.d3)):
        source = at(row, _MOVE.x) + size * (at(row, _MOVE.x_offset) + _outer_place(row, _MOVE.x_s0, outer))
        target = at(row, _MOVE.y) + size * (at(row, _MOVE.y_offset) + _outer_place(row, _MOVE.y_s0, outer))
        _move_plane(row, target, source, size)


@jit
def fill(row: int, scratch: int) -> None:
    """Set a dense range to one value."""
    y, element, value = at(row, _FILL.y), at(row, _FILL.y_type), at(row, _FILL.value)
    first = y + at(row, _FILL.y_offset) * size_of(element)
    if size_of(element) == 1:
        for i in range(at(row, _FILL.count)):
            store_8(first, i, value)
    else:
        for i in range(at(row, _FILL.count)):
            put(first, element, i, value)


@jit
def cast(row: int, scratch: int) -> None:
    """Integer conversion that wraps; to bool: is it non-zero."""
    x, y, total = at(row, _CAST.x), at(row, _CAST.y), at(row, _CAST.count)
    to_bool, size = at(row, _CAST.y_type) == _BOOL, size_of(at(row, _CAST.y_type))
    if size == size_of(at(row, _CAST.x_type)) and not to_bool:
        copy_bytes(y, x, total * size)
        return
    for first in range(0, total, BLOCK):
        count = min(BLOCK, total - first)
        load_block(scratch, x, at(row, _CAST.x_type), first, 1, count)
        if to_bool:
            for i in range(count):
                store_64(scratch, i, 1 if load_i64(scratch, i) != 0 else 0)
        store_block(y, at(row, _CAST.y_type), first, scratch, count)


@jit
def _code_at(codes: int, bits: int, index: int) -> int:
    """The code of an element: eight of them fill ``bits`` bytes, the first in the lowest bits."""
    byte, shift = index * bits >> 3, index * bits & 7
    code = load_u8(codes, byte) >> shift
    if shift + bits > 8:
        code |= load_u8(codes, byte + 1) << (8 - shift)
    return code & ((1 << bits) - 1)


@jit
def _decode_run(y: int, size: int, table: int, codes: int, bits: int, first: int, count: int) -> None:
    """The values of ``count`` elements from ``first`` on that share a table."""
    if size == 2:
        for i in range(count):
            store_16(y, i, load_i16(table, _code_at(codes, bits, first + i)))
        return
    done = 0
    if bits == 4 and first % 2 == 0:
        done = count // 2 * 2
        for i in range(count // 2):
            byte = load_u8(codes, first // 2 + i)
            store_8(y, 2 * i, load_u8(table, byte & 15))
            store_8(y, 2 * i + 1, load_u8(table, byte >> 4))
    for i in range(done, count):
        store_8(y, i, load_u8(table, _code_at(codes, bits, first + i)))


@jit
def _gather_run(row: int, target: int, index: int) -> None:
    """A run of x, from its values or from its codes (`coded_constants.py`)."""
    inner, x, coding = at(row, _GATHER.inner), at(row, _GATHER.x), at(row, PACKED_COLUMN)
    size = size_of(at(row, _GATHER.x_type))
    if coding == 0:
        copy_bytes(target, x + index * inner * size, inner * size)
        return
    bits, tables = load_i64(coding, 0), load_i64(coding, 1)
    table = x + ((index << bits) * size if tables > 1 else 0)
    _decode_run(target, size, table, x + (tables << bits) * size, bits, index * inner, inner)


@jit
def gather(row: int, scratch: int) -> int:
    """``y[o, i] = x[o, indices[i]]``; 1 when an index is out of range, else 0."""
    axis, count, y = at(row, _GATHER.axis), at(row, _GATHER.count), at(row, _GATHER.y)
    run = at(row, _GATHER.inner) * size_of(at(row, _GATHER.x_type))
    for outer in range(at(row, _GATHER.outer)):
        for i in range(count):
            index = fetch(at(row, _GATHER.indices), at(row, _GATHER.indices_type), i)
            if index < 0:
                index += axis
            if index < 0 or index >= axis:
                return 1
            _gather_run(row, y + (outer * count + i) * run, outer * axis + index)
    return 0


@jit
def scatter(row: int, scratch: int) -> int:
    """``y = x``, then ``y[indices[i]] = updates[i]`` in turn; 1 when an index is out of range, else 0."""
    axis, y, updates = at(row, _SCATTER.axis), at(row, _SCATTER.y), at(row, _SCATTER.updates)
    run = at(row, _SCATTER.inner) * size_of(at(row, _SCATTER.x_type))
    copy_bytes(y, at(row, _SCATTER.x), axis * run)
    for i in range(at(row, _SCATTER.count)):
        index = fetch(at(row, _SCATTER.indices), at(row, _SCATTER.indices_type), i)
        if index < 0:
            index += axis
        if index < 0 or index >= axis:
            return 1
        copy_bytes(y + index * run, updates + i * run, run)
    return 0


@jit
def _place(table: int, index: int, size: int) -> int:
    """An entry of a table of places, within an axis of ``size`` elements."""
    return clamp(load_i32(table, index), 0, size - 1)


@jit
def _blend_pixel(
    block: int, element: int, corners: tuple[int, int, int, int], shares: tuple[int, int], count: int
) -> None:
    """Sums of ``count`` codes of four pixels in Q30; ``corners``: addresses of the first codes; ``shares``: weight of
    the lower row and of the right column, Q15.
    """
    (a, b, c, d), (down, right) = corners, shares
    a_m, b_m = as_int32((32768 - down) * (32768 - right)), as_int32((32768 - down) * right)
    c_m, d_m = as_int32(down * (32768 - right)), as_int32(down * right)
    if element == _I16:
        for i in range(count):
            upper, lower = load_i16(a, i) * a_m + load_i16(b, i) * b_m, load_i16(c, i) * c_m + load_i16(d, i) * d_m
            store_64(block, i, upper + lower)
    else:
        for i in range(count):
            upper, lower = load_u8(a, i) * a_m + load_u8(b, i) * b_m, load_u8(c, i) * c_m + load_u8(d, i) * d_m
            store_64(block, i, upper + lower)


@jit
def _blend_pixels(row: int, block: int, line: int, first: int, pixels: int, channel: int, count: int) -> None:
    """``count`` channels from ``channel`` on of pixels of a line of the output, as codes in int64."""
    height, width, size = at(row, _RESIZE.in_h), at(row, _RESIZE.in_w), size_of(at(row, _RESIZE.x_type))
    image, oy, pixel_bytes = line // at(row, _RESIZE.out_h), line % at(row, _RESIZE.out_h), at(row, _RESIZE.in_c) * size
    x, down = at(row, _RESIZE.x) + channel * size, load_i32(at(row, _RESIZE.h_weight), oy)
    top = x + (image * height + _place(at(row, _RESIZE.h_low), oy, height)) * width * pixel_bytes
    bottom = x + (image * height + _place(at(row, _RESIZE.h_high), oy, height)) * width * pixel_bytes
    for p in range(pixels):
        left = _place(at(row, _RESIZE.w_low), first + p, width) * pixel_bytes
        right = _place(at(row, _RESIZE.w_high), first + p, width) * pixel_bytes
        corners = (top + left, top + right, bottom + left, bottom + right)
        shares = (down, load_i32(at(row, _RESIZE.w_weight), first + p))
        _blend_pixel(block + 8 * p * count, at(row, _RESIZE.x_type), corners, shares, count)
    m, n, offset = at(row, _RESIZE.m), at(row, _RESIZE.n), at(row, _RESIZE.x_zp) << 30
    half, y_zp, lo, hi = rounding(n), at(row, _RESIZE.y_zp), at(row, _RESIZE.lo), at(row, _RESIZE.hi)
    for i in range(pixels * count):
        store_64(block, i, clamp((((load_i64(block, i) - offset) * m + half) >> n) + y_zp, lo, hi))


@jit
def resize_linear(row: int, scratch: int) -> None:
    """Bilinear resizing with Q15 weights, one rounding; as many pixels at a time as fit a block."""
    channels, out_w = at(row, _RESIZE.in_c), at(row, _RESIZE.out_w)
    together = max(BLOCK // max(channels, 1), 1)
    for line in range(at(row, _RESIZE.batch) * at(row, _RESIZE.out_h)):
        for first in range(0, out_w, together):
            pixels = min(together, out_w - first)
            for channel in range(0, channels, BLOCK):
                count, start = min(BLOCK, channels - channel), (line * out_w + first) * channels + channel
                _blend_pixels(row, scratch, line, first, pixels, channel, count)
                store_block(at(row, _RESIZE.y), at(row, _RESIZE.y_type), start, scratch, pixels * count)
