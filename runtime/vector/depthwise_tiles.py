"""Depthwise convolutions as LLVM vector code.

The dot-product instructions want several taps of one channel side by side: *groups* of four uint8 (layout quad) or two
int16 (layout pair) from as many lines of the image. Lines are interleaved once (`make_interleave`), then every tap of a
line of the kernel reads the same vectors, one pixel further on. Interleaving by unpacking leaves a *chunk* of channels
in ``group`` vectors, by lanes of 128 bits; the saturating packs that turn sums into codes put them in order again.

Interleaved lines are stored as [vector, pixel, chunk bytes]: where a chunk is shorter than a vector, one load holds
the same channels of several neighbouring pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from .llvm import I8, I16, I32, I64, loop, splat
from .requantize import Scale, limits, octets, raised, shuffled, words
from .sum_tiles import PAIR_256, PAIR_512, PAIR_ANY, QUAD_256, QUAD_512, Flavour, pair_step, quad_step

Interleave = Callable[[int, int, int, int], None]
PixelCopy = Callable[[int, int, int, int, int], None]
ChannelTile = Callable[[int, int, int, int, int, int, int, int, int, int, int, int, int, int], None]


def taps_in_group(layout: str) -> int:
    """Taps that one step multiplies; a chunk lies in as many vectors."""
    return 4 if layout == "quad" else 2


def _number(value: int) -> Any:
    return ir.Constant(I64, value)


def _at(builder: Any, base: Any, kind: Any, offset: Any = 0) -> Any:
    """A pointer ``offset`` bytes behind an address."""
    address = builder.add(base, _number(offset) if isinstance(offset, int) else offset)
    return builder.inttoptr(address, kind.as_pointer())


def make_interleave(layout: str, chunk_bytes: int, widening: bool = False) -> Interleave:
    """Interleave the lines of one group, pixel by pixel.

    The intrinsic is called with ``(lines, target, vector_bytes, pixels)``: address of pairs of int64, for every line
    the address of the first code and the bytes to the next pixel; address of the result, bytes between its vectors,
    number of pixels. A chunk has ``chunk_bytes`` bytes; when ``widening`` the lines are uint8 and become int16.
    """

    def interleave(typingctx: Any, lines: Any, target: Any, vector_bytes: Any, pixels: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            _emit_interleave(builder, layout, chunk_bytes, widening, *arguments)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 4)), codegen

    return intrinsic(interleave)  # type: ignore[no-any-return]


def _emit_interleave(
    builder: Any, layout: str, chunk_bytes: int, widening: bool, lines: Any, target: Any, vector_bytes: Any, pixels: Any
) -> None:
    group = taps_in_group(layout)
    codes = ir.VectorType(I8, chunk_bytes) if layout == "quad" else ir.VectorType(I16, chunk_bytes // 2)
    stored = ir.VectorType(I8, codes.count) if widening else codes
    starts = [builder.load(_at(builder, lines, I64, 16 * i), align=8) for i in range(group)]
    steps = [builder.load(_at(builder, lines, I64, 16 * i + 8), align=8) for i in range(group)]

    def step(index: Any, places: list[Any]) -> list[Any]:
        loaded = [builder.load(_at(builder, place, stored), align=1) for place in places]
        taps = [builder.zext(value, codes) for value in loaded] if widening else loaded
        offset = builder.mul(index, _number(chunk_bytes))
        for vector, value in enumerate(_interleaved(builder, taps)):
            place = builder.add(offset, builder.mul(vector_bytes, _number(vector)))
            builder.store(value, _at(builder, target, value.type, place), align=16)
        return [builder.add(place, each) for place, each in zip(places, steps, strict=True)]

    loop(builder, pixels, starts, step)


def _interleaved(builder: Any, taps: list[Any]) -> list[Any]:
    """Vectors of whole groups: each lane of 128 bits gives its channels by fours."""
    if len(taps) == 2:
        return [_unpacked(builder, taps[0], taps[1], high) for high in (False, True)]
    pairs = ir.VectorType(I16, taps[0].type.count // 2)
    halves = [
        [builder.bitcast(_unpacked(builder, taps[i], taps[i + 1], high), pairs) for high in (False, True)]
        for i in (0, 2)
    ]
    return [_unpacked(builder, halves[0][side], halves[1][side], high) for side in (0, 1) for high in (False, True)]


def _unpacked(builder: Any, a: Any, b: Any, high: bool) -> Any:
    """The elements of a and b in turns, of the lower or the upper half of every 128 bits."""
    lane, count = 128 // a.type.element.width, a.type.count
    places = [base + high * (lane // 2) + i for base in range(0, count, lane) for i in range(lane // 2)]
    return shuffled(builder, a, b, [place + side for place in places for side in (0, count)])


def make_channel_tile(flavour: Flavour, pixels: int, rows: int, wide: bool) -> ChannelTile:
    """Codes of one chunk of channels for ``blocks`` times ``pixels`` neighbouring vectors of pixels in ``rows`` rows
    of the output.

    The intrinsic is called with ``(blocks, q, vector_bytes, offsets, taps, w, tap_bytes, heads, y, y_step, y_row,
    y_zp, lo, hi)``: address of the interleaved lines and bytes between their vectors; of int64 offsets in bytes, one
    for every group of lines and column of the kernel, and their number; of weights (for each tap the groups of row 0,
    then of row 1) and the bytes between taps; of bias and the vectors of `requantize.Scale`, each as int32 in the
    order of a chunk's vectors; of the first code, bytes to the next vector of pixels and to the next row; zero point
    and limits of a code. Codes are int16 when ``wide``, else uint8.
    """

    def tile(
        typingctx: Any,
        blocks: Any,
        q: Any,
        vector_bytes: Any,
        offsets: Any,
        taps: Any,
        w: Any,
        tap_bytes: Any,
        heads: Any,
        y: Any,
        y_step: Any,
        y_row: Any,
        y_zp: Any,
        lo: Any,
        hi: Any,
    ) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            if flavour.isa.supported:
                _ChannelWriter(builder, flavour, pixels, rows, wide, arguments).emit()
            return context.get_dummy_value()

        return types.void(*([types.int64] * 14)), codegen

    return intrinsic(tile)  # type: ignore[no-any-return]


class _ChannelWriter:
    """Writes the LLVM code of one channel tile."""

    def __init__(self, builder: Any, flavour: Flavour, pixels: int, rows: int, wide: bool, arguments: Any) -> None:
        self.builder, self.flavour, self.pixels, self.rows, self.wide = builder, flavour, pixels, rows, wide
        (
            self.blocks,
            self.q,
            self.vector_bytes,
            self.offsets,
            self.taps,
            self.w,
            self.tap_bytes,
            self.heads,
            self.y,
            self.y_step,
            self.y_row,
            self.y_zp,
            self.lo,
            self.hi,
        ) = arguments
        self.group, self.size = taps_in_group(flavour.layout), flavour.bits // 8
        self.sums = ir.VectorType(I32, self.size // 4)
        self.codes = ir.VectorType(I8, self.size) if flavour.layout == "quad" else ir.VectorType(I16, self.size // 2)
        self.step = quad_step if flavour.layout == "quad" else pair_step

    def emit(self) -> None:
        """All blocks."""
        builder, q, y, pitch = self.builder, self.q, self.y, self.builder.mul(self.y_step, _number(self.pixels))

        def block(index: Any, _: list[Any]) -> list[Any]:
            self.q = builder.add(q, builder.mul(index, _number(self.pixels * self.size)))
            self.y = builder.add(y, builder.mul(index, pitch))
            self._block()
            return []

        loop(builder, self.blocks, [], block)

    def _block(self) -> None:
        builder, outputs = self.builder, range(self.pixels * self.rows)
        start = [builder.load(self._head(0, v), align=4) for v in range(self.group)] * len(outputs)
        sums = raised(builder, [self._scale(v) for v in range(self.group)], loop(builder, self.taps, start, self._tap))
        for v in range(self.group):  # vector by vector: the constants of one at a time fit the registers
            for output in outputs:
                sums[output * self.group + v] = self._scale(v).apply(sums[output * self.group + v])
        for output in outputs:
            self._store(*divmod(output, self.rows), sums[output * self.group : (output + 1) * self.group])

    def _head(self, which: int, vector: int) -> Any:
        return _at(self.builder, self.heads, self.sums, (which * self.group + vector) * self.size)

    def _scale(self, vector: int) -> Scale:
        return Scale(self.builder, lambda which: self.builder.load(self._head(1 + which, vector), align=4))

    def _load(self, address: Any, offset: int) -> Any:
        return self.builder.load(_at(self.builder, address, self.codes, offset), align=1)

    def _tap(self, index: Any, sums: list[Any]) -> list[Any]:
        builder = self.builder
        place = builder.add(
            self.q, builder.load(_at(builder, self.offsets, I64, builder.mul(index, _number(8))), align=8)
        )
        weights = builder.add(self.w, builder.mul(index, self.tap_bytes))
        result = list(sums)
        for v in range(self.group):
            factors = [self._load(weights, (row * self.group + v) * self.size) for row in range(self.rows)]
            vector = builder.add(place, builder.mul(self.vector_bytes, _number(v)))
            for pixel in range(self.pixels):
                codes = self._load(vector, pixel * self.size)
                for row in range(self.rows):
                    at = (pixel * self.rows + row) * self.group + v
                    result[at] = self.step(builder, self.flavour, sums[at], codes, factors[row])
        return result

    def _store(self, pixel: int, row: int, values: list[Any]) -> None:
        builder = self.builder
        place = builder.add(builder.mul(self.y_step, _number(pixel)), builder.mul(self.y_row, _number(row)))
        zero = splat(builder, builder.trunc(self.y_zp, I32), self.sums.count)
        for index, codes in enumerate(self._narrowed([builder.add(value, zero) for value in values])):
            builder.store(
                codes, _at(builder, self.y, codes.type, builder.add(place, _number(index * self.size))), align=1
            )

    def _narrowed(self, values: list[Any]) -> list[Any]:
        """Codes in the order of the channels, limited."""
        builder = self.builder
        halves = [words(builder, values[i], values[i + 1]) for i in range(0, self.group, 2)]
        count = halves[0].type.count
        if not self.wide and self.group == 4:
            return [limits(builder, octets(builder, *halves), self.lo, self.hi)]
        if not self.wide:
            return [builder.trunc(limits(builder, halves[0], self.lo, self.hi), ir.VectorType(I8, count))]
        if self.group == 2:
            return [limits(builder, halves[0], self.lo, self.hi)]
        order = [8 * lane + side + i for lane in range(count // 8) for side in (0, count) for i in range(8)]
        return [
            limits(builder, shuffled(builder, halves[0], halves[1], order[first : first + count]), self.lo, self.hi)
            for first in (0, count)
        ]


def make_pixel_copy(width: int) -> PixelCopy:
    """Copy ``width`` bytes of every pixel; called with ``(target, target_step, source, source_step, pixels)``,
    the steps in bytes.
    """

    def copy(typingctx: Any, target: Any, target_step: Any, source: Any, source_step: Any, pixels: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            to, to_step, start, start_step, count = arguments
            kind = ir.VectorType(I8, width)

            def step(_: Any, places: list[Any]) -> list[Any]:
                builder.store(
                    builder.load(_at(builder, places[1], kind), align=1), _at(builder, places[0], kind), align=1
                )
                return [builder.add(places[0], to_step), builder.add(places[1], start_step)]

            loop(builder, count, [to, start], step)
            return context.get_dummy_value()

        return types.void(*([types.int64] * 5)), codegen

    return intrinsic(copy)  # type: ignore[no-any-return]


INTERLEAVES: dict[Interleave, tuple[str, int, bool]] = {}
"""Every interleaving with what it was made for."""

CHANNEL_TILES: dict[ChannelTile, tuple[Flavour, int, int, bool]] = {}
"""Every channel tile with what it was made for."""


def _interleave(layout: str, chunk_bytes: int, widening: bool = False) -> Interleave:
    made = make_interleave(layout, chunk_bytes, widening)
    INTERLEAVES[made] = (layout, chunk_bytes, widening)
    return made


def channel_tile(flavour: Flavour, pixels: int, rows: int, wide: bool) -> ChannelTile:
    """A channel tile, in the list."""
    tile = make_channel_tile(flavour, pixels, rows, wide)
    CHANNEL_TILES[tile] = (flavour, pixels, rows, wide)
    return tile


quads_64, quads_32, quads_16 = (_interleave("quad", size) for size in (64, 32, 16))
pairs_64, pairs_32, pairs_16 = (_interleave("pair", size) for size in (64, 32, 16))
widened_64, widened_32, widened_16 = (_interleave("pair", size, True) for size in (64, 32, 16))
copy_64, copy_32, copy_16, copy_8 = (make_pixel_copy(width) for width in (64, 32, 16, 8))

PIXEL_COPIES = {copy_64: 64, copy_32: 32, copy_16: 16, copy_8: 8}
"""Every copy of pixels, and its bytes."""

MANY_PIXELS = {QUAD_512: (4, 3), PAIR_512: (4, 3), QUAD_256: (2, 1), PAIR_256: (4, 3), PAIR_ANY: (4, 3)}
"""Vectors of pixels that the larger tile of one row, of two rows computes: as many as the registers hold."""
