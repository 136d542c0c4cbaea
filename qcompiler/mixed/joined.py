"""Runs mixed programs: segments on the machine, float parts on onnxruntime, tensors handed on between them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from qcompiler.errors import DataError, ModelError
from qcompiler.graph.ir import Feed
from qcompiler.graph.runner import Runner
from qcompiler.mixed.container import Border, MixedProgram, Piece, is_mixed
from qcompiler.runtime import Program, Session
from qcompiler.runtime.errors import FeedError

__all__ = ["MixedSession", "run"]

Array = NDArray[Any]


class MixedSession:
    """A mixed program, ready to run.

    Args:
        program: of which.
        num_threads: as of `Session`; onnxruntime has one, so that two runs give the same bits.

    Raises:
        ModelError, ProgramError: a part is damaged, or onnxruntime does not load it.
    """

    def __init__(self, program: MixedProgram, num_threads: int | None = None) -> None:
        self.program = program
        self._runs = [_Segment(piece, num_threads) if piece.is_segment else _Float(piece) for piece in program.pieces]

    def run(self, feeds: Feed) -> dict[str, Array]:
        """Outputs by name, in the model's order.

        Raises:
            FeedError: an input is missing, unknown, or of the wrong dtype or rank, or a segment refuses it.
            ModelError: onnxruntime cannot run a float part on it.
        """
        values = dict(_checked(self.program, feeds))
        for part in self._runs:
            values |= part.run(values)
        return {port.name: values[port.name] for port in self.program.outputs}

    def trace(self, feeds: Feed) -> dict[str, Array]:
        """The codes of every named tensor of the segments, and what crosses borders."""
        values = dict(_checked(self.program, feeds))
        found: dict[str, Array] = {}
        for part in self._runs:
            if isinstance(part, _Segment):
                found |= part.session.trace(part.reads(values))
            values |= part.run(values)
        return {**values, **found}

    def memory(self, feeds: Feed) -> dict[str, int]:
        """Bytes of the segments: the largest arena and working memory, all constants."""
        values = dict(_checked(self.program, feeds))
        known = []
        for part in self._runs:
            if isinstance(part, _Segment):
                known.append(part.session.memory_for(part.reads(values)))
            values |= part.run(values)
        return {
            "arena_bytes": max((each.arena for each in known), default=0),
            "scratch_bytes": max((each.scratch for each in known), default=0),
            "constants_bytes": sum(each.constants for each in known),
        }


class _Segment:
    """An integer segment."""

    def __init__(self, piece: Piece, threads: int | None) -> None:
        self._inputs = piece.inputs
        self.session = Session(Program.load(piece.content), num_threads=threads)

    def reads(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """The feeds of this segment."""
        return {name: values[name] for name in self._inputs}

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Its outputs; where all that enters has no element (a detector that detects nothing), they are as empty."""
        feeds = self.reads(values)
        if any(array.size for array in feeds.values()) or not feeds:
            return self.session.run(feeds)
        return _empty(self.session, feeds)


def _empty(session: Session, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs without any element for inputs without any."""
    program = session.program
    sizes = {
        name: size
        for port in program.inputs
        for name, size in zip(port.shape, feeds[port.name].shape, strict=True)
        if isinstance(name, str)
    }
    found = {}
    for port in program.outputs:
        shape = program.shape(port.shape, sizes)
        if 0 not in shape:
            raise FeedError(f"'{port.name}' of shape {shape} is computed from inputs without any element")
        found[port.name] = np.zeros(shape, port.dtype)
    return found


class _Float:
    """A float part on onnxruntime."""

    def __init__(self, piece: Piece) -> None:
        self._inputs = piece.inputs
        try:
            model = onnx.load_from_string(piece.content)
        except Exception as error:  # protobuf's DecodeError has no public home
            raise ModelError("damaged: a float part is no ONNX model") from error
        self._runner = Runner(model)

    def run(self, values: Mapping[str, Array]) -> dict[str, Array]:
        """Its outputs."""
        return self._runner.run({name: values[name] for name in self._inputs})


def _checked(program: MixedProgram, feeds: Feed) -> Feed:
    """The feeds, if they are those of the program."""
    known = {port.name for port in program.inputs}
    for name in feeds:
        if name not in known:
            raise FeedError(f"unknown input '{name}'; the program has {sorted(known)}")
    for port in program.inputs:
        if port.name not in feeds:
            raise FeedError(f"input '{port.name}' is missing; it is {port.dtype}{port.shape or ''}")
        _check(port, np.asarray(feeds[port.name]), program.only.get(port.name))
    return {name: np.asarray(array) for name, array in feeds.items()}


def _check(port: Border, array: Array, only: int | None) -> None:
    fits = array.dtype.kind in "UO" if port.dtype == "str" else array.dtype == np.dtype(port.dtype)
    if not fits:
        raise FeedError(f"input '{port.name}' is {array.dtype}; it must be {port.dtype}")
    if port.shape is not None and array.ndim != len(port.shape):
        raise FeedError(
            f"input '{port.name}' has {array.ndim} dimensions; it must have {len(port.shape)}: {port.shape}"
        )
    for axis, (size, expected) in enumerate(zip(array.shape, port.shape or (), strict=False)):
        if isinstance(expected, int) and size != expected:
            raise FeedError(f"input '{port.name}' has the shape {array.shape}; axis {axis} must be {expected}")
    if only is not None and bool((array != only).any()):
        raise FeedError(f"input '{port.name}' must be {only}: the program was made for that number alone")


def run(program: str | os.PathLike[str] | Program | MixedProgram, feeds: Feed) -> dict[str, Array]:
    """Outputs of a program, integer or mixed, by name, for one set of inputs by name.

    For many runs make one `MixedSession` or `qcompiler.runtime.Session`.

    Args:
        program: path of a ``.qprog``, or a program.
        feeds: arrays by name.

    Raises:
        DataError: ``feeds`` is no mapping.
        FeedError: an input does not fit.
        ModelError, ProgramError: the file is none.
    """
    if not isinstance(feeds, Mapping):
        raise DataError(f"the inputs must be a dictionary of arrays by name, not {type(feeds).__name__}")
    if isinstance(program, MixedProgram):
        return MixedSession(program).run(feeds)
    if isinstance(program, Program):
        return Session(program).run(feeds)
    path = os.fspath(program)
    if Path(path).is_file() and is_mixed(path):
        return MixedSession(MixedProgram.load(path)).run(feeds)
    return Session(path).run(feeds)
