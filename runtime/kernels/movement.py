"""Kernels that move codes: strided copy, fill, gather, scatter; and linear resizing."""

from __future__ import annotations

from ..cpu.jit import jit
from ..instructions.instruction import PACKED_COLUMN, Element
from ..instructions.opcodes import columns
from ..vector.copies import PIXELS, SHORTEST, SQUARE, copy_run, interleave_three, transpose_square
from ..vector.memory import load_i16, load_i32, load_i64, load_u8, store_8, store_16, store_32, store_64
from .common import at, clamp, fetch, put, rounding, size_of

_MOVE, _FILL, _GATHER, _SCATTER, _RESIZE = (
    columns(name) for name in ("move", "fill", "gather", "scatter", "resize_linear")
)
_I16, _I32, _I64 = int(Element.I16), int(Element.I32), int(Element.I64)


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
def _is_transposition(row: int) -> bool:
    """Bytes whose two inner dimensions change places, at least a square of them."""
    steps = (at(row, _MOVE.x_s4) == 1 and at(row, _MOVE.y_s5) == 1) or (
        at(row, _MOVE.x_s5) == 1 and at(row, _MOVE.y_s4) == 1
    )
    return steps and size_of(at(row, _MOVE.x_type)) == 1 and at(row, _MOVE.d4) >= SQUARE and at(row, _MOVE.d5) >= SQUARE


@jit
def _transpose(target: int, source: int, rows: int, cols: int, target_step: int, source_step: int) -> None:
    """``rows`` dense runs of ``cols`` bytes at ``target``, whose columns are dense at ``source``; squares at the end
    overlap.
    """
    top = 0
    while top < rows:
        first = min(top, rows - SQUARE)
        left = 0
        while left < cols:
            start = min(left, cols - SQUARE)
            transpose_square(
                target + first * target_step + start, target_step, source + first + start * source_step, source_step
            )
            left += SQUARE
        top += SQUARE


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
            _transpose(target, source, rows, cols, y_row, x_step)
        else:
            _transpose(target, source, cols, rows, y_step, x_row)
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
def _blend_pixel(row: int, target: int, corners: tuple[int, int, int, int], shares: tuple[int, int]) -> None:
    """One output pixel from four input pixels; ``shares``: weight of the lower row and of the right column, Q15."""
    x, element, zero_point = at(row, _RESIZE.x), at(row, _RESIZE.x_type), at(row, _RESIZE.x_zp)
    m, n, down, right = at(row, _RESIZE.m), at(row, _RESIZE.n), shares[0], shares[1]
    half, y_zp, lo, hi = rounding(n), at(row, _RESIZE.y_zp), at(row, _RESIZE.lo), at(row, _RESIZE.hi)
    for c in range(at(row, _RESIZE.in_c)):
        upper = (fetch(x, element, corners[0] + c) - zero_point) * (32768 - right) + (
            fetch(x, element, corners[1] + c) - zero_point
        ) * right
        lower = (fetch(x, element, corners[2] + c) - zero_point) * (32768 - right) + (
            fetch(x, element, corners[3] + c) - zero_point
        ) * right
        value = upper * (32768 - down) + lower * down
        put(at(row, _RESIZE.y), at(row, _RESIZE.y_type), target + c, clamp(((value * m + half) >> n) + y_zp, lo, hi))


@jit
def _place(table: int, index: int, size: int) -> int:
    """An entry of a table of places, within an axis of ``size`` elements."""
    return clamp(load_i32(table, index), 0, size - 1)


@jit
def resize_linear(row: int, scratch: int) -> None:
    """Bilinear resizing with Q15 weights, one rounding."""
    height, width, channels = at(row, _RESIZE.in_h), at(row, _RESIZE.in_w), at(row, _RESIZE.in_c)
    out_h, out_w = at(row, _RESIZE.out_h), at(row, _RESIZE.out_w)
    for pixel in range(at(row, _RESIZE.batch) * out_h * out_w):
        image, oy, ox = pixel // (out_h * out_w), pixel // out_w % out_h, pixel % out_w
        top = (image * height + _place(at(row, _RESIZE.h_low), oy, height)) * width
        bottom = (image * height + _place(at(row, _RESIZE.h_high), oy, height)) * width
        left, right = _place(at(row, _RESIZE.w_low), ox, width), _place(at(row, _RESIZE.w_high), ox, width)
        corners = (
            (top + left) * channels,
            (top + right) * channels,
            (bottom + left) * channels,
            (bottom + right) * channels,
        )
        _blend_pixel(
            row,
            pixel * channels,
            corners,
            (load_i32(at(row, _RESIZE.h_weight), oy), load_i32(at(row, _RESIZE.w_weight), ox)),
        )
