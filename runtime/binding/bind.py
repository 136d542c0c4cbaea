"""Binds a program to sizes: evaluates expressions, proves that every instruction stays in its buffers, plans the arena.

The proof: for every instruction `Opcode.accesses` gives the bytes that its kernel can touch in each operand; they must
lie within the operand. Nothing runs before that holds for all of them, whatever the file says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..errors import ProgramError
from ..instructions.instruction import ELEMENT_DTYPE, ELEMENT_SIZE, Access, Element, Field, Kind, Opcode, Source
from ..instructions.opcodes import BY_NAME, check_numbers
from ..program.contents import Port
from ..program.expressions import evaluate
from ..program.model import Program
from .memory_plan import MAX_ARENA, Row, last_writers, liveness, peak_bytes, place
from .strided_walks import simplified

MAX_DIMENSION = (1 << 31) - 1
_CACHED_BINDINGS = 16


@dataclass(frozen=True, eq=False)
class Bound:
    """A program bound to sizes, ready to run.

    Attributes:
        code: int64 [instructions, WIDTH]; operands are byte offsets in the arena or the blob.
        kinds: uint8 of the same shape; Source.BUFFER, CONSTANT or ABSENT for operands, LITERAL for numbers.
        offsets, sizes: bytes, by buffer.
        arena_bytes: size of the arena without scratch memory.
        scratch_bytes: largest scratch of any instruction, in bytes.
        peak_lower_bound: largest sum of the sizes of buffers alive at one instruction; no plan can be smaller.
        last_writers: for each instruction the buffers that it is the last to write.
    """

    dims: Mapping[str, int]
    code: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    shapes: tuple[tuple[int, ...], ...]
    arena_bytes: int
    scratch_bytes: int
    peak_lower_bound: int
    last_writers: Mapping[int, tuple[int, ...]]
    input_shapes: Mapping[str, tuple[int, ...]]
    output_shapes: Mapping[str, tuple[int, ...]]


ELEMENT_BY_ELEMENT = frozenset({"move", "fill", "cast", "table", "piecewise", "requant"})
"""Instructions that go over elements one by one and so may find none, also where others write the rest of a result."""

_NOTHING = BY_NAME["cast"]
"""With a count of 0 it takes the place of an instruction whose results hold no element."""


def bind(program: Program, **dims: int) -> Bound:
    """Instruction table, arena plan and safety proof for these dimension sizes; cached with the program.

    Raises:
        ProgramError: a missing, unknown or negative dimension, or an instruction that would leave its buffers.
    """
    unknown = sorted(set(dims) - set(program.dims))
    if unknown:
        raise ProgramError(f"unknown dimension '{unknown[0]}'; the program has {list(program.dims)}")
    missing = [name for name in program.dims if name not in dims]
    if missing:
        raise ProgramError(f"dimension '{missing[0]}' has no value; give it to bind()")
    for name, size in dims.items():
        if not 0 <= size <= MAX_DIMENSION:
            raise ProgramError(f"dimension '{name}' = {size} must be between 0 and {MAX_DIMENSION}")
    key = tuple(int(dims[name]) for name in program.dims)
    with program.lock:
        if key not in program.bindings:
            while len(program.bindings) >= _CACHED_BINDINGS:
                program.bindings.pop(next(iter(program.bindings)))
            program.bindings[key] = bind_program(program, dict(zip(program.dims, key, strict=True)))
        bound: Bound = program.bindings[key]
        return bound


def bind_program(program: Program, dims: Mapping[str, int]) -> Bound:
    """Evaluate, prove and plan ``program`` for the sizes ``dims`` (all of them, none negative).

    Raises:
        ProgramError: anything that would be unsafe or meaningless to run; the line names the instruction's node.
    """
    shapes = tuple(program.shape(info.shape, dims) for info in program.buffers)
    sizes = tuple(
        _bytes(shape, ELEMENT_SIZE[info.element]) for shape, info in zip(shapes, program.buffers, strict=True)
    )
    rows = [_checked_row(program, index, dims, sizes) for index in range(len(program.code))]
    for port in program.inputs:
        _check_input(port, program.buffers[port.buffer].element)
    ports = {port.name: _port_shape(program, port, dims, sizes) for port in (*program.inputs, *program.outputs)}
    lives = liveness(program, rows)
    offsets, arena_bytes = place(sizes, lives)
    scratch = max((row.opcode.scratch(row.values) for row in rows), default=0)
    if arena_bytes + scratch > MAX_ARENA:
        raise ProgramError(f"a run would need {arena_bytes + scratch} bytes")
    code, kinds = _link(program, rows, offsets)
    return Bound(
        dims=dict(dims),
        code=code,
        kinds=kinds,
        offsets=offsets,
        sizes=sizes,
        shapes=shapes,
        arena_bytes=arena_bytes,
        scratch_bytes=scratch,
        peak_lower_bound=peak_bytes(sizes, lives, len(rows)),
        last_writers=last_writers(program, rows),
        input_shapes={port.name: ports[port.name] for port in program.inputs},
        output_shapes={port.name: ports[port.name] for port in program.outputs},
    )


def _bytes(shape: Sequence[int], size: int) -> int:
    total = size
    for extent in shape:
        total *= extent
    if total > MAX_ARENA:
        raise ProgramError(f"a buffer of shape {tuple(shape)} would need {total} bytes")
    return total


def _check_input(port: Port, element: Element) -> None:
    held = port.dtype if port.labels is None else "int64"
    if port.scale is None and held != ELEMENT_DTYPE[element]:
        raise ProgramError(
            f"input '{port.name}' is {held} without a scale, but its buffer is {ELEMENT_DTYPE[element]}"
        )
    if port.scale is not None and element not in (Element.U8, Element.I8, Element.I16):
        raise ProgramError(
            f"input '{port.name}' is quantized, but its buffer is {ELEMENT_DTYPE[element]}; it must be "
            "uint8, int8 or int16"
        )


def _port_shape(program: Program, port: Port, dims: Mapping[str, int], sizes: Sequence[int]) -> tuple[int, ...]:
    shape = program.shape(port.shape, dims)
    element = program.buffers[port.buffer].element
    needed = _bytes(shape, ELEMENT_SIZE[element])
    if needed != sizes[port.buffer]:
        raise ProgramError(f"'{port.name}' of shape {shape} needs {needed} bytes; its buffer has {sizes[port.buffer]}")
    return shape


def _checked_row(program: Program, index: int, dims: Mapping[str, int], sizes: Sequence[int]) -> Row:
    opcode = program.opcode(index)
    try:
        values = {
            item.name: _number(program, index, column, item, dims) for column, item in enumerate(opcode.fields, start=1)
        }
        written = _written_empty(program, index, opcode, values, sizes)
        if written:
            return Row(opcode, values, written, idle=True)
        check_numbers(opcode, values)
        _check_not_empty(program, index, opcode, values, sizes)
        values = simplified(opcode.name, values)
        accesses = opcode.accesses(values)
        _check_operands(program, index, opcode, values)
        for access in accesses:
            _check_access(program, index, opcode, values, access, sizes)
        for limit in opcode.limits(values):
            _check_limit(program, values[limit.field], limit.field, limit.low, limit.high)
    except ProgramError as error:
        raise ProgramError(f"instruction {index} ({program.nodes[index]}): {error}") from None
    return Row(opcode, values, accesses)


def _written_empty(
    program: Program, index: int, opcode: Opcode, values: Mapping[str, int], sizes: Sequence[int]
) -> list[Access]:
    """The accesses of an instruction that has nothing to write, since all its results are empty; none for others."""
    names = [
        item.name
        for item in opcode.fields
        if item.kind is Kind.WRITE and int(program.kinds[index, opcode.position(item.name)]) == Source.BUFFER
    ]
    return [Access(name, 0, 0, True) for name in names] if all(sizes[values[name]] == 0 for name in names) else []


def _check_not_empty(
    program: Program, index: int, opcode: Opcode, values: Mapping[str, int], sizes: Sequence[int]
) -> None:
    """Only instructions that go over elements one by one may meet an empty tensor (an empty cache)."""
    if opcode.name in ELEMENT_BY_ELEMENT:
        return
    for item in opcode.fields:
        is_buffer = item.kind.is_operand and int(program.kinds[index, opcode.position(item.name)]) == Source.BUFFER
        if is_buffer and sizes[values[item.name]] == 0:
            raise ProgramError(
                f"operand {item.name} holds no element; only a tensor that is copied or joined with others may be empty"
            )


def _number(program: Program, index: int, column: int, item: Field, dims: Mapping[str, int]) -> int:
    value, kind = int(program.code[index, column]), int(program.kinds[index, column])
    if item.kind.is_operand:
        return _operand(program, item, value, kind)
    if kind == Source.LITERAL:
        return value
    if kind != Source.EXPRESSION or item.kind is not Kind.NUMBER or not 0 <= value < len(program.expressions):
        raise ProgramError(f"field {item.name} has the kind {kind} and the value {value}, which mean nothing here")
    return evaluate(program.expressions[value], dims)


def _operand(program: Program, item: Field, value: int, kind: int) -> int:
    if kind == Source.BUFFER and item.kind is not Kind.CONSTANT and 0 <= value < len(program.buffers):
        return value
    if kind == Source.CONSTANT and item.kind is not Kind.WRITE and 0 <= value < len(program.constants):
        return value
    if kind == Source.ABSENT and item.optional and value == 0:
        return value
    raise ProgramError(f"operand {item.name} has the kind {kind} and the index {value}, which do not exist")


def _check_operands(program: Program, index: int, opcode: Opcode, values: Mapping[str, int]) -> None:
    """Operands have an admitted element type, and TYPE fields tell the truth."""
    for column, item in enumerate(opcode.fields, start=1):
        name = item.of if item.kind is Kind.TYPE else item.name
        source = int(program.kinds[index, opcode.position(name)])
        if item.kind is Kind.NUMBER or source == Source.ABSENT:
            continue
        element = (program.buffers if source == Source.BUFFER else program.constants)[values[name]].element
        if item.kind is Kind.TYPE and (values[item.name] != element or program.kinds[index, column] != Source.LITERAL):
            raise ProgramError(
                f"{item.name} is {values[item.name]} but the operand has the type {ELEMENT_DTYPE[element]}"
            )
        if item.kind.is_operand and element not in item.types:
            raise ProgramError(f"{opcode.name} does not take {ELEMENT_DTYPE[element]} for {name}")


def _check_access(
    program: Program, index: int, opcode: Opcode, values: Mapping[str, int], access: Access, sizes: Sequence[int]
) -> None:
    source = int(program.kinds[index, opcode.position(access.field)])
    if source == Source.ABSENT:
        raise ProgramError(f"operand {access.field} is needed but absent")
    operand = values[access.field]
    size = sizes[operand] if source == Source.BUFFER else program.constants[operand].nbytes
    if access.first < 0 or access.end > size:
        verb = "write" if access.write else "read"
        raise ProgramError(
            f"{opcode.name} would {verb} bytes {access.first} to {access.end} of {access.field}, which has {size}"
        )


def _check_limit(program: Program, constant: int, name: str, low: int, high: int) -> None:
    least, most = program.constant_range(constant)
    if least < low or most > high:
        raise ProgramError(f"the constant {name} holds values from {least} to {most}; admitted is {low} to {high}")


def _link(program: Program, rows: Sequence[Row], offsets: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    code = np.zeros_like(program.code)
    kinds = np.zeros_like(program.kinds)
    code[:, 0] = program.code[:, 0]
    for index, row in enumerate(rows):
        if row.idle:
            code[index, 0] = _NOTHING.number
            continue
        for column, item in enumerate(row.opcode.fields, start=1):
            value = row.values[item.name]
            source = int(program.kinds[index, column]) if item.kind.is_operand else Source.LITERAL
            if source == Source.BUFFER:
                value = offsets[value]
            elif source == Source.CONSTANT:
                value = program.constants[value].offset
            code[index, column] = value
            kinds[index, column] = source
    return code, kinds
