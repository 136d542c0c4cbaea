"""What an instruction is: element types, fields, opcodes, and the proof obligations that come with them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, NamedTuple

MAX_RANK = 6
"""Dimensions of a walk."""

WIDTH = 56
"""Numbers in a row of the instruction table: the opcode, its fields, zeros."""

(
    FITTING_COLUMN,
    FIRST_PANEL_COLUMN,
    PANELS_COLUMN,
    NEXT_COLUMN,
    FORM_COLUMN,
    PART_COLUMN,
    PACKED_COLUMN,
    ISA_COLUMN,
) = range(WIDTH - 8, WIDTH)
"""In a linked table: steps whose byte products may be added in int16, a proven number (0: products are not so
computed); of a part that computes some columns of a product only, the first panel of them and how many (0:
all); address of the packed weights that are needed next (0: none); the `Form` of the packed weights; 1 for a part of
an instruction; address of the weights packed for this CPU (0: none); the instruction set that packed them.
"""


class Form(IntEnum):
    """How the weights that a kernel reads are kept: panels or chunks, Winograd's transform, lines of
    `channel_lines.py`, panels of codes.
    """

    PACKED = 0
    TRANSFORMED = 1
    SCALED = 2
    CODES_4 = 3
    CODES_2 = 4


BLOCK = 512
"""Elements that an elementwise kernel processes at a time; each block is int64 in scratch memory."""

BLOCK_BYTES = BLOCK * 8
BLOCKS = 3
"""Blocks at the start of the scratch memory of every kernel; what an opcode asks for besides lies behind them."""

BLOCK_ROWS = 48
"""Rows of a matrix product that are gathered in scratch memory at a time."""

BLOCK_COLUMNS = 256
"""Columns of a product of two activations that are packed in scratch memory at a time."""

ZERO_BYTES = 256
"""Zeros that such a product starts its sums from."""

TILE_BYTES = 6 * 64 * 4
"""int32 results of one register tile."""

SHIFT_BASE = 33
"""From this shift on, requantization needs only the upper half of a product."""

SCALE_VECTORS = 5
"""Vectors of int32 that scale a vector of sums: multipliers, those of the odd columns moved to even ones, what is
added to the upper half of a product, right shifts of it, and left shifts of the sums (0 where n is at least
`SHIFT_BASE`); `panels.scale_vectors` makes them.
"""

SCALE_NUMBERS = 5
"""int32 of each channel that `depthwise.scaled_conv` reads: the factor's upper and lower 16 bits, those of what is
added, and the shift less 16.
"""

BORDER_COPY_IN, BORDER_SINGLE_IN, BORDER_DOUBLE_IN, BORDER_COPY_OUT, BORDER_SINGLE_OUT, BORDER_DOUBLE_OUT = range(6)
"""What a row of the border's table asks for; a copy counts bytes."""

BORDER_WIDTH = 8
"""Numbers in such a row."""

BIG = (1 << 31) - 1
"""Largest size of a dimension."""

FAR = 1 << 40
"""Largest stride."""

HUGE = 1 << 40
"""Most elements of a walk."""


class Element(IntEnum):
    """Element types of buffers and constants."""

    U8 = 0
    I8 = 1
    I16 = 2
    I32 = 3
    I64 = 4
    BOOL = 5


ELEMENT_SIZE = {Element.U8: 1, Element.I8: 1, Element.I16: 2, Element.I32: 4, Element.I64: 8, Element.BOOL: 1}
ELEMENT_DTYPE = {
    Element.U8: "uint8",
    Element.I8: "int8",
    Element.I16: "int16",
    Element.I32: "int32",
    Element.I64: "int64",
    Element.BOOL: "bool",
}

U8, I8, I16, I32, I64, BOOL = Element
CODES = (U8, I16)
INTEGERS = (U8, I8, I16, I32, I64, BOOL)


class Source(IntEnum):
    """What a number of the instruction table is: the table ``kinds`` holds one for each number of ``code``."""

    LITERAL = 0
    EXPRESSION = 1  # index into Program.expressions
    BUFFER = 2  # index into Program.buffers
    CONSTANT = 3  # index into Program.constants
    ABSENT = 4  # an optional operand that is not there


class Binary(IntEnum):
    """`kind` of the opcode ``binary``."""

    ADD = 0
    MUL = 1
    DIV = 2
    MIN = 3
    MAX = 4


class Comparison(IntEnum):
    """`kind` of the opcode ``compare``."""

    LESS = 0
    LESS_EQUAL = 1
    GREATER = 2
    GREATER_EQUAL = 3
    EQUAL = 4


class Logic(IntEnum):
    """`kind` of the opcode ``logic``; NOT ignores ``b``."""

    NOT = 0
    AND = 1
    OR = 2
    XOR = 3


class Reduction(IntEnum):
    """`kind` of the opcode ``reduce``. Sum and mean scale by ``m, n``; with ``divide`` = 1 the count ``k`` divides
    too.
    """

    SUM = 0
    MEAN = 1
    MAX = 2
    MIN = 3


_OPERANDS = frozenset({"read", "write", "constant"})


class Kind(Enum):
    """What a field means."""

    READ = "read"  # buffer or constant
    WRITE = "write"  # buffer
    CONSTANT = "constant"
    TYPE = "type"
    NUMBER = "number"

    @property
    def is_operand(self) -> bool:
        """True for fields that are addresses at run time."""
        return self.value in _OPERANDS


@dataclass(frozen=True)
class Field:
    """One field of an instruction.

    Attributes:
        low, high: the values admitted for a number.
        default: value where the builder is not given one (a text: the field whose value is taken); None: must be given.
        types: element types admitted for a READ / WRITE / CONSTANT operand.
        of: the operand a TYPE field describes.
        optional: the operand may be missing (address 0).
    """

    name: str
    kind: Kind
    low: int = -HUGE
    high: int = HUGE
    default: int | str | None = None
    types: tuple[Element, ...] = INTEGERS
    of: str = ""
    optional: bool = False


class Access(NamedTuple):
    """Bytes ``[first, end)`` of the operand ``field`` are read, or written."""

    field: str
    first: int
    end: int
    write: bool


class Limit(NamedTuple):
    """Every value of the constant operand ``field`` must lie in ``[low, high]``."""

    field: str
    low: int
    high: int


Values = Mapping[str, int]


def nothing(_: Values) -> list[Any]:
    """No accesses, limits or rules."""
    return []


@dataclass(frozen=True)
class Opcode:
    """One instruction of the machine.

    Attributes:
        accesses: field values -> byte ranges touched (unchecked against sizes; numbers are already within their
            limits).
        limits: field values -> admitted values of constants (shifts, indices).
        rules: field values -> texts of broken rules (empty: fine).
        scratch: field values -> bytes of scratch memory the kernel needs.
    """

    name: str
    number: int
    fields: tuple[Field, ...]
    accesses: Callable[[Values], list[Access]]
    limits: Callable[[Values], list[Limit]] = nothing
    rules: Callable[[Values], list[str]] = nothing
    scratch: Callable[[Values], int] = lambda _: 0

    @property
    def walked(self) -> tuple[str, ...]:
        """Operands that are walked with a stride for each of the axes d0, d1, …, in the order of their fields; ()
        where there are no such axes.
        """
        names = [field.name for field in self.fields]
        return tuple(name.removesuffix("_s0") for name in names if name.endswith("_s0")) if "d0" in names else ()

    @functools.cached_property
    def _positions(self) -> dict[str, int]:
        return {field.name: column for column, field in enumerate(self.fields, start=1)}

    def position(self, name: str) -> int:
        """Column of a field in the table."""
        return self._positions[name]

    def row(self, numbers: Sequence[int]) -> dict[str, int]:
        """The named fields of a table row."""
        return dict(zip(self._positions, numbers[1:], strict=False))
