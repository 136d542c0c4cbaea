"""Winograd's transforms F(4x4, 3x3) as LLVM vector code, exact on integers.

A tile of 4x4 outputs of a 3x3 convolution needs 36 multiplications a channel instead of 144 (S. Winograd 1980; A.
Lavin and S. Gray 2016: points 0, 1, -1, 2, -2, infinity). The codes of 6x6 pixels become ``B' d B``: int16 for uint8
codes, below 17,341 in magnitude. The weights become ``G w G'`` with rows of G scaled to integers: int16 for int8
weights. Products are summed modulo 2^32, where 576 = 64 * 9: multiplying by the inverse of 9 leaves 64 times the true
sum, exact as long as that is within 2^25 of the *middle* of the sums that its weights allow (`packed_weights.py`
proves it), whatever has wrapped around on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..cpu.isa import LANES
from ..instructions.instruction import SCALE_VECTORS
from ..instructions.winograd import INPUT, OUTPUT, TAPS
from .llvm import I8, I16, I32, I64, loop, splat
from .requantize import Scale, limits, raised

INVERSE_OF_9, SHIFT_OF_64 = pow(9, -1, 1 << 32), 6
InputTransform = Callable[[int, int, int, int, int, int], None]
OutputTransform = Callable[[int, int, int, int, int, int, int, int, int, int, int, int, int, int, int], None]


def _number(value: int) -> Any:
    return ir.Constant(I64, value)


def _at(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _combined(builder: Any, row: Sequence[int], values: Sequence[Any]) -> Any:
    """The sum of ``values`` times small constants."""
    total = None
    for factor, value in sorted(zip(row, values, strict=True), key=lambda pair: -pair[0]):
        if factor == 0:
            continue
        term = (
            value if abs(factor) == 1 else builder.mul(value, ir.Constant(value.type, [abs(factor)] * value.type.count))
        )
        combine = builder.add if factor > 0 else builder.sub
        total = term if total is None else combine(total, term)
    return total


def _both_ways(builder: Any, matrix: Sequence[Sequence[int]], values: list[list[Any]]) -> list[list[Any]]:
    """``matrix @ values @ matrix.T``."""
    columns = [[_combined(builder, row, [line[j] for line in values]) for row in matrix] for j in range(len(values[0]))]
    return [[_combined(builder, row, [column[i] for column in columns]) for row in matrix] for i in range(len(matrix))]


def make_input_transform(width: int) -> InputTransform:
    """The transform of 6x6 pixels, ``width`` channels at a time.

    The intrinsic is called with ``(x, line_bytes, pixel_bytes, target, plane_bytes, blocks)``: address of the first
    int16 code, bytes to the next line and pixel; address of the first result, bytes between the 36 results of a
    channel; number of blocks of ``width`` channels.
    """

    def transform(
        typingctx: Any, x: Any, line_bytes: Any, pixel_bytes: Any, target: Any, plane_bytes: Any, blocks: Any
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_input(builder, ir.VectorType(I16, width), *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 6)), codegen

    return intrinsic(transform)  # type: ignore[no-any-return]


def _emit_input(
    builder: Any, kind: Any, x: Any, line_bytes: Any, pixel_bytes: Any, target: Any, plane_bytes: Any, blocks: Any
) -> None:
    size = 2 * kind.count

    def step(index: Any, _: list[Any]) -> list[Any]:
        offset = builder.mul(index, _number(size))
        base, place = builder.add(x, offset), builder.add(target, offset)
        lines = [builder.add(base, builder.mul(line_bytes, _number(i))) for i in range(TAPS)]
        pixels = [builder.mul(pixel_bytes, _number(j)) for j in range(TAPS)]
        values = [
            [builder.load(_at(builder, builder.add(line, pixel), kind), align=2) for pixel in pixels] for line in lines
        ]
        for i, value in enumerate(value for line in _both_ways(builder, INPUT, values) for value in line):
            builder.store(value, _at(builder, builder.add(place, builder.mul(plane_bytes, _number(i))), kind), align=2)
        return []

    loop(builder, blocks, [], step)


def make_output_transform() -> OutputTransform:
    """The codes of 4x4 pixels, 16 channels at a time.

    The intrinsic is called with ``(sums, plane_bytes, panels, heads, head_bytes, y, y_pixel, y_line, rows, columns,
    spare, wide, y_zp, lo, hi)``: address of int32 products and bytes between the 36 of a channel; number of panels of
    16 channels; addresses of bias plus middle, the vectors of `requantize.Scale` and 64 times the middle, each
    ``head_bytes`` behind the one before; of the first code, bytes to the next pixel and line; rows and columns that
    exist; address of 32 bytes for the codes that do not; whether codes are int16; zero point and limits.
    """

    def transform(
        typingctx: Any,
        sums: Any,
        plane_bytes: Any,
        panels: Any,
        heads: Any,
        head_bytes: Any,
        y: Any,
        y_pixel: Any,
        y_line: Any,
        rows: Any,
        columns: Any,
        spare: Any,
        wide: Any,
        y_zp: Any,
        lo: Any,
        hi: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _OutputWriter(builder, arguments).emit()
            return context.get_dummy_value()

        return types.void(*([types.int64] * 15)), codegen

    return intrinsic(transform)  # type: ignore[no-any-return]


class _OutputWriter:
    """Writes the LLVM code of the output transform."""

    def __init__(self, builder: Any, arguments: Any) -> None:
        self.builder, self.kind = builder, ir.VectorType(I32, LANES)
        (
            self.sums,
            self.plane_bytes,
            self.panels,
            self.heads,
            self.head_bytes,
            self.y,
            self.y_pixel,
            self.y_line,
            self.rows,
            self.columns,
            self.spare,
            self.wide,
            self.y_zp,
            self.lo,
            self.hi,
        ) = arguments

    def emit(self) -> None:
        """All panels."""
        builder = self.builder
        inside_rows = [builder.icmp_signed("<", _number(i), self.rows) for i in range(len(OUTPUT))]
        inside_columns = [builder.icmp_signed("<", _number(j), self.columns) for j in range(len(OUTPUT))]
        self.inside = [builder.and_(row, column) for row in inside_rows for column in inside_columns]
        loop(builder, self.panels, [], self._panel)

    def _load(self, address: Any) -> Any:
        return self.builder.load(_at(self.builder, address, self.kind), align=4)

    def _panel(self, index: Any, _: list[Any]) -> list[Any]:
        builder = self.builder
        offset = builder.mul(index, _number(4 * LANES))
        base, heads = builder.add(self.sums, offset), builder.add(self.heads, offset)
        planes = [self._load(builder.add(base, builder.mul(self.plane_bytes, _number(i)))) for i in range(TAPS * TAPS)]
        scaled = _both_ways(builder, OUTPUT, [planes[i : i + TAPS] for i in range(0, len(planes), TAPS)])
        bias, zero = self._load(heads), splat(builder, builder.trunc(self.y_zp, I32), LANES)
        inverse, shift = (ir.Constant(self.kind, [value] * LANES) for value in (INVERSE_OF_9, SHIFT_OF_64))
        middle = self._load(builder.add(heads, builder.mul(self.head_bytes, _number(1 + SCALE_VECTORS))))
        distances = [builder.sub(builder.mul(value, inverse), middle) for line in scaled for value in line]
        values = [builder.add(builder.ashr(distance, shift), bias) for distance in distances]
        scale = Scale(
            builder, lambda which: self._load(builder.add(heads, builder.mul(self.head_bytes, _number(1 + which))))
        )
        codes = [builder.add(scale.apply(value), zero) for value in raised(builder, [scale], values)]
        with builder.if_else(builder.icmp_signed("!=", self.wide, _number(0))) as (wide, narrow):
            with wide:
                self._store(index, codes, I16)
            with narrow:
                self._store(index, codes, I8)
        return []

    def _store(self, index: Any, values: list[Any], code: Any) -> None:
        builder, kind = self.builder, ir.VectorType(code, LANES)
        first = builder.add(self.y, builder.mul(index, _number(LANES * code.width // 8)))
        for i, value in enumerate(values):
            line, column = divmod(i, len(OUTPUT))
            place = builder.add(builder.mul(self.y_line, _number(line)), builder.mul(self.y_pixel, _number(column)))
            place = builder.select(self.inside[i], builder.add(first, place), self.spare)
            builder.store(
                builder.trunc(limits(builder, value, self.lo, self.hi), kind), _at(builder, place, kind), align=1
            )


transform_32, transform_16 = make_input_transform(32), make_input_transform(16)
INPUT_TRANSFORMS = {transform_32: 32, transform_16: 16}
"""Every input transform, and its channels."""

output_codes = make_output_transform()
