"""Vector code besides register tiles: table lookups on bytes.

Like all intrinsics here they take addresses and sizes and nothing else; the tests replace them by plain Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..cpu.features import cpu_features
from .llvm import I8, I64, loop

HAS_BYTE_LOOKUP = {"avx512f", "avx512bw", "avx512vbmi"} <= cpu_features()
"""Whether 64 bytes can be looked up in a table of 256 at once."""

LOOKUP_BYTES = 64

Lookup = Callable[[int, int, int, int], None]


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _make_lookup() -> Lookup:
    def lookup(typingctx: Any, y: Any, x: Any, table: Any, blocks: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if HAS_BYTE_LOOKUP:
                _emit_lookup(builder, arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 4)), codegen

    return intrinsic(lookup)  # type: ignore[no-any-return]


def _emit_lookup(builder: Any, arguments: Any) -> None:
    y, x, table, blocks = arguments
    kind = ir.VectorType(I8, LOOKUP_BYTES)
    permute = builder.module.declare_intrinsic(
        "llvm.x86.avx512.vpermi2var.qi.512", (), ir.FunctionType(kind, [kind] * 3)
    )
    parts = [
        builder.load(builder.gep(_pointer(builder, table, kind), [ir.Constant(I64, i)]), align=1) for i in range(4)
    ]
    sources, targets = _pointer(builder, x, kind), _pointer(builder, y, kind)

    def step(index: Any, _: list[Any]) -> list[Any]:
        codes = builder.load(builder.gep(sources, [index]), align=1)
        low, high = (builder.call(permute, [parts[i], codes, parts[i + 1]]) for i in (0, 2))
        upper = builder.icmp_signed("<", codes, ir.Constant(kind, [0] * LOOKUP_BYTES))
        builder.store(builder.select(upper, high, low), builder.gep(targets, [index]), align=1)
        return []

    loop(builder, blocks, [], step)


lookup_bytes = _make_lookup()
"""``y[i] = table[x[i]]`` on ``64 * blocks`` bytes: called with ``(y, x, table, blocks)``; only where
`HAS_BYTE_LOOKUP`.
"""
