"""Limits of one core, measured and checked: multiplications a second, bytes a second."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from qcompiler.runtime.cpu.isa import Isa, best_isa
from qcompiler.runtime.vector.llvm import loop, splat
from qcompiler.runtime.vector.sum_tiles import (
    Flavour,
    pair_step,
    quad_step,
)

_I32, _I64 = ir.IntType(32), ir.IntType(64)
CHAINS = 12
"""Independent sums: more than an instruction's latency times the units that execute it."""


STREAMED = 1 << 27
"""Bytes that are read to measure the bandwidth."""


PORTS = 2
"""Vector multiplications that an x86 core issues in a cycle at most: of 256 bits on two ports (Haswell and later, Zen 2
and later), of 512 bits on one or two. Source: uops.info, VPMADDWD and VPDPBUSD."""


ADDITIONS = 64
"""Dependent additions in a round of the loop that counts cycles; each takes one."""


TOLERANCE = 1.05
"""Cycles and peak are measured one after the other, on a clock that may change by some percent."""


class ImpossibleError(Exception):
    """A measurement beyond what the core can do: the loop was not executed as written."""


def opaque(builder: Any, value: Any) -> Any:
    """``value`` through an empty piece of assembly: the optimizer knows nothing of the result, and it costs no
    instruction.
    """
    arm = platform.machine() in ("aarch64", "arm64")
    register = (
        "r" if isinstance(value.type, ir.IntType) else "w" if arm else "v" if best_isa() is Isa.AVX512_VNNI else "x"
    )
    return builder.asm(ir.FunctionType(value.type, [value.type]), "", f"={register},0", [value], side_effect=True)


@intrinsic  # type: ignore[untyped-decorator]
def _additions(typingctx: Any, rounds: Any) -> Any:
    """So many rounds of `ADDITIONS` additions, each of which waits for the one before."""
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def step(_: Any, values: list[Any]) -> list[Any]:
            value = values[0]
            for _ in range(ADDITIONS):
                value = opaque(builder, builder.add(value, ir.Constant(_I64, 1)))
            return [value]

        return loop(builder, arguments[0], [arguments[0]], step)[0]

    return types.int64(types.int64), codegen


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _add(rounds: int) -> int:
    return _additions(rounds)  # type: ignore[no-any-return]


def gigahertz(repeat: int) -> float:
    """Cycles a nanosecond."""
    rounds = 100_000
    return rounds * ADDITIONS / fastest(lambda: _add(rounds), repeat)


def peak_loop(flavour: Flavour) -> Callable[[int, int, int], int]:
    """A compiled function of (rounds, a, b): so many rounds of `CHAINS` dot products on registers alone."""
    lanes, step = flavour.bits // 32, quad_step if flavour.layout == "quad" else pair_step

    @intrinsic  # type: ignore[untyped-decorator]
    def chains(typingctx: Any, rounds: Any, a: Any, b: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            element = ir.IntType(8) if flavour.layout == "quad" else ir.IntType(16)
            codes = ir.VectorType(element, 32 * lanes // element.width)
            x, w = (
                builder.bitcast(splat(builder, builder.trunc(value, _I32), lanes), codes) for value in arguments[1:]
            )
            start = [
                splat(builder, builder.trunc(builder.add(arguments[1], ir.Constant(_I64, i)), _I32), lanes)
                for i in range(CHAINS)
            ]
            sums = loop(
                builder,
                arguments[0],
                start,
                lambda _, values: [step(builder, flavour, value, opaque(builder, x), w) for value in values],
            )
            total = sums[0]
            for value in sums[1:]:
                total = builder.add(total, value)
            return builder.sext(builder.extract_element(total, ir.Constant(_I32, 0)), _I64)

        return types.int64(types.int64, types.int64, types.int64), codegen

    @numba.njit(nogil=True)  # type: ignore[untyped-decorator]
    def run(rounds: int, a: int, b: int) -> int:
        return chains(rounds, a, b)  # type: ignore[no-any-return]

    return run  # type: ignore[no-any-return]


@intrinsic  # type: ignore[untyped-decorator]
def _read(typingctx: Any, address: Any, blocks: Any) -> Any:
    """Read four streams of ``blocks`` times 64 bytes, one behind the other."""
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vector = ir.VectorType(_I64, 8)
        base = builder.inttoptr(arguments[0], vector.as_pointer())

        def step(index: Any, sums: list[Any]) -> list[Any]:
            places = [
                builder.gep(base, [builder.add(index, builder.mul(arguments[1], ir.Constant(_I64, i)))])
                for i in range(4)
            ]
            return [builder.xor(total, builder.load(place, align=8)) for total, place in zip(sums, places, strict=True)]

        sums = loop(builder, arguments[1], [ir.Constant(vector, [0] * 8)] * 4, step)
        total = builder.xor(builder.xor(sums[0], sums[1]), builder.xor(sums[2], sums[3]))
        return builder.extract_element(total, ir.Constant(_I32, 0))

    return types.int64(types.int64, types.int64), codegen


@numba.njit(nogil=True)  # type: ignore[untyped-decorator]
def _stream(address: int, blocks: int) -> int:
    return _read(address, blocks)  # type: ignore[no-any-return]


def fastest(run: Callable[[], object], repeat: int) -> float:
    """Nanoseconds of the fastest run."""
    best = float("inf")
    for _ in range(repeat + 1):
        start = time.perf_counter_ns()
        run()
        best = min(best, time.perf_counter_ns() - start)
    return best


def peak(flavour: Flavour, clock: float, repeat: int) -> float:
    """Multiply-accumulates a nanosecond of the instruction alone.

    Raises:
        ImpossibleError: more than `PORTS` instructions a cycle.
    """
    run, rounds = peak_loop(flavour), 200_000
    each = flavour.bits // (8 if flavour.layout == "quad" else 16)
    found = rounds * CHAINS * each / fastest(lambda: run(rounds, 3, 5), repeat)
    return possible(found, PORTS * each * clock)


def possible(found: float, limit: float) -> float:
    """The rate that was found, unless it is above the limit by more than the measurement's own error:
    `ImpossibleError`.
    """
    if found > TOLERANCE * limit:
        raise ImpossibleError(
            f"{found:.0f} GMAC/s measured where cycles x ports allow {limit:.0f}: the loop was not executed as written"
        )
    return found


def bandwidth(repeat: int) -> float:
    """Bytes a nanosecond of a read through memory."""
    data = np.ones(STREAMED, np.uint8)
    return STREAMED / fastest(lambda: _stream(data.ctypes.data, STREAMED // 256), repeat)
