"""Helpers to write LLVM code: counted loops, vectors of one value, requests for cache lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir

I8, I16, I32, I64 = (ir.IntType(width) for width in (8, 16, 32, 64))


def loop(builder: Any, count: Any, start: list[Any], step: Callable[[Any, list[Any]], list[Any]]) -> list[Any]:
    """Emit ``for i in range(count)`` carrying the values ``start`` through ``step(i, values)``; returns the final
    values.
    """
    entry, body, end = builder.basic_block, builder.append_basic_block("body"), builder.append_basic_block("end")
    builder.cbranch(builder.icmp_signed(">", count, ir.Constant(I64, 0)), body, end)
    builder.position_at_end(body)
    index = builder.phi(I64)
    carried = [builder.phi(value.type) for value in start]
    updated = step(index, carried)
    following = builder.add(index, ir.Constant(I64, 1))
    last = builder.basic_block
    builder.cbranch(builder.icmp_signed("<", following, count), body, end)
    for phi, first, new in zip([index, *carried], [ir.Constant(I64, 0), *start], [following, *updated], strict=True):
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
    single = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(single, single, ir.Constant(ir.VectorType(I32, count), [0] * count))


def prefetch(builder: Any, address: Any, *, write: bool, level: int) -> None:
    """Ask for the cache line at ``address``, an int64, in the first (1) or the second (2) cache; no address is
    wrong.
    """
    pointer = I8.as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
    function = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), kind)
    builder.call(
        function,
        [builder.inttoptr(address, pointer), *(ir.Constant(I32, value) for value in (int(write), 4 - level, 1))],
    )
