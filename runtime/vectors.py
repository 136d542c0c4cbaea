"""Vector code besides register tiles: products channel by channel, and table lookups on bytes.

Like all intrinsics here they take addresses and sizes and nothing else; the tests replace them by plain Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .cpu import cpu_features
from .isa import LANES

HAS_BYTE_LOOKUP = {"avx512f", "avx512bw", "avx512vbmi"} <= cpu_features()
"""Whether 64 bytes can be looked up in a table of 256 at once."""

LOOKUP_BYTES = 64

_I8, _I16, _I32, _I64 = (ir.IntType(width) for width in (8, 16, 32, 64))
ChannelTile = Callable[[int, int, int, int, int, int, int], None]
Lookup = Callable[[int, int, int, int], None]


def _pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _loop(builder: Any, count: Any, start: list[Any], step: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Emit ``for i in range(count)`` carrying the values ``start`` through ``step(i, values)``; returns the final values."""
    entry, body, end = builder.basic_block, builder.append_basic_block("body"), builder.append_basic_block("end")
    builder.cbranch(builder.icmp_signed(">", count, ir.Constant(_I64, 0)), body, end)
    builder.position_at_end(body)
    index = builder.phi(_I64)
    carried = [builder.phi(value.type) for value in start]
    updated = step(index, carried)
    following = builder.add(index, ir.Constant(_I64, 1))
    last = builder.basic_block
    builder.cbranch(builder.icmp_signed("<", following, count), body, end)
    for phi, first, new in zip([index, *carried], [ir.Constant(_I64, 0), *start], [following, *updated], strict=True):
        phi.add_incoming(first, entry)
        phi.add_incoming(new, last)
    builder.position_at_end(end)
    final = []
    for first, new in zip(start, updated, strict=True):
        phi = builder.phi(first.type)
        phi.add_incoming(first, entry)
        phi.add_incoming(new, last)
        final.append(phi)
    return final


def make_channel_tile(wide: bool, vectors: int) -> ChannelTile:
    """``acc[c] = bias[c] + sum over taps of x_tap[c] * w_tap[c]`` for ``16 * vectors`` channels.

    The intrinsic is called with ``(pointers, taps, offset, w, w_stride, bias, acc)``: address of int64 addresses, one a tap;
    number of taps; bytes to add to each address; address of the first tap's int8 weights and bytes to the next tap's; addresses
    of int32 start values and results. Activations are int16 when ``wide``, else uint8.
    """

    def tile(typingctx: Any, pointers: Any, taps: Any, offset: Any, w: Any, w_stride: Any, bias: Any, acc: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_channels(builder, wide, vectors, arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 7)), codegen

    return intrinsic(tile)  # type: ignore[no-any-return]


def _emit_channels(builder: Any, wide: bool, vectors: int, arguments: Any) -> None:
    pointers, taps, offset, w, w_stride, bias, acc = arguments
    sums_type, element = ir.VectorType(_I32, LANES), (_I16 if wide else _I8)
    x_type, w_type = ir.VectorType(element, LANES), ir.VectorType(_I8, LANES)
    table = _pointer(builder, pointers, _I64)

    def at(base: Any, kind: Any, part: int) -> Any:
        return builder.gep(_pointer(builder, base, kind), [ir.Constant(_I64, part)])

    def step(index: Any, sums: list[Any]) -> list[Any]:
        source = builder.add(builder.load(builder.gep(table, [index])), offset)
        weights = builder.add(w, builder.mul(index, w_stride))
        updated = []
        for part, total in enumerate(sums):
            x = builder.load(at(source, x_type, part), align=1)
            factor = builder.sext(builder.load(at(weights, w_type, part), align=1), sums_type)
            x = builder.sext(x, sums_type) if wide else builder.zext(x, sums_type)
            updated.append(builder.add(total, builder.mul(x, factor)))
        return updated

    start = [builder.load(at(bias, sums_type, part), align=4) for part in range(vectors)]
    for part, total in enumerate(_loop(builder, taps, start, step)):
        builder.store(total, at(acc, sums_type, part), align=4)


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
    kind = ir.VectorType(_I8, LOOKUP_BYTES)
    permute = builder.module.declare_intrinsic("llvm.x86.avx512.vpermi2var.qi.512", (), ir.FunctionType(kind, [kind] * 3))
    parts = [builder.load(builder.gep(_pointer(builder, table, kind), [ir.Constant(_I64, i)]), align=1) for i in range(4)]
    sources, targets = _pointer(builder, x, kind), _pointer(builder, y, kind)

    def step(index: Any, _: list[Any]) -> list[Any]:
        codes = builder.load(builder.gep(sources, [index]), align=1)
        low, high = (builder.call(permute, [parts[i], codes, parts[i + 1]]) for i in (0, 2))
        upper = builder.icmp_signed("<", codes, ir.Constant(kind, [0] * LOOKUP_BYTES))
        builder.store(builder.select(upper, high, low), builder.gep(targets, [index]), align=1)
        return []

    _loop(builder, blocks, [], step)


lookup_bytes = _make_lookup()
"""``y[i] = table[x[i]]`` on ``64 * blocks`` bytes: called with ``(y, x, table, blocks)``; only where `HAS_BYTE_LOOKUP`."""

channels_u8_4, channels_u8_1 = (make_channel_tile(False, vectors) for vectors in (4, 1))
channels_i16_4, channels_i16_1 = (make_channel_tile(True, vectors) for vectors in (4, 1))

CHANNEL_TILES = {channels_u8_4: (False, 4), channels_u8_1: (False, 1), channels_i16_4: (True, 4), channels_i16_1: (True, 1)}
"""Every channel tile with what it was made for."""
