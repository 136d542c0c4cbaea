"""Helpers to write LLVM code: counted loops, vectors of one value, requests for cache lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def loop(builder: Any, count: Any, start: list[Any], step: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
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


def splat(builder: Any, scalar: Any, count: int) -> Any:
    """A vector of ``count`` times ``scalar``."""
    kind = ir.VectorType(scalar.type, count)
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(_I32, count), [0] * count))


def prefetch(builder: Any, address: Any, *, write: bool, level: int) -> None:
    """Ask for the cache line at ``address``, an int64, in the first (1) or the second (2) cache; no address is wrong."""
    pointer = ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
    function = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), kind)
    builder.call(function, [builder.inttoptr(address, pointer), *(ir.Constant(_I32, value) for value in (int(write), 4 - level, 1))])
