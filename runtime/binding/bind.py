"""Binds a program to sizes: evaluates expressions, proves that every instruction stays in its buffers, plans the arena.

The proof: for every instruction `Opcode.accesses` gives the bytes that its kernel can touch in each operand; they must
lie within the operand. Nothing runs before that holds for all of them, whatever the file says.
"""

from __future__ import annotations

import functools
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

_BUFFER, _CONSTANT, _ABSENT = int(Source.BUFFER), int(Source.CONSTANT), int(Source.ABSENT)
_LITERAL, _EXPRESSION = int(Source.LITERAL), int(Source.EXPRESSION)

Sources = dict[str, int]
"""What the number of a field is (`Source`), by its name."""

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


_ELEMENT_BY_ELEMENT = frozenset({"move", "fill", "cast", "table", "piecewise", "requantize"})
"""Instructions that go over elements one by one and so may find none."""


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
    table = zip(program.code.tolist(), program.kinds.tolist(), strict=True)
    rows = [_checked_row(program, index, line, dims, sizes) for index, line in enumerate(table)]
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
        last_writers=last_writers(rows),
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


def _checked_row(
    program: Program, index: int, line: tuple[list[int], list[int]], dims: Mapping[str, int], sizes: Sequence[int]
) -> Row:
    """An instruction with its numbers, from its line of the table: numbers, and what each of them is."""
    opcode = program.opcode(index)
    try:
        values: dict[str, int] = {}
        sources: Sources = {}
        for item, value, source in zip(opcode.fields, line[0][1:], line[1][1:], strict=False):
            values[item.name] = _number(program, item, value, source, dims)
            sources[item.name] = source
        check_numbers(opcode, values)
        _check_not_empty(opcode, values, sources, sizes)
        values = simplified(opcode.name, values)
        accesses = opcode.accesses(values)
        _check_operands(program, opcode, values, sources)
        for access in accesses:
            _check_access(program, opcode, values, sources, access, sizes)
        for limit in opcode.limits(values):
            _check_limit(program, values[limit.field], limit.field, limit.low, limit.high)
    except ProgramError as error:
        raise ProgramError(f"instruction {index} ({program.nodes[index]}): {error}") from None
    buffers = [(access.write, values[access.field]) for access in accesses if sources[access.field] == _BUFFER]
    reads, writes = (tuple(buffer for write, buffer in buffers if write is which) for which in (False, True))
    return Row(opcode, values, reads, writes)


@functools.cache
def _operands(opcode: str) -> tuple[Field, ...]:
    """The fields that are operands."""
    return tuple(item for item in BY_NAME[opcode].fields if item.kind.is_operand)


@functools.cache
def _typed(opcode: str) -> tuple[Field, ...]:
    """The fields that are operands or say the type of one."""
    return tuple(item for item in BY_NAME[opcode].fields if item.kind is not Kind.NUMBER)


def _check_not_empty(opcode: Opcode, values: Mapping[str, int], sources: Sources, sizes: Sequence[int]) -> None:
    """Only instructions that go over elements one by one may meet an empty tensor (an empty cache)."""
    if opcode.name in _ELEMENT_BY_ELEMENT:
        return
    for item in _operands(opcode.name):
        if sources[item.name] == _BUFFER and sizes[values[item.name]] == 0:
            raise ProgramError(
                f"operand {item.name} holds no element; only a tensor that is copied or joined with others may be empty"
            )


def _number(program: Program, item: Field, value: int, kind: int, dims: Mapping[str, int]) -> int:
    if item.kind.is_operand:
        return _operand(program, item, value, kind)
    if kind == _LITERAL:
        return value
    if kind != _EXPRESSION or item.kind is not Kind.NUMBER or not 0 <= value < len(program.expressions):
        raise ProgramError(f"field {item.name} has the kind {kind} and the value {value}, which mean nothing here")
    return evaluate(program.expressions[value], dims)


def _operand(program: Program, item: Field, value: int, kind: int) -> int:
    if kind == _BUFFER and item.kind is not Kind.CONSTANT and 0 <= value < len(program.buffers):
        return value
    if kind == _CONSTANT and item.kind is not Kind.WRITE and 0 <= value < len(program.constants):
        return value
    if kind == _ABSENT and item.optional and value == 0:
        return value
    raise ProgramError(f"operand {item.name} has the kind {kind} and the index {value}, which do not exist")


def _check_operands(program: Program, opcode: Opcode, values: Mapping[str, int], sources: Sources) -> None:
    """Operands have an admitted element type, and TYPE fields tell the truth."""
    for item in _typed(opcode.name):
        is_type = item.kind is Kind.TYPE
        name = item.of if is_type else item.name
        source = sources[name]
        if source == _ABSENT:
            continue
        element = (program.buffers if source == _BUFFER else program.constants)[values[name]].element
        if is_type and (values[item.name] != element or sources[item.name] != _LITERAL):
            raise ProgramError(
                f"{item.name} is {values[item.name]} but the operand has the type {ELEMENT_DTYPE[element]}"
            )
        if not is_type and element not in item.types:
            raise ProgramError(f"{opcode.name} does not take {ELEMENT_DTYPE[element]} for {name}")


def _check_access(
    program: Program, opcode: Opcode, values: Mapping[str, int], sources: Sources, access: Access, sizes: Sequence[int]
) -> None:
    source = sources[access.field]
    if source == _ABSENT:
        raise ProgramError(f"operand {access.field} is needed but absent")
    operand = values[access.field]
    size = sizes[operand] if source == _BUFFER else program.constants[operand].nbytes
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
    code, kinds = np.zeros_like(program.code), np.zeros_like(program.kinds)
    code[:, 0] = program.code[:, 0]
    for index, (row, sources) in enumerate(zip(rows, program.kinds.tolist(), strict=True)):
        numbers = list(row.values.values())
        used = [_LITERAL] * len(numbers)
        for column, item in enumerate(row.opcode.fields):
            if not item.kind.is_operand:
                continue
            used[column] = sources[column + 1]
            if used[column] == _BUFFER:
                numbers[column] = offsets[numbers[column]]
            elif used[column] == _CONSTANT:
                numbers[column] = program.constants[numbers[column]].offset
        code[index, 1 : len(numbers) + 1], kinds[index, 1 : len(numbers) + 1] = numbers, used
    return code, kinds
