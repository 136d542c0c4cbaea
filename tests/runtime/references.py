"""What every piece of vector code computes, in plain Python on checked memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from qcompiler.runtime import requant as spec
from qcompiler.runtime.binding.channel_lines import quarters
from qcompiler.runtime.instructions import winograd
from qcompiler.runtime.instructions.depthwise_layout import chunk_order
from qcompiler.runtime.instructions.instruction import SCALE_NUMBERS, SCALE_VECTORS
from qcompiler.runtime.kernels.tiles import TILES
from qcompiler.runtime.vector import memory
from qcompiler.runtime.vector.add_multiply import ADDS, SCALES, WIDE_ADDS, multiply_bytes, multiply_wide
from qcompiler.runtime.vector.byte_tables import lookup_bytes
from qcompiler.runtime.vector.byte_tiles import BYTE_TILES
from qcompiler.runtime.vector.copies import PIXELS, SQUARES, TRANSPOSES, copy_run, interleave_three
from qcompiler.runtime.vector.depthwise_tiles import CHANNEL_TILES, INTERLEAVES, PIXEL_COPIES, taps_in_group
from qcompiler.runtime.vector.line_tables import LINES, lookup_wide
from qcompiler.runtime.vector.pools import POOL_TILES
from qcompiler.runtime.vector.product_tiles import PRODUCT_TILES
from qcompiler.runtime.vector.softmax_tables import EXPONENTIALS
from qcompiler.runtime.vector.sum_tiles import Flavour
from qcompiler.runtime.vector.winograd_tiles import INPUT_TRANSFORMS, output_codes
from tests.runtime.checked_memory import CheckedMemory
from tests.runtime.product_references import (
    byte_products_reference,
    byte_reference,
    product_reference,
    scaled,
    tile_reference,
    wide_product_reference,
)


def interleave_reference(checked: CheckedMemory, layout: str, chunk_bytes: int, widening: bool) -> Callable[..., None]:
    """What an interleaving computes,
    on checked memory: a chunk is a run of whole lanes of 128 bits of each of its vectors."""
    group, size = taps_in_group(layout), (8 if layout == "quad" else 16)
    load = checked.loader(16, True) if layout == "pair" and not widening else checked.loader(8, False)
    load_address, store = checked.loader(64, True), checked.storer(size)
    order = chunk_order(chunk_bytes, chunk_bytes, group)

    def interleave(lines: int, target: int, vector_bytes: int, pixels: int) -> None:
        for pixel in range(pixels):
            sources = [load_address(lines, 2 * i) + pixel * load_address(lines, 2 * i + 1) for i in range(group)]
            for v, channels in enumerate(order):
                place = target + v * vector_bytes + pixel * chunk_bytes
                for i, (channel, source) in enumerate((channel, source) for channel in channels for source in sources):
                    store(place, i, load(source, channel))

    return interleave


def channel_reference(
    checked: CheckedMemory, flavour: Flavour, pixels: int, rows: int, wide: bool
) -> Callable[..., None]:
    """What a channel tile computes, on checked memory."""
    group, vector = taps_in_group(flavour.layout), flavour.bits // 8
    load_q, load_w = (
        (checked.loader(8, False), checked.loader(8, True))
        if flavour.layout == "quad"
        else (checked.loader(16, True),) * 2
    )
    load_offset, load_head, store = (
        checked.loader(64, True),
        checked.loader(32, True),
        checked.storer(16 if wide else 8),
    )
    places = [
        (v, i, c) for v, channels in enumerate(chunk_order(vector, vector, group)) for i, c in enumerate(channels)
    ]

    def tile(
        blocks: int,
        q: int,
        vector_bytes: int,
        offsets: int,
        taps: int,
        w: int,
        tap_bytes: int,
        heads: int,
        y: int,
        y_step: int,
        y_row: int,
        y_zp: int,
        lo: int,
        hi: int,
    ) -> None:
        out = spec.Range(y_zp, lo, hi)
        for pixel, row, (v, i, c) in itertools.product(range(blocks * pixels), range(rows), places):
            total, *scale = (load_head(heads + (which * group + v) * vector, i) for which in range(1 + SCALE_VECTORS))
            for tap in range(taps):
                source = q + load_offset(offsets, tap) + v * vector_bytes + pixel * vector
                weights = w + tap * tap_bytes + (row * group + v) * vector
                total += sum(load_q(source, i * group + g) * load_w(weights, i * group + g) for g in range(group))
            store(y + pixel * y_step + row * y_row, c, out.code(scaled(total, scale)))

    return tile


def pixel_copy_reference(checked: CheckedMemory, width: int) -> Callable[..., None]:
    """What a copy of pixels does, on checked memory."""
    load, store = checked.loader(8, False), checked.storer(8)

    def copy(target: int, target_step: int, source: int, source_step: int, pixels: int) -> None:
        for pixel, i in itertools.product(range(pixels), range(width)):
            store(target + pixel * target_step, i, load(source + pixel * source_step, i))

    return copy


def pool_reference(checked: CheckedMemory, summing: bool, wide: bool, width: int) -> Callable[..., None]:
    """What a pool tile computes, on checked memory."""
    load_x, load_pointer = (checked.loader(16, True) if wide else checked.loader(8, False)), checked.loader(64, True)
    store = checked.storer(32 if summing else 16 if wide else 8)

    def tile(y: int, pointers: int, count: int, offset: int) -> None:
        sources = [load_pointer(pointers, i) + offset for i in range(count)]
        for c in range(width):
            codes = [load_x(source, c) for source in sources]
            store(y, c, sum(codes) if summing else max(codes, default=-32768 if wide else 0))

    return tile


def transpose_reference(checked: CheckedMemory, size: int) -> Callable[..., None]:
    """What the transposition of a square of elements computes, on checked memory."""
    load, store, square = checked.loader(8 * size, True), checked.storer(8 * size), range(SQUARES[size])

    def transpose(target: int, target_stride: int, source: int, source_stride: int) -> None:
        codes = [[load(source + i * source_stride, j) for j in square] for i in square]
        for i, j in itertools.product(square, square):
            store(target + i * target_stride, j, codes[j][i])

    return transpose


def three_planes_reference(checked: CheckedMemory) -> Callable[..., None]:
    """What `interleave_three` computes, on checked memory."""
    load, store = checked.loader(8, False), checked.storer(8)

    def interleave(target: int, source: int, plane: int, blocks: int) -> None:
        for pixel in range(PIXELS * blocks):
            for c in range(3):
                store(target, 3 * pixel + c, load(source + c * plane, pixel))

    return interleave


def copy_reference(checked: CheckedMemory) -> Callable[..., None]:
    """What `copy_run` computes, on checked memory."""
    load, store = checked.loader(8, False), checked.storer(8)

    def copy(target: int, source: int, count: int) -> None:
        for i in range(count):
            store(target, i, load(source, i))

    return copy


def add_reference(checked: CheckedMemory, size: int) -> Callable[..., None]:
    """What an addition of ``size`` uint8 at a time computes, on checked memory."""
    load, store = checked.loader(8, False), checked.storer(8)

    def halves(pair: int) -> tuple[int, int]:
        return (pair & 0xFFFF ^ 0x8000) - 0x8000, pair >> 16

    def add(
        y: int, a: int, b: int, blocks: int, high: int, low: int, c_high: int, c_low: int, shift: int, lo: int, hi: int
    ) -> None:
        (a_high, b_high), (a_low, b_low) = halves(high), halves(low)
        for i in range(size * blocks):
            left, right = load(a, i), load(b, i)
            total = 65536 * (left * a_high + right * b_high + c_high) + left * a_low + right * b_low + c_low
            store(y, i, min(max(total >> (16 + shift), lo), hi))

    return add


def scale_reference(checked: CheckedMemory, size: int) -> Callable[..., None]:
    """What a scaling of ``size`` channels computes, on checked memory."""
    load, load_number, store = checked.loader(8, False), checked.loader(32, True), checked.storer(8)
    channels = [channel for quarter in quarters(size) for channel in quarter]

    def scale(y: int, y_step: int, x: int, x_step: int, pixels: int, numbers: int, lo: int, hi: int) -> None:
        for pixel, (place, channel) in itertools.product(range(pixels), enumerate(channels)):
            high, low, c_high, c_low, shift = (
                load_number(numbers, which * size + place) for which in range(SCALE_NUMBERS)
            )
            high, low = ((half ^ 0x8000) - 0x8000 for half in (high, low))
            code = load(x + pixel * x_step, channel)
            total = 65536 * (code * high + c_high) + code * low + c_low
            store(y + pixel * y_step, channel, min(max(total >> (16 + shift), lo), hi))

    return scale


def wide_add_reference(checked: CheckedMemory, a_wide: bool, b_wide: bool, y_wide: bool) -> Callable[..., None]:
    """What a sum in 64 bits computes, on checked memory."""
    load_a, load_b = (checked.loader(16, True) if wide else checked.loader(8, False) for wide in (a_wide, b_wide))
    store = checked.storer(16 if y_wide else 8)

    def add(y: int, a: int, b: int, blocks: int, a_m: int, b_m: int, c: int, n: int, lo: int, hi: int) -> None:
        for i in range(16 * blocks):
            total = load_a(a, i) * a_m + load_b(b, i) * b_m + c
            assert -(2**63) <= total < 2**63
            store(y, i, min(max(total >> n, lo), hi))

    return add


def exponentials_reference(checked: CheckedMemory, wide: bool) -> Callable[..., int]:
    """What the exponentials of a line are, on checked memory."""
    load, load_entry = checked.loader(16, True) if wide else checked.loader(8, False), checked.loader(32, True)
    store = checked.storer(32)

    def exponentials(terms: int, x: int, peak: int, coarse: int, middle: int, fine: int, blocks: int) -> int:
        tables = [
            [load_entry(table, i) for i in range(size)] for table, size in ((coarse, 32), (middle, 32), (fine, 64))
        ]
        found = [spec.exponential(peak - load(x, j), *tables) for j in range(16 * blocks)]
        for j, term in enumerate(found):
            store(terms, j, term)
        return sum(found)

    return exponentials


def lookup_reference(checked: CheckedMemory) -> Callable[..., None]:
    """What `lookup_bytes` computes, on checked memory."""
    load, store = checked.loader(8, False), checked.storer(8)

    def lookup(y: int, x: int, table: int, blocks: int) -> None:
        for i in range(64 * blocks):
            store(y, i, load(table, load(x, i)))

    return lookup


def lines_reference(checked: CheckedMemory, wide: bool) -> Callable[..., None]:
    """What a piecewise linear function computes, on checked memory."""
    load, store = checked.loader(16, True), checked.storer(16 if wide else 8)

    def lines(
        y: int,
        x: int,
        base: int,
        slope: int,
        blocks: int,
        first: int,
        last: int,
        width_bits: int,
        shift: int,
        lo: int,
        hi: int,
    ) -> None:
        for i in range(32 * blocks):
            segment, step = divmod(min(max(load(x, i), first), last) - first, 1 << width_bits)
            value = (load(base, segment) << width_bits) + load(slope, segment) * step
            store(y, i, min(max(spec.rounding_shift(value, shift), lo), hi))

    return lines


def input_reference(checked: CheckedMemory, width: int) -> Callable[..., None]:
    """What an input transform computes, on checked memory."""
    load, store, matrix = checked.loader(16, True), checked.storer(16), np.array(winograd.INPUT)

    def transform(x: int, line_bytes: int, pixel_bytes: int, target: int, plane_bytes: int, blocks: int) -> None:
        for c in range(width * blocks):
            pixels = np.array([[load(x + i * line_bytes + j * pixel_bytes, c) for j in range(6)] for i in range(6)])
            for i, value in enumerate((matrix @ pixels @ matrix.T).reshape(-1).tolist()):
                assert abs(value) < 1 << 15
                store(target + i * plane_bytes, c, value)

    return transform


def output_reference(checked: CheckedMemory) -> Callable[..., None]:
    """What the output transform computes, on checked memory: in exact integers modulo 2^32."""
    load, matrix = checked.loader(32, True), np.array(winograd.OUTPUT)

    def transform(
        sums: int,
        plane_bytes: int,
        panels: int,
        heads: int,
        head_bytes: int,
        y: int,
        y_pixel: int,
        y_line: int,
        rows: int,
        columns: int,
        spare: int,
        wide: int,
        y_zp: int,
        lo: int,
        hi: int,
    ) -> None:
        store, out = checked.storer(16 if wide else 8), spec.Range(y_zp, lo, hi)
        for c in range(16 * panels):
            planes = np.array([load(sums + i * plane_bytes, c) for i in range(36)], dtype=object).reshape(6, 6)
            *scale, middle = (load(heads + (1 + i) * head_bytes, c) for i in range(SCALE_VECTORS + 1))
            for (i, j), value in np.ndenumerate(matrix @ planes @ matrix.T):
                times_64 = (int(value) * pow(9, -1, 1 << 32) - middle + (1 << 31)) % (1 << 32) - (1 << 31)
                if i < rows and j < columns:
                    store(y + i * y_line + j * y_pixel, c, out.code(scaled((times_64 >> 6) + load(heads, c), scale)))

    return transform


def wide_lookup_reference(checked: CheckedMemory) -> Callable[..., None]:
    """What `lookup_wide` computes, on checked memory."""
    load_code, load_entry, store = checked.loader(8, False), checked.loader(16, True), checked.storer(16)

    def lookup(y: int, x: int, table: int, blocks: int) -> None:
        for i in range(32 * blocks):
            store(y, i, load_entry(table, load_code(x, i)))

    return lookup


def references(checked: CheckedMemory) -> dict[int, Any]:
    """By the ``id`` of every intrinsic what it computes."""
    replaced: dict[int, Any] = {
        id(tile): tile_reference(checked, f.layout, rows, panels) for tile, (f, rows, panels) in TILES.items()
    }
    replaced |= {id(tile): channel_reference(checked, *made_for) for tile, made_for in CHANNEL_TILES.items()}
    replaced |= {id(kernel): interleave_reference(checked, *made_for) for kernel, made_for in INTERLEAVES.items()}
    replaced |= {id(tile): product_reference(checked, *made_for) for tile, made_for in PRODUCT_TILES.items()}
    replaced |= {id(tile): byte_reference(checked, *made_for) for tile, made_for in BYTE_TILES.items()}
    replaced |= {id(kernel): input_reference(checked, width) for kernel, width in INPUT_TRANSFORMS.items()}
    replaced[id(output_codes)] = output_reference(checked)
    replaced |= {id(kernel): pixel_copy_reference(checked, width) for kernel, width in PIXEL_COPIES.items()}
    replaced |= {id(tile): pool_reference(checked, *made_for) for tile, made_for in POOL_TILES.items()}
    replaced |= {id(transpose): transpose_reference(checked, size) for size, transpose in TRANSPOSES.items()}
    replaced[id(copy_run)] = copy_reference(checked)
    replaced |= {id(kernel): lines_reference(checked, wide) for kernel, wide in LINES.items()}
    replaced |= {id(add): wide_add_reference(checked, *wide) for add, wide in WIDE_ADDS.items()}
    replaced |= {id(kernel): exponentials_reference(checked, wide) for kernel, wide in EXPONENTIALS.items()}
    replaced[id(interleave_three)] = three_planes_reference(checked)
    replaced[id(multiply_wide)] = wide_product_reference(checked)
    replaced[id(multiply_bytes)] = byte_products_reference(checked)
    replaced |= {id(add): add_reference(checked, size) for size, add in ADDS.items()}
    replaced |= {id(scale): scale_reference(checked, size) for size, scale in SCALES.items()}
    replaced[id(lookup_wide)] = wide_lookup_reference(checked)
    replaced[id(lookup_bytes)] = lookup_reference(checked)
    for width, signed, name in (
        (8, False, "u8"),
        (8, True, "i8"),
        (16, True, "i16"),
        (32, True, "i32"),
        (64, True, "i64"),
    ):
        replaced[id(getattr(memory, f"load_{name}"))] = checked.loader(width, signed)
    for width in (8, 16, 32, 64):
        replaced[id(getattr(memory, f"store_{width}"))] = checked.storer(width)
    return replaced
