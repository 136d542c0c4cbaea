"""Runs programs: infers sizes from the feeds, quantizes at the border, executes, dequantizes."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from .binding.bind import Bound, bind
from .binding.division import useful_threads
from .binding.packed_weights import decoded_operands, pack_program
from .cpu.isa import Isa, chosen_isa
from .errors import FeedError, MachineError, ProgramError
from .instructions.instruction import BLOCK_BYTES, BLOCKS
from .machine.control import FAULT, STOPPED
from .program.contents import Port
from .program.file_memory import mapped_file
from .program.model import Program, ProgramSource
from .run.arena import Arena
from .run.border import NO_CODES, Codes, quantized, solve_dimensions
from .run.machine_code import load
from .run.team import Team, default_threads

if TYPE_CHECKING:
    from pathlib import Path

Array = NDArray[Any]
Feeds = Mapping[str, Any]
_KEPT_ARENAS = 4
_ARRAYS = {np.ndarray}


class Memory(NamedTuple):
    """Bytes a run needs.

    Attributes:
        arena: all activations, by the plan.
        scratch: working memory of the kernels.
        constants: weights and tables of the program, mapped from its file.
        packed: weights in the order in which this CPU's kernels read them, and what is stored in codes and read as
            values.
        peak_lower_bound: no plan of the arena could be smaller than this.
    """

    arena: int
    scratch: int
    constants: int
    packed: int
    peak_lower_bound: int


class Session:
    """A program, ready to run; safe to share between threads.

    Args:
        program: path of a ``.qprog`` file, an open descriptor of it (which may be closed afterwards), its content, or a
            `Program`. Sessions of one file share its packed weights.
        isa: instruction set of the kernels, or its name (``"avx2"``); default: the best of this CPU. All give the same
            results.
        num_threads: the most threads that share one run; they are asked only while that is faster, and never for tiny
            programs. Any number gives the same results. Default: as many as this process may use cores, at most 4. They
            end with the session.
        cache_dir: folder for machine code that has to be compiled, if this is the first session of the process;
            default: what the variable ``QCOMPILER_CACHE`` names, else the user's cache folder. Not used where the
            installation has code for this CPU.

    Raises:
        ProgramError: the file is not a sound program.
        MachineError: this CPU lacks the instruction set, or there is less than one thread.
    """

    def __init__(
        self,
        program: ProgramSource | Program,
        isa: Isa | str | None = None,
        num_threads: int | None = None,
        cache_dir: str | Path | None = None,
    ) -> None:
        self.program = program if isinstance(program, Program) else Program.shared(program)
        self._file, self._cache_dir = mapped_file(self.program.blob), cache_dir
        self.isa = chosen_isa(isa)
        self._threads = default_threads() if num_threads is None else num_threads
        if self._threads < 1:
            raise MachineError(f"num_threads is {num_threads}; it must be at least 1")
        self._team = Team(self._threads - 1, lambda *post: load(cache_dir).attend(*post)) if self._threads > 1 else None
        self._closed = False
        self._names = [port.name for port in self.program.inputs]
        self._output_names = {port.name for port in self.program.outputs}
        self._local = threading.local()
        if not self.program.dims:
            bind(self.program)

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Names, dtypes and shapes of the inputs; sizes that feeds decide are names or expressions."""
        return self.program.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """Names, dtypes and shapes of the outputs."""
        return self.program.outputs

    def run(
        self, feeds: Feeds, out: Mapping[str, Array] | None = None, codes: str | Collection[str] = ()
    ) -> dict[str, Array]:
        """Outputs by name, for one set of inputs by name.

        Args:
            feeds: arrays by name.
            out: arrays that take outputs, by name; the rest are new.
            codes: names of inputs that are given, and of outputs that are wanted, as the integers that they are inside
                (`Program.code_dtype`): no float is made of them.

        Raises:
            FeedError: an input is missing, unknown, or of the wrong dtype, rank or size; holds NaN or infinity; an
                index of a Gather is out of range; an array of ``out`` does not fit its output; or ``codes`` names
                neither an input nor an output.
            MachineError: the session is closed.
        """
        return self._execute(feeds, out, self._chosen(codes) if codes else NO_CODES)[1]

    def quantize(self, name: str, values: Any) -> Array:
        """The codes that `run` makes of an input's real numbers, for instance of each value that a pixel may have.

        Args:
            name: of a quantized input.
            values: of any shape; of the input's where its columns have grids of their own.

        Raises:
            FeedError: there is no such input, or it is no quantized one.
        """
        port = next((port for port in self.program.inputs if port.name == name), None)
        if port is None or port.scale is None:
            quantized_ones = [port.name for port in self.program.inputs if port.scale is not None]
            raise FeedError(f"'{name}' is no quantized input; those are {quantized_ones}")
        return quantized(_array(name, values), port, self.program.code_dtype(port))

    def prepare(self, shapes: Mapping[str, Sequence[int]] | None = None) -> Memory:
        """Plan the memory, pack the weights and load the machine code for inputs of these shapes, so that the first run
        of this thread with them is as fast as the others.

        Args:
            shapes: of every input, by name; None: those of the program, where no size is left to the feeds.

        Returns:
            What a run with these shapes needs.

        Raises:
            FeedError: a shape is missing, unknown, or none that the program takes.
            MachineError: the session is closed.
        """
        self._check_state()
        types = {port.name: port.dtype for port in self.program.inputs}
        feeds: dict[str, Array] = {}
        given = {port.name: port.shape for port in self.program.inputs} if shapes is None else shapes
        for name, shape in given.items():
            sizes = tuple(size for size in shape if isinstance(size, int | np.integer) and size >= 0)
            if len(sizes) < len(shape):
                raise FeedError(f"input '{name}' has the shape {list(shape)}; prepare() takes numbers alone")
            feeds[name] = np.broadcast_to(np.zeros((), types.get(name, "float32")), sizes)
        self._bind(feeds)
        return self.memory_for(feeds)

    def close(self) -> None:
        """End the helper threads and give the memory of runs back; the session runs no more."""
        self._closed = True
        if self._team is not None:
            self._team.close()
        self._local = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def raw(self, feeds: Feeds) -> dict[str, Array]:
        """Like `run`, but the outputs' integer codes."""
        arena, _ = self._execute(feeds)
        return {
            port.name: arena.view(port.buffer).reshape(arena.bound.output_shapes[port.name]).copy()
            for port in self.program.outputs
        }

    def trace(self, feeds: Feeds) -> dict[str, Array]:
        """Codes of every named buffer after the last instruction that writes it, in ONNX order of axes."""
        arena = self._prepare(feeds)
        result = {self.program.buffers[p.buffer].name: self._logical(arena, p.buffer) for p in self.program.inputs}
        for index in range(len(self.program.code)):
            self._check(arena, arena.run_one(index))
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
                self._check(arena, arena.run_one(index))
                best[index] = min(best[index], perf_counter_ns() - start)
        return [(self.program.opcode(i).name, self.program.nodes[i], time) for i, time in enumerate(best)]

    def memory(self, **dims: int) -> Memory:
        """Bytes that a run with these sizes of the symbolic dimensions needs; known before it runs."""
        bound = bind(self.program, **dims)
        weights = pack_program(self.program, bound, self.isa)
        decoded = decoded_operands(self.program, bound, weights).values()
        packed = sum(
            {
                id(array): array.nbytes
                for array in (*(w.codes for w in weights.values()), *decoded)
                if array is not None
            }.values()
        )
        scratch = useful_threads(bound.code, self._threads) * (bound.scratch_bytes + BLOCKS * BLOCK_BYTES)
        return Memory(bound.arena_bytes, scratch, self.program.blob.nbytes, packed, bound.peak_lower_bound)

    def memory_for(self, feeds: Feeds) -> Memory:
        """`memory` for the sizes that these feeds have."""
        return self.memory(
            **solve_dimensions(self.program, {name: _array(name, value) for name, value in feeds.items()})
        )

    def _execute(
        self, feeds: Feeds, out: Mapping[str, Array] | None = None, codes: Codes = NO_CODES
    ) -> tuple[Arena, dict[str, Array]]:
        """Run; this thread's arena for the feeds' shapes, and the outputs."""
        arena, inputs = self._place(feeds, codes)
        results = arena.border.results(out)
        status = self._team.run(arena) if self._team is not None and arena.is_shared else arena.run()
        del inputs
        if status:
            self._check(arena, status)
        return arena, arena.border.finish(results, out)

    def _prepare(self, feeds: Feeds) -> Arena:
        """This thread's arena for the feeds' shapes, with the inputs in it."""
        arena, inputs = self._place(feeds)
        refused = arena.enter()
        del inputs
        self._check(arena, -refused)
        return arena

    def _place(self, feeds: Feeds, codes: Codes = NO_CODES) -> tuple[Arena, list[Array]]:
        """This thread's arena for the feeds' shapes, and the arrays from which it will take its inputs."""
        self._check_state()
        if not isinstance(feeds, Mapping):
            raise FeedError(f"the inputs must be a dictionary of arrays by name, not {type(feeds).__name__}")
        arrays = [feeds[name] for name in self._names if name in feeds]
        if len(arrays) == len(feeds) and {*map(type, arrays)} <= _ARRAYS:
            arena = self._arenas().get((codes, *[(array.shape, array.dtype) for array in arrays]))
            if arena is not None:
                return arena, arena.cross(codes).place(arrays)
        arena, arrays = self._bind({name: _array(name, value) for name, value in feeds.items()}, codes)
        return arena, arena.cross(codes).place(arrays)

    def _bind(self, feeds: dict[str, Array], codes: Codes = NO_CODES) -> tuple[Arena, list[Array]]:
        """An arena for these shapes, made if there is none, and the inputs in order."""
        bound = bind(self.program, **solve_dimensions(self.program, feeds, codes))
        inputs = [feeds[name] for name in self._names]
        arenas = self._arenas()
        key = (codes, *[(array.shape, array.dtype) for array in inputs])
        if key not in arenas:
            arenas[key] = self._arena_of(bound)
        return arenas[key], inputs

    def _arena_of(self, bound: Bound) -> Arena:
        """This thread's arena for a binding, made in the place of the oldest if there is none."""
        arenas = self._arenas()
        kept = list(dict.fromkeys(arenas.values()))
        found = next((arena for arena in kept if arena.bound is bound), None)
        if found is not None:
            return found
        if len(kept) >= _KEPT_ARENAS:
            for key in [key for key, arena in arenas.items() if arena is kept[0]]:
                del arenas[key]
            del kept
        return Arena(load(self._cache_dir), self.program, bound, self.isa, self._threads)

    def _arenas(self) -> dict[Any, Arena]:
        """Those of this thread, by the inputs' shapes and by what crosses the border as codes."""
        try:
            return self._local.arenas  # type: ignore[no-any-return]
        except AttributeError:
            return self._local.__dict__.setdefault("arenas", {})  # type: ignore[no-any-return]

    def _check_state(self) -> None:
        """Refuse to go on when the session is closed or its program has changed."""
        if self._closed:
            raise MachineError("the session is closed")
        if self._file is not None and self._file.has_changed():
            raise ProgramError(
                "the program's file has been written to since it was loaded; to replace a program, "
                "rename the new file over the old"
            )

    def _chosen(self, codes: str | Collection[str]) -> Codes:
        """The inputs and outputs that cross the border as codes."""
        names, known = frozenset((codes,) if isinstance(codes, str) else codes), set(self._names) | self._output_names
        if names - known:
            raise FeedError(f"codes names '{min(names - known)}'; the inputs and outputs are {sorted(known)}")
        return names

    def _logical(self, arena: Arena, buffer: int) -> Array:
        perm = self.program.buffers[buffer].perm
        view = arena.view(buffer)
        return np.ascontiguousarray(view if perm is None else view.transpose(perm)).copy()

    def _check(self, arena: Arena, status: int) -> None:
        """Raise what a status means."""
        if status in (FAULT, STOPPED):
            self._arenas().clear()  # a helper may still be at work in them
            raise MachineError("the machine stopped on an error that its program's proof excludes; please report it")
        if status < 0:
            raise FeedError(f"input '{arena.border.input_name(-1 - status)}' holds NaN or infinity")
        if status > 0:
            raise FeedError(
                f"{self.program.nodes[status - 1]}: an index is out of range of the table it selects from; "
                "check the inputs' values"
            )


def _array(name: str, value: Any) -> Array:
    """A feed as an array."""
    try:
        return np.asarray(value)
    except ValueError:
        raise FeedError(f"input '{name}' is no array: its rows have different lengths") from None
