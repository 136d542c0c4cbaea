"""Runs single instructions three ways: compiled, and as plain Python with every load and store checked against the proof.

The kernels' own source runs as Python: their globals are replaced by interpreted functions and by loads and stores that
refuse an address outside what `Opcode.accesses` declared for the instruction. So a kernel that touches more than the
loader proved fails here, and a difference between unbounded and 64-bit arithmetic shows as different results.
"""

from __future__ import annotations

import ctypes
import dis
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray
from qcompiler.runtime.arena import Arena
from qcompiler.runtime.builder import Buffer, ProgramBuilder
from qcompiler.runtime.channels import CHANNEL_TILES, SINGLE_TILES, taps_in_group
from qcompiler.runtime.epilogue import REQUANTIZE
from qcompiler.runtime.exponentials import EXPONENTIALS
from qcompiler.runtime.instruction import BLOCK_BYTES, BLOCKS, WIDTH, Opcode, Source
from qcompiler.runtime.isa import Isa, best_isa
from qcompiler.runtime.kernels.tiles import TILES
from qcompiler.runtime.lines import LINES, lookup_wide
from qcompiler.runtime.movers import PIXELS, copy_run, interleave_three, transpose_square
from qcompiler.runtime.native import load
from qcompiler.runtime.opcodes import BY_NUMBER, check_numbers
from qcompiler.runtime.parts import divide, part_rows
from qcompiler.runtime.pools import POOL_TILES
from qcompiler.runtime.program import Program
from qcompiler.runtime.session import Session
from qcompiler.runtime.sums import WIDE_ADDS, add_bytes, multiply_wide
from qcompiler.runtime.vectors import lookup_bytes
from qcompiler.runtime.windows import chunk_order

from qcompiler.runtime import machine, memory
from qcompiler.runtime import requant as spec

Array = NDArray[Any]


class AccessError(Exception):
    """A kernel left what it declared."""


class CheckedMemory:
    """Loads and stores that know which bytes may be touched."""

    def __init__(self) -> None:
        self.readable: list[tuple[int, int]] = []
        self.writable: list[tuple[int, int]] = []

    def loader(self, width: int, signed: bool) -> Callable[[int, int], int]:
        size = width // 8

        def load(base: int, index: int) -> int:
            address = base + index * size
            if not any(first <= address and address + size <= end for first, end in self.readable):
                raise AccessError(f"read of {size} bytes at {address}, allowed {self.readable}")
            return int.from_bytes(ctypes.string_at(address, size), "little", signed=signed)

        return load

    def storer(self, width: int) -> Callable[[int, int, int], None]:
        size = width // 8

        def store(base: int, index: int, value: int) -> None:
            address = base + index * size
            if not any(first <= address and address + size <= end for first, end in self.writable):
                raise AccessError(f"write of {size} bytes at {address}, allowed {self.writable}")
            if width == 64 and not -(1 << 63) <= value < 1 << 63:
                raise OverflowError(f"{value} does not fit into 64 bits")
            ctypes.memmove(address, (value & ((1 << width) - 1)).to_bytes(size, "little"), size)

        return store


def tile_reference(checked: CheckedMemory, layout: str, tile_rows: int, panels: int) -> Callable[..., None]:
    """What a register tile computes, on checked memory."""
    load_a = checked.loader(8, False) if layout == "quad" else checked.loader(16, True)
    load_b = checked.loader(16, True) if layout == "wide" else checked.loader(8, True)
    load_bias, load_pointer, store = checked.loader(32, True), checked.loader(64, True), checked.storer(32)
    group, step_bytes = (4 if layout == "quad" else 2), (32 if layout == "pair" else 64)

    def tile(pointers: int, offsets: int, segments: int, b: int, panel_bytes: int, steps: int, bias: int, acc: int) -> None:
        for r in range(tile_rows):
            sources = [load_pointer(pointers, r) + load_pointer(offsets, s) for s in range(segments)]
            left = [load_a(source + 4 * s, g) for source in sources for s in range(steps) for g in range(group)]
            for column in range(16 * panels):
                panel, lane = b + column // 16 * panel_bytes, column % 16
                right = [load_b(panel + s * step_bytes, lane * group + g) for s in range(segments * steps) for g in range(group)]
                total = sum(x * y for x, y in zip(left, right, strict=True))
                store(acc, r * 16 * panels + column, load_bias(bias, column) + total)

    return tile


def requantize_reference(checked: CheckedMemory, wide: bool) -> Callable[..., None]:
    """What a requantization computes, on checked memory."""
    load, store = checked.loader(32, True), checked.storer(16 if wide else 8)

    def requantize(
        y: int, y_stride: int, acc: int, acc_stride: int, valid: int, m: int, n: int, count: int, y_zp: int, lo: int, hi: int
    ) -> None:
        out = spec.Range(y_zp, lo, hi)
        for r in range(valid):
            for c in range(-(-count // 16) * 16):
                code = out.code(spec.requant(load(acc + r * acc_stride, c), load(m, c), load(n, c)))
                if c < count:
                    store(y + r * y_stride, c, code)

    return requantize


def channel_reference(checked: CheckedMemory, layout: str, width: int) -> Callable[..., None]:
    """What a channel tile computes, on checked memory."""
    group = taps_in_group(layout)
    load_x = checked.loader(8, False) if layout == "quad" else checked.loader(16, True)
    load_w = checked.loader(8 if layout == "quad" else 16, True)
    load_offset, load_bias, store = checked.loader(64, True), checked.loader(32, True), checked.storer(32)
    order = chunk_order(width, group)

    def tile(x: int, offsets: int, groups: int, w: int, bias: int, acc: int) -> None:
        sources = [x + load_offset(offsets, tap) for tap in range(groups * group)]
        for place, c in enumerate(order):
            products = (load_x(source, c) * load_w(w, (t // group * width + place) * group + t % group) for t, source in enumerate(sources))
            store(acc, c, load_bias(bias, c) + sum(products))

    return tile


def single_reference(checked: CheckedMemory, wide: bool) -> Callable[..., None]:
    """What a tile of one tap computes, on checked memory."""
    load_x, load_w = (checked.loader(16, True) if wide else checked.loader(8, False)), checked.loader(16, True)
    load_bias, store = checked.loader(32, True), checked.storer(32)

    def tile(x: int, vectors: int, w: int, bias: int, acc: int) -> None:
        for c in range(16 * vectors):
            store(acc, c, load_bias(bias, c) + load_x(x, c) * load_w(w, 2 * c))

    return tile


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


def transpose_reference(checked: CheckedMemory) -> Callable[..., None]:
    """What `transpose_square` computes, on checked memory."""
    load, store = checked.loader(8, False), checked.storer(8)

    def transpose(target: int, target_stride: int, source: int, source_stride: int) -> None:
        codes = [[load(source + i * source_stride, j) for j in range(16)] for i in range(16)]
        for i in range(16):
            for j in range(16):
                store(target + i * target_stride, j, codes[j][i])

    return transpose


def interleave_reference(checked: CheckedMemory) -> Callable[..., None]:
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


def add_reference(checked: CheckedMemory) -> Callable[..., None]:
    """What `add_bytes` computes, on checked memory."""
    load, store = checked.loader(8, False), checked.storer(8)

    def halves(pair: int) -> tuple[int, int]:
        return (pair & 0xFFFF ^ 0x8000) - 0x8000, pair >> 16

    def add(
        y: int, a: int, b: int, blocks: int, high: int, low: int, c_high: int, c_low: int, shift: int, lo: int, hi: int, y_zp: int
    ) -> None:
        (a_high, b_high), (a_low, b_low) = halves(high), halves(low)
        for i in range(16 * blocks):
            left, right = load(a, i), load(b, i)
            total = 65536 * (left * a_high + right * b_high + c_high) + left * a_low + right * b_low + c_low
            store(y, i, min(max(total >> (16 + shift), lo), hi) + y_zp)

    return add


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
        tables = [[load_entry(table, i) for i in range(size)] for table, size in ((coarse, 32), (middle, 32), (fine, 64))]
        found = [spec.exponential(peak - load(x, j), *tables) for j in range(16 * blocks)]
        for j, term in enumerate(found):
            store(terms, j, term)
        return sum(found)

    return exponentials


def product_reference(checked: CheckedMemory) -> Callable[..., None]:
    """What `multiply_wide` computes, on checked memory."""
    load, store = checked.loader(16, True), checked.storer(16)

    def multiply(y: int, a: int, b: int, blocks: int, a_zp: int, b_zp: int, m: int, c: int, n: int, lo: int, hi: int) -> None:
        for i in range(16 * blocks):
            total = (load(a, i) - a_zp) * (load(b, i) - b_zp) * m + c
            assert -(2**63) <= total < 2**63
            store(y, i, min(max(total >> n, lo), hi))

    return multiply


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
        y: int, x: int, base: int, slope: int, blocks: int, first: int, last: int, width_bits: int, shift: int, lo: int, hi: int
    ) -> None:
        for i in range(32 * blocks):
            segment, step = divmod(min(max(load(x, i), first), last) - first, 1 << width_bits)
            value = (load(base, segment) << width_bits) + load(slope, segment) * step
            store(y, i, min(max(spec.rounding_shift(value, shift), lo), hi))

    return lines


def wide_lookup_reference(checked: CheckedMemory) -> Callable[..., None]:
    """What `lookup_wide` computes, on checked memory."""
    load_code, load_entry, store = checked.loader(8, False), checked.loader(16, True), checked.storer(16)

    def lookup(y: int, x: int, table: int, blocks: int) -> None:
        for i in range(32 * blocks):
            store(y, i, load_entry(table, load_code(x, i)))

    return lookup


def interpreted(function: Any, checked: CheckedMemory) -> Callable[..., Any]:
    """The Python function behind a compiled one, on checked memory, with everything it calls."""
    replaced: dict[int, Any] = {id(tile): tile_reference(checked, f.layout, rows, panels) for tile, (f, rows, panels) in TILES.items()}
    replaced |= {id(tile): channel_reference(checked, layout, width) for tile, (layout, width) in CHANNEL_TILES.items()}
    replaced |= {id(kernel): requantize_reference(checked, wide) for kernel, wide in REQUANTIZE.items()}
    replaced |= {id(tile): pool_reference(checked, *made_for) for tile, made_for in POOL_TILES.items()}
    replaced |= {id(tile): single_reference(checked, wide) for tile, wide in SINGLE_TILES.items()}
    replaced |= {id(transpose_square): transpose_reference(checked), id(copy_run): copy_reference(checked)}
    replaced |= {id(kernel): lines_reference(checked, wide) for kernel, wide in LINES.items()}
    replaced |= {id(add): wide_add_reference(checked, *wide) for add, wide in WIDE_ADDS.items()}
    replaced |= {id(kernel): exponentials_reference(checked, wide) for kernel, wide in EXPONENTIALS.items()}
    replaced[id(interleave_three)] = interleave_reference(checked)
    replaced[id(multiply_wide)] = product_reference(checked)
    replaced[id(add_bytes)] = add_reference(checked)
    replaced[id(memory.prefetch_write)] = lambda _: None
    replaced[id(lookup_wide)] = wide_lookup_reference(checked)
    replaced[id(lookup_bytes)] = lookup_reference(checked)
    for width, signed, name in ((8, False, "u8"), (8, True, "i8"), (16, True, "i16"), (32, True, "i32"), (64, True, "i64")):
        replaced[id(getattr(memory, f"load_{name}"))] = checked.loader(width, signed)
    for width in (8, 16, 32, 64):
        replaced[id(getattr(memory, f"store_{width}"))] = checked.storer(width)

    def convert(value: Any) -> Any:
        if id(value) in replaced:
            return replaced[id(value)]
        if not isinstance(value, Dispatcher):
            return value
        source = value.py_func
        used = {str(step.argval) for step in dis.get_instructions(source) if step.opname == "LOAD_GLOBAL"}
        names = {name: convert(source.__globals__[name]) for name in used if name in source.__globals__}
        replaced[id(value)] = FunctionType(source.__code__, {**source.__globals__, **names})
        return replaced[id(value)]

    return convert(function)  # type: ignore[no-any-return]


def run_interpreted(program: Program, feeds: Mapping[str, Array], isa: Isa = Isa.PLAIN) -> dict[str, Array]:
    """Outputs of a program without symbols, with every access checked."""
    session = Session(program, isa, num_threads=1)
    bound = program.bind()
    arena = session._prepare(feeds)
    checked = CheckedMemory()
    execute = interpreted(machine.execute, checked)
    for index in range(len(program.code)):
        _allow(checked, arena, program, bound.code[index], index)
        status = execute(arena.code.ctypes.data, index, index + 1, arena.scratch)
        session._check(arena, status)
    return {port.name: arena.view(port.buffer).reshape(bound.output_shapes[port.name]).copy() for port in program.outputs}


def _allow(checked: CheckedMemory, arena: Arena, program: Program, numbers: Array, index: int) -> None:
    opcode = BY_NUMBER[int(numbers[0])]
    values = opcode.row(numbers.tolist())
    row = arena.code.ctypes.data + index * 8 * WIDTH
    scratch = (arena.scratch, arena.scratch + BLOCKS * BLOCK_BYTES + opcode.scratch(values))
    checked.readable, checked.writable = [(row, row + 8 * WIDTH), scratch], [scratch]
    packed = arena.packed.get(index)
    if packed is not None:
        checked.readable.append((packed.ctypes.data, packed.ctypes.data + packed.nbytes))
    for access in opcode.accesses(values):
        base = int(arena.code[index, opcode.position(access.field)])
        target = [checked.readable, checked.writable] if access.write else [checked.readable]
        for regions in target:
            regions.append((base + access.first, base + access.end))
    assert Source.BUFFER in arena.bound.kinds[index]


def run_divided(program: Program, feeds: Mapping[str, Array], isa: Isa) -> dict[str, Array]:
    """Outputs where every instruction that can be divided runs in many parts, the last one first."""
    session = Session(program, isa, num_threads=1)
    arena = session._prepare(feeds)
    native, whole = load(), arena.code.copy()
    for numbers in whole:
        opcode = BY_NUMBER[int(numbers[0])]
        values = opcode.row(numbers.tolist())
        parts = divide(opcode, values, threads=3, least=0, most=9) or [{}]
        _check_parts(opcode, values, parts)
        for row in part_rows(opcode, numbers, parts)[::-1].copy():
            session._check(arena, native.execute(row.ctypes.data, 0, 1, arena.scratch))
    return {port.name: arena.view(port.buffer).reshape(arena.bound.output_shapes[port.name]).copy() for port in program.outputs}


def _check_parts(opcode: Opcode, values: Mapping[str, int], parts: Sequence[Mapping[str, int]]) -> None:
    """A part is an instruction that obeys the rules and touches only what the whole touches, with no more scratch memory."""
    whole = {(a.field, a.write): (values[a.field] + a.first, values[a.field] + a.end) for a in opcode.accesses(values)}
    for part in parts:
        fields = {**values, **part}
        assert opcode.scratch(fields) <= opcode.scratch(values)
        check_numbers(opcode, {**fields, **{field.name: 0 for field in opcode.fields if field.kind.is_operand}})
        for access in opcode.accesses(fields):
            first, end = whole[access.field, access.write]
            assert first <= fields[access.field] + access.first
            assert fields[access.field] + access.end <= end


Outputs = Mapping[str, tuple[tuple[int, ...], Any]]


def build_one(opcode: str, inputs: Mapping[str, Array], outputs: Outputs, /, **fields: Any) -> tuple[Program, dict[str, Array]]:
    """A program of one instruction; ``inputs`` become buffers fed from outside, an output of the same name is updated in place."""
    b = ProgramBuilder()
    handles: dict[str, Buffer] = {}
    for name, array in inputs.items():
        handles[name] = b.buffer(array.shape, array.dtype, name)
        b.input(name, handles[name], array.dtype, array.shape)
    for name, (shape, dtype) in outputs.items():
        if name not in handles:
            handles[name] = b.buffer(shape, dtype, name)
    b.emit(opcode, node="node", **{**handles, **fields})
    for name, (shape, dtype) in outputs.items():
        b.output(name, handles[name], dtype, shape)
    return b.program(), dict(inputs)


def run_one(opcode: str, inputs: Mapping[str, Array], outputs: Outputs, /, **fields: Any) -> dict[str, Array]:
    """Outputs of one instruction; compiled for every instruction set and interpreted with checks, it has given the same."""
    program, feeds = build_one(opcode, inputs, outputs, **fields)
    plain = run_interpreted(program, feeds)
    has_tiles = opcode in ("gemm", "conv", "matmul", "table", "requant", "binary", "piecewise", "softmax", "lstm", "gru")
    others = {Isa.PORTABLE, best_isa()} if has_tiles else set()
    results = {f"interpreted for {isa.name}": run_interpreted(program, feeds, isa) for isa in others}  # first: it does not crash
    results |= {f"compiled for {isa.name}": Session(program, isa).raw(feeds) for isa in (Isa if has_tiles else (best_isa(),)) if isa.supported}
    results |= {f"in parts for {isa.name}": run_divided(program, feeds, isa) for isa in {Isa.PLAIN, best_isa()}}
    for what, result in results.items():
        for name, value in plain.items():
            np.testing.assert_array_equal(result[name], value, err_msg=f"{opcode}, {what}: differs from the plain kernel interpreted")
    return plain
