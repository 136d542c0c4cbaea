"""Typed loads and stores at raw addresses, for compiled code only.

``load_i16(base, index)`` reads the int16 at ``base + 2 * index`` as an int64; ``store_i16(base, index, value)`` writes
the low 16 bits of ``value``. Nothing is checked here: `bind.py` has proved every access before a program runs, and the
tests run the same kernels as plain Python on loads and stores that do check.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _pointer(builder: Any, width: int, base: Any, index: Any) -> Any:
    typed = builder.inttoptr(base, ir.IntType(width).as_pointer())
    return builder.gep(typed, [index])


def _loader(width: int, signed: bool) -> Callable[[int, int], int]:
    def load(typingctx: Any, base: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load(_pointer(builder, width, *args), align=width // 8)
            if width == 64:
                return value
            return (builder.sext if signed else builder.zext)(value, ir.IntType(64))

        return types.int64(types.int64, types.int64), codegen

    return intrinsic(load)  # type: ignore[no-any-return]


def _storer(width: int) -> Callable[[int, int, int], None]:
    def store(typingctx: Any, base: Any, index: Any, value: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            address, position, number = args
            if width < 64:
                number = builder.trunc(number, ir.IntType(width))
            builder.store(number, _pointer(builder, width, address, position), align=width // 8)
            return context.get_dummy_value()

        return types.void(types.int64, types.int64, types.int64), codegen

    return intrinsic(store)  # type: ignore[no-any-return]


load_u8, load_i8 = _loader(8, False), _loader(8, True)
load_i16, load_i32, load_i64 = _loader(16, True), _loader(32, True), _loader(64, True)
store_8, store_16, store_32, store_64 = _storer(8), _storer(16), _storer(32), _storer(64)
