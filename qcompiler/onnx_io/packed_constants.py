"""Few bits on disk: integer constants of few different values are stored as packed codes plus a table.

A constant of 8- or 16-bit integers that takes at most 64 different values is written as codes with the operators that
give its values back. All inputs of these are constants, so a runtime evaluates them once, when it loads the file, and
then runs what it would have run anyway:

* up to 4 or 16 values within the range of a 2- or 4-bit integer: that type (``INT2`` from opset 25, ``INT4`` from 21) →
  Cast;
* any other up to 4 or 16 values: ``UINT2`` or ``UINT4`` codes → Cast → Gather from the values;
* up to 8, 32 or 64 values, and up to 4 where opset 25 is out of reach: codes of 3, 5, 6 or 2 bits, as many as fit in a
  ``UINT64`` → BitShift → BitwiseAnd → Cast → Gather;
* as few values in each row or column of a matrix, not in all of it: codes as above → GatherElements from a table for
  each;
* blocks of rows or columns that share 16 tables (`qcompiler.grids.blocks`): ``UINT4`` numbers of tables → Cast →
  Gather, a number for each weight → Mul by the length of a table → Add of the codes → Gather from the tables; of a
  convolution, whose blocks run tap by tap, → Reshape → Transpose.

The Cast matters: onnxruntime keeps a DequantizeLinear of a 4-bit type as it is and runs it again with every inference,
in float (2.6 to 6.6 times the time of the int8 layer), and refuses one of a 2-bit type; behind a Cast to int8 it finds
the layer it has a kernel for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto
from onnx_graphsurgeon.ir.tensor import LazyValues

from qcompiler.graph.ir import Constant, Graph, Node, Tensor, Variable, copy_of, names_in, unique_name
from qcompiler.grids.blocks import FACTORS
from qcompiler.onnx_io import opset
from qcompiler.runtime.program.block_tables import fewest_codes
from qcompiler.runtime.program.coded_constants import coded_rows, few_values

__all__ = ["StoredConstant", "packed", "stored_bytes"]

SMALLEST = 1024
"""Elements from which packing a constant is worth its nodes."""
PACKED_TYPES = (np.int8, np.uint8, np.int16, np.uint16)
MOST_VALUES = 64
MOST_IN_ROW = 16
BLOCK_SIZES = (4, 8, 16)
"""Sizes of tables (codebooks) that blocks share."""
WORDS_FROM = 1 << 14
"""Elements from which codes in words are worth their nodes."""
MOST_SHARE = 0.75
"""Use several tables only if they shrink the constant to at most this fraction of its size."""
LEAST_SAVED = 0.05
"""Least share of all integer constants' bytes that packing must save, as it needs a newer opset."""
PAIR_OPSET, NIBBLE_OPSET = 25, 21

_UINT2, _INT2 = 25, 26
"""Numbers of ONNX's types; onnx has names for them from opset 25 on."""
SMALL_TYPES = {TensorProto.INT4: np.int8, TensorProto.UINT4: np.uint8, _INT2: np.int8, _UINT2: np.uint8}

Array = NDArray[Any]


class StoredConstant(Constant):  # type: ignore[misc]
    """A constant of a type that numpy cannot write back (strings, 4-bit integers): exported as it was read."""

    @property
    def values(self) -> Array:
        """A copy of the elements."""
        return np.asarray(self._values.load())

    def copy(self) -> StoredConstant:
        """A constant of the same elements, for a copy of the graph."""
        return StoredConstant(self.name, self._values, export_dtype=self.export_dtype)


@dataclass(frozen=True, eq=False)
class PackedConstant:
    """An array as codes.

    Attributes:
        codes: uint8, of the array's shape.
        values: [L], the value of each code, ascending; or [R, L] for the rows of a matrix, [L, C] for its columns.
        axis: axis of ``codes`` and ``values`` along which a code is looked up (that of GatherElements); None: one table
            for all.
    """

    codes: NDArray[np.uint8]
    values: Array
    axis: int | None = None

    @property
    def bits(self) -> int:
        """Bits of a stored code: 2 to 6, or 8 where packing is not worth it."""
        needed = max(int(self.values.shape[self.axis or 0] - 1).bit_length(), 2)
        if needed in (2, 4) or self.codes.size >= WORDS_FROM:
            return needed
        return 4 if needed == 3 else 8

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self.codes.size * self.bits // 8 + self.values.nbytes

    @property
    def fits_type(self) -> bool:
        """True where the values are within the range of an integer type of as many bits."""
        if self.values.dtype.itemsize > 1 or self.bits not in (2, 4) or self.axis is not None:
            return False
        low, high = (
            (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1)) if self.values.dtype == np.int8 else (0, 2**self.bits)
        )
        return bool(low <= self.values[0] and self.values[-1] < high)


@dataclass(frozen=True, eq=False)
class PackedBlocks(PackedConstant):
    """A weight as codes in the tables of its blocks: ``codes`` [K, C] or [C, K], ``values`` [T, L].

    Attributes:
        kinds: uint8 [B, C] or [C, B], the table of each block.
        block: weights along K in a block.
        along: axis of K.
        shape: of the weight.
        taps_first: the codes are those of the weight with its second axis moved to the end.
    """

    kinds: NDArray[np.uint8] = field(kw_only=True)
    block: int = field(kw_only=True)
    along: int = field(kw_only=True)
    shape: tuple[int, ...] = field(kw_only=True)
    taps_first: bool = field(kw_only=True)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return super().nbytes + self.kinds.size // 2


def coded(array: Array) -> PackedConstant | None:
    """The codes of an integer array; None where they would not be a quarter smaller."""
    found = _coded(array)
    if array.dtype != np.int8 or (found is not None and found.bits <= 4):
        return found
    in_blocks = _coded_blocks(array)
    return in_blocks if in_blocks is not None and (found is None or in_blocks.nbytes < found.nbytes) else found


def _coded_blocks(array: Array) -> PackedBlocks | None:
    """A weight in blocks along a matrix axis, a convolution's K (tap by tap), or a recurrent weight's last axis."""
    for along, taps_first in (
        ((0, False), (1, False)) if array.ndim == 2 else ((1, True), (1, False)) if array.ndim > 2 else ()
    ):
        matrix = (np.moveaxis(array, 1, -1) if taps_first else array).reshape(
            (len(array), -1) if taps_first else (-1, array.shape[-1])
        )
        found = fewest_codes(np.ascontiguousarray(matrix if along == 0 else matrix.T), BLOCK_SIZES)
        if found is None:
            continue
        codes, kinds = (part if along == 0 else np.ascontiguousarray(part.T) for part in (found.codes, found.kinds))
        result = PackedBlocks(
            codes,
            found.tables,
            1,
            kinds=kinds,
            block=found.block,
            along=along,
            shape=array.shape,
            taps_first=taps_first,
        )
        return result if result.nbytes < MOST_SHARE * array.nbytes else None
    return None


def _coded(array: Array) -> PackedConstant | None:
    """The codes of an array whose values are few, in all of it or in each row or column."""
    values = few_values(array, MOST_VALUES)
    if values is not None:
        result = PackedConstant(np.searchsorted(values, array).astype(np.uint8), values)
        return result if result.bits < 8 else None
    for axis in (1, 0) if array.ndim == 2 else ():
        by_row = coded_rows(array if axis == 1 else array.T, MOST_IN_ROW)
        if by_row is not None:
            codes, values = (part if axis == 1 else np.ascontiguousarray(part.T) for part in by_row)
            result = PackedConstant(codes.view(np.uint8), values, axis)
            return result if result.nbytes < MOST_SHARE * array.nbytes else None
    return None


def packed(graph: Graph) -> Graph:
    """A copy of ``graph`` with packed constants at the opset they need; ``graph`` itself where that saves little."""
    inside = {id(node) for node in graph.nodes}  # the bodies of control flow keep what they read
    constants = {
        id(tensor): tensor for node in graph.nodes for tensor in node.inputs
        if isinstance(tensor,
        Constant) and tensor.dtype in PACKED_TYPES and all(id(reader) in inside for reader in tensor.outputs)
    }  # fmt: skip
    sizes = {key: np.asarray(tensor.values).nbytes for key, tensor in constants.items()}
    found = {
        tensor.name: coded(np.asarray(tensor.values)) for key, tensor in constants.items() if sizes[key] >= SMALLEST
    }
    chosen = {name: code for name, code in found.items() if code is not None}
    total = sum(sizes.values())
    saved = sum(sizes[key] - chosen[tensor.name].nbytes for key, tensor in constants.items() if tensor.name in chosen)
    if saved <= LEAST_SAVED * total:
        return graph
    copy = copy_of(graph)
    pairs = any(code.bits == 2 for code in chosen.values()) and _reach(copy, PAIR_OPSET)
    if not pairs and not _reach(copy, NIBBLE_OPSET):
        return graph
    _Packer(copy, pairs=pairs).replace(chosen)
    return copy


def _reach(graph: Graph, version: int) -> bool:
    """Move ``graph`` up to an opset; False where it cannot go there."""
    if graph.opset >= version:
        return True
    if version > onnx.defs.onnx_opset_version():
        return False
    try:
        opset.convert(graph, version)
    except opset.NotConvertibleError:
        return False
    return True


class _Packer:
    """Writes codes into a graph, in the place of constants."""

    def __init__(self, graph: Graph, *, pairs: bool) -> None:
        self._graph, self._pairs = graph, pairs
        self._taken = names_in(graph)
        self._shared: dict[str, Constant] = {}

    def replace(self, chosen: dict[str, PackedConstant]) -> None:
        """Every reader of a constant in ``chosen`` reads the value that its codes give back."""
        values: dict[str, Tensor] = {}
        for node in list(self._graph.nodes):
            for index, tensor in enumerate(node.inputs):
                if isinstance(tensor, Constant) and tensor.name in chosen:
                    if tensor.name not in values:
                        values[tensor.name] = self._unpacked(tensor.name, chosen[tensor.name])
                    node.inputs[index] = values[tensor.name]
        self._graph.toposort()

    def _unpacked(self, name: str, code: PackedConstant) -> Tensor:
        """The tensor that holds the values again."""
        if code.fits_type and (code.bits == 4 or self._pairs):
            signed = code.values.dtype == np.int8
            kind = {(2, True): _INT2, (2, False): _UINT2, (4, True): TensorProto.INT4, (4, False): TensorProto.UINT4}
            return self._cast(
                name, self._stored(name, code.values[code.codes], kind[code.bits, signed]), code.values.dtype
            )
        if isinstance(code, PackedBlocks):
            return self._in_blocks(name, code)
        values = self._constant(f"{name}_levels", code.values)
        index = self._index(name, code)
        op, axis = ("Gather", 0) if code.axis is None else ("GatherElements", code.axis)
        return self._node(op, name, [values, index], code.values.dtype, code.codes.shape, axis=axis)

    def _in_blocks(self, name: str, code: PackedBlocks) -> Tensor:
        """The values of codes whose blocks have tables in common."""
        products, whole = code.codes.shape[code.along], list(code.codes.shape)
        numbers = self._cast(name, self._stored(f"{name}_blocks", code.kinds, TensorProto.UINT4), np.dtype(np.int32))
        block_of = self._common(f"blocks_{code.block}_of_{products}", np.arange(products, dtype=np.int32) // code.block)
        spread = self._node("Gather", f"{name}_blocks", [numbers, block_of], np.int32, whole, axis=code.along)
        length = self._common(f"levels_{code.values.shape[1]}", np.array(code.values.shape[1], np.int32))
        start = self._node("Mul", name, [spread, length], np.int32, whole)
        place = self._node("Add", name, [start, self._index(name, code)], np.int32, whole)
        values = self._node(
            "Gather", name, [self._constant(f"{name}_levels", code.values.reshape(-1)), place], np.int8, whole, axis=0
        )
        if list(code.shape) == whole:
            return values
        last = [code.shape[0], *code.shape[2:], code.shape[1]] if code.taps_first else list(code.shape)
        moved = self._node("Reshape", name, [values, self._constant(f"{name}_shape", np.array(last))], np.int8, last)
        if not code.taps_first:
            return moved
        return self._node(
            "Transpose", name, [moved], np.int8, code.shape, perm=[0, len(last) - 1, *range(1, len(last) - 1)]
        )

    def _index(self, name: str, code: PackedConstant) -> Tensor:
        """The codes as int32."""
        if code.bits in (3, 5, 6) or (code.bits == 2 and not self._pairs and code.codes.size >= WORDS_FROM):
            return self._from_words(name, code)
        kind = _UINT2 if code.bits == 2 and self._pairs else TensorProto.UINT4
        return self._cast(name, self._stored(name, code.codes, kind), np.dtype(np.int32))

    def _from_words(self, name: str, code: PackedConstant) -> Tensor:
        words, shifts = _words(code.codes.reshape(-1), code.bits)
        mask = self._common(f"mask_{code.bits}_bits", np.array(2**code.bits - 1, np.uint64))
        places = self._common(f"places_{code.bits}_bits", shifts)
        grid = [len(words), len(shifts)]
        moved = self._node(
            "BitShift", name, [self._constant(f"{name}_words", words), places], np.uint64, grid, direction="RIGHT"
        )
        cut = self._cast(name, self._node("BitwiseAnd", name, [moved, mask], np.uint64, grid), np.dtype(np.int32))
        flat = self._node(
            "Reshape", name, [cut, self._common("flat", np.array([-1]))], np.int32, [len(words) * len(shifts)]
        )
        if flat.shape[0] != code.codes.size:
            ends = [self._common("front", np.array([0])), self._constant(f"{name}_end", np.array([code.codes.size]))]
            flat = self._node("Slice", name, [flat, *ends], np.int32, [code.codes.size])
        return self._node(
            "Reshape",
            name,
            [flat, self._constant(f"{name}_shape", np.array(code.codes.shape))],
            np.int32,
            code.codes.shape,
        )

    def _stored(self, name: str, values: Array, kind: int) -> Tensor:
        raw = _nibbles(values) if kind in (TensorProto.INT4, TensorProto.UINT4) else _pairs(values)
        label = unique_name(self._taken, f"{name}_packed")
        return StoredConstant(
            label, LazyValues(TensorProto(name=label, data_type=kind, dims=values.shape, raw_data=raw))
        )

    def _cast(self, name: str, source: Tensor, kind: np.dtype[Any]) -> Tensor:
        return self._node(
            "Cast", name, [source], kind, source.shape, to=int(onnx.helper.np_dtype_to_tensor_dtype(kind))
        )

    def _constant(self, name: str, values: Array) -> Tensor:
        return Constant(unique_name(self._taken, name), values)

    def _common(self, name: str, values: Array) -> Tensor:
        if name not in self._shared:
            self._shared[name] = Constant(unique_name(self._taken, f"unpack_{name}"), values)
        return self._shared[name]

    def _node(self, op: str, name: str, inputs: list[Tensor], kind: Any, shape: Any, **attrs: Any) -> Tensor:
        label = unique_name(self._taken, f"{name}_{op}")
        result = Variable(unique_name(self._taken, f"{label}_out"), dtype=np.dtype(kind), shape=list(shape))
        self._graph.nodes.append(Node(op, label, attrs, inputs, [result]))
        return result


def _nibbles(values: Array) -> bytes:
    """Two 4-bit integers a byte, the first in the low half."""
    low = np.append(values.reshape(-1), np.zeros(values.size % 2, values.dtype)).astype(np.uint8) & 15
    return (low[0::2] | (low[1::2] << 4)).tobytes()


def _pairs(values: Array) -> bytes:
    """Four 2-bit integers a byte, the first in the lowest bits."""
    low = np.append(values.reshape(-1), np.zeros(-values.size % 4, values.dtype)).astype(np.uint8) & 3
    return (low[0::4] | (low[1::4] << 2) | (low[2::4] << 4) | (low[3::4] << 6)).tobytes()


def _words(codes: NDArray[np.uint8], bits: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """As many codes as fit in 64 bits, the first in the lowest: words [N, 1] and the shift of each place [P]."""
    shifts = np.arange(64 // bits, dtype=np.uint64) * np.uint64(bits)
    padded = np.append(codes, np.zeros(-codes.size % len(shifts), np.uint8)).reshape(-1, len(shifts)).astype(np.uint64)
    return np.bitwise_or.reduce(padded << shifts, axis=1, keepdims=True), shifts


def stored_bytes(distinct: int, rows: int, products: int, block: int | None = None) -> int:
    """Predicted file size of a quantized weight's codes, in bytes; scales, equally many on every grid, are not counted.

    Args:
        distinct: number of levels of its grid.
        rows: output channels.
        products: reduction length K.
        block: weights along K that share a codebook; the codebooks and their indices count, then.
    """
    elements = rows * products
    if elements < SMALLEST:
        return elements
    bits = PackedConstant(np.broadcast_to(np.uint8(0), elements), np.zeros(distinct, np.int8)).bits
    codes = -(-elements * bits // 8) if bits in (2, 4, 8) else 8 * -(-elements // (64 // bits))
    if block is None:
        return codes
    tables = -(-rows * -(-products // block) // 2) + len(FACTORS) * distinct
    return codes + tables if elements * bits // 8 + tables < MOST_SHARE * elements else elements
