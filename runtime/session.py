"""Runs programs: infers sizes from the feeds, quantizes at the border, executes, dequantizes."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .border import dequantize, load_input, solve_dimensions
from .errors import FeedError, MachineError
from .instruction import ELEMENT_DTYPE, ISA_COLUMN, PACKED_COLUMN, Source
from .kernels.common import BLOCK_BYTES, BLOCKS
from .machine import execute
from .packing import pack_program
from .plan import ALIGNMENT, Bound
from .program import Program
from .simd import Isa, best_isa

Array = NDArray[Any]
Feeds = Mapping[str, Any]
_KEPT_ARENAS = 4


@dataclass(frozen=True)
class Memory:
    """Bytes a run needs.

    Attributes:
        arena: all activations, by the plan.
        scratch: working memory of the kernels.
        constants: weights and tables of the program, mapped from its file.
        packed: weights in the order in which this CPU's kernels read them.
        peak_lower_bound: no plan of the arena could be smaller than this.
    """

    arena: int
    scratch: int
    constants: int
    packed: int
    peak_lower_bound: int


class _Arena:
    """Memory of one thread for one binding, and the instruction table with the addresses in it."""

    def __init__(self, program: Program, bound: Bound, isa: Isa) -> None:
        scratch = BLOCKS * BLOCK_BYTES + bound.scratch_bytes
        try:
            raw = np.zeros(bound.arena_bytes + scratch + 2 * ALIGNMENT, np.uint8)
        except MemoryError:
            raise MachineError(f"a run with {dict(bound.dims)} needs {bound.arena_bytes + scratch} bytes, which this machine does not have") from None
        start = -raw.ctypes.data % ALIGNMENT
        self.bound, self.memory = bound, raw[start:]
        base = self.memory.ctypes.data
        self.scratch = base + -(-bound.arena_bytes // ALIGNMENT) * ALIGNMENT
        self.code = bound.code.copy()
        self.code[bound.kinds == Source.BUFFER] += base
        self.code[bound.kinds == Source.CONSTANT] += program.blob.ctypes.data
        self.code[:, ISA_COLUMN] = isa
        self.packed = pack_program(program, bound, isa)
        for index, weights in self.packed.items():
            self.code[index, PACKED_COLUMN] = weights.ctypes.data

    def run(self, first: int, last: int) -> int:
        return int(execute(self.code.ctypes.data, first, last, self.scratch))

    def view(self, program: Program, buffer: int) -> Array:
        """The buffer, in its physical shape."""
        offset, size = self.bound.offsets[buffer], self.bound.sizes[buffer]
        dtype = ELEMENT_DTYPE[program.buffers[buffer].element]
        return self.memory[offset : offset + size].view(dtype).reshape(self.bound.shapes[buffer])


class Session:
    """A program, ready to run; safe to share between threads.

    Args:
        program: path of a ``.qprog`` file, or a `Program`.
        isa: instruction set of the kernels; default: the best of this CPU. All give the same results.

    Raises:
        ProgramError: the file is not a sound program.
    """

    def __init__(self, program: str | Path | Program, isa: Isa | None = None) -> None:
        self.program = program if isinstance(program, Program) else Program.load(program)
        self.isa = best_isa() if isa is None else isa
        if not self.isa.supported:
            raise MachineError(f"this CPU has no {self.isa.name.lower()}; the best it can do is {best_isa().name.lower()}")
        self._local = threading.local()
        if not self.program.dims:
            self.program.bind()

    def run(self, feeds: Feeds) -> dict[str, Array]:
        """Outputs by name, for one set of inputs by name.

        Raises:
            FeedError: an input is missing, unknown, or of the wrong dtype, rank or size; holds NaN or infinity; or an
                index of a Gather is out of range.
        """
        arena = self._execute(feeds)
        return {name: dequantize(self._port_view(arena, name), port) for name, port in self._outputs().items()}

    def raw(self, feeds: Feeds) -> dict[str, Array]:
        """Like `run`, but the outputs' integer codes."""
        arena = self._execute(feeds)
        return {name: self._port_view(arena, name).copy() for name in self._outputs()}

    def trace(self, feeds: Feeds) -> dict[str, Array]:
        """Codes of every named buffer after the last instruction that writes it, in ONNX order of axes."""
        arena = self._prepare(feeds)
        result = {self.program.buffers[p.buffer].name: self._logical(arena, p.buffer) for p in self.program.inputs}
        for index in range(len(self.program.code)):
            self._check(arena.run(index, index + 1))
            for buffer in arena.bound.last_writers.get(index, ()):
                result[self.program.buffers[buffer].name] = self._logical(arena, buffer)
        result.pop("", None)
        return result

    def profile(self, feeds: Feeds, repeat: int = 3) -> list[tuple[str, str, int]]:
        """(opcode, node, nanoseconds) of each instruction: the fastest of ``repeat`` runs."""
        from time import perf_counter_ns

        best = [1 << 62] * len(self.program.code)
        for _ in range(repeat):
            arena = self._prepare(feeds)
            for index in range(len(best)):
                start = perf_counter_ns()
                self._check(arena.run(index, index + 1))
                best[index] = min(best[index], perf_counter_ns() - start)
        return [(self.program.opcode(i).name, self.program.nodes[i], time) for i, time in enumerate(best)]

    def memory(self, **dims: int) -> Memory:
        """Bytes that a run with these sizes of the symbolic dimensions needs; known before it runs."""
        bound = self.program.bind(**dims)
        packed = sum(weights.nbytes for weights in {id(w): w for w in pack_program(self.program, bound, self.isa).values()}.values())
        return Memory(bound.arena_bytes, bound.scratch_bytes + BLOCKS * BLOCK_BYTES, self.program.blob.nbytes, packed, bound.peak_lower_bound)

    def memory_for(self, feeds: Feeds) -> Memory:
        """`memory` for the sizes that these feeds have."""
        return self.memory(**solve_dimensions(self.program, {name: np.asarray(value) for name, value in feeds.items()}))

    def _outputs(self) -> dict[str, Any]:
        return {port.name: port for port in self.program.outputs}

    def _execute(self, feeds: Feeds) -> _Arena:
        arena = self._prepare(feeds)
        self._check(arena.run(0, len(self.program.code)))
        return arena

    def _prepare(self, feeds: Feeds) -> _Arena:
        arrays = {name: np.asarray(value) for name, value in feeds.items()}
        dims = solve_dimensions(self.program, arrays)
        arena = self._arena(self.program.bind(**dims))
        for port in self.program.inputs:
            load_input(arrays[port.name], port, arena.view(self.program, port.buffer).reshape(-1))
        return arena

    def _arena(self, bound: Bound) -> _Arena:
        """This thread's arena for a binding."""
        kept: list[_Arena] = self._local.__dict__.setdefault("kept", [])
        for arena in kept:
            if arena.bound is bound:
                return arena
        arena = _Arena(self.program, bound, self.isa)
        kept.append(arena)
        del kept[:-_KEPT_ARENAS]
        return arena

    def _port_view(self, arena: _Arena, name: str) -> Array:
        port = self._outputs()[name]
        return arena.view(self.program, port.buffer).reshape(arena.bound.output_shapes[name])

    def _logical(self, arena: _Arena, buffer: int) -> Array:
        perm = self.program.buffers[buffer].perm
        view = arena.view(self.program, buffer)
        return np.ascontiguousarray(view if perm is None else view.transpose(perm)).copy()

    def _check(self, status: int) -> None:
        if status:
            raise FeedError(f"{self.program.nodes[status - 1]}: an index is out of range of the table it selects from; check the inputs' values")
