"""Register tiles of byte products for CPUs without a dot product of bytes: sums in int16 as long as they fit.

``vpmaddubsw`` multiplies uint8 with int8 and adds pairs in int16, twice as many products as ``vpmaddwd``; it saturates.
Where weights are so small that the sums of ``fitting`` steps fit int16 (`panels.fitting_steps` proves it of the weights
themselves), those steps are added in int16, exactly, and only then widened to int32. Weights are in quad layout, as
for the instructions that add up four products, and so are activations.
The int32 sums are kept in memory: the registers hold the int16 sums.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .llvm import I8, I16, I32, I64, loop, splat
from .product_tiles import ProductWriter
from .sum_tiles import LANES, STEP_BYTES, Flavour

_UNIT = 2
"""Steps of the innermost loop; ``fitting`` is a multiple of them."""

ByteTile = Callable[
    [
        int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int, int,
    ],
    None,
]

BYTE_TILES: dict[ByteTile, tuple[Flavour, int]] = {}
"""Every tile of byte products with its flavour and rows."""


def _number(value: int) -> Any:
    return ir.Constant(I64, value)


class _ByteWriter(ProductWriter):
    """Writes the LLVM code of one tile.

    The int16 sums of a run are widened when the next one begins, and the last ones at the end, so that a product of one
    run needs no memory.
    """

    def __init__(self, builder: Any, flavour: Flavour, rows: int, arguments: Any) -> None:
        super().__init__(builder, flavour, rows, 1, arguments[2:])
        self.fitting, self.memory = arguments[:2]
        self.half_type = ir.VectorType(I16, 2 * self.lanes)

    def emit(self) -> None:
        """All blocks; how often sums are widened is the same in all."""
        builder, one = self.builder, _number(1)
        self.unit = self.together if self.together > 1 else _UNIT
        self.whole = builder.sdiv(self.steps, self.fitting)
        self.more = builder.sub(builder.sdiv(self.fitting, _number(self.unit)), one)
        rest = builder.icmp_signed(">", self.steps, builder.mul(self.whole, self.fitting))
        self.all_runs = builder.mul(self.segments, builder.add(self.whole, builder.zext(rest, I64)))
        super().emit()

    def sums(self) -> list[Any]:
        """The int32 sums, row by row."""
        builder = self.builder
        with builder.if_then(builder.icmp_signed(">", self.all_runs, _number(1))):
            self._keep(self._start() * self.rows)
        zeros = [ir.Constant(self.half_type, [0] * self.half_type.count)] * (self.rows * self.parts)
        _, *halves = loop(builder, self.segments, [_number(0), *zeros], self._segment)
        some = builder.icmp_signed(">", self.all_runs, _number(1))
        base = builder.select(some, self.memory, self.bias)
        return self._widened(halves, base, builder.select(some, _number(4 * LANES), _number(0)))

    def _plain_segment(self, segment: Any, sources: list[Any], panels: list[Any], sums: list[Any]) -> list[Any]:
        """Runs of ``fitting`` steps, and one of what is left, step by step."""
        builder, soon = self.builder, self._soon(segment)

        def products(at: Any, count: int) -> list[Any]:
            total: list[Any] = []
            for i in range(count):
                step = builder.add(at, _number(i))
                self._fetch_soon(soon, step)
                total = self._added(total, self._products(step, sources, self._all_weights(panels, step)))
            return total

        at, *sums = self._runs(lambda at: products(at, _UNIT), _UNIT, _number(0), self.whole, self.more, sums)
        return self._last_run(lambda at: products(at, 1), 1, at, sums)

    def _coded_segment(self, sources: list[Any], panels: list[Any], sums: list[Any]) -> list[Any]:
        """The same with codes; steps and ``fitting`` are multiples of those that share bytes."""
        builder = self.builder
        table, codes, ahead = self._coded_panel(panels)

        def products(at: Any) -> list[Any]:
            raw = self._codes_of_block(codes, ahead, builder.mul(at, _number(self.step_bytes // self.unit)))
            total: list[Any] = []
            for place in range(self.unit):
                weights = [self._decoded(table, vector, place) for vector in raw]
                total = self._added(total, self._products(builder.add(at, _number(place)), sources, weights))
            return total

        at, *sums = self._runs(products, self.unit, _number(0), self.whole, self.more, sums)
        return self._last_run(products, self.unit, at, sums)

    def _last_run(self, products: Callable[[Any], list[Any]], unit: int, at: Any, sums: list[Any]) -> list[Any]:
        """One run of the steps from ``at`` on, if there are any."""
        builder = self.builder
        left = builder.sdiv(builder.sub(self.steps, at), _number(unit))
        some = builder.select(builder.icmp_signed(">", left, _number(0)), _number(1), _number(0))
        return self._runs(products, unit, at, some, builder.sub(left, _number(1)), sums)[1:]

    def _runs(
        self, products: Callable[[Any], list[Any]], unit: int, at: Any, count: Any, more: Any, sums: list[Any]
    ) -> list[Any]:
        """``count`` runs of ``unit`` steps and ``more`` times as many, from the step ``at`` on; the step behind them,
        and the sums: how many runs there were in all, and the int16 sums of the last one. ``products`` gives the int16
        sums of ``unit`` steps.
        """
        builder = self.builder

        def following(_: Any, carried: list[Any]) -> list[Any]:
            new = products(carried[0])
            return [builder.add(carried[0], _number(unit)), *self._added(carried[1:], new)]

        def run(_: Any, carried: list[Any]) -> list[Any]:
            done, *halves = carried[1:]
            with builder.if_then(builder.icmp_signed(">", done, _number(0))):
                self._keep(self._widened(halves, self.memory, _number(4 * LANES)))
            first = [builder.add(carried[0], _number(unit)), *products(carried[0])]
            end, *halves = loop(builder, more, first, following)
            return [end, builder.add(done, _number(1)), *halves]

        return loop(builder, count, [at, *sums], run)

    def _added(self, total: list[Any], new: list[Any]) -> list[Any]:
        return [self.builder.add(a, b) for a, b in zip(total, new, strict=True)] if total else new

    def _products(self, step: Any, sources: list[Any], weights: list[Any]) -> list[Any]:
        """int16: the products of one step, added by pairs."""
        builder, kind = self.builder, ir.VectorType(I8, 4 * self.lanes)
        multiply = builder.module.declare_intrinsic(
            "llvm.x86.avx2.pmadd.ub.sw", (), ir.FunctionType(self.half_type, [kind, kind])
        )
        result = []
        for source in sources:
            place = builder.gep(source, [builder.mul(step, _number(STEP_BYTES))])
            x = splat(builder, builder.load(builder.bitcast(place, I32.as_pointer()), align=1), self.lanes)
            result += [builder.call(multiply, [builder.bitcast(x, kind), weight]) for weight in weights]
        return result

    def _widened(self, halves: list[Any], base: Any, row_bytes: Any) -> list[Any]:
        """int32: the sums at ``base``, ``row_bytes`` from row to row, and the int16 ``halves`` in pairs."""
        builder, ones = self.builder, ir.Constant(self.half_type, [1] * self.half_type.count)
        add_pairs = builder.module.declare_intrinsic(
            "llvm.x86.avx2.pmadd.wd", (), ir.FunctionType(self.acc_type, [self.half_type, self.half_type])
        )
        sums = []
        for i, half in enumerate(halves):
            row = builder.add(base, builder.mul(row_bytes, _number(i // self.parts)))
            start = builder.load(self._place(row, i % self.parts), align=4)
            sums.append(builder.add(start, builder.call(add_pairs, [half, ones])))
        return sums

    def _keep(self, sums: list[Any]) -> None:
        """Into memory."""
        for i, value in enumerate(sums):
            self.builder.store(value, self._place(self.memory, i), align=4)

    def _place(self, base: Any, index: int) -> Any:
        """The address of a vector of int32."""
        place = self.builder.add(base, _number(4 * self.lanes * index))
        return self.builder.inttoptr(place, self.acc_type.as_pointer())


def byte_tile(flavour: Flavour, rows: int) -> ByteTile:
    """An intrinsic like that of `product_tiles.product_tile`, for one panel; before the arguments of that come
    ``fitting``, and the address of int32 [rows, 16] that it may use.
    """

    def tile(
        typingctx: Any,
        fitting: Any,
        memory: Any,
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
                _ByteWriter(builder, flavour, rows, arguments).emit()
            return context.get_dummy_value()

        return types.void(*([types.int64] * 21)), codegen

    made: ByteTile = intrinsic(tile)
    BYTE_TILES[made] = (flavour, rows)
    return made
