"""Register tiles of matrix products that end in codes: sums never leave the registers.

A tile multiplies rows of activations with panels of weights as those of `sum_tiles.py` do, scales the sums
(`requantize.Scale`), limits them and stores codes, one row after the other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from ..cpu.isa import LANES, Isa
from .llvm import I8, I16, I32, I64, loop, prefetch, splat
from .requantize import Scale, limits, octets, raised, shuffled, words
from .sum_tiles import Flavour, TileBuilder

HAS_MASKS = Isa.AVX512_VNNI.supported
"""Whether the last columns of a row can be stored by one masked instruction."""

ProductTile = Callable[
    [int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int], None
]

PRODUCT_TILES: dict[ProductTile, tuple[Flavour, int, int]] = {}
"""Every product tile with its flavour, rows and panels."""


def product_tile(flavour: Flavour, rows: int, panels: int) -> ProductTile:
    """An intrinsic that computes ``blocks`` blocks of ``rows`` rows, one behind the other.

    It is called with ``(blocks, pointers, offsets, segments, b, panel_bytes, steps, fetch, fetches, heads, head_bytes,
    y, y_stride, count, wide,
    y_zp, lo, hi,
    shared)``. From ``pointers`` on seven are those of `sum_tiles.make_tile`; ``fetch`` is that of the first block,
    those of the next
    ``fetches`` blocks lie ``panel_bytes`` apart,
    all others fetch what the last of them does. ``heads``: address of int32 start values, 16 a
    panel; the `SCALE_VECTORS` follow, each ``head_bytes`` behind the one before. ``y``: address of the first code,
    ``y_stride`` bytes between
    rows; ``count`` columns are stored, as int16 when ``wide`` is 1,
    else as uint8; zero point and limits of a code; ``shared`` is 1 where
    another core may have written there last: each block asks for its lines first.
    """

    def tile(
        typingctx: Any,
        blocks: Any,
        pointers: Any,
        offsets: Any,
        segments: Any,
        b: Any,
        panel_bytes: Any,
        steps: Any,
        fetch: Any,
        fetches: Any,
        heads: Any,
        head_bytes: Any,
        y: Any,
        y_stride: Any,
        count: Any,
        wide: Any,
        y_zp: Any,
        lo: Any,
        hi: Any,
        shared: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if flavour.supported:
                ProductWriter(builder, flavour, rows, panels, arguments).emit()
            return context.get_dummy_value()

        return types.void(*([types.int64] * 19)), codegen

    made: ProductTile = intrinsic(tile)
    PRODUCT_TILES[made] = (flavour, rows, panels)
    return made


def _number(value: int) -> Any:
    return ir.Constant(I64, value)


class ProductWriter(TileBuilder):
    """Writes the LLVM code of one product tile."""

    def __init__(self, builder: Any, flavour: Flavour, rows: int, panels: int, arguments: Any) -> None:
        super().__init__(builder, flavour, rows, panels, (*arguments[1:8], arguments[9], None))
        self.blocks, self.fetches = arguments[0], arguments[8]
        self.head_bytes, self.y, self.y_stride, self.count, self.wide, self.y_zp, self.lo, self.hi, self.shared = (
            arguments[10:]
        )

    def emit(self) -> None:
        """All blocks."""
        builder = self.builder
        pointers, y, fetch, pitch = self.pointers, self.y, self.fetch, builder.mul(self.y_stride, _number(self.rows))

        def block(index: Any, _: list[Any]) -> list[Any]:
            self.pointers = builder.add(pointers, builder.mul(index, _number(8 * self.rows)))
            self.y = builder.add(y, builder.mul(index, pitch))
            ahead = builder.select(builder.icmp_signed("<", index, self.fetches), index, self.fetches)
            self.fetch = builder.add(fetch, builder.mul(ahead, self.panel_bytes))
            self._block()
            return []

        loop(builder, self.blocks, [], block)

    def _block(self) -> None:
        builder = self.builder
        with builder.if_then(builder.icmp_signed("!=", self.shared, _number(0))):
            self._fetch_results()
        sums = raised(builder, [self._scale(part) for part in range(self.parts)], self.sums())
        zero, by_twos = splat(builder, builder.trunc(self.y_zp, I32), self.lanes), self.flavour.isa is Isa.AVX2
        for part in range(self.parts):  # the constants of one vector of columns at a time fit the registers
            scale = self._scale(part)
            for at in range(part, len(sums), self.parts):
                sums[at] = scale.apply(sums[at]) if by_twos else builder.add(scale.apply(sums[at]), zero)
        with builder.if_else(builder.icmp_signed("!=", self.wide, _number(0))) as (wide, narrow):
            with wide:
                self._store_rows(self._rows([builder.add(value, zero) for value in sums] if by_twos else sums, I16))
            with narrow:
                self._store_rows(self._rows_by_twos(sums) if by_twos else self._rows(sums, I8))

    def _fetch_results(self) -> None:
        """Ask for the first and the last cache line of the codes of each row."""
        builder = self.builder
        size = builder.add(self.wide, _number(1))
        last = builder.sub(builder.mul(self.count, size), _number(1))
        for r in range(self.rows):
            start = builder.add(self.y, builder.mul(self.y_stride, _number(r)))
            for place in (start, builder.add(start, last)):
                prefetch(builder, place, write=True, level=1)

    def _scale(self, part: int) -> Scale:
        builder = self.builder

        def load(which: int) -> Any:
            place = builder.add(self.bias, builder.mul(self.head_bytes, _number(1 + which)))
            place = builder.add(place, _number(4 * self.lanes * part))
            return builder.load(builder.inttoptr(place, self.acc_type.as_pointer()), align=4)

        return Scale(builder, load)

    def _rows(self, values: list[Any], code: Any) -> list[Any]:
        """The codes of each row."""
        return [self._codes(values[r * self.parts : (r + 1) * self.parts], code) for r in range(self.rows)]

    def _rows_by_twos(self, values: list[Any]) -> list[Any]:
        """The same as uint8 of one panel, from values without the zero point: half the instructions. Saturating them
        first changes no code.
        """
        builder = self.builder
        pairs = [words(builder, values[2 * r], values[2 * r + 1]) for r in range(self.rows)]
        zero = splat(builder, builder.trunc(self.y_zp, I16), pairs[0].type.count)
        add = builder.module.declare_intrinsic(
            f"llvm.sadd.sat.v{zero.type.count}i16", (), ir.FunctionType(zero.type, [zero.type, zero.type])
        )
        pairs = [builder.call(add, [pair, zero]) for pair in pairs]
        rows = []
        for r in range(0, self.rows, 2):
            codes = limits(builder, octets(builder, pairs[r], pairs[min(r + 1, self.rows - 1)]), self.lo, self.hi)
            orders = [[16 * (c // 4 % 2) + 8 * row + c // 8 * 4 + c % 4 for c in range(LANES)] for row in (0, 1)]
            rows += [shuffled(builder, codes, codes, order) for order in orders[: self.rows - r]]
        return rows

    def _store_rows(self, rows: list[Any]) -> None:
        """The codes of all rows, whole or only ``count`` columns."""
        builder, width = self.builder, LANES * self.panels
        targets = [builder.add(self.y, builder.mul(self.y_stride, _number(r))) for r in range(self.rows)]
        with builder.if_else(builder.icmp_signed(">=", self.count, _number(width))) as (whole, part):
            with whole:
                for target, codes in zip(targets, rows, strict=True):
                    builder.store(codes, builder.inttoptr(target, codes.type.as_pointer()), align=1)
            with part:
                for target, codes in zip(targets, rows, strict=True):
                    self._store_part(target, codes)

    def _codes(self, values: list[Any], code: Any) -> Any:
        """One row of codes in the order of the columns, limited."""
        builder, lanes = self.builder, self.lanes
        if len(values) == 1:
            return builder.trunc(limits(builder, values[0], self.lo, self.hi), ir.VectorType(code, lanes))
        halves = [words(builder, values[i], values[min(i + 1, len(values) - 1)]) for i in range(0, len(values), 2)]
        if len(values) > 2 and code is I8:
            order = [16 * (c // 4) + 4 * v + c % 4 for v in range(len(values)) for c in range(lanes)]
            codes = limits(builder, octets(builder, *halves), self.lo, self.hi)
            return shuffled(builder, codes, codes, order)
        order = [8 * (c // 4) + 4 * v + c % 4 for v in range(2) for c in range(lanes)]
        parts = [limits(builder, half, self.lo, self.hi) for half in halves]
        if code is I8:
            parts = [builder.trunc(part, ir.VectorType(code, 2 * lanes)) for part in parts]
        if len(parts) == 1:
            return shuffled(builder, parts[0], parts[0], order)
        return shuffled(builder, parts[0], parts[1], [*order, *(2 * lanes + i for i in order)][: len(values) * lanes])

    def _store_part(self, target: Any, codes: Any) -> None:
        """The first ``count`` codes of a row."""
        builder, size, width = self.builder, codes.type.element.width // 8, codes.type.count
        if HAS_MASKS:
            if width % (2 * LANES) and width > LANES:  # whole vectors
                width = 4 * LANES
                codes = shuffled(builder, codes, codes, [min(i, codes.type.count - 1) for i in range(width)])
            places = ir.Constant(ir.VectorType(codes.type.element, width), list(range(width)))
            mask = builder.icmp_unsigned(
                "<", places, splat(builder, builder.trunc(self.count, codes.type.element), width)
            )
            pointer = builder.inttoptr(target, codes.type.as_pointer())
            kind = ir.FunctionType(ir.VoidType(), [codes.type, pointer.type, I32, mask.type])
            name = f"llvm.masked.store.v{width}i{8 * size}.p0"
            masked = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
            builder.call(masked, [codes, pointer, ir.Constant(I32, size), mask])
            return
        spare = cgutils.alloca_once(builder, codes.type)
        builder.store(codes, spare, align=size)
        first, second = (
            builder.bitcast(spare, codes.type.element.as_pointer()),
            builder.inttoptr(target, codes.type.element.as_pointer()),
        )

        def copy(i: Any, _: list[Any]) -> list[Any]:
            builder.store(builder.load(builder.gep(first, [i]), align=size), builder.gep(second, [i]), align=size)
            return []

        loop(builder, self.count, [], copy)
