"""Runs single instructions three ways: compiled, and as plain Python with every load and store checked against the
proof.

The kernels' own source runs as Python: their globals are replaced by interpreted functions and by loads and stores that
refuse an address outside what `Opcode.accesses` declared for the instruction. So a kernel that touches more than the
loader proved fails here, and a difference between unbounded and 64-bit arithmetic shows as different results.
"""

from __future__ import annotations

import dis
import functools
from collections.abc import Callable, Mapping, Sequence
from types import CellType, FunctionType
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher
from numpy.typing import NDArray

from qcompiler.runtime.binding.bind import bind
from qcompiler.runtime.binding.division import divide, form_of, part_rows
from qcompiler.runtime.cpu.isa import Isa, best_isa
from qcompiler.runtime.instructions.instruction import BLOCK_BYTES, BLOCKS, WIDTH, Opcode, Source
from qcompiler.runtime.instructions.opcodes import BY_NUMBER, check_numbers
from qcompiler.runtime.machine import interpreter
from qcompiler.runtime.program.builder import Buffer, ProgramBuilder
from qcompiler.runtime.program.model import Program
from qcompiler.runtime.run.arena import Arena
from qcompiler.runtime.run.machine_code import load
from qcompiler.runtime.session import Session
from tests.runtime.checked_memory import AccessError as AccessError
from tests.runtime.checked_memory import CheckedMemory
from tests.runtime.references import references

Array = NDArray[Any]


def on_result(program: Program, feeds: dict[str, Array], outputs: dict[str, Array]) -> None:
    """Called with every program of `run_one` and its outputs; tests that want them replace it."""


@functools.cache
def used_names(function: FunctionType) -> frozenset[str]:
    """Names of the globals that a function loads."""
    return frozenset(str(step.argval) for step in dis.get_instructions(function) if step.opname == "LOAD_GLOBAL")


def interpreted(function: Any, checked: CheckedMemory) -> Callable[..., Any]:
    """The Python function behind a compiled one, on checked memory, with everything it calls."""
    replaced = references(checked)

    def convert(value: Any) -> Any:
        if id(value) in replaced:
            return replaced[id(value)]
        if not isinstance(value, Dispatcher):
            return value
        source = value.py_func
        names = {name: convert(source.__globals__[name]) for name in used_names(source) if name in source.__globals__}
        cells = tuple(CellType(convert(cell.cell_contents)) for cell in source.__closure__ or ())
        replaced[id(value)] = FunctionType(source.__code__, {**source.__globals__, **names}, closure=cells)
        return replaced[id(value)]

    return convert(function)  # type: ignore[no-any-return]


def run_interpreted(program: Program, feeds: Mapping[str, Array], isa: Isa = Isa.PLAIN) -> dict[str, Array]:
    """Outputs of a program without symbols, with every access checked."""
    session = Session(program, isa, num_threads=1)
    bound = bind(program)
    arena = session._prepare(feeds)
    checked = CheckedMemory()
    execute = interpreted(interpreter.execute, checked)
    for index in range(len(program.code)):
        _allow(checked, arena, program, bound.code[index], index)
        status = execute(arena.code.ctypes.data, index, index + 1, arena.scratch)
        session._check(arena, status)
    return {
        port.name: arena.view(port.buffer).reshape(bound.output_shapes[port.name]).copy() for port in program.outputs
    }


def _allow(checked: CheckedMemory, arena: Arena, program: Program, numbers: Array, index: int) -> None:
    opcode = BY_NUMBER[int(numbers[0])]
    values = opcode.row(numbers.tolist())
    row = arena.code.ctypes.data + index * 8 * WIDTH
    scratch = (arena.scratch, arena.scratch + BLOCKS * BLOCK_BYTES + opcode.scratch(values))
    checked.readable, checked.writable = [(row, row + 8 * WIDTH), scratch], [scratch]
    packed = arena.packed.get(index)
    if packed is not None:
        checked.readable.append((packed.codes.ctypes.data, packed.codes.ctypes.data + packed.codes.nbytes))
    for access in opcode.accesses(values):
        base = int(arena.code[index, opcode.position(access.field)])
        if base == 0:  # an operand that nobody reads
            continue
        target = [checked.readable, checked.writable] if access.write else [checked.readable]
        for regions in target:
            regions.append((base + access.first, base + access.end))
    assert Source.BUFFER in arena.bound.kinds[index] or not numbers[1:].any()  # it has nothing to write


def run_divided(program: Program, feeds: Mapping[str, Array], isa: Isa) -> dict[str, Array]:
    """Outputs where every instruction that can be divided runs in many parts, the last one first."""
    session = Session(program, isa, num_threads=1)
    arena = session._prepare(feeds)
    native, whole = load(), arena.code.copy()
    for numbers in whole:
        opcode = BY_NUMBER[int(numbers[0])]
        values = opcode.row(numbers.tolist())
        parts = divide(opcode, values, threads=3, form=form_of(numbers), least=0, most=9) or [{}]
        _check_parts(opcode, values, parts)
        for row in part_rows(opcode, numbers, parts)[::-1].copy():
            session._check(arena, native.execute(row.ctypes.data, 0, 1, arena.scratch))
    return {
        port.name: arena.view(port.buffer).reshape(arena.bound.output_shapes[port.name]).copy()
        for port in program.outputs
    }


def _check_parts(opcode: Opcode, values: Mapping[str, int], parts: Sequence[Mapping[str, int]]) -> None:
    """A part is an instruction that obeys the rules and touches only what the whole touches, with no more scratch
    memory.
    """
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


def build_one(
    opcode: str, inputs: Mapping[str, Array], outputs: Outputs, /, **fields: Any
) -> tuple[Program, dict[str, Array]]:
    """A program of one instruction; ``inputs`` become buffers fed from outside, an output of the same name is updated
    in place.
    """
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
    """Outputs of one instruction; compiled for every instruction set and interpreted with checks, it has given the
    same.
    """
    program, feeds = build_one(opcode, inputs, outputs, **fields)
    plain = run_interpreted(program, feeds)
    has_tiles = opcode in (
        "gemm",
        "conv",
        "conv_transpose",
        "matmul",
        "table",
        "requant",
        "binary",
        "piecewise",
        "softmax",
        "lstm",
        "gru",
    )
    others = {Isa.PORTABLE, best_isa()} if has_tiles else set()
    # first: it does not crash
    results = {f"interpreted for {isa.name}": run_interpreted(program, feeds, isa) for isa in others}
    results |= {
        f"compiled for {isa.name}": Session(program, isa).raw(feeds)
        for isa in (Isa if has_tiles else (best_isa(),))
        if isa.supported
    }
    results |= {f"in parts for {isa.name}": run_divided(program, feeds, isa) for isa in {Isa.PLAIN, best_isa()}}
    for what, result in results.items():
        for name, value in plain.items():
            np.testing.assert_array_equal(
                result[name], value, err_msg=f"{opcode}, {what}: differs from the plain kernel interpreted"
            )
    on_result(program, feeds, plain)
    return plain
