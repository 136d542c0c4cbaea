"""A program as C: one file of C99 and its header."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcompiler.c_output.c_calls import (
    KERNELS,
    NAMES,
    ROWS,
    Instruction,
    fields_text,
    kernel_of,
    operands_of,
    scratch_bytes,
)
from qcompiler.c_output.c_ports import (
    Crossing,
    copied_in,
    copied_out,
    described,
    entering,
    grids_text,
    leaving,
    needs_infinity,
)
from qcompiler.c_output.c_text import array, comment, identifier, listed
from qcompiler.c_output.fragments import definitions
from qcompiler.errors import OptionError, UnsupportedError
from qcompiler.runtime.binding.bind import Bound, bind
from qcompiler.runtime.instructions.instruction import Source
from qcompiler.runtime.program.contents import Port
from qcompiler.runtime.program.model import Program

Array = NDArray[Any]
ALIGNMENT = 8
"""Bytes of the largest element of an arena."""

PREAMBLE = "#include <stddef.h>\n\n#define AT(offset) ((void *)(arena + (offset)))\n"
"""What kernels and bodies need."""

FLOAT_PREAMBLE = """\
#ifdef __FAST_MATH__
#error the border needs floats as IEEE 754 has them: compile without -ffast-math
#endif
#include <float.h>
"""
"""What the border needs."""


@dataclass(frozen=True)
class CSource:
    """A program in C.

    Attributes:
        stem: of its files' names.
        name: what its functions begin with, and in capitals its macros.
        header: the text of ``<stem>.h``.
        kernels: the kernels that it calls, by name, each behind what it calls itself.
        body: its constants, and the function that runs on codes.
        border_kernels: what is added for floats, likewise.
        border: the function that runs on floats.
        has_infinity: an output may be infinite.
    """

    stem: str
    name: str
    header: str
    kernels: Mapping[str, str]
    body: str
    border_kernels: Mapping[str, str]
    border: str
    has_infinity: bool

    @property
    def source(self) -> str:
        """The text of ``<stem>.c``."""
        head = comment(f"{self.stem}.c: made by qcompiler; do not edit. How it is called is in {self.stem}.h.")
        return "\n".join(
            [
                f'{head}\n#include "{self.stem}.h"\n\n{PREAMBLE}',
                *self.kernels.values(),
                self.body,
                f"#ifndef {self.name.upper()}_NO_FLOAT\n{FLOAT_PREAMBLE}",
                *(["#include <math.h>\n"] if self.has_infinity else []),
                *self.border_kernels.values(),
                f"{self.border}\n#endif\n",
            ]
        )


def to_c(program: Program, stem: str = "model", dims: Mapping[str, int] | None = None) -> CSource:
    """A program for these sizes as C99 that needs no library: ``<stem>.c`` and ``<stem>.h``.

    Args:
        program: what the integer machine runs.
        stem: of the files' names; functions and macros begin with it, other characters than letters and digits
            being replaced.
        dims: sizes of the program's symbolic dimensions.

    Raises:
        OptionError: a dimension has no size, or the name is none for C.
        ProgramError: a size is unknown, or does not fit the program.
        UnsupportedError: lists every instruction without a kernel in C, by node.
    """
    sizes = dict(dims or {})
    check_dims(program.dims, sizes)
    if not stem.isascii() or not stem.isprintable() or any(mark in stem for mark in '"\\'):
        raise OptionError(f"{stem}.c: a file that C includes by name has a name of printable ASCII, without quotes")
    return _Writer(program, bind(program, **sizes), stem).write()


def check_dims(symbols: Iterable[str], sizes: Mapping[str, int]) -> None:
    """OptionError where a symbolic dimension has no size."""
    missing = [name for name in symbols if name not in sizes]
    if missing:
        raise OptionError(
            f"C has fixed sizes, and the feeds decide that of {', '.join(map(repr, missing))}: "
            f"give {' '.join(f'--c-dim {name}=SIZE' for name in missing)}"
        )


@dataclass
class _Tables:
    """Constants that instructions share: the text of each, by what it holds."""

    names: dict[tuple[str, bytes], str] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def array(self, element: str, values: Array) -> str:
        """The name of a constant array with these values."""
        key = (element, values.tobytes())
        if key not in self.names:
            self.names[key] = f"c{len(self.names)}"
            self.texts.append(array(self.names[key], element, values))
        return self.names[key]

    def structure(self, struct: str, parts: list[str]) -> str:
        """The name of a constant structure with these members."""
        key = (struct, ", ".join(parts).encode())
        if key not in self.names:
            self.names[key] = f"f{len(self.names)}"
            self.texts.append(f"static const struct {struct} {self.names[key]} = {{\n{listed(parts)}}};\n")
        return self.names[key]


class _Writer:
    def __init__(self, program: Program, bound: Bound, stem: str) -> None:
        self._program, self._bound, self._stem = program, bound, stem
        self._name = identifier(stem)
        self._prefix = self._name.upper()
        self._tables = _Tables()
        self._inputs = self._crossings("INPUT", program.inputs, bound.input_shapes)
        self._outputs = self._crossings("OUTPUT", program.outputs, bound.output_shapes)
        self._instructions = list(self._read())
        self._scratch = -(-bound.arena_bytes // ALIGNMENT) * ALIGNMENT
        self._arena = max(self._scratch + max(map(scratch_bytes, self._instructions), default=0), ALIGNMENT)

    def write(self) -> CSource:
        """Both texts."""
        self._refuse_unknown()
        calls = [line for instruction in self._instructions for line in self._call(instruction)]
        compute = _function("static int compute(unsigned char *arena)", ["(void)arena;", *calls, "return 0;"])
        on_codes = self._run("_codes", copied_in, copied_out)
        kernels = definitions(compute + on_codes)
        grids = grids_text([*self._inputs, *self._outputs])
        border = grids + self._run("", entering, leaving)
        return CSource(
            stem=self._stem,
            name=self._name,
            header=self._header(),
            kernels=kernels,
            body="\n".join([*self._tables.texts, compute, on_codes]),
            border_kernels=definitions(border, kernels),
            border=border,
            has_infinity=needs_infinity(self._outputs),
        )

    def _crossings(self, side: str, ports: tuple[Port, ...], shapes: Mapping[str, tuple[int, ...]]) -> list[Crossing]:
        buffers, offsets = self._program.buffers, self._bound.offsets
        return [
            Crossing(f"{side}_{i}", port, shapes[port.name], buffers[port.buffer].element, offsets[port.buffer])
            for i, port in enumerate(ports)
        ]

    def _read(self) -> Iterator[Instruction]:
        """The instructions that do anything."""
        rows = zip(self._bound.code.tolist(), self._bound.kinds.tolist(), strict=True)
        for index, (numbers, kinds) in enumerate(rows):
            if Source.BUFFER not in kinds:
                continue
            opcode = self._program.opcode(index)
            sources = {name: Source(kind) for name, kind in opcode.row(kinds).items()}
            yield Instruction(index, opcode, opcode.row(numbers), sources, self._program.nodes[index])

    def _refuse_unknown(self) -> None:
        unknown = [each for each in self._instructions if each.opcode.name not in KERNELS]
        if unknown:
            nodes = ", ".join(f"'{each.node}' ({each.opcode.name})" for each in unknown)
            raise UnsupportedError(f"there is no kernel in C for {nodes}; use the .qprog output")

    def _call(self, instruction: Instruction) -> Iterator[str]:
        """The statement that runs an instruction."""
        arguments = [f"&{self._tables.structure(f'{instruction.opcode.name}_fields', fields_text(instruction))}"]
        arguments += [self._operand(instruction, name) for name in operands_of(instruction.opcode)]
        if scratch_bytes(instruction):
            arguments.append(f"AT({self._scratch})")
        call = f"{kernel_of(instruction)}({', '.join(arguments)})"
        yield comment(f"{instruction.opcode.name}: {instruction.node}")
        if instruction.opcode.name not in ("gather", "scatter"):
            yield f"{call};"
            return
        yield f"if ({call}) {{"
        yield f"    return {self._prefix}_INDEX_OUT_OF_RANGE;"
        yield "}"

    def _operand(self, instruction: Instruction, name: str) -> str:
        if instruction.is_absent(name):
            return "0"
        if instruction.sources[name] == Source.BUFFER:
            return f"AT({instruction.numbers[name]})"
        constant = int(self._program.code[instruction.index, instruction.opcode.position(name)])
        values = self._program.constant(constant)
        order = ROWS.get((instruction.opcode.name, name))
        if order is not None:
            values = order(values.reshape(-1), instruction.numbers)
        return self._tables.array(NAMES[self._program.constants[constant].element], np.ascontiguousarray(values))

    def _run(
        self, suffix: str, enter: Callable[[int, Crossing, str], list[str]], leave: Callable[[int, Crossing], list[str]]
    ) -> str:
        """A function that takes the inputs, runs, and gives the outputs."""
        lines = ["unsigned char *const arena = memory;", "int status;"]
        lines += [] if self._inputs else ["(void)in;"]
        for index, crossing in enumerate(self._inputs):
            lines += enter(index, crossing, self._prefix)
        lines += ["status = compute(arena);", "if (status != 0) {", "    return status;", "}"]
        for index, crossing in enumerate(self._outputs):
            lines += leave(index, crossing)
        return _function(self._signature(suffix), [*lines, "return 0;"])

    def _signature(self, suffix: str) -> str:
        return f"int {self._name}_run{suffix}(const void *const in[], void *const out[], void *memory)"

    def _header(self) -> str:
        prefix = self._prefix
        guard = f"{prefix}_H"
        described_ports = chain.from_iterable(described(each, prefix) for each in (*self._inputs, *self._outputs))
        lines = [
            comment(f"{self._stem}.h: made by qcompiler; do not edit."),
            f"#ifndef {guard}",
            f"#define {guard}",
            "",
            "#include <stdint.h>",
            "",
            comment("bytes of working memory that a run needs, and a divisor that its address must have"),
            f"#define {prefix}_ARENA_BYTES {self._arena}",
            f"#define {prefix}_ARENA_ALIGNMENT {ALIGNMENT}",
            "",
            f"#define {prefix}_INPUTS {len(self._inputs)}",
            f"#define {prefix}_OUTPUTS {len(self._outputs)}",
            "",
            *described_ports,
            comment("what a run may return; 0: the outputs are there"),
            f"#define {prefix}_NOT_FINITE 1 {comment('an input holds NaN or infinity')}",
            f"#define {prefix}_INDEX_OUT_OF_RANGE 2 {comment('an input selects what a table does not have')}",
            f"#define {prefix}_OTHER_NUMBER 3 {comment('an input holds another number than its _ONLY')}",
            "",
            "#ifdef __cplusplus",
            'extern "C" {',
            "#endif",
            "",
            "/* Dense arrays in the order above, of _TYPE elements. Runs at the same time need an arena each. */",
            f"{self._signature('')};",
            "",
            "/* The same where every input and output is the codes inside, of _CODE_TYPE elements: no float is made.",
            f" * With {prefix}_NO_FLOAT defined this is the only function that {self._stem}.c has. */",
            f"{self._signature('_codes')};",
            "",
            "#ifdef __cplusplus",
            "}",
            "#endif",
            "",
            "#endif",
        ]
        return "\n".join(lines) + "\n"


def _function(signature: str, lines: list[str]) -> str:
    body = "\n".join(f"    {line}" for line in lines)
    return f"{signature}\n{{\n{body}\n}}\n"
