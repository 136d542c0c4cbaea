"""A program: what `qcompile` writes and the machine runs."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ProgramError
from ..instructions.instruction import ELEMENT_DTYPE, Opcode, Source
from ..instructions.opcodes import BY_NUMBER
from .coded_constants import CodedConstant, restored
from .contents import Contents, Port
from .expressions import Expression, evaluate
from .file import encoded, read_contents, write_contents
from .file_memory import identity_of

if TYPE_CHECKING:
    from pathlib import Path

ProgramSource = str | os.PathLike[str] | int | bytes | bytearray | memoryview
"""Where a ``.qprog`` is: a path, an open file descriptor, its content."""

_SHARED: weakref.WeakValueDictionary[tuple[int, ...], Program] = weakref.WeakValueDictionary()


def _grid_text(port: Port) -> str:
    if isinstance(port.scale, tuple):
        return f"{len(port.scale)} scales along axis {port.axis}"
    return f"scale {port.scale:.8g} zero point {port.zero_point}"


@dataclass(frozen=True, eq=False)
class Program(Contents):
    """An integer program: its contents, and what is kept with it.

    Attributes:
        bindings: the program bound to sizes, filled by `bind.py`.
        packed: weights packed for this CPU, filled by `packed_weights.py`.
        lock: held by whoever adds to what the program keeps.
    """

    bindings: dict[tuple[int, ...], Any] = field(default_factory=dict, repr=False)
    packed: dict[tuple[Any, ...], NDArray[np.uint8]] = field(default_factory=dict, repr=False)
    lock: Any = field(default_factory=threading.Lock, repr=False)
    _ranges: dict[int, tuple[int, int]] = field(default_factory=dict, repr=False)

    @staticmethod
    def load(source: ProgramSource) -> Program:
        """Read a ``.qprog`` file: of a path, of an open descriptor, or its bytes. The blob of a large file is
        memory-mapped.

        Raises:
            ProgramError: not a program, truncated, of another version, or tampered with.
        """
        return Program(**vars(read_contents(os.fspath(source) if isinstance(source, os.PathLike) else source)))

    @staticmethod
    def shared(source: ProgramSource) -> Program:
        """Like `load`; the program of a file that is in use already, and has not been written to since, is that one.

        Raises:
            ProgramError: as for `load`.
        """
        if isinstance(source, (bytes, bytearray, memoryview)):
            return Program.load(source)
        key = identity_of(source)
        found = _SHARED.get(key) if key is not None else None
        if found is not None:
            return found
        program = Program.load(source)
        if key is None or identity_of(source) != key:
            return program
        return _SHARED.setdefault(key, program)

    def save(self, path: str | Path) -> None:
        """Write a ``.qprog`` file, atomically; the same program gives the same bytes."""
        from pathlib import Path

        write_contents(self, Path(path))

    def to_bytes(self) -> bytes:
        """The content of its file."""
        return b"".join(encoded(self))

    def opcode(self, index: int) -> Opcode:
        """The opcode of an instruction.

        Raises:
            ProgramError: there is no such opcode.
        """
        number = int(self.code[index, 0])
        if number not in BY_NUMBER:
            raise ProgramError(
                f"instruction {index} ({self.nodes[index]}) has opcode {number}, which this machine does not know"
            )
        return BY_NUMBER[number]

    def code_dtype(self, port: Port) -> np.dtype[Any]:
        """Type of the integers that an input or output is inside."""
        return np.dtype(ELEMENT_DTYPE[self.buffers[port.buffer].element])

    def constant(self, index: int) -> NDArray[Any]:
        """The values of a constant: a view of the blob where they are stored as they are."""
        coded, info = self.coded(index), self.constants[index]
        return coded.values() if coded else self._stored(index).view(ELEMENT_DTYPE[info.element]).reshape(info.shape)

    def coded(self, index: int) -> CodedConstant | None:
        """The codes of a constant; None where it is stored as it is."""
        info = self.constants[index]
        return (
            restored(self._stored(index), info.coding, info.shape, ELEMENT_DTYPE[info.element]) if info.coding else None
        )

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
        return {Source.BUFFER: f"b{value}", Source.CONSTANT: f"c{value}", Source.ABSENT: "-"}.get(
            Source(kind), str(value)
        )
