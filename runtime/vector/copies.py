"""Copies of bytes and transpositions of elements as LLVM vector code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .byte_tables import HAS_BYTE_LOOKUP
from .llvm import I8, I32, I64, loop

SQUARES = {1: 16, 2: 8, 4: 4, 8: 4}
"""Rows and columns of elements that are transposed at a time, by the bytes of an element."""

SHORTEST = 16
"""Bytes of the shortest run that `copy_run` copies."""

PIXELS = 64 if HAS_BYTE_LOOKUP else 16
"""Pixels that are put together of three planes at a time."""

_WIDE = 64


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _copy(builder: Any, target: Any, source: Any, width: int) -> None:
    kind = ir.VectorType(I8, width)
    builder.store(builder.load(_at(builder, source, kind), align=1), _at(builder, target, kind), align=1)


def _make_copy() -> Callable[[int, int, int], None]:
    def copy(typingctx: Any, target: Any, source: Any, count: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_copy(builder, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 3)), codegen

    return intrinsic(copy)  # type: ignore[no-any-return]


def _emit_copy(builder: Any, target: Any, source: Any, count: Any) -> None:
    """Vectors of 64 bytes, then of 16, the last of which overlaps its neighbour."""
    def steps(width: int, first: Any, number: Any) -> None:
        def step(index: Any, _: list[Any]) -> list[Any]:
            offset = builder.add(first, builder.mul(index, ir.Constant(I64, width)))
            _copy(builder, builder.add(target, offset), builder.add(source, offset), width)
            return []

        loop(builder, number, [], step)

    wide = builder.ashr(count, ir.Constant(I64, 6))
    done = builder.shl(wide, ir.Constant(I64, 6))
    steps(_WIDE, ir.Constant(I64, 0), wide)
    steps(SHORTEST, done, builder.ashr(builder.sub(count, done), ir.Constant(I64, 4)))
    last = builder.sub(count, ir.Constant(I64, SHORTEST))
    _copy(builder, builder.add(target, last), builder.add(source, last), SHORTEST)


def _make_transpose(size: int) -> Callable[[int, int, int, int], None]:
    kind = ir.VectorType(ir.IntType(8 * size), SQUARES[size])

    def transpose(typingctx: Any, target: Any, target_stride: Any, source: Any, source_stride: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_transpose(builder, kind, size, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 4)), codegen

    return intrinsic(transpose)  # type: ignore[no-any-return]


def _emit_transpose(
    builder: Any, kind: Any, size: int, target: Any, target_stride: Any, source: Any, source_stride: Any
) -> None:
    """Rounds that interleave each line of the upper half with one of the lower half, as many as halve a line to an
    element.
    """
    def line(base: Any, stride: Any, index: int) -> Any:
        return _at(builder, builder.add(base, builder.mul(stride, ir.Constant(I64, index))), kind)

    count, half = kind.count, kind.count // 2
    lines = [builder.load(line(source, source_stride, i), align=size) for i in range(count)]
    for _ in range(count.bit_length() - 1):
        mixed = []
        for i in range(half):
            for first in (0, half):
                order = [place for j in range(first, first + half) for place in (j, count + j)]
                mixed.append(
                    builder.shuffle_vector(
                        lines[i], lines[i + half], ir.Constant(ir.VectorType(I32, count), order)
                    )
                )
        lines = mixed
    for i, value in enumerate(lines):
        builder.store(value, line(target, target_stride, i), align=size)


def _make_interleave() -> Callable[[int, int, int, int], None]:
    def interleave(typingctx: Any, target: Any, source: Any, plane: Any, blocks: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_interleave(builder, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 4)), codegen

    return intrinsic(interleave)  # type: ignore[no-any-return]


def _emit_interleave(builder: Any, target: Any, source: Any, plane: Any, blocks: Any) -> None:
    """Three vectors, one of each plane, become three vectors of pixels, each by two shuffles."""
    kind, order = ir.VectorType(I8, PIXELS), ir.VectorType(I32, PIXELS)
    planes = [_at(builder, builder.add(source, builder.mul(plane, ir.Constant(I64, c))), kind) for c in range(3)]
    pixels = _at(builder, target, kind)

    def step(index: Any, _: list[Any]) -> list[Any]:
        first, second, third = (builder.load(builder.gep(place, [index]), align=1) for place in planes)
        for part in range(3):
            places = [divmod(part * PIXELS + i, 3) for i in range(PIXELS)]
            two = builder.shuffle_vector(
                first, second, ir.Constant(order, [pixel + PIXELS * (c == 1) for pixel, c in places])
            )
            mixed = ir.Constant(order, [PIXELS + pixel if c == 2 else i for i, (pixel, c) in enumerate(places)])
            number = builder.add(builder.mul(index, ir.Constant(I64, 3)), ir.Constant(I64, part))
            builder.store(builder.shuffle_vector(two, third, mixed), builder.gep(pixels, [number]), align=1)
        return []

    loop(builder, blocks, [], step)


copy_run = _make_copy()
"""``copy_run(target, source, count)``: at least `SHORTEST` bytes; the runs do not overlap, or are the same."""

TRANSPOSES = {size: _make_transpose(size) for size in SQUARES}
"""By the bytes of an element ``transpose(target, target_stride, source, source_stride)`` of a square of `SQUARES`,
strides in bytes.
"""

transpose_1, transpose_2, transpose_4, transpose_8 = TRANSPOSES.values()

interleave_three = _make_interleave()
"""``interleave_three(target, source, plane, blocks)``: `PIXELS` times ``blocks`` pixels of three bytes, from planes
``plane`` bytes apart."""
