"""The border: checks feeds; inputs are quantized and outputs dequantized by the loops of `border_loops.py`."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from ctypes import addressof
from itertools import groupby
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..binding.bind import Bound
from ..errors import FeedError
from ..instructions.instruction import (
    BORDER_COPY_IN,
    BORDER_COPY_OUT,
    BORDER_DOUBLE_IN,
    BORDER_DOUBLE_OUT,
    BORDER_SINGLE_IN,
    BORDER_SINGLE_OUT,
    BORDER_WIDTH,
    ELEMENT_DTYPE,
    ELEMENT_SIZE,
    Element,
)
from ..program.contents import NO_FILLS, Port
from ..program.model import Program

Array = NDArray[Any]
Codes = frozenset[str]
NO_CODES: Codes = frozenset()
_from_buffer = ctypes.c_char.from_buffer


def solve_dimensions(program: Program, feeds: Mapping[str, Array], codes: Codes = NO_CODES) -> dict[str, int]:
    """Sizes of the symbolic dimensions from the feeds' shapes; feeds named in ``codes`` must be of their code's dtype.

    Raises:
        FeedError: a feed is missing, unknown, or of the wrong dtype, rank or size.
    """
    known = {port.name for port in program.inputs}
    for name in feeds:
        if name not in known:
            raise FeedError(f"unknown input '{name}'; the program has {sorted(known)}")
    dims: dict[str, int] = {}
    for port in program.inputs:
        if port.name not in feeds:
            raise FeedError(f"input '{port.name}' is missing; it is {port.dtype}{list(port.shape)}")
        _check_feed(feeds[port.name], port, program.code_dtype(port) if port.name in codes else None)
        _match_shape(feeds[port.name], port, dims)
    if 0 in dims.values() and all(array.size == 0 for array in feeds.values()):  # a cache may be empty, a feed not
        first = program.inputs[0]
        raise FeedError(f"input '{first.name}' is empty along axis {feeds[first.name].shape.index(0)}")
    for port in program.inputs:
        expected = program.shape(port.shape, dims)
        if feeds[port.name].shape != expected:
            raise FeedError(
                f"input '{port.name}' has the shape {feeds[port.name].shape}; with {dims} it must be {expected}"
            )
    return dims


def _check_feed(array: Array, port: Port, code: np.dtype[Any] | None) -> None:
    if code is not None:
        if array.dtype != code:
            raise FeedError(f"input '{port.name}' is {array.dtype}; its codes are {code}")
    elif port.labels is not None:
        if array.dtype.kind not in "UO":
            raise FeedError(f"input '{port.name}' is {array.dtype}; it must hold strings")
    elif array.dtype != np.dtype(port.dtype):
        raise FeedError(f"input '{port.name}' is {array.dtype}; it must be {port.dtype}")
    if array.ndim != len(port.shape):
        raise FeedError(
            f"input '{port.name}' has {array.ndim} dimensions; it must have {len(port.shape)}: {list(port.shape)}"
        )


def _match_shape(array: Array, port: Port, dims: dict[str, int]) -> None:
    for axis, (size, expected) in enumerate(zip(array.shape, port.shape, strict=True)):
        if isinstance(expected, str):
            if dims.setdefault(expected, size) != size:
                raise FeedError(
                    f"input '{port.name}', axis {axis}: '{expected}' is {size}, but another input says {dims[expected]}"
                )
        elif isinstance(expected, int) and size != expected:
            raise FeedError(f"input '{port.name}' has the shape {array.shape}; axis {axis} must be {expected}")


def address_of(array: Any) -> int:
    """Where the elements of a NumPy array begin."""
    try:
        return addressof(_from_buffer(array))
    except (TypeError, ValueError):  # not to be written, or empty
        return int(array.__array_interface__["data"][0])


def quantized(values: Any, port: Port, code: np.dtype[Any]) -> Array:
    """The codes that a quantized input makes of real numbers: those of the compiled loop.

    Args:
        values: of any shape; of the input's where its columns have grids of their own.
        port: the input.
        code: its type inside.

    Raises:
        FeedError: there is NaN or infinity among them.
    """
    scale, zero = np.asarray(port.scale, np.float32), np.asarray(port.zero_point, np.float32)
    if port.axis is not None:
        columns = (-1, *[1] * (len(port.shape) - 1 - port.axis))
        scale, zero = scale.reshape(columns), zero.reshape(columns)
    if not np.isfinite(values).all():
        raise FeedError(f"input '{port.name}' holds NaN or infinity")
    limits = np.iinfo(code)
    with np.errstate(over="ignore"):
        numbers: Array = np.rint(np.asarray(values, np.float32) / scale) + zero
    return np.clip(numbers, np.float32(limits.min), np.float32(limits.max)).astype(code)


def _as_codes(port: Port, program: Program) -> Port:
    """An input or output of plain integers in the place of one with a grid or labels."""
    code = program.code_dtype(port).name
    return port._replace(dtype=code, scale=None, zero_point=0, axis=None, labels=None, fills=NO_FILLS)


class Border:
    """The inputs and outputs of one arena as tables that `border_loops.convert` works off.

    Args:
        program: the program.
        bound: its binding.
        addresses: of the buffers.
        codes: names of the inputs and outputs that cross it as the codes that they are inside.

    Attributes:
        inputs, outputs: address of a table and its number of rows.
    """

    def __init__(self, program: Program, bound: Bound, addresses: Sequence[int], codes: Codes = NO_CODES) -> None:
        inputs, outputs = (
            [_as_codes(port, program) if port.name in codes else port for port in ports]
            for ports in (program.inputs, program.outputs)
        )
        self._inputs = [_Crossing(port, program, bound.input_shapes, entering=True) for port in inputs]
        self._outputs = [_Crossing(port, program, bound.output_shapes, entering=False) for port in outputs]
        parts = [crossing.rows(addresses) for crossing in (*self._inputs, *self._outputs)]
        table = np.concatenate([np.zeros((0, BORDER_WIDTH), np.int64), *parts])
        starts = np.cumsum([0, *map(len, parts)]).tolist()
        self._places = [_Place(start, part[:, 1].copy()) for start, part in zip(starts, parts, strict=False)]
        self._narrow = [crossing for crossing in self._outputs if crossing.outside != crossing.port.dtype]
        self._filled = [crossing for crossing in self._outputs if crossing.fills]
        self._output_names = frozenset(crossing.port.name for crossing in self._outputs)
        self._rows, self._table = table, table.reshape(-1).data
        entering = starts[len(self._inputs)]
        self.inputs = address_of(table), entering
        self.outputs = self.inputs[0] + entering * table.strides[0], len(table) - entering

    def _point(self, index: int, address: int) -> None:
        """Say where the array of a crossing is."""
        start, offsets = self._places[index]
        if len(offsets) == 1:
            self._table[start * BORDER_WIDTH + 1] = address
        else:
            self._rows[start : start + len(offsets), 1] = offsets + address

    def place(self, arrays: Sequence[Array]) -> list[Array]:
        """Set the input addresses (dtypes and shapes checked before). Keep the returned arrays until converted."""
        placed = []
        for index, (crossing, array) in enumerate(zip(self._inputs, arrays)):  # noqa: B905 as many as there are; this is the shortest way
            only, labels = crossing.port.only, crossing.port.labels
            if labels is not None:
                array = labels.encode(array)
            if only is not None and (array != only).any():
                raise FeedError(
                    f"input '{crossing.port.name}' must be {only}: the program was made for that number alone; compile "
                    "with feeds of the other"
                )
            flags = array.flags
            if array.dtype != crossing.outside or not (flags.c_contiguous and flags.aligned):
                array = np.require(array, crossing.outside, ("C", "A"))
            placed.append(array)
            self._point(index, address_of(array))
        return placed

    def input_name(self, row: int) -> str:
        """The name of the input that a row of the table belongs to."""
        index = sum(place.start <= row for place in self._places[: len(self._inputs)]) - 1
        return self._inputs[index].port.name

    def results(self, out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """Arrays for the next outputs: those that are given, by name, and new ones.

        Raises:
            FeedError: a given array has an unknown name, or cannot take the output.
        """
        for name in out or ():
            if name not in self._output_names:
                raise FeedError(f"unknown output '{name}'; the program has {sorted(self._output_names)}")
        results = {}
        for index, crossing in enumerate(self._outputs, len(self._inputs)):
            array = crossing.taken(out) if out else np.empty(crossing.shape, crossing.outside)
            results[crossing.port.name] = array
            self._point(index, address_of(array))
        return results

    def finish(self, results: dict[str, Array], out: Mapping[str, Array] | None = None) -> dict[str, Array]:
        """The outputs as the caller sees them, when `results` has been filled; ``out`` as for `results`."""
        for crossing in self._filled:
            values = results[crossing.port.name]
            for mark, fill in crossing.fills:
                np.putmask(values, values == mark, fill)
        for crossing in self._narrow:
            name, narrow = crossing.port.name, results[crossing.port.name].astype(crossing.port.dtype)
            if out and name in out:
                np.copyto(out[name], narrow)
                narrow = out[name]
            results[name] = narrow
        return results


class _Crossing:
    """How one input or output crosses the border.

    Attributes:
        outside: dtype that the compiled loop reads or writes; float16 is converted by NumPy on its outer side.
        fills: what the loop makes of the codes that stand for other numbers, and these numbers.
    """

    def __init__(self, port: Port, program: Program, shapes: Mapping[str, tuple[int, ...]], entering: bool) -> None:
        self.port, self.shape = port, shapes[port.name]
        self._element = program.buffers[port.buffer].element
        plain = port.scale is None
        self.outside = np.dtype(
            ELEMENT_DTYPE[self._element] if plain else "float64" if port.dtype == "float64" else "float32"
        )
        self.fills = [] if entering else list(_fills(port, self._element))
        wide = self.outside.itemsize == 8
        if entering:
            self._kind = BORDER_COPY_IN if plain else BORDER_DOUBLE_IN if wide else BORDER_SINGLE_IN
        else:
            self._kind = BORDER_COPY_OUT if plain else BORDER_DOUBLE_OUT if wide else BORDER_SINGLE_OUT

    def taken(self, out: Mapping[str, Array]) -> Array:
        """The array into which the compiled loop writes this output."""
        array = out.get(self.port.name)
        if array is None:
            return np.empty(self.shape, self.outside)
        good = isinstance(array, np.ndarray) and (array.dtype, array.shape) == (np.dtype(self.port.dtype), self.shape)
        if not good or not (array.flags.c_contiguous and array.flags.aligned and array.flags.writeable):
            wanted = f"{self.port.dtype}{list(self.shape)}"
            raise FeedError(
                f"the array for output '{self.port.name}' must be a contiguous one of {wanted} that can be written"
            )
        return array if self.outside == array.dtype else np.empty(self.shape, self.outside)

    def rows(self, addresses: Sequence[int]) -> Array:
        """Conversion table, int64 [rows, WIDTH]; addresses outside are offsets here and filled in at each run.

        One row, or where columns have grids of their own one for each run of columns of one grid.
        """
        count = prod(self.shape) * (self.outside.itemsize if self.port.scale is None else 1)
        if self.port.axis is None:
            scale, zero = float(self.port.scale or 0), int(self.port.zero_point)  # type: ignore[arg-type]
            row = np.zeros((1, BORDER_WIDTH), np.int64)
            row[0, :7] = self._kind, 0, addresses[self.port.buffer], count, int(self._element), _bits(scale), zero
            return row
        inner, columns = prod(self.shape[self.port.axis + 1 :]), self.shape[self.port.axis]
        # [runs, 4]: first column, columns, bits of the scale, zero point
        runs = np.array(list(_runs(self.port)), np.int64)
        outer = np.arange(prod(self.shape[: self.port.axis]), dtype=np.int64)[:, None] * (columns * inner)
        first = (outer + runs[:, 0] * inner).reshape(-1)
        rows = np.zeros((len(first), BORDER_WIDTH), np.int64)
        rows[:, 0], rows[:, 1] = self._kind, first * self.outside.itemsize
        rows[:, 2], rows[:, 4] = addresses[self.port.buffer] + first * ELEMENT_SIZE[self._element], int(self._element)
        rows[:, 3], rows[:, 5], rows[:, 6] = (
            np.tile(column, len(outer)) for column in (runs[:, 1] * inner, runs[:, 2], runs[:, 3])
        )
        return rows


class _Place(NamedTuple):
    """Where a crossing's rows begin, and what they add to the address of its array."""

    start: int
    offsets: Array


def _bits(scale: float) -> int:
    return int(np.float32(scale).view(np.int32))


def _fills(port: Port, element: Element) -> Iterator[tuple[np.float32, float]]:
    """The real number of each end of the codes that has another meaning, and what it stands for."""
    if port.fills == NO_FILLS:
        return
    info = np.iinfo(ELEMENT_DTYPE[element])
    for end, fill in zip((info.min, info.max), port.fills, strict=True):
        if fill is not None:
            yield np.float32(int(end) - int(port.zero_point)) * np.float32(port.scale), fill  # type: ignore[arg-type]


def _runs(port: Port) -> Iterator[tuple[int, int, int, int]]:
    """Neighbouring columns on one grid: first column, their number, bits of the scale, zero point."""
    start = 0
    grids = zip(port.scale, port.zero_point, strict=True)  # type: ignore[arg-type]
    for (scale, zero), group in groupby(grids):
        length = len(list(group))
        yield start, length, _bits(scale), zero
        start += length
