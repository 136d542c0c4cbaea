"""Short ways to write down the fields of an opcode."""

from __future__ import annotations

from .instruction import BIG, CODES, FAR, MAX_RANK, Element, Field, Kind


def read(name: str, types: tuple[Element, ...] = CODES, optional: bool = False) -> list[Field]:
    """An operand that is read, with its type."""
    return [Field(name, Kind.READ, types=types, optional=optional), Field(f"{name}_type", Kind.TYPE, of=name)]


def write(name: str, types: tuple[Element, ...] = CODES) -> list[Field]:
    """An operand that is written, with its type."""
    return [Field(name, Kind.WRITE, types=types), Field(f"{name}_type", Kind.TYPE, of=name)]


def constants(element: Element, *names: str) -> list[Field]:
    """Operands that must be constants of one type."""
    return [Field(name, Kind.CONSTANT, types=(element,)) for name in names]


def dims(*names: str, low: int = 0, default: int | None = None) -> list[Field]:
    """Sizes."""
    return [Field(name, Kind.NUMBER, low, BIG, default) for name in names]


def strides(*names: str, default: int | str | None = None) -> list[Field]:
    """Element strides or offsets."""
    return [Field(name, Kind.NUMBER, -FAR, FAR, default) for name in names]


def ranked(prefix: str, low: int, high: int, default: int) -> list[Field]:
    """One number for each of the six dimensions."""
    return [Field(f"{prefix}{i}", Kind.NUMBER, low, high, default) for i in range(MAX_RANK)]


def walk(*operands: str) -> list[Field]:
    """Six dimensions and for each operand six element strides; unused leading ones are 1 and 0."""
    fields = ranked("d", 0, BIG, 1)
    for operand in operands:
        fields += ranked(f"{operand}_s", -FAR, FAR, 0)
    return fields


def zero_points(*names: str) -> list[Field]:
    """Zero points, 0 unless given."""
    return [Field(name, Kind.NUMBER, -(1 << 15), (1 << 16) - 1, 0) for name in names]


def multipliers(*names: str) -> list[Field]:
    """31-bit multipliers, 1 unless given."""
    return [Field(name, Kind.NUMBER, -BIG, BIG, 1) for name in names]


SHIFT = [Field("n", Kind.NUMBER, 0, 62, 0)]
OUT = [
    *zero_points("y_zp"),
    Field("lo", Kind.NUMBER, -(1 << 62), 1 << 62),
    Field("hi", Kind.NUMBER, -(1 << 62), 1 << 62),
]


def flag(name: str, high: int = 1) -> list[Field]:
    """A choice from 0 to ``high``, 0 unless given."""
    return [Field(name, Kind.NUMBER, 0, high, 0)]


GEOMETRY = [
    *dims("batch", "in_h", "in_w", "in_c", "out_h", "out_w"),
    *dims("kernel_h", "kernel_w", low=1),
    *dims("stride_h", "stride_w", "dilation_h", "dilation_w", low=1, default=1),
    *dims("pad_top", "pad_left", default=0),
]
