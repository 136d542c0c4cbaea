"""Products channel by channel (depthwise convolutions) as LLVM vector code.

A vector of codes holds one tap of many channels, the instructions want several taps of one channel: *groups* of four uint8 taps (layout
quad) or two int16 taps (layout pair) are interleaved by unpacking. That leaves the sums of a *chunk* of channels in another order, by lanes
of 128 bits, which the packed weights follow; the sums are put in order at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .emit import loop
from .simd import LANES, PAIR_256, PAIR_512, PAIR_ANY, QUAD_256, QUAD_512, Flavour, Isa, pair_step, quad_step

_I8, _I16, _I32, _I64 = (ir.IntType(width) for width in (8, 16, 32, 64))
ChannelTile = Callable[[int, int, int, int, int, int], None]
SingleTile = Callable[[int, int, int, int, int], None]

def taps_in_group(layout: str) -> int:
    """Taps that one step multiplies; as many sums are interleaved."""
    return 4 if layout == "quad" else 2


def make_channel_tile(flavour: Flavour, width: int) -> ChannelTile:
    """``acc[c] = bias[c] + sum over taps of x_tap[c] * w_tap[c]`` for the ``width`` channels of a chunk.

    The intrinsic is called with ``(x, offsets, groups, w, bias, acc)``: address of the first code; of int64 offsets in bytes, one a tap
    (whole groups of them); number of groups; addresses of the weights (int8 quads or int16 pairs), of int32 start values and of the results.
    """

    def tile(typingctx: Any, x: Any, offsets: Any, groups: Any, w: Any, bias: Any, acc: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if flavour.isa.supported:
                _ChannelWriter(builder, flavour, width).emit(*arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 6)), codegen

    return intrinsic(tile)  # type: ignore[no-any-return]


class _ChannelWriter:
    """Writes the LLVM code of one channel tile."""

    def __init__(self, builder: Any, flavour: Flavour, width: int) -> None:
        self.builder, self.flavour, self.width = builder, flavour, width
        self.group = taps_in_group(flavour.layout)
        self.lanes = width // self.group  # of a vector of sums
        self.sums = ir.VectorType(_I32, self.lanes)
        self.codes = ir.VectorType(_I8 if flavour.layout == "quad" else _I16, width)
        self.step = quad_step if flavour.layout == "quad" else pair_step

    def emit(self, x: Any, offsets: Any, groups: Any, w: Any, bias: Any, acc: Any) -> None:
        builder = self.builder
        zeros = [ir.Constant(self.sums, [0] * self.lanes)] * self.group

        def step(index: Any, totals: list[Any]) -> list[Any]:
            taps = [self._load(builder.add(x, self._offset(offsets, index, t)), self.codes) for t in range(self.group)]
            weights = builder.add(w, builder.mul(index, ir.Constant(_I64, 4 * self.width)))
            factors = [self._load(weights, self.codes, i) for i in range(self.group)]
            pieces = self._interleaved(taps)
            return [self.step(builder, self.flavour, total, a, b) for total, a, b in zip(totals, pieces, factors, strict=True)]

        for i, total in enumerate(self._ordered(loop(builder, groups, zeros, step))):
            start = self._load(bias, self.sums, i, 4)
            builder.store(builder.add(total, start), self._at(acc, self.sums, i), align=4)

    def _at(self, base: Any, kind: Any, index: int) -> Any:
        return self.builder.gep(self.builder.inttoptr(base, kind.as_pointer()), [ir.Constant(_I64, index)])

    def _load(self, base: Any, kind: Any, index: int = 0, align: int = 1) -> Any:
        return self.builder.load(self._at(base, kind, index), align=align)

    def _offset(self, offsets: Any, index: Any, tap: int) -> Any:
        builder = self.builder
        place = builder.add(builder.mul(index, ir.Constant(_I64, self.group)), ir.Constant(_I64, tap))
        return builder.load(builder.gep(builder.inttoptr(offsets, _I64.as_pointer()), [place]), align=8)

    def _interleaved(self, taps: list[Any]) -> list[Any]:
        """Vectors of whole groups: each lane of 128 bits gives its channels by fours."""
        if self.group == 2:
            return [self._unpacked(taps[0], taps[1], self.codes, high) for high in (False, True)]
        halves = [[self._unpacked(taps[i], taps[i + 1], self.codes, high) for high in (False, True)] for i in (0, 2)]
        pairs = ir.VectorType(_I16, self.width // 2)
        result = []
        for side in (0, 1):
            first, second = (self.builder.bitcast(half[side], pairs) for half in halves)
            result += [self.builder.bitcast(self._unpacked(first, second, pairs, high), self.codes) for high in (False, True)]
        return result

    def _unpacked(self, a: Any, b: Any, kind: Any, high: bool) -> Any:
        """The elements of a and b in turns, of the lower or the upper half of every 128 bits."""
        lane, count = 128 // kind.element.width, kind.count
        places = [base + high * (lane // 2) + i for base in range(0, count, lane) for i in range(lane // 2)]
        order = [place + side for place in places for side in (0, count)]
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, count), order))

    def _ordered(self, totals: list[Any]) -> list[Any]:
        """The sums by channel: 128-bit part ``p`` of total ``v`` is the ``group * p + v``-th of the result."""
        slots = self.lanes // 4
        if slots == 1:
            return totals
        if self.group == 4 and slots == 4:
            low, high = ([self._parts(totals[i], totals[i + 1], [(0, p), (1, p), (0, p + 1), (1, p + 1)]) for p in (0, 2)] for i in (0, 2))
            return [self._parts(low[p // 2], high[p // 2], [(side, 2 * (p % 2) + i) for side in (0, 1) for i in (0, 1)]) for p in range(4)]
        result = []
        for first in range(0, slots * self.group, slots):
            places = [divmod(first + s, self.group) for s in range(slots)]
            sources = sorted({vector for _, vector in places})
            chosen = [(sources.index(vector), part) for part, vector in places]
            result.append(self._parts(totals[sources[0]], totals[sources[-1]], chosen))
        return result

    def _parts(self, a: Any, b: Any, chosen: list[tuple[int, int]]) -> Any:
        order = [side * self.lanes + 4 * part + i for side, part in chosen for i in range(4)]
        return self.builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, self.lanes), order))


def make_single_tile(wide: bool) -> SingleTile:
    """``acc[c] = bias[c] + x[c] * w[c]``: one tap, on ``16 * vectors`` channels in their own order.

    The intrinsic is called with ``(x, vectors, w, bias, acc)``; weights are int16, each with a zero behind it. Codes are int16 when ``wide``,
    else uint8.
    """

    def tile(typingctx: Any, x: Any, vectors: Any, w: Any, bias: Any, acc: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_single(builder, ir.VectorType(_I16 if wide else _I8, LANES), *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 5)), codegen

    return intrinsic(tile)  # type: ignore[no-any-return]


def _emit_single(builder: Any, codes: Any, x: Any, vectors: Any, w: Any, bias: Any, acc: Any) -> None:
    sums, pairs = ir.VectorType(_I32, LANES), ir.VectorType(_I16, 2 * LANES)
    flavour = PAIR_512 if Isa.AVX512_VNNI.supported else PAIR_ANY

    def at(base: Any, kind: Any, index: Any) -> Any:
        return builder.gep(builder.inttoptr(base, kind.as_pointer()), [index])

    def step(index: Any, _: list[Any]) -> list[Any]:
        values = builder.bitcast(builder.zext(builder.load(at(x, codes, index), align=1), sums), pairs)
        start, factors = builder.load(at(bias, sums, index), align=4), builder.load(at(w, pairs, index), align=4)
        builder.store(pair_step(builder, flavour, start, values, factors), at(acc, sums, index), align=4)
        return []

    loop(builder, vectors, [], step)


single_u8, single_i16 = make_single_tile(False), make_single_tile(True)

SINGLE_TILES = {single_u8: False, single_i16: True}
"""Every tile of one tap, and whether its codes are int16."""

CHANNEL_TILES: dict[ChannelTile, tuple[str, int]] = {}
"""Every channel tile with its layout and width."""


def _channel_tile(flavour: Flavour, width: int) -> ChannelTile:
    tile = make_channel_tile(flavour, width)
    CHANNEL_TILES[tile] = (flavour.layout, width)
    return tile


quad512_64 = _channel_tile(QUAD_512, 64)
quad256_32, quad256_16 = (_channel_tile(QUAD_256, width) for width in (32, 16))
quad512_32, quad512_16 = (_channel_tile(QUAD_512, width) for width in (32, 16))
pair512_32, pair512_16 = (_channel_tile(PAIR_512, width) for width in (32, 16))
pair256_16, pairany_16 = _channel_tile(PAIR_256, 16), _channel_tile(PAIR_ANY, 16)
