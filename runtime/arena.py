"""The memory of one thread for one binding of a program, and the instruction table with the addresses in it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .border import Border
from .errors import MachineError
from .instruction import BLOCK_BYTES, BLOCKS, ELEMENT_DTYPE, ENDED, GROUPS, HELPER, ISA_COLUMN, PACKED_COLUMN, PART_BITS, Source
from .isa import Isa
from .native import Native
from .opcodes import BY_NUMBER
from .packing import pack_program
from .parts import PROGRAM_NANOSECONDS, divide, part_rows, work
from .plan import ALIGNMENT, Bound
from .program import Program
from .team import yield_core

Array = NDArray[Any]
Rows = NDArray[np.int64]


class Arena:
    """Everything a run needs, at fixed addresses.

    Attributes:
        code: int64 [rows, WIDTH], the linked instructions, behind them the parts of those that threads share.
        scratch: address of scratch memory of the thread that leads.
        packed: weights packed for this CPU, by instruction.
        border: moves inputs in and outputs out.
        is_shared: whether several threads are worth their waking.
    """

    def __init__(self, native: Native, program: Program, bound: Bound, isa: Isa, threads: int = 1) -> None:
        self._native, self._program, self.bound = native, program, bound
        each = -(-(BLOCKS * BLOCK_BYTES + bound.scratch_bytes) // ALIGNMENT) * ALIGNMENT
        start = -(-bound.arena_bytes // ALIGNMENT) * ALIGNMENT
        self.memory = _aligned(start + threads * each, bound)
        base = address_of(self.memory)
        self._scratches = [base + start + i * each for i in range(threads)]
        self.scratch = self._scratches[0]
        self.code = bound.code.copy()
        self.code[bound.kinds == Source.BUFFER] += base
        self.code[bound.kinds == Source.CONSTANT] += address_of(program.blob)
        self.code[:, ISA_COLUMN] = isa
        self.packed = pack_program(program, bound, isa)
        for index, weights in self.packed.items():
            self.code[index, PACKED_COLUMN] = address_of(weights)
        self._count = len(self.code)
        self._control = _control([])
        self.is_shared = False
        self._failure: MachineError | None = None
        if threads > 1:
            self._divide(threads)
        self._table, self._control_address = address_of(self.code), address_of(self._control)
        self.border = Border(native.convert, program, bound, [base + offset for offset in bound.offsets])

    def run(self) -> int:
        """Run the program in this thread alone; 0, or 1 + the index of the instruction that stopped it."""
        return self._native.execute(self._table, 0, self._count, self.scratch, 0)

    def run_one(self, index: int) -> int:
        """Run one instruction."""
        return self._native.execute(self._table, index, index + 1, self.scratch, 0)

    def open(self) -> None:
        """Let the threads that call `help` wait for `lead`."""
        self._control[0] = self._count << PART_BITS

    def close(self) -> None:
        """Let them go; `lead` has done so, unless it was never reached."""
        self._control[0] = ENDED

    def lead(self) -> int:
        """Like `run`, together with the threads that call `help`.

        Raises:
            MachineError: a helper stopped on an error; the part it had taken will never be done.
        """
        status = self._native.execute(self._table, 0, self._count, self.scratch, self._control_address)
        while status < 0:
            if self._failure is not None:
                raise self._failure
            yield_core()
            status = self._native.execute(self._table, -status, self._count, self.scratch, self._control_address)
        return status

    def help(self, helper: int) -> int:
        """Run parts of what another thread leads; see `machine.execute`. An error ends the leader's run."""
        try:
            return self._native.execute(self._table, HELPER, self._count, self._scratches[1 + helper], self._control_address)
        except MachineError as error:
            self._failure = error
            return 0

    def view(self, buffer: int) -> Array:
        """The buffer, in its physical shape."""
        offset, size = self.bound.offsets[buffer], self.bound.sizes[buffer]
        dtype = ELEMENT_DTYPE[self._program.buffers[buffer].element]
        return self.memory[offset : offset + size].view(dtype).reshape(self.bound.shapes[buffer])

    def _divide(self, threads: int) -> None:
        """Append the parts of the instructions that have any."""
        groups, rows, shared = [(0, 0)] * (self._count + 1), [self.code], 0.0
        total = self._count
        for index, numbers in enumerate(self.code):
            opcode = BY_NUMBER[int(numbers[0])]
            values = opcode.row(numbers.tolist())
            parts = divide(opcode, values, threads)
            if not parts:
                continue
            groups[index] = (total, len(parts))
            rows.append(part_rows(opcode, numbers, parts))
            total += len(parts)
            shared += work(opcode.name, values)
        if shared >= PROGRAM_NANOSECONDS:
            self.code, self._control, self.is_shared = np.concatenate(rows), _control(groups), True


def address_of(array: Array) -> int:
    """Where an array's elements begin."""
    return int(array.__array_interface__["data"][0])


def _aligned(size: int, bound: Bound) -> NDArray[np.uint8]:
    try:
        raw = np.zeros(size + 2 * ALIGNMENT, np.uint8)
    except MemoryError:
        raise MachineError(f"a run with {dict(bound.dims)} needs {size} bytes, which this machine does not have") from None
    return raw[-address_of(raw) % ALIGNMENT :]


def _control(groups: list[tuple[int, int]]) -> Rows:
    """The control block of a run that threads share; see `machine.execute`."""
    control = np.zeros(GROUPS // 8 + 2 * len(groups), np.int64)
    control[0] = ENDED
    control[GROUPS // 8 :] = np.array(groups, np.int64).reshape(-1)
    return control
