"""Register tiles of matrix products as LLVM vector code, and which of them this CPU can run.

A *tile* multiplies up to six rows of activations with one or more *panels* of 16 columns of weights. Four bytes of a
row make one step: four uint8 (layout *quad*, for the dot-product instructions) or two int16 (layout *pair*). A panel
holds, step after step, the weights of its 16 columns for that step: 64 bytes in quad layout, 32 in pair layout, 64 in
*wide* layout (pairs of int16, for products of two activations). All flavours give the same int32 sums, bit for bit.

The panels of *codes* that a tile multiplies lie together: a table of `TABLE_BYTES` levels, the same in every 16, then
block after block those of all panels. A byte of a block holds the codes of one place in 2 or 4 consecutive steps, the
first in the lowest bits. They are looked up in registers. There is one segment, and its steps are a multiple of those
in a byte.

Every tile has the signature ``tile(pointers, offsets, segments, b, panel_bytes, steps, fetch, bias,
acc)``. A row of activations is a number
of *segments*, each of ``steps`` steps: address of int64 addresses,
one for every row of the tile; address of int64 offsets, one for every
segment, that count from there; number of segments; address of the first panel, bytes between panels,
steps in a segment, address of what is
needed soon (tiles of several rows fetch a cache line of it at every step), of int32 start values (16 a panel),
and of the int32 results
[tile rows, 16 * panels]. A matrix has one segment, a window one for each line.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import binding, ir
from numba import types
from numba.extending import intrinsic

from ..cpu.isa import LANES as LANES
from ..cpu.isa import TABLE_BYTES as TABLE_BYTES
from ..cpu.isa import Isa as Isa
from ..cpu.isa import best_isa as best_isa
from .llvm import I8, I16, I32, I64, loop, prefetch, splat

TILE_ROWS = 6
STEP_BYTES = 4
CACHE_LINE = 64

_AHEAD = 8192
"""Bytes after which codes that are asked for are read: decoding leaves too few loads under way."""


class Flavour(NamedTuple):
    """How a step of a tile is computed: its layout, bits of a vector, and bits of a weight."""

    isa: Isa
    layout: str  # quad, pair or wide
    bits: int
    weight_bits: int = 8  # 4 or 2: codes

    @property
    def supported(self) -> bool:
        """Whether this CPU can run it."""
        return self.isa.supported and (self.weight_bits == 8 or self.isa.has_lookup)


def _vector(element: Any, count: int) -> Any:
    return ir.VectorType(element, count)


def _typed_dots() -> bool:
    """Whether this LLVM declares the dot products on vectors of bytes (22 and later) rather than of int32."""
    return bool(binding.llvm_version_info >= (22, 0, 0))


def _call(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    function = builder.module.declare_intrinsic(
        name, (), ir.FunctionType(result, [argument.type for argument in arguments])
    )
    return builder.call(function, arguments)


def _dot(builder: Any, name: str, acc: Any, a: Any, b: Any) -> Any:
    """An instruction that multiplies, sums and accumulates; ``a`` and ``b`` are vectors of bytes or int16."""
    if not _typed_dots():
        a, b = builder.bitcast(a, acc.type), builder.bitcast(b, acc.type)
    return _call(builder, name, acc.type, [acc, a, b])


def quad_step(builder: Any, flavour: Flavour, acc: Any, a: Any, b: Any) -> Any:
    """``acc`` plus the products of uint8 and int8 by fours."""
    bytes_type = _vector(I8, 4 * acc.type.count)
    name = f"llvm.x86.avx512.vpdpbusd.{32 * acc.type.count}"
    return _dot(builder, name, acc, builder.bitcast(a, bytes_type), b)


def pair_step(builder: Any, flavour: Flavour, acc: Any, a: Any, b: Any) -> Any:
    """``acc`` plus the products of int16 by pairs."""
    a, bits = builder.bitcast(a, b.type), 32 * acc.type.count
    if flavour.isa is Isa.AVX512_VNNI:
        return _dot(builder, f"llvm.x86.avx512.vpdpwssd.{bits}", acc, a, b)
    if flavour.isa is Isa.AVX2 and bits == flavour.bits:
        return builder.add(acc, _call(builder, "llvm.x86.avx2.pmadd.wd", acc.type, [a, b]))
    wide = _vector(I32, b.type.count)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    halves = [
        builder.shuffle_vector(
            products, products, ir.Constant(_vector(I32, acc.type.count), [2 * i + odd for i in range(acc.type.count)])
        )
        for odd in (0, 1)
    ]
    return builder.add(acc, builder.add(*halves))


_SHUFFLES = {64: "llvm.x86.avx512.pshuf.b.512", 32: "llvm.x86.avx2.pshuf.b", 16: "llvm.x86.ssse3.pshuf.b.128"}
"""By bytes of a vector: looks bytes up in the 16 of the same lane."""


def look_up(builder: Any, table: Any, index: Any) -> Any:
    """The bytes of ``table``, which repeats itself every 16, at the places ``index``: below 16 each."""
    return _call(builder, _SHUFFLES[index.type.count], index.type, [table, index])


def _load(builder: Any, kind: Any, base: Any, offset: Any = None, align: int = 1) -> Any:
    if offset is not None:
        base = builder.gep(base, [offset])
    return builder.load(builder.bitcast(base, kind.as_pointer()), align=align)


class TileBuilder:
    """Writes the LLVM code of one tile."""

    def __init__(
        self, builder: Any, flavour: Flavour, rows: int, panels: int, arguments: Any, fetches: bool = True
    ) -> None:
        self.builder, self.flavour, self.rows, self.panels, self.fetches_soon = builder, flavour, rows, panels, fetches
        (
            self.pointers,
            self.offsets,
            self.segments,
            self.b,
            self.panel_bytes,
            self.steps,
            self.fetch,
            self.bias,
            self.acc,
        ) = arguments
        self.lanes = flavour.bits // 32
        self.parts = panels * LANES // self.lanes  # vectors of int32 in a row
        self.acc_type = _vector(I32, self.lanes)
        self.step_bytes = LANES * (2 if flavour.layout == "pair" else 4)
        self.together = 8 // flavour.weight_bits  # steps whose weights share bytes

    def emit(self) -> None:
        """Multiply and store the sums."""
        self._store(self.sums())

    def sums(self) -> list[Any]:
        """The int32 sums in registers, row by row."""
        return loop(self.builder, self.segments, self._start() * self.rows, self._segment)

    def _pointer(self, address: Any) -> Any:
        return self.builder.inttoptr(address, I8.as_pointer())

    def _number(self, address: Any, index: Any) -> Any:
        base = self.builder.inttoptr(address, I64.as_pointer())
        return self.builder.load(self.builder.gep(base, [index]), align=8)

    def _start(self) -> list[Any]:
        base = self._pointer(self.bias)
        return [
            _load(self.builder, self.acc_type, base, ir.Constant(I64, 4 * self.lanes * i), 4) for i in range(self.parts)
        ]

    def _segment(self, segment: Any, sums: list[Any]) -> list[Any]:
        """All steps of one segment: ``steps`` steps from the same offset in every row."""
        builder = self.builder
        offset = self._number(self.offsets, segment)
        sources = [
            self._pointer(builder.add(self._number(self.pointers, ir.Constant(I64, r)), offset))
            for r in range(self.rows)
        ]
        first = builder.add(self.b, builder.mul(segment, builder.mul(self.steps, ir.Constant(I64, self.step_bytes))))
        panels = [
            self._pointer(builder.add(first, builder.mul(self.panel_bytes, ir.Constant(I64, p))))
            for p in range(self.panels)
        ]
        if self.together > 1:
            return self._coded_segment(sources, panels, sums)
        return self._plain_segment(segment, sources, panels, sums)

    def _plain_segment(self, segment: Any, sources: list[Any], panels: list[Any], sums: list[Any]) -> list[Any]:
        """The same with int8 or int16 weights."""
        builder, soon = self.builder, self._soon(segment)

        def step(index: Any, values: list[Any]) -> list[Any]:
            self._fetch_soon(soon, index)
            return self._step(index, sources, self._all_weights(panels, index), values)

        return loop(builder, self.steps, sums, step)

    def _soon(self, segment: Any) -> Any:
        """What a segment asks for first."""
        builder = self.builder
        return builder.add(self.fetch, builder.mul(segment, builder.mul(self.steps, ir.Constant(I64, CACHE_LINE))))

    def _fetch_soon(self, soon: Any, step: Any) -> None:
        """Ask for one cache line."""
        builder = self.builder
        if self.fetches_soon:
            prefetch(builder, builder.add(soon, builder.mul(step, ir.Constant(I64, CACHE_LINE))), write=False, level=2)

    def _coded_segment(self, sources: list[Any], panels: list[Any], sums: list[Any]) -> list[Any]:
        """The same with codes; there is one segment."""
        builder, together = self.builder, ir.Constant(I64, self.together)
        table, codes, ahead = self._coded_panel(panels)
        # sums of every other step, so that one instruction need not wait for the last
        chains = 2 if self.rows <= 2 else 1

        def steps(block: Any, values: list[Any]) -> list[Any]:
            start = builder.mul(block, ir.Constant(I64, self.panels * self.step_bytes))
            first = builder.mul(block, together)
            raw = self._codes_of_block(codes, ahead, start)
            for place in range(self.together):
                weights = [self._decoded(table, vector, place) for vector in raw]
                chain = values[: len(sums)]
                values = values[len(sums) :] + self._step(
                    builder.add(first, ir.Constant(I64, place)), sources, weights, chain
                )
            return values

        zeros = [ir.Constant(value.type, [0] * value.type.count) for value in sums] * (chains - 1)
        totals = loop(builder, builder.sdiv(self.steps, together), sums + zeros, steps)
        return [functools.reduce(builder.add, totals[i :: len(sums)]) for i in range(len(sums))]

    def _coded_panel(self, panels: list[Any]) -> tuple[Any, Any, Any]:
        """The levels in a vector, where the codes begin, and the address of what is asked for first."""
        builder, kind = self.builder, _vector(I8, self.step_bytes * self.lanes // LANES)
        table, codes = _load(builder, kind, panels[0]), builder.gep(panels[0], [ir.Constant(I64, TABLE_BYTES)])
        return table, codes, builder.add(self.b, ir.Constant(I64, TABLE_BYTES + _AHEAD))

    def _codes_of_block(self, codes: Any, ahead: Any, start: Any) -> list[Any]:
        """The bytes of a block, which begins at ``start``; asks for those of a later one."""
        builder, kind = self.builder, _vector(I8, self.step_bytes * self.lanes // LANES)
        for line in range(0, self.panels * self.step_bytes, CACHE_LINE):
            prefetch(builder, builder.add(ahead, builder.add(start, ir.Constant(I64, line))), write=False, level=1)
        return [
            _load(builder, kind, codes, builder.add(start, ir.Constant(I64, part * kind.count)))
            for part in range(self.parts)
        ]

    def _decoded(self, table: Any, raw: Any, place: int) -> Any:
        """The weights of a vector of columns from bytes of codes."""
        builder, shift = self.builder, place * self.flavour.weight_bits
        index = builder.lshr(raw, ir.Constant(raw.type, [shift] * raw.type.count)) if shift else raw
        if shift < 4:  # tables repeat: of the upper bits only the last must be 0
            index = builder.and_(index, ir.Constant(raw.type, [15] * raw.type.count))
        levels = look_up(builder, table, index)
        return levels if self.flavour.layout == "quad" else builder.sext(levels, _vector(I16, raw.type.count))

    def _weights(self, panel: Any, step: Any, part: int) -> Any:
        """The weights of one vector of columns for one step."""
        builder, layout = self.builder, self.flavour.layout
        part_bytes = self.step_bytes * self.lanes // LANES
        offset = builder.add(builder.mul(step, ir.Constant(I64, self.step_bytes)), ir.Constant(I64, part * part_bytes))
        if layout == "quad":
            return _load(builder, _vector(I8, 4 * self.lanes), panel, offset)
        if layout == "wide":
            return _load(builder, _vector(I16, 2 * self.lanes), panel, offset)
        return builder.sext(_load(builder, _vector(I8, 2 * self.lanes), panel, offset), _vector(I16, 2 * self.lanes))

    def _all_weights(self, panels: list[Any], step: Any) -> list[Any]:
        return [self._weights(panel, step, part) for panel in panels for part in range(LANES // self.lanes)]

    def _step(self, step: Any, sources: list[Any], weights: list[Any], sums: list[Any]) -> list[Any]:
        builder = self.builder
        offset = builder.mul(step, ir.Constant(I64, STEP_BYTES))
        combine = quad_step if self.flavour.layout == "quad" else pair_step
        result = []
        for r, source in enumerate(sources):
            a = splat(builder, _load(builder, I32, source, offset), self.lanes)
            row = sums[r * self.parts : (r + 1) * self.parts]
            result += [combine(builder, self.flavour, acc, a, b) for acc, b in zip(row, weights, strict=True)]
        return result

    def _store(self, sums: list[Any]) -> None:
        base = self._pointer(self.acc)
        for index, value in enumerate(sums):
            target = self.builder.gep(base, [ir.Constant(I64, 4 * index * self.lanes)])
            self.builder.store(value, self.builder.bitcast(target, self.acc_type.as_pointer()), align=4)


Tile = Callable[[int, int, int, int, int, int, int, int, int], None]


def make_tile(flavour: Flavour, rows: int, panels: int) -> Tile:
    """An intrinsic for compiled code; where the CPU lacks the instructions it is empty, and `Session` never selects
    it.
    """

    def tile(
        typingctx: Any,
        pointers: Any,
        offsets: Any,
        segments: Any,
        b: Any,
        panel_bytes: Any,
        steps: Any,
        fetch: Any,
        bias: Any,
        acc: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if flavour.supported:
                TileBuilder(builder, flavour, rows, panels, arguments, fetches=rows > 1).emit()
            return context.get_dummy_value()

        return types.void(*([types.int64] * 9)), codegen

    return intrinsic(tile)  # type: ignore[no-any-return]


def coded(flavour: Flavour, weight_bits: int) -> Flavour:
    """The same tile with codes for weights."""
    return flavour._replace(weight_bits=weight_bits)


QUAD_512, PAIR_512, WIDE_512 = (Flavour(Isa.AVX512_VNNI, layout, 512) for layout in ("quad", "pair", "wide"))
QUAD_256 = Flavour(Isa.AVX_VNNI, "quad", 256)
BYTES_256 = Flavour(Isa.AVX2, "quad", 256)
PAIR_256, WIDE_256 = (Flavour(Isa.AVX2, layout, 256) for layout in ("pair", "wide"))
PAIR_ANY, WIDE_ANY = (Flavour(Isa.PORTABLE, layout, 128) for layout in ("pair", "wide"))
