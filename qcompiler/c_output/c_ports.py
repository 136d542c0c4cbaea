"""The border in C: what the header says of inputs and outputs, and the calls that move them in and out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from math import prod

import numpy as np

from qcompiler.c_output.c_calls import NAMES
from qcompiler.c_output.c_text import array, comment, integer, real, string
from qcompiler.c_output.fragments import C_TYPES
from qcompiler.runtime.instructions.instruction import ELEMENT_DTYPE, Element
from qcompiler.runtime.program.contents import Port


@dataclass(frozen=True)
class Crossing:
    """An input or output of a program that is bound to sizes.

    Attributes:
        place: ``INPUT_0``, ``OUTPUT_1``, …
        shape: its sizes.
        element: the type of its codes.
        offset: its bytes in the arena.
    """

    place: str
    port: Port
    shape: tuple[int, ...]
    element: Element
    offset: int

    @property
    def codes(self) -> str:
        """The type of its codes, as the names of kernels have it."""
        return NAMES[self.element]

    @property
    def outside(self) -> str:
        """The type that the caller sees: C knows no float of 16 bits, so that a narrow float is a ``float``."""
        if self.port.scale is None:
            return self.codes
        return "f64" if self.port.dtype == "float64" else "f32"

    @property
    def count(self) -> int:
        """Its elements."""
        return prod(self.shape)

    @property
    def at(self) -> str:
        """Its codes in the arena."""
        return f"AT({self.offset})"

    @property
    def columns(self) -> tuple[int, int, int]:
        """Elements before, along and behind the axis whose columns have grids of their own."""
        axis = self.port.axis or 0
        return prod(self.shape[:axis]), self.shape[axis], prod(self.shape[axis + 1 :])

    @property
    def grid(self) -> str:
        """The last arguments of the calls that quantize and dequantize."""
        if self.port.axis is None:
            return f"{self.count}, {real(self.port.scale)}, {self.port.zero_point}"  # type: ignore[arg-type]
        name = self.place.lower()
        return f"{', '.join(map(str, self.columns))}, {name}_scales, {name}_zero_points"


def grids_text(crossings: Iterable[Crossing]) -> str:
    """The scales and zero points of columns that have grids of their own."""
    parts = []
    for crossing in crossings:
        if crossing.port.axis is not None:
            name = crossing.place.lower()
            parts.append(array(f"{name}_scales", "f32", np.asarray(crossing.port.scale, np.float32)))
            parts.append(array(f"{name}_zero_points", "i32", np.asarray(crossing.port.zero_point, np.int32)))
    return "".join(parts)


def entering(index: int, crossing: Crossing, prefix: str) -> list[str]:
    """The statements that take an input; one of other numbers than codes and plain integers is quantized."""
    source, port = f"in[{index}]", crossing.port
    if port.scale is not None:
        kernel = "quantize_columns" if port.axis is not None else "quantize"
        call = f"{kernel}_{crossing.outside}_{crossing.codes}({source}, {crossing.at}, {crossing.grid})"
        return [f"if ({call}) {{", f"    return {prefix}_NOT_FINITE;", "}"]
    return copied_in(index, crossing, prefix)


def copied_in(index: int, crossing: Crossing, prefix: str) -> list[str]:
    """The statements that take an input as the codes that it has inside."""
    lines, only = [], crossing.port.only
    if only is not None:
        call = f"differs_{crossing.codes}(in[{index}], {crossing.count}, {integer(only)})"
        lines = [f"if ({call}) {{", f"    return {prefix}_OTHER_NUMBER;", "}"]
    return [*lines, f"copy_{crossing.codes}(in[{index}], {crossing.at}, {crossing.count});"]


def leaving(index: int, crossing: Crossing) -> list[str]:
    """The statements that give an output."""
    port, target = crossing.port, f"out[{index}]"
    if port.scale is None:
        return copied_out(index, crossing)
    kernel = "dequantize_columns" if port.axis is not None else "dequantize"
    types, wide = f"{crossing.codes}_{crossing.outside}", crossing.outside == "f64"
    lines = [f"{kernel}_{types}({crossing.at}, {target}, {crossing.grid});"]
    limits = np.iinfo(ELEMENT_DTYPE[crossing.element])
    for code, fill in zip((limits.min, limits.max), port.fills, strict=True):
        if fill is not None:
            number = real(fill, wide)
            lines.append(f"replace_code_{types}({crossing.at}, {target}, {crossing.count}, {int(code)}, {number});")
    return lines


def copied_out(index: int, crossing: Crossing) -> list[str]:
    """The statement that gives an output as the codes that it has inside."""
    return [f"copy_{crossing.codes}({crossing.at}, out[{index}], {crossing.count});"]


def described(crossing: Crossing, prefix: str) -> list[str]:
    """What the header says of an input or output."""
    port, name = crossing.port, f"{prefix}_{crossing.place}"
    shape = ", ".join(map(str, crossing.shape))
    kind = "input" if crossing.place.startswith("INPUT") else "output"
    lines = [
        comment(f"{kind} '{port.name}', {port.dtype}[{shape}] in the model"),
        f"#define {name}_NAME {string(port.name)}",
        f"#define {name}_TYPE {C_TYPES[crossing.outside]}",
        f"#define {name}_CODE_TYPE {C_TYPES[crossing.codes]}",
        f"#define {name}_RANK {len(crossing.shape)}",
        *([f"#define {name}_SHAPE {{{shape}}}"] if crossing.shape else []),
        f"#define {name}_ELEMENTS {crossing.count}",
    ]
    if port.only is not None:
        lines.append(f"#define {name}_ONLY {integer(port.only)} {comment('the one number that it may hold')}")
    if port.labels is not None:
        pairs = zip(map(repr, port.labels.keys), port.labels.numbers, strict=True)
        text = ", ".join(f"{key}: {number}" for key, number in pairs)
        lines.append(comment(f"strings are given as their numbers: {text}; any other: {port.labels.other}"))
    if isinstance(port.scale, tuple):
        text = "columns along this axis have grids of their own, which run() knows"
        lines.append(f"#define {name}_AXIS {port.axis} {comment(text)}")
    elif port.scale is not None:
        lines += [f"#define {name}_SCALE {real(port.scale)}", f"#define {name}_ZERO_POINT {port.zero_point}"]
    return [*lines, ""]


def needs_infinity(crossings: Iterable[Crossing]) -> bool:
    """An output stands for infinity."""
    fills = chain.from_iterable(crossing.port.fills for crossing in crossings)
    return any(fill is not None and np.isinf(fill) for fill in fills)
