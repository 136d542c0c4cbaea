"""A program: what `qcompile` writes and the machine runs. Data only; `container.py` reads and writes it as a file."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .coding import Coded, Coding, restored
from .errors import ProgramError
from .expressions import Expression, evaluate
from .instruction import ELEMENT_DTYPE, ELEMENT_SIZE, Element, Opcode, Source
from .opcodes import BY_NUMBER
from .plan import Bound, bind_program

MAX_DIMENSION = (1 << 31) - 1
_CACHED_BINDINGS = 16


@dataclass(frozen=True)
class BufferInfo:
    """A tensor in the arena.

    Attributes:
        shape: physical shape (NHWC for images).
        name: tensor name for traces and messages; may be empty.
        perm: ``physical.transpose(perm)`` has the ONNX order of axes; None: it already has.
    """

    element: Element
    shape: tuple[Expression, ...]
    name: str = ""
    perm: tuple[int, ...] | None = None


@dataclass(frozen=True)
class ConstantInfo:
    """An array in the blob, 64-byte aligned.

    Attributes:
        coding: how it is stored if it has few values; None: as it is.
    """

    element: Element
    shape: tuple[int, ...]
    offset: int
    coding: Coding | None = None

    @property
    def nbytes(self) -> int:
        """Size of its values in bytes."""
        return int(np.prod(self.shape, dtype=object)) * ELEMENT_SIZE[self.element]

    @property
    def stored_bytes(self) -> int:
        """Its size in the blob."""
        if self.coding is None:
            return self.nbytes
        return self.coding.nbytes(self.shape, ELEMENT_SIZE[self.element])


@dataclass(frozen=True)
class Port:
    """An input or output of the program.

    Attributes:
        dtype: NumPy name of the type that the caller sees.
        shape: ONNX shape: integers, symbols, expressions.
        buffer: index of the buffer that holds it, dense, in ONNX order.
        scale: quantized at the border with this scale and ``zero_point``; None: a plain integer, copied.
        axis: columns along this axis have a scale and a zero point each, as many as the axis is long; None: one of all.
    """

    name: str
    dtype: str
    shape: tuple[Expression, ...]
    buffer: int
    scale: float | tuple[float, ...] | None = None
    zero_point: int | tuple[int, ...] = 0
    axis: int | None = None


def _grid_text(port: Port) -> str:
    if isinstance(port.scale, tuple):
        return f"{len(port.scale)} scales along axis {port.axis}"
    return f"scale {port.scale:.8g} zero point {port.zero_point}"


@dataclass(frozen=True, eq=False)
class Program:
    """An integer program, the same for every CPU.

    Attributes:
        code, kinds: int64 and uint8 [instructions, WIDTH]; ``kinds`` says what each number of ``code`` is (`Source`).
        blob: uint8, all constants.
        nodes: name of the node each instruction came from.
        source: free JSON about the model.
        packed: weights packed for this CPU, filled by `packing.py`.
        lock: held by whoever adds to what the program keeps.
    """

    dims: tuple[str, ...]
    expressions: tuple[Expression, ...]
    code: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    blob: NDArray[np.uint8]
    buffers: tuple[BufferInfo, ...]
    constants: tuple[ConstantInfo, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[str, ...]
    source: Mapping[str, Any] = field(default_factory=dict)
    _bindings: dict[tuple[int, ...], Bound] = field(default_factory=dict, repr=False)
    lock: Any = field(default_factory=threading.Lock, repr=False)
    packed: dict[tuple[Any, ...], NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    _ranges: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False)

    @staticmethod
    def load(path: str | Path) -> Program:
        """Read a ``.qprog`` file; the blob is memory-mapped.

        Raises:
            ProgramError: not a program, truncated, of another version, or tampered with.
        """
        from .container import read_program

        return read_program(Path(path))

    def save(self, path: str | Path) -> None:
        """Write a ``.qprog`` file, atomically; the same program gives the same bytes."""
        from .container import write_program

        write_program(self, Path(path))

    def bind(self, **dims: int) -> Bound:
        """Instruction table, arena plan and proof of safety for these sizes of the symbolic dimensions; cached.

        Raises:
            ProgramError: a missing, unknown or non-positive dimension, or an instruction that would leave its buffers.
        """
        unknown = sorted(set(dims) - set(self.dims))
        if unknown:
            raise ProgramError(f"unknown dimension '{unknown[0]}'; the program has {list(self.dims)}")
        missing = [name for name in self.dims if name not in dims]
        if missing:
            raise ProgramError(f"dimension '{missing[0]}' has no value; give it to bind()")
        for name, size in dims.items():
            if not 1 <= size <= MAX_DIMENSION:
                raise ProgramError(f"dimension '{name}' = {size} must be between 1 and {MAX_DIMENSION}")
        key = tuple(int(dims[name]) for name in self.dims)
        with self.lock:
            if key not in self._bindings:
                while len(self._bindings) >= _CACHED_BINDINGS:
                    self._bindings.pop(next(iter(self._bindings)))
                self._bindings[key] = bind_program(self, dict(zip(self.dims, key, strict=True)))
            return self._bindings[key]

    def opcode(self, index: int) -> Opcode:
        """The opcode of an instruction.

        Raises:
            ProgramError: there is no such opcode.
        """
        number = int(self.code[index, 0])
        if number not in BY_NUMBER:
            raise ProgramError(f"instruction {index} ({self.nodes[index]}) has opcode {number}, which this machine does not know")
        return BY_NUMBER[number]

    def constant(self, index: int) -> NDArray[Any]:
        """The values of a constant: a view of the blob where they are stored as they are."""
        coded, info = self.coded(index), self.constants[index]
        return coded.values() if coded else self._stored(index).view(ELEMENT_DTYPE[info.element]).reshape(info.shape)

    def coded(self, index: int) -> Coded | None:
        """The codes of a constant; None where it is stored as it is."""
        info = self.constants[index]
        return restored(self._stored(index), info.coding, info.shape, ELEMENT_DTYPE[info.element]) if info.coding else None

    def _stored(self, index: int) -> NDArray[np.uint8]:
        info = self.constants[index]
        return self.blob[info.offset : info.offset + info.stored_bytes]

    def constant_range(self, index: int) -> tuple[int, int]:
        """Smallest and largest value of a constant; (0, 0) for an empty one."""
        if index not in self._ranges:
            values = self.constant(index)
            self._ranges[index] = (int(values.min()), int(values.max())) if values.size else (0, 0)
        return self._ranges[index]

    def shape(self, shape: Sequence[Expression], dims: Mapping[str, int]) -> tuple[int, ...]:
        """Sizes of a symbolic shape.

        Raises:
            ProgramError: a size is negative.
        """
        sizes = tuple(evaluate(size, dims) for size in shape)
        if any(size < 0 for size in sizes):
            raise ProgramError(f"a shape has the sizes {sizes}; the dimensions {dict(dims)} do not fit the model")
        return sizes

    def disassemble(self) -> str:
        """The program as text, one instruction a line."""
        lines = [f"dims {', '.join(self.dims) or '(none)'}"]
        for word, ports in (("input", self.inputs), ("output", self.outputs)):
            for port in ports:
                grid = "plain" if port.scale is None else _grid_text(port)
                lines.append(f"{word} {port.name}: {port.dtype}{list(port.shape)} in b{port.buffer}, {grid}")
        for index, info in enumerate(self.buffers):
            lines.append(f"b{index}: {ELEMENT_DTYPE[info.element]}{list(info.shape)} {info.name}".rstrip())
        lines.extend(self._line(i) for i in range(len(self.code)))
        return "\n".join(lines)

    def _line(self, index: int) -> str:
        opcode = self.opcode(index)
        parts = []
        for column, item in enumerate(opcode.fields, start=1):
            value, kind = int(self.code[index, column]), int(self.kinds[index, column])
            if kind == Source.LITERAL and value == item.default:
                continue
            parts.append(f"{item.name}={self._operand(kind, value)}")
        return f"{index:4d} {opcode.name} {' '.join(parts)}  # {self.nodes[index]}"

    def _operand(self, kind: int, value: int) -> str:
        if kind == Source.EXPRESSION:
            return str(self.expressions[value]).replace("'", "").replace(" ", "")
        return {Source.BUFFER: f"b{value}", Source.CONSTANT: f"c{value}", Source.ABSENT: "-"}.get(Source(kind), str(value))
