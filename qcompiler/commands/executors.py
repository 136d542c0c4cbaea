"""One face for the two things that run a model: the integer machine and onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qcompiler import lowering
from qcompiler.errors import ModelError, NoIntegerFormError, OptionError, suggestion
from qcompiler.graph.ir import Feed, Graph, Variable
from qcompiler.graph.runner import Runner
from qcompiler.mixed.container import MixedProgram, is_mixed
from qcompiler.mixed.joined import MixedSession
from qcompiler.onnx_io.importer import load_graph
from qcompiler.runtime import Program, Session

Values = Mapping[str, NDArray[Any]]


class Executor(Protocol):
    """Runs one model."""

    @property
    def inputs(self) -> Graph:
        """A graph that has (at least) the model's inputs."""

    def run(self, feed: Feed) -> Values:
        """The outputs, by name."""

    def trace(self, feed: Feed) -> Values:
        """Every inner tensor that has a name: codes on the machine, codes and floats on onnxruntime."""

    def memory(self, feed: Feed) -> dict[str, int]:
        """Bytes the executor knows it needs for such a feed."""


class MachineExecutor:
    """The integer machine."""

    def __init__(self, program: Program, threads: int | None) -> None:
        self._session = Session(program, num_threads=threads)
        kinds = [np.dtype(object if entry.labels is not None else entry.dtype) for entry in program.inputs]
        tensors = [
            Variable(entry.name, kind, list(entry.shape)) for entry, kind in zip(program.inputs, kinds, strict=True)
        ]
        self.inputs = Graph(inputs=tensors)

    def run(self, feed: Feed) -> Values:
        """The outputs, by name."""
        return self._session.run(dict(feed))

    def trace(self, feed: Feed) -> Values:
        """The codes of every named tensor."""
        return self._session.trace(dict(feed))

    def memory(self, feed: Feed) -> dict[str, int]:
        """Arena and constants."""
        memory = self._session.memory_for(feed)
        return {"arena_bytes": memory.arena, "scratch_bytes": memory.scratch, "constants_bytes": memory.constants}


class MixedExecutor:
    """The integer machine, and onnxruntime for what is no part of a segment."""

    def __init__(self, program: MixedProgram, threads: int | None) -> None:
        self._session = MixedSession(program, threads)
        kinds = {"str": np.dtype(object)}
        self.inputs = Graph(
            inputs=[Variable(e.name, kinds.get(e.dtype) or np.dtype(e.dtype), e.shape) for e in program.inputs]
        )

    def run(self, feed: Feed) -> Values:
        """The outputs, by name."""
        return self._session.run(feed)

    def trace(self, feed: Feed) -> Values:
        """The codes of every named tensor of the segments, and what crosses their borders."""
        return self._session.trace(feed)

    def memory(self, feed: Feed) -> dict[str, int]:
        """Arena and constants of the segments."""
        return self._session.memory(feed)


class OnnxExecutor:
    """onnxruntime, with its integer kernels: what a session of default options computes on this CPU."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        self.inputs = load_graph(path)
        self._runner = Runner(self.inputs, integer_kernels=True, threads=threads)

    def run(self, feed: Feed) -> Values:
        """The outputs, by name."""
        return self._runner.run(feed)

    def trace(self, feed: Feed) -> Values:
        """Every tensor."""
        names = [tensor.name for node in self.inputs.nodes for tensor in node.outputs if tensor.name]
        return Runner(self.inputs, names).run(feed)

    def memory(self, feed: Feed) -> dict[str, int]:
        """onnxruntime does not tell."""
        return {}


def executor_of(path: Path, on: str = "machine", threads: int | None = None) -> Executor:
    """The executor of a file, with at most ``threads`` per run; None: the machine decides, onnxruntime has one.

    Raises:
        OptionError: ``on`` is neither machine nor onnxruntime, or cannot run this kind of file.
        ModelError, ProgramError, UnsupportedError: the file is none, or holds what the machine cannot run.
    """
    if on not in ("machine", "onnxruntime"):
        raise OptionError(f"--on {on}: must be machine or onnxruntime{suggestion(on, ('machine', 'onnxruntime'))}")
    if not path.is_file():
        raise ModelError(f"{path}: no such file")
    if path.suffix == ".qprog":
        if on != "machine":
            raise OptionError(f"--on {on}: a .qprog runs on the machine, and says itself what of it onnxruntime does")
        return MixedExecutor(MixedProgram.load(path), threads) if is_mixed(path) else MachineExecutor(
            Program.load(path), threads
        )
    if on == "onnxruntime":
        return OnnxExecutor(path, threads or 1)
    graph = load_graph(path)
    try:
        return MachineExecutor(lowering.to_program(lowering.lower_graph(graph)), threads)
    except NoIntegerFormError as error:
        if any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in graph.nodes):
            raise
        hint = f"qcompile {path} -o out.qprog makes a program of it, --on onnxruntime runs it as it is"
        raise ModelError(f"{path}: a float model, which the machine cannot run: {hint}") from error
