"""Constants of few values: codes of 2, 3 or 4 bits, and tables of the values that they stand for.

A coded constant is stored as its tables, one for all elements or one for each row of a matrix, of 2^bits values each,
and behind them the codes of all elements: eight in ``bits`` bytes, the first in the lowest bits. Every code stands for
a value, so any bytes are a sound constant.

An int8 constant [..., C] may also have 16 tables and say for each block of a column, 32, 64 or 128 elements along the
axes before the last taken as one, which of them it is on: numbers of 4 bits, two a byte, between the tables and the
codes.

A table of a smooth function of 16 bits is stored by its differences (`smooth_tables`).
"""

from __future__ import annotations

from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .block_tables import MOST_TABLES, fewest_codes
from .smooth_tables import fewest_differences, summed

Array = NDArray[Any]
CODED_TYPES = ("uint8", "int8", "int16")
CODE_BITS = (2, 3, 4)
SMALLEST = 1024
"""Elements from which a constant is worth its codebooks."""

MOST_VALUES = 1 << CODE_BITS[-1]
_MOST_SHARE = 0.75
"""Code a constant only if that shrinks it to at most this fraction of its size."""

_TOGETHER = 8
"""Number of codes that fill whole bytes at any width."""

_SAMPLE = 4096
_BLOCK = 1 << 16


class Coding(NamedTuple):
    """Storage of a constant: bits per code, and 1 codebook, one per row, or 16 with an index per block of a column;
    ``order``: of the differences that are stored in the place of values.
    """

    bits: int
    tables: int
    block: int = 0
    order: int = 0

    def kinds_shape(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Blocks of a column, and columns, of a constant of this shape."""
        return (-(-prod(shape[:-1]) // self.block), shape[-1]) if self.block else (0, 0)

    def nbytes(self, shape: tuple[int, ...], size: int) -> int:
        """Stored bytes of a constant of this shape with elements of ``size`` bytes."""
        return (
            (self.tables << self.bits) * size
            + -(-prod(self.kinds_shape(shape)) // 2)
            + -(-prod(shape) // _TOGETHER) * self.bits
        )


class CodedConstant(NamedTuple):
    """A constant as codebook entries and codebooks.

    Attributes:
        codes: uint8 of the constant's shape.
        tables: codebooks [1 or rows, 2^bits], or [16, 2^bits] with blocks.
        block: weights along K that share a codebook; 0: no blocks.
        kinds: uint8 [blocks, C]; kinds[b, c] is the codebook of block b of channel c. None: no blocks.
        order: of the differences that the entries are; 0: they are the values.
    """

    codes: NDArray[np.uint8]
    tables: Array
    block: int = 0
    kinds: NDArray[np.uint8] | None = None
    order: int = 0

    @property
    def coding(self) -> Coding:
        """How it is stored."""
        return Coding(int(self.tables.shape[1]).bit_length() - 1, len(self.tables), self.block, self.order)

    @property
    def nbytes(self) -> int:
        """Bytes when stored."""
        return self.coding.nbytes(self.codes.shape, self.tables.itemsize)

    def values(self) -> Array:
        """What the codes stand for."""
        return summed(self._entries() if self.kinds is None else self._of_blocks(self.kinds), self.order)

    def _entries(self) -> Array:
        codes, entries, bits = self.codes.reshape(-1), self.tables.reshape(-1), self.coding.bits
        if len(self.tables) == 1 and entries.itemsize == 1:
            table = np.resize(entries.view(np.uint8), 256).tobytes()
            return np.frombuffer(codes.tobytes().translate(table), entries.dtype).reshape(self.codes.shape)
        length = max(codes.size // len(self.tables), 1)
        result = np.empty(codes.size, entries.dtype)
        for first in range(0, codes.size, _BLOCK):  # indices take eight times the memory of codes
            place = np.arange(first, min(first + _BLOCK, codes.size))
            result[place[0] : place[-1] + 1] = entries[(place // length << bits) + codes[place[0] : place[-1] + 1]]
        return result.reshape(self.codes.shape)

    def _of_blocks(self, kinds: NDArray[np.uint8]) -> Array:
        """The same where every block has its table: number of the table and code are one index of 8 bits."""
        table = np.zeros((len(self.tables), MOST_VALUES), self.tables.dtype)
        table[:, : self.tables.shape[1]] = self.tables
        index = self.codes.reshape(-1, self.codes.shape[-1]).copy()
        for number, row in enumerate(kinds):
            index[number * self.block : (number + 1) * self.block] |= row << np.uint8(CODE_BITS[-1])
        return np.frombuffer(index.tobytes().translate(table.tobytes()), table.dtype).reshape(self.codes.shape)

    def stored(self) -> bytes:
        """Tables, numbers of tables and codes as bytes."""
        bits = self.coding.bits
        codes = np.append(self.codes.reshape(-1), np.zeros(-self.codes.size % _TOGETHER, np.uint8)).reshape(
            -1, _TOGETHER
        )
        words = np.zeros(len(codes), "<u4")
        for place in range(_TOGETHER):
            words |= codes[:, place].astype("<u4") << np.uint32(bits * place)
        kinds = np.empty(0, np.uint8) if self.kinds is None else self.kinds.reshape(-1)
        pairs = np.append(kinds, np.zeros(kinds.size % 2, np.uint8)).reshape(-1, 2)
        return (
            self.tables.tobytes()
            + (pairs[:, 0] | pairs[:, 1] << 4).tobytes()
            + words.view(np.uint8).reshape(-1, 4)[:, :bits].tobytes()
        )


def restored(raw: NDArray[np.uint8], coding: Coding, shape: tuple[int, ...], dtype: str) -> CodedConstant:
    """The constant whose stored bytes are ``raw``."""
    bits, tables, block, order = coding
    elements, end, numbers = prod(shape), (tables << bits) * np.dtype(dtype).itemsize, coding.kinds_shape(shape)
    pairs = raw[end : end + -(-prod(numbers) // 2)]
    packed = raw[end + len(pairs) :].reshape(-1, bits)
    wide = np.zeros((len(packed), 4), np.uint8)
    wide[:, :bits] = packed
    words = wide.view("<u4")[:, 0]
    codes = np.empty((len(words), _TOGETHER), np.uint8)
    for place in range(_TOGETHER):
        codes[:, place] = (words >> np.uint32(bits * place)) & np.uint32((1 << bits) - 1)
    kinds = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)[: prod(numbers)].reshape(numbers) if block else None
    return CodedConstant(
        codes.reshape(-1)[:elements].reshape(shape), raw[:end].view(dtype).reshape(tables, 1 << bits), block, kinds,
        order,
    )  # fmt: skip


def encoded(array: Array) -> CodedConstant | None:
    """An array in codes; None where it has too many values, or would not be a quarter smaller."""
    if array.size < SMALLEST or array.dtype.name not in CODED_TYPES:
        return None
    values = few_values(array, MOST_VALUES)
    if values is not None:
        return CodedConstant(np.searchsorted(values, array).astype(np.uint8), _whole_tables(values[None]))
    rows = coded_rows(array, MOST_VALUES) if array.ndim == 2 else None
    result = CodedConstant(rows[0], _whole_tables(rows[1])) if rows is not None else _encoded_blocks(array)
    result = _encoded_differences(array) if result is None else result
    return result if result is not None and result.nbytes <= _MOST_SHARE * array.nbytes else None


def _encoded_blocks(array: Array) -> CodedConstant | None:
    """An array whose blocks have tables in common; None for any other."""
    if array.ndim < 2 or array.dtype != np.int8:
        return None
    found = fewest_codes(array.reshape(-1, array.shape[-1]), [1 << bits for bits in CODE_BITS])
    if found is None:
        return None
    tables = _whole_tables(np.pad(found.tables, ((0, MOST_TABLES - len(found.tables)), (0, 0)), mode="edge"))
    return CodedConstant(found.codes.reshape(array.shape), tables, found.block, found.kinds)


def _encoded_differences(array: Array) -> CodedConstant | None:
    """A table of int16 by its differences; None where they have too many values."""
    found = fewest_differences(array, MOST_VALUES)
    if found is None:
        return None
    order, differences, values = found
    codes = np.searchsorted(values, differences).astype(np.uint8)
    return CodedConstant(codes, _whole_tables(values[None]), order=order)


def _whole_tables(values: Array) -> Array:
    """Tables of 4, 8 or 16 values; the last one is repeated."""
    count = values.shape[1]
    size = next(1 << bits for bits in CODE_BITS if count <= 1 << bits)
    return np.concatenate([values, np.repeat(values[:, -1:], size - count, axis=1)], axis=1)


def few_values(array: Array, most: int) -> Array | None:
    """The values that occur, ascending; None where they are more than ``most``."""
    if len(np.unique(array.reshape(-1)[:_SAMPLE])) > most:
        return None
    values = np.unique(array)
    return values if len(values) <= most else None


def coded_rows(rows: Array, most: int) -> tuple[NDArray[np.uint8], Array] | None:
    """Codes [R, D] and values [R, L] of a matrix with at most ``most`` values in each row; None for others."""
    if rows.size == 0 or any(len(np.unique(row)) > most for row in rows[:: max(len(rows) // 8, 1)]):
        return None
    ascending = np.sort(rows, axis=1)
    first = np.diff(ascending, axis=1, prepend=ascending[:, :1]) != 0
    first[:, 0] = True
    place = np.cumsum(first, axis=1) - 1
    count = int(place[:, -1].max()) + 1
    if count > most:
        return None
    values = np.repeat(ascending[:, -1:], count, axis=1)
    row, column = np.nonzero(first)
    values[row, place[row, column]] = ascending[row, column]
    codes = np.zeros(rows.shape, np.uint8)
    for level in range(count - 1):
        codes += rows > values[:, level : level + 1]
    return codes, values
