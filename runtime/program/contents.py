"""Contents of a program: instructions, constants, buffers, inputs, outputs. Data only; `file.py` is the file.

Named tuples, as Python makes their classes six times as fast as frozen data classes: a process that only runs a program
is ready sooner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..instructions.instruction import ELEMENT_SIZE, Element
from .coded_constants import Coding
from .expressions import Expression


class BufferInfo(NamedTuple):
    """A tensor in the arena.

    Attributes:
        shape: physical shape (NHWC for images).
        name: tensor name for traces and messages; may be empty.
        perm: ``physical.transpose(perm)`` has the ONNX order of axes; None: it already has.
    """

    element: Element
    shape: tuple[Expression, ...]
    name: str = ""
    perm: tuple[int, ...] | None = None


class ConstantInfo(NamedTuple):
    """An array in the blob, 64-byte aligned.

    Attributes:
        coding: how it is stored if it has few values; None: as it is.
    """

    element: Element
    shape: tuple[int, ...]
    offset: int
    coding: Coding | None = None

    @property
    def nbytes(self) -> int:
        """Size of its values in bytes."""
        return prod(self.shape) * ELEMENT_SIZE[self.element]

    @property
    def stored_bytes(self) -> int:
        """Its size in the blob."""
        if self.coding is None:
            return self.nbytes
        return self.coding.nbytes(self.shape, ELEMENT_SIZE[self.element])


Fills = tuple[float | None, float | None]
NO_FILLS: Fills = (None, None)


class Labels(NamedTuple):
    """Which int64 a string stands for; ``other`` is that of all strings that are not among ``keys``."""

    keys: tuple[str, ...]
    numbers: tuple[int, ...]
    other: int

    def encode(self, strings: NDArray[Any]) -> NDArray[np.int64]:
        """The numbers of an array of strings."""
        table = dict(zip(self.keys, self.numbers, strict=True))
        numbers = [table.get(item, self.other) for item in strings.astype(str).reshape(-1).tolist()]
        return np.array(numbers, np.int64).reshape(strings.shape)


class Port(NamedTuple):
    """An input or output of the program.

    Attributes:
        dtype: NumPy name of the type that the caller sees.
        shape: ONNX shape: integers, symbols, expressions.
        buffer: index of the buffer that holds it, dense, in ONNX order.
        scale: quantized at the border with this scale and ``zero_point``; None: a plain integer, copied.
        axis: columns along this axis have a scale and a zero point each, as many as the axis is long; None: one of all.
        only: the one number that a plain input may hold; None: any.
        labels: an input of strings (``dtype`` is ``str``), and the number that each becomes; None: an input of numbers.
        fills: of an output on one grid, the numbers that the lowest and the highest code of the type stand for; None:
            those of the grid.
    """

    name: str
    dtype: str
    shape: tuple[Expression, ...]
    buffer: int
    scale: float | tuple[float, ...] | None = None
    zero_point: int | tuple[int, ...] = 0
    axis: int | None = None
    only: int | None = None
    labels: Labels | None = None
    fills: Fills = NO_FILLS


@dataclass(frozen=True, eq=False)
class Contents:
    """What a program consists of, the same for every CPU.

    Attributes:
        code, kinds: int64 and uint8 [instructions, WIDTH]; ``kinds`` says what each number of ``code`` is (`Source`).
        blob: uint8, all constants.
        nodes: name of the node each instruction came from.
        source: free JSON about the model.
    """

    dims: tuple[str, ...]
    expressions: tuple[Expression, ...]
    code: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    blob: NDArray[np.uint8]
    buffers: tuple[BufferInfo, ...]
    constants: tuple[ConstantInfo, ...]
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    nodes: tuple[str, ...]
    source: Mapping[str, Any] = field(default_factory=dict)
