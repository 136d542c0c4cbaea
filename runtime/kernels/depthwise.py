"""Depthwise convolution: one weight a channel and tap; and those of one tap on uint8, which only scale channels.

Chunk of channels by chunk: the lines that one or two rows of the output need are interleaved in scratch memory, padded
with the zero point; then tiles of several pixels multiply, requantize and store. `depthwise_layout.py` has the sizes,
`depthwise_tiles.py` the vector code. `channel_lines.py` has the arithmetic of those that scale.
"""

from __future__ import annotations

from collections.abc import Callable

from ..cpu.jit import jit
from ..instructions import depthwise_layout
from ..instructions.instruction import ISA_COLUMN, PACKED_COLUMN, SCALE_NUMBERS, SCALE_VECTORS, Element
from ..instructions.opcodes import columns
from ..vector.add_multiply import scale_16, scale_32, scale_64
from ..vector.depthwise_tiles import (
    MANY_PIXELS,
    channel_tile,
    copy_8,
    copy_16,
    copy_32,
    copy_64,
    pairs_16,
    pairs_32,
    pairs_64,
    quads_16,
    quads_32,
    quads_64,
    widened_16,
    widened_32,
    widened_64,
)
from ..vector.memory import store_64
from ..vector.sum_tiles import PAIR_256, PAIR_512, PAIR_ANY, QUAD_256, QUAD_512, Flavour, Isa
from .bands import layout_of, padded_width
from .common import BLOCK_BYTES, BLOCKS, at, at_or, put, size_of
from .movement import copy_bytes
from .tiles import QUAD

_CONV = columns("conv")
_I16 = int(Element.I16)
_AVX512, _AVX_VNNI, _AVX2 = int(Isa.AVX512_VNNI), int(Isa.AVX_VNNI), int(Isa.AVX2)
_LINES, _FILL, _OFFSETS = 64, 128, 256
"""Bytes from a vector of zero points to the tables behind it: the lines of a group, nothing but zero points,
offsets of taps."""
_PIXELS = 128
"""Pixels of which all channels are scaled before the next ones: their codes stay in the first cache."""

_vector_bytes, _chunk_bytes, _rows_at_once = (
    jit(depthwise_layout.vector_bytes),
    jit(depthwise_layout.chunk_bytes),
    jit(depthwise_layout.rows_at_once),
)
_line_groups, _phase_pixels, _tap_pixel = (
    jit(depthwise_layout.line_groups),
    jit(depthwise_layout.phase_pixels),
    jit(depthwise_layout.tap_pixel),
)
_is_depthwise, _parts = jit(depthwise_layout.is_depthwise), jit(depthwise_layout.depthwise_parts)
_SPARE_PIXELS, _HEADS = depthwise_layout.SPARE_PIXELS, 1 + SCALE_VECTORS

TileArguments = tuple[int, int, int, int, int, int, int, int, int, int, int, int, int, int]
"""What every channel tile is called with; see `depthwise_tiles.make_channel_tile`."""


def _tiles(flavour: Flavour, wide: bool) -> Callable[[int, bool, TileArguments], None]:
    """A compiled function that runs the tile of one or two rows, and of one or many pixels."""
    one, many, one_of_two, many_of_two = (
        channel_tile(flavour, pixels, rows, wide) for rows in (1, 2) for pixels in (1, MANY_PIXELS[flavour][rows - 1])
    )

    @jit
    def run(rows: int, several: bool, arguments: TileArguments) -> None:
        if rows == 1:
            if several:
                many(*arguments)
            else:
                one(*arguments)
        elif several:
            many_of_two(*arguments)
        else:
            one_of_two(*arguments)

    return run


_quad512, _quad512_wide = (_tiles(QUAD_512, wide) for wide in (False, True))
_pair512, _pair512_wide = (_tiles(PAIR_512, wide) for wide in (False, True))
_quad256, _quad256_wide = (_tiles(QUAD_256, wide) for wide in (False, True))
_pair256, _pair256_wide = (_tiles(PAIR_256, wide) for wide in (False, True))
_pairany, _pairany_wide = (_tiles(PAIR_ANY, wide) for wide in (False, True))
_WIDE_TILES, _NARROW_TILES = MANY_PIXELS[QUAD_512], MANY_PIXELS[QUAD_256]


@jit
def _run_tile(isa: int, layout: int, wide: bool, rows: int, several: bool, a: TileArguments) -> None:
    if layout == QUAD:
        if isa == _AVX512:
            if wide:
                _quad512_wide(rows, several, a)
            else:
                _quad512(rows, several, a)
        elif wide:
            _quad256_wide(rows, several, a)
        else:
            _quad256(rows, several, a)
    else:
        _run_pairs(isa, wide, rows, several, a)


@jit
def _run_pairs(isa: int, wide: bool, rows: int, several: bool, a: TileArguments) -> None:
    if isa == _AVX512:
        if wide:
            _pair512_wide(rows, several, a)
        else:
            _pair512(rows, several, a)
    elif isa in (_AVX2, _AVX_VNNI):
        if wide:
            _pair256_wide(rows, several, a)
        else:
            _pair256(rows, several, a)
    elif wide:
        _pairany_wide(rows, several, a)
    else:
        _pairany(rows, several, a)


@jit
def _interleave(layout: int, element: int, chunk: int, lines: int, target: int, vector_bytes: int, pixels: int) -> None:
    if layout == QUAD:
        if chunk == 64:
            quads_64(lines, target, vector_bytes, pixels)
        elif chunk == 32:
            quads_32(lines, target, vector_bytes, pixels)
        else:
            quads_16(lines, target, vector_bytes, pixels)
    elif element == _I16:
        if chunk == 64:
            pairs_64(lines, target, vector_bytes, pixels)
        elif chunk == 32:
            pairs_32(lines, target, vector_bytes, pixels)
        else:
            pairs_16(lines, target, vector_bytes, pixels)
    elif chunk == 64:
        widened_64(lines, target, vector_bytes, pixels)
    elif chunk == 32:
        widened_32(lines, target, vector_bytes, pixels)
    else:
        widened_16(lines, target, vector_bytes, pixels)


@jit
def is_depthwise(row: int) -> bool:
    """As many groups as input and output channels."""
    return _is_depthwise(at(row, _CONV.groups), at(row, _CONV.in_c), at(row, _CONV.out_c))


@jit
def _padded_width(row: int) -> int:
    return padded_width(
        at(row, _CONV.out_w), at(row, _CONV.kernel_w), at(row, _CONV.stride_w), at(row, _CONV.dilation_w)
    )


@jit
def depthwise_conv(row: int, scratch: int) -> None:
    """The opcode ``conv`` where every channel is its own group, on packed weights."""
    layout, channels, packed = (
        layout_of(at(row, ISA_COLUMN), at(row, _CONV.x_type)),
        at(row, _CONV.in_c),
        at(row, PACKED_COLUMN),
    )
    code_bytes, group = (1, 4) if layout == QUAD else (2, 2)
    vector, zeros = _vector_bytes(at(row, ISA_COLUMN)), scratch + BLOCKS * BLOCK_BYTES
    if at(row, _CONV.out_w) == 0:
        return
    for i in range(64 // size_of(at(row, _CONV.x_type))):
        put(zeros, at(row, _CONV.x_type), i, at(row, _CONV.x_zp))
    for i in range(4):
        store_64(zeros + _FILL, 2 * i, zeros)
        store_64(zeros + _FILL, 2 * i + 1, 0)
    rows = _rows_at_once(at(row, _CONV.stride_h), at(row, _CONV.dilation_h))
    taps = _line_groups(at(row, _CONV.kernel_h), rows, group) * at(row, _CONV.kernel_w)
    first = 0
    while first < channels:
        chunk = _chunk_bytes(vector, (channels - first) * code_bytes)
        _convolve_chunk(row, zeros, layout, first, chunk, packed)
        packed += group * vector * (_HEADS + taps * rows)
        first += chunk // code_bytes


@jit
def _convolve_chunk(row: int, zeros: int, layout: int, first: int, chunk: int, packed: int) -> None:
    """All images, for the channels of one chunk."""
    group, kernel_w, out_h = (4 if layout == QUAD else 2), at(row, _CONV.kernel_w), at(row, _CONV.out_h)
    stride_w, dilation_w = at(row, _CONV.stride_w), at(row, _CONV.dilation_w)
    most = _rows_at_once(at(row, _CONV.stride_h), at(row, _CONV.dilation_h))
    groups, phase = _line_groups(at(row, _CONV.kernel_h), most, group), _phase_pixels(_padded_width(row), stride_w)
    vector_bytes = (stride_w * phase + _SPARE_PIXELS) * chunk
    for column in range(kernel_w):
        for g in range(groups):
            place = g * group * vector_bytes + _tap_pixel(column, stride_w, dilation_w, phase) * chunk
            store_64(zeros + _OFFSETS, column * groups + g, place)
    for image in range(at(row, _CONV.batch)):
        for y in range(0, out_h, most):
            rows = min(most, out_h - y)
            for g in range(groups):
                _interleave_group(row, zeros, layout, first, chunk, image, y * at(row, _CONV.stride_h), g, phase)
            _multiply_rows(row, zeros, layout, first, chunk, packed, image * out_h + y, rows, most)


@jit
def _places(row: int, zeros: int) -> tuple[int, int, int]:
    """Addresses of results, copied lines and interleaved lines."""
    width, stride = _padded_width(row), at(row, _CONV.stride_w)
    parts = _parts(
        at(row, _CONV.out_w),
        width,
        _phase_pixels(width, stride),
        stride,
        at(row, _CONV.kernel_h),
        at(row, _CONV.kernel_w),
    )
    results = zeros + parts[0]
    return results, results + parts[1], results + parts[1] + parts[2]


@jit
def _line(row: int, image: int, top: int, index: int) -> int:
    """The ``index``-th line that rows of the output from line ``top`` of the padded image on need; -1: padding,
    or a line without weights.
    """
    place = top + index * at(row, _CONV.dilation_h) - at(row, _CONV.pad_top)
    lines = at(row, _CONV.kernel_h) + _rows_at_once(at(row, _CONV.stride_h), at(row, _CONV.dilation_h)) - 1
    return image * at(row, _CONV.in_h) + place if index < lines and 0 <= place < at(row, _CONV.in_h) else -1


@jit
def _interleave_group(
    row: int, zeros: int, layout: int, first: int, chunk: int, image: int, top: int, g: int, phase: int
) -> None:
    """The lines of group ``g``, padded and interleaved, phase by phase."""
    element, stride, pad_left, group = (
        at(row, _CONV.x_type),
        at(row, _CONV.stride_w),
        at(row, _CONV.pad_left),
        (4 if layout == QUAD else 2),
    )
    width, size = _padded_width(row), size_of(element)
    places, vector_bytes = _places(row, zeros), (stride * phase + _SPARE_PIXELS) * chunk
    channels, target = chunk // (1 if layout == QUAD else 2), places[2] + g * group * vector_bytes
    partial, inside = at(row, _CONV.in_c) - first < channels, max(min(at(row, _CONV.in_w), width - pad_left), 0)
    pixel_bytes, line_bytes = at(row, _CONV.in_c) * size, inside * channels * size
    for i in range(group if partial else 0):
        line = _line(row, image, top, g * group + i)
        if line >= 0:
            source = at(row, _CONV.x) + line * at(row, _CONV.in_w) * pixel_bytes + first * size
            _copy_pixels(
                places[1] + i * line_bytes,
                channels * size,
                source,
                pixel_bytes,
                inside,
                (at(row, _CONV.in_c) - first) * size,
            )
    for p in range(stride):
        pixels = max((width - p + stride - 1) // stride, 0)
        before = min(max((pad_left - p + stride - 1) // stride, 0), pixels)
        end = min(max((pad_left + at(row, _CONV.in_w) - p + stride - 1) // stride, before), pixels)
        start, pixel = target + p * phase * chunk, p + stride * before - pad_left
        _interleave(layout, element, chunk, zeros + _FILL, start, vector_bytes, before)
        for i in range(group):
            line, step = _line(row, image, top, g * group + i), channels * size if partial else pixel_bytes
            base = (
                places[1] + i * line_bytes
                if partial
                else at(row, _CONV.x) + line * at(row, _CONV.in_w) * pixel_bytes + first * size
            )
            store_64(zeros + _LINES, 2 * i, base + pixel * step if line >= 0 else zeros)
            store_64(zeros + _LINES, 2 * i + 1, stride * step if line >= 0 else 0)
        _interleave(layout, element, chunk, zeros + _LINES, start + before * chunk, vector_bytes, end - before)
        _interleave(layout, element, chunk, zeros + _FILL, start + end * chunk, vector_bytes, pixels - end)


@jit
def _copy_pixels(target: int, target_step: int, source: int, source_step: int, pixels: int, count: int) -> None:
    """``count`` bytes of every pixel."""
    if count == 64:
        copy_64(target, target_step, source, source_step, pixels)
    elif count == 32:
        copy_32(target, target_step, source, source_step, pixels)
    elif count == 16:
        copy_16(target, target_step, source, source_step, pixels)
    elif count == 8:
        copy_8(target, target_step, source, source_step, pixels)
    else:
        for pixel in range(pixels):
            copy_bytes(target + pixel * target_step, source + pixel * source_step, count)


@jit
def _multiply_rows(
    row: int, zeros: int, layout: int, first: int, chunk: int, packed: int, y_line: int, rows: int, most: int
) -> None:
    """One or two rows of the output from line ``y_line`` on, for the channels of one chunk."""
    isa, channels, out_w = at(row, ISA_COLUMN), at(row, _CONV.in_c), at(row, _CONV.out_w)
    wide, stride, vector = at(row, _CONV.y_type) == _I16, at(row, _CONV.stride_w), _vector_bytes(isa)
    code_bytes, group, size = (1 if layout == QUAD else 2), (4 if layout == QUAD else 2), (2 if wide else 1)
    taps = _line_groups(at(row, _CONV.kernel_h), most, group) * at(row, _CONV.kernel_w)
    vector_bytes = (stride * _phase_pixels(_padded_width(row), stride) + _SPARE_PIXELS) * chunk
    vectors, used = (out_w * chunk + vector - 1) // vector, min(chunk // code_bytes, channels - first)
    pitch = at_or(row, _CONV.y_pitch, channels)
    y, y_step, y_row = (
        at(row, _CONV.y) + (at(row, _CONV.y_offset) + y_line * out_w * pitch + first) * size,
        pitch * size,
        out_w * pitch * size,
    )
    results, _, q = _places(row, zeros)
    in_place = used == vector // code_bytes
    target, step, row_bytes = results, vector // code_bytes * size, vectors * (vector // code_bytes) * size
    if in_place:
        target, step, row_bytes = y, y_step, y_row
    done, several = 0, _many(isa, layout, rows)
    while done < vectors:
        count = several if vectors - done >= several else 1
        blocks = (vectors - done) // count
        _run_tile(
            isa, layout, wide, rows, count == several,
            (
                blocks, q + done * vector, vector_bytes, zeros + _OFFSETS, taps,
                packed + _HEADS * group * vector, group * vector * most, packed,
                target + done * step, step, row_bytes, at(row, _CONV.y_zp), at(row, _CONV.lo), at(row, _CONV.hi),
            ),
        )  # fmt: skip
        done += blocks * count
    for r in range(0 if in_place else rows):
        if used == pitch and used == chunk // code_bytes:
            copy_bytes(y + r * y_row, results + r * row_bytes, y_row)
        else:
            _copy_pixels(y + r * y_row, y_step, results + r * row_bytes, chunk // code_bytes * size, out_w, used * size)


@jit
def _many(isa: int, layout: int, rows: int) -> int:
    """Vectors of pixels of the larger tile."""
    most = _NARROW_TILES if isa == _AVX_VNNI and layout == QUAD else _WIDE_TILES
    return most[rows - 1]


@jit
def scaled_conv(row: int, scratch: int) -> None:
    """The opcode ``conv`` on the numbers of `channel_lines.scale_numbers`."""
    channels, vector = at(row, _CONV.in_c), _vector_bytes(at(row, ISA_COLUMN))
    pixels, pitch = (
        at(row, _CONV.batch) * at(row, _CONV.out_h) * at(row, _CONV.out_w),
        at_or(row, _CONV.y_pitch, channels),
    )
    for start in range(0, pixels, _PIXELS):
        x, y = at(row, _CONV.x) + start * channels, at(row, _CONV.y) + at(row, _CONV.y_offset) + start * pitch
        numbers, first = at(row, PACKED_COLUMN), 0
        while first < channels:
            chunk = _chunk_bytes(vector, channels - first)
            _scale(row, chunk, y + first, pitch, x + first, channels, min(_PIXELS, pixels - start), numbers)
            numbers += 4 * SCALE_NUMBERS * chunk
            first += chunk


@jit
def _scale(row: int, chunk: int, y: int, y_step: int, x: int, x_step: int, pixels: int, numbers: int) -> None:
    lo, hi = at(row, _CONV.lo), at(row, _CONV.hi)
    if chunk == 64:
        scale_64(y, y_step, x, x_step, pixels, numbers, lo, hi)
    elif chunk == 32:
        scale_32(y, y_step, x, x_step, pixels, numbers, lo, hi)
    else:
        scale_16(y, y_step, x, x_step, pixels, numbers, lo, hi)
