"""The memory of one thread for one binding of a program, and the instruction table with the addresses in it."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..binding.bind import Bound
from ..binding.division import divide, form_of, part_rows, useful_threads
from ..binding.memory_plan import ALIGNMENT
from ..binding.packed_weights import decoded_operands, pack_program
from ..cpu.isa import Isa
from ..errors import MachineError
from ..instructions.instruction import (
    BLOCK_BYTES,
    BLOCKS,
    ELEMENT_DTYPE,
    FITTING_COLUMN,
    FORM_COLUMN,
    ISA_COLUMN,
    NEXT_COLUMN,
    PACKED_COLUMN,
    Source,
)
from ..instructions.opcodes import BY_NUMBER
from ..machine.control import (
    COUNT,
    ENDED,
    FAILED,
    GROUPS,
    HELPERS,
    INPUT_COUNT,
    INPUTS,
    LINE,
    OUTPUT_COUNT,
    OUTPUTS,
    POSTS,
    SCRATCH,
    SCRATCH_BYTES,
    TABLE,
    WORD,
    YIELD,
)
from ..program.model import Program
from .border import NO_CODES, Border, Codes, address_of
from .machine_code import Native, yield_address
from .pace import Pace

Array = NDArray[Any]
Rows = NDArray[np.int64]


class Arena:
    """Everything a run needs, at fixed addresses.

    Attributes:
        code: int64 [rows, WIDTH], the linked instructions, behind them the parts of those that threads share.
        scratch: address of scratch memory of the thread that leads.
        packed: weights packed for this CPU, by instruction.
        decoded: constants that are stored in codes, as values, by instruction and column; None where only packed ones
            are read.
        border: moves inputs in and outputs out; see `cross`.
        is_shared: whether the program has enough to share out.
        pace: whether that is worth it now.
    """

    def __init__(self, native: Native, program: Program, bound: Bound, isa: Isa, threads: int = 1) -> None:
        self._native, self._program, self.bound = native, program, bound
        threads = useful_threads(bound.code, threads)
        each = -(-(BLOCKS * BLOCK_BYTES + bound.scratch_bytes) // ALIGNMENT) * ALIGNMENT
        start = -(-bound.arena_bytes // ALIGNMENT) * ALIGNMENT
        self.memory = _aligned(start + threads * each, bound)
        base = address_of(self.memory)
        self.scratch = base + start
        self.code = bound.code.copy()
        self.code[bound.kinds == Source.BUFFER] += base
        self.code[bound.kinds == Source.CONSTANT] += address_of(program.blob)
        self.code[:, ISA_COLUMN] = isa
        self.packed = pack_program(program, bound, isa)
        for index, weights in self.packed.items():
            self.code[index, PACKED_COLUMN], self.code[index, FORM_COLUMN] = address_of(weights.codes), weights.form
            self.code[index, FITTING_COLUMN] = weights.fitting
        self.decoded = decoded_operands(program, bound, self.packed)
        for (index, column), values in self.decoded.items():
            self.code[index, column] = 0 if values is None else address_of(values)
        for index, following in pairwise(sorted(self.packed)):
            self.code[index, NEXT_COLUMN] = self.code[following, PACKED_COLUMN]
        self._count = len(self.code)
        groups = self._divide(threads) if threads > 1 else []
        self.is_shared, self.pace = bool(groups), Pace()
        self._table = address_of(self.code)
        self._addresses = [base + offset for offset in bound.offsets]
        self.border = Border(program, bound, self._addresses)
        self._borders = {NO_CODES: self.border}
        self._facts, self._control = self._describe(each, groups)

    def cross(self, codes: Codes) -> Border:
        """Let these inputs and outputs cross the border as codes from now on."""
        border = self._borders.get(codes)
        if border is None:
            border = self._borders[codes] = Border(self._program, self.bound, self._addresses, codes)
        if border is not self.border:
            self.border = border
            (self._facts[INPUTS // 8], self._facts[INPUT_COUNT // 8]) = border.inputs
            (self._facts[OUTPUTS // 8], self._facts[OUTPUT_COUNT // 8]) = border.outputs
        return border

    def run(self, posts: int = 0, helpers: int = 0) -> int:
        """Run the program: convert the inputs, execute, convert the outputs; see `shared_run.run`.

        Args:
            posts: address of the posts of threads that may help.
            helpers: their number; 0: run alone.
        """
        self._facts[POSTS // 8], self._facts[HELPERS // 8] = posts, helpers
        return self._native.run(self._control)

    def enter(self) -> int:
        """Convert the inputs; 0, or 1 + the index of one that holds NaN or infinity."""
        return self._native.convert(*self.border.inputs)

    def run_one(self, index: int) -> int:
        """Run one instruction."""
        return self._native.execute(self._table, index, index + 1, self.scratch)

    def fail(self) -> None:
        """End the run: the part that a helper had taken will never be done."""
        self._facts[FAILED // 8] = 1

    def view(self, buffer: int) -> Array:
        """The buffer, in its physical shape."""
        offset, size = self.bound.offsets[buffer], self.bound.sizes[buffer]
        dtype = ELEMENT_DTYPE[self._program.buffers[buffer].element]
        return self.memory[offset : offset + size].view(dtype).reshape(self.bound.shapes[buffer])

    def _describe(self, scratch_bytes: int, groups: list[tuple[int, int]]) -> tuple[memoryview, int]:
        """The control block of the runs, and its address; see `control.py`."""
        words = np.zeros((GROUPS + LINE) // 8 + 2 * len(groups), np.int64)
        first = -address_of(words) % LINE // 8
        block = words[first:]
        inputs, outputs = self.border.inputs, self.border.outputs
        facts = {
            WORD: ENDED,
            TABLE: self._table,
            COUNT: self._count,
            SCRATCH: self.scratch,
            SCRATCH_BYTES: scratch_bytes,
            YIELD: yield_address(),
            INPUTS: inputs[0],
            INPUT_COUNT: inputs[1],
            OUTPUTS: outputs[0],
            OUTPUT_COUNT: outputs[1],
        }
        for place, value in facts.items():
            block[place // 8] = value
        block[GROUPS // 8 : GROUPS // 8 + 2 * len(groups)] = np.array(groups, np.int64).reshape(-1)
        return block.data, address_of(block)

    def _divide(self, threads: int) -> list[tuple[int, int]]:
        """Append the parts of divided instructions; for each its first row and their number; empty where none are."""
        groups, rows = [(0, 0)] * (self._count + 1), [self.code]
        total = self._count
        for index, numbers in enumerate(self.code):
            opcode = BY_NUMBER[int(numbers[0])]
            parts = divide(opcode, opcode.row(numbers.tolist()), threads, form_of(numbers))
            if parts:
                groups[index] = (total, len(parts))
                rows.append(part_rows(opcode, numbers, parts))
                total += len(parts)
        if total == self._count:
            return []
        self.code = np.concatenate(rows)
        return groups


def _aligned(size: int, bound: Bound) -> NDArray[np.uint8]:
    try:
        raw = np.zeros(size + 2 * ALIGNMENT, np.uint8)
    except MemoryError:
        raise MachineError(
            f"a run with {dict(bound.dims)} needs {size} bytes, which this machine does not have"
        ) from None
    return raw[-address_of(raw) % ALIGNMENT :]
