"""The loops of the border: floats become codes and codes become floats, as ONNX defines it. The only compiled code
with floats.

`convert` works off a table of int64 rows [rows, WIDTH], one an input or output:

    KIND, address outside, address of the codes, elements, element type of the codes, bits of the float32 scale, zero
    point

Quantizing is ``saturate(round_half_even(x / scale) + zero_point)`` in float32, dequantizing ``(code - zero_point) *
scale`` in float32. float64 is rounded to float32 before, and widened after.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..cpu.jit import jit
from ..instructions.instruction import (
    BORDER_COPY_IN,
    BORDER_COPY_OUT,
    BORDER_DOUBLE_IN,
    BORDER_DOUBLE_OUT,
    BORDER_SINGLE_IN,
    BORDER_WIDTH,
    Element,
)
from ..kernels.common import fetch
from ..kernels.movement import copy_bytes
from ..vector.llvm import I32, I64
from ..vector.memory import load_i16, load_i32, load_i64, load_u8, store_8, store_16

_U8, _I8, _I16 = int(Element.U8), int(Element.I8), int(Element.I16)
_SINGLE, _DOUBLE = ir.FloatType(), ir.DoubleType()
_SINGLE_EXPONENT, _DOUBLE_EXPONENT = 0xFF << 23, 0x7FF << 52
_BLOCK = 2048
"""Elements whose finiteness is checked before they are converted: they are still in the first-level cache then."""


def _at(builder: Any, kind: Any, base: Any, index: Any) -> Any:
    return builder.gep(builder.inttoptr(base, kind.as_pointer()), [index])


@intrinsic
def _from_bits(typingctx: Any, bits: Any) -> Any:
    """The float32 of its bits."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.trunc(arguments[0], I32), _SINGLE)

    return types.float32(types.int64), codegen


@intrinsic
def _to_single(typingctx: Any, value: Any) -> Any:
    """An integer as float32."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sitofp(arguments[0], _SINGLE)

    return types.float32(types.int64), codegen


@intrinsic
def _load_single(typingctx: Any, base: Any, index: Any) -> Any:
    """A float32."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_at(builder, _SINGLE, *arguments), align=4)

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def _load_double(typingctx: Any, base: Any, index: Any) -> Any:
    """A float64, rounded to float32."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.fptrunc(builder.load(_at(builder, _DOUBLE, *arguments), align=8), _SINGLE)

    return types.float32(types.int64, types.int64), codegen


@intrinsic
def _code(typingctx: Any, value: Any, scale: Any, zero_point: Any, low: Any, high: Any) -> Any:
    """``saturate(round_half_even(value / scale) + zero_point)``; NaN gives ``low``."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value, scale, zero_point, low, high = arguments
        rint = builder.module.declare_intrinsic("llvm.rint", [_SINGLE])
        code = builder.fadd(builder.call(rint, [builder.fdiv(value, scale)]), zero_point)
        code = builder.select(builder.fcmp_ordered(">", code, low), code, low)
        code = builder.select(builder.fcmp_ordered("<", code, high), code, high)
        return builder.sext(builder.fptosi(code, I32), I64)

    return types.int64(*([types.float32] * 5)), codegen


def _real_storer(wide: bool) -> Callable[[int, int, int, int, Any], None]:
    """Stores ``(code - zero_point) * scale`` as float32, or (wide) as float64."""

    def store(typingctx: Any, base: Any, index: Any, code: Any, zero_point: Any, scale: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            base, index, code, zero_point, scale = arguments
            difference = builder.trunc(builder.sub(code, zero_point), I32)
            real = builder.fmul(builder.sitofp(difference, _SINGLE), scale)
            if wide:
                builder.store(builder.fpext(real, _DOUBLE), _at(builder, _DOUBLE, base, index), align=8)
            else:
                builder.store(real, _at(builder, _SINGLE, base, index), align=4)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64, types.int64, types.float32), codegen

    return intrinsic(store)  # type: ignore[no-any-return]


_store_single, _store_double = _real_storer(False), _real_storer(True)


@jit
def _is_finite(source: int, kind: int, start: int, count: int) -> bool:
    bad = 0
    if kind == BORDER_DOUBLE_IN:
        for i in range(start, start + count):
            bad |= 1 if load_i64(source, i) & _DOUBLE_EXPONENT == _DOUBLE_EXPONENT else 0
    else:
        for i in range(start, start + count):
            bad |= 1 if load_i32(source, i) & _SINGLE_EXPONENT == _SINGLE_EXPONENT else 0
    return bad == 0


@jit
def _low(element: int) -> int:
    if element == _I16:
        return -32768
    return -128 if element == _I8 else 0


@jit
def _high(element: int) -> int:
    if element == _I16:
        return 32767
    return 127 if element == _I8 else 255


@jit
def _quantize(
    source: int, kind: int, target: int, element: int, start: int, count: int, bits: int, zero_point: int
) -> None:
    scale, zero, low, high = (
        _from_bits(bits),
        _to_single(zero_point),
        _to_single(_low(element)),
        _to_single(_high(element)),
    )
    end = start + count
    if kind == BORDER_DOUBLE_IN and element == _I16:
        for i in range(start, end):
            store_16(target, i, _code(_load_double(source, i), scale, zero, low, high))
    elif kind == BORDER_DOUBLE_IN:
        for i in range(start, end):
            store_8(target, i, _code(_load_double(source, i), scale, zero, low, high))
    elif element == _I16:
        for i in range(start, end):
            store_16(target, i, _code(_load_single(source, i), scale, zero, low, high))
    else:
        for i in range(start, end):
            store_8(target, i, _code(_load_single(source, i), scale, zero, low, high))


@jit
def _dequantize(target: int, kind: int, source: int, element: int, count: int, bits: int, zero_point: int) -> None:
    scale = _from_bits(bits)
    if kind == BORDER_DOUBLE_OUT:
        for i in range(count):
            _store_double(target, i, fetch(source, element, i), zero_point, scale)
    elif element == _U8:
        for i in range(count):
            _store_single(target, i, load_u8(source, i), zero_point, scale)
    elif element == _I16:
        for i in range(count):
            _store_single(target, i, load_i16(source, i), zero_point, scale)
    else:
        for i in range(count):
            _store_single(target, i, fetch(source, element, i), zero_point, scale)


@jit
def convert(table: int, rows: int) -> int:
    """Convert the inputs or outputs that the table lists.

    Returns:
        0, or 1 + the index of the first input that holds NaN or infinity.
    """
    for index in range(rows):
        row = table + index * 8 * BORDER_WIDTH
        kind, outside, codes, count = load_i64(row, 0), load_i64(row, 1), load_i64(row, 2), load_i64(row, 3)
        element, bits, zero_point = load_i64(row, 4), load_i64(row, 5), load_i64(row, 6)
        if kind == BORDER_COPY_IN:
            copy_bytes(codes, outside, count)
        elif kind == BORDER_COPY_OUT:
            copy_bytes(outside, codes, count)
        elif kind in (BORDER_SINGLE_IN, BORDER_DOUBLE_IN):
            for start in range(0, count, _BLOCK):
                length = min(_BLOCK, count - start)
                if not _is_finite(outside, kind, start, length):
                    return index + 1
                _quantize(outside, kind, codes, element, start, length, bits, zero_point)
        else:
            _dequantize(outside, kind, codes, element, count, bits, zero_point)
    return 0
